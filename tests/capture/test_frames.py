"""Octets to frames: literal octets, whole, octet by octet and cut at every place; what breaks the protocol; gaps."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import hyperframe.frame
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import frames
from capture.events import (
    CONNECTION_PREFACE,
    Connection,
    Direction,
    ErrorCode,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
    Unknown,
)
from capture.frames import MAX_BLOCK, MAX_PARTIAL_OVERALL, MAX_SHAPES, FrameReader
from capture.hpack_tables import Budget
from tests.capture.engine_factory import (
    DOWN,
    GET,
    OK,
    PREFACE,
    REQUEST,
    RESPONSE,
    SETTINGS_ACK,
    UP,
    continuation,
    data,
    frame,
    frames_of,
    gaps_of,
    goaway,
    headers,
    ping,
    problems_of,
    reasons,
    rst_stream,
    window_update,
)
from tests.capture.engine_factory import (
    settings as settings_frame,
)

CONNECTION = Connection(0, "10.0.0.1:40000", "10.0.0.2:50051")


class Pair:
    """The readers of both directions of a connection, and what they told."""

    def __init__(self, *, whole: bool = True, sections: bool = True, budget: Budget | None = None) -> None:
        self.events: list[Event] = []
        self.rest: list[bytes] = []
        self.budget = budget or Budget()
        self.up, self.down = (
            FrameReader(
                CONNECTION,
                direction,
                self.events.append,
                self.budget,
                whole=whole,
                sections=sections,
                trace=False,
                lost=lambda packet, time_ns, rest: self.rest.append(rest),
            )
            for direction in Direction
        )
        self.up.meet(self.down)
        self.packet = 0

    def send(self, direction: int, octets: bytes, size: int | None = None) -> list[Event]:
        """The events of some octets, in pieces of `size`."""
        before = len(self.events)
        reader = (self.up, self.down)[direction]
        size = size or len(octets) or 1
        for at in range(0, len(octets), size):
            self.packet += 1
            reader.feed(self.packet, self.packet * 10, octets[at : at + size])
            if self.rest:
                break
        return self.events[before:]

    def begin(self) -> Pair:
        """Both sides' SETTINGS."""
        self.send(UP, settings_frame())
        self.send(DOWN, settings_frame())
        assert problems_of(self.events) == []
        self.events.clear()
        return self


def bare(events: list[Event]) -> list[Any]:
    """Events without packet and time, which depend on where octets are cut."""
    return [event._replace(packet=0, time_ns=0) for event in events]


def codes(events: list[Event]) -> list[ErrorCode | None]:
    return [problem.error_code for problem in problems_of(events)]


# -- every type, however it is cut -------------------------------------------------------------------------------------

PRIORITY = struct.pack(">IB", 0x80000003, 9)
EVERY_TYPE: dict[str, bytes] = {
    "DATA": data(1, b"octets"),
    "DATA padded": data(1, b"\x03octets\0\0\0", flags=0x9),
    "DATA empty": data(1, b"", flags=1),
    "HEADERS": headers(1, GET),
    "HEADERS padded, with priority": headers(3, b"\x02" + PRIORITY + GET + b"\0\0", flags=0x2D),
    "HEADERS and CONTINUATION": headers(5, GET[:1], flags=1) + continuation(5, b"", flags=0) + continuation(5, GET[1:]),
    "PRIORITY": frame(2, 0, 7, PRIORITY),
    "RST_STREAM": rst_stream(1, 8),
    "SETTINGS": settings_frame((1, 100), (3, 7), (5, 20_000), (0xABCD, 5)),
    "SETTINGS ack": SETTINGS_ACK,
    "PING": ping() + ping(b"\0" * 8, flags=1),
    "GOAWAY": goaway(3, 11, b"too_many_pings"),
    "WINDOW_UPDATE": window_update(0, 1) + window_update(1, 2**31 - 1),
    "ALTSVC": frame(0xA, 0, 0, b"\0\x0bexample.com" + b'h2=":443"'),
    "ORIGIN": frame(0xC, 0, 0, b"\0\x13https://example.com"),
    "PRIORITY_UPDATE": frame(0x10, 0, 0, struct.pack(">I", 1) + b"u=1, i"),
    "unknown type": frame(0xFB, 0xFF, 9, b"grease"),
    "unknown flags": frame(6, 0xFE, 0, b"12345678") + data(1, b"x", flags=0x40) + headers(7, GET, flags=0xD0 | 4),
    "reserved bit": frame(8, 0, 0x80000000, struct.pack(">I", 0x80000005)) + frame(0, 0, 0x80000001, b"x"),
}


def of_server(octets: bytes) -> list[Event]:
    pair = Pair().begin()
    return pair.send(DOWN, octets)


@pytest.mark.parametrize("name", EVERY_TYPE)
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_frame_is_the_same_whole_octet_by_octet_and_cut_anywhere(name: str, direction: int) -> None:
    octets = EVERY_TYPE[name] + ping(b"trailing")
    whole = Pair().begin().send(direction, octets)
    assert reasons(whole) == []
    found = [(one.offset, one.header + (one.payload or b"")) for one in frames_of(whole)]
    assert b"".join(one for _, one in found) == octets
    assert [offset for offset, _ in found] == [9 + sum(len(one) for _, one in found[:i]) for i in range(len(found))]
    assert bare(Pair().begin().send(direction, octets, 1)) == bare(whole)
    for at in range(1, len(octets)):
        pair = Pair().begin()
        assert bare(pair.send(direction, octets[:at]) + pair.send(direction, octets[at:])) == bare(whole)


def test_a_frame_belongs_to_the_packet_that_completes_it() -> None:
    pair = Pair().begin()
    pair.send(UP, data(1, b"abc")[:5])
    pair.send(UP, data(1, b"abc")[5:] + ping() + ping()[:16])
    pair.send(UP, ping()[16:])
    assert [(one.packet, one.time_ns, one.type) for one in frames_of(pair.events)] == [
        (4, 40, "DATA"),
        (4, 40, "PING"),
        (5, 50, "PING"),
    ]


def test_what_a_header_says_is_kept_as_it_is() -> None:
    (one,) = frames_of(of_server(frame(0xFB, 0xA5, 0x80000009, b"grease")))
    assert (one.type, one.type_code, one.flags, one.stream_id, one.length) == (None, 0xFB, 0xA5, 9, 6)
    assert (one.reserved, one.flag_names) == (True, ["0x01", "0x04", "0x20", "0x80"])
    assert one.header == bytes.fromhex("000006fba580000009")


def test_flags_have_the_names_of_their_type() -> None:
    (one, other) = frames_of(of_server(data(1, b"\0", flags=0x49) + ping(flags=1)))
    assert one.flag_names == ["END_STREAM", "PADDED", "0x40"]
    assert other.flag_names == ["ACK"]


def test_settings_are_read_with_unregistered_ones_as_numbers() -> None:
    (one,) = frames_of(of_server(settings_frame((1, 4096), (2, 0), (9, 1), (0xABCD, 2**32 - 1))))
    assert one.settings == [
        ("SETTINGS_HEADER_TABLE_SIZE", 4096),
        ("SETTINGS_ENABLE_PUSH", 0),
        ("SETTINGS_NO_RFC7540_PRIORITIES", 1),
        (0xABCD, 2**32 - 1),
    ]


def test_padding_and_priority_are_not_content() -> None:
    pair = Pair().begin()
    events = pair.send(UP, EVERY_TYPE["DATA padded"] + EVERY_TYPE["HEADERS padded, with priority"])
    one, other = frames_of(events)
    assert (one.data_length, one.content, one.length) == (6, b"octets", 10)
    assert other.content == GET
    assert other.fields == ((":method", "GET"), (":scheme", "http"), (":path", "/"))


def test_all_of_a_frame_may_be_padding() -> None:
    events = of_server(data(1, b"\x04\0\0\0\0", flags=0x8))
    assert (reasons(events), frames_of(events)[0].data_length) == ([], 0)


@pytest.mark.parametrize("size", [None, 1, 7])
def test_the_section_belongs_to_the_frame_with_end_headers(size: int | None) -> None:
    block = Encoder().encode(REQUEST)
    octets = headers(1, block[:3], flags=1) + continuation(1, block[3:9], flags=0) + continuation(1, block[9:])
    events = Pair().begin().send(UP, octets, size)
    assert reasons(events) == []
    assert [one.fields for one in frames_of(events)] == [None, None, tuple(REQUEST)]
    section = frames_of(events)[2].section
    assert section is not None
    assert (section.block, section.certain) == (block, True)


def test_both_directions_have_tables_of_their_own() -> None:
    pair = Pair().begin()
    up, down = Encoder(), Encoder()
    for stream in (1, 3, 5):
        pair.send(UP, headers(stream, up.encode(REQUEST)))
        pair.send(DOWN, headers(stream, down.encode(RESPONSE)))
    assert [one.fields for one in frames_of(pair.events)] == [tuple(REQUEST), tuple(RESPONSE)] * 3


def test_a_promise_has_a_section_and_its_stream() -> None:
    events = of_server(frame(5, 0xC, 1, b"\x02" + struct.pack(">I", 2) + GET + b"\0\0"))
    (one,) = frames_of(events)
    assert (one.promised_stream_id, one.content, reasons(events)) == (2, GET, [])
    assert one.fields == ((":method", "GET"), (":scheme", "http"), (":path", "/"))


def test_without_sections_frames_are_the_same_but_for_them() -> None:
    octets = b"".join(EVERY_TYPE.values())
    plain, decoded = Pair(sections=False).begin().send(DOWN, octets), Pair().begin().send(DOWN, octets)
    assert plain == [one._replace(section=None) if isinstance(one, FrameEvent) else one for one in decoded]


# -- vectors by others -------------------------------------------------------------------------------------------------


@pytest.mark.vectors("frames/*/normal.json", "frames/continuation/header.json", "frames/headers/priority.json")
def test_a_valid_frame_is_read_as_its_vector_says(vector: Path) -> None:
    case = json.loads(vector.read_text())
    pair = Pair().begin()
    type_code = case["frame"]["type"]
    if type_code == FrameType.CONTINUATION:
        pair.send(UP, headers(case["frame"]["stream_identifier"], b"", flags=0))
        pair.events.clear()
    events = pair.send(DOWN if type_code == FrameType.PUSH_PROMISE else UP, bytes.fromhex(case["wire"]))
    assert {one.layer for one in problems_of(events)} <= {"hpack"}, "their blocks are text"
    (one,) = frames_of(events)
    expected, payload = case["frame"], case["frame"]["frame_payload"]
    assert (one.type_code, one.flags, one.stream_id, one.length) == (
        expected["type"],
        expected["flags"],
        expected["stream_identifier"],
        expected["length"],
    )
    content = one.content
    assert content is not None
    match FrameType(type_code):
        case FrameType.DATA:
            assert (content.decode(), one.data_length) == (payload["data"], len(payload["data"]))
        case FrameType.HEADERS | FrameType.CONTINUATION | FrameType.PUSH_PROMISE:
            assert content.decode() == payload["header_block_fragment"]
            assert one.promised_stream_id == payload.get("promised_stream_id")
        case FrameType.SETTINGS:
            assert one.settings == [
                ("SETTINGS_HEADER_TABLE_SIZE", payload["settings"][0][1]),
                ("SETTINGS_MAX_CONCURRENT_STREAMS", payload["settings"][1][1]),
            ]
        case FrameType.RST_STREAM:
            assert one.error_code == payload["error_code"]
        case FrameType.GOAWAY:
            assert (one.error_code, one.last_stream_id) == (payload["error_code"], payload["last_stream_id"])
            assert one.debug_data == payload["additional_debug_data"].encode()
        case FrameType.WINDOW_UPDATE:
            assert one.increment == payload["window_size_increment"]
        case FrameType.PING:
            assert one.payload == payload["opaque_data"].encode()
        case FrameType.PRIORITY:
            depends, weight = struct.unpack(">IB", content)
            assert (depends, weight + 1) == (payload["stream_dependency"], payload["weight"])


@pytest.mark.vectors("frames/error/*.json")
@pytest.mark.parametrize("size", [None, 1])
def test_a_broken_frame_is_told_with_the_code_of_its_vector(vector: Path, size: int | None) -> None:
    case = json.loads(vector.read_text())
    wire = bytes.fromhex(case["wire"])
    pair = Pair().begin()
    direction = DOWN if wire[3] == FrameType.PUSH_PROMISE else UP
    pair.send(direction, wire, size)
    (pair.up, pair.down)[direction].end(99, 990, "it ends after {octets} octets")
    told = [code for code in codes(pair.events) if code is not None and code != ErrorCode.COMPRESSION_ERROR]
    assert told
    assert set(map(int, told)) <= set(case["error"])


# -- what breaks the protocol ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "code", "clause"),
    [
        (data(0, b"x"), ErrorCode.PROTOCOL_ERROR, "§6.1"),
        (data(1, b"", flags=0x8), ErrorCode.FRAME_SIZE_ERROR, "§4.2"),
        (data(1, b"\x01", flags=0x8), ErrorCode.PROTOCOL_ERROR, "§6.1"),
        (headers(0, GET), ErrorCode.PROTOCOL_ERROR, "§6.2"),
        (headers(1, GET, flags=0x24), ErrorCode.FRAME_SIZE_ERROR, "§4.2"),
        (headers(1, b"\xff" + GET, flags=0xC), ErrorCode.PROTOCOL_ERROR, "§6.1"),
        (headers(1, b"\x00" + PRIORITY[:4], flags=0x2C), ErrorCode.FRAME_SIZE_ERROR, "§4.2"),
        (frame(2, 0, 0, PRIORITY), ErrorCode.PROTOCOL_ERROR, "§6.3"),
        (frame(2, 0, 1, PRIORITY[:4]), ErrorCode.FRAME_SIZE_ERROR, "§6.3"),
        (rst_stream(0), ErrorCode.PROTOCOL_ERROR, "§6.4"),
        (frame(3, 0, 1, b"\0" * 5), ErrorCode.FRAME_SIZE_ERROR, "§6.4"),
        (frame(4, 0, 1, b""), ErrorCode.PROTOCOL_ERROR, "§6.5"),
        (frame(4, 1, 0, b"\0" * 6), ErrorCode.FRAME_SIZE_ERROR, "§6.5"),
        (frame(4, 0, 0, b"\0" * 5), ErrorCode.FRAME_SIZE_ERROR, "§6.5"),
        (frame(5, 4, 0, struct.pack(">I", 2) + GET), ErrorCode.PROTOCOL_ERROR, "§6.6"),
        (frame(5, 4, 1, struct.pack(">I", 3) + GET), ErrorCode.PROTOCOL_ERROR, "§5.1.1"),
        (frame(5, 4, 1, struct.pack(">I", 0) + GET), ErrorCode.PROTOCOL_ERROR, "§5.1.1"),
        (frame(5, 4, 1, b"\0\0\0"), ErrorCode.FRAME_SIZE_ERROR, "§4.2"),
        (frame(6, 0, 1, b"12345678"), ErrorCode.PROTOCOL_ERROR, "§6.7"),
        (frame(6, 0, 0, b"1234567"), ErrorCode.FRAME_SIZE_ERROR, "§6.7"),
        (frame(7, 0, 1, b"\0" * 8), ErrorCode.PROTOCOL_ERROR, "§6.8"),
        (frame(7, 0, 0, b"\0" * 7), ErrorCode.FRAME_SIZE_ERROR, "§6.8"),
        (window_update(1, 0), ErrorCode.PROTOCOL_ERROR, "§6.9"),
        (frame(8, 0, 1, b"\0" * 3), ErrorCode.FRAME_SIZE_ERROR, "§6.9"),
        (continuation(1, GET), ErrorCode.PROTOCOL_ERROR, "§6.10"),
        (frame(9, 4, 0, GET), ErrorCode.PROTOCOL_ERROR, "§6.10"),
    ],
)
def test_a_broken_frame_is_still_a_frame_with_a_problem_and_a_clause(
    octets: bytes, code: ErrorCode, clause: str
) -> None:
    pair = Pair().begin()
    events = pair.send(DOWN, ping() + octets + ping())
    assert [one.header + (one.payload or b"") for one in frames_of(events)] == [ping(), octets, ping()]
    told = problems_of(events)
    assert code in [one.error_code for one in told]
    assert any(f"RFC 9113 {clause})" in one.reason for one in told), [one.reason for one in told]
    assert {(one.layer, one.offset, one.packet) for one in told if one.layer == "http2"} == {("http2", 9 + 17, 3)}
    assert bare(Pair().begin().send(DOWN, ping() + octets + ping(), 1)) == bare(events)


@pytest.mark.parametrize(
    ("setting", "value", "direction", "code"),
    [
        (2, 2, UP, ErrorCode.PROTOCOL_ERROR),
        (2, 1, DOWN, ErrorCode.PROTOCOL_ERROR),
        (4, 2**31, UP, ErrorCode.FLOW_CONTROL_ERROR),
        (5, 2**14 - 1, UP, ErrorCode.PROTOCOL_ERROR),
        (5, 2**24, UP, ErrorCode.PROTOCOL_ERROR),
        (8, 2, UP, ErrorCode.PROTOCOL_ERROR),
        (9, 2, UP, ErrorCode.PROTOCOL_ERROR),
        (2, 1, UP, None),
        (2, 0, DOWN, None),
        (4, 2**31 - 1, UP, None),
        (5, 2**14, UP, None),
        (5, 2**24 - 1, UP, None),
        (8, 1, DOWN, None),
        (1, 2**32 - 1, UP, None),
        (3, 0, UP, None),
        (6, 2**32 - 1, UP, None),
        (0x4242, 77, UP, None),
    ],
)
def test_a_setting_has_its_bounds(setting: int, value: int, direction: int, code: ErrorCode | None) -> None:
    events = Pair().begin().send(direction, settings_frame((setting, value)))
    assert codes(events) == ([] if code is None else [code])
    assert len(frames_of(events)) == 1


@pytest.mark.parametrize("first", [ping(), SETTINGS_ACK, headers(1, GET), data(1, b"x")])
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_the_first_frame_must_be_settings(first: bytes, direction: int) -> None:
    events = Pair().send(direction, first + settings_frame())
    assert reasons(events) == ["the first frame must be SETTINGS, and no acknowledgement (RFC 9113 §3.4)"]


def test_a_promise_from_a_client_is_told() -> None:
    events = Pair().begin().send(UP, frame(5, 4, 1, struct.pack(">I", 2) + GET))
    assert reasons(events) == ["PUSH_PROMISE from a client (RFC 9113 §8.4)"]


@pytest.mark.parametrize("within", [ping(), data(1, b"x"), headers(3, GET), window_update(0, 5), frame(0xFB, 0, 0)])
def test_nothing_comes_between_the_pieces_of_a_field_block(within: bytes) -> None:
    events = Pair().begin().send(UP, headers(1, GET[:1], flags=0) + within + continuation(1, GET[1:]) + headers(5, GET))
    assert reasons(events)[0] == "the field block of stream 1 is interrupted (RFC 9113 §6.10)"
    assert len(frames_of(events)) == 4
    last = frames_of(events)[-1].section
    assert last is not None
    assert (last.fields[0], last.certain) == ((":method", "GET"), False)


def test_a_continuation_of_another_stream_interrupts() -> None:
    events = Pair().begin().send(UP, headers(1, GET[:1], flags=0) + continuation(3, GET[1:]))
    assert reasons(events)[0] == "the field block of stream 1 is interrupted (RFC 9113 §6.10)"
    assert [one.fields for one in frames_of(events)] == [None, None]


@pytest.mark.parametrize("length", [16_385, 100_000])
@pytest.mark.parametrize("type_code", [0, 1, 5, 9])
@pytest.mark.parametrize("size", [None, 1000])
def test_a_frame_longer_than_allowed_is_told_and_read(type_code: int, length: int, size: int | None) -> None:
    start = headers(1, b"", flags=0) if type_code == 9 else b""
    payload = (struct.pack(">I", 2) if type_code == 5 else b"") + b"\x82" * length
    octets = start + frame(type_code, 0 if type_code == 0 else 4, 1, payload[:length])
    events = Pair().begin().send(DOWN, octets + ping(), size)
    assert f"a frame of {length} octets, where at most 16384 were allowed (RFC 9113 §4.2)" in reasons(events)
    assert ErrorCode.FRAME_SIZE_ERROR in codes(events)
    assert [one.length for one in frames_of(events)][-2:] == [length, 8]


def test_the_other_sides_setting_allows_longer_frames() -> None:
    pair = Pair()
    pair.send(UP, settings_frame((5, 4 << 20)))
    pair.send(DOWN, settings_frame())
    assert reasons(pair.send(DOWN, data(1, bytes(1_000_000)))) == []
    assert reasons(pair.send(UP, data(1, bytes(16_385)))) != []


def test_what_one_side_announces_before_the_other_speaks_counts() -> None:
    """The readers need not begin together: a server's begins with its first octet."""
    pair = Pair()
    pair.up.peer = pair.down.peer = None
    pair.send(UP, settings_frame((1, 65_536), (5, 4 << 20)))
    pair.up.meet(pair.down)
    events = pair.send(DOWN, settings_frame() + headers(1, b"\x3f\xe1\x7f" + OK) + data(1, bytes(100_000)))
    assert reasons(events) == []


def test_a_table_size_is_bounded_by_the_other_sides_setting() -> None:
    pair = Pair()
    pair.send(UP, settings_frame((1, 100)) + headers(1, b"\x3f\xe1\x1f" + GET))
    assert reasons(pair.events) == [], "the client's own setting is for the server's blocks"
    pair.send(DOWN, settings_frame() + headers(1, b"\x3f\xe2\x1f" + OK))
    assert reasons(pair.events) == [
        "a dynamic table size update to 4097, where at most 4096 is allowed (RFC 7541 §6.3)"
    ], "what was allowed once may have been acted on"


def test_a_field_block_that_cannot_be_read_is_told_once() -> None:
    events = Pair().begin().send(UP, headers(1, GET + b"\x80") + headers(3, GET))
    assert [(one.layer, one.error_code) for one in problems_of(events)] == [("hpack", ErrorCode.COMPRESSION_ERROR)]
    first, second = frames_of(events)
    assert first.fields == (*[(":method", "GET"), (":scheme", "http"), (":path", "/")], (Unknown("?"), Unknown("?")))
    assert second.fields == ((":method", "GET"), (":scheme", "http"), (":path", "/"))


# -- no frame at all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 40, b"\x16\x03\x03\x00\x50" * 9])
def test_a_header_that_cannot_be_one_loses_the_boundary(octets: bytes) -> None:
    pair = Pair().begin()
    pair.send(UP, ping() + octets)
    assert (pair.rest, len(frames_of(pair.events))) == ([octets], 1)
    assert pair.up.offset == 9 + 17


def test_an_inferred_boundary_is_doubted_for_some_frames() -> None:
    pair = Pair(whole=False)
    pair.up.begin(1000, 8)
    events = pair.send(UP, ping() + data(1, b"abc") + frame(6, 0, 5, b"wrong"))
    assert [one.offset for one in frames_of(events)] == [1000, 1017]
    assert pair.rest == [frame(6, 0, 5, b"wrong")]


@pytest.mark.parametrize("odd", [frame(0xFB, 0xFF, 5, b"grease"), data(1, b""), frame(6, 0x80, 0, b"12345678")])
@pytest.mark.parametrize("size", [None, 1, 20])
def test_a_doubted_boundary_puts_up_with_one_odd_frame(odd: bytes, size: int | None) -> None:
    pair = Pair(whole=False)
    pair.up.begin(0, 8)
    events = pair.send(UP, ping() + odd + ping() + ping(), size)
    assert ([one.header + (one.payload or b"") for one in frames_of(events)], pair.rest) == (
        [ping(), odd, ping(), ping()],
        [],
    )
    if size is None:
        pair = Pair(whole=False)
        pair.up.begin(0, 8)
        pair.send(UP, ping() + odd + odd + ping())
        assert len(pair.rest) == 1


def test_octets_in_pieces_do_not_use_up_doubts() -> None:
    octets = ping() * 4 + b"\xff" * 20
    for size in (None, 1, 5):
        pair = Pair(whole=False)
        pair.up.begin(0, 8)
        pair.send(UP, octets, size)
        assert (len(frames_of(pair.events)), len(pair.rest)) == (4, 1), size


def test_a_confirmed_boundary_is_not_doubted_for_ever() -> None:
    pair = Pair(whole=False)
    pair.up.begin(0, 8)
    events = pair.send(UP, ping() * 8 + frame(0xFB, 0xFF, 5, b"grease") + ping())
    assert (len(frames_of(events)), pair.rest) == (10, [])


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_a_gap_inside_a_frame_costs_its_payload_only() -> None:
    octets = ping() + data(1, b"0123456789") + headers(3, GET)
    for start in range(17 + 9, 17 + 19):
        for stop in range(start + 1, 17 + 19 + 1):
            pair = Pair().begin()
            pair.send(UP, octets[:start])
            assert pair.up.hole(50, 500, stop - start)
            pair.send(UP, octets[stop:])
            one, holed, other = frames_of(pair.events)
            assert (one.payload, holed.payload, holed.length, other.fields is not None) == (b"pingpong", None, 10, True)
            (gap,) = gaps_of(pair.events)
            assert (gap.offset, gap.octets, gap.frames_lost) == (9 + start, stop - start, False)
            assert other.section is not None
            assert other.section.certain
            assert holed.offset == 9 + 17


def test_a_gap_over_a_header_loses_the_boundary_and_the_tables() -> None:
    octets = ping() + data(1, b"0123456789")
    for start in (*range(9), *range(17, 17 + 9)):
        pair = Pair().begin()
        pair.send(UP, octets[:start])
        assert not pair.up.hole(50, 500, 3)
        (gap,) = gaps_of(pair.events)
        assert (gap.offset, gap.octets, gap.frames_lost) == (9 + start, 3, True)
        assert pair.up.offset == 9 + start + 3
        assert not pair.up.tables.complete


def test_a_gap_beyond_the_end_of_a_frame_ends_it_and_loses_the_next() -> None:
    pair = Pair().begin()
    pair.send(UP, data(1, b"0123456789")[:12])
    assert not pair.up.hole(50, 500, 20)
    (one,) = frames_of(pair.events)
    assert (one.payload, one.packet) == (None, 50)
    assert pair.up.offset == 9 + 12 + 20


def test_several_gaps_in_one_frame_are_several_gaps() -> None:
    pair = Pair().begin()
    octets = data(1, bytes(100)) + ping()
    pair.send(UP, octets[:20])
    assert pair.up.hole(50, 500, 10)
    pair.send(UP, octets[30:40])
    assert pair.up.hole(51, 510, 30)
    pair.send(UP, octets[70:])
    assert [gap.octets for gap in gaps_of(pair.events)] == [10, 30]
    assert [one.payload for one in frames_of(pair.events)] == [None, b"pingpong"]


@pytest.mark.parametrize("kind", ["HEADERS", "CONTINUATION", "SETTINGS"])
def test_a_gap_in_a_frame_with_state_loses_that_state_only(kind: str) -> None:
    pair = Pair().begin()
    literal = b"\x40\x01a\x01b"
    pair.send(UP, headers(1, literal))
    pair.send(DOWN, headers(1, literal))
    octets = {
        "HEADERS": headers(3, literal * 3),
        "CONTINUATION": headers(3, literal, flags=0) + continuation(3, literal * 3),
        "SETTINGS": settings_frame((1, 8192)),
    }[kind]
    pair.send(UP, octets[:-4])
    assert pair.up.hole(50, 500, 4)
    last = frames_of(pair.events)[-1]
    assert (last.payload, last.section, reasons(pair.events)) == (None, None, [])
    pair.send(UP, headers(5, b"\xbe"))
    pair.send(DOWN, headers(3, b"\xbe"))
    up, down = frames_of(pair.events)[-2:]
    expected = Unknown("?-1") if kind != "SETTINGS" else None
    assert up.fields == ((("a", "b") if expected is None else (expected, expected)),)
    assert down.fields == (("a", "b"),)
    pair.send(DOWN, headers(5, b"\x3f\xe2\x1f"))
    assert bool(reasons(pair.events)) == (kind != "SETTINGS"), "what the lost SETTINGS allowed is not known"


def test_what_is_unfinished_at_the_end_is_told() -> None:
    pair = Pair().begin()
    pair.send(UP, ping() + data(1, b"abc")[:10])
    pair.up.end(9, 90, "the connection ended {octets} octets into a frame")
    (problem,) = problems_of(pair.events)
    assert (problem.reason, problem.offset, problem.octets) == (
        "the connection ended 10 octets into a frame",
        9 + 17,
        10,
    )


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_field_block_without_end_is_not_kept() -> None:
    """CVE-2024-27316: CONTINUATION frames for ever."""
    pair = Pair().begin()
    pair.send(UP, headers(1, b"", flags=0))
    piece = continuation(1, b"\x82" * 16_000, flags=0)
    for _ in range(3 * MAX_BLOCK // 16_000):
        pair.send(UP, piece)
        assert len(pair.up._block) <= MAX_BLOCK
    assert codes(pair.events) == [ErrorCode.ENHANCE_YOUR_CALM], "told once"
    pair.send(UP, continuation(1, b"") + headers(3, GET))
    sections = [one.section for one in frames_of(pair.events)[-2:]]
    assert sections[0] is None
    assert sections[1] is not None
    assert not sections[1].certain
    assert pair.budget.partial == 0


def test_empty_continuations_take_neither_time_nor_memory() -> None:
    pair = Pair().begin()
    pair.send(UP, headers(1, GET, flags=0) + continuation(1, b"", flags=0) * 50_000 + continuation(1, b""))
    assert frames_of(pair.events)[-1].fields == ((":method", "GET"), (":scheme", "http"), (":path", "/"))


def test_unfinished_frames_are_bounded_over_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_PARTIAL_OVERALL", 100_000)
    budget = Budget()
    pairs = [Pair(budget=budget).begin() for _ in range(30)]
    for pair in pairs:
        pair.send(UP, data(1, bytes(16_000))[:12_000], 100)
        assert budget.partial <= 101_000
    for i, pair in enumerate(pairs):
        pair.send(UP, data(1, bytes(16_000))[12_000:] + ping())
        first, second = frames_of(pair.events)
        assert (first.length, second.payload) == (16_000, b"pingpong")
        assert (first.payload is None) == (i >= 5)
    assert budget.partial == 0


def test_a_frame_in_pieces_of_one_octet_counts_what_they_take() -> None:
    assert MAX_PARTIAL_OVERALL == 64 << 20
    pair = Pair()
    pair.send(UP, settings_frame())
    pair.send(DOWN, settings_frame((5, 1 << 23)))
    octets = data(1, bytes(300_000))
    for at in range(len(octets) - 1):
        pair.up.feed(1, 1, octets[at : at + 1])
    assert pair.budget.partial > 50 * 300_000
    pair.up.close()
    assert pair.budget.partial == 0


def test_frame_headers_remembered_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_SHAPES == 1 << 16
    monkeypatch.setattr(frames, "MAX_SHAPES", 50)
    frames._shapes.clear()
    pair = Pair().begin()
    for stream in range(1, 999):
        pair.send(UP, data(stream, b"x"))
        assert len(frames._shapes) <= 50
    assert [one.stream_id for one in frames_of(pair.events)] == list(range(1, 999))


# -- against another reader --------------------------------------------------------------------------------------------

any_frame = st.builds(
    frame,
    st.one_of(st.integers(0, 12), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 1, 4, 5, 8, 9]), st.integers(0, 255)),
    st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
    st.binary(max_size=40),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(any_frame, max_size=8), st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_frames_are_cut_where_their_lengths_say(pieces: list[bytes], cuts: list[int], is_up: bool) -> None:
    """Whatever they say, and however they come: each is an event with its octets, and events are the same."""
    octets = b"".join(pieces)
    direction = UP if is_up else DOWN
    whole = Pair().begin().send(direction, octets)
    assert [one.header + (one.payload or b"") for one in frames_of(whole)] == pieces
    pair = Pair().begin()
    ends = sorted({min(cut, len(octets)) for cut in cuts} | {len(octets)})
    events = []
    for start, end in zip([0, *ends], ends, strict=False):
        events += pair.send(direction, octets[start:end])
    assert bare(events) == bare(whole)
    for problem in problems_of(whole):
        assert problem.layer in ("http2", "hpack")
        assert "RFC" in problem.reason
        assert problem.error_code is not None


@settings(max_examples=150, deadline=None)
@given(any_frame)
def test_a_frame_that_hyperframe_takes_is_read_alike(octets: bytes) -> None:
    try:
        theirs, length = hyperframe.frame.Frame.parse_frame_header(memoryview(octets[:9]))
        theirs.parse_body(memoryview(octets[9:]))
    except (hyperframe.exceptions.HyperframeError, ValueError):
        return
    (one,) = frames_of(Pair().begin().send(DOWN, octets))
    assert (one.length, one.stream_id) == (length, theirs.stream_id)
    if isinstance(theirs, hyperframe.frame.DataFrame):
        assert one.content == theirs.data
    if isinstance(theirs, hyperframe.frame.WindowUpdateFrame):
        assert one.increment == theirs.window_increment
    if isinstance(theirs, hyperframe.frame.GoAwayFrame):
        assert (one.last_stream_id, one.error_code) == (theirs.last_stream_id & 0x7FFFFFFF, theirs.error_code)
        assert one.debug_data == theirs.additional_data
    if isinstance(theirs, hyperframe.frame.PushPromiseFrame):
        assert one.promised_stream_id == theirs.promised_stream_id & 0x7FFFFFFF
    if isinstance(theirs, hyperframe.frame.SettingsFrame) and one.settings is not None:
        assert dict(struct.iter_unpack(">HI", octets[9:])) == dict(theirs.settings)


def test_the_preface_is_the_rfcs() -> None:
    assert CONNECTION_PREFACE == PREFACE == bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")


def test_a_gap_and_a_problem_know_their_connection() -> None:
    pair = Pair().begin()
    pair.up.hole(50, 500, 3)
    pair.send(DOWN, window_update(0, 0))
    for event in pair.events:
        assert isinstance(event, (Gap, Problem, FrameEvent))
        assert event.connection == CONNECTION
