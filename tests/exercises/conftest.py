from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.words import choose_language


@pytest.fixture(autouse=True)
def _nobodys_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reads nor writes the progress of whoever runs the tests."""
    monkeypatch.setenv("WIRELAB_STATE", str(tmp_path / "state"))


@pytest.fixture
def english_again() -> Iterator[None]:
    """For a test that switches the language."""
    yield
    choose_language("en")
