"""Takes a student through a lab, one screen at a time.

A lab is a text in each language (lab/labs/lab01.en.md; lesson.py says how it is written) and a module beside it,
lab/labs/lab01.py, which has

    RUNS      by name, functions that make traffic: each is given a path, leaves a capture there, and returns facts
              (numbers and texts) that the lesson can name
    VIEWS     by name, functions of a Run and a Screen: what the lesson shows of it, as text
    checks    a function of all runs, by name: yields a Check for each thing that must be so

How it works. The guide draws the step that it stands at, up to the first block that waits for the student (a
prediction, a run), takes one line, obeys it, and draws again. Whatever the student did is in the Attempt, so that
nothing is lost whenever it ends.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import grpc

from capture.sources.tap import TapError
from capture.views.quantities import SECOND, duration, number
from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, python
from kit.text import pad, shorten, visible, width
from kit.words import LANGUAGES, _, choose_language, language
from lab.attempt import Attempt, Check, Run, check_in_words, now, write_report
from lab.bench import BenchError
from lab.figures import Screen
from lab.lesson import (
    Beside,
    Block,
    Checks,
    Do,
    Lesson,
    Predict,
    Show,
    Step,
    Text,
    facts_named,
    fill,
    read_lesson,
    wrap,
)
from lab.terminal import Terminal, page_of

LABS = Path(__file__).parent / "labs"
CHECK_FAILED = 1
INDENT = 2
LONGEST_REASON = 300
"""Characters of why an experiment failed: grpcio can say pages."""
NATIVE_NAMES = {"en": "English", "es": "español"}


class Experiments(Protocol):
    """A lab's module."""

    RUNS: Mapping[str, Callable[[Path], Mapping[str, Any]]]
    VIEWS: Mapping[str, Callable[[Run, Screen], str]]

    def checks(self, runs: Mapping[str, Run]) -> Iterator[Check]: ...


class Lab(NamedTuple):
    number: str

    def lesson(self, wanted: str | None = None) -> Lesson:
        """None: in the language in force."""
        return read_lesson(LABS / f"lab{self.number}.{wanted or language()}.md")

    def experiments(self) -> Experiments:
        return cast(Experiments, importlib.import_module(f"lab.labs.lab{self.number}"))


class Guide:
    """Takes one student through one lab. `outputs` is where captures and the report are laid; None: nowhere."""

    def __init__(self, lab: Lab, attempt: Attempt, terminal: Terminal, who: str, outputs: Path | None) -> None:
        self._lab = lab
        self._attempt = attempt
        self._terminal = terminal
        self._who = who
        self._outputs = outputs
        self._lesson = lab.lesson()
        self._experiments = lab.experiments()
        attempt.forget_runs_that_lack(facts_named(self._lesson))
        self._results = attempt.results()
        self._at = self._place()
        self._page = 0
        """Of a step that is longer than the screen."""
        self._printed = 0
        """Lines of this step that stand above already, where the screen is not cleared."""
        self._notice = ""

    def _place(self) -> int:
        """Where the student left, but not behind a prediction or run that is missing: an update may have brought it."""
        if not self._attempt.step:
            return 0
        for at, step in enumerate(self._lesson.steps):
            if step.id == self._attempt.step or any(self._waits(block) for block in step.blocks):
                return at
        return 0

    def go(self) -> int:
        """Until the lab is finished, or left. The exit status."""
        while True:
            step = self._lesson.steps[self._at]
            self._arrive(step)
            waiting = self._draw(step)
            line = self._ask(step, waiting)
            if line is None or line == "q":
                self.leave()
                return 0
            status = self._obey(line, waiting)
            if status is not None:
                return status

    def leave(self) -> None:
        """Says how to come back."""
        command = f"{python()} -m lab run {self._lab.number}"
        text = _("Left at step {step} of {steps}; all is kept. To go on:")
        self._terminal.show(["", text.format(step=self._at + 1, steps=len(self._lesson.steps)), f"    {command}"])

    def _ask(self, step: Step, waiting: Block | _More | None) -> str | None:
        began = time.monotonic()
        try:
            line = self._terminal.ask(waiting if isinstance(waiting, Predict) else None)
        finally:
            spent = self._attempt.seconds.get(step.id, 0.0) + time.monotonic() - began
            self._attempt.seconds[step.id] = round(spent, 1)
            self._attempt.save()
        return None if line is None else line.strip().lower()

    def _obey(self, line: str, waiting: Block | _More | None) -> int | None:
        """The exit status where the lab is over."""
        if line == "l":
            self._attempt.language = choose_language(_other_language())
            self._lesson = self._lab.lesson()
            self._stand_at(self._at)
        elif line == "p":
            self._stand_at(max(self._at - 1, 0))
        elif isinstance(waiting, Predict):
            self._lock(waiting, line)
        elif line:
            self._notice = _("“{key}” does nothing here.").format(key=shorten(visible(line), 20))
        elif isinstance(waiting, _More):
            self._page += 1
        elif isinstance(waiting, Do):
            return self._do(waiting)
        elif self._at + 1 < len(self._lesson.steps):
            self._stand_at(self._at + 1)
        else:
            return 0 if all(check["holds"] for check in self._attempt.checks) else CHECK_FAILED
        return None

    def _stand_at(self, at: int) -> None:
        self._at, self._page, self._printed = at, 0, 0

    def _arrive(self, step: Step) -> None:
        self._attempt.step = step.id
        if step is self._lesson.steps[-1] and self._attempt.finished is None:
            self._attempt.checks = [check._asdict() for check in self._experiments.checks(self._results)]
            self._attempt.finished = now()

    def _lock(self, prediction: Predict, line: str) -> None:
        answer = prediction.read(line)
        if answer is None:
            text = _("Predict first: {answers}. Nobody grades it.")
            self._notice = text.format(answers=allowed(prediction))
            return
        self._attempt.predictions[prediction.name] = {
            "question": prediction.question,
            "answer": answer,
            "words": prediction.words(answer),
            "at": now(),
        }
        self._attempt.save()

    def _do(self, do: Do) -> int | None:
        self._attempt.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            facts = self._experiments.RUNS[do.run](self._attempt.capture(do.run))
        except (BenchError, TapError, OSError, grpc.RpcError) as error:
            reason = shorten(visible(str(error)), LONGEST_REASON)
            self._notice = _("The experiment failed, and Enter tries again: {reason}").format(reason=reason)
            if self._terminal.is_alone:
                print(_("The experiment failed: {reason}").format(reason=reason), file=sys.stderr)
                return ENVIRONMENT_LACKS_SOMETHING
            return None
        seconds = round(time.monotonic() - began, 2)
        self._attempt.runs[do.run] = {"facts": dict(facts), "seconds": seconds, "at": now()}
        self._attempt.save()
        self._results = self._attempt.results()
        return None

    # what is on the screen

    def _draw(self, step: Step) -> Block | _More | None:
        """Returns what waits for the student."""
        screen = self._terminal.screen
        waiting: Block | _More | None
        lines, waiting = self._lines(step, screen._replace(columns=screen.columns - INDENT))
        lines = [(" " * INDENT + line).rstrip() for line in lines]
        heading = [self._heading(step, screen), ""]
        notice = wrap(self._notice, screen.columns, screen.paint) or [""]
        self._notice = ""
        if self._terminal.clears:
            keys = wrap(self._keys(waiting), screen.columns, screen.paint)
            room = self._terminal.rows - len(heading) - len(notice) - len(keys) - 1  # for the prompt
            lines, is_more = page_of(lines, self._page, max(room, 3), screen.columns)
            if is_more:
                waiting = MORE
        else:
            heading = [] if self._printed else ["", *heading]
            self._printed, lines = len(lines), lines[self._printed :]
        keys = wrap(self._keys(waiting), screen.columns, screen.paint)
        foot = [] if self._terminal.is_alone else [*notice, *map(screen.paint.dim, keys)]
        self._terminal.show([*heading, *lines, *foot], afresh=True)
        return waiting

    def _heading(self, step: Step, screen: Screen) -> str:
        place = _("step {step} of {steps}").format(step=self._at + 1, steps=len(self._lesson.steps))
        lab = _("Lab {number}").format(number=self._lab.number)
        title = shorten(f"{lab} · {step.title}", screen.columns - width(place) - 2)
        space = " " * (screen.columns - width(title) - width(place))
        return screen.paint.bold(title) + space + screen.paint.dim(place)

    def _keys(self, waiting: Block | _More | None) -> str:
        if isinstance(waiting, Predict):
            first = _("{answers}: your prediction, locked once given").format(answers=allowed(waiting))
        elif isinstance(waiting, Do):
            first = _("Enter runs it")
        elif isinstance(waiting, _More):
            first = _("Enter shows the rest")
        elif self._at + 1 < len(self._lesson.steps):
            first = _("Enter goes on")
        else:
            first = _("Enter ends the lab")
        others = (_("p previous"), f"l {NATIVE_NAMES[_other_language()]}", _("q leave"))
        return " · ".join([first, *others])

    def _lines(self, step: Step, screen: Screen) -> tuple[list[str], Block | None]:
        """Up to the first block that waits for the student, and that block."""
        lines: list[str] = []
        for i, block in enumerate(step.blocks):
            follows_point = isinstance(block, Text) and block.is_point and isinstance(step.blocks[i - 1], Text)
            if lines and not follows_point:
                lines.append("")
            lines += self._block(block, screen)
            if self._waits(block):
                return lines, block
        return lines, None

    def _waits(self, block: Block) -> bool:
        """For the student."""
        if isinstance(block, Predict):
            return block.name not in self._attempt.predictions
        return isinstance(block, Do) and block.run not in self._attempt.runs

    def _block(self, block: Block, screen: Screen) -> list[str]:
        columns, paint = screen
        if isinstance(block, Text):
            first, rest = ("- ", "  ") if block.is_point else ("", "")
            made = wrap(fill(block.markup, self._fact), columns - width(rest), paint)
            return [(rest if i else first) + line for i, line in enumerate(made)]
        if isinstance(block, Predict):
            return self._prediction(block, screen)
        if isinstance(block, Do):
            return self._done(block, screen)
        if isinstance(block, Show):
            view = self._experiments.VIEWS[block.view]
            return view(self._results[block.run], screen).rstrip("\n").split("\n")
        if isinstance(block, Beside):
            locked = self._attempt.predictions.get(block.prediction, {}).get("answer")
            predicted = next(p for p in self._lesson.predictions() if p.name == block.prediction)
            said = "–" if locked is None else predicted.words(locked)
            return _beside({_("predicted"): said, _("happened"): fill(block.happened, self._fact)}, screen)
        if isinstance(block, Checks):
            return self._checked(screen) + self._reported(screen)
        return [" " * INDENT + fill(line, self._fact) for line in block.lines]

    def _prediction(self, prediction: Predict, screen: Screen) -> list[str]:
        lines = wrap(f"**{prediction.question}**", screen.columns, screen.paint)
        for letter, text in prediction.choices.items():
            made = wrap(text, screen.columns - 5, screen.paint)
            lines += [(f"  {letter}) " if i == 0 else "     ") + line for i, line in enumerate(made)]
        locked = self._attempt.predictions.get(prediction.name)
        if locked is not None:
            lines += ["", *wrap(_("Locked: {answer}").format(answer=prediction.words(locked["answer"])), *screen)]
        return lines

    def _done(self, do: Do, screen: Screen) -> list[str]:
        made = self._attempt.runs.get(do.run)
        if made is None:
            return []
        text = _("Done in {time}. What the tap recorded: {path}")
        return wrap(text.format(time=self._fact(f"{do.run}.seconds"), path=self._fact(f"{do.run}.path")), *screen)

    def _checked(self, screen: Screen) -> list[str]:
        lines = []
        for check in self._attempt.checks:
            first, *rest = wrap(check_in_words(check), screen.columns - INDENT, screen.paint)
            lines += [first, *[" " * INDENT + line for line in rest]]
        return lines

    def _reported(self, screen: Screen) -> list[str]:
        if self._outputs is None:
            return []
        blocks = [block for step in self._lesson.steps for block in step.blocks if isinstance(block, Beside)]
        happened = {block.prediction: fill(block.happened, self._fact) for block in blocks}
        report = self._attempt.report(self._who, self._lesson.title, happened, self._terminal.is_alone)
        return ["", *wrap(_("Your report: {file}").format(file=_shown(write_report(report, self._outputs))), *screen)]

    def _fact(self, name: str) -> str:
        """`shared.connections`, and what every run has: `shared.path`, `shared.seconds`."""
        if name == "python":
            return python()
        run, _dot, fact = name.partition(".")
        if fact == "path":
            return _shown(self._copied(run))
        if fact == "seconds":
            return duration(round(self._attempt.runs[run]["seconds"] * SECOND))
        value = self._results[run].facts[fact]
        return number(value) if isinstance(value, int) else visible(str(value))

    def _copied(self, run: str) -> Path:
        """Where the student finds the run's capture."""
        kept = self._attempt.capture(run)
        if self._outputs is None:
            return kept
        copy = self._outputs / f"lab{self._lab.number}-{run}.pcapng"
        if not copy.exists() or copy.stat().st_mtime < kept.stat().st_mtime:
            self._outputs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, copy)
        return copy


class _More:
    """In the place of the block that waits: the rest of the step is below the screen."""


MORE = _More()


def _beside(parts: Mapping[str, str], screen: Screen) -> list[str]:
    """What was predicted and what happened, one under the other, with equal weight."""
    margin = max(map(width, parts)) + 3
    lines = []
    for name, text in parts.items():
        made = wrap(text, screen.columns - margin, screen.paint)
        lines += [(pad(name, margin) if i == 0 else " " * margin) + line for i, line in enumerate(made)]
    return lines


def _shown(path: Path) -> str:
    """As people type it where they are."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _other_language() -> str:
    return next(other for other in LANGUAGES if other != language())


def allowed(prediction: Predict) -> str:
    """`a–d`, `0–99`"""
    letters = list(prediction.choices)
    return f"{letters[0]}–{letters[-1]}" if letters else f"{prediction.low}–{prediction.high}"
