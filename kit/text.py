"""Text from others, made safe to show; colours; how wide a text stands in a terminal."""

from __future__ import annotations

import os
import unicodedata
from typing import IO

from wcwidth import wcswidth

_CONTROL_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT_FORMAT_CHARACTERS = {"\u200d", "\u200c"}  # joiners: emoji families and several scripts need them


def has_control_characters(text: str) -> bool:
    """Whether a terminal could be moved, coloured, reordered or split by showing it."""
    return not text.isprintable() and any(_is_control(c) for c in text)


def visible(text: str, replacement: str = "·") -> str:
    """The text with every control character (terminal escapes, direction marks, line ends) replaced."""
    if text.isprintable():
        return text
    return "".join(replacement if _is_control(c) else c for c in text)


def _is_control(c: str) -> bool:
    return unicodedata.category(c) in _CONTROL_CATEGORIES and c not in _KEPT_FORMAT_CHARACTERS


def width(text: str) -> int:
    """Columns in a terminal: an emoji stands on two, a combining accent on none."""
    return len(text) if text.isascii() else max(wcswidth(text), 0)


def pad(text: str, columns: int, right: bool = False) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space


def shorten(text: str, columns: int) -> str:
    """At most `columns` wide, with … where something was left out."""
    if width(text) <= columns:
        return text
    kept = ""
    for c in text:
        if width(kept + c) > columns - 1:
            break
        kept += c
    return kept + "…"


def wants_colour(stream: IO[str]) -> bool:
    """https://no-color.org: never where NO_COLOR is set, and only in a terminal that can."""
    return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"
