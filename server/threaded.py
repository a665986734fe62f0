"""The chat over gRPC with threads: the design that was asked for, one worker thread and one reading thread per chat.

How it works. grpcio takes a worker of the pool for each call and keeps it until the call ends. Join and History need
theirs for a moment; Chat needs it as long as the member stays, because a generator runs there that waits for messages
and yields them:

    client ─ messages ─▶ recv_loop (a thread of the call's own) ─▶ Rooms.post ─▶ out_q of every member in the room
    client ◀─ messages ─ outgoing (generator, in a worker)      ◀────────────── out_q

So the number of members is bounded by the number of workers. With every worker in a chat, Join, History and the next
Chat would get no answer at all; therefore a Chat is admitted by its handler, which refuses at once what is too many,
and two workers stay free (`chats=None` takes that away again, for the lab about it).

A peer that stops reading blocks the generator inside grpcio, where nothing can be raised. Five bounds keep such a peer
from holding what others need: out_q is bounded, and who lets it fill up is dropped (OUT_QUEUE_LENGTH); a sender waits
until its own copy has gone out before its next message is taken (PACE), so that a fast sender slows itself down and
nobody is dropped for its haste; a call that has nothing left to do but to send must get rid of it (STALL_SECONDS,
HISTORY_SECONDS); a Chat whose first message does not come is ended, and so is any other call whose request does not
(FIRST_MESSAGE_SECONDS, and server/deadlines.py; all in server/limits.py).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import grpc

from kit.options import host_port
from kit.pace import Pace
from kit.truth import Truth
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from server import contract, listening, standard
from server.admission import Entrance
from server.contract import GONE, LEFT, Refusal, handlers, refuse_first, refuse_later, refuse_names
from server.deadlines import RequestInTime, at_most, end_at_once
from server.limits import CUT_SECONDS, OUT_QUEUE_LENGTH, PACE, Limits
from server.listening import KEEPALIVE_SECONDS, STOP_SECONDS, CannotListen
from server.log import Log
from server.rooms import Message, NoPlace, Rooms
from server.sessions import Sessions
from server.stores import Blocking, Store, StoreLost
from server.truth import Recording

WORKERS = 32
"""Of the pool. Set, because ThreadPoolExecutor's own default depends on the machine."""
CHATS = 30
"""Chats admitted at once: the workers but two, which Join and History need only for moments."""

R = TypeVar("R", JoinRequest, HistoryRequest)


class OutQueue:
    """What waits to be sent to one member, and how it ends. Any thread may call."""

    def __init__(self, length: int = OUT_QUEUE_LENGTH) -> None:
        self._length = length
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self.ending: Refusal | None = None
        """Set once, by the first who ended it."""

    def __len__(self) -> int:
        return len(self._waiting)

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

    def get(self, seconds: float | None = None) -> Message | Refusal | None:
        """Waits for the next message; after the last one, the ending; None where nothing comes within the time."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.ending is not None, seconds)
            if not self._waiting:
                return self.ending
            message = self._waiting.popleft()
            self._changed.notify_all()
            return message

    def wait_until_below(self, length: int, seconds: float) -> bool:
        """Whether fewer than `length` messages wait, now or within the time; True as well where it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._waiting) < length or self.ending is not None, seconds)


class Call:
    """One Chat call from its admission to its end, and the member that it is meanwhile."""

    def __init__(self, service: ChatService, requests: Iterator[ChatMessage | Refusal], context: Any) -> None:
        self.user: str = ""
        """Known from the first message on, like the next two."""
        self.room: str = ""
        self.session: str = ""
        self._service = service
        self._requests = requests
        self._context = context
        self._limits = service.limits
        self._out_q = OutQueue(self._limits.waiting)
        self._entered = False
        self._settled = threading.Event()
        """Response headers were sent, or the call ends without: the generator may go on."""
        self._settling = threading.Lock()
        """One or the other: grpcio breaks on headers after a status."""
        self._over = threading.Event()
        """grpcio has let go of the call, whoever ended it."""
        self._pace = None if self._limits.rate is None else Pace(self._limits.rate)
        self._last_said = time.monotonic()
        self.reader = threading.Thread(target=self._recv_loop, name="recv_loop", daemon=True)

    def start(self) -> None:
        if self._context.add_callback(self._ended):
            self.reader.start()
        else:  # the client has gone already
            self._ended()

    # As a member of its room

    @property
    def waiting(self) -> int:
        return len(self._out_q)

    def deliver(self, message: Message) -> bool:
        if self._out_q.put(message):
            return True
        self._drop(contract.too_far_behind(self._limits.waiting))
        return False

    def replaced(self) -> None:
        self._drop(contract.replaced())

    def lost(self, sentence: str) -> None:
        self.end(contract.unavailable(sentence))

    # The worker, and others

    def outgoing(self) -> Iterator[bytes]:
        """What the worker runs: everything that is to reach the client, then how the call ends."""
        if not self._settled.wait(self._limits.first_message):
            self.end(contract.no_first_message(self._limits.first_message))
        while not isinstance(item := self._out_q.get(self._patience()), Refusal):
            if item is not None:
                yield item.octets
            elif self._limits.idle is not None:
                self.end(contract.idle(self._limits.idle))
        self._leave_room()
        self._service.admission.discharge(self)  # before the status goes out: who gets it may come again at once
        if item.code is not grpc.StatusCode.OK:
            self._context.abort(item.code, item.sentence)

    def _patience(self) -> float | None:
        """Seconds until the member counts as idle."""
        if self._limits.idle is None:
            return None
        return max(self._last_said + self._limits.idle - time.monotonic(), 0)

    def end(self, ending: Refusal, discard: bool = False) -> None:
        """After what waits in out_q, unless that is discarded. What ended the call first stands."""
        with self._settling:
            self._out_q.end(ending, discard)
            self._settled.set()

    def _drop(self, ending: Refusal) -> None:
        """At once, though its client reads nothing."""
        self.end(ending, discard=True)
        end_at_once(self._context, ending)

    def _ended(self) -> None:
        """grpcio calls this once, in a thread that must not wait."""
        self._over.set()
        self._service.admission.discharge(self)
        self.end(GONE, discard=True)

    # The thread that reads

    def _recv_loop(self) -> None:
        ending = GONE
        try:
            ending = self._receive()
        except grpc.RpcError:
            pass  # the call is over, by the client's doing or by ours
        except StoreLost as lost:
            ending = contract.unavailable(str(lost))
        finally:
            self._leave(ending)
            self.end(ending)
        if not self._over.wait(self._limits.stall):
            self._drop(contract.stalled(self._limits.stall))

    def _receive(self) -> Refusal:
        """Reads what the client sends. Returns how that ended."""
        for request in self._requests:
            if isinstance(request, Refusal):
                return request
            if not self._entered:
                refusal = refuse_first(request) or self._enter(request)
            else:
                refusal = refuse_later(request, self.user, self.room)
            if request.text and refusal is None:
                refusal = self._post(request)
            if refusal is not None:
                return refusal
        return GONE if self._over.wait(CUT_SECONDS) else LEFT

    def _enter(self, request: ChatMessage) -> Refusal | None:
        who = self._service.caller(self._context, request.user, request.room)
        if self._service.sessions_required and who.refusal is not None:
            return who.refusal
        self.user, self.room, self.session = request.user, request.room, who.session
        try:
            epoch = self._service.rooms.enter(self)
        except NoPlace as reason:
            return contract.no_place(reason)
        self._entered = True
        self._service.log.joined(self.user, self.room, unquote(self._context.peer()))
        with self._settling:
            if not self._settled.is_set():
                self._context.send_initial_metadata(contract.response_headers(epoch, self._limits.rate))
                self._settled.set()
        return self._out_q.ending

    def _post(self, request: ChatMessage) -> Refusal | None:
        if self._pace is not None and self._pace.take():
            assert self._limits.rate is not None
            return contract.too_fast(self._limits.rate)
        self._last_said = time.monotonic()
        posted = self._service.rooms.post(self, request.text, request.client_message_id)
        if posted is None:  # dropped in the meantime
            return None
        if posted.repeated:
            self._service.log.repeated(posted.message)
        else:
            self._service.log.posted(posted.message, posted.reached)
        if not self._out_q.wait_until_below(PACE, self._limits.stall):
            self._drop(contract.stalled(self._limits.stall))
        return None

    def _leave_room(self) -> None:
        if self._entered:
            with suppress(StoreLost):
                self._service.rooms.leave(self)

    def _leave(self, ending: Refusal) -> None:
        if self._entered:
            self._leave_room()
            self._service.log.left(self.user, self.room, contract.why_left(self._out_q.ending or ending))


class ChatService(Entrance[Call]):
    """minichat.v1.ChatService on threads."""

    def __init__(self, rooms: Rooms[Call] | Blocking[Call], sessions: Sessions, **terms: Any) -> None:
        """`terms` are those of Entrance."""
        super().__init__(sessions, **terms)
        self.rooms = rooms
        self._readers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    # The three methods

    def Join(self, request: JoinRequest | Refusal, context: grpc.ServicerContext) -> JoinReply:
        request = self._accept(request, context)
        refusal = self.refuse_secret(request, context)
        if refusal is not None:
            context.abort(*refusal)
        session = self.caller(context, request.user, request.room).session
        try:
            self.rooms.check(request.user, request.room, session)
            members = self.rooms.members(request.room)
        except NoPlace as reason:
            context.abort(*contract.no_place(reason))
        except StoreLost as reason:
            context.abort(*contract.unavailable(str(reason)))
        return JoinReply(session_token=self.sessions.token(request.user, request.room, session), members=members)

    def History(self, request: HistoryRequest | Refusal, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = self._accept(request, context)
        who = self.caller(context, request.user, request.room)
        if self.sessions_required and who.refusal is not None:
            context.abort(*who.refusal)
        try:
            messages = self.rooms.history(request.room, request.after_sequence, request.limit)
        except StoreLost as reason:
            context.abort(*contract.unavailable(str(reason)))
        seconds = self.limits.history
        with at_most(seconds, context, contract.history_not_read(seconds)):
            for message in messages:
                yield message.octets

    def Chat(self, requests: Iterator[ChatMessage | Refusal], context: grpc.ServicerContext) -> Iterator[bytes]:
        call = Call(self, requests, context)
        refusal = self.admit(call, context)
        if refusal is not None:
            context.abort(*refusal)
        self._readers.add(call.reader)
        call.start()
        yield from call.outgoing()

    def join(self) -> None:
        """Waits until the calls' own threads have ended; after `close`, when the calls have."""
        for reader in list(self._readers):
            if reader.ident is not None:  # else its client had gone before it was started
                reader.join()

    # What requests must fulfil

    @staticmethod
    def _accept(request: R | Refusal, context: grpc.ServicerContext) -> R:
        refusal = request if isinstance(request, Refusal) else refuse_names(request)
        if refusal is not None:
            context.abort(*refusal)
        return cast(R, request)


class RunningServer:
    """A server that takes calls, until `stop`. Also a context manager."""

    def __init__(
        self,
        service: ChatService,
        standard: standard.Threads,
        server: grpc.Server,
        pool: ThreadPoolExecutor,
        host: str,
        port: int,
    ):
        self.service = service
        self._standard = standard
        self.host = host
        self.port = port
        self.address = host_port(host, port)
        """`host:port`, as a client takes it."""
        self._server = server
        self._pool = pool

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Tells every chat that the server stops, lets other calls end within the time, then cancels them. Returns
        when all threads have ended. May be called again."""
        self._standard.drain()
        stopped = self._server.stop(seconds)
        self.service.close()
        stopped.wait()
        self._pool.shutdown()
        self._standard.close()
        self.service.join()
        if isinstance(self.service.rooms, Blocking):
            self.service.rooms.close()

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
    store: Store[Call] | None = None,
    room_secret: str = "",
    credentials: grpc.ServerCredentials | None = None,
    limits: Limits | None = None,
    truth: Truth | None = None,
) -> RunningServer:
    """Starts a server and returns at once. Port 0 is a free one; the result's `port` tells which.

    `chats` None admits without end (and the chat after WORKERS gets no answer). `keepalive` is in seconds. `options`
    are grpc-core's channel arguments and win over ours. Rooms are kept in the process, or in `store`, which the server
    closes at its end. A `room_secret` implies that sessions are required. With `credentials` the port speaks TLS. All
    calls are logged in `truth`. Raises CannotListen, and StoreLost where the store cannot be reached."""
    limits = limits or Limits()
    rooms: Rooms[Call] | Blocking[Call] = Rooms(limits)
    sessions = Sessions()
    if store is not None:
        rooms = Blocking(store)
        try:
            sessions = Sessions(rooms.key())
        except StoreLost:
            rooms.close()
            raise
    service = ChatService(
        rooms,
        sessions,
        chats=chats,
        sessions_required=sessions_required,
        room_secret=room_secret,
        log=log or Log(),
        limits=limits,
    )
    others = standard.Threads()
    pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="chat")
    every = [handlers(service), *others.handlers()]
    interceptors: list[grpc.ServerInterceptor] = [RequestInTime(limits.first_message)]
    if truth is not None:
        interceptors.insert(0, Recording(truth))
    server = grpc.server(pool, every, interceptors, [*listening.options(keepalive), *options])
    try:
        port = listening.open_port(server, host, port, credentials)
    except CannotListen:
        if isinstance(rooms, Blocking):
            rooms.close()
        raise
    server.start()
    return RunningServer(service, others, server, pool, host, port)
