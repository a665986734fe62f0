"""Lines that are typed while a table is shown: a prompt that stays below it, or just lines, from a pipe."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

Obey = Callable[[str], str]
"""A line -> what is to be said about it."""


@contextlib.contextmanager
def lines_obeyed(obey: Obey, prompt: str, is_table: bool) -> Iterator[None]:
    """While the body runs, lines of standard input are obeyed. What is printed meanwhile stays above the prompt; output
    has to be opened inside, and only in a terminal, and with `is_table`, is there a prompt."""
    if sys.stdin is None or sys.stdin.closed:
        yield
    elif is_table and sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty():
        with _prompted(obey, prompt):
            yield
    else:
        # Whoever waits in a read cannot be called back: the thread ends with the input, or with the program.
        threading.Thread(target=_read, args=(obey,), name="console", daemon=True).start()
        yield


def say(text: str) -> None:
    if text:
        print(text, file=sys.stderr, flush=True)


def _read(obey: Obey) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard input is gone
        for line in sys.stdin:
            say(obey(line))


@contextlib.contextmanager
def _prompted(obey: Obey, prompt: str) -> Iterator[None]:
    # Loaded here: only a terminal needs it.
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    # It would ask the terminal where the cursor is, to make room for menus. There are none.
    os.environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
    session: PromptSession[str] = PromptSession(prompt)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                line = session.prompt(handle_sigint=False, pre_run=end_if_over)
            except EOFError:  # Ctrl-D: no more lines, and the table goes on; or it is over
                return
            except KeyboardInterrupt:  # the terminal is raw: Ctrl-C comes as a key
                _thread.interrupt_main()
                return
            say(obey(line))

    def end_if_over() -> None:
        if over.is_set():
            session.app.exit(exception=EOFError)

    def end_prompt() -> None:
        if session.app.future is not None and not session.app.future.done():
            session.app.exit(exception=EOFError)

    def end() -> None:
        over.set()
        if (loop := session.app.loop) is not None:
            with contextlib.suppress(RuntimeError):  # the prompt has just ended by itself
                loop.call_soon_threadsafe(end_prompt)

    with patch_stdout(raw=True):
        asking = threading.Thread(target=ask, name="console", daemon=True)
        asking.start()
        try:
            yield
        finally:
            end()
            asking.join()
