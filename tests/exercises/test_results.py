from __future__ import annotations

import re

import pytest

from exercises.checker import Outcome
from exercises.course import exercises
from exercises.results import Checked, classroom50, gradescope

FRAME1 = exercises()["frame1"]
NAMES = list(FRAME1.checks)
CHECKED = [Checked(FRAME1, Outcome({name: name != "reserved" for name in NAMES}, None, ""), "✗ frame1\nLikely …")]


def test_classroom50_gets_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLASSROOM", "networks")
    monkeypatch.setenv("SUBMISSION_TAG", "submit/2026")
    monkeypatch.delenv("ASSIGNMENT", raising=False)
    result = classroom50(CHECKED, "Juan")
    assert result["schema"] == "classroom50/result/v1"
    assert (result["classroom"], result["submission"], result["assignment"]) == ("networks", "submit/2026", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["datetime"])
    assert (result["score"], result["max-score"]) == (4, 5)
    assert result["tests"][-1] == {
        "test-name": "frame1: headers whose reserved bit is set",
        "passed": False,
        "score": 0,
        "max-score": 1,
    }
    assert len({test["test-name"] for test in result["tests"]}) == 5


def test_gradescope_gets_a_test_for_each_check_and_the_text_once() -> None:
    result = gradescope(CHECKED, "Juan")
    assert [test["score"] for test in result["tests"]] == [1, 1, 1, 1, 0]
    assert [test["status"] for test in result["tests"]] == ["passed"] * 4 + ["failed"]
    assert {test["max_score"] for test in result["tests"]} == {1}
    assert [test.get("output") for test in result["tests"]] == ["✗ frame1\nLikely …", None, None, None, None]
