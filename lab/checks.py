"""`python3 -m lab test`: every check of the kit, each with its time, and what came of all of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kit.bootstrap import ROOT
from kit.text import pad
from kit.words import N_, _

FLOORS = "tests/test_floors.py"


class Stage(NamedTuple):
    name: str
    module: str
    """Of Python; what is run is `python -m MODULE ARGUMENTS` in the root."""
    arguments: tuple[str, ...]

    @property
    def counts_tests(self) -> bool:
        return self.module == "pytest"


STAGES = (
    Stage(N_("format"), "ruff", ("format", "--check", ".")),
    Stage(N_("lint"), "ruff", ("check", ".")),
    Stage(N_("types"), "mypy", ()),
    Stage(N_("floors"), "pytest", (FLOORS,)),
    Stage(N_("tests"), "pytest", ("-n", "auto", "--ignore", FLOORS)),
)


class Outcome(NamedTuple):
    stage: Stage
    seconds: float
    passed: int
    failed: int
    skipped: int


def run(options: argparse.Namespace) -> int:
    environment = dict(os.environ)
    if options.system:
        environment["WIRELAB_NO_SKIPS"] = "1"
    outcomes = []
    for stage in STAGES:
        outcome = _run(stage, environment)
        outcomes.append(outcome)
        sign = "✗" if outcome.failed else "✓"
        print(f"{sign} {pad(_(stage.name), 8)} {outcome.seconds:6.1f} s  {_counts(outcome)}", flush=True)
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


def _run(stage: Stage, environment: Mapping[str, str]) -> Outcome:
    """The output of a test run is shown as it comes; that of the others where they fail."""
    started = time.monotonic()
    command = [sys.executable, "-m", stage.module, *stage.arguments]
    if not stage.counts_tests:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            print(done.stdout, end="")
        failed = int(done.returncode != 0)
        return Outcome(stage, time.monotonic() - started, 1 - failed, failed, 0)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        status = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, env=environment).returncode
        passed, failed, skipped = _counted(report)
    if status and not failed:  # interrupted, misused, or nothing collected: no test says so
        failed = 1
    return Outcome(stage, time.monotonic() - started, passed, failed, skipped)


def _counted(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report."""
    if not report.exists():
        return 0, 0, 0
    passed = failed = skipped = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, broken, left_out = (int(suite.get(name, 0)) for name in ("tests", "failures", "skipped"))
        broken += int(suite.get("errors", 0))
        passed, failed, skipped = passed + total - broken - left_out, failed + broken, skipped + left_out
    return passed, failed, skipped


def _counts(outcome: Outcome) -> str:
    if not outcome.stage.counts_tests:
        return ""
    texts = [_("{count} passed").format(count=outcome.passed)]
    if outcome.failed:
        texts.append(_("{count} failed").format(count=outcome.failed))
    if outcome.skipped:
        texts.append(_("{count} skipped").format(count=outcome.skipped))
    return ", ".join(texts)
