"""Whatever the octets are: events and problems come out, in bounded time, and nothing is kept when it is over."""

from __future__ import annotations

import gc
import random
import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import pcap
from capture.events import ConnectionEnd, Event, FrameEvent, Gap, Packet, Problem, json_part
from capture.pipeline import Pipeline
from tests.capture.engine_factory import (
    ACK,
    DOWN,
    FIN,
    GET,
    PREFACE,
    RST,
    SETTINGS_ACK,
    SYN,
    UP,
    Address,
    Chatter,
    Tape,
    continuation,
    crowd,
    data,
    frame,
    frames_of,
    headers,
    message,
    ping,
    renumbered,
    window_update,
)
from tests.capture.engine_factory import (
    settings as settings_frame,
)

LAYERS = {"capture", "packet", "tcp", "tls", "http2", "hpack"}


def read_all(packets: list[Packet], **options: object) -> list[Event]:
    """The events of a capture, each looked into; nothing may be left in any buffer."""
    line = Pipeline(**options)  # type: ignore[arg-type]  # the tests' own choice of options
    events = line.feed(packets) + line.finish()
    for event in events:
        look_into(event)
    shared = line._options
    assert (shared.kept, shared.budget.partial, shared.budget.tables, shared.conversations) == (0, 0, 0, {})
    assert (line._reassembler._waiting_octets, line._reassembler.oldest_waiting()) == (0, None)
    assert line.finish() == []
    return events


def look_into(event: Event) -> None:
    match event:
        case FrameEvent():
            assert len(event.header) == 9
            assert event.payload is None or len(event.payload) == event.length
            assert event.content is None or len(event.content) <= event.length
            assert event.data_length is None or 0 <= event.data_length <= event.length
            assert all(event.flag_names)
            _ = (event.settings, event.increment, event.error_code, event.last_stream_id, event.promised_stream_id)
            _ = (event.type, event.reserved, event.end_stream, event.debug_data)
            for name, value in event.fields or ():
                json_part(name), json_part(value)
        case Problem():
            assert event.layer in LAYERS
            assert "{" not in event.reason
            assert event.octets is None or event.octets >= 0
        case Gap():
            assert event.octets >= 0
            assert event.offset >= 0
        case ConnectionEnd():
            assert event.how in ("fin", "reset", "replaced", "idle")


# -- captures, mutated -------------------------------------------------------------------------------------------------


def mutated(packets: list[Packet], rnd: random.Random, harm: float) -> list[Packet]:
    """Packets damaged, cut, doubled, moved and dropped, each kind with its own luck."""
    kinds = rnd.sample(range(9), rnd.randrange(1, 6))
    out: list[Packet] = []
    for packet in packets:
        octets = bytearray(packet.data)
        link_type, length = packet.link_type, packet.length
        if rnd.random() < harm and octets:
            match rnd.choice(kinds):
                case 0:
                    octets[rnd.randrange(len(octets))] ^= 1 << rnd.randrange(8)
                case 1:
                    for _ in range(rnd.randrange(1, 9)):
                        octets[rnd.randrange(len(octets))] = rnd.choice((0, 1, 255, 127, 128, rnd.randrange(256)))
                case 2:
                    del octets[rnd.randrange(len(octets)) :]
                case 3:
                    at = rnd.randrange(len(octets))
                    octets[at:at] = rnd.randbytes(rnd.randrange(1, 40))
                case 4:
                    octets[min(len(octets), 54) :] = rnd.randbytes(rnd.randrange(100))
                case 5:
                    continue
                case 6:
                    out.insert(rnd.randrange(len(out) + 1), packet)
                case 7:
                    link_type = rnd.choice((0, 1, 101, 113, 276, 9, 147, 65_535))
                case 8:
                    length = rnd.choice((0, 1, len(octets) + 1000, 262_144, 2**32 - 1))
        out.append(packet._replace(data=bytes(octets), length=length, link_type=link_type))
    return renumbered(out)


@cache
def seeds_of_our_own() -> tuple[list[Packet], ...]:
    return crowd(3, calls=2, seed=1).packets, crowd(1, calls=4, seed=2).packets[20:]


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(seeds, st.sampled_from((0.02, 0.1, 0.5)), st.sampled_from(((), (50051,))), st.booleans(), st.booleans())
def test_mutated_captures_give_events_and_problems(
    seed: int, harm: float, ports: tuple[int, ...], live: bool, sections: bool
) -> None:
    rnd = random.Random(seed)
    packets = mutated(rnd.choice(seeds_of_our_own()), rnd, harm)
    events = read_all(packets, ports=ports, live=live, sections=sections)
    if not live:
        assert [event.packet for event in events if event.connection is not None] == sorted(
            event.packet for event in events if event.connection is not None
        )
        batch = rnd.randrange(1, 30)
        line = Pipeline(ports=ports, sections=sections)
        again = [event for at in range(0, len(packets), batch) for event in line.feed(packets[at : at + batch])]
        assert again + line.finish() == events


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_mutated_captures_by_others_give_events_and_problems(vector: Path) -> None:
    with vector.open("rb") as stream:
        packets = [packet for batch in pcap.read(stream) for packet in batch]
    for seed in range(15):
        rnd = random.Random(seed)
        read_all(mutated(packets[rnd.randrange(len(packets)) :], rnd, rnd.choice((0.02, 0.1, 0.5))))


# -- streams, mutated --------------------------------------------------------------------------------------------------


def conversation(pieces: list[tuple[int, bytes]], rnd: random.Random, is_late: bool = False) -> list[Packet]:
    """In whole TCP, cut anywhere."""
    tape = Tape()
    talk = tape.talk()
    if not is_late:
        talk.shake()
    for direction, octets in pieces:
        talk.send(direction, octets, rnd.choice((None, None, rnd.randrange(1, 60))))
    if rnd.random() < 0.5:
        talk.fin(UP).fin(DOWN)
    return tape.packets


@settings(max_examples=80, deadline=None)
@given(seeds, st.booleans())
def test_mutated_frames_give_events_and_problems(seed: int, is_late: bool) -> None:
    rnd = random.Random(seed)
    pieces = Chatter(seed % 7).pieces(4)[rnd.randrange(5) * is_late :]
    for _ in range(rnd.randrange(1, 12)):
        at = rnd.randrange(len(pieces))
        direction, whole = pieces[at]
        octets = bytearray(whole or b"\0")
        match rnd.randrange(4):
            case 0:
                octets[rnd.randrange(len(octets))] = rnd.randrange(256)
            case 1:
                octets[rnd.randrange(min(9, len(octets)))] = rnd.choice((0, 1, 4, 8, 9, 255))
            case 2:
                del octets[rnd.randrange(len(octets)) :]
            case 3:
                octets += rnd.randbytes(rnd.randrange(30))
        pieces[at] = (direction, bytes(octets))
    packets = conversation(pieces, rnd, is_late)
    events = read_all(packets)
    assert [event.packet for event in events] == sorted(event.packet for event in events)


any_frame = st.builds(
    frame,
    st.one_of(st.integers(0, 12), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 1, 4, 5, 8, 9, 0xC, 0x2D]), st.integers(0, 255)),
    st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1)),
    st.binary(max_size=50),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((UP, DOWN)), st.one_of(any_frame, st.binary(max_size=60))), max_size=12),
    st.sampled_from((b"", PREFACE, PREFACE + settings_frame(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01")),
    st.sampled_from((b"", settings_frame(), b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n", b"\x16\x03\x03\x00\x05")),
    st.booleans(),
    seeds,
)
def test_any_octets_behind_any_beginning_give_events_and_problems(
    pieces: list[tuple[int, bytes]], up: bytes, down: bytes, is_late: bool, seed: int
) -> None:
    rnd = random.Random(seed)
    packets = conversation([(UP, up), (DOWN, down), *pieces], rnd, is_late)
    events = read_all(packets)
    total = sum(len(octets) for _, octets in [(UP, up), (DOWN, down), *pieces])
    assert sum(9 + one.length for one in frames_of(events) if one.payload is not None) <= total
    read_all(packets, ports=(50051,))
    read_all(packets, live=True)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((UP, DOWN)),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.sampled_from((ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, 255)),
            st.binary(max_size=30),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_any_segments_give_events_and_problems(segments: list[tuple[int, int, int, int, bytes]], is_near: bool) -> None:
    tape = Tape()
    talk = tape.talk()
    for direction, seq, ack, flags, octets in segments:
        talk.segment(direction, octets, flags=flags, seq=seq % 60 if is_near else seq, ack=ack % 60 if is_near else ack)
    for event in read_all(tape.packets):
        if isinstance(event, Gap):
            assert event.octets < 2**32


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((0, 1, 9, 101, 113, 276, 228, 147)), st.binary(max_size=90)), max_size=8))
def test_any_packets_give_events_and_problems(packets: list[tuple[int, bytes]]) -> None:
    read_all([Packet(i, i, link, octets, len(octets)) for i, (link, octets) in enumerate(packets, 1)])


# -- octets made to cost time ------------------------------------------------------------------------------------------


def strings(octets: bytes) -> bytes:
    """A literal string of a field block."""
    length = len(octets)
    head = bytes((length,)) if length < 127 else b"\x7f" + varint(length - 127)
    return head + octets


def varint(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes((*octets, value))


def after_preface(octets: bytes) -> list[tuple[int, bytes]]:
    return [
        (UP, PREFACE + settings_frame((5, 1 << 23))),
        (DOWN, settings_frame((5, 1 << 23), (1, 1 << 30))),
        (UP, octets),
    ]


COSTLY: dict[str, Callable[[int], list[tuple[int, bytes]]]] = {
    "empty frames": lambda n: after_preface(frame(0, 0, 1) * n),
    "settings": lambda n: after_preface(settings_frame() * n),
    "a long SETTINGS": lambda n: after_preface(frame(4, 0, 0, struct.pack(">HI", 1, 5) * n * 2)),
    "continuations": lambda n: after_preface(headers(1, b"", flags=0) + continuation(1, b"\x82", flags=0) * n),
    "an index bomb": lambda n: after_preface(
        headers(1, b"\x40" + strings(b"n") + strings(b"v" * 3900)) + headers(1, b"\xbe" * n * 10)
    ),
    "bad indexes": lambda n: after_preface(headers(1, b"\xff\x80\x01" * n * 3)),
    "size updates": lambda n: after_preface(headers(1, b"\x20" * n * 5)),
    "small entries": lambda n: after_preface(headers(1, b"\x3f" + varint((1 << 30) - 31) + b"\x40\x00\x00" * n * 2)),
    "huffman": lambda n: after_preface(headers(1, (b"\x00\x01a\xff" + varint(n - 127) + b"\x1f" * n) * 4)),
    "padding": lambda n: after_preface(frame(0, 8, 1, b"\x01x\0") * n),
    "zeros": lambda n: [(UP, bytes(n * 10)), (DOWN, bytes(n * 10))],
    "misleading headers": lambda n: [(UP, (b"\0\0\x0c\x01\x04\0\0\0\x01" + b"\0" * 3) * n)],
    "nested headers": lambda n: [(UP, b"".join((n - i).to_bytes(3) + b"\x01\x04\0\0\0\x01" for i in range(n)))],
    "tls records": lambda n: [(UP, b"\x16\x03\x01\x00\x01\x01" * n)],
    "half a preface": lambda n: [(UP, (PREFACE[:-1] + b"X") * n)],
    "http/1.1 heads": lambda n: [(UP, b"GET / HTTP/1.1\r\n" * n), (DOWN, b"HTTP/1.1 101 h2c\r\n" * n)],
    "lost boundaries": lambda n: after_preface((SETTINGS_ACK * 3 + b"\xff\xff\xff\xee\0\0\0\0\0") * (n // 4)),
}


@pytest.mark.parametrize(("is_late", "size"), [(False, 60_000), (False, 1460), (True, 1460), (True, 100)])
@pytest.mark.parametrize("what", COSTLY)
def test_octets_made_to_cost_time_cost_in_proportion(what: str, is_late: bool, size: int) -> None:
    """Four times as many take some four times as long, not sixteen times."""

    def seconds(n: int) -> float:
        tape = Tape()
        talk = tape.talk()
        if not is_late:
            talk.shake()
        for direction, octets in COSTLY[what](n):
            talk.send(direction, octets, size)
        line = Pipeline()
        gc.disable()  # its pauses grow with what other tests left behind
        began = time.process_time()
        line.feed(tape.packets)
        line.finish()
        took = time.process_time() - began
        gc.enable()
        return took

    assert min(seconds(1600), seconds(1600)) < 9 * min(seconds(400), seconds(400)) + 0.05


def test_one_octet_at_a_time_costs_in_proportion() -> None:
    """The same octets twice as often take no more than some three times as long."""

    def seconds(turns: int) -> float:
        tape = Tape()
        talk = tape.talk().shake().send(UP, PREFACE + settings_frame())
        for _ in range(turns):
            talk.send(UP, data(1, message(b"x" * 100)) + window_update(0, 1), 1)
        began = time.process_time()
        read_all(tape.packets)
        return time.process_time() - began

    seconds(5)
    assert min(seconds(80) for _ in range(2)) < 4 * min(seconds(40) for _ in range(2)) + 0.1


def test_many_connections_that_begin_and_wait_cost_in_proportion() -> None:
    def seconds(count: int) -> float:
        tape = Tape()
        for i in range(count):
            talk = tape.talk(Address(f"10.1.{i >> 8}.{i & 255}", 1000))
            talk.send(UP, ping() + b"\0\0")  # undecided, and a frame under way
            talk.skip(UP, 100).send(UP, headers(1, GET))
        line = Pipeline()
        began = time.process_time()
        for at in range(0, len(tape.packets), 200):
            line.feed(tape.packets[at : at + 200])
        line.finish()
        return time.process_time() - began

    seconds(100)
    assert seconds(1200) < 8 * seconds(300) + 0.2
