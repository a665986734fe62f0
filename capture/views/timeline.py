"""The timeline: a lane per stream, a mark per frame.

How it works. `lanes` turns events into plain data: which lanes there are, and where on each of them which marks stand.
`draw` puts that on matplotlib axes, `figure` and `save` make a whole picture of it, and `facts` says the same as text.
matplotlib is imported by those that draw, when they draw.

The horizontal axis. gRPC traffic is bursts: frames within tenths of a millisecond, then silence for seconds. On a
linear axis a burst is one blot. So by default x is the order of frames: each takes one step to the right of the one
before it, over all lanes, and a silence becomes a grey band of fixed width with its true length written on it. With
`linear` x is milliseconds, and nothing is folded.

What was not observed is hatched: the time before a connection's first frame where its beginning is missing, and between
the frames around a gap in which frames may have been lost.
"""

from __future__ import annotations

import math
import textwrap
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from capture.events import (
    TYPE_NAMES,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    MessageEvent,
)
from capture.messages import Messages
from capture.views.describe import peer, user_of
from capture.views.quantities import MILLISECOND, decimal, duration, milliseconds, number
from capture.views.style import GREY, STREAM_COLOURS, look
from kit.text import pad, shorten, visible, width
from kit.words import _, ngettext

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from capture.protobuf import Schema
    from capture.views.picture import Picture

MAX_MARKS = 5_000
"""Frames drawn one by one; more are binned."""
BINS = 1_000
"""About one to the pixel."""
MAX_LANES = 30
"""More than fit on a screen; the streams beyond share one lane, and it says so."""
MAX_FOLDS = 24
"""Bands that leave room for frames between them. Where there are more silences, only the longest are folded."""
MIN_FOLD_NS = MILLISECOND
FOLD_FACTOR = 5
"""A silence is at least so many times the usual distance between two frames,"""
FOLD_SHARE = 500
"""and at least this part of the whole."""
MAX_LABEL = 34
"""Characters of a lane's label."""
FACTS_COLUMNS = 80
"""Of what the picture shows as text."""

_FOLD_PIXELS = 18
_PLOT_PIXELS = 1_100
_STEP = 0.35
"""Least distance of two frames, in widths of a mark."""
_END_PIXELS = 28
"""Room for the word behind a connection's last frame."""
_LANE, _CONNECTION, _STRIP = 0.46, 0.36, 0.52
"""Inches of height: of a lane, of a connection's heading, and of the strip that tells how long silences are."""


class Mark(NamedTuple):
    """One frame; or several of one type, direction and lane that fall into one bin."""

    x: float
    time_ns: int
    """Of the first of them."""
    type_code: int
    direction: Direction
    ends_stream: bool
    frames: int


class End(NamedTuple):
    """How TCP closed one direction of a connection."""

    x: float
    direction: Direction
    """Of whoever sent it."""
    word: str
    """`FIN` or `RST`."""


class Lane(NamedTuple):
    """One stream of one connection."""

    connection: Connection | None
    """None: the lane of the streams for which there was no room."""
    stream_id: int
    label: str
    colour: str
    marks: list[Mark]
    unobserved: list[tuple[Direction, float, float]]
    """Spans of x."""
    ends: list[End]
    """Of the connection, in the first of its lanes."""


class Fold(NamedTuple):
    """A silence."""

    start: float
    """In x."""
    end: float
    ns: int
    """Its true length."""


class Lanes(NamedTuple):
    """All that the picture shows."""

    lanes: list[Lane]
    """Together by connection, stream 0 first."""
    headings: dict[int, str]
    """By connection number, for the connections that have lanes of their own."""
    folds: list[Fold]
    ticks: list[tuple[float, int]]
    """Where a burst begins: x, and nanoseconds since the first frame."""
    extent: tuple[float, float]
    """Of x."""
    frames: int
    connections: int
    bin_frames: int
    """How many frames in a row share a bin; 0: it is not frames that are binned."""
    bin_ns: int
    """How long a bin of time is, on a linear axis; 0: none."""
    is_linear: bool
    is_synthesised: bool
    """The TCP/IP around the octets was made by a tap."""


# --- plain data


def lanes(
    events: Iterable[Event],
    *,
    schema: Schema | None = None,
    names: Mapping[str, str] | None = None,
    linear: bool = False,
    synthesised: bool = False,
) -> Lanes:
    """Lanes of all frames. `names` says who is behind a client's address; who else says so in the `user` of a first
    message is named too (`schema` is what those messages are read by). Memory: some 16 octets a frame."""
    return _Builder(schema, dict(names or {})).build(events, linear, synthesised)


_ENDS = {"fin": "FIN", "reset": "RST"}


class _Builder:
    def __init__(self, schema: Schema | None, names: dict[str, str]) -> None:
        self._names = names
        self._messages = Messages(schema)
        self._asked: set[int] = set()
        self._keys: dict[tuple[int, int], int] = {}
        self._connections: dict[int, Connection] = {}
        self._paths: dict[tuple[int, int], str] = {}
        # One entry a frame: time, which stream, and type, direction and end in one number.
        self._times, self._streams, self._kinds = array("q"), array("l"), array("l")
        # By connection and direction: frame indexes, the last so far and the borders of what was not observed.
        self._last: dict[tuple[int, Direction], int] = {}
        self._gaps: list[tuple[int, Direction, int, int | None]] = []
        self._open_gaps: dict[tuple[int, Direction], int] = {}
        self._ends: list[tuple[int, Direction, str, int]] = []
        """Connection, direction, word, and the last frame before it."""

    def build(self, events: Iterable[Event], linear: bool, synthesised: bool) -> Lanes:
        for event in events:
            if isinstance(event, FrameEvent):
                self._frame(event)
            elif isinstance(event, Gap) and event.frames_lost:
                side = (event.connection.number, event.direction)
                self._open_gaps.setdefault(side, self._last.get(side, -1))
            elif isinstance(event, ConnectionEnd) and event.how in _ENDS:
                self._ends.append((event.connection.number, event.direction, _ENDS[event.how], len(self._times) - 1))
        self._gaps += [(number, way, start, None) for (number, way), start in self._open_gaps.items()]
        return self._lay_out(linear, synthesised)

    def _frame(self, frame: FrameEvent) -> None:
        connection = frame.connection
        key = (connection.number, frame.stream_id)
        self._connections[connection.number] = connection
        index = len(self._times)
        self._times.append(frame.time_ns)
        self._streams.append(self._keys.setdefault(key, len(self._keys)))
        self._kinds.append(frame.type_code << 2 | frame.direction << 1 | frame.end_stream)
        side = (connection.number, frame.direction)
        if side not in self._last and frame.type_code != FrameType.SETTINGS:
            self._open_gaps.setdefault(side, -1)  # every connection begins with SETTINGS (RFC 9113 §3.4)
        if side in self._open_gaps:
            self._gaps.append((*side, self._open_gaps.pop(side), index))
        self._last[side] = index
        if frame.section is not None and key not in self._paths:
            path = next((value for name, value in frame.section.fields if name == ":path"), None)
            if path is not None:
                self._paths[key] = visible(str(path))
        if connection.number not in self._asked:
            self._ask(frame)

    def _ask(self, frame: FrameEvent) -> None:
        """Who is the client? Its first message may tell."""
        for message in self._messages.feed([frame]):
            if isinstance(message, MessageEvent) and message.direction == Direction.CLIENT_TO_SERVER:
                self._asked.add(frame.connection.number)
                if user := user_of(message):
                    self._names.setdefault(frame.connection.client, user)
                return

    def _lay_out(self, linear: bool, synthesised: bool) -> Lanes:
        frames = len(self._times)
        axis = _linear_axis(self._times) if linear else _folded_axis(self._times, *self._rows())
        start, end = min(axis.places, default=0.0), max(axis.places, default=0.0)
        margin = max((end - start) * 0.01, 0.8 if not linear or start == end else 0.0)
        beside = (end - start) / _PLOT_PIXELS * _END_PIXELS if self._ends else 0.0
        extent = (start - margin, end + margin + beside)

        spans: dict[int, list[tuple[Direction, float, float]]] = {}
        for connection, way, first, last in self._gaps:
            from_x = extent[0] if first < 0 else axis.places[axis.bins[first]]
            to_x = extent[1] if last is None else axis.places[axis.bins[last]]
            spans.setdefault(connection, []).append((way, from_x, to_x))

        ends: dict[int, list[End]] = {}
        for connection, way, word, last in self._ends:
            if last < 0:  # before the first frame of all: of a connection that has no lanes
                continue
            x = axis.places[axis.bins[last]] + (0.0 if linear else 0.6)
            ends.setdefault(connection, []).append(End(x, way, word))

        ordered = sorted(self._keys)
        colours = cycle(STREAM_COLOURS)
        made = [
            Lane(
                self._connections[connection],
                stream_id,
                self._label(connection, stream_id),
                next(colours) if stream_id else GREY,
                [],
                spans.get(connection, []),
                ends.pop(connection, []),
            )
            for connection, stream_id in ordered[:MAX_LANES]
        ]
        if rest := len(ordered) - len(made):
            label = ngettext("{n} more stream", "{n} more streams", rest).format(n=number(rest))
            made.append(Lane(None, 0, label, GREY, [], [], []))
        row_of = {self._keys[key]: min(row, MAX_LANES) for row, key in enumerate(ordered)}
        marks: dict[tuple[int, int, int], Mark] = {}
        for time_ns, stream, kind, place in zip(self._times, self._streams, self._kinds, axis.bins, strict=True):
            key = (row_of[stream], place, kind)
            mark = marks.get(key)
            if mark is not None:
                marks[key] = mark._replace(frames=mark.frames + 1)
            else:
                way = Direction(kind >> 1 & 1)
                marks[key] = Mark(axis.places[place], time_ns, kind >> 2, way, bool(kind & 1), 1)
        for (row, _place, _kind), mark in marks.items():
            made[row].marks.append(mark)

        headings = {
            lane.connection.number: _("connection {n}").format(n=number(lane.connection.number))
            + f" · {peer(lane.connection, self._names)} ⇄ {lane.connection.server}"
            for lane in made
            if lane.connection is not None
        }
        return Lanes(
            made,
            headings,
            axis.folds,
            axis.ticks,
            extent,
            frames,
            len(self._connections),
            axis.bin_frames,
            axis.bin_ns,
            linear,
            synthesised,
        )

    def _rows(self) -> tuple[list[int], list[bool]]:
        rows = [stream << 1 | (kind >> 1 & 1) for stream, kind in zip(self._streams, self._kinds, strict=True)]
        return rows, [bool(kind & 1) for kind in self._kinds]

    def _label(self, connection: int, stream_id: int) -> str:
        """`stream 3 · Chat · Juan`"""
        if stream_id == 0:
            return _("stream 0 · the connection")
        parts = [_("stream {stream}").format(stream=number(stream_id))]
        path = self._paths.get((connection, stream_id))
        if path is not None:
            parts.append(path.rpartition("/")[2] or path)
        name = self._names.get(self._connections[connection].client)
        if name:
            parts.append(name)
        return shorten(" · ".join(parts), MAX_LABEL)


class _Axis(NamedTuple):
    """Where frames stand."""

    bins: Sequence[int]
    """Of each frame; the frame's index where none are binned."""
    places: Sequence[float]
    """The x of each bin."""
    folds: list[Fold]
    ticks: list[tuple[float, int]]
    bin_frames: int
    bin_ns: int


def _linear_axis(times: Sequence[int]) -> _Axis:
    if not times:
        return _Axis([], [], [], [], 0, 0)
    first = times[0]
    if len(times) <= MAX_MARKS:
        places = [(time_ns - first) / MILLISECOND for time_ns in times]
        return _Axis(range(len(times)), places, [], [], 0, 0)
    earliest = min(times)
    bin_ns = -(-(max(times) - earliest + 1) // BINS)
    bins = [(time_ns - earliest) // bin_ns for time_ns in times]
    places = [(earliest - first + (i + 0.5) * bin_ns) / MILLISECOND for i in range(max(bins) + 1)]
    return _Axis(bins, places, [], [], 0, bin_ns)


def _folded_axis(times: Sequence[int], rows: Sequence[int], ends: Sequence[bool]) -> _Axis:
    """`rows`: of each frame, a number for its lane and direction; `ends`: whether a bar stands behind its mark.

    A unit of x is the width of a mark. Neighbours in different rows may stand closer than that, so that what happened
    together stands together; in one row they never overlap as long as there is room for all.
    """
    size = 1 if len(times) <= MAX_MARKS else -(-len(times) // BINS)
    starts = range(0, len(times), size)
    folded = _folded(times, starts)
    places: list[float] = []
    next_in_row: dict[int, float] = {}
    x = -_STEP
    for i, start in enumerate(starts):
        x = x + _STEP if size > 1 else max(x + _STEP, next_in_row.get(rows[start], 0.0))
        if i in folded:
            x += 1.3
        next_in_row[rows[start]] = x + 1.1 + 0.4 * ends[start]
        places.append(x)
    # What has been laid out so far is the frames; now room is made for the bands, of a width that stays the same.
    scale = max(_PLOT_PIXELS - len(folded) * _FOLD_PIXELS, _PLOT_PIXELS / 2) / (x + 2 if places else 1)
    band = _FOLD_PIXELS / scale
    folds: list[Fold] = []
    ticks: list[tuple[float, int]] = []
    for i, start in enumerate(starts):
        places[i] += len(folds) * band
        if i in folded:
            folds.append(Fold(places[i] - 1, places[i] - 1 + band, folded[i]))
            places[i] += band
        if i in folded or not i:
            ticks.append((places[i], times[start] - times[0]))
    return _Axis([i // size for i in range(len(times))], places, folds, ticks, size if size > 1 else 0, 0)


def _folded(times: Sequence[int], starts: range) -> dict[int, int]:
    """By bin: how long the silence before it was, where that is folded."""
    if len(times) < 2:
        return {}
    usual = median(after - before for before, after in pairwise(times))
    least = max(MIN_FOLD_NS, FOLD_FACTOR * usual, (max(times) - min(times)) / FOLD_SHARE)
    gaps = [(times[start] - times[start - 1], i) for i, start in enumerate(starts) if i]
    return {i: ns for ns, i in sorted((gap for gap in gaps if gap[0] >= least), reverse=True)[:MAX_FOLDS]}


# --- text


def facts(data: Lanes) -> str:
    """What the picture shows, as text."""
    lines = []
    connection = None
    for lane in data.lanes:
        if lane.connection is not None and lane.connection.number != connection:
            connection = lane.connection.number
            ended = "".join(f"   {end.direction.arrow} {end.word}" for end in lane.ends)
            lines.append(data.headings[connection] + ended)
        ways = []
        for way in Direction:
            counts: Counter[int] = Counter()
            for mark in lane.marks:
                if mark.direction == way:
                    counts[mark.type_code] += mark.frames
            if counts:
                types = ", ".join(f"{_type_name(code)} {number(n)}" for code, n in sorted(counts.items()))
                ways.append(f"{way.arrow} {types}")
        label = f"  {pad(lane.label, MAX_LABEL)}  "
        between = "   " if width(label + "   ".join(ways)) <= FACTS_COLUMNS else "\n" + " " * width(label)
        lines.append(label + between.join(ways))
    folded = [line for note in notes(data) for line in textwrap.wrap(note, FACTS_COLUMNS)]
    return "\n".join([*lines, *folded])


def notes(data: Lanes) -> list[str]:
    """What must be known to read the picture: what was folded, binned, not observed, synthesised."""
    said = []
    if data.folds:
        shortest, longest = (pick(fold.ns for fold in data.folds) for pick in (min, max))
        words = ngettext("{n} silence is folded", "{n} silences are folded", len(data.folds))
        lengths = " – ".join(dict.fromkeys([duration(shortest), duration(longest)]))
        said.append(words.format(n=len(data.folds)) + f": {lengths}")
    if data.is_linear:
        said.append(_("on a linear axis the frames of a burst hide each other"))
    if data.lanes and data.lanes[-1].connection is None:
        said.append(_("the last lane is of many streams; it does not show where they end"))
    if data.bin_frames:
        words = _(
            "{frames} frames are binned, {n} in a row to a bin: a mark is all of one type, larger where they are more"
        )
        said.append(words.format(frames=number(data.frames), n=number(data.bin_frames)))
    if data.bin_ns:
        words = _("{frames} frames are binned, {time} to a bin: a mark is all of one type, larger where they are more")
        said.append(words.format(frames=number(data.frames), time=duration(data.bin_ns)))
    hatched = {(lane.connection.number, *span) for lane in data.lanes if lane.connection for span in lane.unobserved}
    if hatched:
        words = ngettext("{n} span was not observed", "{n} spans were not observed", len(hatched))
        said.append(words.format(n=number(len(hatched))))
    if data.is_synthesised:
        said.append(_("recorded by a tap: octets and times are real, the TCP/IP around them is synthesised"))
    return said


def _type_name(code: int) -> str:
    return TYPE_NAMES.get(code) or _("type 0x{code:02x}").format(code=code)


# --- drawing

_BAND, _UNSEEN, _HATCH, _RULE, _QUIET = "#e4e4e4", "#f4f4f4", "#8c8c8c", "#c8c8c8", "#555555"
_SIGNS = {Direction.CLIENT_TO_SERVER: 1, Direction.SERVER_TO_CLIENT: -1}
_ASIDE = 0.115
"""Inches from a lane's line to the middle of its marks."""
_LABELS, _LANE_LABEL, _SWATCH, _ARROW = -0.206, -0.024, -0.017, -0.006
"""Where a connection's heading begins, a lane's label ends, its colour and its arrows stand, in widths of the axes."""
_LEGEND_COLUMNS = 8


def figure(data: Lanes, title: str = "") -> Picture:
    """A picture as high as its lanes need."""
    import matplotlib

    from capture.views.picture import STYLE, Picture, drawable

    handles = _legend(data)
    rows = -(-len(handles) // _LEGEND_COLUMNS)
    in_rows = [handles[i] for column in range(_LEGEND_COLUMNS) for i in range(column, len(handles), _LEGEND_COLUMNS)]
    said = notes(data)
    top, below = 0.5, 0.62 + 0.24 * rows + 0.2 * len(said)
    height = top + _height(data) + below
    with matplotlib.rc_context(STYLE):
        picture = Picture.of_height(height)
        picture.facts = facts(data)
        axes = picture.add_axes((0.178, below / height, 0.797, _height(data) / height))
        draw(data, axes)
        picture.text(
            0.0135, 1 - 0.2 / height, drawable(title or _title(data)), fontsize=12, fontweight="bold", va="center",
            parse_math=False,
        )  # fmt: skip
        sides = _("above a line →: from the client, below ←: from the server")
        picture.text(0.988, 1 - 0.2 / height, sides, fontsize=8.5, va="center", ha="right", color=_QUIET)
        picture.legend(
            handles=in_rows, loc="lower left", bbox_to_anchor=(0.006, (0.06 + 0.2 * len(said)) / height),
            ncols=_LEGEND_COLUMNS, frameon=False, fontsize=8.5, handletextpad=0.5, columnspacing=1.6, borderaxespad=0,
        )  # fmt: skip
        for i, note in enumerate(reversed(said)):
            picture.text(0.0135, (0.08 + 0.2 * i) / height, drawable(note), fontsize=8, color=_QUIET, parse_math=False)
    return picture


def save(data: Lanes, path: str | Path, title: str = "") -> None:
    """Writes png, svg or pdf, by the path's suffix. Raises OSError; ValueError for another suffix."""
    figure(data, title).save(path)


def _height(data: Lanes) -> float:
    """Inches that the lanes take."""
    return _top(data) + len(data.headings) * _CONNECTION + max(len(data.lanes), 1) * _LANE


def _top(data: Lanes) -> float:
    return _STRIP if data.folds else 0.0


def draw(data: Lanes, axes: Axes) -> None:
    """Draws on any axes; `figure` makes some that suit. One unit of y is an inch there."""
    from capture.views.picture import put

    left, right = data.extent
    axes.set_xlim(left, right)
    axes.set_ylim(-_height(data), 0)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    for fold in data.folds:
        axes.axvspan(fold.start, fold.end, color=_BAND, linewidth=0, zorder=2)
        put(
            axes, (fold.start + fold.end) / 2, -_STRIP / 2, duration(fold.ns), rotation=90, ha="center", va="center",
            fontsize=7.5, color=_QUIET, zorder=6,
        )  # fmt: skip
    y, connection = -_top(data), None
    for lane in data.lanes:
        if lane.connection is not None and lane.connection.number != connection:
            connection = lane.connection.number
            heading = data.headings[connection]
            put(
                axes, _LABELS, y - _CONNECTION * 0.62, heading, fontsize=9, fontweight="bold", va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            y -= _CONNECTION
        _draw_lane(axes, lane, y - _LANE / 2, data)
        y -= _LANE
    _draw_axis(axes, data)


def _draw_lane(axes: Axes, lane: Lane, y: float, data: Lanes) -> None:
    from matplotlib.patches import Rectangle

    from capture.views.picture import put

    beside = axes.get_yaxis_transform()
    put(axes, _LANE_LABEL, y, lane.label, transform=beside, ha="right", va="center")
    swatch: dict[str, Any] = {"color": lane.colour, "linewidth": 5, "solid_capstyle": "butt", "clip_on": False}
    axes.plot([_SWATCH] * 2, [y - 0.15, y + 0.15], transform=beside, **swatch)
    for way, sign in _SIGNS.items():
        put(
            axes, _ARROW, y + sign * _ASIDE, way.arrow, transform=beside, ha="center", va="center", fontsize=8,
            color=_QUIET,
        )  # fmt: skip
    axes.plot(data.extent, [y, y], color=_RULE, linewidth=0.8, zorder=1)
    if lane.marks:
        xs = [mark.x for mark in lane.marks]
        axes.plot([min(xs), max(xs)], [y, y], color=lane.colour, linewidth=2, zorder=1.5, solid_capstyle="round")
    for way, start, end in lane.unobserved:
        half = _LANE * 0.46
        low = y if way == Direction.CLIENT_TO_SERVER else y - half
        axes.add_patch(Rectangle((start, low), end - start, half, zorder=2.5, **_UNOBSERVED))
    _draw_marks(axes, lane, y, _mark_size(data))
    for closed in lane.ends:
        put(
            axes, closed.x, y + _SIGNS[closed.direction] * _ASIDE, f" {closed.word}", ha="left", va="center",
            fontsize=6.5, fontweight="bold", color=_QUIET, zorder=6,
        )  # fmt: skip


_UNOBSERVED: dict[str, Any] = {"hatch": "////", "facecolor": _UNSEEN, "edgecolor": _HATCH, "linewidth": 0}


def _draw_marks(axes: Axes, lane: Lane, y: float, size: float) -> None:
    from matplotlib.transforms import ScaledTranslation

    by_type: dict[int, list[Mark]] = {}
    for mark in lane.marks:
        by_type.setdefault(mark.type_code, []).append(mark)
    for type_code, marks in sorted(by_type.items()):
        style = look(type_code)
        axes.scatter(
            [mark.x for mark in marks],
            [y + _SIGNS[mark.direction] * _ASIDE for mark in marks],
            s=[(size * style.scale * min(1 + math.log10(mark.frames) / 2, 2)) ** 2 for mark in marks],
            marker=style.marker,
            facecolors=style.colour if style.filled else "white",
            edgecolors="black" if style.filled else style.colour,
            linewidths=0.4 if style.filled else 1.2,
            zorder=4,
        )
    ends = [mark for mark in lane.marks if mark.ends_stream and lane.connection is not None]
    beside = ScaledTranslation((size / 2 + 1.6) / 72, 0, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]  # None only for axes taken out of their figure
    axes.plot(
        [mark.x for mark in ends], [y + _SIGNS[mark.direction] * _ASIDE for mark in ends], linestyle="none", marker="|",
        markersize=size + 3, markeredgewidth=1.8, color="black", transform=axes.transData + beside, zorder=5,
    )  # fmt: skip


def _mark_size(data: Lanes) -> float:
    """Points across: as wide as a unit of x, but never so large that lanes meet or so small that shapes are lost."""
    from capture.views.picture import DPI

    left, right = data.extent
    unit = 8.0 if data.is_linear else _PLOT_PIXELS / (right - left) * 72 / DPI
    return min(7.5, max(3.5, unit))


def _draw_axis(axes: Axes, data: Lanes) -> None:
    if data.is_linear:
        axes.set_xlabel(_("milliseconds since the first frame"))
        axes.xaxis.set_major_formatter(lambda x, _position: decimal(x, 0 if float(x).is_integer() else 2))
        return
    axes.set_xlabel(_("frames in their order; where a burst begins, the milliseconds since the first frame"))
    left, right = data.extent
    kept: list[tuple[float, int]] = []
    silence = [math.inf, *[fold.ns for fold in data.folds]]
    for (x, ns), _silence in sorted(zip(data.ticks, silence, strict=False), key=lambda tick: -tick[1]):
        if all(abs(x - other) >= (right - left) / 16 for other, _ns in kept):  # room for both labels
            kept.append((x, ns))
    axes.set_xticks([x for x, _ns in kept], [milliseconds(ns) for _x, ns in kept])


def _title(data: Lanes) -> str:
    frames = ngettext("{n} frame", "{n} frames", data.frames).format(n=number(data.frames))
    joined = ngettext("{n} connection", "{n} connections", data.connections).format(n=number(data.connections))
    return _("HTTP/2 frames, a lane per stream") + f" · {frames} · {joined}"


def _legend(data: Lanes) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for type_code in sorted({mark.type_code for lane in data.lanes for mark in lane.marks}):
        style = look(type_code)
        shape: dict[str, Any] = {"marker": style.marker, "markersize": 7 * style.scale, "linestyle": "none"}
        shape["markerfacecolor"] = style.colour if style.filled else "white"
        shape["markeredgecolor"] = "black" if style.filled else style.colour
        shape["markeredgewidth"] = 0.4 if style.filled else 1.2
        handles.append(Line2D([], [], label=_type_name(type_code), **shape))
    end: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 1.8, "color": "black"}
    handles.append(Line2D([], [], linestyle="none", label="END_STREAM", **end))
    if data.folds:
        handles.append(Patch(facecolor=_BAND, label=_("silence, folded: its true length")))
    if any(lane.unobserved for lane in data.lanes):
        handles.append(Patch(label=_("not observed"), **_UNOBSERVED))
    return handles
