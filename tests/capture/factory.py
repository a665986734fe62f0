"""Traffic to test with: a connection whose frames are made one by one, of real octets.

`Talk` plays both sides and keeps the events that the frames stage would yield. Every frame is a packet of its own, one
millisecond behind the one before, unless said otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import hpack

from capture.events import (
    CONNECTION_PREFACE,
    END_HEADERS,
    END_STREAM,
    PADDED,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FieldLine,
    FieldSection,
    FrameEvent,
    FrameType,
    Gap,
    Setting,
    Unknown,
)

CLIENT, SERVER = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT
START_NS = 1_700_000_000_000_000_000
PATH = "/minichat.v1.ChatService/Chat"


def message(content: bytes, compressed: int = 0) -> bytes:
    """A gRPC length-prefixed message."""
    return struct.pack(">BI", compressed, len(content)) + content


class Talk:
    """One connection. Every method adds an event and gives it back."""

    def __init__(self, number: int = 0, *, whole: bool = True) -> None:
        """`whole`: the capture has its first octet, so the client's preface counts as passed."""
        self.connection = Connection(number, f"127.0.0.1:{40000 + number}", "127.0.0.1:50051")
        self.events: list[Event] = []
        self.packet = 0
        self.time_ns = START_NS
        self.offsets = [len(CONNECTION_PREFACE) if whole else 0, 0]
        self._encoders = (hpack.Encoder(), hpack.Encoder())

    @property
    def frames(self) -> list[FrameEvent]:
        return [event for event in self.events if isinstance(event, FrameEvent)]

    def take(self) -> list[Event]:
        """The events so far; the next ones start a new list."""
        events, self.events = self.events, []
        return events

    def tick(self, ns: int = 1_000_000) -> None:
        self.packet += 1
        self.time_ns += ns

    def frame(
        self,
        direction: Direction,
        type_code: int,
        payload: bytes = b"",
        *,
        flags: int = 0,
        stream: int = 0,
        lost: bool = False,
        section: FieldSection | None = None,
        after_ns: int = 1_000_000,
    ) -> FrameEvent:
        """Any frame. `lost`: the capture lacks octets of its payload."""
        self.tick(after_ns)
        header = len(payload).to_bytes(3) + bytes([type_code, flags]) + stream.to_bytes(4)
        event = FrameEvent(
            self.packet, self.time_ns, self.connection, direction, self.offsets[direction], type_code, flags, stream,
            len(payload), header, None if lost else payload, section,
        )  # fmt: skip
        self.offsets[direction] += len(header) + len(payload)
        self.events.append(event)
        return event

    def data(
        self,
        direction: Direction,
        stream: int,
        content: bytes = b"",
        *,
        end: bool = False,
        pad: int | None = None,
        lost: bool = False,
        after_ns: int = 1_000_000,
    ) -> FrameEvent:
        flags = END_STREAM if end else 0
        if pad is not None:
            flags |= PADDED
            content = bytes([pad]) + content + bytes(pad)
        return self.frame(direction, FrameType.DATA, content, flags=flags, stream=stream, lost=lost, after_ns=after_ns)

    def headers(
        self,
        direction: Direction,
        stream: int,
        fields: Iterable[FieldLine],
        *,
        end: bool = False,
        pieces: int = 1,
        lost: bool = False,
        kind: int = FrameType.HEADERS,
        prefix: bytes = b"",
    ) -> FrameEvent:
        """A field block in one frame, or in as many pieces as asked for. Fields may be Unknown, as after a late start;
        `lost`: nothing is known of them."""
        lines = tuple(fields)
        known = [(name, value) for name, value in lines if isinstance(name, str) and isinstance(value, str)]
        block = self._encoders[direction].encode(known)
        section = FieldSection(lines, block, all(not isinstance(part, Unknown) for line in lines for part in line))
        size = -(-len(block) // pieces) or 1
        parts = [block[i : i + size] for i in range(0, len(block), size)] or [b""]
        flags = END_STREAM if end else 0
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            event = self.frame(
                direction,
                FrameType.CONTINUATION if i else kind,
                part if i else prefix + part,
                flags=(0 if i else flags) | (END_HEADERS if last else 0),
                stream=stream,
                section=section if last and not lost else None,
            )
        return event

    def request(
        self,
        stream: int,
        path: Any = PATH,
        extra: Mapping[Any, Any] | None = None,
        *,
        end: bool = False,
        pieces: int = 1,
    ) -> FrameEvent:
        fields = {
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
            "content-type": "application/grpc", "te": "trailers",
        } | dict(extra or {})  # fmt: skip
        lines = [(name, value) for name, value in fields.items() if value is not None]
        return self.headers(CLIENT, stream, lines, end=end, pieces=pieces)

    def response(self, stream: int, extra: Mapping[Any, Any] | None = None) -> FrameEvent:
        fields = {":status": "200", "content-type": "application/grpc"} | dict(extra or {})
        return self.headers(SERVER, stream, [(name, value) for name, value in fields.items() if value is not None])

    def trailers(
        self, stream: int, status: Any = "0", extra: Mapping[Any, Any] | None = None, *, pieces: int = 1
    ) -> FrameEvent:
        fields = {"grpc-status": status} | dict(extra or {})
        lines = [(name, value) for name, value in fields.items() if value is not None]
        return self.headers(SERVER, stream, lines, end=True, pieces=pieces)

    def trailers_only(self, stream: int, status: str, extra: Mapping[Any, Any] | None = None) -> FrameEvent:
        fields = {":status": "200", "content-type": "application/grpc", "grpc-status": status} | dict(extra or {})
        return self.headers(SERVER, stream, fields.items(), end=True)

    def settings(
        self, direction: Direction, values: Mapping[int, int] | None = None, *, ack: bool = False, lost: bool = False
    ) -> FrameEvent:
        payload = b"".join(struct.pack(">HI", code, value) for code, value in (values or {}).items())
        return self.frame(direction, FrameType.SETTINGS, payload, flags=1 if ack else 0, lost=lost)

    def begin(self, client_window: int | None = None, server_window: int | None = None) -> None:
        """Both prefaces with their initial windows, each acknowledged."""
        for side, window in ((CLIENT, client_window), (SERVER, server_window)):
            self.settings(side, {} if window is None else {Setting.INITIAL_WINDOW_SIZE: window})
        self.settings(CLIENT, ack=True)
        self.settings(SERVER, ack=True)

    def window_update(self, direction: Direction, stream: int, increment: int, **more: Any) -> FrameEvent:
        return self.frame(direction, FrameType.WINDOW_UPDATE, increment.to_bytes(4), stream=stream, **more)

    def reset(self, direction: Direction, stream: int, error_code: int = 8) -> FrameEvent:
        return self.frame(direction, FrameType.RST_STREAM, error_code.to_bytes(4), stream=stream)

    def ping(self, direction: Direction, payload: bytes, *, ack: bool = False, after_ns: int = 1_000_000) -> FrameEvent:
        return self.frame(direction, FrameType.PING, payload, flags=1 if ack else 0, after_ns=after_ns)

    def goaway(self, direction: Direction, last: int, error_code: int = 0, debug: bytes = b"") -> FrameEvent:
        return self.frame(direction, FrameType.GOAWAY, last.to_bytes(4) + error_code.to_bytes(4) + debug)

    def gap(self, direction: Direction, octets: int = 1000, *, frames_lost: bool = True) -> Gap:
        self.tick()
        gap = Gap(self.packet, self.time_ns, self.connection, direction, self.offsets[direction], octets, frames_lost)
        if frames_lost:
            self.offsets[direction] += octets
        self.events.append(gap)
        return gap

    def finish(self, direction: Direction, how: str = "fin") -> ConnectionEnd:
        self.tick()
        end = ConnectionEnd(self.packet, self.time_ns, self.connection, direction, how)
        self.events.append(end)
        return end
