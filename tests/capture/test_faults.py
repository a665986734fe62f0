"""The line between two ends, with its faults: time is an argument, so nothing here waits."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.sources.faults import MAX_HELD, READ_AHEAD, Ending, Faults, Line

MS = 1_000_000
SECOND = 1_000 * MS


def line(faults: Faults | None = None, now: int = 0, seed: int = 1) -> Line:
    return Line(faults or Faults(), now, random.Random(seed).random)


def take(line: Line, now: int) -> list[bytes | Ending]:
    """Everything that may pass at that time, piece by piece."""
    pieces: list[bytes | Ending] = []
    while (piece := line.next(now)) is not None:
        if isinstance(piece, Ending):
            return [*pieces, piece]
        pieces.append(bytes(piece))
        line.passed(len(piece), now)
    return pieces


def run(line: Line, now: int = 0, until: int = 1000 * SECOND) -> list[tuple[int, bytes | Ending]]:
    """(time, piece) in the order in which a tap would pass them on that comes whenever it was told to."""
    passed: list[tuple[int, bytes | Ending]] = []
    while now <= until:
        pieces = take(line, now)
        passed += [(now, piece) for piece in pieces]
        if (pieces and isinstance(pieces[-1], Ending)) or line.wake_ns is None:
            break
        assert line.wake_ns > now, "told to come back at once, which is a busy loop"
        now = line.wake_ns
    return passed


def test_an_honest_line_passes_what_came_as_it_came() -> None:
    honest = line()
    assert take(honest, 0) == []
    honest.put(b"one", 1)
    honest.put(b"two", 1)
    assert take(honest, 1) == [b"one", b"two"]
    honest.put_ending(Ending.FIN, 2)
    assert take(honest, 2) == [Ending.FIN]
    assert (honest.held, honest.wake_ns) == (0, None)


def test_a_receiver_may_take_a_part_and_is_offered_the_rest() -> None:
    honest = line()
    honest.put(b"abcdef", 0)
    honest.passed(2, 0)
    assert honest.held == 4
    assert take(honest, 0) == [b"cdef"]


def test_a_line_is_full_when_a_receiver_is_slow_or_a_fault_holds_much() -> None:
    for faults, limit in ((Faults(), READ_AHEAD), (Faults(delay=1), MAX_HELD)):
        held = line(faults)
        held.put(bytes(limit - 1), 0)
        assert not held.full
        held.put(b"x", 0)
        assert held.full


def test_a_delay_moves_everything_the_ending_too() -> None:
    delayed = line(Faults(delay=0.1))
    delayed.put(b"one", 0)
    delayed.put(b"two", 30 * MS)
    delayed.put_ending(Ending.FIN, 30 * MS)
    assert run(delayed) == [(100 * MS, b"one"), (130 * MS, b"two"), (130 * MS, Ending.FIN)]


def test_jitter_varies_the_delay_and_keeps_the_order() -> None:
    shaky = line(Faults(delay=0.01, jitter=0.1))
    for i in range(50):
        shaky.put(bytes([i]), i * MS)
    passed = run(shaky)
    assert [piece for _, piece in passed] == [bytes([i]) for i in range(50)]
    waits = [now - i * MS for i, (now, _) in enumerate(passed)]
    assert min(waits) >= 10 * MS
    assert max(waits) <= 110 * MS
    assert len({now for now, _ in passed}) > 5


def test_a_throttle_paces_pieces_and_keeps_its_rate() -> None:
    slow = line(Faults(throttle=10_000))
    slow.put(bytes(5_000), 0)
    passed = run(slow)
    assert {len(piece) for _, piece in passed if isinstance(piece, bytes)} == {100}
    assert passed[-1][0] == pytest.approx(0.49 * SECOND, rel=0.01)


def test_a_throttle_saves_nothing_up_while_nothing_comes() -> None:
    slow = line(Faults(throttle=1_000))
    slow.put(b"x", 0)
    assert run(slow) == [(0, b"x")]
    slow.put(bytes(100), 10 * SECOND)
    assert run(slow, 10 * SECOND)[-1][0] == pytest.approx(10.09 * SECOND, rel=0.001)


def test_segments_are_of_the_size_that_was_asked_for() -> None:
    chopped = line(Faults(segment=3))
    chopped.put(b"abcdefgh", 0)
    assert take(chopped, 0) == [b"abc", b"def", b"gh"]


def test_a_stall_begins_after_exactly_so_many_octets_and_lasts_so_long() -> None:
    stalled = line(Faults(stall_after=4, stall_for=2))
    stalled.put(b"abcdef", 0)
    stalled.put_ending(Ending.RESET, 0)
    assert run(stalled) == [(0, b"abcd"), (2 * SECOND, b"ef"), (2 * SECOND, Ending.RESET)]


def test_a_stall_without_an_end_lasts_until_the_faults_are_changed() -> None:
    stalled = line(Faults(stall_after=0))
    stalled.put(b"abc", 0)
    assert run(stalled) == []
    assert stalled.wake_ns is None
    stalled.change(Faults(), 5)
    assert take(stalled, 5) == [b"abc"]


def test_a_stall_happens_once_and_again_when_it_is_set_again() -> None:
    faults = Faults(stall_after=1, stall_for=1)
    stalled = line(faults)
    stalled.put(b"abc", 0)
    assert run(stalled) == [(0, b"a"), (SECOND, b"bc")]
    stalled.change(faults, 2 * SECOND)
    stalled.put(b"de", 2 * SECOND)
    assert run(stalled, 2 * SECOND) == [(2 * SECOND, b"d"), (3 * SECOND, b"e")]


@pytest.mark.parametrize("how", Ending)
def test_a_cut_comes_after_exactly_so_many_octets(how: Ending) -> None:
    cut = line(Faults(cut_after=4, cut_with=how))
    cut.put(b"abcdef", 0)
    assert take(cut, 0) == [b"abcd", how]
    assert cut.cut
    at_once = line(Faults(cut_after=0, cut_with=how))
    assert take(at_once, 0) == [how], "without waiting for an octet"


def test_an_ending_of_its_own_is_no_cut() -> None:
    early = line(Faults(cut_after=4))
    early.put(b"abc", 0)
    early.put_ending(Ending.FIN, 0)
    assert take(early, 0) == [b"abc", Ending.FIN]
    assert not early.cut


def test_a_shorter_delay_frees_what_is_held() -> None:
    delayed = line(Faults(delay=3600))
    delayed.put(b"abc", 0)
    assert take(delayed, SECOND) == []
    delayed.change(Faults(delay=1), SECOND)
    assert take(delayed, SECOND) == [b"abc"]


def test_faults_are_true_when_anything_is_not_as_it_should_be() -> None:
    assert not Faults()
    assert not Faults(stall_for=3, cut_with=Ending.FIN)
    for faults in (
        Faults(delay=1),
        Faults(jitter=1),
        Faults(throttle=9),
        Faults(segment=1),
        Faults(stall_after=0),
        Faults(cut_after=0),
        Faults(refuse=True),
    ):
        assert faults


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"delay": -1}, "delay is from 0 to 3600, not -1"),
        ({"jitter": math.nan}, "jitter is from 0 to 3600, not nan"),
        ({"delay": math.inf}, "delay is from 0 to 3600, not inf"),
        ({"throttle": 0}, "throttle is at least 1, not 0"),
        ({"segment": 0}, "split is at least 1, not 0"),
        ({"stall_after": -1}, "stall_after is at least 0, not -1"),
        ({"stall_for": -1}, "stall_for is at least 0, not -1"),
        ({"cut_after": -1}, "cut-after is at least 0, not -1"),
    ],
)
def test_impossible_faults_are_refused(faults: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=r"is (from|at least) ") as caught:
        Faults(**faults)  # type: ignore[arg-type]  # wrong on purpose
    assert str(caught.value) == reason


FAULTS = st.builds(
    Faults,
    delay=st.floats(0, 2),
    jitter=st.floats(0, 2),
    throttle=st.floats(50, 1e9) | st.just(math.inf),
    segment=st.integers(1, 50) | st.none(),
    stall_after=st.integers(0, 200) | st.none(),
    stall_for=st.floats(0, 3),
)


@settings(deadline=None)
@given(FAULTS, st.lists(st.tuples(st.binary(min_size=1, max_size=80), st.integers(0, SECOND)), max_size=8))
def test_whatever_the_faults_every_octet_passes_once_in_order_and_the_ending_last(
    faults: Faults, arrivals: list[tuple[bytes, int]]
) -> None:
    faulty, now = line(faults), 0
    for octets, pause in arrivals:
        now += pause
        faulty.put(octets, now)
    faulty.put_ending(Ending.FIN, now)
    passed = run(faulty, now)
    assert passed[-1][1] is Ending.FIN
    assert b"".join(piece for _, piece in passed if isinstance(piece, bytes)) == b"".join(o for o, _ in arrivals)
    assert faulty.held == 0
