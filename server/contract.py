"""What proto/chat.proto promises, checked: what a request may hold, and the status and sentence for one that may not.

No call is ended here and none is waited for, so that every model of the server (threads, asyncio) answers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError

from kit.rules import problem_with_message_id, problem_with_room, problem_with_text, problem_with_user
from kit.words import _
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from server.rooms import Message
from server.sessions import Holder, Sessions, bearer

SERVICE = "minichat.v1.ChatService"
Metadata = Iterable[tuple[str, str | bytes]]


class Refusal(NamedTuple):
    """How a call ends that cannot go on."""

    code: grpc.StatusCode
    sentence: str


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


def handlers(service: Any) -> grpc.GenericRpcHandler:
    """The service's three methods, as the generated code would register them, but with `readable` requests."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Join": grpc.unary_unary_rpc_method_handler(
            service.Join, readable(JoinRequest.FromString), JoinReply.SerializeToString
        ),
        "History": grpc.unary_stream_rpc_method_handler(
            service.History, readable(HistoryRequest.FromString), ChatMessage.SerializeToString
        ),
        "Chat": grpc.stream_stream_rpc_method_handler(
            service.Chat, readable(ChatMessage.FromString), ChatMessage.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def chat_message(message: Message) -> ChatMessage:
    """As it travels. The fields have the same names, so that neither can get one that the other lacks."""
    return ChatMessage(**message._asdict())


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


def refuse_session(sessions: Sessions, metadata: Metadata, user: str, room: str) -> Refusal | None:
    """Where sessions are required: whether the call's request headers carry a token for this user in this room."""
    value = dict(metadata).get("authorization")
    token = bearer(value if isinstance(value, str) else None)
    if token is None:
        text = _("This server asks for the request header {header}, with the session_token that Join gives.")
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, text.format(header='"authorization: Bearer TOKEN"'))
    holder = sessions.holder(token)
    if holder is None:
        text = _("The session token is none that this server gave; call Join for one.")
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, text)
    if holder != Holder(user, room):
        text = _("The session token is {user}'s for #{room}, and this call is {other}'s in #{other_room}.")
        sentence = text.format(user=holder.user, room=holder.room, other=user, other_room=room)
        return Refusal(grpc.StatusCode.PERMISSION_DENIED, sentence)
    return None
