"""Several processes give what one gives, in the same order, and say what went wrong in any of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from capture import command, parallel
from capture.pcap import Writer
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from tests.capture.engine_factory import ETHERNET, UP, Tape, crowd, data, headers


@pytest.fixture(scope="module")
def capture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine connections; one of them begins in the middle and lacks a segment, so that it holds others back."""
    tape = Tape()
    late = tape.talk().send(UP, headers(5, b"\x83\x86\x84")).skip(UP, 40)
    for packet in crowd(9, 4).packets:
        tape.add(packet.data)
    late.send(UP, data(5, b"\0\0\0\0\1x"))
    path = tmp_path_factory.mktemp("captures") / "crowd.pcapng"
    with path.open("wb") as stream:
        Writer(stream, ETHERNET).write(tape.packets)
    return path


@pytest.mark.parametrize("kind", parallel.KINDS)
@pytest.mark.parametrize("form", parallel.FORMATS)
@pytest.mark.parametrize("selection", [[], ["--connection", "3"], ["--stream", "1"]])
def test_the_lines_are_those_of_one_process(
    kind: str,
    form: str,
    selection: list[str],
    capture_file: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [kind, str(capture_file), "--format", form, *selection]
    assert command.main(arguments) == 0
    alone = capfdbinary.readouterr()
    asked: list[str] = []

    def two(path: str) -> int:
        asked.append(path)
        return 2

    monkeypatch.setattr(parallel, "processes", two)
    assert command.main(arguments) == 0
    assert asked
    assert capfdbinary.readouterr() == alone
    assert alone.out


def test_shares_have_every_event_once_and_count_connections_alike(capture_file: Path) -> None:
    with open_capture(capture_file) as batches:
        packets = [packet for batch in batches for packet in batch]

    def events(share: tuple[int, int]) -> list[object]:
        pipeline = Pipeline(share=share)
        return [*pipeline.feed(packets), *pipeline.finish()]

    parts = [event for i in range(3) for event in events((i, 3))]
    assert sorted(map(repr, parts)) == sorted(map(repr, events((0, 1))))


class Book:
    def __init__(self) -> None:
        self.events: list[object] = []

    def note(self, events: Sequence[object]) -> None:
        self.events += events


def failing(_options: argparse.Namespace, share: tuple[int, int]) -> Iterator[parallel.Step]:
    """A share that does not come to its end in the second process."""
    yield parallel.Step(2, [1], b"line\n", ())
    if share[0]:
        raise OSError(5, "Input/output error")
    yield parallel.Step(9, [], b"", ())


def test_what_another_process_raises_is_raised_here() -> None:
    written: list[bytes] = []
    with pytest.raises(OSError, match="Input/output error"):
        parallel.decode(failing, argparse.Namespace(), 2, written.append, Book())
    assert written == [b"line\nline\n"]


def uneven(_options: argparse.Namespace, share: tuple[int, int]) -> Iterator[parallel.Step]:
    """The second share knows of packet 2 only when packet 4 has come."""
    if share[0]:
        yield parallel.Step(2, [1], b"b1\n", ())
        yield parallel.Step(9, [2, 4], b"b2\nb4\n", ())
    else:
        yield parallel.Step(4, [1, 3], b"a1\na3\n", ())
        yield parallel.Step(9, [5], b"a5\n", ())


def test_a_line_waits_for_what_another_process_may_still_put_before_it() -> None:
    written: list[bytes] = []
    parallel.decode(uneven, argparse.Namespace(), 2, written.append, Book())
    assert written == [b"a1\nb1\n", b"b2\na3\nb4\na5\n"]


def test_only_large_files_are_worth_it(capture_file: Path, tmp_path: Path) -> None:
    assert parallel.processes(str(capture_file)) == 1
    assert parallel.processes("-") == 1
    assert parallel.processes(str(tmp_path)) == 1
    large = tmp_path / "large.pcap"
    with large.open("wb") as stream:
        stream.truncate(parallel.WORTH)
    assert 1 <= parallel.processes(str(large)) <= parallel.MAX_PROCESSES


def test_hpack_shows_a_connections_blocks_and_tables(capture_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["hpack", str(capture_file), "--connection", "1", "--block", "1", "--lang", "en"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Block 1 · → · stream 1")
    assert "literal, inserted" in out
    assert "     62  " in out
    assert command.main(["hpack", str(capture_file), "--connection", "77", "--lang", "en"]) == 1
    assert "connection 77 has no such field block" in capsys.readouterr().err


def test_no_json_line_holds_a_line_end(capture_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["frames", str(capture_file), "--format", "jsonl"]) == 0
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
