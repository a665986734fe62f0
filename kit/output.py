"""Lines for somebody who may stop reading: `python -m server | head` is no reason to fail."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

from kit.words import _

WAITING_CHARACTERS = 16_000_000
"""What may wait in a Queued: some 100,000 lines of a chat's log, minutes of it."""
GATHER_SECONDS = 0.02
"""For so long lines gather before they are written, so that a busy program is not woken for each."""


class Output:
    """Writes lines to a stream at once, from any thread. When that is not possible any longer it falls silent: without
    a word where the reader has gone (a pipe), else with one on standard error (a full disk)."""

    def __init__(self, stream: IO[str] | None) -> None:
        """None is what Python has for a standard stream that is closed from the start."""
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, lines: str) -> None:
        """One or more lines, without the last line end; they stay together."""
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(lines + "\n")
                self._stream.flush()
            except OSError as error:
                self._send_nowhere(self._stream)
                self._stream = None
                if not isinstance(error, BrokenPipeError) and sys.stderr is not None:
                    text = _("The output cannot be written and is lost from here on: {reason}")
                    print(text.format(reason=error.strerror), file=sys.stderr)

    @staticmethod
    def _send_nowhere(stream: IO[str]) -> None:
        """What is left in its buffer, too; else Python would complain about that when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Queued:
    """Lines for an Output that are written by a thread of its own: who writes one never waits, not even for a terminal
    that is held. Any thread may call.

    When WAITING_CHARACTERS wait, entries are left out, and `lost` gives the line that says how many, in their place."""

    def __init__(self, write: Callable[[str], None], lost: Callable[[int], str]) -> None:
        self._write = write
        self._lost = lost
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._left_out = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def __call__(self, lines: str) -> None:
        """As in Output. After `close` nothing is written."""
        with self._changed:
            if self._characters + len(lines) > WAITING_CHARACTERS:
                self._left_out += 1
                return
            self._waiting.append(lines)
            self._characters += len(lines)
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Writes what waits. Whether that could be done within the time."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            self._closing.wait(GATHER_SECONDS)
            with self._changed:
                if not self._waiting:
                    return
                if self._left_out:
                    self._waiting.append(self._lost(self._left_out))
                    self._left_out = 0
                lines, self._characters = "\n".join(self._waiting), 0
                self._waiting.clear()
            self._write(lines)
