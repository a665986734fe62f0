"""Records as lines: the columns of the command-line contract in jsonl, csv and tsv.

How it is fast: a writer is compiled once from the chosen columns and then works on whole batches, column by column, so
that the loops over the records run inside `map`, `zip` and `join`. Neighbouring columns that follow from the same few
octets are rendered together and remembered: all of `type,type_code,stream_id,length,flags,flag_names` is a function of
the 9 octets of the frame header, and `connection,client,server,direction` of the connection and the direction. Both
repeat endlessly on a real connection.

Value forms. Integers are decimal. What is not known or does not apply is null in jsonl and empty in csv and tsv. Nested
values are compact JSON in every format. csv quotes as RFC 4180 does, its records end with a bare line feed. tsv never
quotes: in its text columns a backslash, a control character and a lone surrogate are escaped as in C (\\t, \\n, \\x1b,
\\ud800), so that a line is a record and a tab is a border; its nested values escape as JSON does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import orjson

from capture.events import Call, FrameEvent, FrameType, MessageEvent, Problem, WindowSample, json_part

MAX_REMEMBERED = 20_000
"""Renderings kept per column group: some 2 MB. A cache that is full starts again; only speed depends on it."""

FORMATS = ("jsonl", "csv", "tsv")


class UnknownColumn(ValueError):
    """A column was asked for that these records do not have."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)


class _Kind(Enum):
    INTEGER = "integer"
    TEXT = "text"
    JSON = "json"


class _Group(NamedTuple):
    """What several columns follow from."""

    key: Callable[[Any], Any]


class _Column(NamedTuple):
    name: str
    kind: _Kind
    value: Callable[[Any], Any]
    group: _Group | None = None
    """None: rendered for each record."""
    always: bool = False
    """Whether it is never None."""
    types: tuple[int, ...] = ()
    """Frame types that have it; () is all."""


def _of(record: type[Any], *names: str) -> Callable[[Any], Any]:
    """Like attrgetter, by position: half the time."""
    fields: tuple[str, ...] = record._fields
    return itemgetter(*map(fields.index, names))


def _label(direction: Any) -> str | None:
    return None if direction is None else direction.label


def _direction(event: Any) -> str | None:
    return _label(event.direction)


_INTEGER, _TEXT, _JSON = _Kind


def _integers(record: type[Any], *names: str, always: bool = True) -> list[_Column]:
    return [_Column(name, _INTEGER, _of(record, name), always=always) for name in names]


def _texts(record: type[Any], *names: str) -> list[_Column]:
    return [_Column(name, _TEXT, _of(record, name)) for name in names]


def _path_columns(record: type[Any], *names: str) -> list[_Column]:
    """The columns that say between whom, in which direction."""
    group = _Group(_of(record, *(name for name in ("connection", "direction") if name in record._fields)))
    columns = {
        "connection": _Column("connection", _INTEGER, attrgetter("connection.number"), group),
        "client": _Column("client", _TEXT, attrgetter("connection.client"), group),
        "server": _Column("server", _TEXT, attrgetter("connection.server"), group),
        "direction": _Column("direction", _TEXT, _direction, group),
    }
    return [columns[name] for name in names]


_HEADER = _Group(_of(FrameEvent, "header"))


def _field_lines(event: FrameEvent) -> Any:
    return None if event.section is None else event.section.fields


_FRAMES = [
    *_integers(FrameEvent, "packet", "time_ns"),
    *_path_columns(FrameEvent, "connection", "client", "server", "direction"),
    *_integers(FrameEvent, "offset"),
    _Column("type", _TEXT, attrgetter("type"), _HEADER),
    *(
        _Column(name, _INTEGER, _of(FrameEvent, name), _HEADER)
        for name in ("type_code", "stream_id", "length", "flags")
    ),
    _Column("flag_names", _JSON, attrgetter("flag_names"), _HEADER),
    _Column("settings", _JSON, attrgetter("settings"), types=(FrameType.SETTINGS,)),
    _Column(
        "fields",
        _JSON,
        _field_lines,
        types=(FrameType.HEADERS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION),
    ),
    _Column("increment", _INTEGER, attrgetter("increment"), types=(FrameType.WINDOW_UPDATE,)),
    _Column("error_code", _INTEGER, attrgetter("error_code"), types=(FrameType.RST_STREAM, FrameType.GOAWAY)),
    _Column("last_stream_id", _INTEGER, attrgetter("last_stream_id"), types=(FrameType.GOAWAY,)),
    _Column("data_length", _INTEGER, attrgetter("data_length"), types=(FrameType.DATA,)),
    _Column("promised_stream_id", _INTEGER, attrgetter("promised_stream_id"), types=(FrameType.PUSH_PROMISE,)),
]

_MESSAGES = [
    *_integers(MessageEvent, "packet", "time_ns"),
    *_path_columns(MessageEvent, "connection", "direction"),
    *_integers(MessageEvent, "stream_id"),
    *_texts(MessageEvent, "path"),
    _Column("compressed", _JSON, attrgetter("compressed")),
    *_integers(MessageEvent, "length"),
    _Column("message", _JSON, attrgetter("message")),
]

_CALLS = [
    *_path_columns(Call, "connection"),
    *_integers(Call, "stream_id"),
    *_texts(Call, "path"),
    *_integers(Call, "start_ns"),
    *_integers(Call, "first_response_ns", "end_ns", "status", always=False),
    *_texts(Call, "status_message"),
    *_integers(Call, "sent_messages", "received_messages", "sent_octets", "received_octets"),
    *_texts(Call, "end"),
]

_WINDOWS = [
    *_integers(WindowSample, "time_ns"),
    *_path_columns(WindowSample, "connection", "direction"),
    *_integers(WindowSample, "stream_id", "octets", "cause"),
]

_PROBLEMS = [
    *_integers(Problem, "packet", "time_ns"),
    _Column("connection", _INTEGER, lambda problem: problem.connection and problem.connection.number),
    _Column("direction", _TEXT, _direction),
    *_integers(Problem, "offset", always=False),
    *_texts(Problem, "layer"),
    _Column("reason", _TEXT, attrgetter("reason")),
    *_integers(Problem, "octets", always=False),
]

_COLUMNS = {"frames": _FRAMES, "messages": _MESSAGES, "calls": _CALLS, "windows": _WINDOWS, "problems": _PROBLEMS}

COLUMNS: dict[str, tuple[str, ...]] = {kind: tuple(c.name for c in columns) for kind, columns in _COLUMNS.items()}
"""The names that `--fields` takes, in the order of the contract, by kind of record."""


class Writer:
    """Turns batches of one kind of record into lines of one format."""

    def __init__(self, kind: str, form: str, names: Sequence[str] | None = None) -> None:
        """`kind` is a key of COLUMNS, `form` one of FORMATS, `names` the columns wanted, in their order (all).

        Raises UnknownColumn.
        """
        known = {column.name: column for column in _COLUMNS[kind]}
        for name in names or ():
            if name not in known:
                raise UnknownColumn(name, known)
        chosen = [known[name] for name in names] if names else list(known.values())
        self.header = b""
        if form == "jsonl":
            start, border, end = "{", ",", "}\n"
            chosen = list({column.name: column for column in chosen}.values())  # a key stands once in an object
        else:
            start, border, end = "", _BORDERS[form], "\n"
            self.header = (border.join(column.name for column in chosen) + end).encode("ascii")
        own = [column for column in chosen if column.types] if form == "jsonl" and not names else []
        segments = _segments([column for column in chosen if column not in own], form, border)
        template = border.join([placeholder for placeholder, _ in segments])
        if own:
            segments.append(("%s", _typed(own, form, border, absent=False)))
            template += "%s"
        self._row = (start + template + end).__mod__
        self._segments = [values for _, values in segments]

    def lines(self, records: Sequence[Any]) -> bytes:
        """One line a record, UTF-8, each with its line end."""
        values = zip(*[segment(records) for segment in self._segments], strict=True)
        return "".join(map(self._row, values)).encode("utf-8", "backslashreplace")


_BORDERS = {"csv": ",", "tsv": "\t"}

_Values = Callable[[Sequence[Any]], Iterable[Any]]
_Segment = tuple[str, _Values]
"""A run of columns: its placeholder in the row's template, and what makes its values of a batch of records."""


def _segments(columns: Sequence[_Column], form: str, border: str) -> list[_Segment]:
    """One for each run of columns that belong together, and one for each other column."""
    segments: list[_Segment] = []
    for (group, typed), run in groupby(columns, key=lambda column: (column.group, bool(column.types))):
        if typed:
            segments.append(("%s", _typed(list(run), form, border)))
        elif group is not None:
            segments.append(("%s", _remembered(group, [_cell(column, form) for column in run], border)))
        else:
            segments += [_each(column, form) for column in run]
    return segments


def _each(column: _Column, form: str) -> _Segment:
    if column.always:
        return _named(column, form, "%d"), partial(map, column.value)
    return "%s", partial(map, _cell(column, form))


def _remembered(group: _Group, cells: Sequence[Callable[[Any], str]], border: str) -> _Values:
    known: dict[Any, str] = {}

    def segment(records: Sequence[Any]) -> list[str]:
        texts = []
        for record, key in zip(records, map(group.key, records), strict=True):
            text = known.get(key)
            if text is None:
                if len(known) >= MAX_REMEMBERED:
                    known.clear()
                text = known[key] = border.join([cell(record) for cell in cells])
            texts.append(text)
        return texts

    return segment


def _named(column: _Column, form: str, text: str) -> str:
    return f'"{column.name}":{text}' if form == "jsonl" else text


def _cell(column: _Column, form: str) -> Callable[[Any], str]:
    """Renders one column of one record, in jsonl with its name."""
    value = column.value
    if form == "jsonl":
        name = _named(column, form, "")
        return lambda record: name + to_json(value(record))
    text: Callable[[Any], str] = str if column.kind is _INTEGER else to_json
    if column.kind is _TEXT:
        text = _escaped if form == "tsv" else str
    if form == "csv":
        plain = text
        text = lambda value: _quoted(plain(value))  # noqa: E731 (a variant of `plain`, nothing more)

    def cell(record: Any) -> str:
        content = value(record)
        return "" if content is None else text(content)

    return cell


def _typed(columns: Sequence[_Column], form: str, border: str, absent: bool = True) -> _Values:
    """Columns that few frame types have: a frame is asked only for its type's own, the rest is written beforehand.

    Without `absent` the others are left out, and each one that is there has a border before it.
    """
    missing = "null" if form == "jsonl" else ""

    def renderer(type_code: int | None) -> tuple[str, list[Callable[[Any], str]]]:
        own = [type_code in column.types for column in columns]
        cells = [_cell(column, form) for column, is_own in zip(columns, own, strict=True) if is_own]
        if not absent:
            return (border + "%s") * len(cells), cells
        parts = ["%s" if is_own else _named(c, form, missing) for c, is_own in zip(columns, own, strict=True)]
        return border.join(parts), cells

    by_type = {type_code: renderer(type_code) for column in columns for type_code in column.types}
    otherwise = renderer(None)

    def segment(records: Sequence[Any]) -> list[str]:
        texts = []
        for record in records:
            template, cells = by_type.get(record.type_code, otherwise)
            if len(cells) == 1:
                texts.append(template % cells[0](record))
            else:
                texts.append(template % tuple([cell(record) for cell in cells]))
        return texts

    return segment


def to_json(value: Any) -> str:
    """Compact JSON on what every reader takes for one line: a lone surrogate, which UTF-8 cannot carry, and characters
    that some take for the end of a line or a terminal for a command are written as JSON's escapes."""
    try:
        text = orjson.dumps(value, default=json_part).decode()
    except orjson.JSONEncodeError:
        return json.dumps(_plain(value), separators=(",", ":"))
    return text if text.isascii() else _BEYOND_ASCII.sub(_json_escape, text)


_BEYOND_ASCII = re.compile(r"[\x80-\x9f\u2028\u2029]")


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _plain(value: Any) -> Any:
    """The same for the standard library's encoder, which would write an Unknown as the tuple that it is."""
    if isinstance(value, dict):
        return {key: _plain(content) for key, content in value.items()}
    value = json_part(value)
    return [_plain(content) for content in value] if isinstance(value, list | tuple) else value


_TO_ESCAPE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_C_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    c = match[0]
    return _C_ESCAPES.get(c) or (f"\\x{ord(c):02x}" if ord(c) < 0x100 else f"\\u{ord(c):04x}")


def _quoted(text: str) -> str:
    """RFC 4180 §2: where a border, a quote or a line end would be misread."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
