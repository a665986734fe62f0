"""One user in one room, without a terminal: enters, hears, says, and comes back when the server was lost.

How it works. The session's own thread makes one visit after the other, until it is told to leave or is refused:

    Join      for the session token and who is there
    Chat      its first message subscribes; its response headers say that this is done
    History   what came after the last message that was heard
    Chat      what is said now; here the visit stays

Chat opens before History is read, so that nothing falls between them; what both bring is known by its sequence number
and heard once. What is said carries a client_message_id and counts as confirmed when it comes back from the server.
The next visit sends again what was not: after it has read the history, which may hold it already, and the server knows
a repeated one by its id. So everybody hears every message once, in the room's order, however often the connection
breaks, as long as the server remembers; what it has forgotten is told as `Missed` and `Forgotten`.

The token of the first Join stays the session's: with it the next visit may take back its name from a connection that
the server does not yet know to be lost.
"""

from __future__ import annotations

import math
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import grpc

from client.events import Ended, Entered, Event, Forgotten, Heard, How, Lost, Missed
from client.failures import Refused, ServerLost, judged, never_spoke, no_answer, waits_for_tls
from client.security import speaks_tls
from client.truth import recorded
from kit.pace import MESSAGES_PER_SECOND, Pace
from kit.truth import Truth
from kit.words import _
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub

ANSWER_SECONDS = 5.0
"""A server that has not answered a Join, or a Chat with response headers, in this time is taken for lost."""
STATUS_SECONDS = 1.0
"""Headers without `room-epoch` are those of a call that is refused, and its status follows at once. A server that does
not send it at all is believed after this time."""
HISTORY_SECONDS = 15.0
"""Longer than the server allows itself."""
LEAVE_SECONDS = 2.0
"""What a server gets for ending a Chat that we have left."""
FIRST_PAUSE_SECONDS = 0.2
"""Before the second attempt; it doubles from one attempt to the next."""
LONGEST_PAUSE_SECONDS = 2.0
PACE = 0.9
"""How much of the messages per second that a server allows we use: the two clocks differ."""
UNCONFIRMED_LENGTH = 1_000
"""Messages that may wait for their confirmation; the next one waits outside."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),  # grpcio would send even 127.0.0.1 to the proxy that http_proxy names
    ("grpc.initial_reconnect_backoff_ms", 100),  # the pauses are ours, above
    ("grpc.min_reconnect_backoff_ms", 10_000),  # despite its name the time that one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),  # a server that has fallen silent is found out after 15 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""grpc-core's channel arguments."""


class Session:
    """`tell` is called with every event, in the session's own thread. `patience` is for how many seconds a lost server
    is sought; None is for ever. `room_secret` is for servers that ask for one. `credentials` make the connection
    one over TLS. `options` are grpc-core's channel arguments, added to OPTIONS. All calls are logged in `truth`."""

    def __init__(
        self,
        server: str,
        user: str,
        room: str,
        *,
        tell: Callable[[Event], None],
        patience: float | None = None,
        room_secret: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        truth: Truth | None = None,
    ) -> None:
        self.server = server
        self.user = user
        self.room = room
        self._tell = tell
        self._patience = patience
        self._in_the_clear = credentials is None
        options = [*OPTIONS, *options]
        if credentials is None:
            channel = grpc.insecure_channel(server, options)
        else:
            channel = grpc.secure_channel(server, credentials, options)
        self._channel = channel if truth is None else recorded(channel, truth)
        self._stub = ChatServiceStub(self._channel)
        self._names = JoinRequest(user=user, room=room, room_secret=room_secret)
        self._thread = threading.Thread(target=self._run, name=f"session {user}", daemon=True)
        self._ids = secrets.token_urlsafe(6)
        self._headers: tuple[tuple[str, str], ...] = ()
        """With the token that the last Join gave."""
        self._rate = MESSAGES_PER_SECOND
        """Of the server that we came to last."""
        self._pace = Pace(PACE * self._rate)

        # Of the session's thread alone.
        self._epoch: str | None = None
        self._last: int | None = None
        """The newest sequence that was heard; None before the first visit."""
        self._been_inside = False
        self._was_inside = False
        """In the last visit."""

        # Of all threads, under `_changed`.
        self._changed = threading.Condition()
        self._said = 0
        self._unconfirmed: dict[str, ChatMessage] = {}
        """By client_message_id, in the order in which they were said."""
        self._to_send: deque[ChatMessage] = deque()
        self._inside = False
        """The room is open: what is said goes out at once."""
        self._visit = 0
        """The number of the visit that is under way."""
        self._calls: list[Any] = []
        """Of this visit, for cancelling them."""
        self._leaving = False
        self._in_a_hurry = False
        """No more attempts, confirmed or not."""
        self._ended: Ended | None = None

    # What others do with it

    def start(self) -> None:
        self._thread.start()

    def say(self, text: str, wait: bool = True) -> bool:
        """Sends the text, now or when the room is open again. While UNCONFIRMED_LENGTH messages wait already it waits
        too, or returns False without `wait`. False as well when the session has ended."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: len(self._unconfirmed) < UNCONFIRMED_LENGTH or self._over())
            if len(self._unconfirmed) >= UNCONFIRMED_LENGTH or self._over():
                return False
            self._said += 1
            message_id = f"{self._ids}-{self._said}"
            message = ChatMessage(user=self.user, room=self.room, text=text, client_message_id=message_id)
            self._unconfirmed[message_id] = message
            if self._inside:
                self._to_send.append(message)
            self._changed.notify_all()
            return True

    def who(self) -> list[str]:
        """Who is in the room now. Asks the server, by another Join, which puts nobody anywhere. Raises ServerLost or
        Refused."""
        try:
            reply = self._stub.Join(self._names, metadata=self._headers, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise judged(error, self.server, ANSWER_SECONDS) from None
        except ValueError:  # what grpcio says of a channel that is closed
            raise ServerLost(_("The chat has ended.")) from None
        return list(reply.members)

    def leave(self, deliver: bool = True) -> None:
        """Begins to leave, and `join` waits for it: what was said is sent, and the server ends the call after all that
        it had to send. With `deliver`, a server that is lost meanwhile is still sought for what is not confirmed."""
        with self._changed:
            self._leaving = True
            self._in_a_hurry = not deliver
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the session at once."""
        with self._changed:
            self._leaving = self._in_a_hurry = True
            calls = list(self._calls)
            self._changed.notify_all()
        for call in calls:
            call.cancel()
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        self._channel.close()

    def join(self, seconds: float | None = None) -> bool:
        """Whether the session has ended, now or within the time."""
        if self._thread.ident is not None:  # it was started
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def wait_until_inside(self, seconds: float) -> bool:
        """Whether the room is open, now or within the time."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside or self._ended is not None, seconds)
            return self._inside

    def wait_until_confirmed(self, seconds: float) -> bool:
        """Whether everything said has come back, now or within the time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unconfirmed or self._ended is not None, seconds)
            return not self._unconfirmed

    @property
    def inside(self) -> bool:
        """Whether the room is open."""
        return self._inside

    @property
    def ended(self) -> Ended | None:
        return self._ended

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves as one should; at once after an exception, or where the server takes too long."""
        if error is None:
            self.leave()
            self.join(LEAVE_SECONDS)
        self.close()

    def _over(self) -> bool:
        return self._leaving or self._ended is not None

    # The session's thread: visits and what lies between them

    def _run(self) -> None:
        ended = self._make_visits()
        self._channel.close()
        with self._changed:
            self._ended = ended
            self._changed.notify_all()
        self._tell(ended)

    def _make_visits(self) -> Ended:
        lost_at: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._was_inside = False
            try:
                self._make_visit()
                return self._end(How.LEFT)
            except Refused as refused:
                return self._end(How.REFUSED, str(refused))
            except ServerLost as lost:
                reason = str(lost)
            if self._done():
                return self._end(How.LEFT)
            if lost_at is None or self._was_inside:
                lost_at, pause = time.monotonic(), FIRST_PAUSE_SECONDS
                self._tell(Lost(reason))
            length = pause * random.uniform(0.5, 1)  # else everybody whom one server lost comes back in one moment
            if self._patience is not None:
                left = lost_at + self._patience - time.monotonic()
                if left <= 0:
                    return self._end(How.GAVE_UP, reason)
                length = min(length, left)
            with self._changed:
                self._changed.wait_for(self._done, length)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _done(self) -> bool:
        """Whether there is nothing to come back for."""
        return self._in_a_hurry or (self._leaving and self._been_inside and not self._unconfirmed)

    def _end(self, how: How, reason: str = "") -> Ended:
        return Ended(how, reason, len(self._unconfirmed))

    def _make_visit(self) -> None:
        """Returns when the room was left; raises Refused or ServerLost."""
        chat: Any = None
        try:
            joined = self._begin(
                lambda: self._stub.Join.future(self._names, metadata=self._headers, timeout=ANSWER_SECONDS)
            ).result()
            self._headers = headers = (("authorization", f"Bearer {joined.session_token}"),)
            requests = self._requests(self._visit)
            chat = self._begin(lambda: self._stub.Chat(requests, metadata=headers))
            self._settle_in(_response_headers(chat, self.server))
            wanted = HistoryRequest(user=self.user, room=self.room, after_sequence=self._last or 0)
            for message in self._begin(lambda: self._stub.History(wanted, metadata=headers, timeout=HISTORY_SECONDS)):
                self._hear(message, past=True)
            self._last = self._last or 0
            again, self._been_inside = self._been_inside, True
            self._tell(Entered(tuple(name for name in joined.members if name != self.user), again))
            self._open()
            for message in chat:
                self._hear(message, past=False)
        except grpc.RpcError as error:
            if self._in_the_clear and never_spoke(error) and speaks_tls(self.server):
                raise waits_for_tls(self.server) from None
            raise judged(error, self.server, None if error is chat else ANSWER_SECONDS) from None
        except grpc.FutureCancelledError:  # Join, by `close`
            raise ServerLost("") from None
        finally:
            self._shut()
        if not self._leaving or self._unconfirmed:
            raise ServerLost(_("The server {server} ended the chat.").format(server=self.server))

    def _begin(self, call: Callable[[], Any]) -> Any:
        """Starts a call so that `close` can cancel it."""
        with self._changed:
            if self._in_a_hurry:
                raise ServerLost("")
            self._calls.append(call())
            return self._calls[-1]

    def _requests(self, visit: int) -> Iterator[ChatMessage]:
        """What a visit's Chat sends. Runs in a thread of grpcio's."""
        yield ChatMessage(user=self.user, room=self.room)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._visit != visit or (self._inside and (self._to_send or self._leaving))
                )
                if self._visit != visit or not self._to_send:
                    return  # closes the sending side: we leave
                message = self._to_send.popleft()
            while seconds := self._pace.take():
                with self._changed:
                    if self._changed.wait_for(lambda: self._visit != visit, seconds):
                        return
            yield message

    def _settle_in(self, headers: dict[str, str]) -> None:
        """Compares the room's epoch with the one that we know, and keeps to the pace that the server asks for."""
        epoch = headers.get("room-epoch")
        if (rate := _rate(headers.get("message-rate"))) != self._rate:
            self._rate, self._pace = rate, Pace(PACE * rate)
        if self._epoch is not None and epoch != self._epoch and self._last:
            self._last = 0
            self._tell(Forgotten())
        self._epoch = epoch

    def _open(self) -> None:
        with self._changed:
            self._inside = self._was_inside = True
            self._to_send.extend(self._unconfirmed.values())
            self._changed.notify_all()

    def _shut(self) -> None:
        with self._changed:
            self._visit += 1
            self._inside = False
            self._to_send.clear()
            calls, self._calls = self._calls, []
            self._changed.notify_all()
        for call in calls:
            call.cancel()  # without effect on those that have ended

    def _hear(self, message: ChatMessage, past: bool) -> None:
        with self._changed:
            mine = message.user == self.user and message.client_message_id.startswith(self._ids)
            if mine and self._unconfirmed.pop(message.client_message_id, None) is not None:
                self._changed.notify_all()
        if self._last is not None and message.sequence <= self._last:
            return  # the history brought it already
        if self._last is not None and message.sequence > self._last + 1:
            self._tell(Missed(message.sequence - self._last - 1))
        self._last = message.sequence
        self._tell(Heard(message, mine, past))


def _response_headers(chat: Any, server: str) -> dict[str, str]:
    """Waits for a Chat call's, which say that its user is subscribed."""
    late = threading.Timer(ANSWER_SECONDS, chat.cancel)
    late.daemon = True
    late.start()
    headers = dict(chat.initial_metadata())
    late.cancel()
    if "room-epoch" in headers:
        return headers
    over = threading.Event()
    if not chat.add_callback(over.set) or over.wait(STATUS_SECONDS):
        if chat.cancelled():
            raise no_answer(server, ANSWER_SECONDS)
        raise chat
    return headers


def _rate(text: str | None) -> float:
    """Messages per second, as a server says it; without a word, or a sensible one, those that the contract names."""
    with suppress(ValueError, TypeError):
        if 0 < (rate := float(text)) < math.inf:  # type: ignore[arg-type]  # None is a TypeError
            return rate
    return MESSAGES_PER_SECOND
