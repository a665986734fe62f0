"""Traffic for tests of the decoder's core: packets of any link type around TCP segments, and HTTP/2 in them.

Frames are written as octets here, not by the code under test, and `expected_frames` is a second, slow and obvious
reading of the same packets: which octet came first in which packet, and so in which packet each frame became complete.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from hpack import Encoder

from capture.events import ConnectionEnd, Event, FrameEvent, Gap, Packet, Problem
from capture.pipeline import Pipeline

ETHERNET, BSD_LOOPBACK, RAW, COOKED, COOKED_V2 = 1, 0, 101, 113, 276
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UP, DOWN = 0, 1
"""Directions: client to server, server to client."""


# -- HTTP/2 ------------------------------------------------------------------------------------------------------------


def frame(type_code: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((type_code, flags)) + struct.pack(">I", stream_id) + payload


def data(stream_id: int, octets: bytes, flags: int = 0) -> bytes:
    return frame(0, flags, stream_id, octets)


def message(octets: bytes) -> bytes:
    """A gRPC length-prefixed message."""
    return b"\0" + struct.pack(">I", len(octets)) + octets


def headers(stream_id: int, block: bytes, flags: int = 0x4) -> bytes:
    return frame(1, flags, stream_id, block)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(4, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


SETTINGS_ACK = frame(4, 1)


def continuation(stream_id: int, block: bytes, flags: int = 0x4) -> bytes:
    return frame(9, flags, stream_id, block)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(8, 0, stream_id, struct.pack(">I", increment))


def ping(octets: bytes = b"pingpong", flags: int = 0) -> bytes:
    return frame(6, flags, 0, octets)


def goaway(last_stream_id: int = 0, error_code: int = 0, debug: bytes = b"") -> bytes:
    return frame(7, 0, 0, struct.pack(">II", last_stream_id, error_code) + debug)


def rst_stream(stream_id: int, error_code: int = 8) -> bytes:
    return frame(3, 0, stream_id, struct.pack(">I", error_code))


GET = b"\x82\x86\x84"
"""A field block of the static table only: :method GET, :scheme http, :path /."""
OK = b"\x88"
"""The same: :status 200."""

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/minichat.v1.ChatService/Chat"),
    (":authority", "10.0.0.2:50051"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-python/1.85.1"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc"), ("server", "minichat")]
TRAILERS = [("grpc-status", "0"), ("grpc-message", "")]


# -- TCP/IP ------------------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    ip: str
    port: int


CLIENT, SERVER = Address("10.0.0.1", 40000), Address("10.0.0.2", 50051)


def tcp(
    source: int, destination: int, seq: int, ack: int, flags: int, octets: bytes = b"", options: bytes = b""
) -> bytes:
    options += b"\0" * (-len(options) % 4)
    header = struct.pack(
        ">HHIIBBHHH", source, destination, seq % 2**32, ack % 2**32, (20 + len(options)) << 2, flags, 65535, 0, 0
    )
    return header + options + octets


def ipv4(
    source: str,
    destination: str,
    body: bytes,
    *,
    protocol: int = 6,
    options: bytes = b"",
    ident: int = 1,
    fragment: int = 0,
    total: int | None = None,
) -> bytes:
    """`fragment`: the flags and offset field as it stands in the header."""
    options += b"\0" * (-len(options) % 4)
    length = 20 + len(options)
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | length >> 2,
            0,
            length + len(body) if total is None else total,
            ident,
            fragment,
            64,
            protocol,
            0,
            ip_address(source).packed,
            ip_address(destination).packed,
        )
        + options
        + body
    )


def ipv6(source: str, destination: str, body: bytes, *, following: int = 6, total: int | None = None) -> bytes:
    length = len(body) if total is None else total
    addresses = ip_address(source).packed + ip_address(destination).packed
    return struct.pack(">IHBB", 6 << 28, length, following, 64) + addresses + body


def ip(source: str, destination: str, body: bytes) -> bytes:
    return ipv6(source, destination, body) if ":" in source else ipv4(source, destination, body)


def link(link_type: int, octets: bytes, order: str = "<") -> bytes:
    """A link header before an IP packet. `order` is the byte order of the machine that captured BSD loopback."""
    is_ipv6 = octets[0] >> 4 == 6
    ethertype = b"\x86\xdd" if is_ipv6 else b"\x08\x00"
    return {
        ETHERNET: b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + ethertype,
        BSD_LOOPBACK: struct.pack(order + "I", 30 if is_ipv6 else 2),
        RAW: b"",
        COOKED: b"\0\0\0\1\0\6\x02\0\0\0\0\1\0\0" + ethertype,
        COOKED_V2: ethertype + b"\0\0\0\0\0\1\0\1\0\6\x02\0\0\0\0\1\0\0",
    }[link_type] + octets


class Tape:
    """A capture in the making: packets, numbered, some microseconds apart."""

    def __init__(self, link_type: int = ETHERNET, time_ns: int = 1_700_000_000_000_000_000) -> None:
        self.link_type, self.time_ns = link_type, time_ns
        self.packets: list[Packet] = []

    def add(self, octets: bytes, *, link_type: int | None = None, length: int | None = None) -> Packet:
        """A packet as it is, link header included."""
        self.time_ns += 1009
        kind = self.link_type if link_type is None else link_type
        wire = len(octets) if length is None else length
        packet = Packet(len(self.packets) + 1, self.time_ns, kind, octets, wire)
        self.packets.append(packet)
        return packet

    def talk(self, client: Address = CLIENT, server: Address = SERVER, **options: Any) -> Talk:
        return Talk(self, client, server, **options)


class Talk:
    """One TCP connection on a tape."""

    def __init__(
        self, tape: Tape, client: Address = CLIENT, server: Address = SERVER, *, seq: tuple[int, int] = (1000, 900_000)
    ) -> None:
        self.tape, self.ends = tape, (client, server)
        self.first = list(seq)
        """The initial sequence number of each side (the SYN's)."""
        self.seq = [(first + 1) % 2**32 for first in seq]
        """Of each side, what comes next."""
        self.wrap: Callable[[bytes], bytes] = lambda octets: link(tape.link_type, octets)

    def segment(
        self, direction: int, octets: bytes = b"", *, flags: int = ACK, seq: int | None = None, ack: int | None = None
    ) -> Packet:
        """A segment, wherever it lies; moves nothing."""
        source, destination = self.ends[direction], self.ends[1 - direction]
        body = tcp(
            source.port,
            destination.port,
            self.seq[direction] if seq is None else seq,
            (self.seq[1 - direction] if ack is None else ack) if flags & ACK else 0,
            flags,
            octets,
        )
        return self.tape.add(self.wrap(ip(source.ip, destination.ip, body)))

    def shake(self) -> Talk:
        """The handshake of three packets."""
        self.segment(UP, flags=SYN, seq=self.first[UP])
        self.segment(DOWN, flags=SYN | ACK, seq=self.first[DOWN])
        self.segment(UP)
        return self

    def send(self, direction: int, octets: bytes, size: int | None = None) -> Talk:
        """The next octets, in packets of at most `size` octets of payload."""
        size = size or len(octets) or 1
        for at in range(0, len(octets), size):
            part = octets[at : at + size]
            self.segment(direction, part, flags=PSH | ACK)
            self.seq[direction] = (self.seq[direction] + len(part)) % 2**32
        return self

    def skip(self, direction: int, octets: int) -> Talk:
        """So many octets are sent and not captured."""
        self.seq[direction] = (self.seq[direction] + octets) % 2**32
        return self

    def ack(self, direction: int) -> Talk:
        self.segment(direction)
        return self

    def fin(self, direction: int) -> Talk:
        self.segment(direction, flags=FIN | ACK)
        self.seq[direction] = (self.seq[direction] + 1) % 2**32
        return self

    def rst(self, direction: int) -> Talk:
        self.segment(direction, flags=RST | ACK)
        return self

    def open(self) -> Talk:
        """Handshake, preface and SETTINGS: an HTTP/2 connection as it begins."""
        self.shake().send(UP, PREFACE + settings()).send(DOWN, settings())
        return self.send(UP, SETTINGS_ACK).send(DOWN, SETTINGS_ACK)


# -- conversations -----------------------------------------------------------------------------------------------------


class Chatter:
    """The octets of a random gRPC conversation, piece by piece, with dynamic tables of both sides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.encoders = (Encoder(), Encoder())
        self.stream = 1

    def beginning(self) -> list[tuple[int, bytes]]:
        return [
            (UP, PREFACE + settings((4, 4 << 20), (5, 4 << 20)) + window_update(0, 4_000_000)),
            (DOWN, settings((4, 4 << 20), (5, 4 << 20)) + SETTINGS_ACK),
            (UP, SETTINGS_ACK),
        ]

    def call(self) -> list[tuple[int, bytes]]:
        """A call with a message or two each way."""
        rnd, stream = self.random, self.stream
        self.stream += 2
        up, down = self.encoders
        word = f"user-{rnd.randrange(6)}"
        pieces = [
            (UP, headers(stream, up.encode([*REQUEST, ("x-user", word)], huffman=rnd.random() < 0.5))),
            (UP, data(stream, message(rnd.randbytes(rnd.randrange(1, 60))))),
        ]
        if rnd.random() < 0.3:
            pieces.append((DOWN, ping()))
            pieces.append((UP, ping(flags=1)))
        pieces.append((DOWN, headers(stream, down.encode([*RESPONSE, ("x-turn", str(rnd.randrange(9)))]))))
        for _ in range(rnd.randrange(1, 4)):
            octets = message(rnd.randbytes(rnd.randrange(1, 200)))
            pieces.append((DOWN, data(stream, octets)))
            pieces.append((UP, window_update(0, len(octets))))
        pieces.append((UP, data(stream, b"", flags=1)))
        pieces.append((DOWN, headers(stream, down.encode(TRAILERS), flags=0x5)))
        return pieces

    def pieces(self, calls: int) -> list[tuple[int, bytes]]:
        return self.beginning() + [piece for _ in range(calls) for piece in self.call()]


def chat(calls: int = 3, seed: int = 1, tape: Tape | None = None, **options: Any) -> Tape:
    """One whole connection, a piece a packet, from SYN to FIN."""
    tape = tape or Tape()
    talk = tape.talk(**options).shake()
    for direction, octets in Chatter(seed).pieces(calls):
        talk.send(direction, octets).ack(1 - direction)
    talk.fin(UP).fin(DOWN).ack(UP)
    return tape


def crowd(connections: int, calls: int = 3, seed: int = 1) -> Tape:
    """Several connections at once, some frames over several packets and some packets with several frames."""
    rnd = random.Random(seed)
    tape = Tape()
    waiting = []
    for i in range(connections):
        talk = tape.talk(Address("10.0.0.1", 40000 + i), SERVER, seq=(rnd.randrange(2**32), rnd.randrange(2**32)))
        waiting.append((talk, Chatter(seed + i).pieces(calls)))
        talk.shake()
    while waiting:
        talk, pieces = rnd.choice(waiting)
        if not pieces:
            talk.fin(UP).fin(DOWN)
            waiting.remove((talk, pieces))
            continue
        direction, octets = pieces.pop(0)
        while pieces and pieces[0][0] == direction and rnd.random() < 0.5:
            octets += pieces.pop(0)[1]
        talk.send(direction, octets, rnd.choice((None, None, None, 40)))
    return tape


# -- what comes out ----------------------------------------------------------------------------------------------------


def events_of(packets: Sequence[Packet], *, batch: int | None = None, **options: Any) -> list[Event]:
    """All events of a capture, fed whole or in batches."""
    pipeline = Pipeline(**options)
    size = batch or len(packets) or 1
    events: list[Event] = []
    for at in range(0, len(packets), size):
        events += pipeline.feed(list(packets[at : at + size]))
    return events + pipeline.finish()


def frames_of(events: Iterable[Event]) -> list[FrameEvent]:
    return [event for event in events if isinstance(event, FrameEvent)]


def problems_of(events: Iterable[Event]) -> list[Problem]:
    return [event for event in events if isinstance(event, Problem)]


def gaps_of(events: Iterable[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


def ends_of(events: Iterable[Event]) -> list[ConnectionEnd]:
    return [event for event in events if isinstance(event, ConnectionEnd)]


def reasons(events: Iterable[Event]) -> list[str]:
    return [problem.reason for problem in problems_of(events)]


class Expected(NamedTuple):
    """A frame as the model below finds it."""

    packet: int
    time_ns: int
    client: str
    server: str
    direction: int
    offset: int
    header: bytes
    payload: bytes


def as_expected(event: FrameEvent) -> Expected:
    connection = event.connection
    assert event.payload is not None
    return Expected(
        event.packet,
        event.time_ns,
        connection.client,
        connection.server,
        int(event.direction),
        event.offset,
        event.header,
        event.payload,
    )


def cut(octets: bytes, at: int = 0) -> list[tuple[int, bytes, bytes]]:
    """Octets that begin with a frame, from `at` on: (offset, header, payload) of each whole frame."""
    found = []
    while at + 9 <= len(octets):
        length = int.from_bytes(octets[at : at + 3])
        if at + 9 + length > len(octets):
            break
        found.append((at, octets[at : at + 9], octets[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


def expected_frames(packets: Sequence[Packet], link_header: int = 14) -> list[Expected]:
    """Every frame of a capture of IPv4 connections that begin with SYN and preface, read slowly: each octet belongs to
    the packet in which it came first, and a frame is complete when all octets up to its end are there. `packets` may
    be out of order, repeated or overlapping, but nothing may be missing, and no ports be used twice."""
    streams: dict[tuple[str, str], dict[int, tuple[int, Packet]]] = {}
    start: dict[tuple[str, str], int] = {}
    clients: set[tuple[str, str]] = set()
    order = {packet.number: i for i, packet in enumerate(packets)}
    for packet in packets:
        header = packet.data[link_header:]
        source, destination = (str(ip_address(header[at : at + 4])) for at in (12, 16))
        body = header[20 : int.from_bytes(header[2:4])]
        ports = struct.unpack_from(">HH", body)
        key = (f"{source}:{ports[0]}", f"{destination}:{ports[1]}")
        seq, flags = int.from_bytes(body[4:8]), body[13]
        if flags & SYN:
            start[key] = (seq + 1) % 2**32
            if not flags & ACK:
                clients.add(key)
        octets = streams.setdefault(key, {})
        for i, octet in enumerate(body[(body[12] >> 4) * 4 :]):
            octets.setdefault((seq + i - start[key]) % 2**32, (octet, packet))
    found = []
    for key, octets in streams.items():
        is_client = key in clients
        line = bytes(octets[i][0] for i in range(len(octets)))
        came: list[Packet] = []
        for i in range(len(octets)):
            packet = octets[i][1]
            came.append(max(came[-1], packet, key=lambda one: order[one.number]) if came else packet)
        for at, head, payload in cut(line, len(PREFACE) if is_client else 0):
            last = came[at + 8 + len(payload)]
            client, server = key if is_client else key[::-1]
            direction = UP if is_client else DOWN
            found.append(Expected(last.number, last.time_ns, client, server, direction, at, head, payload))
    return sorted(found, key=lambda one: (one.packet, one.client, one.direction, one.offset))


def by_packet(frames: Iterable[FrameEvent]) -> list[Expected]:
    """Frames in the order of `expected_frames`."""
    found = map(as_expected, frames)
    return sorted(found, key=lambda one: (one.packet, one.client, one.direction, one.offset))


def write_pcap(path: Path, packets: Sequence[Packet]) -> Path:
    """A pcap file with nanoseconds, for other programs to read."""
    octets = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, packets[0].link_type)]
    for packet in packets:
        seconds, rest = divmod(packet.time_ns, 10**9)
        octets += [struct.pack("<IIII", seconds, rest, len(packet.data), packet.length), packet.data]
    path.write_bytes(b"".join(octets))
    return path


def renumbered(packets: Iterable[Packet]) -> list[Packet]:
    """As a capture that has them in this order would number and time them."""
    return [
        packet._replace(number=i, time_ns=1_700_000_000_000_000_000 + i * 1009) for i, packet in enumerate(packets, 1)
    ]
