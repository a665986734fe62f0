"""TCP segments to the octets that each side sent, in order (RFC 9293 §3.4, §3.10).

How it works. Each direction of a connection is a `Flow` that knows the sequence number that it expects next. Nearly
every segment of a capture is the expected one, and `Reassembler.feed` hands its octets on in the shortest way there is.
All else takes the long road, `_segment`:

- What lies before the expected number came already: a retransmission or a keep-alive octet. The first arrival wins.
- What lies behind it leaves a hole and waits in `Flow.waiting`. When the hole is filled the octets behind it are handed
  on together, as of the packet that filled it.
- A hole that nothing fills is given up and becomes a `Hole` of known length: once the receiver acknowledged what is in
  it (so the network delivered it, the capture did not) and some more packets have passed, or when as many packets or
  octets as the constants below allow have come since the flow last moved, or when the connection is over.
- A packet that the capture cut short gives its octets, and a `Hole` for the rest.

Sequence numbers are compared modulo 2^32; offsets count from the first octet after the SYN, or from the first one seen,
and don't wrap. A SYN with another initial sequence number on known ports begins a new connection.

Octets leave through `Flow.receive`, the function that whoever stands above put there.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

from capture.events import Packet
from capture.packets import ACK, FIN, PLAIN_IPV4, RST, SYN, PacketDecoder, Segment, reverse

MAX_WAITING_PACKETS = 1024
"""Packets of a connection that a hole is waited for: a retransmission takes a round trip or two."""
MAX_WAITING_OCTETS = 4 << 20
"""Octets behind a hole in one direction: a retransmission comes within a window, and windows beyond 4 MiB are rare."""
MAX_WAITING_OVERALL = 32 << 20
"""The same over all connections."""
PACKETS_AFTER_ACKNOWLEDGEMENT = 32
"""A hole whose octets were acknowledged reached the receiver: only packets that the capture itself put out of order
can still bring it, and those come soon."""
MAX_CONNECTIONS = 20_000
"""Connections remembered at a time, about 1 kB each; then a tenth of them, the longest silent ones, is let go."""
STALE_DISTANCE = 1 << 30
STALE_SEGMENTS = 3
"""So many segments in a row that lie so far before the expected number are no retransmissions: the capture missed
more than sequence numbers can tell apart, and the flow goes on where they are."""

_MODULUS = 0xFFFFFFFF
_NEVER = -1


class Tcp:
    """What both directions of a connection share."""

    __slots__ = ("flows", "number", "packets", "user")

    def __init__(self, number: int) -> None:
        self.number = number
        self.packets = 0
        """Counted only while a hole is open: what waiting is measured in."""
        self.flows: list[Flow] = []
        self.user: Any = None
        """For the stage above."""


class Flow:
    """One direction of a connection."""

    __slots__ = (
        "acknowledged_at",
        "base",
        "delivered",
        "expected",
        "final",
        "key",
        "last_packet",
        "moved_at",
        "next",
        "peer",
        "receive",
        "stale",
        "started",
        "tcp",
        "waiting",
        "waiting_octets",
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
        self.waiting: list[tuple[int, int, int, bytes, int]] = []
        """Behind a hole: (offset, packet, time, octets, length on the wire), ordered, without overlaps."""
        self.waiting_octets = 0
        self.moved_at = 0
        """`tcp.packets` when `next` last moved, or the hole opened."""
        self.acknowledged_at: int | None = None
        """`tcp.packets` when the receiver was first seen to have what is missing here."""
        self.stale = 0
        self.last_packet = 0
        self.receive: Callable[[int, int, bytes], None] = _nobody


def _nobody(packet: int, time_ns: int, octets: bytes) -> None:
    raise AssertionError("a flow without a receiver")


class Reassembler:
    """Packets in, octets out.

    `listener` is told `opened(flow)` for each new direction (it sets `flow.receive`), `hole(flow, packet, time_ns,
    octets, snapped)` and `closed(flow, packet, time_ns, how)`.
    """

    def __init__(self, listener: Any) -> None:
        self.decoder = PacketDecoder()
        self._listener = listener
        self._flows: dict[bytes, Flow] = {}
        self._connections = 0
        self._waiting_octets = 0

    def feed(self, packets: list[Packet]) -> None:
        """The hot loop: one turn a packet, and most turns end at one of the two `continue`s."""
        flows, decode, segment = self._flows, self.decoder.decode, self._segment
        unpack, shapes = _IP_AND_TCP.unpack_from, PLAIN_IPV4
        for packet in packets:
            number, time_ns, link, data, _ = packet
            ip, tag_from, tag_to, tag, least = shapes.get(link, _NOT_PLAIN)
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
                                continue  # an acknowledgement that nobody waits for
                        elif seq == flow.expected and start < end:
                            length = end - start
                            flow.next = flow.expected = (seq + length) & _MODULUS
                            flow.delivered += length
                            flow.last_packet = number
                            flow.receive(number, time_ns, data[start:end])
                            continue
            decoded = decode(packet)
            if decoded is not None:
                segment(decoded)

    def finish(self) -> None:
        """The capture is over: what waits is handed on, holes and all."""
        for flow in list(self._flows.values()):
            self._give_up(flow, 0, 0, everything=True)

    def _segment(self, s: Segment) -> None:
        """The long road (see the head of this file)."""
        flow = self._flows.get(s.key)
        if flow is None or (s.flags & SYN and _is_new(flow, s)):
            flow = self._open(s, flow)
        flow.last_packet = s.packet
        tcp = flow.tcp
        if tcp.flows[0].waiting or tcp.flows[1].waiting:
            tcp.packets += 1
        seq = s.seq
        if s.flags & SYN:
            seq = (seq + 1) & _MODULUS
            if flow.next is None:
                flow.next, flow.started = seq, True
        if s.length:
            self._octets(flow, s, seq)
        if s.flags & FIN and flow.next is not None:
            end = flow.delivered + _distance(flow.next, (seq + s.length) & _MODULUS)
            if flow.final is None and end >= flow.delivered:
                flow.final = end
        if s.flags & ACK and flow.peer.waiting:
            self._acknowledged(flow.peer, s)
        for one in (flow, flow.peer):
            if one.waiting and self._is_lost(one):
                self._give_up(one, s.packet, s.time_ns)
            if one.final == one.delivered:
                one.final = -1
                self._listener.closed(one, s.packet, s.time_ns, "fin")
        if s.flags & RST:
            for one in (flow, flow.peer):
                self._give_up(one, s.packet, s.time_ns, everything=True)
            self._listener.closed(flow, s.packet, s.time_ns, "reset")
        is_plain = not (flow.waiting or flow.peer.waiting)
        for one in (flow, flow.peer):
            is_short = is_plain and one.next is not None and one.final is None
            one.expected = one.next if is_short and one.next is not None else _NEVER

    def _open(self, s: Segment, replaced: Flow | None) -> Flow:
        """A new connection; `replaced` is the old owner of its ports."""
        if replaced is not None:
            for one in (replaced, replaced.peer):
                self._give_up(one, s.packet, s.time_ns, everything=True)
            self._listener.closed(replaced, s.packet, s.time_ns, "replaced")
        elif len(self._flows) >= 2 * MAX_CONNECTIONS:
            self._forget(s)
        tcp = Tcp(self._connections)
        self._connections += 1
        flow, peer = Flow(tcp, s.key), Flow(tcp, reverse(s.key))
        flow.peer, peer.peer = peer, flow
        flow.base = (s.seq if s.flags & SYN else s.seq - 1) & _MODULUS
        if s.flags & ACK:
            peer.base = (s.ack - 1) & _MODULUS
        tcp.flows = [flow, peer]
        self._flows[peer.key] = peer
        self._flows[flow.key] = flow
        self._listener.opened(flow, s)
        return flow

    def _forget(self, s: Segment) -> None:
        connections = {id(flow.tcp): flow.tcp for flow in self._flows.values()}.values()
        silent = sorted(connections, key=lambda tcp: max(flow.last_packet for flow in tcp.flows))
        for tcp in silent[: MAX_CONNECTIONS // 10]:
            for flow in tcp.flows:
                self._give_up(flow, s.packet, s.time_ns, everything=True)
                self._flows.pop(flow.key, None)
            self._listener.closed(tcp.flows[0], s.packet, s.time_ns, "idle")

    def _octets(self, flow: Flow, s: Segment, seq: int) -> None:
        """A segment's octets: handed on, put aside, or known already."""
        if flow.next is None:
            flow.next = seq
        octets, length = s.payload, s.length
        distance = _distance(flow.next, seq)
        if distance < 0:
            if distance < -STALE_DISTANCE:
                flow.stale += 1
                if flow.stale < STALE_SEGMENTS:
                    return
                distance &= _MODULUS
            elif distance + length <= 0:
                return  # all of it came before
            else:
                octets, length, distance = octets[-distance:], length + distance, 0
        flow.stale = 0
        if distance == 0:
            self._deliver(flow, s.packet, s.time_ns, octets, length)
            self._drain(flow, s.packet, s.time_ns)
        else:
            self._put_aside(flow, s, flow.delivered + distance, octets, length)

    def _deliver(self, flow: Flow, packet: int, time_ns: int, octets: bytes, length: int) -> None:
        assert flow.next is not None
        flow.next = (flow.next + length) & _MODULUS
        flow.delivered += length
        flow.moved_at, flow.acknowledged_at = flow.tcp.packets, None
        if octets:
            flow.receive(packet, time_ns, octets)
        if length > len(octets):
            self._listener.hole(flow, packet, time_ns, length - len(octets), snapped=True)

    def _drain(self, flow: Flow, packet: int, time_ns: int) -> None:
        """Hands on what waited and now follows, as of the packet that made it follow (0: as of its own)."""
        waiting = flow.waiting
        taken = 0
        for offset, own_packet, own_time, octets, length in waiting:
            if offset > flow.delivered:
                break
            taken += 1
            self._waiting_octets -= len(octets)
            flow.waiting_octets -= len(octets)
            known = flow.delivered - offset
            if known < length:
                late = (packet, time_ns) if packet > own_packet else (own_packet, own_time)
                self._deliver(flow, *late, octets[known:], length - known)
        del waiting[:taken]

    def _put_aside(self, flow: Flow, s: Segment, offset: int, octets: bytes, length: int) -> None:
        """Inserts into `waiting` what is not there yet."""
        waiting = flow.waiting
        if not waiting:
            flow.moved_at, flow.acknowledged_at = flow.tcp.packets, None
        end = offset + length
        at = 0
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

    def _insert(self, flow: Flow, at: int, s: Segment, offset: int, octets: bytes, length: int) -> None:
        flow.waiting.insert(at, (offset, s.packet, s.time_ns, octets, length))
        flow.waiting_octets += len(octets)
        self._waiting_octets += len(octets)

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
            or flow.waiting_octets > MAX_WAITING_OCTETS
            or self._waiting_octets > MAX_WAITING_OVERALL
        )

    def _give_up(self, flow: Flow, packet: int, time_ns: int, everything: bool = False) -> None:
        """Ends the wait for the first hole, or for all of them."""
        while flow.waiting:
            offset, own_packet, own_time, _, _ = flow.waiting[0]
            missing = offset - flow.delivered
            assert flow.next is not None
            flow.next = (flow.next + missing) & _MODULUS
            flow.delivered = offset
            if missing:
                self._listener.hole(flow, packet or own_packet, time_ns or own_time, missing, snapped=False)
            self._drain(flow, 0, 0)
            if not everything:
                return
        if everything and flow.final is not None and flow.final > flow.delivered:
            missing = flow.final - flow.delivered
            flow.delivered = flow.final
            self._listener.hole(flow, packet or flow.last_packet, time_ns, missing, snapped=False)


_IP_AND_TCP = struct.Struct(">BxH2xHxB14xI4xBB")
"""Of an IPv4 header without options and the TCP header behind it: version and header length, total length, fragment,
protocol; sequence number, data offset, flags."""
_FIN_SYN_RST = FIN | SYN | RST
_NOT_PLAIN = (0, 0, 0, b"", sys.maxsize)


def _distance(here: int, there: int) -> int:
    """How far `there` lies behind `here`, modulo 2^32: −2^31 … 2^31−1 (RFC 9293 §3.4)."""
    return ((there - here + 0x80000000) & _MODULUS) - 0x80000000


def _is_new(flow: Flow, s: Segment) -> bool:
    """Whether a SYN on known ports begins a new connection: its initial sequence number is another one."""
    return flow.base is not None and flow.base != s.seq
