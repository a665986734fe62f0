"""Figures made of text, for the views of labs: columns, dumps of octets, octets taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from capture.views.style import Paint
from kit.text import pad, visible, width

ROW = 16
"""Octets in a row of a dump: 48 columns of hexadecimal, and the offset and the text beside them fit into 80."""


class Screen(NamedTuple):
    """What a view may use."""

    columns: int
    paint: Paint


def columns(rows: Sequence[Sequence[str]], screen: Screen) -> str:
    """A table: the first row is its heading, the first column stands on the left, the others are numbers."""
    widths = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(pad(cell, widths[i], right=i > 0) for i, cell in enumerate(row)) for row in rows]
    return "\n".join([screen.paint.dim(lines[0]), *lines[1:]])


def dump(octets: bytes, offset: int = 0) -> str:
    """Offset, hexadecimal, text; `·` where an octet is no printable ASCII."""
    lines = []
    for at in range(0, len(octets), ROW):
        row = octets[at : at + ROW]
        lines.append(f"{offset + at:5}   {row.hex(' '):{3 * ROW}}  {printable(row)}")
    return "\n".join(lines)


def printable(octets: bytes) -> str:
    return visible(octets.decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "·"))


class Part(NamedTuple):
    octets: bytes
    name: str
    meaning: str


def taken_apart(parts: Sequence[Part], offset: int, screen: Screen) -> str:
    """The octets of all parts in a row, and below it each part at its place, with its name and what it means."""
    whole = b"".join(part.octets for part in parts)
    longest = max(width(part.name) for part in parts)
    lines = [f"{offset:5}   {screen.paint.bold(whole.hex(' '))}"]
    at = 0
    for part in parts:
        placed = pad(" " * (3 * at) + part.octets.hex(" "), 3 * len(whole))
        lines.append(f"        {placed}  {pad(part.name, longest)}  {part.meaning}")
        at += len(part.octets)
    return "\n".join(lines)
