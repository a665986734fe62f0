"""Records to a stream, in the format that was asked for: lines for programs, or tables for people.

Each output is shown batches, as they come, and finished once. `selection` says which records were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from capture.events import Event, FrameEvent, Problem
from capture.export import Writer
from kit.text import pad, visible, width
from kit.words import _

if TYPE_CHECKING:
    from capture.protobuf import Schema
    from capture.views.style import Paint
    from capture.windows import BlockedSpan

MAX_GROUPED = 20_000
"""Events of a capture that are kept so that each connection can be shown by itself; longer ones are shown in their
order, with a column that names the connection."""
MAX_GROUPED_OCTETS = 16 << 20

Selection = Callable[[Any], bool] | None


class Source(Protocol):
    @property
    def synthesised(self) -> bool:
        """Whether a tap made the packets; perhaps known only once some have come."""


class Output(Protocol):
    def show(self, records: Sequence[Any]) -> None:
        """Writes what was asked for of them, and flushes."""

    def finish(self) -> None:
        """The records are over."""


def selection(connection: int | None, stream: int | None, types: Collection[int] = ()) -> Selection:
    """Whether a record was asked for; None: all were."""
    if connection is None and stream is None and not types:
        return None

    def wanted(record: Any) -> bool:
        if connection is not None and (record.connection is None or record.connection.number != connection):
            return False
        if stream is not None and _stream_of(record) != stream:
            return False
        return not types or getattr(record, "type_code", None) in types

    return wanted


def _stream_of(record: Any) -> Any:
    """A problem's stream is among the values of its sentence, where it concerns one."""
    return record.values.get("stream") if isinstance(record, Problem) else getattr(record, "stream_id", None)


class Lines:
    """jsonl, csv, tsv."""

    def __init__(self, out: TextIO, writer: Writer, wanted: Selection) -> None:
        self._out, self.writer, self.wanted = out.buffer, writer, wanted
        self.put(writer.header)

    def show(self, records: Sequence[Any]) -> None:
        if self.wanted is not None:
            records = list(filter(self.wanted, records))
        self.put(self.writer.lines(records))

    def put(self, lines: bytes) -> None:
        """Writes lines that are made already."""
        left = memoryview(lines)
        while left:  # with PYTHONUNBUFFERED a signal, or a full pipe, may leave a part unwritten
            left = left[self._out.write(left) :]
        self._out.flush()

    def finish(self) -> None:
        self._out.flush()


class Columns:
    """Chosen columns side by side, each as wide as its widest content so far. The heading waits for the first rows."""

    def __init__(self, out: TextIO, writer: Writer, wanted: Selection) -> None:
        """The writer's format is tsv."""
        self._out, self._writer, self._wanted = out, writer, wanted
        self._heading = writer.header
        self._widths = [6] * len(self._heading.split(b"\t"))

    def show(self, records: Sequence[Any]) -> None:
        if lines := self._writer.lines(list(filter(self._wanted, records)) if self._wanted else records):
            self._put(lines)

    def finish(self) -> None:
        self._put(b"")

    def _put(self, lines: bytes) -> None:
        text, self._heading = (self._heading + lines).decode(), b""
        rows = [[visible(cell) for cell in line.split("\t")] for line in text.split("\n")[:-1]]
        self._widths = [max(self._widths[i], *(width(row[i]) for row in rows), 0) for i in range(len(self._widths))]
        self._out.writelines("  ".join(map(pad, row, self._widths)).rstrip() + "\n" for row in rows)
        self._out.flush()


class Table:
    """Messages, calls, windows or problems for people."""

    def __init__(
        self, out: TextIO, kind: str, packets: Source, wanted: Selection, paint: Paint, columns: int | None
    ) -> None:
        from capture.views.table import RecordTable

        self._out, self._wanted = out, wanted
        self._table = RecordTable(kind, columns=columns, paint=paint)
        self._note = _Note(out, packets, paint)
        self._look: dict[str, Any] = {"columns": columns, "paint": paint}

    def show(self, records: Sequence[Any]) -> None:
        if self._wanted is not None:
            records = list(filter(self._wanted, records))
        if records:
            self._note.show()
            self._out.write(self._table.feed(records))
            self._out.flush()

    def show_blocked(self, spans: Sequence[BlockedSpan]) -> None:
        """Below the windows: when one of them held its sender back, and what freed it. Times count as above."""
        from capture.views.table import RecordTable

        spans = spans if self._wanted is None else list(filter(self._wanted, spans))
        if spans:
            table = RecordTable("blocked", start_ns=self._table.start_ns, **self._look)
            self._out.write("\n" + table.feed(spans))

    def finish(self) -> None:
        self._out.flush()


class FrameRows:
    """All events for people, frames in words. With `grouped` each connection comes by itself, once all have been seen,
    unless they are too many to be kept."""

    def __init__(
        self,
        out: TextIO,
        packets: Source,
        wanted: Selection,
        paint: Paint,
        columns: int | None,
        schema: Schema | None,
        grouped: bool,
    ) -> None:
        from capture.views.table import FrameTable

        self._out = out
        self._look: dict[str, Any] = {"columns": columns, "paint": paint, "schema": schema, "only": wanted}
        self._kept: list[Event] | None = [] if grouped else None
        self._kept_octets = 0
        self._table = FrameTable(**self._look)
        self._note = _Note(out, packets, paint)

    def show(self, records: Sequence[Event]) -> None:
        if self._kept is not None:
            self._kept += records
            self._kept_octets += sum(event.length for event in records if type(event) is FrameEvent)
            if len(self._kept) <= MAX_GROUPED and self._kept_octets <= MAX_GROUPED_OCTETS:
                return
            records, self._kept = self._kept, None
        if records:
            self._note.show()
            self._out.write(self._table.feed(records))
            self._out.flush()

    def finish(self) -> None:
        from capture.views.table import frames_by_connection

        if self._kept:
            self._note.show()
            for text in frames_by_connection(self._kept, **self._look):
                self._out.write(text)
        self._out.flush()


class _Note:
    """Says once, above the rows, that a tap made the packets."""

    def __init__(self, out: TextIO, packets: Source, paint: Paint) -> None:
        self._out, self._packets, self._paint = out, packets, paint
        self._is_said = False

    def show(self) -> None:
        if self._packets.synthesised and not self._is_said:
            self._is_said = True
            text = _("Recorded by a tap: octets and times are real, the TCP/IP around them is synthesised.")
            self._out.write(self._paint.dim(text) + "\n")
