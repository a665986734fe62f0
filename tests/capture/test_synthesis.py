"""The packets made around a tap's octets: read here field by field, and by Wireshark, which checks every sum."""

from __future__ import annotations

import ipaddress
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from capture.events import Direction, Packet
from capture.pcap import Writer
from capture.synthesis import RAW_IP, SEGMENT, Conversation, ones_sum

CLIENT, SERVER = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT
V4 = ("127.0.0.1", 40_000), ("127.0.0.1", 50_051)
V6 = ("::1", 40_000), ("::1", 50_051)


def words_sum(octets: bytes) -> int:
    """RFC 1071, word by word, carries folded in."""
    octets += b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_the_quick_sum_is_congruent_to_the_sum_of_words(octets: bytes) -> None:
    assert ones_sum(octets) % 0xFFFF == words_sum(octets) % 0xFFFF


@pytest.mark.parametrize("length", [511, 512, 513, 65_535, 65_536])
@pytest.mark.parametrize("octet", [b"\xff", b"\0", b"\xa5"])
def test_the_quick_sum_folds_long_numbers_without_losing_a_carry(octet: bytes, length: int) -> None:
    assert ones_sum(octet * length) % 0xFFFF == words_sum(octet * length) % 0xFFFF


def sums_are_right(packet: bytes) -> bool:
    """As a receiver checks them: everything added up, checksum included, is all ones (RFC 791, RFC 9293 §3.1)."""
    if packet[0] >> 4 == 4:
        header, addresses, segment = packet[:20], packet[12:20], packet[20:]
        if words_sum(header) != 0xFFFF or struct.unpack_from(">H", packet, 2)[0] != len(packet):
            return False
    else:
        addresses, segment = packet[8:40], packet[40:]
        if struct.unpack_from(">H", packet, 4)[0] != len(segment):
            return False
    return words_sum(addresses + struct.pack(">II", len(segment), 6) + segment) == 0xFFFF


@settings(deadline=None)
@given(
    st.sampled_from([V4, V6, (("1.2.3.4", 1), ("255.255.255.255", 65_535)), (("127.0.0.1", 9), ("fe80::1", 9))]),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.tuples(st.sampled_from(list(Direction)), st.binary(min_size=1, max_size=100)), max_size=10),
)
def test_every_checksum_is_right(
    ends: tuple[tuple[str, int], tuple[str, int]], first: int, second: int, pieces: list[tuple[Direction, bytes]]
) -> None:
    conversation = Conversation(*ends, first, second)
    packets = [*conversation.request(), *conversation.accept()]
    for direction, octets in pieces:
        packets += conversation.data(direction, octets)
    packets += [*conversation.finish(CLIENT), *conversation.reset(SERVER)]
    assert all(map(sums_are_right, packets))


def test_a_conversation_begins_and_ends_as_tcp_does() -> None:
    conversation = Conversation(*V4, 100, 200)
    packets = [IP(octets) for octets in conversation.request()]
    packets += map(IP, conversation.accept())
    packets += map(IP, conversation.data(CLIENT, b"hello"))
    packets += map(IP, conversation.data(SERVER, b"hi"))
    packets += map(IP, conversation.finish(SERVER))
    packets += map(IP, conversation.finish(CLIENT))
    assert [(p.sport, str(p[TCP].flags), p.seq, p.ack, bytes(p[TCP].payload)) for p in packets] == [
        (40_000, "S", 100, 0, b""),
        (50_051, "SA", 200, 101, b""),
        (40_000, "A", 101, 201, b""),
        (40_000, "PA", 101, 201, b"hello"),
        (50_051, "A", 201, 106, b""),
        (50_051, "PA", 201, 106, b"hi"),
        (40_000, "A", 106, 203, b""),
        (50_051, "FA", 203, 106, b""),
        (40_000, "A", 106, 204, b""),
        (40_000, "FA", 106, 204, b""),
        (50_051, "A", 204, 107, b""),
    ]
    assert [p.id for p in packets if p.sport == 40_000] == list(range(6))
    assert dict(packets[0][TCP].options)["MSS"] == SEGMENT


def test_a_refused_connection_is_a_syn_and_a_reset() -> None:
    conversation = Conversation(*V4, 0xFFFFFFFF, 7)
    packets = [IP(octets) for octets in [*conversation.request(), *conversation.refuse()]]
    assert [(str(p[TCP].flags), p.seq, p.ack) for p in packets] == [("S", 0xFFFFFFFF, 0), ("RA", 0, 0)]


@pytest.mark.parametrize("length", [1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
def test_long_pieces_are_split_and_only_the_last_segment_is_pushed(length: int) -> None:
    octets = bytes(i % 251 for i in range(length))
    conversation = Conversation(*V4, 1, 2)
    *segments, acknowledgement = [IP(packet) for packet in conversation.data(CLIENT, octets)]
    assert b"".join(bytes(p[TCP].payload) for p in segments) == octets
    assert [str(p[TCP].flags) for p in segments] == ["A"] * (len(segments) - 1) + ["PA"]
    assert max(len(p[TCP].payload) for p in segments) <= SEGMENT
    assert (acknowledgement.ack - 1) % (1 << 32) == length


def test_sequence_numbers_go_round() -> None:
    conversation = Conversation(*V4, 0xFFFFFFFE, 0)
    packets = [IP(octets) for octets in [*conversation.request(), *conversation.accept()]]
    packets += map(IP, conversation.data(CLIENT, b"abc"))
    packets += map(IP, conversation.data(CLIENT, b"d"))
    assert [p.seq for p in packets if p.sport == 40_000] == [0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFF, 2]
    assert packets[-1].ack == 3


def test_ipv6_is_kept_and_mixed_addresses_are_mapped_into_it() -> None:
    (syn,) = Conversation(*V6, 1, 2).request()
    assert (IPv6(syn).src, IPv6(syn).dst, IPv6(syn).hlim) == ("::1", "::1", 64)
    mixed = Conversation(V4[0], ("fe80::1%eth0", 50_051), 1, 2)
    assert mixed.client == (str(ipaddress.IPv6Address("::ffff:127.0.0.1")), 40_000)
    assert mixed.server == ("fe80::1", 50_051)
    assert Conversation(("::ffff:127.0.0.1", 1), V4[1], 1, 2).client == ("127.0.0.1", 1)


@pytest.mark.parametrize("ends", [V4, V6], ids=["IPv4", "IPv6"])
def test_wireshark_finds_nothing_to_remark_on(ends: tuple[tuple[str, int], tuple[str, int]], tmp_path: Path) -> None:
    conversation = Conversation(*ends, 0xFFFF0000, 0xFFFFFF00)
    packets = [*conversation.request(), *conversation.accept()]
    for i in range(20):
        packets += conversation.data(Direction(i % 2), bytes([i]) * (1 << i))
    packets += [*conversation.finish(CLIENT), *conversation.finish(SERVER)]
    path = tmp_path / "synthesised.pcapng"
    with path.open("wb") as stream:
        Writer(stream, RAW_IP).write(Packet(n, n, RAW_IP, data, len(data)) for n, data in enumerate(packets, 1))
    command = ["tshark", "-n", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    told = "tcp.analysis.flags || _ws.expert.severity >= Warning || tcp.checksum.status != 1 || ip.checksum.status == 0"
    run = subprocess.run([*command, "-Y", told], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    run = subprocess.run([*command, "-Y", "tcp.checksum.status == 1"], capture_output=True, text=True, check=True)
    assert len(run.stdout.splitlines()) == len(packets)
