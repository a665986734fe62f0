"""Conversations over real sockets of this machine, to be sniffed."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from tests.capture.engine_factory import UP, Chatter

PATIENCE = 20.0
"""Seconds after which what should have come is taken for lost."""


class Line:
    """A TCP connection to a free port, in which both ends are ours and nothing is under way when a call returns."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port: int = self.listener.getsockname()[1]
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_error: object) -> None:
        self.hang_up()
        self.listener.close()

    def dial(self) -> Line:
        client = socket.create_connection(self.listener.getsockname()[:2], PATIENCE)
        server, _address = self.listener.accept()
        self._ends = [client, server]
        for end in self._ends:
            end.settimeout(PATIENCE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def send(self, direction: int, octets: bytes) -> Line:
        """Returns when the other end has read them."""
        sender, receiver = self._ends if direction == UP else reversed(self._ends)
        for start in range(0, len(octets), 1 << 16):
            part = octets[start : start + (1 << 16)]
            sender.sendall(part)
            left = len(part)
            while left:
                left -= len(receiver.recv(left))
        return self

    def play(self, pieces: Iterable[tuple[int, bytes]]) -> Line:
        for direction, octets in pieces:
            self.send(direction, octets)
        return self

    def chat(self, calls: int = 3, seed: int = 1) -> Line:
        """A whole HTTP/2 connection."""
        return self.dial().play(Chatter(seed).pieces(calls)).hang_up()

    def hang_up(self) -> Line:
        for end in self._ends:
            end.close()
        self._ends = []
        return self
