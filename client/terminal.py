"""The client in a terminal: what others say appears above the line that one is typing.

One prompt of prompt_toolkit runs from beginning to end: entering a line does not end it, so the terminal never falls
back into its own line editing, which would echo what is typed meanwhile into the middle of things. What is to be shown
is collected from whatever thread, and shown in the prompt's event loop: the prompt is taken away, the lines are
written, and the prompt is drawn again below them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import sys
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.output import DummyOutput

from client.events import Ended, Event, How
from client.failures import Refused, ServerLost
from client.lines import Style
from client.session import LEAVE_SECONDS, Session
from kit.rules import problem_with_text, without_tabs
from kit.text import visible, wants_colour, width
from kit.words import N_, _

COMMANDS = {
    "/who": N_("who is in the room now"),
    "/help": N_("this list"),
    "/quit": N_("leave (so do Ctrl-C and Ctrl-D)"),
}
LINES = 1_000
"""Lines that may wait to be shown; then the session waits, and with it the server."""
START_SECONDS = 0.05
"""Until the prompt has begun, where it is to end before."""
BOLD = 1
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def run(server: str, user: str, room: str, **how: Any) -> int:
    """The exit status: 0 when one left, 1 when the server refused. `how` is for the Session."""
    return asyncio.run(Terminal(server, user, room, **how).run())


def folded(line: str, columns: int) -> str:
    """The line with its ends between words, where it is wider than the terminal (0: of no width)."""
    if not columns or width(_COLOUR.sub("", line)) <= columns:
        return line
    lines, used = [""], 0
    for word in re.split("(?<= )", line):
        shown = _COLOUR.sub("", word)
        if used and used + width(shown.rstrip(" ")) > columns:
            lines[-1] = lines[-1].rstrip(" ")
            lines.append("")
            used = 0
        lines[-1] += word
        used += width(shown)
        if width(shown.rstrip(" ")) > columns:  # no line holds it, and the terminal cuts it
            used %= columns
    return "\n".join(lines)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0  # a pipe


class Terminal:
    def __init__(self, server: str, user: str, room: str, **how: Any) -> None:
        self._style = Style(wants_colour(sys.stdout))
        self._session = Session(server, user, room, tell=self._tell, **how)
        self._lines: queue.Queue[str] = queue.Queue(LINES)
        """From the session's thread, to be shown."""
        self._asking: set[asyncio.Task[None]] = set()
        self._prompting = True
        # prompt_toolkit would ask the terminal where the cursor is, to know how much room is left for menus. There are
        # none here, and an answer that comes after lines were written makes it push them off the screen.
        os.environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
        self._ask = self._style.paint(f"{user} · #{room} ▸ ", BOLD)
        self._prompt: PromptSession[str] = PromptSession(
            ANSI(self._ask), erase_when_done=True, interrupt_exception=EOFError
        )
        self._prompt.default_buffer.accept_handler = self._entered

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._session.start()
        with contextlib.suppress(EOFError):  # Ctrl-C, Ctrl-D, /quit, or the session has ended
            await self._prompt.prompt_async()
        self._prompting = False
        self._session.leave(deliver=False)
        # In other threads, because the session may wait for this one to show its last lines.
        if not await asyncio.to_thread(self._session.join, LEAVE_SECONDS):
            await asyncio.to_thread(self._session.close)
        self._show()
        ended = self._session.ended
        return int(ended is None or ended.how is not How.LEFT)

    # What is entered. Each runs in the event loop and waits for nothing.

    def _entered(self, buffer: Buffer) -> bool:
        """Several lines when they were pasted. Empties the buffer: what was said appears when it comes back from the
        server, in its place in the room's order."""
        for line in buffer.text.splitlines():
            self._obey(without_tabs(line))
        return False

    def _obey(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            self._command(line.split()[0].lower())
            return
        text = line[1:] if line.startswith("//") else line
        if not text.strip():
            return
        problem = problem_with_text(text)
        if problem is not None:
            self._show(self._style.trouble(problem))
        elif not self._session.say(text, wait=False):
            self._show(self._style.trouble(_("Not sent: too much waits for the server already.")))
        elif not self._session.inside:
            self._show(self._style.remark(_("Kept until the server is back: {text}").format(text=visible(text))))

    def _command(self, command: str) -> None:
        if command == "/quit":
            self._end_prompt()
        elif command == "/who":
            asking = self._loop.create_task(self._who())
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        elif command == "/help":
            for name, text in COMMANDS.items():
                self._show(self._style.remark(f"{name:6} {_(text)}"))
            self._show(self._style.remark(_("//text says /text; anything else is said to the room")))
        else:
            problem = _("There is no command {command}; /help lists those that there are.")
            self._show(self._style.trouble(problem.format(command=visible(command))))

    async def _who(self) -> None:
        try:
            members = await asyncio.to_thread(self._session.who)
        except (ServerLost, Refused) as problem:
            self._show(self._style.trouble(str(problem)))
        else:
            text = _("In #{room} now: {members}")
            names = ", ".join(map(visible, members)) or _("nobody")
            self._show(self._style.remark(text.format(room=self._session.room, members=names)))

    def _end_prompt(self) -> None:
        application = get_app_or_none()
        if not self._prompting or (application and application.future and application.future.done()):
            return
        if application is None or application.future is None:  # it has not begun yet
            self._loop.call_later(START_SECONDS, self._end_prompt)
        else:
            application.exit(exception=EOFError)

    # What is shown

    def _tell(self, event: Event) -> None:
        """In the session's thread."""
        if line := self._style.line(event):
            self._lines.put(line)
        self._loop.call_soon_threadsafe(self._show)
        if isinstance(event, Ended):
            self._loop.call_soon_threadsafe(self._end_prompt)

    def _show(self, *lines: str) -> None:
        """After those that wait. In the event loop."""
        waiting = [self._lines.get_nowait() for _number in range(self._lines.qsize())]
        text = "".join(f"{line}\n" for line in (*waiting, *lines))
        if not text:
            return
        application = get_app_or_none()
        if not isinstance(self._prompt.output, DummyOutput):
            text = "".join(folded(line, _columns()) + "\n" for line in text.splitlines())
        if application is None or not application.is_running:
            print(text, end="", flush=True)
        elif isinstance(application.output, DummyOutput):  # TERM=dumb: nothing can be taken away again
            print(f"\n{text}{self._ask}{self._prompt.default_buffer.text}", end="", flush=True)
        else:
            application.renderer.erase()
            application.output.write_raw(text.replace("\n", "\r\n"))
            application.output.flush()
            application.invalidate()
