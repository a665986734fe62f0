"""The chat over gRPC with threads: the design that was asked for, one worker thread and one reading thread per chat.

How it works. grpcio takes a worker of the pool for each call and keeps it until the call ends. Join and History need
theirs for a moment; Chat needs it as long as the member stays, because a generator runs there that waits for messages
and yields them:

    client ─ messages ─▶ recv_loop (a thread of the call's own) ─▶ Rooms.post ─▶ out_q of every member in the room
    client ◀─ messages ─ outgoing (generator, in a worker)      ◀────────────── out_q

So the number of members is bounded by the number of workers. With every worker in a chat, Join, History and the next
Chat would get no answer at all; therefore a Chat is admitted by its handler, which refuses at once what is too many,
and two workers stay free (`chats=None` takes that away again, for the lab about it).

A peer that stops reading blocks the generator inside grpcio, where nothing can be raised. Four bounds keep such a peer
from holding what others need: out_q is bounded, and who lets it fill up is dropped (OUT_QUEUE_LENGTH); a sender waits
until its own copy has gone out before its next message is taken (PACE), so that a fast sender slows itself down and
nobody is dropped for its haste; a call that has nothing left to do but to send must get rid of it (STALL_SECONDS,
HISTORY_SECONDS); and a call whose first message does not come is ended (FIRST_MESSAGE_SECONDS).
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import grpc

from kit.words import _, ngettext
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from server import listening
from server.contract import (
    Refusal,
    chat_message,
    handlers,
    refuse_first,
    refuse_later,
    refuse_names,
    refuse_session,
)
from server.listening import KEEPALIVE_SECONDS, CannotListen
from server.log import Log
from server.rooms import Message, Rooms, TooManyRooms
from server.sessions import Sessions

WORKERS = 32
"""Of the pool. Set, because ThreadPoolExecutor's own default depends on the machine."""
CHATS = 30
"""Chats admitted at once: the workers but two, which Join and History need only for moments."""
OUT_QUEUE_LENGTH = 1_000
"""Messages that may wait for one member: twice the history, 16 MB of the longest texts. Who is that far behind does
not read."""
PACE = 100
"""Messages that may wait for a sender itself before its next one is taken: far below OUT_QUEUE_LENGTH, so that members
who read are not dropped because one sends faster than the server distributes."""
FIRST_MESSAGE_SECONDS = 10.0
"""How long a Chat call may hold a worker without saying whose it is."""
STALL_SECONDS = 10.0
"""How long a member may take to read what is left when its call ends, or a sender to read until PACE is kept."""
HISTORY_SECONDS = 10.0
"""How long a History call may take: 8 MB at most, 6.4 Mbit/s."""
STOP_SECONDS = 2.0
"""What is left to calls for ending by themselves when the server stops."""

_LEFT = Refusal(grpc.StatusCode.OK, "")
"""The member closed its sending side."""
_GONE = Refusal(grpc.StatusCode.CANCELLED, "")
"""There is nobody any more whom a status would reach."""


R = TypeVar("R", JoinRequest, HistoryRequest)


class OutQueue:
    """What waits to be sent to one member, and how it ends. Any thread may call."""

    def __init__(self, length: int = OUT_QUEUE_LENGTH) -> None:
        self._length = length
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self.ending: Refusal | None = None
        """Set once, by the first who ended it."""

    def put(self, message: Message) -> bool:
        """False, and nothing happens, where it is full or ended."""
        with self._changed:
            if self.ending is not None or len(self._waiting) >= self._length:
                return False
            self._waiting.append(message)
            self._changed.notify_all()
            return True

    def end(self, ending: Refusal, discard: bool = False) -> None:
        """Nothing more goes in; what waits still comes out, unless it is discarded."""
        with self._changed:
            if discard:
                self._waiting.clear()
            if self.ending is None:
                self.ending = ending
            self._changed.notify_all()

    def get(self) -> Message | Refusal:
        """Waits for the next message; after the last one, the ending."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.ending is not None)
            if not self._waiting:
                assert self.ending is not None
                return self.ending
            message = self._waiting.popleft()
            self._changed.notify_all()
            return message

    def wait_until_below(self, length: int, seconds: float) -> bool:
        """Whether fewer than `length` messages wait, now or within the time; True as well where it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._waiting) < length or self.ending is not None, seconds)


class Subscriber:
    """A member of a room, as `Rooms` knows it."""

    def __init__(self, user: str, room: str, out_q: OutQueue, call: Call) -> None:
        self.user = user
        self.room = room
        self.out_q = out_q
        self.call = call

    def deliver(self, message: Message) -> bool:
        return self.out_q.put(message)


class Call:
    """One Chat call from its admission to its end."""

    def __init__(self, service: ChatService, requests: Iterator[ChatMessage | Refusal], context: Any) -> None:
        self._service = service
        self._requests = requests
        self._context = context
        self._out_q = OutQueue()
        self._subscriber: Subscriber | None = None
        self._settled = threading.Event()
        """Response headers were sent, or the call ends without: the generator may go on."""
        self._settling = threading.Lock()
        """One or the other: grpcio breaks on headers after a status."""
        self._over = threading.Event()
        """grpcio has let go of the call, whoever ended it."""
        self.reader = threading.Thread(target=self._recv_loop, name="recv_loop", daemon=True)

    def start(self) -> None:
        if self._context.add_callback(self._ended):
            self.reader.start()
        else:  # the client has gone already
            self._ended()

    def outgoing(self) -> Iterator[ChatMessage]:
        """What the worker runs: everything that is to reach the client, then how the call ends."""
        if not self._settled.wait(FIRST_MESSAGE_SECONDS):
            text = _("No first message, which says who chats where, came within {seconds:g} seconds.")
            sentence = text.format(seconds=FIRST_MESSAGE_SECONDS)
            self.end(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, sentence))
        while isinstance(item := self._out_q.get(), Message):
            yield chat_message(item)
        self._service.discharge(self)  # before the status goes out: who gets it may come again at once
        if item.code is not grpc.StatusCode.OK:
            self._context.abort(item.code, item.sentence)

    def end(self, ending: Refusal, discard: bool = False) -> None:
        """After what waits in out_q, unless that is discarded. What ended the call first stands."""
        with self._settling:
            self._out_q.end(ending, discard)
            self._settled.set()

    def drop(self, ending: Refusal) -> None:
        """At once, though its client reads nothing."""
        self.end(ending, discard=True)
        _end_at_once(self._context, ending)

    def _ended(self) -> None:
        """grpcio calls this once, in a thread that must not wait."""
        self._over.set()
        self._service.discharge(self)
        self.end(_GONE, discard=True)

    def _recv_loop(self) -> None:
        ending = _GONE
        try:
            ending = self._receive()
        except grpc.RpcError:
            pass  # the call is over, by the client's doing or by ours
        finally:
            self._leave(ending)
            self.end(ending)
        if not self._over.wait(STALL_SECONDS):
            self.drop(_stalled())

    def _receive(self) -> Refusal:
        """Reads what the client sends. Returns how that ended."""
        for request in self._requests:
            if isinstance(request, Refusal):
                return request
            if self._subscriber is None:
                refusal = refuse_first(request) or self._subscribe(request)
            else:
                refusal = refuse_later(request, self._subscriber.user, self._subscriber.room)
            if refusal is not None:
                return refusal
            if request.text:
                self._post(request)
                if not self._out_q.wait_until_below(PACE, STALL_SECONDS):
                    self.drop(_stalled())
        return _LEFT

    def _subscribe(self, request: ChatMessage) -> Refusal | None:
        refusal = self._service.refuse_session(self._context, request.user, request.room)
        if refusal is not None:
            return refusal
        subscriber = Subscriber(request.user, request.room, self._out_q, self)
        try:
            epoch = self._service.rooms.enter(subscriber)
        except TooManyRooms:
            return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, _("The server has no place for another room."))
        self._subscriber = subscriber
        self._service.log.joined(subscriber.user, subscriber.room)
        with self._settling:
            if not self._settled.is_set():
                self._context.send_initial_metadata((("room-epoch", epoch),))
                self._settled.set()
        return self._out_q.ending

    def _post(self, request: ChatMessage) -> None:
        assert self._subscriber is not None
        posted = self._service.rooms.post(self._subscriber, request.text, request.client_message_id)
        if posted is None:  # dropped in the meantime
            return
        if posted.repeated:
            self._service.log.repeated(posted.message)
        else:
            self._service.log.posted(posted.message, posted.reached)
        for subscriber in posted.dropped:
            subscriber.call.drop(_too_far_behind())

    def _leave(self, ending: Refusal) -> None:
        if self._subscriber is None:
            return
        self._service.rooms.leave(self._subscriber)
        first = self._out_q.ending or ending
        reason = _("its connection closed or its call was cancelled") if first is _GONE else first.sentence
        self._service.log.left(self._subscriber.user, self._subscriber.room, reason)


def _too_far_behind() -> Refusal:
    text = _("You were sent {count} messages that you did not read, and more are not kept for you.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=OUT_QUEUE_LENGTH))


def _stalled() -> Refusal:
    text = _("You read nothing of what you were sent for {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(seconds=STALL_SECONDS))


def _end_at_once(context: grpc.ServicerContext, ending: Refusal) -> None:
    """Ends a call from any thread, also while its handler is blocked by a peer that does not read.

    `context.abort` works in the handler's own thread only. grpc-core has `grpc_call_cancel_with_status` for this: the
    trailers go out at once, past the messages that wait. grpcio wraps it, but shows it to clients only."""
    call: Any = context._rpc_event.call  # type: ignore[attr-defined]  # see above: there is no public way
    call.cancel(ending.code.value[0], ending.sentence.encode())


@contextmanager
def _at_most(seconds: float, context: grpc.ServicerContext, ending: Refusal) -> Iterator[None]:
    timer = threading.Timer(seconds, _end_at_once, (context, ending))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class ChatService:
    """minichat.v1.ChatService on threads."""

    def __init__(self, *, chats: int | None = CHATS, sessions_required: bool = False, log: Log | None = None) -> None:
        self.rooms: Rooms[Subscriber] = Rooms()
        self.log = log or Log()
        self._sessions = Sessions()
        self._sessions_required = sessions_required
        self._chats = chats
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        """Those that hold a worker."""
        self._readers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._stopping: Refusal | None = None

    # The three methods

    def Join(self, request: JoinRequest | Refusal, context: grpc.ServicerContext) -> JoinReply:
        request = self._accept(request, context)
        token = self._sessions.token(request.user, request.room)
        return JoinReply(session_token=token, members=self.rooms.members(request.room))

    def History(self, request: HistoryRequest | Refusal, context: grpc.ServicerContext) -> Iterator[ChatMessage]:
        request = self._accept(request, context)
        refusal = self.refuse_session(context, request.user, request.room)
        if refusal is not None:
            context.abort(*refusal)
        text = _("You did not read the history within {seconds:g} seconds.")
        ending = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=HISTORY_SECONDS))
        with _at_most(HISTORY_SECONDS, context, ending):
            for message in self.rooms.history(request.room, request.after_sequence, request.limit):
                yield chat_message(message)

    def Chat(self, requests: Iterator[ChatMessage | Refusal], context: grpc.ServicerContext) -> Iterator[ChatMessage]:
        call = Call(self, requests, context)
        refusal = self._admit(call)
        if refusal is not None:
            self.log.refused(unquote(context.peer()), refusal.sentence)
            context.abort(*refusal)
        call.start()
        yield from call.outgoing()

    # Who holds a worker

    def _admit(self, call: Call) -> Refusal | None:
        with self._lock:
            if self._stopping is not None:
                return self._stopping
            if self._chats is not None and len(self._calls) >= self._chats:
                text = ngettext(
                    "The one place for chatting is taken; try again when somebody has left.",
                    "All {count} places for chatting are taken; try again when somebody has left.",
                    self._chats,
                )
                return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=self._chats))
            self._calls.add(call)
            self._readers.add(call.reader)
            return None

    def discharge(self, call: Call) -> None:
        with self._lock:
            self._calls.discard(call)

    def close(self) -> None:
        """Ends every chat with UNAVAILABLE, and admits none any more."""
        ending = Refusal(grpc.StatusCode.UNAVAILABLE, _("The server is stopping."))
        with self._lock:
            self._stopping = ending
            calls = list(self._calls)
        for call in calls:
            call.end(ending)

    def join(self) -> None:
        """Waits until the calls' own threads have ended; after `close`, when the calls have."""
        for reader in list(self._readers):
            if reader.ident is not None:  # else its client had gone before it was started
                reader.join()

    # What requests must fulfil

    def refuse_session(self, context: grpc.ServicerContext, user: str, room: str) -> Refusal | None:
        if not self._sessions_required:
            return None
        return refuse_session(self._sessions, context.invocation_metadata(), user, room)

    @staticmethod
    def _accept(request: R | Refusal, context: grpc.ServicerContext) -> R:
        refusal = request if isinstance(request, Refusal) else refuse_names(request)
        if refusal is not None:
            context.abort(*refusal)
        return cast(R, request)


class RunningServer:
    """A server that takes calls, until `stop`. Also a context manager."""

    def __init__(self, service: ChatService, server: grpc.Server, pool: ThreadPoolExecutor, host: str, port: int):
        self.service = service
        self.host = host
        self.port = port
        self.address = listening.address(host, port)
        """`host:port`, as a client takes it."""
        self._server = server
        self._pool = pool

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Tells every chat that the server stops, lets other calls end within the time, then cancels them. Returns
        when all threads have ended. May be called again."""
        stopped = self._server.stop(seconds)
        self.service.close()
        stopped.wait()
        self._pool.shutdown()
        self.service.join()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    chats: int | None = CHATS,
    sessions_required: bool = False,
    keepalive: float = KEEPALIVE_SECONDS,
    log: Log | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> RunningServer:
    """Starts a server and returns at once. Port 0 is a free one; the result's `port` tells which.

    `chats` None admits without end (and the chat after WORKERS gets no answer). `keepalive` is in seconds. `options`
    are grpc-core's channel arguments and win over ours. Raises CannotListen."""
    service = ChatService(chats=chats, sessions_required=sessions_required, log=log)
    pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="chat")
    server = grpc.server(pool, handlers=[handlers(service)], options=[*listening.options(keepalive), *options])
    try:
        port = server.add_insecure_port(listening.address(host, port))
    except RuntimeError as error:
        raise CannotListen(listening.why_not(host, port) or str(error)) from None
    server.start()
    return RunningServer(service, server, pool, host, port)
