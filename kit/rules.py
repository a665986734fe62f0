"""What names, rooms and texts may be in the chat: both ends ask here, so that both give the same answer.

The limits are those that proto/chat.proto states. Each function returns what is wrong, as a sentence for people, or
None. Lengths are in characters (Unicode code points).
"""

from __future__ import annotations

import re
import unicodedata

from kit.text import has_control_characters
from kit.words import _

NAME_LENGTH = 32
"""Of a user's or a room's name: fits a line of a terminal beside the text."""
TEXT_LENGTH = 4_000
"""Some two screens of a terminal, 16 kB of UTF-8 at most: a full history of them is 8 MB."""
MESSAGE_ID_LENGTH = 128
"""Room for a UUID with something before it."""
ROOM_SECRET_VARIABLE = "MINICHAT_ROOM_SECRET"
"""Of the environment: where both ends take the room secret from, unless an option says it."""
_JOINED = "\u0590-\u109f\u1700-\u1cff\u2100-\u2bff\ufe0f\U0001f000-\U0001ffff"
"""Scripts that joiners and variation selectors give shapes to: those from Hebrew to Burmese, and emoji."""
_UNSEEN = re.compile(
    f"(?<![{_JOINED}])[\u200c\u200d\ufe00-\ufe0f]|[\u200c\u200d](?![{_JOINED}])"
    "|[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]"
)
"""Beside those, fillers, blanks, and what only marks places (Unicode's Default_Ignorable_Code_Point)."""
ROOM_SECRET_LENGTH = 128
"""A sentence, or far more octets in hexadecimal than can be guessed."""


def problem_with_user(user: str) -> str | None:
    if not user.strip():
        return _("The user's name is empty; it takes 1 to {limit} characters.").format(limit=NAME_LENGTH)
    if len(user) > NAME_LENGTH:
        text = _("The user's name has {length} characters; at most {limit} are allowed.")
        return text.format(length=len(user), limit=NAME_LENGTH)
    if has_control_characters(user):
        return _("The user's name holds a control character; none are allowed.")
    if user != user.strip():
        return _("The user's name begins or ends with a space; neither is allowed.")
    if user != as_seen(user):
        return _("The user's name holds what nobody sees, and so would look like another name.")
    return None


def as_seen(name: str) -> str:
    """The name without what makes two names differ that look the same: accents that stand apart from their letters
    (NFD), spaces of other kinds, and characters without a shape of their own. What has a shape, and looks like another
    alphabet's letter, is left as it is."""
    return _UNSEEN.sub("", unicodedata.normalize("NFC", " ".join(name.split())))


def problem_with_room(room: str) -> str | None:
    if not room.strip():
        return _("The room's name is empty; it takes 1 to {limit} characters.").format(limit=NAME_LENGTH)
    if len(room) > NAME_LENGTH:
        text = _("The room's name has {length} characters; at most {limit} are allowed.")
        return text.format(length=len(room), limit=NAME_LENGTH)
    if has_control_characters(room):
        return _("The room's name holds a control character; none are allowed.")
    if room != room.strip():
        return _("The room's name begins or ends with a space; neither is allowed.")
    if room.startswith("#"):
        return _("The room's name begins with #; it is written without.")
    return None


def problem_with_text(text: str) -> str | None:
    """Of a message that says something: empty is a problem."""
    if not text:
        return _("The text is empty; it takes 1 to {limit} characters.").format(limit=TEXT_LENGTH)
    if len(text) > TEXT_LENGTH:
        sentence = _("The text has {length} characters; at most {limit} are allowed.")
        return sentence.format(length=len(text), limit=TEXT_LENGTH)
    if has_control_characters(text):
        return _("The text holds a control character (a line end, a tab or an escape, say); none are allowed.")
    return None


def problem_with_message_id(message_id: str) -> str | None:
    """Empty is none."""
    if len(message_id) > MESSAGE_ID_LENGTH:
        sentence = _("The client_message_id has {length} characters; at most {limit} are allowed.")
        return sentence.format(length=len(message_id), limit=MESSAGE_ID_LENGTH)
    if has_control_characters(message_id):
        return _("The client_message_id holds a control character; none are allowed.")
    return None


def problem_with_room_secret(secret: str) -> str | None:
    """Of a server that asks for one, and of a client that has one."""
    if len(secret) > ROOM_SECRET_LENGTH:
        sentence = _("The room secret has {length} characters; at most {limit} are allowed.")
        return sentence.format(length=len(secret), limit=ROOM_SECRET_LENGTH)
    if has_control_characters(secret):
        return _("The room secret holds a control character; none are allowed.")
    return None


def without_tabs(line: str) -> str:
    """What somebody typed or piped in, with spaces where tabs stood: they are common in code, and not allowed."""
    return line.expandtabs(4)
