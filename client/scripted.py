"""The client without a terminal: sends each line of its input, and leaves when all of them came back.

What is heard goes to standard output, one line each; what goes wrong to standard error.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from client.events import Ended, Entered, Event, Heard, How
from client.lines import Style
from client.session import LEAVE_SECONDS, Session
from kit.output import Output
from kit.rules import problem_with_text, without_tabs
from kit.text import wants_colour
from kit.words import _

PATIENCE_SECONDS = 10.0
"""How long a lost server is sought."""
READ_SIZE = 65_536
"""Octets read at once, and about the most that a line may have until its end comes: far more than a text."""
READ_SECONDS = 0.5
"""What reading gets for a line that is there already when the session is refused: it counts as not confirmed."""
INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 + SIGINT, as shells count."""


def run(server: str, user: str, room: str, source: int | None, **how: Any) -> int:
    """`source` is a file descriptor; without one there is nothing to say. `how` is for the Session. Returns the exit
    status: 0, or 1 where something was refused or not confirmed."""
    out, err = Output(sys.stdout), Output(sys.stderr)
    style, error_style = Style(wants_colour(sys.stdout)), Style(wants_colour(sys.stderr))

    def tell(event: Event) -> None:
        if isinstance(event, Heard):
            out(style.line(event))
        elif (not isinstance(event, Entered) or event.again) and (line := error_style.line(event)):
            err(line)

    problems: list[str] = []

    def send() -> None:
        problem = None if source is None else _send(session, source)
        if problem is not None:
            problems.append(problem)
        session.leave()

    session = Session(server, user, room, tell=tell, patience=PATIENCE_SECONDS, **how)
    # Not waited for long: when the session ends first (refused), it may be waiting for a line that never comes.
    sending = threading.Thread(target=send, name="standard input", daemon=True)
    try:
        with _interruptible():
            session.start()
            sending.start()
            while not session.join(1):  # on Windows Ctrl-C does not end a wait, it is seen only between two
                pass
    except KeyboardInterrupt:
        session.leave(deliver=False)
        if not session.join(LEAVE_SECONDS):
            session.close()
        return INTERRUPTED
    sending.join(READ_SECONDS)
    for problem in problems:
        err(error_style.trouble(problem))
    ended = session.ended
    assert isinstance(ended, Ended)
    return int(bool(problems) or ended.how is not How.LEFT)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, where it ended the program at once before, and will again."""
    ends = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if ends:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ends:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _send(session: Session, source: int) -> str | None:
    """Sends the lines up to the first that cannot be sent. Returns what is wrong with that one."""
    for number, line in enumerate(read_lines(source), start=1):
        text = without_tabs(line)
        problem = problem_with_text(text) if text else None  # an empty line says nothing
        if problem is not None:
            return _("Line {number}: {problem}").format(number=number, problem=problem)
        if text and not session.say(text):
            return None  # the session has ended, and says why
    return None


def read_lines(source: int) -> Iterator[str]:
    """Lines of UTF-8 from a file descriptor, as they come, without their ends. Reads past the file object on purpose: a
    thread that waits in `sys.stdin` when Python ends brings it down."""
    decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
    rest = ""
    while octets := os.read(source, READ_SIZE):
        *lines, rest = (rest + decode(octets)).split("\n")
        yield from (line.removesuffix("\r") for line in lines)
        if len(rest) > READ_SIZE:
            yield rest
            rest = ""
    if rest:
        yield rest.removesuffix("\r")
