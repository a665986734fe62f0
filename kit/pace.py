"""How many messages a second one member may send: the server refuses more, the client keeps below it."""

from __future__ import annotations

import time
from collections.abc import Callable

MESSAGES_PER_SECOND = 1_000.0
"""Lasting. Nobody types so fast; in a room of 50 it is 50,000 messages to send on."""
BURST_SECONDS = 10.0
"""So many seconds' worth may go at once, after a pause: a file of 10,000 lines."""


class Pace:
    """A token bucket: `rate` messages per second, saved up for BURST_SECONDS. `clock` returns seconds."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._most = max(rate * BURST_SECONDS, 1.0)
        self._left = self._most
        self._then = clock()

    def take(self) -> float:
        """0 where one more message is allowed now, which counts; else the seconds until one is."""
        now = self._clock()
        self._left = min(self._left + (now - self._then) * self._rate, self._most)
        self._then = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0
