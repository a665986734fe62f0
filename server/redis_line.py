"""Commands to Redis and its answers, over one connection that is made again when it breaks.

How it works. What is asked while an answer is awaited goes out together, in one write, as soon as the answer is there
(pipelining): one connection carries what thousands of members ask, and the busier it is, the less each question costs.
redis-py makes the connection (address, password, TLS, protocol); its clients are not used, because they repeat by
themselves what must not be repeated, a message without an id above all.

A connection that breaks is made again for PATIENCE_SECONDS, and what had no answer is asked again, so that a short
interruption is bridged; then everybody who waits gets StoreLost, and who asks later gets it after one more attempt.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from kit.words import _
from server.redis_scripts import SCRIPTS
from server.stores import StoreLost

ANSWER_SECONDS = 3.0
"""Redis answers in well under a millisecond. One that takes so long is stuck, or is not there."""
PATIENCE_SECONDS = 2.0
"""How long an interruption is bridged: a restart of Redis with a day's messages takes less."""
PAUSE_SECONDS = 0.1
"""Between two attempts."""
BATCH = 200
"""Questions in one write: beyond that they cost no less."""

Command = tuple[str | int, ...]


@dataclass(frozen=True)
class Address:
    """Where a Redis is, from redis://[[USER]:PASSWORD@]HOST[:PORT][/N]; rediss is with TLS."""

    url: str = field(repr=False)
    """With the password."""

    @classmethod
    def parsed(cls, url: str) -> Address:
        """Raises ValueError with a sentence that does not hold the password."""
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
            good = good and re.fullmatch(r"(/\d{0,5})?", parts.path) and not parts.query and not parts.fragment
        except ValueError:  # a port that is no number, say
            good = False
        if not good:
            raise ValueError(_("memory, or redis://HOST:PORT/N with N the number of a database there"))
        return cls(url)

    def __str__(self) -> str:
        """Without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Broken(Exception):
    """The connection is, or could not be made. The text is the reason."""


def _reason(error: BaseException) -> str:
    """As the operating system says it, where it does: redis-py puts more around it than helps."""
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return str(error).rstrip(".")


class Wire:
    """One connection, used by one task."""

    def __init__(self, address: Address) -> None:
        self._pool = ConnectionPool.from_url(
            address.url,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=None,  # XREAD waits; the timeouts are ours, below
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: AbstractConnection | None = None

    async def exchange(self, commands: Sequence[Command], replies: list[Any], seconds: float) -> None:
        """Sends all and appends one reply after the other, a ResponseError where Redis refuses. Raises Broken; what has
        no reply then may have been done or not."""
        try:
            async with asyncio.timeout(seconds):
                connection = self._connection or await self._connect()
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _command in commands:
                    replies.append(await self._reply(connection))
        except TimeoutError:
            await self.close()
            raise Broken(_("no answer within {seconds:g} seconds").format(seconds=seconds)) from None
        except (RedisError, OSError) as error:
            await self.close()
            raise Broken(_reason(error)) from None

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
        self._connection = connection
        await connection.connect()  # type: ignore[no-untyped-call]  # as well
        loads = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]
        await connection.send_packed_command(connection.pack_commands(loads), check_health=False)
        for _load in loads:
            await connection.read_response()
        return connection

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response()
        except NoScriptError:
            raise  # somebody emptied Redis's scripts: they are loaded with the next connection
        except ResponseError as error:
            return error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


class _Question(NamedTuple):
    command: Command
    again: bool
    """It may be asked again though it may have been done."""
    answer: asyncio.Future[Any]


class Line:
    """A wire that many tasks of one event loop share."""

    def __init__(self, address: Address, batch: int = BATCH) -> None:
        """`batch` questions go out at once, at most."""
        self._address = address
        self._batch = batch
        self._wire = Wire(address)
        self._questions: deque[_Question] = deque()
        """At most one from each call that is open, and a few of the store's own."""
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connected_once = False
        self._closed = False

    async def ask(self, command: Command, again: bool = True) -> Any:
        """Raises StoreLost. With `again` false the command is not repeated where that might do it twice."""
        if self._closed:
            raise self._lost("")
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        question = _Question(command, again, asyncio.get_running_loop().create_future())
        self._questions.append(question)
        self._some.set()
        reply = await question.answer
        if isinstance(reply, ResponseError):
            text = _("The server's store of messages refuses to work ({reason}).")
            reason = str(reply).partition(" script: ")[0].rstrip(".")  # which of our scripts, and where, helps nobody
            raise StoreLost(text.format(reason=reason))
        return reply

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._fail(self._questions, "")
        await self._wire.close()

    async def _run(self) -> None:
        broken_since: float | None = None
        while True:
            batch = await self._next_batch()
            replies: list[Any] = []
            try:
                await self._wire.exchange([question.command for question in batch], replies, ANSWER_SECONDS)
                reason = None
                broken_since, self._connected_once = None, True
            except Broken as broken:
                reason = str(broken)
            for question, reply in zip(batch, replies, strict=False):  # the rest is without
                if not question.answer.done():
                    question.answer.set_result(reply)
            if reason is None:
                continue
            now = time.monotonic()
            broken_since = broken_since or now
            unanswered = batch[len(replies) :]
            if not self._connected_once or now - broken_since >= PATIENCE_SECONDS:
                self._fail([*unanswered, *self._questions], reason)
                self._questions.clear()
            else:
                self._fail([question for question in unanswered if not question.again], reason)
                self._questions.extendleft(question for question in reversed(unanswered) if question.again)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _next_batch(self) -> list[_Question]:
        while not self._questions:
            self._some.clear()
            await self._some.wait()
        batch = [self._questions.popleft() for _number in range(min(self._batch, len(self._questions)))]
        return [question for question in batch if not question.answer.done()]  # who asked may have been cancelled

    def _fail(self, questions: Sequence[_Question], reason: str) -> None:
        for question in questions:
            if not question.answer.done():
                question.answer.set_exception(self._lost(reason))

    def _lost(self, reason: str) -> StoreLost:
        if self._connected_once:
            return StoreLost(_("The server has lost its store of messages."))
        text = _("There is no Redis to work with at {address} ({reason}).")
        return StoreLost(text.format(address=self._address, reason=reason))
