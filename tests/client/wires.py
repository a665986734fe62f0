"""What lies between a session and its server in tests: a cable that can be cut, and a book of what the session told."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from client.events import Entered, Event, Heard
from client.session import Session
from proto.chat_pb2 import ChatMessage

DEADLINE = 10.0
"""Seconds; far more than anything here takes, even on a busy machine."""
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Cable:
    """Forwards TCP connections to a port of this machine. `cut` ends those there are; while `unplugged`, new ones end
    as they come; while `deaf`, what the server sends is swallowed; while `unnoticed`, the server does not learn that a
    client's end is cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.unplugged = False
        self.deaf = False
        self.unnoticed = False
        self._kept: list[socket.socket] = []
        """The server's ends that are open with nothing behind them."""
        self._connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port: int) -> None:
        self._to = port

    def cut(self) -> None:
        with self._changed:
            pairs, self._pairs = self._pairs, []
        for near, far in pairs:
            _shut(near)
            if not self.unnoticed:
                _shut(far)

    def wait_for_attempts(self, count: int) -> None:
        """Waits until so many more connections were made."""
        with self._changed:
            wanted = self._connections + count
            assert self._changed.wait_for(lambda: self._connections >= wanted, DEADLINE), self._connections

    def close(self) -> None:
        self.unplugged, self.unnoticed = True, False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for end in self._kept:
            end.close()

    def __enter__(self) -> Cable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._connections += 1
                self._changed.notify_all()
            if self.unplugged:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            try:
                while True:
                    for end in select.select([near, far], [], [])[0]:
                        octets = end.recv(65_536)
                        if not octets:
                            return
                        if end is near:
                            far.sendall(octets)
                        elif not self.deaf:
                            near.sendall(octets)
            except OSError:
                return
            finally:
                if self.unnoticed:
                    self._kept.append(far.dup())


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        end.shutdown(socket.SHUT_RDWR)


class Book:
    """The events of a session, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[list[Event]], bool], seconds: float = DEADLINE) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self.events), seconds), self.events

    def wait_for_kind(self, kind: type[Event], times: int = 1, seconds: float = DEADLINE) -> None:
        self.wait_for(lambda events: sum(isinstance(event, kind) for event in events) >= times, seconds)

    def wait_for_texts(self, count: int, seconds: float = DEADLINE) -> list[str]:
        self.wait_for(lambda _events: len(self.messages) >= count, seconds)
        return self.texts

    @property
    def messages(self) -> list[ChatMessage]:
        return [event.message for event in self.events if isinstance(event, Heard)]

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    @property
    def others(self) -> list[Event]:
        """What is neither a message nor an entry."""
        return [event for event in self.events if not isinstance(event, Heard | Entered)]


def session(
    address: str, user: str = "Juan", room: str = "general", patience: float | None = None
) -> tuple[Session, Book]:
    book = Book()
    return Session(address, user, room, tell=book, patience=patience, options=OWN_CONNECTION), book
