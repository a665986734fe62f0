"""Two readings beside each other, without anybody's program: what is paired, what differs, what explains it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.compare import (
    COLUMNS,
    Comparison,
    Difference,
    Frame,
    Reading,
    aligned,
    compared,
    differences,
    frame_of,
)
from capture.events import Event, FrameEvent, Problem, Unknown
from capture.sources import tshark
from tests.capture.factory import CLIENT, SERVER, Talk


def reading_of(events: list[Event]) -> Reading:
    reading = Reading()
    reading.feed(events)
    return reading


def conversation() -> Talk:
    """Two calls, with frames that are all alike among others."""
    talk = Talk()
    talk.begin()
    for stream in (1, 3):
        talk.request(stream)
        for _ in range(4):
            talk.data(CLIENT, stream, b"message")
            talk.window_update(SERVER, 0, 7)
        talk.response(stream)
        talk.trailers(stream)
    talk.goaway(SERVER, 3)
    return talk


def beside(theirs: list[Frame], reading: Reading | None = None) -> Comparison:
    return compared(reading or reading_of(conversation().events), theirs, "they", tshark.traits)


def frames() -> list[Frame]:
    return reading_of(conversation().events).frames


def verdicts(comparison: Comparison) -> dict[str, int]:
    return {verdict: count for verdict, count in comparison.counts.items() if count}


def changed(frame: Frame, **content: object) -> Frame:
    return frame._replace(content=frame.content | content)


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_the_same_reading_is_equal_in_every_row() -> None:
    comparison = beside(frames())
    assert verdicts(comparison) == {"equal": len(frames())}
    assert comparison.differences == comparison.explained == 0
    assert [row.frame.packet for row in comparison.rows] == sorted(frame.packet for frame in frames())


@pytest.mark.parametrize("at", range(0, len(frames()), 3))
def test_a_frame_that_they_lack_is_ours_only_and_its_neighbours_stay_paired(at: int) -> None:
    theirs = frames()
    lacking = theirs.pop(at)
    comparison = beside(theirs)
    assert verdicts(comparison) == {"equal": len(theirs), "ours_only": 1}
    (row,) = [row for row in comparison.rows if row.theirs is None]
    assert row.ours == lacking


@pytest.mark.parametrize("at", range(0, len(frames()), 3))
def test_a_frame_that_only_they_have_is_theirs_only(at: int) -> None:
    theirs = frames()
    invented = theirs[at]._replace(type_code=0xBB, length=1)
    theirs.insert(at, invented)
    comparison = beside(theirs)
    assert verdicts(comparison) == {"equal": len(frames()), "theirs_only": 1}
    (row,) = [row for row in comparison.rows if row.ours is None]
    assert row.frame == row.theirs == invented


def test_a_frame_in_another_packet_is_the_same_frame() -> None:
    theirs = frames()
    theirs[-1] = theirs[-1]._replace(packet=99)
    row = beside(theirs).rows[-1]
    assert row.differences == (Difference("packet", frames()[-1].packet, 99),)
    assert row.trait is not None
    assert "reassembly" in row.trait


def test_frames_of_one_type_and_stream_are_paired_though_their_lengths_differ() -> None:
    theirs = frames()
    at = next(i for i, frame in enumerate(theirs) if frame.type_code == 0)
    theirs[at] = theirs[at]._replace(length=9, packet=theirs[at].packet + 1)
    comparison = beside(theirs)
    assert verdicts(comparison) == {"equal": len(theirs) - 1, "differing": 1}
    (row,) = [row for row in comparison.rows if row.differences]
    assert {one.column for one in row.differences} == {"packet", "length"}
    assert row.trait is None


def test_directions_and_connections_are_kept_apart() -> None:
    other = Talk(1)
    other.begin()
    both = conversation().events + other.events
    theirs = reading_of(both).frames
    random.Random(4).shuffle(theirs)
    theirs.sort(key=lambda frame: frame.packet)  # in a packet's order, but mixed otherwise
    assert verdicts(beside(theirs, reading_of(both))) == {"equal": len(theirs)}


@given(st.data())
def test_every_frame_has_one_row_whatever_either_lacks(data: st.DataObject) -> None:
    whole = frames()
    keep = st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))
    ours, theirs = ([frame for frame, kept in zip(whole, data.draw(keep), strict=True) if kept] for _ in range(2))
    pairs = aligned(ours, theirs)
    assert sorted(one.packet for one, _two in pairs if one) == [frame.packet for frame in ours]
    assert sorted(two.packet for _one, two in pairs if two) == [frame.packet for frame in theirs]
    common = {frame.packet for frame in ours} & {frame.packet for frame in theirs}
    assert common <= {one.packet for one, two in pairs if one and one == two}


# -- differences -------------------------------------------------------------------------------------------------------


def test_what_a_frame_says_is_compared_column_by_column() -> None:
    talk = Talk()
    pairs: list[tuple[FrameEvent, dict[str, Any]]] = [
        (talk.settings(CLIENT, {3: 100, 99: 1}), {"settings": [(3, 100), (99, 2)]}),
        (talk.window_update(CLIENT, 0, 7), {"increment": 8}),
        (talk.reset(CLIENT, 1, 8), {"error_code": 7}),
        (talk.goaway(SERVER, 3, 11, b"bye"), {"debug_data": b"by"}),
        (talk.ping(SERVER, b"12345678"), {"opaque_data": b"12345679"}),
        (talk.data(CLIENT, 1, b"abc", pad=2), {"data_length": 5}),
        (talk.request(1), {"fields": ((":method", "GET"),)}),
    ]
    for event, wrong in pairs:
        ours = frame_of(event)
        assert differences(ours, ours) == ()
        (found,) = differences(ours, changed(ours, **wrong))
        assert found.column == next(iter(wrong))
        assert found.column in COLUMNS
    assert differences(frame_of(pairs[0][0]), changed(frame_of(pairs[0][0]), settings=[(3, 100), (99, 2)])) == (
        Difference("settings", [["SETTINGS_MAX_CONCURRENT_STREAMS", 100], [99, 1]],
                   [["SETTINGS_MAX_CONCURRENT_STREAMS", 100], [99, 2]]),
    )  # fmt: skip


def test_octets_that_differ_are_noticed() -> None:
    talk = Talk()
    ours, theirs = talk.data(CLIENT, 1, b"abc"), talk.data(CLIENT, 1, b"abd", after_ns=0)
    (found,) = differences(frame_of(ours), frame_of(theirs)._replace(packet=ours.packet))
    assert found.column == "payload"


def test_a_column_that_one_of_them_does_not_tell_is_not_compared_unless_it_is_the_fields() -> None:
    talk = Talk()
    update, request = frame_of(talk.window_update(CLIENT, 0, 7)), frame_of(talk.request(1))
    assert differences(update, update._replace(content={})) == ()
    (found,) = differences(request, request._replace(content={}))
    assert (found.column, found.theirs) == ("fields", None)


def test_unknown_is_unknown_whatever_its_label() -> None:
    talk = Talk()
    ours = frame_of(talk.request(1, Unknown("?-3")))
    ours = changed(ours, payload=None)
    theirs, known = (frame_of(talk.request(1, path)) for path in (Unknown("?"), "/a/b"))
    assert differences(ours, ours._replace(content=theirs.content)) == ()
    (found,) = differences(ours, ours._replace(content=known.content))
    assert found.ours[2] == [":path", {"unknown": "?-3"}]


# -- circumstances -----------------------------------------------------------------------------------------------------


def test_a_beginning_that_was_seen_is_not_late_and_one_in_the_middle_is() -> None:
    assert not reading_of(conversation().events).late
    assert reading_of(conversation().events[6:]).late == {0}


def test_an_upgrade_is_no_direct_conversation() -> None:
    talk = conversation()
    assert reading_of(talk.events).direct == {0: True}
    upgraded = [event._replace(offset=event.offset + 200) for event in talk.frames]
    assert reading_of([*upgraded]).direct == {0: False}


def test_fields_behind_a_gap_are_explained_by_it() -> None:
    talk = conversation()
    talk.gap(CLIENT)
    talk.request(5, Unknown("?-1"))
    reading = reading_of(talk.events)
    theirs = [*reading.frames]
    theirs[-1] = changed(theirs[-1], fields=((":method", "GET"),))
    (row,) = [row for row in beside(theirs, reading).rows if row.differences]
    assert row.trait is not None
    assert "as if no field block were missing" in row.trait


def test_a_late_start_explains_fields_and_frames_that_they_lack() -> None:
    talk = Talk(whole=False)
    talk.request(5, Unknown("?-1"))
    talk.data(CLIENT, 5, b"x")
    reading = reading_of(talk.events)
    request, _data = reading.frames
    guessed, given_up = (beside([changed(request, fields=fields)], reading) for fields in (((":a", "b"),), ()))
    assert [row.trait is not None for row in guessed.rows] == [True, True]
    assert "99 entries" in str(guessed.rows[0].trait)
    assert "beyond 99" in str(given_up.rows[0].trait)
    assert "inside a frame" in str(guessed.rows[1].trait)


def test_a_difference_that_nothing_explains_has_no_trait() -> None:
    theirs = frames()
    theirs[0] = changed(theirs[0], settings=[(1, 1)])
    comparison = beside(theirs)
    assert (comparison.differences, comparison.explained) == (1, 0)


def test_frames_of_a_connection_that_is_tls_to_us_were_decrypted() -> None:
    talk = conversation()
    problem = Problem(1, 1, talk.connection, CLIENT, 0, "tls", "TLS: what it carries is encrypted", {})
    comparison = beside(frames(), reading_of([problem]))
    assert verdicts(comparison) == {"theirs_only": len(frames())}
    assert all("decrypted" in str(row.trait) for row in comparison.rows)


def test_rows_can_be_chosen_by_connection_and_stream() -> None:
    comparison = beside(frames())
    assert {row.frame.stream_id for row in comparison.only(None, 3).rows} == {3}
    assert comparison.only(1, None).rows == []
    assert len(comparison.only(0, None).rows) == len(comparison.rows)


def test_a_frame_s_record_is_plain() -> None:
    talk = Talk()
    event = talk.headers(CLIENT, 1, [(":path", "/"), (Unknown("?-1"), b"\xff")])
    record = frame_of(event).record
    assert record["fields"] == [[":path", "/"], [{"unknown": "?-1"}, {"base64": "/w=="}]]
    assert frame_of(talk.ping(CLIENT, b"12345678")).record["opaque_data"] == "3132333435363738"


def test_more_frames_than_are_kept_are_counted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capture.compare.MAX_FRAMES", 10)
    reading = reading_of(conversation().events)
    assert len(reading.frames) == 10
    assert reading.is_cut
