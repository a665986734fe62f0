"""Records as a table in a terminal, row by row as they come.

`FrameTable` is the main one: what each frame says in words, silences folded with their true length, problems and gaps
in their place. `RecordTable` shows messages, calls, windows and problems. Both are fed batches and return text, so that
they serve a file, a pipe and a live source alike. `frames_by_connection` shows a whole capture, each connection under
its own heading.

The last column of each table is elastic: it takes what the terminal's width leaves, and is shortened with … there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from capture.events import (
    Call,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    MessageEvent,
    Problem,
    WindowSample,
)
from capture.views.describe import (
    Described,
    Describer,
    content_in_words,
    end_in_words,
    flags_in_words,
    peer,
    problem_in_words,
    status_in_words,
    type_in_words,
)
from capture.views.quantities import duration, milliseconds, number
from capture.views.style import Paint
from kit.text import pad, shorten, visible, width
from kit.words import N_, _, ngettext

if TYPE_CHECKING:
    from capture.protobuf import Schema
    from capture.windows import BlockedSpan

SILENCE_NS = 20_000_000
"""A silence of this length is told in a line of its own: what one burst causes follows within milliseconds."""
MAX_WIDTH = 1_000
"""Columns where the output has no width of its own (a pipe, a file)."""
MIN_ELASTIC = 8
WIDE = 100
"""From so many columns on there is room for more space between them."""
MAX_LINES = 5
"""Of one record, where a terminal is narrow."""
MAX_INTRODUCED = 10_000
"""Connections whose heading was shown; then they are introduced again."""


class Column(NamedTuple):
    heading: str
    width: int
    """0: the last one, which is elastic."""
    right: bool = False


class Layout:
    """Columns side by side in a terminal that is `total` wide."""

    def __init__(self, columns: Sequence[Column], total: int) -> None:
        self.columns = columns
        self.total = total
        self._space = "  " if total >= WIDE else " "
        self._fixed = sum(column.width for column in columns) + len(self._space) * (len(columns) - 1)

    def room(self, cells: Sequence[str]) -> int:
        """What is left for the last cell beside these. One that is too wide takes its excess from it, so that what
        follows is in line."""
        excess = sum(max(width(cell) - column.width, 0) for cell, column in zip(cells, self.columns, strict=False))
        return max(self.total - self._fixed - excess, MIN_ELASTIC)

    def row(self, cells: Sequence[str], paints: Mapping[int, Callable[[str], str]] | None = None) -> str:
        """One line."""
        columns = self.columns[:-1]
        texts = [pad(cell, column.width, column.right) for cell, column in zip(cells, columns, strict=False)]
        texts.append(shorten(cells[-1], self.room(cells[:-1])))
        for i, paint in (paints or {}).items():
            texts[i] = paint(texts[i])
        return self._space.join(texts).rstrip()

    def rows(self, cells: Sequence[str]) -> list[str]:
        """One line, or a few where the last cell needs them: it holds what the others only locate."""
        *located, said = cells
        room = self.room(located)
        if width(said) <= room:
            return [self.row(cells)]
        first, *rest = textwrap.wrap(said, room, max_lines=MAX_LINES, placeholder=" …")
        return [self.row([*located, first]), *(self.spanning([""] * len(located), line) for line in rest)]

    def spanning(self, cells: Sequence[str], said: str) -> str:
        """The first columns, and then one text across all others."""
        texts = [pad(cell, column.width, column.right) for cell, column in zip(cells, self.columns, strict=False)]
        left = self._space.join([*texts, ""])
        return left + shorten(said, max(self.total - width(left), MIN_ELASTIC))

    def headings(self) -> str:
        return self.row([column.heading for column in self.columns])


class FrameTable:
    """Events in their order, one row a frame.

    `columns` is the terminal's width. `names` says who is behind a client's address. `interleaved`: connections share
    the table as they come, each introduced when it first appears, and a column says which one a frame belongs to;
    otherwise there is one connection, and one batch. `only` says which events get rows; it is shown all of them, as
    what a frame says can depend on frames that are not shown.
    """

    def __init__(
        self,
        *,
        columns: int | None = None,
        paint: Paint | None = None,
        schema: Schema | None = None,
        names: Mapping[str, str] | None = None,
        interleaved: bool = True,
        only: Callable[[Event], bool] | None = None,
    ) -> None:
        self.describer = Describer(schema, live=interleaved)
        self._paint = paint or Paint(False)
        self._names = names or {}
        self._interleaved = interleaved
        self._only = only
        self._start_ns: int | None = None
        self._last_ns = 0
        self._headed = False
        self._introduced: set[int] = set()
        self._layout = Layout(
            [
                *([Column(_("conn"), 4, right=True)] if interleaved else []),
                Column(_("ms"), 9, right=True),
                Column(_("dir"), 3),
                Column(_("stream"), 6, right=True),
                Column(_("frame"), 14),
                Column(_("octets"), 6, right=True),
                Column(_("what it says"), 0),
            ],
            MAX_WIDTH if columns is None else columns,
        )

    def feed(self, events: Iterable[Event]) -> str:
        """The rows of these events, each with its line end."""
        lines: list[str] = []
        for described in self.describer.feed(events):
            event = described.event
            if self._start_ns is None:
                self._start_ns = self._last_ns = event.time_ns
            if self._only is None or self._only(event):
                lines += self._before(event)
                lines += self._rows(described)
                self._last_ns = max(self._last_ns, event.time_ns)
        return "".join([line + "\n" for line in lines])

    def _before(self, event: Event) -> list[str]:
        """The headings, the connection's introduction, a silence: what belongs between the last row and this one."""
        lines = []
        if not self._headed:
            self._headed = True
            self._last_ns = event.time_ns
            lines.append(self._paint.dim(self._layout.headings()))
        if self._interleaved and event.connection is not None:
            lines += self._introduce(event.connection)
        if event.time_ns - self._last_ns >= SILENCE_NS:
            lines.append(self._silence(event.time_ns - self._last_ns))
        return lines

    def _introduce(self, connection: Connection) -> list[str]:
        if connection.number in self._introduced:
            return []
        if len(self._introduced) >= MAX_INTRODUCED:
            self._introduced.clear()
        self._introduced.add(connection.number)
        return [self._paint.bold(shorten(heading(connection, self._names), self._layout.total))]

    def _silence(self, ns: int) -> str:
        words = _("{time} of silence").format(time=duration(ns))
        return self._paint.dim(self._layout.spanning([""] * (4 if self._interleaved else 3), f"· · ·  {words}  · · ·"))

    def _rows(self, described: Described) -> list[str]:
        event = described.event
        rows = []
        if isinstance(event, FrameEvent):
            rows += self._frame(event, described.parts)
        elif isinstance(event, Problem):
            rows.append(self._problem(event))
        elif isinstance(event, ConnectionEnd):
            rows.append(self._paint.dim(self._note(event, "", end_in_words(event))))
        elif event.frames_lost:
            rows.append(self._paint.alarm(self._note(event, "!", _("whole frames may be missing here"))))
        return [*rows, *map(self._problem, described.problems)]

    def _frame(self, frame: FrameEvent, parts: list[str]) -> list[str]:
        """One line, or two where what matters does not fit in one."""
        name = " ".join([type_in_words(frame), *flags_in_words(frame)])
        left = self._left(frame, number(frame.stream_id))
        cells = [*left, name, number(frame.length)]
        said, rest = parts, list[str]()
        if len(parts) > 1 and frame.type_code in _WORTH_TWO_LINES:
            said, rest = _fitting(parts, self._layout.room(cells))
        row = self._layout.row(
            [*cells, _DOT.join(said)], {len(left): partial(self._paint.frame, type_code=frame.type_code)}
        )
        return [row, self._layout.spanning([""] * len(left), _DOT.join(rest))] if rest else [row]

    def _problem(self, problem: Problem) -> str:
        return self._paint.alarm(self._note(problem, "!", f"{problem.layer}: {problem_in_words(problem)}"))

    def _note(self, event: Problem | Gap | ConnectionEnd, mark: str, said: str) -> str:
        return self._layout.spanning(self._left(event, mark), said)

    def _left(self, event: Event, stream: str) -> list[str]:
        """The columns up to the stream's."""
        time = milliseconds(event.time_ns - (self._start_ns or 0))
        left = [time, _arrow(event.direction), stream]
        if self._interleaved:
            left.insert(0, "" if event.connection is None else str(event.connection.number))
        return left


def frames_by_connection(
    events: Sequence[Event],
    *,
    columns: int | None = None,
    paint: Paint | None = None,
    schema: Schema | None = None,
    names: Mapping[str, str] | None = None,
    only: Callable[[Event], bool] | None = None,
) -> Iterator[str]:
    """A whole capture, each connection under its own heading, with times from its own first event.

    Who a client is that `names` does not know is learnt from its first message, if that has a `user`.
    """
    paint = paint or Paint(False)
    groups: dict[int, list[Event]] = {}
    for event in events:
        groups.setdefault(-1 if event.connection is None else event.connection.number, []).append(event)
    position = 0
    for _number, group in sorted(groups.items()):
        table = FrameTable(columns=columns, paint=paint, schema=schema, interleaved=False, only=only)
        rows = table.feed(group)
        if not rows:
            continue
        connection = group[-1].connection
        if connection is None:
            title = _("The capture itself")
        else:
            frames = [event for event in group if isinstance(event, FrameEvent)]
            streams = len({frame.stream_id for frame in frames} - {0})
            title = heading(connection, {**table.describer.users, **(names or {})}) + " · "
            title += ngettext("{n} frame", "{n} frames", len(frames)).format(n=number(len(frames))) + ", "
            title += ngettext("{n} stream", "{n} streams", streams).format(n=number(streams))
        yield ("\n" if position else "") + paint.bold(shorten(title, columns or MAX_WIDTH)) + "\n" + rows
        position += 1


_DOT = " · "
_WORTH_TWO_LINES = {
    FrameType.DATA,
    FrameType.HEADERS,
    FrameType.SETTINGS,
    FrameType.PUSH_PROMISE,
    FrameType.GOAWAY,
    FrameType.CONTINUATION,
}
"""PING and WINDOW_UPDATE are many, and say at once what matters."""


def _fitting(parts: list[str], room: int) -> tuple[list[str], list[str]]:
    """The parts that fit into one line, and the others."""
    used = -len(_DOT)
    for i, part in enumerate(parts):
        used += len(_DOT) + width(part)
        if used > room:
            return parts[:i], parts[i:]
    return parts, []


def heading(connection: Connection, names: Mapping[str, str]) -> str:
    """`Connection 0 · Juan 127.0.0.1:52110 ⇄ 127.0.0.1:50051`"""
    title = _("Connection {n}").format(n=number(connection.number))
    return f"{title} · {peer(connection, names)} ⇄ {connection.server}"


def _arrow(direction: Direction | None) -> str:
    return "" if direction is None else f" {direction.arrow}"


def _conn(record: Any) -> str:
    return "" if record.connection is None else str(record.connection.number)


def _method(path: str | None) -> str:
    return "?" if path is None else visible(path.rpartition("/")[2] or path)


def _span(start: int, end: int | None) -> str:
    return "" if end is None else duration(end - start)


def _amount(messages: int, octets: int) -> str:
    return f"{number(messages)} / {number(octets)}"


_Cells = Callable[[Any, int], list[str]]


def _message_cells(message: MessageEvent, start: int) -> list[str]:
    return [
        milliseconds(message.time_ns - start),
        _conn(message),
        _arrow(message.direction),
        number(message.stream_id),
        _method(message.path),
        number(message.length) + ("z" if message.compressed else ""),
        content_in_words(message),
    ]


def _call_cells(call: Call, start: int) -> list[str]:
    status = "" if call.status is None else status_in_words(call.status)
    if call.status_message:
        status += f' "{visible(call.status_message)}"'
    return [
        milliseconds(call.start_ns - start),
        _conn(call),
        number(call.stream_id),
        _method(call.path),
        _span(call.start_ns, call.first_response_ns),
        _span(call.start_ns, call.end_ns),
        _amount(call.sent_messages, call.sent_octets),
        _amount(call.received_messages, call.received_octets),
        " · ".join(part for part in (_(_CALL_ENDS.get(call.end, call.end)), status) if part),
    ]


_CALL_ENDS = {
    "trailers": N_("trailers"),
    "trailers_only": N_("trailers-only"),
    "reset": N_("reset"),
    "goaway": N_("refused by GOAWAY"),
    "cut": N_("cut: the connection ended"),
    "open": N_("still open"),
}


def _window_cells(sample: WindowSample, start: int) -> list[str]:
    window = _("connection") if not sample.stream_id else _("stream {stream}").format(stream=number(sample.stream_id))
    return [
        milliseconds(sample.time_ns - start),
        _conn(sample),
        _arrow(sample.direction),
        window,
        number(sample.octets),
        number(sample.cause),
    ]


def _blocked_cells(span: BlockedSpan, start: int) -> list[str]:
    window = _("connection") if not span.window else _("stream {stream}").format(stream=number(span.window))
    if span.end_ns is None or span.freed_by is None:
        freed = _("never, as far as the capture goes")
    elif span.resumed_ns is None:
        freed = _("frame {frame}; nothing followed").format(frame=number(span.freed_by))
    else:
        words = _("frame {frame}; DATA {time} later")
        freed = words.format(frame=number(span.freed_by), time=duration(span.resumed_ns - span.end_ns))
    return [
        milliseconds(span.start_ns - start),
        _conn(span),
        _arrow(span.direction),
        window,
        "" if span.end_ns is None else duration(span.end_ns - span.start_ns),
        _("frame {frame}").format(frame=number(span.cause)),
        freed,
    ]


def _problem_cells(problem: Problem, start: int) -> list[str]:
    return [
        number(problem.packet),
        _conn(problem),
        _arrow(problem.direction),
        "" if problem.offset is None else number(problem.offset),
        problem.layer,
        problem_in_words(problem),
    ]


_TABLES: dict[str, tuple[list[Column], _Cells]] = {
    "messages": (
        [
            Column(N_("ms"), 9, right=True),
            Column(N_("conn"), 4, right=True),
            Column(N_("dir"), 3),
            Column(N_("stream"), 6, right=True),
            Column(N_("method"), 10),
            Column(N_("octets"), 7, right=True),
            Column(N_("message"), 0),
        ],
        _message_cells,
    ),
    "calls": (
        [
            Column(N_("ms"), 9, right=True),
            Column(N_("conn"), 4, right=True),
            Column(N_("stream"), 6, right=True),
            Column(N_("method"), 7),
            Column(N_("first"), 7, right=True),
            Column(N_("whole"), 7, right=True),
            Column(N_("sent"), 7, right=True),
            Column(N_("received"), 8, right=True),
            Column(N_("end"), 0),
        ],
        _call_cells,
    ),
    "windows": (
        [
            Column(N_("ms"), 9, right=True),
            Column(N_("conn"), 4, right=True),
            Column(N_("dir"), 3),
            Column(N_("window of"), 16),
            Column(N_("octets"), 13, right=True),
            Column(N_("by frame"), 0),
        ],
        _window_cells,
    ),
    "blocked": (
        [
            Column(N_("ms"), 9, right=True),
            Column(N_("conn"), 4, right=True),
            Column(N_("dir"), 3),
            Column(N_("blocked by"), 16),
            Column(N_("for"), 9, right=True),
            Column(N_("used up by"), 12),
            Column(N_("freed by"), 0),
        ],
        _blocked_cells,
    ),
    "problems": (
        [
            Column(N_("packet"), 8, right=True),
            Column(N_("conn"), 4, right=True),
            Column(N_("dir"), 3),
            Column(N_("offset"), 9, right=True),
            Column(N_("layer"), 8),
            Column(N_("reason"), 0),
        ],
        _problem_cells,
    ),
}


class RecordTable:
    """Messages, calls, windows, blocked spans or problems, one row each; times count from `start_ns`, else from the
    first one's."""

    def __init__(
        self, kind: str, *, columns: int | None = None, paint: Paint | None = None, start_ns: int | None = None
    ) -> None:
        described, self._cells = _TABLES[kind]
        self._paint = paint or Paint(False)
        self.start_ns = start_ns
        self._headed = False
        named = [column._replace(heading=_(column.heading)) for column in described]
        self._layout = Layout(named, MAX_WIDTH if columns is None else columns)

    def feed(self, records: Sequence[Any]) -> str:
        """The rows of these records, each with its line end."""
        if not records:
            return ""
        lines = []
        if self.start_ns is None:
            first = records[0]
            self.start_ns = first.start_ns if hasattr(first, "start_ns") else first.time_ns
        if not self._headed:
            self._headed = True
            lines.append(self._paint.dim(self._layout.headings()))
        for record in records:
            lines += self._layout.rows(self._cells(record, self.start_ns))
        return "".join([line + "\n" for line in lines])
