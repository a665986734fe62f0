"""What is about one event loop in the asyncio server. What it does as a chat server is in test_models.py."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events

from proto.chat_pb2 import ChatMessage
from server.asynchronous import Call, serve
from server.log import Log
from server.stores import Embedded
from tests.server.peers import DEADLINE, Book, Peer, Stub

BURST = 1_500
"""Above 1,000 grpc-core refuses some by itself if it is not told otherwise."""


class Crowd:
    """Members that come in one moment, over one connection."""

    def __init__(self, port: int, members: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", "/minichat.v1.ChatService/Chat")]
        headers += [(":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]
        self._socket.sendall(self._h2.data_to_send())
        self._until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        for number in range(members):
            stream = 2 * number + 1
            content = ChatMessage(user=f"user {number}", room=f"room {number % 20}").SerializeToString()
            self._h2.send_headers(stream, headers)
            self._h2.send_data(stream, struct.pack(">BI", 0, len(content)) + content)
        self._left = members
        self._socket.sendall(self._h2.data_to_send())

    def wait_until_received(self) -> None:
        """By grpc-core: it answers a PING in its turn."""
        self._h2.ping(b"received")
        self._socket.sendall(self._h2.data_to_send())
        self._until(lambda event: isinstance(event, h2.events.PingAckReceived))

    def answers(self) -> list[dict[str, str]]:
        """The headers that each of them gets first; waits for all."""
        answers: list[dict[str, str]] = []

        def is_last(event: h2.events.Event) -> bool:
            if isinstance(event, h2.events.ResponseReceived):
                answers.append({str(name): str(value) for name, value in event.headers or ()})
            return len(answers) == self._left

        self._until(is_last)
        return answers

    def _until(self, wanted: Callable[[h2.events.Event], bool]) -> None:
        while True:
            octets = self._socket.recv(1 << 20)
            assert octets, "the server closed the connection"
            events = self._h2.receive_data(octets)
            self._socket.sendall(self._h2.data_to_send())
            if [event for event in events if wanted(event)]:
                return

    def close(self) -> None:
        self._socket.close()


def test_of_a_burst_of_chats_that_find_the_loop_busy_all_are_served_and_join_does_not_wait_for_them() -> None:
    busy, go_on = threading.Event(), threading.Event()

    def write(lines: str) -> None:
        """The log's, in the loop's thread."""
        if "first" in lines:
            busy.set()
            assert go_on.wait(DEADLINE)

    with serve(log=Log(write)) as server, Stub(server.address) as stub:
        stub.join("guest")  # it has its connection
        with Peer(server.address, "first"):
            assert busy.wait(DEADLINE)
            crowd = Crowd(server.port, BURST)
            crowd.wait_until_received()
            go_on.set()
            assert len(stub.join("guest", "room 7").members) < BURST // 20 / 2
            answers = crowd.answers()
            assert sum("room-epoch" in answer for answer in answers) == BURST
            assert len(stub.join("guest", "room 7").members) == BURST // 20
        crowd.close()


def test_its_loop_ends_with_it() -> None:
    before = set(threading.enumerate())
    with serve() as server, Peer(server.address).inside():
        loops = [thread for thread in set(threading.enumerate()) - before if thread.name == "chat"]
        assert len(loops) == 1
        server.stop()
        assert not loops[0].is_alive()


def test_a_member_that_reads_nothing_does_not_hold_the_loop() -> None:
    with (
        serve() as server,
        Peer(server.address, "idle", reads=False).inside(),
        Peer(server.address).inside() as juan,
        Stub(server.address) as stub,
    ):
        for _ in range(1_200):
            juan.say("x" * 4_000)
        juan.hear(1_200, seconds=30)
        assert list(stub.join("guest").members)[-1] == "Juan"


class SlowToLeave(Embedded[Call]):
    """As a store on a network is."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving, self.go = threading.Event(), threading.Event()

    async def leave(self, member: Call) -> bool:
        self.leaving.set()
        assert await asyncio.to_thread(self.go.wait, DEADLINE)
        return await super().leave(member)


def test_who_is_gone_while_leaving_does_not_stay_in_the_room() -> None:
    store, book = SlowToLeave(), Book()
    with serve(store=store, log=Log(book)) as server, Stub(server.address) as stub:
        with Peer(server.address).inside() as juan:
            juan.leave()
            assert store.leaving.wait(DEADLINE)
        assert list(stub.join("María").members) == ["Juan"]  # its connection is closed, and grpc.aio knows
        store.go.set()
        book.wait_for("Juan left #general")
        assert list(stub.join("María").members) == []
