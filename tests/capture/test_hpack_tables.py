"""Field blocks to field sections: RFC 7541's own examples, stories by other encoders, and a reader that comes late.

The late reader is held against `Scribe`, an encoder that uses every instruction at random and writes down, for every
field, which entry it stands for and when that entry was inserted. So it is known exactly what may be unknown.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import hpack_tables
from capture.events import ErrorCode, FieldLine, Unknown
from capture.hpack_tables import (
    ENTRY_OVERHEAD,
    MAX_BLOCKS,
    MAX_CACHED,
    MAX_COMPLAINTS,
    MAX_SECTION_OCTETS,
    MAX_TABLE_OCTETS,
    NOTHING,
    STATIC_TABLE,
    Budget,
    FieldDecoder,
    _integer,
)

# -- RFC 7541 Appendix C -----------------------------------------------------------------------------------------------

REQUESTS = [
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
]
DATE = "Mon, 21 Oct 2013 20:13:2{} GMT"
COOKIE = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
LOCATION = ("location", "https://www.example.com")
RESPONSES = [
    [(":status", "302"), ("cache-control", "private"), ("date", DATE.format(1)), LOCATION],
    [(":status", "307"), ("cache-control", "private"), ("date", DATE.format(1)), LOCATION],
    [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", DATE.format(2)),
        LOCATION,
        ("content-encoding", "gzip"),
        ("set-cookie", COOKIE),
    ],
]
EXAMPLES = {
    "C.3": (
        4096,
        REQUESTS,
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [57, 110, 164],
    ),
    "C.4": (
        4096,
        REQUESTS,
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        [57, 110, 164],
    ),
    "C.5": (
        256,
        RESPONSES,
        [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
            "2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
            "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ],
        [222, 222, 215],
    ),
    "C.6": (
        256,
        RESPONSES,
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43"
            "d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27"
            "087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
        [222, 222, 215],
    ),
}


def fields_of(decoder: FieldDecoder, block: bytes) -> list[FieldLine]:
    return list(decoder.decode(block).fields)


def complaints(decoder: FieldDecoder) -> list[str]:
    found = [one.template.format(**one.values) for one in decoder.complaints]
    decoder.complaints.clear()
    return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_sequences_of_rfc_7541_are_decoded(example: str) -> None:
    maximum, sections, blocks, sizes = EXAMPLES[example]
    decoder = FieldDecoder()
    decoder.maximum = maximum
    for section, block, size in zip(sections, blocks, sizes, strict=True):
        decoded = decoder.decode(bytes.fromhex(block))
        assert (list(decoded.fields), decoded.block.hex(), decoded.certain) == (section, block, True)
        assert decoder.size == size
    assert complaints(decoder) == []


@pytest.mark.parametrize(
    ("block", "field", "size"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", ("custom-key", "custom-header"), 55),
        ("040c2f73616d706c652f70617468", (":path", "/sample/path"), 0),
        ("100870617373776f726406736563726574", ("password", "secret"), 0),
        ("82", (":method", "GET"), 0),
    ],
)
def test_the_single_fields_of_rfc_7541_are_decoded(block: str, field: FieldLine, size: int) -> None:
    decoder = FieldDecoder()
    assert fields_of(decoder, bytes.fromhex(block)) == [field]
    assert decoder.size == size


@pytest.mark.parametrize(("octets", "mask", "value"), [("0a", 31, 10), ("1f9a0a", 31, 1337), ("2a", 255, 42)])
def test_the_integers_of_rfc_7541_are_decoded(octets: str, mask: int, value: int) -> None:
    assert _integer(bytes.fromhex(octets), 0, mask) == (value, len(octets) // 2)


def test_the_static_table_is_that_of_another_implementation() -> None:
    table = HeaderTable.STATIC_TABLE
    assert len(STATIC_TABLE) == 62
    assert [(name.encode(), value.encode()) for name, value in STATIC_TABLE[1:]] == list(table)


# -- stories by others -------------------------------------------------------------------------------------------------


@pytest.mark.vectors("hpack/*/story_*.json")
def test_a_story_is_decoded_and_a_late_reader_never_differs(vector: Path) -> None:
    cases = json.loads(vector.read_text())["cases"]
    for start in {0, 1, 2, len(cases) // 3, len(cases) // 2, len(cases) - 1}:
        decoder = FieldDecoder(whole=start == 0)
        for case in cases[start:]:
            if "header_table_size" in case and decoder.bound is not None:
                decoder.bound = max(decoder.bound, case["header_table_size"])
            section = decoder.decode(bytes.fromhex(case["wire"]))
            expected = [pair for field in case["headers"] for pair in field.items()]
            assert complaints(decoder) == []
            if start == 0:
                assert (list(section.fields), section.certain) == (expected, True)
            assert len(section.fields) == len(expected)
            for got, wanted in zip(section.fields, expected, strict=True):
                assert all(isinstance(one, Unknown) or one == other for one, other in zip(got, wanted, strict=True))


# -- an encoder that writes down what it does --------------------------------------------------------------------------


def integer(value: int, prefix: int, pattern: int) -> bytes:
    """RFC 7541 §5.1, written again."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((pattern | value,))
    octets = bytearray((pattern | most,))
    value -= most
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def string(octets: bytes, huffman: bool = False) -> bytes:
    if huffman:
        octets = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(octets)
    return integer(len(octets), 7, 128 if huffman else 0) + octets


class Entry:
    """What the encoder inserted, and its place in the order of insertions."""

    def __init__(self, name: str, value: str, named_by: Entry | None, serial: int) -> None:
        self.name, self.value, self.named_by, self.serial = name, value, named_by, serial
        self.size = len(name) + len(value) + ENTRY_OVERHEAD


class Line(NamedTuple):
    """A field as it was meant, and the entries that an index in it stands for."""

    name: str
    value: str
    name_entry: Entry | None
    value_entry: Entry | None


class Scribe:
    """Encodes fields with instructions chosen at random; the table is a plain list, newest first."""

    def __init__(self, rnd: random.Random, allowed: int) -> None:
        self.rnd, self.allowed = rnd, allowed
        self.maximum = 4096
        self.table: list[Entry] = []
        self.inserted = 0
        self.acts: list[Entry | int] = []
        """Of the newest block: entries inserted and new table sizes, in order."""

    def insert(self, name: str, value: str, named_by: Entry | None) -> None:
        entry = Entry(name, value, named_by, self.inserted)
        self.inserted += 1
        self.acts.append(entry)
        self.table.insert(0, entry)
        self.evict()

    def evict(self) -> None:
        while sum(entry.size for entry in self.table) > self.maximum:
            self.table.pop()

    def resize(self) -> bytes:
        some = self.rnd.randrange(self.allowed + 1)
        self.maximum = self.rnd.choice((0, min(100, self.allowed), min(200, self.allowed), self.allowed, some))
        self.acts.append(self.maximum)
        self.evict()
        return integer(self.maximum, 5, 0x20)

    def block(self) -> tuple[bytes, list[Line]]:
        rnd = self.rnd
        self.acts = []
        octets = b"".join(self.resize() for _ in range(rnd.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 2))))
        lines = []
        for _ in range(rnd.randrange(7)):
            index = rnd.choice((0, rnd.randrange(1, 62), rnd.randrange(62, 62 + len(self.table)) if self.table else 0))
            entry = self.table[index - 62] if index > 61 else None
            name = rnd.choice(("a", "name-" + str(rnd.randrange(5)), "n" * rnd.randrange(1, 60)))
            value = rnd.choice(("", "v", "value-" + str(rnd.randrange(9)), "x" * rnd.randrange(150)))
            if index:
                name = STATIC_TABLE[index][0] if entry is None else entry.name
            if index and rnd.random() < 0.6:
                octets += integer(index, 7, 0x80)
                value = STATIC_TABLE[index][1] if entry is None else entry.value
                lines.append(Line(name, value, entry, entry))
                continue
            if rnd.random() < 0.03:
                value = "o" * (self.maximum + rnd.randrange(3))  # larger than the table
            prefix, pattern = rnd.choice(((6, 0x40), (6, 0x40), (6, 0x40), (4, 0), (4, 0x10)))
            octets += integer(index, prefix, pattern)
            octets += b"" if index else string(name.encode(), rnd.random() < 0.3)
            octets += string(value.encode(), rnd.random() < 0.3)
            lines.append(Line(name, value, entry, None))
            if pattern == 0x40:
                self.insert(name, value, entry)
        return octets, lines


class Late:
    """What a reader can know that has missed all before now."""

    def __init__(self, scribe: Scribe, bound: int | None, is_whole: bool = False) -> None:
        self.start, self.maximum, self.octets, self.is_certain = scribe.inserted, bound, 0, is_whole

    def name(self, entry: Entry) -> str | Unknown:
        if entry.serial < self.start:
            return Unknown(f"?-{self.start - entry.serial}")
        return entry.name if entry.named_by is None else self.name(entry.named_by)

    def field(self, line: Line) -> FieldLine:
        name = line.name if line.name_entry is None else self.name(line.name_entry)
        is_old = line.value_entry is not None and line.value_entry.serial < self.start
        return (name, name if is_old else line.value)

    def watch(self, acts: list[Entry | int]) -> None:
        """Follows insertions and sizes, as far as they can be known."""
        for act in acts:
            if isinstance(act, Entry):
                self.octets += act.size - (len(act.name) if isinstance(self.name(act), Unknown) else 0)
            else:
                self.maximum = act
            self.is_certain |= self.maximum is not None and self.octets >= self.maximum


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=180, deadline=None)
@given(seeds, st.booleans(), st.sampled_from((0, 60, 300, 4096, 4096, 20_000)))
def test_each_field_is_exactly_what_can_be_known(seed: int, is_whole: bool, allowed: int) -> None:
    rnd = random.Random(seed)
    scribe = Scribe(rnd, allowed)
    for _ in range(0 if is_whole else rnd.randrange(12)):
        scribe.block()
    decoder = FieldDecoder(is_whole)
    if is_whole:
        decoder.bound = max(4096, allowed)
    late = Late(scribe, decoder.bound, is_whole)
    for _ in range(20):
        if rnd.random() < 0.05:
            is_whole = False
            scribe.block()  # this one is missed
            decoder.lose()
            late = Late(scribe, decoder.bound)
        block, lines = scribe.block()
        section = decoder.decode(block)
        late.watch(scribe.acts)
        assert complaints(decoder) == []
        assert list(section.fields) == [late.field(line) for line in lines]
        assert section.certain == late.is_certain
        if section.certain:
            assert all(entry.serial >= late.start for entry in scribe.table)
            table = [(late.name(entry), entry.value) for entry in scribe.table]
            ours = [field for field, _ in reversed(decoder.entries)]
            assert ours[: len(table)] == table
            if is_whole:
                assert (len(ours), decoder.size) == (len(table), sum(entry.size for entry in scribe.table))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", "grpc-status", ":path", "x-long"]), st.text("abc\u00e9", max_size=40)),
            max_size=8,
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 11),
    st.booleans(),
    st.lists(st.integers(0, 9000), max_size=3),
)
def test_a_late_reader_of_python_hpack_never_differs(
    sections: list[list[tuple[str, str]]], start: int, huffman: bool, sizes: list[int]
) -> None:
    encoder = hpack.Encoder()
    decoder = FieldDecoder(start == 0)
    decoder.bound = 9000 if start == 0 else None
    for i, section in enumerate(sections):
        if i < len(sizes):
            encoder.header_table_size = sizes[i]
        block = encoder.encode(section, huffman=huffman)
        if i < start:
            continue
        fields = fields_of(decoder, block)
        assert complaints(decoder) == []
        assert len(fields) == len(section)
        for got, wanted in zip(fields, section, strict=True):
            assert all(isinstance(one, Unknown) or one == other for one, other in zip(got, wanted, strict=True))
            assert start or got == wanted


# -- a late start, by hand ---------------------------------------------------------------------------------------------


def literal(name: str, value: str) -> bytes:
    return b"\x40" + string(name.encode()) + string(value.encode())


def test_labels_stay_with_their_entries_as_the_table_grows() -> None:
    decoder = FieldDecoder(whole=False)
    one, two = Unknown("?-1"), Unknown("?-2")
    assert fields_of(decoder, b"\xbe\xbf") == [(one, one), (two, two)]
    assert fields_of(decoder, literal("a", "b") + b"\xbe\xbf\xc0") == [("a", "b"), ("a", "b"), (one, one), (two, two)]
    assert fields_of(decoder, literal("c", "d") + b"\xc0\xc1") == [("c", "d"), (one, one), (two, two)]


def test_a_value_is_known_where_its_name_is_not() -> None:
    decoder = FieldDecoder(whole=False)
    field = (Unknown("?-3"), "value")
    assert fields_of(decoder, b"\x7f\x01" + string(b"value")) == [field]
    assert fields_of(decoder, b"\xbe") == [field], "and stays so"
    assert fields_of(decoder, b"\x7e" + string(b"other")) == [(Unknown("?-3"), "other")]


def test_a_size_update_to_zero_makes_certain() -> None:
    decoder = FieldDecoder(whole=False)
    assert not decoder.decode(b"\x88").certain
    assert decoder.decode(b"\x20\x88").certain
    assert decoder.decode(b"\x3f\xe1\x1f\x88").certain
    assert decoder.maximum == 4096


def test_an_unknown_maximum_never_makes_certain() -> None:
    decoder = FieldDecoder(whole=False)
    for i in range(1000):
        assert not decoder.decode(literal("name", f"value-{i}" * 10)).certain


def test_a_known_maximum_makes_certain_once_it_is_filled() -> None:
    decoder = FieldDecoder(whole=False)
    certain = [decoder.decode(b"\x3f\x45" + literal("n", "v" * 17)).certain for _ in range(3)]
    assert certain == [False, True, True], "two entries of 50 octets fill 100"


def test_a_lost_block_is_a_new_start() -> None:
    decoder = FieldDecoder()
    decoder.decode(literal("a", "b"))
    decoder.lose()
    section = decoder.decode(b"\xbe")
    assert (section.fields, section.certain) == (((Unknown("?-1"), Unknown("?-1")),), False)


def test_what_a_label_looks_like() -> None:
    assert str(Unknown("?-3")) == "?-3"


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"text", "text"),
        ("¡Hola!".encode(), "¡Hola!"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"\x00\x01\xff", b"\x00\x01\xff"),
        (b"AAEC/w==", "AAEC/w=="),
        (b"", ""),
    ],
)
@pytest.mark.parametrize("huffman", [False, True])
def test_values_are_text_or_else_octets(octets: bytes, shown: object, huffman: bool) -> None:
    """Binary metadata comes as base64, or as octets behind a 0 octet (grpc-core's true-binary)."""
    decoder = FieldDecoder()
    block = b"\x40" + string(b"x-trace-bin") + string(octets, huffman)
    assert fields_of(decoder, block) == [("x-trace-bin", shown)]
    assert fields_of(decoder, b"\xbe") == [("x-trace-bin", shown)]
    assert decoder.size == len("x-trace-bin") + len(octets) + ENTRY_OVERHEAD


def test_names_are_counted_in_octets() -> None:
    decoder = FieldDecoder()
    decoder.decode(b"\x40" + string("ñ".encode()) + string(b"\xff"))
    decoder.decode(b"\x7e" + string(b""))
    assert decoder.size == (2 + 1 + 32) + (2 + 0 + 32)


# -- broken blocks -----------------------------------------------------------------------------------------------------


def test_a_block_cut_anywhere_gives_what_was_whole() -> None:
    _, sections, blocks, _ = EXAMPLES["C.4"]
    block = bytes.fromhex(blocks[0])
    for size in range(len(block)):
        decoder = FieldDecoder()
        section = decoder.decode(block[:size])
        whole = min(size, 3)
        if size <= 3:
            assert (list(section.fields), complaints(decoder)) == (sections[0][:size], [])
        else:
            assert list(section.fields) == [*sections[0][:whole], (NOTHING, NOTHING)]
            (reason,) = complaints(decoder)
            assert "RFC 7541 §5" in reason
            assert not section.certain


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("80", "index 0 stands for nothing (RFC 7541 §6.1)"),
        ("be", "index 62, but the dynamic table has 0 entries (RFC 7541 §2.3.3)"),
        ("7e0161", "index 62, but the dynamic table has 0 entries (RFC 7541 §2.3.3)"),
        ("ffffffffffff7f", "an integer beyond 4294967296 (RFC 7541 §5.1)"),
        ("ff8080808080808080808000", "an integer beyond 4294967296 (RFC 7541 §5.1)"),
        ("ffff", "a field block that ends in the middle of an integer (RFC 7541 §5.1)"),
        ("40056162", "a string of 5 octets where the field block has 2 left (RFC 7541 §5.2)"),
        ("400161", "a field block that ends in the middle of a field (RFC 7541 §5)"),
        ("40016184ffffffff", "a string that is no Huffman code (RFC 7541 §5.2)"),
        ("4001618118", "a string that is no Huffman code (RFC 7541 §5.2)"),
        ("400161821fff", "a string that is no Huffman code (RFC 7541 §5.2)"),
        ("8820", "a dynamic table size update behind a field (RFC 7541 §4.2)"),
        ("3fe21f", "a dynamic table size update to 4097, where at most 4096 is allowed (RFC 7541 §6.3)"),
    ],
)
def test_what_breaks_a_block_is_told_with_its_clause(block: str, reason: str) -> None:
    decoder = FieldDecoder()
    decoder.decode(bytes.fromhex(block))
    assert [one.error_code for one in decoder.complaints] == [ErrorCode.COMPRESSION_ERROR]
    assert complaints(decoder) == [reason]


def test_an_evicted_entry_is_no_entry_from_before_the_start() -> None:
    decoder = FieldDecoder(whole=False)
    decoder.decode(b"\x3f\x21" + literal("n", "v" * 17))
    decoder.decode(literal("m", "w" * 17))  # 64 octets: room for one of 50
    assert decoder.complete
    assert fields_of(decoder, b"\xbf") == [(NOTHING, NOTHING)]
    assert len(decoder.complaints) == 1


def test_a_broken_string_leaves_the_others() -> None:
    decoder = FieldDecoder()
    block = b"\x82" + b"\x40" + string(b"a") + b"\x81\x18" + b"\x84"
    assert fields_of(decoder, block) == [(":method", "GET"), ("a", NOTHING), (":path", "/")]


def test_an_entry_larger_than_the_table_empties_it() -> None:
    """RFC 7541 §4.4: that is no error."""
    decoder = FieldDecoder()
    decoder.decode(literal("a", "b"))
    section = decoder.decode(literal("big", "x" * 5000))
    assert (section.fields, list(decoder.entries), decoder.size) == ((("big", "x" * 5000),), [], 0)
    assert complaints(decoder) == []


def python_hpack(blocks: list[bytes]) -> list[list[tuple[bytes, bytes]]] | None:
    decoder = hpack.Decoder(max_header_list_size=1 << 24)
    try:
        return [[(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)] for block in blocks]
    except hpack.HPACKError:
        return None


def as_octets(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


@settings(max_examples=180, deadline=None)
@given(
    seeds,
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=3),
    st.integers(0, 400),
)
def test_damaged_blocks_are_read_as_python_hpack_reads_them(
    seed: int, damage: list[tuple[int, int]], kept: int
) -> None:
    scribe = Scribe(random.Random(seed), 4096)
    blocks = [scribe.block()[0] for _ in range(4)]
    last = bytearray(blocks[-1])
    for at, octet in damage:
        if last:
            last[at % len(last)] = octet
    blocks[-1] = bytes(last[: kept if kept < 100 else None])
    decoder = FieldDecoder()
    ours = [decoder.decode(block).fields for block in blocks]
    theirs = python_hpack(blocks)
    if theirs is not None:
        shown = [[(as_octets(name), as_octets(value)) for name, value in fields] for fields in ours]
        assert [one for one in complaints(decoder) if "behind a field" not in one] == []
        assert shown == theirs
    else:
        assert complaints(decoder)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_no_octets_raise(blocks: list[bytes], is_whole: bool) -> None:
    decoder = FieldDecoder(is_whole)
    for block in blocks:
        section = decoder.decode(block)
        assert section.block == block
        assert len(decoder.complaints) <= MAX_COMPLAINTS
        if decoder.complaints:
            assert is_whole or "RFC 7541" in decoder.complaints[0].template
        decoder.complaints.clear()


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_block_that_names_a_large_entry_often_is_cut() -> None:
    decoder = FieldDecoder()
    decoder.decode(literal("a", "x" * 4000))
    section = decoder.decode(b"\xbe" * 100_000)
    assert sum(len(name) + len(value) for name, value in section.fields[:-1]) <= MAX_SECTION_OCTETS
    assert section.fields[-1] == (NOTHING, NOTHING)
    (reason,) = complaints(decoder)
    assert reason == "a field section of 403300000 octets, of which 1048576 are kept"


def test_a_table_is_bounded_whatever_its_encoder_claims() -> None:
    decoder = FieldDecoder(whole=False)
    decoder.decode(integer(1 << 31, 5, 0x20))
    for i in range(300):
        decoder.decode(literal("a", str(i) * 10_000))
    assert decoder.size <= MAX_TABLE_OCTETS
    decoder = FieldDecoder(whole=False)
    for i in range(300):
        decoder.decode(literal("a", str(i) * 10_000))
    assert decoder.size <= MAX_TABLE_OCTETS


def test_the_tables_of_all_connections_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpack_tables, "MAX_TABLES_OCTETS", 20_000)
    budget = Budget()
    decoders = [FieldDecoder(budget=budget) for _ in range(40)]
    told = 0
    for i in range(20):
        for decoder in decoders:
            decoder.decode(literal("name", "v" * 20 + str(i)))
            told += len(complaints(decoder))
            assert budget.tables <= 20_000
    assert told
    for decoder in decoders:
        decoder.lose()
    assert budget.tables == 0


def test_a_block_that_is_wrong_at_every_octet_gives_few_complaints() -> None:
    decoder = FieldDecoder()
    section = decoder.decode(b"\xbe" * 30_000)
    assert (len(decoder.complaints), len(section.fields)) == (MAX_COMPLAINTS, 30_000)


def test_what_is_remembered_is_bounded() -> None:
    decoder = FieldDecoder()
    for i in range(10_000):
        decoder.decode(integer(1 + i % 61, 7, 0x80) + integer(1 + i // 61 % 61, 7, 0x80))
        decoder.decode(b"\x00" + string(b"name") + string(b"value %d" % i))
    assert len(decoder._blocks) <= MAX_BLOCKS
    assert len(hpack_tables._plain_strings) <= MAX_CACHED
    decoder.decode(b"\x00" + string(b"name") + string(b"long" * 1000))
    assert b"long" * 1000 not in hpack_tables._plain_strings


def test_a_repeated_block_is_not_decoded_again_until_the_table_moves() -> None:
    decoder = FieldDecoder()
    decoder.decode(literal("a", "b"))
    first = decoder.decode(b"\xbe\x82")
    assert decoder.decode(b"\xbe\x82") is first
    decoder.decode(literal("c", "d"))
    assert decoder.decode(b"\xbe\x82").fields == (("c", "d"), (":method", "GET"))
    decoder.decode(b"\x20")
    assert decoder.decode(b"\xbe\x82").fields == ((NOTHING, NOTHING), (":method", "GET"))


# -- traces ------------------------------------------------------------------------------------------------------------


def test_a_trace_tells_each_step_and_the_table_behind_it() -> None:
    _, sections, blocks, _ = EXAMPLES["C.5"]
    decoder = FieldDecoder(trace=True)
    decoder.maximum = 256
    traces = [decoder.decode(bytes.fromhex(block)).trace for block in blocks]
    assert None not in traces
    kinds = [[(step.kind.split()[0], step.entry, step.field) for step in trace.steps] for trace in traces if trace]
    assert [[field for _, _, field in one] for one in kinds] == sections
    assert [(kind, entry) for kind, entry, _ in kinds[0]] == [
        ("literal", 8),
        ("literal", 24),
        ("literal", 33),
        ("literal", 46),
    ]
    assert [(kind, entry) for kind, entry, _ in kinds[1]] == [
        ("literal", 8),
        ("indexed", 65),
        ("indexed", 64),
        ("indexed", 63),
    ]
    second, third = traces[1], traces[2]
    assert second is not None
    assert third is not None
    assert second.steps[0].evicted == ((":status", "302"),)
    assert third.table == (("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", DATE.format(2)))
    assert (third.size, third.maximum) == (215, 256)
    assert b"".join(step.octets for step in third.steps).hex() == blocks[2]


def test_huffman_is_decoded_as_its_encoder_encodes() -> None:
    for octet in range(256):
        encoded = string(bytes((octet,)) * 3, huffman=True)
        assert decode_huffman(encoded[1:]) == bytes((octet,)) * 3
        decoder = FieldDecoder()
        (field,) = fields_of(decoder, b"\x00" + string(b"n") + encoded)
        assert as_octets(field[1]) == bytes((octet,)) * 3
