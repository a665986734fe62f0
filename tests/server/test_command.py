"""The server as people start it: real processes, signals, and what they print."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import IO

import grpc
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from kit.certificates import lab_certificate, own_names
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
        assert self.stderr is not None
        output, errors = self.output.read(), self.stderr.read()  # with what lines that were read had behind them
        return self.wait(DEADLINE), [line.partition("] ")[2] for line in output.splitlines()], errors

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
        (["--chats", "0"], "a number from 1 on, or none; this is 0"),
        (["--chats", "33"], "a number from 1 to 32, which is all workers, or none; this is 33"),
        (["--chats", "many"], "or none; this is many"),
        (["--keepalive", "0"], "seconds from 1 to 86400; this is 0"),
        (["--keepalive", "nan"], "seconds from 1 to 86400; this is nan"),
        (["--keepalive", "soon"], "seconds from 1 to 86400; this is soon"),
        (["--sessions", "maybe"], "invalid choice: 'maybe'"),
        (["--model", "forks"], "invalid choice: 'forks'"),
        (["--model", "asyncio", "--chats", "10001"], "--chats takes a number from 1 to 10000 or none; this is 10001"),
        (["--members", "0"], "a number from 1 on; this is 0"),
        (["--rooms", "x"], "a number from 1 on; this is x"),
        (["--connections", "-1"], "a number from 1 on; this is -1"),
        (["--rate", "0"], "a number above 0, or none; this is 0"),
        (["--idle", "0.5"], "seconds from 1 to 86400; this is 0.5"),
        (["--grace", "-1"], "seconds from 1 to 86400; this is -1"),
        (["--log-format", "xml"], "invalid choice: 'xml'"),
        (["--tls", "--tls-cert", "x"], "--tls makes a certificate and --tls-cert names one"),
        (["--tls-key", "x"], "--tls-key is the key of a certificate, which --tls-cert names"),
        (["--room-secret", "a", "--sessions", "off"], "--sessions off and a room secret exclude each other"),
        (["--room-secret", "a\tb"], "The room secret holds a control character; none are allowed"),
        (["--room-secret", "x" * 129], "The room secret has 129 characters; at most 128 are allowed"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["general"], "unrecognized arguments: general"),
        (["--host", ""], "a name is asked for, and this is empty"),
        (["--tls", ""], "a name is asked for, and this is empty"),
        (["--tls-cert", ""], "a name is asked for, and this is empty"),
        (["--truth", ""], "a name is asked for, and this is empty"),
        (["--truth", "-"], "a file is written, not standard output"),
        (["--host", "0.0.0.0", "--sessions", "off"], "--sessions off is for this machine only, and 0.0.0.0"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(options: list[str], problem: str) -> None:
    status, line = refused(*options)
    assert status == 2
    assert line.startswith("python3 -m server: ")
    assert problem in line
    assert line.endswith(" (--help lists what there is)\n")
    assert line.count("\n") == 1


def test_a_bad_option_in_spanish() -> None:
    assert refused("--port", "x", lang="es") == (
        2,
        "python3 -m server: argumento --port: un puerto es un número de 0 a 65535, y esto es x "
        "(--help muestra lo que hay)\n",
    )


@pytest.mark.parametrize(
    ("options", "warning"),
    [([], "read everything that is said\n"), (["--room-secret", "x"], "read everything, the room secret too\n")],
)
def test_beyond_loopback_sessions_are_required_and_the_lack_of_encryption_is_said(
    options: list[str], warning: str
) -> None:
    with Server("--host", "0.0.0.0", *options) as server:
        port = server.address().rpartition(":")[2]
        said = server.output.readline()
        assert "There is no encryption" in said
        assert said.endswith(warning)
        with Stub(f"127.0.0.1:{port}") as stub:
            assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
        server.end()


def test_sessions_required_on_loopback() -> None:
    with Server("--sessions", "required") as server, Stub(server.address()) as stub:
        assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
        server.end()


@pytest.mark.parametrize("model", ["threads", "asyncio"])
def test_each_model_serves_and_stops(model: str) -> None:
    with Server("--model", model) as server, Peer(server.address()) as juan:
        juan.say("Hola")
        assert juan.texts() == ["Hola"]
        status, _log, errors = server.end()
        assert juan.status() == (grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
    assert (status, errors) == (0, "")


class TestRoomSecret:
    def test_it_comes_from_the_command_line_or_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINICHAT_ROOM_SECRET", "from outside")
        for options, secret in (([], "from outside"), (["--room-secret", "given"], "given")):
            with Server(*options) as server, Stub(server.address()) as stub:
                assert failure(partial(stub.join, secret="guessed"))[0] is grpc.StatusCode.PERMISSION_DENIED
                assert stub.join(secret=secret).session_token
                assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
                server.end()


class TestTls:
    def test_a_certificate_made_on_the_spot_and_the_command_that_trusts_it(self, tmp_path: Path) -> None:
        with Server("--tls", str(tmp_path)) as server:
            address = server.address()
            said = server.output.readline()
            found = re.search(r"-m (client) USER ROOM (--server .*)", said)
            assert found, said
            command = [sys.executable, "-m", found[1], "Juan", "general", *shlex.split(found[2])]
            assert command[5:] == ["--server", address, "--ca", str(tmp_path / "ca.pem")]
            done = subprocess.run(command, cwd=ROOT, input="Hola\n", capture_output=True, encoding="utf-8", timeout=30)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.endswith("  Juan  Hola\n")
            server.end()

    def test_beyond_loopback_it_takes_the_warning_away_and_says_what_others_need(self, tmp_path: Path) -> None:
        with Server("--tls", str(tmp_path), "--host", "0.0.0.0") as server:
            server.address()
            _status, log, _errors = server.end()
        assert not any("no encryption" in line for line in log)
        assert log[0].startswith("[SERVER] Encrypted; clients trust this server with --ca: python3 -m client USER ROOM")
        assert log[1] == f"[SERVER] On other machines they need a copy of {tmp_path / 'ca.pem'}, which is no secret"

    @pytest.mark.parametrize("one_file", [True, False])
    def test_a_certificate_that_is_given(self, tmp_path: Path, one_file: bool) -> None:
        files = lab_certificate(tmp_path, own_names())
        options = ["--tls-cert", str(files.server), *([] if one_file else ["--tls-key", str(files.server)])]
        trusted = grpc.ssl_channel_credentials(files.authority.read_bytes())
        with Server(*options) as server, Stub(server.address(), credentials=trusted) as stub:
            assert stub.join().session_token
            _status, log, _errors = server.end()
        assert log[0] == f"[SERVER] Encrypted, with the certificate in {files.server}"

    def test_files_that_cannot_be_used_are_one_line_and_status_1(self, tmp_path: Path) -> None:
        mine, other = (str(lab_certificate(tmp_path / name, own_names()).server) for name in ("mine", "other"))
        sentence = f"The private key in {other} is not that of the certificate in {mine}.\n"
        assert refused("--tls-cert", mine, "--tls-key", other) == (1, sentence)
        missing = str(tmp_path / "missing.pem")
        assert refused("--tls-cert", missing) == (1, f"There is no file {missing}.\n")

    def test_a_folder_that_cannot_be_written_is_one_line_and_status_3(self) -> None:
        status, line = refused("--tls", "/proc/nowhere")
        assert status == 3
        assert re.fullmatch(r"The certificates cannot be kept in /proc/nowhere: [^\n]+\n", line)


class TestStopping:
    @pytest.mark.parametrize("model", ["threads", "asyncio"])
    def test_what_is_under_way_comes_to_its_end(self, model: str) -> None:
        with Server("--model", model, "--grace", "60") as server, _Asking(server.address()) as asking:
            assert asking.answered()
            server.send_signal(signal.SIGTERM)
            assert server.output.readline().endswith("Stopping\n")
            assert asking.answered()
            asking.close()
            assert server.wait(DEADLINE) == 0
            assert server.output.read().endswith("Stopped\n")

    @pytest.mark.parametrize("model", ["threads", "asyncio"])
    def test_the_second_signal_waits_for_nothing(self, model: str) -> None:
        with Server("--model", model, "--grace", "60") as server, _Asking(server.address()) as asking:
            assert asking.answered()
            server.send_signal(signal.SIGINT)
            assert server.output.readline().endswith("Stopping\n")
            assert server.poll() is None
            server.send_signal(signal.SIGINT)
            assert server.wait(DEADLINE) == 0


class _Asking:
    """A reflection stream, which stays open as long as one may ask more."""

    def __init__(self, address: str) -> None:
        self._stub = Stub(address)
        self._questions: queue.Queue[ServerReflectionRequest | None] = queue.Queue()
        ask = self._stub.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )
        self._answers = ask(iter(self._questions.get, None), timeout=DEADLINE)

    def answered(self) -> bool:
        self._questions.put(ServerReflectionRequest(list_services="*"))
        return bool(next(self._answers).list_services_response.service)

    def close(self) -> None:
        self._questions.put(None)
        assert list(self._answers) == []

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *exception: object) -> None:
        self._questions.put(None)
        self._answers.cancel()
        self._stub.close()


def test_logs_for_programs() -> None:
    with Server("--log-format", "json", "--lang", "es") as server:
        started = json.loads(server.output.readline())
        assert started["event"] == "listening"
        with Peer(started["address"]).inside() as juan:
            juan.say("¡Adiós!")
            juan.hear()
            server.send_signal(signal.SIGTERM)
            entries = [json.loads(line) for line in server.output]
    assert [entry["event"] for entry in entries] == ["joined", "posted", "stopping", "left", "stopped"]
    assert entries[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert (entries[1]["text"], entries[1]["sequence"], entries[1]["reached"]) == ("¡Adiós!", 1, 1)


@pytest.mark.parametrize("model", ["threads", "asyncio"])
def test_when_nobody_reads_its_log_it_serves_on_and_stops(model: str) -> None:
    """More is logged than a pipe holds."""
    with Server("--model", model) as server, Peer(server.address()).inside() as juan:
        for _number in range(50):
            juan.say("x" * 4_000)
        assert len(juan.hear(50)) == 50
        server.send_signal(signal.SIGTERM)
        assert juan.status()[0] is grpc.StatusCode.UNAVAILABLE
        assert server.wait(DEADLINE) == 0


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
