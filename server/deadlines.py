"""Ending a call of the threaded server from any thread, also one whose peer does not read, or does not send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import grpc

from kit.words import _
from server.contract import Refusal, no_request

LATE_SECONDS = 0.1
"""What a call gets for its request that waited for a worker so long that its time is over: one that came with the call
is there at once."""


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
    """Ends calls of methods that take one request where that does not come: grpcio keeps a worker for each of them
    until it does, and as many as there are workers would stop the server. Reads it as a stream's first message, because
    that is how a handler gets to run before it is there; on the wire the two are the same."""

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
                text = _("This method takes one message, and none came.")
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
            return behaviour(request, context)

        update_wrapper(when_it_is_there, behaviour, assigned=())  # its pool, which grpcio looks for there
        responses = "stream" if handler.response_streaming else "unary"
        make = getattr(grpc, f"stream_{responses}_rpc_method_handler")
        return make(when_it_is_there, handler.request_deserializer, handler.response_serializer)
