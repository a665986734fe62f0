from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from capture.pcap import CaptureError
from exercises import caller, checker
from exercises.checker import WHOLE, Came, Case, Mistake, Student, call, frames_of, wrong_parts

SOON = 0.6
"""Seconds: what is tested here as being too long."""


def run(tmp_path: Path, source: str, *calls: tuple[Any, ...], seconds: float = 20.0) -> tuple[Came, list[Came]]:
    file = tmp_path / "own.py"
    file.write_text(textwrap.dedent(source), encoding="utf-8")
    return call(file, "f", list(calls) or [(1,)], seconds)


def answer(tmp_path: Path, source: str) -> Came:
    loading, came = run(tmp_path, source)
    assert loading.kind == "loaded"
    return came[0]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("None", None),
        ("(1, b'\\xff', 'ñ', 2.5, True, [None], {'a': {1}})", (1, b"\xff", "ñ", 2.5, True, [None], {"a": {1}})),
        ("Point(1, 'x')", {"x": 1, "y": "x"}),
        ("Record(Point(1, 2))", {"inside": {"x": 1, "y": 2}}),
        ("[Colour.RED, bytearray(b'a')]", [4, b"a"]),
    ],
)
def test_answers_come_back_as_they_are_and_records_as_dicts(tmp_path: Path, expression: str, value: Any) -> None:
    source = f"""
        import dataclasses, enum
        from typing import NamedTuple

        class Point(NamedTuple):
            x: int
            y: int

        @dataclasses.dataclass
        class Record:
            inside: Point

        class Colour(enum.IntEnum):
            RED = 4

        def f(n):
            return {expression}
    """
    assert answer(tmp_path, source) == Came("answer", value)


@pytest.mark.parametrize(
    ("expression", "looks"), [("object", "<class 'object'>"), ("float('nan')", "nan"), ("[0] * 99_999", "[0, 0, 0, ")]
)
def test_what_literals_cannot_say_is_told_by_how_it_looks(tmp_path: Path, expression: str, looks: str) -> None:
    came = answer(tmp_path, f"def f(n): return {expression}")
    assert came.kind == "odd"
    assert came.value.startswith(looks)
    assert len(came.value) <= caller.ODD_LENGTH


def test_a_value_whose_repr_raises_is_told_by_its_type(tmp_path: Path) -> None:
    came = answer(tmp_path, "class Bad:\n    def __repr__(self): 1 / 0\ndef f(n): return Bad()")
    assert came == Came("odd", "<Bad>")


def test_each_call_gets_its_arguments(tmp_path: Path) -> None:
    _loading, came = run(tmp_path, "def f(a, b): return a * b", (b"ab", 2), ("x", 3))
    assert [one.value for one in came] == [b"abab", "xxx"]


# What the student's code prints


def test_prints_are_told_with_the_call_that_printed_and_disturb_nothing(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys
        print("loading", end="")

        def f(n):
            print("call", n, file=sys.stderr)
            os.write(1, b"('answer', 666)\\n")
            subprocess.run([sys.executable, "-c", "print(('answer', 667))"])
            return n
    """
    loading, came = run(tmp_path, source, (1,), (2,))
    assert loading.printed == "loading"
    assert [(one.value, one.printed) for one in came] == [(1, "call 1\n"), (2, "call 2\n")]


def test_a_flood_of_prints_is_bounded(tmp_path: Path) -> None:
    _loading, came = run(tmp_path, "def f(n):\n    print('x' * 10**7)\n    return n", *[(n,) for n in range(50)])
    assert [one.value for one in came] == list(range(50))
    assert len(came[0].printed) == caller.PRINTED_A_CALL
    assert sum(len(one.printed) for one in came) == caller.PRINTED_AT_ALL


# What goes wrong


def test_of_a_traceback_only_the_students_own_lines_are_told(tmp_path: Path) -> None:
    source = """\
        import json
        def f(n):
            return helper(n)
        def helper(n):
            return json.loads("{" * n)
    """
    came = answer(tmp_path, source)
    assert came.kind == "raised"
    assert came.value.startswith("JSONDecodeError: ")
    assert came.lines == ((3, "f", "return helper(n)"), (5, "helper", 'return json.loads("{" * n)'))


def test_a_recursion_without_end_is_told_by_its_newest_lines(tmp_path: Path) -> None:
    came = answer(tmp_path, "def f(n): return f(n + 1)")
    assert came.value.startswith("RecursionError")
    assert len(came.lines) == caller.LINES


def test_a_file_that_is_no_python_is_told_by_its_line(tmp_path: Path) -> None:
    loading, came = run(tmp_path, "x = 1\ndef f(n)\n    return n\n")
    assert came == []
    assert loading.kind == "raised"
    assert loading.value.startswith("SyntaxError")
    assert loading.lines == ((2, "", "def f(n)"),)


def test_a_file_without_the_function_is_missing_it(tmp_path: Path) -> None:
    assert run(tmp_path, "def g(n): return n")[0].kind == "missing"
    assert run(tmp_path, "f = 3")[0].kind == "missing"


def test_leaving_python_politely_is_told_with_the_line(tmp_path: Path) -> None:
    came = answer(tmp_path, "import sys\ndef f(n): sys.exit('bye')")
    assert came == Came("raised", "SystemExit: bye", ((2, "f", "def f(n): sys.exit('bye')"),))


def test_leaving_python_at_once_keeps_what_was_answered_before(tmp_path: Path) -> None:
    _loading, came = run(tmp_path, "import os\ndef f(n): return n if n < 2 else os._exit(0)", (1,), (2,), (3,), (4,))
    assert [one.kind for one in came] == ["answer", "gone", "uncalled", "uncalled"]


def test_asking_for_input_does_not_wait(tmp_path: Path) -> None:
    assert answer(tmp_path, "def f(n): return input()").value.startswith("EOFError")


def test_threads_left_running_are_not_waited_for(tmp_path: Path) -> None:
    source = """
        import threading
        def f(n):
            threading.Thread(target=threading.Event().wait).start()
            return n
    """
    started = time.monotonic()
    assert answer(tmp_path, source).value == 1
    assert time.monotonic() - started < 15


def test_a_loop_without_end_is_bounded_and_told_by_its_line(tmp_path: Path) -> None:
    source = "def f(n):\n    while n:\n        pass\n    return 0\n"
    started = time.monotonic()
    _loading, came = run(tmp_path, source, (0,), (1,), (0,), seconds=SOON)
    assert time.monotonic() - started < SOON + checker.GRACE_SECONDS
    assert [one.kind for one in came] == ["answer", "stuck", "uncalled"]
    assert came[1].lines[-1][0] in (2, 3)
    assert came[1].lines[-1][1] == "f"


def test_a_loop_without_end_while_loading_is_bounded_too(tmp_path: Path) -> None:
    loading, came = run(tmp_path, "while True:\n    print('round')\n", seconds=SOON)
    assert (loading.kind, came) == ("stuck", [])
    assert loading.printed.startswith("round\n")


def test_what_python_itself_cannot_interrupt_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "GRACE_SECONDS", SOON)
    _loading, came = run(tmp_path, "def f(n): return 7 ** 7 ** 7 ** 7", seconds=SOON)
    assert [one.kind for one in came] == ["stuck"]


# What is wrong with an answer

CASE = Case((b"\1\2",), {"a": 1, "b": 2}, "here")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"a": 1, "b": 2}, []),
        ((1, 2), []),
        ([1, 3], ["b"]),
        ({"a": 0, "b": 0}, ["a", "b"]),
        ({"a": 1}, [WHOLE]),
        (None, [WHOLE]),
        (5, [WHOLE]),
    ],
)
def test_an_answer_is_wrong_part_by_part(value: Any, wrong: list[str]) -> None:
    assert wrong_parts(CASE, Came("answer", value)) == wrong


def test_an_answer_without_parts_is_compared_as_a_whole() -> None:
    case = Case((b"",), {WHOLE: (1, 2)}, "here")
    assert wrong_parts(case, Came("answer", (1, 2))) == []
    assert wrong_parts(case, Came("answer", (2, 1))) == [WHOLE]
    assert wrong_parts(case, Came("raised", "ValueError")) == [WHOLE]


def test_a_mistake_is_recognised_only_where_it_explains_every_answer() -> None:
    cases = [Case((octets,), {"a": octets[0], "b": 2}, "here") for octets in (b"\1\1", b"\3\4")]
    last = Mistake("last", lambda octets: {"a": octets[-1]})

    def told(*answers: int) -> str | None:
        pairs = [(case, Came("answer", {"a": a, "b": 2})) for case, a in zip(cases, answers, strict=True)]
        wrong = [pair for pair in pairs if wrong_parts(*pair)]
        return checker._explain({}, [last], pairs, wrong).mistake

    assert told(1, 4) == "last"
    assert told(9, 4) is None


def test_frames_come_from_a_capture_and_what_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(CaptureError):
        frames_of(tmp_path / "missing.pcapng")
    nonsense = tmp_path / "nonsense.pcapng"
    nonsense.write_bytes(b"no capture at all")
    with pytest.raises(CaptureError):
        frames_of(nonsense)


def test_a_student_with_a_long_or_evil_name_stays_on_the_line() -> None:
    assert len(Student("Ñ" * 60).origin) < 40
    assert "\x1b" not in Student("\x1b[31m").origin
