"""TCP segments to the octets that each side sent, in order (RFC 9293 §3.4, §3.10).

How it works. Each direction of a connection is a `Flow` that knows the sequence number that it expects next. Nearly
every segment of a capture is the expected one, and `Reassembler.feed` hands its octets on in the shortest way there is.
All else takes the long road, `_segment`:

- What lies before the expected number came already: a retransmission or a keep-alive octet. The first arrival wins.
- What lies behind it leaves a hole and waits in `Flow.waiting`. When the hole is filled the octets behind it are handed
  on together, as of the packet that filled it. So does a FIN leave a hole that comes before the last octets.
- A hole that nothing fills is given up, and its length is told: once the receiver acknowledged what is in it (so the
  network delivered it, the capture did not) and some more packets have passed, or when as many packets or octets as the
  constants below allow have come since the flow last moved, or when the connection is over. What waited is then handed
  on as of its own packets. They are older than others that were seen since, so `oldest_waiting` tells how far back.
- A packet that the capture cut short gives its octets, and a hole for the rest.

Sequence numbers are compared modulo 2^32; offsets count from the first octet after the SYN, or from the first one seen,
and don't wrap. A SYN with another initial sequence number on known ports begins a new connection.

Octets leave through `Flow.receive`, the function that whoever stands above put there.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from capture.events import Packet
from capture.packets import ACK, FIN, PLAIN_IPV4, RST, SYN, PacketDecoder, Segment, reverse

MAX_WAITING_PACKETS = 1024
"""Packets of a connection that a hole is waited for: a retransmission takes a round trip or two."""
MAX_WAITING_OCTETS = 4 << 20
"""Octets behind a hole in one direction: a retransmission comes within a window, and windows beyond 4 MiB are rare."""
WAITING_OVERHEAD = 200
"""Octets that Python spends on a segment that waits, besides its content: there are segments of one octet."""
MAX_WAITING_OVERALL = 32 << 20
"""The same over all connections."""
PACKETS_AFTER_ACKNOWLEDGEMENT = 32
"""A hole whose octets were acknowledged reached the receiver: only packets that the capture itself put out of order
can still bring it, and those come soon."""
MAX_CONNECTIONS = 20_000
"""Connections remembered at a time, some 8 kB each while they are open and 1 kB closed; then a tenth of them, the
longest silent ones, is let go."""
STALE_DISTANCE = 1 << 30
"""No window is larger (RFC 7323 §2.3), so a segment that lies farther away is not of this flow as it stands: it is left
over from an earlier connection on the same ports, or the capture missed a lot."""
STALE_SEGMENTS = 3
"""So many of these, while the flow does not move otherwise, are believed: the flow goes on where they are."""

_MODULUS = 0xFFFFFFFF
_NEVER = _TOLD = -1


class Tcp:
    """What both directions of a connection share."""

    __slots__ = ("flows", "is_ours", "number", "packets", "user")

    def __init__(self, number: int, is_ours: bool) -> None:
        self.number = number
        self.is_ours = is_ours
        """Whether this reassembler reads it (see `Reassembler`)."""
        self.packets = 0
        """Counted only while a hole is open: what waiting is measured in."""
        self.flows: list[Flow] = []
        self.user: Any = None
        """For the stage above."""


class Flow:
    """One direction of a connection."""

    __slots__ = (
        "acked",
        "acknowledged_at",
        "bare",
        "base",
        "delivered",
        "expected",
        "final",
        "final_at",
        "handed",
        "key",
        "last_packet",
        "moved_at",
        "next",
        "peer",
        "receive",
        "stale",
        "stale_at",
        "started",
        "tcp",
        "waiting",
        "waiting_octets",
        "waits_since",
    )

    def __init__(self, tcp: Tcp, key: bytes) -> None:
        self.tcp, self.key = tcp, key
        self.peer: Flow = self
        self.next: int | None = None
        """The sequence number expected next; None before the first segment."""
        self.expected = _NEVER
        """`next` while the short way is open to both directions, else -1, which no sequence number equals."""
        self.delivered = 0
        """Offset that `next` stands for."""
        self.base: int | None = None
        """The initial sequence number: the SYN's, or as the first segment of either side implies it."""
        self.started = False
        """Whether the SYN was seen, so that offset 0 is the first octet there was."""
        self.final: int | None = None
        """Offset behind the last octet, once a FIN was seen; -1 when the end was told."""
        self.final_at = (0, 0)
        """Packet and time of that FIN."""
        self.waiting: list[tuple[int, int, int, bytes, int]] = []
        """Behind a hole: (offset, packet, time, octets, length on the wire), ordered, without overlaps."""
        self.waiting_octets = 0
        self.waits_since = 0
        """The packet that showed the hole: the first of those that wait, or the FIN."""
        self.handed = (0, 0)
        """Packet and time of what the long road handed on last: they never go back."""
        self.moved_at = 0
        """`tcp.packets` when `next` last moved, or the hole opened."""
        self.acknowledged_at: int | None = None
        """`tcp.packets` when the receiver was first seen to have what is missing here."""
        self.stale = self.stale_at = 0
        """Segments that lay too far away, since `delivered` was `stale_at`."""
        self.last_packet = 0
        self.acked: tuple[int, int] | None = None
        """The last acknowledgement from this side that took the long road: its packet and number."""
        self.bare: Packet | None = None
        """The last packet that the short way took for nothing but an acknowledgement."""
        self.receive: Callable[[int, int, bytes], None] = _nobody


def _nobody(packet: int, time_ns: int, octets: bytes) -> None:
    raise AssertionError("a flow without a receiver")


class Reassembler:
    """Packets in, octets out.

    `listener` is told `opened(flow)` for each new direction (it sets `flow.receive`), `hole(flow, packet, time_ns,
    octets, snapped)` and `closed(flow, packet, time_ns, how)`.

    `share` (i, n): of all connections only each n-th is read, from the i-th on, so that n processes can divide a
    capture. All are counted, for the same numbers in each process.
    """

    def __init__(self, listener: Any, share: tuple[int, int] = (0, 1)) -> None:
        self._share = share
        self.decoder = PacketDecoder()
        self._listener = listener
        self._flows: dict[bytes, Flow] = {}
        self._connections = 0
        self._waiting_octets = 0
        self._holed: dict[int, Flow] = {}
        """Flows with a hole, by id."""

    def feed(self, packets: list[Packet]) -> None:
        """The hot loop: one turn a packet, and most turns end at one of the two `continue`s."""
        flows, decode, segment = self._flows, self.decoder.decode, self._segment
        unpack, current = _IP_AND_TCP.unpack_from, -1
        for packet in packets:
            number, time_ns, link, data, _ = packet
            if link != current:
                ip, tag_from, tag_to, tag, least = PLAIN_IPV4.get(link, _NOT_PLAIN)
                current = link
            if len(data) >= least:
                version, total, fragment, protocol, seq, offset, flags = unpack(data, ip)
                end = ip + total
                # IPv4 without options or fragments, captured whole, TCP, and of a connection that is known.
                if (
                    version == 0x45
                    and protocol == 6
                    and data[tag_from:tag_to] == tag
                    and not fragment & 0x3FFF
                    and total
                    and end <= len(data)
                ):
                    flow = flows.get(data[ip + 12 : ip + 24])
                    if flow is not None and not flags & _FIN_SYN_RST:
                        start = ip + 20 + (offset >> 2 & 0x3C)
                        if start == end:
                            if flow.peer.expected != _NEVER or flow.peer.next is None:
                                flow.bare = packet
                                continue  # an acknowledgement that nobody waits for
                        elif seq == flow.expected and start < end:
                            length = end - start
                            flow.next = flow.expected = (seq + length) & _MODULUS
                            flow.delivered += length
                            flow.last_packet = number
                            flow.receive(number, time_ns, data[start:end])
                            continue
                        if not flow.tcp.is_ours:
                            flow.last_packet = number
                            continue
            decoded = decode(packet)
            if decoded is not None:
                segment(decoded)

    def finish(self, packet: int, time_ns: int) -> None:
        """The capture is over, with this packet: what waits is handed on, holes and all."""
        for flow in list(self._flows.values()):
            self._give_up_all(flow)
            self._tell_end(flow, *max(flow.handed, flow.final_at))
            self._give_up_tail(flow, packet, time_ns)

    def oldest_waiting(self) -> int | None:
        """The oldest packet whose octets wait behind a hole."""
        return min((flow.waits_since for flow in self._holed.values()), default=None)

    def _segment(self, s: Segment) -> None:
        """The long road (see the head of this file)."""
        flow = self._flows.get(s.key)
        if flow is None or (s.flags & SYN and _is_new(flow, s)):
            flow = self._open(s, flow)
        flow.last_packet = s.packet
        tcp = flow.tcp
        if not tcp.is_ours:
            return
        if _has_hole(flow) or _has_hole(flow.peer):
            tcp.packets += 1
        seq = s.seq
        if s.flags & SYN:
            seq = (seq + 1) & _MODULUS
            if flow.next is None:
                flow.next, flow.started = seq, True
        if s.length and not s.flags & RST:  # a RST's text is for people (RFC 1122 §4.2.2.12)
            self._octets(flow, s, seq)
        if s.flags & FIN:
            self._fin(flow, s, (seq + s.length) & _MODULUS)
        if s.flags & ACK:
            flow.acked = (s.packet, s.ack)
            if _has_hole(flow.peer):
                self._acknowledged(flow.peer, s)
        for one in (flow, flow.peer):
            while _has_hole(one) and self._is_lost(one):
                self._give_up(one)
            self._tell_end(one, s.packet, s.time_ns)
        if s.flags & RST:
            for one in (flow, flow.peer):
                self._give_up_all(one)
                self._tell_end(one, s.packet, s.time_ns)
            self._listener.closed(flow, s.packet, s.time_ns, "reset")
        is_plain = not (flow.waiting or flow.peer.waiting)
        for one in (flow, flow.peer):
            is_short = is_plain and one.next is not None and one.final is None
            one.expected = one.next if is_short and one.next is not None else _NEVER

    def _fin(self, flow: Flow, s: Segment, seq: int) -> None:
        """The flow ends before sequence number `seq`; perhaps octets before it have yet to come."""
        if flow.next is None:
            flow.next = seq
        end = flow.delivered + _distance(flow.next, seq)
        if flow.final is None and end >= flow.delivered:
            flow.final, flow.final_at = end, (s.packet, s.time_ns)
            if end > flow.delivered and not flow.waiting:
                self._begin_hole(flow, s.packet)

    def _tell_end(self, flow: Flow, packet: int, time_ns: int) -> None:
        """Tells that the flow ended, once all octets before its FIN have been handed on."""
        if flow.final is not None and _TOLD < flow.final <= flow.delivered:
            flow.final, flow.peer.bare = _TOLD, None
            self._holed.pop(id(flow), None)
            self._listener.closed(flow, packet, time_ns, "fin")

    def _open(self, s: Segment, replaced: Flow | None) -> Flow:
        """A new connection; `replaced` is the old owner of its ports."""
        if replaced is not None:
            self._end(replaced.tcp, s, "replaced")
        elif len(self._flows) >= 2 * MAX_CONNECTIONS:
            self._forget(s)
        index, count = self._share
        tcp = Tcp(self._connections, self._connections % count == index)
        self._connections += 1
        flow, peer = Flow(tcp, s.key), Flow(tcp, reverse(s.key))
        flow.peer, peer.peer = peer, flow
        flow.base = (s.seq if s.flags & SYN else s.seq - 1) & _MODULUS
        if s.flags & ACK:
            peer.base = (s.ack - 1) & _MODULUS
        tcp.flows = [flow, peer]
        self._flows[peer.key] = peer
        self._flows[flow.key] = flow
        if tcp.is_ours:
            self._listener.opened(flow, s)
        return flow

    def _end(self, tcp: Tcp, s: Segment, how: str) -> None:
        """No packet of this connection will come any more."""
        for flow in tcp.flows:
            self._give_up_all(flow)
            self._give_up_tail(flow, s.packet, s.time_ns)
        if tcp.is_ours:
            self._listener.closed(tcp.flows[0], s.packet, s.time_ns, how)

    def _forget(self, s: Segment) -> None:
        connections = {id(flow.tcp): flow.tcp for flow in self._flows.values()}.values()
        silent = sorted(connections, key=lambda tcp: max(flow.last_packet for flow in tcp.flows))
        for tcp in silent[: MAX_CONNECTIONS // 10]:
            for flow in tcp.flows:
                self._flows.pop(flow.key, None)
            self._end(tcp, s, "idle")

    def _octets(self, flow: Flow, s: Segment, seq: int) -> None:
        """A segment's octets: handed on, put aside, or known already."""
        if flow.final == _TOLD:
            return  # nothing comes behind a FIN
        if flow.next is None:
            flow.next = seq
        octets, length = s.payload, s.length
        distance = _distance(flow.next, seq)
        if abs(distance) > STALE_DISTANCE:
            if flow.stale_at != flow.delivered:
                flow.stale, flow.stale_at = 0, flow.delivered
            flow.stale += 1
            if flow.stale < STALE_SEGMENTS:
                return
            distance &= _MODULUS
        elif distance < 0:
            if distance + length <= 0:
                return  # all of it came before
            octets, length, distance = octets[-distance:], length + distance, 0
        if distance == 0 and not flow.waiting:
            self._deliver(flow, s.packet, s.time_ns, octets, length)
            return
        self._put_aside(flow, s, flow.delivered + distance, octets, length)
        if distance == 0:
            self._drain(flow, s.packet, s.time_ns)

    def _deliver(self, flow: Flow, packet: int, time_ns: int, octets: bytes, length: int) -> None:
        assert flow.next is not None
        flow.next = (flow.next + length) & _MODULUS
        flow.delivered += length
        flow.moved_at, flow.acknowledged_at = flow.tcp.packets, None
        flow.handed = (packet, time_ns)
        if octets:
            flow.receive(packet, time_ns, octets)
        if length > len(octets):
            self._listener.hole(flow, packet, time_ns, length - len(octets), snapped=True)

    def _drain(self, flow: Flow, packet: int, time_ns: int) -> None:
        """Hands on what waited and now follows, as of the packet that made it follow or its own, the later one."""
        waiting = flow.waiting
        taken = 0
        for offset, own_packet, own_time, octets, length in waiting:
            if offset > flow.delivered:
                break
            taken += 1
            self._count(flow, -len(octets) - WAITING_OVERHEAD)
            if own_packet > packet:
                packet, time_ns = own_packet, own_time
            known = flow.delivered - offset
            if known < length:
                self._deliver(flow, packet, time_ns, octets[known:], length - known)
        del waiting[:taken]
        if not _has_hole(flow):
            self._holed.pop(id(flow), None)

    def _put_aside(self, flow: Flow, s: Segment, offset: int, octets: bytes, length: int) -> None:
        """Inserts into `waiting` what is not there yet."""
        waiting = flow.waiting
        if not waiting:
            self._begin_hole(flow, s.packet)
        end = offset + length
        at = max(bisect_right(waiting, offset, key=itemgetter(0)) - 1, 0)
        while at < len(waiting) and offset < end:
            there, _, _, _, there_length = waiting[at]
            if there >= end:
                break
            if there > offset:  # a part that lies before this one
                self._insert(flow, at, s, offset, octets[: there - offset], there - offset)
                at += 1
            if there + there_length > offset:
                octets, offset = octets[there + there_length - offset :], there + there_length
            at += 1
        if offset < end:
            self._insert(flow, at, s, offset, octets, end - offset)

    def _begin_hole(self, flow: Flow, packet: int) -> None:
        flow.moved_at, flow.acknowledged_at = flow.tcp.packets, None
        if id(flow) not in self._holed:
            flow.waits_since = packet
            self._holed[id(flow)] = flow

    def _insert(self, flow: Flow, at: int, s: Segment, offset: int, octets: bytes, length: int) -> None:
        flow.waiting.insert(at, (offset, s.packet, s.time_ns, octets, length))
        self._count(flow, len(octets) + WAITING_OVERHEAD)

    def _count(self, flow: Flow, octets: int) -> None:
        flow.waiting_octets += octets
        self._waiting_octets += octets

    def _acknowledged(self, flow: Flow, s: Segment) -> None:
        """Notes when the receiver is seen to have more than the capture."""
        assert flow.next is not None
        if flow.acknowledged_at is None and _distance(flow.next, s.ack) > 0:
            flow.acknowledged_at = flow.tcp.packets

    def _is_lost(self, flow: Flow) -> bool:
        passed = flow.tcp.packets
        return (
            (flow.acknowledged_at is not None and passed - flow.acknowledged_at > PACKETS_AFTER_ACKNOWLEDGEMENT)
            or passed - flow.moved_at > MAX_WAITING_PACKETS
            or len(flow.waiting) > MAX_WAITING_PACKETS
            or flow.waiting_octets > MAX_WAITING_OCTETS
            or self._waiting_octets > MAX_WAITING_OVERALL
        )

    def _give_up(self, flow: Flow) -> None:
        """Ends the wait for the first hole."""
        offset, *came = flow.waiting[0][:3] if flow.waiting else (flow.final, *flow.final_at)
        packet, time_ns = max(flow.handed, tuple(came))
        assert flow.next is not None
        assert offset is not None
        missing = offset - flow.delivered
        flow.next = (flow.next + missing) & _MODULUS
        flow.delivered = offset
        flow.handed = (packet, time_ns)
        self._listener.hole(flow, packet, time_ns, missing, snapped=False)
        self._drain(flow, packet, time_ns)

    def _give_up_all(self, flow: Flow) -> None:
        while _has_hole(flow):
            self._give_up(flow)

    def _give_up_tail(self, flow: Flow, packet: int, time_ns: int) -> None:
        """Tells octets that nothing followed, and that only the other side's last acknowledgement shows."""
        acked = flow.peer.acked
        bare = None if flow.peer.bare is None else self.decoder.decode(flow.peer.bare)
        if bare is not None and (acked is None or bare.packet > acked[0]):
            acked = (bare.packet, bare.ack)
        if acked is None or flow.next is None or flow.final is not None:
            return
        missing = _distance(flow.next, acked[1])
        if 1 < missing <= STALE_DISTANCE:  # 1 would be a FIN that the capture missed
            flow.next = acked[1]
            flow.delivered += missing
            self._listener.hole(flow, packet, time_ns, missing, snapped=False)


_IP_AND_TCP = struct.Struct(">BxH2xHxB14xI4xBB")
"""Of an IPv4 header without options and the TCP header behind it: version and header length, total length, fragment,
protocol; sequence number, data offset, flags."""
_FIN_SYN_RST = FIN | SYN | RST
_NOT_PLAIN = (0, 0, 0, b"", sys.maxsize)


def _has_hole(flow: Flow) -> bool:
    """Whether octets are missing that something behind them shows to have been sent."""
    return bool(flow.waiting) or (flow.final is not None and flow.final > flow.delivered)


def _distance(here: int, there: int) -> int:
    """How far `there` lies behind `here`, modulo 2^32: −2^31 … 2^31−1 (RFC 9293 §3.4)."""
    return ((there - here + 0x80000000) & _MODULUS) - 0x80000000


def _is_new(flow: Flow, s: Segment) -> bool:
    """Whether a SYN on known ports begins a new connection: its initial sequence number is another one."""
    return flow.base is not None and flow.base != s.seq
