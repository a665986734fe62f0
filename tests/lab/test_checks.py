"""The test command's own counting, on real runs of small test files."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import pytest

from kit.bootstrap import ROOT
from lab import checks
from lab.checks import Stage

TESTS = """
import pytest
def test_one(): pass
def test_two(): pass
def test_three(): {three}
def test_four(): {four}
"""


def stage_on(folder: Path, three: str = "pass", four: str = "pass") -> Stage:
    """Four tests, run with this project's conftest."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_small.py").write_text(TESTS.format(three=three, four=four))
    return Stage("tests", "pytest", ("--rootdir", str(folder), "-p", "no:cacheprovider", str(folder)))


def environment(**more: str) -> dict[str, str]:
    without = ("CAPTURE_VECTORS", "WIRELAB_NO_SKIPS")  # whatever the run has that this test is part of
    return {**{k: v for k, v in os.environ.items() if k not in without}, **more}


@pytest.mark.parametrize(
    ("three", "four", "counts"),
    [
        ("pass", "pass", (4, 0, 0)),
        ("assert 1 == 2", "pass", (3, 1, 0)),
        ("pytest.skip('no tshark')", "pass", (3, 0, 1)),
        ("pytest.skip('no tshark')", "assert False", (2, 1, 1)),
    ],
)
def test_tests_are_counted(tmp_path: Path, three: str, four: str, counts: tuple[int, int, int]) -> None:
    outcome = checks._run(stage_on(tmp_path, three, four), environment())
    assert (outcome.passed, outcome.failed, outcome.skipped) == counts


def test_where_nothing_may_be_skipped_a_skipped_test_is_a_failed_one(tmp_path: Path) -> None:
    outcome = checks._run(stage_on(tmp_path, "pytest.skip('no tshark')"), environment(WIRELAB_NO_SKIPS="1"))
    assert (outcome.passed, outcome.failed, outcome.skipped) == (3, 1, 0)


def test_a_module_that_skips_itself_is_a_failure_too_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    stage = stage_on(tmp_path)
    (tmp_path / "test_other.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    assert checks._run(stage, environment()).skipped == 1
    assert checks._run(stage, environment(WIRELAB_NO_SKIPS="1")).failed == 1


def test_a_run_that_collects_nothing_is_a_failure(tmp_path: Path) -> None:
    assert checks._run(Stage("tests", "pytest", (str(tmp_path),)), environment()).failed == 1


def test_a_file_that_cannot_be_collected_is_a_failure(tmp_path: Path) -> None:
    stage = stage_on(tmp_path)
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    assert checks._run(stage, environment()).failed == 1


def test_the_last_line_counts_all_stages_and_the_status_tells_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import os\n")
    lint = Stage("lint", "ruff", ("check", "--no-cache", str(bad)))
    monkeypatch.setattr(checks, "STAGES", (lint, stage_on(tmp_path)))
    assert checks.run(argparse.Namespace(system=False)) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "4 passed, 1 failed"
    assert "`os` imported but unused" in said, "what a stage that failed had to say is shown"
    bad.write_text("")
    assert checks.run(argparse.Namespace(system=False)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 passed, 0 failed"
