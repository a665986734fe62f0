"""Capture files, read and written: pcap and pcapng, plain or under gzip. No other module knows their formats.

How reading works. One buffer holds the octets that came last and, before them, the record that they cut in two: never
more, whatever the file's size. Two loops walk it with `struct.unpack_from`: the one in `_pcap`, and `_enhanced_packets`
for pcapng. They know one kind of record, the sound packet that is wholly there, and stop at everything else, which
slower code then looks at: another kind of block, a record whose end has yet to come, or damage. What was found before
more octets are asked for is handed on as a batch, so that a pipe is shown as it comes.

Trouble. Where nothing at all can be read there is a `CaptureError`. Where something was read, damage is a `Problem` in
`Reader.problems`: both formats are chains of lengths, so nothing is believed behind a length that cannot be true.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng ("pcap" and "pcapng" below).
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, BinaryIO, NamedTuple

from capture.events import Packet, Problem
from capture.octets import arriving, unpacked
from kit.text import visible
from kit.words import N_, _

MAX_PACKET = 262_144
"""Octets captured of one packet: the largest snap length of libpcap (MAXIMUM_SNAPLEN). A pcap record that claims more
is damage, not a reason to wait for gigabytes."""
MAX_BLOCK = 16 << 20
"""Octets of one pcapng block, the same limit as Wireshark's: room for secrets and comments of any real size."""
MAX_INTERFACES = 65_536
"""Interfaces that one section may describe; a capture of each TCP port alone would not need more."""
MAX_KEPT = 1_000
"""Comments, interfaces and problems of one file that are kept to be shown; a file of nothing else stays readable."""
MAX_TEXT = 4_096
"""Characters kept of a comment or name: pcapng allows 65,535 octets for each."""
MAX_SECRETS = 16 << 20
"""Octets of decryption secrets kept: keys of some 50,000 TLS connections."""
MAX_TIME = (1 << 63) - 1
"""Nanoseconds since 1970 that fit 64 bits, in the year 2262: a later time in a file is damage."""

SYNTHESISED = "TCP/IP synthesised by the gRPC wire lab tap"
"""What an interface's hardware is called in a file (in no language, as programs look for it) whose octets are real and
whose packets are not. Comments say so to people; this outlives editcap and mergecap."""

_SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders (pcapng §4.1)
_PCAP_HEADER = 24
_PCAP_MAGICS = {
    struct.pack(order + "I", magic): (order, unit, record)
    for order in "<>"
    for magic, unit, record in (
        (0xA1B2C3D4, 1000, 16),  # microseconds
        (0xA1B23C4D, 1, 16),  # nanoseconds
        (0xA1B2CD34, 1000, 24),  # "modified": interface, protocol and packet type behind the usual 16 octets
    )
}
"""By a file's first four octets: byte order, nanoseconds in a unit of time, octets before each packet."""

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, STATISTICS, PACKET, SECRETS = 0x0A0D0D0A, 1, 2, 3, 5, 6, 10
_MIN_BODY = {SECTION: 16, INTERFACE: 8, OLD_PACKET: 20, SIMPLE_PACKET: 4, STATISTICS: 12, PACKET: 20, SECRETS: 8}
_EMPTY_BLOCK = 12
_MIN_PACKET_BLOCK = _EMPTY_BLOCK + _MIN_BODY[PACKET]
TLS_KEY_LOG = 0x544C534B

_END, _COMMENT = 0, 1  # options of any block (pcapng §3.5)
_SECTION_SYSTEM, _SECTION_APPLICATION = 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_RESOLUTION, _IF_OFFSET, _IF_HARDWARE = 2, 3, 9, 14, 15
_PACKET_FLAGS = 2
_RECEIVED, _LOST_BY_INTERFACE, _LOST_BY_SYSTEM = 4, 5, 7
_NOT_KNOWN = b"\xff" * 8  # a count of all ones (pcapng §4.6)
_MAX_OPTION = 0xFFFF

INBOUND, OUTBOUND = 1, 2
"""Which way a packet went as its interface sees it (pcapng §4.3.1)."""
APPLICATION = "gRPC wire lab"

_COMPRESSED = {"zstd", "lz4", "xz", "bzip2", "zip"}
_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"snoop\0": "snoop",
    b"GMBU": "Network Monitor",
    b"RTSS": "Network Monitor",
}


class CaptureError(Exception):
    """Nothing could be read. The message says why, for people and in their language: `FILE: message`."""


class Interface(NamedTuple):
    """Where packets were captured, as far as the file tells."""

    link_type: int
    """LINKTYPE_ number."""
    name: str = ""
    description: str = ""
    hardware: str = ""
    snap_length: int = 0
    """The most octets captured of a packet; 0 where there was no limit."""
    received: int | None = None
    """Packets that the interface saw during the capture, where statistics are there."""
    dropped: int | None = None
    """Packets that the capturing system lost."""


class Secrets(NamedTuple):
    """A decryption secrets block (pcapng §4.7), as it is."""

    kind: int
    """`TLS_KEY_LOG`, or another number of the registry."""
    data: bytes


class _Clock(NamedTuple):
    """How an interface counts time: ns = ticks × multiply // divide + offset."""

    link_type: int
    multiply: int
    divide: int
    offset: int
    """Nanoseconds."""
    earliest: int
    """Ticks that make time 0, and those that make MAX_TIME."""
    latest: int
    snap_length: int


class _Damage(Exception):
    """A length or number that cannot be true, in the record at hand."""

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(template)
        self.template, self.values = template, values


def read(stream: BinaryIO) -> Reader:
    """The stream's packets in batches, each as soon as its octets are there, numbered from 1.

    Raises, from the first batch on:
        CaptureError: the stream is no capture, or ends before it says of what kind.
        OSError: the stream itself cannot be read.
    """
    return Reader(stream)


class Reader(Iterator[list[Packet]]):
    """An iterator of batches, and beside them what else the file says: complete when the iterator has ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.format = ""
        """`pcap` or `pcapng`, once it is known."""
        self.comments: list[str] = []
        """Of the file's sections."""
        self.interfaces: list[Interface] = []
        self.secrets: list[Secrets] = []
        self.problems: list[Problem] = []
        """Layer `capture`; their `offset` counts the octets of the file, after gzip was unpacked."""
        self.synthesised = False
        """Whether a tap made the packets: their octets and times are real, their TCP/IP is not."""
        self._octets = unpacked(arriving(stream), self._tell)
        self._buffer = b""
        self._start = 0  # of the buffer in the file
        self._at = 0  # of the record at hand in the buffer
        self._number = 0  # of the last packet
        self._time_ns = 0
        self._order = "<"
        self._seven_words = struct.Struct("<7I").unpack_from
        self._clocks: list[_Clock] = []
        self._first_interface = 0  # of the section, in self.interfaces
        self._told: set[int] = set()
        self._secret_octets = 0
        self._batches = self._read()

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> list[Packet]:
        return next(self._batches)

    @property
    def comment(self) -> str:
        return "\n".join(self.comments)

    def _read(self) -> Iterator[list[Packet]]:
        self._want(4)
        try:
            if self._buffer.startswith(_SECTION_MAGIC):
                yield from self._pcapng()
            elif self._buffer[:4] in _PCAP_MAGICS:
                yield from self._pcap(*_PCAP_MAGICS[self._buffer[:4]])
            else:
                self._want(_PCAP_HEADER)
                raise CaptureError(self.problems[0].reason if self.problems else _not_a_capture(self._buffer))
        except _Damage as damage:
            if not self._start + self._at:
                raise CaptureError(_(damage.template).format(**damage.values)) from None
            self._tell(damage.template, **damage.values)
        for interface in self.interfaces:
            if interface.dropped:
                self._tell(
                    N_("the system that captured on interface {interface} lost {dropped} packets"),
                    interface=interface.name or "?",
                    dropped=interface.dropped,
                )

    def _want(self, count: int) -> bool:
        """Lets go of what lies before the record at hand, and gets the `count` octets from there on.

        False: the stream has fewer. What it has is in the buffer.
        """
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        self._start += self._at
        self._at = 0
        while have < count and (block := next(self._octets, b"")):
            parts.append(block)
            have += len(block)
        self._buffer = b"".join(parts)
        return have >= count

    def _tell(self, template: str, octets: int | None = None, **values: Any) -> None:
        if len(self.problems) < MAX_KEPT:
            place = self._start + self._at
            self.problems.append(
                Problem(self._number, self._time_ns, None, None, place, "capture", template, values, octets)
            )

    def _tell_cut(self, need: int) -> None:
        present = len(self._buffer)
        if not self._start:
            raise CaptureError(_cut_in_header(present, need))
        if present:
            self._tell(
                N_("the file is cut short: of its last record, {present} octets of at least {needed} are there"),
                octets=need - present,
                present=present,
                needed=need,
            )

    # pcap: a header, then records of 16 octets and a packet each

    def _pcap(self, order: str, unit: int, record: int) -> Iterator[list[Packet]]:
        self.format = "pcap"
        if not self._want(_PCAP_HEADER):
            self._tell_cut(_PCAP_HEADER)
        snap_length, link_type = struct.unpack_from(order + "II", self._buffer, 16)
        link_type &= 0xFFFF  # the upper bits are about frame check sequences (pcap §4)
        self.interfaces.append(Interface(link_type, snap_length=snap_length))
        unpack = struct.Struct(order + "IIII").unpack_from
        new, packet, max_packet = tuple.__new__, Packet, MAX_PACKET
        self._at, need = _PCAP_HEADER, record
        while self._want(need):
            buffer, packets = self._buffer, list[Packet]()
            append, number, end = packets.append, self._number, len(buffer)
            last, need = end - record, record
            at = captured = 0
            # The hot loop: a record is one unpack, one slice and one tuple, with no look-up and no Python function
            # between them. (Packet's own constructor would be one; tuple.__new__ makes the same object.)
            while at <= last:
                seconds, fraction, captured, length = unpack(buffer, at)
                start = at + record
                stop = start + captured
                if stop > end or captured > max_packet:
                    need = record + captured
                    break
                number += 1
                time_ns = seconds * 1_000_000_000 + fraction * unit
                append(new(packet, (number, time_ns, link_type, buffer[start:stop], length)))
                at = stop
            self._at = at
            if packets:
                self._number, self._time_ns = number, packets[-1].time_ns
                yield packets
            if captured > MAX_PACKET:
                raise _Damage(
                    N_("packet {number} claims {captured} octets where {limit} are possible: nothing behind is read"),
                    number=number + 1,
                    captured=captured,
                    limit=MAX_PACKET,
                )
        self._tell_cut(need)

    # pcapng: a chain of blocks, each with its length before and behind

    def _pcapng(self) -> Iterator[list[Packet]]:
        self.format = "pcapng"
        need = _EMPTY_BLOCK
        while self._want(need):
            packets: list[Packet] = []
            damage = None
            try:
                while True:
                    self._enhanced_packets(packets)
                    need = self._block_length()
                    if self._at + need > len(self._buffer):
                        break
                    self._block(need, packets)
                    self._at += need
            except _Damage as found:
                damage = found
            if packets:
                yield packets
            if damage is not None:
                raise damage
        self._tell_cut(need)

    def _enhanced_packets(self, packets: list[Packet]) -> None:
        """Adds the packets of the enhanced packet blocks (pcapng §4.3) that come next: this format's hot loop.

        It stops before whatever is not a whole, sound block of that kind with a possible time. Flags and comments
        behind a packet are passed over, by the block's length.
        """
        buffer, clocks, unpack, append, new = (
            self._buffer,
            self._clocks,
            self._seven_words,
            packets.append,
            tuple.__new__,
        )
        at, number, time_ns, end = self._at, self._number, self._time_ns, len(buffer)
        packet, smallest, current, last = Packet, _MIN_PACKET_BLOCK, -1, end - _MIN_PACKET_BLOCK
        link_type = multiply = divide = offset = earliest = latest = is_nanoseconds = 0
        while at <= last:
            kind, total, interface, high, low, captured, length = unpack(buffer, at)
            stop = at + total
            if (
                kind != PACKET
                or captured > total - smallest
                or stop > end
                or total & 3
                or total > MAX_BLOCK
                or buffer[at + 4 : at + 8] != buffer[stop - 4 : stop]
            ):
                break
            if interface != current:
                if interface >= len(clocks):
                    break
                link_type, multiply, divide, offset, earliest, latest, _snap_length = clocks[interface]
                current, is_nanoseconds = interface, multiply == divide and not offset
            time_ns = ticks = high << 32 | low
            if not earliest <= ticks <= latest:
                break
            if not is_nanoseconds:
                time_ns = ticks * multiply // divide + offset
            start = at + 28
            number += 1
            append(new(packet, (number, time_ns, link_type, buffer[start : start + captured], length)))
            at = stop
        self._at, self._number, self._time_ns = at, number, time_ns

    def _block_length(self) -> int:
        """Octets of the block at hand (12 where not even its first fields are there), both lengths checked."""
        buffer, at = self._buffer, self._at
        if at + _EMPTY_BLOCK > len(buffer):
            return _EMPTY_BLOCK
        if buffer.startswith(_SECTION_MAGIC, at):
            order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(buffer[at + 8 : at + 12])
            if order is None:
                raise _Damage(N_("a section begins without the byte-order magic: nothing behind is read"))
            self._order = order
        kind, total = struct.unpack_from(self._order + "II", buffer, at)
        if total < _EMPTY_BLOCK + _MIN_BODY.get(kind, 0) or total & 3 or total > MAX_BLOCK:
            raise _Damage(
                N_("a block of type {kind} claims a length of {total} octets: nothing behind is read"),
                kind=kind,
                total=total,
            )
        if at + total <= len(buffer):
            (again,) = struct.unpack_from(self._order + "I", buffer, at + total - 4)
            if again != total:
                raise _Damage(
                    N_("a block of type {kind} has two lengths, {total} and {again}: nothing behind is read"),
                    kind=kind,
                    total=total,
                    again=again,
                )
        return int(total)

    def _block(self, total: int, packets: list[Packet]) -> None:
        """The whole block at hand, which is no ordinary packet. An unknown kind is passed over (pcapng §3.1)."""
        body = self._buffer[self._at + 8 : self._at + total - 4]
        (kind,) = struct.unpack_from(self._order + "I", self._buffer, self._at)
        if kind == SECTION:
            self._section(body)
        elif kind == INTERFACE:
            self._interface(body)
        elif kind == STATISTICS:
            self._statistics(body)
        elif kind == SECRETS:
            self._secrets(body)
        elif kind == PACKET:
            interface, high, low, captured, length = struct.unpack_from(self._order + "5I", body)
            self._packet(packets, interface, high << 32 | low, captured, length, body[20:])
        elif kind == OLD_PACKET:  # pcapng, "Packet Block (obsolete!)"
            interface, _drops, high, low, captured, length = struct.unpack_from(self._order + "HH4I", body)
            self._packet(packets, interface, high << 32 | low, captured, length, body[20:])
        elif kind == SIMPLE_PACKET:  # no interface, no time and no captured length (pcapng §4.4)
            (length,) = struct.unpack_from(self._order + "I", body)
            snap_length = self._clocks[0].snap_length if self._clocks else 0
            self._packet(packets, 0, None, min(length, snap_length or length, len(body) - 4), length, body[4:])

    def _section(self, body: bytes) -> None:
        major, minor = struct.unpack_from(self._order + "HH", body, 4)
        if major != 1:
            raise _Damage(
                N_("a section has version {version}, and 1.0 is what is known: nothing behind is read"),
                version=f"{major}.{minor}",
            )
        self._seven_words = struct.Struct(self._order + "7I").unpack_from
        self._clocks = []  # a section numbers its interfaces from 0 (pcapng §4.2)
        self._told = set()
        self._first_interface = len(self.interfaces)
        for code, value in self._options(body[16:]):
            if code == _COMMENT and len(self.comments) < MAX_KEPT:
                self.comments.append(_text(value))

    def _interface(self, body: bytes) -> None:
        link_type, _reserved, snap_length = struct.unpack_from(self._order + "HHI", body)
        texts = {_IF_NAME: "", _IF_DESCRIPTION: "", _IF_HARDWARE: ""}
        resolution, seconds = 6, 0  # microseconds unless it says otherwise (pcapng §4.2)
        for code, value in self._options(body[8:]):
            if code in texts:
                texts[code] = _text(value)
            elif code == _IF_RESOLUTION and len(value) == 1:
                resolution = value[0]
            elif code == _IF_OFFSET and len(value) == 8:
                (seconds,) = struct.unpack(self._order + "q", value)
        if len(self._clocks) >= MAX_INTERFACES:
            raise _Damage(
                N_("a section describes more than {limit} interfaces: nothing behind is read"), limit=MAX_INTERFACES
            )
        self._clocks.append(_clock(link_type, resolution, seconds * 1_000_000_000, snap_length))
        interface = Interface(link_type, texts[_IF_NAME], texts[_IF_DESCRIPTION], texts[_IF_HARDWARE], snap_length)
        self.synthesised |= interface.hardware == SYNTHESISED
        if len(self.interfaces) < MAX_KEPT:
            self.interfaces.append(interface)

    def _statistics(self, body: bytes) -> None:
        (interface,) = struct.unpack_from(self._order + "I", body)
        counts = {
            code: struct.unpack(self._order + "Q", value)[0]
            for code, value in self._options(body[12:])
            if len(value) == 8 and value != _NOT_KNOWN
        }
        lost = [counts[code] for code in (_LOST_BY_INTERFACE, _LOST_BY_SYSTEM) if code in counts]
        at = self._first_interface + interface
        if at < len(self.interfaces):
            self.interfaces[at] = self.interfaces[at]._replace(
                received=counts.get(_RECEIVED), dropped=sum(lost) if lost else None
            )

    def _secrets(self, body: bytes) -> None:
        kind, length = struct.unpack_from(self._order + "II", body)
        data = body[8 : 8 + length]
        self._secret_octets += len(data)
        if self._secret_octets <= MAX_SECRETS:
            self.secrets.append(Secrets(kind, data))
        else:
            self._tell_once(
                -2,
                N_("the file has more than {limit} octets of decryption secrets: the rest is not kept"),
                limit=MAX_SECRETS,
            )

    def _packet(
        self, packets: list[Packet], interface: int, ticks: int | None, captured: int, length: int, rest: bytes
    ) -> None:
        """A packet of any kind of block; `rest` is what the block has room for."""
        self._number += 1
        if captured > len(rest):
            raise _Damage(
                N_("packet {number} claims {captured} octets and its block has {room}: nothing behind is read"),
                number=self._number,
                captured=captured,
                room=len(rest),
            )
        if interface >= len(self._clocks):
            self._tell_once(
                interface,
                N_("packet {number} and perhaps others are of interface {interface}, which the file does not describe"),
                number=self._number,
                interface=interface,
            )
            return
        clock = self._clocks[interface]
        time_ns = 0 if ticks is None else ticks * clock.multiply // clock.divide + clock.offset
        if not 0 <= time_ns <= MAX_TIME:
            time_ns = min(max(time_ns, 0), MAX_TIME)
            self._tell_once(
                -1,
                N_("packet {number} and perhaps others have a time before 1970 or after 2262"),
                number=self._number,
            )
        self._time_ns = time_ns
        packets.append(Packet(self._number, time_ns, clock.link_type, rest[:captured], length))

    def _tell_once(self, what: int, template: str, **values: Any) -> None:
        """Once in a section for each interface number (or a negative number for what is no interface)."""
        if what not in self._told and len(self._told) < MAX_KEPT:
            self._told.add(what)
            self._tell(template, **values)

    def _options(self, octets: bytes) -> Iterator[tuple[int, bytes]]:
        """Code and value of each (pcapng §3.5); one that runs over its block is the end."""
        at = 0
        while at + 4 <= len(octets):
            code, length = struct.unpack_from(self._order + "HH", octets, at)
            value = octets[at + 4 : at + 4 + length]
            if code == _END or len(value) < length:
                return
            yield code, value
            at += 4 + length + -length % 4


def _clock(link_type: int, resolution: int, offset: int, snap_length: int) -> _Clock:
    """By if_tsresol: the high bit says whether the rest is an exponent of 2 or of 10 (pcapng §4.2)."""
    exponent = resolution & 0x7F
    if resolution & 0x80:
        multiply, divide = 1_000_000_000, 1 << exponent
    else:
        multiply, divide = 10 ** max(9 - exponent, 0), 10 ** max(exponent - 9, 0)
    earliest, latest = max(-(offset * divide // multiply), 0), (MAX_TIME - offset) * divide // multiply
    return _Clock(link_type, multiply, divide, offset, earliest, latest, snap_length)


def _not_a_capture(octets: bytes) -> str:
    if not octets:
        return _("there is nothing in it")
    for magic, name in _OTHER_FORMATS.items():
        if octets.startswith(magic):
            if name in _COMPRESSED:
                return _("it is compressed with {name}: unpack it first (gzip is unpacked here)").format(name=name)
            return _("it is a capture in the format {name}: make it a pcapng with editcap first").format(name=name)
    return _("it is no capture: pcap and pcapng do not begin with {octets} ({text})").format(
        octets=octets[:8].hex(" "), text=visible(octets[:_PCAP_HEADER].decode("ascii", "replace"))
    )


def _cut_in_header(present: int, needed: int) -> str:
    return _("it ends inside its own header: {present} octets of {needed} are there").format(
        present=present, needed=needed
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")[:MAX_TEXT]


class Writer:
    """Writes pcapng: one section, one interface, times in nanoseconds; each call is flushed, so that others can follow.

    The stream is the caller's to close. Its errors (a full disk, a pipe whose reader left) are OSError.
    """

    def __init__(
        self,
        stream: BinaryIO,
        link_type: int,
        *,
        name: str = "",
        description: str = "",
        comment: str = "",
        snap_length: int = 0,
        synthesised: bool = False,
    ) -> None:
        self._stream = stream
        section = _option(_COMMENT, comment) + _option(_SECTION_SYSTEM, platform.platform())
        section += _option(_SECTION_APPLICATION, APPLICATION)
        interface = _option(_IF_NAME, name) + _option(_IF_DESCRIPTION, description) + _option(_IF_RESOLUTION, b"\x09")
        if synthesised:
            interface += _option(_IF_HARDWARE, SYNTHESISED)
        header = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)  # a section of unknown length
        self._put(
            _make_block(SECTION, header + section + _NO_MORE)
            + _make_block(INTERFACE, struct.pack("<HHI", link_type, 0, snap_length) + interface + _NO_MORE)
        )

    def write(self, packets: Iterable[Packet], directions: Iterable[int] = repeat(0)) -> None:
        """Packets in order; for each, if it is known, whether it was INBOUND or OUTBOUND."""
        blocks = []
        pack = _PACKET_BLOCK.pack
        for packet, direction in zip(packets, directions, strict=False):
            _number, time_ns, _link_type, data, length = packet
            captured = len(data)
            options = _FLAGS[direction]
            padding = -captured & 3
            total = _MIN_PACKET_BLOCK + captured + padding + len(options)
            blocks.append(pack(PACKET, total, 0, time_ns >> 32, time_ns & 0xFFFFFFFF, captured, length))
            blocks.append(data)
            blocks.append(_PADDING[padding] + options + total.to_bytes(4, "little"))
        self._put(b"".join(blocks))

    def write_one(self, packet: Packet, comment: str, direction: int = 0) -> None:
        """A packet with a comment of its own."""
        data, high, low = packet.data, packet.time_ns >> 32, packet.time_ns & 0xFFFFFFFF
        flags = _option(_PACKET_FLAGS, struct.pack("<I", direction)) if direction else b""
        body = struct.pack("<5I", 0, high, low, len(data), packet.length) + data + _PADDING[-len(data) & 3]
        self._put(_make_block(PACKET, body + flags + _option(_COMMENT, comment) + _NO_MORE))

    def write_secrets(self, key_log: bytes) -> None:
        """Lines of a TLS key log. They must stand before the packets that they are for (pcapng §4.7)."""
        self._put(
            _make_block(SECRETS, struct.pack("<II", TLS_KEY_LOG, len(key_log)) + key_log + _PADDING[-len(key_log) & 3])
        )

    def write_statistics(self, time_ns: int, received: int, dropped: int) -> None:
        """At the end: packets that the interface saw and packets that were lost, up to `time_ns`."""
        head = struct.pack("<III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
        counts = _option(_RECEIVED, struct.pack("<Q", received)) + _option(
            _LOST_BY_INTERFACE, struct.pack("<Q", dropped)
        )
        self._put(_make_block(STATISTICS, head + counts + _NO_MORE))

    def _put(self, octets: bytes) -> None:
        self._stream.write(octets)
        self._stream.flush()


def _make_block(kind: int, body: bytes) -> bytes:
    total = len(body) + _EMPTY_BLOCK
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _option(code: int, value: str | bytes) -> bytes:
    """Nothing for an empty value; a longer text than an option can have is cut between two characters."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")[:_MAX_OPTION].decode("utf-8", "ignore").encode("utf-8")
    return struct.pack("<HH", code, len(value)) + value + _PADDING[-len(value) & 3] if value else b""


_PACKET_BLOCK = struct.Struct("<7I")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_NO_MORE = b"\0\0\0\0"
_FLAGS = (b"", *(_option(_PACKET_FLAGS, struct.pack("<I", way)) + _NO_MORE for way in (INBOUND, OUTBOUND)))
