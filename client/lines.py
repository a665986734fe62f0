"""What happens in a session, as lines for people."""

from __future__ import annotations

import time
import zlib
from typing import NamedTuple

from client.events import Ended, Entered, Event, Forgotten, Heard, Lost, Missed
from kit.text import visible
from kit.words import _, ngettext

_NAME_COLOURS = (32, 33, 34, 35, 36, 92, 94, 95, 96)
"""SGR codes that are read on dark and on light ground; red is for trouble."""
_BOLD, _DIM, _RED = 1, 2, 31


class Style(NamedTuple):
    colour: bool

    def paint(self, text: str, *codes: int) -> str:
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if self.colour else text

    def line(self, event: Event) -> str:
        """What a terminal shows for it; empty for what it need not."""
        match event:
            case Heard():
                return self._said(event)
            case Entered(members, again):
                return self._entered(members, again)
            case Missed(messages):
                text = ngettext(
                    "… {count} message was said meanwhile that the server does not remember",
                    "… {count} messages were said meanwhile that the server does not remember",
                    messages,
                )
                return self.paint(text.format(count=messages), _DIM)
            case Forgotten():
                return self.paint(_("… the server began anew meanwhile; what was said before is forgotten there"), _DIM)
            case Lost(reason):
                return self.trouble(_("{reason} Trying again …").format(reason=reason))
            case Ended():
                return self._ended(event)

    def trouble(self, sentence: str) -> str:
        return self.paint(f"✗ {sentence}", _RED)

    def remark(self, sentence: str) -> str:
        return self.paint(f"· {sentence}", _DIM)

    def _said(self, heard: Heard) -> str:
        message = heard.message
        user = visible(message.user)
        colour = _NAME_COLOURS[zlib.crc32(message.user.encode()) % len(_NAME_COLOURS)]
        name = self.paint(user, colour, *([_BOLD] if heard.mine else []))
        return f"{self.paint(clock(message.time_ms), _DIM)}  {name}  {visible(message.text)}"

    def _entered(self, members: tuple[str, ...], again: bool) -> str:
        if again:
            return self.paint(_("✓ back in the room"), _DIM)
        if not members:
            return self.remark(_("Nobody else is here yet. /help lists the commands."))
        text = _("Here are: {members}. /help lists the commands.")
        return self.remark(text.format(members=", ".join(map(visible, members))))

    def _ended(self, ended: Ended) -> str:
        lines = [self.trouble(ended.reason)] if ended.reason else []
        if ended.unconfirmed:
            text = ngettext(
                "{count} message was not confirmed by the server.",
                "{count} messages were not confirmed by the server.",
                ended.unconfirmed,
            )
            lines.append(self.trouble(text.format(count=ended.unconfirmed)))
        return "\n".join(lines)


def clock(time_ms: int) -> str:
    """Local time; with the date where it was not today."""
    then = time.localtime(time_ms / 1000)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)
