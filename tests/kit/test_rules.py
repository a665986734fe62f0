"""What names, rooms, texts and message ids may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.rules import (
    as_seen,
    problem_with_message_id,
    problem_with_room,
    problem_with_text,
    problem_with_user,
    without_tabs,
)
from kit.text import has_control_characters

Rule = Callable[[str], str | None]
RULES = {problem_with_user: 32, problem_with_room: 32, problem_with_text: 4_000, problem_with_message_id: 128}
FINE = ["Juan", "María José", "房間", "🧑🏽‍🚀", "O'Neill", "a" * 32, "ñ" * 32, "<b>", "/who", "Zoë (2)"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("text", FINE)
def test_names_and_texts_as_people_write_them_are_fine(rule: Rule, text: str) -> None:
    assert rule(text) is None


@pytest.mark.parametrize(("rule", "limit"), RULES.items())
def test_the_limit_is_in_characters_and_the_problem_says_both_numbers(rule: Rule, limit: int) -> None:
    assert rule("ñ" * limit) is None
    problem = rule("ñ" * (limit + 1))
    assert problem is not None
    assert f"has {limit + 1} characters; at most {limit} are allowed." in problem


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("c", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\ufeff"])
def test_control_characters_are_not_allowed_wherever_they_stand(rule: Rule, c: str) -> None:
    for text in (f"a{c}b", f"a{c}", f"{c}a"):
        problem = rule(text)
        assert problem is not None
        assert "holds a control character" in problem


@pytest.mark.parametrize("rule", [problem_with_user, problem_with_room, problem_with_text])
def test_empty_is_a_problem(rule: Rule) -> None:
    assert "is empty; it takes 1 to" in (rule("") or "")


def test_a_message_need_not_have_an_id() -> None:
    assert problem_with_message_id("") is None


@pytest.mark.parametrize("rule", [problem_with_user, problem_with_room])
@pytest.mark.parametrize("name", [" a", "a ", "\u00a0a", "a\u3000"])
def test_a_name_that_looks_like_another_by_spaces_around_it_is_not_allowed(rule: Rule, name: str) -> None:
    assert "begins or ends with a space" in (rule(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Juan\u200d",
            "Ju\u200can",
            "J\u034fuan",
            "Juan\ufe0f",
            "\u3164",
            "\u2800",
            "a\u115fb",
            "房\u200d間",
            "\U000e0100a",
        ),
        *("Mari\u0301a", "Juan\u00a0Luis", "Juan  Luis", "\u0627\u200d"),
    ],
)
def test_a_users_name_that_looks_like_another_by_what_nobody_sees_is_not_allowed(name: str) -> None:
    assert problem_with_user(name) == "The user's name holds what nobody sees, and so would look like another name."
    assert problem_with_user(as_seen(name)) is None or not as_seen(name)


@pytest.mark.parametrize("name", ["نامه\u200cای", "👩\u200d💻", "❤\ufe0f", "ක්\u200dර", "Jυan", "ＪＵＡＮ"])
def test_joiners_that_give_a_sign_its_shape_are_fine(name: str) -> None:
    assert problem_with_user(name) is None


def test_a_rooms_name_is_without_its_sign() -> None:
    assert problem_with_room("#general") == "The room's name begins with #; it is written without."
    assert problem_with_room("c#") is None


@settings(deadline=None)  # a machine may be busy
@given(st.text())
def test_whatever_passes_is_safe_to_show_on_one_line(text: str) -> None:
    for rule in RULES:
        if rule(text) is None:
            assert not has_control_characters(text)
            assert len(text.splitlines()) <= 1


def test_tabs_become_spaces_to_the_next_fourth_column() -> None:
    assert without_tabs("\ta\tbc\td") == "    a   bc  d"
    assert problem_with_text(without_tabs("if x:\treturn")) is None
