"""Each in a process of its own, which is what it is about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def said(code: str) -> list[str]:
    """What a new Python prints after `process.prepare()`."""
    code = f"import gc, resource; from server import process\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("hard", ["4096", "70000"])
def test_it_may_open_as_many_files_as_it_wants_within_what_is_allowed(hard: str) -> None:
    pytest.importorskip("resource", reason="Windows limits no files")
    before = f"most = min({hard}, resource.getrlimit(resource.RLIMIT_NOFILE)[1])\n"
    before += "resource.setrlimit(resource.RLIMIT_NOFILE, (100, most)); process.prepare()\n"
    soft, most, wanted = said(before + "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], most, process.OPEN_FILES)")
    assert int(soft) == min(int(most), int(wanted))


def test_more_than_it_wants_is_left_as_it_is() -> None:
    soft, before = said(
        "process.OPEN_FILES = 50; before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]; process.prepare()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], before)"
    )
    assert soft == before


def test_garbage_is_looked_for_less_often_and_not_in_what_was_loaded() -> None:
    threshold, frozen = said("process.prepare(); print(gc.get_threshold()[0], gc.get_freeze_count())")
    assert int(threshold) == 10_000
    assert int(frozen) > 1_000
