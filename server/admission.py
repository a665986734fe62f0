"""Who has a place: how many chats at once, over how many connections, and none any more when the server stops."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Generic, TypeVar

import grpc

from kit.words import ngettext
from server.contract import Refusal

C = TypeVar("C")


class Admission(Generic[C]):
    """Of calls of any kind. Any thread may call."""

    def __init__(self, chats: int | None, connections: int) -> None:
        """`chats` None is no limit."""
        self._chats = chats
        self._connections = connections
        self._lock = threading.Lock()
        self._calls: dict[C, str] = {}
        """Those that have a place, with their connection."""
        self._peers: Counter[str] = Counter()
        """How many chats each connection has."""
        self._closed: Refusal | None = None

    def admit(self, call: C, peer: str) -> Refusal | None:
        """`peer` is grpcio's name of the connection's other end."""
        with self._lock:
            if self._closed is not None:
                return self._closed
            if self._chats is not None and len(self._calls) >= self._chats:
                text = ngettext(
                    "The one place for chatting is taken; try again when somebody has left.",
                    "All {count} places for chatting are taken; try again when somebody has left.",
                    self._chats,
                )
                return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=self._chats))
            if peer not in self._peers and len(self._peers) >= self._connections:
                text = ngettext(
                    "The server has one connection with chats, and takes no more.",
                    "The server has {count} connections with chats, and takes no more.",
                    self._connections,
                )
                return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=self._connections))
            self._calls[call] = peer
            self._peers[peer] += 1
            return None

    def discharge(self, call: C) -> None:
        """May be told again."""
        with self._lock:
            peer = self._calls.pop(call, None)
            if peer is not None:
                self._peers[peer] -= 1
                if not self._peers[peer]:
                    del self._peers[peer]

    def close(self, ending: Refusal) -> list[C]:
        """Nobody gets in any more. Returns who is."""
        with self._lock:
            self._closed = ending
            return list(self._calls)
