"""Asking real servers for their services."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from capture import grpc_services
from capture.events import Direction
from capture.protobuf import Schema, SchemaError
from capture.sources import reflection

PROTOS = Path(__file__).parent / "protos"
V1, V1ALPHA = grpc_services.REFLECTION_PACKAGES


class Reflecting(grpc.GenericRpcHandler):
    """A reflection service as a server has it: of one package, with these files and services."""

    def __init__(self, package: str, files: list[FileDescriptorProto], services: list[str]) -> None:
        pool = DescriptorPool()
        pool.Add(next(file for file in grpc_services.files() if file.package == package))
        request = GetMessageClass(pool.FindMessageTypeByName(f"{package}.ServerReflectionRequest"))
        self.response: Any = GetMessageClass(pool.FindMessageTypeByName(f"{package}.ServerReflectionResponse"))
        self.path = f"/{package}.ServerReflection/ServerReflectionInfo"
        self.files = {file.name: file for file in files}
        self.services = services
        self.asked: list[str] = []
        self.handler = grpc.stream_stream_rpc_method_handler(
            self.answer, request_deserializer=request.FromString, response_serializer=self.response.SerializeToString
        )

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self.handler if details.method == self.path else None

    def answer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            answer = self.response(original_request=request)
            if request.list_services:
                for name in self.services:
                    answer.list_services_response.service.add(name=name)
            elif file := self.find(request):
                self.asked.append(file.name)
                answer.file_descriptor_response.file_descriptor_proto.append(self.octets(file))
            else:
                answer.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
                answer.error_response.error_message = "no such thing"
            yield answer

    def find(self, request: Any) -> FileDescriptorProto | None:
        if request.file_by_filename:
            return self.files.get(request.file_by_filename)
        symbol = request.file_containing_symbol
        return next((f for f in self.files.values() for s in f.service if f"{f.package}.{s.name}" == symbol), None)

    def octets(self, file: FileDescriptorProto) -> bytes:
        return file.SerializeToString()


@contextmanager
def serving(*handlers: grpc.GenericRpcHandler) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=list(handlers), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def rich() -> list[FileDescriptorProto]:
    return list(Schema.from_proto_files([PROTOS / "rich.proto"])._descriptions[0])


@pytest.mark.parametrize("package", [V1, V1ALPHA])
def test_a_server_s_services_and_the_files_they_import_are_fetched(package: str) -> None:
    handler = Reflecting(package, rich(), ["test.rich.Rich", f"{package}.ServerReflection"])
    with serving(handler) as target:
        schema = reflection.fetch(target)
    assert schema.services == ["test.rich.Rich"]
    assert schema.codec("/test.rich.Rich/Older", Direction.CLIENT_TO_SERVER).decode(b"\x10\x05", False) == {
        "number": "5"
    }
    assert handler.asked[0] == "rich.proto"
    assert "old.proto" in handler.asked


def test_well_known_types_that_a_server_does_not_tell_are_known_here() -> None:
    own = [file for file in rich() if not file.name.startswith("google/")]
    with serving(Reflecting(V1, own, ["test.rich.Rich"])) as target:
        assert reflection.fetch(target).services == ["test.rich.Rich"]


class _Refusing(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

        return grpc.stream_stream_rpc_method_handler(refuse)


class _Garbling(Reflecting):
    def octets(self, file: FileDescriptorProto) -> bytes:
        return b"\x0a\x05"


@pytest.mark.parametrize(
    ("handlers", "says"),
    [
        (lambda: (), "does not offer reflection; give its .proto files instead"),
        (lambda: (_Refusing(),), "answers the question for its services with PERMISSION_DENIED"),
        (lambda: (Reflecting(V1, [], [f"{V1}.ServerReflection"]),), "names no services of its own"),
        (lambda: (Reflecting(V1, [], ["a.Missing"]),), "names no services of its own"),
        (lambda: (_Garbling(V1, rich(), ["test.rich.Rich"]),), "sends a description that cannot be read"),
        (lambda: (Reflecting(V1, rich()[-1:], ["test.rich.Rich"]),), "imports"),
    ],
)
def test_a_server_that_cannot_help_is_told_in_a_sentence(
    handlers: Callable[[], tuple[grpc.GenericRpcHandler, ...]], says: str
) -> None:
    with serving(*handlers()) as target, pytest.raises(SchemaError, match=says) as caught:
        reflection.fetch(target)
    assert "\n" not in str(caught.value)


def test_more_files_than_anybody_needs_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_FILES", 2)
    with serving(Reflecting(V1, rich(), ["test.rich.Rich"])) as target, pytest.raises(SchemaError, match="more than 2"):
        reflection.fetch(target)


def test_nobody_there_is_told_in_a_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SchemaError, match=f"^No gRPC server answers at {target}"):
            reflection.fetch(target)


def test_somebody_who_accepts_and_says_nothing_is_waited_for_no_longer_than_agreed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SchemaError, match=r"^No gRPC server answers"):
        reflection.fetch(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
