"""How many messages a second, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.pace import BURST_SECONDS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def taken_at_once(pace: Pace) -> int:
    count = 0
    while pace.take() == 0:
        count += 1
    return count


def test_ten_seconds_worth_may_go_at_once_then_so_many_a_second() -> None:
    clock = Clock()
    pace = Pace(4.0, clock)
    assert taken_at_once(pace) == 40
    clock.now += 1
    assert taken_at_once(pace) == 4
    clock.now += 3_600
    assert taken_at_once(pace) == 40


def test_it_says_how_long_until_the_next_one() -> None:
    clock = Clock()
    pace = Pace(4.0, clock)
    taken_at_once(pace)
    assert pace.take() == pytest.approx(0.25)
    clock.now += 0.2
    assert pace.take() == pytest.approx(0.05)
    clock.now += 0.051
    assert pace.take() == 0


def test_however_few_are_allowed_the_first_one_is() -> None:
    pace = Pace(0.01, Clock())
    assert pace.take() == 0
    assert pace.take() == pytest.approx(100)


@given(pauses=st.lists(st.floats(0, 30), max_size=50), rate=st.floats(0.5, 50))
def test_never_more_than_the_rate_and_what_was_saved_up(pauses: list[float], rate: float) -> None:
    clock = Clock()
    pace = Pace(rate, clock)
    count = taken_at_once(pace)
    for pause in pauses:
        clock.now += pause
        count += taken_at_once(pace)
    assert count <= max(rate * BURST_SECONDS, 1) + rate * sum(pauses) + 1e-6
