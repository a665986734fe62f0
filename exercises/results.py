"""What came of the checks, for whoever collects it: one test for each check.

Formats: Classroom 50's result.json (its wiki, "Advanced Autograding": The result.json contract) and Gradescope's
results.json (its autograder documentation, "Output format").
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from exercises.checker import Outcome
from exercises.course import Exercise, said

_FROM_RUNNER = {
    "classroom": "CLASSROOM",
    "assignment": "ASSIGNMENT",
    "submission": "SUBMISSION_TAG",
    "commit": "COMMIT_URL",
    "release": "RELEASE_URL",
    "review": "REVIEW_URL",
}
"""Field of result.json -> what Classroom 50's runner calls it in the environment."""


class Checked(NamedTuple):
    exercise: Exercise
    outcome: Outcome
    text: str
    """What the student was shown, without colours."""

    def tests(self) -> Iterable[tuple[str, bool]]:
        for name, passed in self.outcome.checks.items():
            yield f"{self.exercise.id}: {said(self.exercise.checks[name])}", passed


def classroom50(checked: list[Checked], student: str) -> dict[str, Any]:
    tests = [
        {"test-name": name, "passed": passed, "score": int(passed), "max-score": 1}
        for one in checked
        for name, passed in one.tests()
    ]
    return {
        "schema": "classroom50/result/v1",
        **{field: os.environ.get(variable, "") for field, variable in _FROM_RUNNER.items()},
        "datetime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "student": student,
        "score": sum(test["score"] for test in tests),
        "max-score": len(tests),
        "tests": tests,
    }


def gradescope(checked: list[Checked], student: str) -> dict[str, Any]:
    tests = []
    for one in checked:
        for number, (name, passed) in enumerate(one.tests()):
            status = "passed" if passed else "failed"
            test = {"name": name, "score": int(passed), "max_score": 1, "status": status}
            tests.append(test | ({"output": one.text, "output_format": "text"} if number == 0 else {}))
    return {"tests": tests, "extra_data": {"student": student}}
