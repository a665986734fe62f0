"""Frames and messages to calls: what each stream asked for, how it ended, and how long that took.

A call is a stream that a client opened (its identifier is odd, RFC 9113 §5.1.1), from its request headers, or the first
frame seen of it, to whichever comes first:

  trailers        the server's END_STREAM, behind response headers or DATA
  trailers_only   the server's END_STREAM on its only headers (gRPC: Trailers-Only)
  reset           RST_STREAM of either side; `ended_by` says whose
  goaway          GOAWAY of a server that will not have processed it, or the connection's end after a GOAWAY that named
                  an error
  cut             the connection's end
  open            not ended when the capture was, or let go for want of room

`status` is what `grpc-status` says, and nothing else: a call that was reset has none, though its client will report
one. Plain HTTP requests are listed too, so that no stream is missing: their status is `http_status`, their messages are
none, `first_response_ns` is that of their first DATA, and one whose last frame is DATA ended with `trailers`.

Messages are matched to the DATA frames that completed them, so both are handed over together, batch by batch.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from capture.events import (
    END_STREAM,
    PADDED,
    Call,
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
from capture.protobuf import Schema, no_schema
from capture.streams import HeaderBlocks, Headers, Room, Streams, content_subtype

CLIENT, SERVER = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT


class _Call:
    """A call under way."""

    __slots__ = ("begun", "connection", "first_response_ns", "half_closed_ns", "http_status", "is_grpc", "messages",
                 "octets", "path", "responded", "start_ns", "timeout_ns")  # fmt: skip

    def __init__(self, connection: Connection, start_ns: int) -> None:
        self.connection = connection
        self.start_ns = start_ns
        self.begun = False
        """Whether its request headers were seen."""
        self.responded = False
        """Whether response headers or DATA were seen, or may be missing."""
        self.path: str | None = None
        self.is_grpc: bool | None = None
        self.http_status: int | None = None
        self.timeout_ns: int | None = None
        self.half_closed_ns: int | None = None
        self.first_response_ns: int | None = None
        self.messages = [0, 0]
        self.octets = [0, 0]
        """By direction."""


class _Connection:
    __slots__ = ("blocks", "client_gone_ns", "error", "last_stream_id", "streams")

    def __init__(self, room: Room) -> None:
        self.streams: Streams[_Call] = Streams(room)
        self.blocks = HeaderBlocks()
        self.last_stream_id: int | None = None
        """Of the server's GOAWAY."""
        self.error: tuple[int, Direction] | None = None
        """Of a GOAWAY that named one."""
        self.client_gone_ns: int | None = None
        """When the client's FIN came."""


class Calls:
    """The stage: frames and messages in, calls out in the order in which they ended.

    `schema` is only asked for the types that status details hold.
    """

    def __init__(self, schema: Schema | None = None) -> None:
        self._schema = schema or no_schema()
        self._connections: dict[int, _Connection] = {}
        self._room = Room()
        self._out: list[Call] = []

    def feed(self, frames: Iterable[Event], messages: Iterable[MessageEvent | Problem] = ()) -> list[Call]:
        """The calls that ended. `messages` is what the Messages stage made of these frames."""
        out = self._out = []
        waiting = deque(message for message in messages if type(message) is MessageEvent)
        for event in frames:
            if type(event) is FrameEvent:
                code = event.type_code
                if code == FrameType.DATA:
                    self._data(event, waiting)
                elif code in (FrameType.HEADERS, FrameType.CONTINUATION, FrameType.PUSH_PROMISE):
                    self._block(event)
                elif code == FrameType.RST_STREAM:
                    known = self._connections.get(event.connection.number)
                    if known is not None:
                        self._end(known, event.stream_id, "reset", event.time_ns, event.direction, event.error_code)
                elif code == FrameType.GOAWAY:
                    self._goaway(event)
            elif type(event) is Gap:
                known = self._connections.get(event.connection.number)
                if known is not None and event.frames_lost:
                    known.blocks.lose(event.direction)
                    if event.direction == SERVER:
                        for _stream_id, call in known.streams.living():
                            call.responded = True
            elif type(event) is ConnectionEnd:
                self._connection_end(event)
        return out

    def finish(self) -> list[Call]:
        """The capture is over: the calls that had not ended, by their start."""
        self._out = []
        for known in self._connections.values():
            gone = known.client_gone_ns
            for stream_id, _call in known.streams.living():
                if gone is None:
                    self._end(known, stream_id, "open", None, None)
                else:
                    self._end(known, stream_id, "cut", gone, CLIENT)
        self._connections.clear()
        return sorted(self._out, key=lambda call: call.start_ns)

    # -- Frames ----------------------------------------------------------------------------------------------------

    def _data(self, event: FrameEvent, waiting: deque[MessageEvent]) -> None:
        known = self._connection(event.connection)
        call = self._call(known, event.stream_id, event)
        count = 0  # of messages that this frame completed
        while waiting and _is_of(waiting[0], event):
            waiting.popleft()
            count += 1
        if call is None:
            return
        direction = event.direction
        octets = event.length if not event.flags & PADDED else event.data_length or 0
        call.octets[direction] += octets
        call.messages[direction] += count
        if count:
            call.is_grpc = True
        if direction == SERVER:
            call.responded = True
            if call.first_response_ns is None and (count or (call.is_grpc is False and octets)):
                call.first_response_ns = event.time_ns
        if event.flags & END_STREAM:
            if direction == CLIENT:
                call.half_closed_ns = event.time_ns
            else:
                self._end(known, event.stream_id, "trailers", event.time_ns, SERVER)

    def _block(self, event: FrameEvent) -> None:
        known = self._connection(event.connection)
        headers = known.blocks.take(event)
        call = self._call(known, event.stream_id, event) if event.type_code != FrameType.PUSH_PROMISE else None
        if headers is None or call is None:
            return
        content_type = headers.text("content-type")
        if content_type is not None and (event.direction == CLIENT or call.is_grpc is None):
            call.is_grpc = content_subtype(content_type) is not None
        elif ":path" in headers.fields and headers.lacks("content-type"):
            call.is_grpc = False
        if event.direction == CLIENT:
            self._request(call, headers, event.time_ns)
        else:
            self._response(known, call, headers, event.time_ns)

    def _request(self, call: _Call, headers: Headers, time_ns: int) -> None:
        if ":path" in headers.fields:
            call.path = headers.text(":path")
            call.begun = True
        timeout = headers.text("grpc-timeout")
        if timeout is not None:
            call.timeout_ns = timeout_ns(timeout)
        if headers.end_stream:
            call.half_closed_ns = time_ns

    def _response(self, known: _Connection, call: _Call, headers: Headers, time_ns: int) -> None:
        status = headers.text(":status")
        if status is not None and status.startswith("1") and not headers.end_stream:
            return  # 1xx only announces the response (RFC 9113 §8.1)
        if status is not None and status.isascii() and status.isdigit():
            call.http_status = int(status)
        if not headers.end_stream:
            call.responded = True
            return
        only = ":status" in headers.fields or (not headers.lacks(":status") and call.begun and not call.responded)
        self._end(known, headers.stream_id, "trailers_only" if only else "trailers", time_ns, SERVER, headers=headers)

    def _goaway(self, event: FrameEvent) -> None:
        known = self._connection(event.connection)
        if event.error_code:
            known.error = (event.error_code, event.direction)
        last = event.last_stream_id
        if event.direction == SERVER and last is not None:
            known.last_stream_id = last
            for stream_id, _call in known.streams.living():
                if stream_id > last:  # "were not or will not be processed" (RFC 9113 §6.8)
                    self._end(known, stream_id, "goaway", event.time_ns, SERVER, event.error_code)

    def _connection_end(self, end: ConnectionEnd) -> None:
        known = self._connections.get(end.connection.number)
        if known is None:
            return
        if end.how == "fin" and end.direction == CLIENT:
            known.client_gone_ns = end.time_ns  # the server may still answer
            return
        del self._connections[end.connection.number]
        for stream_id, _call in known.streams.living():
            if known.error is not None:
                self._end(known, stream_id, "goaway", end.time_ns, known.error[1], known.error[0])
            elif known.last_stream_id is not None and stream_id > known.last_stream_id:
                self._end(known, stream_id, "goaway", end.time_ns, SERVER)
            else:
                self._end(known, stream_id, "cut", end.time_ns, end.direction)
        known.streams.close()

    # -- Calls -----------------------------------------------------------------------------------------------------

    def _connection(self, connection: Connection) -> _Connection:
        known = self._connections.get(connection.number)
        if known is None:
            known = self._connections[connection.number] = _Connection(self._room)
        return known

    def _call(self, known: _Connection, stream_id: int, event: FrameEvent) -> _Call | None:
        """The stream's call, a new one if need be; None if it is over, or a stream that a server promised."""
        call = known.streams.get(stream_id)
        if call is None and stream_id & 1 and stream_id not in known.streams:
            call = _Call(event.connection, event.time_ns)
            let_go = known.streams.open(stream_id, call)
            if let_go is not None:
                self._out.append(_record(*let_go, "open", None, None, None))
        return call

    def _end(
        self,
        known: _Connection,
        stream_id: int,
        how: str,
        time_ns: int | None,
        by: Direction | None,
        error_code: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        call = known.streams.get(stream_id)
        if call is None:
            return
        known.streams.end(stream_id)
        record = _record(stream_id, call, how, time_ns, by, error_code)
        if headers is not None:
            record = record._replace(
                status=_number(headers.fields.get("grpc-status")),
                status_message=status_message(headers.fields.get("grpc-message")),
                details=self._details(headers.fields.get("grpc-status-details-bin")),
            )
        self._out.append(record)

    def _details(self, value: Any) -> Any:
        octets = binary_metadata(value)
        return None if octets is None else self._schema.message("google.rpc.Status", octets)


def _record(
    stream_id: int, call: _Call, how: str, end_ns: int | None, by: Direction | None, error_code: int | None
) -> Call:
    sent_messages, received_messages = call.messages
    sent_octets, received_octets = call.octets
    return Call(
        connection=call.connection,
        stream_id=stream_id,
        path=call.path,
        start_ns=call.start_ns,
        first_response_ns=call.first_response_ns,
        end_ns=end_ns,
        status=None,
        status_message=None,
        sent_messages=sent_messages,
        received_messages=received_messages,
        sent_octets=sent_octets,
        received_octets=received_octets,
        end=how,
        is_grpc=call.is_grpc,
        http_status=call.http_status,
        timeout_ns=call.timeout_ns,
        half_closed_ns=call.half_closed_ns,
        error_code=error_code,
        ended_by=by,
    )


def _is_of(message: MessageEvent, event: FrameEvent) -> bool:
    return (
        message.stream_id == event.stream_id
        and message.packet == event.packet
        and message.direction == event.direction
        and message.connection.number == event.connection.number
    )


_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_NS = {"H": 3_600_000_000_000, "M": 60_000_000_000, "S": 1_000_000_000, "m": 1_000_000, "u": 1_000, "n": 1}


def timeout_ns(value: str) -> int | None:
    """`grpc-timeout` in nanoseconds; None where it is none (gRPC: TimeoutValue TimeoutUnit)."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNIT_NS[match[2]] if match else None


def status_message(value: Any) -> str | None:
    """`grpc-message`, percent-decoded; what is no valid escape or UTF-8 stays visible (gRPC: Status-Message)."""
    if isinstance(value, bytes):
        return unquote_to_bytes(value).decode(errors="replace")
    return unquote(value) if isinstance(value, str) else None


def binary_metadata(value: Any) -> bytes | None:
    """The octets of a `-bin` field: base64 with or without padding (gRPC: Custom-Metadata), or, behind a zero octet,
    as they are, which grpc-core's peers agree on. None where it is neither, or unknown."""
    octets = value.encode() if isinstance(value, str) else value
    if not isinstance(octets, bytes):
        return None
    if octets.startswith(b"\x00"):
        return octets[1:]
    try:
        return base64.b64decode(octets.rstrip(b"=") + b"=" * (-len(octets.rstrip(b"=")) % 4), validate=True)
    except binascii.Error:
        return None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else None
