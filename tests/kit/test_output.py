"""Lines for somebody who may stop reading."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from kit.output import Output


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
