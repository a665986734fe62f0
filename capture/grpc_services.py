"""Descriptions of gRPC's own services, which every capture may show whatever schema was given.

grpc.health.v1 and grpc.reflection.v1 (with v1alpha, which has the same messages), as their .proto files in the grpc
repository describe them, and google.rpc.Status, which travels in `grpc-status-details-bin`. They are written here as
short tables, so that no further package is needed for them.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

REFLECTION_PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
"""Newest first: the order in which a server is asked."""

_TYPES = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
}


def files() -> list[FileDescriptorProto]:
    """All of them, in an order in which each file's imports come before it."""
    return [_health(), *(_reflection(package) for package in REFLECTION_PACKAGES), _status()]


def _health() -> FileDescriptorProto:
    file = _file(
        "grpc/health/v1/health.proto",
        "grpc.health.v1",
        {
            "HealthCheckRequest": ["1 service string"],
            "HealthCheckResponse": ["1 status .grpc.health.v1.HealthCheckResponse.ServingStatus"],
            "HealthListRequest": [],
            "HealthListResponse": ["1 statuses map .grpc.health.v1.HealthCheckResponse"],
        },
        {
            "Health": [
                "Check HealthCheckRequest HealthCheckResponse",
                "Watch HealthCheckRequest stream HealthCheckResponse",
                "List HealthListRequest HealthListResponse",
            ]
        },
    )
    states = file.message_type[1].enum_type.add(name="ServingStatus")
    for n, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        states.value.add(name=name, number=n)
    file.message_type[1].field[0].type = FieldDescriptorProto.TYPE_ENUM
    return file


def _reflection(package: str) -> FileDescriptorProto:
    return _file(
        f"{package.replace('.', '/')}/reflection.proto",
        package,
        {
            "ServerReflectionRequest": [
                "1 host string",
                "3 file_by_filename string message_request",
                "4 file_containing_symbol string message_request",
                f"5 file_containing_extension .{package}.ExtensionRequest message_request",
                "6 all_extension_numbers_of_type string message_request",
                "7 list_services string message_request",
            ],
            "ExtensionRequest": ["1 containing_type string", "2 extension_number int32"],
            "ServerReflectionResponse": [
                "1 valid_host string",
                f"2 original_request .{package}.ServerReflectionRequest",
                f"4 file_descriptor_response .{package}.FileDescriptorResponse message_response",
                f"5 all_extension_numbers_response .{package}.ExtensionNumberResponse message_response",
                f"6 list_services_response .{package}.ListServiceResponse message_response",
                f"7 error_response .{package}.ErrorResponse message_response",
            ],
            "FileDescriptorResponse": ["1 file_descriptor_proto repeated bytes"],
            "ExtensionNumberResponse": ["1 base_type_name string", "2 extension_number repeated int32"],
            "ListServiceResponse": [f"1 service repeated .{package}.ServiceResponse"],
            "ServiceResponse": ["1 name string"],
            "ErrorResponse": ["1 error_code int32", "2 error_message string"],
        },
        {"ServerReflection": ["ServerReflectionInfo stream ServerReflectionRequest stream ServerReflectionResponse"]},
    )


def _status() -> FileDescriptorProto:
    file = _file(
        "google/rpc/status.proto",
        "google.rpc",
        {"Status": ["1 code int32", "2 message string", "3 details repeated .google.protobuf.Any"]},
        {},
    )
    file.dependency.append("google/protobuf/any.proto")
    return file


def _file(
    name: str, package: str, messages: dict[str, list[str]], services: dict[str, list[str]]
) -> FileDescriptorProto:
    """A proto3 file. Fields: `number name [repeated|map] type [oneof]`; methods: `name [stream] in [stream] out`."""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for line in fields:
            number, field_name, *rest = line.split()
            field = message.field.add(name=field_name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
            if rest[0] in ("repeated", "map"):
                field.label = FieldDescriptorProto.LABEL_REPEATED
                if rest.pop(0) == "map":
                    entry = message.nested_type.add(name=f"{field_name.capitalize()}Entry")
                    entry.options.map_entry = True
                    for n, (part, kind) in enumerate((("key", "string"), ("value", rest[0])), 1):
                        _set_type(entry.field.add(name=part, number=n, label=FieldDescriptorProto.LABEL_OPTIONAL), kind)
                    rest[0] = f".{package}.{message_name}.{entry.name}"
            _set_type(field, rest[0])
            if rest[1:]:
                if not message.oneof_decl:
                    message.oneof_decl.add(name=rest[1])
                field.oneof_index = 0
    for service_name, methods in services.items():
        service = file.service.add(name=service_name)
        for line in methods:
            words = line.split()
            method = service.method.add(name=words.pop(0))
            if words[0] == "stream":
                method.client_streaming = bool(words.pop(0))
            method.input_type = f".{package}.{words.pop(0)}"
            if words[0] == "stream":
                method.server_streaming = bool(words.pop(0))
            method.output_type = f".{package}.{words.pop(0)}"
    return file


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind.startswith("."):
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, kind
    else:
        field.type = _TYPES[kind]
