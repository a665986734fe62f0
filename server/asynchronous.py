"""The chat over gRPC with asyncio: one event loop for everybody, so that a member costs memory and no thread.

How it works. Each Chat call is run by the task that grpc.aio gives it, which first reads who comes and then writes, and
by a task of its own that reads on:

    client ─ messages ─▶ _read_on (task) ─▶ Store.post ─▶ deliver() of every member in the room: octets into its queue
    client ◀─ octets ─── _write (the call's task)      ◀───────────────────────────────────────── its queue

A message becomes octets once, however many hear it. Nothing blocks: a peer that stops reading holds up its own call's
`write` and nothing else, until its queue is full and it is dropped. The bounds and their sentences are those of the
threaded server (server/limits.py).

What grpc.aio asks for. A task that waits in `read` or `write` is never cancelled by us: grpc-core would finish the
operation into memory that is gone. Instead the call is aborted from another task, and what waits ends by that. A status
waits behind one message that is being written; it has to reach the client in its turn. And a handler whose call was
aborted has to end with the very AbortError.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import grpc
from grpc import aio

try:
    import uvloop
except ImportError:  # Windows has none
    uvloop = None  # type: ignore[assignment]  # a module otherwise

from kit.options import host_port
from kit.pace import Pace
from kit.truth import Truth
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinReply, JoinRequest
from server import contract, listening, standard
from server.admission import Entrance
from server.contract import GONE, LEFT, Refusal, refuse_first, refuse_later, refuse_names
from server.deadlines import AsyncRequestInTime, abort, abort_after
from server.limits import CUT_SECONDS, PACE, Limits
from server.listening import KEEPALIVE_SECONDS, STOP_SECONDS
from server.log import Log
from server.rooms import Message, NoPlace
from server.sessions import Sessions
from server.stores import Embedded, Store, StoreLost
from server.truth import AsyncRecording

CHATS = 10_000
"""Chats admitted at once: some 350 MB."""
PENDING_CALLS = 20_000
"""Calls that may wait for being taken up: grpc-core refuses some above 1,000 by itself, and a class that comes back
after its server was lost comes in one moment."""

OPTIONS = (
    ("grpc.server.max_pending_requests", PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
)
"""grpc-core's channel arguments, added to those of server/listening.py."""

R = TypeVar("R", JoinRequest, HistoryRequest)
Context = aio.ServicerContext[Any, Any]


class Call:
    """One Chat call from its admission to its end, and the member that it is meanwhile."""

    def __init__(self, service: ChatService, context: Context) -> None:
        self.user: str = ""
        """Known from the first message on, like the next two."""
        self.room: str = ""
        self.session: str = ""
        self._service = service
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        """What is to be written."""
        self._room_for_more = service.limits.waiting
        self._wake: asyncio.Future[None] | None = None
        """While there is nothing to write: its result lets `_write` go on."""
        self._paced: asyncio.Future[None] | None = None
        """While its own messages wait for PACE: its result lets `_read_on` go on."""
        self._ending: Refusal | None = None
        """Set once, by the first who ended it."""
        self._aborting: asyncio.Task[None] | None = None
        self._entering: asyncio.Future[str] | None = None
        self._announced = False
        """The log has it that the member joined."""
        self._leaving: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._pace = None if service.limits.rate is None else Pace(service.limits.rate, self._loop.time)
        self._last_said = 0.0

    # As a member of its room: called in the loop's thread, and nothing waits

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def deliver(self, message: Message) -> bool:
        waiting = self._waiting
        if self._ending is not None:
            return False
        if len(waiting) >= self._room_for_more:
            self.drop(contract.too_far_behind(self._room_for_more))
            return False
        waiting.append(message.octets)
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)
        return True

    def replaced(self) -> None:
        self.drop(contract.replaced())

    def lost(self, sentence: str) -> None:
        self.end(contract.unavailable(sentence))

    # Its end

    def end(self, ending: Refusal) -> None:
        """After what waits, if the client reads it. What ended the call first stands."""
        if self._ending is not None:
            return
        self._ending = ending
        self._after(self._service.limits.stall, contract.stalled(self._service.limits.stall))
        self._go_on()

    def drop(self, ending: Refusal) -> None:
        """At once, whatever the call is waiting for."""
        self._ending = ending
        self._waiting.clear()
        if self._aborting is None:
            self._aborting = self._loop.create_task(self._abort(ending))
        self._go_on()

    async def _abort(self, ending: Refusal) -> None:
        await self._leave(ending)
        await abort(self._context, ending)

    def _go_on(self) -> None:
        for waiter in (self._wake, self._paced):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _after(self, seconds: float, ending: Refusal) -> asyncio.TimerHandle:
        timer = self._loop.call_later(seconds, self.drop, ending)
        self._timers.append(timer)
        return timer

    # The call's own task

    async def run(self) -> None:
        reason = GONE
        try:
            request = await self._first()
            if request is not None and await self._enter(request):
                self._reader = self._loop.create_task(self._read_on(request))
                await self._write()
            assert self._ending is not None
            reason = self._ending
        except aio.BaseError:  # of a call that is over, by the client's doing or by ours
            reason = self._ending or GONE
        finally:  # also when grpc.aio cancels this task, because the client has gone
            for timer in self._timers:
                timer.cancel()
            if self._ending is None:
                self._ending = reason
            self._go_on()
            await self._leave(reason)
        if self._aborting is None and reason.code is not grpc.StatusCode.OK:
            self._aborting = self._loop.create_task(self._abort(reason))
        if self._aborting is not None:
            await asyncio.shield(self._aborting)
            await self._context.write(b"")  # writes nothing, but raises the AbortError with which a handler must end

    async def _first(self) -> ChatMessage | None:
        """The message that says who comes; None where the call ends."""
        seconds = self._service.limits.first_message
        timer = self._after(seconds, contract.no_first_message(seconds))
        request = await self._context.read()
        timer.cancel()
        if request is aio.EOF:
            self.end(LEFT)
            return None
        refusal = request if isinstance(request, Refusal) else refuse_first(request)
        if refusal is not None:
            self.end(refusal)
            return None
        return cast(ChatMessage, request)

    async def _enter(self, request: ChatMessage) -> bool:
        """Whether it is in its room."""
        who = self._service.caller(self._context, request.user, request.room)
        if self._service.sessions_required and who.refusal is not None:
            self.end(who.refusal)
            return False
        self.user, self.room, self.session = request.user, request.room, who.session
        self._entering = asyncio.ensure_future(self._service.store.enter(self))
        try:
            epoch = await asyncio.shield(self._entering)
        except NoPlace as reason:
            self.end(contract.no_place(reason))
            return False
        except StoreLost as reason:
            self.end(contract.unavailable(str(reason)))
            return False
        self._announced = True
        self._service.log.joined(self.user, self.room, unquote(self._context.peer()))
        headers = contract.response_headers(epoch, self._service.limits.rate)
        await self._context.send_initial_metadata(headers)
        return True

    async def _write(self) -> None:
        """All that is to reach the client, until the call ends."""
        write, waiting = self._context.write, self._waiting
        while True:
            while waiting:
                await write(waiting.popleft())
                if self._paced is not None and len(waiting) < PACE and not self._paced.done():
                    self._paced.set_result(None)
            if self._ending is not None:
                return
            self._wake = self._loop.create_future()
            await self._wake
            self._wake = None

    async def _leave(self, reason: Refusal) -> None:
        """Before the status goes out: who gets it may come again at once. The first call does it, in a task of its own:
        grpc.aio cancels the call's when the client goes, and the name would stay taken."""
        self._service.admission.discharge(self)
        if self._entering is None:
            return
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave_room(self._entering, reason))
            self._service.wait_for(self._leaving)
        await asyncio.shield(self._leaving)

    async def _leave_room(self, entering: asyncio.Future[str], reason: Refusal) -> None:
        await asyncio.wait([entering])
        if entering.exception() is not None:
            return
        with suppress(StoreLost):
            await self._service.store.leave(self)
        if self._announced:
            self._service.log.left(self.user, self.room, contract.why_left(reason))

    # The task that reads

    async def _read_on(self, first: ChatMessage) -> None:
        if self._service.limits.idle is not None:
            self._last_said = self._loop.time()
            self._look_whether_idle()
        with suppress(aio.BaseError):  # the call is over, by the client's doing or by ours
            self.end(await self._receive(first))

    async def _receive(self, request: ChatMessage) -> Refusal:
        """Takes what the client sends. Returns how that ended."""
        if request.text and (refusal := await self._post(request)):
            return refusal
        read = self._context.read
        while self._ending is None:
            what = await read()
            if what is aio.EOF:
                await asyncio.sleep(CUT_SECONDS)
                return LEFT
            if isinstance(what, Refusal):
                return what
            refusal = refuse_later(what, self.user, self.room) or await self._post(what)
            if refusal is not None:
                return refusal
        return self._ending

    async def _post(self, request: ChatMessage) -> Refusal | None:
        if self._pace is not None and self._pace.take():
            assert self._service.limits.rate is not None
            return contract.too_fast(self._service.limits.rate)
        self._last_said = self._loop.time()
        try:
            posted = await self._service.store.post(self, request.text, request.client_message_id)
        except StoreLost as reason:
            return contract.unavailable(str(reason))
        if posted is None:  # dropped in the meantime
            return None
        if posted.repeated:
            self._service.log.repeated(posted.message)
        else:
            self._service.log.posted(posted.message, posted.reached)
        if len(self._waiting) >= PACE and self._ending is None:
            stall = self._service.limits.stall
            timer = self._loop.call_later(stall, self.drop, contract.stalled(stall))
            self._paced = self._loop.create_future()
            await self._paced
            self._paced = None
            timer.cancel()
        return None

    def _look_whether_idle(self) -> None:
        seconds = self._service.limits.idle
        assert seconds is not None
        left = self._last_said + seconds - self._loop.time()
        if left <= 0:
            self.end(contract.idle(seconds))
        elif self._ending is None:
            self._loop.call_later(left, self._look_whether_idle)


class ChatService(Entrance[Call]):
    """minichat.v1.ChatService on asyncio."""

    def __init__(self, store: Store[Call], sessions: Sessions, **terms: Any) -> None:
        """`terms` are those of Entrance."""
        super().__init__(sessions, **terms)
        self.store = store
        self._running: set[asyncio.Task[Any]] = set()

    # The three methods

    async def Join(self, request: JoinRequest | Refusal, context: Context) -> JoinReply:
        request = await self._accept(request, context)
        refusal = self.refuse_secret(request, context)
        if refusal is not None:
            await context.abort(*refusal)
        session = self.caller(context, request.user, request.room).session
        try:
            await self.store.check(request.user, request.room, session)
            members = await self.store.members(request.room)
        except NoPlace as reason:
            await context.abort(*contract.no_place(reason))
        except StoreLost as reason:
            await context.abort(*contract.unavailable(str(reason)))
        return JoinReply(session_token=self.sessions.token(request.user, request.room, session), members=members)

    async def History(self, request: HistoryRequest | Refusal, context: Context) -> None:
        request = await self._accept(request, context)
        who = self.caller(context, request.user, request.room)
        if self.sessions_required and who.refusal is not None:
            await context.abort(*who.refusal)
        try:
            messages = await self.store.history(request.room, request.after_sequence, request.limit)
        except StoreLost as reason:
            await context.abort(*contract.unavailable(str(reason)))
        seconds = self.limits.history
        with abort_after(seconds, context, contract.history_not_read(seconds)):
            for message in messages:
                await context.write(message.octets)

    async def Chat(self, _requests: Any, context: Context) -> None:
        call = Call(self, context)
        refusal = self.admit(call, context)
        if refusal is not None:
            await context.abort(*refusal)
        task = asyncio.current_task()
        assert task is not None
        self.wait_for(task)
        await call.run()

    def wait_for(self, task: asyncio.Task[Any]) -> None:
        """In `join`, unless it has ended before."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def join(self) -> None:
        """After `close`, when the calls have ended: waits until their members have left the store."""
        while self._running:
            await asyncio.wait(self._running)

    @staticmethod
    async def _accept(request: R | Refusal, context: Context) -> R:
        refusal = request if isinstance(request, Refusal) else refuse_names(request)
        if refusal is not None:
            await context.abort(*refusal)
        return cast(R, request)


class RunningServer:
    """A server that takes calls, until `stop`. Also a context manager. Its event loop runs in a thread of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        store: Store[Call] | None,
        options: Sequence[tuple[str, Any]],
        credentials: grpc.ServerCredentials | None,
        truth: Truth | None,
        **service: Any,
    ) -> None:
        self.host = host
        self._store = store
        self._options = options
        self._credentials = credentials
        self._watching = [] if truth is None else [AsyncRecording(truth)]
        self._service = service
        self._stop: asyncio.Future[float]
        self._loop: asyncio.AbstractEventLoop
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(port, started), name="chat", daemon=True)
        self._thread.start()
        try:
            self.port = started.result()
        except BaseException:
            self._thread.join()
            raise
        self.address = host_port(host, self.port)
        """`host:port`, as a client takes it."""

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Tells every chat that the server stops, lets other calls end within the time, then cancels them. Returns
        when the loop has ended. May be called again."""

        def tell() -> None:
            if not self._stop.done():
                self._stop.set_result(seconds)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(tell)
        self._thread.join()

    def _run(self, port: int, started: Future[int]) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve(port, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, port: int, started: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_pass_over)
        self._stop = self._loop.create_future()
        store: Store[Call] = self._store or Embedded(self._service["limits"])
        try:
            await self._serve_from(store, port, started)
        finally:
            await store.close()

    async def _serve_from(self, store: Store[Call], port: int, started: Future[int]) -> None:
        service = ChatService(store, Sessions(await store.key()), **self._service)
        in_time = AsyncRequestInTime(service.limits.first_message)
        server = aio.server(interceptors=[*self._watching, in_time], options=self._options)
        others = standard.Tasks()
        # Registered methods have a queue each in grpc-core: a Join does not wait behind 2,000 Chats that came before.
        server.add_registered_method_handlers(contract.SERVICE, contract.methods(service))
        server.add_generic_rpc_handlers(others.handlers())
        port = listening.open_port(server, self.host, port, self._credentials)
        await server.start()
        started.set_result(port)
        seconds = await self._stop
        others.drain()
        stopped = asyncio.ensure_future(server.stop(seconds))
        service.close()
        await stopped
        await service.join()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one: a delivery takes a sixth less of the processor's time (benchmarks/chat.py)."""
    return asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()


def _pass_over(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """grpc.aio leaves an exception behind where a client goes while its status is being sent."""
    if not isinstance(context.get("exception"), aio.BaseError):
        loop.default_exception_handler(context)


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

    `chats` None admits without end. `keepalive` is in seconds. `options` are grpc-core's channel arguments and win over
    ours. The server closes the store. A `room_secret` implies that sessions are required; with `credentials` the port
    speaks TLS. All calls are logged in `truth`. Raises CannotListen, and StoreLost where the store is not there."""
    return RunningServer(
        host,
        port,
        store,
        [*listening.options(keepalive), *OPTIONS, *options],
        credentials,
        truth,
        chats=chats,
        sessions_required=sessions_required,
        room_secret=room_secret,
        log=log or Log(),
        limits=limits or Limits(),
    )
