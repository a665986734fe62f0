"""The faces of a store: async for an event loop, blocking for threads. What rooms do is in test_rooms.py; what a server
makes of a store that is lost, in test_models.py."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.limits import Limits
from server.rooms import NameTaken, RoomFull
from server.sessions import KEY_LENGTH, new_session
from server.stores import Blocking, Embedded, Store, StoreLost
from tests.server.test_rooms import Listener


def test_embedded_does_what_rooms_do() -> None:
    async def conversation() -> None:
        store: Store[Listener] = Embedded(Limits(members=1))
        juan = Listener("Juan")
        epoch = await store.enter(juan)
        posted = await store.post(juan, "Hola", "id-1")
        assert posted is not None
        assert (posted.message.sequence, posted.reached, juan.texts) == (1, 1, ["Hola"])
        assert await store.members("general") == ["Juan"]
        assert await store.history("general") == [posted.message]
        await store.check("Juan", "general", juan.session)
        with pytest.raises(NameTaken):
            await store.check("Juan", "general", new_session())
        with pytest.raises(RoomFull):
            await store.enter(Listener("María"))
        assert await store.leave(juan)
        assert await store.enter(Listener("María")) == epoch
        assert len(await store.key()) == KEY_LENGTH
        assert await store.key() == await store.key()
        await store.close()

    asyncio.run(conversation())


class TestBlocking:
    def test_threads_share_it(self) -> None:
        rooms: Blocking[Listener] = Blocking(Embedded())
        listeners = [Listener(f"user {number}") for number in range(4)]

        def talk(listener: Listener) -> None:
            rooms.enter(listener)
            for number in range(25):
                rooms.post(listener, str(number))

        with ThreadPoolExecutor() as pool:
            list(pool.map(talk, listeners))
        assert [message.sequence for message in rooms.history("general")] == list(range(1, 101))
        assert sorted(rooms.members("general")) == [listener.user for listener in listeners]
        for listener in listeners:
            assert rooms.leave(listener)
        rooms.close()

    def test_what_the_store_raises_reaches_who_called(self) -> None:
        class Lost(Embedded[Listener]):
            async def members(self, room: str) -> list[str]:
                raise StoreLost("The store is gone.")

        rooms: Blocking[Listener] = Blocking(Lost())
        with pytest.raises(StoreLost, match=r"^The store is gone\.$"):
            rooms.members("general")
        rooms.close()

    def test_closed_its_thread_has_ended(self) -> None:
        before = set(threading.enumerate())
        rooms: Blocking[Listener] = Blocking(Embedded())
        (thread,) = set(threading.enumerate()) - before
        rooms.close()
        assert not thread.is_alive()
