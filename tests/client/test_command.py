"""The client's command line. What a conversation looks like is in test_scripted.py and test_terminal.py."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from client.command import _server, main
from kit.certificates import lab_certificate
from server.threaded import serve

ROOT = Path(__file__).resolve().parent.parent.parent


def started(
    *arguments: str, way: str = "module", python: str = sys.executable, cwd: Path = ROOT
) -> tuple[int, str, str]:
    start = ["-m", "client"] if way == "module" else [way]
    done = subprocess.run(
        [python, *start, *arguments], cwd=cwd, input="Hola\n", capture_output=True, encoding="utf-8", timeout=30
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("way", ["module", "client/client.py"])
@pytest.mark.parametrize("room", ["general", "#general"])
def test_it_starts_as_a_module_and_as_a_file(way: str, room: str) -> None:
    with serve() as server:
        status, output, errors = started("Juan", room, "--server", server.address, way=way)
        assert (status, errors) == (0, "")
        assert output.endswith("  Juan  Hola\n")
        assert [message.room for message in server.service.rooms.history("general")] == ["general"]


def test_the_file_starts_from_anywhere_and_with_a_python_that_has_no_packages(tmp_path: Path) -> None:
    """That one goes on in .venv; where there is none, the test's own Python has the packages."""
    bare = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    python = bare if bare and (ROOT / ".venv").is_dir() else sys.executable
    with serve() as server:
        file = str(ROOT / "client" / "client.py")
        status, output, _errors = started(
            "Juan", "x", "--server", server.address, way=file, python=python, cwd=tmp_path
        )
    assert (status, output[-12:]) == (0, "  Juan  Hola\n"[-12:])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: USER, ROOM"),
        (["Juan"], "the following arguments are required: ROOM"),
        (["Juan", "general", "extra"], "unrecognized arguments: extra"),
        (["", "general"], "The user's name is empty; it takes 1 to 32 characters"),
        (["x" * 33, "general"], "The user's name has 33 characters; at most 32 are allowed"),
        (["Ju\x1ban", "general"], "The user's name holds a control character; none are allowed"),
        (["Juan", "#"], "The room's name is empty; it takes 1 to 32 characters"),
        (["Juan", "a\nb"], "The room's name holds a control character; none are allowed"),
        (["Juan", "general", "--server", "host:99999"], "a port is a number from 0 to 65535, and this is 99999"),
        (["Juan", "general", "--server", ":50051"], "HOST:PORT is asked for"),
        (["Juan", "general", "--server", "::1"], "HOST:PORT is asked for, with [ ] around an IPv6 address"),
        (["Juan", "general", "--server"], "expected one argument"),
        (["Juan", "general", "--lang", "fr"], "invalid choice: 'fr'"),
        (["Juan", "general", "--ca", ""], "a name is asked for, and this is empty"),
        (["Juan", "general", "--truth", "-"], "a file is written, not standard output"),
        (["Juan", "general", "--room-secret", "a\tb"], "The room secret holds a control character; none are allowed"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments: list[str], problem: str) -> None:
    status, output, errors = started(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("python3 -m client: ")
    assert problem in errors
    assert errors.endswith(" (--help lists what there is)\n")
    assert errors.count("\n") == 1


def test_accents_that_stand_apart_from_their_letters_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    def run(_server: str, user: str, room: str, _source: None, **_how: object) -> int:
        entered.extend((user, room))
        return 0

    monkeypatch.setattr("client.scripted.run", run)
    monkeypatch.setattr("sys.stdin", None)
    assert main(["Mari\u0301a", "sesio\u0301n"]) == 0
    assert entered == ["María", "sesión"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "There is no file {file}.\n"),
        ("a certificate", "{file} is not PEM: there is no line in it that begins with -----BEGIN.\n"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "There is no certificate in {file}.\n"),
    ],
)
def test_nobody_to_trust_is_one_line_and_status_1(tmp_path: Path, content: str | None, problem: str) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    assert started("Juan", "general", "--ca", str(file)) == (1, "", problem.format(file=file))


def test_the_room_secret_comes_from_the_command_line_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(room_secret="ábrete") as server:
        arguments = ("Juan", "general", "--server", server.address)
        status, _output, errors = started(*arguments)
        assert status == 1
        assert "This server lets nobody in without the room secret (--room-secret)." in errors
        assert started(*arguments, "--room-secret", "ábrete")[0] == 0
        monkeypatch.setenv("MINICHAT_ROOM_SECRET", "ábrete")
        assert started(*arguments)[0] == 0


def test_over_tls_by_its_authority_s_file(tmp_path: Path) -> None:
    files = lab_certificate(tmp_path, ["127.0.0.1"])
    octets = files.server.read_bytes()
    with serve(credentials=grpc.ssl_server_credentials([(octets, octets)])) as server:
        status, output, errors = started("Juan", "general", "--server", server.address, "--ca", str(files.authority))
    assert (status, errors, output[-12:]) == (0, "", "  Juan  Hola\n"[-12:])


def test_help_in_spanish() -> None:
    status, output, errors = started("--help", "--lang", "es")
    assert (status, errors) == (0, "")
    assert output.startswith("uso: python3 -m client [-h]")
    assert "dónde está el servidor (si no se dice: 127.0.0.1:50051)" in " ".join(output.split())


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("localhost:1", "localhost:1"),
        ("192.0.2.1", "192.0.2.1:50051"),
        ("[::1]:7", "[::1]:7"),
        ("[::1]", "[::1]:50051"),
    ],
)
def test_a_server_is_a_host_and_perhaps_a_port(text: str, server: str) -> None:
    assert _server(text) == server


@pytest.mark.parametrize("text", ["", ":1", "::1", "a:b", "a:", "a:-1", "::1:50051"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _server(text)
