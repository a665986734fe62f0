"""What an eavesdropper can read of a TLS connection: that it is one, and the client's hello (RFC 8446 §4.1.2, §5.1)."""

from __future__ import annotations

from typing import NamedTuple

HANDSHAKE, APPLICATION_DATA = 22, 23
_RECORD_HEADER = 5
_MAX_RECORD = (1 << 14) + 2048
_MAX_RECORDS = 16
"""A ClientHello may be cut into records. Nobody needs more than two or three."""
_CLIENT_HELLO, _SERVER_NAME, _ALPN = 1, 0, 16


class Hello(NamedTuple):
    """Of a ClientHello."""

    server_name: str | None
    alpn: tuple[str, ...]
    """Protocols offered, `h2` among them where HTTP/2 may follow."""


def looks_like_tls(octets: bytes | bytearray, at: int = 0) -> bool:
    """Whether a record begins there: a content type, a version 3.0 to 3.4, a possible length."""
    return (
        len(octets) >= at + _RECORD_HEADER
        and 20 <= octets[at] <= 24
        and octets[at + 1] == 3
        and octets[at + 2] <= 4
        and 0 < int.from_bytes(octets[at + 3 : at + 5]) <= _MAX_RECORD
    )


def client_hello(octets: bytes) -> Hello | None:
    """The hello in a direction's first octets; None where there is none, or not yet all of it."""
    handshake = bytearray()
    at = 0
    for _ in range(_MAX_RECORDS):
        if not looks_like_tls(octets, at) or octets[at] != HANDSHAKE:
            break
        length = int.from_bytes(octets[at + 3 : at + 5])
        handshake += octets[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
    if len(handshake) < 4 or handshake[0] != _CLIENT_HELLO or len(handshake) < 4 + int.from_bytes(handshake[1:4]):
        return None
    body = bytes(handshake[4 : 4 + int.from_bytes(handshake[1:4])])
    at = 2 + 32  # version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        at += width + int.from_bytes(body[at : at + width])
    name: str | None = None
    alpn: tuple[str, ...] = ()
    at += 2
    while at + 4 <= len(body):
        kind, length = int.from_bytes(body[at : at + 2]), int.from_bytes(body[at + 2 : at + 4])
        extension = body[at + 4 : at + 4 + length]
        if kind == _SERVER_NAME and len(extension) > 5:
            name = extension[5 : 5 + int.from_bytes(extension[3:5])].decode("ascii", "replace")
        elif kind == _ALPN:
            alpn = tuple(_names(extension[2:]))
        at += 4 + length
    return Hello(name, alpn)


def _names(octets: bytes) -> list[str]:
    names, at = [], 0
    while at < len(octets):
        names.append(octets[at + 1 : at + 1 + octets[at]].decode("ascii", "replace"))
        at += 1 + octets[at]
    return names
