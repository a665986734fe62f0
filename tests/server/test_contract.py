"""Requests checked, without a call. What ends a call and how is in test_models.py."""

from __future__ import annotations

import grpc
import pytest

from proto.chat_pb2 import ChatMessage, JoinRequest
from server.contract import Refusal, caller, readable, refuse_first, refuse_later, refuse_names, refuse_secret
from server.sessions import Sessions, new_session


def test_octets_that_are_no_message_become_a_refusal_and_a_message_itself() -> None:
    read = readable(JoinRequest.FromString)
    assert read(b"\x0a\x04Juan") == JoinRequest(user="Juan")
    refusal = read(b"\x0a\x04Ju")
    assert isinstance(refusal, Refusal)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_right_is_not_refused() -> None:
    message = ChatMessage(user="Juan", room="general", text="Hola")
    assert refuse_names(message) is None
    assert refuse_first(message) is None
    assert refuse_first(ChatMessage(user="Juan", room="general")) is None
    assert refuse_later(message, "Juan", "general") is None


def test_an_empty_text_is_for_the_first_message_alone() -> None:
    refusal = refuse_later(ChatMessage(user="Juan", room="general"), "Juan", "general")
    assert refusal == (grpc.StatusCode.INVALID_ARGUMENT, "The text is empty; it takes 1 to 4000 characters.")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Basic x"),), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", b"octets"),), grpc.StatusCode.UNAUTHENTICATED),
        ((("authorization", "Bearer x"),), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
def test_a_caller_without_a_valid_token_has_a_session_of_its_own(
    metadata: tuple[tuple[str, str | bytes], ...], code: grpc.StatusCode
) -> None:
    callers = [caller(Sessions(), metadata, "Juan", "general") for _ in range(2)]
    assert callers[0].session != callers[1].session
    for who in callers:
        assert who.refusal is not None
        assert who.refusal.code is code


def test_a_room_secret_lets_in_who_has_it() -> None:
    assert refuse_secret("", JoinRequest(room_secret="whatever")) is None
    assert refuse_secret("ábrete", JoinRequest(room_secret="ábrete")) is None
    for given, sentence in (
        ("", "This server lets nobody in without the room secret (--room-secret)."),
        ("abrete", "That is not the room secret of this server."),
    ):
        refusal = refuse_secret("ábrete", JoinRequest(room_secret=given))
        assert refusal == (grpc.StatusCode.PERMISSION_DENIED, sentence)


def test_a_token_is_for_one_user_in_one_room() -> None:
    sessions, session = Sessions(), new_session()
    token = sessions.token("Juan", "general", session)
    metadata = (("user-agent", "test"), ("authorization", f"Bearer {token}"))
    assert caller(sessions, metadata, "Juan", "general") == (session, None)
    for user, room in (("María", "general"), ("Juan", "other")):
        who = caller(sessions, metadata, user, room)
        assert who.session != session
        assert who.refusal is not None
        assert who.refusal.code is grpc.StatusCode.PERMISSION_DENIED
