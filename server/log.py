"""What the server says while it runs: one line for each thing that happens, in the language in force."""

from __future__ import annotations

import time
from collections.abc import Callable

from kit.words import _
from server.rooms import Message


class Log:
    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        """`write` takes one or more lines, without the last line end, from any thread. Without it nothing is said: a
        server inside a test or a lab."""
        self._write = write

    def say(self, *texts: str) -> None:
        """Lines that stay together."""
        if self._write is None:
            return
        now, who = time.strftime("%H:%M:%S"), _("SERVER")
        self._write("\n".join(f"[{now}] [{who}] {text}" for text in texts))

    def joined(self, user: str, room: str) -> None:
        self.say(_("✓ {user} joined #{room}").format(user=user, room=room))

    def left(self, user: str, room: str, reason: str = "") -> None:
        if reason:
            self.say(_("✗ {user} left #{room}: {reason}").format(user=user, room=room, reason=reason))
        else:
            self.say(_("✗ {user} left #{room}").format(user=user, room=room))

    def posted(self, message: Message, reached: int) -> None:
        user, room, text = message.user, message.room, message.text
        self.say(
            _("← RECEIVED from {user}@{room}: {text}").format(user=user, room=room, text=text),
            _("→ BROADCASTING to {count} client(s) in #{room}: {text}").format(count=reached, room=room, text=text),
        )

    def repeated(self, message: Message) -> None:
        text = _("← RECEIVED again from {user}@{room}, not sent on: {text}")
        self.say(text.format(user=message.user, room=message.room, text=message.text))

    def refused(self, peer: str, reason: str) -> None:
        self.say(_("✗ refused {peer}: {reason}").format(peer=peer, reason=reason))
