from __future__ import annotations

from pathlib import Path

import pytest

from capture.views.style import Paint
from kit.text import width
from lab.lesson import (
    Beside,
    Checks,
    Do,
    LessonError,
    Predict,
    Show,
    Text,
    Verbatim,
    facts_named,
    fill,
    read_lesson,
    wrap,
)

PLAIN = Paint(False)

LESSON = """\
# Title, with a comma

## First step {#first}

A paragraph
over two lines.
- a point
- another, with `code`

```
shown   as it is
```

## Second {#second-step}
```predict count 1-9
How many,
do you think?
```
```run once
```
```beside count
{once.frames}
```
```show once.table
```
```predict letter
Which?
a) this
b) that one
```
```checks
```
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "lab90.en.md"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_lesson_is_steps_and_steps_are_blocks(tmp_path: Path) -> None:
    lesson = read_lesson(written(tmp_path, LESSON))
    assert lesson.title == "Title, with a comma"
    first, second = lesson.steps
    assert (first.id, first.title) == ("first", "First step")
    assert first.blocks == (
        Text("A paragraph over two lines.", False),
        Text("a point", True),
        Text("another, with `code`", True),
        Verbatim(("shown   as it is",)),
    )
    count, letter = lesson.predictions()
    assert second.blocks == (
        count,
        Do("once"),
        Beside("count", "{once.frames}"),
        Show("once", "table"),
        letter,
        Checks(),
    )
    assert count == Predict("count", "How many, do you think?", {}, 1, 9)
    assert letter == Predict("letter", "Which?", {"a": "this", "b": "that one"}, 0, 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "begins with"),
        ("## Step {#a}\n", "begins with"),
        ("# T\n\nstray\n\n## Step {#a}\n", "goes on with its first step"),
        ("# T\n## Step\n", "lab90.en.md:2: a step's heading ends with its id"),
        ("# T\n## Step {#a}\n```\nopen\n", "in step a: a fence is not closed"),
        ("# T\n## Step {#a}\n```predict n\nWhich?\n```\n", "choices or a range"),
        ("# T\n## Step {#a}\n```predict n 1-2\nWhich?\na) b\n```\n", "choices or a range"),
        ("# T\n## Step {#a}\n```predict n 1-2\n```\n", "has a question"),
        ("# T\n## Step {#a}\n```predict 1-2\nHow many?\n```\n", "takes a name"),
    ],
)
def test_an_author_s_mistake_is_told_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(LessonError, match=r"lab90\.en\.md") as error:
        read_lesson(written(tmp_path, text))
    assert complaint in str(error.value)


NUMBER = Predict("count", "How many?", {}, 1, 20)
CHOICE = Predict("letter", "Which?", {"a": "this", "b": "that"}, 0, 0)


@pytest.mark.parametrize(
    ("prediction", "answer", "kept"),
    [
        (NUMBER, "3", "3"),
        (NUMBER, " 007 ", "7"),
        (NUMBER, "20", "20"),
        (NUMBER, "21", None),
        (NUMBER, "0", None),
        (NUMBER, "", None),
        (NUMBER, "٣", None),
        (NUMBER, "1e1", None),
        (CHOICE, "a", "a"),
        (CHOICE, "B", "b"),
        (CHOICE, "b)", "b"),
        (CHOICE, "c", None),
        (CHOICE, "ab", None),
        (CHOICE, "", None),
    ],
)
def test_an_answer_is_kept_in_one_form_or_is_none(prediction: Predict, answer: str, kept: str | None) -> None:
    assert prediction.read(answer) == kept


def test_an_answer_says_what_was_chosen() -> None:
    assert CHOICE.words("b") == "b) that"
    assert NUMBER.words("7") == "7"


def test_facts_are_filled_in_and_known_by_run(tmp_path: Path) -> None:
    assert fill("{a.b} of {python}, {not this} {}", lambda name: name.upper()) == "A.B of PYTHON, {not this} {}"
    text = "# T\n## S {#s}\n{one.frames} {two.octets} {one.path} {one.seconds} {one.calls} {python}\n"
    assert facts_named(read_lesson(written(tmp_path, text))) == {"one": {"frames", "calls"}, "two": {"octets"}}


def test_lines_are_as_long_as_the_screen_allows() -> None:
    text = "Each call is a stream with `a number` of its own: **odd**, and a_word_that_is_longer_than_the_line."
    lines = wrap(text, 20, PLAIN)
    assert " ".join(lines) == text.replace("**", "")
    assert all(width(line) <= 20 or " " not in line for line in lines)
    assert wrap("", 20, PLAIN) == []
    assert wrap("María y José\u0301 ¡ya!", 12, PLAIN) == ["María y José\u0301", "¡ya!"]


def test_a_line_does_not_end_within_a_clause() -> None:
    assert wrap("as in RFC 9113 §6.5.2.", 12, PLAIN) == ["as in", "RFC\u00a09113\u00a0§6.5.2."]


def test_code_and_stress_are_painted_where_there_is_colour() -> None:
    painted = " ".join(wrap("(`a b`, **c d**)", 80, Paint(True, true_colour=False)))
    assert "`" not in painted
    assert "*" not in painted
    assert painted.count("\x1b[1m") == 2
    assert painted.startswith("(\x1b[38;5;172ma\x1b[0m \x1b[38;5;172mb\x1b[0m,")
    assert wrap("(`a b`, **c d**)", 80, PLAIN) == ["(`a b`, c d)"]
