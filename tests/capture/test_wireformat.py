"""Protobuf without a description, octet by octet."""

from __future__ import annotations

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.wireformat import MAX_DEPTH, MAX_MESSAGES, Damaged, decode


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        ("", {}),
        ("08 96 01", {"1": 150}),
        ("08 ff ff ff ff ff ff ff ff ff 01", {"1": "18446744073709551615"}),
        ("08 80 80 80 80 80 80 80 10", {"1": 2**53}),
        ("08 81 80 80 80 80 80 80 10", {"1": str(2**53 + 1)}),
        ("08 ff ff ff ff ff ff ff ff ff 7f", {"1": "18446744073709551615"}),
        ("08 80 00", {"1": 0}),
        ("0d 01 02 00 00", {"1": 513}),
        ("09 01 02 00 00 00 00 00 00", {"1": 513}),
        ("09 00 00 00 00 00 00 f0 3f", {"1": "4607182418800017408"}),
        ("0a 04 4a 75 61 6e", {"1": "Juan"}),
        ("0a 00", {"1": ""}),
        ("0a 07 4d 61 72 c3 ad 61 21", {"1": "María!"}),
        ("0a 04 f0 9f 98 80", {"1": "😀"}),
        ("0a 02 08 05", {"1": {"1": 5}}),
        ("0a 0a 0a 08 61 62 63 64 65 66 67 68", {"1": {"1": "abcdefgh"}}),
        ("0a 03 61 0a 62", {"1": "a\nb"}),
        ("0a 02 ff fe", {"1": {"base64": "//4="}}),
        ("08 01 08 02 08 03", {"1": [1, 2, 3]}),
        ("0a 01 61 10 01 0a 01 62", {"1": ["a", "b"], "2": 1}),
        ("0b 10 05 0c", {"1": {"2": 5}}),
        ("0b 13 08 01 14 0c", {"1": {"2": {"1": 1}}}),
        ("f8 ff ff ff 0f 01", {"536870911": 1}),
    ],
)
def test_what_octets_mean(octets: str, message: object) -> None:
    assert decode(bytes.fromhex(octets)) == message


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        ("08", "the number at octet 1 has no end"),
        ("08 80", "the number at octet 1 has no end"),
        ("08 ff ff ff ff ff ff ff ff ff ff 01", "the number at octet 1 has no end"),
        ("0a 05 61 62", "field 1 at octet 0 claims 5 octets, 2 are left"),
        ("10 01 0d 00 00 00", "field 1 at octet 2 claims 4 octets, 3 are left"),
        ("09 00 00 00 00 00 00 00", "field 1 at octet 0 claims 8 octets, 7 are left"),
        ("00 01", "at octet 0 stands field number 0, which does not exist"),
        ("0e", "at octet 0 stands wire type 6, which fits nothing here"),
        ("0c", "at octet 0 stands wire type 4, which fits nothing here"),
        ("0b 14", "at octet 1 stands wire type 4, which fits nothing here"),
        ("0b 08 01", "the group of field 1 has no end"),
        ("80 80 80 80 10 01", "at octet 0 no tag can be read: it is longer than 32 bits"),
    ],
)
def test_what_is_wrong_with_damaged_octets(octets: str, says: str) -> None:
    with pytest.raises(Damaged) as caught:
        decode(bytes.fromhex(octets))
    assert str(caught.value) == says


def test_groups_and_messages_end_at_the_deepest_level_that_is_read() -> None:
    groups = b"\x0b" * MAX_DEPTH + b"\x0c" * MAX_DEPTH
    orjson.dumps({"message": decode(groups)})
    with pytest.raises(Damaged, match="deeper than 100 levels"):
        decode(b"\x0b" + groups + b"\x0c")
    octets = b"\x08\x01"
    for _ in range(MAX_DEPTH + 50):
        octets = b"\x0a" + _varint(len(octets)) + octets
    orjson.dumps({"message": decode(octets)})


def _varint(n: int) -> bytes:
    return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + _varint(n >> 7)


def test_more_messages_than_are_opened_stay_octets() -> None:
    fields = decode(b"\x0a\x02\x08\x00" * (MAX_MESSAGES + 1))["1"]
    assert fields[MAX_MESSAGES - 1 :] == [{"1": 0}, "\x08\x00"]


def test_a_message_made_to_be_slow_is_read_in_time_that_grows_with_its_length() -> None:
    octets = b"\xff" * 1_000_000
    for _ in range(MAX_DEPTH):
        octets = b"\x0a" + _varint(len(octets)) + octets
    before = time.process_time()
    decode(octets)
    assert time.process_time() - before < 5


@given(st.binary(max_size=200))
def test_any_octets_are_a_message_that_json_can_write_or_are_damaged(octets: bytes) -> None:
    try:
        message = decode(octets)
    except Damaged:
        return
    assert orjson.loads(orjson.dumps(message)) == message
