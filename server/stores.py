"""Where rooms are kept, as both models of the server see it: in this process (`Embedded`), or shared by many servers.

A store does what `Rooms` does, and `Rooms` says what that is: the same rules for names, sequence numbers, repeated
messages and history. It may wait for a network meanwhile. What it may not do is wait inside `Member.deliver` and
`Member.replaced`, which it calls in its event loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar

from server.limits import Limits
from server.rooms import M, Member, Message, Posted, Rooms
from server.sessions import new_key

T = TypeVar("T")
Any_M = TypeVar("Any_M", bound=Member, contravariant=True)
"""A store of any members takes those of one kind."""


class StoreLost(Exception):
    """The store cannot be reached, or did not answer in time; what was asked for may have happened or not. The text is
    a sentence for people; a call that meets it ends with UNAVAILABLE, and its client comes back and sends again."""


class Store(Protocol[Any_M]):
    """Every method may raise StoreLost. Not thread-safe: one event loop."""

    async def enter(self, member: Any_M) -> str:
        """As `Rooms.enter`: returns the room's epoch; raises NameTaken, RoomFull, TooManyRooms."""

    async def leave(self, member: Any_M) -> bool:
        """As `Rooms.leave`."""

    async def post(self, member: Any_M, text: str, client_message_id: str = "") -> Posted | None:
        """As `Rooms.post`. When it returns, the message is kept; members may get it before or after that."""

    async def check(self, user: str, room: str, session: str) -> None:
        """As `Rooms.check`: raises NameTaken."""

    async def members(self, room: str) -> list[str]:
        """As `Rooms.members`."""

    async def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        """As `Rooms.history`."""

    async def key(self) -> bytes:
        """What session tokens are signed with, server.sessions.KEY_LENGTH random octets: the same for all servers that
        share the store, so that a client may come back on another one."""

    async def close(self) -> None:
        """Lets go of connections and tasks. Members have left before."""


class Embedded(Store[M]):
    """The async face of `Rooms`. Nothing here waits."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._rooms: Rooms[M] = Rooms(limits)
        self._key = new_key()

    async def enter(self, member: M) -> str:
        return self._rooms.enter(member)

    async def leave(self, member: M) -> bool:
        return self._rooms.leave(member)

    async def post(self, member: M, text: str, client_message_id: str = "") -> Posted | None:
        return self._rooms.post(member, text, client_message_id)

    async def check(self, user: str, room: str, session: str) -> None:
        self._rooms.check(user, room, session)

    async def members(self, room: str) -> list[str]:
        return self._rooms.members(room)

    async def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        return self._rooms.history(room, after_sequence, limit)

    async def key(self) -> bytes:
        return self._key

    async def close(self) -> None:
        pass


class Blocking(Generic[M]):
    """The face of `Rooms` for threads, on any store: its event loop runs in a thread of its own."""

    def __init__(self, store: Store[M]) -> None:
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="store", daemon=True)
        self._thread.start()

    def enter(self, member: M) -> str:
        return self._wait_for(self._store.enter(member))

    def leave(self, member: M) -> bool:
        return self._wait_for(self._store.leave(member))

    def post(self, member: M, text: str, client_message_id: str = "") -> Posted | None:
        return self._wait_for(self._store.post(member, text, client_message_id))

    def check(self, user: str, room: str, session: str) -> None:
        self._wait_for(self._store.check(user, room, session))

    def members(self, room: str) -> list[str]:
        return self._wait_for(self._store.members(room))

    def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        return self._wait_for(self._store.history(room, after_sequence, limit))

    def key(self) -> bytes:
        return self._wait_for(self._store.key())

    def close(self) -> None:
        self._wait_for(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
