"""What the stages behind frames.py share: bounded tables of streams, and header blocks ready to be asked.

`Streams` is a connection's streams by identifier. A stream that ended stays for a while as None, so that frames still
under way are not taken for a new stream's. `HeaderBlocks` joins what HEADERS begins with the section that END_HEADERS
brings, perhaps some CONTINUATION frames later.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, NamedTuple, TypeVar

from capture.events import END_HEADERS, END_STREAM, FieldSection, FrameEvent, FrameType, Unknown

MAX_STREAMS = 4096
"""Streams of a connection kept at once. Most servers allow 100 at once (RFC 9113 §5.1.2 recommends no less); beyond
this the oldest is let go."""
MAX_STREAMS_OVERALL = 1 << 16
"""Over all connections: some 50 MiB of state at most, even if each stage keeps its own."""
MAX_ENDED = 256
"""Ended streams remembered for each connection: as many as may have frames under way within one round trip."""

S = TypeVar("S")


class Room:
    """How many streams are kept, over all connections of a stage."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class Streams(dict[int, "S | None"], Generic[S]):
    """A connection's streams by identifier; None is one that ended lately."""

    __slots__ = ("_ended", "_room")

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        self._ended: deque[int] = deque()

    def open(self, stream_id: int, stream: S) -> tuple[int, S] | None:
        """Adds a stream. Gives back the oldest one where there is no room for both."""
        let_go = None
        kept = len(self) - len(self._ended)
        if kept and (kept >= MAX_STREAMS or self._room.taken >= MAX_STREAMS_OVERALL):
            let_go = next((key, value) for key, value in self.items() if value is not None)
            del self[let_go[0]]
            self._room.taken -= 1
        self._room.taken += 1
        self[stream_id] = stream
        return let_go

    def end(self, stream_id: int) -> None:
        """The stream is over: what still comes on it is to be ignored."""
        if self.get(stream_id) is None:
            return
        self[stream_id] = None
        self._room.taken -= 1
        self._ended.append(stream_id)
        if len(self._ended) > MAX_ENDED:
            del self[self._ended.popleft()]

    def living(self) -> list[tuple[int, S]]:
        return [(stream_id, stream) for stream_id, stream in self.items() if stream is not None]

    def close(self) -> None:
        """The connection is over."""
        self._room.taken -= len(self) - len(self._ended)
        self.clear()
        self._ended.clear()


ASKED = frozenset(
    (
        ":method", ":path", ":status", "content-type", "grpc-encoding", "grpc-timeout",
        "grpc-status", "grpc-message", "grpc-status-details-bin",
    )
)  # fmt: skip
"""Fields that the stages ask for."""


class Headers(NamedTuple):
    """A complete header block of a stream: request headers, response headers or trailers."""

    stream_id: int
    fields: dict[str, Any]
    """The asked ones: name to value, the first where there are several; a str, or bytes or Unknown as in
    FieldSection."""
    unsure: bool
    """Whether a field that is missing may be there after all: a name is unknown, or the block is lost."""
    end_stream: bool
    whole: bool
    """False where the block's beginning was not seen, and so neither END_STREAM nor which frame began it."""

    def text(self, name: str) -> str | None:
        """A field's value if it is there and known."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else None

    def lacks(self, name: str) -> bool:
        """Whether the field certainly is not there."""
        return name not in self.fields and not self.unsure


class HeaderBlocks:
    """The unfinished header blocks of a connection, one for each direction (RFC 9113 §6.10)."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: list[FrameEvent | None] = [None, None]

    def take(self, event: FrameEvent) -> Headers | None:
        """The headers that a HEADERS, PUSH_PROMISE or CONTINUATION frame completes; None while they are incomplete,
        and for promised requests, which gRPC has not."""
        first: FrameEvent | None = event
        if event.type_code == FrameType.CONTINUATION:
            first = self._begun[event.direction]
            if first is not None and first.stream_id != event.stream_id:
                first = None
        if not event.flags & END_HEADERS:
            self._begun[event.direction] = first
            return None
        self._begun[event.direction] = None
        if first is None:
            return _headers(event.stream_id, event.section, False, False)
        if first.type_code == FrameType.PUSH_PROMISE:
            return None
        return _headers(event.stream_id, event.section, bool(first.flags & END_STREAM), True)

    def lose(self, direction: int) -> None:
        """Frames of a direction are missing."""
        self._begun[direction] = None


def _headers(stream_id: int, section: FieldSection | None, end_stream: bool, whole: bool) -> Headers:
    fields: dict[str, Any] = {}
    unsure = section is None
    if section is not None:
        for name, value in section.fields:
            if name in ASKED:
                fields.setdefault(name, value)
            elif isinstance(name, Unknown):
                unsure = True
    return Headers(stream_id, fields, unsure, end_stream, whole)


def content_subtype(content_type: str) -> str | None:
    """Of the content type application/grpc[+subtype][;…], `proto` where it names none; None where it is another type,
    gRPC-Web among them (gRPC over HTTP2: Content-Type)."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/grpc":
        return "proto"
    head, plus, subtype = kind.partition("+")
    return subtype if plus and head == "application/grpc" else None
