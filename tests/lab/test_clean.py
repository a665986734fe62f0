"""Cleaning, in a folder that looks like a clone."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from lab import clean

MADE = (
    ".venv/lib/x.py",
    ".mypy_cache/x",
    ".ruff_cache/x",
    "kit/__pycache__/x.pyc",
    "demo/demo.pcapng",
    "demo/timeline.png",
    "certificates/ca-secret.pem",
    "certificates/server.pem",
)
KEPT = ("kit/words.py", "demo/my own notes.txt", "certificates/my own.pem", ".git/objects/__pycache__/x")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in MADE + KEPT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x" * 1000)
    monkeypatch.setattr(clean, "ROOT", tmp_path)
    monkeypatch.setattr(clean, "VENV", tmp_path / ".venv")
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_the_kit_made_goes_and_what_people_made_stays(root: Path) -> None:
    assert clean.run(argparse.Namespace(yes=True)) == 0
    assert [name for name in MADE if (root / name).exists()] == []
    assert [name for name in KEPT if not (root / name).exists()] == []


def test_the_demo_s_folder_goes_when_nothing_else_is_in_it(root: Path) -> None:
    (root / "demo" / "my own notes.txt").unlink()
    clean.run(argparse.Namespace(yes=True))
    assert not (root / "demo").exists()


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("sí", True), ("n", False), ("", False)])
def test_it_asks_first(root: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert clean.run(argparse.Namespace(yes=False)) == 0
    assert (root / ".venv").exists() is not removed


def test_where_nobody_can_be_asked_nothing_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert clean.run(argparse.Namespace(yes=False)) == 2
    assert (root / ".venv").exists()
    assert "--yes" in capsys.readouterr().err


def test_a_clean_folder_has_nothing_to_remove(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean.run(argparse.Namespace(yes=True))
    capsys.readouterr()
    assert clean.run(argparse.Namespace(yes=False)) == 0
    assert capsys.readouterr().out.splitlines() == ["There is nothing to remove."]
