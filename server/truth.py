"""The server's own record of its calls (kit.truth), for both models: an interceptor, which no handler knows of.

gRPC asks an interceptor once for each call, so each call is given a handler of its own, whose serialisers see every
message in its order and whose behaviour is told how the call ends.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from kit.truth import TrueCall, Truth

_UNIMPLEMENTED = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
"""What grpcio answers where there is no handler. It does so without asking anybody, and nobody learns who called."""
_UNKNOWN = grpc.StatusCode.UNKNOWN.value[0]
"""What it answers where a handler fails."""

Handler = Any
"""grpc.RpcMethodHandler, of which the type stubs leave nearly all out."""


def _refuse(_request: Any, context: Any) -> None:
    context.abort(*_UNIMPLEMENTED)


async def _refuse_async(_request: Any, context: Any) -> None:
    await context.abort(*_UNIMPLEMENTED)


_NO_HANDLER: Handler = grpc.stream_unary_rpc_method_handler(_refuse)
_NO_ASYNC_HANDLER: Handler = grpc.stream_unary_rpc_method_handler(_refuse_async)


class Recording(grpc.ServerInterceptor):
    """For grpc.server."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler], details: grpc.HandlerCallDetails
    ) -> Handler:
        return _recorded(continuation(details) or _NO_HANDLER, self._truth.call(details.method))


class AsyncRecording(grpc.aio.ServerInterceptor):
    """For grpc.aio.server."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        return _recorded(await continuation(details) or _NO_ASYNC_HANDLER, self._truth.call(details.method))


class _Ending:
    """How a call ends: the status that its behaviour gave, if it came so far before the call was over."""

    def __init__(self, call: TrueCall) -> None:
        self._call = call
        self._was_given = False
        self._failed = False

    def begin(self, context: Any) -> None:
        client = client_address(context.peer())
        if client is not None:
            self._call.connected(client)
        if isinstance(context, grpc.ServicerContext):
            if not context.add_callback(lambda: self._over(context)):
                self._over(context)
        else:  # grpc.aio's, whose callbacks are given the context
            context.add_done_callback(self._over)

    def given(self, failed: bool) -> None:
        self._was_given, self._failed = True, failed

    def _over(self, context: Any) -> None:
        code, sentence = context.code(), context.details() or ""
        number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
        if number or (self._was_given and not self._failed):
            self._call.ended(number, sentence.decode(errors="replace") if isinstance(sentence, bytes) else sentence)
        elif self._failed:
            self._call.ended(_UNKNOWN, None)  # the sentence is grpcio's
        else:
            self._call.ended(None, None)


def _recorded(handler: Handler, call: TrueCall) -> Handler:
    read, write = handler.request_deserializer, handler.response_serializer

    def deserialise(octets: bytes) -> Any:
        call.message("client_to_server", octets)
        return octets if read is None else read(octets)

    def serialise(response: Any) -> bytes:
        octets: bytes = response if write is None else write(response)
        call.message("server_to_client", octets)
        return octets

    requests = "stream" if handler.request_streaming else "unary"
    responses = "stream" if handler.response_streaming else "unary"
    make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
    behaviour = getattr(handler, f"{requests}_{responses}")
    followed = _followed(behaviour, handler.response_streaming, _Ending(call))
    update_wrapper(followed, behaviour, assigned=())  # what grpcio looks for in one: which pool it runs in
    return make(followed, deserialise, serialise)


def _followed(behaviour: Callable[..., Any], streams: bool, ending: _Ending) -> Callable[..., Any]:
    """The behaviour, of the same kind (grpc.aio looks at that), with its beginning and its end told."""
    if inspect.isasyncgenfunction(behaviour):

        async def produce(request: Any, context: Any) -> Any:
            with _watched(ending, context):
                async for response in behaviour(request, context):
                    yield response

        return produce
    if inspect.iscoroutinefunction(behaviour):

        async def answer(request: Any, context: Any) -> Any:
            with _watched(ending, context):
                return await behaviour(request, context)

        return answer
    if streams:

        def produce_here(request: Any, context: Any) -> Any:
            with _watched(ending, context):
                yield from behaviour(request, context)

        return produce_here

    def answer_here(request: Any, context: Any) -> Any:
        with _watched(ending, context):
            return behaviour(request, context)

    return answer_here


class _watched:
    """A behaviour's run. One that is thrown away or cancelled (no Exception, but a BaseException) gave no status."""

    def __init__(self, ending: _Ending, context: Any) -> None:
        self._ending = ending
        ending.begin(context)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self._ending.given(failed=kind is not None)


def client_address(peer: str) -> str | None:
    """`ipv4:127.0.0.1:40112`, `ipv6:%5B::1%5D:40112` as `ip:port`; None for what is no TCP connection."""
    kind, _colon, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    mapped, _bracket, port = address.removeprefix("[::ffff:").rpartition("]:")  # an IPv4 client of an IPv6 socket
    return f"{mapped}:{port}" if address.startswith("[::ffff:") and "." in mapped else address
