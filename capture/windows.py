"""Frames to flow-control windows: what each sender may still send, as far as the capture can know.

DATA is limited twice (RFC 9113 §5.2): by its stream's window and by the connection's, each direction by itself. DATA
takes its whole payload, padding included, from both (§6.1, §6.9.1); WINDOW_UPDATE of the other side gives; and the
other side's SETTINGS_INITIAL_WINDOW_SIZE sets what a stream starts with, and shifts the windows of streams that are
open, which may make them negative (§6.9.2). The connection's window starts at 65,535, and no setting moves it.

Whose view is this? An observer between the two sees the frames of both in an order of its own. What counts is the view
of the sender of the DATA, since it is the sender who stops. So a setting applies where that sender acknowledges it: it
is acknowledged as soon as it was applied (§6.5.3), so that the DATA before the ACK was sent under the old value and the
DATA behind it under the new one. A WINDOW_UPDATE counts when it passes the observer, before the sender can know of it:
a window here is never less than the sender's own, and a window of 0 here is 0 there.

What is not known is not invented. A window is known from its start on: the connection's if both sides' first frames are
there, a stream's if its first HEADERS are and the initial value then in force is known. A capture that begins in the
middle shows the streams that open later, once SETTINGS were seen and acknowledged; it never shows the connection's
window. A gap that may hold whole frames ends what was known of every window of the connection; a frame whose octets are
missing but whose header is there costs only what its payload would have said.

A gap is told late, once nobody waits for the missing octets any longer, and the other direction goes on meanwhile: its
DATA is counted against updates that were never seen. So what one side's frames say is held until a frame of the other
side, or the connection's end, shows that there was no gap. `Windows(live=True)` does without, and may have to be
forgiven a few samples before a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from capture.events import (
    ACK,
    CONNECTION_PREFACE,
    END_STREAM,
    Connection,
    ConnectionEnd,
    Direction,
    ErrorCode,
    Event,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
    Setting,
    WindowSample,
)
from capture.streams import Room, Streams
from capture.withheld import Source, Withheld
from kit.words import N_

INITIAL_WINDOW = 65_535
"""RFC 9113 §6.9.2."""
MAX_WINDOW = 2**31 - 1
"""RFC 9113 §6.9.1."""
MAX_PENDING_SETTINGS = 64
"""Unacknowledged SETTINGS remembered for each direction; grpc has one, rarely two under way."""


class BlockedSpan(NamedTuple):
    """A time in which a window allowed nothing more, and its sender may have had more to send."""

    connection: Connection
    direction: Direction
    """Of the DATA that was held back."""
    window: int
    """Whose window it was: a stream's identifier, or 0 for the connection's."""
    stream_id: int
    """The stream whose DATA used the window up; where a setting did, the stream whose window it was."""
    start_ns: int
    end_ns: int | None
    """None where the capture, the stream or the connection ended first."""
    cause: int
    """Index of the frame that used the window up, as in WindowSample."""
    freed_by: int | None
    """Index of the frame that made it positive again."""
    resumed_ns: int | None
    """The first DATA on that window behind it: who sends at once had been waiting. None where none came."""


class _Blocked:
    """A span under way, or over and waiting for DATA to resume."""

    __slots__ = ("cause", "end_ns", "freed_by", "start_ns", "stream_id")

    def __init__(self, stream_id: int, start_ns: int, cause: int) -> None:
        self.stream_id = stream_id
        self.start_ns = start_ns
        self.cause = cause
        self.end_ns: int | None = None
        self.freed_by: int | None = None


class _Window:
    __slots__ = ("blocked", "octets")

    def __init__(self, octets: int | None) -> None:
        self.octets = octets
        """None where it is unknown."""
        self.blocked: _Blocked | None = None


class _Stream:
    __slots__ = ("ended", "windows")

    def __init__(self, initial: list[int | None]) -> None:
        self.windows = (_Window(initial[0]), _Window(initial[1]))
        """By direction of the DATA that they limit."""
        self.ended = [False, False]


class _Connection:
    __slots__ = ("certain", "closed", "findings", "initial", "pending", "record", "seen", "side", "streams", "torn",
                 "windows")  # fmt: skip

    def __init__(self, record: Connection, room: Room) -> None:
        self.record = record
        self.streams: Streams[_Stream] = Streams(room)
        self.windows = (_Window(INITIAL_WINDOW), _Window(INITIAL_WINDOW))
        self.initial: list[int | None] = [INITIAL_WINDOW, INITIAL_WINDOW]
        """By direction of DATA: what its streams start with."""
        self.pending: tuple[deque[int | None], deque[int | None]] = (deque(), deque())
        """By direction of DATA: what the other side's unacknowledged SETTINGS say of its initial window, −1 where they
        are silent, None where their octets are missing."""
        self.seen = [False, False]
        """By direction: whether a frame was seen."""
        self.torn: tuple[set[Direction], set[Direction]] = (set(), set())
        """By direction of DATA: the directions that had gaps since its initial value was last learnt."""
        self.findings: Source[WindowSample | Problem] = Source()
        """What the last frames, all of one side, brought: it is certain with the next frame of the other."""
        self.side: Direction | None = None
        """Of the last frame."""
        self.certain = True
        """Every frame was seen so far."""
        self.closed: set[Direction] = set()

    def forget(self) -> None:
        """Frames are missing: every window is unknown from here on, and what is undecided may be wrong."""
        self.certain = False
        self.findings.doubt()
        for window in (*self.windows, *(window for _, stream in self.streams.living() for window in stream.windows)):
            window.octets = window.blocked = None

    def start_unknown(self) -> None:
        """The connection is not seen from its start: nor are initial values known."""
        self.forget()
        self.initial[:] = None, None

    def initial_unknown(self, direction: Direction) -> None:
        """SETTINGS of unknown content apply: what streams start with, and how open ones shift, is unknown."""
        self.initial[direction] = None
        for _, stream in self.streams.living():
            stream.windows[direction].octets = stream.windows[direction].blocked = None


class Windows:
    """The stage: frames in, samples out; problems and blocked spans are kept for whoever asks.

    Feed it every frame of the capture in order: `cause` counts them.
    """

    def __init__(self, *, live: bool = False) -> None:
        self.problems: list[Problem] = []
        """What broke flow control; take them out where the capture is long."""
        self.blocked: list[BlockedSpan] = []
        """Spans that are over, in the order in which that was clear; take them out likewise."""
        self._live = live
        self._connections: dict[int, _Connection] = {}
        self._room = Room()
        self._index = -1
        self._withheld: Withheld[WindowSample | Problem] = Withheld()

    def feed(self, events: Iterable[Event]) -> list[WindowSample]:
        """How windows changed, in the order of the causes: by these events, and by earlier ones, certain by now."""
        for event in events:
            if type(event) is FrameEvent:
                self._index += 1
                self._frame(event)
            elif type(event) is Gap:
                if event.frames_lost:
                    self._gap(event)
            elif type(event) is ConnectionEnd:
                self._connection_end(event)
        return self._certain()

    def finish(self) -> list[WindowSample]:
        """The capture is over: what was still held, and in `blocked` the spans that are still going on."""
        for known in self._connections.values():
            self._close(known)
        self._connections.clear()
        return self._certain()

    def _certain(self) -> list[WindowSample]:
        samples = []
        for item in self._withheld.take():
            if isinstance(item, Problem):
                self.problems.append(item)
            else:
                samples.append(item)
        return samples

    # -- Frames ----------------------------------------------------------------------------------------------------

    def _connection(self, connection: Connection) -> _Connection:
        known = self._connections.get(connection.number)
        if known is None:
            known = self._connections[connection.number] = _Connection(connection, self._room)
        return known

    def _frame(self, event: FrameEvent) -> None:
        known = self._connection(event.connection)
        if not known.seen[event.direction]:
            self._first(event, known)
        if known.side != event.direction:
            known.findings.believe()
            known.side = event.direction
        code = event.type_code
        if code == FrameType.DATA:
            self._data(event, known)
        elif code == FrameType.HEADERS:
            self._headers(event, known)
        elif code == FrameType.WINDOW_UPDATE:
            self._window_update(event, known)
        elif code == FrameType.SETTINGS:
            self._settings(event, known)
        elif code == FrameType.RST_STREAM:
            self._end_stream(known, event.stream_id)
        elif code == FrameType.PUSH_PROMISE and event.promised_stream_id:
            self._open(known, event.promised_stream_id, known.initial)

    def _first(self, event: FrameEvent, known: _Connection) -> None:
        """A direction's first frame, which tells whether the connection is seen from its start: it must be SETTINGS
        (RFC 9113 §3.4), the client's right behind its preface."""
        known.seen[event.direction] = True
        known.findings.heard = all(known.seen)
        behind = len(CONNECTION_PREFACE) if event.direction == Direction.CLIENT_TO_SERVER else 0
        if event.type_code != FrameType.SETTINGS or event.flags & ACK or event.offset < behind:
            known.start_unknown()
        elif event.offset > behind and behind:
            # Something came before the preface. If that was an upgrade from HTTP/1.1, its HTTP2-Settings header set the
            # client's initial values (RFC 7540 §3.2.1), and they are not known here until SETTINGS say them again.
            known.initial[Direction.SERVER_TO_CLIENT] = None

    def _data(self, event: FrameEvent, known: _Connection) -> None:
        direction, stream_id = event.direction, event.stream_id
        stream = known.streams.get(stream_id)
        if event.length:  # an empty DATA frame needs no window (RFC 9113 §6.9.1)
            self._take(event, known, known.windows[direction], 0)
            if stream is not None:
                self._take(event, known, stream.windows[direction], stream_id)
        if event.flags & END_STREAM:
            self._end_half(event, known, stream_id)

    def _take(self, event: FrameEvent, known: _Connection, window: _Window, stream_id: int) -> None:
        before = window.octets
        if before is None:
            return
        if window.blocked is not None and window.blocked.end_ns is not None:
            self._span(known, event.direction, stream_id, window, event.time_ns)
        self._change(event, known, event.direction, stream_id, window, before - event.length)
        if event.length > max(before, 0) and all(known.seen):
            self._overrun(event, known, stream_id, before)

    def _overrun(self, event: FrameEvent, known: _Connection, stream_id: int, before: int) -> None:
        """More DATA than the window allowed."""
        initial = known.initial[event.direction]
        if stream_id and initial is not None:
            for value in known.pending[event.direction]:
                if value is None or before + value - initial >= event.length:
                    return  # it may have applied a setting before it said so
        template = N_("DATA of {length} octets on stream {stream}, where {window} were left (RFC 9113 §6.9.1)")
        if not stream_id:
            template = N_("DATA of {length} octets, where the connection's window had {window} left (RFC 9113 §6.9.1)")
        values = {"length": event.length, "stream": stream_id, "window": before}
        self._problem(event, known, template, values, event.length)

    def _headers(self, event: FrameEvent, known: _Connection) -> None:
        """Opens the stream. What it starts with counts only if these are surely its first headers: a client's without
        END_STREAM, which trailers have, or with pseudo-header fields, or where no frame is missing."""
        if event.stream_id not in known.streams:
            first = event.direction == Direction.CLIENT_TO_SERVER and (
                known.certain
                or not event.flags & END_STREAM
                or any(isinstance(name, str) and name.startswith(":") for name, _ in event.fields or ())
            )
            self._open(known, event.stream_id, known.initial if first else [None, None])
        if event.flags & END_STREAM:
            self._end_half(event, known, event.stream_id)

    def _window_update(self, event: FrameEvent, known: _Connection) -> None:
        direction = Direction(1 - event.direction)  # it speaks to who sends the DATA
        if event.stream_id:
            stream = known.streams.get(event.stream_id)
            if stream is None:
                return
            window = stream.windows[direction]
        else:
            window = known.windows[direction]
        if window.octets is None:
            return
        increment = event.increment
        if increment is None:  # its octets are missing, or it is malformed
            window.octets = window.blocked = None
        elif increment:
            self._change(event, known, direction, event.stream_id, window, window.octets + increment)

    def _settings(self, event: FrameEvent, known: _Connection) -> None:
        if event.flags & ACK:
            self._acknowledged(event, known)
            return
        direction = Direction(1 - event.direction)
        value: int | None = None
        if event.settings is not None:
            value = -1
            for name, number in event.settings:
                if name == f"SETTINGS_{Setting.INITIAL_WINDOW_SIZE.name}":
                    value = number  # the last one counts (RFC 9113 §6.5.3)
        known.pending[direction].append(value)
        if len(known.pending[direction]) > MAX_PENDING_SETTINGS:
            known.pending[direction].popleft()
            known.initial_unknown(direction)

    def _acknowledged(self, event: FrameEvent, known: _Connection) -> None:
        """The sender of DATA has applied what the other side's oldest unacknowledged SETTINGS asked."""
        direction = event.direction
        value = known.pending[direction].popleft() if known.pending[direction] else None
        before = known.initial[direction]
        if value == -1:
            return
        if value is None or before is None:
            known.initial_unknown(direction)
            known.initial[direction] = value
            known.torn[direction].clear()
            return
        known.initial[direction] = value
        known.torn[direction].clear()
        if value != before:
            for stream_id, stream in known.streams.living():
                window = stream.windows[direction]
                if window.octets is not None and not stream.ended[direction]:
                    self._change(event, known, direction, stream_id, window, window.octets + value - before)

    def _gap(self, gap: Gap) -> None:
        """DATA of that direction may be missing, and updates for the other one. The initial values in force stay known
        until there are gaps in both: a change needs SETTINGS one way and an ACK the other, and an ACK to no SETTINGS is
        noticed."""
        known = self._connection(gap.connection)
        known.forget()
        for direction in Direction:
            known.torn[direction].add(gap.direction)
            if len(known.torn[direction]) == len(Direction):
                known.initial[direction] = None
        if not all(known.seen):
            known.start_unknown()
        if known.pending[gap.direction]:
            known.pending[gap.direction].clear()  # the missing octets may have acknowledged these
            known.initial[gap.direction] = None

    def _connection_end(self, end: ConnectionEnd) -> None:
        known = self._connections.get(end.connection.number)
        if known is not None:
            known.closed.add(end.direction)
            if end.how != "fin" or len(known.closed) == 2:
                self._close(known)
                del self._connections[end.connection.number]

    # -- Windows ---------------------------------------------------------------------------------------------------

    def _change(
        self, event: FrameEvent, known: _Connection, direction: Direction, stream_id: int, window: _Window, octets: int
    ) -> None:
        """A window that is known has so many octets now."""
        before, window.octets = window.octets or 0, octets
        self._tell(WindowSample(event.time_ns, event.connection, direction, stream_id, octets, self._index), known)
        blocked = window.blocked
        if octets <= 0 and (blocked is None or blocked.end_ns is not None):
            if blocked is not None:
                self._span(known, direction, stream_id, window, None)
            window.blocked = _Blocked(event.stream_id or stream_id, event.time_ns, self._index)
        elif octets > 0 and blocked is not None and blocked.end_ns is None:
            blocked.end_ns, blocked.freed_by = event.time_ns, self._index
        if octets > MAX_WINDOW and octets > before:
            template = N_("the window of stream {stream} becomes {window}, more than 2^31−1 (RFC 9113 §6.9.1)")
            if not stream_id:
                template = N_("the connection's window becomes {window}, more than 2^31−1 (RFC 9113 §6.9.1)")
            self._problem(event, known, template, {"stream": stream_id, "window": octets})

    def _span(
        self, known: _Connection, direction: Direction, stream_id: int, window: _Window, resumed_ns: int | None
    ) -> None:
        blocked = window.blocked
        assert blocked is not None
        window.blocked = None
        self.blocked.append(
            BlockedSpan(
                known.record, direction, stream_id, blocked.stream_id, blocked.start_ns, blocked.end_ns, blocked.cause,
                blocked.freed_by, resumed_ns,
            )
        )  # fmt: skip

    def _problem(
        self, event: FrameEvent, known: _Connection, template: str, values: dict[str, int], octets: int | None = None
    ) -> None:
        where = (event.packet, event.time_ns, event.connection, event.direction, event.offset)
        self._tell(Problem(*where, "http2", template, values, octets, ErrorCode.FLOW_CONTROL_ERROR), known)

    def _tell(self, item: WindowSample | Problem, known: _Connection) -> None:
        self._withheld.put(item, known.findings, certain=self._live and known.findings.heard)

    # -- Streams ---------------------------------------------------------------------------------------------------

    def _open(self, known: _Connection, stream_id: int, initial: list[int | None]) -> None:
        if stream_id and stream_id not in known.streams:
            known.streams.open(stream_id, _Stream(initial))

    def _end_half(self, event: FrameEvent, known: _Connection, stream_id: int) -> None:
        """END_STREAM: that side was not blocked after all if it ends with an empty frame, and will not be."""
        stream = known.streams.get(stream_id)
        if stream is None:
            return
        stream.ended[event.direction] = True
        stream.windows[event.direction].blocked = None
        whole = known.windows[event.direction].blocked
        if whole is not None and whole.stream_id == stream_id and not event.length:
            known.windows[event.direction].blocked = None
        if all(stream.ended):
            self._end_stream(known, stream_id)

    def _end_stream(self, known: _Connection, stream_id: int) -> None:
        stream = known.streams.get(stream_id)
        if stream is not None:
            self._tell_blocked(known, stream_id, stream.windows)
            known.streams.end(stream_id)

    def _tell_blocked(self, known: _Connection, stream_id: int, windows: tuple[_Window, _Window]) -> None:
        for direction in Direction:
            if windows[direction].blocked is not None:
                self._span(known, direction, stream_id, windows[direction], None)

    def _close(self, known: _Connection) -> None:
        if not all(known.seen):
            known.start_unknown()
        known.findings.believe()
        for stream_id, stream in known.streams.living():
            self._tell_blocked(known, stream_id, stream.windows)
        self._tell_blocked(known, 0, known.windows)
        known.streams.close()


def blocked_spans(events: Iterable[Event]) -> list[BlockedSpan]:
    """The blocked spans of a whole capture, by their start."""
    windows = Windows()
    windows.feed(events)
    windows.finish()
    return sorted(windows.blocked, key=lambda span: (span.start_ns, span.cause))
