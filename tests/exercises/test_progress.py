from __future__ import annotations

from pathlib import Path

import pytest

from exercises.course import Exercise, exercises
from exercises.progress import Progress, State, work_file
from kit.student import state_folder
from kit.words import choose_language

FRAME1 = exercises()["frame1"]


def test_progress_is_kept_by_id_and_outside_the_checkout() -> None:
    Progress().keep(FRAME1, State(passed=3, checks=5, hints=1))
    renamed = FRAME1._replace(name={"en": "another name", "es": "otro nombre"})
    assert Progress().state(renamed) == State(3, 5, 1)
    assert Progress().state(FRAME1._replace(id="frame2")) == State()
    assert [file.name for file in state_folder().iterdir()] == ["exercises.json"]


@pytest.mark.parametrize(
    ("state", "is_done"), [(State(), False), (State(4, 5), False), (State(5, 5), True), (State(0, 0, 3), False)]
)
def test_done_is_what_passed_every_check(state: State, is_done: bool) -> None:
    assert state.is_done is is_done


@pytest.mark.parametrize(
    "damage", ["", "no json", "[]", '{"frame1": 3}', '{"frame1": ["x", 1, 1]}', '{"frame1": [1, 2, 3, 4]}']
)
def test_a_damaged_file_is_no_progress_and_no_trouble(damage: str) -> None:
    state_folder().mkdir(parents=True)
    (state_folder() / "exercises.json").write_text(damage)
    assert Progress().state(FRAME1) == State()
    Progress().keep(FRAME1, State(1, 5))
    assert Progress().state(FRAME1) == State(1, 5)


# The files


def test_a_file_is_made_in_the_language_in_force(tmp_path: Path) -> None:
    file = work_file(FRAME1, tmp_path / "new" / "folder")
    assert file.name == "frame1.py"
    assert file.read_text(encoding="utf-8") == FRAME1.file("en")


@pytest.mark.usefixtures("english_again")
def test_an_untouched_file_follows_the_language_and_a_touched_one_stays(tmp_path: Path) -> None:
    file = work_file(FRAME1, tmp_path)
    choose_language("es")
    work_file(FRAME1, tmp_path)
    assert file.read_text(encoding="utf-8") == FRAME1.file("es")
    touched = FRAME1.file("es") + "\n# mío\n"
    file.write_text(touched, encoding="utf-8")
    choose_language("en")
    work_file(FRAME1, tmp_path)
    assert file.read_text(encoding="utf-8") == touched


class Updated(Exercise):
    """As a later kit brings it."""

    def file(self, wanted: str | None = None) -> str:
        return "# something new\n" + super().file(wanted)


def test_an_update_does_not_touch_what_is_there(tmp_path: Path) -> None:
    file = work_file(FRAME1, tmp_path)
    file.write_text(FRAME1.solution("en"), encoding="utf-8")
    work_file(Updated(*FRAME1), tmp_path)
    assert file.read_text(encoding="utf-8") == FRAME1.solution("en")


def test_a_deleted_file_is_made_anew(tmp_path: Path) -> None:
    work_file(FRAME1, tmp_path).unlink()
    assert work_file(FRAME1, tmp_path).exists()
