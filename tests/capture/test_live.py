"""`capture live` and `capture interfaces` as people start them, on this machine's loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from capture import command
from capture.events import Packet
from capture.export import Writer
from capture.pcap import read
from capture.sources import sniff
from capture.sources.rights import may_sniff
from capture.sources.sniff import SniffError
from tests.capture.engine_factory import ETHERNET, Chatter, chat, events_of, frames_of
from tests.capture.loopback import Line

ROOT = Path(__file__).parent.parent.parent
SECONDS = 30
"""Longest wait for a program to say what it should; passed only where something is broken."""
may = pytest.mark.skipif(not may_sniff(), reason="this user may not sniff")


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    def run(*arguments: object) -> Ran:
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Ran(status, out.decode(), err.decode())

    return run


class Listening:
    """The program itself, listening."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.out, self.err = process, process.stdout, process.stderr
        self.hello = self.err.readline().decode()

    def end(self, number: int | None = None) -> Ran:
        """With a signal, or by itself; what it has written since."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.out.read().decode(), self.err.read().decode()
        return Ran(self.process.wait(SECONDS), out, err)


@contextmanager
def live(port: int, *arguments: object) -> Iterator[Listening]:
    words = [sys.executable, "-m", "capture", "live", "--port", str(port), *map(str, arguments)]
    env = {**os.environ, "MINICHAT_LANG": "en", "PYTHONWARNINGS": "error"}
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Listening(process)
        finally:
            process.kill()


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as line:
        yield line


# --- live


@may
def test_frames_are_shown_as_they_pass_and_are_those_of_the_file(greeter: int, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "live.pcapng"
    with live(greeter, "--write", path, "--format", "jsonl") as listening:
        assert listening.hello == f"Listening on {sniff._find('').name}, port {greeter}; Ctrl-C ends it\n"
        with grpc.insecure_channel(f"127.0.0.1:{greeter}", [("grpc.enable_http_proxy", 0)]) as channel:
            call: Callable[..., bytes] = channel.unary_unary("/a.B/C")
            assert call(b"\x0a\x04Juan", timeout=SECONDS) == b"\x0a\x04Juan"
            lines: list[bytes] = []
            while not lines or json.loads(lines[-1]).get("fields", [])[:1] != [["grpc-status", "0"]]:
                lines.append(listening.out.readline())
                assert lines[-1]
        rest = listening.end(signal.SIGINT)
    shown = Ran(0, b"".join(lines).decode() + rest.out, "")
    assert rest.status == 0
    with path.open("rb") as file:
        reader = read(file)
        count = sum(map(len, reader))
        [interface] = reader.interfaces
    assert (interface.received, interface.dropped, reader.synthesised) == (count, 0, False)
    assert rest.err.splitlines() == [
        f"{interface.name}: {count} packets, {len(shown.records)} frames of 1 connection; dropped by the kernel: 0",
        f"{path}: {count} packets · python3 -m capture frames {path} --port {greeter}",
    ]
    assert run("frames", path, "--port", greeter, "--format", "jsonl").records == shown.records
    assert {record["server"] for record in shown.records} == {f"127.0.0.1:{greeter}"}
    assert [record["message"] for record in run("messages", path, "--format", "jsonl").records] == [{"1": "Juan"}] * 2


@may
def test_tshark_finds_the_same_frames_in_the_file(line: Line, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    path = tmp_path / "live.pcapng"
    with live(line.port, "--write", path, "--format", "jsonl") as listening:
        line.chat(5)
        while json.loads(listening.out.readline()).get("fields", [])[:1] != [["grpc-status", "0"]]:
            pass
        listening.end(signal.SIGINT)
    fields = [word for name in ("frame.number", "http2.type", "http2.streamid") for word in ("-e", name)]
    words = ["tshark", "-r", str(path), "-d", f"tcp.port=={line.port},http2", "-Y", "http2", "-T", "fields", *fields]
    theirs = subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.splitlines()
    found: list[list[str]] = []
    for record in frames_of(events_of(packets_of(path))):
        number, kind, stream = map(str, (record.packet, record.type_code, record.stream_id))
        if found and found[-1][0] == number:
            found[-1] = [number, f"{found[-1][1]},{kind}", f"{found[-1][2]},{stream}"]
        else:
            found.append([number, kind, stream])
    told = [text.split("\t") for text in theirs]
    assert [[number, kinds] for number, kinds, _streams in told if kinds] == [row[:2] for row in found]
    assert len(found) > 20


def packets_of(path: Path) -> list[Packet]:
    with path.open("rb") as file:
        return [packet for batch in read(file) for packet in batch]


@may
def test_a_connection_that_is_open_already_is_joined(line: Line, tmp_path: Path, run: Any) -> None:
    pieces = Chatter(1).pieces(4)
    path = tmp_path / "late.pcapng"
    line.dial().play(pieces[:12])
    with live(line.port, "--frames", 10, "--format", "jsonl", "--write", path) as listening:
        line.play(pieces[12:])
        ran = listening.end()
    assert ran.status == 0
    assert len(ran.records) == 10
    assert run("frames", path, "--port", line.port, "--format", "jsonl").records[:10] == ran.records
    assert {record["server"] for record in ran.records} == {f"127.0.0.1:{line.port}"}


@may
def test_it_ends_after_as_many_frames_as_were_asked_for(line: Line) -> None:
    with live(line.port, "--frames", 3, "--type", "DATA", "--stream", 3) as listening:
        line.chat(3)
        ran = listening.end()
    assert ran.status == 0
    assert len(re.findall(r"^.*  3 +DATA ", ran.out, re.M)) == 3
    assert "HEADERS" not in ran.out
    assert "of 1 connection;" in ran.err


@may
def test_it_ends_after_the_seconds_that_were_asked_for(line: Line) -> None:
    with live(line.port, "--seconds", 0.2) as listening:
        ran = listening.end()
    assert (ran.status, ran.out) == (0, "")
    assert re.fullmatch(r"\w+: 0 packets, 0 frames of 0 connections; dropped by the kernel: 0\n", ran.err)


@may
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_table_is_shown_as_frames_come_and_ctrl_c_ends_it(line: Line, number: int) -> None:
    with live(line.port) as listening:
        line.dial().play(Chatter(1).beginning())
        while b"SETTINGS ack" not in listening.out.readline():
            pass
        ran = listening.end(number)
    assert ran.status == 0
    assert "5 frames of 1 connection" in ran.err


@may
def test_who_reads_its_output_may_leave(line: Line) -> None:
    with live(line.port, "--format", "jsonl") as listening:
        line.dial().play(Chatter(1).beginning())
        assert listening.out.readline()
        listening.out.close()
        line.play(Chatter(1).call())
        assert listening.process.wait(SECONDS) == 0
        assert listening.err.read() == b""


# --- what goes wrong


WITHOUT_THE_RIGHT = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_NET_RAW = 24, 13
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0)  # fails for who does not have it anyway
os.execv(sys.executable, [sys.executable, "-m", "capture", *sys.argv[1:]])
"""


def without_the_right(*arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_RIGHT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="rights are given up as Linux does it")
def test_without_the_right_one_sentence_says_how_to_get_it_and_the_status_is_3(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    ran = without_the_right("live", "--write", str(path))
    assert (ran.status, ran.out) == (3, "")
    [told] = ran.err.splitlines()
    assert "sudo " in told
    assert "sudo setcap cap_net_raw,cap_net_admin=eip /" in told
    assert "python3 -m capture tap needs none" in told
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="rights are given up as Linux does it")
def test_interfaces_are_listed_without_the_right_which_is_said() -> None:
    ran = without_the_right("interfaces")
    assert ran.status == 0
    assert re.search(r"^lo +up +127\.0\.0\.1.*loopback", ran.out, re.M)
    assert "sudo setcap" in ran.out.splitlines()[-1]
    records = without_the_right("interfaces", "--format", "jsonl").records
    assert {record["may_sniff"] for record in records} == {False}


def test_an_interface_that_is_not_there_is_misuse(run: Any) -> None:
    ran = run("live", "--interface", "nix")
    assert ran.status == 2
    assert re.fullmatch(r"capture: there is no interface 'nix'; there are .*\blo.*\n", ran.err)


@may
@pytest.mark.parametrize("name", ["/nix/a.pcapng", "/dev/full"])
def test_a_file_that_cannot_be_written_ends_with_3(run: Any, name: str) -> None:
    ran = run("live", "--write", name, "--seconds", "0.1")
    assert ran.status == 3
    assert re.fullmatch(rf"(Listening.*\n)?capture: {name} cannot be written: .+\n", ran.err)


@pytest.mark.parametrize(
    "words", ["--port 0", "--port 65536", "--frames 0", "--frames x", "--seconds 0", "--seconds inf", "--seconds x"]
)
def test_what_makes_no_sense_is_misuse(run: Any, words: str) -> None:
    ran = run("live", *words.split())
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert words.split()[0] in ran.err


class _Source:
    """An interface that gives these packets and then, if it `goes`, an error."""

    link_type, has_filter = ETHERNET, False

    def __init__(self, packets: list[Packet], goes: bool) -> None:
        self._batches = [packets[start : start + 5] for start in range(0, len(packets), 5)]
        self._goes = goes

    def ready(self, _timeout: float | None) -> bool:
        return bool(self._batches) or self._goes

    def read(self) -> list[tuple[int, bytes, int]]:
        if not self._batches:
            raise SniffError("lo gives no more packets: Network is down")
        return [(packet.time_ns, packet.data, packet.length) for packet in self._batches.pop(0)]

    def dropped(self) -> int:
        return 3

    def close(self) -> None:
        pass


@pytest.mark.parametrize("most_waiting", [0, 64 << 20])
def test_when_the_interface_goes_all_is_shown_first_and_the_status_is_3(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most_waiting: int
) -> None:
    packets = chat(5).packets
    path = tmp_path / "gone.pcapng"
    monkeypatch.setattr(sniff, "_open", lambda *_arguments: _Source(packets, goes=True))
    monkeypatch.setattr("capture.commands.live.MAX_WAITING", most_waiting or 1)
    ran = run("live", "--format", "jsonl", "--write", path)
    frames = frames_of(events_of(packets))
    assert ran.out.encode() == Writer("frames", "jsonl").lines(frames)
    assert ran.status == 3
    name = sniff._find("").name
    assert ran.err.splitlines()[1:] == [
        f"{name}: {len(packets)} packets, {len(frames)} frames of 1 connection; dropped by the kernel, of all ports: 3",
        f"{path}: {len(packets)} packets · python3 -m capture frames {path} --port 50051",
        "capture: lo gives no more packets: Network is down",
    ]
    assert packets_of(path) == packets


def test_what_the_kernel_still_has_at_the_end_is_shown_and_written(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packets = chat(5).packets
    path = tmp_path / "all.pcapng"
    monkeypatch.setattr(sniff, "_open", lambda *_arguments: _Source(packets, goes=False))
    ran = run("live", "--format", "jsonl", "--write", path, "--seconds", "0.000000001")
    assert ran.status == 0
    assert ran.out.encode() == Writer("frames", "jsonl").lines(frames_of(events_of(packets)))
    assert packets_of(path) == packets


# --- interfaces


def test_interfaces_are_listed_for_people_and_for_programs(run: Any) -> None:
    table = run("interfaces")
    assert table.status == 0
    assert re.search(r"^lo\w* +up +127\.0\.0\.1.* loopback", table.out, re.M)
    assert ("This user may sniff." in table.out) is may_sniff()
    records = run("interfaces", "--format", "jsonl").records
    assert set(records[0]) == {"name", "description", "addresses", "up", "loopback", "may_sniff"}
    assert records[0]["loopback"]
    assert {record["may_sniff"] for record in records} == {may_sniff()}
