"""The client in a terminal: a real process in a pseudo-terminal, and what stands on its screen."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.threaded import RunningServer, serve
from tests.server.peers import Peer

if sys.platform == "win32":
    pytest.skip("pseudo-terminals as Unix has them", allow_module_level=True)

from client.terminal import folded
from tests.client.screen import Screen, Terminal

PROMPT = "Juan · #general ▸"


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve() as running:
        yield running


@pytest.fixture
def juan(server: RunningServer) -> Iterator[Terminal]:
    with Terminal("Juan", "general", "--server", server.address) as terminal:
        terminal.wait_for_line("/help lists the commands.")
        terminal.wait_for_prompt(PROMPT)
        yield terminal


def said(lines: list[str]) -> list[str]:
    """The messages on the screen, without their times."""
    return [line[10:] for line in lines if re.match(r"\d\d:\d\d:\d\d  ", line)]


class TestConversation:
    def test_on_entering_it_shows_the_history_and_who_is_there(self, server: RunningServer) -> None:
        with Peer(server.address, "María", text="before") as maria:
            maria.hear()
            with Terminal("Juan", "general", "--server", server.address) as juan:
                lines = juan.wait_for_prompt(PROMPT)
                juan.wait_for_line("Here are: María.")
                assert said(lines) in ([], ["María  before"])  # the prompt may be there first
                juan.wait_for_line("María  before")

    def test_what_is_typed_appears_once_when_it_comes_back(self, juan: Terminal) -> None:
        juan.type("¡Hola!\r")
        juan.wait_for_line("Juan  ¡Hola!")
        lines = juan.wait_for_prompt(PROMPT)
        assert sum("¡Hola!" in line for line in lines) == 1

    def test_an_incoming_line_does_not_tear_the_line_being_typed(self, juan: Terminal, server: RunningServer) -> None:
        with Peer(server.address, "María").inside() as maria:
            juan.type("half a sent")
            juan.wait_for_prompt(f"{PROMPT} half a sent")
            maria.say("meanwhile")
            juan.wait_for_line("María  meanwhile")
            juan.wait_for_prompt(f"{PROMPT} half a sent")
            juan.type("ence\r")
            assert maria.texts(2) == ["meanwhile", "half a sentence"]
            juan.wait_for_line("Juan  half a sentence")
            assert said(juan.wait_for_prompt(PROMPT)) == ["María  meanwhile", "Juan  half a sentence"]

    def test_nor_does_a_flood_and_nothing_of_it_is_lost_while_lines_are_entered(
        self, juan: Terminal, server: RunningServer
    ) -> None:
        with Peer(server.address, "María").inside() as maria:
            for number in range(60):
                for part in range(5):
                    maria.say(f"flood {number}.{part}")
                juan.type(f"line {number}\r")
                (message,) = [each for each in maria.hear(6) if each.user == "Juan"]
                assert message.text == f"line {number}"
            juan.type("unfinished")
            expected = [f"{each.user}  {each.text}" for each in server.service.rooms.history("general")]
            juan.wait_for_line("flood 59.4")
            juan.wait_for_line("Juan  line 59")
            lines = juan.wait_for_prompt(f"{PROMPT} unfinished")
            assert said(lines) == expected
            assert (
                len(lines) == 1 + len(expected) + 1
            )  # who was there, what was said, what is being typed: nothing else

    def test_pasted_lines_are_said_one_by_one(self, juan: Terminal) -> None:
        juan.type("\x1b[200~first\n\tsecond\n\nthird\x1b[201~\r")
        juan.wait_for_line("Juan  third")
        assert said(juan.wait_for_prompt(PROMPT)) == ["Juan  first", "Juan      second", "Juan  third"]

    def test_a_long_line_wraps_and_comes_whole(self, juan: Terminal) -> None:
        text = "palabra " * 40 + "fin"
        juan.type(text + "\r")
        lines = juan.wait_for(lambda lines: "".join(lines).count("fin") == 1 and lines[-1] == PROMPT)
        assert text.replace(" ", "") in "".join(lines).replace(" ", "")
        words = [word for line in lines for word in line.split()]
        assert words.count("palabra") == 40, "none is torn by the terminal's edge"


class TestCommands:
    def test_who_asks_who_is_there_now(self, juan: Terminal, server: RunningServer) -> None:
        with Peer(server.address, "María").inside():
            juan.type("/who\r")
            juan.wait_for_line("· In #general now: Juan, María")

    def test_help_lists_the_commands(self, juan: Terminal) -> None:
        juan.type("/help\r")
        for command in ("· /who   who is in the room now", "· /help  this list", "· /quit  leave"):
            juan.wait_for_line(command)

    def test_one_that_there_is_not(self, juan: Terminal) -> None:
        juan.type("/dance now\r")
        juan.wait_for_line("✗ There is no command /dance; /help lists those that there are.")

    def test_two_slashes_say_one(self, juan: Terminal) -> None:
        juan.type("//who\r")
        juan.wait_for_line("Juan  /who")

    def test_what_cannot_be_said_is_told_and_one_stays(self, juan: Terminal) -> None:
        juan.type("\x1b[200~" + "x" * 4_001 + "\x1b[201~\r")
        juan.wait_for_line("✗ The text has 4001 characters; at most 4000 are allowed.")
        juan.type("   \r")
        juan.type("Hola\r")
        juan.wait_for_line("Juan  Hola")

    @pytest.mark.parametrize("keys", ["/quit\r", "/QUIT\r", "\x03", "\x04"], ids=["quit", "QUIT", "Ctrl-C", "Ctrl-D"])
    def test_leaving(self, juan: Terminal, server: RunningServer, keys: str) -> None:
        juan.type(keys)
        assert juan.status() == 0
        assert server.service.rooms.members("general") == []
        assert "Traceback" not in juan.raw


class TestTrouble:
    def test_a_server_that_is_not_there_yet(self) -> None:
        with serve() as server:
            pass
        with Terminal("Juan", "general", "--server", server.address) as juan:
            juan.wait_for_line("✗ There is no server")
            lost = f"✗ There is no server at {server.address}. Trying again …"
            assert juan.wait_for_prompt(PROMPT) == [lost, PROMPT]  # and no empty lines: a real terminal would scroll
            with serve(port=server.port):
                lines = juan.wait_for(lambda lines: len(lines) > 2 and lines[-1] == PROMPT)
                assert lines == [lost, "· Nobody else is here yet. /help lists the commands.", PROMPT]

    def test_a_server_that_goes_and_returns(self) -> None:
        server = serve()
        with Terminal("Juan", "general", "--server", server.address) as juan:
            juan.wait_for_line("/help lists")
            server.stop()
            juan.wait_for_line(f"✗ The connection to {server.address} is lost (The server is stopping).")
            juan.type("said meanwhile\r")
            juan.wait_for_line("· Kept until the server is back: said meanwhile")
            juan.type("/who\r")
            juan.wait_for_line(f"✗ There is no server at {server.address}.")
            with serve(port=server.port):
                juan.wait_for_line("✓ back in the room")
                juan.wait_for_line("Juan  said meanwhile")
                juan.type("/quit\r")
                assert juan.status() == 0

    def test_quitting_while_it_is_gone_says_what_was_not_confirmed(self) -> None:
        server = serve()
        with Terminal("Juan", "general", "--server", server.address, environment={"MINICHAT_LANG": "es"}) as juan:
            juan.wait_for_line("Aún no hay nadie más.")
            server.stop()
            juan.wait_for_line("✗ Se perdió la conexión con")
            juan.type("nunca\r")
            juan.wait_for_line("· Guardado hasta que vuelva el servidor: nunca")
            juan.type("/quit\r")
            assert juan.status() == 0
            juan.wait_for_line("✗ El servidor no confirmó 1 mensaje.")

    def test_refused_it_says_why_and_ends_though_somebody_is_typing(self) -> None:
        with (
            serve(chats=1) as server,
            Peer(server.address, "María").inside(),
            Terminal("Juan", "general", "--server", server.address) as juan,
        ):
            assert juan.status() == 1
            juan.wait_for_line("✗ The one place for chatting is taken; try again when somebody has left.")
            assert "Traceback" not in juan.raw


def test_with_its_output_in_a_pipe_it_writes_plain_lines(server: RunningServer, tmp_path: Path) -> None:
    with Terminal("Juan", "general", "--server", server.address, output=tmp_path / "said") as juan:
        juan.type("Hola\n\x04")
        assert juan.status() == 0
    assert said((tmp_path / "said").read_text(encoding="utf-8").split("\n")) == ["Juan  Hola"]


class TestColour:
    NAME = re.compile(r"\x1b\[[\d;]*\d+m")

    def test_names_are_coloured_in_a_terminal(self, juan: Terminal) -> None:
        juan.type("Hola\r")
        juan.wait_for_line("Juan  Hola")
        assert re.search(r"\x1b\[\d+;1mJuan\x1b\[0m  Hola", juan.raw)

    @pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
    def test_where_none_is_wanted_there_is_none(self, server: RunningServer, variable: str, value: str) -> None:
        with Terminal("Juan", "general", "--server", server.address, environment={variable: value}) as juan:
            juan.wait_for_line("/help lists")
            juan.type("Hola\r")
            juan.wait_for_line("Juan  Hola")
            assert not re.search(r"\x1b\[[\d;]*[1-9]\d*m", juan.raw)


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two\nthree"),
        ("one two three", 7, "one two\nthree"),
        ("one two three", 0, "one two three"),
        ("\x1b[31mone two\x1b[0m", 7, "\x1b[31mone two\x1b[0m"),
        ("\x1b[31mone two\x1b[0m", 6, "\x1b[31mone\ntwo\x1b[0m"),
        ("a " + "x" * 25 + " b c", 10, "a\n" + "x" * 25 + " b c"),
        ("日本 日本", 8, "日本\n日本"),
        ("", 5, ""),
    ],
)
def test_lines_end_between_words(line: str, columns: int, shown: str) -> None:
    assert folded(line, columns) == shown


def test_the_screen_arranges_text_as_a_terminal_does() -> None:
    screen = Screen(width=5)
    for piece in ("abcdefg\r\n", "ñ房x\x1b", "[1m", "\r\x1b[", "3C!", "\x1b[A\x1b[5DFG\x1b[K", "\n\n\rend"):
        screen.feed(piece)
    assert screen.text == ["abcde", "FG", "ñ房!", "end"]
    screen.feed("\x1b[A\r\x1b[J.")
    assert screen.text == ["abcde", "FG", "."]
