"""A capture read by us and by somebody else, and both readings beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

from capture.compare import Comparison, Frame, Reading, compared
from capture.events import Event
from capture.pipeline import Pipeline
from capture.sources.files import open_capture

Other = Literal["wireshark", "scapy"]
MAX_WITH_PYSHARK = 2_000
"""Frames that are read through pyshark; it takes 8 s for them. Of more, tshark's output is read directly: the same in a
tenth of the time."""


def compare_with(
    other: Other,
    path: str | os.PathLike[str],
    ports: Collection[int] = (),
    key_log: str | os.PathLike[str] | None = None,
    note: Callable[[list[Event]], None] = lambda _events: None,
) -> Comparison:
    """Every frame of ours beside that of Wireshark, or of scapy's HTTP/2 layer.

    `ports`: TCP ports that speak HTTP/2. `key_log`: for TLS, which only Wireshark decrypts. `note` is given our events.

    Raises: CaptureError; TsharkError.
    """
    reading = Reading()
    if other == "scapy":
        from capture.sources.scapy_http2 import Scapy, name, traits

        scapy = Scapy()
        theirs: list[Frame] = []
        for events in _read(path, ports):
            note(events)
            reading.feed(events)
            if not reading.is_cut:
                theirs += scapy.feed(events)
        return compared(reading, theirs, name(), traits)
    from capture.sources import tshark

    tshark.program()  # where it is missing, that is said before a long file is read
    for events in _read(path, ports):
        note(events)
        reading.feed(events)
    through_pyshark = len(reading.frames) <= MAX_WITH_PYSHARK
    read = tshark.dissect_with_pyshark if through_pyshark else tshark.dissect
    found = tshark.descriptions(read(path, reading, ports, key_log), reading)
    return compared(reading, _up_to(reading, found), tshark.name(through_pyshark), tshark.traits)


def _up_to(reading: Reading, theirs: Iterable[Frame]) -> Iterator[Frame]:
    """Where there are more frames than are compared, those up to the same packet."""
    last = reading.frames[-1].packet if reading.is_cut else None
    for frame in theirs:
        if last is not None and frame.packet > last:
            return
        yield frame


def circumstances(path: str | os.PathLike[str], ports: Collection[int] = ()) -> Reading:
    """What Wireshark has to be told of a capture. Raises: CaptureError."""
    reading = Reading(keep=False)
    pipeline = Pipeline(ports=ports, sections=False)
    with open_capture(path) as packets:
        for batch in packets:
            reading.feed(pipeline.feed(batch))
        reading.feed(pipeline.finish())
        reading.synthesised = packets.synthesised
    return reading


def _read(path: str | os.PathLike[str], ports: Collection[int]) -> Iterator[list[Event]]:
    pipeline = Pipeline(ports=ports)
    with open_capture(path) as packets:
        for batch in packets:
            yield pipeline.feed(batch)
    yield [*pipeline.finish(), *packets.problems]
