"""A real redis-server for a test: on a free port, with a folder of its own, and at hand to be killed or frozen."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

DEADLINE = 10.0
"""Seconds; far more than anything here takes, even on a busy machine."""


def _octets(command: tuple[str | int, ...]) -> bytes:
    """As a command travels (RESP)."""
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))


def _free_port() -> int:
    """One that the kernel gives to no client, so that nobody has taken it when the server starts again."""
    while True:
        port = random.randrange(20_000, 32_768)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RedisServer:
    def __init__(self, folder: Path, *, fsync: str = "everysec", password: str = "") -> None:
        """`fsync` is Redis's appendfsync."""
        self.folder = folder
        self.port = _free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", fsync]
        if password:
            self._command += ["--requirepass", password]
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE
        while b"PONG" not in self._try("PING"):
            assert time.monotonic() < deadline, "redis-server does not start"
            assert self._process.poll() is None, "redis-server has ended"
            time.sleep(0.01)

    def ask(self, *command: str) -> bytes:
        """One command; what comes back, as Redis writes it (RESP2), of short answers."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
            if self._password:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                connection.recv(100)
            connection.sendall(_octets(command))
            return connection.recv(65_536)

    def ask_at_once(self, *commands: tuple[str | int, ...]) -> None:
        """Nobody sees what is between the first and the last."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
            connection.sendall(b"".join(map(_octets, (("MULTI",), *commands, ("EXEC",)))))
            answer = b""
            while f"*{len(commands)}".encode() not in answer:
                octets = connection.recv(65_536)
                assert octets, answer
                answer += octets
            assert b"-ERR" not in answer, answer

    def _try(self, *command: str) -> bytes:
        try:
            return self.ask(*command)
        except OSError:
            return b""

    def kill(self) -> None:
        """kill -9. What it had written is on disk, or on its way there."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> Path:
        """The append-only file that is being written."""
        (file,) = (self.folder / "appendonlydir").glob("*.incr.aof")
        return file

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
