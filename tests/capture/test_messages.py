"""Length-prefixed messages out of DATA frames, whole and torn, and never glued together over a hole."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import assembly, streams
from capture.events import Direction, Event, FrameType, MessageEvent, Packet, Problem, Unknown
from capture.messages import MAX_RESET, Messages, trouble_with
from capture.pcap import read
from capture.pipeline import Pipeline
from capture.protobuf import MAX_MESSAGE_OCTETS, Schema
from tests.capture.factory import CLIENT, PATH, SERVER, Talk, message

HELLO = b"\x0a\x04Hola"
CUT = "the connection or the capture ends within a message"


def run(events: Iterable[Event], stage: Messages | None = None) -> list[MessageEvent | Problem]:
    stage = stage or Messages()
    return stage.feed(events) + stage.finish()


def data_of(result: Iterable[MessageEvent | Problem]) -> list[bytes]:
    return [item.data for item in result if isinstance(item, MessageEvent)]


def reasons(result: Iterable[MessageEvent | Problem]) -> list[str]:
    return [item.reason for item in result if isinstance(item, Problem)]


def begun() -> Talk:
    """A chat whose headers went both ways."""
    talk = Talk()
    talk.begin()
    talk.request(1)
    talk.response(1)
    return talk


# --- Whole connections


def test_a_message_has_its_frame_s_packet_and_its_stream_s_path() -> None:
    talk = begun()
    frame = talk.data(CLIENT, 1, message(HELLO))
    (found,) = run(talk.events)
    assert isinstance(found, MessageEvent)
    assert found[:8] == (frame.packet, frame.time_ns, talk.connection, CLIENT, 1, PATH, False, 6)
    assert found.data == HELLO
    assert found.message == {"1": "Hola"}


def test_with_a_schema_a_message_is_decoded_by_its_method_and_direction() -> None:
    talk = Talk()
    talk.request(1, "/minichat.v1.ChatService/Join")
    talk.data(CLIENT, 1, message(b"\x0a\x04Juan"), end=True)
    talk.response(1)
    talk.data(SERVER, 1, message(b"\x0a\x05token"))
    talk.trailers(1)
    found = run(talk.events, Messages(Schema.default()))
    assert [item.message for item in found if isinstance(item, MessageEvent)] == [
        {"user": "Juan"},
        {"session_token": "token"},
    ]


def test_a_response_is_decoded_by_its_method_though_its_headers_are_lost() -> None:
    talk = Talk()
    talk.request(1, "/minichat.v1.ChatService/Join")
    talk.data(CLIENT, 1, message(b"\x0a\x04Juan"), end=True)
    talk.gap(SERVER)
    talk.data(SERVER, 1, message(b"\x0a\x05token"))
    found = run(talk.events, Messages(Schema.default()))
    assert [item.message for item in found if isinstance(item, MessageEvent)] == [
        {"user": "Juan"},
        {"session_token": "token"},
    ]


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_message_may_be_cut_anywhere(cut: int) -> None:
    talk = begun()
    octets = message(HELLO)
    talk.data(CLIENT, 1, octets[:cut])
    last = talk.data(CLIENT, 1, octets[cut:])
    (found,) = run(talk.events)
    assert isinstance(found, MessageEvent)
    assert (found.data, found.packet) == (HELLO, last.packet)


def test_octet_by_octet_the_messages_are_the_same() -> None:
    talk = begun()
    for octet in message(HELLO) + message(b"") + message(b"x" * 300):
        talk.data(CLIENT, 1, bytes([octet]))
    assert data_of(run(talk.events)) == [HELLO, b"", b"x" * 300]


def test_a_frame_may_hold_many_messages_and_the_beginning_of_another() -> None:
    talk = begun()
    talk.data(SERVER, 1, message(b"a") + message(b"") + message(b"bb") + message(b"ccc")[:6])
    talk.data(SERVER, 1, message(b"ccc")[6:] + message(b"d"))
    assert data_of(run(talk.events)) == [b"a", b"", b"bb", b"ccc", b"d"]


def test_padding_is_no_part_of_messages() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO)[:7], pad=9)
    talk.data(CLIENT, 1, message(HELLO)[7:], pad=0)
    talk.data(CLIENT, 1, b"", pad=200)
    talk.data(CLIENT, 1, message(b"next"), pad=1)
    assert data_of(run(talk.events)) == [HELLO, b"next"]


def test_streams_and_directions_do_not_mix() -> None:
    talk = begun()
    talk.request(3)
    talk.response(3)
    octets = message(b"0123456789")
    parts = [(CLIENT, 1), (SERVER, 1), (CLIENT, 3), (SERVER, 3)]
    for at in range(0, len(octets), 4):
        for direction, stream in parts:
            talk.data(direction, stream, octets[at : at + 4])
    found = run(talk.events)
    assert [(m.direction, m.stream_id) for m in found if isinstance(m, MessageEvent)] == parts


def test_connections_do_not_mix() -> None:
    one, two = Talk(0), Talk(1)
    for talk in (one, two):
        talk.request(1, f"/a.B/C{talk.connection.number}")
        talk.data(CLIENT, 1, message(b"xy")[:6])
    for talk in (one, two):
        talk.data(CLIENT, 1, message(b"xy")[6:])
    events = [event for pair in zip(one.events, two.events, strict=True) for event in pair]
    found = run(events)
    assert [(m.connection.number, m.path) for m in found if isinstance(m, MessageEvent)] == [
        (0, "/a.B/C0"),
        (1, "/a.B/C1"),
    ]


@given(st.data())
def test_however_messages_are_cut_and_batched_they_are_the_same(data: st.DataObject) -> None:
    contents = data.draw(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
    octets = b"".join(map(message, contents))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)), max_size=8)))
    talk = begun()
    for start, stop in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        talk.data(CLIENT, 1, octets[start:stop], pad=data.draw(st.none() | st.integers(0, 3)))
    stage, found = Messages(check=False), []
    at = 0
    while at < len(talk.events):
        step = data.draw(st.integers(1, 5))
        found += stage.feed(talk.events[at : at + step])
        at += step
    assert found + stage.finish() == run(talk.events, Messages(check=False))
    assert data_of(found) == contents


# --- Ends


def test_end_stream_within_a_message_is_a_problem() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO)[:8], end=True)
    (problem,) = run(talk.events)
    assert isinstance(problem, Problem)
    assert problem.layer == "grpc"
    assert problem.reason == "END_STREAM within a message: 3 of 6 octets (gRPC: Length-Prefixed-Message)"
    assert problem.packet == talk.packet


def test_end_stream_within_a_prefix_is_a_problem() -> None:
    talk = begun()
    talk.data(CLIENT, 1, b"\x00\x00", end=True)
    assert reasons(run(talk.events)) == ["DATA ends within a message's prefix: 2 of 5 octets"]


def test_trailers_within_a_message_are_a_problem() -> None:
    talk = begun()
    talk.data(SERVER, 1, message(HELLO)[:-1])
    talk.trailers(1)
    assert reasons(run(talk.events)) == ["END_STREAM within a message: 5 of 6 octets (gRPC: Length-Prefixed-Message)"]


def test_a_reset_within_a_message_is_no_problem_and_the_other_side_s_messages_still_come() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO)[:8])
    talk.reset(CLIENT, 1)
    talk.data(SERVER, 1, message(b"under way"))
    talk.reset(SERVER, 1)
    talk.data(SERVER, 1, message(b"too late"))
    found = run(talk.events, Messages(check=False))
    assert (data_of(found), reasons(found)) == ([b"under way"], [])


def test_of_many_streams_that_were_reset_the_oldest_are_let_go() -> None:
    talk = begun()
    for stream in range(3, 3 + 2 * (MAX_RESET + 1), 2):
        talk.request(stream)
        talk.response(stream)
        talk.reset(CLIENT, stream)
    talk.data(SERVER, 3, message(b"late"))
    talk.data(SERVER, 5, message(b"in time"))
    assert data_of(run(talk.events, Messages(check=False))) == [b"in time"]


@pytest.mark.parametrize("how", ["fin", "reset", "replaced", "idle"])
def test_a_connection_s_end_within_a_message_is_a_problem(how: str) -> None:
    talk = begun()
    talk.data(SERVER, 1, message(HELLO)[:8])
    talk.finish(SERVER, how)
    talk.finish(CLIENT, how)
    assert reasons(run(talk.events)) == [f"{CUT}: 3 of 6 octets"]


def test_after_the_client_s_fin_the_server_s_messages_still_come() -> None:
    talk = begun()
    talk.finish(CLIENT)
    talk.data(SERVER, 1, message(b"a"))
    talk.finish(SERVER)
    assert data_of(run(talk.events, Messages(check=False))) == [b"a"]


def test_the_capture_s_end_within_a_message_is_a_problem() -> None:
    talk = begun()
    talk.data(SERVER, 1, message(HELLO)[:8])
    assert reasons(run(talk.events)) == [f"{CUT}: 3 of 6 octets"]


def test_a_call_that_ends_well_leaves_no_problem() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO), end=True)
    talk.data(SERVER, 1, message(HELLO))
    talk.trailers(1)
    talk.reset(SERVER, 1, 0)
    talk.finish(CLIENT)
    talk.finish(SERVER)
    found = run(talk.events)
    assert (data_of(found), reasons(found)) == ([HELLO, HELLO], [])


def test_trailers_without_grpc_status_are_a_problem() -> None:
    talk = begun()
    talk.trailers(1, None)
    assert reasons(run(talk.events)) == ["the call ends without grpc-status (gRPC: Trailers)"]


def test_a_grpc_status_that_is_no_number_is_a_problem() -> None:
    talk = begun()
    talk.trailers(1, "OK")
    assert reasons(run(talk.events)) == ["grpc-status is OK, and no number (gRPC: Status)"]


def test_a_server_that_ends_with_data_is_a_problem() -> None:
    talk = begun()
    talk.data(SERVER, 1, message(HELLO), end=True)
    assert reasons(run(talk.events)) == ["the call ends with DATA, without trailers (gRPC: Responses)"]


# --- What is gRPC


@pytest.mark.parametrize("content_type", ["application/json", "application/grpc-web+proto", None])
def test_what_is_not_grpc_has_no_messages(content_type: str | None) -> None:
    talk = Talk()
    talk.request(1, extra={"content-type": content_type})
    talk.response(1, {"content-type": content_type})
    talk.data(CLIENT, 1, message(HELLO), end=True)
    talk.data(SERVER, 1, message(HELLO)[:6], end=True)
    assert run(talk.events) == []


def test_a_response_of_another_type_to_a_grpc_request_has_no_messages() -> None:
    talk = Talk()
    talk.request(1)
    talk.data(CLIENT, 1, message(HELLO), end=True)
    talk.response(1, {":status": "502", "content-type": "text/html"})
    talk.data(SERVER, 1, b"<html>", end=True)
    found = run(talk.events)
    assert (data_of(found), reasons(found)) == ([HELLO], [])


def test_what_a_server_promises_is_not_grpc() -> None:
    talk = begun()
    talk.headers(SERVER, 1, [(":path", "/x")], kind=FrameType.PUSH_PROMISE, prefix=bytes([0, 0, 0, 2]))
    talk.headers(SERVER, 2, [(":status", "200"), ("content-type", "application/grpc")])
    talk.data(SERVER, 2, message(HELLO), end=True)
    assert run(talk.events) == []


def test_an_informational_response_comes_before_the_headers_that_count() -> None:
    talk = Talk()
    talk.request(1)
    talk.headers(SERVER, 1, [(":status", "103"), ("link", "x")])
    talk.response(1)
    talk.data(SERVER, 1, message(HELLO)[:4])
    talk.data(SERVER, 1, message(HELLO)[4:])
    assert data_of(run(talk.events)) == [HELLO]


def test_headers_in_many_pieces_end_the_stream_with_the_last_one() -> None:
    talk = Talk()
    talk.request(1, pieces=4)
    talk.response(1)
    talk.data(CLIENT, 1, message(HELLO)[:8])
    talk.data(SERVER, 1, message(b"s"))
    talk.trailers(1, pieces=2)
    talk.data(CLIENT, 1, message(HELLO)[8:], end=True)
    assert data_of(run(talk.events)) == [b"s", HELLO]


# --- Encodings


def test_each_direction_has_its_own_encoding() -> None:
    talk = Talk()
    talk.request(1, extra={"grpc-encoding": "gzip"})
    talk.response(1, {"grpc-encoding": "identity"})
    packed = gzip.compress(HELLO)
    talk.data(CLIENT, 1, message(packed, 1))
    talk.data(SERVER, 1, message(HELLO))
    client, server = run(talk.events)
    assert isinstance(client, MessageEvent)
    assert isinstance(server, MessageEvent)
    assert (client.compressed, client.length, client.message) == (True, len(packed), {"1": "Hola"})
    assert (server.compressed, server.message) == (False, {"1": "Hola"})


def test_an_unknown_encoding_is_named_once_for_a_stream() -> None:
    talk = Talk()
    talk.request(1, extra={"grpc-encoding": "snappy"})
    talk.data(CLIENT, 1, message(HELLO))
    talk.data(CLIENT, 1, message(b"??", 1))
    talk.data(CLIENT, 1, message(b"??", 1))
    found = run(talk.events)
    assert reasons(found) == ["messages compressed as snappy are not read here; this is the stream's first"]
    assert [item.message for item in found if isinstance(item, MessageEvent)] == [{"1": "Hola"}, None, None]


def test_a_message_that_cannot_be_read_is_a_problem_behind_it() -> None:
    talk = begun()
    frame = talk.data(CLIENT, 1, message(b"\x0a\x09short"))
    found, problem = run(talk.events)
    assert isinstance(found, MessageEvent)
    assert found.message is None
    assert isinstance(problem, Problem)
    assert (problem.layer, problem.packet, problem.offset) == ("protobuf", frame.packet, frame.offset)
    assert problem.reason == "field 1 at octet 0 claims 9 octets, 5 are left"


def test_without_checking_the_problem_is_told_on_asking() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(b"\x0a\x09short"))
    talk.data(CLIENT, 1, message(HELLO))
    bad, good = run(talk.events, Messages(check=False))
    assert isinstance(bad, MessageEvent)
    assert isinstance(good, MessageEvent)
    trouble = trouble_with(bad)
    assert trouble is not None
    assert trouble.reason == "field 1 at octet 0 claims 9 octets, 5 are left"
    assert trouble_with(good) is None


def test_the_content_subtype_says_how_messages_are_written() -> None:
    talk = Talk()
    talk.request(1, extra={"content-type": "application/grpc+json"})
    talk.data(CLIENT, 1, message(b'{"user": "Juan"}'))
    (found,) = run(talk.events)
    assert isinstance(found, MessageEvent)
    assert found.message == {"user": "Juan"}


# --- Impossible prefixes and lengths


def test_a_compressed_flag_that_does_not_exist_loses_the_boundary_until_a_frame_of_whole_messages() -> None:
    talk = begun()
    talk.data(CLIENT, 1, b"\x02\x00\x00\x00\x01x")
    talk.data(CLIENT, 1, b"more")
    talk.data(CLIENT, 1, message(HELLO))
    found = run(talk.events)
    assert data_of(found) == [HELLO]
    assert reasons(found) == [
        "the compressed flag is 2; only 0 and 1 exist (gRPC: Compressed-Flag)",
        "5 octets of DATA were passed over: nothing says where a message begins in them",
    ]


def test_a_message_longer_than_any_is_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_MESSAGE_OCTETS", 100)
    talk = begun()
    talk.data(CLIENT, 1, message(b"x" * 101)[:50])
    stage = Messages()
    assert reasons(stage.feed(talk.take())) == ["a message of 101 octets is passed over: at most 100 are put together"]
    assert stage.buffered == 0
    talk.data(CLIENT, 1, message(b"x" * 101)[50:] + message(HELLO))
    assert data_of(run(talk.events, stage)) == [HELLO]


def test_a_length_of_four_gibibytes_costs_nothing() -> None:
    talk = begun()
    stage = Messages()
    talk.data(CLIENT, 1, b"\x00\xff\xff\xff\xff" + bytes(1000))
    assert reasons(stage.feed(talk.take())) == [
        f"a message of 4294967295 octets is passed over: at most {MAX_MESSAGE_OCTETS} are put together"
    ]
    for _ in range(100):
        talk.data(CLIENT, 1, bytes(16384))
    assert stage.feed(talk.take()) == []
    assert stage.buffered == 0


def test_unfinished_messages_of_all_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_BUFFERED", 1000)
    talk = begun()
    stage = Messages(check=False)
    for stream in (3, 5, 7):
        talk.request(stream)
        talk.data(CLIENT, stream, message(bytes(500))[:405])
    assert reasons(stage.feed(talk.take())) == [
        "a message of 500 octets is given up: more than 1000 octets are unfinished"
    ]
    assert stage.buffered <= 1000
    for stream in (3, 5, 7):
        talk.data(CLIENT, stream, message(bytes(500))[405:])
        talk.data(CLIENT, stream, message(b"next"))
    assert [len(data) for data in data_of(stage.feed(talk.take()))] == [500, 4, 500, 4, 4]
    assert stage.buffered == 0


def test_the_octets_kept_are_given_back_however_streams_end() -> None:
    stage = Messages()
    for i, end in enumerate(("end", "reset", "gap", "fin", "idle", "lost", "finish")):
        talk = Talk(i)
        talk.request(1)
        talk.data(CLIENT, 1, message(bytes(100))[:50])
        if end == "end":
            talk.data(CLIENT, 1, b"", end=True)
        elif end == "reset":
            talk.reset(CLIENT, 1)
        elif end == "gap":
            talk.gap(CLIENT)
        elif end == "lost":
            talk.data(CLIENT, 1, bytes(500), lost=True)
        elif end != "finish":
            talk.finish(CLIENT, end)
        stage.feed(talk.events)
    assert stage.buffered == 50
    stage.finish()
    assert stage.buffered == 0


# --- Holes


def test_octets_lost_inside_a_message_cost_that_message_alone() -> None:
    talk = begun()
    octets = message(b"x" * 100)
    talk.data(CLIENT, 1, message(b"before") + octets[:20])
    talk.data(CLIENT, 1, octets[20:60], lost=True)
    talk.data(CLIENT, 1, octets[60:] + message(b"after")[:3])
    talk.data(CLIENT, 1, message(b"after")[3:])
    found = run(talk.events, Messages(check=False))
    assert data_of(found) == [b"before", b"after"]
    assert reasons(found) == ["a message of 100 octets is lost: the capture lacks 40 of them"]


def test_octets_lost_to_a_message_s_very_end_leave_the_boundary_known() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(b"x" * 100)[:20])
    talk.data(CLIENT, 1, message(b"x" * 100)[20:], lost=True)
    talk.data(CLIENT, 1, message(b"after")[:3])
    talk.data(CLIENT, 1, message(b"after")[3:])
    assert data_of(run(talk.events, Messages(check=False))) == [b"after"]


def test_octets_lost_over_a_boundary_lose_it_until_a_frame_of_whole_messages() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(b"x" * 100)[:20])
    talk.data(CLIENT, 1, message(b"x" * 100)[20:] + message(b"y"), lost=True)
    talk.data(CLIENT, 1, message(b"torn")[:6])
    talk.data(CLIENT, 1, message(b"torn")[6:])
    talk.data(CLIENT, 1, message(b"one") + message(b"two"))
    found = run(talk.events, Messages(check=False))
    assert data_of(found) == [b"one", b"two"]
    assert reasons(found) == [
        "DATA of 91 octets is lost, and with it where messages begin; that is looked for again",
        "9 octets of DATA were passed over: nothing says where a message begins in them",
    ]


def test_lost_padding_may_be_of_any_length_so_the_boundary_is_lost() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(b"x" * 100)[:20])
    talk.data(CLIENT, 1, message(b"x" * 100)[20:50], pad=10, lost=True)
    talk.data(CLIENT, 1, message(b"x" * 100)[50:])
    talk.data(CLIENT, 1, message(b"good"))
    assert data_of(run(talk.events, Messages(check=False))) == [b"good"]


def test_an_empty_frame_that_is_lost_loses_nothing() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO)[:6])
    talk.data(CLIENT, 1, b"", lost=True)
    talk.data(CLIENT, 1, message(HELLO)[6:])
    found = run(talk.events)
    assert (data_of(found), reasons(found)) == ([HELLO], [])


def test_impossible_padding_is_a_hole() -> None:
    talk = begun()
    talk.frame(CLIENT, FrameType.DATA, b"\x09abc", flags=8, stream=1)
    talk.data(CLIENT, 1, message(HELLO))
    found = run(talk.events)
    assert data_of(found) == [HELLO]
    assert len(reasons(found)) == 1


def test_a_gap_loses_the_message_under_way_and_the_boundary_of_every_stream_of_that_direction() -> None:
    talk = begun()
    talk.request(3)
    talk.data(CLIENT, 1, message(b"x" * 100)[:50])
    talk.data(SERVER, 1, message(b"server")[:6])
    talk.gap(CLIENT)
    talk.data(CLIENT, 1, message(b"x" * 100)[50:])
    talk.data(CLIENT, 3, b"tail of a message")
    talk.data(SERVER, 1, message(b"server")[6:])
    talk.data(CLIENT, 1, message(b"whole"))
    talk.data(CLIENT, 3, message(b"whole too"))
    found = run(talk.events, Messages(check=False))
    assert data_of(found) == [b"server", b"whole", b"whole too"]
    assert reasons(found)[0] == "a message under way is lost in a gap"
    assert len(reasons(found)) == 3


def test_a_gap_inside_one_frame_is_that_frame_s_matter() -> None:
    talk = begun()
    talk.data(CLIENT, 1, message(b"a")[:4])
    talk.gap(CLIENT, frames_lost=False)
    talk.data(SERVER, 1, message(b"s"))
    talk.data(CLIENT, 1, message(b"a")[4:])
    assert data_of(run(talk.events, Messages(check=False))) == [b"s", b"a"]


def test_a_stream_whose_headers_lie_in_a_gap_is_read_from_its_first_frame_of_whole_messages() -> None:
    talk = begun()
    talk.gap(CLIENT)
    talk.data(CLIENT, 3, message(HELLO))
    talk.response(3)
    talk.data(SERVER, 3, message(HELLO)[:7])
    talk.data(SERVER, 3, message(HELLO)[7:])
    found = run(talk.events)
    assert data_of(found) == [HELLO, HELLO]
    assert [item.path for item in found if isinstance(item, MessageEvent)] == [None, None]


def test_a_late_start_begins_with_a_frame_of_whole_messages_and_then_knows_every_boundary() -> None:
    talk = Talk(whole=False)
    talk.data(SERVER, 7, b"the end of something")
    talk.data(SERVER, 7, message(HELLO))
    talk.data(SERVER, 7, message(HELLO)[:3])
    talk.data(SERVER, 7, message(HELLO)[3:])
    talk.trailers(7)
    found = run(talk.events)
    assert data_of(found) == [HELLO, HELLO]
    assert reasons(found) == ["20 octets of DATA were passed over: nothing says where a message begins in them"]


def test_after_a_late_start_what_never_looks_like_messages_is_nobody_s_problem() -> None:
    talk = Talk(whole=False)
    talk.data(SERVER, 7, b"<html>")
    talk.data(SERVER, 7, b"</html>", end=True)
    assert run(talk.events) == []


def test_many_zeros_are_not_taken_for_many_empty_messages() -> None:
    talk = Talk(whole=False)
    talk.data(SERVER, 7, bytes(20))
    talk.data(SERVER, 7, bytes(5))
    found = run(talk.events)
    assert data_of(found) == [b""]


def test_a_path_from_before_the_capture_is_unknown() -> None:
    talk = Talk(whole=False)
    talk.request(1, path=Unknown("?-3"))
    talk.request(3, path=b"/\xff")
    talk.data(CLIENT, 1, message(HELLO))
    talk.data(CLIENT, 3, message(HELLO))
    assert [item.path for item in run(talk.events) if isinstance(item, MessageEvent)] == [None, None]


def test_a_content_type_from_before_the_capture_may_be_grpc() -> None:
    talk = Talk(whole=False)
    talk.headers(CLIENT, 1, [(":path", PATH), (Unknown("?-1"), Unknown("?-1"))])
    talk.data(CLIENT, 1, b"no message")
    talk.data(CLIENT, 1, message(HELLO))
    talk.response(1)
    talk.data(SERVER, 1, message(HELLO)[:5])
    talk.data(SERVER, 1, message(HELLO)[5:])
    found = run(talk.events)
    assert data_of(found) == [HELLO, HELLO]
    assert [item.path for item in found if isinstance(item, MessageEvent)] == [PATH, PATH]


def test_compressed_messages_are_read_though_the_encoding_was_named_before_the_capture() -> None:
    talk = Talk(whole=False)
    talk.data(CLIENT, 1, message(gzip.compress(HELLO), 1))
    (found,) = run(talk.events)
    assert isinstance(found, MessageEvent)
    assert found.message == {"1": "Hola"}


@given(st.data())
@settings(max_examples=300)
def test_whatever_is_missing_no_message_is_ever_wrong(data: st.DataObject) -> None:
    """Random messages, cut at random, frames missing or holed at random: what is found is a subsequence of what was
    sent, exact to the octet, and nothing is lost that no hole touched."""
    contents = [
        bytes([65 + i]) * n for i, n in enumerate(data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=8)))
    ]
    octets = b"".join(map(message, contents))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(octets) - 1) if len(octets) > 1 else st.nothing(), max_size=10)))
    talk = begun()
    first_hole = len(octets)
    for start, stop in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        fate = data.draw(st.sampled_from(["seen", "seen", "seen", "lost", "gap"]))
        if fate == "gap":
            talk.gap(CLIENT, stop - start)
        else:
            talk.data(CLIENT, 1, octets[start:stop], lost=fate == "lost")
        if fate != "seen" and first_hole == len(octets):
            first_hole = start
    found = data_of(run(talk.events, Messages(check=False)))
    rest = iter(contents)
    assert all(any(item == sent for sent in rest) for item in found)
    at = 0
    for i, content in enumerate(contents):
        at += len(content) + 5
        if at <= first_hole:
            assert found[i] == content


@given(st.lists(st.tuples(st.sampled_from(list(Direction)), st.integers(0, 9), st.integers(0, 255), st.integers(0, 5),
                          st.binary(max_size=30), st.booleans()), max_size=30))  # fmt: skip
def test_any_frames_are_messages_or_problems_and_nothing_is_kept_in_the_end(
    frames: list[tuple[Direction, int, int, int, bytes, bool]],
) -> None:
    talk = Talk()
    for direction, type_code, flags, stream, payload, lost in frames:
        talk.frame(direction, type_code, payload, flags=flags, stream=stream, lost=lost)
    stage = Messages()
    for item in run(talk.events, stage):
        if isinstance(item, Problem):
            assert item.reason
        else:
            item.codec.decode(item.data, item.compressed)
    assert stage.buffered == 0


# --- Streams without end


def test_too_many_streams_let_the_oldest_go_and_it_is_then_as_after_a_late_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    talk = begun()
    talk.data(CLIENT, 1, message(HELLO)[:8])
    talk.request(3)
    talk.request(5)
    talk.data(CLIENT, 1, message(HELLO)[8:])
    talk.data(CLIENT, 1, message(HELLO))
    found = run(talk.events)
    assert data_of(found) == [HELLO]
    assert "too many streams at once: a message is let go with 3 of 6 octets" in reasons(found)


# --- Captures made by others


def packets_of(grpc_tsv: Path) -> list[Packet]:
    with grpc_tsv.with_name(grpc_tsv.name.removesuffix(".grpc.tsv")).open("rb") as stream:
        return [packet for batch in read(stream) for packet in batch]


def messages_of(packets: list[Packet], ports: set[int] | None = None) -> list[MessageEvent]:
    pipeline = Pipeline(ports=ports or ())
    events = pipeline.feed(packets) + pipeline.finish()
    return [item for item in run(events) if isinstance(item, MessageEvent)]


@pytest.mark.vectors("third_party/**/*.grpc.tsv")
def test_captures_made_by_others_have_the_messages_that_wireshark_found(vector: Path) -> None:
    found = [
        [str(number) for number in (m.packet, m.connection.number, m.stream_id, int(m.compressed), m.length)]
        for m in messages_of(packets_of(vector))
    ]
    with vector.open() as rows:
        assert found == list(csv.reader(rows, delimiter="\t"))


@pytest.mark.vectors("third_party/**/*.grpc.tsv")
def test_a_capture_cut_anywhere_has_some_of_the_whole_one_s_messages_and_no_others(vector: Path) -> None:
    packets = packets_of(vector)
    whole = messages_of(packets)
    ports = {int(message.connection.server.rpartition(":")[2]) for message in whole}
    known = {(m.connection.client, m.direction, m.stream_id, m.packet, m.data): m.path for m in whole}
    for cut in range(len(packets)):
        for part in (packets[cut:], packets[:cut], packets[:cut] + packets[cut + 1 :]):
            for m in messages_of(part, ports):
                path = known[m.connection.client, m.direction, m.stream_id, m.packet, m.data]
                assert m.path in (None, path)
