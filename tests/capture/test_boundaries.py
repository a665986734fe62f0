"""Where frames begin when the capture began in the middle: what counts as a header, and which chain is believed."""

from __future__ import annotations

import random
import time

import pytest

from capture.boundaries import (
    ENOUGH,
    ENOUGH_AT_END,
    KNOWN_ENOUGH,
    KNOWN_ENOUGH_AT_END,
    MAX_CANDIDATES,
    MAX_SEARCHED,
    BoundarySearch,
    evidence,
)
from tests.capture.engine_factory import (
    GET,
    SETTINGS_ACK,
    Chatter,
    continuation,
    data,
    frame,
    goaway,
    headers,
    message,
    ping,
    rst_stream,
    settings,
    window_update,
)

STRANGER, ACQUAINTANCE = (ENOUGH, ENOUGH_AT_END), (KNOWN_ENOUGH, KNOWN_ENOUGH_AT_END)


def search(*segments: bytes, offset: int = 0, known: bool = False) -> int | None:
    """The first boundary that is found as the segments come."""
    searching = BoundarySearch(offset)
    for segment in segments:
        searching.append(segment)
        start = searching.find(*(ACQUAINTANCE if known else STRANGER))
        if start is not None:
            return start
    return None


# -- evidence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        ping(),
        ping(flags=1),
        window_update(0, 5),
        window_update(7, 2**31 - 1),
        rst_stream(5),
        frame(2, 0, 5, b"\0\0\0\0\x10"),
        settings(),
        settings((4, 65_535), (5, 16_384)),
        SETTINGS_ACK,
        goaway(1, 2, b"bye"),
        headers(1, GET),
        headers(3, b"\xbe", flags=5),
        headers(1, b"\x80\0\0\0\x10" + GET, flags=0x24),
        headers(1, b"\2\0\0\0\0\x10" + GET + b"\0\0", flags=0x2C),
        headers(1, b"\0\3x-t\1v", flags=5),
        headers(1, b"\x10\x83abc\1v", flags=5),
        headers(1, b"\x82" * 16_384, flags=0),
        data(1, message(b"hello")),
    ],
)
def test_a_frame_of_fixed_shape_is_strong_evidence(octets: bytes) -> None:
    assert evidence(octets, 0) == 2
    assert evidence(b"xyz" + octets, 3) == 2


@pytest.mark.parametrize(
    "octets",
    [
        data(1, b"hello"),
        data(1, b"", flags=1),
        data(1, b"\0hello", flags=8),
        headers(1, b"\0\0\0\0\x10" + b"\0\1A\1b", flags=0x24),
        headers(1 << 24, GET),
        headers(1, GET + b"\x82" * 16_384),
        headers(1, GET, flags=0),
        data(1, b"pushed", flags=1)[1:] + bytes(2000),
        continuation(1, GET),
        frame(5, 4, 1, b"\0\0\0\2" + GET),
        frame(0xA, 0, 0, b"\0\0x"),
        frame(0x10, 0, 0, b"\0\0\0\1u=1"),
    ],
)
def test_a_frame_of_any_content_is_weak_evidence(octets: bytes) -> None:
    assert evidence(octets, 0) == 1


@pytest.mark.parametrize(
    "octets",
    [
        frame(0xFB, 0, 0, b"x"),
        frame(0, 0x40, 1, b"x"),
        frame(0, 0, 0, b"x"),
        frame(0, 0, 0x80000001, b"x"),
        frame(6, 0, 1, b"12345678"),
        frame(6, 0, 0, b"1234567"),
        frame(4, 0, 0, b"12345"),
        frame(4, 1, 0, b"123456"),
        settings((0, 5)),
        window_update(0, 0),
        goaway()[:3] + b"\7\1" + goaway()[5:],
        b"\x7f" + data(1, b"x")[1:],
        headers(1, b"\0\0\0\0", flags=0x24),
        headers(1, b"\4" + GET, flags=0xC),
    ],
)
def test_what_breaks_a_rule_is_no_evidence(octets: bytes) -> None:
    assert evidence(octets, 0) == 0


# -- chains ------------------------------------------------------------------------------------------------------------


def test_a_chain_is_believed_once_it_is_long_enough() -> None:
    assert search(b"junk" + ping() + ping() + ping() + b"\0\0") == 4
    assert search(b"junk" + ping() + ping() + b"\0\0") is None
    assert search(b"junk" + ping() + ping() + b"\0\0", known=True) == 4


def test_less_is_enough_where_a_segment_ends() -> None:
    assert search(b"junk" + ping()) == 4
    assert search(b"junk" + data(1, b"weak")) is None, "a weak frame is none in the middle of a segment"
    assert search(data(1, b"weak"), known=True) == 0, "but where one begins"
    assert search(data(1, b"weak")) is None


def test_a_start_inside_a_large_transfer_finds_its_next_frame() -> None:
    """Nothing but DATA frames that are pieces of one message, none at the beginning of a segment."""
    rnd = random.Random(3)
    frames = [data(1, rnd.randbytes(length)) for length in (16_384, 16_384, 5_000, 16_384, 16_384)]
    octets = b"".join(frames)[7_000:]
    segments = [octets[at : at + 9_000] for at in range(0, len(octets), 9_000)]
    assert search(*segments, known=True) == 16_393 - 7_000
    alone = b"junk" + data(1, rnd.randbytes(1_000))
    assert search(alone, known=True) is None, "one of them alone is nothing"
    assert search(alone, ping(), known=True) == 4
    assert search(b"junk" + data(1, rnd.randbytes(100)), ping(), known=True) == 4 + 109, "short ones are too likely"


def test_a_chain_goes_on_behind_a_frame_that_is_too_long_to_be_kept() -> None:
    rnd = random.Random(4)
    octets = b"junk" + b"".join(data(1, rnd.randbytes(700_000)) for _ in range(4))
    searching = BoundarySearch(0)
    for at in range(0, len(octets), 50_000):
        searching.append(octets[at : at + 50_000])
        start = searching.find(*ACQUAINTANCE)
        if start is not None:
            break
        searching.trim(24)
    assert start == 4 + 3 * 700_009
    assert searching.offset <= start, "its octets are still there"


def test_the_first_of_several_boundaries_is_taken() -> None:
    octets = b"".join(ping() for _ in range(9))
    for start in range(20):
        assert search(octets[start:]) == -start % 17


def test_a_start_inside_any_frame_finds_the_next_one() -> None:
    """Real conversations, cut at every octet of one direction, arriving in segments of one frame each."""
    for seed in range(3):
        for direction in (0, 1):
            frames = [octets for way, octets in Chatter(seed).pieces(3)[3:] if way == direction]
            for i in range(len(frames) - 4):
                for cut in range(1, len(frames[i]), 7):
                    assert search(frames[i][cut:], *frames[i + 1 :]) == len(frames[i]) - cut, (seed, i, cut)


def test_segments_need_not_end_with_frames() -> None:
    octets = b"junk that is no frame" + b"".join(data(1, message(b"x" * n)) for n in range(40))
    for size in (1, 5, 13, 100):
        assert search(*(octets[at : at + size] for at in range(0, len(octets), size))) == 21


@pytest.mark.parametrize(
    "odd",
    [frame(0xFB, 0xFF, 5, b"grease"), data(1, b""), frame(6, 0x80, 0, b"12345678"), frame(8, 0, 2**31, b"\0\0\0\5")],
)
def test_a_chain_goes_on_behind_one_odd_frame(odd: bytes) -> None:
    """Receivers ignore unknown types, undefined flags and the reserved bit (RFC 9113 §4.1, §5.5)."""
    assert search(b"junk" + ping() + odd + ping() + ping()) == 4
    assert search(b"junk" + ping() + odd[:9], odd[9:] + ping() + ping()) == 4
    assert search(b"junk" + ping() + odd + odd + ping() + ping() + ping()) == 4 + 17 + 2 * len(odd)
    assert search(b"junk" + odd + ping() + ping() + ping()) == 4 + len(odd), "but does not begin with one"


def test_positions_are_offsets_of_the_direction() -> None:
    assert search(b"junk" + ping(), offset=1000) == 1004


def test_random_octets_hold_no_frames() -> None:
    rnd = random.Random(1)
    searching = BoundarySearch(0)
    for _ in range(300):
        searching.append(rnd.randbytes(1400))
        assert searching.find(*STRANGER) is None
        searching.trim(24)


@pytest.mark.parametrize(
    "octets", [b"\0" * 1400, b"\xff" * 1400, b"a" * 1400, bytes(range(256)) * 6, b"\0\0\0\1" * 350]
)
def test_regular_octets_hold_no_frames(octets: bytes) -> None:
    searching = BoundarySearch(0)
    for _ in range(30):
        searching.append(octets)
        assert searching.find(*STRANGER) is None
        searching.trim(24)


# -- a place that is tried first ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "may"),
    [
        (ping(), True),
        (data(1, b"weak"), True),
        (data(1, b"weak") + ping()[:5], False),
        (data(1, b"weak")[:12], False),
        (data(1, message(b"strong"))[:15], True),
        (headers(1, GET)[:10], True),
        (data(1, b"weak") * 2 + ping()[:5], True),
        (data(1, b"weak") + b"\xff" * 9, False),
        (ping()[:8], False),
        (b"hello, world", False),
    ],
)
def test_a_boundary_is_possible_where_headers_follow_each_other(octets: bytes, may: bool) -> None:
    searching = BoundarySearch(500)
    searching.append(octets)
    assert searching.may_begin(500) == may


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_what_no_chain_needs_is_let_go() -> None:
    searching = BoundarySearch(0)
    for _ in range(100):
        searching.append(b"\xff" * 1000)
        searching.find(*STRANGER)
        searching.trim(24)
        assert len(searching.octets) == 24
    assert (searching.offset, searching.end) == (100_000 - 24, 100_000)


def test_a_chain_that_waits_for_a_long_frame_keeps_only_so_much() -> None:
    searching = BoundarySearch(0)
    searching.append(data(1, b"")[:0] + b"\x3f\xff\xff\0\0\0\0\0\1" + b"\0\0\x3f\xff\xfa")
    for _ in range(2 * MAX_SEARCHED // 50_000):
        searching.append(b"\xff" * 50_000)
        assert searching.find(*STRANGER) is None
        searching.trim(24)
        assert len(searching.octets) <= MAX_SEARCHED + 50_000
    assert len(searching.octets) == 24


def test_chains_are_few_and_meet() -> None:
    """Octets made to mislead: a strong header at every ninth octet, all leading to the same place."""
    octets = b"".join((100_000 - 9 * i).to_bytes(3) + b"\x01\x04\0\0\0\x01" for i in range(5000)) + b"\xff" * 100
    searching = BoundarySearch(0)
    searching.append(octets)
    assert searching.find(*STRANGER) is None
    assert len(searching._chains) <= MAX_CANDIDATES


@pytest.mark.parametrize("kind", ["many chains", "one long chain after many starts", "all headers"])
def test_octets_made_to_mislead_take_bounded_time(kind: str) -> None:
    small = SETTINGS_ACK
    octets = {
        "many chains": b"".join((50_000 - 9 * i).to_bytes(3) + b"\x01\x04\0\0\0\x01" for i in range(5000)),
        "one long chain after many starts": b"".join(
            (2700 - 9 * i).to_bytes(3) + b"\x01\x05\0\0\0\x01" for i in range(300)
        )
        + small * 6000,
        "all headers": small * 7000,
    }[kind] + b"\xff" * 20
    began = time.process_time()
    for _ in range(5):
        searching = BoundarySearch(0)
        searching.append(octets)
        searching.find(1000, 1000)
        searching.trim(24)
    assert time.process_time() - began < 3
