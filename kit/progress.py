"""A long piece of work, shown: what is being done and for how long, and a command that runs meanwhile.

Standard library only: it shows how the rest is installed.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

REDRAW_SECONDS = 0.2


def _nothing() -> str:
    return ""


class Progress:
    """On standard error: one line that is drawn over in a terminal, a line for each step elsewhere."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._doing: Callable[[], str] | None = None
        self._drawn = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._draw("")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._draw("")
        self._doing = None
        print(self._timed(text), file=self._stream, flush=True)

    def doing(self, text: str, detail: Callable[[], str] = _nothing) -> None:
        """What goes on from now until something else is said; in a terminal `detail` is asked anew for what to add."""
        if self._terminal:
            self._doing = lambda: text + detail()
            self.tick()
        else:
            print(self._timed(text), file=self._stream, flush=True)

    def tick(self) -> None:
        """Shows that time goes by."""
        if self._doing is not None:
            self._draw(self._timed(self._doing()))

    def _timed(self, text: str) -> str:
        return f"{time.monotonic() - self._start:5.0f} s  {text}"

    def _draw(self, text: str) -> None:
        if not self._terminal:
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._drawn) + ("" if text else "\r"))
        self._stream.flush()
        self._drawn = len(text)


def run(
    command: list[str],
    progress: Progress,
    *,
    environment: Mapping[str, str] | None = None,
    follow: Callable[[str], None] | None = None,
) -> tuple[int, list[str]]:
    """Runs it, without input, while the display goes on. Its exit status, and the lines that it said, which `follow`
    gets as they come. Ctrl-C waits for it to end, then raises KeyboardInterrupt."""
    process = subprocess.Popen(
        command,
        env={**(os.environ if environment is None else environment), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    output = process.stdout
    assert output is not None  # it is a pipe

    def read() -> None:
        with output:
            for line in output:
                arriving.put(line.rstrip())
        arriving.put(None)

    threading.Thread(target=read, daemon=True).start()
    lines: list[str] = []
    try:
        while True:
            try:
                line = arriving.get(timeout=REDRAW_SECONDS)
            except queue.Empty:
                progress.tick()
                continue
            if line is None:
                return process.wait(), lines
            lines.append(line)
            if follow is not None:
                follow(line)
    except KeyboardInterrupt:
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> None:
    """Ctrl-C in a terminal reached it as well, and it tidies up; one that does not end by itself is made to."""
    for stop in (process.terminate, process.kill):
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
