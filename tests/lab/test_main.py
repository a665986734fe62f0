"""The lab's command line, as a person starts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kit.bootstrap import ROOT
from lab.__main__ import COMMANDS


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.parametrize("arguments", [("nothing",), ("demo", "--nothing"), ("test", "extra"), ("--lang", "xx")])
def test_misuse_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = lab(*arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr


def test_help_lists_every_command_and_sets_nothing_up() -> None:
    done = lab("--help")
    assert done.returncode == 0
    assert set(COMMANDS) <= set(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    done = lab(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"-m lab {command}" in done.stdout


def test_alone_it_lists_the_labs() -> None:
    done = lab()
    assert (done.returncode, done.stderr) == (0, "")
    assert "01" in done.stdout
    assert "-m lab run 01" in done.stdout
