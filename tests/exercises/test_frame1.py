"""frame1: what is right is known from elsewhere, and each wrong answer is recognised by its name."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
from hyperframe.frame import ExtensionFrame

from capture.views.style import Paint
from exercises.checker import Failure, Outcome, Student, check, frames_of
from exercises.course import exercises, said
from exercises.frame1.check import MISTAKES, checks, header
from exercises.screen import Screen
from kit.text import width
from kit.words import LANGUAGES, choose_language
from lab.bench import Bench

FRAME1 = exercises()["frame1"]
COLUMNS = 80

WRONG = {
    "todo": [{"length": "0", "type_code": "0", "flags": "0", "stream_id": "0"}],
    "todo_next": [
        {"type_code": "0", "flags": "0", "stream_id": "0"},
        {"flags": "0", "stream_id": "0"},
        {"stream_id": "0"},
        {"length": "0"},
    ],
    "slice": [
        {"length": "header[0:3]"},
        {"type_code": "header[3:4]", "flags": "header[4:5]"},
        {"flags": "header[4:5]"},
        {"stream_id": "header[5:9]"},
    ],
    "little_endian": [
        {"length": 'int.from_bytes(header[0:3], "little")'},
        {"length": "header[0] + header[1] * 256 + header[2] * 65536"},
        {"stream_id": 'int.from_bytes(header[5:9], "little")'},
        {"stream_id": 'int.from_bytes(header[5:9], "little") & 0x7FFFFFFF'},
        {name: f'int.from_bytes(header[{octets}], "little")' for name, octets in
         (("length", "0:3"), ("stream_id", "5:9"))},
    ],
    "header_counted": [{"length": 'int.from_bytes(header[0:3], "big") + 9'}],
    "length_short": [
        {"length": 'int.from_bytes(header[0:2], "big")'},
        {"length": "header[1] * 256 + header[2]"},
    ],
    "length_long": [{"length": 'int.from_bytes(header[0:4], "big")'}],
    "swapped": [{"type_code": "header[4]", "flags": "header[3]"}],
    "reserved_bit": [
        {"stream_id": 'int.from_bytes(header[5:9], "big")'},
        {"stream_id": "header[5] << 24 | header[6] << 16 | header[7] << 8 | header[8]"},
    ],
    "stream_short": [
        {"stream_id": 'int.from_bytes(header[6:9], "big")'},
        {"stream_id": 'int.from_bytes(header[5:8], "big")'},
        {"stream_id": 'int.from_bytes(header[5:8], "big") & 0x7FFFFF'},
        {"stream_id": "header[8]"},
    ],
    "stream_early": [
        {"stream_id": 'int.from_bytes(header[4:8], "big")'},
        {"stream_id": 'int.from_bytes(header[4:8], "big") & 0x7FFFFFFF'},
    ],
}  # fmt: skip
"""Mistake -> ways to make it: what is written in the solution's place."""
VARIANTS = [(name, lines) for name, variants in WRONG.items() for lines in variants]

POINTED_AT = {
    "reserved_bit": (5, 5),
    "length_long": (3, 3),
    "swapped": (3, 4),
    "stream_early": (4, 4),
    "header_counted": (0, 2),
}


@pytest.fixture(scope="module")
def juan(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Who has a capture: of a real chat through the kit's own tap."""
    file = tmp_path_factory.mktemp("capture") / "demo.pcapng"
    with Bench(write=file) as bench:
        juan = bench.join("Juan")
        juan.say("Hola")
        juan.wait_until_heard("Hola")
    return Student("Juan", frames_of(file))


def answered(lines: dict[str, str], folder: Path, student: Student) -> Outcome:
    source = FRAME1.solution("en")
    for name, right in lines.items():
        source, count = re.subn(rf"^    {name} = .*$", f"    {name} = {right}", source, flags=re.MULTILINE)
        assert count == 1
    file = folder / "frame1.py"
    file.write_text(source, encoding="utf-8")
    return check(FRAME1, file, student)


def shown(failure: Failure) -> list[str]:
    return list(Screen(COLUMNS, Paint(False)).failure(FRAME1, failure, 0, "exercises/work/frame1.py"))


def test_every_named_mistake_is_made_here() -> None:
    assert set(WRONG) == set(FRAME1.mistakes) == {mistake.name for mistake in MISTAKES}


@pytest.mark.usefixtures("english_again")
@pytest.mark.parametrize("has_capture", [True, False], ids=["captured", "made"])
@pytest.mark.parametrize(("name", "lines"), VARIANTS, ids=[f"{name}{i}" for i, (name, _lines) in enumerate(VARIANTS)])
def test_a_wrong_answer_fails_with_its_own_message_in_both_languages(
    name: str, lines: dict[str, str], has_capture: bool, juan: Student, tmp_path: Path
) -> None:
    for language in LANGUAGES:
        choose_language(language)
        outcome = answered(lines, tmp_path, juan if has_capture else Student("Ana"))
        assert not outcome.passed
        assert outcome.failure is not None
        assert outcome.failure.mistake == name
        screen = shown(outcome.failure)
        text = " ".join(" ".join(screen).split())
        own = [said(part) for part in FRAME1.mistakes[name][:3]]
        assert all(words in text for words in own), text
        others = {said(other.likely) for key, other in FRAME1.mistakes.items() if key != name}
        assert not any(likely in text for likely in others), text
        assert FRAME1.mistakes[name].clause in text
        assert len(screen) <= 8, "\n".join(screen)
        assert max(map(width, screen)) <= COLUMNS, "\n".join(screen)


@pytest.mark.parametrize(("name", "octets"), POINTED_AT.items())
def test_the_caret_stands_under_the_octets_that_matter(
    name: str, octets: tuple[int, int], juan: Student, tmp_path: Path
) -> None:
    failure = answered(WRONG[name][0], tmp_path, juan).failure
    assert failure is not None
    assert failure.case is not None
    screen = shown(failure)
    at = next(i for i, line in enumerate(screen) if "^" in line)
    carets = [i for i, c in enumerate(screen[at]) if c == "^"]
    pointed = bytes.fromhex("".join(screen[at - 1][carets[0] : carets[-1] + 1]))
    assert pointed == failure.case.octets[octets[0] : octets[1] + 1]


def test_a_failure_on_the_own_capture_names_the_packet_and_what_the_capture_says(juan: Student, tmp_path: Path) -> None:
    failure = answered(WRONG["header_counted"][0], tmp_path, juan).failure
    assert failure is not None
    first = juan.frames[0]
    screen = "\n".join(shown(failure))
    assert f"{first.header.hex(' ')}  (packet {first.packet} of your capture)" in screen
    assert re.search(rf"You answered +length = {first.length + 9}\n", screen)
    assert re.search(rf"The capture says +length = {first.length}\n", screen)
    assert "hint 1 of 3" in screen


def test_what_nobody_foresaw_is_shown_without_a_cause_and_with_the_clause(juan: Student, tmp_path: Path) -> None:
    outcome = answered({"stream_id": "header[5] * header[8] + 7"}, tmp_path, juan)
    assert outcome.failure is not None
    assert outcome.failure.mistake is None
    assert outcome.failure.parts == ["stream_id"]
    screen = "\n".join(shown(outcome.failure))
    assert "Likely" not in screen
    assert "RFC 9113 §4.1" in screen
    assert said(FRAME1.parts["stream_id"]) in screen


def test_of_several_mistakes_the_one_in_the_first_number_is_told(juan: Student, tmp_path: Path) -> None:
    lines = WRONG["reserved_bit"][0] | WRONG["swapped"][0] | WRONG["header_counted"][0]
    outcome = answered(lines, tmp_path, juan)
    assert outcome.failure is not None
    assert outcome.failure.mistake == "header_counted"


@pytest.mark.parametrize(
    ("name", "passed"),
    [("reserved_bit", {"example", "capture", "made", "large"}), ("header_counted", set())],
)
def test_the_score_says_which_checks_passed(name: str, passed: Iterable[str], juan: Student, tmp_path: Path) -> None:
    outcome = answered(WRONG[name][0], tmp_path, juan)
    assert {check for check, is_passed in outcome.checks.items() if is_passed} == passed


def test_a_plain_tuple_in_the_right_order_passes(tmp_path: Path) -> None:
    file = tmp_path / "frame1.py"
    source = FRAME1.solution("en").replace("return FrameHeader(", "return tuple([").replace("stream_id)", "stream_id])")
    file.write_text(source, encoding="utf-8")
    assert check(FRAME1, file, Student("Juan")).passed


# What is right


def test_the_encoder_agrees_with_independent_ones(juan: Student) -> None:
    """hyperframe knows no reserved bit; struct reads it as part of the identifier, which it is not."""
    for case in (case for one in checks(juan) for case in one.cases):
        numbers = case.expected
        frame = ExtensionFrame(numbers["type"], numbers["stream_id"], numbers["flags"])
        frame.body_len = numbers["length"]
        octets = bytearray(case.octets)
        octets[5] &= 0x7F
        assert frame.serialize()[:9] == octets
        first, length, type_code, flags, stream_id = struct.unpack(">BHBBL", case.octets)
        read = {"length": first << 16 | length, "type": type_code, "flags": flags, "stream_id": stream_id % 2**31}
        assert read == numbers


def test_the_capture_is_asked_for_headers_that_stand_in_it_octet_by_octet(juan: Student) -> None:
    captured = next(one for one in checks(juan) if one.name == "capture")
    assert {case.octets for case in captured.cases} == {frame.header for frame in juan.frames}
    packets = {frame.packet: [] for frame in juan.frames}  # type: dict[int, list[bytes]]
    for frame in juan.frames:
        packets[frame.packet].append(frame.header)
    for case in captured.cases:
        number = re.search(r"\d+", case.origin)
        assert number is not None
        assert case.octets in packets[int(number[0])]


def test_the_reserved_bit_changes_the_octets_and_not_the_answer() -> None:
    plain, reserved = (header((1, 2, 3, 4), reserved=bit) for bit in (False, True))
    assert plain == bytes.fromhex("000001 02 03 00000004")
    assert reserved == bytes.fromhex("000001 02 03 80000004")


def test_values_are_the_students_own_and_always_the_same() -> None:
    def made(name: str) -> list[bytes]:
        return [case.octets for one in checks(Student(name)) for case in one.cases if one.name != "example"]

    assert made("Juan") == made("Juan")
    assert not set(made("Juan")) & set(made("Ana"))
    assert Student("Juan").random("frame1").random() == Random("frame1/Juan").random()
