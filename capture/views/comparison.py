"""Two readings of a capture as text: a frame a line, ours on the left, theirs on the right where it is another.

What differs stands below its frame, column by column. Traits of the other decoder are numbered, and written out once at
the end. In a long capture what agrees is counted and not listed, so that what differs is found.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from capture.compare import Comparison, Difference, Frame, Row
from capture.events import FLAGS, TYPE_NAMES, Direction
from capture.views.quantities import number
from capture.views.style import Paint
from kit.text import pad, shorten, visible
from kit.words import N_, _, ngettext

MAX_LISTED = 500
"""Rows of a capture up to which all are listed: some pages of a terminal."""
WIDTH = 160
"""Columns where the output has no width of its own."""
WIDE = 150
"""Columns in which two frames stand side by side; in fewer, theirs comes below ours."""
_SIGNS = {"equal": "=", "differing": "≠", "ours_only": "<", "theirs_only": ">"}
_HEADINGS = (N_("packet"), N_("dir"), N_("stream"), N_("frame"), N_("octets"), N_("flags"))


class Opinion:
    """A comparison for notebooks: its summary where it stands alone, its rows as text in `table()`."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    @property
    def rows(self) -> list[Row]:
        """Every frame of ours beside theirs."""
        return self.comparison.rows

    def table(self, *, every: bool = False, columns: int | None = None) -> str:
        return "".join(f"{line}\n" for line in render(self.comparison, every=every, columns=columns))

    def __repr__(self) -> str:
        return summary(self.comparison)


def render(
    comparison: Comparison, *, every: bool = False, columns: int | None = None, paint: Paint | None = None
) -> Iterator[str]:
    """The lines. `every`: equal frames are listed in a long capture too."""
    paint = paint or Paint(False)
    columns = columns or WIDTH
    traits: dict[str, int] = {}
    is_listed = every or len(comparison.rows) <= MAX_LISTED
    several = len({row.frame.connection for row in comparison.rows}) > 1
    yield paint.bold(_heading(comparison, several, columns))
    for is_equal, rows in groupby(comparison.rows, lambda row: row.verdict == "equal"):
        if is_equal and not is_listed:
            group = list(rows)
            n = len(group)
            words = ngettext("{n} frame, packet {first}: equal", "{n} frames, packets {first} to {last}: equal", n)
            ends = {"first": number(group[0].frame.packet), "last": number(group[-1].frame.packet)}
            yield paint.dim("= " + words.format(n=number(n), **ends))
            continue
        for row in rows:
            if row.trait is not None:
                traits.setdefault(row.trait, len(traits) + 1)
            yield from _lines(row, comparison, several, traits, columns, paint)
    if traits:
        yield ""
    for trait, mark in traits.items():
        yield from textwrap.wrap(f"[{mark}] {_(trait)}", columns, subsequent_indent="    ")
    yield ""
    yield from textwrap.wrap(summary(comparison), columns)


def summary(comparison: Comparison) -> str:
    """In one line."""
    counts = comparison.counts
    parts = [
        ngettext("{n} frame", "{n} frames", len(comparison.rows)).format(n=number(len(comparison.rows))),
        _("{n} equal").format(n=number(counts["equal"])),
        _("{n} differing").format(n=number(counts["differing"])),
        _("{n} ours only").format(n=number(counts["ours_only"])),
        _("{n} theirs only").format(n=number(counts["theirs_only"])),
    ]
    line = _("Beside {other}: {counts}").format(other=comparison.other, counts=" · ".join(parts))
    if comparison.differences:
        words = _("; {n} of {all} explained by what is known of it")
        line += words.format(n=number(comparison.explained), all=number(comparison.differences))
    if comparison.is_cut:
        line += " · " + _("only the first {n} frames were compared").format(n=number(len(comparison.rows)))
    return line


def _heading(comparison: Comparison, several: bool, columns: int) -> str:
    names = [_(heading) for heading in _HEADINGS]
    cells = [pad(name, width, right) for name, (width, right) in zip(names, _WIDTHS, strict=True)]
    text = "  " + (pad(_("con"), 5, True) if several else "") + " ".join(cells)
    return text + comparison.other if columns >= WIDE else text.rstrip()


_WIDTHS = ((8, True), (3, False), (6, True), (14, False), (8, True), (28, False))


def _lines(
    row: Row, comparison: Comparison, several: bool, traits: dict[str, int], columns: int, paint: Paint
) -> Iterator[str]:
    frame = row.frame
    connection = comparison.connections.get(frame.connection)
    direction = Direction(int(connection is not None and frame.sender == connection.server))
    sign = _SIGNS[row.verdict]
    left = _cells(row.ours, direction.arrow, paint)
    right = ""
    if row.verdict == "theirs_only" or any(one.column in _SHOWN for one in row.differences):
        right = _cells(row.theirs, direction.arrow, paint).rstrip()
    elif row.verdict == "ours_only":
        right = "—"
    elif row.theirs is not None:
        right = paint.dim(_type(row.theirs))
    mark = f"  [{traits[row.trait]}]" if row.trait is not None else ""
    start = f"{sign} " + (f"{frame.connection:>4} " if several else "")
    if row.verdict != "equal":
        start = paint.alarm(start)
    if columns >= WIDE:
        yield start + left + right + mark
    else:
        yield start + (left + mark if row.ours is not None else right + mark).rstrip()
        if row.ours is not None and any(one.column in _SHOWN for one in row.differences):
            yield "  " + (" " * 5 if several else "") + right + " " + paint.dim(comparison.other.split()[0])
    for difference in row.differences:
        if difference.column not in _SHOWN:
            for line in _told(difference, row, comparison.other.split()[0]):
                yield " " * 11 + shorten(line, max(columns - 11, 20))


_SHOWN = {"packet", "type_code", "stream_id", "length", "flags"}
"""Columns that both sides of a line show."""


def _cells(frame: Frame | None, arrow: str, paint: Paint) -> str:
    if frame is None:
        return " ".join(pad("", width) for width, _right in _WIDTHS)
    texts = (str(frame.packet), arrow, str(frame.stream_id), _type(frame), str(frame.length), _flags(frame))
    cells = [pad(text, width, right) for text, (width, right) in zip(texts, _WIDTHS, strict=True)]
    cells[3] = paint.frame(cells[3], frame.type_code)
    return " ".join(cells)


def _type(frame: Frame) -> str:
    return TYPE_NAMES.get(frame.type_code) or _("type 0x{code:02x}").format(code=frame.type_code)


def _flags(frame: Frame) -> str:
    names = FLAGS.get(frame.type_code, {})
    bits = (1 << i for i in range(8))
    return " ".join(names.get(bit) or f"0x{bit:02x}" for bit in bits if frame.flags & bit)


def _told(difference: Difference, row: Row, other: str) -> Iterator[str]:
    """A difference in words: of field lines and settings only those that are not the same."""
    ours, theirs = difference.ours, difference.theirs
    sides = pad(_("ours"), len(other)), pad(other, len(_("ours")))
    if theirs is None and row.theirs is not None and row.theirs.error is not None:
        yield f"{difference.column}  {sides[1]}  {visible(row.theirs.error)}"
        return
    if not isinstance(ours, list) or not isinstance(theirs, list):
        yield f"{difference.column}  {sides[0]}  {_value(ours)}  ·  {sides[1]}  {_value(theirs)}"
        return
    for place in range(max(len(ours), len(theirs))):
        mine, their = (side[place] if place < len(side) else None for side in (ours, theirs))
        if mine != their:
            yield f"{difference.column} {place + 1}  {sides[0]}  {_value(mine)}  ·  {sides[1]}  {_value(their)}"


def _value(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, list) and len(value) == 2:
        return f"{_part(value[0])}: {_part(value[1])}"
    return visible(str(value))


def _part(part: Any) -> str:
    if isinstance(part, dict):
        return visible(str(part.get("unknown") or part.get("base64")))
    return visible(str(part))
