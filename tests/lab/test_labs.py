"""What holds of every lab: both languages say the same in the same places, and each step fits on a screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache

import pytest

from kit.bootstrap import ROOT
from kit.text import width
from kit.words import LANGUAGES
from lab.guide import LABS, Lab
from lab.lesson import Beside, Block, Do, Lesson, Predict, Show, Verbatim, facts_named
from lab.runner import labs

NUMBERS = [lab.number for lab in labs()]
ROWS, COLUMNS = 24, 80
AROUND = 5
"""Rows that a step does not have: its title and an empty one, one for a notice, the keys, the prompt."""
each_lab = pytest.mark.parametrize("number", NUMBERS)
each_lesson = pytest.mark.parametrize(
    ("number", "language"), [(n, language) for n in NUMBERS for language in LANGUAGES]
)


def shape(block: Block) -> object:
    """What must not differ between languages."""
    if isinstance(block, Predict):
        return block._replace(question="", choices=dict.fromkeys(block.choices, ""))
    if isinstance(block, Beside):
        return block._replace(happened="".join(re.findall(r"\{.*?\}", block.happened)))
    if isinstance(block, Show | Do):
        return block
    return type(block)


def clauses(lesson: Lesson) -> set[str]:
    return set(re.findall(r"RFC \d+ §[\d.]*\d", str(lesson)))


def test_there_are_labs_and_each_is_in_every_language() -> None:
    assert NUMBERS[0] == "01"
    assert len(list(LABS.glob("lab*.md"))) == len(NUMBERS) * len(LANGUAGES)


@each_lab
def test_languages_have_the_same_steps_predictions_and_clauses(number: str) -> None:
    first, *others = [Lab(number).lesson(language) for language in LANGUAGES]
    for other in others:
        assert [step.id for step in other.steps] == [step.id for step in first.steps]
        for step, same in zip(first.steps, other.steps, strict=True):
            assert [shape(block) for block in step.blocks] == [shape(block) for block in same.blocks], step.id
        assert facts_named(other) == facts_named(first)
        assert clauses(other) == clauses(first)


@each_lab
def test_a_lesson_asks_for_nothing_that_its_module_lacks(number: str) -> None:
    lesson, module = Lab(number).lesson("en"), Lab(number).experiments()
    blocks = [block for step in lesson.steps for block in step.blocks]
    assert {block.run for block in blocks if isinstance(block, Do)} == {*module.RUNS}
    assert {block.view for block in blocks if isinstance(block, Show)} == {*module.VIEWS}


@each_lab
def test_each_prediction_comes_before_a_run_and_is_shown_beside_what_happened_after_it(number: str) -> None:
    blocks = [block for step in Lab(number).lesson("en").steps for block in step.blocks]
    for at, block in enumerate(blocks):
        if isinstance(block, Predict):
            run = next(i for i, later in enumerate(blocks[at:], at) if isinstance(later, Do))
            assert any(isinstance(later, Beside) and later.prediction == block.name for later in blocks[run:])
    assert clauses(Lab(number).lesson("en")), "a lab names the clauses that it is about"


@each_lesson
def test_lessons_do_not_talk_down(number: str, language: str) -> None:
    text = (LABS / f"lab{number}.{language}.md").read_text(encoding="utf-8").lower()
    for word in ("simply", "obviously", "of course", "simplemente", "obviamente", "por supuesto", "—"):
        assert word not in text


@cache
def run_alone(number: str, language: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "lab", "run", number, "--auto", "--lang", language]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120)


@each_lesson
def test_each_lab_runs_by_itself_and_all_of_its_checks_hold(number: str, language: str) -> None:
    done = run_alone(number, language)
    assert (done.returncode, done.stderr) == (0, "")
    assert "✓" in done.stdout
    assert "✗" not in done.stdout
    assert not re.search(r"\{\w", re.sub(r"(?m)^ {4}.*$", "", done.stdout)), "a fact was not filled in"


@each_lesson
def test_each_step_fits_on_a_screen(number: str, language: str) -> None:
    done = run_alone(number, language)
    _nothing, *steps = re.split(r"\n(?=\S.* \d+ \w+ \d+\n\n)", done.stdout)
    lesson = Lab(number).lesson(language)
    assert len(steps) == len(lesson.steps)
    for step, shown in zip(lesson.steps, steps, strict=True):
        lines = [line for line in shown.strip("\n").splitlines()[2:] if not line.startswith("  ▸ ")]
        assert len(lines) <= ROWS - AROUND, f"{step.id} has {len(lines)} lines"
        assert max(map(width, lines)) <= COLUMNS, step.id
        for block in step.blocks:
            if isinstance(block, Verbatim):
                assert all(width(line) <= COLUMNS - 4 for line in block.lines), step.id
