"""Ending a call whose peer does not do its part, neither reads nor sends: of the threaded server from any thread, of
the one on asyncio from any task."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import update_wrapper
from typing import Any

import grpc
from grpc import aio

from server.contract import Refusal, no_message, no_request

LATE_SECONDS = 0.1
"""What a call gets for its request that waited for a worker so long that its time is over: one that came with the call
is there at once."""


# Threads


def end_at_once(context: grpc.ServicerContext, ending: Refusal) -> None:
    """Ends a call from any thread, also while its handler is blocked by a peer that does not read.

    `context.abort` works in the handler's own thread only. grpc-core has `grpc_call_cancel_with_status` for this: the
    trailers go out at once, past the messages that wait. grpcio wraps it, but shows it to clients only."""
    call: Any = context._rpc_event.call  # type: ignore[attr-defined]  # see above: there is no public way
    call.cancel(ending.code.value[0], ending.sentence.encode())


@contextmanager
def at_most(seconds: float, context: grpc.ServicerContext, ending: Refusal) -> Iterator[None]:
    timer = threading.Timer(seconds, end_at_once, (context, ending))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class RequestInTime(grpc.ServerInterceptor):
    """For grpc.server."""

    def __init__(self, seconds: float) -> None:
        """From the call's arrival on."""
        self._seconds = seconds

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        over = time.monotonic() + self._seconds
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def when_it_is_there(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with at_most(max(over - time.monotonic(), LATE_SECONDS), context, no_request(self._seconds)):
                request = next(requests, None)
            if request is None:
                context.abort(*no_message())
            return behaviour(request, context)

        update_wrapper(when_it_is_there, behaviour, assigned=())  # its pool, which grpcio looks for there
        responses = "stream" if handler.response_streaming else "unary"
        make = getattr(grpc, f"stream_{responses}_rpc_method_handler")
        return make(when_it_is_there, handler.request_deserializer, handler.response_serializer)


# asyncio


async def abort(context: aio.ServicerContext[Any, Any], ending: Refusal) -> None:
    """Ends a call from any task. Returns when the client has the status, or has gone."""
    with suppress(aio.BaseError):
        await context.abort(*ending)


@contextmanager
def abort_after(
    seconds: float, context: aio.ServicerContext[Any, Any], ending: Refusal
) -> Iterator[list[asyncio.Task[None]]]:
    """`at_most` for a task. What it yields holds the task that aborts, from when the time is over."""
    aborting: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, lambda: aborting.append(loop.create_task(abort(context, ending))))
    try:
        yield aborting
    finally:
        timer.cancel()


class AsyncRequestInTime(aio.ServerInterceptor):
    """As RequestInTime: grpc.aio keeps a call whose request does not come until its connection ends, and never answers
    one that its client has ended without a request."""

    def __init__(self, seconds: float) -> None:
        """From the time on at which the call is taken up."""
        self._seconds = seconds

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        if not handler.response_streaming:
            make, behaviour = grpc.stream_unary_rpc_method_handler, self._answering(handler.unary_unary)
        elif inspect.isasyncgenfunction(handler.unary_stream):
            make, behaviour = grpc.stream_stream_rpc_method_handler, self._producing(handler.unary_stream)
        else:
            make, behaviour = grpc.stream_stream_rpc_method_handler, self._answering(handler.unary_stream)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _answering(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def when_it_is_there(_requests: Any, context: Any) -> Any:
            return await behaviour(await self._request(context), context)

        return when_it_is_there

    def _producing(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def when_it_is_there(_requests: Any, context: Any) -> Any:
            async for response in behaviour(await self._request(context), context):
                yield response

        return when_it_is_there

    async def _request(self, context: Any) -> Any:
        with abort_after(self._seconds, context, no_request(self._seconds)) as aborting:
            request = await context.read()
        if aborting:
            await aborting[0]
            await context.write(b"")  # writes nothing, but raises the AbortError with which a handler must end
        if request is aio.EOF:
            await context.abort(*no_message())
        return request
