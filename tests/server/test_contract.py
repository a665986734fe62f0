"""Requests checked, without a call. What ends a call and how is in test_threaded.py."""

from __future__ import annotations

import grpc
import pytest

from proto.chat_pb2 import ChatMessage, JoinRequest
from server.contract import Refusal, chat_message, readable, refuse_first, refuse_later, refuse_names, refuse_session
from server.rooms import Message
from server.sessions import Sessions


def test_a_message_travels_with_all_its_fields() -> None:
    message = Message("Juan", "general", "Hola", 7, 1_795_361_692_788, "id-1")
    travelled = ChatMessage.FromString(chat_message(message).SerializeToString())
    assert {field.name: value for field, value in travelled.ListFields()} == message._asdict()
    assert set(Message._fields) == set(ChatMessage.DESCRIPTOR.fields_by_name)


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
def test_a_session_needs_a_token(metadata: tuple[tuple[str, str | bytes], ...], code: grpc.StatusCode) -> None:
    refusal = refuse_session(Sessions(), metadata, "Juan", "general")
    assert refusal is not None
    assert refusal.code is code


def test_a_session_token_is_for_one_user_in_one_room() -> None:
    sessions = Sessions()
    metadata = (("user-agent", "test"), ("authorization", f"Bearer {sessions.token('Juan', 'general')}"))
    assert refuse_session(sessions, metadata, "Juan", "general") is None
    for user, room in (("María", "general"), ("Juan", "other")):
        refusal = refuse_session(sessions, metadata, user, room)
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
