"""What a client logs of its calls, beside what the server knows of them."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.session import Session
from client.truth import recorded
from kit.truth import Truth
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub
from server.threaded import RunningServer, serve
from tests.client.wires import DEADLINE, OWN_CONNECTION, Cable

Log = list[dict[str, Any]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with serve(truth=Truth(tmp_path / "server", "server")) as server:
        yield server


@pytest.fixture
def channel(server: RunningServer, tmp_path: Path) -> Iterator[grpc.Channel]:
    options = [*OWN_CONNECTION, ("grpc.enable_http_proxy", 0)]
    with_log = recorded(grpc.insecure_channel(server.address, options), Truth(tmp_path / "client", "client"))
    yield with_log
    with_log.close()


@pytest.fixture
def stub(channel: grpc.Channel) -> ChatServiceStub:
    return ChatServiceStub(channel)


def session(address: str, folder: Path) -> Session:
    truth = Truth(folder / "client", "client")
    return Session(address, "Ana", "general", tell=lambda _event: None, options=OWN_CONNECTION, truth=truth)


def calls(file: Path) -> list[Log]:
    found: dict[int, Log] = {}
    for line in file.read_text("utf-8").splitlines()[1:]:
        record = json.loads(line)
        found.setdefault(record["call"], []).append(record)
    return list(found.values())


def told(call: Log) -> list[dict[str, Any]]:
    """What both ends know: without times, and without the call's number, which is each log's own."""
    kept = [{key: value for key, value in record.items() if key not in ("time_ns", "call")} for record in call]
    return sorted(kept, key=lambda record: json.dumps(record, sort_keys=True))


def test_a_session_and_its_server_log_the_same(server: RunningServer, tmp_path: Path) -> None:
    with session(server.address, tmp_path) as talker:
        assert talker.wait_until_inside(DEADLINE)
        assert talker.say("hola")
        assert talker.say("¡adiós!")
        assert talker.wait_until_confirmed(DEADLINE)
        assert talker.who() == ["Ana"]
    server.stop()
    ours, theirs = calls(tmp_path / "client"), calls(tmp_path / "server")
    assert sorted(map(told, ours), key=str) == sorted(map(told, theirs), key=str)
    assert len(ours) == 4
    assert [record["message"]["text"] for record in ours[1] if record.get("sequence") == 3] == ["¡adiós!"]


def test_a_connection_that_is_new_is_logged_as_a_new_one(server: RunningServer, tmp_path: Path) -> None:
    cable = Cable(server.port)
    with session(cable.address, tmp_path) as talker:
        assert talker.wait_until_inside(DEADLINE)
        cable.cut()
        cable.wait_for_attempts(1)
        assert talker.say("again")
        assert talker.wait_until_confirmed(DEADLINE)
    cable.close()
    chats = [call for call in calls(tmp_path / "client") if call[0]["method"].endswith("/Chat")]
    clients = [record["client"] for call in chats for record in call if record["record"] == "connection"]
    assert len(set(clients)) >= 2
    assert chats[0][-1]["status"] == grpc.StatusCode.UNAVAILABLE.value[0]
    assert chats[-1][-1]["status"] == 0


def test_every_kind_of_call_behaves_as_on_a_channel_without_a_log(channel: grpc.Channel, stub: ChatServiceStub) -> None:
    names = JoinRequest(user="Ana", room="general")
    assert stub.Join(names, timeout=DEADLINE).session_token
    assert stub.Join.future(names, timeout=DEADLINE).result().session_token
    with pytest.raises(grpc.RpcError) as caught:
        stub.Join(JoinRequest(), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    history = stub.History(HistoryRequest(user="Ana", room="general"), timeout=DEADLINE)
    assert list(history) == []
    assert history.code() is grpc.StatusCode.OK
    chat = stub.Chat(iter([ChatMessage(user="Ana", room="general", text="hola")]), timeout=DEADLINE)
    assert "room-epoch" in dict(chat.initial_metadata())
    assert [message.text for message in chat] == ["hola"]
    uploaded = channel.stream_unary("/minichat.v1.ChatService/Nothing", bytes, bytes)
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        uploaded(iter([b"1", b"2"]), timeout=DEADLINE)


def test_a_status_that_the_client_made_is_logged(stub: ChatServiceStub, tmp_path: Path) -> None:
    requests: queue.Queue[ChatMessage | None] = queue.Queue()
    requests.put(ChatMessage(user="Ana", room="general", text="hola"))
    chat = stub.Chat(iter(requests.get, None), timeout=DEADLINE)
    is_over = threading.Event()
    assert next(chat).text == "hola"
    assert chat.add_callback(is_over.set)  # called after those that were added before
    chat.cancel()
    assert is_over.wait(DEADLINE)
    requests.put(None)
    (call,) = calls(tmp_path / "client")
    assert call[-1]["record"] == "end"
    assert call[-1]["status"] == grpc.StatusCode.CANCELLED.value[0]


def test_a_server_that_is_not_there_has_no_connection(tmp_path: Path, server: RunningServer) -> None:
    server.stop()
    lost = recorded(
        grpc.insecure_channel(server.address, [*OWN_CONNECTION, ("grpc.enable_http_proxy", 0)]),
        Truth(tmp_path / "client", "client"),
    )
    with pytest.raises(grpc.RpcError):
        ChatServiceStub(lost).Join(JoinRequest(user="Ana", room="general"), timeout=DEADLINE)
    lost.close()
    (call,) = calls(tmp_path / "client")
    assert [record["record"] for record in call if record["record"] != "message"] == ["call", "end"]
    assert call[-1]["status"] == grpc.StatusCode.UNAVAILABLE.value[0]
