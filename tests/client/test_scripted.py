"""The client without a terminal: real processes, with files and pipes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.scripted import READ_SIZE, read_lines
from server.log import Log
from server.threaded import RunningServer, serve
from tests.client.wires import DEADLINE
from tests.server.peers import Book, Peer, Stub

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def server(book: Book) -> Iterator[RunningServer]:
    with serve(log=Log(book)) as running:
        yield running


def command(address: str, user: str = "Juan", *options: str) -> list[str]:
    return [sys.executable, "-m", "client", user, "general", "--server", address, *options]


def said(output: str) -> list[str]:
    """Without the times."""
    return [line.partition("  ")[2] for line in output.splitlines()]


class Client(subprocess.Popen[str]):
    """With a standard input that stays open. Killed at the end."""

    def __init__(self, address: str, *options: str) -> None:
        super().__init__(
            command(address, "Juan", *options), cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, encoding="utf-8"
        )

    def write(self, text: str) -> None:
        assert self.stdin is not None
        self.stdin.write(text)
        self.stdin.flush()

    def line(self, stream: IO[str] | None) -> str:
        assert stream is not None
        return stream.readline()

    def __exit__(self, *exception: object) -> None:
        self.kill()
        super().__exit__(None, None, None)


def run(address: str, text: str, *options: str) -> tuple[int, list[str], str]:
    """Status, what was heard, standard error."""
    done = subprocess.run(
        command(address, "Juan", *options),
        cwd=ROOT,
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * DEADLINE,
    )
    return done.returncode, said(done.stdout), done.stderr


class TestSending:
    def test_each_line_is_sent_and_it_leaves_when_all_came_back(self, server: RunningServer, book: Book) -> None:
        assert run(server.address, "Hola\n¿Qué tal?\nlast, without an end") == (
            0,
            ["Juan  Hola", "Juan  ¿Qué tal?", "Juan  last, without an end"],
            "",
        )
        book.wait_for("✗ Juan left #general")

    def test_without_input_it_shows_the_history_and_leaves(self, server: RunningServer) -> None:
        with Peer(server.address, "María", text="before") as maria:
            maria.hear()
            assert run(server.address, "") == (0, ["María  before"], "")

    def test_many_lines_at_once(self, server: RunningServer) -> None:
        """More than its own bound, the server's pace and the history."""
        lines = [f"line {number}" for number in range(3_000)]
        status, heard, errors = run(server.address, "\n".join(lines))
        assert (status, errors) == (0, "")
        assert heard == [f"Juan  {line}" for line in lines]

    def test_what_others_say_meanwhile_is_shown(self, server: RunningServer) -> None:
        with Client(server.address) as client, Peer(server.address, "María").inside() as maria:
            client.write("Hola\n")
            assert said(client.line(client.stdout)) == ["Juan  Hola"]
            maria.say("¡Hola, Juan!")
            assert said(client.line(client.stdout)) == ["María  ¡Hola, Juan!"]
            output, errors = client.communicate(timeout=DEADLINE)
            assert (client.returncode, output, errors) == (0, "", "")

    def test_empty_lines_say_nothing_and_tabs_become_spaces(self, server: RunningServer) -> None:
        assert run(server.address, "\n\n\tindented\r\n\n")[1] == ["Juan      indented"]

    def test_commands_are_lines_like_any_other(self, server: RunningServer) -> None:
        assert run(server.address, "/who\n/quit\n")[1] == ["Juan  /who", "Juan  /quit"]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("\x1b[31mred", "The text holds a control character"),
            ("x" * 4_001, "The text has 4001 characters; at most 4000 are allowed."),
            ("x" * 1_000_000, "at most 4000 are allowed."),
        ],
    )
    def test_a_line_that_cannot_be_sent_ends_it_after_those_before(
        self, server: RunningServer, line: str, problem: str
    ) -> None:
        status, heard, errors = run(server.address, f"good\n{line}\nnever sent\n")
        assert (status, heard) == (1, ["Juan  good"])
        assert errors.startswith("✗ Line 2: ")
        assert problem in errors
        assert errors.count("\n") == 1

    def test_octets_that_are_no_text_are_replaced(self, server: RunningServer) -> None:
        done = subprocess.run(command(server.address), cwd=ROOT, input=b"caf\xe9\n", capture_output=True)
        assert said(done.stdout.decode()) == ["Juan  caf\N{REPLACEMENT CHARACTER}"]

    def test_with_standard_input_closed_there_is_nothing_to_say(self, server: RunningServer) -> None:
        shell = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *command(server.address)], cwd=ROOT, capture_output=True, text=True
        )
        assert (shell.returncode, shell.stdout, shell.stderr) == (0, "", "")

    def test_when_nobody_reads_its_output_the_lines_are_sent_all_the_same(self, server: RunningServer) -> None:
        with Client(server.address) as client, Peer(server.address, "María").inside() as maria:
            assert client.stdout is not None
            client.stdout.close()
            client.write("a\nb\nc\n")
            assert maria.texts(3) == ["a", "b", "c"]
            assert client.stdin is not None
            client.stdin.close()
            assert client.wait(DEADLINE) == 0
            assert client.line(client.stderr) == ""


class TestRefusals:
    def test_refused_it_says_why_and_leaves_with_status_1_at_once(self) -> None:
        with serve(chats=1) as server, Peer(server.address, "María").inside(), Client(server.address) as client:
            assert client.wait(DEADLINE) == 1  # with its standard input still open
            assert client.line(client.stdout) == ""
            assert client.line(client.stderr) == (
                "✗ The one place for chatting is taken; try again when somebody has left.\n"
            )
            assert client.line(client.stderr) == ""

    def test_where_its_name_is_taken_it_says_which_one_is_free(self, server: RunningServer) -> None:
        with Peer(server.address, "Juan").inside():
            sentence = "✗ Juan is taken in #general; Juan2 is free.\n"
            assert run(server.address, "Hola\n") == (1, [], sentence + "✗ 1 message was not confirmed by the server.\n")

    def test_where_there_is_no_server_it_says_so_at_once_and_gives_up_after_ten_seconds(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            address = f"127.0.0.1:{reserved.getsockname()[1]}"
        assert run(address, "Hola\n") == (
            1,
            [],
            f"✗ There is no server at {address}. Trying again …\n"
            f"✗ There is no server at {address}.\n"
            "✗ 1 message was not confirmed by the server.\n",
        )

    def test_without_anything_to_say_a_server_that_is_not_there_is_a_failure_too(self) -> None:
        assert run("no-such-host.invalid:1", "", "--lang", "es") == (
            1,
            [],
            "✗ No hay ninguna máquina con ese nombre: no-such-host.invalid:1. Intentándolo de nuevo …\n"
            "✗ No hay ninguna máquina con ese nombre: no-such-host.invalid:1.\n",
        )


class TestALostServer:
    def test_one_that_returns_in_time_gets_everything_once(self) -> None:
        server = serve()
        with Client(server.address) as client:
            client.write("before\n")
            assert said(client.line(client.stdout)) == ["Juan  before"]
            server.stop()
            lost = f"✗ The connection to {server.address} is lost (The server is stopping). Trying again …\n"
            assert client.line(client.stderr) == lost
            client.write("meanwhile\n")
            with serve(port=server.port) as again, Stub(again.address) as stub:
                output, errors = client.communicate(timeout=DEADLINE)
                assert (client.returncode, said(output)) == (0, ["Juan  meanwhile"])
                assert errors.splitlines() == [
                    "… the server began anew meanwhile; what was said before is forgotten there",
                    "✓ back in the room",
                ]
                assert [message.text for message in stub.history()] == ["meanwhile"]

    def test_ctrl_c_ends_it_wherever_it_is(self, server: RunningServer, book: Book) -> None:
        with Client(server.address) as client:
            book.wait_for("✓ Juan joined")
            client.send_signal(signal.SIGINT)
            assert client.wait(DEADLINE) == 130
            assert client.line(client.stderr) == ""
        book.wait_for("✗ Juan left #general", seconds=2)


class TestReadLines:
    @staticmethod
    def lines(pieces: list[bytes]) -> list[str]:
        read_end, write_end = os.pipe()

        def write() -> None:
            with open(write_end, "wb", buffering=0) as pipe:
                for piece in pieces:
                    pipe.write(piece)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            return list(read_lines(read_end))
        finally:
            thread.join()
            os.close(read_end)

    @settings(deadline=None)  # threads on a busy machine
    @given(st.lists(st.text(st.characters(exclude_characters="\r\n\ufeff", codec="utf-8"))), st.booleans())
    def test_lines_come_as_they_were_written_octet_by_octet(self, lines: list[str], windows: bool) -> None:
        octets = "".join(line + ("\r\n" if windows else "\n") for line in lines).encode()
        assert self.lines([octets]) == lines
        assert self.lines([octets[at : at + 1] for at in range(len(octets))]) == lines

    def test_the_last_line_needs_no_end(self) -> None:
        assert self.lines([b"a\nb"]) == ["a", "b"]

    def test_the_mark_that_windows_puts_first_is_none_of_the_text(self) -> None:
        assert self.lines([b"\xef\xbb\xbfHola\n"]) == ["Hola"]

    def test_what_never_ends_is_not_collected_for_ever(self) -> None:
        pieces = self.lines([b"x" * 1_000] * 1_000)
        assert "".join(pieces) == "x" * 1_000_000
        assert all(4_000 < len(piece) <= 2 * READ_SIZE for piece in pieces[:-1])
