"""Descriptions of services, and the codecs that turn gRPC messages into JSON-able values with them.

A `Schema` holds one description or several (a descriptor set, .proto files, what a server's reflection service told).
Each keeps a descriptor pool of its own, so that two versions of one file never collide; asked for a method or a type,
the first that knows it answers, and gRPC's own services come last. For each method and direction `Schema.codec` makes
one `Codec` and remembers it; a method that no description knows is read by wire format (wireformat.py). The octets are
parsed by protobuf; protojson.py writes what was parsed.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from capture import grpc_services, protojson, wireformat
from kit.words import N_, _

DEFAULT_DESCRIPTOR_SET = Path(__file__).parent.parent / "proto" / "minichat.binpb"
MAX_MESSAGE_OCTETS = 16 << 20
"""The longest message that is put together or decompressed. gRPC itself accepts 4 MiB unless told otherwise; four
times that reads what people really send, and is as much as a decompression bomb can make."""
MAX_JSON_DEPTH = 200
"""Levels of a message that is JSON itself: JSON writers take 254."""
_MAX_CODECS = 4096
"""Paths are read off the wire, so that there may be any number of them: beyond this the least used is forgotten."""


class SchemaError(ValueError):
    """A description that cannot be used; its text is one sentence for the person who gave it."""


class Unreadable(Exception):
    """A message whose content cannot be read: `layer`, `template` and `values` as in Problem."""

    def __init__(self, layer: str, template: str, **values: Any) -> None:
        super().__init__(template, values)
        self.layer = layer
        self.template = template
        self.values = values

    def __str__(self) -> str:
        return self.template.format(**self.values)


# --- Codecs

Parse = Callable[[bytes], Any]
"""From a message's octets to JSON-able values. Raises Unreadable."""


class Codec:
    """Reads the messages of one method in one direction.

    `encoding` is what that direction's headers named in `grpc-encoding`: "identity" where they name none, None where
    the capture cannot tell; then gzip and zlib are known by their own marks and checksums.
    """

    __slots__ = ("_parse", "_verify", "encoding", "type_name")

    def __init__(self, parse: Parse, type_name: str | None, encoding: str | None, verify: Parse | None = None) -> None:
        self._parse = parse
        self._verify = verify or parse
        self.type_name = type_name
        """Full name of the message type; None where no description is known."""
        self.encoding = encoding

    def decode(self, data: bytes, compressed: bool) -> Any:
        """The message, ready for JSON; None where it cannot be read."""
        try:
            return self._parse(decompress(data, self.encoding) if compressed else data)
        except Unreadable:
            return None

    def check(self, data: bytes, compressed: bool) -> Unreadable | None:
        """Why `decode` returns None, or None where it doesn't: parses, and writes nothing."""
        try:
            self._verify(decompress(data, self.encoding) if compressed else data)
        except Unreadable as trouble:
            return trouble
        return None


_WINDOW_BITS = {"gzip": (31,), "deflate": (15, -15), None: (31, 15)}
"""For zlib. "deflate" is HTTP's, which means zlib's format (RFC 9110 §8.4.1.2); some send it without zlib's frame."""


def decompress(data: bytes, encoding: str | None) -> bytes:
    """A message whose compressed flag is set. Raises Unreadable: unknown encoding, damaged, or too large."""
    if encoding == "identity":
        raise Unreadable(
            "grpc", N_("the compressed flag is set, though the headers name no grpc-encoding (gRPC: Compressed-Flag)")
        )
    if encoding not in _WINDOW_BITS:
        raise Unreadable(
            "grpc", N_("the message is compressed as {encoding}, which is not read here"), encoding=encoding
        )
    for bits in _WINDOW_BITS[encoding]:
        inflater = zlib.decompressobj(bits)
        try:
            plain = inflater.decompress(data, MAX_MESSAGE_OCTETS + 1)
        except zlib.error:
            continue
        if len(plain) > MAX_MESSAGE_OCTETS:
            template = N_("the message's {octets} compressed octets become more than {limit}, and are not read")
            raise Unreadable("grpc", template, octets=len(data), limit=MAX_MESSAGE_OCTETS)
        if inflater.eof and not inflater.unused_data:
            return plain
    raise Unreadable(
        "grpc", N_("the message cannot be decompressed as {encoding}"), encoding=encoding or "gzip, deflate"
    )


def _by_wire_format(data: bytes) -> Any:
    try:
        return wireformat.decode(data)
    except wireformat.Damaged as damage:
        raise Unreadable("protobuf", damage.template, **damage.values) from None


def _as_json(data: bytes) -> Any:
    """Content type application/grpc+json: the message is JSON already."""
    try:
        value = orjson.loads(data)
    except ValueError:
        raise Unreadable("grpc", N_("the message is no JSON, which its content-type says it is")) from None
    if protojson.depth(value, MAX_JSON_DEPTH) > MAX_JSON_DEPTH:
        raise Unreadable("grpc", N_("the message's JSON is deeper than {limit} levels"), limit=MAX_JSON_DEPTH)
    return value


def _as_octets(data: bytes) -> Any:
    """Content type application/grpc+something: not for us to interpret."""
    return {"base64": base64.b64encode(data).decode("ascii")}


def _parser(descriptor: Descriptor, read: protojson.Read | None) -> Parse:
    """Parses, and reads what was parsed; or, without `read`, only parses."""
    parse = GetMessageClass(descriptor).FromString
    full_name = descriptor.full_name
    if read is None:
        read = bool

    def parse_and_read(data: bytes) -> Any:
        try:
            return read(parse(data))
        except (DecodeError, UnicodeDecodeError, RecursionError):
            raise _damage(data, full_name) from None

    return parse_and_read


def _damage(data: bytes, full_name: str) -> Unreadable:
    """What is wrong with a message that protobuf refuses: the wire format's own sentence, if it breaks that."""
    try:
        wireformat.decode(data)
    except wireformat.Damaged as damage:
        return Unreadable("protobuf", damage.template, **damage.values)
    return Unreadable("protobuf", N_("the octets do not fit the message type {type}"), type=full_name)


# --- Schemas


class _Type(NamedTuple):
    descriptor: Descriptor
    parse: Parse
    verify: Parse


class _Layer:
    """One description: its pool, and the plans for its messages."""

    def __init__(self, files: Iterable[FileDescriptorProto], open_any: protojson.OpenAny) -> None:
        self.pool = DescriptorPool()
        self.services: list[str] = []
        self._plans = protojson.Plans(open_any)
        self._types: dict[str, _Type] = {}
        for file in _in_order(files):
            try:
                self.pool.Add(file)
            except (TypeError, ValueError) as error:
                raise SchemaError(
                    _("The description of {file} is faulty: {why}").format(
                        file=file.name, why=" ".join(str(error).split())
                    )
                ) from None
            self.services += [".".join(filter(None, (file.package, service.name))) for service in file.service]

    def method(self, service: str, name: str, direction: int) -> _Type | None:
        try:
            method = self.pool.FindServiceByName(service).methods_by_name[name]
        except KeyError:
            return None
        return self.type((method.output_type if direction else method.input_type).full_name)

    def type(self, full_name: str) -> _Type | None:
        if full_name not in self._types:
            try:
                descriptor = self.pool.FindMessageTypeByName(full_name)
            except KeyError:
                return None
            read = self._plans.reader(descriptor)
            self._types[full_name] = _Type(descriptor, _parser(descriptor, read), _parser(descriptor, None))
        return self._types[full_name]


class Schema:
    """What is known of services and messages: one description or several, the earlier ones first."""

    codec: Callable[..., Codec]
    """`codec(path, direction, encoding="identity", content="proto")`: what reads the messages of `path`
    (`/package.Service/Method`, or None) in a direction; `encoding` as in Codec; `content` is the subtype of the content
    type application/grpc+content. The same arguments give the same codec."""

    def __init__(self, *descriptions: Sequence[FileDescriptorProto]) -> None:
        """Each description is a list of files that belong together. Raises SchemaError."""
        self._descriptions = descriptions
        self._layers = [
            _Layer(files, self._open_any) for files in (*descriptions, grpc_services.files(), _RUNTIME_FILES.values())
        ]
        self.codec = lru_cache(_MAX_CODECS)(self._codec)

    @classmethod
    def from_descriptor_set(cls, octets: bytes, name: str = "") -> Schema:
        """From a serialized FileDescriptorSet (`protoc --include_imports --descriptor_set_out`). `name` is what an
        error calls it. Raises SchemaError."""
        try:
            files = list(FileDescriptorSet.FromString(octets).file)
        except DecodeError:
            files = []
        if not files or not all(file.name for file in files):
            raise SchemaError(_("{file} is no descriptor set.").format(file=name or _("The input")))
        return cls(files)

    @classmethod
    def from_proto_files(cls, paths: Sequence[str | Path], include: Sequence[str | Path] = ()) -> Schema:
        """From .proto files, compiled with grpcio-tools' protoc. Imports are looked for in `include`, and in the
        nearest folder, a file's own or one above it, from which they are all found. Raises SchemaError."""
        given = [Path(path).resolve() for path in paths]
        for path, named in zip(given, paths, strict=True):
            if not path.is_file():
                raise SchemaError(_("{file} is no file.").format(file=named))
        roots = list(dict.fromkeys([*(Path(i).resolve() for i in include), *(_root_of(path) for path in given)]))
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "set.binpb"
            command = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports", f"--descriptor_set_out={target}"]
            command += [f"-I{root}" for root in roots] + [str(path) for path in given]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip() and ": warning:" not in line]
                raise SchemaError(
                    _("protoc does not take {files}: {why}").format(
                        files=", ".join(map(str, paths)), why=lines[0].strip() if lines else done.returncode
                    )
                )
            return cls.from_descriptor_set(target.read_bytes())

    @classmethod
    def default(cls) -> Schema:
        """The kit's own chat, from its descriptor set. Raises SchemaError."""
        try:
            octets = DEFAULT_DESCRIPTOR_SET.read_bytes()
        except OSError as error:
            raise SchemaError(
                _("The chat's description cannot be read: {file}: {why}").format(
                    file=DEFAULT_DESCRIPTOR_SET, why=error.strerror
                )
            ) from None
        return cls.from_descriptor_set(octets, str(DEFAULT_DESCRIPTOR_SET))

    @classmethod
    def merged(cls, *schemas: Schema) -> Schema:
        """All of them as one; where two know a method or type, the earlier one's word counts."""
        return cls(*(files for schema in schemas for files in schema._descriptions))

    @property
    def services(self) -> list[str]:
        """Full names of the services described, gRPC's own left out."""
        described = self._layers[: len(self._descriptions)]
        return list(dict.fromkeys(name for layer in described for name in layer.services))

    def message(self, full_name: str, octets: bytes) -> Any:
        """A message of a type given by name, `google.rpc.Status` for instance; by wire format where the type is
        unknown. None where it cannot be read."""
        known = self._type(full_name)
        try:
            return (known.parse if known else _by_wire_format)(octets)
        except Unreadable:
            return None

    def _codec(
        self, path: str | None, direction: int, encoding: str | None = "identity", content: str = "proto"
    ) -> Codec:
        if content != "proto":
            return Codec(_as_json if content == "json" else _as_octets, None, encoding)
        service, _slash, method = (path or "").rpartition("/")
        service = service.rpartition("/")[2]
        for layer in self._layers:
            known = layer.method(service, method, direction) if service else None
            if known is not None:
                return Codec(known.parse, known.descriptor.full_name, encoding, known.verify)
        return Codec(_by_wire_format, None, encoding)

    def _type(self, full_name: str) -> _Type | None:
        return next((known for layer in self._layers if (known := layer.type(full_name)) is not None), None)

    def _open_any(self, full_name: str, octets: bytes) -> tuple[bool, Any] | None:
        known = self._type(full_name)
        if known is None:
            return None
        try:
            return full_name in protojson.OWN_FORM, known.parse(octets)
        except Unreadable:
            return None


@cache
def no_schema() -> Schema:
    """Knows gRPC's own services; all else is read by wire format."""
    return Schema()


# --- Files


def _file_of(module: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


_RUNTIME_FILES: dict[str, FileDescriptorProto] = {
    file.name: file
    for file in map(
        _file_of,
        (
            any_pb2, source_context_pb2, type_pb2, api_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2,
            struct_pb2, timestamp_pb2, wrappers_pb2,
        ),
    )
}  # fmt: skip
"""The well-known types' files: protobuf brings them along, so a description need not."""


def _in_order(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Each file once, behind those that it imports. Raises SchemaError where one is missing or they form a circle."""
    known = {file.name: file for file in files}
    ordered: dict[str, FileDescriptorProto] = {}
    under_way: set[str] = set()

    def place(name: str, importer: str) -> None:
        if name in ordered:
            return
        file = known.get(name) or _RUNTIME_FILES.get(name)
        if file is None:
            raise SchemaError(
                _("{file} imports {missing}, which the description lacks (protoc --include_imports adds it).").format(
                    file=importer, missing=name
                )
            )
        if name in under_way:
            raise SchemaError(_("{file} imports itself.").format(file=name))
        under_way.add(name)
        for dependency in file.dependency:
            place(dependency, name)
        ordered[name] = file

    try:
        for name in known:
            place(name, "")
    except RecursionError:
        raise SchemaError(_("The description's files import each other too deeply.")) from None
    return list(ordered.values())


_IMPORT = re.compile(r'(?:^|;)\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"\s*;', re.MULTILINE)


def _root_of(path: Path) -> Path:
    """The folder that a .proto file's imports are counted from: the nearest, from its own upwards, that has them."""
    imports = [name for name in _IMPORT.findall(path.read_text(errors="replace")) if name not in _RUNTIME_FILES]
    for folder in path.parents:
        if all((folder / name).is_file() for name in imports):
            return folder
    return path.parent
