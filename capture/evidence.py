"""The two sides of a score: what the ends of calls logged (kit/truth.py has the format), and what a capture tells.

A capture's side is, for each stream and direction, runs of messages, and holes between them: places where the capture
itself says that something is missing, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from capture.calls import Calls
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
)
from capture.messages import Messages, trouble_with
from capture.pipeline import SNAPPED
from capture.protobuf import Schema
from kit.words import N_, _

BEFORE = N_("the capture began later")
LOST = N_("octets are lost in a gap")
NOT_KEPT = N_("the capture kept less than the whole packet")
UNDECODED = N_("octets could not be decoded")
NO_METHOD = N_("the method's name is unknown")


# --- the truth


class TruthError(ValueError):
    """A line that is none of a truth; the text is a sentence."""


class TrueMessage(NamedTuple):
    time_ns: int
    message: Any
    is_known: bool
    """Whether the log says what it was."""


class TrueCall:
    """One call as an end logged it."""

    def __init__(self, number: int, method: str, time_ns: int) -> None:
        self.number = number
        self.method = method
        self.start_ns = time_ns
        self.client: str | None = None
        self.messages: tuple[list[TrueMessage], list[TrueMessage]] = ([], [])
        """By direction."""
        self.has_end = False
        self.end_ns: int | None = None
        self.status: int | None = None
        self.sentence: str | None = None


class TrueLog:
    """What one end logged."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.calls: list[TrueCall] = []
        self.last_ns = 0

    def sent(self, direction: int) -> bool:
        """Whether this end was the sender of a direction."""
        return (self.side == "client") == (direction == Direction.CLIENT_TO_SERVER)


def read_truth(lines: Iterable[bytes]) -> TrueLog:
    """A log from its lines. A last line without its end is what a killed process leaves, and passed over. Raises
    TruthError."""
    log: TrueLog | None = None
    calls: dict[int, TrueCall] = {}
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            kind = record["record"]
            if log is None:
                if kind != "truth" or record["side"] not in ("client", "server"):
                    raise ValueError
                log = TrueLog(record["side"])
            elif kind == "call":
                call = TrueCall(int(record["call"]), str(record["method"]), int(record["time_ns"]))
                calls[call.number] = call
                log.calls.append(call)
            else:
                _add(calls[record["call"]], kind, record)
            log.last_ns = max(log.last_ns, record.get("time_ns", 0))
        except (ValueError, KeyError, TypeError, AttributeError):
            words = _("line {number} is none that a server or client with --truth writes")
            raise TruthError(words.format(number=number)) from None
    if log is None:
        raise TruthError(_("there is nothing in it that a server or client with --truth wrote"))
    return log


def _add(call: TrueCall, kind: str, record: dict[str, Any]) -> None:
    if kind == "connection":
        call.client = str(record["client"])
    elif kind == "message":
        messages = call.messages[("client_to_server", "server_to_client").index(record["direction"])]
        messages.append(TrueMessage(int(record["time_ns"]), record.get("message"), "message" in record))
        if record["sequence"] != len(messages):
            raise ValueError
    elif kind == "end":
        call.has_end, call.end_ns = True, int(record["time_ns"])
        call.status, call.sentence = record["status"], record["status_message"]
    else:
        raise ValueError


# --- the capture


class Said(NamedTuple):
    """A message as the capture tells it."""

    event: MessageEvent
    message: Any
    why: str | None
    """Why its content is unknown, where it is."""


class Half:
    """One direction of a stream: messages, and where something is missing between them."""

    __slots__ = ("begun", "ended", "hole", "runs")

    def __init__(self) -> None:
        self.runs: list[tuple[str | None, list[Said]]] = []
        """Each with why something may be missing before it; None where nothing is."""
        self.hole: str | None = None
        """The same, for what comes behind the last run."""
        self.begun = False
        """A frame was seen."""
        self.ended = False
        """The side said that it sends no more."""

    def begin(self, is_beginning: bool, why_not: str) -> None:
        if not self.begun:
            self.begun = True
            self.hole = None if is_beginning else self.hole or why_not

    def lose(self, why: str) -> None:
        if not self.ended:
            self.hole = why

    def say(self, said: Said) -> None:
        if self.hole is not None or not self.runs:
            self.runs.append((self.hole, []))
            self.hole = None
        self.runs[-1][1].append(said)


class Stream:
    __slots__ = ("call", "connection", "halves", "stream_id")

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.halves = (Half(), Half())
        self.call: Call | None = None


class Known:
    """A connection."""

    def __init__(self, connection: Connection, first_ns: int) -> None:
        self.connection = connection
        self.first_ns = self.last_ns = first_ns
        self.streams: dict[int, Stream] = {}
        self.living: dict[int, Stream] = {}
        """Of them, those that have not been ended by both sides."""
        self.why: list[str | None] = [None, None]
        """By direction: why octets of it are missing; None while none are."""
        self.recent = [LOST, LOST]
        """By direction: what the TCP stage said of what was missing last."""
        self.gap = [-1, -1]
        """By direction: where the last gap began in which frames are missing."""
        self.closed = False

    @property
    def whole(self) -> bool:
        """Whether all calls that were made on it until the capture's end must have been seen."""
        first = self.streams.get(1)
        return self.why[0] is None and first is not None and first.halves[0].begun and first.halves[0].hole is None


class Seen:
    """All that a capture tells of calls and messages, with what it admits to lack. Fed with the pipeline's events."""

    def __init__(self, schema: Schema) -> None:
        self._messages = Messages(schema, check=False)
        self._calls = Calls(schema)
        self.connections: dict[int, Known] = {}

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.connection is not None:
                self._feed(event, self._known(event))

    def finish(self) -> None:
        results = self._messages.finish()
        for message in results:
            if isinstance(message, MessageEvent):
                self._say(message)
        self._take([*self._calls.feed([], results), *self._calls.finish()])

    def _known(self, event: Event) -> Known:
        assert event.connection is not None
        known = self.connections.get(event.connection.number)
        if known is None:
            known = self.connections[event.connection.number] = Known(event.connection, event.time_ns)
        known.last_ns = max(known.last_ns, event.time_ns)
        known.connection = event.connection
        return known

    def _feed(self, event: Event, known: Known) -> None:
        stream = None
        if isinstance(event, FrameEvent):
            stream = self._frame(event, known)
        elif isinstance(event, Gap):
            if event.frames_lost:  # else the frame around it comes next; one that it cut comes next, too
                known.gap[event.direction] = event.offset
                self._lose(known, event.direction, known.recent[event.direction])
        elif isinstance(event, Problem):
            self._problem(event, known)
        elif isinstance(event, ConnectionEnd):
            known.closed = True
        results = self._messages.feed((event,))
        for result in results:
            if isinstance(result, MessageEvent):
                self._say(result)
            elif stream is not None and result.direction is not None:  # of the frame's stream
                stream.halves[result.direction].lose(known.why[result.direction] or UNDECODED)
        self._take(self._calls.feed((event,), results))
        if stream is not None and isinstance(event, FrameEvent) and event.end_stream:
            stream.halves[event.direction].ended = True
            if stream.halves[1 - event.direction].ended:
                known.living.pop(event.stream_id, None)

    def _frame(self, event: FrameEvent, known: Known) -> Stream | None:
        if event.type_code not in (FrameType.DATA, FrameType.HEADERS) or not event.stream_id & 1:
            return known.streams.get(event.stream_id)
        stream = known.streams.get(event.stream_id)
        if stream is None:
            stream = known.streams[event.stream_id] = Stream(event.connection, event.stream_id)
            known.living[event.stream_id] = stream
        half, why = stream.halves[event.direction], known.why[event.direction]
        is_beginning = event.type_code == FrameType.HEADERS and (
            not event.end_stream
            or event.direction == Direction.CLIENT_TO_SERVER
            or any(name == ":status" for name, _value in event.fields or ())
        )
        half.begin(is_beginning, why or BEFORE)
        if event.payload is None:
            known.why[event.direction] = known.recent[event.direction]
            if event.type_code == FrameType.DATA or known.gap[event.direction] > event.offset:
                half.lose(known.recent[event.direction])
        return stream

    def _problem(self, problem: Problem, known: Known) -> None:
        directions = tuple(Direction) if problem.direction is None else (problem.direction,)
        for direction in directions:
            if problem.layer == "tcp":
                known.recent[direction] = NOT_KEPT if problem.template == SNAPPED else LOST
            elif problem.layer in ("http2", "tls", "packet", "capture") and problem.octets is not None:
                self._lose(known, direction, UNDECODED)

    @staticmethod
    def _lose(known: Known, direction: Direction, why: str) -> None:
        known.why[direction] = why
        for stream in known.living.values():
            stream.halves[direction].lose(why)

    def _say(self, message: MessageEvent) -> None:
        known = self.connections[message.connection.number]
        stream = known.streams[message.stream_id]
        content, why = message.message, None
        if content is None and (trouble := trouble_with(message)) is not None and trouble.layer == "grpc":
            why = trouble.template
        elif message.path is None:
            why = NO_METHOD
        stream.halves[message.direction].say(Said(message, content, why))

    def _take(self, calls: Iterable[Call]) -> None:
        for call in calls:
            stream = self.connections[call.connection.number].streams.get(call.stream_id)
            if stream is not None and stream.call is None:
                stream.call = call
