"""The two ends of a tapped connection: a socket towards the client, one towards the server, with or without TLS.

Both kinds of end have the same few verbs and never wait: what cannot be done now is said, and the tap's loop comes back
when the socket is ready. TLS is Python's own `ssl` between two memory buffers, so that the octets on the wire and the
octets inside are both at hand: the tap records the ones or the others.

Errors of the network are OSError (a reset is ConnectionResetError); those of TLS are `ssl.SSLError`, an OSError too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

RECEIVE = 65_536
"""Octets taken from a socket at once; below the size for which malloc asks the system anew each time."""

_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # SO_LINGER on, for 0 s: close sends RST

Watch = Callable[[bool, bytes], None]
"""Told of octets on the wire: whether they go out, and what they are; b"" is the FIN."""


class Plain:
    """A socket without TLS."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # macOS refuses where the other side has left already
            # Without it a call's trailers wait for the acknowledgement of its data: 40 to 95 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.stuck = False
        """Whether the socket took less than it was given: worth another try when it is writable."""
        self.ended = False
        """Whether the other side has said that nothing more comes."""

    def start(self) -> None:
        """The connection stands."""

    def receive(self) -> bytes:
        """What is there; b"" for nothing yet or, with `ended`, for nothing any more."""
        try:
            octets = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return b""
        self.ended = not octets
        return octets

    def send(self, octets: bytes | memoryview) -> int:
        """How many of them were taken."""
        try:
            sent = self.socket.send(octets)
        except BlockingIOError:
            sent = 0
        self.stuck = sent < len(octets)
        return sent

    def flush(self) -> None:
        """The socket is writable again."""
        self.stuck = False

    def finish(self) -> None:
        """Nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Closes with a reset."""
        with contextlib.suppress(OSError):  # as above
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


class Secure(Plain):
    """A socket under TLS. What `receive` and `send` deal in is the plaintext."""

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        host: str | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(connection)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, host)
        self._watch = watch
        self._unsent = b""  # ciphertext: at most one piece of plaintext's, as `send` takes nothing before it is gone
        self._finishing = False

    def start(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.flush()

    def receive(self) -> bytes:
        wire = super().receive()
        if wire:
            self._incoming.write(wire)
        elif self.ended:
            self._incoming.write_eof()
        if self._watch and (wire or self.ended):
            self._watch(False, wire)
        octets = []
        try:
            while piece := self._tls.read(RECEIVE):  # the handshake is part of it
                octets.append(piece)
            self.ended = True  # close_notify (RFC 8446 §6.1)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.ended = True
        finally:
            self.flush()  # of the handshake, and the alert that says what went wrong
        return b"".join(octets)

    def send(self, octets: bytes | memoryview) -> int:
        self.flush()
        if self._unsent:
            return 0
        try:
            taken = self._tls.write(octets)
        except ssl.SSLWantReadError:  # the handshake is not over
            taken = 0
        self.flush()
        return taken

    def flush(self) -> None:
        while wire := self._unsent or self._outgoing.read():
            sent = super().send(wire)
            if sent and self._watch:
                self._watch(True, wire[:sent])
            self._unsent = wire[sent:]
            if not sent:
                return
        self.stuck = False
        if self._finishing:
            self._finishing = False
            if self._watch:
                self._watch(True, b"")
            super().finish()

    def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it would like to wait for the other side's close_notify
            self._tls.unwrap()
        self._finishing = True
        self.flush()


def context_towards_clients(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS for a tap that is the server to its clients: PEM files. ALPN h2, as gRPC demands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def context_towards_server(authority: Path | None = None) -> ssl.SSLContext:
    """TLS for a tap that is the client to the server, whose certificate `authority` signed (else the system's)."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    return context
