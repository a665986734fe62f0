"""Who takes part in tests of the chat: members over the bare stub, one that speaks HTTP/2 by hand, a log to wait on.

Everything that waits has a deadline, after which the test fails instead of hanging.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub

DEADLINE = 10.0
"""Seconds; far more than anything here takes, even on a busy machine."""
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Book:
    """Lines of a log, as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, lines: str) -> None:
        with self._changed:
            self.lines += lines.split("\n")
            self._changed.notify_all()

    def wait_for(self, part: str, seconds: float = DEADLINE, times: int = 1) -> None:
        def written() -> bool:
            return sum(part in line for line in self.lines) >= times

        with self._changed:
            assert self._changed.wait_for(written, seconds), f"no {part!r} within {seconds} s in {self.lines}"


def bearing(token: str | None) -> tuple[tuple[str, str], ...]:
    """Request headers with the token, if there is one."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


class Stub:
    """A channel to a server, with a connection of its own."""

    def __init__(
        self,
        address: str,
        options: tuple[tuple[str, Any], ...] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = (("grpc.enable_http_proxy", 0), OWN_CONNECTION, *options)
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.stub = ChatServiceStub(self.channel)

    def join(
        self,
        user: str = "Juan",
        room: str = "general",
        timeout: float = DEADLINE,
        token: str | None = None,
        secret: str = "",
    ) -> JoinReply:
        request = JoinRequest(user=user, room=room, room_secret=secret)
        return self.stub.Join(request, metadata=bearing(token), timeout=timeout)

    def history(self, user: str = "Juan", room: str = "general", after: int = 0, limit: int = 0) -> list[ChatMessage]:
        request = HistoryRequest(user=user, room=room, after_sequence=after, limit=limit)
        return list(self.stub.History(request, timeout=DEADLINE))

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()


class Peer(Stub):
    """A member: opens a Chat call, and reads what comes in a thread of its own (unless told not to)."""

    def __init__(
        self,
        address: str,
        user: str = "Juan",
        room: str = "general",
        *,
        text: str = "",
        token: str | None = None,
        reads: bool = True,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        super().__init__(address, options)
        self.user, self.room = user, room
        self._requests: queue.Queue[ChatMessage | None] = queue.Queue()
        self._heard: queue.Queue[ChatMessage | None] = queue.Queue()
        self.call = self.stub.Chat(iter(self._requests.get, None), metadata=bearing(token))
        if reads:
            self.read()
        self.send_raw(ChatMessage(user=user, room=room, text=text))

    def read(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self.call:
                self._heard.put(message)
        except grpc.RpcError:
            pass  # `status` tells
        self._heard.put(None)

    def headers(self, seconds: float = DEADLINE) -> dict[str, str | bytes]:
        """Waits for the response headers. Raises queue.Empty if none come in time."""
        got: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=lambda: got.put(self.call.initial_metadata()), daemon=True).start()
        return dict(got.get(timeout=seconds))

    def inside(self) -> Any:
        """Waits until it is subscribed."""
        assert "room-epoch" in self.headers(), self.status()
        return self

    def send_raw(self, message: ChatMessage) -> None:
        self._requests.put(message)

    def say(self, text: str, message_id: str | None = None) -> None:
        message_id = uuid.uuid4().hex if message_id is None else message_id
        self.send_raw(ChatMessage(user=self.user, room=self.room, text=text, client_message_id=message_id))

    def hear(self, count: int = 1, seconds: float = DEADLINE) -> list[ChatMessage]:
        """The next `count` messages."""
        heard: list[ChatMessage] = []
        for _number in range(count):
            message = self._heard.get(timeout=seconds)
            assert message is not None, f"the call ended after {len(heard)} of {count}: {self.status()}"
            heard.append(message)
        return heard

    def texts(self, count: int = 1) -> list[str]:
        return [message.text for message in self.hear(count)]

    def rest(self) -> list[ChatMessage]:
        """What comes until the call ends."""
        return list(iter(lambda: self._heard.get(timeout=DEADLINE), None))

    def leave(self) -> None:
        self._requests.put(None)

    def status(self, seconds: float = DEADLINE) -> tuple[grpc.StatusCode, str]:
        """How the call ended; waits for it."""
        over = threading.Event()
        if self.call.add_callback(over.set):
            assert over.wait(seconds), f"the call is still open after {seconds} s"
        code = self.call.code()
        assert code is not None
        return code, self.call.details() or ""

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()
        super().close()


class HandPeer:
    """A member that speaks HTTP/2 by hand, to do with its connection what a gRPC client never would."""

    def __init__(self, port: int, user: str = "María", room: str = "general", token: str | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        path = "/minichat.v1.ChatService/Chat"
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        headers += [("content-type", "application/grpc"), ("te", "trailers"), *bearing(token)]
        self._h2.send_headers(1, headers)
        content = ChatMessage(user=user, room=room).SerializeToString()
        self._h2.send_data(1, struct.pack(">BI", 0, len(content)) + content)
        self.socket.sendall(self._h2.data_to_send())

    def inside(self) -> HandPeer:
        self._until(lambda event: isinstance(event, h2.events.ResponseReceived))
        return self

    def _until(self, wanted: Callable[[h2.events.Event], bool]) -> None:
        while True:
            octets = self.socket.recv(65_536)
            assert octets, "the server closed the connection"
            events = self._h2.receive_data(octets)
            self.socket.sendall(self._h2.data_to_send())
            if any(map(wanted, events)):
                return

    def reset(self) -> None:
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def go_silent(self) -> None:
        """From now on the kernel drops every packet for this socket before TCP sees it: a pulled cable."""
        drop_all = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 octets of every packet
        program = _Program(drop_all)
        self.socket.setsockopt(socket.SOL_SOCKET, 26, program.address())  # 26 is SO_ATTACH_FILTER
        self._program = program

    def close(self) -> None:
        self.socket.close()


class _Program:
    """A struct sock_fprog: how many instructions, and where they are."""

    def __init__(self, instructions: bytes) -> None:
        import ctypes

        self._buffer = ctypes.create_string_buffer(instructions, len(instructions))
        self._address = struct.pack("HL", len(instructions) // 8, ctypes.addressof(self._buffer))

    def address(self) -> bytes:
        return self._address


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """How it fails, as it must."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()
