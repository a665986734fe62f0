"""What proto/chat.proto promises, checked: what a request may hold, and the status and sentence for one that may not.

No call is ended here and none is waited for, so that every model of the server (threads, asyncio) answers alike.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError

from kit.pace import MESSAGES_PER_SECOND
from kit.rules import problem_with_message_id, problem_with_room, problem_with_text, problem_with_user
from kit.words import _, ngettext
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from server.rooms import NameTaken, NoPlace, RoomFull
from server.sessions import Sessions, bearer, new_session

SERVICE = "minichat.v1.ChatService"
Metadata = Iterable[tuple[str, str | bytes]]


class Refusal(NamedTuple):
    """How a call ends that cannot go on. A named one is a function below."""

    code: grpc.StatusCode
    sentence: str


LEFT = Refusal(grpc.StatusCode.OK, "")
"""The member closed its sending side."""
GONE = Refusal(grpc.StatusCode.CANCELLED, "")
"""There is nobody any more whom a status would reach."""

T = TypeVar("T")


def readable(deserialise: Callable[[bytes], T]) -> Callable[[bytes], T | Refusal]:
    """A deserialiser that yields a refusal for octets that are not the message. grpcio itself answers those with
    INTERNAL, and they are the client's mistake."""

    def read(octets: bytes) -> T | Refusal:
        try:
            return deserialise(octets)
        except DecodeError:
            text = _("The octets are not the message that this method takes (see proto/chat.proto).")
            return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)

    return read


def methods(service: Any) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """The service's three, by their names, as the generated code would make them, but with `readable` requests, and
    with ChatMessages that are octets already (`Message.octets`)."""
    return {
        "Join": grpc.unary_unary_rpc_method_handler(
            service.Join, readable(JoinRequest.FromString), JoinReply.SerializeToString
        ),
        "History": grpc.unary_stream_rpc_method_handler(service.History, readable(HistoryRequest.FromString), None),
        "Chat": grpc.stream_stream_rpc_method_handler(service.Chat, readable(ChatMessage.FromString), None),
    }


def handlers(service: Any) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(SERVICE, methods(service))


# What a request may hold


def refuse_names(request: JoinRequest | HistoryRequest | ChatMessage) -> Refusal | None:
    return _invalid(problem_with_user(request.user) or problem_with_room(request.room))


def refuse_first(message: ChatMessage) -> Refusal | None:
    """A Chat call's first message, whose text may be empty."""
    return refuse_names(message) or _invalid(
        (problem_with_text(message.text) if message.text else None)
        or problem_with_message_id(message.client_message_id)
    )


def refuse_later(message: ChatMessage, user: str, room: str) -> Refusal | None:
    """A message in a Chat call that `user` opened in `room`."""
    if message.user != user:
        return _invalid(_("This Chat call is {user}'s: another user needs a call of its own.").format(user=user))
    if message.room != room:
        return _invalid(_("This Chat call is in #{room}: another room needs a call of its own.").format(room=room))
    return _invalid(problem_with_text(message.text) or problem_with_message_id(message.client_message_id))


def _invalid(problem: str | None) -> Refusal | None:
    return None if problem is None else Refusal(grpc.StatusCode.INVALID_ARGUMENT, problem)


# Whose it is


class Caller(NamedTuple):
    session: str
    """The token's; a new one for a caller without."""
    refusal: Refusal | None
    """Why the token is not enough, where sessions are required."""


def caller(sessions: Sessions, metadata: Metadata, user: str, room: str) -> Caller:
    """Who calls as this user in this room, by the token among the call's request headers."""
    value = dict(metadata).get("authorization")
    token = bearer(value if isinstance(value, str) else None)
    if token is None:
        text = _("This server asks for the request header {header}, with the session_token that Join gives.")
        sentence = text.format(header='"authorization: Bearer TOKEN"')
        return Caller(new_session(), Refusal(grpc.StatusCode.UNAUTHENTICATED, sentence))
    holder = sessions.holder(token)
    if holder is None:
        text = _("The session token is none that this server gave; call Join for one.")
        return Caller(new_session(), Refusal(grpc.StatusCode.UNAUTHENTICATED, text))
    if (holder.user, holder.room) != (user, room):
        text = _("The session token is {user}'s for #{room}, and this call is {other}'s in #{other_room}.")
        sentence = text.format(user=holder.user, room=holder.room, other=user, other_room=room)
        return Caller(new_session(), Refusal(grpc.StatusCode.PERMISSION_DENIED, sentence))
    return Caller(holder.session, None)


# What Chat's response headers say


def response_headers(epoch: str, rate: float | None) -> tuple[tuple[str, str], ...]:
    """`rate` is the server's limit on messages per second; clients know the one that there is if nothing is set."""
    headers = (("room-epoch", epoch),)
    return headers if rate in (None, MESSAGES_PER_SECOND) else (*headers, ("message-rate", f"{rate:g}"))


# How calls end


def no_place(reason: NoPlace) -> Refusal:
    """Who asked to be in a room, and is not."""
    if isinstance(reason, NameTaken):
        text = _("{user} is taken in #{room}; {other} is free.")
        sentence = text.format(user=reason.user, room=reason.room, other=reason.free)
        return Refusal(grpc.StatusCode.ALREADY_EXISTS, sentence)
    if isinstance(reason, RoomFull):
        text = ngettext(
            "#{room} is full; it has one member, and takes no more.",
            "#{room} is full; it has {count} members, and takes no more.",
            reason.members,
        )
        return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(room=reason.room, count=reason.members))
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, _("The server has no place for another room."))


def refuse_secret(secret: str, request: JoinRequest) -> Refusal | None:
    """`secret` is the server's; empty where it lets in who has none."""
    # compare_digest takes as long wherever the two differ
    if not secret or hmac.compare_digest(secret.encode(), request.room_secret.encode()):
        return None
    if not request.room_secret:
        text = _("This server lets nobody in without the room secret (--room-secret).")
        return Refusal(grpc.StatusCode.PERMISSION_DENIED, text)
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, _("That is not the room secret of this server."))


def unavailable(sentence: str) -> Refusal:
    """The store is lost: `StoreLost` says how."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, sentence)


def replaced() -> Refusal:
    return Refusal(grpc.StatusCode.ABORTED, _("You came back on another connection, and this one ends."))


def stopping() -> Refusal:
    return Refusal(grpc.StatusCode.UNAVAILABLE, _("The server is stopping."))


def too_far_behind(messages: int) -> Refusal:
    text = _("You were sent {count} messages that you did not read, and more are not kept for you.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=messages))


def stalled(seconds: float) -> Refusal:
    text = _("You read nothing of what you were sent for {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(seconds=seconds))


def too_fast(rate: float) -> Refusal:
    text = _("You sent more than {rate:g} messages per second.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(rate=rate))


def idle(seconds: float) -> Refusal:
    text = _("You said nothing for {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=seconds))


def no_first_message(seconds: float) -> Refusal:
    text = _("No first message, which says who chats where, came within {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=seconds))


def no_request(seconds: float) -> Refusal:
    text = _("No request came within {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=seconds))


def no_message() -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, _("This method takes one message, and none came."))


def history_not_read(seconds: float) -> Refusal:
    text = _("You did not read the history within {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=seconds))


def why_left(ending: Refusal) -> str:
    """For the log; empty where somebody left as one should."""
    return _("its connection closed or its call was cancelled") if ending is GONE else ending.sentence
