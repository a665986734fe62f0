"""What became of each call."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture import streams
from capture.calls import Calls, binary_metadata, status_message, timeout_ns
from capture.events import Call, Direction, Event, FrameType, Unknown
from capture.messages import Messages
from tests.capture.factory import CLIENT, PATH, SERVER, Talk, message

HELLO = message(b"\x0a\x04Hola")


def run(events: list[Event], *, step: int = 1000) -> list[Call]:
    """The calls of a capture whose events come in batches of `step`."""
    messages, calls, found = Messages(), Calls(), []
    for at in range(0, len(events), step):
        batch = events[at : at + step]
        found += calls.feed(batch, messages.feed(batch))
    return found + calls.finish()


def chat(talk: Talk, stream: int = 1) -> None:
    talk.request(stream)
    talk.response(stream)
    talk.data(CLIENT, stream, HELLO)
    talk.data(SERVER, stream, HELLO * 2)


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_a_call_that_ends_well(step: int) -> None:
    talk = Talk()
    talk.begin()
    start = talk.request(1)
    talk.data(CLIENT, 1, HELLO, pad=7)
    closed = talk.data(CLIENT, 1, HELLO, end=True)
    talk.response(1)
    first = talk.data(SERVER, 1, HELLO[:3])
    first = talk.data(SERVER, 1, HELLO[3:] + HELLO)
    end = talk.trailers(1)
    (call,) = run(talk.events, step=step)
    assert call == Call(
        talk.connection, 1, PATH, start.time_ns, first.time_ns, end.time_ns, 0, None, 2, 2, 22, 22, "trailers",
        is_grpc=True, http_status=200, timeout_ns=None, half_closed_ns=closed.time_ns, error_code=None,
        ended_by=SERVER, details=None,
    )  # fmt: skip


def test_trailers_only_carry_the_status_and_its_message() -> None:
    talk = Talk()
    talk.request(1)
    end = talk.trailers_only(1, "5", {"grpc-message": "no room %23caf%C3%A9 100%25"})
    (call,) = run(talk.events)
    assert (call.status, call.status_message, call.end) == (5, "no room #café 100%", "trailers_only")
    assert (call.first_response_ns, call.end_ns, call.received_messages) == (None, end.time_ns, 0)


def test_trailers_in_many_pieces_end_the_call_with_the_last() -> None:
    talk = Talk()
    chat(talk)
    end = talk.trailers(1, "13", pieces=3)
    (call,) = run(talk.events)
    assert (call.status, call.end, call.end_ns) == (13, "trailers", end.time_ns)


@pytest.mark.parametrize(("by", "code"), [(CLIENT, 8), (SERVER, 0)])
def test_a_reset_says_who_and_why(by: Direction, code: int) -> None:
    talk = Talk()
    talk.request(1, extra={"grpc-timeout": "250m"})
    end = talk.reset(by, 1, code)
    (call,) = run(talk.events)
    assert (call.end, call.error_code, call.ended_by, call.status) == ("reset", code, by, None)
    assert (call.end_ns, call.timeout_ns) == (end.time_ns, 250_000_000)


def test_what_comes_after_a_call_s_end_makes_no_new_call() -> None:
    talk = Talk()
    chat(talk)
    talk.trailers(1)
    talk.reset(SERVER, 1, 0)
    talk.data(CLIENT, 1, HELLO, end=True)
    talk.window_update(SERVER, 1, 5)
    (call,) = run(talk.events)
    assert (call.end, call.sent_messages) == ("trailers", 1)


def test_calls_come_in_the_order_of_their_ends_and_then_the_rest_by_their_start() -> None:
    talk = Talk()
    for stream in (1, 3, 5, 7):
        chat(talk, stream)
    talk.trailers(5)
    talk.reset(CLIENT, 1)
    calls = run(talk.events)
    assert [(call.stream_id, call.end) for call in calls] == [(5, "trailers"), (1, "reset"), (3, "open"), (7, "open")]
    assert calls[2].end_ns is None


def test_a_goaway_ends_the_calls_that_it_leaves_out_and_no_others() -> None:
    talk = Talk()
    for stream in (1, 3, 5):
        chat(talk, stream)
    talk.goaway(SERVER, 2**31 - 1)
    away = talk.goaway(SERVER, 3)
    talk.trailers(1)
    talk.request(7)  # crossed the GOAWAY on its way
    gone = talk.finish(SERVER)
    calls = run(talk.events)
    assert [(call.stream_id, call.end, call.end_ns) for call in calls] == [
        (5, "goaway", away.time_ns),
        (1, "trailers", talk.frames[-2].time_ns),
        (3, "cut", gone.time_ns),
        (7, "goaway", gone.time_ns),
    ]


def test_a_connection_that_ends_after_a_goaway_with_an_error_ends_its_calls_with_goaway() -> None:
    talk = Talk()
    chat(talk)
    talk.goaway(SERVER, 1, 11, b"too_many_pings")
    talk.finish(SERVER, "reset")
    (call,) = run(talk.events)
    assert (call.end, call.error_code, call.ended_by) == ("goaway", 11, SERVER)


def test_a_client_s_goaway_leaves_its_own_calls_alone() -> None:
    talk = Talk()
    chat(talk)
    talk.goaway(CLIENT, 0)
    talk.trailers(1)
    assert [call.end for call in run(talk.events)] == ["trailers"]


@pytest.mark.parametrize("how", ["reset", "replaced", "idle"])
def test_a_connection_that_ends_cuts_its_calls(how: str) -> None:
    talk = Talk()
    chat(talk)
    end = talk.finish(CLIENT, how)
    (call,) = run(talk.events)
    assert (call.end, call.end_ns, call.ended_by) == ("cut", end.time_ns, CLIENT)


def test_after_the_client_s_fin_the_server_may_still_answer() -> None:
    talk = Talk()
    chat(talk)
    chat(talk, 3)
    gone = talk.finish(CLIENT)
    talk.trailers(1)
    calls = run(talk.events)
    assert [(call.stream_id, call.end) for call in calls] == [(1, "trailers"), (3, "cut")]
    assert calls[1].end_ns == gone.time_ns
    talk.finish(SERVER)
    assert [call.end for call in run(talk.events)] == ["trailers", "cut"]


def test_connections_do_not_mix() -> None:
    one, two = Talk(0), Talk(1)
    chat(one)
    chat(two)
    one.trailers(1)
    events = [event for pair in zip(one.events, two.events, strict=False) for event in pair] + one.events[-1:]
    calls = run(events)
    assert [(call.connection.number, call.end, call.received_messages) for call in calls] == [
        (0, "trailers", 2),
        (1, "open", 2),
    ]


# --- Late starts and gaps


def test_after_a_late_start_a_call_begins_with_the_first_frame_seen_of_it() -> None:
    talk = Talk(whole=False)
    first = talk.data(SERVER, 7, HELLO)
    talk.trailers(7)
    (call,) = run(talk.events)
    assert (call.path, call.start_ns, call.end, call.status) == (None, first.time_ns, "trailers", 0)
    assert (call.is_grpc, call.received_messages) == (True, 1)


def test_of_trailers_alone_it_is_known_which_kind_they_are_by_their_status() -> None:
    talk = Talk(whole=False)
    talk.trailers(7)
    talk.trailers_only(9, "3")
    assert [(call.stream_id, call.end) for call in run(talk.events)] == [(7, "trailers"), (9, "trailers_only")]


def test_what_is_unknown_of_trailers_stays_unknown() -> None:
    talk = Talk(whole=False)
    talk.data(SERVER, 7, HELLO)
    talk.trailers(7, Unknown("?-1"), {"grpc-message": Unknown("?-2")})
    (call,) = run(talk.events)
    assert (call.status, call.status_message, call.end) == (None, None, "trailers")


def test_trailers_of_unknown_fields_behind_a_gap_that_may_hold_the_response_are_no_trailers_only() -> None:
    talk = Talk()
    talk.request(1)
    talk.gap(SERVER)
    talk.trailers(1, None, {Unknown("?-1"): Unknown("?-1")})
    talk.request(3)
    talk.headers(SERVER, 3, [(Unknown("?-2"), "200"), (Unknown("?-1"), Unknown("?-1"))], end=True)
    assert [(call.stream_id, call.end) for call in run(talk.events)] == [(1, "trailers"), (3, "trailers_only")]


def test_an_informational_response_is_not_the_response() -> None:
    talk = Talk()
    talk.request(1)
    talk.headers(SERVER, 1, [(":status", "103"), ("link", "</style.css>; rel=preload")])
    talk.request(3)
    talk.headers(SERVER, 3, [(":status", "100")])
    talk.trailers_only(3, "12")
    calls = {call.stream_id: call for call in run(talk.events)}
    assert (calls[1].http_status, calls[1].end) == (None, "open")
    assert (calls[3].http_status, calls[3].end) == (200, "trailers_only")


def test_a_lone_reset_or_window_update_makes_no_call() -> None:
    talk = Talk(whole=False)
    talk.reset(SERVER, 7)
    talk.window_update(SERVER, 9, 5)
    assert run(talk.events) == []


def test_request_headers_that_a_gap_tore_leave_the_path_unknown() -> None:
    talk = Talk()
    talk.request(1, pieces=2)
    first, second = talk.take()
    gap = talk.gap(CLIENT)
    (call,) = run([first, gap, second])
    assert (call.path, call.end) == (PATH, "open")
    (call,) = run([first, gap])
    assert (call.path, call.end) == (None, "open")


# --- Plain HTTP


def test_a_plain_http_request_is_listed_with_its_http_status_and_no_messages() -> None:
    talk = Talk()
    talk.headers(CLIENT, 1, [(":method", "GET"), (":scheme", "http"), (":path", "/index.html")], end=True)
    talk.response(1, {":status": "404", "content-type": "text/html"})
    body = talk.data(SERVER, 1, b"<html>", end=True)
    (call,) = run(talk.events)
    assert (call.path, call.is_grpc, call.http_status, call.status) == ("/index.html", False, 404, None)
    assert (call.end, call.first_response_ns, call.received_messages, call.received_octets) == (
        "trailers",
        body.time_ns,
        0,
        6,
    )


def test_a_grpc_call_that_a_proxy_answers_stays_a_grpc_call() -> None:
    talk = Talk()
    talk.request(1)
    talk.headers(SERVER, 1, [(":status", "503"), ("content-type", "text/plain")], end=True)
    (call,) = run(talk.events)
    assert (call.is_grpc, call.http_status, call.status, call.end) == (True, 503, None, "trailers_only")


def test_what_a_server_promises_is_no_call() -> None:
    talk = Talk()
    chat(talk)
    talk.headers(SERVER, 1, [(":path", "/x")], kind=FrameType.PUSH_PROMISE, prefix=bytes([0, 0, 0, 2]), pieces=2)
    talk.headers(SERVER, 2, [(":status", "200")])
    talk.data(SERVER, 2, b"pushed", end=True)
    assert [call.stream_id for call in run(talk.events)] == [1]


# --- Details


def test_status_details_are_decoded() -> None:
    status = b"\x08\x09\x12\x04full"
    talk = Talk()
    talk.request(1)
    talk.trailers_only(1, "9", {"grpc-status-details-bin": base64.b64encode(status).decode().rstrip("=")})
    (call,) = run(talk.events)
    assert call.details == {"code": 9, "message": "full"}


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        ("CAk", b"\x08\x09"),
        ("CAk=", b"\x08\x09"),
        ("", b""),
        (b"\x00\xff\xfe", b"\xff\xfe"),
        ("\x00plain", b"plain"),
        ("no base64!", None),
        ("A", None),
        (b"\xff\xfe", None),
        (Unknown("?-1"), None),
        (None, None),
    ],
)
def test_binary_metadata_is_base64_or_true_binary(value: object, octets: bytes | None) -> None:
    assert binary_metadata(value) == octets


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("caf%C3%A9", "café"),
        ("%zz%4", "%zz%4"),
        ("%ff", "\ufffd"),
        (b"caf%C3%A9 \xff", "café \ufffd"),
        (Unknown("?-1"), None),
        (None, None),
    ],
)
def test_a_status_message_is_percent_decoded_and_never_refused(value: object, text: str | None) -> None:
    assert status_message(value) == text


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("1H", 3_600_000_000_000),
        ("2M", 120_000_000_000),
        ("3S", 3_000_000_000),
        ("250m", 250_000_000),
        ("99999999u", 99_999_999_000),
        ("7n", 7),
        ("123456789n", None),
        ("5", None),
        ("s", None),
        ("-1S", None),
        ("", None),
        ("٣S", None),
    ],
)
def test_deadlines_are_read_in_every_unit(value: str, ns: int | None) -> None:
    assert timeout_ns(value) == ns


@pytest.mark.parametrize("status", ["", "abc", "-1", "1" * 30, "²"])
def test_a_status_that_is_no_number_is_none(status: str) -> None:
    talk = Talk()
    chat(talk)
    talk.trailers(1, status)
    assert run(talk.events)[0].status is None


def test_too_many_calls_at_once_let_the_oldest_go_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    talk = Talk()
    for stream in (1, 3, 5):
        talk.request(stream)
    talk.trailers_only(5, "0")
    assert [(call.stream_id, call.end) for call in run(talk.events)] == [
        (1, "open"),
        (5, "trailers_only"),
        (3, "open"),
    ]


@given(st.lists(st.tuples(st.sampled_from(list(Direction)), st.integers(0, 9), st.integers(0, 255), st.integers(0, 5),
                          st.binary(max_size=30), st.booleans()), max_size=30), st.integers(1, 5))  # fmt: skip
def test_any_frames_in_any_batches_make_the_same_calls(
    frames: list[tuple[Direction, int, int, int, bytes, bool]], step: int
) -> None:
    talk = Talk()
    for direction, type_code, flags, stream, payload, lost in frames:
        talk.frame(direction, type_code, payload, flags=flags, stream=stream, lost=lost)
    assert run(talk.events, step=step) == run(talk.events)
