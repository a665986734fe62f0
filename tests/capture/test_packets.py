"""Captured packets to TCP segments, over every link and through everything that may lie between it and TCP."""

from __future__ import annotations

import importlib
import itertools
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.events import Packet
from capture.packets import MAX_FRAGMENTED, PacketDecoder, Segment, endpoints, ports_of, reverse
from tests.capture.engine_factory import (
    ACK,
    BSD_LOOPBACK,
    COOKED,
    COOKED_V2,
    ETHERNET,
    PSH,
    RAW,
    frames_of,
    ip,
    ipv4,
    ipv6,
    link,
    tcp,
)

V4, V6 = ("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")
OCTETS = b"octets of a stream"
SEGMENT = tcp(40000, 50051, 77, 88, PSH | ACK, OCTETS)


def packet(octets: bytes, link_type: int = ETHERNET, length: int | None = None, number: int = 1) -> Packet:
    return Packet(number, 1_000_000_007, link_type, octets, len(octets) if length is None else length)


def decode(octets: bytes, link_type: int = ETHERNET, length: int | None = None) -> Segment:
    segment = PacketDecoder().decode(packet(octets, link_type, length))
    assert segment is not None
    return segment


def counted(octets: bytes, link_type: int = ETHERNET, length: int | None = None) -> str:
    """What a packet without a segment is told to be."""
    decoder = PacketDecoder()
    assert decoder.decode(packet(octets, link_type, length)) is None
    (problem,) = decoder.finish()
    assert (problem.layer, problem.packet, problem.time_ns) == ("packet", 1, 1_000_000_007)
    assert problem.octets == (len(octets) if length is None else length)
    assert problem.values["packets"] == 1
    kind: str = problem.values["kind"]
    assert kind in problem.reason
    return kind


def is_segment(segment: Segment, ends: tuple[str, str] = V4) -> bool:
    source, destination = (f"{end}:{{}}" if ":" not in end else f"[{end}]:{{}}" for end in ends)
    return endpoints(segment.key) == (source.format(40000), destination.format(50051)) and segment[3:] == (
        77,
        88,
        PSH | ACK,
        OCTETS,
        len(OCTETS),
    )


# -- links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("link_type", [ETHERNET, BSD_LOOPBACK, RAW, COOKED, COOKED_V2, 108, 12, 14])
def test_a_segment_is_found_over_every_link_type(link_type: int, ends: tuple[str, str]) -> None:
    octets = ip(*ends, SEGMENT)
    header = link({108: BSD_LOOPBACK, 12: RAW, 14: RAW}.get(link_type, link_type), octets)
    assert is_segment(decode(header, link_type), ends)


@pytest.mark.parametrize(("link_type", "ends"), [(228, V4), (229, V6)])
def test_a_link_type_of_one_ip_version_has_no_header(link_type: int, ends: tuple[str, str]) -> None:
    assert is_segment(decode(ip(*ends, SEGMENT), link_type), ends)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("family", "ends"), [(2, V4), (10, V6), (24, V6), (28, V6), (30, V6)])
def test_bsd_loopback_is_read_in_both_byte_orders(family: int, ends: tuple[str, str], order: str) -> None:
    assert is_segment(decode(struct.pack(order + "I", family) + ip(*ends, SEGMENT), BSD_LOOPBACK), ends)


@pytest.mark.parametrize("tags", [1, 2, 3])
@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8, 0x9100])
@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
def test_vlan_tags_are_looked_through(ends: tuple[str, str], ethertype: int, tags: int) -> None:
    plain = link(ETHERNET, ip(*ends, SEGMENT))
    tagged = plain[:12] + struct.pack(">HH", ethertype, 42) * tags + plain[12:]
    assert is_segment(decode(tagged), ends)


def test_vlan_tags_on_cooked_links_are_looked_through() -> None:
    octets = ipv4(*V4, SEGMENT)
    tagged = link(COOKED, octets)[:14] + struct.pack(">HHH", 0x8100, 42, 0x0800) + octets
    assert is_segment(decode(tagged, COOKED))


def test_padding_behind_a_short_packet_is_not_payload() -> None:
    segment = tcp(40000, 50051, 77, 88, ACK)
    padded = link(ETHERNET, ipv4(*V4, segment)).ljust(60, b"\xee")
    assert decode(padded).payload == b""
    assert decode(link(ETHERNET, ipv6(*V6, segment)).ljust(80, b"\xee")).payload == b""


def test_a_frame_check_sequence_is_not_payload() -> None:
    assert is_segment(decode(link(ETHERNET, ipv4(*V4, SEGMENT)) + b"\1\2\3\4"))


# -- IPv4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(4, 44, 4))
def test_ipv4_options_are_skipped(size: int) -> None:
    assert is_segment(decode(ipv4(*V4, SEGMENT, options=b"\x01" * size), RAW))


@pytest.mark.parametrize("size", range(4, 44, 4))
def test_tcp_options_are_skipped(size: int) -> None:
    segment = decode(ipv4(*V4, tcp(1, 2, 3, 4, ACK, OCTETS, options=b"\x01" * size)), RAW)
    assert (segment.payload, segment.length) == (OCTETS, len(OCTETS))


def test_a_total_length_of_zero_means_all_there_is() -> None:
    """Segmentation offload: the card would have filled it in."""
    assert is_segment(decode(link(ETHERNET, ipv4(*V4, SEGMENT, total=0))))
    assert is_segment(decode(link(ETHERNET, ipv6(*V6, SEGMENT, total=0))), V6)


def test_a_segment_of_64_kib_is_read_whole() -> None:
    octets = bytes(65_000)
    assert decode(link(ETHERNET, ipv4(*V4, tcp(1, 2, 3, 4, ACK, octets)))).payload == octets


def fragments(body: bytes, cuts: list[int]) -> list[bytes]:
    """IPv4 fragments of `body`, cut at these offsets (multiples of 8)."""
    ends = [*cuts, len(body)]
    return [
        ipv4(*V4, body[start:end], ident=7, fragment=start // 8 | (0x2000 if end < len(body) else 0))
        for start, end in zip([0, *cuts], ends, strict=True)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_ipv4_fragments_are_joined_in_any_order(order: tuple[int, ...]) -> None:
    parts = fragments(SEGMENT, [8, 16, 32])
    decoder = PacketDecoder()
    found = [decoder.decode(packet(parts[i], RAW, number=n)) for n, i in enumerate(order, 1)]
    assert found[:-1] == [None] * 3
    assert found[-1] is not None
    assert found[-1].packet == 4, "the packet that made it whole"
    assert is_segment(found[-1])
    assert decoder.finish() == []


def test_a_repeated_fragment_changes_nothing() -> None:
    first, second = fragments(SEGMENT, [16])
    decoder = PacketDecoder()
    assert [decoder.decode(packet(one, RAW)) for one in (first, first, first)] == [None] * 3
    whole = decoder.decode(packet(second, RAW))
    assert whole is not None
    assert is_segment(whole)


@pytest.mark.parametrize("is_first_earlier", [True, False])
def test_of_overlapping_fragments_the_first_arrival_wins(is_first_earlier: bool) -> None:
    body = tcp(40000, 50051, 77, 88, ACK, b"A" * 28)
    other = body[:20] + b"B" * 28
    low = ipv4(*V4, body[:32], ident=7, fragment=0x2000)
    high = ipv4(*V4, other[24:], ident=7, fragment=3)
    decoder = PacketDecoder()
    order = (low, high) if is_first_earlier else (high, low)
    assert decoder.decode(packet(order[0], RAW)) is None
    whole = decoder.decode(packet(order[1], RAW))
    assert whole is not None
    assert whole.payload == (b"A" * 12 + b"B" * 16 if is_first_earlier else b"A" * 4 + b"B" * 24)


def test_a_longer_fragment_at_a_known_place_adds_what_is_new() -> None:
    short, long = (ipv4(*V4, SEGMENT[:size], ident=7, fragment=0x2000) for size in (8, 24))
    rest = ipv4(*V4, SEGMENT[24:], ident=7, fragment=3)
    decoder = PacketDecoder()
    assert decoder.decode(packet(short, RAW)) is None
    assert decoder.decode(packet(long, RAW)) is None
    whole = decoder.decode(packet(rest, RAW))
    assert whole is not None
    assert is_segment(whole)


def test_fragments_of_two_datagrams_do_not_mix() -> None:
    decoder = PacketDecoder()
    one, two = (fragments(tcp(40000, 50051, 77, 88, ACK, octets), [16]) for octets in (b"one.", b"two."))
    two = [part[:4] + b"\0\x08" + part[6:] for part in two]  # another identification
    assert decoder.decode(packet(one[0], RAW)) is None
    assert decoder.decode(packet(two[0], RAW)) is None
    for part, payload in ((one[1], b"one."), (two[1], b"two.")):
        whole = decoder.decode(packet(part, RAW))
        assert whole is not None
        assert whole.payload == payload


def test_a_datagram_that_never_gets_whole_is_told() -> None:
    assert counted(fragments(SEGMENT, [8])[0], RAW) == "IP fragments whose datagram never became complete"
    assert counted(fragments(SEGMENT, [8])[1], RAW) == "IP fragments whose datagram never became complete"


def test_only_so_many_datagrams_are_waited_for() -> None:
    decoder = PacketDecoder()
    for i in range(10 * MAX_FRAGMENTED):
        octets = ipv4(*V4, SEGMENT[:8], ident=i, fragment=0x2000)
        assert decoder.decode(packet(octets, RAW, number=i + 1)) is None
    assert len(decoder._fragments) == MAX_FRAGMENTED
    (problem,) = decoder.finish()
    assert problem.values["packets"] == 10 * MAX_FRAGMENTED


def test_fragments_beyond_64_kib_are_no_datagram() -> None:
    decoder = PacketDecoder()
    far = ipv4(*V4, bytes(100), ident=7, fragment=0x1FFF)
    near = ipv4(*V4, bytes(100), ident=7, fragment=0x2000)
    assert decoder.decode(packet(far, RAW)) is None
    assert decoder.decode(packet(near, RAW)) is None
    assert len(decoder.finish()) == 1


# -- IPv6 --------------------------------------------------------------------------------------------------------------


def extension(following: int, size: int = 8) -> bytes:
    return bytes((following, size // 8 - 1)) + bytes(size - 2)


@pytest.mark.parametrize("kind", [0, 43, 60, 135, 139, 140])
@pytest.mark.parametrize("size", [8, 24])
def test_ipv6_extension_headers_are_skipped(kind: int, size: int) -> None:
    assert is_segment(decode(ipv6(*V6, extension(6, size) + SEGMENT, following=kind), RAW), V6)


def test_an_authentication_header_counts_in_words_of_four_octets() -> None:
    header = bytes((6, 4)) + bytes(22)
    assert is_segment(decode(ipv6(*V6, header + SEGMENT, following=51), RAW), V6)


def test_a_chain_of_extension_headers_is_followed() -> None:
    chain = extension(60) + extension(43, 24) + extension(60) + extension(6)
    assert is_segment(decode(ipv6(*V6, chain + SEGMENT, following=0), RAW), V6)


def fragment6(start: int, body: bytes, more: bool, ident: int = 9, following: int = 6, before: bytes = b"") -> bytes:
    header = struct.pack(">BBHI", following, 0, start | more, ident)
    return ipv6(*V6, before + header + body, following=60 if before else 44)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ipv6_fragments_are_joined_in_any_order(order: tuple[int, ...]) -> None:
    parts = [fragment6(0, SEGMENT[:8], True), fragment6(8, SEGMENT[8:24], True), fragment6(24, SEGMENT[24:], False)]
    decoder = PacketDecoder()
    found = [decoder.decode(packet(parts[i], RAW)) for i in order]
    assert found[:-1] == [None, None]
    assert found[-1] is not None
    assert is_segment(found[-1], V6)


def test_an_atomic_fragment_is_whole() -> None:
    assert is_segment(decode(fragment6(0, SEGMENT, False), RAW), V6)


def test_extension_headers_stand_before_and_within_fragments() -> None:
    """RFC 8200 §4.5: the per-fragment headers come before the fragment header, the others are fragmented."""
    body = extension(6, 16) + SEGMENT
    decoder = PacketDecoder()
    parts = [
        fragment6(0, body[:24], True, following=60, before=extension(44)),
        fragment6(24, body[24:], False, following=60, before=extension(44)),
    ]
    assert decoder.decode(packet(parts[0], RAW)) is None
    whole = decoder.decode(packet(parts[1], RAW))
    assert whole is not None
    assert is_segment(whole, V6)


# -- tunnels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("inner", [V4, V6], ids=["ipv4", "ipv6"])
def test_ip_in_ip_is_looked_through(outer: tuple[str, str], inner: tuple[str, str]) -> None:
    kind = 41 if inner == V6 else 4
    octets = ip(*inner, SEGMENT)
    carried = ipv6(*outer, octets, following=kind) if outer == V6 else ipv4(*outer, octets, protocol=kind)
    assert is_segment(decode(link(ETHERNET, carried)), inner)


def scapy_tunnels() -> dict[str, Callable[[Any], bytes]]:
    scapy: Any = importlib.import_module("scapy.all")
    mpls: Any = importlib.import_module("scapy.contrib.mpls")
    outer = scapy.IP(src="192.0.2.1", dst="192.0.2.2")
    ether = scapy.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return {
        "gre": lambda inner: bytes(ether / outer / scapy.GRE() / inner),
        "gre with key and sequence": lambda inner: bytes(
            ether / outer / scapy.GRE(key_present=1, key=5, seqnum_present=1, sequence_number=1) / inner
        ),
        "gre over ipv6": lambda inner: bytes(ether / scapy.IPv6(src="::1", dst="::2") / scapy.GRE() / inner),
        "vxlan": lambda inner: bytes(
            ether / outer / scapy.UDP(sport=4444, dport=4789) / scapy.VXLAN(vni=7) / ether / inner
        ),
        "mpls": lambda inner: bytes(
            scapy.Ether(type=0x8847) / mpls.MPLS(label=3, s=0) / mpls.MPLS(label=4, s=1) / inner
        ),
        "pppoe": lambda inner: bytes(
            scapy.Ether(type=0x8864)
            / scapy.PPPoE(sessionid=1)
            / scapy.PPP(proto=0x21 if inner.version == 4 else 0x57)
            / inner
        ),
    }


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tunnel", list(scapy_tunnels()))
def test_what_the_fast_path_does_not_know_goes_through_scapy(tunnel: str, version: int) -> None:
    scapy: Any = importlib.import_module("scapy.all")
    ends = V4 if version == 4 else V6
    inner = (scapy.IP if version == 4 else scapy.IPv6)(ip(*ends, SEGMENT))
    assert is_segment(decode(scapy_tunnels()[tunnel](inner)), ends)


def test_a_rare_link_type_goes_through_scapy() -> None:
    ppp = b"\xff\x03\x00\x21" + ipv4(*V4, SEGMENT)
    assert is_segment(decode(ppp, 9))


def test_a_tunnelled_packet_that_was_cut_short_keeps_its_length() -> None:
    scapy: Any = importlib.import_module("scapy.all")
    octets = scapy_tunnels()["gre"](scapy.IP(ipv4(*V4, SEGMENT)))
    segment = decode(octets[:-10], length=len(octets))
    assert (segment.payload, segment.length) == (OCTETS[:-10], len(OCTETS))


def test_tunnels_within_tunnels_end_somewhere() -> None:
    octets = ipv4(*V4, SEGMENT)
    for _ in range(200):
        octets = ipv4(*V4, octets, protocol=4)
    assert counted(octets, RAW) == "tunnels within tunnels"


# -- packets cut short -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link_type", [ETHERNET, BSD_LOOPBACK, RAW, COOKED, COOKED_V2])
@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
def test_a_packet_cut_anywhere_keeps_the_length_of_its_payload(link_type: int, ends: tuple[str, str]) -> None:
    whole = link(link_type, ip(*ends, SEGMENT))
    header = len(whole) - len(OCTETS)
    for kept in range(len(whole)):
        segment = PacketDecoder().decode(packet(whole[:kept], link_type, len(whole)))
        if kept < header:
            assert segment is None
        else:
            assert segment is not None
            assert (segment.payload, segment.length) == (OCTETS[: kept - header], len(OCTETS))


@pytest.mark.parametrize("size", [4, 12, 40])
def test_tcp_options_that_are_cut_off_are_no_payload(size: int) -> None:
    """`-s 54` is a favourite: it cuts behind the fixed TCP header."""
    whole = link(ETHERNET, ipv4(*V4, tcp(1, 2, 3, 4, ACK, OCTETS, options=b"\x01" * size)))
    for kept in range(54, 54 + size + 1):
        segment = decode(whole[:kept], length=len(whole))
        assert (segment.payload, segment.length) == (b"", len(OCTETS))


# -- what is no segment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "link_type", "kind"),
    [
        (b"", ETHERNET, "cut short before the end of its headers"),
        (b"", RAW, "cut short before the end of its headers"),
        (b"", BSD_LOOPBACK, "cut short before the end of its headers"),
        (bytes(12) + b"\x08\x06" + bytes(28), ETHERNET, "ARP"),
        (bytes(12) + b"\x00\x26" + bytes(38), ETHERNET, "IEEE 802.3"),
        (b"\x00" * 40, RAW, "neither IPv4 nor IPv6"),
        (link(ETHERNET, ipv4(*V4, bytes(8), protocol=17)), ETHERNET, "UDP"),
        (link(ETHERNET, ipv4(*V4, bytes(8), protocol=1)), ETHERNET, "ICMP"),
        (link(ETHERNET, ipv6(*V6, bytes(8), following=58)), ETHERNET, "ICMPv6"),
        (link(ETHERNET, ipv6(*V6, b"", following=59)), ETHERNET, "IP 59"),
        (ipv4(*V4, SEGMENT, total=10), RAW, "a broken IPv4 header"),
        (b"\x44" + ipv4(*V4, SEGMENT)[1:], RAW, "a broken IPv4 header"),
        (ipv4(*V4, SEGMENT[:12] + b"\x40" + SEGMENT[13:]), RAW, "a broken TCP header"),
        (ipv4(*V4, SEGMENT[:12] + b"\xf0" + SEGMENT[13:]), RAW, "a broken TCP header"),
        (bytes(40), 147, "a protocol that carries no TCP"),
    ],
)
def test_what_is_no_segment_is_counted_by_kind(octets: bytes, link_type: int, kind: str) -> None:
    assert counted(octets, link_type) == kind


def test_packets_of_one_kind_are_told_once() -> None:
    decoder = PacketDecoder()
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    for number in range(5, 105):
        decoder.decode(packet(arp, number=number))
    (problem,) = decoder.finish()
    assert (problem.packet, problem.values["packets"], problem.octets) == (5, 100, 4200)
    assert decoder.finish() == []


def test_keys_have_a_reverse() -> None:
    for ends in (V4, V6):
        key = decode(ip(*ends, SEGMENT), RAW).key
        assert ports_of(reverse(key)) == (50051, 40000)
        assert endpoints(reverse(key)) == endpoints(key)[::-1]
        assert reverse(reverse(key)) == key


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([ETHERNET, BSD_LOOPBACK, RAW, COOKED, COOKED_V2, 108, 228, 229]))
def test_no_octets_raise(octets: bytes, link_type: int) -> None:
    decoder = PacketDecoder()
    segment = decoder.decode(packet(octets, link_type))
    assert (segment is None) == bool(decoder.counts or decoder._fragments)
    if segment is not None:
        assert 0 <= len(segment.payload) <= max(segment.length, 0)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([V4, V6]),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=4),
    st.integers(0, 100),
)
def test_no_damaged_packet_raises(ends: tuple[str, str], damage: list[tuple[int, int]], kept: int) -> None:
    octets = bytearray(link(ETHERNET, ip(*ends, SEGMENT)))
    for at, octet in damage:
        octets[at % len(octets)] = octet
    decoder = PacketDecoder()
    segment = decoder.decode(packet(bytes(octets[:kept]), length=len(octets)))
    assert segment is not None or decoder.finish()


def test_scapy_is_not_loaded_for_what_is_known() -> None:
    assert frames_of([]) == []
    script = "import sys, capture.pipeline; print('scapy' in sys.modules)"
    subprocess: Any = importlib.import_module("subprocess")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
