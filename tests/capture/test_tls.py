"""What can be read of a TLS connection: hellos made by a real TLS library, in records of any size, and damaged ones."""

from __future__ import annotations

import ssl
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.tls import Hello, client_hello, looks_like_tls


def real_hello(name: str | None, alpn: list[str]) -> bytes:
    """The first octets of a TLS client, as Python's own TLS library writes them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` octets."""
    body = hello[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(hello[:3] + struct.pack(">H", len(piece)) + piece for piece in pieces)


@pytest.mark.parametrize(
    ("name", "alpn"),
    [
        ("chat.example.org", ["h2"]),
        ("localhost", ["h2", "http/1.1"]),
        (None, ["grpc-exp", "h2"]),
        ("a.b", []),
        (None, []),
    ],
)
def test_a_real_hello_tells_server_name_and_protocols(name: str | None, alpn: list[str]) -> None:
    octets = real_hello(name, alpn)
    assert looks_like_tls(octets)
    assert client_hello(octets) == Hello(name, tuple(alpn))
    assert client_hello(octets + b"\x14\x03\x03\x00\x01\x01") == Hello(name, tuple(alpn))


def test_a_hello_may_be_cut_into_records() -> None:
    octets = real_hello("chat.example.org", ["h2"])
    for size in (40, 100, 300):
        assert client_hello(in_records(octets, size)) == Hello("chat.example.org", ("h2",))


def test_a_hello_is_none_until_all_of_it_is_there() -> None:
    octets = real_hello("chat.example.org", ["h2"])
    assert all(client_hello(octets[:size]) is None for size in range(len(octets)))


def test_a_server_hello_is_no_client_hello() -> None:
    octets = real_hello("chat.example.org", ["h2"])
    assert client_hello(octets[:5] + b"\x02" + octets[6:]) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x16\x03\x01\x00",
        b"\x19\x03\x01\x00\x05",
        b"\x13\x03\x01\x00\x05",
        b"\x16\x02\x01\x00\x05",
        b"\x16\x03\x05\x00\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    ],
)
def test_other_octets_do_not_look_like_tls(octets: bytes) -> None:
    assert not looks_like_tls(octets)


def test_a_record_may_begin_anywhere() -> None:
    assert looks_like_tls(b"xx\x17\x03\x03\x00\x10", 2)
    assert not looks_like_tls(b"xx\x17\x03\x03\x00", 2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4), st.integers(0, 600))
def test_a_damaged_hello_is_read_as_far_as_it_goes(damage: list[tuple[int, int]], kept: int) -> None:
    octets = bytearray(real_hello("chat.example.org", ["h2"]))
    for at, octet in damage:
        octets[at % len(octets)] = octet
    for some in (bytes(octets), bytes(octets[:kept])):
        hello = client_hello(some)
        assert hello is None or isinstance(hello.alpn, tuple)


def test_a_hello_in_ten_thousand_records_takes_no_time() -> None:
    octets = in_records(real_hello("chat.example.org", ["h2"] * 3000), 1)
    assert len(octets) > 50_000
    began = time.process_time()
    for _ in range(1000):
        assert client_hello(octets) is None
    assert time.process_time() - began < 1
