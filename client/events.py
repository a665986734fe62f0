"""What a session tells those who use it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from proto.chat_pb2 import ChatMessage


class Entered(NamedTuple):
    """The room is open: its history has been heard, and what is said from now on will be."""

    members: tuple[str, ...]
    """Who was there, in order of arrival, not counting us."""
    again: bool
    """We had been there before, and are back."""


class Heard(NamedTuple):
    """A message of the room, in the room's order, each once."""

    message: ChatMessage
    mine: bool
    """This session said it; now it is confirmed."""
    past: bool
    """It was read from the history."""


class Missed(NamedTuple):
    """While we were away more was said than the server remembers."""

    messages: int


class Forgotten(NamedTuple):
    """While we were away the server has forgotten the room, and numbers its messages from 1 again."""


class Lost(NamedTuple):
    """The server is lost, or was not there; the session is trying to come (back)."""

    reason: str
    """A sentence."""


class How(Enum):
    LEFT = "left"
    REFUSED = "refused"
    """Trying again would not help."""
    GAVE_UP = "gave up"
    """The session's patience with a lost server is at its end."""


class Ended(NamedTuple):
    """The last event of a session."""

    how: How
    reason: str
    """A sentence, empty where we left."""
    unconfirmed: int
    """Messages that we said and never heard."""


Event = Entered | Heard | Missed | Forgotten | Lost | Ended
