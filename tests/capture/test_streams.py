"""The bounded tables of streams, and header blocks."""

from __future__ import annotations

import pytest

from capture import streams
from capture.events import FrameType, Unknown
from capture.streams import HeaderBlocks, Room, Streams, content_subtype
from tests.capture.factory import CLIENT, SERVER, Talk


def test_an_ended_stream_is_remembered_for_a_while_as_none() -> None:
    table: Streams[str] = Streams(Room())
    table.open(1, "one")
    table.end(1)
    assert 1 in table
    assert table.get(1) is None
    for stream_id in range(3, 3 + 2 * streams.MAX_ENDED, 2):
        table.open(stream_id, "later")
        table.end(stream_id)
    assert 1 not in table
    assert len(table) == streams.MAX_ENDED


def test_the_oldest_stream_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    table: Streams[str] = Streams(Room())
    assert table.open(1, "one") is None
    table.end(1)
    assert table.open(3, "three") is None
    assert table.open(5, "five") is None
    assert table.open(7, "seven") == (3, "three")
    assert table.living() == [(5, "five"), (7, "seven")]


def test_room_is_shared_by_all_connections_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OVERALL", 3)
    room = Room()
    one: Streams[str] = Streams(room)
    two: Streams[str] = Streams(room)
    for stream_id in (1, 3, 5):
        assert one.open(stream_id, "") is None
    assert two.open(1, "first of its connection") is None
    assert two.open(3, "second") == (1, "first of its connection")
    one.end(1)
    one.end(1)
    one.close()
    assert room.taken == 1
    two.close()
    assert room.taken == 0


def test_headers_are_complete_with_end_headers_and_remember_how_they_began() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    talk.request(1, end=True, pieces=3)
    taken = [blocks.take(frame) for frame in talk.frames]
    assert taken[:-1] == [None, None]
    headers = taken[-1]
    assert headers is not None
    assert (headers.stream_id, headers.end_stream, headers.whole) == (1, True, True)
    assert headers.text(":path") == "/minichat.v1.ChatService/Chat"
    assert headers.lacks("grpc-encoding")


def test_a_block_whose_beginning_was_not_seen_says_so() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    talk.request(1, end=True, pieces=2)
    headers = blocks.take(talk.frames[-1])
    assert headers is not None
    assert (headers.end_stream, headers.whole) == (False, False)


def test_a_block_of_which_frames_are_missing_says_so() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    talk.request(1, end=True, pieces=2)
    blocks.take(talk.frames[0])
    blocks.lose(CLIENT)
    headers = blocks.take(talk.frames[1])
    assert headers is not None
    assert not headers.whole


def test_a_promised_request_is_nobody_s_headers() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    talk.headers(SERVER, 1, [(":path", "/x")], kind=FrameType.PUSH_PROMISE, prefix=bytes([0, 0, 0, 2]), pieces=2)
    assert [blocks.take(frame) for frame in talk.frames] == [None, None]


def test_a_field_that_is_missing_may_be_there_if_a_name_is_unknown() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    headers = blocks.take(talk.headers(CLIENT, 1, [(Unknown("?-1"), Unknown("?-1")), (":path", Unknown("?-2"))]))
    assert headers is not None
    assert not headers.lacks("content-type")
    assert headers.text(":path") is None
    assert not headers.lacks(":path")


def test_nothing_is_certain_of_a_block_that_is_lost() -> None:
    talk, blocks = Talk(), HeaderBlocks()
    headers = blocks.take(talk.headers(CLIENT, 1, [(":path", "/x")], lost=True))
    assert headers is not None
    assert not headers.lacks(":path")


@pytest.mark.parametrize(
    ("content_type", "subtype"),
    [
        ("application/grpc", "proto"),
        ("application/grpc+proto", "proto"),
        ("Application/GRPC+JSON; charset=utf-8", "json"),
        ("application/grpc;x=y", "proto"),
        ("application/grpc-web", None),
        ("application/grpc-web+proto", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_content_type_says_what_is_grpc(content_type: str, subtype: str | None) -> None:
    assert content_subtype(content_type) == subtype
