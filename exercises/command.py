"""The command line: the list, and `check`, `hint` and `solution` for one exercise."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from capture.events import FrameEvent
from capture.pcap import CaptureError
from capture.views.style import Paint
from exercises.checker import Student, check, frames_of
from exercises.course import Exercise, exercises, said
from exercises.progress import WORK, Progress, work_file
from exercises.results import Checked, classroom50, gradescope
from exercises.screen import Screen
from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, ROOT, python
from kit.options import Parser
from kit.output import Output
from kit.student import student
from kit.text import pad, visible, width
from kit.words import _, language_from, use_utf8

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count
WATCH_SECONDS = 0.3
"""Between two looks at a file that is watched: nobody notices, and it costs nothing."""
CAPTURE = Path("demo") / "demo.pcapng"
"""What `lab demo` leaves, in the folder it was called in."""


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except ValueError as error:  # a name or an id that is none
        parser.error(str(error))
    except CaptureError as error:
        print(f"{options.capture}: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(_("This cannot be read or written here: {reason}").format(reason=error), file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING
    except KeyboardInterrupt:
        print("\n" + _("Stopped."), file=sys.stderr)
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    desk = Desk(options)
    if options.command is None:
        return desk.show_list()
    chosen = list(exercises().values()) if getattr(options, "all", False) else [desk.chosen(options.id)]
    if options.command == "hint":
        return desk.hint(chosen[0])
    if options.command == "solution":
        return desk.solution(chosen[0], options.anyway)
    if options.watch:
        return desk.watch(chosen[0])
    checked = [desk.check(exercise) for exercise in chosen]
    for path, write in ((options.result, classroom50), (options.gradescope, gradescope)):
        if path is not None:
            content = json.dumps(write(checked, desk.student.name), indent=1, ensure_ascii=False)
            path.write_text(content + "\n", encoding="utf-8")
    return 0 if all(one.outcome.passed for one in checked) else FAILED


class Desk:
    """A student, the student's files and progress, and the terminal."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._folder: Path = options.folder
        self._progress = Progress()
        self._say = Output(sys.stdout)
        self._screen = Screen(shutil.get_terminal_size().columns, Paint.of(sys.stdout))
        self._capture, frames = _capture(options.capture)
        self.student = Student(student(options.student), frames)

    def chosen(self, name: str | None) -> Exercise:
        """By id; without one, the first that is not passed, or the last. Raises ValueError."""
        known = exercises()
        if name is not None:
            if name not in known:
                text = _("there is no exercise {name}; there are: {known}")
                raise ValueError(text.format(name=visible(name), known=", ".join(known)))
            return known[name]
        return self._next() or list(known.values())[-1]

    def _next(self) -> Exercise | None:
        return next((one for one in exercises().values() if not self._progress.state(one).is_done), None)

    def show_list(self) -> int:
        self._say(_("Exercises for {student}, and how far you are:").format(student=visible(self.student.name)) + "\n")
        columns = max(width(said(exercise.name)) for exercise in exercises().values())
        for exercise in exercises().values():
            state = self._progress.state(exercise)
            sign = "✓" if state.is_done else "·"
            score = _("{passed} of {count}").format(passed=state.passed, count=state.checks) if state.checks else ""
            file = _relative(work_file(exercise, self._folder))
            self._say(f"  {sign} {exercise.id:10} {pad(said(exercise.name), columns)}  {pad(score, 8)} {file}".rstrip())
        self._say("\n" + "\n".join(self._screen.paragraph(self._source(), "")))
        upcoming = self._next()
        if upcoming is None:
            self._say(_("All are passed."))
        else:
            file = _relative(work_file(upcoming, self._folder))
            self._say(_("Next: open {file}, do what it says, then").format(file=file))
            self._say(f"    {python()} -m exercises check {upcoming.id}")
        return 0

    def _source(self) -> str:
        """What the exercises are made of."""
        if self._capture is not None:
            return _("They are checked on your own capture, {file}.").format(file=_relative(self._capture))
        text = _(
            "There is no capture of your own yet ({command} makes one): until then the octets are made up for you."
        )
        return text.format(command=f"{python()} -m lab demo")

    def check(self, exercise: Exercise) -> Checked:
        file = work_file(exercise, self._folder)
        outcome = check(exercise, file, self.student)
        state = self._progress.state(exercise)
        passed = sum(outcome.checks.values())
        self._progress.keep(exercise, state._replace(passed=passed, checks=len(outcome.checks)))

        def lines(screen: Screen) -> Iterator[str]:
            yield screen.title(exercise, outcome)
            yield ""
            yield from screen.printed(outcome.printed)
            if outcome.failure is not None:
                yield from screen.failure(exercise, outcome.failure, state.hints, _relative(file))
            else:
                yield from screen.passed(exercise)

        self._say("\n".join(lines(self._screen)))
        if self._capture is None:
            self._say("\n" + "\n".join(self._screen.paragraph(self._source(), "")))
        plain = Screen(self._screen.columns, Paint(False))
        return Checked(exercise, outcome, "\n".join(lines(plain)))

    def watch(self, exercise: Exercise) -> int:
        """Checks each time the file is saved, until it passes."""
        file = work_file(exercise, self._folder)
        while True:
            saved = _saved(file)
            if self.check(exercise).outcome.passed:
                return 0
            text = _("Waiting for {file} to be saved; Ctrl-C ends this.").format(file=_relative(file))
            self._say("\n" + text)
            while _saved(file) in (saved, None):
                _pause()
            self._say("")

    def hint(self, exercise: Exercise) -> int:
        """One more than last time; after the last, all of them."""
        state = self._progress.state(exercise)
        number, count = state.hints + 1, len(exercise.hints)
        shown = [number] if number <= count else list(range(1, count + 1))
        for one in shown:
            heading = _("{exercise} · hint {number} of {count}").format(exercise=exercise.id, number=one, count=count)
            self._say(self._screen.paint.bold(heading))
            self._say("\n".join(self._screen.paragraph(said(exercise.hints[one - 1]))))
        self._progress.keep(exercise, state._replace(hints=min(number, count)))
        return 0

    def solution(self, exercise: Exercise, anyway: bool) -> int:
        if not anyway and not self._progress.state(exercise).is_done:
            text = _("{exercise} is not passed yet. A hint: {hint}. The solution all the same: {anyway}")
            command = f"{python()} -m exercises"
            hint, same = f"{command} hint {exercise.id}", f"{command} solution {exercise.id} --anyway"
            print(text.format(exercise=exercise.id, hint=hint, anyway=same), file=sys.stderr)
            return FAILED
        self._say("\n".join(self._screen.passed(exercise)))
        return 0


def _capture(named: Path | None) -> tuple[Path | None, list[FrameEvent]]:
    """The student's capture and its frames; None and none where there is none. Raises CaptureError for a named one."""
    if named is not None:
        frames = frames_of(named)
        if not frames:
            raise CaptureError(_("There is no HTTP/2 in it."))
        return named, frames
    for found in (Path.cwd() / CAPTURE, ROOT / CAPTURE):
        try:
            if frames := frames_of(found):
                return found, frames
        except CaptureError:  # not there, or being written, or damaged: there are other ways to make exercises
            continue
    return None, []


def _pause() -> None:
    time.sleep(WATCH_SECONDS)


def _saved(file: Path) -> tuple[int, int] | None:
    """Another value when the file was written; None while it is not there, as when an editor replaces it."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _relative(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _parser() -> Parser:
    parser = Parser(
        prog=f"{python()} -m exercises",
        description=_("Exercises: one file each, checked on what your own chat put on the wire. Alone, lists them."),
    )
    parser.set_defaults(command=None, capture=None, folder=WORK, student=None)
    subparsers = parser.add_subparsers(dest="command", metavar=_("COMMAND"))
    helps = {
        "check": _("check what you wrote"),
        "hint": _("a hint; three there are, each says more"),
        "solution": _("the solution and why, once you have passed"),
    }
    parsers = {name: subparsers.add_parser(name, help=text, description=text) for name, text in helps.items()}
    for one in parsers.values():
        one.add_argument("id", nargs="?", metavar=_("ID"), help=_("which one (default: the first not passed yet)"))
    parsers["check"].add_argument("--watch", action="store_true", help=_("check again whenever the file is saved"))
    parsers["check"].add_argument("--all", action="store_true", help=_("check all exercises"))
    parsers["check"].add_argument(
        "--result", type=Path, metavar=_("FILE"), help=_("also write the outcome as Classroom 50's result.json")
    )
    parsers["check"].add_argument(
        "--gradescope", type=Path, metavar=_("FILE"), help=_("also write the outcome as Gradescope's results.json")
    )
    parsers["solution"].add_argument("--anyway", action="store_true", help=_("show it before you have passed"))
    for one in (parser, *parsers.values()):
        one.add_argument(
            "--student",
            default=argparse.SUPPRESS,
            metavar=_("NAME"),
            help=_("whom the exercises are made for; remembered (default: your account)"),
        )
        one.add_argument(
            "--folder",
            type=Path,
            default=argparse.SUPPRESS,
            metavar=_("FOLDER"),
            help=_("where your files are (default: exercises/work)"),
        )
        one.add_argument(
            "--capture",
            type=Path,
            default=argparse.SUPPRESS,
            metavar=_("FILE"),
            help=_("your own capture (default: demo/demo.pcapng, where it is)"),
        )
    return parser
