"""From events to the records of one kind: what the commands frames, messages, calls, windows and problems list."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from capture.events import Event, FrameEvent, Problem

if TYPE_CHECKING:
    from capture.protobuf import Schema
    from capture.windows import BlockedSpan

MAX_BLOCKED = 1_000
"""Blocked spans kept for the end of a table; a capture with more of them is not read in a terminal."""
KINDS = ("events", "frames", "messages", "calls", "windows", "problems")


class Stage(Protocol):
    def feed(self, events: list[Event]) -> Sequence[Any]:
        """The records that these events made complete."""

    def finish(self) -> Sequence[Any]:
        """The rest; the input is over."""


class _Events:
    """All that the pipeline yields, as it is."""

    def feed(self, events: list[Event]) -> Sequence[Any]:
        return events

    def finish(self) -> Sequence[Any]:
        return []


class _Frames:
    def feed(self, events: list[Event]) -> Sequence[Any]:
        if set(map(type, events)) <= {FrameEvent}:  # nearly always, and soon seen
            return events
        return [event for event in events if type(event) is FrameEvent]

    def finish(self) -> Sequence[Any]:
        return []


class _Messages:
    def __init__(self, schema: Schema | None) -> None:
        from capture.messages import Messages

        self._messages = Messages(schema, check=False)

    def feed(self, events: list[Event]) -> Sequence[Any]:
        return [result for result in self._messages.feed(events) if type(result) is not Problem]

    def finish(self) -> Sequence[Any]:
        return [result for result in self._messages.finish() if type(result) is not Problem]


class _Calls:
    def __init__(self, schema: Schema | None) -> None:
        from capture.calls import Calls
        from capture.messages import Messages

        self._messages, self._calls = Messages(schema, check=False), Calls(schema)

    def feed(self, events: list[Event]) -> Sequence[Any]:
        return self._calls.feed(events, self._messages.feed(events))

    def finish(self) -> Sequence[Any]:
        return [*self._calls.feed([], self._messages.finish()), *self._calls.finish()]


class WindowSamples:
    def __init__(self) -> None:
        from capture.windows import Windows

        self._windows = Windows()
        self.blocked: list[BlockedSpan] = []
        """The first MAX_BLOCKED spans in which a window held its sender back."""

    def feed(self, events: list[Event]) -> Sequence[Any]:
        samples = self._windows.feed(events)
        self._drain()
        return samples

    def finish(self) -> Sequence[Any]:
        samples = self._windows.finish()
        self._drain()
        return samples

    def _drain(self) -> None:
        """What is kept for others would grow with the capture."""
        self._windows.problems.clear()
        self.blocked += self._windows.blocked[: MAX_BLOCKED - len(self.blocked)]
        self._windows.blocked.clear()


class _Problems:
    """Of all layers."""

    def __init__(self, schema: Schema | None) -> None:
        from capture.messages import Messages
        from capture.windows import Windows

        self._messages, self._windows = Messages(schema), Windows()

    def feed(self, events: list[Event]) -> Sequence[Any]:
        results = self._messages.feed(events)
        self._windows.feed(events)
        found = [thing for thing in [*events, *results, *self._windows.problems] if type(thing) is Problem]
        self._windows.problems.clear()
        self._windows.blocked.clear()
        return sorted(found, key=attrgetter("packet"))

    def finish(self) -> Sequence[Any]:
        results = self._messages.finish()
        self._windows.finish()
        return [thing for thing in [*results, *self._windows.problems] if type(thing) is Problem]


def stage(kind: str, schema: Schema | None) -> Stage:
    """`kind` is one of KINDS; `schema` is what messages are read by."""
    if kind == "events":
        return _Events()
    if kind == "frames":
        return _Frames()
    if kind == "windows":
        return WindowSamples()
    reading: dict[str, type[_Messages | _Calls | _Problems]]
    reading = {"messages": _Messages, "calls": _Calls, "problems": _Problems}
    return reading[kind](schema)
