"""The writers: exact columns, value forms, and the same content whatever the format and however it is batched."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.events import (
    Call,
    Connection,
    Direction,
    FieldSection,
    FrameEvent,
    MessageEvent,
    Problem,
    Unknown,
    WindowSample,
)
from capture.export import COLUMNS, FORMATS, MAX_REMEMBERED, UnknownColumn, Writer

HERE = Connection(0, "127.0.0.1:52110", "127.0.0.1:50051")
SIX = Connection(1, "[::1]:52111", "[::1]:50051")
UP, DOWN = Direction
COMMON = [
    "packet", "time_ns", "connection", "client", "server", "direction", "offset", "type", "type_code", "stream_id",
    "length", "flags", "flag_names",
]  # fmt: skip


def frame(
    type_code: int,
    payload: bytes | None = b"",
    *,
    flags: int = 0,
    stream: int = 0,
    direction: Direction = UP,
    connection: Connection = HERE,
    packet: int = 7,
    time_ns: int = 1_700_000_000_123_456_789,
    offset: int = 24,
    fields: list[tuple[Any, Any]] | None = None,
    length: int | None = None,
) -> FrameEvent:
    length = len(payload or b"") if length is None else length
    header = length.to_bytes(3) + bytes([type_code, flags]) + stream.to_bytes(4)
    section = None if fields is None else FieldSection(tuple(fields), payload or b"", True)
    return FrameEvent(
        packet, time_ns, connection, direction, offset, type_code, flags, stream, length, header, payload, section
    )  # fmt: skip


class Says:
    """A codec whose messages always say the same."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def decode(self, data: bytes, compressed: bool) -> Any:
        return self.content


def message(content: Any, **changes: Any) -> MessageEvent:
    made = MessageEvent(9, 5, HERE, UP, 3, "/minichat.v1.ChatService/Chat", False, 4, b"data", Says(content))
    return made._replace(**changes)


def problem(**changes: Any) -> Problem:
    return Problem(4, 5, HERE, DOWN, 90, "tcp", "{octets} octets are missing", {"octets": 3}, 3)._replace(**changes)


CALL = Call(HERE, 3, "/a.B/C", 10, None, 30, 8, "room full", 1, 0, 20, 0, "trailers_only")


def records(kind: str, form: str, made: list[Any], names: list[str] | None = None) -> list[dict[str, Any]]:
    writer = Writer(kind, form, names)
    text = (writer.header + writer.lines(made)).decode()
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    head, *rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    return [dict(zip(head, row, strict=True)) for row in rows]


def one(kind: str, form: str, made: Any, names: list[str] | None = None) -> dict[str, Any]:
    (record,) = records(kind, form, [made], names)
    return record


def test_the_columns_are_those_of_the_contract_in_its_order() -> None:
    assert {
        "frames": (
            *COMMON, "settings", "fields", "increment", "error_code", "last_stream_id", "data_length",
            "promised_stream_id",
        ),
        "messages": (
            "packet", "time_ns", "connection", "direction", "stream_id", "path", "compressed", "length", "message",
        ),
        "calls": (
            "connection", "stream_id", "path", "start_ns", "first_response_ns", "end_ns", "status", "status_message",
            "sent_messages", "received_messages", "sent_octets", "received_octets", "end",
        ),
        "windows": ("time_ns", "connection", "direction", "stream_id", "octets", "cause"),
        "problems": ("packet", "time_ns", "connection", "direction", "offset", "layer", "reason", "octets"),
    } == COLUMNS  # fmt: skip


def test_a_jsonl_frame_has_the_common_keys_and_those_of_its_type_in_order() -> None:
    writer = Writer("frames", "jsonl")
    settings = frame(4, bytes.fromhex("000500400000") + bytes.fromhex("00ff00000007"), connection=SIX, direction=DOWN)
    assert writer.lines([settings]) == (
        b'{"packet":7,"time_ns":1700000000123456789,"connection":1,"client":"[::1]:52111","server":"[::1]:50051",'
        b'"direction":"server_to_client","offset":24,"type":"SETTINGS","type_code":4,"stream_id":0,"length":12,'
        b'"flags":0,"flag_names":[],"settings":[["SETTINGS_MAX_FRAME_SIZE",4194304],[255,7]]}\n'
    )


@pytest.mark.parametrize(
    ("made", "own"),
    [
        (frame(0, b"\x02abcd\0\0", flags=9, stream=1), {"data_length": 4}),
        (frame(0, None, stream=1, length=50), {"data_length": 50}),
        (frame(1, b"\x88", flags=4, stream=1, fields=[(":status", "200")]), {"fields": [[":status", "200"]]}),
        (frame(1, b"\x88", stream=1), {"fields": None}),
        (frame(2, bytes(5), stream=1), {}),
        (frame(3, (8).to_bytes(4), stream=1), {"error_code": 8}),
        (frame(3, (0xFFFFFFFF).to_bytes(4), stream=1), {"error_code": 0xFFFFFFFF}),
        (frame(4, flags=1), {"settings": []}),
        (frame(4, b"\0"), {"settings": None}),
        (frame(5, bytes(3) + b"\x02\x82", flags=4, stream=1, fields=[(":method", "GET")]),
         {"fields": [[":method", "GET"]], "promised_stream_id": 2}),
        (frame(6, bytes(8)), {}),
        (frame(7, (0x7FFFFFFF).to_bytes(4) + (11).to_bytes(4) + b"x"),
         {"error_code": 11, "last_stream_id": 0x7FFFFFFF}),
        (frame(8, (47).to_bytes(4)), {"increment": 47}),
        (frame(9, b"\x88", flags=4, stream=1, fields=[(":status", "200")]), {"fields": [[":status", "200"]]}),
        (frame(0xBE, b"x"), {}),
    ],
)  # fmt: skip
def test_each_frame_type_has_its_own_keys(made: FrameEvent, own: dict[str, Any]) -> None:
    record = one("frames", "jsonl", made)
    assert list(record) == COMMON + [name for name in COLUMNS["frames"] if name in own]
    assert {name: record[name] for name in own} == own
    assert record["type"] == made.type
    assert record["flag_names"] == made.flag_names


def test_an_unregistered_type_is_null_and_its_flags_are_numbers() -> None:
    record = one("frames", "jsonl", frame(0xBE, flags=0x41))
    assert (record["type"], record["type_code"], record["flag_names"]) == (None, 0xBE, ["0x01", "0x40"])
    assert one("frames", "tsv", frame(0xBE))["type"] == ""


def test_what_is_unknown_or_no_text_has_a_form_of_its_own() -> None:
    fields = [(Unknown("?-3"), Unknown("?-3")), ("x-bin", b"\xff\x00"), (b"\x80", "ñ"), ("te", Unknown("?"))]
    expected = [
        [{"unknown": "?-3"}, {"unknown": "?-3"}],
        ["x-bin", {"base64": "/wA="}],
        [{"base64": "gA=="}, "ñ"],
        ["te", {"unknown": "?"}],
    ]
    made = frame(1, b"", flags=4, fields=fields)
    assert one("frames", "jsonl", made)["fields"] == expected
    assert json.loads(one("frames", "tsv", made)["fields"]) == expected
    assert json.loads(one("frames", "csv", made)["fields"]) == expected


def test_a_lone_surrogate_neither_stops_the_writer_nor_hides_what_stands_beside_it() -> None:
    fields = [("x", "\udcff"), (Unknown("?-1"), "y")]
    made = frame(1, b"", flags=4, fields=fields)
    assert one("frames", "jsonl", made)["fields"] == [["x", "\udcff"], [{"unknown": "?-1"}, "y"]]
    assert one("calls", "tsv", CALL._replace(status_message="\udcff"))["status_message"] == r"\udcff"
    assert one("calls", "csv", CALL._replace(status_message="\udcff"))["status_message"] == r"\udcff"
    assert one("messages", "jsonl", message({"a": ["\ud800", 1]}))["message"] == {"a": ["\ud800", 1]}


@pytest.mark.parametrize("form", FORMATS)
def test_chosen_columns_come_in_the_order_asked_for(form: str) -> None:
    names = ["length", "packet", "increment", "type"]
    record = one("frames", form, frame(6, bytes(8)), names)
    assert list(record) == names
    assert list(record.values()) == ([8, 7, None, "PING"] if form == "jsonl" else ["8", "7", "", "PING"])


def test_a_column_asked_for_twice_stands_twice_where_it_can() -> None:
    writer = Writer("frames", "tsv", ["packet", "packet"])
    assert writer.header + writer.lines([frame(6)]) == b"packet\tpacket\n7\t7\n"
    assert Writer("frames", "jsonl", ["packet", "packet"]).lines([frame(6)]) == b'{"packet":7}\n'


def test_an_unknown_column_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UnknownColumn) as refusal:
        Writer("windows", "csv", ["time_ns", "color"])
    assert refusal.value.name == "color"
    assert refusal.value.known == COLUMNS["windows"]


def test_tsv_escapes_what_would_break_its_lines_and_csv_quotes_it() -> None:
    said = 'a\tb\nc\\d\r\x1b[31m\x9b"e", ñ'
    made = CALL._replace(status_message=said)
    assert one("calls", "tsv", made)["status_message"] == r'a\tb\nc\\d\r\x1b[31m\x9b"e", ñ'
    assert one("calls", "jsonl", made)["status_message"] == said
    writer = Writer("calls", "csv")
    text = (writer.header + writer.lines([made])).decode()
    assert next(csv.DictReader(io.StringIO(text, newline="")))["status_message"] == said


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_every_format(said: str) -> None:
    made = CALL._replace(status_message=said)
    assert one("calls", "jsonl", made)["status_message"] == said
    writer = Writer("calls", "csv", ["status_message", "end"])
    (_head, row) = csv.reader(io.StringIO((writer.header + writer.lines([made])).decode(), newline=""))
    assert row == [said, "trailers_only"]
    escaped = one("calls", "tsv", made)["status_message"]
    assert not set(escaped) & {"\t", "\n", "\r", "\x1b"}
    assert unescaped(escaped) == said


def unescaped(text: str) -> str:
    """What a reader of our tsv does."""
    out, rest = "", text
    while rest:
        at = rest.find("\\")
        if at < 0:
            return out + rest
        out, rest = out + rest[:at], rest[at:]
        kind = rest[1]
        digits = {"x": 2, "u": 4}.get(kind, 0)
        out += chr(int(rest[2 : 2 + digits], 16)) if digits else {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[kind]
        rest = rest[2 + digits :]
    return out


def test_messages_calls_windows_and_problems_have_their_value_forms() -> None:
    assert one("messages", "jsonl", message({"1": "Juan", "2": ["9", None]}, compressed=True)) == {
        "packet": 9, "time_ns": 5, "connection": 0, "direction": "client_to_server", "stream_id": 3,
        "path": "/minichat.v1.ChatService/Chat", "compressed": True, "length": 4,
        "message": {"1": "Juan", "2": ["9", None]},
    }  # fmt: skip
    unknown = one("messages", "jsonl", message(None, path=None))
    assert (unknown["path"], unknown["message"]) == (None, None)
    assert one("calls", "jsonl", CALL)["first_response_ns"] is None
    assert one("calls", "tsv", CALL)["first_response_ns"] == ""
    assert one("windows", "jsonl", WindowSample(5, SIX, DOWN, 0, -12, 40)) == {
        "time_ns": 5, "connection": 1, "direction": "server_to_client", "stream_id": 0, "octets": -12, "cause": 40,
    }  # fmt: skip
    assert one("problems", "jsonl", problem())["reason"] == "3 octets are missing"
    nowhere = one("problems", "jsonl", problem(connection=None, direction=None, offset=None, octets=None))
    assert [nowhere[name] for name in ("connection", "direction", "offset", "octets")] == [None] * 4
    assert one("problems", "jsonl", problem(connection=HERE))["connection"] == 0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("names", [None, ["packet", "type_code", "stream_id", "length", "flags"]])
def test_however_records_are_batched_the_lines_are_the_same(form: str, names: list[str] | None) -> None:
    made = [
        frame(n % 11, bytes(n % 5), flags=n * 7 % 256, stream=n % 9, packet=n, connection=(HERE, SIX)[n % 2])
        for n in range(200)
    ]
    whole = Writer("frames", form, names).lines(made)
    single = Writer("frames", form, names)
    assert b"".join(single.lines([each]) for each in made) == whole
    assert single.lines([]) == b""
    assert len(whole.splitlines()) == len(made)


def test_what_is_remembered_is_bounded_and_stays_right() -> None:
    names = ["length", "connection"]
    writer = Writer("frames", "tsv", names)
    many = [
        frame(0, length=n, connection=Connection(n, "c", "s"), packet=n) for n in range(MAX_REMEMBERED + 10)
    ]  # fmt: skip
    assert writer.lines(many).decode().splitlines() == [f"{n}\t{n}" for n in range(MAX_REMEMBERED + 10)]
    assert writer.lines(many[:3]) == b"0\t0\n1\t1\n2\t2\n"
