"""HTTP/2 frames to gRPC messages.

A stream is a pair of assemblies (assembly.py), one for each direction; headers tell what it carries, and DATA is handed
to it. Which streams are gRPC is said by their content type; where that is unknown, because the capture began later or
has a gap, a DATA frame of whole messages decides it. What is certainly not gRPC has no messages.

The hot path is one DATA frame that holds exactly one message, uncompressed, on a stream at a boundary: `feed` handles
it without a call. Messages are not decoded here; `MessageEvent.message` does that when asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from capture.assembly import Assembly, Where, place, prefix
from capture.events import (
    END_STREAM,
    PADDED,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    MessageEvent,
    Problem,
)
from capture.protobuf import Codec, Schema, no_schema
from capture.streams import HeaderBlocks, Headers, Room, Streams, content_subtype
from kit.words import N_

MAX_RESET = 64
"""Streams reset by one side of which the other side's frames under way are still read, for each connection."""
_READ_ENCODINGS = ("identity", "gzip", "deflate", None)
_CUT = N_("the connection or the capture ends within a message: {got} of {length} octets")

_Stream = tuple[Assembly, Assembly]
"""By direction."""


class _Connection:
    __slots__ = ("blocks", "closed", "reset", "streams")

    def __init__(self, room: Room) -> None:
        self.streams: Streams[_Stream] = Streams(room)
        self.blocks = HeaderBlocks()
        self.reset: deque[int] = deque()
        self.closed: set[Direction] = set()


class Messages:
    """The stage: frames in, messages and problems out.

    `schema` says what the messages mean; without one they are read by wire format. With `check` each message is parsed
    as it comes, so that what cannot be read is told as a Problem; without it that costs nothing, and `trouble_with`
    tells for a message whose content turned out to be None.
    """

    def __init__(self, schema: Schema | None = None, *, check: bool = True) -> None:
        self.buffered = 0
        self._schema = schema or no_schema()
        self._check = check
        self._unknown_codec = self._schema.codec(None, 0, None)
        self._connections: dict[int, _Connection] = {}
        self._room = Room()
        self._out: list[MessageEvent | Problem] = []

    def feed(self, events: Iterable[Event]) -> list[MessageEvent | Problem]:
        """Messages that these events made complete, and what went wrong with others."""
        out = self._out = []
        append = out.append
        connections, check, new = self._connections, self._check, tuple.__new__
        for event in events:
            if type(event) is FrameEvent:
                packet, time_ns, connection, direction, _, type_code, flags, stream_id, length, _, payload, _ = event
                if type_code == 0:  # DATA
                    known = connections.get(connection.number)
                    if known is not None:
                        stream = known.streams.get(stream_id)
                        if stream is not None:
                            half = stream[direction]
                            if half.ready and length >= 5 and not flags & PADDED and payload is not None:
                                compressed, size = prefix(payload)
                                if size + 5 == length and not compressed:
                                    data, codec = payload[5:], half.codec
                                    append(
                                        new(
                                            MessageEvent,
                                            (packet, time_ns, connection, direction, stream_id, half.path, False,
                                             size, data, codec),
                                        )
                                    )  # fmt: skip
                                    if check:
                                        self._read(event, codec, data, False)
                                    if flags & END_STREAM:
                                        self._end_stream(event, known, stream_id, stream)
                                    continue
                    self._data(event)
                elif type_code == 1 or type_code == 9 or type_code == 5:  # HEADERS, CONTINUATION, PUSH_PROMISE
                    self._block(event)
                elif type_code == 3:  # RST_STREAM
                    self._reset(event)
            elif type(event) is Gap:
                self._gap(event)
            elif type(event) is ConnectionEnd:
                self._connection_end(event)
        return out

    def finish(self) -> list[MessageEvent | Problem]:
        """The capture is over: what became of the messages under way."""
        out = self._out = []
        for known in self._connections.values():
            self._close(known)
        self._connections.clear()
        return out

    def assembly(self, frame: FrameEvent) -> Assembly | None:
        """How it stands with the messages of a frame's stream and direction; None where the stream is over."""
        known = self._connections.get(frame.connection.number)
        stream = known.streams.get(frame.stream_id) if known is not None else None
        return None if stream is None else stream[frame.direction]

    # -- Frames ----------------------------------------------------------------------------------------------------

    def _data(self, event: FrameEvent) -> None:
        """Any DATA frame that the hot path does not take."""
        known = self._connection(event.connection)
        stream = self._stream(known, event.stream_id)
        if stream is None:
            return
        half = stream[event.direction]
        if half.is_grpc is not False and not half.ended:
            half.data(event)
        if event.flags & END_STREAM:
            self._end_stream(event, known, event.stream_id, stream)

    def _block(self, event: FrameEvent) -> None:
        known = self._connection(event.connection)
        headers = known.blocks.take(event)
        if headers is None:
            return
        stream = self._stream(known, headers.stream_id)
        if stream is None:
            return
        half = stream[event.direction]
        status = headers.text(":status")
        if status is None or not status.startswith("1"):  # 1xx only announces the response (RFC 9113 §8.1)
            self._learn(stream, event.direction, headers)
        if headers.whole and not headers.end_stream:  # trailers end the stream, so what follows is the first DATA
            half.begin()
        for each in stream:
            each.settle()
        if headers.end_stream:
            if event.direction == Direction.SERVER_TO_CLIENT and half.is_grpc and status in (None, "200"):
                self._check_trailers(event, headers)
            self._end_stream(event, known, headers.stream_id, stream)

    def _learn(self, stream: _Stream, direction: Direction, headers: Headers) -> None:
        """Takes from headers what the messages of that direction are: gRPC or not, of which method, in which form."""
        half, other = stream[direction], stream[1 - direction]
        if direction == Direction.CLIENT_TO_SERVER and ":path" in headers.fields:
            half.path = other.path = headers.text(":path")
        content_type = headers.text("content-type")
        subtype = None if content_type is None else content_subtype(content_type)
        if half.path is not None and other.codec is self._unknown_codec:  # the response headers may be lost
            other.codec = self._schema.codec(half.path, 1 - int(direction), None, subtype or "proto")
        if content_type is not None:
            half.is_grpc = subtype is not None
        elif headers.end_stream and other.is_grpc is not None:
            half.is_grpc = other.is_grpc  # trailers name no content type
            return
        elif headers.lacks("content-type"):
            half.is_grpc = False
        elif other.is_grpc and headers.text(":status") == "200":
            half.is_grpc = True
        if half.is_grpc and other.is_grpc is None:
            other.is_grpc = True
        encoding = "identity" if headers.lacks("grpc-encoding") else headers.text("grpc-encoding")
        half.codec = self._schema.codec(half.path, int(direction), encoding, subtype or "proto")

    def _check_trailers(self, event: FrameEvent, headers: Headers) -> None:
        if headers.lacks("grpc-status"):
            self.tell(place(event), N_("the call ends without grpc-status (gRPC: Trailers)"))
            return
        status = headers.text("grpc-status")
        if status is not None and not (status.isascii() and status.isdigit()):
            self.tell(place(event), N_("grpc-status is {status}, and no number (gRPC: Status)"), status=status)

    def _reset(self, event: FrameEvent) -> None:
        """RST_STREAM: its sender sends no more; the other side's frames under way still come (RFC 9113 §5.4.2)."""
        known = self._connections.get(event.connection.number)
        stream = known.streams.get(event.stream_id) if known is not None else None
        if known is None or stream is None:
            return
        stream[event.direction].end(None)
        if stream[1 - event.direction].ended:
            known.streams.end(event.stream_id)
            return
        known.reset.append(event.stream_id)
        if len(known.reset) > MAX_RESET:
            oldest = known.reset.popleft()
            for half in known.streams.get(oldest) or ():
                half.end(None)
            known.streams.end(oldest)

    def _gap(self, gap: Gap) -> None:
        """Whole frames may be missing: no stream of that direction knows its boundary any more."""
        known = self._connections.get(gap.connection.number)
        if known is not None and gap.frames_lost:
            known.blocks.lose(gap.direction)
            for _, stream in known.streams.living():
                stream[gap.direction].gap(gap)

    def _connection_end(self, end: ConnectionEnd) -> None:
        known = self._connections.get(end.connection.number)
        if known is None:
            return
        known.closed.add(end.direction)
        if end.how != "fin" or len(known.closed) == 2:
            self._close(known)
            del self._connections[end.connection.number]
            return
        for stream_id, stream in known.streams.living():
            stream[end.direction].end(_CUT)
            if stream[1 - end.direction].ended:
                known.streams.end(stream_id)

    # -- Streams ---------------------------------------------------------------------------------------------------

    def _connection(self, connection: Connection) -> _Connection:
        known = self._connections.get(connection.number)
        if known is None:
            known = self._connections[connection.number] = _Connection(self._room)
        return known

    def _stream(self, known: _Connection, stream_id: int) -> _Stream | None:
        """The stream, a new one if need be; None if it is over, or one that a server promised: never gRPC."""
        stream = known.streams.get(stream_id)
        if stream is None and stream_id & 1 and stream_id not in known.streams:
            stream = (Assembly(self, self._unknown_codec), Assembly(self, self._unknown_codec))
            let_go = known.streams.open(stream_id, stream)
            if let_go is not None:
                for half in let_go[1]:
                    half.end(N_("too many streams at once: a message is let go with {got} of {length} octets"))
        return stream

    def _end_stream(self, event: FrameEvent, known: _Connection, stream_id: int, stream: _Stream) -> None:
        half = stream[event.direction]
        if event.type_code == FrameType.DATA and event.direction == Direction.SERVER_TO_CLIENT and half.is_grpc:
            self.tell(place(event), N_("the call ends with DATA, without trailers (gRPC: Responses)"))
        half.end(
            N_("END_STREAM within a message: {got} of {length} octets (gRPC: Length-Prefixed-Message)"), place(event)
        )
        if stream[1 - event.direction].ended:
            known.streams.end(stream_id)

    def _close(self, known: _Connection) -> None:
        for _, stream in known.streams.living():
            for half in stream:
                half.end(_CUT)
        known.streams.close()

    # -- What the assemblies yield ---------------------------------------------------------------------------------

    def emit(self, event: FrameEvent, assembly: Assembly, compressed: bool, data: bytes) -> None:
        codec = assembly.codec
        head = (event.packet, event.time_ns, event.connection, event.direction, event.stream_id)
        self._out.append(MessageEvent(*head, assembly.path, compressed, len(data), data, codec))
        if compressed and codec.encoding not in _READ_ENCODINGS:
            if not assembly.told:
                assembly.told = True
                template = N_("messages compressed as {encoding} are not read here; this is the stream's first")
                self.tell(place(event), template, encoding=codec.encoding)
        elif self._check:
            self._read(event, codec, data, compressed)

    def tell(self, where: Where, template: str, **values: Any) -> None:
        octets = values.get("octets") or values.get("length") or values.get("lost")
        self._out.append(Problem(*where, "grpc", template, values, octets))

    def _read(self, event: FrameEvent, codec: Codec, data: bytes, compressed: bool) -> None:
        trouble = codec.check(data, compressed)
        if trouble is not None:
            where = place(event)
            self._out.append(Problem(*where, trouble.layer, trouble.template, trouble.values, len(data)))


def trouble_with(message: MessageEvent) -> Problem | None:
    """Why a message's content cannot be read; None where it can."""
    trouble = message.codec.check(message.data, message.compressed)
    if trouble is None:
        return None
    where = (message.packet, message.time_ns, message.connection, message.direction, None)
    return Problem(*where, trouble.layer, trouble.template, trouble.values, message.length)
