"""A comparison as people read it."""

from __future__ import annotations

import pytest

from capture.compare import Frame, Reading, compared
from capture.events import Unknown
from capture.sources import tshark
from capture.views import comparison as view
from capture.views.style import Paint
from kit.text import width
from tests.capture.factory import SERVER, Talk


def told(frames: list[Frame], reading: Reading, **look: object) -> list[str]:
    return list(view.render(compared(reading, frames, "Wireshark 4", tshark.traits), **look))  # type: ignore[arg-type] # passed on


def conversation(calls: int = 1) -> Reading:
    talk = Talk()
    talk.begin()
    for i in range(calls):
        talk.request(2 * i + 1, end=True)
        talk.trailers(2 * i + 1)
    reading = Reading()
    reading.feed(talk.events)
    return reading


def test_equal_frames_are_listed_in_a_short_capture() -> None:
    reading = conversation()
    lines = told(reading.frames, reading)
    assert len(lines) == 1 + len(reading.frames) + 2
    assert lines[5].split() == ["=", "5", "→", "1", "HEADERS", "57", "END_STREAM", "END_HEADERS", "HEADERS"]
    assert lines[6].split()[:5] == ["=", "6", "←", "1", "HEADERS"]
    assert lines[-1] == "Beside Wireshark 4: 6 frames · 6 equal · 0 differing · 0 ours only · 0 theirs only"


def test_in_a_narrow_terminal_the_summary_takes_two_lines() -> None:
    reading = conversation()
    lines = told(reading.frames, reading, columns=60)
    assert max(map(width, lines[-2:])) <= 60
    assert " ".join(lines[-2:]).endswith("0 ours only · 0 theirs only")


def test_in_a_long_capture_what_agrees_is_counted_and_what_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MAX_LISTED", 10)
    reading = conversation(10)
    theirs = list(reading.frames)
    theirs[11] = theirs[11]._replace(flags=0xFF)
    lines = told(theirs, reading)
    assert len(lines) == 6
    assert lines[1] == "= 11 frames, packets 1 to 11: equal"
    assert lines[2].startswith("≠       12 ←")
    assert lines[3] == "= 12 frames, packets 13 to 24: equal"
    assert len(told(theirs, reading, every=True)) == 1 + 24 + 2


def test_what_differs_stands_below_its_frame_line_by_line() -> None:
    talk = Talk(whole=False)
    talk.request(1, Unknown("?-3"), {Unknown("?-1"): "x\x1b[31m"})
    reading = Reading()
    reading.feed(talk.events)
    fields = list(reading.frames[0].content["fields"])
    fields[2] = (":path", "/other")
    lines = told([reading.frames[0]._replace(content={"fields": (*fields, ("more", "here"))})], reading)
    assert lines[1].startswith("≠")
    assert lines[1].endswith("[1]")
    assert lines[2].split() == ["fields", "3", "ours", ":path:", "?-3", "·", "Wireshark", ":path:", "/other"]
    assert lines[3].split() == ["fields", "8", "ours", "—", "·", "Wireshark", "more:", "here"]
    assert lines[5].startswith("[1] Wireshark")
    assert lines[-1].endswith("; 1 of 1 explained by what is known of it")
    assert "\x1b" not in "".join(lines)


def test_frames_of_one_side_stand_on_their_side() -> None:
    reading = conversation()
    theirs = [*reading.frames[:-1], reading.frames[-1]._replace(type_code=0xBB, stream_id=9)]
    lines = told(theirs, reading)
    ours_only, theirs_only = lines[6:8]
    assert ours_only.startswith("<")
    assert ours_only.endswith("—")
    assert theirs_only.startswith(">")
    assert theirs_only.index("type 0xbb") > ours_only.index("HEADERS")


def test_several_connections_are_told_apart_and_a_narrow_terminal_is_kept_to_below_the_frames() -> None:
    talks = [Talk(number, whole=False) for number in (0, 1)]
    reading = Reading()
    for talk in talks:
        talk.goaway(SERVER, 1, 0, b"why " * 40)
        reading.feed(talk.events)
    theirs = [frame._replace(content={"debug_data": b""}) for frame in reading.frames]
    lines = told(theirs, reading, columns=60)
    assert lines[1].split()[:3] == ["≠", "0", "1"]
    assert [width(line) for line in lines if "debug_data" in line] == [60, 60]


def test_where_there_is_no_room_beside_ours_theirs_stands_below() -> None:
    reading = conversation()
    theirs = [*reading.frames[:-1], reading.frames[-1]._replace(flags=0)]
    wide, narrow = (told(theirs, reading, columns=columns) for columns in (160, 80))
    assert len(narrow) == len(wide) + 2, "and so does the end of the summary"
    assert narrow[7].endswith(" Wireshark")
    assert narrow[7].index("HEADERS") == narrow[6].index("HEADERS")
    assert max(map(width, narrow[1:6])) <= 80


def test_colour_is_only_added() -> None:
    reading = conversation()
    plain = told(reading.frames[1:], reading)
    coloured = told(reading.frames[1:], reading, paint=Paint(True, true_colour=False))
    assert "\x1b[" in "".join(coloured)
    assert "\x1b[" not in "".join(plain)


def test_a_comparison_that_was_cut_says_so() -> None:
    reading = conversation()
    reading.is_cut = True
    whole = compared(reading, reading.frames, "they", tshark.traits)
    assert view.summary(whole).endswith("only the first 6 frames were compared")
