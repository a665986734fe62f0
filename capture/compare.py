"""Two readings of one capture, frame beside frame: ours and another decoder's.

How it works. A frame is known by the connection, by who sent it, and by its place in the order of that direction. Most
frames agree in everything that identifies them, the packet included: these are the anchors, and because both readings
go by packets in ascending order, they can be trusted. What lies between two anchors is little, or on one side only:
frames are paired there that agree but for the packet, then those of one type and stream; what is left has no
counterpart.

A pair then differs in nothing, or in some columns. Where a trait of the other decoder explains a difference, it is
named: the difference is still one.

Both readings arrive as `Frame`; `Reading` makes them of our own events, and remembers what traits are recognised by.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from capture.events import (
    CONNECTION_PREFACE,
    SETTING_NAMES,
    Connection,
    Direction,
    Event,
    FieldLine,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
    Unknown,
    json_part,
)

MAX_FRAMES = 500_000
"""Frames of each reading that are kept to be aligned: some 400 MB."""
VERDICTS = ("equal", "differing", "ours_only", "theirs_only")
COLUMNS = (
    "packet", "type_code", "stream_id", "length", "flags", "settings", "fields", "increment", "error_code",
    "last_stream_id", "data_length", "promised_stream_id", "opaque_data", "debug_data", "payload",
)  # fmt: skip
"""What is compared, in this order. `payload` is the CRC-32 of its octets."""


class Frame(NamedTuple):
    """A frame as one decoder describes it."""

    packet: int
    connection: int
    sender: str
    """`ip:port`, `[ip6]:port`."""
    type_code: int
    stream_id: int
    length: int
    flags: int
    content: dict[str, Any]
    """The other columns, as far as the decoder says them. What is not here is not compared."""
    error: str | None = None
    """What the decoder said instead, where it failed."""

    def column(self, name: str) -> Any:
        return getattr(self, name) if name in self._fields else self.content.get(name)

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        record = {name: self.column(name) for name in ("packet", "type_code", "stream_id", "length", "flags")}
        return record | {name: plain(name, value) for name, value in self.content.items()}


class Difference(NamedTuple):
    column: str
    ours: Any
    theirs: Any


class Row(NamedTuple):
    """A frame of ours beside theirs; one of them may be missing."""

    ours: Frame | None
    theirs: Frame | None
    differences: tuple[Difference, ...] = ()
    trait: str | None = None
    """Of the other decoder, which explains it: an English sentence to be looked up."""

    @property
    def frame(self) -> Frame:
        """Of ours, or else theirs."""
        frame = self.ours or self.theirs
        assert frame is not None, "a row has one of them"
        return frame

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        if self.theirs is None:
            return "ours_only"
        if self.ours is None:
            return "theirs_only"
        return "differing" if self.differences else "equal"


class Comparison:
    """All rows of a capture, by packet."""

    def __init__(self, rows: list[Row], connections: dict[int, Connection], other: str, is_cut: bool = False) -> None:
        self.rows = rows
        self.connections = connections
        self.is_cut = is_cut
        """Whether there were more than MAX_FRAMES frames."""
        self.other = other
        """Who "they" are, with version."""
        self.counts = Counter(row.verdict for row in rows)
        self.explained = sum(row.trait is not None for row in rows)

    @property
    def differences(self) -> int:
        """Rows that are not equal."""
        return len(self.rows) - self.counts["equal"]

    def only(self, connection: int | None, stream: int | None) -> Comparison:
        """Of one connection, one stream, or both."""
        chosen = [
            row
            for row in self.rows
            if connection in (None, row.frame.connection) and stream in (None, row.frame.stream_id)
        ]
        return Comparison(chosen, self.connections, self.other, self.is_cut)

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in VERDICTS)
        return f"<Comparison with {self.other}: {counts}>"


class Reading:
    """Our own reading: frames, and the circumstances that another decoder may stumble over."""

    def __init__(self, keep: bool = True) -> None:
        """`keep`: frames are wanted, not the circumstances alone."""
        self.frames: list[Frame] = []
        self._keep = keep
        self.connections: dict[int, Connection] = {}
        self.direct: dict[int, bool] = {}
        """By connection with frames: whether its client spoke HTTP/2 from its first octet, as far as can be seen."""
        self.encrypted: dict[int, Problem] = {}
        """What was said of connections that are TLS, by number."""
        self.gaps: dict[int, int] = {}
        """By connection: the first packet behind octets that the capture lacks."""
        self.late: set[int] = set()
        """Connections whose beginning was not seen."""
        self.uncertain: set[tuple[int, str]] = set()
        """(connection, sender) with a field section that may refer to what was not seen."""
        self.synthesised = False
        """Whether a tap made the packets; said by whoever reads them."""
        self.is_cut = False
        """Whether there were more frames than are compared."""
        self._begun: set[tuple[int, Direction]] = set()

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            connection = event.connection
            if connection is not None:
                self.connections.setdefault(connection.number, connection)
            if type(event) is FrameEvent:
                self._frame(event)
            elif type(event) is Gap:
                self.gaps.setdefault(event.connection.number, event.packet)
            elif type(event) is Problem and connection is not None:
                if event.layer == "tls":
                    self.encrypted[connection.number] = event
                elif event.layer == "tcp":
                    self.gaps.setdefault(connection.number, event.packet)
                elif event.layer == "http2" and event.octets and connection.number not in self.direct:
                    self.late.add(connection.number)

    def _frame(self, event: FrameEvent) -> None:
        number, sender = event.connection.number, sender_of(event)
        if (number, event.direction) not in self._begun:  # RFC 9113 §3.4: SETTINGS is first
            self._begun.add((number, event.direction))
            if event.type_code != FrameType.SETTINGS:
                self.late.add(number)
            if event.direction == Direction.CLIENT_TO_SERVER:
                is_upgraded = event.offset > len(CONNECTION_PREFACE) and number not in self.late
                self.direct[number] = not is_upgraded
        self.direct.setdefault(number, True)
        if event.section is not None and not event.section.certain:
            self.uncertain.add((number, sender))
        if self._keep:
            if len(self.frames) < MAX_FRAMES:
                self.frames.append(frame_of(event))
            else:
                self.is_cut = True

    @property
    def has_gaps(self) -> bool:
        return bool(self.gaps)


def sender_of(event: FrameEvent) -> str:
    connection = event.connection
    return connection.server if event.direction else connection.client


def frame_of(event: FrameEvent) -> Frame:
    """Our own description of a frame."""
    content: dict[str, Any] = {}
    kind = event.type_code
    payload = event.payload
    if kind == FrameType.DATA:
        content["data_length"] = event.data_length
    elif kind == FrameType.SETTINGS:
        codes = {name: code for code, name in SETTING_NAMES.items()}
        settings = event.settings
        content["settings"] = settings and [(codes.get(str(name), name), value) for name, value in settings]
    elif kind == FrameType.WINDOW_UPDATE:
        content["increment"] = event.increment
    elif kind == FrameType.RST_STREAM:
        content["error_code"] = event.error_code
    elif kind == FrameType.GOAWAY:
        content["last_stream_id"], content["error_code"] = event.last_stream_id, event.error_code
        content["debug_data"] = event.debug_data
    elif kind == FrameType.PING:
        content["opaque_data"] = payload
    elif kind == FrameType.PUSH_PROMISE:
        content["promised_stream_id"] = event.promised_stream_id
    if event.section is not None:
        content["fields"] = event.section.fields
    if payload is not None:
        content["payload"] = zlib.crc32(payload)
    where = (event.packet, event.connection.number, sender_of(event))
    return Frame(*where, kind, event.stream_id, event.length, event.flags, content)


# -- alignment ---------------------------------------------------------------------------------------------------------

_Pair = tuple[Frame | None, Frame | None]


def aligned(ours: Iterable[Frame], theirs: Iterable[Frame]) -> list[_Pair]:
    """Every frame once, beside its counterpart or None, in the order of packets. Each reading is in its own order of
    packets."""
    lanes: dict[tuple[int, str], tuple[list[Frame], list[Frame]]] = defaultdict(lambda: ([], []))
    for which, frames in enumerate((ours, theirs)):
        for frame in frames:
            lanes[frame.connection, frame.sender][which].append(frame)
    pairs = [pair for mine, other in lanes.values() for pair in _aligned_lane(mine, other)]
    pairs.sort(key=lambda pair: (pair[0] or pair[1] or _NO_FRAME).packet)
    return pairs


def _aligned_lane(ours: Sequence[Frame], theirs: Sequence[Frame]) -> Iterator[_Pair]:
    """One direction of one connection."""
    for is_anchor, mine, other in _anchored(ours, theirs, lambda frame: (frame.packet, *_header(frame))):
        if is_anchor:
            yield mine[0], other[0]
            continue
        for is_alike, few, others in _anchored(mine, other, _header):
            if is_alike:
                yield few[0], others[0]
            else:
                yield from _leftovers(few, others)


def _header(frame: Frame) -> tuple[int, ...]:
    return frame[3:7]


def _anchored(
    ours: Sequence[Frame], theirs: Sequence[Frame], key: Callable[[Frame], Hashable]
) -> Iterator[tuple[bool, Sequence[Frame], Sequence[Frame]]]:
    """(True, [one], [its counterpart]) for frames of equal keys, in order, and (False, …) for what lies between."""
    places: dict[Hashable, deque[int]] = defaultdict(deque)
    for place, frame in enumerate(theirs):
        places[key(frame)].append(place)
    mine_done = theirs_done = 0
    for place, frame in enumerate(ours):
        waiting = places.get(key(frame))
        while waiting and waiting[0] < theirs_done:
            waiting.popleft()
        if not waiting:
            continue
        found = waiting.popleft()
        if place > mine_done or found > theirs_done:
            yield False, ours[mine_done:place], theirs[theirs_done:found]
        yield True, (frame,), (theirs[found],)
        mine_done, theirs_done = place + 1, found + 1
    if mine_done < len(ours) or theirs_done < len(theirs):
        yield False, ours[mine_done:], theirs[theirs_done:]


def _leftovers(ours: Sequence[Frame], theirs: Sequence[Frame]) -> Iterator[_Pair]:
    mine, other = deque(ours), deque(theirs)
    while mine and other:
        one, two = mine[0], other[0]
        if (one.type_code, one.stream_id) == (two.type_code, two.stream_id):
            yield mine.popleft(), other.popleft()
        elif one.packet <= two.packet:
            yield mine.popleft(), None
        else:
            yield None, other.popleft()
    yield from ((frame, None) for frame in mine)
    yield from ((None, frame) for frame in other)


_NO_FRAME = Frame(0, 0, "", 0, 0, 0, 0, {})

# -- differences -------------------------------------------------------------------------------------------------------


def differences(ours: Frame, theirs: Frame) -> tuple[Difference, ...]:
    """The columns in which two descriptions of a frame differ. A column that only one of them has is not compared,
    but for a field section: nothing at all is a statement about one."""
    found = []
    for column in COLUMNS:
        mine, other = ours.column(column), theirs.column(column)
        if column == "fields":
            is_same = _same_fields(mine or (), other or ())
        else:
            is_same = mine == other or (column not in _ALWAYS and None in (mine, other))
        if not is_same:
            found.append(Difference(column, plain(column, mine), plain(column, other)))
    return tuple(found)


HEADER = {"type_code", "stream_id", "length", "flags"}
_ALWAYS = {"packet", *HEADER}


def _same_fields(ours: Sequence[FieldLine], theirs: Sequence[FieldLine]) -> bool:
    return len(ours) == len(theirs) and all(
        _same(one, two) for mine, other in zip(ours, theirs, strict=True) for one, two in zip(mine, other, strict=True)
    )


def _same(ours: Any, theirs: Any) -> bool:
    """Unknown is unknown, whatever its label."""
    return isinstance(theirs, Unknown) if isinstance(ours, Unknown) else bool(ours == theirs)


def plain(column: str, value: Any) -> Any:
    """A column's value as JSON has it."""
    if column == "fields" and value is not None:
        return [[json_part(name), json_part(part)] for name, part in value]
    if column == "settings" and value is not None:
        return [[SETTING_NAMES.get(code, code), number] for code, number in value]
    return value.hex() if isinstance(value, bytes) else value


# -- the whole ---------------------------------------------------------------------------------------------------------

Traits = Callable[[Row, Reading], str | None]


def compared(ours: Reading, theirs: Iterable[Frame], other: str, traits: Traits) -> Comparison:
    """`other`: who they are. `traits` says what explains a row that is not equal."""
    rows = []
    for mine, their in aligned(ours.frames, theirs):
        differing = differences(mine, their) if mine is not None and their is not None else ()
        row = Row(mine, their, differing)
        rows.append(row if row.verdict == "equal" else row._replace(trait=traits(row, ours)))
    return Comparison(rows, ours.connections, other, ours.is_cut)
