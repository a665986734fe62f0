"""Octets as they arrive, and what gzip has packed in them. (Whole captures under gzip are in test_pcap.)"""

from __future__ import annotations

import gzip
import io
import os
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.octets import BLOCK, arriving, unpacked


def unpack(pieces: list[bytes]) -> tuple[bytes, list[str]]:
    told: list[str] = []
    return b"".join(unpacked(iter(pieces), told.append)), told


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def test_a_stream_is_read_in_blocks_to_its_end() -> None:
    data = random.Random(1).randbytes(3 * BLOCK + 5)
    blocks = list(arriving(io.BytesIO(data)))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) == BLOCK


def test_a_buffered_stream_gives_what_is_there_before_it_waits() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as sender:
        blocks = arriving(stream)
        for piece in (b"ab", b"cde"):
            sender.write(piece)
            assert next(blocks) == piece
        sender.close()
        assert list(blocks) == []


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_what_is_not_gzip_passes_unchanged(data: bytes, size: int) -> None:
    if not data.startswith(b"\x1f\x8b"):
        assert unpack(in_pieces(data, size)) == (data, [])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.integers(1, 50), st.integers(0, 9))
def test_gzip_members_are_joined_however_they_arrive(contents: list[bytes], size: int, padding: int) -> None:
    packed = b"".join(map(gzip.compress, contents)) + bytes(padding)
    assert unpack(in_pieces(packed, size)) == (b"".join(contents), [])


def test_what_is_packed_a_thousandfold_comes_in_blocks_and_whole() -> None:
    packed = gzip.compress(bytes(5 * BLOCK + 3))
    blocks = list(unpacked(iter([packed]), lambda text: pytest.fail(text)))
    assert [len(block) for block in blocks] == [BLOCK] * 5 + [3]


def test_garbage_behind_a_member_is_told() -> None:
    content, told = unpack([gzip.compress(b"good") + b"garbage"])
    assert (content, told) == (b"good", ["the gzip data is damaged: nothing behind is read"])


def test_a_member_that_does_not_end_is_told_once_and_its_beginning_kept() -> None:
    packer = zlib.compressobj(wbits=31)
    flushed = packer.compress(b"seen") + packer.flush(zlib.Z_SYNC_FLUSH)
    assert unpack([flushed]) == (b"seen", ["the gzip data is cut short"])
