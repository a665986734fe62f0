"""Messages with a description: as protobuf's own JSON has them, and what that does not cover."""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import protobuf
from capture.events import Direction
from capture.protobuf import MAX_MESSAGE_OCTETS, Schema, SchemaError, no_schema

PROTOS = Path(__file__).parent / "protos"
CHAT = Path(__file__).parents[2] / "proto" / "chat.proto"
CLIENT, SERVER = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT


@cache
def schema() -> Schema:
    return Schema.from_proto_files([PROTOS / "rich.proto"])


@cache
def pool() -> DescriptorPool:
    """The same files in a pool of protobuf's own, for its JSON to compare with."""
    built = DescriptorPool()
    for file in protobuf._in_order(schema()._descriptions[0]):
        built.Add(file)
    return built


def message_class(name: str) -> Any:
    return GetMessageClass(pool().FindMessageTypeByName(name))


def decode(method: str, octets: bytes, direction: Direction = CLIENT) -> Any:
    return schema().codec(f"/test.rich.Rich/{method}", direction).decode(octets, False)


def why(method: str, octets: bytes) -> tuple[str, str]:
    trouble = schema().codec(f"/test.rich.Rich/{method}", CLIENT).check(octets, False)
    assert trouble is not None
    return trouble.layer, str(trouble)


# --- Against protobuf's own JSON

NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        known = st.sampled_from(sorted(field.enum_type.values_by_number))
        return known if field.enum_type.is_closed else known | st.integers(-(2**31), 2**31 - 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=12)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return NUMBERS[field.cpp_type]


SPECIAL: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "google.protobuf.Timestamp": {
        "seconds": st.integers(-62135596800, 253402300799),
        "nanos": st.integers(0, 10**9 - 1),
    },
    "google.protobuf.Duration": {"seconds": st.integers(0, 315576000000), "nanos": st.integers(0, 10**9 - 1)},
    "google.protobuf.FieldMask": {"paths": st.lists(st.sampled_from(["a", "a.b_c", "snake_case"]))},
    "google.protobuf.Value": {"number_value": st.floats(allow_nan=False, allow_infinity=False)},
    "google.protobuf.Any": {},
}


def fill(draw: st.DrawFn, message: Any, descriptor: Descriptor, depth: int) -> Any:
    """Sets some of a message's fields, whatever its type."""
    if descriptor.full_name in SPECIAL:
        for name, strategy in SPECIAL[descriptor.full_name].items():
            value = draw(strategy)
            if isinstance(value, list):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        return message
    if not descriptor.fields:
        return message
    names = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=len(descriptor.fields) if depth else 3))
    for field in names:
        if field.message_type is not None and depth <= 0:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            into = getattr(message, field.name)
            for k in draw(st.lists(scalars(key), max_size=2)):
                if value.message_type is None:
                    into[k] = draw(scalars(value))
                else:
                    fill(draw, into[k], value.message_type, depth - 1)
        elif field.is_repeated:
            into = getattr(message, field.name)
            for _n in range(draw(st.integers(0, 3))):
                if field.message_type is None:
                    into.append(draw(scalars(field)))
                else:
                    fill(draw, into.add(), field.message_type, depth - 1)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name), field.message_type, depth - 1)
        else:
            setattr(message, field.name, draw(scalars(field)))
    return message


@st.composite
def messages(draw: st.DrawFn, name: str, depth: int = 2) -> Any:
    made = message_class(name)()
    return fill(draw, made, made.DESCRIPTOR, depth)


def as_protobuf_has_it(message: Any) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool())


def same(ours: Any, theirs: Any) -> None:
    """Equal as JSON is: 1.0 is not 1, and −0.0 is not 0.0."""
    in_one_order = orjson.OPT_SORT_KEYS
    assert orjson.dumps(ours, option=in_one_order) == orjson.dumps(theirs, option=in_one_order)


@given(messages("test.rich.Rich3"))
def test_any_message_is_what_json_format_makes_of_it(message: Any) -> None:
    same(decode("Everything", message.SerializeToString()), as_protobuf_has_it(message))


@given(messages("test.rich.Scalars"))
def test_a_message_of_scalars_only_is_what_json_format_makes_of_it(message: Any) -> None:
    same(decode("Plain", message.SerializeToString()), as_protobuf_has_it(message))


@given(messages("test.old.Rich2", depth=3), st.lists(st.integers(-5, 5), max_size=3))
def test_proto2_with_groups_and_extensions_is_what_json_format_makes_of_it(message: Any, numbers: list[int]) -> None:
    message.number = 1
    message.Extensions[pool().FindExtensionByName("test.old.added_numbers")].extend(numbers)
    message.Extensions[pool().FindExtensionByName("test.old.added_message")].number = 2
    octets = message.SerializePartialToString()
    same(decode("Older", octets), as_protobuf_has_it(type(message).FromString(octets)))


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_octets_are_read_as_json_format_reads_them_or_refused_as_protobuf_refuses_them(octets: bytes) -> None:
    message = message_class("test.rich.Scalars")()
    try:
        message.ParseFromString(octets)
    except DecodeError:
        assert decode("Plain", octets) is None
        assert why("Plain", octets)[0] == "protobuf"
    else:
        named = {k: v for k, v in decode("Plain", octets).items() if not k.isdigit()}
        same(named, as_protobuf_has_it(message))


def test_the_well_known_types_have_their_json_forms() -> None:
    message = message_class("test.rich.Rich3")()
    message.at.FromJsonString("2026-01-02T03:04:05.678Z")
    message.took.FromMilliseconds(1500)
    message.struct.update({"a": [1, None, {"b": True}]})
    message.wrapped_number.value = 2**60
    message.any.Pack(message_class("test.rich.Scalars")(i64=7))
    message.wrapped_octets.value = b"\xff"
    octets = message.SerializeToString()
    assert decode("Everything", octets) == {
        "at": "2026-01-02T03:04:05.678Z",
        "took": "1.500s",
        "struct": {"a": [1.0, None, {"b": True}]},
        "wrapped_number": str(2**60),
        "any": {"@type": "type.googleapis.com/test.rich.Scalars", "i64": "7"},
        "wrapped_octets": "/w==",
    }
    same(decode("Everything", octets), as_protobuf_has_it(message))


def test_an_any_with_a_type_of_its_own_form_stands_under_value() -> None:
    message = message_class("test.rich.Rich3")()
    message.any.Pack(message_class("google.protobuf.Duration")(seconds=3))
    assert decode("Everything", message.SerializeToString()) == as_protobuf_has_it(message)


# --- Beyond protobuf's own JSON


def test_fields_without_description_stand_under_their_numbers() -> None:
    octets = bytes.fromhex("0a0158 9801 05 9a01 02 6869 9801 06 a201 02 0807 a501 01000000")
    assert decode("Plain", octets) == {"text": "X", "19": [5, "hi", 6], "20": [{"1": 7}, 1]}


def test_unknown_fields_of_nested_messages_stand_where_they_are() -> None:
    assert decode("Everything", bytes.fromhex("0a03 c03e 05")) == {"scalars": {"1000": 5}}


def test_an_unknown_group_is_a_message() -> None:
    assert decode("Plain", bytes.fromhex("c33e 0805 c43e")) == {"1000": {"1": 5}}


def test_an_unknown_value_of_a_closed_enum_keeps_its_number() -> None:
    assert decode("Older", bytes.fromhex("1002 2809")) == {"number": "2", "5": 9}


def test_an_unknown_value_of_an_open_enum_is_its_number() -> None:
    assert decode("Plain", bytes.fromhex("7063")) == {"colour": 99}


def test_proto2_text_that_is_not_utf8_is_kept_as_octets() -> None:
    assert decode("Older", b"\x0a\x02\xff\xfe\x10\x02") == {"text": {"base64": "//4="}, "number": "2"}


def test_a_timestamp_out_of_range_is_shown_by_its_fields() -> None:
    message = message_class("test.rich.Rich3")()
    message.at.seconds = 2**62
    assert decode("Everything", message.SerializeToString()) == {"at": {"seconds": str(2**62)}}


def test_a_struct_that_holds_nan_is_shown_by_its_fields() -> None:
    message = message_class("test.rich.Rich3")()
    message.value.number_value = float("nan")
    assert decode("Everything", message.SerializeToString()) == {"value": {"number_value": "NaN"}}


def test_an_any_of_unknown_type_keeps_its_octets() -> None:
    message = message_class("test.rich.Rich3")()
    message.any.type_url, message.any.value = "example/none.such", b"\x01\x02"
    assert decode("Everything", message.SerializeToString())["any"] == {"@type": "example/none.such", "value": "AQI="}


def test_fields_with_names_that_python_uses_itself_are_read() -> None:
    octets = b"\x0a\x01l\x12\x01f\x1a\x01d\x22\x01c"
    assert decode("Names", octets) == {"ListFields": "l", "FromString": "f", "DESCRIPTOR": "d", "class": "c"}


def test_what_is_read_can_be_written_however_deep_it_is() -> None:
    kinds = {"itself": b"\x92\x01", "children": b"\x9a\x01", "unknown": b"\xc2\x3e"}
    for tag in kinds.values():
        octets = b"\x08\x01"
        for _ in range(98):
            octets = tag + _varint(len(octets)) + octets
        orjson.dumps({"message": decode("Everything", octets)})
    nested = message_class("test.rich.Rich3")()
    for _ in range(400):
        outer = message_class("test.rich.Rich3")()
        outer.any.Pack(nested)
        nested = outer
    orjson.dumps({"message": decode("Everything", nested.SerializeToString())})


def _varint(n: int) -> bytes:
    return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + _varint(n >> 7)


def test_a_damaged_message_is_none_and_the_reason_says_where() -> None:
    assert decode("Plain", b"\x0a\x05abc") is None
    assert why("Plain", b"\x0a\x05abc") == ("protobuf", "field 1 at octet 0 claims 5 octets, 3 are left")
    assert why("Plain", b"\x0a\x02\xff\xfe") == ("protobuf", "the octets do not fit the message type test.rich.Scalars")


# --- Encodings

CODED = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": lambda octets: zlib.compress(octets, wbits=-15),
}
PLAIN = b"\x0a\x04Juan"


@pytest.mark.parametrize(("encoding", "how"), [("gzip", "gzip"), ("deflate", "deflate"), ("deflate", "raw deflate")])
def test_a_compressed_message_is_read(encoding: str, how: str) -> None:
    codec = schema().codec("/test.rich.Rich/Plain", CLIENT, encoding)
    assert codec.decode(CODED[how](PLAIN), True) == {"text": "Juan"}
    assert codec.decode(PLAIN, False) == {"text": "Juan"}


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_where_the_headers_were_not_seen_the_encoding_is_known_by_its_marks(how: str) -> None:
    assert no_schema().codec(None, CLIENT, None).decode(CODED[how](PLAIN), True) == {"1": "Juan"}


@pytest.mark.parametrize(
    ("encoding", "octets", "says"),
    [
        ("snappy", b"x", "the message is compressed as snappy, which is not read here"),
        (
            "identity",
            b"x",
            "the compressed flag is set, though the headers name no grpc-encoding (gRPC: Compressed-Flag)",
        ),
        ("gzip", gzip.compress(PLAIN)[:-1], "the message cannot be decompressed as gzip"),
        ("gzip", gzip.compress(PLAIN) + b"more", "the message cannot be decompressed as gzip"),
        (None, b"neither", "the message cannot be decompressed as gzip, deflate"),
    ],
)
def test_what_cannot_be_decompressed_is_none_with_a_reason(encoding: str | None, octets: bytes, says: str) -> None:
    codec = no_schema().codec(None, CLIENT, encoding)
    assert codec.decode(octets, True) is None
    trouble = codec.check(octets, True)
    assert trouble is not None
    assert (trouble.layer, str(trouble)) == ("grpc", says)


def test_a_decompression_bomb_goes_off_in_bounded_memory() -> None:
    bomb = gzip.compress(bytes(MAX_MESSAGE_OCTETS + 1))
    codec = no_schema().codec(None, CLIENT, "gzip")
    assert codec.decode(bomb, True) is None
    trouble = codec.check(bomb, True)
    assert trouble is not None
    assert trouble.values == {"octets": len(bomb), "limit": MAX_MESSAGE_OCTETS}


def test_json_content_is_json() -> None:
    codec = no_schema().codec("/a.B/C", CLIENT, "identity", "json")
    assert codec.decode(b'{"a": [1]}', False) == {"a": [1]}
    assert codec.decode(b"{", False) is None
    assert codec.decode(b"[" * 300 + b"]" * 300, False) is None


def test_content_of_another_kind_is_octets() -> None:
    assert no_schema().codec("/a.B/C", CLIENT, "identity", "thrift").decode(b"\x0a\x00", False) == {"base64": "CgA="}


# --- Which description


def test_requests_and_responses_have_their_own_types() -> None:
    chat = Schema.from_proto_files([CHAT])
    assert chat.services == ["minichat.v1.ChatService"]
    assert chat.codec("/minichat.v1.ChatService/Join", CLIENT).type_name == "minichat.v1.JoinRequest"
    assert chat.codec("/minichat.v1.ChatService/Join", SERVER).type_name == "minichat.v1.JoinReply"
    assert chat.codec("/behind/a/prefix/minichat.v1.ChatService/Chat", SERVER).type_name == "minichat.v1.ChatMessage"


@pytest.mark.parametrize(
    "path", [None, "", "/", "/minichat.v1.ChatService/Nothing", "/no.Such/Method", "Join", "//", "\x00/é/"]
)
def test_a_method_that_is_not_described_is_read_by_wire_format(path: str | None) -> None:
    codec = Schema.from_proto_files([CHAT]).codec(path, CLIENT)
    assert (codec.type_name, codec.decode(b"\x0a\x04Juan", False)) == (None, {"1": "Juan"})


def test_the_same_method_has_one_codec() -> None:
    path = "/test.rich.Rich/Plain"
    assert schema().codec(path, CLIENT, "gzip") is schema().codec(path, CLIENT, "gzip")
    assert schema().codec(path, CLIENT, "gzip") is not schema().codec(path, SERVER, "gzip")


def test_grpc_s_own_services_are_known_without_a_schema() -> None:
    assert no_schema().codec("/grpc.health.v1.Health/Check", SERVER).decode(b"\x08\x01", False) == {"status": "SERVING"}
    listed = (
        no_schema().codec("/grpc.health.v1.Health/List", SERVER).decode(b"\x0a\x07\x0a\x01a\x12\x02\x08\x02", False)
    )
    assert listed == {"statuses": {"a": {"status": "NOT_SERVING"}}}
    reflection = no_schema().codec("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", CLIENT)
    assert reflection.decode(b"\x3a\x01*", False) == {"list_services": "*"}


def test_a_status_with_details_is_read() -> None:
    whole = message_class("google.protobuf.Any")()
    whole.Pack(message_class("google.protobuf.Duration")(seconds=3))
    inner = whole.SerializeToString()
    octets = b"\x08\x05\x12\x02hi\x1a" + _varint(len(inner)) + inner
    assert no_schema().message("google.rpc.Status", octets) == {
        "code": 5,
        "message": "hi",
        "details": [{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}],
    }


def test_of_two_versions_of_a_file_the_first_one_counts(tmp_path: Path) -> None:
    newer = tmp_path / "chat.proto"
    newer.write_text(CHAT.read_text().replace("string text = 3", "string words = 3"))
    old, new = Schema.from_proto_files([CHAT]), Schema.from_proto_files([newer])
    path, octets = "/minichat.v1.ChatService/Chat", b"\x1a\x04Hola"
    assert Schema.merged(new, old).codec(path, CLIENT).decode(octets, False) == {"words": "Hola"}
    assert Schema.merged(old, new).codec(path, CLIENT).decode(octets, False) == {"text": "Hola"}
    both = Schema.merged(schema(), old)
    assert both.services == ["test.rich.Rich", "minichat.v1.ChatService"]


# --- Descriptions that are handed in


def descriptor_set(*files: FileDescriptorProto) -> bytes:
    return FileDescriptorSet(file=files).SerializeToString()


def test_a_descriptor_set_s_files_may_come_in_any_order() -> None:
    files = schema()._descriptions[0]
    shuffled = Schema.from_descriptor_set(descriptor_set(*reversed(files)))
    assert shuffled.codec("/test.rich.Rich/Plain", CLIENT).decode(PLAIN, False) == {"text": "Juan"}


def test_the_well_known_types_may_be_left_out_of_a_descriptor_set() -> None:
    own = [file for file in schema()._descriptions[0] if not file.name.startswith("google/")]
    assert len(own) < len(schema()._descriptions[0])
    assert Schema.from_descriptor_set(descriptor_set(*own)).services == ["test.rich.Rich"]


@pytest.mark.parametrize("octets", [b"", b"not protobuf", b"\x0a\x05abc", b"\x0a\x00"])
def test_what_is_no_descriptor_set_is_named(octets: bytes) -> None:
    with pytest.raises(SchemaError, match=r"^chat\.binpb is no descriptor set\.$"):
        Schema.from_descriptor_set(octets, "chat.binpb")


def test_a_missing_import_is_named() -> None:
    lonely = FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    with pytest.raises(SchemaError, match=r"a\.proto imports b\.proto, which the description lacks"):
        Schema.from_descriptor_set(descriptor_set(lonely))


def test_files_that_import_each_other_in_a_circle_are_named() -> None:
    a = FileDescriptorProto(name="a.proto", dependency=["b.proto"])
    b = FileDescriptorProto(name="b.proto", dependency=["a.proto"])
    with pytest.raises(SchemaError, match=r"a\.proto imports itself"):
        Schema.from_descriptor_set(descriptor_set(a, b))


def test_a_faulty_file_is_named_in_one_line() -> None:
    faulty = FileDescriptorProto(name="a.proto")
    faulty.message_type.add(name="not a name")
    with pytest.raises(SchemaError, match=r"^The description of a\.proto is faulty: .+$"):
        Schema.from_descriptor_set(descriptor_set(faulty))


def test_imports_are_found_from_the_folder_they_are_counted_from(tmp_path: Path) -> None:
    (tmp_path / "api" / "v1").mkdir(parents=True)
    (tmp_path / "api" / "common.proto").write_text('syntax = "proto3"; package c; message M { string s = 1; }')
    service = tmp_path / "api" / "v1" / "s.proto"
    service.write_text('syntax = "proto3"; import "api/common.proto"; service S { rpc R(c.M) returns (c.M); }')
    assert Schema.from_proto_files([service]).codec("/S/R", CLIENT).type_name == "c.M"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('syntax = "proto3"; message A { strin x = 1; }', r'bad\.proto:1:32: "strin" is not defined'),
        ('syntax = "proto3"; import "none.proto";', r"none\.proto"),
        ("\x00\xff", r"bad\.proto"),
    ],
)
def test_what_protoc_says_of_a_bad_file_is_passed_on_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    bad = tmp_path / "bad.proto"
    bad.write_text(text)
    with pytest.raises(SchemaError, match=says) as caught:
        Schema.from_proto_files([bad])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"none\.proto is no file"):
        Schema.from_proto_files([tmp_path / "none.proto"])


def test_the_kit_s_own_description_is_the_default() -> None:
    assert Schema.default().services == ["minichat.v1.ChatService"]


def test_without_the_kit_s_own_description_the_error_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(protobuf, "DEFAULT_DESCRIPTOR_SET", tmp_path / "none.binpb")
    with pytest.raises(SchemaError, match=r"none\.binpb"):
        Schema.default()
