"""Capture files, built here octet by octet: what the reader makes of them must not come from the writer beside it."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader, RawPcapReader

from capture import octets, pcap
from capture.events import Packet, Problem
from capture.pcap import INBOUND, OUTBOUND, SYNTHESISED, CaptureError, Interface, Reader, Secrets, Writer, read

patient = settings(deadline=None)  # a busy machine is no failure
SECOND = 1_000_000_000
TIME = 1_700_000_000 * SECOND + 123_456_789


class Arriving(io.RawIOBase):
    """A stream that hands out the given pieces, one a read; one that does not end fails whoever waits for more."""

    def __init__(self, pieces: Iterable[bytes], ends: bool = True) -> None:
        self._pieces, self._ends = list(pieces), ends

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._pieces:
            piece = self._pieces.pop(0)
            if len(piece) > size:
                self._pieces.insert(0, piece[size:])
            return piece[:size]
        assert self._ends, "waited for octets although a packet was there"
        return b""


def octet_by_octet(data: bytes) -> Arriving:
    return Arriving(data[i : i + 1] for i in range(len(data)))


def packets_of(data: bytes) -> list[Packet]:
    reader = read(io.BytesIO(data))
    packets = [packet for batch in reader for packet in batch]
    assert not reader.problems, reader.problems
    return packets


def outcome(stream: io.IOBase) -> tuple[list[Packet], list[Problem], str]:
    """Everything that reading yields: packets, problems, and the error's text."""
    reader, packets = read(stream), list[Packet]()  # type: ignore[arg-type]  # BinaryIO has no common base
    try:
        for batch in reader:
            assert batch, "an empty batch"
            packets += batch
    except CaptureError as error:
        return packets, reader.problems, str(error)
    return packets, reader.problems, ""


# -- pcap ------------------------------------------------------------------------------------------------------------


def pcap_file(
    packets: Iterable[tuple[int, int, bytes, int]],
    order: str = "<",
    magic: int = 0xA1B2C3D4,
    link_type: int = 1,
    extra: bytes = b"",
) -> bytes:
    """(seconds, fraction, octets, length on the wire) each; `extra` follows each record's header."""
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for seconds, fraction, data, length in packets:
        file += struct.pack(order + "IIII", seconds, fraction, len(data), length) + extra + data
    return file


def test_a_little_endian_pcap_is_read_octet_for_octet() -> None:
    file = bytes.fromhex(
        "d4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000"
        "00f15365 40e20100 03000000 05000000 616263"
        "01f15365 00000000 00000000 00000000"
    )
    assert packets_of(file) == [
        Packet(1, 1_700_000_000_123_456_000, 1, b"abc", 5),
        Packet(2, 1_700_000_001_000_000_000, 1, b"", 0),
    ]


def test_a_big_endian_pcap_with_nanoseconds_is_read_octet_for_octet() -> None:
    file = bytes.fromhex(
        "a1b23c4d 0002 0004 00000000 00000000 0000ffff 00000065 6553f100 075bcd15 00000002 00000002 4500"
    )
    assert packets_of(file) == [Packet(1, TIME, 101, b"E\0", 2)]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_both_byte_orders_and_both_units_give_the_same(order: str, magic: int, unit: int) -> None:
    file = pcap_file([(5, 7, b"x", 1), (0xFFFFFFFF, 999, b"yz", 90)], order, magic, 276)
    assert packets_of(file) == [
        Packet(1, 5 * SECOND + 7 * unit, 276, b"x", 1),
        Packet(2, 0xFFFFFFFF * SECOND + 999 * unit, 276, b"yz", 90),
    ]


@pytest.mark.parametrize("order", "<>")
def test_the_modified_pcap_of_old_linux_systems_has_longer_record_headers(order: str) -> None:
    file = pcap_file([(1, 2, b"one", 3), (3, 4, b"two", 3)], order, 0xA1B2CD34, extra=b"\1\0\0\0\0\x08\0\0")
    assert [packet.data for packet in packets_of(file)] == [b"one", b"two"]


def test_a_link_type_is_read_without_the_bits_for_frame_check_sequences() -> None:
    assert packets_of(pcap_file([(1, 2, b"x", 1)], link_type=0x4400_0001 | 0x1000_0000))[0].link_type == 1


def test_a_pcap_tells_its_link_type_and_snap_length() -> None:
    reader = read(io.BytesIO(pcap_file([])))
    assert list(reader) == []
    assert (reader.format, reader.interfaces, reader.problems) == ("pcap", [Interface(1, snap_length=65535)], [])
    assert not reader.synthesised


# -- pcapng ----------------------------------------------------------------------------------------------------------


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


class Ng:
    """Blocks in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        length = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + length + body + length

    def options(self, *options: tuple[int, bytes]) -> bytes:
        if not options:
            return b""
        return b"".join(self.pack("HH", code, len(value)) + padded(value) for code, value in options) + bytes(4)

    def section(self, *options: tuple[int, bytes], version: tuple[int, int] = (1, 0)) -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, *version, -1) + self.options(*options))

    def interface(self, link_type: int, *options: tuple[int, bytes], snap_length: int = 0) -> bytes:
        return self.block(1, self.pack("HHI", link_type, 0, snap_length) + self.options(*options))

    def packet(
        self, ticks: int, data: bytes, length: int | None = None, interface: int = 0, *options: tuple[int, bytes]
    ) -> bytes:
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), length or len(data))
        return self.block(6, head + padded(data) + self.options(*options))

    def old_packet(self, ticks: int, data: bytes, interface: int = 0) -> bytes:
        head = self.pack("HHIIII", interface, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, head + padded(data))

    def simple_packet(self, data: bytes, length: int) -> bytes:
        return self.block(3, self.pack("I", length) + padded(data))

    def statistics(self, interface: int, **counts: int) -> bytes:
        codes = {"received": 4, "dropped": 5, "system_dropped": 7}
        options = [(codes[name], self.pack("Q", value)) for name, value in counts.items()]
        return self.block(5, self.pack("III", interface, 0, 0) + self.options(*options))

    def secrets(self, kind: int, data: bytes) -> bytes:
        return self.block(10, self.pack("II", kind, len(data)) + padded(data))


LITTLE, BIG = Ng("<"), Ng(">")


def test_a_pcapng_is_read_octet_for_octet() -> None:
    file = bytes.fromhex(
        "0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000"
        "01000000 14000000 0100 0000 00000400 14000000"
        "06000000 24000000 00000000 210a0600 0000ff39 03000000 09000000 61626300 24000000"
    )
    time_ns = 0x00060A21_39FF0000 * 1000
    assert packets_of(file) == [Packet(1, time_ns, 1, b"abc", 9)]


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
def test_interfaces_have_their_own_link_types_and_clocks(ng: Ng) -> None:
    file = (
        ng.section()
        + ng.interface(1)
        + ng.interface(101, (9, b"\x09"))
        + ng.interface(113, (9, b"\x03"))
        + ng.interface(0, (9, b"\x8a"))  # 2^-10 s
        + ng.interface(276, (9, b"\x0c"))  # ps
        + ng.interface(1, (9, b"\x00"), (14, ng.pack("q", -5)))
        + ng.packet(3_000_001, b"a")
        + ng.packet(3_000_000_001, b"bb", interface=1)
        + ng.packet(3_001, b"ccc", interface=2)
        + ng.packet(3 * 1024 + 512, b"dddd", interface=3)
        + ng.packet(3_000_000_001_999, b"eeeee", interface=4)
        + ng.packet(8, b"f", interface=5)
    )
    assert packets_of(file) == [
        Packet(1, 3 * SECOND + 1000, 1, b"a", 1),
        Packet(2, 3 * SECOND + 1, 101, b"bb", 2),
        Packet(3, 3 * SECOND + 1_000_000, 113, b"ccc", 3),
        Packet(4, 3 * SECOND + SECOND // 2, 0, b"dddd", 4),
        Packet(5, 3 * SECOND + 1, 276, b"eeeee", 5),
        Packet(6, 3 * SECOND, 1, b"f", 1),
    ]


def test_an_offset_in_seconds_is_added_and_a_time_zone_is_not() -> None:
    file = (
        LITTLE.section()
        + LITTLE.interface(1, (14, LITTLE.pack("q", 1_700_000_000)), (10, LITTLE.pack("i", 3600)))
        + LITTLE.packet(5, b"x")
    )
    assert packets_of(file)[0].time_ns == 1_700_000_000 * SECOND + 5000


def test_sections_follow_each_other_each_in_its_byte_order_with_its_own_interfaces() -> None:
    file = (
        LITTLE.section((1, "first ñ".encode()))
        + LITTLE.interface(1)
        + LITTLE.packet(1, b"a")
        + BIG.section((4, b"mergecap"), (1, b"second"))
        + BIG.interface(101, (9, b"\x09"))
        + BIG.packet(2, b"b")
    )
    reader = read(io.BytesIO(file))
    assert [packet for batch in reader for packet in batch] == [
        Packet(1, 1000, 1, b"a", 1),
        Packet(2, 2, 101, b"b", 1),
    ]
    assert reader.comment == "first ñ\nsecond"
    assert [interface.link_type for interface in reader.interfaces] == [1, 101]


def test_old_and_simple_packet_blocks_are_read() -> None:
    file = (
        LITTLE.section()
        + LITTLE.interface(101, snap_length=4)
        + LITTLE.old_packet(7, b"old")
        + LITTLE.simple_packet(b"snap", 9)
        + LITTLE.simple_packet(b"xy", 2)
        + LITTLE.packet(8, b"new")
    )
    assert packets_of(file) == [
        Packet(1, 7000, 101, b"old", 3),
        Packet(2, 0, 101, b"snap", 9),
        Packet(3, 0, 101, b"xy", 2),
        Packet(4, 8000, 101, b"new", 3),
    ]


def test_a_simple_packet_block_without_snap_length_ends_with_the_packet_and_not_with_its_padding() -> None:
    assert packets_of(LITTLE.section() + LITTLE.interface(1) + LITTLE.simple_packet(b"abcde", 5))[0].data == b"abcde"


def test_unknown_blocks_options_and_comments_of_packets_are_passed_over() -> None:
    file = (
        LITTLE.section()
        + LITTLE.block(0xBAD, b"custom!!")
        + LITTLE.interface(1, (2988, b"\0\0\0\1anything"))
        + LITTLE.block(4, LITTLE.pack("HH", 0, 0))  # name resolution
        + LITTLE.packet(1, b"a", None, 0, (1, b"a comment"), (2, LITTLE.pack("I", 1)))
        + LITTLE.block(0x80000001, b"")
        + LITTLE.packet(2, b"b", None, 0, (2, LITTLE.pack("I", 2)))
    )
    assert [packet.data for packet in packets_of(file)] == [b"a", b"b"]


def test_interfaces_tell_names_statistics_and_losses() -> None:
    file = (
        LITTLE.section()
        + LITTLE.interface(1, (2, b"lo"), (3, b"Loopback\0"), snap_length=96)
        + LITTLE.interface(1, (2, b"eth0"))
        + LITTLE.packet(1, b"a")
        + LITTLE.statistics(0, received=5, dropped=2, system_dropped=1)
        + LITTLE.statistics(1, received=7, dropped=(1 << 64) - 1)
        + LITTLE.statistics(9, received=7)
    )
    reader = read(io.BytesIO(file))
    assert len(list(reader)) == 1
    assert reader.interfaces == [
        Interface(1, "lo", "Loopback", "", 96, 5, 3),
        Interface(1, "eth0", "", "", 0, 7, None),
    ]
    assert [problem.reason for problem in reader.problems] == [
        "the system that captured on interface lo lost 3 packets"
    ]


def test_decryption_secrets_are_kept_as_they_are() -> None:
    lines = b"CLIENT_RANDOM aa bb\n"
    reader = read(io.BytesIO(LITTLE.section() + LITTLE.secrets(pcap.TLS_KEY_LOG, lines) + LITTLE.secrets(7, b"")))
    assert list(reader) == []
    assert reader.secrets == [Secrets(pcap.TLS_KEY_LOG, lines), Secrets(7, b"")]


def test_a_packet_of_an_undescribed_interface_is_told_once_and_keeps_its_number() -> None:
    file = (
        LITTLE.section()
        + LITTLE.interface(1)
        + LITTLE.packet(1, b"a")
        + LITTLE.packet(2, b"b", interface=3)
        + LITTLE.packet(3, b"c", interface=3)
        + LITTLE.simple_packet(b"d", 1)
    )
    packets, problems, _ = outcome(io.BytesIO(file))
    assert [(packet.number, packet.data) for packet in packets] == [(1, b"a"), (4, b"d")]
    assert [(problem.packet, problem.reason) for problem in problems] == [
        (2, "packet 2 and perhaps others are of interface 3, which the file does not describe")
    ]


@pytest.mark.parametrize(
    ("options", "ticks", "time_ns"),
    [
        ([], (1 << 64) - 1, pcap.MAX_TIME),
        ([(14, LITTLE.pack("q", -1000))], 999_999_999, 0),
        ([(14, LITTLE.pack("q", (1 << 63) - 1))], 0, pcap.MAX_TIME),
        ([(9, b"\x00")], 1 << 40, pcap.MAX_TIME),
    ],
)
def test_an_impossible_time_is_told_and_kept_within_64_bits(
    options: list[tuple[int, bytes]], ticks: int, time_ns: int
) -> None:
    file = LITTLE.section() + LITTLE.interface(1, *options) + LITTLE.packet(ticks, b"a") + LITTLE.packet(ticks, b"b")
    packets, problems, _ = outcome(io.BytesIO(file))
    assert [(packet.data, packet.time_ns) for packet in packets] == [(b"a", time_ns), (b"b", time_ns)]
    assert [problem.reason for problem in problems] == [
        "packet 1 and perhaps others have a time before 1970 or after 2262"
    ]


def test_the_finest_and_the_coarsest_resolutions_are_harmless() -> None:
    file = LITTLE.section() + b"".join(LITTLE.interface(1, (9, bytes([r]))) for r in (0x7F, 0xFF, 0x80))
    file += b"".join(LITTLE.packet(1, b"", interface=i) for i in range(3))
    assert [packet.time_ns for packet in packets_of(file)] == [0, 0, SECOND]


# -- whole, piece by piece, cut, damaged -----------------------------------------------------------------------------

PCAP = pcap_file([(1, 2, b"one", 3), (3, 4, b"", 0), (5, 6, b"three" * 5, 99)])
PCAPNG = (
    BIG.section((1, b"comment"))
    + BIG.interface(101, (2, b"lo"), (9, b"\x09"))
    + BIG.packet(5, b"one")
    + BIG.secrets(1, b"secret")
    + BIG.packet(6, b"two!", None, 0, (2, BIG.pack("I", 1)))
    + LITTLE.section()
    + LITTLE.interface(1)
    + LITTLE.simple_packet(b"three", 5)
    + LITTLE.old_packet(7, b"four")
    + LITTLE.packet(8, b"five")
    + LITTLE.statistics(0, received=5)
)
FILES = pytest.mark.parametrize("file", [PCAP, PCAPNG], ids=["pcap", "pcapng"])


def ends_of_records(file: bytes) -> set[int]:
    """Where a file may be cut without cutting a record."""
    ends, at, order = set[int](), 0, "<"
    if file[:4] == PCAP[:4]:
        at = 24
        while at < len(file):
            ends.add(at)
            at += 16 + struct.unpack_from("<I", file, at + 8)[0]
    while at < len(file):
        if file[at : at + 4] == b"\n\r\r\n":
            order = ">" if file[at + 8] == 0x1A else "<"
        at += struct.unpack_from(order + "I", file, at + 4)[0]
        ends.add(at)
    return ends | {len(file)}


@FILES
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_octet_by_octet_is_the_same_as_whole(file: bytes, packed: bool) -> None:
    data = gzip.compress(file) if packed else file
    assert outcome(octet_by_octet(data)) == outcome(io.BytesIO(data)) == outcome(io.BytesIO(file))


@FILES
def test_cut_at_every_octet_what_came_before_is_read(file: bytes) -> None:
    whole, ends = packets_of(file), ends_of_records(file)
    for cut in range(len(file)):
        packets, problems, error = outcome(io.BytesIO(file[:cut]))
        assert packets == whole[: len(packets)]
        assert (packets, problems, error) == outcome(octet_by_octet(file[:cut]))
        if cut < min(ends):
            assert error
            assert not packets
            assert not problems
        else:
            assert not error
            assert [problem.layer for problem in problems] == ["capture"] * (cut not in ends)
            if problems:
                assert problems[0].offset == max(end for end in ends if end < cut)
                assert problems[0].packet == len(packets)
                assert problems[0].reason.startswith("the file is cut short: of its last record, ")
    assert outcome(io.BytesIO(file)) == (whole, [], "")


@FILES
def test_a_gzip_file_cut_at_every_octet_gives_what_was_packed_before(file: bytes) -> None:
    whole, packed = packets_of(file), gzip.compress(file, mtime=0)
    for cut in range(len(packed)):
        packets, problems, error = outcome(io.BytesIO(packed[:cut]))
        assert packets == whole[: len(packets)]
        assert (packets, problems, error) == outcome(octet_by_octet(packed[:cut]))
        assert error or problems[0].reason == "the gzip data is cut short"
    assert packets == whole, "all but the check at the end was there"


@FILES
def test_damage_in_gzip_data_spares_what_came_before_it_wherever_blocks_begin(file: bytes) -> None:
    whole, packed = packets_of(file), gzip.compress(file, mtime=0)
    damaged = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]  # the check over the contents
    packets, problems, error = outcome(io.BytesIO(damaged))
    assert (packets, error) == (whole, "")
    assert [problem.reason for problem in problems] == ["the gzip data is damaged: nothing behind is read"]
    assert outcome(octet_by_octet(damaged)) == (packets, problems, error)


def test_gzip_members_one_behind_the_other_are_one_file_and_padding_is_nothing() -> None:
    packed = gzip.compress(PCAP[:30]) + gzip.compress(PCAP[30:]) + bytes(512)
    assert outcome(io.BytesIO(packed)) == outcome(octet_by_octet(packed)) == (packets_of(PCAP), [], "")


def test_a_gzip_bomb_is_unpacked_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(1 << 20)
    bomb = packer.compress(PCAP[:24]) + b"".join(packer.compress(zeros) for _ in range(20)) + packer.flush()
    assert len(bomb) < 30_000
    largest = 0
    for block in octets.unpacked(iter([bomb]), lambda text: pytest.fail(text)):
        largest = max(largest, len(block))
    assert largest <= octets.BLOCK
    monkeypatch.setattr(octets, "BLOCK", 4096)
    batches = [len(batch) for batch in read(io.BytesIO(bomb))]
    assert sum(batches) == 20 * len(zeros) // 16
    assert max(batches) <= 4096 // 16 + 1


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda ng: ng.pack("II", 6, 0), "a block of type 6 claims a length of 0 octets"),
        (lambda ng: ng.pack("II", 6, 34), "a block of type 6 claims a length of 34 octets"),
        (lambda ng: ng.pack("II", 6, 28), "a block of type 6 claims a length of 28 octets"),
        (lambda ng: ng.pack("II", 99, 0xFFFFFFFC), "a block of type 99 claims a length of 4294967292 octets"),
        (lambda ng: ng.packet(1, b"x")[:-4] + ng.pack("I", 40), "a block of type 6 has two lengths, 36 and 40"),
        (
            lambda ng: ng.block(6, ng.pack("IIIII", 0, 0, 0, 9, 9) + bytes(8)),
            "packet 2 claims 9 octets and its block has 8",
        ),
        (lambda ng: b"\n\r\r\n" + ng.pack("I", 28) + b"\1\2\3\4", "a section begins without the byte-order magic"),
        (lambda ng: ng.section(version=(2, 0)), "a section has version 2.0, and 1.0 is what is known"),
    ],
)
def test_a_damaged_pcapng_is_read_up_to_the_damage(ng: Ng, damage: Callable[[Ng], bytes], reason: str) -> None:
    good = ng.section() + ng.interface(1) + ng.packet(1, b"good")
    for behind in (b"", ng.packet(2, b"behind") * 3):
        file = good + damage(ng).ljust(12, b"\0") + behind
        packets, problems, error = outcome(io.BytesIO(file))
        assert ([packet.data for packet in packets], error) == ([b"good"], "")
        assert [problem.reason for problem in problems] == [reason + ": nothing behind is read"]
        assert problems[0].offset == len(good)
        assert outcome(octet_by_octet(file)) == (packets, problems, error)


def test_a_pcap_record_that_claims_gigabytes_is_damage_and_nothing_is_waited_for() -> None:
    good = pcap_file([(1, 2, b"good", 4)])
    file = good + struct.pack("<IIII", 1, 2, 0xFFFFFFF0, 4) + b"rest"
    packets, problems, error = outcome(Arriving([file], ends=False))
    assert ([packet.data for packet in packets], error) == ([b"good"], "")
    assert problems[0].reason == "packet 2 claims 4294967280 octets where 262144 are possible: nothing behind is read"
    assert (problems[0].offset, problems[0].packet) == (len(good), 1)
    assert outcome(octet_by_octet(file)) == (packets, problems, error)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "there is nothing in it"),
        (b"<!DOCTYPE html>\n<html>", "it is no capture: pcap and pcapng do not begin with 3c 21 44 4f 43 54 59 50"),
        (b"\x00", "it is no capture"),
        (b"\x1f", "it is no capture"),
        (PCAP[1:], "it is no capture"),
        (b"BZh91AY&SY", "it is compressed with bzip2: unpack it first"),
        (b"\x28\xb5\x2f\xfdxxxx", "it is compressed with zstd"),
        (b"snoop\0\0\0", "it is a capture in the format snoop: make it a pcapng with editcap first"),
        (PCAP[:10], "it ends inside its own header: 10 octets of 24 are there"),
        (b"\n\r\r\n" + LITTLE.pack("I", 28) + b"nonsense", "a section begins without the byte-order magic"),
        (LITTLE.section(version=(3, 1)), "a section has version 3.1"),
        (LITTLE.section()[:-1], "it ends inside its own header: 27 octets of 28 are there"),
        (gzip.compress(b""), "there is nothing in it"),
        (gzip.compress(b"hello, world"), "it is no capture: pcap and pcapng do not begin with 68 65 6c 6c 6f"),
        (b"\x1f\x8bgarbage", "the gzip data is damaged"),
        (b"\x1f\x8b", "the gzip data is cut short"),
    ],
)
def test_what_is_no_capture_is_refused_with_the_reason(file: bytes, reason: str) -> None:
    packets, _problems, error = outcome(io.BytesIO(file))
    assert packets == []
    assert error.startswith(reason)
    assert outcome(octet_by_octet(file))[2] == error
    assert error.isprintable()


def test_a_batch_is_handed_on_before_more_octets_are_waited_for() -> None:
    header, first, second = PCAP[:24], PCAP[24 : 24 + 19], PCAP[24 + 19 : 24 + 19 + 16]
    pieces = [header[:9], header[9:], first[:5], first[5:] + second[:3], second[3:]]
    reader = read(Arriving(pieces, ends=False))  # type: ignore[arg-type]  # as above
    assert [packet.data for packet in next(reader)] == [b"one"]
    assert [packet.data for packet in next(reader)] == [b""]


def test_what_comes_through_a_pipe_is_seen_at_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as stream, open(writing, "wb", buffering=0) as tcpdump:
        reader = read(stream)
        tcpdump.write(LITTLE.section() + LITTLE.interface(1) + LITTLE.packet(1, b"a"))
        assert [packet.data for packet in next(reader)] == [b"a"]
        tcpdump.write(LITTLE.packet(2, b"b") + LITTLE.packet(3, b"c"))
        assert [packet.data for packet in next(reader)] == [b"b", b"c"]


def test_a_stream_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as stream, open(writing, "wb", buffering=0) as tcpdump:
        tcpdump.write(PCAP[:50])
        reader = read(stream)
        batch = next(reader)
        assert stream.read(1) is None
        tcpdump.write(PCAP[50:])
        tcpdump.close()
        assert batch + [packet for later in reader for packet in later] == packets_of(PCAP)


def test_memory_does_not_grow_with_the_file() -> None:
    record = struct.pack("<IIII", 1, 2, 1000, 1000) + bytes(1000)

    def endless() -> Iterator[bytes]:
        yield PCAP[:24]
        for _ in range(2000):
            yield record * 20

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces = endless()

        def read(self, size: int = -1, /) -> bytes:
            return next(self.pieces, b"")

    reader, longest = read(Stream()), 0  # type: ignore[arg-type]  # as above
    for _batch in reader:
        longest = max(longest, len(reader._buffer))
    assert longest < 2 * len(record) * 20


@patient
@given(st.binary(max_size=300), st.sampled_from([b"", PCAP[:24], PCAPNG[:28], PCAPNG, LITTLE.section()]))
def test_garbage_gives_packets_problems_or_an_error_and_nothing_else(garbage: bytes, before: bytes) -> None:
    assert outcome(io.BytesIO(before + garbage)) == outcome(octet_by_octet(before + garbage))


@given(st.randoms(use_true_random=False), st.sampled_from([PCAP, PCAPNG]), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_mutated_captures_are_read_alike_however_they_arrive(dice: random.Random, file: bytes, changes: int) -> None:
    mutated = bytearray(file)
    for _ in range(changes):
        mutated[dice.randrange(len(mutated))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
    data = bytes(mutated)
    packets, problems, error = outcome(io.BytesIO(data))
    assert outcome(octet_by_octet(data)) == (packets, problems, error)
    assert all(0 <= packet.time_ns <= pcap.MAX_TIME for packet in packets)
    assert all(isinstance(problem.reason, str) for problem in problems)


PACKETS = st.lists(
    st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 999), st.binary(max_size=40), st.integers(0, 100)),
    max_size=20,
)


@patient
@given(PACKETS, st.sampled_from("<>"), st.sampled_from([0xA1B2C3D4, 0xA1B23C4D]), st.integers(1, 70), st.booleans())
def test_any_pcap_gives_back_what_was_put_in(
    packets: list[tuple[int, int, bytes, int]], order: str, magic: int, size: int, packed: bool
) -> None:
    file = pcap_file(packets, order, magic)
    data = gzip.compress(file, 1) if packed else file
    unit = 1000 if magic == 0xA1B2C3D4 else 1
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert outcome(Arriving(pieces)) == (
        [
            Packet(number, seconds * SECOND + fraction * unit, 1, octets, length)
            for number, (seconds, fraction, octets, length) in enumerate(packets, 1)
        ],
        [],
        "",
    )


RESOLUTIONS = st.sampled_from([0, 3, 6, 9, 12, 0x80, 0x8A, 0x9E])


@patient
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 101]), RESOLUTIONS, st.integers(0, 1 << 30)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 33), st.binary(max_size=30), st.booleans()), max_size=20),
    st.sampled_from([LITTLE, BIG]),
    st.integers(1, 70),
)
def test_any_pcapng_gives_back_what_was_put_in(
    interfaces: list[tuple[int, int, int]], packets: list[tuple[int, int, bytes, bool]], ng: Ng, size: int
) -> None:
    file, expected = ng.section(), []
    for link_type, resolution, offset in interfaces:
        file += ng.interface(link_type, (9, bytes([resolution])), (14, ng.pack("q", offset)))
    for number, (which, ticks, data, old) in enumerate(packets, 1):
        which %= len(interfaces)
        link_type, resolution, offset = interfaces[which]
        file += ng.old_packet(ticks, data, which) if old else ng.packet(ticks, data, None, which)
        base = 2 if resolution & 0x80 else 10
        time_ns = ticks * SECOND // base ** (resolution & 0x7F) + offset * SECOND
        expected.append(Packet(number, min(time_ns, pcap.MAX_TIME), link_type, data, len(data)))
    pieces = [file[i : i + size] for i in range(0, len(file), size)]
    assert outcome(Arriving(pieces))[0] == expected


# -- writing ---------------------------------------------------------------------------------------------------------

LATER = TIME + 1


def written(write: Callable[[Writer], None], **options: object) -> bytes:
    stream = io.BytesIO()
    write(Writer(stream, 101, **options))  # type: ignore[arg-type]  # any of them
    return stream.getvalue()


@patient
@given(
    st.lists(
        st.tuples(st.integers(0, pcap.MAX_TIME), st.binary(max_size=50), st.sampled_from([0, INBOUND, OUTBOUND])),
        max_size=20,
    )
)
def test_what_is_written_is_read_back(rows: list[tuple[int, bytes, int]]) -> None:
    packets = [Packet(n, time_ns, 101, data, len(data) + 1) for n, (time_ns, data, _) in enumerate(rows, 1)]
    file = written(lambda writer: writer.write(packets, [direction for _, _, direction in rows]))
    assert packets_of(file) == packets


def test_names_comments_secrets_and_statistics_are_read_back() -> None:
    def write(writer: Writer) -> None:
        writer.write_secrets(b"CLIENT_RANDOM 00 11\n")
        writer.write_one(Packet(1, TIME, 101, b"abc", 3), "a comment", OUTBOUND)
        writer.write_statistics(TIME, 1, 4)

    reader = read(io.BytesIO(written(write, name="lo", description="Schleife", comment="ñ", snap_length=96)))
    assert list(reader) == [[Packet(1, TIME, 101, b"abc", 3)]]
    assert reader.interfaces == [Interface(101, "lo", "Schleife", "", 96, 1, 4)]
    assert reader.comment == "ñ"
    assert reader.secrets == [Secrets(pcap.TLS_KEY_LOG, b"CLIENT_RANDOM 00 11\n")]
    assert not reader.synthesised


def test_a_comment_longer_than_an_option_is_cut_between_characters() -> None:
    reader = read(io.BytesIO(written(lambda writer: None, comment="ñ" * 40_000)))
    assert list(reader) == []
    assert reader.comment == "ñ" * pcap.MAX_TEXT


def test_each_write_can_be_followed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "follow.pcapng"
    with path.open("wb") as stream, path.open("rb", buffering=0) as follower:
        writer = Writer(stream, 101)
        for number in (1, 2):
            writer.write([Packet(number, TIME, 101, b"abc", 3)])
            follower.seek(0)
            assert sum(len(batch) for batch in read(follower)) == number


def tshark(path: Path, *fields: str) -> list[list[str]]:
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *(part for name in fields for part in ("-e", name))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in run.stdout.splitlines()]


def everything(path: Path) -> list[Packet]:
    packets = [Packet(n, TIME + n, 101, bytes([0x45, *range(n)]), n + 1) for n in range(1, 6)]
    with path.open("wb") as stream:
        writer = Writer(stream, 101, name="tap", description="what it is", comment="who", synthesised=True)
        writer.write(packets[:2], [INBOUND, OUTBOUND])
        writer.write_one(packets[2], "look here")
        writer.write(packets[3:])
        writer.write_statistics(TIME, 5, 0)
    return packets


def test_wireshark_sees_in_a_file_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "written.pcapng"
    packets = everything(path)
    rows = tshark(path, "frame.time_epoch", "frame.len", "frame.interface_name", "frame.comment")
    assert rows == [
        [f"{p.time_ns // SECOND}.{p.time_ns % SECOND:09d}", str(p.length), "tap", "look here" * (p.number == 3)]
        for p in packets
    ]
    directions = [row[0] for row in tshark(path, "frame.packet_flags_direction")]
    assert [int(direction or "0", 16) for direction in directions] == [INBOUND, OUTBOUND, 0, 0, 0]
    info = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True).stdout
    for line in ("Capture comment:     who", "Description = what it is", f"Hardware = {SYNTHESISED}"):
        assert line in info
    assert "Time precision = nanoseconds (9)" in info


@pytest.mark.parametrize("tool", ["editcap", "mergecap"])
def test_that_packets_are_synthesised_outlives_other_tools(tool: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pcapng", tmp_path / "second.pcapng"
    packets = everything(first)
    command = [tool, str(first), str(second)] if tool == "editcap" else [tool, "-w", str(second), str(first)]
    subprocess.run(command, check=True, capture_output=True)
    with second.open("rb") as stream:
        reader = read(stream)
        assert [packet for batch in reader for packet in batch] == packets
        assert reader.synthesised


@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "modpcap", "pcapng"])
def test_what_editcap_writes_is_read(kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pcapng", tmp_path / "second"
    packets = everything(first)
    subprocess.run(["editcap", "-F", kind, str(first), str(second)], check=True, capture_output=True)
    unit = 1000 if kind in ("pcap", "modpcap") else 1
    expected = [p._replace(time_ns=p.time_ns // unit * unit) for p in packets]
    # these formats write a packet's length as at least what was captured
    assert packets_of(second.read_bytes()) == expected
    with gzip.open(tmp_path / "packed", "wb") as packed, second.open("rb") as plain:
        shutil.copyfileobj(plain, packed)
    assert packets_of((tmp_path / "packed").read_bytes()) == expected


# -- captures by others ----------------------------------------------------------------------------------------------


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_captures_by_others_hold_what_wireshark_and_scapy_find_in_them(vector: Path) -> None:
    packets = packets_of(vector.read_bytes())
    rows = tshark(vector, "frame.number", "frame.time_epoch", "frame.cap_len", "frame.len")
    assert [
        [str(p.number), f"{p.time_ns // SECOND}.{p.time_ns % SECOND:09d}", str(len(p.data)), str(p.length)]
        for p in packets
    ] == rows
    scapy = RawPcapNgReader if vector.suffix == ".pcapng" else RawPcapReader
    with scapy(str(vector)) as reader:
        assert [data for data, _metadata in reader] == [packet.data for packet in packets]


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_captures_by_others_cut_anywhere_give_a_beginning_of_the_whole(vector: Path) -> None:
    file = vector.read_bytes()
    whole = packets_of(file)
    for cut in range(24, len(file), 7):
        packets, problems, error = outcome(io.BytesIO(file[:cut]))
        assert packets == whole[: len(packets)]
        assert len(problems) <= 1
        assert not (error and packets)


def test_a_reader_is_an_iterator_of_batches() -> None:
    reader = read(io.BytesIO(PCAP))
    assert isinstance(reader, Reader)
    assert iter(reader) is reader
