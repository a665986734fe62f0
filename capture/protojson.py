"""From a parsed protobuf message to the values that JSON has, along a plan compiled once for each message type.

The result is what google.protobuf.json_format makes of a message with the proto's field names: fields that are set,
64-bit numbers as strings, bytes in base64, enum values by name, well-known types in their own forms. Beyond that,
fields that the description lacks stand under their numbers ({"7": …}), and nothing that a message holds makes reading
it fail: an Any of unknown type, a Timestamp out of range are shown as they are.

Two plans, which together make it several times as fast as json_format:

  a message of scalar fields only    their values are fetched all at once, zeros skipped
  any other                          ListFields, and for each field its name and converter looked up
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from capture import wireformat

Read = Callable[[Any], Any]
"""From one parsed value to what JSON has."""
OpenAny = Callable[[str, bytes], tuple[bool, Any] | None]
"""From the type name and octets of an Any to (whether the type has a JSON form of its own, the content as read); None
where the type is unknown or the octets are damaged."""

WELL_KNOWN = frozenset(
    f"google.protobuf.{name}"
    for name in [
        "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "DoubleValue", "FloatValue", "Int64Value",
        "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue",
    ]
)  # fmt: skip
"""Types with a JSON form of their own (https://protobuf.dev/programming-guides/json); Any is treated apart."""
_ANY = "google.protobuf.Any"
OWN_FORM = WELL_KNOWN | {_ANY}
"""Types that stand in an Any as `{"@type": …, "value": …}`."""
_MOST_FETCHED = 16
"""A message type of more fields is asked which of them are set instead of fetching them all."""
_MOST_NESTED_ANY = 32
"""Levels of JSON that an opened Any may add. Protobuf's parsers take 100 messages within messages, which are at most
200 levels of JSON; JSON writers take 254."""
_UNKNOWN_DEPTH = 8
"""Messages within messages that are looked for in a field without description: these too add to the 200 levels."""
_PYTHON_NAMES = frozenset(dir(Empty))
"""What a message class has for itself: a field of such a name is not fetched by name."""
_FLOATING = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_64_BITS = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


class Plans:
    """The compiled plans of one descriptor pool's message types."""

    def __init__(self, open_any: OpenAny) -> None:
        self._open_any = open_any
        self._readers: dict[str, Read | None] = {}
        self._is_proto3: dict[str, bool] = {}

    def reader(self, descriptor: Descriptor) -> Read:
        """From a parsed message to JSON-able values: compiled at first use, once for each type."""
        full_name = descriptor.full_name
        if full_name in self._readers:
            ready = self._readers[full_name]
            if ready is not None:
                return ready
            # Recursive types: this one is being compiled further up, and will be there when a message is read.
            return lambda message: self._readers[full_name](message)  # type: ignore[misc]  # not None by then
        self._readers[full_name] = None
        reader: Read
        if full_name == _ANY:
            reader = self._any
        elif full_name in WELL_KNOWN:
            reader = _well_known(self._by_fields(descriptor))
        elif _fetchable(descriptor):
            reader = self._by_values(descriptor)
        else:
            reader = self._by_fields(descriptor)
        self._readers[full_name] = reader
        return reader

    def _by_values(self, descriptor: Descriptor) -> Read:
        names = tuple(field.name for field in descriptor.fields)
        converters = tuple(self._convert(field) for field in descriptor.fields)
        fetch = attrgetter(*names)

        def read(message: Any) -> dict[str, Any]:
            out = {}
            for value, name, convert in zip(fetch(message), names, converters, strict=True):
                if value:
                    out[name] = value if convert is None else convert(value)
            unknown = UnknownFieldSet(message)
            if len(unknown):
                _add_unknown(out, unknown)
            return out

        return read

    def _by_fields(self, descriptor: Descriptor) -> Read:
        plan = _Plan(self)
        for field in descriptor.fields:
            plan[field] = (field.name, self._convert_field(field))
        list_fields = GetMessageClass(descriptor).ListFields  # not message.ListFields: a field may bear that name

        def read(message: Any) -> dict[str, Any]:
            out = {}
            for field, value in list_fields(message):
                name, convert = plan[field]
                out[name] = value if convert is None else convert(value)
            unknown = UnknownFieldSet(message)
            if len(unknown):
                _add_unknown(out, unknown)
            return out

        return read

    def _convert_field(self, field: FieldDescriptor) -> Read | None:
        if not field.is_repeated:
            return self._convert(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._convert_map(field.message_type)
        convert = self._convert(field)
        if convert is None:
            return list
        return lambda values: [convert(value) for value in values]

    def _convert_map(self, entry: Descriptor) -> Read:
        convert = self._convert(entry.fields_by_name["value"]) or (lambda value: value)
        if entry.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return lambda items: {("true" if key else "false"): convert(items[key]) for key in items}
        return lambda items: {str(key): convert(items[key]) for key in items}

    def _convert(self, field: FieldDescriptor) -> Read | None:
        """How one value of the field is written; None where it stands as it is."""
        kind = field.cpp_type
        if field.message_type is not None:
            return self.reader(field.message_type)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        if kind in _64_BITS:
            return str
        if kind in _FLOATING:
            return _float if kind == FieldDescriptor.CPPTYPE_FLOAT else _double
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _base64
        if kind == FieldDescriptor.CPPTYPE_STRING and not self._checks_text(field):
            return _text
        return None

    def _checks_text(self, field: FieldDescriptor) -> bool:
        """Whether protobuf refuses a string that is not UTF-8, as it does in proto3 files."""
        file: FileDescriptor = field.file  # type: ignore[attr-defined]  # types-protobuf lacks it
        if file.name not in self._is_proto3:
            description = FileDescriptorProto()
            file.CopyToProto(description)
            self._is_proto3[file.name] = description.syntax == "proto3"
        return self._is_proto3[file.name]

    def _any(self, message: Any) -> dict[str, Any]:
        type_url, octets = message.type_url, message.value
        if not type_url and not octets:
            return {}
        opened = self._open_any(type_url.rpartition("/")[2], octets)
        if opened is None or depth(opened[1], _MOST_NESTED_ANY) > _MOST_NESTED_ANY:
            return {"@type": type_url, "value": _base64(octets)}
        has_own_form, content = opened
        return {"@type": type_url, "value": content} if has_own_form else {"@type": type_url, **content}


class _Plan(dict[FieldDescriptor, tuple[str, Read | None]]):
    """Name and converter by field; an extension (proto2) joins when it is first met."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def __missing__(self, field: FieldDescriptor) -> tuple[str, Read | None]:
        entry = (f"[{field.full_name}]", self._plans._convert_field(field))
        self[field] = entry
        return entry


def _fetchable(descriptor: Descriptor) -> bool:
    """Whether a field that is unset and one that is zero are the same thing throughout: scalars of implicit presence.
    Not floating ones, as −0.0 is set."""
    return (
        1 < len(descriptor.fields) <= _MOST_FETCHED  # attrgetter gives a tuple from two names on
        and not descriptor.is_extendable
        and _PYTHON_NAMES.isdisjoint(descriptor.fields_by_name)
        and not any(f.is_repeated or f.has_presence or f.cpp_type in _FLOATING for f in descriptor.fields)
    )


def _well_known(plain: Read) -> Read:
    def read(message: Any) -> Any:
        try:
            return json_format.MessageToDict(message, preserving_proto_field_name=True)
        except (json_format.Error, ValueError, TypeError, OverflowError):  # out of the range of its JSON form
            return plain(message)

    return read


def _enum(enum: EnumDescriptor) -> Read:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda number: None
    names: dict[int, str] = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _text(value: str | bytes) -> Any:
    """A string of a file other than proto3, where protobuf hands over octets that are not UTF-8."""
    return value if isinstance(value, str) else {"base64": _base64(value)}


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_FLOAT = struct.Struct("<f")


def _float(value: float) -> float | str:
    """The shortest decimal number that is the same 32-bit float: 0.9, not 0.8999999761581421."""
    if not math.isfinite(value):
        return _double(value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if _FLOAT.unpack(_FLOAT.pack(short))[0] == value:
            return short
    return float(f"{value:.9g}")


def _add_unknown(out: dict[str, Any], unknown: Any) -> None:
    for field in unknown:
        data: Any = field.data
        if isinstance(data, int):
            data = wireformat.number(data)
        elif isinstance(data, bytes):
            data = wireformat.value(data, _UNKNOWN_DEPTH)
        else:  # a group
            group: dict[str, Any] = {}
            _add_unknown(group, data)
            data = group
        wireformat.add(out, str(field.field_number), data)


def depth(value: Any, limit: int) -> int:
    """How many levels of objects and lists a JSON value has; counting ends beyond `limit`."""
    if not isinstance(value, dict | list) or limit < 0:
        return 0
    return 1 + max((depth(v, limit - 1) for v in (value.values() if isinstance(value, dict) else value)), default=0)
