"""Lines for somebody who may stop reading."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from kit import output
from kit.output import Output, Queued
from kit.words import use_utf8

DEADLINE = 10.0


def test_each_entry_is_written_at_once_and_whole() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reader, open(write_end, "w") as writer:
        out = Output(writer)
        out("one")
        assert reader.read(100) == b"one\n"
        out("two\nthree")
        assert reader.read(100) == b"two\nthree\n"


def test_entries_of_many_threads_do_not_mix() -> None:
    read_end, write_end = os.pipe()
    with open(read_end) as reader, open(write_end, "w") as writer:
        out = Output(writer)

        def write(c: str) -> None:
            for _ in range(50):
                out(f"{c}\n{c}")

        threads = [threading.Thread(target=write, args=(c,)) for c in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
        lines = reader.read().splitlines()
    assert len(lines) == 400
    assert all(first == second for first, second in zip(lines[::2], lines[1::2], strict=True))


def test_when_the_reader_has_gone_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    read_end, write_end = os.pipe()
    with open(write_end, "w") as writer:
        os.close(read_end)
        out = Output(writer)
        out("one")
        out("two")
    assert capsys.readouterr() == ("", "")


def test_a_standard_stream_that_is_closed_from_the_start_is_silent_too() -> None:
    Output(None)("one")


@pytest.mark.parametrize(
    ("redirected", "errors"),
    [
        ("| true", ""),
        (">/dev/full", "The output cannot be written and is lost from here on: No space left on device\n"),
        (">&-", ""),
    ],
)
def test_python_ends_without_a_complaint_of_its_own(redirected: str, errors: str) -> None:
    if "/dev/full" in redirected and not os.path.exists("/dev/full"):
        pytest.skip("needs Linux's /dev/full for a disk that is full")
    code = "import sys; from kit.output import Output; out = Output(sys.stdout); [out('x' * 9999) for _ in range(99)]"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirected}', sys.executable, code], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", errors)
    assert done.returncode == 0


class Slow:
    """A stream that takes lines only while it is open."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open = threading.Event()
        self.asked = threading.Event()

    def __call__(self, lines: str) -> None:
        self.asked.set()
        assert self.open.wait(DEADLINE)
        self.lines += lines.split("\n")


def lost(entries: int) -> str:
    return f"{entries} lost"


class TestQueued:
    def test_who_writes_does_not_wait_and_nothing_is_lost_or_reordered(self) -> None:
        slow = Slow()
        out = Queued(slow, lost)
        for number in range(1_000):
            out(f"{number}\nand more")
        assert slow.lines == []
        slow.open.set()
        assert out.close(DEADLINE)
        assert slow.lines == [line for number in range(1_000) for line in (str(number), "and more")]

    def test_lines_come_while_it_runs(self) -> None:
        read_end, write_end = os.pipe()
        with open(read_end, "rb", buffering=0) as reader, open(write_end, "w") as writer:
            out = Queued(Output(writer), lost)
            for text in ("one", "two"):
                out(text)
                assert reader.read(100) == f"{text}\n".encode()
            assert out.close(DEADLINE)

    def test_beyond_what_may_wait_entries_are_counted_where_they_are_missing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "WAITING_CHARACTERS", 30)
        slow = Slow()
        out = Queued(slow, lost)
        out("first")
        assert slow.asked.wait(DEADLINE)  # with "first": what comes now waits
        for _number in range(7):
            out("x" * 10)
        slow.open.set()
        assert out.close(DEADLINE)
        assert slow.lines == ["first", *["x" * 10] * 3, "4 lost"]

    def test_closing_does_not_wait_for_ever_for_somebody_who_does_not_read(self) -> None:
        slow = Slow()
        out = Queued(slow, lost)
        out("one")
        assert not out.close(0.01)
        slow.open.set()
        assert out.close(DEADLINE)
        assert slow.lines == ["one"]

    def test_without_a_line_it_closes_too(self) -> None:
        assert Queued(Slow(), lost).close(DEADLINE)


def test_streams_that_are_closed_from_the_start_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    use_utf8()
    for stream in (sys.stdout, sys.stderr):
        print("✓", file=stream, flush=True)
        assert not stream.isatty()
        stream.close()
