"""Calls the student's code on the exercise's inputs and says what came of it. How that is shown: screen.py.

Each exercise brings a check.py with

    FUNCTION                    the name of the function that the student writes
    PARTS                       of its answer: name -> (first, last) octet of the input that it is read from
    checks(student)             list[Check]: inputs, each with the answer that is right
    MISTAKES                    list[Mistake]: wrong answers that have a name; the likelier first

The right answers come from an encoder of the exercise's own or from the student's capture, never from a solution. A
mistake is recognised where it explains every answer that the student's code gave, not only the wrong ones.
"""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capture.events import FrameEvent
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from exercises.course import Exercise
from kit.bootstrap import ROOT
from kit.text import shorten, visible
from kit.words import _

SECONDS = 5.0
"""For all calls of one exercise together; they take milliseconds."""
GRACE_SECONDS = 3.0
"""What the calling process gets on top to start, and to tell where the student's code is stuck."""
FRAMES = 2_000
"""Of the student's capture that are looked at: many chats' worth, checked in well under a second."""

NAME_COLUMNS = 20
"""Of a student's name, beside an input."""

WHOLE = ""
"""The name of the only part of an answer that has none."""


class Student(NamedTuple):
    """Whom an exercise is for, and what it can be made of."""

    name: str
    frames: Sequence[FrameEvent] = ()
    """Of the student's own capture; empty where there is none."""

    @property
    def origin(self) -> str:
        """Where an input comes from that was made for this student."""
        return _("made for {student}").format(student=shorten(visible(self.name), NAME_COLUMNS))

    def random(self, exercise: str) -> random.Random:
        """The same for the same student and exercise, anywhere."""
        return random.Random(f"{exercise}/{self.name}")


class Case(NamedTuple):
    """One call."""

    arguments: tuple[Any, ...]
    """Of types that literals can say."""
    expected: dict[str, Any]
    """The right answer by its parts; {WHOLE: answer} where it has none."""
    origin: str
    """Where the input comes from, in the student's language."""
    is_captured: bool = False
    """Whether it is from the student's capture as it stands."""

    @property
    def octets(self) -> bytes:
        """Of the input: the first argument that is any."""
        return next((argument for argument in self.arguments if isinstance(argument, bytes)), b"")


class Check(NamedTuple):
    name: str
    cases: list[Case]


class Mistake(NamedTuple):
    name: str
    """Its words are in the manifest."""
    answer: Callable[..., dict[str, Any]]
    """What who makes it answers to the same arguments; only the parts that the mistake is about."""
    marked: tuple[int, int] | None = None
    """First and last octet to point at; None: those of its parts."""


class Came(NamedTuple):
    """What came of a call."""

    kind: str
    """`answer`, `odd`, `raised`, `stuck`, `missing` (caller.py); `gone`: the process ended without a word; `uncalled`:
    it was over before."""
    value: Any = None
    """The answer; for `odd` and `raised` a text."""
    lines: tuple[tuple[int, str, str], ...] = ()
    """Of the student's file: number, function, source."""
    printed: str = ""


class Failure(NamedTuple):
    case: Case | None
    """None where the file failed before any call."""
    came: Came
    parts: list[str]
    """Of the answer that are wrong and are shown."""
    marked: tuple[int, int] | None
    """First and last octet of the input to point at."""
    mistake: str | None
    """The name of the mistake that explains all answers."""


class Outcome(NamedTuple):
    checks: dict[str, bool]
    """Name -> whether it was passed."""
    failure: Failure | None
    """The one that is shown."""
    printed: str
    """By the call that is shown, or by loading the file and the first call."""

    @property
    def passed(self) -> bool:
        return all(self.checks.values())


def frames_of(path: Path) -> list[FrameEvent]:
    """The first FRAMES frames of a capture. Raises CaptureError."""
    pipeline = Pipeline(sections=False)
    frames: list[FrameEvent] = []
    with open_capture(path) as packets:
        for batch in packets:
            frames += (event for event in pipeline.feed(batch) if isinstance(event, FrameEvent))
            if len(frames) >= FRAMES:
                return frames[:FRAMES]
    return (frames + [event for event in pipeline.finish() if isinstance(event, FrameEvent)])[:FRAMES]


def check(exercise: Exercise, file: Path, student: Student, seconds: float = SECONDS) -> Outcome:
    """What the student's file does on all inputs of the exercise. Raises OSError where it cannot be read."""
    file.open("rb").close()
    rules = exercise.rules()
    checks: list[Check] = rules.checks(student)
    cases = [case for one in checks for case in one.cases]
    loading, came = call(file, rules.FUNCTION, [case.arguments for case in cases], seconds)
    if not came:
        return Outcome(dict.fromkeys((one.name for one in checks), False), _unloaded(loading), loading.printed)
    answers = list(zip(cases, came, strict=True))
    wrong = [(case, what) for case, what in answers if wrong_parts(case, what)]
    failed = {id(case) for case, _what in wrong}
    passed = {one.name: not any(id(case) in failed for case in one.cases) for one in checks}
    if not wrong:
        return Outcome(passed, None, loading.printed + came[0].printed)
    failure = _explain(rules.PARTS, rules.MISTAKES, answers, wrong)
    return Outcome(passed, failure, failure.came.printed or loading.printed)


def wrong_parts(case: Case, came: Came) -> list[str]:
    """Of the answer; [WHOLE] where it has not the form that was asked for."""
    answer = parts_of(case, came)
    if answer is None:
        return [WHOLE]
    return [part for part, right in case.expected.items() if answer[part] != right]


def parts_of(case: Case, came: Came) -> dict[str, Any] | None:
    """The answer by its parts. A plain tuple or list in the right order will do as well."""
    expected, value = case.expected, came.value
    if came.kind != "answer":
        return None
    if list(expected) == [WHOLE]:
        return {WHOLE: value}
    if isinstance(value, tuple | list) and len(value) == len(expected):
        return dict(zip(expected, value, strict=True))
    return value if isinstance(value, dict) and value.keys() == expected.keys() else None


# Why


def _unloaded(loading: Came) -> Failure:
    return Failure(None, loading, [], None, None)


def _explain(
    where: dict[str, tuple[int, int]],
    mistakes: list[Mistake],
    answers: list[tuple[Case, Came]],
    wrong: list[tuple[Case, Came]],
) -> Failure:
    """The failure to show: one that is explained, on the student's own capture if possible."""
    known = [one for one in mistakes if _explains(one, answers, wrong)]
    mistake = min(known, key=lambda one: _first_part(one, answers), default=None)
    told = [
        (case, came)
        for case, came in wrong
        if came.kind != "uncalled" and (mistake is None or _shows(mistake, case, came))
    ]
    case, came = next((one for one in told if one[0].is_captured), told[0])
    parts = wrong_parts(case, came)
    if mistake is not None:
        parts = [part for part in parts if part in mistake.answer(*case.arguments)]
    elif parts != [WHOLE]:
        parts = parts[:1]
    spans = [where[part] for part in parts if part in where]
    marked = mistake.marked if mistake is not None and mistake.marked is not None else _around(spans)
    return Failure(case, came, parts, marked, mistake.name if mistake is not None else None)


def _explains(mistake: Mistake, answers: list[tuple[Case, Came]], wrong: list[tuple[Case, Came]]) -> bool:
    """Whether every answer is what the mistake gives, and some wrong ones are wrong for it."""
    for case, came in answers:
        given = parts_of(case, came)
        if given is None:
            return False
        if any(given[part] != value for part, value in mistake.answer(*case.arguments).items()):
            return False
    return any(_shows(mistake, case, came) for case, came in wrong)


def _first_part(mistake: Mistake, answers: list[tuple[Case, Came]]) -> int:
    """Its place in the answer: what comes first is put right first."""
    case = answers[0][0]
    return min(list(case.expected).index(part) for part in mistake.answer(*case.arguments))


def _shows(mistake: Mistake, case: Case, came: Came) -> bool:
    return not mistake.answer(*case.arguments).keys().isdisjoint(wrong_parts(case, came))


def _around(spans: list[tuple[int, int]]) -> tuple[int, int] | None:
    return (min(first for first, _last in spans), max(last for _first, last in spans)) if spans else None


# The process that calls


def call(file: Path, function: str, calls: list[tuple[Any, ...]], seconds: float) -> tuple[Came, list[Came]]:
    """What came of loading the file, and of each call; no calls where it could not be loaded."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "exercises.caller"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="ascii",
    )
    with process:
        try:
            said, _none = process.communicate(ascii((str(file), function, calls, seconds)), seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # stuck where Python itself cannot look up
            process.kill()
            said, _none = process.communicate()
            said += ascii(("stuck", [])) + "\n"
    return _read(said, len(calls))


def _read(said: str, calls: int) -> tuple[Came, list[Came]]:
    loading: Came | None = None
    came: list[Came] = []
    printed = ""
    for line in said.splitlines():
        kind, *rest = ast.literal_eval(line)
        if kind == "printed":
            printed += rest[0]
            continue
        value = rest[0] if kind in ("answer", "odd", "raised") else None
        lines = tuple(rest[-1]) if kind in ("raised", "stuck") else ()
        one, printed = Came(kind, value, lines, printed), ""
        if loading is None:
            loading = one
        else:
            came.append(one)
    if loading is None:
        return Came("gone", printed=printed), []
    if loading.kind != "loaded":
        return loading, []
    ended = came.pop() if came and came[-1].kind == "stuck" else Came("gone", printed=printed)
    if len(came) < calls:
        came.append(ended)
    return loading, came + [Came("uncalled")] * (calls - len(came))
