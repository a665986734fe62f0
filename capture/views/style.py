"""How a frame type looks: a shape and a colour together, the same in every view; and the colours of streams.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which people with any colour vision tell apart. In a
terminal they are written in 24 bits where it says that it can (COLORTERM), otherwise as the nearest of the 256.
"""

from __future__ import annotations

import os
from typing import IO, NamedTuple

from capture.events import FrameType
from kit.text import wants_colour

BLACK, ORANGE, SKY_BLUE, BLUISH_GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, REDDISH_PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#888888"

_NEAREST_OF_256 = {
    BLACK: 0, ORANGE: 172, SKY_BLUE: 74, BLUISH_GREEN: 36, YELLOW: 221, BLUE: 32, VERMILLION: 166,
    REDDISH_PURPLE: 175, GREY: 245,
}  # fmt: skip


class Look(NamedTuple):
    colour: str
    """`#rrggbb`."""
    marker: str
    """matplotlib's name for the shape."""
    filled: bool = True
    """An open shape tells pairs apart that share a colour."""
    scale: float = 1.0
    """Of the shape's size, so that all look equally large."""


LOOKS: dict[int, Look] = {
    FrameType.DATA: Look(BLUE, "s", scale=0.95),
    FrameType.HEADERS: Look(VERMILLION, "o"),
    FrameType.CONTINUATION: Look(VERMILLION, "o", filled=False),
    FrameType.SETTINGS: Look(BLUISH_GREEN, "D", scale=0.9),
    FrameType.WINDOW_UPDATE: Look(SKY_BLUE, "^", scale=1.15),
    FrameType.PING: Look(ORANGE, "*", scale=1.5),
    FrameType.RST_STREAM: Look(REDDISH_PURPLE, "X", scale=1.15),
    FrameType.GOAWAY: Look(BLACK, "X", scale=1.15),
    FrameType.PRIORITY: Look(YELLOW, "v", scale=1.15),
    FrameType.PRIORITY_UPDATE: Look(YELLOW, "v", scale=1.15, filled=False),
    FrameType.PUSH_PROMISE: Look(REDDISH_PURPLE, "p", scale=1.15),
    FrameType.ALTSVC: Look(YELLOW, "h", scale=1.1),
    FrameType.ORIGIN: Look(YELLOW, "h", scale=1.1, filled=False),
}
OTHER = Look(GREY, "P", scale=1.15)
"""Of types that no registry names."""

STREAM_COLOURS = (BLUE, VERMILLION, BLUISH_GREEN, REDDISH_PURPLE, ORANGE, SKY_BLUE, BLACK, YELLOW)
"""Beyond eight streams they cycle, and labels decide."""


def look(type_code: int) -> Look:
    return LOOKS.get(type_code, OTHER)


class Paint:
    """Terminal colours, or none."""

    def __init__(self, colour: bool, *, true_colour: bool | None = None) -> None:
        self.colour = colour
        if true_colour is None:
            true_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
        self._true_colour = true_colour

    @classmethod
    def of(cls, stream: IO[str]) -> Paint:
        return cls(wants_colour(stream))

    def foreground(self, text: str, colour: str) -> str:
        """`text` in one of the colours above."""
        if self._true_colour:
            red, green, blue = bytes.fromhex(colour[1:])
            return self._escape(text, f"38;2;{red};{green};{blue}")
        return self._escape(text, f"38;5;{_NEAREST_OF_256[colour]}")

    def frame(self, text: str, type_code: int) -> str:
        """Black would vanish on a black terminal: GOAWAY is bold in whatever colour the terminal writes."""
        colour = look(type_code).colour
        return self.bold(text) if colour == BLACK else self.foreground(text, colour)

    def bold(self, text: str) -> str:
        return self._escape(text, "1")

    def dim(self, text: str) -> str:
        return self._escape(text, "2")

    def alarm(self, text: str) -> str:
        return self._escape(text, "1;38;5;166")

    def _escape(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text
