"""A terminal for tests: a pseudo-terminal with a program in it, and what one would see there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from wcwidth import wcwidth

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 10.0
_SEQUENCE = re.compile(r"\x1b(?:\[([?0-9;]*)([@-~])|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")


class Screen:
    """Text as a terminal arranges it, scrolled-out lines included. Knows the sequences that prompt_toolkit uses."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[list[str]] = [[]]
        self.row = self.column = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        text, at = self._rest + text, 0
        self._rest = ""
        while at < len(text):
            if text[at] == "\x1b":
                found = _SEQUENCE.match(text, at)
                if found is None:
                    self._rest = text[at:]  # the end is still to come
                    return
                if found[2]:
                    self._control(found[1], found[2])
                at = found.end()
            else:
                self._character(text[at])
                at += 1

    def _character(self, c: str) -> None:
        if c == "\r":
            self.column = 0
        elif c == "\n":
            self._move_down(1)
        elif c == "\b":
            self.column = max(self.column - 1, 0)
        elif c.isprintable():
            cells = wcwidth(c)
            if self.column + cells > self.width:
                self.column = 0
                self._move_down(1)
            line = self.lines[self.row]
            line += [" "] * (self.column + cells - len(line))
            line[self.column : self.column + cells] = [c, *[""] * (cells - 1)]
            self.column += cells

    def _control(self, parameters: str, final: str) -> None:
        count = int(parameters) if parameters.isdigit() else 1
        if final == "A":
            self.row = max(self.row - count, 0)
        elif final == "B":
            self._move_down(count)
        elif final == "C":
            self.column = min(self.column + count, self.width - 1)
        elif final == "D":
            self.column = max(self.column - count, 0)
        elif final == "K":
            del self.lines[self.row][self.column :]
        elif final == "J":
            del self.lines[self.row][self.column :]
            del self.lines[self.row + 1 :]

    def _move_down(self, count: int) -> None:
        self.row += count
        while len(self.lines) <= self.row:
            self.lines.append([])

    @property
    def text(self) -> list[str]:
        return ["".join(line).rstrip() for line in self.lines]


class Terminal:
    """`python -m client` as somebody sits before it. Killed at the end."""

    def __init__(
        self,
        *arguments: str,
        width: int = 80,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        """With `output`, what the program writes goes there."""
        self.raw = ""
        self.screen = Screen(width)
        self._changed = threading.Condition()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        stdout = slave if output is None else os.open(output, os.O_WRONLY | os.O_CREAT)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client", *arguments],
            cwd=ROOT,
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
            stdin=slave,
            stdout=stdout,
            stderr=slave,
            start_new_session=True,
        )
        if stdout != slave:
            os.close(stdout)
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        octets = b""
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while octets := octets + os.read(self._master, 65_536):
                whole = octets.decode("utf-8", "ignore")
                octets = octets[len(whole.encode()) :]
                with self._changed:
                    self.raw += whole
                    if "\x1b[6n" in whole:  # "where is the cursor?", which a terminal answers
                        self.type("\x1b[1;1R")
                    self.screen.feed(whole)
                    self._changed.notify_all()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, wanted: Callable[[list[str]], bool], seconds: float = DEADLINE) -> list[str]:
        """Waits until the lines on the screen are as wanted."""
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self.screen.text), seconds), "\n".join(self.screen.text)
            return self.screen.text

    def wait_for_line(self, part: str) -> None:
        self.wait_for(lambda lines: any(part in line for line in lines))

    def wait_for_prompt(self, text: str) -> list[str]:
        """Waits until the last line is what is asked and typed."""
        return self.wait_for(lambda lines: next((line for line in reversed(lines) if line), "") == text)

    def status(self) -> int:
        """Of the program, when it has ended and all its output is on the screen."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE)
        os.close(self._master)
