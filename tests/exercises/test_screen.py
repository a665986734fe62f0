from __future__ import annotations

import pytest

from capture.views.style import Paint
from exercises.checker import WHOLE, Came, Case, Failure, Outcome
from exercises.course import exercises
from exercises.screen import PRINTED_LINES, Screen
from kit.text import width

FRAME1 = exercises()["frame1"]
PLAIN = Screen(80, Paint(False))
CASE = Case(
    (bytes(range(9)),), {"length": 258, "type": 3, "flags": 4, "stream_id": 5}, "packet 7 of your capture", True
)


def shown(came: Came, case: Case | None = CASE, parts: tuple[str, ...] = (WHOLE,), hints: int = 0) -> list[str]:
    failure = Failure(case, came, list(parts), None, None)
    return list(PLAIN.failure(FRAME1, failure, hints, "exercises/work/frame1.py"))


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (Came("answer", None), ["You answered      None", "ends without a return"]),
        (Came("answer", (1, 2)), ["You answered      (1, 2)"]),
        (Came("odd", "<object at 0x1>"), ["You answered      <object at 0x1>"]),
        (
            Came("raised", "IndexError: " + "x" * 500, ((41, "f", "return header[9]"),)),
            ["IndexError", "line 41:  return"],
        ),
        (Came("stuck", None, ((41, "f", "while True:"),)), ["the time was up", "line 41:  while True:", "a loop that"]),
        (Came("gone"), ["your code ended Python itself"]),
    ],
)
def test_whatever_came_is_told_in_eight_lines_of_80_columns(came: Came, words: list[str]) -> None:
    lines = shown(came)
    assert len(lines) <= 8
    assert max(map(width, lines)) <= 80
    text = "\n".join(lines)
    assert all(word in text for word in [*words, "00 01 02 03", "packet 7", "RFC 9113 §4.1", "hint 1 of 3"]), text


@pytest.mark.parametrize(
    "came", [Came("raised", "SyntaxError: expected ':'", ((7, "", "def f(x)"),)), Came("missing"), Came("gone")]
)
def test_a_file_that_cannot_be_called_is_told_without_a_call(came: Came) -> None:
    text = "\n".join(shown(came, None, ()))
    assert "exercises/work/frame1.py" in text
    assert "Called with" not in text
    assert "RFC" not in text
    if came.kind == "missing":
        assert "read_frame_header" in text


def test_control_characters_of_the_students_code_reach_no_terminal() -> None:
    evil = "\x1b[2J\u202e"
    lines = shown(Came("raised", evil, ((1, "f", evil),))) + list(PLAIN.printed(evil))
    assert not any(c in line for line in lines for c in evil[:1] + evil[-1:])


def test_after_the_last_hint_none_is_offered() -> None:
    assert "hint" not in "\n".join(shown(Came("gone"), hints=3))


def test_a_long_input_is_shown_around_what_matters() -> None:
    octets = bytes(range(200))
    case = Case((octets,), {"length": 1}, "here")
    failure = Failure(case, Came("answer", {"length": 2}), ["length"], (150, 151), None)
    lines = list(PLAIN.failure(FRAME1, failure, 0, "f.py"))
    assert "(200 octets)" in lines[0]
    at = next(i for i, line in enumerate(lines) if "^" in line)
    first = lines[at].index("^")
    assert lines[at - 1][first : first + 5] == "96 97"
    assert lines[at - 1].lstrip().startswith("0092: ")
    assert max(map(width, lines)) <= 80


def test_prints_are_shown_up_to_some_lines() -> None:
    assert list(PLAIN.printed("")) == []
    assert list(PLAIN.printed("a\nb\n")) == ["  Your code printed:", "    a", "    b"]
    many = list(PLAIN.printed("x\n" * (PRINTED_LINES + 5)))
    assert len(many) == PRINTED_LINES + 2
    assert many[-1].strip() == "… and 5 more lines"


def test_colours_are_an_addition() -> None:
    outcome = Outcome({"example": True, "capture": False}, None, "")
    plain, coloured = PLAIN.title(FRAME1, outcome), Screen(80, Paint(True)).title(FRAME1, outcome)
    assert plain.startswith("✗ frame1 · the frame header ")
    assert plain.endswith("1 of 2 checks passed")
    assert width(plain) == 80
    assert "\x1b" in coloured
