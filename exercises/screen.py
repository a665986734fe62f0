"""How it looks: a failure in at most eight lines, the solution after passing. Makes lines, prints nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from capture.views.style import BLUISH_GREEN, VERMILLION, Paint
from exercises.checker import WHOLE, Came, Case, Failure, Outcome, parts_of
from exercises.course import Exercise, said
from kit.bootstrap import python
from kit.text import shorten, visible, width
from kit.words import N_, _, ngettext

COLUMNS = 100
"""At most: longer lines are hard to read."""
PRINTED_LINES = 6
"""Of what the student's code printed."""
VALUE_LENGTH = 40
ERROR_LINES = 2
"""Of what the student's code raised."""
OCTETS_SHOWN = 16
"""In a line of the hexdump, and in a call."""
OCTETS_CALLED = 10
"""In a call, of an input that is longer: enough to know it by."""
HEXDUMP_INDENT = 6

CALLED, ANSWERED, RAISED, SILENT = N_("Called with"), N_("You answered"), N_("It raised"), N_("No answer")
CAPTURED, RIGHT, LIKELY, NEXT = N_("The capture says"), N_("It should be"), N_("Likely"), N_("Next")
LABELS = (CALLED, ANSWERED, RAISED, SILENT, CAPTURED, RIGHT, LIKELY, NEXT)


class Screen:
    def __init__(self, columns: int, paint: Paint) -> None:
        self.columns = min(columns, COLUMNS)
        self.paint = paint
        self._label_width = max(width(_(label)) for label in LABELS)

    @property
    def _text_width(self) -> int:
        return max(self.columns - self._label_width - 4, 20)

    def title(self, exercise: Exercise, outcome: Outcome) -> str:
        passed, checks = sum(outcome.checks.values()), len(outcome.checks)
        text = ngettext("{passed} of {count} check passed", "{passed} of {count} checks passed", checks)
        score = text.format(passed=passed, count=checks)
        name = f"{exercise.id} · {said(exercise.name)}"
        sign = self.paint.foreground("✓", BLUISH_GREEN) if outcome.passed else self.paint.foreground("✗", VERMILLION)
        gap = max(self.columns - width(name) - width(score) - 2, 2)
        return f"{sign} {self.paint.bold(name)}{' ' * gap}{score}"

    def printed(self, text: str) -> Iterator[str]:
        """What the student's code printed, if anything."""
        lines = text.splitlines()
        if not lines:
            return
        yield "  " + _("Your code printed:")
        for line in lines[:PRINTED_LINES]:
            yield "    " + self.paint.dim(shorten(visible(line.expandtabs()), self.columns - 4))
        if len(lines) > PRINTED_LINES:
            left = len(lines) - PRINTED_LINES
            text = ngettext("… and {count} more line", "… and {count} more lines", left)
            yield "    " + text.format(count=left)

    def failure(self, exercise: Exercise, failure: Failure, hints: int, file: str) -> Iterator[str]:
        """What was called, what came, what is right, where to look, why, what next. `hints` were shown already."""
        case, came = failure.case, failure.came
        words = exercise.mistakes[failure.mistake] if failure.mistake is not None else None
        if came.kind == "missing":
            text = _("there is no function {name} in the file any more")
            yield from self._row(SILENT, text.format(name=exercise.rules().FUNCTION), alarm=True)
        elif case is not None:
            yield from self._called(case, came, failure.parts)
            yield from self._octets(exercise, failure, said(words.note) if words is not None else None)
        else:
            yield from self._came(None, came, [])
        likely = said(words.likely) if words is not None else _likely(came)
        if likely:
            yield from self._row(LIKELY, likely)
        if words is not None:
            yield from self._row(NEXT, f"{said(words.next)} ({words.clause})")
        elif came.kind == "missing":
            text = _("put it back; or delete {file}, and this command makes it anew")
            yield from self._row(NEXT, text.format(file=file))
        elif case is not None:
            yield from self._row(NEXT, _("read {clause} and check again").format(clause=exercise.clause))
        else:
            yield from self._row(NEXT, _("mend {file} and check again").format(file=file))
        if hints < len(exercise.hints):
            text = _("hint {number} of {count}: {command}")
            command = f"{python()} -m exercises hint {exercise.id}"
            yield from self._row(None, text.format(number=hints + 1, count=len(exercise.hints), command=command))

    def passed(self, exercise: Exercise) -> Iterator[str]:
        """The solution, which says why."""
        yield "  " + _("One way to write it, and why:")
        yield ""
        yield from textwrap.indent(exercise.solution(), "    ").splitlines()

    def paragraph(self, text: str, indent: str = "  ") -> list[str]:
        return textwrap.wrap(text, self.columns, initial_indent=indent, subsequent_indent=indent)

    # -- the parts of a failure ------------------------------------------------------------------------------------

    def _called(self, case: Case, came: Came, parts: list[str]) -> Iterator[str]:
        call = ", ".join(map(_shown, case.arguments))
        right = _values(case.expected, parts)
        origin = f"  ({case.origin})"
        is_roomy = width(call + origin) <= self._text_width
        yield from self._row(CALLED, call + (origin if is_roomy else ""))
        yield from self._came(case, came, parts)
        yield from self._row(CAPTURED if case.is_captured else RIGHT, right + ("" if is_roomy else origin))

    def _came(self, case: Case | None, came: Came, parts: list[str]) -> Iterator[str]:
        answer = parts_of(case, came) if case is not None else None
        if answer is not None:
            yield from self._row(ANSWERED, _values(answer, parts), alarm=True)
        elif came.kind in ("answer", "odd"):
            value = came.value if came.kind == "odd" else repr(came.value)
            yield from self._row(ANSWERED, shorten(visible(value), self._text_width), alarm=True)
        elif came.kind == "raised":
            yield from self._row(RAISED, shorten(visible(came.value), ERROR_LINES * self._text_width), alarm=True)
            yield from self._lines(came)
        elif came.kind == "stuck":
            yield from self._row(SILENT, _("the time was up before your code came back"), alarm=True)
            yield from self._lines(came)
        else:
            yield from self._row(SILENT, _("your code ended Python itself"), alarm=True)

    def _lines(self, came: Came) -> Iterator[str]:
        """The student's own line where it happened."""
        if came.lines:
            number, _function, source = came.lines[-1]
            text = _("line {number}:  {source}").format(number=number, source=visible(source))
            yield from self._row(None, shorten(text, self._text_width))

    def _octets(self, exercise: Exercise, failure: Failure, note: str | None) -> Iterator[str]:
        """The hexdump, and a caret under what matters."""
        if failure.case is None or failure.marked is None:
            return
        octets, (first, last) = failure.case.octets, failure.marked
        start = max(0, min(first - OCTETS_SHOWN // 4, len(octets) - OCTETS_SHOWN))
        shown = octets[start : start + OCTETS_SHOWN]
        indent = " " * HEXDUMP_INDENT
        before = f"{start:04x}: " if start else ""
        yield f"{indent}{before}{shown.hex(' ')}"
        caret = "^" * (3 * (min(last, start + OCTETS_SHOWN - 1) - first) + 2)
        note = note or said(exercise.parts[failure.parts[0]])
        text_indent = " " * (HEXDUMP_INDENT + len(before) + 3 * (first - start))
        for i, line in enumerate(textwrap.wrap(note, max(self.columns - len(text_indent + caret) - 1, 20))):
            yield f"{text_indent}{self.paint.alarm(caret) if i == 0 else ' ' * len(caret)} {line}"

    def _row(self, label: str | None, text: str, *, alarm: bool = False) -> Iterator[str]:
        first = _(label) if label is not None else ""
        for line in textwrap.wrap(text.replace("RFC ", "RFC\xa0").replace(" §", "\xa0§"), self._text_width) or [""]:
            line = line.replace("\xa0", " ")  # held a clause together
            yield f"  {first}{' ' * (self._label_width - width(first))}  {self.paint.alarm(line) if alarm else line}"
            first = ""


def _likely(came: Came) -> str:
    if came.kind == "stuck":
        return _("a loop that does not end")
    if came.kind == "answer" and came.value is None:
        return _("the function ends without a return")
    return ""


def _values(answer: dict[str, Any], parts: Iterable[str]) -> str:
    wanted = list(parts)
    if wanted == [WHOLE] and WHOLE not in answer:  # the answer has not the form that was asked for
        wanted = list(answer)
    return ", ".join(f"{part} = {_value(answer[part])}" if part else _value(answer[part]) for part in wanted)


def _value(value: Any) -> str:
    return shorten(visible(repr(value)), VALUE_LENGTH)


def _shown(argument: Any) -> str:
    """An argument of the call: octets in hex."""
    if not isinstance(argument, bytes):
        return _value(argument)
    if len(argument) <= OCTETS_SHOWN:
        return argument.hex(" ")
    text = ngettext("{octets} … ({count} octet)", "{octets} … ({count} octets)", len(argument))
    return text.format(octets=argument[:OCTETS_CALLED].hex(" "), count=len(argument))
