"""What the server says while it runs: an entry for each thing that happens.

As text an entry is a line or two for people, in the language in force; as JSON it is one line for programs: an object
with the time (ISO 8601, with its zone), the event's name, which no language changes, and the event's facts.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

import orjson

from kit.text import visible
from kit.words import N_, _, ngettext
from server.rooms import Message

FORMATS = ("text", "json")
_LINES = {
    "joined": (N_("✓ {user} joined #{room}"),),
    "left": (N_("✗ {user} left #{room}"),),
    "left, with a reason": (N_("✗ {user} left #{room}: {reason}"),),
    "posted": (
        N_("← RECEIVED from {user}@{room}: {text}"),
        N_("→ BROADCASTING to {count} client(s) in #{room}: {text}"),
    ),
    "repeated": (N_("← RECEIVED again from {user}@{room}, not sent on: {text}"),),
    "refused": (N_("✗ refused {peer}: {reason}"),),
}
"""How events read for people."""


class Log:
    def __init__(self, write: Callable[[str], None] | None = None, format: str = "text") -> None:
        """`write` takes one or more lines, without the last line end, from any thread, and should not wait. Without it
        nothing is said: a server inside a test or a lab. `format` is one of FORMATS."""
        self._write = write
        self._json = format == "json"

    def say(self, *texts: str, event: str = "said", **facts: str | int) -> None:
        """Lines for people that stay together; for programs they are the fact `message` of the event."""
        if self._write is not None:
            self._write(self._object(event, facts, *texts) if self._json else self._lines(*map(visible, texts)))

    def joined(self, user: str, room: str, peer: str = "") -> None:
        self._tell("joined", user=user, room=room, peer=peer)

    def left(self, user: str, room: str, reason: str = "") -> None:
        self._tell("left", user=user, room=room, reason=reason)

    def posted(self, message: Message, reached: int) -> None:
        self._tell_of(message, "posted", reached=reached)

    def repeated(self, message: Message) -> None:
        self._tell_of(message, "repeated")

    def refused(self, peer: str, reason: str) -> None:
        self._tell("refused", peer=peer, reason=reason)

    def lost(self, entries: int) -> str:
        """The entry, not written, that so many entries could not be."""
        text = ngettext("{count} entry of this log is lost", "{count} entries of this log are lost", entries)
        text = text.format(count=entries)
        return self._object("lost", {"entries": entries}, text) if self._json else self._lines(text)

    def _tell_of(self, message: Message, event: str, **facts: int) -> None:
        self._tell(
            event,
            user=message.user,
            room=message.room,
            text=message.text,
            client_message_id=message.client_message_id,
            sequence=message.sequence,
            time_ms=message.time_ms,
            **facts,
        )

    def _tell(self, event: str, **facts: str | int) -> None:
        """Facts that are empty are none."""
        if self._write is None:
            return
        if self._json:
            self._write(self._object(event, facts))
            return
        shown = {name: visible(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        lines = _LINES["left, with a reason" if event == "left" and facts["reason"] else event]
        self._write(self._lines(*(_(line).format(count=facts.get("reached"), **shown) for line in lines)))

    @staticmethod
    def _lines(*texts: str) -> str:
        now, who = time.strftime("%H:%M:%S"), _("SERVER")
        return "\n".join(f"[{now}] [{who}] {text}" for text in texts)

    @staticmethod
    def _object(event: str, facts: dict[str, str | int], *texts: str) -> str:
        entry: dict[str, str | int] = {
            "time": datetime.datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "event": event,
        }
        entry.update(
            (name, visible(fact) if isinstance(fact, str) else fact) for name, fact in facts.items() if fact != ""
        )
        if texts:
            entry["message"] = visible(" ".join(texts))
        return orjson.dumps(entry).decode()
