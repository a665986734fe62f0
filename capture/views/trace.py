"""A capture in the trace-event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

A connection is a process. A stream is two threads of it, one for each end: what the client sent and got, and what the
server did. On them are slices: the call, on the client's thread, with the client's frames inside; the frames; and each
message where it arrives, with an arrow from the frame that completed it. A capture sees octets pass at one place and
one time: an arrow says who spoke to whom, not how long that took. Windows of flow control are counters, trouble is
instants.

A frame has no duration, and a slice of none cannot be seen or clicked on, so each is WIDTH_NS wide, and those of one
instant stand side by side; the time is in its details. Slices of one thread lie inside each other or apart, as the
format demands. Times are microseconds, with nanoseconds behind the point, and the first event's is 1.

The format: "Trace Event Format" (Google, the document that chrome://tracing's sources point to).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from capture.calls import Calls
from capture.events import (
    Call,
    Connection,
    ConnectionEnd,
    Event,
    FrameEvent,
    Gap,
    MessageEvent,
    Problem,
    WindowSample,
)
from capture.export import Writer
from capture.messages import Messages
from capture.views.describe import content_in_words, end_in_words, peer, problem_in_words, type_in_words, user_of
from capture.windows import Windows
from kit.text import shorten, visible
from kit.words import _

if TYPE_CHECKING:
    from capture.protobuf import Schema

WIDTH_NS = 1_000
"""The format's unit."""
MAX_EVENTS = 500_000
"""Written before the rest is left out: some 200 MB. A browser reads no JSON of more than 512 MB."""
MAX_STREAMS = 2_000
"""With threads of their own; no viewer shows more of them so that one can find any."""
MAX_NAME = 80
"""Columns of a message's name; all of it is in its details."""
FIRST_TID = 1_001
"""Thread numbers are unique in the file. Viewers take a thread with its process's number for the main one."""

TraceEvent = dict[str, Any]


class _Track:
    """The two threads of a stream."""

    def __init__(self, connection: Connection, stream_id: int, tid: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.tid = (tid, tid + 1)
        """The client's, the server's."""
        self.free_ns = [0, 0]
        """Where the last slice ends."""
        self.path = ""

    def place(self, end: int, time_ns: int) -> int:
        """Where a slice of this time stands, at this end."""
        start = max(time_ns, self.free_ns[end])
        self.free_ns[end] = start + WIDTH_NS
        return start


class Trace:
    """Events of a pipeline in, trace events out. `wanted` says which records are shown."""

    def __init__(self, schema: Schema, wanted: Callable[[Any], bool] | None = None) -> None:
        self._wanted = wanted
        self._messages, self._calls, self._windows = Messages(schema), Calls(schema), Windows()
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._connections: dict[int, Connection] = {}
        self._names: dict[str, str] = {}
        self._last_ns = 0
        self._flows = 0
        self._details = {kind: Writer(kind, "jsonl") for kind in ("frames", "messages", "calls", "problems")}
        self.start_ns: int | None = None
        """The time from which all others count."""
        self.frames = 0
        """Shown."""
        self.events = 0
        """Made, without names of threads and processes."""
        self.left_out = 0
        """Frames that were not shown because there were too many frames or streams."""

    def feed(self, events: Iterable[Event]) -> Iterator[TraceEvent]:
        for event in events:
            if self.events >= MAX_EVENTS:
                self.left_out += isinstance(event, FrameEvent) and self._is_wanted(event)
                continue
            if self.start_ns is None:
                self.start_ns = event.time_ns - WIDTH_NS
            self._last_ns = max(self._last_ns, event.time_ns)
            results = self._messages.feed([event])
            if isinstance(event, FrameEvent):
                yield from self._count(self._frame(event, results))
            else:
                yield from self._count(self._happening(event))
            yield from self._count(self._found(results))
            for call in self._calls.feed([event], results):
                yield from self._count(self._call(call))
            yield from self._count(self._counters(self._windows.feed([event])))
            yield from self._count(self._found(self._windows.problems))
            self._windows.problems.clear()
            self._windows.blocked.clear()

    def finish(self) -> Iterator[TraceEvent]:
        """The rest, and the names of all."""
        results = self._messages.finish()
        yield from self._count(self._found(results))
        for call in [*self._calls.feed([], results), *self._calls.finish()]:
            yield from self._count(self._call(call))
        yield from self._count(self._counters(self._windows.finish()))
        yield from self._naming()

    def _count(self, made: Iterator[TraceEvent]) -> Iterator[TraceEvent]:
        """What belongs together comes whole or not at all: each arrow has its end."""
        if self.events < MAX_EVENTS:
            for event in made:
                self.events += 1
                yield event

    def _is_wanted(self, record: Any) -> bool:
        return self._wanted is None or self._wanted(record)

    # -- what happens ------------------------------------------------------------------------------------------------

    def _frame(self, frame: FrameEvent, results: Iterable[MessageEvent | Problem]) -> Iterator[TraceEvent]:
        if not self._is_wanted(frame):
            return
        track = self._track(frame.connection, frame.stream_id)
        if track is None:
            return
        self.frames += 1
        if not track.path and frame.section is not None:
            path = next((value for name, value in frame.section.fields if name == ":path"), "")
            track.path = visible(str(path))
        sender = int(frame.direction)
        start = track.place(sender, frame.time_ns)
        name = type_in_words(frame) + (" " + _("end") if frame.end_stream else "")
        yield self._slice(track, sender, name, "frame", start, WIDTH_NS, self._told("frames", frame))
        for message in results:
            if isinstance(message, MessageEvent) and (message.stream_id, message.packet) == (
                frame.stream_id,
                frame.packet,
            ):
                yield from self._arrow(track, sender, start, message)

    def _arrow(self, track: _Track, sender: int, sent_ns: int, message: MessageEvent) -> Iterator[TraceEvent]:
        """From the frame that completed a message to the message, at the other end."""
        receiver = 1 - sender
        if name := user_of(message):
            self._names.setdefault(message.connection.client, name)
        start = track.place(receiver, sent_ns + WIDTH_NS)
        said = shorten(content_in_words(message), MAX_NAME)
        yield self._slice(track, receiver, said, "message", start, WIDTH_NS, self._told("messages", message))
        self._flows += 1
        arrow = {"cat": "message", "name": "message", "id": self._flows, "pid": _pid(track.connection)}
        yield {"ph": "s", **arrow, "tid": track.tid[sender], "ts": self._time(sent_ns + WIDTH_NS // 2)}
        yield {"ph": "f", "bp": "e", **arrow, "tid": track.tid[receiver], "ts": self._time(start + WIDTH_NS // 2)}

    def _call(self, call: Call) -> Iterator[TraceEvent]:
        track = self._tracks.get((call.connection.number, call.stream_id))
        if track is None or not self._is_wanted(call):
            return
        # A nanosecond more at the start, so that every viewer takes the first frame for a part of it.
        start = call.start_ns - 1
        end = max(call.end_ns if call.end_ns is not None else self._last_ns, track.free_ns[0])
        track.free_ns[0] = end
        name = visible(call.path or _("call"))
        yield self._slice(track, 0, name, "call", start, end - start, self._told("calls", call))

    def _counters(self, samples: Iterable[WindowSample]) -> Iterator[TraceEvent]:
        for sample in samples:
            if not self._is_wanted(sample) or (sample.connection.number, sample.stream_id) not in self._tracks:
                continue
            whose = _("stream {stream}").format(stream=sample.stream_id) if sample.stream_id else _("connection")
            name = _("window {arrow} {whose}").format(arrow=sample.direction.arrow, whose=whose)
            where = {"pid": _pid(sample.connection), "ts": self._time(sample.time_ns)}
            yield {"ph": "C", "name": name, **where, "args": {"octets": sample.octets}}

    def _happening(self, event: Event) -> Iterator[TraceEvent]:
        """A problem, a gap, or the end of a connection: an instant."""
        if not self._is_wanted(event):
            return
        if isinstance(event, Problem):
            yield self._instant(event, problem_in_words(event), "problem", self._told("problems", event))
        elif isinstance(event, Gap):
            details = {"direction": event.direction.label, "offset": event.offset, "octets": event.octets}
            words = _("{octets} octets are missing from the capture").format(octets=event.octets)
            yield self._instant(event, words, "gap", details)
        elif isinstance(event, ConnectionEnd):
            yield self._instant(event, end_in_words(event), "end", {"packet": event.packet, "how": event.how})

    def _found(self, results: Iterable[Any]) -> Iterator[TraceEvent]:
        """What messages and windows brought to light."""
        for result in results:
            if isinstance(result, Problem):
                yield from self._happening(result)

    # -- how it is written -------------------------------------------------------------------------------------------

    def _time(self, time_ns: int) -> float:
        return (time_ns - (self.start_ns or 0)) / 1_000

    def _told(self, kind: str, record: Any) -> orjson.Fragment:
        """As in the lines of the kind."""
        return orjson.Fragment(self._details[kind].lines([record]).rstrip())

    def _slice(
        self, track: _Track, end: int, name: str, category: str, start_ns: int, length_ns: int, details: Any
    ) -> TraceEvent:
        where = {"pid": _pid(track.connection), "tid": track.tid[end]}
        times = {"ts": self._time(start_ns), "dur": length_ns / 1_000}
        return {"ph": "X", "name": _encodable(name), "cat": category, **where, **times, "args": details}

    def _instant(self, event: Problem | Gap | ConnectionEnd, name: str, category: str, details: Any) -> TraceEvent:
        """On the stream's thread where it concerns one, else through its connection's, else through all."""
        where: dict[str, Any] = {"s": "g", "pid": 0, "tid": 0}
        if event.connection is not None:
            stream = event.values.get("stream") if isinstance(event, Problem) else None
            track = self._tracks.get((event.connection.number, stream)) if isinstance(stream, int) else None
            where = {"s": "p", "pid": _pid(event.connection), "tid": 0}
            if track is not None:
                where |= {"s": "t", "tid": track.tid[event.direction or 0]}
            self._connections.setdefault(event.connection.number, event.connection)
        return {
            "ph": "i",
            "name": _encodable(name),
            "cat": category,
            **where,
            "ts": self._time(event.time_ns),
            "args": details,
        }

    def _track(self, connection: Connection, stream_id: int) -> _Track | None:
        """None, and counted, where there is no room for what would be on it."""
        key = (connection.number, stream_id)
        track = self._tracks.get(key)
        if track is None and len(self._tracks) >= MAX_STREAMS:
            self.left_out += 1
            return None
        if track is None:
            self._connections.setdefault(connection.number, connection)
            track = self._tracks[key] = _Track(connection, stream_id, FIRST_TID + 2 * len(self._tracks))
        return track

    def _naming(self) -> Iterator[TraceEvent]:
        for connection in self._connections.values():
            name = _("connection {n}").format(n=connection.number)
            name += f" · {peer(connection, self._names)} ⇄ {connection.server}"
            yield _metadata(_pid(connection), 0, "process_name", name=name)
            yield _metadata(_pid(connection), 0, "process_sort_index", sort_index=connection.number)
        for track in self._tracks.values():
            label = _("connection")
            if track.stream_id:
                label = _("stream {stream}").format(stream=track.stream_id)
                label += f" · {track.path.rpartition('/')[2]}" if track.path else ""
            for end, who in enumerate((_("client"), _("server"))):
                pid, tid = _pid(track.connection), track.tid[end]
                yield _metadata(pid, tid, "thread_name", name=f"{label} · {who}")
                yield _metadata(pid, tid, "thread_sort_index", sort_index=2 * track.stream_id + end)


def _encodable(text: str) -> str:
    """Without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _pid(connection: Connection) -> int:
    return connection.number + 1


def _metadata(pid: int, tid: int, what: str, **arguments: Any) -> TraceEvent:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": arguments}
