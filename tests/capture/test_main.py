"""The command line as people and programs use it: formats, choices, exit statuses, pipes, Ctrl-C, the tap."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hpack import Encoder

from capture import command, read
from capture.events import FrameType
from capture.export import COLUMNS, FORMATS, Writer
from capture.pcap import Writer as CaptureWriter
from tests.capture.engine_factory import (
    DOWN,
    ETHERNET,
    REQUEST,
    UP,
    Tape,
    chat,
    crowd,
    data,
    goaway,
    headers,
    message,
    ping,
    rst_stream,
)

ROOT = Path(__file__).parent.parent.parent
KINDS = ("frames", "messages", "calls", "windows", "problems")
SECONDS = 30
"""Longest wait for a program to say what it should; passed only where something is broken."""


def written(tape: Tape, path: Path, synthesised: bool = False) -> Path:
    with path.open("wb") as file:
        CaptureWriter(file, ETHERNET, synthesised=synthesised).write(tape.packets)
    return path


@pytest.fixture(scope="module")
def capture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three connections at once."""
    return written(crowd(3, 4), tmp_path_factory.mktemp("captures") / "crowd.pcapng")


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cut in the middle of a packet, and with a frame that breaks the protocol."""
    talk = Tape().talk().open().send(UP, headers(1, b"\x82\x84", flags=5)).send(UP, b"\0\0\4\x08\0\0\0\0\1\0\0\0\0")
    path = written(talk.tape, tmp_path_factory.mktemp("captures") / "damaged.pcapng")
    path.write_bytes(path.read_bytes()[:-10])
    return path


class Ran:
    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status, self.octets = status, out
        self.out, self.err = out.decode(), err.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.octets.splitlines()]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    def run(*arguments: object) -> Ran:
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        return Ran(status, *capfdbinary.readouterr())

    return run


@contextmanager
def started(*arguments: object, **changes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The program itself."""
    env = {**os.environ, "MINICHAT_LANG": "en", "PYTHONWARNINGS": "error", **changes.pop("env", {})}
    with subprocess.Popen(
        [sys.executable, "-m", "capture", *map(str, arguments)],
        cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **changes,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def whole(*arguments: object, data: bytes = b"") -> Ran:
    with started(*arguments) as process:
        out, err = process.communicate(data, timeout=SECONDS)
        return Ran(process.returncode, out, err)


# --- what is written


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_write_what_the_api_yields(run: Any, capture_file: Path, kind: str, form: str) -> None:
    seen = read(capture_file)
    writer = Writer(kind, form)
    ran = run(kind, capture_file, "--format", form)
    assert ran.octets == writer.header + writer.lines(getattr(seen, kind))
    assert (ran.status, ran.err) == (0, "")
    assert kind == "problems" or ran.octets.count(b"\n") > 10


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_says_the_same(run: Any, capture_file: Path, kind: str) -> None:
    lines = run(kind, capture_file, "--format", "jsonl").records
    rows = list(csv.DictReader(io.StringIO(run(kind, capture_file, "--format", "csv").out)))
    head, *cells = run(kind, capture_file, "--format", "tsv").out.splitlines()
    assert len(rows) == len(cells) == len(lines)
    for line, row, cell in zip(lines, rows, cells, strict=True):
        assert list(row) == head.split("\t") == list(COLUMNS[kind])
        assert list(row.values()) == cell.split("\t")
        for name, value in line.items():
            nested = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            said = "" if value is None else value if isinstance(value, str) else nested
            assert row[name] == said


def test_the_table_is_the_default_and_shows_each_connection_by_itself(run: Any, capture_file: Path) -> None:
    ran = run("frames", capture_file)
    titles = re.findall(
        r"^Connection (\d) · 10\.0\.0\.1:4000\d ⇄ 10\.0\.0\.2:50051 · \d+ frames, 4 streams$", ran.out, re.M
    )
    assert titles == ["0", "1", "2"]
    assert "\x1b" not in ran.out


def test_a_capture_too_long_to_be_kept_is_shown_in_its_order(
    run: Any, capture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capture.output.MAX_GROUPED", 10)
    out = run("frames", capture_file).out
    rows = [line.split() for line in out.splitlines() if "SETTINGS" in line]
    assert {row[0] for row in rows} == {"0", "1", "2"}
    assert out.count("Connection 1 ·") == 1


def test_the_table_is_as_wide_as_columns_says(run: Any, capture_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        for kind in KINDS:
            lines = run(kind, capture_file).out.splitlines()
            assert max(map(len, lines), default=0) <= columns
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, run("frames", capture_file).out.splitlines())) > 120


def test_chosen_columns_of_a_table_stand_side_by_side(run: Any, capture_file: Path) -> None:
    head, first, *_rest = run("frames", capture_file, "--fields", "packet,type,flag_names").out.splitlines()
    assert re.fullmatch(r"packet  type +flag_names", head)
    assert re.fullmatch(r"\d+ +SETTINGS +\[\]", first)
    assert head.index("flag_names") == first.index("[]")


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_columns_are_exactly_those(run: Any, capture_file: Path, kind: str) -> None:
    names = list(reversed(COLUMNS[kind]))[:3]
    for record in run(kind, capture_file, "--format", "jsonl", "--fields", ", ".join(names)).records:
        assert list(record) == names


def test_without_field_sections_the_columns_are_the_same(run: Any, capture_file: Path) -> None:
    """Columns that need no field section are written without decoding any."""
    names = "packet,time_ns,connection,offset,type,type_code,stream_id,length,flags,data_length"
    fast = run("frames", capture_file, "--format", "jsonl", "--fields", names).records
    full = run("frames", capture_file, "--format", "jsonl").records
    assert [[record[name] for name in names.split(",")[:-1]] for record in fast] == [
        [record[name] for name in names.split(",")[:-1]] for record in full
    ]


def test_choices_narrow_what_is_shown(run: Any, capture_file: Path) -> None:
    everything = run("frames", capture_file, "--format", "jsonl").records

    def chosen(*arguments: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run("frames", capture_file, "--format", "jsonl", *arguments).records
        return found

    assert chosen("--connection", 1) == [record for record in everything if record["connection"] == 1] != []
    assert chosen("--stream", 3) == [record for record in everything if record["stream_id"] == 3] != []
    assert chosen("--type", "data") == [record for record in everything if record["type"] == "DATA"] != []
    assert chosen("--type", "0x1", "--type", "PING") == [
        record for record in everything if record["type"] in ("HEADERS", "PING")
    ]
    assert chosen("--connection", 99) == []
    windows = run("windows", capture_file, "--format", "jsonl", "--connection", 2, "--stream", 0).records
    assert {(record["connection"], record["stream_id"]) for record in windows} == {(2, 0)}
    table = run("frames", capture_file, "--connection", 2, "--type", "SETTINGS").out
    assert "Connection 2 ·" in table
    assert "Connection 1 ·" not in table
    assert "HEADERS" not in table


def test_problems_of_one_stream_can_be_asked_for(run: Any, tmp_path: Path) -> None:
    talk = Tape().talk().open().send(UP, headers(1, b"\x82\x84", flags=0) + ping())
    path = written(talk.tape, tmp_path / "a.pcapng")
    (record,) = run("problems", path, "--stream", 1, "--format", "jsonl").records
    assert "stream 1" in record["reason"]
    assert run("problems", path, "--stream", 3, "--format", "jsonl").records == []


def test_compressed_captures_are_read_too(run: Any, capture_file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.pcapng.gz"
    packed.write_bytes(gzip.compress(capture_file.read_bytes()))
    assert run("frames", packed, "--format", "tsv").octets == run("frames", capture_file, "--format", "tsv").octets


def test_messages_are_read_by_what_the_user_names_before_the_kits_own(run: Any, tmp_path: Path) -> None:
    talk = Tape().talk().open()
    talk.send(UP, headers(1, Encoder().encode(REQUEST)) + data(1, message(b"\x0a\x04Juan"), flags=1))
    path = written(talk.tape, tmp_path / "a.pcapng")
    assert [record["message"] for record in run("messages", path, "--format", "jsonl").records] == [{"user": "Juan"}]
    other = tmp_path / "other.proto"
    other.write_text(
        'syntax = "proto3"; package minichat.v1; message Line { string who = 1; }'
        "service ChatService { rpc Chat(stream Line) returns (stream Line); }"
    )
    ran = run("messages", path, "--format", "jsonl", "--proto", other)
    assert [record["message"] for record in ran.records] == [{"who": "Juan"}]
    compiled = tmp_path / "other.binpb"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--descriptor_set_out={compiled}", str(other)],
        check=True,
    )
    ran = run("messages", path, "--format", "jsonl", "--descriptor-set", compiled)
    assert [record["message"] for record in ran.records] == [{"who": "Juan"}]
    assert 'Line {who: "Juan"}' in run("frames", path, "--proto", other).out


def test_a_taps_capture_says_that_its_tcp_is_synthesised(run: Any, tmp_path: Path) -> None:
    path = written(chat(), tmp_path / "a.pcapng", synthesised=True)
    for kind in ("frames", "messages", "calls", "windows"):
        assert run(kind, path).out.startswith("Recorded by a tap: octets and times are real, the TCP/IP")
    assert "Recorded by" not in run("frames", path, "--format", "tsv").out
    assert "synthesised" in run("timeline", path, "-o", tmp_path / "a.png").out


# --- pictures


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_the_timeline_is_written_and_told(run: Any, capture_file: Path, tmp_path: Path, ending: str) -> None:
    ran = run("timeline", capture_file, "--view", "timeline", "-o", tmp_path / f"t.{ending}")
    assert (ran.status, ran.err) == (0, "")
    assert (tmp_path / f"t.{ending}").stat().st_size > 10_000
    assert "connection 2 · 10.0.0.1:40002 ⇄ 10.0.0.2:50051" in ran.out
    assert "stream 5 · Chat" in ran.out


def test_a_timeline_shows_what_was_chosen(run: Any, capture_file: Path, tmp_path: Path) -> None:
    out = run("timeline", capture_file, "--connection", 1, "--stream", 3, "-o", tmp_path / "t.png", "--linear").out
    assert re.findall(r"stream \d+", out) == ["stream 3"]


# --- what goes wrong


@pytest.mark.parametrize("kind", [*KINDS, "timeline"])
def test_a_damaged_capture_is_read_and_one_line_says_so(
    run: Any, damaged_file: Path, tmp_path: Path, kind: str
) -> None:
    more = ("-o", tmp_path / "t.png") if kind == "timeline" else ("--format", "jsonl")
    ran = run(kind, damaged_file, *more)
    assert ran.status == 0
    assert ran.out or kind in ("messages", "windows")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(f"capture: {damaged_file}: the file is cut short")
    if kind == "problems":
        assert [record["layer"] for record in ran.records if "cut short" in record["reason"]] == ["capture"]


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "nothing in it"), (b"%PDF-1.7", ""), (b"\0" * 100, ""), (b"\xd4\xc3\xb2\xa1\x02", "")]
)
def test_what_is_no_capture_ends_with_1_and_one_line(run: Any, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    for kind in (*KINDS, "timeline"):
        for form in ("table", "tsv"):
            ran = run(kind, path, *(("--format", form) if kind != "timeline" else ()))
            assert ran.status == 1
            assert len(ran.err.splitlines()) == 1
            assert said in ran.err.lower()
            assert str(path) in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frames"],
        ["frames", "nowhere.pcap"],
        ["frames", "."],
        ["nonsense", "FILE"],
        ["frames", "FILE", "--format", "xml"],
        ["frames", "FILE", "--format", "csv", "--fields", "packet,colour"],
        ["frames", "FILE", "--fields", "colour"],
        ["windows", "FILE", "--format", "jsonl", "--fields", ""],
        ["frames", "FILE", "--type", "SETTING"],
        ["frames", "FILE", "--type", "256"],
        ["frames", "FILE", "--connection", "-1"],
        ["frames", "FILE", "--stream", "x"],
        ["frames", "FILE", "--port", "70000"],
        ["calls", "FILE", "--type", "DATA"],
        ["messages", "FILE", "--proto", "nowhere.proto"],
        ["messages", "FILE", "--descriptor-set", "nowhere.binpb"],
        ["messages", "FILE", "--descriptor-set", "FILE"],
        ["timeline", "FILE", "-o", "picture.gif"],
        ["timeline", "FILE", "--view", "pie"],
        ["export", "FILE", "-o", "-"],
        ["export", "FILE", "-o", ""],
        ["live", "--write", "-"],
        ["live", "--write", ""],
        ["live", "--interface", ""],
        ["tap", "--listen", "0", "--server", "1", "--write", "-"],
        ["tap", "--listen", "0", "--server", "1", "--tls", ""],
        ["tap", "--listen", "0", "--server", "1", "--ca", ""],
        ["tap", "--listen", "0", "--server", "1", "--tls", "--key-log", ""],
        ["tap", "--listen", "0"],
        ["tap", "--listen", "0", "--server", "nowhere"],
    ],
)  # fmt: skip
def test_misuse_ends_with_2_and_one_line(run: Any, capture_file: Path, arguments: list[str]) -> None:
    ran = run(*[str(capture_file) if argument == "FILE" else argument for argument in arguments])
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""


def test_a_picture_that_cannot_be_written_ends_with_3(run: Any, capture_file: Path, tmp_path: Path) -> None:
    ran = run("timeline", capture_file, "-o", tmp_path / "nowhere" / "t.png")
    assert ran.status == 3
    assert len(ran.err.splitlines()) == 1


def test_a_capture_without_frames_has_nothing_to_draw(run: Any, tmp_path: Path) -> None:
    path = written(Tape(), tmp_path / "a.pcapng")
    assert run("frames", path).status == 0
    ran = run("timeline", path, "-o", tmp_path / "t.png")
    assert (ran.status, ran.out) == (1, "")
    assert "no HTTP/2 frames to draw" in ran.err


def test_hostile_names_and_values_do_not_reach_the_terminal(run: Any, tmp_path: Path) -> None:
    ran = run("frames", tmp_path / "a\x1b[31m\n.pcap")
    assert ran.status == 2
    assert "\x1b" not in ran.err
    assert len(ran.err.splitlines()) == 1


def test_help_names_the_commands_and_the_columns(run: Any) -> None:
    ran = run("--help")
    assert ran.status == 0
    for name in (*KINDS, "timeline", "tap"):
        assert re.search(rf"^    {name} +\S", ran.out, re.M)
    assert "promised_stream_id" in run("frames", "--help").out


# --- the program itself


def test_standard_input_is_read_like_a_file(capture_file: Path, run: Any) -> None:
    octets = capture_file.read_bytes()
    for kind in KINDS:
        ran = whole(kind, "-", "--format", "jsonl", data=octets)
        assert ran.octets == run(kind, capture_file, "--format", "jsonl").octets
        assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize("form", ["table", "jsonl", "tsv"])
def test_rows_appear_as_packets_arrive(form: str, tmp_path: Path) -> None:
    talk = Tape().talk().open()
    path = written(talk.tape, tmp_path / "a.pcapng")
    first = path.read_bytes()
    talk.send(UP, rst_stream(1))
    rest = written(talk.tape, path).read_bytes()[len(first) :]
    with started("frames", "-", "--format", form) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(first)
        process.stdin.flush()
        seen = b""
        while seen.count(b"SETTINGS") < 4:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        assert b"RST_STREAM" not in seen
        out, err = process.communicate(rest, timeout=SECONDS)
        assert b"RST_STREAM" in out
        assert (process.returncode, err) == (0, b"")


def test_who_closes_the_pipe_early_hears_nothing(tmp_path: Path) -> None:
    path = written(crowd(4, 200), tmp_path / "long.pcapng")
    for form in ("table", "jsonl"):
        with started("frames", path, "--format", form) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(SECONDS) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_input_and_what_was_seen_is_shown(number: int, tmp_path: Path) -> None:
    talk = Tape().talk().open().send(UP, headers(1, b"\x82\x84", flags=5) + headers(3, b"\x82\x84", flags=5))
    talk.send(DOWN, rst_stream(1))
    octets = written(talk.tape, tmp_path / "a.pcapng").read_bytes()
    with started("calls", "-", "--format", "tsv", "--fields", "stream_id,end") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(octets)
        process.stdin.flush()
        assert process.stdout.readline() == b"stream_id\tend\n"
        assert process.stdout.readline() == b"1\treset\n"
        process.send_signal(number)
        assert process.stdout.read() == b"3\topen\n"
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 0


def test_a_small_file_is_shown_without_loading_what_is_heavy(capture_file: Path) -> None:
    probe = (
        "import sys; from capture.command import main; status = main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    for form in ("table", "jsonl"):
        done = subprocess.run(
            [sys.executable, "-c", probe, "frames", str(capture_file), "--format", form],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        heavy = {"matplotlib", "numpy", "grpc", "scapy", "pyshark", "IPython"}
        assert not set(done.stderr.split()) & heavy
        assert form == "table" or "google" not in done.stderr.split()


# --- the tap


def test_the_tap_shows_frames_as_they_pass_and_leaves_the_same_in_a_file(
    greeter: int, tmp_path: Path, run: Any
) -> None:
    path = tmp_path / "tapped.pcapng"
    with started(
        "tap", "--listen", "0", "--server", f"127.0.0.1:{greeter}", "--write", path, "--format", "jsonl"
    ) as tap:
        assert tap.stderr is not None
        assert tap.stdout is not None
        hello = tap.stderr.readline().decode()
        found = re.match(rf"127\.0\.0\.1:(\d+) forwards to 127\.0\.0\.1:{greeter}; Ctrl-C ends it$", hello)
        assert found, hello
        with grpc.insecure_channel(f"127.0.0.1:{found[1]}", [("grpc.enable_http_proxy", 0)]) as channel:
            call: Callable[..., bytes] = channel.unary_unary("/a.B/C")
            assert call(b"\x0a\x04Juan", timeout=SECONDS) == b"\x0a\x04Juan"
            lines: list[bytes] = []
            while not lines or json.loads(lines[-1]).get("fields", [])[:1] != [["grpc-status", "0"]]:
                lines.append(tap.stdout.readline())
                assert lines[-1]
        tap.send_signal(signal.SIGINT)
        lines += tap.stdout.readlines()
        last = tap.stderr.read().decode()
        assert re.fullmatch(
            rf"{re.escape(str(path))}: \d+ packets · python3 -m capture frames {re.escape(str(path))}\n", last
        )
        assert tap.wait(SECONDS) == 0
    shown = Ran(0, b"".join(lines), b"")
    assert run("frames", path, "--format", "jsonl").records == shown.records
    assert {record["server"] for record in shown.records} == {f"127.0.0.1:{greeter}"}
    assert [record["message"] for record in run("messages", path, "--format", "jsonl").records] == [{"1": "Juan"}] * 2


def test_a_server_without_reflection_is_said_to_lack_it(greeter: int, capture_file: Path) -> None:
    ran = whole("messages", capture_file, "--reflect", f"127.0.0.1:{greeter}")
    assert ran.status == 3
    assert len(ran.err.splitlines()) == 1
    assert "does not offer reflection" in ran.err or "services" in ran.err


def test_a_tap_that_cannot_listen_ends_with_3(greeter: int) -> None:
    ran = whole("tap", "--listen", greeter, "--server", f"127.0.0.1:{greeter}")
    assert ran.status == 3
    assert len(ran.err.splitlines()) == 1


# --- captures that this project did not make


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_frames_are_those_that_others_found(vector: Path, run: Any) -> None:
    expected = [line.split("\t") for line in vector.with_name(vector.name + ".frames.tsv").read_text().splitlines()]
    names = "packet,connection,client,server,direction,type_code,stream_id,length,flags"
    found = []
    for record in run("frames", vector, "--format", "jsonl", "--fields", names).records:
        ends = [record[end].rpartition(":")[2] for end in ("client", "server")]
        if record["direction"] == "server_to_client":
            ends.reverse()
        numbers = [record[name] for name in ("type_code", "stream_id", "length")]
        found.append([*map(str, (record["packet"], record["connection"], *ends, *numbers)), f"0x{record['flags']:02x}"])
    assert found == expected


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_every_view_of_them_can_be_shown(vector: Path, run: Any, tmp_path: Path) -> None:
    for kind in KINDS:
        assert run(kind, vector).status == 0
    assert run("timeline", vector, "-o", tmp_path / "t.png").status == 0


def test_each_name_of_a_type_is_taken(run: Any, tmp_path: Path) -> None:
    path = written(Tape().talk().open().send(DOWN, goaway()).tape, tmp_path / "a.pcapng")
    for kind in FrameType:
        shown = run("frames", path, "--type", kind.name.lower(), "--format", "tsv", "--fields", "type").out.splitlines()
        assert set(shown[1:]) <= {kind.name}


def test_where_nothing_went_wrong_the_table_of_problems_says_so(run: Any, capture_file: Path, tmp_path: Path) -> None:
    clean = written(Tape().talk().open().tape, tmp_path / "clean.pcapng")
    for arguments, said in (
        ((), "No problems: nothing was lost, impossible or unreadable.\n"),
        (("--format", "jsonl"), ""),
    ):
        ran = run("problems", clean, *arguments)
        assert (ran.status, ran.out, ran.err) == (0, said, "")
    assert "No problems" not in run("problems", capture_file).out  # its messages are no protobuf
