"""What a TCP connection turns out to be: HTTP/2 from some octet on, TLS, or something else.

How it works. Each direction is a `Side`. At first it searches what it is given: for the connection preface, wherever it
comes (at the start, behind an upgrade from HTTP/1.1, behind a tunnel); for TLS; and, where the capture has not seen the
connection's beginning or the port is said to speak HTTP/2, for frame boundaries. Once one side is recognised, the other
is known to speak HTTP/2 as well. What a side recognises it hands, from the first frame on, to a `FrameReader`, arrival
by arrival; from then on the reader is what the reassembler talks to, until a gap loses the boundary.

Who is the client is known from the preface or the SYN. Without them it is who sends request pseudo-header fields; until
some pass, the connection's events are held (within bounds), and at the bounds the port decides: the server's is the one
that the user named, else the lower.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection
from operator import itemgetter
from typing import Any

from capture.boundaries import ENOUGH, ENOUGH_AT_END, KNOWN_ENOUGH, KNOWN_ENOUGH_AT_END, BoundarySearch
from capture.events import (
    CONNECTION_PREFACE,
    FRAME_HEADER_LENGTH,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
)
from capture.frames import FrameReader
from capture.hpack_tables import Budget
from capture.packets import ACK, SYN, Segment, endpoints, ports_of
from capture.reassembly import Flow
from capture.tls import client_hello, looks_like_tls
from kit.words import N_

MAX_HELD_OCTETS = 16 << 20
"""Of events that a connection holds until its roles are known: some 20,000 with typical payloads."""
EVENT_OVERHEAD = 500
PIECE_OVERHEAD = 130
"""Octets that Python spends on an event besides its payload, and on noting an arrival."""
LIVE_PATIENCE_NS = 1_000_000_000
"""The same for a live display: better a guess by port than nothing to see."""
MAX_BEFORE_PREFACE = 64 << 10
"""Octets kept of a side that waits for a preface: an upgrade's request, a tunnel's, a server that speaks first."""
MAX_HELLO = 64 << 10
"""Octets waited for a whole ClientHello. With post-quantum key shares it has about 2 KiB."""
MAX_GAPS = 100
"""Gaps remembered of a connection that may yet turn out to be HTTP/2."""
DOUBTS = 8
"""Frames that must be beyond reproach after a boundary that was inferred."""

_REQUEST_FIELDS = {":method", ":path", ":scheme", ":authority"}
_RESPONSE_FIELDS = {":status", "grpc-status"}
_FROM_SERVERS = {FrameType.PUSH_PROMISE, FrameType.ALTSVC, FrameType.ORIGIN}
"""RFC 9113 §8.4, RFC 7838 §4, RFC 8336 §2."""


class Options:
    """What the connections of a pipeline share."""

    __slots__ = ("budget", "conversations", "emit", "kept", "live", "ports", "sections", "trace", "undecided")

    def __init__(
        self, ports: Collection[int], sections: bool, trace: bool, live: bool, emit: Callable[[Event], None]
    ) -> None:
        self.ports, self.sections, self.trace, self.live, self.emit = frozenset(ports), sections, trace, live, emit
        self.budget = Budget()
        self.conversations: dict[int, Conversation] = {}
        """Those that are read, by number."""
        self.undecided: dict[int, Conversation] = {}
        """Connections that keep octets or events which may yet have to be emitted, by number, and those that did so
        since the pipeline looked last."""
        self.kept = 0
        """Octets, overhead included, that connections keep until they know what they are and who is who."""


class Conversation:
    """One TCP connection."""

    def __init__(self, flow: Flow, first: Segment, options: Options) -> None:
        self.options = options
        self.number = flow.tcp.number
        self.sides = (Side(self, flow), Side(self, flow.peer))
        self.sides[0].peer, self.sides[1].peer = self.sides[1], self.sides[0]
        self.is_http2 = False
        self.is_prefaced = False
        """The connection preface was seen."""
        self.is_direct = False
        """And nothing before it: HTTP/2 with prior knowledge."""
        self.is_expected = not options.ports.isdisjoint(ports_of(flow.key))
        """Known, or said by the user, to speak HTTP/2."""
        self.is_over = False
        self.was_reset = False
        self.last = (first.packet, first.time_ns)
        """The packet that is being looked at, or was last."""
        self._held: list[Event] = []
        self._held_octets = self._held_since = 0
        self._client: Side | None = None
        if first.flags & SYN:
            self._client = self.sides[bool(first.flags & ACK)]
        self.emit: Callable[[Event], None] = options.emit if self._client else self._hold
        self.record = self._make_record(self._client or self._likely_client())

    # -- roles -----------------------------------------------------------------------------------------------------

    def direction_of(self, side: Side) -> Direction:
        return Direction.CLIENT_TO_SERVER if side is self._assumed_client else Direction.SERVER_TO_CLIENT

    def set_client(self, client: Side) -> None:
        """The roles are known; what was held is let go, corrected where it was assumed the other way round."""
        is_swapped = client is not self._assumed_client
        self._client = client
        self.record = self._make_record(client)
        self.emit = self.options.emit
        for side in self.sides:
            if side.reader is not None:
                side.reader.connection, side.reader.direction = self.record, self.direction_of(side)
                side.reader.emit = self.emit
        held, self._held = self._held, []
        self.options.kept -= self._held_octets
        self._held_octets = 0
        for event in held:
            if is_swapped and event.direction is not None:
                event = event._replace(connection=self.record, direction=Direction(1 - event.direction))
            self.emit(event)

    def _make_record(self, client: Side) -> Connection:
        self._assumed_client = client
        return Connection(self.number, *endpoints(client.flow.key))

    def _likely_client(self) -> Side:
        """By port: the server's is the one that the user named, else the lower."""
        ports = ports_of(self.sides[0].flow.key)
        named = [port in self.options.ports for port in ports]
        is_first = named[1] if named[0] != named[1] else ports[0] > ports[1]
        return self.sides[0] if is_first else self.sides[1]

    def _hold(self, event: Event) -> None:
        """Keeps an event until the roles are known, and looks whether it tells them."""
        if self._client is not None:  # known since a moment ago, in the middle of a segment
            return self.options.emit(event)
        self._held_since = min(self._held_since, event.packet) if self._held else event.packet
        self._held.append(event)
        self.options.undecided[self.number] = self
        octets = EVENT_OVERHEAD
        if type(event) is FrameEvent:
            octets += event.length
            sender = self.sides[0] if self.direction_of(self.sides[0]) == event.direction else self.sides[1]
            if event.type_code in _FROM_SERVERS:  # before any section: that of a promise has request fields
                return self.set_client(sender.peer)
            if event.section is not None:
                names = {name for name, _ in event.section.fields if isinstance(name, str)}
                if names & _REQUEST_FIELDS:
                    return self.set_client(sender)
                if names & _RESPONSE_FIELDS:
                    return self.set_client(sender.peer)
        self._held_octets += octets
        self.options.kept += octets
        is_named = any(port in self.options.ports for port in ports_of(self.sides[0].flow.key))
        if self._held_octets > MAX_HELD_OCTETS or (
            self.options.live and (is_named or event.time_ns - self._held[0].time_ns > LIVE_PATIENCE_NS)
        ):
            self.set_client(self._assumed_client)
        return None

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def start(self, side: Side, position: int) -> None:
        """The connection preface stands at `position` of this side."""
        self.is_http2 = self.is_prefaced = self.is_expected = True
        self.is_direct = position == 0 and side.flow.started
        self.set_client(side)
        if side.peer.reader is None:
            # The server may have spoken first; what it said came before.
            side.peer.receive_nothing()
        side.begin(position + len(CONNECTION_PREFACE), certain=True)

    def recognised(self) -> None:
        """A side found frames."""
        self.is_http2 = self.is_expected = True

    def stop(self) -> None:
        """Not HTTP/2: nothing more is read."""
        self.is_over = True
        for side in self.sides:
            side.stop()
        for side in self.sides:
            if side.reader is not None:  # both hold each other: tables go now, not when Python looks for cycles
                side.reader.peer = None
                side.reader = None
        self.sides[0].flow.tcp.user = None
        self.options.conversations.pop(self.number, None)

    def closed(self, flow: Flow, packet: int, time_ns: int, how: str) -> None:
        """FIN, RST, or a new connection on the same ports. Behind a RST comes what was under way already, or all that
        follows if it was forged, so that it only ends what waits."""
        if self.is_over or (how == "reset" and self.was_reset):
            return
        self.last = (packet, time_ns)
        side = self.sides[0] if self.sides[0].flow is flow else self.sides[1]
        for one in (side,) if how == "fin" else self.sides:
            one.settle()
            if how != "reset":
                one.close(packet, time_ns)
            else:
                one.end(packet, time_ns, _ENDED)
        if self.is_http2:
            self.emit(ConnectionEnd(packet, time_ns, self.record, self.direction_of(side), how))
        if how == "reset":
            self.was_reset = True
        is_going_on = how == "fin" and not all(one.is_closed for one in self.sides)
        if not is_going_on and not (how == "reset" and self.is_http2):
            self.finish(packet, time_ns)

    def finish(self, packet: int, time_ns: int) -> None:
        """The connection, or the capture, is over."""
        if self.is_over:
            return
        self.last = (packet, time_ns)
        for side in self.sides:
            side.settle()
            if not side.is_closed and not self.was_reset:
                side.end(packet, time_ns, N_("the capture ends {octets} octets into a frame"))
        if self._client is None:
            self.set_client(self._assumed_client)
        octets = sum(side.flow.delivered for side in self.sides)
        if not self.is_http2 and octets:
            reason = N_("{octets} octets of a connection in which no HTTP/2 was found")
            self.emit(Problem(*self.last, self.record, None, None, "http2", reason, {"octets": octets}, octets))
        self.stop()

    def shrink(self) -> None:
        """All connections together keep too much: lets go of octets that are probably no frames."""
        for side in self.sides:
            if not side.is_hopeful:
                side.shrink()

    def decide(self) -> None:
        """The same, and that was not enough: no more evidence is waited for."""
        for side in self.sides:
            side.shrink()
        if self._client is None and self.is_http2:
            self.set_client(self._assumed_client)

    def oldest(self) -> int | None:
        """The packet of the earliest thing that is kept and may yet be emitted."""
        packets = [side.pieces[0][1] for side in self.sides if side.is_hopeful]
        if self._held:
            packets.append(self._held_since)
        return min(packets, default=None)


class Side:
    """One direction of a connection."""

    def __init__(self, conversation: Conversation, flow: Flow) -> None:
        self.conversation, self.flow = conversation, flow
        self.peer: Side = self
        self.reader: FrameReader | None = None
        self.pieces: list[tuple[int, int, int]] = []
        """(offset, packet, time) of each arrival among the octets kept."""
        self.is_hopeful = False
        """Whether what is kept may well be frames."""
        self.is_closed = False
        self._late = False
        """Whether octets before the kept ones were missed, so that they need not begin with a beginning."""
        self._search = BoundarySearch(0)
        self._began = 0
        """Where this search began."""
        self._gaps: list[tuple[int, int]] = []
        """(offset, octets) of gaps while it was not known that this is HTTP/2."""
        self._kept = 0
        """What of `Options.kept` is this side's."""
        flow.receive = self.receive

    # -- octets ----------------------------------------------------------------------------------------------------

    def receive(self, packet: int, time_ns: int, octets: bytes) -> None:
        """While searching. `flow.receive` is another once the search is over."""
        self._late = self._late or not self.flow.started
        self.pieces.append((self._search.end, packet, time_ns))
        self.conversation.last = (packet, time_ns)
        self._search.append(octets)
        self._look(len(octets))

    def receive_nothing(self) -> None:
        """Looks again at what is kept: the other side has learnt something."""
        if self.pieces:
            self._look(0)

    def hole(self, packet: int, time_ns: int, missing: int) -> None:
        """Octets are missing from here on."""
        if not self.is_searching and self.reader is None:
            return
        if self.is_searching:
            self.settle()
        conversation = self.conversation
        if not self.is_searching and self.reader is not None:
            if not self.reader.hole(packet, time_ns, missing):
                self._restart(self.reader.offset)
            return
        at = self._search.end
        if conversation.is_http2:
            self._tell_skipped(at, packet, time_ns)
            where = (packet, time_ns, conversation.record, conversation.direction_of(self))
            conversation.emit(Gap(*where, at, missing, True))
        elif len(self._gaps) < MAX_GAPS:
            self._gaps.append((at, missing))
        self._restart(at + missing)

    @property
    def is_searching(self) -> bool:
        return self.flow.receive == self.receive

    @property
    def _is_alone(self) -> bool:
        """Whether nothing was seen of the other direction: the preface may have passed there."""
        return self.peer.flow.next is None

    def settle(self) -> None:
        """Nothing more comes to this search: less evidence must do."""
        if not (self.is_searching and self.pieces):
            return
        search = self._search
        # A server may have spoken before the client's preface came, if it came.
        is_first = not self._late and search.offset == 0 and _is_settings(search.octets, 0)
        if is_first:
            start: int | None = 0
        elif self._late or self._is_alone or self.conversation.is_expected:
            start = search.find(1 if self.conversation.is_expected else 2, 1)
        else:
            start = search.find(ENOUGH, ENOUGH)
        if start is not None:
            self.begin(start, certain=is_first)

    def close(self, packet: int, time_ns: int) -> None:
        """The direction ends here. What is kept is kept until the other direction says what it is."""
        if not self.is_closed:
            self.is_closed = True
            self.end(packet, time_ns, _ENDED)
            if self.conversation.is_http2:
                self.stop()

    def end(self, packet: int, time_ns: int, what: str) -> None:
        """Tells what is unfinished."""
        if self.reader is not None and not self.is_searching:
            self.reader.end(packet, time_ns, what)

    def stop(self) -> None:
        """Reads nothing more."""
        if self.reader is not None:
            self.reader.close()
        if self.is_searching and self.conversation.is_http2:
            self._tell_gaps(*self.conversation.last)
            self._tell_skipped(self._search.end, *self.conversation.last)
        self.flow.receive = _ignore
        self._forget()

    def shrink(self) -> None:
        """Lets go of what is kept, but for what a preface may begin with."""
        if self.is_searching:
            self._search.drop(len(CONNECTION_PREFACE))
            self.is_hopeful = False
            self._tidy()

    # -- recognising -----------------------------------------------------------------------------------------------

    def _look(self, new: int) -> None:
        """Tries what the kept octets can be, the surest first."""
        conversation, search = self.conversation, self._search
        octets = search.octets
        is_beginning = not self._late and search.offset == 0
        was_hopeful, self.is_hopeful = self.is_hopeful, False
        if not conversation.is_prefaced:
            found = octets.find(CONNECTION_PREFACE, max(0, len(octets) - new - len(CONNECTION_PREFACE)))
            if found >= 0:
                return conversation.start(self, search.offset + found)
            if is_beginning and CONNECTION_PREFACE.startswith(octets):
                return self._wait(True)
        records = self._tls_records()
        if records is not None:
            return self._look_at_tls(records)
        is_switch = search.offset == 0 and octets.startswith(b"HTTP/1.1 101") and b"h2c" in octets
        is_start = not self._late or (self._began == 0 and _is_settings(octets, 0))
        if self.reader is None and (is_switch or (conversation.is_prefaced and is_start)):
            start = self._first_settings()
            return self._wait(True) if start is None else self.begin(start, certain=True)
        if conversation.is_expected or self._late or self._is_alone:
            if len(octets) < FRAME_HEADER_LENGTH and search.offset == self._began:
                return self._wait(True)
            if conversation.is_expected and is_beginning and _is_settings(octets, 0):
                return self.begin(0, certain=True)
            is_first = len(self.pieces) == 1 or len(octets) - new < FRAME_HEADER_LENGTH
            if conversation.is_expected and is_first and search.may_begin(self._began):
                return self.begin(self._began, certain=is_beginning)
            known = conversation.is_expected
            start = search.find(*((KNOWN_ENOUGH, KNOWN_ENOUGH_AT_END) if known else (ENOUGH, ENOUGH_AT_END)))
            return self._wait(search.is_hopeful) if start is None else self.begin(start)
        # A beginning without a preface: perhaps a server that speaks first, at once or behind what opened a tunnel.
        may_follow = was_hopeful or octets.find(_SETTINGS, max(0, len(octets) - new - len(_SETTINGS))) >= 0
        if is_beginning:
            search.find(*_NEVER_ENOUGH)
        return self._wait(is_beginning and (may_follow or search.is_hopeful))

    def _wait(self, is_hopeful: bool) -> None:
        """Keeps what may be needed."""
        self.is_hopeful = is_hopeful
        conversation, search = self.conversation, self._search
        if is_hopeful:
            conversation.options.undecided[conversation.number] = conversation
        is_answer = search.offset == 0 and search.octets.startswith(b"HTTP/1.")
        if (self._late or conversation.is_expected) and not is_answer:
            search.trim(len(CONNECTION_PREFACE))
        elif len(search.octets) > MAX_BEFORE_PREFACE:
            search.trim(MAX_BEFORE_PREFACE // 2)
        self._tidy()

    def _tidy(self) -> None:
        """Forgets arrivals of which nothing is kept, and accounts for the rest."""
        del self.pieces[: max(bisect_right(self.pieces, self._search.offset, key=itemgetter(0)) - 1, 0)]
        kept = len(self._search.octets) + len(self.pieces) * PIECE_OVERHEAD
        self.conversation.options.kept += kept - self._kept
        self._kept = kept

    def _forget(self) -> None:
        self._search, self.pieces, self.is_hopeful = BoundarySearch(0), [], False
        self._tidy()

    def _first_settings(self) -> int | None:
        """Where the server's first frame is: the client has sent the preface, so it is SETTINGS (RFC 9113 §3.4), at
        once or behind what answered an upgrade or opened a tunnel."""
        octets, offset = self._search.octets, self._search.offset
        if self.conversation.is_direct and offset == 0 and not self._late:
            return 0
        start = 0
        if octets.startswith(b"HTTP/1."):
            start = octets.find(b"\r\n\r\n") + 4
            if start < 4:
                return None
        if len(octets) < start + FRAME_HEADER_LENGTH:
            return None
        if offset == 0 and (_is_settings(octets, start) or self._search.may_begin(start)):
            return start
        found = (at for at in range(start, len(octets) - FRAME_HEADER_LENGTH + 1) if _is_settings(octets, at))
        return next((offset + at for at in found if self._search.may_begin(offset + at)), None)

    def _tls_records(self) -> int | None:
        """Where TLS begins: at the first octet, or behind the request that opened a tunnel for it."""
        octets, start = self._search.octets, 0
        if self.conversation.is_http2 or self._search.offset != self._began:
            return None
        if octets.startswith(b"CONNECT "):
            start = octets.find(b"\r\n\r\n") + 4
        return start if looks_like_tls(octets, start) else None

    def _look_at_tls(self, start: int) -> None:
        """The first record is TLS; waits for the whole ClientHello where the beginning was seen."""
        conversation, octets = self.conversation, bytes(self._search.octets[start:])
        hello = client_hello(octets)
        if hello is None and not self._late and octets[0] == 22 and octets[5:6] in (b"", b"\1"):
            if len(octets) < MAX_HELLO:
                return self._tidy()
        elif hello is None and not self._late and octets[0] == 22 and self.peer.pieces:
            return self._tidy()  # the server's answer; the hello on the other side says more
        packet, time_ns = conversation.last
        if hello is not None:
            conversation.set_client(self)
            reason = N_("TLS: what it carries is encrypted (server name {name}, ALPN {protocols})")
            values = {"name": hello.server_name or "-", "protocols": ", ".join(hello.alpn) or "-"}
        else:
            conversation.set_client(conversation._assumed_client)
            reason, values = N_("TLS: what it carries is encrypted"), {}
        where = (packet, time_ns, conversation.record, conversation.direction_of(self), self._search.offset + start)
        conversation.emit(Problem(*where, "tls", reason, values))
        return conversation.stop()

    def begin(self, start: int, certain: bool = False) -> None:
        """Frames begin at `start`: hands what was kept to a reader, arrival by arrival."""
        conversation, search = self.conversation, self._search
        conversation.recognised()
        if not certain:
            # As of the packet that showed the boundary: the one with the end of the first header.
            piece = bisect_right(self.pieces, start + FRAME_HEADER_LENGTH - 1, key=itemgetter(0)) - 1
            self._tell_gaps(*self.pieces[piece][1:])
            self._tell_skipped(start, *self.pieces[piece][1:])
        reader = self.reader
        if reader is None:
            reader = self.reader = FrameReader(
                conversation.record,
                conversation.direction_of(self),
                conversation.emit,
                conversation.options.budget,
                whole=certain,
                sections=conversation.options.sections or conversation.emit == conversation._hold,
                trace=conversation.options.trace,
                lost=self._lost,
            )
            if self.peer.reader is not None:
                reader.meet(self.peer.reader)
        reader.begin(start, 0 if certain else DOUBTS)
        octets, offset, pieces = bytes(search.octets), search.offset, self.pieces
        self._forget()
        self.flow.receive = reader.feed
        ends = [piece[0] for piece in pieces[1:]] + [offset + len(octets)]
        for (begin, packet, time_ns), end in zip(pieces, ends, strict=True):
            part = octets[max(begin, start) - offset : max(end - offset, 0)]
            if part:
                self.flow.receive(packet, time_ns, part)
        if self.is_closed:
            self.end(*pieces[-1][1:], _ENDED)
            self.stop()

    def _restart(self, offset: int) -> None:
        """Searches again, from `offset` on."""
        self._forget()
        self._search, self._began, self._late = BoundarySearch(offset), offset, True
        self.flow.receive = self.receive

    def _lost(self, packet: int, time_ns: int, rest: bytes) -> None:
        """The reader met a header that cannot be one."""
        assert self.reader is not None
        conversation, at = self.conversation, self.reader.offset
        where = (packet, time_ns, conversation.record, conversation.direction_of(self), at)
        reason = N_("no frame can begin here: the frame boundary is lost (RFC 9113 §4.1)")
        conversation.emit(Problem(*where, "http2", reason, {}))
        conversation.emit(Gap(*where, 0, True))
        self._restart(at)
        self.receive(packet, time_ns, rest)

    def _tell_gaps(self, packet: int, time_ns: int) -> None:
        conversation = self.conversation
        where = (packet, time_ns, conversation.record, conversation.direction_of(self))
        for offset, octets in self._gaps:
            conversation.emit(Gap(*where, offset, octets, True))
        self._gaps.clear()

    def _tell_skipped(self, start: int, packet: int, time_ns: int) -> None:
        if start <= self._began:
            return
        conversation = self.conversation
        where = (packet, time_ns, conversation.record, conversation.direction_of(self), self._began, "http2")
        reason = N_("{octets} octets are not decoded: where frames begin in them cannot be known")
        octets = start - self._began
        conversation.emit(Problem(*where, reason, {"octets": octets}, octets))


_NEVER_ENOUGH = (1 << 30, 1 << 30)
_SETTINGS = b"\4\0\0\0\0\0"
"""Type, flags and stream of a SETTINGS frame."""
_ENDED = N_("the connection ended {octets} octets into a frame")


def _ignore(packet: int, time_ns: int, octets: bytes) -> None:
    """Of a connection that is over, or of another protocol."""


def _is_settings(octets: bytes | bytearray, at: int) -> bool:
    """Whether a SETTINGS frame header, no acknowledgement, can stand there."""
    header: Any = octets[at : at + FRAME_HEADER_LENGTH]
    return header[3:] == _SETTINGS and int.from_bytes(header[:3]) % 6 == 0 and header[0] == 0
