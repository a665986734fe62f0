"""Outputs, where the command line's tests do not reach."""

from __future__ import annotations

import io
from typing import Any

from capture.export import Writer
from capture.output import Lines
from tests.capture.engine_factory import chat, events_of, frames_of


class _Piecemeal(io.BytesIO):
    """A raw stream: it writes as much as it likes, and says how much."""

    def write(self, octets: Any) -> int:
        return super().write(octets[:100])


def test_lines_are_whole_on_a_stream_that_writes_parts() -> None:
    stream = _Piecemeal()
    text = io.TextIOWrapper(stream)
    frames, writer = frames_of(events_of(chat().packets)), Writer("frames", "csv")
    output = Lines(text, writer, None)
    output.show(frames)
    output.finish()
    assert stream.getvalue() == writer.header + writer.lines(frames)
