from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.student import MAX_NAME, as_file_name, state_folder, student


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WIRELAB_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_name_is_remembered_until_another_is_given() -> None:
    assert student("  María ") == "María"
    assert student() == "María"
    assert student("Juan", remember=False) == "Juan"
    assert student() == "María"


def test_without_a_name_it_is_the_account_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jperez")
    assert student() == "jperez"
    assert not state_folder().exists()


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\x1b[2J", "\u202eanA", "x" * (MAX_NAME + 1)])
def test_what_cannot_be_a_name_is_refused_and_not_remembered(name: str, state: Path) -> None:
    with pytest.raises(ValueError, match="1 to 64 characters"):
        student(name)
    assert not state.exists()


def test_a_damaged_memory_does_no_harm(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jperez")
    state.mkdir()
    (state / "student.txt").write_bytes(b"\xff\xfe\x00")
    assert student() == "jperez"
    (state / "student.txt").write_text("\x1b[2J" + "x" * 500, encoding="utf-8")
    assert student() == "·[2J" + "x" * (MAX_NAME - 4)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps state elsewhere")
def test_progress_is_kept_where_systems_want_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WIRELAB_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg" / "grpc-wire-lab"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "grpc-wire-lab"


@pytest.mark.parametrize(
    ("name", "file"), [("María José", "maría-josé"), ("../../etc", "etc"), ("a/b\\c:d", "a-b-c-d"), ("¿?", "student")]
)
def test_a_name_becomes_part_of_a_file_name(name: str, file: str) -> None:
    assert as_file_name(name) == file
