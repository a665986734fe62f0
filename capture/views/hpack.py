"""A connection's field blocks, instruction by instruction, with both dynamic tables: how HPACK saves octets.

`Blocks` makes plain data, one `Block` a field section; `render` is text for a terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from capture.events import Event, FieldLine, FrameEvent, Unknown
from capture.hpack_tables import Step, Trace
from capture.views.quantities import number
from capture.views.style import BLUISH_GREEN, SKY_BLUE, VERMILLION, Paint
from kit.text import pad, shorten, visible
from kit.words import N_, _, ngettext

MAX_HEX = 12
"""Octets of an instruction that are shown; a longer one ends in …"""
MIN_HEX = 3
KIND, FIELD = 26, 32
"""Columns of what an instruction is, and those that its field has before there are octets beyond MIN_HEX."""
FIRST_DYNAMIC = 62

_KINDS = {
    "indexed": N_("indexed"),
    "literal with incremental indexing": N_("literal, inserted"),
    "literal without indexing": N_("literal, not inserted"),
    "literal never indexed": N_("literal, never indexed"),
    "dynamic table size update": N_("size update"),
}


class Block(NamedTuple):
    """A field block and what it did."""

    number: int
    """From 1, over both directions of the connection, as they completed."""
    frame: FrameEvent
    """The frame with END_HEADERS."""
    trace: Trace
    plain: int
    """Octets of all names and values, as they would stand uncompressed."""

    @property
    def saved(self) -> int:
        """Octets that HPACK saved; negative where it cost some."""
        return self.plain - len(self.frame.section.block) if self.frame.section else 0


class Blocks:
    """The field blocks of a connection, numbered as they come, from a pipeline that was asked for traces."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._count = 0

    def feed(self, events: Iterable[Event]) -> Iterator[Block]:
        for event in events:
            if type(event) is not FrameEvent or event.section is None or event.section.trace is None:
                continue
            if event.connection.number == self._connection:
                self._count += 1
                plain = sum(_octets(name) + _octets(value) for name, value in event.section.fields)
                yield Block(self._count, event, event.section.trace, plain)


def render(block: Block, paint: Paint, columns: int) -> str:
    """A screen about one block: its instructions, then the table that it left."""
    frame, trace = block.frame, block.trace
    assert frame.section is not None
    octets = len(frame.section.block)
    what = ngettext("{octets} octet for {fields} fields", "{octets} octets for {fields} fields", octets)
    name = _("Block {number}").format(number=block.number)
    parts = (
        name,
        frame.direction.arrow,
        _("stream {stream} · packet {packet}").format(stream=frame.stream_id, packet=frame.packet),
        what.format(octets=number(octets), fields=len(frame.section.fields)),
        _("{plain} uncompressed, {saved} saved").format(plain=number(block.plain), saved=number(block.saved)),
    )
    lines = textwrap.wrap(" · ".join(parts), columns, subsequent_indent="  ")
    lines[0] = paint.bold(name) + lines[0].removeprefix(name)
    for step in trace.steps:
        lines.append(_step(step, paint, columns))
        lines.extend(
            paint.dim("  " + pad("", 24) + shorten(_("evicted  {field}").format(field=_field(field)), columns - 28))
            for field in step.evicted
        )
    lines.append("")
    lines += textwrap.wrap(_table_heading(block), columns, initial_indent="  ", subsequent_indent="  ")
    for i, field in enumerate(trace.table):
        lines.append(paint.dim(f"  {FIRST_DYNAMIC + i:>5}  " + shorten(_field(field), columns - 10)))
    if not frame.section.certain:
        first = FIRST_DYNAMIC + len(trace.table)
        text = _("from {index} on: entries from before the capture began, ?-1 the newest").format(index=first)
        lines += map(paint.dim, textwrap.wrap(text, columns, initial_indent=" " * 9, subsequent_indent=" " * 9))
    return "\n".join(lines) + "\n"


def _step(step: Step, paint: Paint, columns: int) -> str:
    room = columns - KIND - FIELD - len("  " * 3) - len(" …")
    most = max(MIN_HEX, min((room + 1) // len("00 "), MAX_HEX))
    shown = step.octets[:most].hex(" ") + (" …" if len(step.octets) > most else "")
    kind = _(_KINDS[step.kind])
    if step.entry is not None:
        kind += f" {step.entry}"
    colour = {"indexed": BLUISH_GREEN, "literal with incremental indexing": VERMILLION}.get(step.kind, SKY_BLUE)
    said = _field(step.field) if step.field is not None else _("maximum {size}").format(size=number(step.size or 0))
    width = max(columns - KIND - len("  " * 3) - most * len("00 ") - len("…"), 16)
    cells = paint.foreground(pad(kind, KIND), colour), pad(shorten(said, width), width), paint.dim(shown)
    return ("  " + "  ".join(cells)).rstrip()


def _table_heading(block: Block) -> str:
    trace = block.trace
    entries = ngettext("{n} entry", "{n} entries", len(trace.table)).format(n=len(trace.table))
    if trace.maximum is None:
        text = _("Dynamic table {arrow} afterwards: {entries} known, {size} octets, its maximum not known")
    else:
        text = _("Dynamic table {arrow} afterwards: {entries}, {size} of {maximum} octets")
    return text.format(
        arrow=block.frame.direction.arrow,
        entries=entries,
        size=number(trace.size),
        maximum=number(trace.maximum or 0),
    )


def _field(field: FieldLine) -> str:
    return f"{_part(field[0])}: {_part(field[1])}"


def _part(part: str | bytes | Unknown) -> str:
    if isinstance(part, bytes):
        return part.hex(" ")
    return visible(str(part))


def _octets(part: str | bytes | Unknown) -> int:
    if isinstance(part, Unknown):
        return 0
    return len(part if isinstance(part, bytes) else part.encode())
