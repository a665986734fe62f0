"""Packets to events: captures by others frame by frame, and captures of our own that were cut, shuffled and torn.

The truth about our own captures is `engine_factory.expected_frames`, which reads octet by octet what came first.
"""

from __future__ import annotations

import csv
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hpack
import pytest

from capture import pcap
from capture.events import Direction, Event, FrameEvent, Packet, Unknown
from capture.packets import PacketDecoder, Segment
from capture.pipeline import Pipeline
from capture.reassembly import Reassembler
from tests.capture.engine_factory import (
    ACK,
    BSD_LOOPBACK,
    COOKED,
    COOKED_V2,
    DOWN,
    ETHERNET,
    FIN,
    GET,
    RAW,
    SYN,
    UP,
    Address,
    Chatter,
    Tape,
    by_packet,
    chat,
    crowd,
    data,
    ends_of,
    events_of,
    expected_frames,
    frames_of,
    gaps_of,
    headers,
    ipv4,
    ipv6,
    link,
    message,
    ping,
    problems_of,
    reasons,
    renumbered,
    window_update,
    write_pcap,
)

THIRD_PARTY = "third_party/**/*.pcap", "third_party/**/*.pcapng"


def packets_of(path: Path) -> list[Packet]:
    with path.open("rb") as stream:
        return [packet for batch in pcap.read(stream) for packet in batch]


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def unescaped(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace("\\\\", "\\")


def in_order(events: Sequence[Event]) -> bool:
    return [event.packet for event in events] == sorted(event.packet for event in events)


def identity(frame: FrameEvent) -> tuple[object, ...]:
    """What a frame is, wherever its direction was begun to be read and whoever was taken for the client."""
    ends = (frame.connection.client, frame.connection.server)
    sender = ends[frame.direction]
    return (frame.packet, frame.time_ns, sender, frozenset(ends), frame.header, frame.payload)


def never_different(frames: Iterable[FrameEvent], truth: dict[tuple[object, ...], list[FrameEvent]]) -> None:
    """Every field is what it is in the whole capture, or unknown."""
    for frame in frames:
        if frame.fields is None:
            continue
        whole = truth[identity(frame)][0].fields
        assert whole is not None
        for got, wanted in zip(frame.fields, whole, strict=True):
            for one, other in zip(got, wanted, strict=True):
                assert isinstance(one, Unknown) or one == other


# -- captures by others ------------------------------------------------------------------------------------------------


@pytest.mark.vectors(*THIRD_PARTY)
@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("sections", [True, False])
def test_a_capture_by_others_is_read_as_wireshark_reads_it(vector: Path, batch: int | None, sections: bool) -> None:
    events = events_of(packets_of(vector), batch=batch, sections=sections)
    assert not [one for one in problems_of(events) if one.layer not in ("packet", "http2")]
    assert in_order([one for one in events if one.connection is not None])
    ours, fields = [], []
    for row, one in enumerate(frames_of(events), 1):
        ports = [end.rsplit(":", 1)[1] for end in (one.connection.client, one.connection.server)]
        head = [str(one.packet), str(one.connection.number)]
        way = [ports[one.direction], ports[1 - one.direction]]
        ours.append([*head, *way, *map(str, (one.type_code, one.stream_id, one.length)), f"0x{one.flags:02x}"])
        for name, value in one.fields or ():
            fields.append([str(row), *head, str(one.stream_id), str(one.type_code), name, value])
    assert ours == rows(vector.with_name(vector.name + ".frames.tsv"))
    if sections:
        theirs = [[*row[:5], *map(unescaped, row[5:])] for row in rows(vector.with_name(vector.name + ".headers.tsv"))]
        assert fields == theirs


def arrivals(packets: Sequence[Packet]) -> dict[tuple[bytes, int], int]:
    """By sender and sequence number: in which packet that octet came first. For captures without a wrap-around."""
    decoder = PacketDecoder()
    found: dict[tuple[bytes, int], int] = {}
    for packet in packets:
        segment = decoder.decode(packet)
        if segment is not None:
            for at in range(segment.length):
                found.setdefault((segment.key, segment.seq + at), segment.packet)
    return found


@pytest.mark.vectors(*THIRD_PARTY)
@pytest.mark.parametrize("is_port_named", [False, True])
def test_a_capture_by_others_is_read_from_any_packet_on(vector: Path, is_port_named: bool) -> None:
    """What begins behind the cut is found, nothing else is, and no field is ever another one."""
    packets = packets_of(vector)
    whole = frames_of(events_of(packets))
    ports = (int(whole[0].connection.server.rsplit(":", 1)[1]),) if is_port_named else ()
    truth: dict[tuple[object, ...], list[FrameEvent]] = {}
    for frame in whole:
        truth.setdefault(identity(frame), []).append(frame)
    begins = begins_in(packets, whole)
    for cut in range(len(packets)):
        events = events_of(packets[cut:], ports=ports)
        assert in_order([one for one in events if one.connection is not None])
        frames = frames_of(events)
        expected = Counter(identity(one) for one in whole if begins[id(one)] > cut)
        assert Counter(map(identity, frames)) == expected
        never_different(frames, truth)


def begins_in(packets: Sequence[Packet], whole: Sequence[FrameEvent]) -> dict[int, int]:
    """For each frame of a capture of connections: the packet in which its first octet came."""
    segments: dict[tuple[int, int], list[Segment]] = {}
    decoder, flows = PacketDecoder(), Reassembler(Deaf())
    for packet in packets:
        flows.feed([packet])
        segment = decoder.decode(packet)
        if segment is not None and segment.length:
            flow = flows._flows[segment.key]
            segments.setdefault((flow.tcp.number, segment.key[-4] << 8 | segment.key[-3]), []).append(segment)
    found = {}
    for frame in whole:
        port = int((frame.connection.client, frame.connection.server)[frame.direction].rsplit(":", 1)[1])
        mine = segments[frame.connection.number, port]
        first = min(segment.seq for segment in mine)
        at = first + frame.offset
        found[id(frame)] = next(one.packet for one in mine if one.seq <= at < one.seq + one.length)
    return found


class Deaf:
    """Above a reassembler of which only the state is looked at."""

    def opened(self, flow: Any, first: Segment) -> None:
        for one in (flow, flow.peer):
            one.receive = lambda packet, time_ns, octets: None

    def hole(self, flow: Any, packet: int, time_ns: int, octets: int, snapped: bool) -> None: ...

    def closed(self, flow: Any, packet: int, time_ns: int, how: str) -> None: ...


@pytest.mark.vectors(*THIRD_PARTY)
def test_a_capture_by_others_may_lack_any_packet(vector: Path) -> None:
    """Frames that the missing octets did not touch are found, and a gap is told that is as long as they were."""
    packets = packets_of(vector)
    whole = frames_of(events_of(packets))
    truth: dict[tuple[object, ...], list[FrameEvent]] = {}
    for frame in whole:
        truth.setdefault(identity(frame), []).append(frame)
    decoder = PacketDecoder()
    first: dict[bytes, int] = {}
    last: dict[bytes, int] = {}
    lost = []
    for i, packet in enumerate(packets):
        segment = decoder.decode(packet)
        if segment is not None:
            if segment.length or segment.flags & SYN:
                first.setdefault(segment.key, packet.number)
            if segment.length or segment.flags & FIN:
                last[segment.key] = packet.number
            if segment.length:
                lost.append((i, segment))
    for i, segment in lost:
        events = events_of(packets[:i] + packets[i + 1 :])
        frames = [one for one in frames_of(events) if one.payload is not None]
        assert set(map(identity, frames)) <= set(truth), segment.packet
        never_different(frames, truth)
        missing = [one for one in whole if identity(one) not in set(map(identity, frames))]
        assert all(one.packet >= segment.packet for one in missing)
        is_start, is_end = first[segment.key] == segment.packet, last[segment.key] == segment.packet
        assert not is_start or not gaps_of(events), "a start in the middle"
        if not is_start and (not is_end or gaps_of(events)):
            (gap,) = gaps_of(events)
            assert gap.octets == segment.length
            end = gap.offset + gap.octets
            assert all(
                one.direction == gap.direction and one.offset < end and one.offset + 9 + one.length > gap.offset
                for one in missing
            )
        assert in_order([one for one in events if one.connection is not None])


# -- order, repetition, overlap ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captures() -> list[list[Packet]]:
    return [chat(5, seed=1).packets, crowd(3, calls=3, seed=2).packets, crowd(6, calls=2, seed=3).packets]


def without_handshakes_moved(packets: list[Packet]) -> tuple[list[Packet], list[Packet]]:
    """SYNs and the rest: a SYN that comes late would begin another connection."""
    syns = [one for one in packets if one.data[14 + 20 + 13] & SYN]
    return syns, [one for one in packets if not one.data[14 + 20 + 13] & SYN]


def check_against_model(packets: list[Packet]) -> list[Event]:
    events = events_of(packets)
    assert by_packet(frames_of(events)) == expected_frames(packets)
    assert (gaps_of(events), reasons(events)) == ([], [])
    assert in_order(events)
    return events


def test_frames_have_the_packets_times_and_offsets_of_the_model(captures: list[list[Packet]]) -> None:
    for packets in captures:
        events = check_against_model(packets)
        for batch in (1, 7, 64):
            assert events_of(packets, batch=batch) == events


def test_sections_are_those_of_python_hpack(captures: list[list[Packet]]) -> None:
    for packets in captures:
        decoders: dict[tuple[int, Direction], hpack.Decoder] = {}
        for one in frames_of(events_of(packets)):
            if one.section is not None:
                decoder = decoders.setdefault((one.connection.number, one.direction), hpack.Decoder())
                assert list(one.section.fields) == [tuple(field) for field in decoder.decode(one.section.block)]
                assert one.section.certain


@pytest.mark.parametrize("window", [2, 3, 8, 30])
def test_packets_out_of_order_give_the_same_frames(captures: list[list[Packet]], window: int) -> None:
    rnd = random.Random(window)
    for packets in captures:
        syns, rest = without_handshakes_moved(packets)
        moved = []
        for at in range(0, len(rest), window):
            part = rest[at : at + window]
            moved += rnd.sample(part, len(part))
        check_against_model(renumbered(syns + moved))


def test_each_two_neighbours_may_be_swapped() -> None:
    syns, rest = without_handshakes_moved(chat(3).packets)
    for i in range(len(rest) - 1):
        swapped = [*rest[:i], rest[i + 1], rest[i], *rest[i + 2 :]]
        check_against_model(renumbered(syns + swapped))


def test_packets_may_come_twice(captures: list[list[Packet]]) -> None:
    """Linux shows each loopback packet to a sniffer twice; networks repeat what they think lost."""
    rnd = random.Random(4)
    for packets in captures:
        twice = renumbered([one for packet in packets for one in (packet, packet)])
        check_against_model(twice)
        again = list(packets)
        for packet in packets:
            again.insert(rnd.randrange(again.index(packet) + 1, len(again) + 1), packet)
        check_against_model(renumbered(again))


def test_of_overlapping_segments_with_other_octets_the_first_wins() -> None:
    rnd = random.Random(6)
    tape = Tape()
    talk = tape.talk().shake()
    line = bytes(Chatter(1).pieces(3)[0][1]) + b"".join(octets for way, octets in Chatter(1).pieces(4)[1:] if way == UP)
    first = talk.first[UP] + 1
    at = 0
    while at < len(line):
        size = rnd.randrange(1, 50)
        talk.segment(UP, line[at : at + size], seq=first + at)
        at += min(size, len(line) - at)
        back = rnd.randrange(0, min(at, 60) + 1)
        talk.segment(UP, b"\xff" * back, seq=first + at - back)
    check_against_model(tape.packets)


@pytest.mark.parametrize("before", [*range(0, 60, 7), 2**31, 2**31 + 13])
def test_frames_cross_the_wrap_around_of_sequence_numbers(before: int) -> None:
    check_against_model(chat(2, seq=(2**32 - before, 2**32 - 3 * before)).packets)


# -- losses ------------------------------------------------------------------------------------------------------------


def payload_of(packet: Packet) -> bytes:
    header = packet.data[14:]
    body = header[20 : int.from_bytes(header[2:4])]
    return body[(body[12] >> 4) * 4 :]


def test_each_packet_may_be_missing(captures: list[list[Packet]]) -> None:
    for packets in captures:
        truth = {(one.client, one.direction, one.offset): one for one in expected_frames(packets)}
        fields = {
            (one.connection.client, int(one.direction), one.offset): one.fields for one in frames_of(events_of(packets))
        }
        for i, packet in enumerate(packets):
            octets = len(payload_of(packet))
            if not octets:
                continue
            events = events_of(packets[:i] + packets[i + 1 :])
            assert in_order(events)
            (gap,) = gaps_of(events)
            assert gap.octets == octets
            assert [one.octets for one in problems_of(events) if one.layer == "tcp"] == [octets]
            found = set()
            for one in frames_of(events):
                key = (one.connection.client, int(one.direction), one.offset)
                assert one.header == truth[key].header
                if one.payload is not None:
                    assert (one.packet, one.time_ns, one.payload) == truth[key][:2] + truth[key][-1:]
                    found.add(key)
                    for got, wanted in zip(one.fields or (), fields[key] or (), strict=True):
                        assert all(isinstance(a, Unknown) or a == b for a, b in zip(got, wanted, strict=True))
            lost = (gap.connection.client, int(gap.direction))
            for key, frame in truth.items():
                is_touched = (
                    frame[2] == lost[0]
                    and key[1] == lost[1]
                    and (key[2] < gap.offset + gap.octets and key[2] + 9 + len(frame.payload) > gap.offset)
                )
                assert (key in found) != is_touched


def test_many_packets_may_be_missing(captures: list[list[Packet]]) -> None:
    """One in ten, in both directions: still no frame that was none, and every lost octet is told."""
    for seed, packets in enumerate(captures * 3):
        rnd = random.Random(seed)
        syns, rest = without_handshakes_moved(packets)
        kept = syns + [one for one in rest if rnd.random() > 0.1 or one.data[14 + 20 + 13] & FIN]
        numbers = {one.number for one in kept}
        lost = sum(len(payload_of(one)) for one in packets if one.number not in numbers)
        truth = {(one.client, one.direction, one.offset): one for one in expected_frames(packets)}
        events = events_of(kept)
        assert sum(gap.octets for gap in gaps_of(events)) == lost
        for one in frames_of(events):
            expected = truth[one.connection.client, int(one.direction), one.offset]
            assert one.header == expected.header
            assert one.payload in (None, expected.payload)
        assert in_order(events)


def test_a_hole_holds_back_what_others_did_since() -> None:
    """Frames behind a hole that is given up are of packets that have passed: they come in their place."""
    tape = Tape()
    torn, whole = tape.talk(Address("10.0.0.1", 1)).open(), tape.talk(Address("10.0.0.1", 2)).open()
    torn.skip(UP, 9).send(UP, ping())
    for _ in range(100):
        whole.send(UP, ping())
    line = Pipeline()
    early = line.feed(tape.packets)
    assert len(frames_of(early)) == 8
    events = early + line.finish()
    assert in_order(events)
    assert len(frames_of(events)) == 8 + 101
    assert len(frames_of(Pipeline(live=True).feed(tape.packets))) == 8 + 100, "a live source does not wait"


@pytest.mark.parametrize("snap", [54, 60, 63, 64, 70, 80, 96, 120, 200])
def test_packets_cut_short_give_headers_gaps_and_no_wrong_frame(captures: list[list[Packet]], snap: int) -> None:
    for packets in captures:
        truth = {(one.client, one.direction, one.offset): one for one in expected_frames(packets)}
        cut = [one._replace(data=one.data[:snap]) for one in packets]
        events = events_of(cut)
        lost = sum(max(len(payload_of(one)) - max(snap - 54, 0), 0) for one in packets)
        told = [one.octets or 0 for one in problems_of(events) if one.layer == "tcp"]
        assert sum(told) == lost
        if snap >= 80:
            assert sum(gap.octets for gap in gaps_of(events)) == lost
        seen = 0
        for one in frames_of(events):
            expected = truth[one.connection.client, int(one.direction), one.offset]
            assert (one.packet, one.header) == (expected.packet, expected.header)
            assert one.payload in (None, expected.payload)
            seen += 1
        if snap >= 96:
            whole = [one for one in truth.values() if len(one.payload) + 9 <= snap - 54]
            assert seen >= len(whole) // 2
        assert in_order(events)


# -- the same over every link ------------------------------------------------------------------------------------------


WRAPS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "bsd loopback": (BSD_LOOPBACK, lambda octets: link(BSD_LOOPBACK, octets)),
    "bsd loopback, other byte order": (BSD_LOOPBACK, lambda octets: link(BSD_LOOPBACK, octets, ">")),
    "raw": (RAW, lambda octets: octets),
    "cooked": (COOKED, lambda octets: link(COOKED, octets)),
    "cooked v2": (COOKED_V2, lambda octets: link(COOKED_V2, octets)),
    "vlan": (ETHERNET, lambda octets: link(ETHERNET, octets)[:12] + b"\x81\x00\x00\x07" + link(ETHERNET, octets)[12:]),
    "ip in ip": (ETHERNET, lambda octets: link(ETHERNET, ipv4("192.0.2.1", "192.0.2.2", octets, protocol=4))),
    "ip in ipv6": (ETHERNET, lambda octets: link(ETHERNET, ipv6("2001:db8::1", "2001:db8::2", octets, following=4))),
    "gre": (
        ETHERNET,
        lambda octets: link(ETHERNET, ipv4("192.0.2.1", "192.0.2.2", b"\0\0\x08\0" + octets, protocol=47)),
    ),
    "ethernet padding": (ETHERNET, lambda octets: link(ETHERNET, octets).ljust(100, b"\xee")),
    "ip options": (
        ETHERNET,
        lambda octets: link(ETHERNET, with_options(octets)),
    ),
    "no total length": (ETHERNET, lambda octets: link(ETHERNET, octets[:2] + b"\0\0" + octets[4:])),
}


def with_options(octets: bytes) -> bytes:
    total = int.from_bytes(octets[2:4]) + 8
    return bytes((0x47,)) + octets[1:2] + struct.pack(">H", total) + octets[4:20] + b"\1" * 8 + octets[20:]


@pytest.mark.parametrize("wrap", WRAPS)
def test_the_link_makes_no_difference(wrap: str) -> None:
    packets = crowd(2, calls=2, seed=5).packets
    link_type, around = WRAPS[wrap]
    wrapped = []
    for one in packets:
        octets = around(one.data[14:])
        wrapped.append(one._replace(link_type=link_type, data=octets, length=len(octets)))
    assert events_of(wrapped) == events_of(packets)
    rnd = random.Random(7)
    holed = [i for i in range(len(packets)) if rnd.random() > 0.1]
    assert events_of([wrapped[i] for i in holed]) == events_of([packets[i] for i in holed])


def test_fragments_make_no_difference_but_for_the_packet() -> None:
    packets = crowd(2, calls=2, seed=5).packets
    pieces = []
    for one in packets:
        header, body = one.data[14:34], one.data[34:]
        cut = max(8, len(body) // 16 * 8)
        for start, part in ((0, body[:cut]), (cut, body[cut:])):
            if part:
                flags = start // 8 | (0x2000 if start + len(part) < len(body) else 0)
                octets = ipv4("10.0.0.1", "10.0.0.2", part, ident=one.number, fragment=flags)
                octets = octets[:12] + header[12:20] + octets[20:]
                pieces.append(one._replace(data=one.data[:14] + octets, length=14 + len(octets)))
    for order in (1, -1):
        mixed = [piece for at in range(0, len(pieces), 2) for piece in pieces[at : at + 2][::order]]
        events = events_of(renumbered(mixed if order == 1 else pieces))
        bare = [one._replace(packet=0, time_ns=0) for one in events]
        assert bare == [one._replace(packet=0, time_ns=0) for one in events_of(packets)]


def test_ipv6_makes_no_difference_but_for_the_addresses() -> None:
    four, six = Tape(), Tape()
    for tape, ends in ((four, ("10.0.0.1", "10.0.0.2")), (six, ("2001:db8::1", "2001:db8::2"))):
        chat(3, tape=tape, client=Address(ends[0], 40000), server=Address(ends[1], 50051))
    shown = [
        [(one.packet, one.offset, one.header, one.payload, one.fields) for one in frames_of(events_of(tape.packets))]
        for tape in (four, six)
    ]
    assert shown[0] == shown[1]
    (connection,) = {one.connection for one in frames_of(events_of(six.packets))}
    assert (connection.client, connection.server) == ("[2001:db8::1]:40000", "[2001:db8::2]:50051")


# -- late starts of our own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ports", [(), (50051,)])
def test_a_capture_may_begin_at_any_packet(captures: list[list[Packet]], ports: tuple[int, ...]) -> None:
    for packets in captures:
        whole = frames_of(events_of(packets))
        truth: dict[tuple[object, ...], list[FrameEvent]] = {}
        for frame in whole:
            truth.setdefault(identity(frame), []).append(frame)
        begins = begins_in(packets, whole)
        for cut in range(0, len(packets), 2):
            events = events_of(packets[cut:], ports=ports)
            assert in_order(events)
            frames = frames_of(events)
            assert Counter(map(identity, frames)) == Counter(identity(one) for one in whole if begins[id(one)] > cut)
            never_different(frames, truth)
            if ports:
                assert {one.connection.server for one in frames} <= {"10.0.0.2:50051"}


def test_a_capture_may_begin_at_any_octet() -> None:
    """The first packet's payload begins anywhere in a frame."""
    packets = [one for one in chat(3, seed=9).packets if payload_of(one)][4:]
    whole = frames_of(events_of(packets))
    for cut in range(1, len(payload_of(packets[0]))):
        body = packets[0].data[34:]
        octets = body[:4] + struct.pack(">I", int.from_bytes(body[4:8]) + cut) + body[8:20] + body[20 + cut :]
        first = packets[0]._replace(
            data=link(ETHERNET, ipv4("10.0.0.1", "10.0.0.2", octets))[:26] + packets[0].data[26:34] + octets
        )
        got = frames_of(events_of([first, *packets[1:]]))
        assert [one.header for one in got] == [
            one.header for one in whole if one.packet > packets[0].number or cut == 0
        ]


def test_batches_of_a_late_and_torn_capture_give_the_same(captures: list[list[Packet]]) -> None:
    for packets in captures:
        rnd = random.Random(len(packets))
        torn = [one for one in packets[len(packets) // 3 :] if rnd.random() > 0.05]
        events = events_of(torn)
        for batch in (1, 5, 50):
            assert events_of(torn, batch=batch) == events


def test_lines_of_shares_are_those_of_the_whole(captures: list[list[Packet]]) -> None:
    for packets in captures:
        torn = [one for i, one in enumerate(packets) if i % 11]
        parts = [events_of(torn, share=(i, 3)) for i in range(3)]
        merged = [one for part in parts for one in part]
        for each in (merged, whole := events_of(torn)):
            each.sort(key=lambda one: (one.packet, one.connection.number if one.connection else -1))
        assert merged == whole


# -- against tshark ----------------------------------------------------------------------------------------------------


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "--disable-protocol", "grpc", *arguments], capture_output=True, check=True
    )
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def nasty() -> list[Packet]:
    """Ports used again, SYNs repeated, late starts, RSTs, keep-alives, simultaneous opens: everything that could be
    taken for a new connection."""
    rnd = random.Random(11)
    tape = Tape()
    for turn in range(40):
        client = Address("10.0.0.1", 40000 + rnd.randrange(5))
        talk = tape.talk(client, seq=(rnd.randrange(2**32), rnd.randrange(2**32)))
        kind = rnd.randrange(9)
        if kind == 0:
            talk.send(UP, ping())  # no SYN
        elif kind == 1:
            talk.segment(UP, flags=SYN, seq=talk.first[UP])
            talk.segment(UP, flags=SYN, seq=talk.first[UP])  # retransmitted
        elif kind == 2:
            talk.segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN])  # the answer only
        elif kind == 3:
            talk.segment(UP, flags=SYN, seq=talk.first[UP])
            talk.segment(DOWN, flags=SYN, seq=talk.first[DOWN])  # simultaneous open
        else:
            talk.shake()
        if kind == 4:
            talk.segment(UP, flags=SYN, seq=talk.first[UP])
            talk.segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN])
        talk.send(UP, ping() * 2).send(DOWN, ping()).ack(UP)
        talk.segment(UP, b"\0", seq=talk.seq[UP] - 1)
        if kind == 5:
            talk.rst(UP)
        elif kind == 6:
            talk.fin(UP).fin(DOWN).ack(UP)
        elif kind == 7:
            talk.rst(DOWN).send(UP, ping())
        if turn % 7 == 0:
            talk.segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN] + 77)
    return tape.packets


def test_connections_have_the_numbers_of_tcp_stream(tmp_path: Path) -> None:
    packets = nasty()
    theirs = tshark(
        write_pcap(tmp_path / "nasty.pcap", packets), "-T", "fields", "-e", "frame.number", "-e", "tcp.stream"
    )
    flows, decoder = Reassembler(Deaf()), PacketDecoder()
    ours = []
    for packet in packets:
        flows.feed([packet])
        segment = decoder.decode(packet)
        assert segment is not None
        ours.append([str(packet.number), str(flows._flows[segment.key].tcp.number)])
    assert ours == theirs


@pytest.mark.parametrize("start", [0, 150])
def test_numbers_agree_from_any_packet_on(tmp_path: Path, start: int) -> None:
    packets = renumbered(crowd(8, calls=2, seed=3).packets[start:])
    fields = ("-T", "fields", "-e", "frame.number", "-e", "tcp.stream")
    theirs = {row[0]: row[1] for row in tshark(write_pcap(tmp_path / "late.pcap", packets), *fields)}
    events = events_of(packets)
    assert len(frames_of(events)) > 30
    for one in frames_of(events):
        assert theirs[str(one.packet)] == str(one.connection.number)


def test_frames_of_a_crowd_are_those_of_tshark(tmp_path: Path) -> None:
    packets = crowd(6, calls=3, seed=8).packets
    columns = ("frame.number", "tcp.stream", "http2.type", "http2.streamid", "http2.length", "http2.flags")
    arguments = [part for column in columns for part in ("-e", column)]
    theirs = []
    for row in tshark(
        write_pcap(tmp_path / "crowd.pcap", packets),
        "-d",
        "tcp.port==50051,http2",
        "-Y",
        "http2",
        "-T",
        "fields",
        *arguments,
    ):
        lists = [one.split(",") for one in row[2:]]
        if lists[0] == [""]:
            continue  # the preface alone
        theirs += [[*row[:2], *frame] for frame in zip(*lists, strict=True)]
    ours = [
        [
            str(one.packet),
            str(one.connection.number),
            str(one.type_code),
            str(one.stream_id),
            str(one.length),
            f"0x{one.flags:02x}",
        ]
        for one in frames_of(events_of(packets))
    ]
    assert ours == theirs


# -- bounds ------------------------------------------------------------------------------------------------------------


MANY_CONNECTIONS = """
import resource, sys
from capture.pipeline import Pipeline
from tests.capture.engine_factory import DOWN, UP, Chatter, Tape, frames_of
mode, count = sys.argv[1], int(sys.argv[2])
tape = Tape()
talk = tape.talk().shake()
for direction, octets in Chatter(1).pieces(1):
    talk.send(direction, octets)
if mode == "closed":
    talk.fin(UP).fin(DOWN)
if mode == "reset":
    talk.rst(UP)
line, frames = Pipeline(), 0
here = bytes((10, 0, 0, 1))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for i in range(count):
    there = bytes((11, i >> 16, i >> 8 & 255, i & 255))
    packets = [one._replace(data=one.data.replace(here, there, 1)) for one in tape.packets]
    frames += len(frames_of(line.feed(packets)))
print(frames, len(frames_of(Pipeline().feed(tape.packets))), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


@pytest.mark.parametrize(("mode", "kilobytes"), [("open", 12), ("closed", 3), ("reset", 4)])
def test_a_connection_takes_little_memory(mode: str, kilobytes: int) -> None:
    """In a process of its own, as memory is measured over a process: 20,000 of them are what is remembered."""
    command = [sys.executable, "-c", MANY_CONNECTIONS, mode, "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames, each, taken = map(int, done.stdout.split())
    assert frames == 1000 * each
    assert taken <= 1000 * kilobytes


def test_ends_and_gaps_are_in_the_order_of_packets(captures: list[list[Packet]]) -> None:
    for packets in captures:
        events = events_of(packets[7:])
        assert in_order(events)
        assert ends_of(events)


def test_an_empty_capture_has_no_events() -> None:
    line = Pipeline()
    assert line.feed([]) == []
    assert line.finish() == []


def test_other_packets_are_counted_at_the_end() -> None:
    tape = Tape()
    tape.add(bytes(12) + b"\x08\x06" + bytes(28))
    tape.talk().open()
    tape.add(b"")
    events = events_of(tape.packets)
    assert [one.reason for one in events[-2:] if one in problems_of(events)] == [
        "1 packets without a TCP segment that can be read: ARP",
        "1 packets without a TCP segment that can be read: cut short before the end of its headers",
    ]
    assert len(frames_of(events)) == 4


def test_all_kinds_of_events_name_their_connection() -> None:
    talk = Tape().talk().open().skip(UP, 10).send(UP, headers(1, GET)).send(UP, window_update(1, 0))
    talk.send(UP, data(1, message(b"x"))).fin(UP).rst(DOWN)
    events = events_of(talk.tape.packets)
    assert {type(one).__name__ for one in events} == {"FrameEvent", "Problem", "Gap", "ConnectionEnd"}
    assert {one.connection for one in events} == {frames_of(events)[0].connection}
