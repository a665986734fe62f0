"""Calls the student's function, in a process of its own: checker.py starts it and reads what it tells.

How it works. Standard input brings one literal: the file, the function's name, the arguments of each call, and how many
seconds all of it may take. Standard output brings back a literal a line, `(kind, …)`, as things happen:

    ("printed", text)               the student's code wrote this, to standard output or error
    ("loaded",)                     the file ran, and has the function
    ("missing",)                    the file ran, and has no such function
    ("answer", value)               a call came back, with something that literals can say
    ("odd", text)                   a call came back with something else, which looks like this
    ("raised", text, lines)         the student's code raised this; lines are (number, function, source), theirs alone
    ("stuck", lines)                the time is up, and this is where the student's code was

What the student's code prints, asks for or leaves running therefore disturbs nobody. Standard library only.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import io
import linecache
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any, TextIO

PRINTED_A_CALL = 2_000
"""Characters of what one call prints: two screens."""
PRINTED_AT_ALL = 40_000
ANSWER_LENGTH = 20_000
"""Characters of an answer as a literal; a longer one is told by its beginning."""
ODD_LENGTH = 200
LINES = 4
"""Of a traceback: the newest, as a recursion has a thousand."""

_writing = threading.Lock()


def main() -> None:
    file, function, calls, seconds = ast.literal_eval(sys.stdin.read())
    tell = Teller(_take_standard_output())
    threading.Thread(target=_watch, args=(file, seconds, tell), daemon=True).start()
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stderr = tell.printing
    try:
        exercise = _load(Path(file))
        wanted = getattr(exercise, function, None)
    except BaseException as error:  # whatever the student's code raises, SystemExit as well
        tell("raised", _text(error), _lines(error.__traceback__, file, error))
        _leave()
    tell("loaded" if callable(wanted) else "missing")
    if callable(wanted):
        for arguments in calls:
            tell.printing.begin()
            try:
                answer = wanted(*arguments)
            except BaseException as error:
                tell("raised", _text(error), _lines(error.__traceback__, file))
            else:
                tell(*_answer(answer))
    _leave()


class Teller:
    """Writes the lines that the checker reads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.printing = Printing(self)

    def __call__(self, *record: Any) -> None:
        with _writing:
            self._stream.write(ascii(record) + "\n")
            self._stream.flush()


class Printing(io.TextIOBase):
    """What the student's code has for standard output and error."""

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self._left = self._left_at_all = PRINTED_AT_ALL
        self.begin()

    def begin(self) -> None:
        """A new call."""
        self._left = min(PRINTED_A_CALL, self._left_at_all)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: self._left]
        self._left -= len(kept)
        self._left_at_all -= len(kept)
        if kept:
            self._tell("printed", kept)
        return len(text)


def _take_standard_output() -> TextIO:
    """The stream to the checker. What writes to file descriptors 1 and 2 from now on writes to nowhere."""
    stream = open(os.dup(1), "w", encoding="ascii")  # noqa: SIM115 - for as long as the process lives
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return stream


def _load(file: Path) -> ModuleType:
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _answer(value: Any) -> tuple[str, Any]:
    try:
        plain = _plain(value)
        if len(ascii(plain)) <= ANSWER_LENGTH and ast.literal_eval(repr(plain)) == plain:
            return "answer", plain
    except Exception:  # a repr that raises, a cycle, a number without end: it is told as odd
        pass
    try:
        shown = repr(value)
    except Exception:
        shown = f"<{type(value).__name__}>"
    return "odd", shown[:ODD_LENGTH]


def _plain(value: Any) -> Any:
    """In literals: records become dicts, enums their values."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(part) for part in value)
    return value


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {error}"[:ODD_LENGTH]


def _lines(trace: TracebackType | None, file: str, error: BaseException | None = None) -> list[tuple[int, str, str]]:
    """The student's own lines of a traceback, oldest first; of a file that is no Python, the line that is not."""
    if isinstance(error, SyntaxError) and error.lineno is not None and error.filename == file:
        return [(error.lineno, "", (error.text or "").strip())]
    frames = ((frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace))
    return _own(frames, file)


def _own(frames: Iterable[tuple[str, int, str]], file: str) -> list[tuple[int, str, str]]:
    own = [(line, name) for source, line, name in frames if source == file]
    return [(line, name, linecache.getline(file, line).strip()) for line, name in own[-LINES:]]


def _watch(file: str, seconds: float, tell: Teller) -> None:
    """Ends the process when the time is up."""
    threading.Event().wait(seconds)
    main_thread = threading.main_thread().ident
    frame: FrameType | None = sys._current_frames()[main_thread] if main_thread is not None else None
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    tell("stuck", _own(reversed(stack), file))
    _leave()


def _leave() -> None:
    """At once: threads that the student's code started are not waited for."""
    with _writing:
        os._exit(0)


if __name__ == "__main__":
    main()
