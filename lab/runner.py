"""`python -m lab` and `python -m lab run 01`: which labs there are, and the way into one. guide.py leads through it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from capture.views.quantities import SECOND, duration
from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, python
from kit.options import MISUSE
from kit.student import student
from kit.text import pad, visible
from kit.words import _, choose_language, ngettext
from lab.attempt import Attempt, OpenElsewhere, latest, new
from lab.guide import LABS, Guide, Lab, allowed
from lab.lesson import Lesson, wrap
from lab.terminal import Terminal

WORK = Path(__file__).parent / "work"
"""Where students find their captures and reports; attempts are kept elsewhere, and these are copies."""
IN_ANOTHER_TERMINAL = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def labs() -> list[Lab]:
    return [Lab(file.name[3:5]) for file in sorted(LABS.glob("lab[0-9][0-9].en.md"))]


def list_labs() -> int:
    """`python -m lab`: what labs there are, and how far this student is."""
    print(_("Labs, and how far you are:"), end="\n\n")
    for lab in labs():
        lesson, attempt = lab.lesson(), latest(lab.number)
        ids = [step.id for step in lesson.steps]
        if attempt is None or not attempt.step:
            state = ngettext("{n} step", "{n} steps", len(ids)).format(n=len(ids))
        elif attempt.finished:
            took = duration(round(sum(attempt.seconds.values())) * SECOND)
            state = _("✓ finished in {time}").format(time=took)
        else:
            at = ids.index(attempt.step) + 1 if attempt.step in ids else 1
            state = _("at step {step} of {steps}").format(step=at, steps=len(ids))
        print(f"  {lab.number}  {pad(lesson.title, 44)}  {state}")
    print()
    print(_("Begin or go on: {command}").format(command=f"{python()} -m lab run 01"))
    print(_("What else there is: {command}").format(command=f"{python()} -m lab --help"))
    return 0


def run(options: argparse.Namespace) -> int:
    try:
        lab = _find(options.lab)
        answers = _read_answers(lab.lesson(), options.answers) if options.auto else None
        if options.answers and not options.auto:
            raise ValueError(_("--answers goes with --auto: predictions are the student's own."))
        who = student(options.student, remember=not options.auto)
        if answers is None:
            return _lead(lab, who, options)
        with tempfile.TemporaryDirectory(prefix="lab-") as folder:
            attempt = Attempt(lab.number, Path(folder))
            terminal = Terminal(plain=True, answers=answers)
            status = Guide(lab, attempt, terminal, who, options.report).go()
            if options.report is None:
                text = _("Of this run nothing is kept, nor its captures; --report FOLDER keeps them, with a report.")
                terminal.show(["", *wrap(text, *terminal.screen)])
            return status
    except ValueError as error:
        print(visible(str(error)), file=sys.stderr)
        return MISUSE
    except OSError as error:
        text = _("What you do in labs cannot be kept: {reason}")
        print(text.format(reason=visible(f"{error.strerror}: {error.filename}")), file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING


def _lead(lab: Lab, who: str, options: argparse.Namespace) -> int:
    attempt = None if options.again else latest(lab.number)
    if attempt is None:
        attempt = new(lab.number)
    if attempt.language is not None and not hasattr(options, "lang"):
        choose_language(attempt.language)
    outputs = options.report or (WORK if _writable(WORK) else attempt.folder)
    guide = Guide(lab, attempt, Terminal(options.plain), who, outputs)
    try:
        return guide.go()
    except KeyboardInterrupt:
        guide.leave()
        return INTERRUPTED
    except OpenElsewhere:
        text = _("This lab went on in another terminal, and this one ends here, so that nothing of it is lost.")
        print(text, file=sys.stderr)
        return IN_ANOTHER_TERMINAL


def _writable(folder: Path) -> bool:
    """A classroom may share one copy of the kit that nobody can write to."""
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


def _find(wanted: str) -> Lab:
    """By `01`, `1` or `lab01`. Raises ValueError."""
    digits = wanted.lower().removeprefix("lab")
    for lab in labs():
        if digits.isdecimal() and int(digits) == int(lab.number):
            return lab
    known = ", ".join(lab.number for lab in labs())
    raise ValueError(_("There is no lab {wanted}; there are: {known}").format(wanted=wanted, known=known))


def _read_answers(lesson: Lesson, text: str) -> dict[str, str]:
    """By prediction; any that is allowed where none is given. Raises ValueError."""
    predictions = {prediction.name: prediction for prediction in lesson.predictions()}
    answers = {name: prediction.any_answer() for name, prediction in predictions.items()}
    for pair in filter(None, text.split(",")):
        name, _equals, answer = (part.strip() for part in pair.partition("="))
        if name not in predictions:
            known = ", ".join(predictions)
            raise ValueError(_("There is no prediction {name}; there are: {known}").format(name=name, known=known))
        kept = predictions[name].read(answer)
        if kept is None:
            text = _("{name}: {answer} is none of {allowed}")
            raise ValueError(text.format(name=name, answer=answer, allowed=allowed(predictions[name])))
        answers[name] = kept
    return answers
