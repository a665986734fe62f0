"""Flow-control windows as an observer can know them, and who was blocked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture import withheld
from capture.events import Direction, ErrorCode, Event, FrameType, Setting, WindowSample
from capture.windows import INITIAL_WINDOW, MAX_WINDOW, BlockedSpan, Windows, blocked_spans
from tests.capture.factory import CLIENT, SERVER, Talk

Row = tuple[Direction, int, int, int]
"""Direction, stream, octets, cause."""


def run(events: list[Event]) -> list[Row]:
    model = Windows()
    return [row(sample) for sample in model.feed(events) + model.finish()]


def row(sample: WindowSample) -> Row:
    return sample.direction, sample.stream_id, sample.octets, sample.cause


def problems(events: list[Event]) -> list[str]:
    model = Windows()
    model.feed(events)
    model.finish()
    assert all(problem.layer == "http2" for problem in model.problems)
    assert all(problem.error_code == ErrorCode.FLOW_CONTROL_ERROR for problem in model.problems)
    return [problem.reason for problem in model.problems]


def last(events: list[Event]) -> dict[tuple[Direction, int], int]:
    """The windows in the end."""
    return {(direction, stream): octets for direction, stream, octets, _ in run(events)}


def begun(client_window: int | None = None, server_window: int | None = None) -> Talk:
    talk = Talk()
    talk.begin(client_window, server_window)
    return talk


# --- What changes windows


def test_data_takes_from_the_stream_and_from_the_connection_padding_included() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100), pad=9)
    assert run(talk.events) == [(CLIENT, 0, 65535 - 110, 5), (CLIENT, 1, 65535 - 110, 5)]


def test_a_sample_has_the_time_of_its_cause() -> None:
    talk = begun()
    talk.request(1)
    frame = talk.data(CLIENT, 1, b"x")
    talk.window_update(SERVER, 0, 1)
    sample = Windows().feed(talk.events)[0]
    assert (sample.time_ns, sample.connection) == (frame.time_ns, talk.connection)


def test_a_window_update_gives_to_who_receives_it() -> None:
    talk = begun()
    talk.request(1)
    talk.window_update(SERVER, 0, 1000)
    talk.window_update(SERVER, 1, 10)
    talk.window_update(CLIENT, 1, 20)
    assert run(talk.events) == [(CLIENT, 0, 66535, 5), (CLIENT, 1, 65545, 6), (SERVER, 1, 65555, 7)]


def test_streams_start_with_what_the_other_side_s_settings_say() -> None:
    talk = begun(client_window=1000, server_window=2000)
    talk.request(1)
    talk.response(1)
    talk.data(CLIENT, 1, b"c")
    talk.data(SERVER, 1, b"s")
    assert last(talk.events) == {(CLIENT, 0): 65534, (CLIENT, 1): 1999, (SERVER, 0): 65534, (SERVER, 1): 999}


def test_no_setting_moves_the_connection_s_window() -> None:
    talk = begun(server_window=0)
    assert run(talk.events) == []


def test_a_setting_applies_where_it_is_acknowledged_and_shifts_open_streams() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, bytes(535))
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 100})
    talk.data(CLIENT, 1, bytes(1000))
    acknowledged = talk.settings(CLIENT, ack=True)
    talk.request(3)
    talk.data(CLIENT, 3, bytes(10))
    assert run(talk.events) == [
        (CLIENT, 0, 65000, 5), (CLIENT, 1, 65000, 5),
        (CLIENT, 0, 64000, 7), (CLIENT, 1, 64000, 7),
        (CLIENT, 1, 100 - 1535, talk.frames.index(acknowledged)),
        (CLIENT, 0, 63990, 10), (CLIENT, 3, 90, 10),
    ]  # fmt: skip


def test_a_negative_window_climbs_back() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, bytes(1000))
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 0})
    talk.settings(CLIENT, ack=True)
    talk.window_update(SERVER, 1, 1001)
    assert [octets for direction, stream, octets, _ in run(talk.events) if stream] == [64535, -1000, 1]


def test_settings_are_acknowledged_in_their_order_and_the_last_value_in_a_frame_counts() -> None:
    talk = begun()
    talk.request(1)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 10})
    talk.settings(SERVER, {Setting.MAX_FRAME_SIZE: 16384})
    twice = b"\x00\x04\x00\x00\x00\x14\x00\x04\x00\x00\x00\x1e"
    talk.frame(SERVER, FrameType.SETTINGS, twice)
    for _ in range(3):
        talk.settings(CLIENT, ack=True)
    assert run(talk.events) == [(CLIENT, 1, 10, 8), (CLIENT, 1, 30, 10)]


def test_the_client_s_first_requests_may_come_before_the_server_s_settings() -> None:
    talk = Talk()
    talk.settings(CLIENT, {Setting.INITIAL_WINDOW_SIZE: 5000})
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100), end=False)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.settings(SERVER, ack=True)
    talk.settings(CLIENT, ack=True)
    assert run(talk.events) == [
        (CLIENT, 0, 65435, 2),
        (CLIENT, 1, 65435, 2),
        (SERVER, 1, 5000, 4),
        (CLIENT, 1, 900, 5),
    ]


def test_a_server_that_speaks_first_is_heard() -> None:
    talk = Talk()
    talk.settings(SERVER)
    talk.window_update(SERVER, 0, 1000)
    talk.settings(CLIENT)
    assert run(talk.events) == [(CLIENT, 0, 66535, 1)]


def test_an_empty_frame_changes_nothing() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, b"", end=True)
    assert run(talk.events) == []


def test_data_on_a_stream_that_was_reset_still_counts_for_the_connection() -> None:
    talk = begun()
    talk.request(1)
    talk.reset(CLIENT, 1)
    talk.data(SERVER, 1, bytes(100))
    assert run(talk.events) == [(SERVER, 0, 65435, 6)]


def test_a_side_that_ended_is_not_shifted_any_more() -> None:
    talk = begun()
    talk.request(1, end=True)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 10})
    talk.settings(CLIENT, ack=True)
    assert run(talk.events) == []


def test_causes_count_the_frames_of_all_connections() -> None:
    one, two = begun(), Talk(1)
    two.begin()
    one.request(1)
    two.request(1)
    one.data(CLIENT, 1, b"x")
    two.data(CLIENT, 1, b"x")
    events = [event for pair in zip(one.events, two.events, strict=True) for event in pair]
    model = Windows()
    samples = model.feed(events) + model.finish()
    assert [(sample.connection.number, sample.cause) for sample in samples] == [(0, 10), (0, 10), (1, 11), (1, 11)]


@given(st.lists(st.tuples(st.sampled_from(["data", "update", "whole"]), st.sampled_from(list(Direction)),
                          st.sampled_from([1, 3]), st.integers(1, 3000)), max_size=40), st.integers(1, 7))  # fmt: skip
def test_windows_are_what_was_given_less_what_was_taken(
    moves: list[tuple[str, Direction, int, int]], step: int
) -> None:
    talk = begun(7000, 9000)
    talk.request(1)
    talk.request(3)
    left = {(way, 0): INITIAL_WINDOW for way in Direction}
    left |= {(way, stream): 9000 if way == CLIENT else 7000 for way in Direction for stream in (1, 3)}
    for what, way, stream, octets in moves:
        if what == "data":
            talk.data(way, stream, bytes(octets))
            left[way, 0] -= octets
            left[way, stream] -= octets
        else:
            to = stream if what == "update" else 0
            talk.window_update(Direction(1 - way), to, octets)
            left[way, to] += octets
    seen = last(talk.events)
    assert seen == {key: left[key] for key in seen}
    model, batched = Windows(), []
    for at in range(0, len(talk.events), step):
        batched += model.feed(talk.events[at : at + step])
    assert [row(sample) for sample in batched + model.finish()] == run(talk.events)


# --- What is not known


def test_after_a_late_start_no_window_is_invented() -> None:
    talk = Talk(whole=False)
    talk.data(SERVER, 1, bytes(100))
    talk.window_update(CLIENT, 0, 100)
    talk.request(3)
    talk.data(CLIENT, 3, bytes(100))
    assert run(talk.events) == []


def test_after_a_late_start_streams_are_known_once_settings_were_acknowledged() -> None:
    talk = Talk(whole=False)
    talk.request(1)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.settings(CLIENT, ack=True)
    talk.data(CLIENT, 1, b"x")
    talk.request(3)
    talk.data(CLIENT, 3, b"x")
    assert run(talk.events) == [(CLIENT, 3, 999, 5)]


def test_after_a_late_start_trailers_do_not_open_a_stream() -> None:
    talk = Talk(whole=False)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.settings(CLIENT, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.settings(CLIENT, ack=True)
    talk.settings(SERVER, ack=True)
    talk.headers(CLIENT, 1, [("x-checksum", "1")], end=True)
    talk.data(SERVER, 1, b"x")
    talk.response(3)
    talk.data(SERVER, 3, b"x")
    talk.request(5, end=True)
    talk.data(SERVER, 5, b"x")
    assert run(talk.events) == [(SERVER, 5, 999, 9)]


def test_settings_first_are_not_enough_for_a_start_without_a_preface_before_them() -> None:
    talk = Talk(whole=False)
    talk.begin()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    assert run(talk.events) == []


@pytest.mark.parametrize("held", [4, 10_000])
def test_a_capture_of_one_direction_shows_no_windows(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(withheld, "MAX_WITHHELD", held)
    talk = Talk()
    talk.settings(CLIENT)
    talk.request(1)
    for _ in range(10):
        talk.data(CLIENT, 1, bytes(10000))
    assert run(talk.events) == []
    assert problems(talk.events) == []


def test_a_gap_ends_what_was_known_and_streams_that_open_later_are_known_again() -> None:
    talk = begun(server_window=1000)
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    talk.gap(SERVER)
    talk.data(CLIENT, 1, b"x")
    talk.window_update(SERVER, 0, 5)
    talk.request(3)
    talk.data(CLIENT, 3, b"x")
    assert run(talk.events) == [(CLIENT, 3, 999, 9)]


def test_what_was_counted_while_nobody_knew_of_a_gap_is_not_told() -> None:
    talk = begun(server_window=1000)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(600))
    talk.window_update(SERVER, 1, 1)
    talk.data(CLIENT, 1, bytes(600))  # after an update that the gap holds
    talk.gap(SERVER)
    assert run(talk.events) == [(CLIENT, 0, 64935, 5), (CLIENT, 1, 400, 5), (CLIENT, 1, 401, 6)]
    assert problems(talk.events) == []
    assert blocked_spans(talk.events) == []


def test_live_nothing_is_held_once_both_sides_were_heard() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    assert [row(sample) for sample in Windows(live=True).feed(talk.events)] == [
        (CLIENT, 0, 65534, 5),
        (CLIENT, 1, 65534, 5),
    ]


def test_samples_come_in_the_order_of_their_causes_though_one_connection_falls_silent() -> None:
    one, two = begun(), Talk(1)
    two.begin()
    one.request(1)
    two.request(1)
    one.data(CLIENT, 1, b"x")
    for _ in range(5):
        two.data(CLIENT, 1, b"x")
        two.window_update(SERVER, 0, 1)
    assert sorted(run(one.events + two.events), key=lambda entry: entry[3]) == run(one.events + two.events)


def test_no_more_is_held_than_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withheld, "MAX_WITHHELD", 6)
    talk = begun()
    talk.request(1)
    for _ in range(10):
        talk.data(CLIENT, 1, b"x")
    model = Windows()
    assert len(model.feed(talk.events)) == 14
    assert len(model.finish()) == 6


def test_an_acknowledgement_of_settings_that_a_gap_holds_is_noticed() -> None:
    talk = begun(server_window=1000)
    talk.gap(SERVER)
    talk.settings(CLIENT, ack=True)
    talk.request(3)
    talk.data(CLIENT, 3, b"x")
    assert run(talk.events) == []


def test_an_acknowledgement_that_a_gap_may_hold_leaves_the_initial_window_unknown() -> None:
    talk = begun()
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.gap(CLIENT)
    talk.request(3)
    talk.data(CLIENT, 3, b"x")
    assert run(talk.events) == []


def test_gaps_of_both_directions_may_hold_settings_and_their_acknowledgement() -> None:
    for first in (CLIENT, SERVER):
        talk = begun(server_window=1000)
        talk.gap(first)
        talk.request(3)
        talk.data(CLIENT, 3, b"x")
        talk.ping(SERVER, bytes(8))
        talk.gap(Direction(1 - first))
        talk.request(5)
        talk.data(CLIENT, 5, b"x")
        assert [(stream, octets) for _, stream, octets, _ in run(talk.events) if stream] == [(3, 999)]
        talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 500})
        talk.settings(CLIENT, ack=True)
        talk.gap(first)
        talk.request(7)
        talk.data(CLIENT, 7, b"x")
        assert [(stream, octets) for _, stream, octets, _ in run(talk.events) if stream] == [(3, 999), (7, 499)]


def test_a_gap_within_one_frame_costs_only_what_that_frame_said() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100), lost=True)
    talk.gap(CLIENT, frames_lost=False)
    talk.window_update(SERVER, 1, 5, lost=True)
    talk.data(CLIENT, 1, bytes(100))
    assert run(talk.events) == [(CLIENT, 0, 65435, 5), (CLIENT, 1, 65435, 5), (CLIENT, 0, 65335, 7)]


def test_settings_whose_octets_are_missing_leave_streams_unknown_from_their_acknowledgement_on() -> None:
    talk = begun()
    talk.request(1)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 5}, lost=True)
    talk.data(CLIENT, 1, b"x")
    talk.settings(CLIENT, ack=True)
    talk.data(CLIENT, 1, b"x")
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 9})
    talk.settings(CLIENT, ack=True)
    talk.data(CLIENT, 1, b"x")
    talk.request(3)
    talk.data(CLIENT, 3, b"x")
    assert [entry for entry in run(talk.events) if entry[1]] == [(CLIENT, 1, 65534, 6), (CLIENT, 3, 8, 13)]


def test_behind_an_upgrade_the_client_s_initial_window_is_unknown_until_its_settings_say_it() -> None:
    talk = Talk()
    talk.offsets = [24 + 150, 70]
    talk.settings(CLIENT, {Setting.INITIAL_WINDOW_SIZE: 1000})
    talk.settings(SERVER)
    talk.response(1)
    talk.data(SERVER, 1, b"x")
    talk.settings(SERVER, ack=True)
    talk.request(3, end=True)
    talk.data(SERVER, 3, b"x")
    assert run(talk.events) == [(SERVER, 0, 65534, 3), (SERVER, 0, 65533, 6), (SERVER, 3, 999, 6)]


# --- What breaks the rules


def test_data_beyond_the_window_is_a_problem() -> None:
    talk = begun(server_window=50)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(60))
    assert problems(talk.events) == ["DATA of 60 octets on stream 1, where 50 were left (RFC 9113 §6.9.1)"]
    talk = begun(server_window=MAX_WINDOW)
    talk.request(1)
    for _ in range(4):
        talk.data(CLIENT, 1, bytes(16384))
    assert problems(talk.events) == [
        "DATA of 16384 octets, where the connection's window had 16383 left (RFC 9113 §6.9.1)"
    ]


def test_data_that_a_setting_on_its_way_allows_is_no_problem() -> None:
    talk = begun(server_window=50)
    talk.request(1)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 100})
    talk.data(CLIENT, 1, bytes(60))
    assert problems(talk.events) == []


def test_a_window_beyond_2_to_the_31_minus_1_is_a_problem() -> None:
    talk = begun()
    talk.request(1)
    talk.window_update(SERVER, 0, MAX_WINDOW)
    talk.window_update(SERVER, 1, MAX_WINDOW - INITIAL_WINDOW)
    talk.window_update(SERVER, 1, 1)
    assert problems(talk.events) == [
        f"the connection's window becomes {MAX_WINDOW + INITIAL_WINDOW}, more than 2^31−1 (RFC 9113 §6.9.1)",
        f"the window of stream 1 becomes {MAX_WINDOW + 1}, more than 2^31−1 (RFC 9113 §6.9.1)",
    ]


def test_a_setting_that_lifts_a_window_too_far_is_a_problem() -> None:
    talk = begun()
    talk.request(1)
    talk.window_update(SERVER, 1, 1000)
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW})
    talk.settings(CLIENT, ack=True)
    assert problems(talk.events) == [
        f"the window of stream 1 becomes {MAX_WINDOW + 1000}, more than 2^31−1 (RFC 9113 §6.9.1)"
    ]


# --- Who was blocked


def test_a_stream_s_window_blocks_until_it_is_opened_again() -> None:
    talk = begun(server_window=100)
    talk.request(1)
    stop = talk.data(CLIENT, 1, bytes(100))
    free = talk.window_update(SERVER, 1, 50, after_ns=3_000_000)
    go = talk.data(CLIENT, 1, bytes(50))
    assert blocked_spans(talk.events) == [
        BlockedSpan(talk.connection, CLIENT, 1, 1, stop.time_ns, free.time_ns, 5, 6, go.time_ns),
        BlockedSpan(talk.connection, CLIENT, 1, 1, go.time_ns, None, 7, None, None),
    ]


def test_the_connection_s_window_blocks_every_stream_and_any_stream_s_data_ends_the_silence() -> None:
    talk = begun(server_window=MAX_WINDOW)
    talk.request(1)
    talk.request(3)
    stop = talk.data(CLIENT, 1, bytes(INITIAL_WINDOW))
    talk.window_update(SERVER, 1, 1)
    free = talk.window_update(SERVER, 0, 10)
    go = talk.data(CLIENT, 3, b"x")
    assert blocked_spans(talk.events) == [
        BlockedSpan(talk.connection, CLIENT, 0, 1, stop.time_ns, free.time_ns, 6, 8, go.time_ns)
    ]


def test_an_update_that_leaves_the_window_below_1_frees_nobody() -> None:
    talk = begun()
    talk.request(1)
    talk.data(CLIENT, 1, bytes(1000))
    talk.settings(SERVER, {Setting.INITIAL_WINDOW_SIZE: 0})
    shut = talk.settings(CLIENT, ack=True)
    talk.window_update(SERVER, 1, 1000)
    free = talk.window_update(SERVER, 1, 1)
    go = talk.data(CLIENT, 1, b"x")
    assert blocked_spans(talk.events)[0] == BlockedSpan(
        talk.connection, CLIENT, 1, 1, shut.time_ns, free.time_ns, 7, 9, go.time_ns
    )


def test_who_used_the_window_up_with_the_last_octet_was_not_blocked() -> None:
    talk = begun(server_window=100)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100), end=True)
    talk.request(3)
    talk.data(CLIENT, 3, bytes(100))
    talk.data(CLIENT, 3, b"", end=True)
    assert blocked_spans(talk.events) == []


def test_a_freed_window_that_nobody_used_again_says_so() -> None:
    talk = begun(server_window=100)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100))
    free = talk.window_update(SERVER, 1, 50)
    talk.finish(CLIENT, "reset")
    (span,) = blocked_spans(talk.events)
    assert (span.end_ns, span.freed_by, span.resumed_ns) == (free.time_ns, 6, None)


def test_a_reset_ends_the_wait_unfreed() -> None:
    talk = begun(server_window=100)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100))
    talk.reset(CLIENT, 1)
    (span,) = blocked_spans(talk.events)
    assert (span.window, span.end_ns, span.freed_by) == (1, None, None)


def test_a_gap_makes_the_end_of_a_span_unknown_so_it_is_not_told() -> None:
    talk = begun(server_window=100)
    talk.request(1)
    talk.data(CLIENT, 1, bytes(100))
    talk.gap(SERVER)
    talk.data(CLIENT, 1, bytes(100))
    assert blocked_spans(talk.events) == []


@given(st.lists(st.tuples(st.sampled_from(list(Direction)), st.integers(0, 9), st.integers(0, 255), st.integers(0, 5),
                          st.binary(max_size=12), st.booleans()), max_size=40))  # fmt: skip
def test_any_frames_are_borne(frames: list[tuple[Direction, int, int, int, bytes, bool]]) -> None:
    talk = begun()
    for direction, type_code, flags, stream, payload, lost in frames:
        talk.frame(direction, type_code, payload, flags=flags, stream=stream, lost=lost)
    talk.finish(CLIENT)
    talk.finish(SERVER)
    model = Windows()
    model.feed(talk.events)
    model.finish()
    assert all(problem.reason for problem in model.problems)
    assert model._room.taken == 0
