"""The notebook's face: a capture in one call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import capture
from capture.pcap import CaptureError
from capture.pcap import Writer as CaptureWriter
from tests.capture.engine_factory import DOWN, ETHERNET, Tape, chat, crowd, events_of, frame, frames_of


@pytest.fixture
def capture_file(tmp_path: Path) -> Path:
    path = tmp_path / "crowd.pcapng"
    with path.open("wb") as file:
        CaptureWriter(file, ETHERNET, synthesised=True).write(crowd(3, 4).packets)
    return path


def test_a_capture_is_lists_of_records(capture_file: Path) -> None:
    seen = capture.read(capture_file)
    assert seen.frames == frames_of(events_of(crowd(3, 4).packets))
    assert [connection.number for connection in seen.connections] == [0, 1, 2]
    assert len(seen.calls) == 12
    assert {call.end for call in seen.calls} == {"trailers"}
    assert sum(call.sent_messages + call.received_messages for call in seen.calls) == len(seen.messages)
    assert {sample.cause for sample in seen.windows} <= set(range(len(seen.frames)))
    assert {problem.layer for problem in seen.problems} == {"protobuf"}, "its messages are random octets"
    assert seen.synthesised
    assert repr(seen) == f"<Capture: 3 connections, {len(seen.frames)} frames, 12 calls>"


def test_it_can_be_shown_as_text_and_as_a_picture(capture_file: Path) -> None:
    seen = capture.read(capture_file)
    assert "Connection 2 · Ana 10.0.0.1:40002" in seen.table(names={"10.0.0.1:40002": "Ana"})
    picture = seen.timeline(names={"10.0.0.1:40002": "Ana"})
    assert "connection 2 · Ana 10.0.0.1:40002" in picture.facts
    assert "synthesised" in picture.facts
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert "synthesised" not in capture.decode([crowd(1).packets]).timeline(linear=True).facts


def test_packets_from_anywhere_can_be_decoded() -> None:
    packets = chat(2).packets
    whole = capture.decode([packets])
    assert capture.decode([packet] for packet in packets).frames == whole.frames
    late = capture.decode([packets[8:]], ports=[50051])
    assert 0 < len(late.frames) < len(whole.frames)


def test_problems_of_the_file_and_of_the_wire_are_together(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with path.open("wb") as file:
        talk = Tape().talk().open().send(DOWN, frame(8, 0, 1, bytes(4)))
        CaptureWriter(file, ETHERNET).write(talk.tape.packets)
    path.write_bytes(path.read_bytes() + b"\6\0\0\0\x40")
    seen = capture.read(path)
    assert {problem.layer for problem in seen.problems} == {"capture", "http2"}


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hola")
    with pytest.raises(CaptureError):
        capture.read(tmp_path / "a.txt")


def test_a_tap_is_at_hand() -> None:
    with capture.tap(("127.0.0.1", 9)) as tap:
        assert tap.port


def test_importing_it_loads_nothing_but_the_standard_library(tmp_path: Path) -> None:
    probe = "import capture, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    ours = {"capture"}
    assert {name for name in done.stdout.split() if name not in sys.stdlib_module_names} - ours <= {"__editable__"} | {
        name for name in done.stdout.split() if name.startswith(("_", "sitecustomize", "distutils"))
    }
