"""Captures opened by path and from standard input."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from capture.events import Packet
from capture.pcap import CaptureError, Writer
from capture.sources.files import open_capture
from lab.system import TCPDUMP

PACKETS = [Packet(n, 1_700_000_000_000_000_000 + n, 101, bytes([0x45, n]), 2) for n in range(1, 4)]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "año.pcapng"
    with path.open("wb") as stream:
        Writer(stream, 101, comment="three packets").write(PACKETS)
    return path


def packets_of(path: Path | str) -> list[Packet]:
    with open_capture(path) as batches:
        return [packet for batch in batches for packet in batch]


def test_a_file_is_read_by_its_path_plain_or_packed(capture: Path, tmp_path: Path) -> None:
    assert packets_of(capture) == packets_of(str(capture)) == PACKETS
    packed = tmp_path / "packed.pcapng.gz"
    packed.write_bytes(gzip.compress(capture.read_bytes()))
    assert packets_of(packed) == PACKETS


def test_what_a_file_says_beside_its_packets_can_be_asked_for(capture: Path) -> None:
    with open_capture(capture) as batches:
        assert list(batches) == [PACKETS]
        assert (batches.comment, batches.problems) == ("three packets", [])


def test_a_named_pipe_is_followed(capture: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'cat "$0" > "$1"', str(capture), str(pipe)]):
        assert packets_of(pipe) == PACKETS


FOLLOW = """
import sys
from capture.sources.files import open_capture
with open_capture("-") as batches:
    for batch in batches:
        print([packet.number for packet in batch], flush=True)
"""


def test_standard_input_is_followed_as_it_arrives(capture: Path) -> None:
    file = capture.read_bytes()
    last = len(file) - 36  # of the third packet's block
    command = [sys.executable, "-c", FOLLOW]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(file[:last])
        process.stdin.flush()
        assert process.stdout.readline() == b"[1, 2]\n"
        process.stdin.write(file[last:])
        process.stdin.flush()
        assert process.stdout.readline() == b"[3]\n"
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_what_tcpdump_writes_to_standard_output_is_read(capture: Path) -> None:
    if (program := TCPDUMP.find()) is None:
        pytest.skip("tcpdump is not installed")
    pipe = f"{program} -U -w - -r '{capture}' 2>/dev/null | {sys.executable} -c '{FOLLOW}'"
    run = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, check=True)
    assert [int(part) for part in run.stdout.replace("[", " ").replace("]", " ").replace(",", " ").split()] == [1, 2, 3]


def test_a_program_without_standard_input_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CaptureError, match="there is no standard input"):
        packets_of("-")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pcap", "there is no such file"),
        (".", "it is a folder, not a file"),
        ("x" * 300, "it cannot be opened: File name too long"),
        ("null\0octet", "that is no file name"),
        ("empty", "there is nothing in it"),
    ],
)
def test_what_cannot_be_read_says_why_in_one_line(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(CaptureError) as caught:
        packets_of(tmp_path / name)
    assert str(caught.value) == reason


def test_a_file_that_one_may_not_read_says_so(capture: Path) -> None:
    capture.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read anything
    try:
        with pytest.raises(CaptureError, match="you have no right to read it"):
            packets_of(capture)
    finally:
        if root:
            os.seteuid(0)
