"""The client in a terminal: what others say appears above the line that one is typing.

prompt_toolkit draws the line being typed; `patch_stdout` takes what is printed meanwhile, by whatever thread, clears
that line, prints, and draws it again. All prompts share one event loop: a line that arrives in the moment in which one
prompt ends and the next has not begun is printed all the same.
"""

from __future__ import annotations

import asyncio
import sys

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.patch_stdout import patch_stdout

from client.events import Ended, Event, How
from client.failures import Refused, ServerLost
from client.lines import Style
from client.session import LEAVE_SECONDS, Session
from kit.rules import problem_with_text, without_tabs
from kit.text import visible, wants_colour
from kit.words import N_, _

COMMANDS = {
    "/who": N_("who is in the room now"),
    "/help": N_("this list"),
    "/quit": N_("leave (so do Ctrl-C and Ctrl-D)"),
}


def run(server: str, user: str, room: str) -> int:
    """The exit status: 0 when one left, 1 when the server refused."""
    return asyncio.run(Terminal(server, user, room).run())


class Terminal:
    def __init__(self, server: str, user: str, room: str) -> None:
        self._style = Style(wants_colour(sys.stdout))
        self._session = Session(server, user, room, tell=self._tell)
        self._prompt: PromptSession[str] = PromptSession(
            ANSI(self._style.paint(f"{user} · #{room} ▸ ", 1)),
            erase_when_done=True,  # what was typed appears when it comes back, in its place in the room's order
            interrupt_exception=EOFError,
        )

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        with patch_stdout(raw=True):
            self._session.start()
            await self._read()
            self._session.leave(deliver=False)
            if not await asyncio.to_thread(self._session.join, LEAVE_SECONDS):
                await asyncio.to_thread(self._session.close)
        ended = self._session.ended
        return int(ended is None or ended.how is not How.LEFT)

    async def _read(self) -> None:
        """Until one leaves or the session ends."""
        over = asyncio.ensure_future(self._over.wait())
        while not over.done():
            typing = asyncio.ensure_future(self._prompt.prompt_async())
            await asyncio.wait((typing, over), return_when=asyncio.FIRST_COMPLETED)
            if not typing.done():
                self._prompt.app.exit(exception=EOFError)
            try:
                line = await typing
            except EOFError:
                break
            if not await self._obey(line):
                break
        over.cancel()

    async def _obey(self, line: str) -> bool:
        """Whether to go on."""
        text = without_tabs(line)
        if text.startswith("/") and not text.startswith("//"):
            return await self._command(text.split()[0].lower())
        text = text[1:] if text.startswith("//") else text
        if not text.strip():
            return True
        problem = problem_with_text(text)
        if problem is not None:
            self._show(self._style.trouble(problem))
        elif not self._session.say(text, wait=False):
            self._show(self._style.trouble(_("Not sent: too much waits for the server already.")))
        elif not self._session.inside:
            self._show(self._style.remark(_("Kept until the server is back: {text}").format(text=visible(text))))
        return True

    async def _command(self, command: str) -> bool:
        if command == "/quit":
            return False
        if command == "/who":
            await self._who()
        elif command == "/help":
            for name, help_text in COMMANDS.items():
                self._show(self._style.remark(f"{name:6} {_(help_text)}"))
            self._show(self._style.remark(_("//text says /text; anything else is said to the room")))
        else:
            text = _("There is no command {command}; /help lists those that there are.")
            self._show(self._style.trouble(text.format(command=visible(command))))
        return True

    async def _who(self) -> None:
        try:
            members = await asyncio.to_thread(self._session.who)
        except (ServerLost, Refused) as problem:
            self._show(self._style.trouble(str(problem)))
            return
        text = _("In #{room} now: {members}")
        names = ", ".join(map(visible, members)) or _("nobody")
        self._show(self._style.remark(text.format(room=self._session.room, members=names)))

    def _tell(self, event: Event) -> None:
        """In the session's thread."""
        if line := self._style.line(event):
            self._show(line)
        if isinstance(event, Ended):
            self._loop.call_soon_threadsafe(self._over.set)

    @staticmethod
    def _show(line: str) -> None:
        print(line, flush=True)
