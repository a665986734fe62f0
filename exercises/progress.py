"""How far the student has got, and the files that the student works in.

Nothing that a student wrote is ever overwritten: a newer kit brings new exercises, and leaves the files that were
worked in alone. Progress is kept by the exercises' ids, outside the checkout (kit/student.py), and survives it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from exercises.course import FOLDER, Exercise
from kit.student import state_folder
from kit.words import LANGUAGES

WORK = FOLDER / "work"
"""Where students find and edit their files."""


class State(NamedTuple):
    """Of one exercise."""

    passed: int = 0
    """Checks passed when it was checked last."""
    checks: int = 0
    """Checks there were; 0 before the first time."""
    hints: int = 0
    """Hints shown."""

    @property
    def is_done(self) -> bool:
        return self.checks > 0 and self.passed == self.checks


class Progress:
    """As it was when this was made, and as it is kept from then on."""

    def __init__(self) -> None:
        self._file = state_folder() / "exercises.json"
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._states = {str(name): State(*map(int, numbers)) for name, numbers in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            # Not there yet, or damaged: checking again brings it back, and what the student wrote is not in it.
            self._states = {}

    def state(self, exercise: Exercise) -> State:
        return self._states.get(exercise.id, State())

    def keep(self, exercise: Exercise, state: State) -> None:
        """Raises OSError where it may not be written."""
        self._states[exercise.id] = state
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps(self._states, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, self._file)


def work_file(exercise: Exercise, folder: Path) -> Path:
    """The student's copy; made where it is missing, and put in the language in force where nobody has touched it yet.

    Raises OSError where it may not be written."""
    file = folder / f"{exercise.id}.py"
    wanted = exercise.file()
    try:
        there = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
    else:
        if there == wanted or there not in [exercise.file(other) for other in LANGUAGES]:
            return file
    file.write_text(wanted, encoding="utf-8")
    return file
