"""The services that gRPC's own tools expect of any server: health checking and reflection.

grpc.health.v1.Health says SERVING until the server begins to stop, then NOT_SERVING: Check when asked, Watch as it
changes. grpc.reflection.v1.ServerReflection (and v1alpha, the same under its older name) describes the services, so
that grpcurl and its like need no .proto file. Neither asks for a session: they tell nothing about anybody.

Watch and ServerReflectionInfo are streams that may stay open. In the threaded server each holds a worker, so they have
workers of their own (`Threads.pool`), of which there are STREAMS for them and a few more for Check: no number of them
costs a member its place. A reflection stream is ended after REFLECTION_SECONDS.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from kit.words import _
from proto import chat_pb2
from server.contract import SERVICE, Refusal, stopping
from server.deadlines import at_most
from server.limits import CONNECTIONS

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVICES = (SERVICE, HEALTH, *REFLECTION)
"""What the server has, as reflection names it."""

STREAMS = 30
"""Watch and ServerReflectionInfo streams at once on the threaded server: as many as it admits chats."""
SHORT_CALLS = 2
"""Workers beside those, which Check and List need only for moments."""
REFLECTION_SECONDS = 10.0
"""How long a reflection stream may be open; tools ask what they want to know within one."""

_SERVING = HealthCheckResponse.SERVING
_NOT_SERVING = HealthCheckResponse.NOT_SERVING
_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN
_CHECKED = ("", *SERVICES)
"""The server as a whole, and each of its services."""


def _pool() -> DescriptorPool:
    """What reflection describes. grpcio-reflection has v1alpha only; v1 is the same in another package."""
    pool = DescriptorPool()
    for module in (chat_pb2, health_pb2, reflection_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
    older, newer = (name.rpartition(".")[0] for name in reversed(REFLECTION))
    file.name, file.package = file.name.replace("v1alpha", "v1"), newer
    for message in file.message_type:
        for field in filter(lambda field: field.type_name, message.field):
            field.type_name = field.type_name.replace(older, newer)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(older, newer)
        method.output_type = method.output_type.replace(older, newer)
    pool.Add(file)
    return pool


def _too_many(places: int) -> Refusal:
    text = _("All {count} places for watching health and for reflection are taken.")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text.format(count=places))


def _too_long() -> Refusal:
    text = _("A reflection stream is ended after {seconds:g} seconds.")
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text.format(seconds=REFLECTION_SECONDS))


def _unknown_service(service: str) -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, _("There is no service {service} here.").format(service=repr(service)))


class _Standard:
    """What both models have in common: the answers. `check`, `list_all`, `watch` and `reflect` are theirs."""

    draining = False
    check: Callable[..., Any]
    list_all: Callable[..., Any]
    watch: Callable[..., Any]
    reflect: Callable[..., Any]

    def status(self, service: str) -> HealthCheckResponse:
        known = service in _CHECKED
        return HealthCheckResponse(status=(_NOT_SERVING if self.draining else _SERVING) if known else _UNKNOWN)

    def statuses(self) -> HealthListResponse:
        return HealthListResponse(statuses={service: self.status(service) for service in _CHECKED})

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        health = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self.check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                self.list_all, HealthListRequest.FromString, HealthListResponse.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self.watch, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            ),
        }
        info = grpc.stream_stream_rpc_method_handler(
            self.reflect, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
        )
        return [
            grpc.method_handlers_generic_handler(HEALTH, health),
            *(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info}) for name in REFLECTION),
        ]


class Threads(_Standard):
    """For the threaded server."""

    def __init__(self, places: int = STREAMS) -> None:
        self.pool = ThreadPoolExecutor(places + SHORT_CALLS, thread_name_prefix="standard")
        """Its threads begin when they are first needed."""
        self._places = places
        self._open = 0
        self._changed = threading.Condition()
        self._answers = reflection.ReflectionServicer(SERVICES, _pool())
        for name in ("check", "list_all", "watch", "reflect"):
            setattr(self, name, self._in_own_pool(getattr(self, f"_{name}")))

    def drain(self) -> None:
        """The server begins to stop: who watches is told, and ended."""
        with self._changed:
            self.draining = True
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for the workers; after the server has ended its calls."""
        self.pool.shutdown()

    def _in_own_pool(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
            return method(request, context)

        behaviour.experimental_thread_pool = self.pool  # type: ignore[attr-defined]  # how grpcio finds it
        return behaviour

    def _check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        if request.service not in _CHECKED:
            context.abort(*_unknown_service(request.service))
        return self.status(request.service)

    def _list_all(self, _request: HealthListRequest, _context: grpc.ServicerContext) -> HealthListResponse:
        return self.statuses()

    def _watch(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[HealthCheckResponse]:
        with self._place(context):
            context.add_callback(self._wake)
            before = self.status(request.service)
            yield before
            with self._changed:
                self._changed.wait_for(lambda: self.draining or not context.is_active())
            if (after := self.status(request.service)) != before:
                yield after
            context.abort(*stopping())

    def _reflect(
        self, requests: Iterator[ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[ServerReflectionResponse]:
        with self._place(context), at_most(REFLECTION_SECONDS, context, _too_long()):
            yield from self._answers.ServerReflectionInfo(requests, context)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _place(self, context: grpc.ServicerContext) -> Iterator[None]:
        with self._changed:
            free = self._open < self._places
            self._open += free
        if not free:
            context.abort(*_too_many(self._places))
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1


class Tasks(_Standard):
    """For the server on asyncio. Of its event loop's thread."""

    def __init__(self, places: int = CONNECTIONS) -> None:
        self._places = places
        self._open = 0
        self._drained = asyncio.Event()
        self._answers = reflection.aio.ReflectionServicer(SERVICES, _pool())

    def drain(self) -> None:
        """As in Threads."""
        self.draining = True
        self._drained.set()

    async def check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        if request.service not in _CHECKED:
            await context.abort(*_unknown_service(request.service))
        return self.status(request.service)

    async def list_all(self, _request: HealthListRequest, _context: Any) -> HealthListResponse:
        return self.statuses()

    async def watch(self, request: HealthCheckRequest, context: Any) -> AsyncIterator[HealthCheckResponse]:
        await self._take_place(context)
        try:
            before = self.status(request.service)
            yield before
            await self._drained.wait()
            if (after := self.status(request.service)) != before:
                yield after
            await context.abort(*stopping())
        finally:
            self._open -= 1

    async def reflect(
        self, requests: AsyncIterator[ServerReflectionRequest], context: Any
    ) -> AsyncIterator[ServerReflectionResponse]:
        await self._take_place(context)
        try:
            async with asyncio.timeout(REFLECTION_SECONDS):
                async for answer in self._answers.ServerReflectionInfo(requests, context):
                    yield answer
        except TimeoutError:
            await context.abort(*_too_long())
        finally:
            self._open -= 1

    async def _take_place(self, context: Any) -> None:
        if self._open >= self._places:
            await context.abort(*_too_many(self._places))
        self._open += 1
