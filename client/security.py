"""TLS as a client sees it: whom it trusts, and whether a server that does not answer was waiting for TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

import grpc

from kit.certificates import system_authorities

GREETING_SECONDS = 2.0
"""What a server gets for its half of a TLS handshake."""


def credentials(authorities: Path | None) -> grpc.ChannelCredentials:
    """For servers whose certificate was signed by one of the authorities in the PEM file, or, without a file, by one
    that this system trusts. Raises OSError."""
    trusted = system_authorities() if authorities is None else authorities.read_bytes()
    return grpc.ssl_channel_credentials(trusted)


def speaks_tls(server: str) -> bool:
    """Whether the server at `host:port` answers a TLS handshake, whoever it is."""
    host, _colon, port = server.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said to it
    context.set_alpn_protocols(["h2"])
    with (
        contextlib.suppress(OSError),  # ssl.SSLError is one
        socket.create_connection((host.strip("[]"), int(port)), GREETING_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host.strip("[]")),
    ):
        return True
    return False
