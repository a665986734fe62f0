"""What a student did in a lab: kept outside the checkout, and reported.

An Attempt is a folder with attempt.json, written after every answer, and the captures of its runs. Whoever leaves, or
is thrown out, comes back to the same step, also after an update of the kit. Beginning again makes another attempt
beside it: what was predicted once is never changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from capture import Capture, read
from kit.student import as_file_name, state_folder
from kit.text import pad, width
from kit.words import _, language

_NOT_KEPT = {"_lab", "_kept", "folder"}
REPORT_VERSION = 1
"""Of the .json report; programs that collect reports look at it."""


class Check(NamedTuple):
    """Something that a lab found out about its runs."""

    says: str
    """A sentence that is true if it holds."""
    holds: bool
    found: str
    """What was there, and what was needed: shown where it does not hold."""


class Run:
    """An experiment that was made: its facts, and what its capture holds."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.facts = facts

    @cached_property
    def seen(self) -> Capture:
        return read(self.path)


class OpenElsewhere(Exception):
    """The same attempt went on in another terminal since it was read."""


class Attempt:
    def __init__(self, lab: str, folder: Path) -> None:
        self._lab = lab
        self._kept: str | None = None
        """The file as this program read or wrote it last; None: there was none."""
        self.folder = folder
        self.step = ""
        """The id of the step on the screen; empty before the first."""
        self.language: str | None = None
        """The language that was switched to inside the lab."""
        self.predictions: dict[str, dict[str, str]] = {}
        """Name -> `question`, `answer`, `words` (what the answer says), and when it was locked (`at`)."""
        self.runs: dict[str, dict[str, Any]] = {}
        """Name -> `facts`, `seconds`, and when it ended (`at`)."""
        self.seconds: dict[str, float] = {}
        """Step id -> how long it was on the screen."""
        self.checks: list[dict[str, Any]] = []
        """As `Check`, of a lab that was finished."""
        self.started = now()
        self.finished: str | None = None

    def save(self) -> None:
        """All of it or nothing: a full disk or a power cut leaves what was there before.

        Raises OpenElsewhere rather than write over what another program has kept meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, unfinished = self.folder / "attempt.json", self.folder / "attempt.json.new"
        if (file.read_text(encoding="utf-8") if file.exists() else None) != self._kept:
            raise OpenElsewhere
        content = {name: value for name, value in vars(self).items() if name not in _NOT_KEPT}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, file)
        self._kept = text

    def load(self) -> None:
        """Raises OSError or ValueError where it cannot be read. What another version of the kit did not write stays
        as it is in a new attempt."""
        text = (self.folder / "attempt.json").read_text(encoding="utf-8")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no object")
        self._kept = text
        for name, value in vars(self).copy().items():
            if name in content and name not in _NOT_KEPT:
                if value is not None and not isinstance(content[name], type(value)):
                    raise ValueError(f"{name} is no {type(value).__name__}")
                setattr(self, name, content[name])

    def capture(self, run: str) -> Path:
        return self.folder / f"{run}.pcapng"

    def results(self) -> dict[str, Run]:
        return {name: Run(self.capture(name), run["facts"]) for name, run in self.runs.items()}

    def forget_runs_that_lack(self, facts: Mapping[str, set[str]]) -> None:
        """After an update: a run without its capture, or without a fact that the lesson names now, is made anew."""
        for name, run in list(self.runs.items()):
            if not self.capture(name).exists() or not facts.get(name, set()) <= run["facts"].keys():
                del self.runs[name]
                self.finished = None

    def report(self, student: str, title: str, happened: Mapping[str, str], automatic: bool) -> dict[str, Any]:
        """What a later command can collect from every student. `happened` is by prediction."""
        predictions = {
            name: {**prediction, "happened": happened.get(name, "")} for name, prediction in self.predictions.items()
        }
        return {
            "report": REPORT_VERSION,
            "lab": self._lab,
            "title": title,
            "student": student,
            "automatic": automatic,
            "attempt": self.folder.name,
            "language": language(),
            "started": self.started,
            "finished": self.finished,
            "predictions": predictions,
            "checks": self.checks,
            "facts": {name: run["facts"] for name, run in self.runs.items()},
            "seconds": self.seconds,
        }


def attempts(lab: str) -> Path:
    return state_folder() / "labs" / lab


def latest(lab: str) -> Attempt | None:
    """The attempt to go on with; None where there is none, or none that can be read."""
    numbers = [int(folder.name) for folder in attempts(lab).glob("[0-9]*") if folder.name.isdigit()]
    if not numbers:
        return None
    attempt = Attempt(lab, attempts(lab) / str(max(numbers)))
    try:
        attempt.load()
    except (OSError, ValueError):
        return None
    return attempt


def new(lab: str) -> Attempt:
    free = next(number for number in count(1) if not (attempts(lab) / str(number)).exists())
    return Attempt(lab, attempts(lab) / str(free))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """As .json and .txt, named after lab and student. The .txt's path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"lab{report['lab']}-{as_file_name(report['student'])}.txt"
    file.with_suffix(".json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    file.write_text(report_in_words(report), encoding="utf-8")
    return file


def report_in_words(report: dict[str, Any]) -> str:
    """In the language in force."""
    lines = [_("Lab {number}").format(number=report["lab"]) + f" · {report['title']} · {report['student']}", ""]
    if report["automatic"]:
        lines += [_("Run automatically: the predictions are nobody's."), ""]
    for prediction in report["predictions"].values():
        told = {_("predicted"): prediction["words"], _("happened"): prediction["happened"]}
        longest = max(map(width, told))
        lines += [prediction["question"], *[f"  {pad(name, longest)}  {said}" for name, said in told.items()], ""]
    return "\n".join([*lines, *[check_in_words(check) for check in report["checks"]]]) + "\n"


def check_in_words(check: Mapping[str, Any]) -> str:
    return f"✓ {check['says']}" if check["holds"] else f"✗ {check['says']} ({check['found']})"
