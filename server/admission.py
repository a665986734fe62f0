"""Who may come in, and who has a place: how many chats at once, over how many connections, and none any more when the
server stops."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote

import grpc

from kit.words import ngettext
from proto.chat_pb2 import JoinRequest
from server import contract
from server.contract import Caller, Refusal
from server.limits import Limits
from server.log import Log
from server.sessions import Sessions


class Ended(Protocol):
    def end(self, ending: Refusal) -> None: ...


C = TypeVar("C")
E = TypeVar("E", bound=Ended)


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


class Entrance(Generic[E]):
    """Of a ChatService of either model: on what terms its calls, of type E, come in. Refusals are logged."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        chats: int | None,
        sessions_required: bool,
        room_secret: str,
        log: Log,
        limits: Limits,
    ) -> None:
        """`chats` None is no limit. A room secret implies that sessions are required."""
        self.sessions = sessions
        self.sessions_required = sessions_required or bool(room_secret)
        self.log = log
        self.limits = limits
        self.admission: Admission[E] = Admission(chats, limits.connections)
        self._room_secret = room_secret

    def caller(self, context: Any, user: str, room: str) -> Caller:
        return contract.caller(self.sessions, context.invocation_metadata() or (), user, room)

    def refuse_secret(self, request: JoinRequest, context: Any) -> Refusal | None:
        return self._logged(contract.refuse_secret(self._room_secret, request), context)

    def admit(self, call: E, context: Any) -> Refusal | None:
        """A Chat call, which has a place then."""
        return self._logged(self.admission.admit(call, context.peer()), context)

    def close(self) -> None:
        """Ends every chat with UNAVAILABLE, and admits none any more."""
        ending = contract.stopping()
        for call in self.admission.close(ending):
            call.end(ending)

    def _logged(self, refusal: Refusal | None, context: Any) -> Refusal | None:
        if refusal is not None:
            self.log.refused(unquote(context.peer()), refusal.sentence)
        return refusal
