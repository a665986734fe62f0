"""What a PING frame is for, where that can be known.

HTTP/2 gives a PING eight octets and no meaning (RFC 9113 §6.7); senders use it for three things: to measure the
bandwidth-delay product (BDP estimate), to see whether the other side is still there (keepalive), and to learn when a
graceful shutdown's GOAWAY has arrived. Two kinds of evidence tell them apart:

  payload        several implementations always send the same octets, or count (`_PAYLOADS`, read in their sources)
  circumstances  grpc-core (C++, Python, Ruby, …) sends eight random octets, but

    - a PING right behind its own GOAWAY with the last stream 2^31−1 asks whether that GOAWAY has arrived;
    - one that follows DATA from the other side measures: it is sent while that DATA arrives, which is why it comes
      even before a large DATA frame is complete;
    - one whose sender has heard nothing but answers to pings for a second or more asks whether anybody is there.

  Measured on grpcio 1.85: BDP estimates come within 2 ms of DATA on a connection that was at rest, then every 100 to
  400 ms while DATA flows, and never without DATA since the one before; keepalives come a keepalive time after the last
  frame, to the millisecond or two. (While a DATA frame is not complete it counts for neither.)

What fits neither is a PING and nothing more: its purpose stays None. An answer (ACK) carries its question's octets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from capture.events import ACK, Connection, ConnectionEnd, Direction, Event, FrameEvent, FrameType


class Purpose(StrEnum):
    BDP_ESTIMATE = "bdp_estimate"
    KEEPALIVE = "keepalive"
    GRACEFUL_SHUTDOWN = "graceful_shutdown"


class PingName(NamedTuple):
    """What is known of a PING frame."""

    purpose: Purpose | None
    """Of an answer, its question's. None where nothing tells."""
    implementation: str | None
    """Whose payload it is, where that told."""
    is_answer: bool
    question: int | None
    """Of an answer: the index of its question, counting frames as `WindowSample.cause` does; None where that came
    before the capture."""
    round_trip_ns: int | None
    """Of an answer: how long after its question it passed here, which is a round trip only near whoever asked."""


_PAYLOADS: dict[bytes, tuple[Purpose, str]] = {
    bytes([2, 4, 16, 16, 9, 14, 7, 7]): (Purpose.BDP_ESTIMATE, "grpc-go"),
    bytes(8): (Purpose.KEEPALIVE, "grpc-go"),
    bytes([1, 6, 1, 8, 0, 3, 3, 9]): (Purpose.GRACEFUL_SHUTDOWN, "grpc-go"),
    (1234).to_bytes(8): (Purpose.BDP_ESTIMATE, "grpc-java"),
    (0xDEAD).to_bytes(8): (Purpose.KEEPALIVE, "grpc-java"),
    (0x97ACEF001).to_bytes(8): (Purpose.GRACEFUL_SHUTDOWN, "grpc-java"),
}
KEEPALIVE_SILENCE_NS = 1_000_000_000
"""No implementation's documentation suggests a keepalive time below a second, and no BDP estimate waits that long."""
MAX_UNANSWERED = 64
"""Questions remembered for each connection: a well-behaved sender has one or two under way."""


class _Asked(NamedTuple):
    frame: int
    time_ns: int
    direction: Direction
    purpose: Purpose | None
    implementation: str | None


class _Connection:
    __slots__ = ("asked", "data_since_ping", "heard_ns", "leaving")

    def __init__(self) -> None:
        self.asked: OrderedDict[bytes, _Asked] = OrderedDict()
        self.heard_ns: list[int | None] = [None, None]
        """By direction: when its sender last heard anything but an answer to a ping, or asked one itself."""
        self.data_since_ping = [False, False]
        """By direction: whether its sender received DATA since it last asked."""
        self.leaving = [False, False]
        """By direction: whether its last frame was the first GOAWAY of a graceful shutdown."""


class Pings:
    """Names the PING frames of all connections. Feed it every frame, in order."""

    def __init__(self) -> None:
        self._connections: dict[int, _Connection] = {}
        self._count = 0

    def feed(self, events: Iterable[Event]) -> list[tuple[FrameEvent, PingName]]:
        """The PING frames among these events, each with its name."""
        named = []
        for event in events:
            if type(event) is ConnectionEnd:
                self._connections.pop(event.connection.number, None)  # a half-closed one starts over
            elif type(event) is FrameEvent:
                if event.type_code == FrameType.PING:
                    named.append((event, self._ping(event)))
                else:
                    self._frame(event)
                self._count += 1
        return named

    def _connection(self, connection: Connection) -> _Connection:
        known = self._connections.get(connection.number)
        if known is None:
            known = self._connections[connection.number] = _Connection()
        return known

    def _frame(self, event: FrameEvent) -> None:
        known = self._connection(event.connection)
        sender, hearer = event.direction, 1 - event.direction
        known.heard_ns[hearer] = event.time_ns
        if event.type_code == FrameType.DATA and event.length:
            known.data_since_ping[hearer] = True
        known.leaving[sender] = event.type_code == FrameType.GOAWAY and event.last_stream_id == 0x7FFF_FFFF

    def _ping(self, event: FrameEvent) -> PingName:
        known = self._connection(event.connection)
        payload = event.payload
        purpose: Purpose | None
        implementation: str | None
        purpose, implementation = _PAYLOADS.get(payload or b"", (None, None))
        if event.flags & ACK:
            asked = known.asked.get(payload or b"")
            if asked is not None and asked.direction != event.direction:
                del known.asked[payload or b""]
                round_trip = event.time_ns - asked.time_ns
                return PingName(asked.purpose, asked.implementation, True, asked.frame, round_trip)
            return PingName(purpose, implementation, True, None, None)
        if purpose is None:
            purpose = self._by_circumstances(event, known)
        if payload is not None:
            known.asked[payload] = _Asked(self._count, event.time_ns, event.direction, purpose, implementation)
        if len(known.asked) > MAX_UNANSWERED:
            known.asked.popitem(last=False)
        sender = event.direction
        known.heard_ns[sender] = event.time_ns
        known.data_since_ping[sender] = False
        known.leaving[sender] = False
        return PingName(purpose, implementation, False, None, None)

    def _by_circumstances(self, event: FrameEvent, known: _Connection) -> Purpose | None:
        sender = event.direction
        if known.leaving[sender]:
            return Purpose.GRACEFUL_SHUTDOWN
        heard = known.heard_ns[sender]
        silent = heard is not None and event.time_ns - heard >= KEEPALIVE_SILENCE_NS
        if known.data_since_ping[sender]:
            return None if silent else Purpose.BDP_ESTIMATE
        return Purpose.KEEPALIVE if silent else None
