"""The tap as a program: faults that change while it runs, TLS on either side, and what it leaves for Wireshark."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from capture.commands.tap import _Troubles
from capture.events import Problem
from kit.certificates import lab_certificate

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 30
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")


class _Echo(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


@contextlib.contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2), [_Echo()], options=[("grpc.so_reuseport", 0)])
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    yield port
    server.stop(None).wait()


class Program:
    """A tap that runs, as somebody sees it who reads its lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._typed, self._told, self._rows = process.stdin, process.stderr, process.stdout
        found = re.match(r"127\.0\.0\.1:(\d+) forwards to ", self.says())
        assert found
        self.port = int(found[1])

    def says(self) -> str:
        return self._told.readline().rstrip("\n")

    def types(self, line: str) -> str:
        """And what is answered."""
        self._typed.write(line + "\n")
        self._typed.flush()
        return self.says()

    def may_write(self, octets: int) -> None:
        """Into a file, as if the disk were full then."""
        import resource

        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (octets, octets))

    def ends(self, status: int = 0) -> list[str]:
        """What it says on standard error when Ctrl-C is pressed."""
        self._process.send_signal(signal.SIGINT)
        self.rows = self._rows.read()
        told = self._told.read().splitlines()
        assert self._process.wait(SECONDS) == status
        return told


@contextlib.contextmanager
def tapping(*arguments: object) -> Iterator[Program]:
    command = [sys.executable, "-m", "capture", "tap", "--listen", "0", *map(str, arguments)]
    env = {**os.environ, "MINICHAT_LANG": "en", "PYTHONWARNINGS": "error"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def say(port: int, authority: Path | None = None) -> bytes:
    """A call through the tap."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if authority is None:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
    else:
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
    with channel:
        call: Callable[..., bytes] = channel.unary_unary("/a.B/C")
        return call(b"\x0a\x04Juan", timeout=SECONDS)


def capture(*arguments: object) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "capture", *map(str, arguments), "--format", "jsonl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def wireshark_doubts(path: Path) -> str:
    """What Wireshark finds odd about the TCP/IP of a file, checksums included."""
    doubts = "tcp.analysis.flags || tcp.checksum.status == Bad || ip.checksum.status == Bad || _ws.malformed"
    checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    command = ["tshark", "-r", str(path), *checks, "-Y", doubts]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_faults_are_said_at_the_start_and_change_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with serving() as port, tapping("--server", f"127.0.0.1:{port}", "--split", 5, "--write", path) as tap:
        assert tap.says() == "pieces of 5 octets"
        assert say(tap.port).endswith(b"Juan")
        assert tap.types("off") == "an honest line"
        assert tap.types("nonsense") == "nonsense is not understood; help lists what is"
        assert tap.types("delay 30ms up") == "up: delay 30 ms · down: an honest line"
        assert say(tap.port).endswith(b"Juan")
        assert tap.types("refuse on").startswith("up: new connections are refused")
        with pytest.raises(grpc.RpcError):
            say(tap.port)
        told = tap.ends()
        assert told[-1].endswith(f"python3 -m capture frames {path}")
    assert "grpc-status 0" in tap.rows
    assert not wireshark_doubts(path)
    lengths: dict[str, list[int]] = defaultdict(list)
    command = ["tshark", "-r", str(path), "-Y", "tcp.len > 0", "-T", "fields", "-e", "tcp.stream", "-e", "tcp.len"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        stream, length = line.split("\t")
        lengths[stream].append(int(length))
    assert max(lengths["0"][:20]) == 5  # the connection's last frames may pass behind "off"
    assert max(lengths["1"]) > 5


def test_tls_itself_is_recorded_with_its_keys_and_wireshark_decrypts_it(tmp_path: Path) -> None:
    path, folder = tmp_path / "wire.pcapng", tmp_path / "certificates"
    options = ["--tls", folder, "--record", "wire", "--write", path, "--key-log", tmp_path / "keys.log"]
    with serving() as port, tapping("--server", f"127.0.0.1:{port}", *options) as tap:
        assert tap.says() == f"clients trust it with --ca {folder / 'ca.pem'}"
        assert say(tap.port, folder / "ca.pem").endswith(b"Juan")
        assert tap.ends()[-1].endswith(f"python3 -m capture frames {path} --engine wireshark")
    assert b"Juan" not in path.read_bytes()
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys.log").read_text()
    assert not wireshark_doubts(path)
    assert [message["message"] for message in capture("messages", path, "--engine", "wireshark")] == [{"1": "Juan"}] * 2


def test_with_tls_on_both_sides_the_plaintext_is_shown_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "plain.pcapng"
    files = lab_certificate(tmp_path, ["localhost", "127.0.0.1"])
    pair = files.server.read_bytes()
    options = ["--tls-cert", files.server, "--ca", files.authority, "--write", path]
    credentials = grpc.ssl_server_credentials([(pair, pair)])
    with serving(credentials) as port, tapping("--server", f"127.0.0.1:{port}", *options) as tap:
        assert say(tap.port, files.authority).endswith(b"Juan")
        tap.ends()
    assert "grpc-status 0" in tap.rows
    assert not wireshark_doubts(path)
    assert [call["status"] for call in capture("calls", path)] == [0]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--stall-seconds", "3"], 2, "--stall says"),
        (["--delay", "soon"], 2, "200ms"),
        (["--delay", "2h"], 2, "200ms"),
        (["--throttle", "0"], 2, "throttle is at least 1"),
        (["--direction", "sideways"], 2, "sideways"),
        (["--record", "wire"], 2, "without TLS there are no keys"),
        (["--key-log", "keys.log"], 2, "without TLS there are no keys"),
        (["--tls", "--tls-cert", "a.pem"], 2, "one of the two is enough"),
        (["--tls-key", "a.pem"], 2, "--tls-cert names"),
        (["--tls-cert", "nowhere.pem"], 2, "nowhere.pem"),
        (["--ca", "nowhere.pem"], 2, "nowhere.pem"),
        (["--server-tls", "--key-log", "nowhere/keys.log"], 3, "cannot be written"),
        (["--write", "nowhere/tap.pcapng"], 3, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from capture import command

    monkeypatch.chdir(tmp_path)
    try:
        ended = command.main(["tap", "--listen", "0", "--server", "127.0.0.1:1", *arguments])
    except SystemExit as end:
        ended = int(end.code or 0)
    shown = capsys.readouterr()
    assert (ended, shown.out) == (status, "")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set no limits for another process")
def test_when_the_file_is_not_whole_it_says_so_and_ends_with_3(tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with serving() as port, tapping("--server", f"127.0.0.1:{port}", "--write", path) as tap:
        tap.may_write(1_000)
        assert say(tap.port).endswith(b"Juan")  # the traffic goes on
        assert tap.says() == "capture: the capture file cannot be written any further: File too large"
        assert tap.ends(status=3) == [f"capture: {path}: not all that passed is in it"]
    assert "→" in tap.rows


def test_problems_are_told_however_many_there_were_before(capsys: pytest.CaptureFixture[str]) -> None:
    troubles = _Troubles(trusts_given=False)
    problems: deque[Problem] = deque(maxlen=3)
    for number in range(6):
        problems.append(Problem(0, 1, None, None, None, "capture", "number {number}", {"reason": number}))
        problems[-1].values["number"] = number
        troubles.tell(list(problems))
    troubles.tell(list(problems))
    assert capsys.readouterr().err == "".join(f"capture: number {number}\n" for number in range(6))
    assert troubles.had("number {number}")


@pytest.mark.parametrize(
    ("server_speaks_tls", "options", "problem", "hint"),
    [
        (True, [], "the server ended it without a word", "if it speaks TLS, --ca FILE says whom the tap is to trust"),
        (True, ["--server-tls"], "TLS with the server failed: ", "the tap trusts whom this system trusts; --ca FILE"),
        (
            False,
            ["--server-tls"],
            "TLS with the server failed: WRONG_VERSION_NUMBER",
            "leave out --server-tls and --ca",
        ),
    ],
)
def test_what_keeps_every_client_from_the_server_is_told_once_with_what_helps(
    tmp_path: Path, server_speaks_tls: bool, options: list[str], problem: str, hint: str
) -> None:
    files = lab_certificate(tmp_path, ["localhost", "127.0.0.1"])
    pair = files.server.read_bytes()
    credentials = grpc.ssl_server_credentials([(pair, pair)]) if server_speaks_tls else None
    with serving(credentials) as port, tapping("--server", f"127.0.0.1:{port}", *options) as tap:
        for _attempt in range(3):
            with pytest.raises(grpc.RpcError):
                say(tap.port)
        told = tap.says()
        assert told.startswith("capture: connection 0: ")
        assert problem in told
        assert hint in tap.says()
        assert tap.ends() == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_in_a_terminal_a_prompt_takes_lines_and_ctrl_c_ends_it() -> None:
    import pty

    ours, theirs = pty.openpty()
    env = {**os.environ, "MINICHAT_LANG": "en", "TERM": "xterm", "COLUMNS": "120"}
    with serving() as port:
        command = [sys.executable, "-m", "capture", "tap", "--listen", "0", "--server", f"127.0.0.1:{port}"]
        with subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = ""

            def until(text: str) -> None:
                nonlocal shown
                while text not in shown:
                    shown += os.read(ours, 65_536).decode("utf-8", "replace")

            try:
                until("Ctrl-C ends it")
                os.write(ours, b"delay 30ms down\r")
                until("down: delay 30 ms")
                found = re.search(r"127\.0\.0\.1:(\d+) forwards", shown)
                assert found
                assert say(int(found[1])).endswith(b"Juan")
                until("grpc-status 0")
                # While rows are written the terminal is not raw for a moment, and this one, which controls no process,
                # makes no signal of Ctrl-C then.
                deadline = time.monotonic() + SECONDS
                while process.poll() is None and time.monotonic() < deadline:
                    os.write(ours, b"\x03")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1)
                assert process.poll() == 0
            finally:
                process.kill()
                os.close(ours)
