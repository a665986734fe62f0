"""TCP/IP around octets that a tap forwarded, so that a capture file can hold them.

A tap sees octets and the moments at which it passed them on; it never sees the packets that brought them. What is made
here is what a loopback interface might have shown: a handshake, segments of at most SEGMENT octets, an acknowledgement
behind each piece, FIN or RST. Octets, order and times are true; headers, packet boundaries and acknowledgements are
made up, and each file says so (`pcap.SYNTHESISED`).

The packets are raw IP (link type 101), version 4 if both addresses have it, else 6 with an IPv4 address mapped into it
(RFC 4291 §2.5.5.2).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from capture.events import Direction

RAW_IP = 101

SEGMENT = 32_768
"""Octets in a segment at most. IP has room for 65,535 with its headers; half of that keeps any header well inside and
is what the handshake announces as maximum segment size."""
_WINDOW_SCALE = 7
_WINDOW = 0xFFFF
"""With the scale 8 MiB: more than the tap ever passes on at once, so that no reader sees a full window."""
_SYN_OPTIONS = struct.pack(
    ">BBH BBBB", 2, 4, SEGMENT, 1, 3, 3, _WINDOW_SCALE
)  # MSS, no-op, window scale (RFC 7323 §2.2)

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_TCP = 6
_TTL = 64
_DO_NOT_FRAGMENT = 0x4000

Address = tuple[str, int]


class _Sender:
    """One end: what all its packets have in common, their share of the checksums, and where it has got to."""

    __slots__ = ("addresses", "identification", "ip_sum", "next", "ports", "tcp_sum")

    def __init__(self, own: tuple[bytes, int], peer: tuple[bytes, int], initial: int) -> None:
        self.addresses = own[0] + peer[0]
        self.ports = struct.pack(">HH", own[1], peer[1])
        self.next = initial & 0xFFFFFFFF
        self.identification = 0
        addresses = ones_sum(self.addresses)
        self.ip_sum = addresses + 0x4500 + _DO_NOT_FRAGMENT + (_TTL << 8 | _TCP)
        self.tcp_sum = addresses + _TCP + own[1] + peer[1] + _WINDOW


class Conversation:
    """One TCP connection's packets. Each method yields those of one event, in order.

    `client_isn` and `server_isn` are the initial sequence numbers (RFC 9293 §3.4.1), any 32 bits.
    """

    def __init__(self, client: Address, server: Address, client_isn: int, server_isn: int) -> None:
        addresses = [_ip(client), _ip(server)]
        v4 = [a if isinstance(a, ipaddress.IPv4Address) else a.ipv4_mapped for a in addresses]
        if v4[0] is not None and v4[1] is not None:
            octets = [a.packed for a in v4 if a is not None]
        else:
            octets = [_as_v6(a).packed for a in addresses]
        ends = [(octets[0], client[1]), (octets[1], server[1])]
        self._ends = ends
        self._senders = (_Sender(ends[0], ends[1], client_isn), _Sender(ends[1], ends[0], server_isn))

    @property
    def client(self) -> Address:
        return str(ipaddress.ip_address(self._ends[0][0])), self._ends[0][1]

    @property
    def server(self) -> Address:
        return str(ipaddress.ip_address(self._ends[1][0])), self._ends[1][1]

    def request(self) -> Iterator[bytes]:
        """The client's SYN."""
        yield self._packet(Direction.CLIENT_TO_SERVER, SYN, options=_SYN_OPTIONS)

    def accept(self) -> Iterator[bytes]:
        """The server's SYN and what ends the handshake."""
        yield self._packet(Direction.SERVER_TO_CLIENT, SYN | ACK, options=_SYN_OPTIONS)
        yield self._packet(Direction.CLIENT_TO_SERVER, ACK)

    def refuse(self) -> Iterator[bytes]:
        """The answer to a SYN where nobody listens (RFC 9293 §3.5.2)."""
        self._senders[Direction.SERVER_TO_CLIENT].next = 0
        yield self._packet(Direction.SERVER_TO_CLIENT, RST | ACK)

    def data(self, direction: Direction, octets: bytes) -> Iterator[bytes]:
        for start in range(0, len(octets), SEGMENT):
            segment = octets[start : start + SEGMENT]
            yield self._packet(direction, PSH | ACK if start + SEGMENT >= len(octets) else ACK, segment)
        yield self._packet(1 - direction, ACK)

    def finish(self, direction: Direction) -> Iterator[bytes]:
        """`direction`'s sender sends no more."""
        yield self._packet(direction, FIN | ACK)
        yield self._packet(1 - direction, ACK)

    def reset(self, direction: Direction) -> Iterator[bytes]:
        yield self._packet(direction, RST | ACK)

    def _packet(self, direction: int, flags: int, payload: bytes = b"", options: bytes = b"") -> bytes:
        """One packet, its checksums right (RFC 9293 §3.1, RFC 791 §3.1, RFC 8200 §8.1).

        A checksum is the negative sum of all 16-bit words. A 32-bit field may be added as it is (see `ones_sum`), so
        the headers are summed from their fields, before they are octets.
        """
        sender = self._senders[direction]
        sequence = sender.next
        acknowledged = self._senders[1 - direction].next if flags & ACK else 0
        offset = (20 + len(options)) << 2  # in words, in the upper half of its octet
        length = 20 + len(options) + len(payload)
        total = sender.tcp_sum + length + sequence + acknowledged + (offset << 8 | flags)
        checksum = -(total + ones_sum(options) + ones_sum(payload)) % 0xFFFF
        sender.next = sequence + len(payload) + (1 if flags & (SYN | FIN) else 0) & 0xFFFFFFFF
        rest = (sender.addresses, sender.ports, sequence, acknowledged, offset, flags, _WINDOW, checksum, 0)
        if len(sender.addresses) == 32:
            return _IPV6.pack(6 << 28, length, _TCP, _TTL, *rest) + options + payload
        identification = sender.identification
        sender.identification = identification + 1 & 0xFFFF
        ip_checksum = -(sender.ip_sum + 20 + length + identification) % 0xFFFF
        start = (0x45, 0, 20 + length, identification, _DO_NOT_FRAGMENT, _TTL, _TCP, ip_checksum)
        return _IPV4.pack(*start, *rest) + options + payload


_IPV4 = struct.Struct(">BBHHHBBH 8s 4sIIBBHHH")
_IPV6 = struct.Struct(">IHBB 32s 4sIIBBHHH")


def ones_sum(octets: bytes) -> int:
    """Congruent modulo 65,535 to the ones' complement sum of the 16-bit words (RFC 1071).

    As 2^16 is 1 modulo 65,535, the octets read as one number are congruent to the sum of its words. Dividing a long
    number costs 4 µs a kilobyte; folding it, halves added to each other, 2 µs; adding word by word in Python 14 µs.
    """
    number = int.from_bytes(octets)
    if len(octets) & 1:  # padded with a zero octet on the right (RFC 9293 §3.1)
        number <<= 8
    bits = len(octets) * 8 + 8
    while bits > 4096:
        half = bits // 32 * 16
        number = (number >> half) + (number & (1 << half) - 1)
        bits -= half - 16
    return number % 0xFFFF


def _ip(address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address[0].partition("%")[0])  # a link-local address may carry its interface


def _as_v6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    return address if isinstance(address, ipaddress.IPv6Address) else ipaddress.IPv6Address(f"::ffff:{address}")
