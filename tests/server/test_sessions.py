"""Session tokens, without a wire."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.sessions import Holder, Sessions, bearer

SESSIONS = Sessions()


@settings(deadline=None)  # a machine may be busy
@given(user=st.text(st.characters(exclude_categories=["Cc", "Cs"])), room=st.text(st.characters(codec="utf-8")))
def test_a_token_tells_whom_it_was_given_to(user: str, room: str) -> None:
    assert SESSIONS.holder(SESSIONS.token(user, room)) == Holder(user, room)


@settings(deadline=None)  # a machine may be busy
@given(at=st.integers(0, 10_000), change=st.integers(1, 63))
def test_a_token_in_which_one_character_is_another_is_none(at: int, change: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = SESSIONS.token("Juan", "general!")  # 32 + 8 + 13 octets: the last character's unused bits are checked too
    body = token.rstrip("=")
    at %= len(body) - 1
    other = alphabet[(alphabet.index(body[at]) + change) % 64]
    assert SESSIONS.holder(body[:at] + other + token[at + 1 :]) is None


@settings(deadline=None)  # a machine may be busy
@given(st.text() | st.text("ABC-_=", max_size=100))
def test_whatever_else_somebody_sends_is_none(token: str) -> None:
    assert SESSIONS.holder(token) is None


def test_a_token_can_be_a_header_value() -> None:
    token = SESSIONS.token("María Ñ", "房")
    assert token.isascii()
    assert token.isprintable()


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Bearer ", None),
        ("Bearer", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_the_token_in_an_authorization_header(header: str | None, token: str | None) -> None:
    assert bearer(header) == token
