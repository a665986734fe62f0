"""Packets in, events out: the stages joined. Knows no source.

Events leave in the order in which things became complete, over all connections. A connection of which it is not yet
known what it is holds the others back, by `MAX_REORDER` packets at most; a live source does without (`live=True`) and
gets what is known as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

from capture.events import Event, Packet, Problem
from capture.packets import Segment
from capture.reassembly import Flow, Reassembler
from capture.recognition import Conversation, Options
from kit.words import N_

MAX_REORDER = 1000
"""Packets by which an undecided connection may hold others back."""


class Pipeline:
    """The way from packets to events, with all state that a capture needs.

    `ports`: TCP ports that speak HTTP/2, preface or not. `sections`: whether field sections are decoded; without them
    frames that nobody looks into come faster. `trace`: sections come with their steps. `live`: see above.
    """

    def __init__(
        self, *, ports: Collection[int] = (), sections: bool = True, trace: bool = False, live: bool = False
    ) -> None:
        self._out: list[Event] = []
        self._backlog: list[Event] = []
        self._options = Options(ports, sections, trace, live, self._out.append)
        self._reassembler = Reassembler(self)
        self._conversations: dict[int, Conversation] = {}
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
        self._reassembler.finish()
        for conversation in list(self._conversations.values()):
            conversation.finish()
        self._conversations.clear()
        self._options.undecided.clear()
        events = sorted(self._release(), key=attrgetter("packet"))
        return events + self._reassembler.decoder.finish()

    def _release(self) -> list[Event]:
        out = self._out
        undecided = self._options.undecided
        if not undecided and not self._backlog:
            events = out[:]
            out.clear()
            return events
        horizon: int | None = None
        for conversation in list(undecided.values()):
            oldest = conversation.oldest()
            if oldest is None:
                del undecided[conversation.number]
            elif oldest >= self._last[0] - MAX_REORDER and not self._options.live:
                horizon = oldest if horizon is None else min(horizon, oldest)
        backlog = self._backlog
        backlog += out
        out.clear()
        backlog.sort(key=attrgetter("packet"))
        if horizon is None:
            self._backlog = []
            return backlog
        ready = [event for event in backlog if event.packet < horizon]
        self._backlog = backlog[len(ready) :]
        return ready

    # -- what the reassembler tells --------------------------------------------------------------------------------

    def opened(self, flow: Flow, first: Segment) -> None:
        conversation = Conversation(flow, first, self._options)
        flow.tcp.user = self._conversations[conversation.number] = conversation

    def hole(self, flow: Flow, packet: int, time_ns: int, octets: int, snapped: bool) -> None:
        conversation: Conversation = flow.tcp.user
        side = conversation.sides[flow is not conversation.sides[0].flow]
        if conversation.is_over or side.is_closed:
            return
        if snapped:
            reason = N_("the capture kept less than the whole packet: {octets} octets are missing")
        else:
            reason = N_("a segment is missing from the capture: {octets} octets")
        where = (packet, time_ns, conversation.record, conversation.direction_of(side), flow.delivered - octets)
        conversation.emit(Problem(*where, "tcp", reason, {"octets": octets}, octets))
        side.hole(packet, time_ns, octets)

    def closed(self, flow: Flow, packet: int, time_ns: int, how: str) -> None:
        conversation: Conversation = flow.tcp.user
        conversation.closed(flow, packet, time_ns, how)
        if conversation.is_over:
            self._conversations.pop(conversation.number, None)
