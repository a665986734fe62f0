"""Session tokens, without a wire."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.sessions import Holder, Sessions, bearer, new_key, new_session

SESSIONS = Sessions()


@settings(deadline=None)  # a machine may be busy
@given(user=st.text(st.characters(exclude_categories=["Cc", "Cs"])), room=st.text(st.characters(codec="utf-8")))
def test_a_token_tells_whom_it_was_given_to(user: str, room: str) -> None:
    session = new_session()
    assert SESSIONS.holder(SESSIONS.token(user, room, session)) == Holder(user, room, session)


def test_it_is_valid_where_the_key_is_the_same() -> None:
    key = new_key()
    token = Sessions(key).token("Juan", "general", new_session())
    assert Sessions(key).holder(token) is not None
    assert Sessions(new_key()).holder(token) is None


@settings(deadline=None)  # a machine may be busy
@given(at=st.integers(0, 10_000), change=st.integers(1, 63))
def test_a_token_in_which_one_character_is_another_is_none(at: int, change: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = SESSIONS.token(
        "Juan", "general!", new_session()
    )  # 32 + 8 + 13 octets: the last character's unused bits are checked too
    body = token.rstrip("=")
    at %= len(body) - 1
    other = alphabet[(alphabet.index(body[at]) + change) % 64]
    assert SESSIONS.holder(body[:at] + other + token[at + 1 :]) is None


@settings(deadline=None)  # a machine may be busy
@given(st.text() | st.text("ABC-_=", max_size=100))
def test_whatever_else_somebody_sends_is_none(token: str) -> None:
    assert SESSIONS.holder(token) is None


def test_a_token_can_be_a_header_value() -> None:
    token = SESSIONS.token("María Ñ", "房", new_session())
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
