"""Asks a running server what its services and messages are: gRPC server reflection.

The service is grpc.reflection.v1.ServerReflection, or v1alpha on servers that know no other; its descriptions are part
of the kit (grpc_services.py). Three rounds of questions, each on a stream of its own: which services there are, in
which files they are described, and, until none is missing, the files that those import.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from capture.grpc_services import REFLECTION_PACKAGES, files
from capture.protobuf import MAX_MESSAGE_OCTETS, Schema, SchemaError
from kit.words import _

DEFAULT_TIMEOUT_S = 5.0
MAX_FILES = 10_000
"""Files that a server may describe its services in: a bound on what a server can make this ask."""


def fetch(target: str, *, timeout: float = DEFAULT_TIMEOUT_S) -> Schema:
    """The services of the server at `target` (HOST:PORT, without TLS). `timeout` is in seconds, for each round of
    questions. Raises SchemaError with a sentence: nobody answers, reflection is not offered, or it makes no sense."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_OCTETS)]
    with grpc.insecure_channel(target, options=options) as channel:
        for package in REFLECTION_PACKAGES:
            try:
                return _Conversation(channel, package, target, timeout).schema()
            except grpc.RpcError as error:
                code = error.code() if isinstance(error, grpc.Call) else None
                if code != grpc.StatusCode.UNIMPLEMENTED:
                    raise SchemaError(_sentence(target, code)) from None
    raise SchemaError(
        _("The server at {target} does not offer reflection; give its .proto files instead.").format(target=target)
    )


def _sentence(target: str, code: grpc.StatusCode | None) -> str:
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return _("No gRPC server answers at {target}, so it cannot be asked for its services.").format(target=target)
    name = code.name if code is not None else "?"
    return _("The server at {target} answers the question for its services with {status}.").format(
        target=target, status=name
    )


class _Conversation:
    def __init__(self, channel: grpc.Channel, package: str, target: str, timeout: float) -> None:
        pool = DescriptorPool()
        pool.Add(next(file for file in files() if file.package == package))
        self._request = GetMessageClass(pool.FindMessageTypeByName(f"{package}.ServerReflectionRequest"))
        response = GetMessageClass(pool.FindMessageTypeByName(f"{package}.ServerReflectionResponse"))
        self._target, self._timeout = target, timeout
        self._call = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=self._request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def schema(self) -> Schema:
        names = [service.name for answer in self._ask("list_services", ["*"]) for service in answer.service]
        own = tuple(f"{package}." for package in REFLECTION_PACKAGES)
        known: dict[str, FileDescriptorProto] = {}
        self._add(known, "file_containing_symbol", [name for name in names if not name.startswith(own)])
        if not known:
            raise SchemaError(_("The server at {target} names no services of its own.").format(target=self._target))
        while missing := {name for file in known.values() for name in file.dependency} - known.keys():
            if len(known) + len(missing) > MAX_FILES:
                raise SchemaError(
                    _("The server at {target} describes its services in more than {limit} files.").format(
                        target=self._target, limit=MAX_FILES
                    )
                )
            before = len(known)
            self._add(known, "file_by_filename", sorted(missing))
            if len(known) == before:
                break  # what is still missing may be one of the well-known types, or the Schema will name it
        return Schema(list(known.values()))

    def _add(self, known: dict[str, FileDescriptorProto], question: str, names: Iterable[str]) -> None:
        for answer in self._ask(question, names):
            for octets in answer.file_descriptor_proto:
                try:
                    file = FileDescriptorProto.FromString(octets)
                except DecodeError:
                    raise SchemaError(
                        _("The server at {target} sends a description that cannot be read.").format(target=self._target)
                    ) from None
                known.setdefault(file.name, file)

    def _ask(self, question: str, names: Iterable[str]) -> list[Any]:
        """One answer for each name that the server has one for."""
        requests = [self._request(**{question: name}) for name in names]
        field = "list_services_response" if question == "list_services" else "file_descriptor_response"
        if not requests:
            return []
        answers = self._call(iter(requests), timeout=self._timeout)
        return [getattr(answer, field) for answer in answers if answer.WhichOneof("message_response") == field]
