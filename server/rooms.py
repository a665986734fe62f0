"""The chat without a wire: rooms, who is in them, what was said there, and who hears it.

How it works. One lock guards all rooms. A message gets its number, its place in the history and its way into every
member's hands under that lock, so all members see the messages of a room in one order, numbered without gaps. That
stays fast because nothing under the lock waits: `Member.deliver` takes a message or refuses it, and what is slow (a
network, a log) happens elsewhere.

Whoever makes members decides what delivering means: a queue for a thread, or an event loop.

A name is one member's in its room. Only its own session gets it again while it is there: who lost a connection comes
back on another one before the server has noticed the loss, and takes the place of what is left of the first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from secrets import token_hex
from typing import Generic, NamedTuple, Protocol, TypeVar

from kit.rules import NAME_LENGTH
from proto.chat_pb2 import ChatMessage
from server.limits import Limits

HISTORY_LENGTH = 500
"""Messages that a room remembers, oldest out first: the chat's contract."""


@dataclass(frozen=True)
class Message:
    user: str
    room: str
    text: str
    sequence: int
    """From 1, in the room's order."""
    time_ms: int
    """When it was posted, in milliseconds since the Unix epoch."""
    client_message_id: str

    @cached_property
    def octets(self) -> bytes:
        """As it travels, a ChatMessage: made once, however many hear it."""
        message = ChatMessage(
            user=self.user,
            room=self.room,
            text=self.text,
            sequence=self.sequence,
            time_ms=self.time_ms,
            client_message_id=self.client_message_id,
        )
        return message.SerializeToString()


class Member(Protocol):
    """Who is in a room. Two members are the same only if they are the same object."""

    @property
    def user(self) -> str: ...

    @property
    def room(self) -> str: ...

    @property
    def session(self) -> str:
        """Who has the same may take over this member's name. Never empty; what nobody else has belongs to nobody."""

    @property
    def waiting(self) -> int:
        """Messages that it took and has not passed on yet. A store whose messages come from other servers goes slower
        where many wait."""

    def deliver(self, message: Message) -> bool:
        """Takes the message without waiting, or returns False: then it is a member no longer, and has seen to its own
        end. Called under the rooms' lock, so it must not call them."""

    def replaced(self) -> None:
        """It is a member no longer, because its session has come back as another one. Called like `deliver`."""

    def lost(self, sentence: str) -> None:
        """It is a member no longer, because the store behind its room is lost: its call ends with UNAVAILABLE and the
        sentence, so that its client comes back. Called like `deliver`, by stores that can be lost."""


M = TypeVar("M", bound=Member)


class Posted(NamedTuple):
    """What became of a post."""

    message: Message
    repeated: bool
    """It had been posted before: `message` is that one, and only a sender who cannot have seen it got it again."""
    reached: int
    """How many members took it."""


class NoPlace(Exception):
    """Who wants to enter cannot."""


class NameTaken(NoPlace):
    def __init__(self, user: str, room: str, free: str) -> None:
        """`free` is a name like `user` that nobody has there."""
        super().__init__(user, room, free)
        self.user, self.room, self.free = user, room, free


class RoomFull(NoPlace):
    def __init__(self, room: str, members: int) -> None:
        """It has so many, and takes no more."""
        super().__init__(room, members)
        self.room, self.members = room, members


class TooManyRooms(NoPlace):
    """`Limits.rooms` are in use."""


def free_name(user: str, taken: Container[str]) -> str:
    """The first of Juan2, Juan3, … that is not taken: no longer than a name may be."""
    for number in map(str, count(2)):
        name = user[: NAME_LENGTH - len(number)].rstrip() + number
        if name not in taken:
            return name
    raise AssertionError  # count does not end


class _Seat(NamedTuple, Generic[M]):
    member: M
    newest: int
    """The room's newest sequence when it came: what came before, it has not seen."""


class _Room(Generic[M]):
    def __init__(self) -> None:
        self.epoch = token_hex(4)
        self.seats: dict[str, _Seat[M]] = {}
        """By the member's name, in order of arrival."""
        self.history: deque[Message] = deque()
        self.sent: dict[tuple[str, str], Message] = {}
        """The history's messages by user and client_message_id, to know a repeated one."""
        self.newest = 0
        """The sequence of the newest message."""

    def has(self, member: M) -> bool:
        seat = self.seats.get(member.user)
        return seat is not None and seat.member is member

    def check(self, user: str, room: str, session: str) -> None:
        seat = self.seats.get(user)
        if seat is not None and seat.member.session != session:
            raise NameTaken(user, room, free_name(user, self.seats))

    def remember(self, message: Message) -> None:
        if len(self.history) == HISTORY_LENGTH:
            oldest = self.history.popleft()
            if oldest.client_message_id:
                del self.sent[oldest.user, oldest.client_message_id]
        self.history.append(message)
        self.newest = message.sequence
        if message.client_message_id:
            self.sent[message.user, message.client_message_id] = message


class Rooms(Generic[M]):
    """All rooms of a server. A room begins with its first member. Every method may be called from any thread."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns nanoseconds since the Unix epoch."""
        self._limits = limits or Limits()
        self._clock = clock
        self._lock = threading.Lock()
        self._rooms: OrderedDict[str, _Room[M]] = OrderedDict()
        """The least recently used first."""

    def enter(self, member: M) -> str:
        """From now on the member is delivered every message of its room. Returns the room's epoch: text that is another
        one when the room was forgotten in between and numbers its messages from 1 again. A member of the same name and
        session is `replaced`. Raises NameTaken, RoomFull or TooManyRooms."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None:
                self._make_place()
                room = self._rooms[member.room] = _Room()
            self._rooms.move_to_end(member.room)
            room.check(member.user, member.room, member.session)
            earlier = room.seats.get(member.user)
            if earlier is not None:
                earlier.member.replaced()
            elif len(room.seats) >= self._limits.members:
                raise RoomFull(member.room, self._limits.members)
            room.seats[member.user] = _Seat(member, room.newest)
            return room.epoch

    def leave(self, member: M) -> bool:
        """Whether it was there. Nothing is delivered to it afterwards."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None or not room.has(member):
                return False
            del room.seats[member.user]
            if not room.seats and not room.history:
                del self._rooms[member.room]
            return True

    def post(self, member: M, text: str, client_message_id: str = "") -> Posted | None:
        """Numbers the text, remembers it and delivers it to all in the member's room, the member included. None if the
        member is not in its room (any more)."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None or not room.has(member):
                return None
            self._rooms.move_to_end(member.room)
            earlier = room.sent.get((member.user, client_message_id)) if client_message_id else None
            if earlier is not None:
                # Its sender came back and asks again. Who was here when it was posted has it already.
                unseen = [member] if earlier.sequence <= room.seats[member.user].newest else []
                return self._hand_out(room, earlier, unseen, repeated=True)
            time_ms = self._clock() // 1_000_000
            message = Message(member.user, member.room, text, room.newest + 1, time_ms, client_message_id)
            room.remember(message)
            return self._hand_out(room, message, [seat.member for seat in room.seats.values()], repeated=False)

    @staticmethod
    def _hand_out(room: _Room[M], message: Message, members: list[M], repeated: bool) -> Posted:
        reached = len(members)
        for member in members:
            if not member.deliver(message):
                del room.seats[member.user]
                reached -= 1
        return Posted(message, repeated, reached)

    def check(self, user: str, room: str, session: str) -> None:
        """Raises NameTaken where `enter` would."""
        with self._lock:
            there = self._rooms.get(room)
            if there is not None:
                there.check(user, room, session)

    def members(self, room: str) -> list[str]:
        """Names in order of arrival."""
        with self._lock:
            there = self._rooms.get(room)
            return list(there.seats) if there else []

    def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        """The newest `limit` messages (0: all there are) with a greater sequence, oldest first."""
        with self._lock:
            there = self._rooms.get(room)
            if there is None:
                return []
            count = min(len(there.history), max(there.newest - after_sequence, 0))
            if limit:
                count = min(count, limit)
            return list(islice(there.history, len(there.history) - count, None))

    def _make_place(self) -> None:
        if len(self._rooms) < self._limits.rooms:
            return
        empty = next((name for name, room in self._rooms.items() if not room.seats), None)
        if empty is None:
            raise TooManyRooms
        del self._rooms[empty]
