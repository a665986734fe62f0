"""Labs as students take them: programs of their own, with a pipe or a real terminal at the other end."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.bootstrap import ROOT

SECONDS = 60
"""For one program that does a whole lab on a busy machine; it takes two or three."""


class Student:
    """Somebody with a home of their own, in which progress is kept."""

    def __init__(self, home: Path) -> None:
        self.state = home / "state"
        self.reports = home / "reports"
        self.environment = {**os.environ, "WIRELAB_STATE": str(self.state), "MINICHAT_LANG": "en", "COLUMNS": "80"}
        self.environment.pop("NO_COLOR", None)

    def types(self, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Each line with Enter; then the input ends."""
        return self.lab("run", "01", "--report", str(self.reports), *options, lines=lines)

    def lab(self, *arguments: str, lines: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            cwd=ROOT,
            env=self.environment,
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
        )

    def report(self) -> dict[str, Any]:
        (file,) = self.reports.glob("lab01-*.json")
        content = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content


@pytest.fixture
def student(tmp_path: Path) -> Student:
    return Student(tmp_path)


ALL = ("", "3", "", "b", "", "", "", "", "", "", "", "", "5", "", "", "")
"""Lines that go through the whole lab with the predictions 3, b and 5."""


def steps_shown(text: str) -> list[int]:
    """By their headings."""
    return [int(number) for number in re.findall(r"^Lab 01 .* step (\d+) of \d+$", text, re.M)]


def test_a_whole_lab_is_done_from_a_pipe_and_reported(student: Student) -> None:
    done = student.types(*ALL, options=("--student", "María José"))
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_shown(done.stdout) == [*range(1, 13)]
    assert "predicted   3\n  happened    1\n" in done.stdout
    report = student.report()
    predictions = report["predictions"]
    assert {name: prediction["answer"] for name, prediction in predictions.items()} == {
        "connections": "3",
        "octets": "b",
        "separate": "5",
    }
    assert (predictions["connections"]["happened"], predictions["separate"]["happened"]) == ("1", "3")
    assert all(check["holds"] for check in report["checks"])
    assert (report["student"], report["automatic"]) == ("María José", False)
    text = (student.reports / "lab01-maría-josé.txt").read_text(encoding="utf-8")
    assert "  predicted  5\n  happened   3\n" in text
    assert "right" not in text
    assert "wrong" not in text
    assert (student.reports / "lab01-shared.pcapng").exists()


def test_who_leaves_comes_back_to_the_same_step_and_predictions(student: Student) -> None:
    left = student.types("", "3", "", "b", "q")
    assert left.returncode == 0
    assert "Left at step 3 of 12" in left.stdout
    back = student.types("p")
    assert steps_shown(back.stdout)[:2] == [3, 2]
    assert "Locked: b) a fixed text" in back.stdout
    assert "Locked: 3" in back.stdout


def test_a_locked_prediction_takes_no_other_answer(student: Student) -> None:
    student.types("", "3", "q")
    again = student.types("7", "p", "", "9")
    assert "“7” does nothing here." in again.stdout
    student.types(*ALL[2:])
    assert student.report()["predictions"]["connections"]["answer"] == "3"


def test_what_is_no_prediction_is_not_taken_for_one(student: Student) -> None:
    nonsense = ("", "three", "100", "-1", "1.5", "²", "\x1b[2J", "0x3", "9" * 5_000)
    done = student.types("", *nonsense, "q")
    assert done.returncode == 0
    assert done.stdout.count("Predict first: 0–99. Nobody grades it.") == len(nonsense)
    assert "Locked" not in done.stdout
    assert "\x1b" not in done.stdout


def test_the_end_of_the_input_is_a_way_to_leave(student: Student) -> None:
    done = student.types("")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Left at step 2 of 12" in done.stdout


def test_the_language_can_be_switched_in_the_middle_and_stays(student: Student) -> None:
    done = student.types("", "l", "q")
    assert "How many TCP connections" in done.stdout
    assert "¿Cuántas conexiones TCP" in done.stdout
    assert "¿Cuántas conexiones TCP" in student.types("q").stdout
    for options in (("run", "01", "--lang", "en"), ("--lang", "en", "run", "01")):
        assert "How many TCP connections" in student.lab(*options, lines=("q",)).stdout


def test_again_begins_anew_and_keeps_what_was_predicted_before(student: Student) -> None:
    student.types("", "3", "q")
    again = student.types("", "4", "q", options=("--again",))
    assert steps_shown(again.stdout)[0] == 1
    kept = [json.loads(file.read_text())["predictions"]["connections"]["answer"] for file in attempts(student)]
    assert kept == ["3", "4"]
    assert "Locked: 4" in student.types("q").stdout


def attempts(student: Student) -> list[Path]:
    return sorted((student.state / "labs" / "01").glob("*/attempt.json"))


def test_a_damaged_attempt_is_left_alone_and_another_one_begun(student: Student) -> None:
    student.types("", "3", "q")
    (file,) = attempts(student)
    file.write_text(file.read_text()[:40])
    done = student.types("q")
    assert done.returncode == 0
    assert steps_shown(done.stdout) == [1]
    assert len(attempts(student)) == 2


def test_after_an_update_a_run_that_lacks_what_the_lesson_names_is_made_again(student: Student) -> None:
    assert student.types(*ALL).returncode == 0
    (file,) = attempts(student)
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["runs"]["shared"]["facts"]["connections"]
    content["predictions"].pop("separate")
    file.write_text(json.dumps(content), encoding="utf-8")
    back = student.types("", "", "p", "p")
    assert steps_shown(back.stdout)[:2] == [4, 5]
    assert "predicted   3\n  happened    1\n" in back.stdout


def test_the_list_says_how_far_one_is(student: Student) -> None:
    assert "01  Layers, preface, SETTINGS" in student.lab().stdout
    assert "12 steps" in student.lab().stdout
    student.types("", "3", "q")
    assert "at step 2 of 12" in student.lab().stdout
    student.types(*ALL[2:])
    assert "✓ finished in 0" in student.lab().stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "99"), "There is no lab 99; there are: 01"),
        (("run", "../01"), "There is no lab ../01"),
        (("run", "01", "--answers", "connections=3"), "--answers goes with --auto"),
        (("run", "01", "--auto", "--answers", "colour=3"), "There is no prediction colour; there are: connections,"),
        (("run", "01", "--auto", "--answers", "octets=f"), "octets: f is none of a–d"),
        (("run", "01", "--student", " "), "A student's name has 1 to 64 characters"),
        (("run", "01", "--student", "a\x1b[2J"), "A student's name has 1 to 64 characters"),
    ],
)
def test_a_misused_command_is_told_in_one_line(student: Student, arguments: tuple[str, ...], says: str) -> None:
    done = student.lab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_progress_that_cannot_be_kept_is_told_in_one_line(student: Student) -> None:
    student.state.write_text("a file where the folder should be")
    done = student.types("", "3")
    assert done.returncode == 3
    assert done.stderr.startswith("What you do in labs cannot be kept: Not a directory")
    assert done.stderr.count("\n") == 1


# --- by itself


def test_auto_runs_all_and_keeps_nothing(student: Student) -> None:
    done = student.lab("run", "1", "--auto", "--student", "Ana")
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_shown(done.stdout) == [*range(1, 13)]
    assert "\x1b" not in done.stdout
    last = " ".join(done.stdout.rpartition("\n\n")[2].split())
    assert "--report FOLDER keeps them" in last, "the commands in its last step need them"
    assert not student.state.exists()


def test_auto_takes_answers_and_says_in_the_report_that_nobody_predicted(student: Student) -> None:
    options = ("run", "01", "--auto", "--answers", "octets=c, connections=6", "--report", str(student.reports))
    done = student.lab(*options)
    assert done.returncode == 0
    assert "Of this run nothing is kept" not in done.stdout
    report = student.report()
    answers = {name: prediction["answer"] for name, prediction in report["predictions"].items()}
    assert answers == {"connections": "6", "octets": "c", "separate": "0"}
    assert report["automatic"] is True


def test_auto_fits_into_pipes_that_close(student: Student) -> None:
    command = [sys.executable, "-m", "lab", "run", "01", "--auto"]
    with subprocess.Popen(
        command, cwd=ROOT, env=student.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(SECONDS) == 0


# --- in a terminal

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals of this kind")


class Screen:
    """A lab in a terminal of a given size."""

    def __init__(self, student: Student, columns: int, rows: int, *options: str) -> None:
        self._master, slave = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**student.environment, "TERM": "xterm-256color"}
        for stale in ("COLUMNS", "LINES"):
            environment.pop(stale, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab", "run", "01", "--report", str(student.reports), *options],
            cwd=ROOT,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.said = ""
        self._typed_at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def wait_for(self, text: str) -> str:
        """What has been written since the last typing, and since the screen was cleared, once the text is there and the
        lab waits again; colours are left out."""
        while True:
            written = self.said[self._typed_at :].rpartition("\x1b[2J")[2]
            shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
            if text in shown and shown.endswith("▸ "):
                return shown
            assert self._read(), f"the lab ended without {text!r}: {shown}"

    def type(self, text: str) -> None:
        self._typed_at = len(self.said)
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> None:
        """Until it is heard: Python's input loses one that comes in the moment in which it begins to wait."""
        while self.process.poll() is None:
            self.type("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)

    def ended(self) -> tuple[int, str]:
        """Its exit status, and what it wrote since the last typing."""
        while self._read():
            pass
        return self.process.wait(SECONDS), self.said[self._typed_at :]

    def _read(self) -> bool:
        """False at the end."""
        try:
            piece = self._decoder.decode(os.read(self._master, 65_536))
        except OSError:  # Linux says so where others say nothing
            return False
        self.said += piece
        return bool(piece)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


def test_each_step_has_the_screen_to_itself(student: Student, screens: list[Screen]) -> None:
    screen = Screen(student, 80, 24)
    screens.append(screen)
    screen.wait_for("step 1 of 12")
    screen.type("\r")
    shown = screen.wait_for("step 2 of 12")
    assert "step 1 of 12" not in shown
    screen.type("x\r")
    assert "Predict first" in screen.wait_for("Predict first")
    screen.type("2\r")
    assert "Locked: 2" in screen.wait_for("Locked")
    screen.type("q\r")
    status, last = screen.ended()
    assert status == 0
    assert "Left at step 2 of 12" in last


def test_ctrl_c_leaves_and_says_how_to_come_back(student: Student, screens: list[Screen]) -> None:
    screen = Screen(student, 80, 24)
    screens.append(screen)
    screen.wait_for("step 1 of 12")
    screen.type("\r")
    screen.wait_for("step 2 of 12")
    screen.press_ctrl_c()
    status, last = screen.ended()
    assert status == 130
    assert "Left at step 2 of 12; all is kept." in last
    assert "Traceback" not in last
    assert steps_shown(student.types("q").stdout)[0] == 2


def test_a_lab_that_went_on_in_another_terminal_is_not_put_back(student: Student, screens: list[Screen]) -> None:
    screen = Screen(student, 80, 24)
    screens.append(screen)
    screen.wait_for("step 1 of 12")
    assert student.types(*ALL).returncode == 0
    screen.type("\r")
    status, last = screen.ended()
    assert status == 1
    assert "This lab went on in another terminal" in last
    assert "Traceback" not in last
    (file,) = attempts(student)
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["finished"]
    assert len(kept["predictions"]) == 3


def test_in_a_small_terminal_a_step_comes_in_pieces_and_whole(student: Student, screens: list[Screen]) -> None:
    screen = Screen(student, 44, 12)
    screens.append(screen)
    pieces = [screen.wait_for("step 1 of 12")]
    while "Enter shows the rest" in pieces[-1]:
        assert len(pieces[-1].splitlines()) <= 12
        screen.type("x\r")
        assert "does nothing here" in screen.wait_for("does nothing here")
        screen.type("\r")
        pieces.append(screen.wait_for("step 1 of 12"))
    words = [word for piece in pieces for line in piece.splitlines()[2:-3] for word in line.split()]
    assert len(pieces) > 2
    assert words[:4] == ["A", "line", "of", "chat"]
    assert words[-7:] == ["you", "come", "back", "to", "the", "same", "step."]


def test_plain_writes_no_escape_codes_even_to_a_terminal(student: Student, screens: list[Screen]) -> None:
    screen = Screen(student, 80, 24, "--plain")
    screens.append(screen)
    screen.wait_for("step 1 of 12")
    screen.type("\r")
    screen.wait_for("step 2 of 12")
    without_input = screen.said.replace("\x1b[?2004h", "").replace("\x1b[?2004l", "")  # readline's own, around input
    assert "\x1b" not in without_input
