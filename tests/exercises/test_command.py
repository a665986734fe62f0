from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exercises import command
from exercises.course import exercises
from kit.bootstrap import python
from lab.bench import Bench

ROOT = Path(__file__).resolve().parents[2]
FRAME1 = exercises()["frame1"]
UNMASKED = FRAME1.solution("en").replace(" & 0x7FFF_FFFF", "")


class Here:
    """A student's folder, and the commands given in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.status = 0
        self.error = ""

    def __call__(self, *arguments: str) -> str:
        """What the command prints."""
        try:
            self.status = command.main([*arguments, "--folder", str(self.folder)])
        except SystemExit as ended:
            self.status = int(ended.code or 0)
        captured = self._capsys.readouterr()
        self.error = captured.err
        return captured.out

    def write(self, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "frame1.py").write_text(text, encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Where there is no capture yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Here(tmp_path / "work", capsys)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("demo") / "demo.pcapng"
    with Bench(write=file) as bench:
        bench.join("Juan")
    return file


def test_the_list_makes_the_files_and_says_what_is_next(here: Here) -> None:
    text = here("--student", "Juan")
    assert here.status == 0
    assert "Exercises for Juan" in text
    assert "· frame1" in text
    assert f"{python()} -m exercises check frame1" in text
    assert (here.folder / "frame1.py").read_text(encoding="utf-8") == FRAME1.file("en")


def test_an_unsolved_exercise_fails_with_status_1_and_the_list_knows(here: Here) -> None:
    text = here("check", "frame1")
    assert here.status == 1
    assert text.startswith("✗ frame1")
    assert "0 of 5 checks passed" in text
    assert "nothing is read yet" in text
    assert "0 of 5" in here()


def test_a_solved_one_passes_shows_the_solution_and_stops(here: Here) -> None:
    here.write(FRAME1.solution("en").replace("def read", "print('mine')\n\n\ndef read"))
    text = here("check")
    assert here.status == 0
    assert text.startswith("✓ frame1")
    assert "5 of 5 checks passed" in text
    assert "whose meaning is undefined" in text
    assert text.index("Your code printed:") < text.index("mine") < text.index("One way to write it")
    assert "✓ frame1" in here()


def test_checking_again_tells_what_is_true_now(here: Here) -> None:
    here.write(FRAME1.solution("en"))
    here("check")
    here.write(UNMASKED)
    here("check", "frame1")
    assert here.status == 1
    assert "4 of 5" in here()


def test_both_languages(here: Here) -> None:
    try:
        assert "la cabecera de trama" in here("--lang", "es")
        assert "aún no se lee nada" in here("check", "--lang", "es")
        assert "Escribe los nueve octetos" in here("hint", "--lang", "es")
    finally:
        here("--lang", "en")


def test_one_line_says_how_to_get_a_capture_and_then_it_is_used(here: Here, capture: Path) -> None:
    here.write(UNMASKED)
    without = here("check")
    assert f"{python()} -m lab demo" in without
    demo = here.folder.parent / "demo"
    demo.mkdir()
    (demo / "demo.pcapng").write_bytes(capture.read_bytes())
    found = here("check")
    assert "lab demo" not in found
    assert ", reserved bit set" in found
    assert "demo/demo.pcapng" in here().replace(os.sep, "/")
    (demo / "demo.pcapng").write_bytes(b"damaged")
    assert "lab demo" in here("check")


def test_a_capture_that_was_named_must_be_one(here: Here, capture: Path) -> None:
    assert "of your capture" in here("check", "--capture", str(capture))
    for content in (b"", b"no capture at all"):
        (here.folder.parent / "other").write_bytes(content)
        assert here("check", "--capture", "other") == ""
        assert here.status == 1
        assert here.error.startswith("other: ")
        assert here.error.count("\n") == 1


def test_hints_come_one_by_one_and_then_all(here: Here) -> None:
    hints = [" ".join(hint["en"].split()) for hint in FRAME1.hints]
    for number, hint in enumerate(hints, 1):
        text = " ".join(here("hint").split())
        assert f"hint {number} of 3" in text
        assert [one for one in hints if one in text] == [hint]
    assert "hint" not in here("check")
    text = " ".join(here("hint", "frame1").split())
    assert all(hint in text for hint in hints)


def test_the_solution_is_for_who_has_passed_or_insists(here: Here) -> None:
    assert here("solution") == ""
    assert here.status == 1
    assert "hint frame1" in here.error
    assert "0x7FFF_FFFF" in here("solution", "--anyway")
    assert here.status == 0
    here.write(FRAME1.solution("en"))
    here("check")
    assert "0x7FFF_FFFF" in here("solution", "frame1")


def test_the_students_name_is_remembered_and_makes_the_values(here: Here) -> None:
    here.write(UNMASKED)
    first = here("check", "--student", "Juan")
    assert "made for Juan" in first
    assert here("check") == first
    assert here("check", "--student", "Ana") != first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "frame9"], "frame1"),
        (["check", "\x1b[31m"], "there is no exercise"),
        (["--student", ""], "name"),
        (["chekc"], "chekc"),
        (["check", "--nothing"], "--nothing"),
    ],
)
def test_misuse_is_one_line_and_status_2(here: Here, arguments: list[str], words: str) -> None:
    assert here(*arguments) == ""
    assert here.status == 2
    assert words in here.error
    assert here.error.count("\n") == 1
    assert "\x1b" not in here.error


def test_a_folder_that_cannot_be_made_is_one_line_and_status_3(here: Here) -> None:
    here.folder.write_text("a file")
    here("check")
    assert here.status == 3
    assert here.error.count("\n") == 1


def test_results_are_written_for_who_collects_them(here: Here) -> None:
    here.write(UNMASKED)
    here("check", "--all", "--student", "Juan", "--result", "result.json", "--gradescope", "results.json")
    assert here.status == 1
    result = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert (result["student"], result["score"], result["max-score"]) == ("Juan", 4, 5)
    results = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert sum(test["score"] for test in results["tests"]) == 4
    assert "the reserved bit was read" in results["tests"][0]["output"]


def test_watching_checks_each_time_the_file_is_saved(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = iter([UNMASKED, FRAME1.solution("en")])
    monkeypatch.setattr(command, "_pause", lambda: here.write(next(saves)))
    text = here("check", "--watch")
    assert here.status == 0
    assert [line[:8] for line in text.splitlines() if line.startswith(("✓", "✗"))] == [
        "✗ frame1",
        "✗ frame1",
        "✓ frame1",
    ]
    assert text.count("Ctrl-C ends this") == 2


def test_ctrl_c_is_an_end_and_no_traceback(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_pause", interrupt)
    here("check", "--watch")
    assert here.status == 130
    assert here.error.strip() == "Stopped."


def test_it_starts_from_another_folder_as_a_program(tmp_path: Path) -> None:
    file = tmp_path / "work" / "frame1.py"
    environment = os.environ | {"WIRELAB_STATE": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "exercises", "check", "--folder", str(file.parent)]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (1, "")
    file.write_text(FRAME1.solution("es"), encoding="utf-8")
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_runs_alone_and_prints_what_it_promises_once_solved(tmp_path: Path) -> None:
    last_line = "return FrameHeader(length, type_code, flags, stream_id)"
    solved = FRAME1.solution("en") + FRAME1.file("en").partition(last_line)[2]
    printed = []
    for source in (FRAME1.file("es"), solved):
        file = tmp_path / "frame1.py"
        file.write_text(source, encoding="utf-8")
        done = subprocess.run([sys.executable, "-I", file], capture_output=True, encoding="utf-8")
        printed.append(done.stdout.strip() + done.stderr)
    assert printed[0] == "FrameHeader(length=0, type=0, flags=0, stream_id=0)"
    assert printed[1] in FRAME1.file("en")
