"""The server as people start it: real processes, signals, and what they print."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import IO

import grpc
import pytest

from tests.server.peers import DEADLINE, Peer, Stub, failure

ROOT = Path(__file__).resolve().parent.parent.parent
WAYS = {
    "module": ["-m", "server"],
    "file": ["server/server.py"],
}


class Server(subprocess.Popen[str]):
    """A server process on a free port. Killed at the end if it still runs."""

    def __init__(self, *options: str, way: str = "module", python: str = sys.executable, cwd: Path = ROOT) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        environment.pop("PYTHONPATH", None)
        arguments = WAYS.get(way, [way])
        super().__init__(
            [python, *arguments, "--port", "0", *options],
            cwd=cwd,
            env=environment,
            stdout=PIPE,
            stderr=PIPE,
            encoding="utf-8",
        )

    @property
    def output(self) -> IO[str]:
        assert self.stdout is not None
        return self.stdout

    def address(self) -> str:
        """From its first line, which comes when it listens."""
        line = self.output.readline()
        found = re.search(r"\S+:\d+(?=;)", line)
        assert found, line or (self.stderr and self.stderr.read())
        return found[0]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[str], str]:
        """Status, the rest of its log without times, and its standard error."""
        self.send_signal(number)
        output, errors = self.communicate(timeout=DEADLINE)
        return self.returncode, [line.partition("] ")[2] for line in output.splitlines()], errors

    def __exit__(self, *exception: object) -> None:
        self.kill()
        super().__exit__(None, None, None)


def refused(*options: str, lang: str = "en") -> tuple[int, str]:
    """Status and standard error of a server that must not start."""
    command = [sys.executable, "-m", "server", "--lang", lang, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=DEADLINE)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_serves_until_it_is_told_to_stop_and_ends_calls_cleanly(way: str, number: int) -> None:
    with Server(way=way) as server, Peer(server.address()) as juan:
        juan.say("Hola")
        assert juan.texts() == ["Hola"]
        status, log, errors = server.end(number)
        assert juan.status() == (grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
    assert (status, errors) == (0, "")
    assert log == [
        "[SERVER] ✓ Juan joined #general",
        "[SERVER] ← RECEIVED from Juan@general: Hola",
        "[SERVER] → BROADCASTING to 1 client(s) in #general: Hola",
        "[SERVER] Stopping",
        "[SERVER] ✗ Juan left #general: The server is stopping.",
        "[SERVER] Stopped",
    ]


def test_the_file_starts_from_anywhere_and_with_a_python_that_has_no_packages(tmp_path: Path) -> None:
    """That one goes on in .venv; where there is none, the test's own Python has the packages."""
    bare = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    python = bare if bare and (ROOT / ".venv").is_dir() else sys.executable
    with Server(way=str(ROOT / "server" / "server.py"), python=python, cwd=tmp_path) as server:
        with Stub(server.address()) as stub:
            assert stub.join().session_token
        assert server.end()[0] == 0


def test_in_spanish() -> None:
    with Server("--lang", "es") as server, Peer(server.address()).inside() as juan:
        juan.say("Hola")
        juan.hear()
        _status, log, _errors = server.end()
    assert log[:3] == [
        "[SERVIDOR] ✓ Juan se unió a #general",
        "[SERVIDOR] ← RECIBIDO de Juan@general: Hola",
        "[SERVIDOR] → RETRANSMITIENDO a 1 cliente(s) en #general: Hola",
    ]


def test_a_port_in_use_is_one_line_and_status_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = f"Port {port} of 127.0.0.1 is in use. Choose another one with --port; --port 0 finds a free one.\n"
        assert refused("--port", str(port)) == (3, sentence)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--port", "65536"], "a port is a number from 0 to 65535, and this is 65536"),
        (["--port", "-1"], "a port is a number from 0 to 65535, and this is -1"),
        (["--port", "http"], "a port is a number from 0 to 65535, and this is http"),
        (["--port"], "expected one argument"),
        (["--chats", "0"], "a number from 1 to 32, which is all workers, or none; this is 0"),
        (["--chats", "33"], "a number from 1 to 32, which is all workers, or none; this is 33"),
        (["--chats", "many"], "or none; this is many"),
        (["--keepalive", "0"], "seconds from 1 to 86400; this is 0"),
        (["--keepalive", "nan"], "seconds from 1 to 86400; this is nan"),
        (["--keepalive", "soon"], "seconds from 1 to 86400; this is soon"),
        (["--sessions", "maybe"], "invalid choice: 'maybe'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["general"], "unrecognized arguments: general"),
        (["--host", "0.0.0.0", "--sessions", "off"], "--sessions off is for this machine only, and 0.0.0.0"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(options: list[str], problem: str) -> None:
    status, line = refused(*options)
    assert status == 2
    assert line.startswith("python -m server: ")
    assert problem in line
    assert line.endswith(" (--help lists what there is)\n")
    assert line.count("\n") == 1


def test_a_bad_option_in_spanish() -> None:
    assert refused("--port", "x", lang="es") == (
        2,
        "python -m server: argumento --port: un puerto es un número de 0 a 65535, y esto es x "
        "(--help muestra lo que hay)\n",
    )


def test_beyond_loopback_sessions_are_required_and_the_lack_of_encryption_is_said() -> None:
    with Server("--host", "0.0.0.0") as server:
        port = server.address().rpartition(":")[2]
        assert "There is no encryption" in server.output.readline()
        with Stub(f"127.0.0.1:{port}") as stub:
            assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
        server.end()


def test_sessions_required_on_loopback() -> None:
    with Server("--sessions", "required") as server, Stub(server.address()) as stub:
        assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
        server.end()


def test_chats_limits_who_is_admitted() -> None:
    with Server("--chats", "1") as server:
        address = server.address()
        with Peer(address).inside(), Peer(address, "María") as maria:
            assert maria.status()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.end()


def test_when_nobody_reads_its_log_any_more_it_serves_on() -> None:
    with Server() as server, Peer(server.address()).inside() as juan:
        server.output.close()
        for text in ("a", "b", "c"):
            juan.say(text)
        assert juan.texts(3) == ["a", "b", "c"]
        server.send_signal(signal.SIGTERM)
        assert server.stderr is not None
        assert server.stderr.read() == ""
        assert server.wait(DEADLINE) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full for a disk that is full")
def test_when_its_log_cannot_be_written_it_says_so_once_and_serves_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "server", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=full, stderr=PIPE, encoding="utf-8")
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line == "The output cannot be written and is lost from here on: No space left on device\n"
            with Peer(f"127.0.0.1:{port}").inside() as juan:
                juan.say("Hola")
                assert juan.texts() == ["Hola"]
            process.terminate()
            assert process.stderr.read() == ""
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
