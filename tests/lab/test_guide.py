"""What a guide does when an experiment or a check fails; test_runner.py has what students do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from capture.sources.tap import TapError
from kit.words import choose_language
from lab import runner
from lab.attempt import Attempt, Check, Run
from lab.bench import BenchError
from lab.guide import Guide, Lab
from lab.labs import lab01
from lab.terminal import Terminal, page_of

ANSWERS = {"connections": "1", "octets": "b", "separate": "3"}


def auto(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        lab="01", auto=True, again=False, plain=True, answers="", student="Ana", report=tmp_path / "reports"
    )


@pytest.fixture(autouse=True)
def english() -> None:
    choose_language("en")


@pytest.mark.parametrize("error", [BenchError("no answer"), TapError("no answer"), OSError("no answer")])
def test_an_experiment_that_fails_by_itself_ends_with_one_line_and_status_3(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path) -> Mapping[str, Any]:
        raise error

    monkeypatch.setitem(lab01.RUNS, "shared", fail)
    assert runner.run(auto(tmp_path)) == 3
    said = capsys.readouterr()
    assert said.err == "The experiment failed: no answer\n"
    assert "step 4 of 12" in said.out
    assert "step 5 of 12" not in said.out


def test_a_student_may_try_an_experiment_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = iter([True, False])
    real = lab01.RUNS["shared"]

    def fail_once(path: Path) -> Mapping[str, Any]:
        if next(tries):
            raise BenchError("the wire is\x1b[2J out")
        return real(path)

    monkeypatch.setitem(lab01.RUNS, "shared", fail_once)
    lines = iter(["", "1", "", "b", "", "", "", "", None])
    terminal = Terminal(plain=True)
    monkeypatch.setattr(terminal, "ask", lambda prediction: next(lines))
    guide = Guide(Lab("01"), Attempt("01", tmp_path / "attempt"), terminal, "Ana", tmp_path)
    assert guide.go() == 0
    said = capsys.readouterr().out
    assert "The experiment failed, and Enter tries again: the wire is·[2J out" in said.replace("\n", " ")
    assert said.index("Enter tries again") < said.index("Done in ")
    assert "step 5 of 12" in said


def test_a_check_that_fails_says_what_was_found_and_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found_wanting(runs: Mapping[str, Run]) -> Iterator[Check]:
        assert {*runs} == {"shared", "separate"}
        yield Check("All is well.", True, "this")
        yield Check("One connection.", False, "3")

    monkeypatch.setattr(lab01, "checks", found_wanting)
    assert runner.run(auto(tmp_path)) == 1
    assert "✓ All is well.\n  ✗ One connection. (3)\n" in capsys.readouterr().out
    assert "✗ One connection. (3)" in (tmp_path / "reports" / "lab01-ana.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "shown", "more"),
    [(0, ["a", "", "b"], True), (1, ["c" * 25], True), (2, ["d"], False), (9, ["d"], False)],
)
def test_a_long_step_is_cut_into_screens(page: int, shown: list[str], more: bool) -> None:
    lines = ["a", "", "b", "c" * 25, "", "d"]  # c takes three rows
    assert page_of(lines, page, rows=3, columns=10) == (shown, more)
