"""One captured packet (link type and octets) to one TCP segment.

The layers are peeled by hand, from the outside in: link header, perhaps VLAN tags, IPv4 or IPv6 with options,
extension headers and fragments, TCP. What this file does not know (GRE, MPLS, PPPoE, VXLAN, rarer link types) is
handed to scapy, which knows several hundred layers and takes its time. What is no TCP at all is counted by kind and
told at the end. Nothing here raises for what a packet holds.

The reassembler has a shortcut of its own for the plainest packets (`PLAIN_IPV4`); this is the road for all others.
"""

from __future__ import annotations

import importlib
import struct
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from capture.events import Packet, Problem
from kit.words import N_

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

# LINKTYPE_ numbers of the capture file formats.
BSD_LOOPBACK, ETHERNET, RAW_BSD, RAW_OPENBSD, RAW_IP, OPENBSD_LOOPBACK = 0, 1, 12, 14, 101, 108
COOKED, RAW_IPV4, RAW_IPV6, COOKED_V2 = 113, 228, 229, 276

IPV4, IPV6, VLAN, VLAN_SERVICE, VLAN_OLD = 0x0800, 0x86DD, 0x8100, 0x88A8, 0x9100
TCP, IP_IN_IP, IPV6_IN_IP, UDP, GRE = 6, 4, 41, 17, 47

PLAIN_IPV4: dict[int, tuple[int, int, int, bytes, int]] = {
    ETHERNET: (14, 12, 14, b"\x08\x00", 54),
    BSD_LOOPBACK: (4, 0, 4, b"\x02\x00\x00\x00", 44),
    RAW_IP: (0, 0, 0, b"", 40),
    RAW_IPV4: (0, 0, 0, b"", 40),
    COOKED: (16, 14, 16, b"\x08\x00", 56),
    COOKED_V2: (20, 0, 2, b"\x08\x00", 60),
}
"""By link type: where the IP header begins; the slice (from, to) that must hold these octets for it to be IPv4; and the
octets that a packet with IP and TCP headers has at least."""

_LOOPBACK_FAMILIES = {2: IPV4, 10: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}  # AF_INET6 differs by system
_KNOWN_OTHERS = {0x0806: "ARP", 0x8035: "RARP", 0x88CC: "LLDP", 0x888E: "EAPOL", 0x8809: "LACP", 0x9000: "loop test"}
_IP_PROTOCOLS = {1: "ICMP", 2: "IGMP", 17: "UDP", 50: "ESP", 58: "ICMPv6", 89: "OSPF", 132: "SCTP"}
_EXTENSION_HEADERS = {0, 43, 60, 135, 139, 140}  # RFC 8200 §4; 51 (AH) counts its length in other units
_VXLAN_PORTS = {4789, 8472}

MAX_NESTING = 8
"""Tunnels within tunnels, VLAN tags, extension headers: real ones stay below 4."""
MAX_FRAGMENTED = 64
"""IP datagrams waiting for fragments; the oldest is given up. Each takes at most 128 KiB, so 8 MiB in all."""


class Segment(NamedTuple):
    """A TCP segment (RFC 9293 §3.1)."""

    packet: int
    time_ns: int
    key: bytes
    """Source address, destination address, source port, destination port: 12 octets (IPv4) or 36 (IPv6)."""
    seq: int
    ack: int
    flags: int
    payload: bytes
    length: int
    """Of the payload on the wire: more than len(payload) where the capture cut the packet short."""


class Count:
    """How often something of one kind was met."""

    __slots__ = ("first", "octets", "packets")

    def __init__(self, first: Packet) -> None:
        self.first, self.packets, self.octets = first, 0, 0


def endpoints(key: bytes) -> tuple[str, str]:
    """`ip:port` of source and destination, IPv6 in brackets in its canonical form (RFC 5952)."""
    source_port, destination_port = ports_of(key)
    half = (len(key) - 4) // 2
    source, destination = (str(ip_address(key[at : at + half])) for at in (0, half))
    shape = "{}:{}" if half == 4 else "[{}]:{}"
    return shape.format(source, source_port), shape.format(destination, destination_port)


def ports_of(key: bytes) -> tuple[int, int]:
    source, destination = struct.unpack_from(">HH", key, len(key) - 4)
    return source, destination


def reverse(key: bytes) -> bytes:
    """The key of the other direction."""
    n = (len(key) - 4) // 2
    return key[n : 2 * n] + key[:n] + key[-2:] + key[-4:-2]


class PacketDecoder:
    """Packets of a capture to segments. Holds what spans packets: fragments and counts."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}
        self._fragments: OrderedDict[bytes, _Datagram] = OrderedDict()
        self._dissect: Callable[[Packet], tuple[int, bytes, int] | None] | None = None

    def decode(self, packet: Packet) -> Segment | None:
        """The packet's TCP segment; None where there is none, which is counted."""
        data, link = packet.data, packet.link_type
        try:
            if link == ETHERNET:
                return self._ether(packet, int.from_bytes(data[12:14]), 14)
            if link in (RAW_IP, RAW_BSD, RAW_OPENBSD, RAW_IPV4, RAW_IPV6):
                return self._ip(packet, data, 0, packet.length)
            if link in (BSD_LOOPBACK, OPENBSD_LOOPBACK):
                # BSD loopback has the address family in the order of the capturing machine; it is a small number.
                family = min(int.from_bytes(data[:4]), int.from_bytes(data[:4], "little"))
                return self._ether(packet, _LOOPBACK_FAMILIES.get(family, 0), 4)
            if link == COOKED:
                return self._ether(packet, int.from_bytes(data[14:16]), 16)
            if link == COOKED_V2:
                return self._ether(packet, int.from_bytes(data[:2]), 20)
        except (struct.error, IndexError):
            return self._count(packet, N_("cut short before the end of its headers"))
        return self._scapy(packet)

    def finish(self) -> list[Problem]:
        """What was counted, one problem a kind."""
        for datagram in self._fragments.values():
            self._count(datagram.first, N_("IP fragments whose datagram never became complete"))
        problems = [
            Problem(
                count.first.number,
                count.first.time_ns,
                None,
                None,
                None,
                "packet",
                N_("{packets} packets without a TCP segment that can be read: {kind}"),
                {"packets": count.packets, "kind": kind},
                count.octets,
            )
            for kind, count in self.counts.items()
        ]
        self.counts, self._fragments = {}, OrderedDict()
        return problems

    def _count(self, packet: Packet, kind: str) -> Segment | None:
        """Counts the packet; None, for callers to pass on."""
        count = self.counts.get(kind)
        if count is None:
            count = self.counts[kind] = Count(packet)
        count.packets += 1
        count.octets += packet.length
        return None

    def _ether(self, packet: Packet, ethertype: int, at: int) -> Segment | None:
        data = packet.data
        for _ in range(MAX_NESTING):
            if ethertype not in (VLAN, VLAN_SERVICE, VLAN_OLD):
                break
            ethertype, at = int.from_bytes(data[at + 2 : at + 4]), at + 4
        if len(data) < at:
            return self._count(packet, N_("cut short before the end of its headers"))
        if ethertype in (IPV4, IPV6):
            return self._ip(packet, data, at, packet.length - at)
        if ethertype in _KNOWN_OTHERS:
            return self._count(packet, _KNOWN_OTHERS[ethertype])
        if ethertype < 0x0600 and packet.link_type == ETHERNET:
            return self._count(packet, "IEEE 802.3")
        return self._scapy(packet)

    def _ip(self, packet: Packet, data: bytes, at: int, length: int, depth: int = 0) -> Segment | None:
        """`length`: octets on the wire from the IP header on, for where the header does not say."""
        if len(data) <= at:
            return self._count(packet, N_("cut short before the end of its headers"))
        if depth > MAX_NESTING:
            return self._count(packet, N_("tunnels within tunnels"))
        version = data[at] >> 4
        if version == 4:
            return self._ipv4(packet, data, at, length, depth)
        if version == 6:
            return self._ipv6(packet, data, at, length, depth)
        return self._count(packet, N_("neither IPv4 nor IPv6"))

    def _ipv4(self, packet: Packet, data: bytes, at: int, length: int, depth: int) -> Segment | None:
        """RFC 791 §3.1."""
        first, total, ident, fragment, protocol = struct.unpack_from(">BxHHHxB", data, at)
        header = (first & 15) * 4
        addresses = data[at + 12 : at + 20]
        if header < 20 or len(addresses) < 8:
            return self._count(packet, N_("a broken IPv4 header"))
        if total == 0:  # segmentation offload: the capturing machine left it to the card to fill in
            total = length
        if total < header:
            return self._count(packet, N_("a broken IPv4 header"))
        body, body_length = data[at + header : at + total], total - header
        if fragment & 0x3FFF:  # more fragments, or not the first
            key = b"4" + addresses + bytes((protocol,)) + ident.to_bytes(2)
            more, start = bool(fragment & 0x2000), (fragment & 0x1FFF) * 8
            whole = self._fragment(packet, key, start, more, body, body_length)
            if whole is None:
                return None
            body, body_length = whole, len(whole)
        return self._transport(packet, protocol, addresses, body, body_length, depth)

    def _ipv6(self, packet: Packet, data: bytes, at: int, length: int, depth: int) -> Segment | None:
        """RFC 8200 §3, §4."""
        total, protocol = struct.unpack_from(">4xHB", data, at)
        addresses = data[at + 8 : at + 40]
        if len(addresses) < 32:
            return self._count(packet, N_("cut short before the end of its headers"))
        end = at + 40 + (total or length - 40)  # 0: a jumbogram, or offload
        at += 40
        for _ in range(MAX_NESTING):
            if protocol in _EXTENSION_HEADERS:
                protocol, at = data[at], at + (data[at + 1] + 1) * 8
            elif protocol == 51:
                protocol, at = data[at], at + (data[at + 1] + 2) * 4
            elif protocol == 44:
                protocol, fragment, ident = struct.unpack_from(">BxHI", data, at)
                at += 8
                if not fragment & 0xFFF9:  # an "atomic" fragment is whole (RFC 6946)
                    continue
                key = b"6" + addresses + ident.to_bytes(4)
                whole = self._fragment(packet, key, fragment & 0xFFF8, bool(fragment & 1), data[at:end], end - at)
                if whole is None:
                    return None
                data, at, end = whole, 0, len(whole)
            else:
                break
        return self._transport(packet, protocol, addresses, data[at:end], end - at, depth)

    def _transport(
        self, packet: Packet, protocol: int, addresses: bytes, body: bytes, length: int, depth: int
    ) -> Segment | None:
        if protocol == TCP:
            return self._tcp(packet, addresses, body, length)
        if protocol in (IP_IN_IP, IPV6_IN_IP):
            return self._ip(packet, body, 0, length, depth + 1)
        if protocol == GRE or (protocol == UDP and int.from_bytes(body[2:4]) in _VXLAN_PORTS):
            return self._scapy(packet)
        name = _IP_PROTOCOLS.get(protocol)
        return self._count(packet, name or f"IP {protocol}")

    def _tcp(self, packet: Packet, addresses: bytes, body: bytes, length: int) -> Segment | None:
        """RFC 9293 §3.1."""
        if len(body) < 20:
            return self._count(packet, N_("cut short before the end of its headers"))
        ports, seq, ack, offset, flags = struct.unpack_from(">4sIIBB", body)
        header = (offset >> 4) * 4
        if header < 20 or header > length:
            return self._count(packet, N_("a broken TCP header"))
        key = addresses + ports
        return Segment(packet.number, packet.time_ns, key, seq, ack, flags, body[header:length], length - header)

    def _fragment(self, packet: Packet, key: bytes, start: int, more: bool, body: bytes, length: int) -> bytes | None:
        """Joins fragments; the datagram's octets once all have come. The first arrival of an octet wins."""
        if len(body) < length:
            self._count(packet, N_("IP fragments that the capture cut short"))
            return None
        datagram = self._fragments.get(key)
        if datagram is None:
            if len(self._fragments) >= MAX_FRAGMENTED:
                _, oldest = self._fragments.popitem(last=False)
                self._count(oldest.first, N_("IP fragments whose datagram never became complete"))
            datagram = self._fragments[key] = _Datagram(packet)
        whole = datagram.add(start, more, body)
        if whole is not None:
            del self._fragments[key]
        return whole

    def _scapy(self, packet: Packet) -> Segment | None:
        """The long way, for layers that are not known here."""
        if self._dissect is None:
            self._dissect = _load_dissector()
        found = self._dissect(packet)
        if found is None:
            return self._count(packet, N_("a protocol that carries no TCP"))
        version, body, length = found
        size = 8 if version == 4 else 32
        return self._tcp(packet, body[:size], body[size:], length)


class _Datagram:
    """Fragments of one IP datagram (RFC 791 §3.2, RFC 8200 §4.5)."""

    __slots__ = ("end", "first", "octets", "there")

    def __init__(self, first: Packet) -> None:
        self.first = first
        self.octets = bytearray()
        self.there = bytearray()
        """1 for each octet that has come."""
        self.end: int | None = None

    def add(self, start: int, more: bool, body: bytes) -> bytes | None:
        stop = start + len(body)
        if stop > 0xFFFF:
            return None
        if not more and self.end is None:
            self.end = stop
        octets, there = self.octets, self.there
        if len(octets) < stop:
            octets.extend(bytes(stop - len(octets)))
            there.extend(bytes(stop - len(there)))
        if there.find(1, start, stop) < 0:
            octets[start:stop] = body
        else:
            for at, octet in enumerate(body, start):
                if not there[at]:
                    octets[at] = octet
        there[start:stop] = b"\1" * len(body)
        if self.end is None or self.end > len(there) or there.find(0, 0, self.end) >= 0:
            return None
        return bytes(octets[: self.end])


def _load_dissector() -> Callable[[Packet], tuple[int, bytes, int] | None]:
    """scapy, loaded only for a capture that needs it. It gives (IP version, addresses and TCP octets, TCP length)."""
    for module in ("scapy.layers.all", "scapy.contrib.mpls"):
        importlib.import_module(module)
    config: Any = importlib.import_module("scapy.config").conf
    inet: Any = importlib.import_module("scapy.layers.inet")
    inet6: Any = importlib.import_module("scapy.layers.inet6")
    raw: Any = importlib.import_module("scapy.packet").Raw

    def dissect(packet: Packet) -> tuple[int, bytes, int] | None:
        try:
            layers = config.l2types.num2layer.get(packet.link_type, raw)(packet.data)
            segment = layers.getlayer(inet.TCP)
            if segment is None:
                return None
            carrier = segment.underlayer
            while carrier is not None and not isinstance(carrier, (inet.IP, inet6.IPv6)):
                carrier = carrier.underlayer
            if carrier is None:
                return None
            version = 4 if isinstance(carrier, inet.IP) else 6
            addresses = carrier.raw_packet_cache[12:20] if version == 4 else carrier.raw_packet_cache[8:40]
            octets = bytes(segment.original)
            total = carrier.len - carrier.ihl * 4 if version == 4 else carrier.plen
            return version, addresses + octets, total if total and total > 0 else len(octets)
        except Exception:
            # scapy raises all kinds of things for octets that it does not expect; to us they are one: not readable.
            return None

    return dissect
