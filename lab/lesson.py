"""The text of a lab: Markdown, one file a language, read into steps of one screen that are made of blocks.

    # Layers, preface, SETTINGS                the lab's title
    ## How many connections? {#connections}    a step; its id is the same in every language
    A paragraph with `code` and **stress**.
    - a point, after others or after a blank line

Between fences stands what is shown as it is, or, where the first fence carries one of these words, what the runner
does:

    ```predict connections 0-99     a number in this range is asked for; the lines are the question
    ```predict octets               one of the choices is: lines that begin with `a) `, `b) `, …
    ```run shared                   the lab's experiment of this name, once the student says so; what follows it in
                                    the step is hidden until then, as is what follows a prediction
    ```show shared.settings         what the lab's view of this name makes of that run
    ```beside connections           what was predicted, beside what happened: the line
    ```checks                       what the lab checked, and whether it held

`{shared.connections}` anywhere in a text is a fact of a run; `{shared.path}` is where its capture lies,
`{shared.seconds}` how long it took, and `{python}` what people type to start Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from capture.views.style import ORANGE, Paint
from kit.text import width


class Text(NamedTuple):
    """A paragraph or a point."""

    markup: str
    is_point: bool


class Verbatim(NamedTuple):
    lines: tuple[str, ...]


class Predict(NamedTuple):
    name: str
    question: str
    choices: Mapping[str, str]
    """By letter; empty where a number is asked for."""
    low: int
    high: int

    def read(self, answer: str) -> str | None:
        """The answer as it is kept: a letter, or a number in its shortest form. None where it is none."""
        answer = answer.strip().lower().rstrip(").")
        if self.choices:
            return answer if answer in self.choices else None
        if not (answer.isascii() and answer.isdigit() and len(answer) <= 9):
            return None
        return str(int(answer)) if self.low <= int(answer) <= self.high else None

    def any_answer(self) -> str:
        """For runs without a student."""
        return next(iter(self.choices), str(self.low))

    def words(self, answer: str) -> str:
        """What a kept answer says."""
        return f"{answer}) {self.choices[answer]}" if answer in self.choices else answer


class Do(NamedTuple):
    run: str


class Show(NamedTuple):
    run: str
    view: str


class Beside(NamedTuple):
    prediction: str
    happened: str


class Checks(NamedTuple):
    pass


Block = Text | Verbatim | Predict | Do | Show | Beside | Checks


class Step(NamedTuple):
    id: str
    title: str
    blocks: tuple[Block, ...]


class Lesson(NamedTuple):
    title: str
    steps: tuple[Step, ...]

    def predictions(self) -> Iterator[Predict]:
        return (block for step in self.steps for block in step.blocks if isinstance(block, Predict))


class LessonError(ValueError):
    """A lesson's text is wrong: the author's mistake, with the file and the place."""


_HEADING = re.compile(r"## (?P<title>.+?) \{#(?P<id>[a-z0-9-]+)\}")
_CHOICE = re.compile(r"(?P<letter>[a-f])\) (?P<text>.+)")
_RANGE = re.compile(r"(?P<name>[a-z]+)(?: (?P<low>\d+)-(?P<high>\d+))?")


def read_lesson(file: Path) -> Lesson:
    """Raises LessonError; OSError where there is no such file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("## ")]
    if not starts or not lines[0].startswith("# ") or any(line.strip() for line in lines[1 : starts[0]]):
        raise LessonError(f"{file.name}:1: a lesson begins with `# ` and its title, and goes on with its first step")
    steps = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        heading = _HEADING.fullmatch(lines[start])
        if heading is None:
            raise LessonError(f"{file.name}:{start + 1}: a step's heading ends with its id: ## Title {{#id}}")
        try:
            blocks = tuple(_blocks(lines[start + 1 : end]))
        except ValueError as error:
            raise LessonError(f"{file.name}: in step {heading['id']}: {error}") from None
        steps.append(Step(heading["id"], heading["title"], blocks))
    return Lesson(lines[0].removeprefix("# "), tuple(steps))


def _blocks(lines: list[str]) -> Iterator[Block]:
    if sum(line.startswith("```") for line in lines) % 2:
        raise ValueError("a fence is not closed")
    rest = iter([*lines, ""])
    paragraph: list[str] = []
    for line in rest:
        if paragraph and (not line.strip() or line.startswith(("- ", "```"))):
            text = " ".join(paragraph)
            yield Text(text.removeprefix("- "), text.startswith("- "))
            paragraph = []
        if line.startswith("```"):
            inside = list(takewhile(lambda line: line != "```", rest))
            yield _fenced(line.removeprefix("```").strip(), inside)
        elif line.strip():
            paragraph.append(line.strip())


def _fenced(words: str, lines: list[str]) -> Block:
    kind, _space, rest = words.partition(" ")
    text = " ".join(line.strip() for line in lines if line.strip())
    if kind == "predict":
        asked = _RANGE.fullmatch(rest)
        if asked is None:
            raise ValueError("predict takes a name, and a range for a number: predict octets, predict connections 0-99")
        choices = {choice["letter"]: choice["text"] for line in lines if (choice := _CHOICE.fullmatch(line))}
        question = " ".join(line.strip() for line in lines if not _CHOICE.fullmatch(line))
        if not question or bool(choices) == bool(asked["low"]):
            raise ValueError("a prediction has a question, and either choices or a range")
        return Predict(asked["name"], question, choices, int(asked["low"] or 0), int(asked["high"] or 0))
    if kind == "run":
        return Do(rest)
    if kind == "show":
        run, _dot, view = rest.partition(".")
        return Show(run, view)
    if kind == "beside":
        return Beside(rest, text)
    if kind == "checks":
        return Checks()
    return Verbatim(tuple(lines))


# --- on a screen


OF_EVERY_RUN = ("path", "seconds")
_FACT = re.compile(r"\{([a-z]+(?:\.[a-z_]+)?)\}")
_CLAUSE = re.compile(r"RFC \d+( §[\d.]*\d)?")
"""What a line must not end within."""
_MARKUP = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def facts_named(lesson: Lesson) -> dict[str, set[str]]:
    """Run -> the facts of it that the lesson's texts name."""
    named: dict[str, set[str]] = {}
    for run, _dot, fact in (name.partition(".") for name in _FACT.findall(str(lesson))):
        if fact and fact not in OF_EVERY_RUN:
            named.setdefault(run, set()).add(fact)
    return named


def fill(text: str, fact: Callable[[str], str]) -> str:
    """With each `{run.fact}` replaced by what `fact` says of it."""
    return _FACT.sub(lambda match: fact(match[1]), text)


def wrap(markup: str, columns: int, paint: Paint) -> list[str]:
    """Lines of at most so many columns (a longer word stands alone). Without colour, code keeps its backquotes and
    stress is lost."""
    lines: list[str] = []
    line, used = "", 0
    together = _CLAUSE.sub(lambda clause: clause[0].replace(" ", "\N{NO-BREAK SPACE}"), markup)
    for word, shown in _words(together, paint):
        if used and used + 1 + width(word) > columns:
            lines.append(line)
            line, used = shown, width(word)
        else:
            line, used = (f"{line} {shown}", used + 1 + width(word)) if used else (shown, width(word))
    return [*lines, line] if used else lines


def _words(markup: str, paint: Paint) -> Iterator[tuple[str, str]]:
    """Words as they are measured, and as they are shown."""
    measured, shown, at = "", "", 0
    pieces: list[tuple[str, Callable[[str], str] | None]] = []
    for match in _MARKUP.finditer(markup):
        pieces.append((markup[at : match.start()], None))
        if match[1] is not None:
            pieces.append((match[1], _code(paint)) if paint.colour else (match[0], None))
        else:
            pieces.append((match[2], paint.bold))
        at = match.end()
    pieces.append((markup[at:], None))
    for text, style in pieces:
        for i, part in enumerate(text.split(" ")):
            if i and measured:
                yield measured, shown
                measured = shown = ""
            measured += part
            shown += style(part) if style and part else part
    if measured:
        yield measured, shown


def _code(paint: Paint) -> Callable[[str], str]:
    return lambda text: paint.foreground(text, ORANGE)
