"""What a TCP connection turns out to be, where its frames begin, and who is the client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import pytest
from hpack import Encoder

from capture import pipeline, recognition
from capture.events import Direction, ErrorCode, Event, Unknown
from capture.pipeline import Pipeline
from tests.capture.engine_factory import (
    ACK,
    DOWN,
    GET,
    OK,
    PREFACE,
    REQUEST,
    RESPONSE,
    SETTINGS_ACK,
    SYN,
    TRAILERS,
    UP,
    Address,
    Chatter,
    Talk,
    Tape,
    chat,
    data,
    ends_of,
    events_of,
    frame,
    frames_of,
    gaps_of,
    headers,
    message,
    ping,
    problems_of,
    reasons,
    settings,
    window_update,
)
from tests.capture.test_tls import real_hello

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
EPHEMERAL, LOWER = Address("10.0.0.1", 60000), Address("10.0.0.1", 40000)
"""A client whose port is above the server's 50051, and one below."""


def seen(events: list[Event]) -> list[tuple[int, int, bytes]]:
    """(direction, offset, octets) of each frame."""
    return [(int(one.direction), one.offset, one.header + (one.payload or b"")) for one in frames_of(events)]


def laid_out(direction: int, start: int, *octets: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    for one in octets:
        found.append((direction, start, one))
        start += len(one)
    return found


# -- the preface, wherever it comes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [1, 80, 443, 12345, 65535])
@pytest.mark.parametrize("size", [None, 1, 10, 24, 30])
def test_the_preface_is_recognised_on_any_port(port: int, size: int | None) -> None:
    talk = Tape().talk(server=Address("10.0.0.2", port)).shake()
    talk.send(UP, PREFACE + settings() + headers(1, GET, flags=5), size)
    talk.send(DOWN, settings() + SETTINGS_ACK + headers(1, OK, flags=5), size)
    events = events_of(talk.tape.packets)
    assert reasons(events) == []
    assert seen(events) == [
        *laid_out(UP, 24, settings(), headers(1, GET, flags=5)),
        *laid_out(DOWN, 0, settings(), SETTINGS_ACK, headers(1, OK, flags=5)),
    ]
    assert {one.connection.server for one in frames_of(events)} == {f"10.0.0.2:{port}"}


@pytest.mark.parametrize("ports", [(), (50051,)])
@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("is_together", [False, True])
def test_an_upgrade_from_http_1_1_is_followed(size: int | None, is_together: bool, ports: tuple[int, ...]) -> None:
    """RFC 7540 §3.2: the server's frames follow its 101, the client's preface its request."""
    talk = Tape().talk().shake().send(UP, UPGRADE, size)
    down = (settings((3, 100)), headers(1, OK), data(1, b"hello", flags=1))
    up = (settings(), SETTINGS_ACK)
    if is_together:
        talk.send(DOWN, SWITCHING + b"".join(down), size).send(UP, PREFACE + b"".join(up), size)
    else:
        talk.send(DOWN, SWITCHING, size).send(UP, PREFACE + b"".join(up), size).send(DOWN, b"".join(down), size)
    events = events_of(talk.tape.packets, ports=ports)
    assert reasons(events) == []
    assert sorted(seen(events)) == sorted(laid_out(DOWN, len(SWITCHING), *down) + laid_out(UP, len(UPGRADE) + 24, *up))
    assert all(one.section.certain for one in frames_of(events) if one.section)


TUNNELS: dict[str, list[tuple[int, bytes]]] = {
    "CONNECT": [
        (UP, b"CONNECT chat:50051 HTTP/1.1\r\nHost: chat:50051\r\n\r\n"),
        (DOWN, b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"),
    ],
    "CONNECT in HTTP/1.0": [(UP, b"CONNECT chat:50051 HTTP/1.0\r\n\r\n"), (DOWN, b"HTTP/1.0 200 OK\r\n\r\n")],
    "SOCKS 5": [
        (UP, b"\x05\x01\x00"),
        (DOWN, b"\x05\x00"),
        (UP, b"\x05\x01\x00\x03\x04chat" + struct.pack(">H", 50051)),
        (DOWN, b"\x05\x00\x00\x01\x7f\0\0\1" + struct.pack(">H", 50051)),
    ],
    "PROXY protocol": [(UP, b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 50051\r\n")],
    "a banner": [(DOWN, b"220 welcome\r\n")],
    "two exchanges first": [
        (UP, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"),
        (DOWN, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (UP, UPGRADE),
        (DOWN, SWITCHING),
    ],
}


@pytest.mark.parametrize("ports", [(), (50051,)])
@pytest.mark.parametrize("tunnel", TUNNELS)
@pytest.mark.parametrize("size", [None, 1, 7])
def test_the_preface_is_found_behind_a_tunnel(tunnel: str, size: int | None, ports: tuple[int, ...]) -> None:
    talk = Tape().talk().shake()
    before = [0, 0]
    for direction, octets in TUNNELS[tunnel]:
        talk.send(direction, octets, size)
        before[direction] += len(octets)
    up, down = (settings(), headers(1, GET, flags=5)), (settings((5, 20_000)), SETTINGS_ACK, headers(1, OK, flags=5))
    talk.send(UP, PREFACE + b"".join(up), size).send(DOWN, b"".join(down), size)
    events = events_of(talk.tape.packets, ports=ports)
    assert seen(events) == laid_out(UP, before[UP] + 24, *up) + laid_out(DOWN, before[DOWN], *down)
    if tunnel != "a banner":
        assert reasons(events) == []
        assert all(one.section.certain for one in frames_of(events) if one.section)


@pytest.mark.parametrize("size", [None, 1, 9])
def test_a_server_may_speak_first(size: int | None) -> None:
    talk = Tape().talk().shake().send(DOWN, settings((3, 10)) + window_update(0, 5), size)
    talk.send(UP, PREFACE + settings(), size)
    events = events_of(talk.tape.packets)
    assert reasons(events) == []
    assert sorted(seen(events)) == [(UP, 24, settings()), *laid_out(DOWN, 0, settings((3, 10)), window_update(0, 5))]
    assert [one.packet for one in events] == sorted(one.packet for one in events)


@pytest.mark.parametrize("size", [None, 1])
def test_a_server_may_speak_and_leave_before_the_client_speaks(size: int | None) -> None:
    talk = Tape().talk().shake().send(DOWN, settings(), size).fin(DOWN).send(UP, PREFACE + settings(), size).fin(UP)
    events = events_of(talk.tape.packets)
    assert (reasons(events), len(frames_of(events))) == ([], 2)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (frame(4, 0x82, 0x80000000, b""), []),
        (settings() + frame(0xFB, 7, 9, b"grease"), []),
        (frame(4, 0, 0, b"1234567"), ["SETTINGS with a payload of 7 octets (RFC 9113 §6.5)"]),
        (ping(), ["the first frame must be SETTINGS, and no acknowledgement (RFC 9113 §3.4)"]),
        (
            data(0, b"x"),
            [
                "the first frame must be SETTINGS, and no acknowledgement (RFC 9113 §3.4)",
                "DATA belongs on a stream, and is on stream 0 (RFC 9113 §6.1)",
            ],
        ),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_with_prior_knowledge_the_servers_first_octet_begins_a_frame(
    first: bytes, told: list[str], size: int | None
) -> None:
    """RFC 9113 §3.3, §3.4: whatever that frame is."""
    talk = Tape().talk().shake().send(UP, PREFACE + settings()).send(DOWN, first + ping(), size)
    events = events_of(talk.tape.packets)
    assert b"".join(octets for direction, _, octets in seen(events) if direction == DOWN) == first + ping()
    assert sorted(reasons(events)) == sorted(told)


def test_a_first_frame_that_cannot_be_one_is_not_tried_again() -> None:
    """SETTINGS of 24,576 octets."""
    talk = Tape().talk().shake().send(UP, PREFACE + settings())
    talk.send(DOWN, b"\0\x60\0\4\0\0\0\0\0" + ping() * 20)
    events = events_of(talk.tape.packets)
    assert [octets for _, _, octets in seen(events)] == [settings(), *[ping()] * 20]
    assert reasons(events) == [
        "no frame can begin here: the frame boundary is lost (RFC 9113 §4.1)",
        "9 octets are not decoded: where frames begin in them cannot be known",
    ]


def test_a_server_that_spoke_first_is_read_though_the_preface_is_lost() -> None:
    talk = Tape().talk().shake().send(DOWN, settings((3, 100)) + ping()[:5]).skip(DOWN, 12).skip(UP, 24 + 9)
    talk.send(UP, headers(1, GET, flags=5)).send(DOWN, headers(1, OK) + data(1, message(b"hello"), flags=1))
    talk.fin(UP).fin(DOWN)
    events = events_of(talk.tape.packets)
    assert seen(events) == [
        *laid_out(DOWN, 0, settings((3, 100))),
        *laid_out(UP, 33, headers(1, GET, flags=5)),
        *laid_out(DOWN, 15 + 17, headers(1, OK), data(1, message(b"hello"), flags=1)),
    ]


def test_a_server_behind_a_tunnel_is_read_though_the_preface_is_lost() -> None:
    talk = Tape().talk().shake()
    answers = b"HTTP/1.1 200 Connection established\r\n\r\n" + SWITCHING
    talk.send(UP, b"CONNECT chat:50051 HTTP/1.1\r\n\r\n").send(DOWN, answers).send(UP, UPGRADE).skip(UP, 24 + 9)
    down = (settings((3, 100)), SETTINGS_ACK, headers(1, OK), data(1, message(b"hello"), flags=1))
    talk.send(DOWN, b"".join(down)).skip(DOWN, 17).send(DOWN, ping())
    talk.fin(DOWN).send(UP, headers(3, GET, flags=5)).fin(UP)
    events = events_of(talk.tape.packets)
    start = len(answers) + sum(map(len, down)) + 17
    expected = [*laid_out(DOWN, len(answers), *down), (DOWN, start, ping())]
    assert [one for one in seen(events) if one[0] == DOWN] == expected


def test_an_answer_in_http_1_1_is_told() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    talk = Tape().talk().shake().send(UP, PREFACE + settings()).send(DOWN, answer).fin(DOWN)
    events = events_of(talk.tape.packets)
    assert seen(events) == [(UP, 24, settings())]
    assert reasons(events) == [
        "no frame can begin here: the frame boundary is lost (RFC 9113 §4.1)",
        f"{len(answer)} octets are not decoded: where frames begin in them cannot be known",
    ]


def test_the_octets_of_h2_itself_are_read() -> None:
    """Both ends by another implementation."""
    ends = [h2.connection.H2Connection(h2.config.H2Configuration(client_side=side)) for side in (True, False)]
    talk = Tape().talk().shake()
    for end in ends:
        end.initiate_connection()

    def exchange() -> None:
        for _ in range(3):
            for direction, end in enumerate(ends):
                octets = end.data_to_send()
                if octets:
                    talk.send(direction, octets)
                    ends[1 - direction].receive_data(octets)

    exchange()
    for stream in range(1, 20, 2):
        ends[UP].send_headers(stream, REQUEST)
        ends[UP].send_data(stream, message(b"x" * stream), end_stream=True)
        exchange()
        ends[DOWN].send_headers(stream, RESPONSE)
        ends[DOWN].send_data(stream, message(b"y" * 1000))
        ends[DOWN].send_headers(stream, TRAILERS, end_stream=True)
        exchange()
    ends[UP].ping(b"12345678")
    exchange()
    ends[DOWN].close_connection()
    exchange()
    events = events_of(talk.tape.packets)
    assert reasons(events) == []
    sections = [list(one.fields) for one in frames_of(events) if one.fields]
    assert sections == [REQUEST, RESPONSE, TRAILERS] * 10
    assert {one.type for one in frames_of(events)} >= {"SETTINGS", "HEADERS", "DATA", "PING", "GOAWAY"}


# -- in the middle -----------------------------------------------------------------------------------------------------


def middle(client: Address = LOWER, **options: Any) -> Talk:
    """A connection whose beginning was not captured."""
    return Tape().talk(client, **options)


@pytest.mark.parametrize("ports", [(), (50051,)])
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_frames_are_found_in_the_middle_of_a_connection(direction: int, ports: tuple[int, ...]) -> None:
    first = data(1, message(b"a message"))
    for cut in range(len(first)):
        talk = middle().send(direction, first[cut:])
        for _ in range(3):
            talk.send(direction, data(1, message(b"more"))).send(1 - direction, window_update(0, 9))
        events = events_of(talk.tape.packets, ports=ports)
        whole = [octets for way, _, octets in seen(events) if way == (direction if ports else 1 - direction)]
        assert whole == ([first] if cut == 0 else []) + [data(1, message(b"more"))] * 3
        skipped = (
            [f"{len(first) - cut} octets are not decoded: where frames begin in them cannot be known"] if cut else []
        )
        assert reasons(events) == skipped


def test_on_a_named_port_the_first_octet_is_tried_as_a_boundary() -> None:
    """Where a chain could not tell: one weak frame."""
    talk = middle().send(UP, data(5, b"no message"))
    assert seen(events_of(talk.tape.packets, ports=(50051,))) == [(UP, 0, data(5, b"no message"))]


def test_octets_that_happen_to_be_possible_do_not_swallow_the_rest() -> None:
    """The end of a payload that reads as the header of a DATA frame of 300 KB."""
    talk = middle().send(UP, b"\x05\0\x40\0\0" + window_update(0, 70))
    talk.send(UP, headers(1, GET)).send(UP, data(1, message(b"x")))
    events = events_of(talk.tape.packets, ports=(50051,))
    assert [octets for _, _, octets in seen(events)] == [window_update(0, 70), headers(1, GET), data(1, message(b"x"))]


def test_a_long_first_frame_on_a_named_port_is_read_whole() -> None:
    talk = middle().send(UP, data(1, b"\xff" * 16_000), 1400).send(UP, ping())
    events = events_of(talk.tape.packets, ports=(50051,))
    assert [octets for _, _, octets in seen(events)] == [data(1, b"\xff" * 16_000), ping()]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_start_in_the_middle_of_tiny_segments_is_found(size: int) -> None:
    octets = b"tail of a frame" + b"".join(data(1, message(b"x" * n)) for n in range(30))
    events = events_of(middle().send(UP, octets, size).tape.packets)
    assert b"".join(octets for _, _, octets in seen(events)) == octets[15:]


def test_once_one_side_is_recognised_less_is_enough_for_the_other() -> None:
    talk = middle().send(UP, headers(1, GET)).send(UP, ping()).send(DOWN, data(1, b"weak"))
    events = events_of(talk.tape.packets)
    assert len(frames_of(events)) == 3


def test_what_came_before_the_other_side_was_recognised_is_not_lost() -> None:
    talk = middle().send(DOWN, data(1, b"weak")).send(UP, headers(1, GET)).send(UP, ping()).send(DOWN, data(1, b"more"))
    events = events_of(talk.tape.packets)
    assert [one.packet for one in frames_of(events)] == [1, 2, 3, 4]


def test_a_late_table_is_unknown_and_never_wrong() -> None:
    up, down = Encoder(), Encoder()
    up.encode(REQUEST), down.encode(RESPONSE)
    talk = (
        middle().send(UP, headers(3, up.encode(REQUEST))).send(DOWN, headers(3, down.encode([*RESPONSE, ("x", "y")])))
    )
    talk.send(UP, headers(5, up.encode(REQUEST))).send(DOWN, headers(5, down.encode([*RESPONSE, ("x", "y")])))
    sections = [one.section for one in frames_of(events_of(talk.tape.packets))]
    for section, whole in zip(sections, [REQUEST, [*RESPONSE, ("x", "y")]] * 2, strict=True):
        assert section is not None
        assert not section.certain
        assert all(
            isinstance(one, Unknown) or one == other
            for got, wanted in zip(section.fields, whole, strict=True)
            for one, other in zip(got, wanted, strict=True)
        )
    assert sections[3] is not None
    assert ("x", "y") in sections[3].fields


def test_a_capture_of_one_direction_is_read() -> None:
    """An asymmetric route: the server's packets only, from its SYN on."""
    tape = chat(2)
    whole = frames_of(events_of(tape.packets))
    down = [one for one in tape.packets if one.data[26:30] == bytes((10, 0, 0, 2))]
    events = events_of(down)
    assert [one._replace(section=None) for one in frames_of(events)] == [
        one._replace(section=None) for one in whole if one.direction == Direction.SERVER_TO_CLIENT
    ]
    up = [one for one in tape.packets if one.data[26:30] == bytes((10, 0, 0, 1))]
    assert frames_of(events_of(up)) == [one for one in whole if one.direction == Direction.CLIENT_TO_SERVER]


# -- who is the client -------------------------------------------------------------------------------------------------

EVIDENCE: dict[str, Callable[[Talk], object]] = {
    "request": lambda talk: talk.send(UP, headers(1, GET)),
    "request with unknown fields": lambda talk: talk.send(UP, headers(1, b"\xbe\x83\xbf")),
    "response": lambda talk: talk.send(DOWN, headers(1, OK)),
    "trailers": lambda talk: talk.send(DOWN, headers(1, Encoder().encode(TRAILERS), flags=5)),
    "promise": lambda talk: talk.send(DOWN, frame(5, 4, 1, struct.pack(">I", 2) + GET)),
    "promise that goes on": lambda talk: talk.send(DOWN, frame(5, 0, 1, struct.pack(">I", 2)) + frame(9, 4, 1, GET)),
    "alternative service": lambda talk: talk.send(DOWN, frame(0xA, 0, 1, b'\0\0h3=":443"')),
    "origin": lambda talk: talk.send(DOWN, frame(0xC, 0, 0, b"\0\5https")),
}


@pytest.mark.parametrize("kind", EVIDENCE)
@pytest.mark.parametrize("ends", [(EPHEMERAL, 50051), (LOWER, 50051), (LOWER, LOWER.port)])
def test_fields_tell_who_is_the_client(kind: str, ends: tuple[Address, int]) -> None:
    client, port = ends
    talk = Tape().talk(client, Address("10.0.0.2", port))
    talk.send(DOWN, ping() + data(1, message(b"x"))).send(UP, ping() + window_update(0, 1))
    EVIDENCE[kind](talk)
    talk.send(DOWN, ping(flags=1)).send(UP, ping(flags=1))
    for ports in ((), (port,), (client.port,)):
        events = events_of(talk.tape.packets, ports=ports)
        assert len(frames_of(events)) == 7 + kind.endswith("goes on")
        assert {one.connection.client for one in frames_of(events)} == {f"{client.ip}:{client.port}"}
        third = UP if kind.startswith("request") else DOWN
        by_packet = {one.packet: int(one.direction) for one in frames_of(events)}
        assert by_packet == {1: DOWN, 2: UP, 3: third, 4: DOWN, 5: UP}


@pytest.mark.parametrize(
    ("client", "ports", "expected"),
    [(EPHEMERAL, (), "10.0.0.1:60000"), (LOWER, (), "10.0.0.2:50051"), (LOWER, (50051,), "10.0.0.1:40000")],
)
def test_without_fields_the_named_port_is_the_servers_else_the_lower(
    client: Address, ports: tuple[int, ...], expected: str
) -> None:
    talk = middle(client).send(UP, ping() + ping()).send(DOWN, ping(flags=1) + ping(flags=1))
    events = events_of(talk.tape.packets, ports=ports)
    assert {one.connection.client for one in frames_of(events)} == {expected}
    ways = {1: UP, 2: DOWN} if expected == f"{client.ip}:{client.port}" else {1: DOWN, 2: UP}
    assert {one.packet: int(one.direction) for one in frames_of(events)} == ways


def test_the_syn_tells_who_is_the_client() -> None:
    for flags, direction in ((SYN, UP), (SYN | ACK, DOWN)):
        talk = Tape().talk(LOWER)
        talk.segment(direction, flags=flags, seq=talk.first[direction])
        talk.send(UP, PREFACE + settings())
        assert {one.connection.client for one in frames_of(events_of(talk.tape.packets))} == {"10.0.0.1:40000"}


def test_all_events_of_a_connection_agree_on_who_is_the_client() -> None:
    talk = (
        middle()
        .send(UP, ping() * 2)
        .send(DOWN, ping() * 2 + data(1, b"\xff", flags=8))
        .skip(UP, 5)
        .send(UP, ping() * 2)
    )
    talk.send(UP, headers(1, GET)).fin(UP).fin(DOWN)
    events = events_of(talk.tape.packets)
    assert gaps_of(events)
    assert problems_of(events)
    assert len(ends_of(events)) == 2
    for event in events:
        assert event.connection is not None
        assert event.connection.client == "10.0.0.1:40000"
    (zero,) = [one for one in problems_of(events) if one.error_code == ErrorCode.PROTOCOL_ERROR]
    assert zero.direction == Direction.SERVER_TO_CLIENT
    assert {int(gap.direction) for gap in gaps_of(events)} == {UP}


@pytest.mark.parametrize("bound", [2_000, 20_000])
def test_a_connection_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    """Beyond the bound the port decides, and nothing is lost or told twice, whatever segments the frames came in."""
    monkeypatch.setattr(recognition, "MAX_HELD_OCTETS", bound)
    talk = middle(EPHEMERAL)
    for _ in range(20):
        talk.send(UP, ping() * 10 + data(1, message(b"x" * 20)) * 3).send(DOWN, window_update(0, 1) * 7)
    got = Pipeline().feed(talk.tape.packets)
    assert len(frames_of(got)) == 20 * 20
    assert {one.connection.client for one in frames_of(got)} == {"10.0.0.1:60000"}
    offsets = [one.offset for one in frames_of(got) if one.direction == UP]
    assert offsets == sorted(set(offsets))


def test_all_held_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_KEPT", 300_000)
    tape = Tape()
    talks = [tape.talk(Address("10.0.0.1", 51_000 + i)) for i in range(50)]
    line = Pipeline()
    events: list[Event] = []
    most = 0
    for _ in range(60):
        start = len(tape.packets)
        for talk in talks:
            talk.send(UP, ping() * 2)
        events += line.feed(tape.packets[start:])
        most = max(most, line._options.kept + line._backlog_octets)
    assert most <= 300_000 + 50 * 2 * 600
    events += line.finish()
    assert len(frames_of(events)) == 50 * 60 * 2
    assert [one.packet for one in events] == sorted(one.packet for one in events)
    assert line._options.kept == 0


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ports", [(), (443,)])
@pytest.mark.parametrize("size", [None, 1, 100])
def test_a_tls_connection_is_named_with_its_server_and_protocols(size: int | None, ports: tuple[int, ...]) -> None:
    hello = real_hello("chat.example.org", ["h2", "http/1.1"])
    talk = Tape().talk(server=Address("10.0.0.2", 443)).shake().send(UP, hello, size)
    talk.send(DOWN, b"\x16\x03\x03\x00\x05" + b"\2\0\0\1\0" + b"\x17\x03\x03\x00\x10" + bytes(16)).fin(UP).fin(DOWN)
    (problem,) = problems_of(events_of(talk.tape.packets, ports=ports))
    assert (problem.layer, problem.offset, problem.direction) == ("tls", 0, Direction.CLIENT_TO_SERVER)
    assert problem.reason == ("TLS: what it carries is encrypted (server name chat.example.org, ALPN h2, http/1.1)")


@pytest.mark.parametrize("size", [None, 1, 100])
def test_tls_behind_a_proxy_is_named(size: int | None) -> None:
    connect = b"CONNECT chat:443 HTTP/1.1\r\nHost: chat:443\r\n\r\n"
    talk = Tape().talk().shake().send(UP, connect, size).send(DOWN, b"HTTP/1.1 200 OK\r\n\r\n", size)
    talk.send(UP, real_hello("chat", ["h2"]), size).send(DOWN, b"\x16\x03\x03\x00\x05" + b"\2\0\0\1\0", size)
    (problem,) = problems_of(events_of(talk.tape.packets))
    assert problem.reason == "TLS: what it carries is encrypted (server name chat, ALPN h2)"
    assert (problem.offset, problem.direction) == (len(connect), Direction.CLIENT_TO_SERVER)


def test_a_tls_connection_without_name_and_protocols_is_named() -> None:
    talk = Tape().talk().shake().send(UP, real_hello(None, []))
    assert reasons(events_of(talk.tape.packets)) == ["TLS: what it carries is encrypted (server name -, ALPN -)"]


def test_tls_is_known_by_its_records_after_a_late_start() -> None:
    talk = middle().send(DOWN, b"\x17\x03\x03\x00\x10" + bytes(16)).send(UP, b"\x17\x03\x03\x00\x10" + bytes(16))
    (problem,) = problems_of(events_of(talk.tape.packets))
    assert (problem.layer, problem.reason) == ("tls", "TLS: what it carries is encrypted")


def test_a_hello_tells_the_client_of_a_late_start() -> None:
    talk = middle(LOWER).send(UP, real_hello("a.b", ["h2"]))
    (problem,) = problems_of(events_of(talk.tape.packets))
    assert problem.connection is not None
    assert problem.connection.client == "10.0.0.1:40000"


def test_a_hello_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Tape().talk().shake()
    for _ in range(30):
        talk.send(UP, b"\x16\x03\x01\x40\x00" + b"\1\xff\xff\xff" + bytes(16380), 1400)
    line = Pipeline()
    events = line.feed(talk.tape.packets)
    assert reasons(events) == ["TLS: what it carries is encrypted"]
    assert line._options.kept == 0


# -- other protocols ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("ports", [(), (50051,)])
def test_another_protocol_is_told_once(is_late: bool, ports: tuple[int, ...]) -> None:
    talk = Tape().talk()
    if not is_late:
        talk.shake()
    for _ in range(5):
        talk.send(UP, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").send(
            DOWN, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
    talk.fin(UP).fin(DOWN)
    events = events_of(talk.tape.packets, ports=ports)
    assert [type(event).__name__ for event in events] == ["Problem"]
    (problem,) = problems_of(events)
    assert problem.octets == sum(len(one.data) - 54 for one in talk.tape.packets)
    assert problem.reason == f"{problem.octets} octets of a connection in which no HTTP/2 was found"


def test_a_connection_without_octets_is_nothing() -> None:
    assert events_of(Tape().talk().shake().fin(UP).fin(DOWN).tape.packets) == []
    assert events_of(Tape().talk().shake().rst(DOWN).tape.packets) == []


def test_octets_kept_of_other_protocols_are_bounded_overall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole connections could yet be upgraded; so their beginnings are kept, but not all of them for ever."""
    monkeypatch.setattr(pipeline, "MAX_KEPT", 1 << 20)
    tape, line = Tape(), Pipeline()
    talks = [tape.talk(Address("10.0.0.1", 1000 + i)).shake() for i in range(100)]
    most = 0
    for _ in range(40):
        start = len(tape.packets)
        for talk in talks:
            talk.send(DOWN, b"HTTP/1.1 200 OK\r\n" + b"x" * 1000)
        line.feed(tape.packets[start:])
        most = max(most, line._options.kept)
    assert most <= (1 << 20) + 100 * 1500
    start = len(tape.packets)
    for talk in talks:
        talk.send(UP, UPGRADE).send(DOWN, SWITCHING + settings()).send(UP, PREFACE + settings())
    events = line.feed(tape.packets[start:]) + line.finish()
    assert len(frames_of(events)) == 200, "and an upgrade is still found"
    assert line._options.kept == 0


# -- ends --------------------------------------------------------------------------------------------------------------


def test_the_ends_of_a_connection_are_told() -> None:
    events = events_of(chat(1).packets)
    assert [(int(end.direction), end.how) for end in ends_of(events)] == [(UP, "fin"), (DOWN, "fin")]
    talk = Tape().talk().open().rst(DOWN)
    talk.rst(DOWN).rst(UP)
    assert [(int(end.direction), end.how) for end in ends_of(events_of(talk.tape.packets))] == [(DOWN, "reset")]


def test_frames_under_way_at_the_reset_are_read() -> None:
    talk = Tape().talk().open().send(UP, headers(1, GET)).rst(UP)
    talk.send(DOWN, headers(1, OK)).send(DOWN, data(1, b"late", flags=1))
    events = events_of(talk.tape.packets)
    assert [octets for way, _, octets in seen(events)[4:]] == [
        headers(1, GET),
        headers(1, OK),
        data(1, b"late", flags=1),
    ]
    assert frames_of(events)[-2].fields == ((":status", "200"),)


def test_a_frame_cut_off_by_the_end_is_told() -> None:
    half = data(1, b"0123456789")[:14]
    for end in (Talk.fin, Talk.rst):
        talk = Tape().talk().open().send(UP, half)
        end(talk, UP)
        assert reasons(events_of(talk.tape.packets)) == ["the connection ended 14 octets into a frame"]
    talk = Tape().talk().open().send(UP, half)
    assert reasons(events_of(talk.tape.packets)) == ["the capture ends 14 octets into a frame"]


def test_reset_connections_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    for i in range(3 * pipeline.MAX_RESETS):
        tape.talk(Address("10.0.0.1", 1000 + i)).open().rst(UP)
    line = Pipeline()
    events = line.feed(tape.packets)
    assert len(line._options.conversations) <= pipeline.MAX_RESETS
    assert len(ends_of(events + line.finish())) == 3 * pipeline.MAX_RESETS


# -- live --------------------------------------------------------------------------------------------------------------


def test_a_live_source_is_told_at_once_where_the_port_is_named() -> None:
    talk = middle(LOWER).send(UP, ping() + data(1, message(b"x")) + ping())
    got = Pipeline(ports=(50051,), live=True).feed(talk.tape.packets)
    assert [one.connection.client for one in frames_of(got)] == ["10.0.0.1:40000"] * 3


def test_a_live_source_waits_a_moment_for_fields_that_tell_the_client() -> None:
    talk = middle(LOWER).send(UP, ping() * 2)
    line = Pipeline(live=True)
    assert line.feed(talk.tape.packets) == []
    talk.tape.packets.clear()
    talk.send(UP, headers(1, GET))
    assert {one.connection.client for one in frames_of(line.feed(talk.tape.packets))} == {"10.0.0.1:40000"}
    talk = middle(LOWER).send(UP, ping() * 2)
    line = Pipeline(live=True)
    line.feed(talk.tape.packets)
    talk.tape.packets.clear()
    talk.tape.time_ns += 2_000_000_000
    talk.send(UP, ping() + data(1, message(b"x")) + ping())
    assert len(frames_of(line.feed(talk.tape.packets))) == 5, "nothing of the segment is left behind"
    assert line.finish() == []


def test_a_live_source_is_not_held_back_by_other_connections() -> None:
    tape = Tape()
    tape.talk(Address("10.0.0.1", 1)).send(UP, ping() * 2)
    tape.talk(Address("10.0.0.1", 2)).open()
    assert len(frames_of(Pipeline(live=True).feed(tape.packets))) == 4
    assert len(frames_of(Pipeline().feed(tape.packets))) == 0


def test_pieces_of_a_conversation_come_as_they_are_known() -> None:
    tape = Tape()
    talk = tape.talk().shake()
    line = Pipeline(live=True)
    line.feed(tape.packets)
    for direction, octets in Chatter(1).pieces(3):
        tape.packets.clear()
        talk.send(direction, octets)
        assert frames_of(line.feed(tape.packets)), octets
