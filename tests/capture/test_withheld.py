"""Findings come out when they are certain, in the order in which they went in."""

from __future__ import annotations

import pytest

from capture import withheld
from capture.withheld import Source, Withheld


def test_what_is_believed_comes_out_and_what_is_doubted_does_not() -> None:
    box: Withheld[str] = Withheld()
    one: Source[str] = Source()
    box.put("a", one)
    assert box.take() == []
    one.believe()
    box.put("b", one)
    assert box.take() == ["a"]
    one.doubt()
    box.put("c", one)
    one.believe()
    assert box.take() == ["c"]


def test_one_that_is_undecided_holds_the_later_ones_back() -> None:
    box: Withheld[str] = Withheld()
    one: Source[str] = Source()
    two: Source[str] = Source()
    box.put("one", one)
    box.put("two", two, certain=True)
    box.put("more", two)
    two.believe()
    assert box.take() == []
    one.believe()
    assert box.take() == ["one", "two", "more"]


@pytest.mark.parametrize("heard", [True, False])
def test_beyond_the_bound_the_oldest_is_believed_if_both_sides_were_heard(
    monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    monkeypatch.setattr(withheld, "MAX_WITHHELD", 3)
    box: Withheld[int] = Withheld()
    one: Source[int] = Source()
    one.heard = heard
    for i in range(10):
        box.put(i, one)
    assert len(one.undecided) == 3
    assert box.take() == (list(range(7)) if heard else [])
    one.believe()
    assert box.take() == [7, 8, 9]
