"""What both models of the server log of their calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from kit.truth import Truth
from proto.chat_pb2 import ChatMessage, HistoryRequest
from server import asynchronous, threaded
from server.truth import client_address
from tests.server.peers import DEADLINE, Peer, Stub, failure

Log = list[dict[str, Any]]


class Logged:
    """A server that logs; its log is read when it has stopped, and is complete then."""

    def __init__(self, model: ModuleType, file: Path) -> None:
        self._file = file
        self._server = model.serve(truth=Truth(file, "server"))
        self.address: str = self._server.address

    def stop(self) -> dict[int, Log]:
        """The records of each call."""
        self._server.stop()
        calls: dict[int, Log] = {}
        for line in self._file.read_text("utf-8").splitlines()[1:]:
            record = json.loads(line)
            calls.setdefault(record["call"], []).append(record)
        return calls


@pytest.fixture(params=[threaded, asynchronous], ids=["threads", "asyncio"])
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logged]:
    logged = Logged(request.param, tmp_path / "log")
    yield logged
    logged.stop()


def kinds(call: Log) -> list[str]:
    return [record["record"] for record in call]


def end(call: Log) -> tuple[int | None, str | None]:
    assert [record["record"] for record in call].count("end") == 1
    return call[-1]["status"], call[-1]["status_message"]


def said(call: Log, way: str) -> list[dict[str, Any]]:
    return [record["message"] for record in call if record["record"] == "message" and record["direction"] == way]


def test_every_message_of_every_call_is_logged_with_who_called(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        token = stub.join("Juan").session_token
        with Peer(logged.address, "Juan") as peer:
            peer.say("Hola")
            peer.hear()
            peer.leave()
            assert peer.status()[0] is grpc.StatusCode.OK
        stub.history("Juan")
    join, chat, history = logged.stop().values()
    assert [call[0]["method"].rpartition("/")[2] for call in (join, chat, history)] == ["Join", "Chat", "History"]
    assert kinds(join).count("connection") == 1
    assert {record["client"].partition(":")[0] for record in join if record["record"] == "connection"} == {"127.0.0.1"}
    assert said(join, "client_to_server") == [{"user": "Juan", "room": "general"}]
    assert said(join, "server_to_client")[0]["session_token"] == token
    assert [message.get("text") for message in said(chat, "client_to_server")] == [None, "Hola"]
    (heard,) = said(chat, "server_to_client")
    assert heard["text"] == "Hola"
    assert heard["sequence"] == "1"
    assert said(history, "server_to_client") == [heard]
    assert [end(call) for call in (join, chat, history)] == [(0, "")] * 3


def test_a_refusal_is_logged_with_its_sentence(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        error = failure(lambda: stub.join(""))
        later = failure(lambda: list(stub.stub.Chat(iter([ChatMessage(user="Ana", room="")]), timeout=DEADLINE)))
    for call, told in zip(logged.stop().values(), (error, later), strict=True):
        assert end(call) == (told[0].value[0], told[1])


def test_octets_that_are_no_request_are_null(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        failure(lambda: stub.channel.unary_unary("/minichat.v1.ChatService/Join")(b"\xff", timeout=DEADLINE))
    (call,) = logged.stop().values()
    assert said(call, "client_to_server") == [None]
    assert end(call)[0] == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_call_that_its_client_cancels_has_no_status(logged: Logged) -> None:
    with Peer(logged.address, "Ana", text="a") as peer:
        peer.hear()
        peer.call.cancel()
    with Stub(logged.address) as stub:
        for _question in range(1_000):  # each waits for an answer of the server
            if not stub.join("Bea").members:
                break
        else:
            raise AssertionError("the server did not notice")
    chat, *_joins = logged.stop().values()
    assert end(chat) == (None, None)
    assert said(chat, "server_to_client")[0]["text"] == "a"


def test_a_method_that_there_is_not_is_refused_as_ever_and_logged(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        error = failure(lambda: stub.channel.unary_unary("/minichat.v1.ChatService/Nothing")(b"", timeout=DEADLINE))
    assert error == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    (call,) = logged.stop().values()
    assert "connection" in kinds(call)
    assert end(call) == (12, "Method not found!")


def test_what_comes_with_grpc_is_logged_too(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        HealthStub(stub.channel).Check(HealthCheckRequest(service=""), timeout=DEADLINE)
    (call,) = logged.stop().values()
    assert call[0]["method"] == "/grpc.health.v1.Health/Check"
    assert said(call, "server_to_client") == [{"status": "SERVING"}]


def test_a_server_that_stops_says_so_in_the_log(logged: Logged) -> None:
    with Peer(logged.address, "Juan") as peer:
        peer.say("Hola")
        peer.hear()
        (chat,) = logged.stop().values()
    assert end(chat)[0] == grpc.StatusCode.UNAVAILABLE.value[0]


def test_an_empty_history_is_a_call_without_messages(logged: Logged) -> None:
    with Stub(logged.address) as stub:
        list(stub.stub.History(HistoryRequest(user="Ana", room="empty"), timeout=DEADLINE))
    (call,) = logged.stop().values()
    assert said(call, "server_to_client") == []
    assert end(call) == (0, "")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:40112", "127.0.0.1:40112"),
        ("ipv6:%5B::1%5D:40112", "[::1]:40112"),
        ("ipv6:[::1]:40112", "[::1]:40112"),
        ("ipv6:%5B::ffff:127.0.0.1%5D:40112", "127.0.0.1:40112"),
        ("unix:/tmp/socket", None),
        ("", None),
    ],
)
def test_an_address_is_written_as_captures_write_it(peer: str, address: str | None) -> None:
    assert client_address(peer) == address
