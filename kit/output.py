"""Lines for somebody who may stop reading: `python -m server | head` is no reason to fail."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

from kit.words import _


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
