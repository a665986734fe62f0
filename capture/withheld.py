"""Findings that may yet turn out wrong, held back in order until they are certain.

A gap in one direction of a connection is told only when nobody waits for its octets any longer; what was concluded from
the other direction's frames meanwhile may be wrong. So findings are put in here under their connection, `believe` or
`doubt` decides about all that a connection has in here, and `take` gives out what is certain, in the order in which it
was put in, up to the first that is undecided.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

MAX_WITHHELD = 10_000
"""Findings held back, over all connections, about 2 MiB. Beyond it the oldest is given out as it is, unless its
connection was never `heard` from both sides."""

T = TypeVar("T")


class _Finding(Generic[T]):
    __slots__ = ("item", "source", "verdict")

    def __init__(self, item: T, source: Source[T]) -> None:
        self.item = item
        self.source = source
        self.verdict: bool | None = None


class Source(Generic[T]):
    """One connection's findings that are undecided."""

    __slots__ = ("heard", "undecided")

    def __init__(self) -> None:
        self.undecided: deque[_Finding[T]] = deque()
        self.heard = False
        """Whether frames of both sides were seen."""

    def believe(self) -> None:
        self._decide(True)

    def doubt(self) -> None:
        self._decide(False)

    def _decide(self, verdict: bool) -> None:
        for finding in self.undecided:
            finding.verdict = verdict
        self.undecided.clear()


class Withheld(Generic[T]):
    __slots__ = ("_queue", "_ready")

    def __init__(self) -> None:
        self._queue: deque[_Finding[T]] = deque()
        self._ready: list[T] = []

    def put(self, item: T, source: Source[T], *, certain: bool = False) -> None:
        finding = _Finding(item, source)
        self._queue.append(finding)
        if certain:
            finding.verdict = True
        else:
            source.undecided.append(finding)
        if len(self._queue) > MAX_WITHHELD:
            self._sort_out()

    def take(self) -> list[T]:
        self._sort_out()
        ready, self._ready = self._ready, []
        return ready

    def _sort_out(self) -> None:
        queue = self._queue
        while queue and (queue[0].verdict is not None or len(queue) > MAX_WITHHELD):
            finding = queue.popleft()
            if finding.verdict is None:
                finding.source.undecided.popleft()  # findings of a source are in both queues in the same order
                finding.verdict = finding.source.heard
            if finding.verdict:
                self._ready.append(finding.item)
