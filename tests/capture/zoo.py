"""A conversation with every kind of frame, to be read by other programs: padding, priority, fragments, unknown types
and settings, undefined flags, a set reserved bit, strings that are no text, a frame over several packets."""

from __future__ import annotations

from hpack import Encoder

from tests.capture.engine_factory import (
    DOWN,
    REQUEST,
    RESPONSE,
    TRAILERS,
    UP,
    Tape,
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

PADDED, PRIORITY, END_HEADERS, END_STREAM = 0x8, 0x20, 0x4, 0x1


def zoo(*, fragments: bool = True) -> Tape:
    """`fragments`: with a field block over CONTINUATION frames, cut inside a field."""
    up, down = Encoder(), Encoder()
    tape = Tape()
    talk = tape.talk().open()
    block = up.encode(REQUEST)
    talk.send(UP, frame(1, END_HEADERS | PADDED | PRIORITY, 1, b"\3" + b"\x80\0\0\0\x10" + block + bytes(3)))
    talk.send(UP, frame(0, PADDED, 1, b"\4" + message(b"abc") + bytes(4)))
    block = down.encode(RESPONSE)
    if fragments:
        talk.send(DOWN, headers(1, block[:5], 0) + continuation(1, block[5:10], 0) + continuation(1, block[10:]))
    else:
        talk.send(DOWN, headers(1, block))
    talk.send(UP, frame(0xBB, 0x42, 1, b"unknown!"))
    talk.send(UP, ping(flags=0x40) + ping(b"\0\1\2\3\4\5\6\7"))
    talk.send(UP, bytes.fromhex("000005 02 00 80000001") + b"\0\0\0\0\7")
    talk.send(DOWN, settings((1, 0), (99, 7), (9, 1), (8, 1), (2, 0)))
    promise = down.encode([(":method", "GET"), (":path", "/x"), (":scheme", "http"), (":authority", "a")])
    talk.send(DOWN, frame(5, END_HEADERS, 1, (2).to_bytes(4) + promise))
    promise = down.encode([(":method", "GET"), (":path", "/y")])
    talk.send(DOWN, frame(5, END_HEADERS | PADDED, 1, b"\2" + (4).to_bytes(4) + promise + bytes(2)))
    talk.send(DOWN, rst_stream(4, 8))
    talk.send(DOWN, frame(0xA, 0, 0, b"\0\3abch2=x") + frame(0xC, 0, 0, b"\0\3abc"))
    talk.send(UP, frame(0x10, 0, 0, b"\0\0\0\1u=1"))
    talk.send(DOWN, window_update(1, 77))
    talk.send(DOWN, data(1, message(b"hey") * 2))
    talk.send(DOWN, data(1, message(b"z" * 3000)), 700)
    odd: list[tuple[str | bytes, str | bytes]] = [
        *TRAILERS,
        ("x-bin", b"\xff\xfe\x01"),
        ("x-text", "tab\tend\x01"),
        ("x-empty", ""),
        ("x-es", "ñ"),
    ]
    talk.send(DOWN, headers(1, down.encode(odd), END_HEADERS | END_STREAM))
    talk.send(DOWN, goaway(1, 11, b"bye\0now"))
    talk.send(DOWN, data(3, b""))
    talk.fin(UP).fin(DOWN)
    return tape
