"""Rooms that many servers share, in Redis: any of them may die, and Redis may go and come back.

How it works. What is kept, and the scripts that change it, are in server/redis_scripts.py; a post is one of those, in
one round trip. It writes the message twice: into its room's history, a stream of exactly HISTORY_LENGTH messages that
History is answered from, and into the log, one stream of what is said in all rooms. Every server reads the log, with
one blocking read after the other, and hands each message to its own members in that room:

    member ─▶ post ─ POST ─▶ history of the room                  (500 messages, for who comes later)
                         └─▶ log ─ XREAD ─▶ _take ─▶ deliver() of the members here      (the same on every server)

So fan-out does not rest on the histories: a burst of thousands of messages in one room trims its history long before
servers have read them, and the log has them still. Entries of the log are numbered; a server that finds a number
missing (it was away for longer than the log is), or was cut off in between, compares all its rooms with Redis and reads
what it lacks from the histories. What those have lost as well is a gap in the room's sequence, which clients see.
Nobody is hurried: a sender waits until its own server has read what it posted, up to PACE messages, and a server reads
on only when those of its members who read have caught up.

Three connections, however many rooms: one reads the log, one carries what members do, one what History reads.

When something breaks
- A server dies: it no longer says that it is alive, and the others take its members out after ALIVE_SECONDS. Who comes
  back with the token of the session need not wait for that.
- Redis is gone: short interruptions are bridged (server/redis_line.py). After PATIENCE_SECONDS every member is told:
  calls end with UNAVAILABLE, clients come back until Redis does, and send again what was not confirmed. A message is
  confirmed (comes back to its sender) only after Redis has it; how far Redis keeps what it has is its appendfsync.
- Redis comes back without the end of what it had: some server has seen a message that is in no history any more, or
  another one under its number. That room begins a new epoch (RENEW), and its members are told as above. Only if all
  servers end together with Redis, nobody is left to notice.
- Redis comes back with nothing: no server counts as alive, and all members are told.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from secrets import token_hex
from typing import Any, Generic

from kit.words import _
from server.limits import PACE, Limits
from server.redis_line import ANSWER_SECONDS, PATIENCE_SECONDS, PAUSE_SECONDS, Address, Broken, Line, Wire
from server.redis_scripts import (
    BEAT,
    ENTER,
    FORGET,
    KEY,
    LEAVE,
    LOG,
    LOG_NEWEST,
    POST,
    PURGE,
    RENEW,
    ROOMS,
    SERVERS,
    history_key,
    members_key,
    room_key,
    sent_key,
)
from server.rooms import HISTORY_LENGTH, M, Message, NameTaken, NoPlace, Posted, RoomFull, TooManyRooms, free_name
from server.sessions import new_key
from server.stores import Store, StoreLost

READ_SECONDS = 1.0
"""How long Redis keeps a blocking read that finds nothing."""
READ_COUNT = 200
"""Entries of the log in one read: 3 MB of the longest texts."""
HISTORIES = 8
"""In one answer: 64 MB of the longest texts."""
BEAT_SECONDS = 2.0
"""How often a server says that it is alive."""
ALIVE_SECONDS = 10.0
"""For how long that is believed."""
KNOWN_ROOMS = 2_000
"""Rooms without members here whose newest message is remembered, to notice when Redis has lost it."""
LOOK_SECONDS = 0.1
"""Who passes on nothing in this time is not waited for."""
CATCH_UP_SECONDS = 5.0
"""Nor longer than this is anybody."""
YIELD_DELIVERIES = 1_000
"""After so many, about 1 ms, others in the event loop have their turn: members' writers, above all."""


class _Here(Generic[M]):
    """A member on this server."""

    def __init__(self, member: M, holder: str) -> None:
        self.member = member
        self.holder = holder
        """Its name in Redis and in the log."""
        self.since: int | None = None
        """The room's newest sequence when it came; None until Redis has said so."""
        self.early: list[Message] = []
        """Messages that came before that answer did."""
        self.slow = False
        """It was waited for, and has not caught up since."""


class _Room(Generic[M]):
    """What this server knows of a room."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = ""
        """Empty until it is known."""
        self.sequence = 0
        """Of the newest message that was handed out, or that there was when this server heard of the room."""
        self.time_ms = 0
        """That message's; 0 if it was not seen."""
        self.here: dict[M, _Here[M]] = {}


class RedisRooms(Store[M]):
    def __init__(
        self, address: Address, limits: Limits | None = None, say: Callable[[str], None] = lambda sentence: None
    ) -> None:
        """Connects with the first call of a method, which raises StoreLost where there is no Redis. `say` is told of
        Redis's losses and returns, in sentences."""
        self._limits = limits or Limits()
        self._say = say
        self._line = Line(address)
        self._histories = Line(address, HISTORIES)
        self._reading = Wire(address)
        self._server = token_hex(8)
        self._alive_as = ""
        """The name under which Redis was told last that this server is alive."""
        self._former: set[str] = set()
        """Names that this server had before it lost touch with Redis."""
        self._numbers = count(1)
        self._rooms: OrderedDict[str, _Room[M]] = OrderedDict()
        """The least recently used first."""
        self._holders: dict[str, tuple[_Room[M], _Here[M]]] = {}
        self._leaving: set[_Here[M]] = set()
        """Who has left here, and may still be in Redis."""
        self._read_to = "0-0"
        """The id of the newest entry of the log that was read."""
        self._number = 0
        """That entry's number."""
        self._in_step = True
        """Nothing can have been missed. False from a break of the reading connection until `_compare`."""
        self._crowded_from = self._limits.waiting // 2
        """With more messages waiting, a member is waited for."""
        self._crowded: set[_Here[M]] = set()
        """For whom the reader is to wait."""
        self._moved = asyncio.Event()
        """Set, and made anew, when the reader has got on."""
        self._begun: asyncio.Task[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def key(self) -> bytes:
        if self._begun is None or (self._begun.done() and self._begun.exception() is not None):
            self._begun = asyncio.create_task(self._begin())
        return await asyncio.shield(self._begun)

    async def _begin(self) -> bytes:
        await self._line.ask(("SET", KEY, new_key().hex(), "NX"))
        key: str = await self._line.ask(("GET", KEY))
        await self._line.ask(BEAT(SERVERS, self._server, round(ALIVE_SECONDS * 1000)))
        self._alive_as = self._server
        self._read_to, self._number = await self._end_of_log()
        self._tasks = [asyncio.create_task(self._read_log()), asyncio.create_task(self._beat())]
        return bytes.fromhex(key)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            with suppress(StoreLost):
                await self._release_all()
                await self._line.ask(("ZREM", SERVERS, self._server))
        await self._line.close()
        await self._histories.close()
        await self._reading.close()

    # What members do

    async def enter(self, member: M) -> str:
        await self.key()
        room = self._room(member.room)
        here = _Here(member, f"{self._server}.{next(self._numbers)}")
        self._holders[here.holder] = room, here
        room.here[member] = here  # before Redis is asked: what is said from its answer on must not be missed
        try:
            epoch, newest = await self._enter(member, here.holder)
        except NoPlace:
            self._remove(room, here)
            raise
        except BaseException:  # it may have been done
            self._remove(room, here, still_in_redis=True)
            raise
        if here.holder not in self._holders:  # all were told meanwhile that Redis is lost
            raise StoreLost(_lost())
        if _began(epoch) < _began(room.epoch):  # it began another epoch while the answer was on its way
            self._remove(room, here, still_in_redis=True)
            raise StoreLost(_lost())
        if epoch != room.epoch:
            self._renew(room, epoch, newest, but=here)
        here.since = newest
        for message in here.early:
            if message.sequence > newest:
                self._deliver(room, here, message)
        here.early.clear()
        return epoch

    async def _enter(self, member: M, holder: str) -> tuple[str, int]:
        name, user = member.room, member.user
        keys = room_key(name), members_key(name), ROOMS, LOG, LOG_NEWEST
        most = self._limits.members, self._limits.rooms
        while True:
            kind, *reply = await self._line.ask(ENTER(*keys, name, user, member.session, holder, *most))
            if kind == "in":
                epoch, newest = reply
                return epoch, int(newest)
            if kind == "taken":
                raise await self._taken(user, name)
            if kind == "full":
                raise RoomFull(name, self._limits.members)
            if not await self._forget_a_room():
                raise TooManyRooms

    async def leave(self, member: M) -> bool:
        room, here = self._find(member)
        if room is None or here is None:
            return False
        self._remove(room, here, still_in_redis=True)
        await self._release(here)
        return True

    async def post(self, member: M, text: str, client_message_id: str = "") -> Posted | None:
        room, here = self._find(member)
        if room is None or here is None or here.since is None:
            return None
        name, user = member.room, member.user
        keys = room_key(name), members_key(name), history_key(name), sent_key(name), LOG, LOG_NEWEST
        kind, *reply = await self._line.ask(
            POST(*keys, name, room.epoch, user, text, client_message_id), again=bool(client_message_id)
        )
        if kind == "renewed":
            if here.holder in self._holders:
                self._tell_lost(room, here)
            raise StoreLost(_lost())
        if kind == "again":
            message = _message(name, _fields(reply[1]), int(reply[0]))
            if message.sequence <= here.since and here.holder in self._holders:
                self._deliver(room, here, message)
            return Posted(message, True, 1)
        reached, sequence, time_ms = reply
        message = Message(user, name, text, sequence, int(time_ms), client_message_id)
        while room.sequence < sequence - PACE and here.holder in self._holders:
            await self._moved.wait()  # senders go no faster than their own server reads
        return Posted(message, False, reached)

    async def check(self, user: str, room: str, session: str) -> None:
        held = await self._line.ask(("HGET", members_key(room), user))
        if held is not None and held.split(" ")[1] != session:
            raise await self._taken(user, room)

    async def members(self, room: str) -> list[str]:
        there = await self._line.ask(("HGETALL", members_key(room)))
        arrivals = {user: int(held.partition(" ")[0]) for user, held in _fields(there).items()}
        return sorted(arrivals, key=arrivals.__getitem__)

    async def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        most = min(limit or HISTORY_LENGTH, HISTORY_LENGTH)
        after = f"({after_sequence}-0"
        entries = await self._histories.ask(("XREVRANGE", history_key(room), "+", after, "COUNT", most))
        return [_message(room, _fields(fields), int(entry.partition("-")[0])) for entry, fields in reversed(entries)]

    async def _taken(self, user: str, room: str) -> NameTaken:
        names = set(await self._line.ask(("HKEYS", members_key(room))))
        return NameTaken(user, room, free_name(user, names))

    async def _forget_a_room(self) -> bool:
        """The empty one that was used least recently. False if there is none."""
        for name in await self._line.ask(("ZRANGE", ROOMS, 0, -1)):
            keys = room_key(name), members_key(name), history_key(name), sent_key(name), ROOMS
            if await self._line.ask(FORGET(*keys, name)):
                return True
        return False

    async def _release(self, here: _Here[M]) -> None:
        """Takes somebody who has left out of Redis."""
        name, user = here.member.room, here.member.user
        await self._line.ask(LEAVE(room_key(name), members_key(name), ROOMS, name, user, here.holder))
        self._leaving.discard(here)

    async def _release_all(self) -> None:
        for here in list(self._leaving):
            await self._release(here)

    # Who is here

    def _room(self, name: str) -> _Room[M]:
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) >= KNOWN_ROOMS:
                empty = next((room for room in self._rooms.values() if not room.here), None)
                if empty is not None:
                    del self._rooms[empty.name]
            room = self._rooms[name] = _Room(name)
        self._rooms.move_to_end(name)
        return room

    def _find(self, member: M) -> tuple[_Room[M] | None, _Here[M] | None]:
        room = self._rooms.get(member.room)
        return room, room.here.get(member) if room is not None else None

    def _remove(self, room: _Room[M], here: _Here[M], still_in_redis: bool = False) -> None:
        self._holders.pop(here.holder, None)
        room.here.pop(here.member, None)
        if still_in_redis:
            self._leaving.add(here)  # taken out at the next beat, if nobody does it before

    def _deliver(self, room: _Room[M], here: _Here[M], message: Message) -> None:
        if not here.member.deliver(message):
            self._remove(room, here, still_in_redis=True)
        waiting = here.member.waiting
        if waiting <= self._crowded_from // 2:
            here.slow = False
        elif waiting > self._crowded_from and not here.slow:
            self._crowded.add(here)

    def _hand_out(self, room: _Room[M], message: Message) -> int:
        """To all who are here. Returns to how many."""
        room.sequence, room.time_ms = message.sequence, message.time_ms
        heres = list(room.here.values())
        for here in heres:
            if here.since is None:
                here.early.append(message)
            elif message.sequence > here.since:
                self._deliver(room, here, message)
        return len(heres)

    def _renew(self, room: _Room[M], epoch: str, sequence: int, but: _Here[M] | None = None) -> None:
        """The room has another epoch than those who are here were told."""
        for here in list(room.here.values()):
            if here is not but and here.since is not None:
                self._tell_lost(room, here)
        room.epoch, room.sequence, room.time_ms = epoch, sequence, 0

    def _tell_lost(self, room: _Room[M], here: _Here[M]) -> None:
        self._remove(room, here, still_in_redis=True)
        here.member.lost(_lost())

    def _tell_all_lost(self) -> None:
        """And come back to Redis under another name, so that nobody who was here is taken for present."""
        for room in self._rooms.values():
            for here in list(room.here.values()):
                self._remove(room, here)
                if here.since is not None:  # else its `enter` tells it
                    here.member.lost(_lost())
        self._former.add(self._server)
        self._leaving.clear()
        self._server = token_hex(8)
        self._got_on()

    # Reading the log

    async def _read_log(self) -> None:
        """A task for as long as the store is open."""
        broken_since: float | None = None
        told = False
        while True:
            try:
                await self._read_on()
                if told:
                    self._say(_("Redis is back"))
                broken_since, told = None, False
            except (Broken, StoreLost) as error:
                self._in_step = False
                now = time.monotonic()
                broken_since = broken_since or now
                if not told and now - broken_since >= PATIENCE_SECONDS:
                    told = True
                    self._say(_("Redis is lost ({reason}); every chat ends until it is back").format(reason=error))
                    self._tell_all_lost()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read_on(self) -> None:
        if not self._in_step:
            await self._reading.exchange([("PING",)], [], ANSWER_SECONDS)  # says why, where there is no connection
            await self._compare()
            self._in_step = True
        replies: list[Any] = []
        block = round(READ_SECONDS * 1000)
        read = ("XREAD", "COUNT", READ_COUNT, "BLOCK", block, "STREAMS", LOG, self._read_to)
        await self._reading.exchange([read], replies, READ_SECONDS + ANSWER_SECONDS)
        if isinstance(replies[0], Exception):
            raise Broken(str(replies[0]))
        delivered = 0
        for _stream, entries in replies[0] or ():
            for entry, pairs in entries:
                fields = _fields(pairs)
                number = int(fields.get("number", 0))
                if not number:  # no server of this kit wrote that
                    self._read_to = entry
                    continue
                if number != self._number + 1:
                    await self._compare()
                self._read_to, self._number = entry, number
                delivered += self._take(fields)
                if self._crowded:
                    await self._let_catch_up()
                if delivered >= YIELD_DELIVERIES:
                    delivered = 0
                    self._got_on()
                    await asyncio.sleep(0)
        self._got_on()

    async def _let_catch_up(self) -> None:
        """Redis brings a burst faster than gRPC takes it to many members; the log can wait for them. Who reads nothing
        holds up the others for one LOOK_SECONDS, and is dropped when its queue is full."""
        self._got_on()
        waiting = {here: here.member.waiting for here in self._crowded}
        self._crowded.clear()
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while waiting:
            await asyncio.sleep(LOOK_SECONDS)
            late = time.monotonic() >= deadline
            for here, before in list(waiting.items()):
                waiting[here] = here.member.waiting
                here.slow = waiting[here] >= before or late
                if here.slow or waiting[here] <= self._crowded_from // 2:
                    del waiting[here]

    def _got_on(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _take(self, fields: dict[str, str]) -> int:
        """One entry of the log. Returns to how many members it was handed out."""
        if "replaced" in fields:
            room_and_here = self._holders.get(fields["replaced"])
            if room_and_here is not None:
                self._remove(*room_and_here)
                room_and_here[1].member.replaced()
            return 0
        room = self._room(fields["room"])
        sequence = int(fields.get("sequence", 0))
        if _began(fields["epoch"]) > _began(room.epoch):
            self._renew(room, fields["epoch"], sequence - 1 if sequence else int(fields["newest"]))
        if fields["epoch"] != room.epoch or sequence <= room.sequence:  # of the past, or read from the history
            return 0
        return self._hand_out(room, _message(room.name, fields, sequence))

    async def _compare(self) -> None:
        """Whether Redis still has what this server knows, and what was said meanwhile. Raises StoreLost."""
        end, number = await self._end_of_log()
        if _order(end) < _order(self._read_to):  # the end of the log is lost; from here on it is written again
            self._read_to, self._number = end, number
        for room in list(self._rooms.values()):
            if not room.epoch:
                continue
            name = room.name
            keys = room_key(name), history_key(name), sent_key(name), LOG, LOG_NEWEST
            reply = await self._line.ask(RENEW(*keys, name, room.epoch, room.sequence, room.time_ms))
            epoch, newest = reply or ("", 0)
            if not reply or _began(epoch) > _began(room.epoch):
                self._renew(room, epoch, int(newest))
            elif room.here:
                for message in await self.history(name, room.sequence):
                    self._hand_out(room, message)

    async def _end_of_log(self) -> tuple[str, int]:
        """The id of its newest entry, and its number."""
        entries = await self._line.ask(("XREVRANGE", LOG, "+", "-", "COUNT", 1))
        return next(((entry, int(_fields(pairs)["number"])) for entry, pairs in entries), ("0-0", 0))

    # Being alive

    async def _beat(self) -> None:
        """A task for as long as the store is open."""
        while True:
            with suppress(StoreLost):
                server = self._server
                known, dead = await self._line.ask(BEAT(SERVERS, server, round(ALIVE_SECONDS * 1000)))
                if not known and server == self._alive_as:  # others may have taken our members' names
                    self._tell_all_lost()
                    continue
                self._alive_as = server
                await self._bury({*dead, *self._former})
                await self._release_all()
            await asyncio.sleep(BEAT_SECONDS)

    async def _bury(self, dead: set[str]) -> None:
        if not dead:
            return
        for name in await self._line.ask(("ZRANGE", ROOMS, 0, -1)):
            await self._line.ask(PURGE(members_key(name), *dead))
        await self._line.ask(("ZREM", SERVERS, *dead))
        self._former -= dead


def _fields(pairs: list[str]) -> dict[str, str]:
    """Redis answers with names and values in turn."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _message(room: str, fields: dict[str, str], sequence: int) -> Message:
    return Message(fields["user"], room, fields["text"], sequence, int(fields["time_ms"]), fields["id"])


def _began(epoch: str) -> int:
    return int(epoch or 0)


def _order(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def _lost() -> str:
    return _("The server has lost its store of messages.")
