"""Rooms in a real Redis that several servers share, and what becomes of them when something breaks."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from server import redis_line, redis_rooms
from server.limits import Limits
from server.redis_line import Address
from server.redis_rooms import RedisRooms
from server.redis_scripts import (
    LOG,
    LOG_NEWEST,
    POST,
    PREFIX,
    history_key,
    members_key,
    room_key,
    sent_key,
)
from server.rooms import HISTORY_LENGTH, Message, NameTaken, NoPlace, Posted, RoomFull, TooManyRooms
from server.sessions import KEY_LENGTH
from server.stores import StoreLost
from tests.client.wires import Cable
from tests.server.redis_server import DEADLINE, RedisServer


class Listener:
    """A member that keeps what it is told, up to `capacity` messages."""

    def __init__(self, user: str = "Juan", room: str = "general", session: str = "", capacity: int = 10**9) -> None:
        self.user = user
        self.room = room
        self.session = session or f"{id(self):x}"
        self.heard: list[Message] = []
        self.ends: list[str] = []
        self.waiting = 0
        self._capacity = capacity

    def deliver(self, message: Message) -> bool:
        if len(self.heard) == self._capacity:
            return False
        self.heard.append(message)
        return True

    def replaced(self) -> None:
        self.ends.append("replaced")

    def lost(self, sentence: str) -> None:
        self.ends.append(sentence)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.heard]

    @property
    def sequences(self) -> list[int]:
        return [message.sequence for message in self.heard]


Rooms = RedisRooms[Listener]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every interruption is bridged, however busy the machine is."""
    for module in (redis_line, redis_rooms):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 60.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (redis_line, redis_rooms):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers tell often that they are alive, and are soon taken for dead."""
    monkeypatch.setattr(redis_rooms, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(redis_rooms, "ALIVE_SECONDS", 0.5)


def run(test: Callable[[Callable[..., Rooms]], Coroutine[Any, Any, None]], redis: RedisServer) -> None:
    """Runs the test with a function that makes one more server's store."""

    async def whole() -> None:
        stores: list[Rooms] = []

        def another(url: str = redis.url, limits: Limits | None = None) -> Rooms:
            stores.append(RedisRooms(Address.parsed(url), limits))
            return stores[-1]

        try:
            async with asyncio.timeout(6 * DEADLINE):
                await test(another)
        finally:
            redis.thaw()
            await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(whole())


async def until(wanted: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.001)


async def entered(store: Rooms, *users: str, room: str = "general") -> list[Listener]:
    listeners = [Listener(user, room) for user in users]
    for listener in listeners:
        await store.enter(listener)
    return listeners


async def post(store: Rooms, member: Listener, text: str, message_id: str = "") -> Posted:
    posted = await store.post(member, text, message_id)
    assert posted is not None
    return posted


def posts(redis: RedisServer, member: Listener, *texts: str) -> Iterator[tuple[str | int, ...]]:
    """The commands with which any server posts them."""
    keys = [key(member.room) for key in (room_key, members_key, history_key, sent_key)]
    epoch = redis.ask("HGET", room_key(member.room), "epoch").decode().split("\r\n")[1]
    for text in texts:
        yield POST(*keys, LOG, LOG_NEWEST, member.room, epoch, member.user, text, "")


async def refusal(attempt: Awaitable[object]) -> Exception:
    try:
        await attempt
    except (NoPlace, StoreLost) as error:
        return error
    raise AssertionError("it was not refused")


class TestARoomOnTwoServers:
    def test_a_message_reaches_everybody_on_both_and_has_redis_time(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,), (maria,), (pedro,) = (
                await entered(one, "Juan"),
                await entered(other, "María"),
                await entered(other, "Pedro", room="other"),
            )
            before = time.time_ns() // 1_000_000
            posted = await post(one, juan, "Hola", "id-1")
            assert (posted.repeated, posted.reached) == (False, 2)
            assert before <= posted.message.time_ms <= time.time_ns() // 1_000_000
            await until(lambda: juan.heard and maria.heard)
            assert juan.heard == maria.heard == [posted.message]
            assert pedro.heard == []
            assert posted.message == Message("Juan", "general", "Hola", 1, posted.message.time_ms, "id-1")

        run(test, redis)

    def test_all_hear_one_order_without_gaps_however_many_speak_at_once(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            stores = [another(), another()]
            members = [(store, (await entered(store, f"{n}"))[0]) for n, store in enumerate(stores * 4)]

            async def speak(store: Rooms, member: Listener) -> None:
                for number in range(25):
                    await post(store, member, f"{member.user}: {number}", f"{number}")

            await asyncio.gather(*(speak(*each) for each in members))
            await until(lambda: all(len(member.heard) == 200 for _store, member in members))
            first = members[0][1]
            assert first.sequences == list(range(1, 201))
            assert all(member.heard == first.heard for _store, member in members)
            for _store, member in members:
                own = [text for text in first.texts if text.startswith(f"{member.user}: ")]
                assert own == [f"{member.user}: {number}" for number in range(25)]

        run(test, redis)

    def test_who_came_later_does_not_hear_what_was_said_before(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            await post(one, juan, "before")
            (maria,) = await entered(other, "María")
            await post(one, juan, "after")
            await until(lambda: maria.heard)
            assert maria.texts == ["after"]

        run(test, redis)

    def test_also_when_a_server_has_not_read_yet_what_was_said_before(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            redis.ask_at_once(*posts(redis, juan, *map(str, range(2_000))))
            (maria,) = await entered(store, "María")
            await post(store, juan, "after")
            await until(lambda: maria.heard and len(juan.heard) == 2_001)
            assert maria.texts == ["after"]

        run(test, redis)

    def test_nothing_is_missed_between_entering_and_hearing(self, redis: RedisServer) -> None:
        """Others speak all the time; who enters reads the history up to there, and hears the rest."""

        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            over = False

            async def speak() -> None:
                while not over:
                    await post(one, juan, "again")

            speaking = asyncio.create_task(speak())
            for number in range(20):
                maria = Listener(f"María{number}")
                await other.enter(maria)
                past = [message.sequence for message in await other.history("general")]
                await until(lambda maria=maria, past=past: maria.heard and maria.sequences[-1] > past[-1])  # type: ignore[misc]  # mypy has no type for a lambda's defaults
                assert maria.sequences[0] <= past[-1] + 1
                assert maria.sequences == list(range(maria.sequences[0], maria.sequences[-1] + 1))
            over = True
            await speaking

        run(test, redis)

    def test_who_left_hears_nothing_and_can_say_nothing(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,), (maria,) = await entered(one, "Juan"), await entered(other, "María")
            assert await other.leave(maria)
            await post(one, juan, "Hola")
            await until(lambda: juan.heard)
            assert await other.post(maria, "I am still here") is None
            assert not await other.leave(maria)
            assert maria.heard == []

        run(test, redis)

    def test_members_are_named_in_order_of_arrival_wherever_they_are(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            await entered(other, "Ana")
            await entered(one, "María")
            assert await other.members("general") == await one.members("general") == ["Juan", "Ana", "María"]
            await one.leave(juan)
            assert await other.members("general") == ["Ana", "María"]
            assert await other.members("nowhere") == []

        run(test, redis)

    def test_a_member_that_takes_no_more_is_out_and_the_others_do_not_notice(
        self, redis: RedisServer, lively: None
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            full = Listener("María", capacity=2)
            await other.enter(full)
            for number in range(4):
                await post(one, juan, str(number))
            await until(lambda: len(juan.heard) == 4)
            assert full.texts == ["0", "1"]
            deadline = time.monotonic() + DEADLINE
            while await one.members("general") != ["Juan"]:
                assert time.monotonic() < deadline

        run(test, redis)

    def test_session_tokens_are_signed_with_one_key(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            keys = await asyncio.gather(another().key(), another().key(), another().key())
            assert len(set(keys)) == 1
            assert len(keys[0]) == KEY_LENGTH

        run(test, redis)

    def test_a_burst_longer_than_any_history_reaches_everybody_once_and_in_order(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            stores = [another(), another()]
            rooms = [f"room {number}" for number in range(10)]
            members = [
                (store, listener)
                for number, store in enumerate(stores)
                for room in rooms
                for listener in await entered(store, f"member {number}", room=room)
            ]

            async def speak(store: Rooms, member: Listener) -> None:
                for number in range(1_000):
                    await post(store, member, f"{member.user}: {number}", f"{number}")

            await asyncio.gather(*(speak(*each) for each in members))
            await until(lambda: all(len(member.heard) == 2_000 for _store, member in members))
            for _store, member in members:
                assert member.sequences == list(range(1, 2_001))
            assert redis.ask("XLEN", f"{PREFIX}history:room 3") == b":500\r\n"

        run(test, redis)

    def test_who_reads_hears_a_burst_that_comes_faster_than_it_reads_and_who_does_not_is_out(
        self, redis: RedisServer
    ) -> None:
        class Reader(Listener):
            """Takes 100 messages, and passes them on one after the other."""

            def deliver(self, message: Message) -> bool:
                if self.waiting == 100:
                    return False
                self.waiting += 1
                return super().deliver(message)

            async def read(self) -> None:
                while True:
                    await asyncio.sleep(0)
                    self.waiting = max(self.waiting - 1, 0)

        async def test(another: Callable[..., Rooms]) -> None:
            store = another(limits=Limits(waiting=100))
            reads, does_not = Reader("Juan"), Reader("María")
            for member in (reads, does_not):
                await store.enter(member)
            reading = asyncio.create_task(reads.read())
            redis.ask_at_once(*posts(redis, reads, *map(str, range(1_000))))
            await until(lambda: len(reads.heard) == 1_000)
            assert len(does_not.heard) == 100
            reading.cancel()

        run(test, redis)

    def test_what_somebody_else_wrote_into_the_log_is_passed_over(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one = another()
            (juan,) = await entered(one, "Juan")
            redis.ask("XADD", LOG, "*", "junk", "1")
            await post(one, juan, "Hola")
            await until(lambda: juan.texts == ["Hola"])

        run(test, redis)

    def test_the_connections_are_three_however_many_rooms(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            for number in range(200):
                (juan,) = await entered(store, "Juan", room=f"room {number}")
                await post(store, juan, "Hola")
            await store.history("room 1")
            clients = redis.ask("CLIENT", "LIST").decode().count("id=") - 1  # this one
            assert clients == 3

        run(test, redis)

    def test_all_keys_have_the_hash_tag_that_keeps_them_on_one_node_of_a_cluster(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan", room="{1} general")
            await post(store, juan, "Hola", "id-1")
            keys = [line for line in redis.ask("KEYS", "*").decode().split("\r\n") if line.startswith("m")]
            assert len(keys) == 9
            assert all(key.startswith("minichat:{0}:") for key in keys)

        run(test, redis)


class TestHistory:
    def test_it_holds_the_500_newest_messages_and_after_and_limit_choose_among_them(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            for number in range(1, 603):
                await post(one, juan, str(number))
            kept = list(range(103, 603))
            assert len(kept) == HISTORY_LENGTH
            for after, limit in [(0, 0), (0, 10), (590, 0), (590, 5), (50, 600), (602, 0), (2**64 - 1, 0), (0, 2**31)]:
                expected = [number for number in kept if number > after]
                expected = expected[-limit:] if limit else expected
                messages = await other.history("general", after, limit)
                assert [message.sequence for message in messages] == expected
                assert [message.text for message in messages] == list(map(str, expected))
            assert await other.history("nowhere") == []

        run(test, redis)

    def test_it_holds_messages_as_they_were_heard(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "J u:a{n}", room="¡héllo: {x}*")
            await post(store, juan, '"¿Qué tal? 👋" \\ {}', "id 1")
            await post(store, juan, "sin id")
            await until(lambda: len(juan.heard) == 2)
            assert await store.history("¡héllo: {x}*") == juan.heard

        run(test, redis)


class TestRepeatedMessages:
    def test_one_is_not_posted_again_on_any_server_and_its_sender_alone_gets_it(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,), (maria,) = await entered(one, "Juan"), await entered(other, "María")
            first = await post(one, juan, "Hola", "id-1")
            assert (await post(one, juan, "Hola", "id-1")).repeated
            await one.leave(juan)
            (again,) = await entered(other, "Juan")
            second = await post(other, again, "Hola", "id-1")
            assert second == Posted(first.message, True, 1)
            await post(other, again, "the end", "id-2")
            await until(lambda: len(maria.heard) == len(again.heard) == 2)
            assert maria.texts == again.texts == ["Hola", "the end"]
            assert juan.texts == ["Hola"]

        run(test, redis)

    def test_another_user_may_use_the_same_id_and_without_an_id_every_message_is_new(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            juan, maria = await entered(store, "Juan", "María")
            said = [(juan, "1"), (maria, "1"), (juan, ""), (juan, "")]
            posted = [await post(store, member, "a", message_id) for member, message_id in said]
            assert [each.repeated for each in posted] == [False] * 4

        run(test, redis)

    def test_what_the_history_has_forgotten_is_not_known_any_more(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            await post(store, juan, "Hola", "id-1")
            for _number in range(HISTORY_LENGTH - 1):
                await post(store, juan, "filler")
            assert (await post(store, juan, "Hola", "id-1")).repeated
            await post(store, juan, "filler")
            assert not (await post(store, juan, "Hola", "id-1")).repeated

        run(test, redis)


class TestPlaces:
    def test_a_name_is_taken_on_every_server_and_another_one_is_suggested(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan, _second) = await entered(one, "Juan", "Juan2")
            for attempt in (other.enter(Listener("Juan")), other.check("Juan", "general", "somebody")):
                taken = await refusal(attempt)
                assert isinstance(taken, NameTaken)
                assert (taken.user, taken.room, taken.free) == ("Juan", "general", "Juan3")
            await other.check("Juan", "general", juan.session)
            await other.check("Juan", "elsewhere", "somebody")
            await other.check("Ana", "general", "somebody")
            await one.leave(juan)
            await other.enter(Listener("Juan"))

        run(test, redis)

    def test_who_is_refused_a_name_leaves_its_owner_where_it_was(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            assert isinstance(await refusal(store.enter(Listener("Juan"))), NameTaken)
            await post(store, juan, "Hola")
            await until(lambda: juan.heard)
            assert juan.ends == []

        run(test, redis)

    @pytest.mark.parametrize("elsewhere", [True, False], ids=["on another server", "on the same server"])
    def test_the_same_session_takes_over_its_name(self, redis: RedisServer, elsewhere: bool) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one = another()
            other = another() if elsewhere else one
            first, ana = Listener("Juan", session="5e55"), Listener("Ana")
            await one.enter(first)
            await one.enter(ana)
            second = Listener("Juan", session="5e55")
            await other.enter(second)
            await until(lambda: first.ends)
            assert first.ends == ["replaced"]
            assert await one.members("general") == ["Juan", "Ana"]
            assert not await one.leave(first)
            await post(other, second, "I am back")
            await until(lambda: second.heard and ana.heard)
            assert first.heard == []
            assert await one.members("general") == ["Juan", "Ana"]

        run(test, redis)

    def test_a_full_room_and_too_many_rooms(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            limits = Limits(members=2, rooms=2)
            one, other = another(limits=limits), another(limits=limits)
            (juan, _maria) = await entered(one, "Juan", "María")
            assert isinstance(await refusal(other.enter(Listener("Pedro"))), RoomFull)
            await other.enter(Listener("Juan", session=juan.session))
            await entered(one, "Ana", room="second")
            assert isinstance(await refusal(other.enter(Listener(room="third"))), TooManyRooms)
            assert await other.members("third") == []

        run(test, redis)

    def test_a_room_makes_place_when_it_is_empty_and_then_begins_a_new_epoch(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(limits=Limits(rooms=2)), another(limits=Limits(rooms=2))
            first = Listener(room="first")
            epoch = await one.enter(first)
            await post(one, first, "Hola", "id-1")
            await entered(one, "Juan", room="second")
            await one.leave(first)
            assert await other.enter(first) == epoch
            await other.leave(first)
            (third,) = await entered(other, "Juan", room="third")
            assert await other.history("first") == []
            await other.leave(third)
            ana = Listener("Ana", "first")
            assert await one.enter(ana) != epoch
            assert (await post(one, ana, "Hola", "id-1")).message.sequence == 1
            await until(lambda: ana.heard)

        run(test, redis)

    def test_a_room_in_which_nothing_was_said_ends_with_its_last_member(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another(limits=Limits(rooms=1))
            for number in range(3):
                (juan,) = await entered(store, "Juan", room=f"room {number}")
                await store.leave(juan)
            assert redis.ask("KEYS", "*room *") == b"*0\r\n"

        run(test, redis)


class TestAServerThatDies:
    def test_its_members_are_out_after_a_while_and_their_names_are_free(self, redis: RedisServer, lively: None) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            await entered(one, "Juan")
            (ana,) = await entered(other, "Ana")
            for task in one._tasks:  # it does nothing more, and says nothing: dead
                task.cancel()
            await asyncio.gather(*one._tasks, return_exceptions=True)
            deadline = time.monotonic() + DEADLINE
            while await other.members("general") != ["Ana"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            await entered(other, "Juan")
            assert ana.ends == []

        run(test, redis)

    def test_one_that_was_taken_for_dead_tells_its_members(self, redis: RedisServer, lively: None) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,) = await entered(one, "Juan")
            await entered(other, "Ana")
            redis.ask("ZREM", f"{PREFIX}servers", one._server)  # what others do after ALIVE_SECONDS
            await until(lambda: juan.ends)
            await entered(one, "Pedro")
            deadline = time.monotonic() + DEADLINE
            while await one.members("general") != ["Ana", "Pedro"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

        run(test, redis)


class TestRedisGoneAndBack:
    @pytest.mark.parametrize("fsync", ["everysec", "always"])
    def test_a_kill_and_restart_is_bridged_nothing_is_lost_and_nobody_is_told(
        self, tmp_path: Path, patient: None, fsync: str
    ) -> None:
        redis = RedisServer(tmp_path, fsync=fsync)

        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,), (maria,) = await entered(one, "Juan"), await entered(other, "María")

            async def speak(store: Rooms, member: Listener) -> None:
                for number in range(300):
                    await post(store, member, f"{member.user}: {number}", f"{number}")

            speaking = asyncio.gather(speak(one, juan), speak(other, maria))
            for heard in (100, 200, 300):
                await until(lambda heard=heard: len(juan.heard) > heard)  # type: ignore[misc]  # as above
                await asyncio.to_thread(redis.restart)
            await speaking
            await until(lambda: len(juan.heard) == len(maria.heard) == 600)
            assert juan.sequences == list(range(1, 601))
            assert juan.heard == maria.heard
            assert juan.ends == maria.ends == []

        with redis:
            run(test, redis)

    def test_connections_that_are_cut_and_scripts_that_are_flushed_change_nothing(
        self, redis: RedisServer, patient: None
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            (juan,), (maria,) = await entered(one, "Juan"), await entered(other, "María")
            for number in range(60):
                if number % 20 == 10:
                    redis.ask("CLIENT", "KILL", "TYPE", "normal")
                if number % 20 == 15:
                    redis.ask("SCRIPT", "FLUSH")
                await post(one, juan, str(number), f"id {number}")
            await until(lambda: len(juan.heard) == len(maria.heard) == 60)
            assert juan.sequences == maria.sequences == list(range(1, 61))

        run(test, redis)

    def test_when_it_stays_away_members_are_told_and_come_back_to_all_that_was_confirmed(
        self, redis: RedisServer, impatient: None
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            juan, maria = Listener("Juan"), Listener("María")
            epoch = await one.enter(juan)
            await other.enter(maria)
            await post(one, juan, "confirmed", "id-1")
            redis.kill()
            unconfirmed = asyncio.create_task(one.post(juan, "unconfirmed", "id-2"))
            await until(lambda: juan.ends and maria.ends)
            assert juan.ends == maria.ends == ["The server has lost its store of messages."]
            assert isinstance(await refusal(unconfirmed), StoreLost)
            for attempt in (one.enter(Listener()), one.history("general"), one.members("general")):
                assert isinstance(await refusal(attempt), StoreLost)
            assert await one.post(juan, "no member any more") is None
            redis.start()
            again = Listener("Juan", session="another")  # its name is not held by what is left of its first call
            deadline = time.monotonic() + DEADLINE
            while True:
                try:
                    assert await one.enter(again) == epoch
                    break
                except (StoreLost, NameTaken):
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
            assert [message.text for message in await one.history("general")] == ["confirmed"]
            await post(one, again, "unconfirmed", "id-2")
            await until(lambda: again.heard)
            assert again.sequences == [2]

        run(test, redis)

    def test_one_that_does_not_answer_is_lost(
        self, redis: RedisServer, impatient: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (redis_line, redis_rooms):
            monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)

        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            redis.freeze()
            assert isinstance(await refusal(store.post(juan, "Hola", "id-1")), StoreLost)
            await until(lambda: juan.ends)

        run(test, redis)

    def test_a_message_whose_answer_was_lost_is_asked_again_only_if_it_has_an_id(
        self, redis: RedisServer, patient: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_line, "ANSWER_SECONDS", 0.5)
        with Cable(redis.port) as cable:

            async def test(another: Callable[..., Rooms]) -> None:
                store = another(f"redis://{cable.address}/0")
                (juan,) = await entered(store, "Juan")
                cable.deaf = True
                posts = [asyncio.create_task(store.post(juan, f"with id {id or 'none'}", id)) for id in ("", "id-1")]
                assert isinstance(await refusal(posts[0]), StoreLost)
                cable.deaf = False
                posted = await posts[1]
                assert posted is not None
                await until(lambda: len(juan.heard) == 2)
                assert juan.texts == ["with id none", "with id id-1"]

            run(test, redis)

    def test_who_was_away_for_longer_than_the_log_reads_histories_and_shows_the_gap(
        self, redis: RedisServer, patient: None
    ) -> None:
        with Cable(redis.port) as cable:

            async def test(another: Callable[..., Rooms]) -> None:
                one, other = another(), another(f"redis://{cable.address}/0")
                juan, pedro = (*await entered(one, "Juan"), *await entered(one, "Pedro", room="quiet"))
                maria, ana = (*await entered(other, "María"), *await entered(other, "Ana", room="quiet"))
                await post(one, juan, "1")
                await until(lambda: maria.heard)
                cable.unplugged = True
                cable.cut()
                for number in range(2, 603):
                    await post(one, juan, str(number))
                await post(one, pedro, "not lost")
                redis.ask("XTRIM", LOG, "MAXLEN", "=", "0")
                cable.unplugged = False
                await until(lambda: len(maria.heard) == 501 and ana.heard)
                await post(one, juan, "the end")
                await until(lambda: maria.texts[-1] == "the end" == juan.texts[-1])
                assert maria.sequences == [1, *range(103, 604)]
                assert juan.sequences == list(range(1, 604))
                assert ana.texts == ["not lost"]

            run(test, redis)

    def test_who_is_so_slow_that_the_log_is_trimmed_before_it_was_read_reads_histories(
        self, redis: RedisServer
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            juan, ana = (*await entered(store, "Juan"), *await entered(store, "Ana", room="quiet"))
            redis.ask_at_once(*posts(redis, ana, "trimmed"), ("XTRIM", LOG, "MAXLEN", "=", 0))
            await post(store, juan, "Hola")
            await until(lambda: juan.heard and ana.heard)
            assert (juan.texts, ana.texts) == (["Hola"], ["trimmed"])

        run(test, redis)


def kept(redis: RedisServer, at: Path) -> None:
    """Keeps what Redis has on disk now."""
    shutil.copytree(redis.folder / "appendonlydir", at)


def fall_back(redis: RedisServer, to: Path) -> None:
    """Redis ends, and comes back with what was kept: a power cut before appendfsync, a replica that was behind."""
    redis.kill()
    shutil.rmtree(redis.folder / "appendonlydir")
    shutil.copytree(to, redis.folder / "appendonlydir")
    redis.start()


class TestRedisThatHasLostSomething:
    def test_a_room_whose_newest_messages_are_lost_begins_a_new_epoch(
        self, redis: RedisServer, patient: None, tmp_path: Path
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            one, other = another(), another()
            juan, maria, quiet = Listener("Juan"), Listener("María"), Listener("Ana", "quiet")
            epoch = await one.enter(juan)
            await other.enter(maria)
            await other.enter(quiet)
            await post(other, quiet, "nothing is lost here")
            for number in range(1, 6):
                await post(one, juan, str(number), f"id {number}")
            kept(redis, tmp_path / "kept")
            for number in range(6, 9):
                await post(one, juan, str(number), f"id {number}")
            await until(lambda: len(juan.heard) == len(maria.heard) == 8)
            await asyncio.to_thread(fall_back, redis, tmp_path / "kept")
            await until(lambda: juan.ends and maria.ends)
            again = Listener("Juan", session=juan.session)
            assert await one.enter(again) not in ("", epoch)
            assert [message.text for message in await one.history("general")] == list("12345")
            assert (await post(one, again, "5", "id 5")).repeated
            assert (await post(one, again, "6", "id 6")).message.sequence == 6
            await post(other, quiet, "nor here")
            await until(lambda: len(quiet.heard) == 2)
            assert quiet.ends == []

        run(test, redis)

    def test_also_where_others_gave_the_lost_numbers_again_before_who_knows_was_back(
        self, redis: RedisServer, patient: None, tmp_path: Path
    ) -> None:
        with Cable(redis.port) as cable:

            async def test(another: Callable[..., Rooms]) -> None:
                knows, new = another(f"redis://{cable.address}/0"), another()
                juan, maria = Listener("Juan"), Listener("María")
                epoch = await knows.enter(juan)
                await post(knows, juan, "1")
                kept(redis, tmp_path / "kept")
                await post(knows, juan, "2, lost")
                await until(lambda: len(juan.heard) == 2)
                cable.unplugged = True
                cable.cut()
                await asyncio.to_thread(fall_back, redis, tmp_path / "kept")
                assert await new.enter(maria) == epoch
                for number in (2, 3):
                    await post(new, maria, f"{number}, again")
                cable.unplugged = False
                await until(lambda: juan.ends and maria.ends)
                again = Listener("Juan", session=juan.session)
                assert await knows.enter(again) != epoch
                history = await knows.history("general")
                assert [(message.sequence, message.text) for message in history] == [
                    (1, "1"),
                    (2, "2, again"),
                    (3, "3, again"),
                ]
                await post(knows, again, "4")
                await until(lambda: again.heard)
                assert again.sequences == [4]

            run(test, redis)

    def test_what_is_said_afterwards_is_heard_also_where_its_clock_has_gone_back(
        self, redis: RedisServer, patient: None, tmp_path: Path
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            await post(store, juan, "1")
            await until(lambda: juan.heard)
            kept(redis, tmp_path / "kept")
            in_an_hour = f"{time.time_ns() // 1_000_000 + 3_600_000}-0"
            redis.ask("XADD", LOG, in_an_hour, "number", "2", "replaced", "nobody")
            await until(lambda: store._read_to == in_an_hour)
            await asyncio.to_thread(fall_back, redis, tmp_path / "kept")
            await post(store, juan, "2", "id-2")
            await until(lambda: len(juan.heard) == 2)
            await post(store, juan, "3", "id-3")
            await until(lambda: len(juan.heard) == 3)
            assert juan.texts == ["1", "2", "3"]

        run(test, redis)

    def test_one_that_has_lost_everything_is_noticed_though_nobody_speaks(
        self, redis: RedisServer, lively: None
    ) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            juan = Listener("Juan")
            epoch = await store.enter(juan)
            await post(store, juan, "Hola")
            await until(lambda: juan.heard)
            redis.ask("FLUSHALL")
            await until(lambda: juan.ends)
            again = Listener("Juan")
            assert await store.enter(again) != epoch
            assert (await post(store, again, "Hola")).message.sequence == 1
            await until(lambda: again.heard)

        run(test, redis)

    def test_who_speaks_first_after_that_is_told_at_once(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            redis.ask("FLUSHALL")
            assert isinstance(await refusal(store.post(juan, "Hola")), StoreLost)
            assert len(juan.ends) == 1

        run(test, redis)


class TestRedisThatWillNotWork:
    def test_none_there_at_the_start_is_one_sentence(self, tmp_path: Path) -> None:
        redis = RedisServer(tmp_path)
        redis.close()

        async def test() -> None:
            store: Rooms = RedisRooms(Address.parsed(f"redis://user:secret@127.0.0.1:{redis.port}/0"))
            lost = await refusal(store.key())
            assert str(lost).startswith(f"There is no Redis to work with at redis://127.0.0.1:{redis.port}/0 (")
            assert "secret" not in str(lost)
            await store.close()

        asyncio.run(test())

    def test_a_wrong_password_is_said_without_it_and_the_right_one_works(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path, password="open-sesame") as redis:

            async def test(another: Callable[..., Rooms]) -> None:
                lost = await refusal(another(redis.url.replace("sesame", "wheat")).key())
                assert "invalid username-password pair" in str(lost)
                assert "wheat" not in str(lost)
                (juan,) = await entered(another(), "Juan")
                assert juan.ends == []

            run(test, redis)

    def test_one_that_is_full_refuses_and_works_again_afterwards(self, redis: RedisServer) -> None:
        async def test(another: Callable[..., Rooms]) -> None:
            store = another()
            (juan,) = await entered(store, "Juan")
            redis.ask("CONFIG", "SET", "maxmemory", "1")
            lost = await refusal(store.post(juan, "Hola", "id-1"))
            assert isinstance(lost, StoreLost)
            assert "refuses" in str(lost)
            redis.ask("CONFIG", "SET", "maxmemory", "0")
            assert not (await post(store, juan, "Hola", "id-1")).repeated

        run(test, redis)
