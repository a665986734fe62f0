"""Packets in, events out: the stages joined. Knows no source.

Events leave in the order in which things became complete, over all connections: by packet. A connection of which it is
not yet known what it is, and octets that wait behind a hole, will become events of packets that have passed: they hold
the others back, by `MAX_REORDER` packets at most. A live source does without (`live=True`) and gets what is known as
soon as it is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection
from operator import attrgetter

from capture.events import Event, FrameEvent, Packet, Problem
from capture.packets import Segment
from capture.reassembly import Flow, Reassembler
from capture.recognition import EVENT_OVERHEAD, Conversation, Options
from kit.words import N_

MAX_REORDER = 10_000
"""Packets by which something undecided may hold others back."""
MAX_KEPT = 64 << 20
"""Octets, Python's overhead included, of events held back and of what undecided connections keep."""
MAX_RESETS = 100
"""Connections that are still read behind their RST."""
SNAPPED = N_("the capture kept less than the whole packet: {octets} octets are missing")
NOT_CAPTURED = N_("a segment is missing from the capture: {octets} octets")


class Pipeline:
    """The way from packets to events, with all state that a capture needs.

    `ports`: TCP ports that speak HTTP/2, preface or not. `sections`: whether field sections are decoded; without them
    frames that nobody looks into come faster. `trace`: sections come with their steps. `live`: see above.
    `share` (i, n): only each n-th connection, from the i-th on, is read (`Reassembler`).
    """

    def __init__(
        self,
        *,
        ports: Collection[int] = (),
        sections: bool = True,
        trace: bool = False,
        live: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._out: list[Event] = []
        self._backlog: list[Event] = []
        self._backlog_octets = 0
        self._is_disordered = False
        """Whether events of earlier packets may have come behind later ones."""
        self._resets: deque[Conversation] = deque()
        self._options = Options(ports, sections, trace, live, self._out.append)
        self._reassembler = Reassembler(self, share)
        self._tells_counts = share[0] == 0
        self.horizon = 0
        """Events of all packets before this one have been handed out."""
        self._last = (0, 0)

    def feed(self, packets: list[Packet]) -> list[Event]:
        """Events that these packets made complete."""
        if not packets:
            return []
        self._reassembler.feed(packets)
        self._last = packets[-1][:2]
        return self._release()

    def finish(self) -> list[Event]:
        """The capture is over: what was waited for is given up, what was counted is told."""
        self._reassembler.finish(*self._last)
        for conversation in list(self._options.conversations.values()):
            conversation.finish(*self._last)
        self._resets.clear()
        self._options.undecided.clear()
        self._is_disordered = True
        counts = self._reassembler.decoder.finish()
        return self._release() + (counts if self._tells_counts else [])

    def _release(self) -> list[Event]:
        """The events that nothing holds back."""
        out, undecided = self._out, self._options.undecided
        self.horizon = self._last[0] + 1
        waiting = self._reassembler.oldest_waiting()
        if self._options.kept + self._backlog_octets > MAX_KEPT:
            self._make_room()
            waiting = None
        if not undecided and waiting is None and not self._backlog and not self._is_disordered:
            events = out[:]
            out.clear()
            return events
        back = [] if waiting is None else [waiting]
        for conversation in list(undecided.values()):
            oldest = conversation.oldest()
            if oldest is None:
                del undecided[conversation.number]
            else:
                back.append(oldest)
        self._backlog_octets += sum(map(_octets, out))
        backlog = self._backlog + out
        out.clear()
        backlog.sort(key=_packet)
        self._is_disordered = False
        within = [packet for packet in back if packet >= self._last[0] - MAX_REORDER]
        if self._options.live or not within:
            self._backlog, self._backlog_octets = [], 0
            return backlog
        self.horizon = min(within)
        ready = bisect_left(backlog, self.horizon, key=_packet)
        self._backlog = backlog[ready:]
        self._backlog_octets -= sum(map(_octets, backlog[:ready]))
        return backlog[:ready]

    def _make_room(self) -> None:
        """Too much is kept: what is probably nothing goes first, and if that was not it, all that is undecided gets
        decided by what is known."""
        for conversation in self._options.conversations.values():
            conversation.shrink()
        if self._options.kept + self._backlog_octets > MAX_KEPT // 2:
            for conversation in list(self._options.undecided.values()):
                conversation.decide()

    # -- what the reassembler tells --------------------------------------------------------------------------------

    def opened(self, flow: Flow, first: Segment) -> None:
        conversation = Conversation(flow, first, self._options)
        flow.tcp.user = self._options.conversations[conversation.number] = conversation

    def hole(self, flow: Flow, packet: int, time_ns: int, octets: int, snapped: bool) -> None:
        self._is_disordered = self._is_disordered or not snapped
        conversation: Conversation | None = flow.tcp.user
        if conversation is None:
            return
        side = conversation.sides[flow is not conversation.sides[0].flow]
        if side.is_closed:
            return
        reason = SNAPPED if snapped else NOT_CAPTURED
        where = (packet, time_ns, conversation.record, conversation.direction_of(side), flow.delivered - octets)
        conversation.emit(Problem(*where, "tcp", reason, {"octets": octets}, octets))
        side.hole(packet, time_ns, octets)

    def closed(self, flow: Flow, packet: int, time_ns: int, how: str) -> None:
        conversation: Conversation | None = flow.tcp.user
        if conversation is None:
            return
        was_reset = conversation.was_reset
        conversation.closed(flow, packet, time_ns, how)
        if conversation.was_reset and not was_reset and not conversation.is_over:
            self._resets.append(conversation)
            if len(self._resets) > MAX_RESETS:
                self._resets.popleft().finish(packet, time_ns)


_packet = attrgetter("packet")


def _octets(event: Event) -> int:
    """What an event takes, roughly."""
    return EVENT_OVERHEAD + (event.length if type(event) is FrameEvent else 0)
