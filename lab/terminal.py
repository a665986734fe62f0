"""Where a lab is shown and answered: a terminal, a pipe, or nobody."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from io import TextIOWrapper

from capture.views.style import Paint
from kit.output import Output
from kit.text import visible, width
from lab.figures import Screen
from lab.lesson import Predict

NARROWEST = 20
"""Columns below which nothing is fitted any more."""
WIDEST = 100
"""Columns of text: longer lines are hard to read."""
PROMPT = "  ▸ "


class Terminal:
    """Where a lab is shown and answered. With `answers`, by prediction, nobody is asked."""

    def __init__(self, plain: bool, answers: Mapping[str, str] | None = None) -> None:
        self._answers = answers
        self._output = Output(sys.stdout)
        self._interactive = answers is None and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self._paint = Paint(False) if plain else Paint.of(sys.stdout)
        self.is_alone = answers is not None
        self.clears = self._interactive and not plain and os.environ.get("TERM") != "dumb"
        """Each step has the screen to itself."""
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # what is typed may be anything
        if self.clears and os.name == "nt":
            os.system("")  # the console of Windows understands colours and clearing from then on

    @property
    def screen(self) -> Screen:
        columns = max(shutil.get_terminal_size().columns, NARROWEST)
        return Screen(min(columns, WIDEST), self._paint)

    @property
    def rows(self) -> int:
        return shutil.get_terminal_size().lines

    def show(self, lines: list[str], afresh: bool = False) -> None:
        if lines:
            self._output(("\x1b[2J\x1b[H" if afresh and self.clears else "") + "\n".join(lines))

    def ask(self, prediction: Predict | None) -> str | None:
        """A line; None at the end of the input."""
        if self._answers is not None:
            line = "" if prediction is None else self._answers[prediction.name]
            self.show([PROMPT + line] if line else [])
            return line
        if self._interactive:
            try:
                return input(PROMPT)
            except EOFError:
                line = ""
        else:
            line = sys.stdin.readline() if sys.stdin is not None else ""
        self.show([PROMPT + visible(line.rstrip("\r\n"))])
        return line or None


def page_of(lines: list[str], page: int, rows: int, columns: int) -> tuple[list[str], bool]:
    """The lines of one screenful, and whether there is more. A line wider than the terminal takes several rows."""
    pages: list[list[str]] = [[]]
    used = 0
    for line in lines:
        height = max(-(-width(line) // columns), 1)
        if used + height > rows:
            pages.append([])
            used = 0
        if line or pages[-1]:
            pages[-1].append(line)
            used += height
    page = min(page, len(pages) - 1)
    return pages[page], page + 1 < len(pages)
