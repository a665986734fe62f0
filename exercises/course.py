"""What exercises there are, in the words of both languages: manifest.toml and the files beside it.

An exercise file and its solution are Python with comments for everybody (`# …`), for one language (`# [en] …`,
`# [es] …`) and for whoever maintains it (`# [note] …`). `in_language` makes of it what a student reads, so that both
languages have the same code and cannot drift apart.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kit.words import language

FOLDER = Path(__file__).resolve().parent

Words = dict[str, str]
"""Language -> text."""

_TAGGED = re.compile(r"(?P<indent>\s*)# \[(?P<tag>[a-z]+)\](?P<text>.*)")


class MistakeWords(NamedTuple):
    """What is said to who gave a wrong answer that has a name."""

    note: Words
    """Beside the caret."""
    likely: Words
    next: Words
    clause: str
    """Where the rule stands, `RFC 9113 §4.1`."""


class Exercise(NamedTuple):
    id: str
    """For ever: progress is kept under it."""
    name: Words
    clause: str
    hints: list[Words]
    """Three: a question, a pointer, nearly the answer."""
    checks: dict[str, Words]
    """By the name that check.py gives them: what they check."""
    parts: dict[str, Words]
    """Of the answer: what the octets of each are, in a few words."""
    mistakes: dict[str, MistakeWords]
    """Wrong answers that students really give, by the name that check.py gives them."""

    def file(self, wanted: str | None = None) -> str:
        """What the student starts from."""
        return in_language((FOLDER / self.id / "exercise.py").read_text(encoding="utf-8"), wanted)

    def solution(self, wanted: str | None = None) -> str:
        return in_language((FOLDER / "solutions" / f"{self.id}.py").read_text(encoding="utf-8"), wanted)

    def rules(self) -> ModuleType:
        """Its check.py (what that has to define: checker.py)."""
        return importlib.import_module(f"exercises.{self.id}.check")


def said(words: Words) -> str:
    """In the language in force."""
    return words[language()]


def in_language(source: str, wanted: str | None = None) -> str:
    """The source as one language's students get it (None: the language in force)."""
    wanted = wanted or language()
    lines = []
    for line in source.splitlines():
        tagged = _TAGGED.fullmatch(line)
        if tagged is None:
            lines.append(line)
        elif tagged["tag"] == wanted:
            lines.append(f"{tagged['indent']}#{tagged['text']}")
    return "\n".join(lines).strip("\n") + "\n"


@cache
def exercises() -> dict[str, Exercise]:
    """By id, in the order of the course."""
    with (FOLDER / "manifest.toml").open("rb") as file:
        return {entry["id"]: _exercise(entry) for entry in tomllib.load(file)["exercise"]}


def _exercise(entry: dict[str, Any]) -> Exercise:
    mistakes = {
        name: MistakeWords(text["note"], text["likely"], text["next"], text.get("clause", entry["clause"]))
        for name, text in entry["mistakes"].items()
    }
    return Exercise(
        entry["id"], entry["name"], entry["clause"], entry["hints"], entry["checks"], entry["parts"], mistakes
    )
