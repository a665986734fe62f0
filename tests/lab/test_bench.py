"""The bench, with the real server, tap and clients."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest

import capture
from capture.events import Direction, FrameEvent, FrameType
from lab.bench import Bench, BenchError
from proto.chat_pb2 import JoinReply, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub


def test_people_hear_each_other_and_what_was_said_before_they_came() -> None:
    with Bench() as bench:
        juan = bench.join("Juan")
        juan.say("Hola")
        juan.wait_until_heard("Hola")
        maria = bench.join("María")
        assert [message.text for message in maria.history] == ["Hola"]
        assert maria.members == ("Juan",)
        maria.say("¡Hola, Juan!")
        juan.wait_until_heard("¡Hola, Juan!")
    assert [(m.user, m.text, m.sequence) for m in juan.heard] == [("Juan", "Hola", 1), ("María", "¡Hola, Juan!", 2)]


def test_everybody_has_a_connection_of_their_own_and_all_of_it_is_seen() -> None:
    with Bench() as bench:
        bench.join("Juan")
        bench.join("María")
        stub = ChatServiceStub(bench.channel())
        reply: JoinReply = stub.Join(JoinRequest(user="Ana", room="general"))
        assert list(reply.members) == ["Juan", "María"]
    seen = bench.seen
    assert [connection.number for connection in seen.connections] == [0, 1, 2]
    assert {connection.server for connection in seen.connections} == {bench.server.address}
    assert Counter(call.path for call in seen.calls) == {
        "/minichat.v1.ChatService/Join": 3,
        "/minichat.v1.ChatService/History": 2,
        "/minichat.v1.ChatService/Chat": 2,
    }
    assert {call.status for call in seen.calls} == {0}
    assert {call.end for call in seen.calls} <= {"trailers", "trailers_only"}
    assert seen.problems == []


def test_an_experiment_waits_for_what_it_wants_to_see_on_the_wire() -> None:
    with Bench() as bench:
        ChatServiceStub(bench.channel()).Join(JoinRequest(user="Ana", room="general"))

        def trailers(events: list[capture.events.Event]) -> list[FrameEvent]:
            frames = (event for event in events if isinstance(event, FrameEvent))
            return [f for f in frames if f.end_stream and f.direction == Direction.SERVER_TO_CLIENT]

        [frame] = bench.wait_until(trailers)
        assert (frame.type_code, frame.stream_id) == (FrameType.HEADERS, 1)


def test_what_does_not_happen_is_an_error_after_the_time_and_not_a_hang() -> None:
    with Bench() as bench, pytest.raises(BenchError, match="did not happen in time"):
        bench.wait_until(lambda events: False, seconds=0.05)
    with Bench() as bench:
        juan = bench.join("Juan")
        with pytest.raises(BenchError, match="Juan did not hear in time: never said"):
            juan.wait_until_heard("never said", seconds=0.05)


def test_who_is_refused_cannot_join_and_the_reason_is_the_server_s() -> None:
    with Bench(server={"chats": 1}) as bench:
        bench.join("Juan")
        with pytest.raises(BenchError, match=r"María could not join: ."):
            bench.join("María")


def test_the_capture_file_holds_the_same_frames(tmp_path: Path) -> None:
    file = tmp_path / "bench.pcapng"
    with Bench(write=file) as bench:
        bench.join("Juan").say("Hola")
    frames = capture.read(file).frames
    assert frames
    assert [f[:10] for f in frames] == [f[:10] for f in bench.seen.frames]


def test_channel_options_of_a_person_reach_the_wire() -> None:
    with Bench() as bench:
        bench.join("Juan", options=[("grpc.http2.lookahead_bytes", 100_000), ("grpc.http2.bdp_probe", 0)])
    announced = [
        frame.settings
        for frame in bench.seen.frames
        if frame.direction == Direction.CLIENT_TO_SERVER and frame.type_code == FrameType.SETTINGS and frame.length
    ]
    assert ("SETTINGS_INITIAL_WINDOW_SIZE", 100_000) in (announced[0] or [])


def test_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    with Bench() as bench:
        bench.join("Juan")
        port = bench.tap.port
    ours = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in ours if name in ("tap", "bench") or name.startswith(("session", "recv_loop", "chat"))}
    with pytest.raises(grpc.FutureTimeoutError), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=0.2)


def test_an_error_in_the_experiment_is_the_one_that_is_raised() -> None:
    def experiment() -> None:
        with Bench() as bench:
            bench.join("Juan")
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        experiment()
