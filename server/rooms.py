"""The chat without a wire: rooms, who is in them, what was said there, and who hears it.

How it works. One lock guards all rooms. A message gets its number, its place in the history and its way into every
member's hands under that lock, so all members see the messages of a room in one order, numbered without gaps. That
stays fast because nothing under the lock waits: `Member.deliver` takes a message or refuses it, and what is slow (a
network, a log) happens elsewhere, on lists that were copied out.

Whoever makes members decides what delivering means: a queue for a thread, or an event loop.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

HISTORY_LENGTH = 500
"""Messages that a room remembers, oldest out first: the chat's contract."""
ROOMS = 1_000
"""Rooms remembered at once: a course's worth, 8 GB if somebody fills each with the longest texts. Beyond, the empty
room that was used least recently is forgotten."""


class Message(NamedTuple):
    user: str
    room: str
    text: str
    sequence: int
    """From 1, in the room's order."""
    time_ms: int
    """When it was posted, in milliseconds since the Unix epoch."""
    client_message_id: str


class Member(Protocol):
    """Who is in a room. Two members are the same only if they are the same object."""

    @property
    def user(self) -> str: ...

    @property
    def room(self) -> str: ...

    def deliver(self, message: Message) -> bool:
        """Takes the message without waiting, or returns False: then it is a member no longer. Called under the rooms'
        lock, so it must not call them."""


M = TypeVar("M", bound=Member)


class Posted(NamedTuple, Generic[M]):
    """What became of a post."""

    message: Message
    repeated: bool
    """It had been posted before: `message` is that one, and only a sender who cannot have seen it got it again."""
    reached: int
    """How many members took it."""
    dropped: list[M]
    """Members that did not take it, and are out of the room therefore."""


class TooManyRooms(Exception):
    """ROOMS are in use."""


class _Room(Generic[M]):
    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.members: dict[M, int] = {}
        """In order of arrival, each with the room's newest sequence when it came: what came before, it has not seen."""
        self.history: deque[Message] = deque()
        self.sent: dict[tuple[str, str], Message] = {}
        """The history's messages by user and client_message_id, to know a repeated one."""
        self.newest = 0
        """The sequence of the newest message."""

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

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns nanoseconds since the Unix epoch."""
        self._clock = clock
        self._lock = threading.Lock()
        self._rooms: OrderedDict[str, _Room[M]] = OrderedDict()
        """The least recently used first."""

    def enter(self, member: M) -> str:
        """From now on the member is delivered every message of its room. Returns the room's epoch: text that is another
        one when the room was forgotten in between and numbers its messages from 1 again. Raises TooManyRooms."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None:
                self._make_place()
                room = self._rooms[member.room] = _Room()
            self._rooms.move_to_end(member.room)
            room.members[member] = room.newest
            return room.epoch

    def leave(self, member: M) -> bool:
        """Whether it was there. Nothing is delivered to it afterwards."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None or room.members.pop(member, None) is None:
                return False
            if not room.members and not room.history:
                del self._rooms[member.room]
            return True

    def post(self, member: M, text: str, client_message_id: str = "") -> Posted[M] | None:
        """Numbers the text, remembers it and delivers it to all in the member's room, the member included. None if the
        member is not in its room (any more)."""
        with self._lock:
            room = self._rooms.get(member.room)
            if room is None or member not in room.members:
                return None
            self._rooms.move_to_end(member.room)
            earlier = room.sent.get((member.user, client_message_id)) if client_message_id else None
            if earlier is not None:
                # Its sender came back and asks again. Who was here when it was posted has it already.
                unseen = [member] if earlier.sequence <= room.members[member] else []
                return self._hand_out(room, earlier, unseen, repeated=True)
            time_ms = self._clock() // 1_000_000
            message = Message(member.user, member.room, text, room.newest + 1, time_ms, client_message_id)
            room.remember(message)
            return self._hand_out(room, message, list(room.members), repeated=False)

    @staticmethod
    def _hand_out(room: _Room[M], message: Message, members: list[M], repeated: bool) -> Posted[M]:
        dropped = [member for member in members if not member.deliver(message)]
        for member in dropped:
            del room.members[member]
        return Posted(message, repeated, len(members) - len(dropped), dropped)

    def members(self, room: str) -> list[str]:
        """Names in order of arrival, each once."""
        with self._lock:
            there = self._rooms.get(room)
            return list(dict.fromkeys(member.user for member in there.members)) if there else []

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
        if len(self._rooms) < ROOMS:
            return
        empty = next((name for name, room in self._rooms.items() if not room.members), None)
        if empty is None:
            raise TooManyRooms
        del self._rooms[empty]
