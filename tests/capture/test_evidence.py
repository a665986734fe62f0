"""Logs of the truth as they are read: whole, cut off, and false."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder

from capture.evidence import LOST, TrueMessage, TruthError, read_truth
from kit.truth import Truth
from proto.chat_pb2 import ChatMessage
from tests.capture.engine_factory import (
    DOWN,
    PREFACE,
    REQUEST,
    RESPONSE,
    TRAILERS,
    UP,
    Tape,
    data,
    headers,
    message,
    settings,
)
from tests.capture.glass_box import seen

HEAD = {"record": "truth", "side": "server"}
CALL = {"record": "call", "call": 1, "time_ns": 5, "method": "/a.B/C"}
MESSAGE = {"record": "message", "call": 1, "direction": "server_to_client", "sequence": 1, "time_ns": 7, "message": {}}


def lines(*records: dict[str, Any]) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


def test_what_is_logged_is_read_again(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "log", "client")
    first, second = truth.call("/minichat.v1.ChatService/Chat"), truth.call("/nobody.Knows/This")
    first.connected("[::1]:40112")
    first.message("client_to_server", ChatMessage(text="¡Hola!").SerializeToString())
    second.message("client_to_server", b"?")
    first.message("server_to_client", b"\xff")
    first.ended(0, "")
    truth.close()
    with (tmp_path / "log").open("rb") as file:
        log = read_truth(file)
    chat, other = log.calls
    assert log.side == "client"
    assert log.last_ns == chat.end_ns
    assert (chat.method, chat.client, chat.has_end, chat.status, chat.sentence) == (
        "/minichat.v1.ChatService/Chat",
        "[::1]:40112",
        True,
        0,
        "",
    )
    assert [message[1:] for message in (*chat.messages[0], *chat.messages[1])] == [
        ({"text": "¡Hola!"}, True),
        (None, True),
    ]
    assert (other.client, other.has_end, other.status) == (None, False, None)
    assert [message[1:] for message in other.messages[0]] == [(None, False)]


def test_a_last_line_that_is_cut_off_is_passed_over() -> None:
    *whole, last = lines(HEAD, CALL, MESSAGE)
    assert read_truth([*whole, last]).calls[0].messages[1] == [TrueMessage(7, {}, True)]
    for length in range(len(last)):
        assert read_truth([*whole, last[:length]]).calls[0].messages[1] == []


def test_each_side_knows_what_it_sent() -> None:
    for side, direction in (("client", 0), ("server", 1)):
        log = read_truth(lines({"record": "truth", "side": side}))
        assert log.sent(direction)
        assert not log.sent(1 - direction)


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ([CALL], 1),
        ([{"record": "truth", "side": "judge"}], 1),
        ([HEAD, {"record": "call", "call": 1, "time_ns": 5}], 2),
        ([HEAD, MESSAGE], 2),
        ([HEAD, CALL, {**MESSAGE, "sequence": 2}], 3),
        ([HEAD, CALL, {**MESSAGE, "direction": "up"}], 3),
        ([HEAD, CALL, {"record": "gossip", "call": 1}], 3),
        ([HEAD, CALL, {"record": "end", "call": 1, "time_ns": "now"}], 3),
    ],
)
def test_a_line_that_is_none_is_named(records: list[dict[str, Any]], line: int) -> None:
    with pytest.raises(TruthError, match=rf"^line {line} is none"):
        read_truth(lines(*records))


@pytest.mark.parametrize("line", [b"[]\n", b"7\n", b"{\n", b"\xff\n", b"\n"])
def test_a_line_that_is_no_record_is_named(line: bytes) -> None:
    with pytest.raises(TruthError, match=r"^line 2 is none"):
        read_truth([*lines(HEAD), line])


def test_an_empty_log_is_none() -> None:
    with pytest.raises(TruthError, match="nothing"):
        read_truth([])


# --- the capture


def test_a_gap_that_begins_in_a_header_frame_may_have_swallowed_messages_behind_it() -> None:
    request, (response, trailers) = Encoder().encode(REQUEST), map(Encoder().encode, (RESPONSE, TRAILERS))
    talk = Tape().talk().shake().send(UP, PREFACE + settings() + headers(1, request) + data(1, message(b"x"), flags=1))
    response, trailers = headers(1, response), headers(1, trailers, flags=5)
    talk.send(DOWN, settings() + response[:15])
    at = len(talk.tape.packets)
    talk.send(DOWN, response[15:] + data(1, message(b"lost"))).send(DOWN, trailers).send(UP, settings())
    packets = talk.tape.packets
    half = seen(packets[:at] + packets[at + 1 :], ()).connections[0].streams[1].halves[1]
    assert (half.begun, half.runs, half.hole) == (True, [], LOST)
    whole = seen(packets, ()).connections[0].streams[1].halves[1]
    assert (len(whole.runs), whole.hole) == (1, None)
