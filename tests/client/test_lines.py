"""What people see of a session's events."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from client.events import Ended, Entered, Forgotten, Heard, How, Lost, Missed
from client.lines import Style, clock
from kit.words import choose_language
from proto.chat_pb2 import ChatMessage

PLAIN, COLOURED = Style(False), Style(True)


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    yield
    choose_language("en")


def heard(user: str = "Juan", text: str = "Hola", mine: bool = False) -> Heard:
    now = time.time_ns() // 1_000_000
    return Heard(ChatMessage(user=user, text=text, time_ms=now), mine, past=False)


def test_a_message_is_time_name_and_text() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d  Juan  Hola", PLAIN.line(heard()))


def test_without_colour_there_is_no_escape_whatever_others_write() -> None:
    """Another server, or another version of this one, may let such things through."""
    line = PLAIN.line(heard("\x1b[31mJuan", "Hola\x1b[2J\r\u202e\n"))
    assert line.endswith("  ·[31mJuan  Hola·[2J···")


def test_with_colour_the_escapes_are_ours_alone() -> None:
    line = COLOURED.line(heard("\x1b[31mJuan", "Hola\x1b[2J"))
    assert re.sub(r"\x1b\[[\d;]+m", "", line) == PLAIN.line(heard("\x1b[31mJuan", "Hola\x1b[2J"))
    assert "\x1b[2J" not in line


def test_a_name_has_its_colour_wherever_it_comes_and_ones_own_stands_out() -> None:
    one, two = (re.findall(r"\x1b\[([\d;]+)mJuan", COLOURED.line(heard(text=text)))[0] for text in ("a", "b"))
    assert one == two
    assert f"\x1b[{one};1mJuan" in COLOURED.line(heard(mine=True))


@pytest.mark.parametrize(
    ("event", "english", "spanish"),
    [
        (
            Entered(("María", "Ana"), again=False),
            "· Here are: María, Ana. /help lists the commands.",
            "· Están aquí: María, Ana. /help muestra las órdenes.",
        ),
        (
            Entered((), again=False),
            "· Nobody else is here yet. /help lists the commands.",
            "· Aún no hay nadie más. /help muestra las órdenes.",
        ),
        (Entered(("María",), again=True), "✓ back in the room", "✓ de vuelta en la sala"),
        (
            Missed(1),
            "… 1 message was said meanwhile that the server does not remember",
            "… entretanto se dijo 1 mensaje que el servidor ya no recuerda",
        ),
        (
            Missed(20),
            "… 20 messages were said meanwhile that the server does not remember",
            "… entretanto se dijeron 20 mensajes que el servidor ya no recuerda",
        ),
        (
            Forgotten(),
            "… the server began anew meanwhile; what was said before is forgotten there",
            "… entretanto el servidor empezó de nuevo; ya no recuerda lo que se dijo antes",
        ),
        (Lost("Gone."), "✗ Gone. Trying again …", "✗ Gone. Intentándolo de nuevo …"),
        (Ended(How.LEFT, "", 0), "", ""),
        (
            Ended(How.LEFT, "", 2),
            "✗ 2 messages were not confirmed by the server.",
            "✗ El servidor no confirmó 2 mensajes.",
        ),
        (
            Ended(How.REFUSED, "Full.", 1),
            "✗ Full.\n✗ 1 message was not confirmed by the server.",
            "✗ Full.\n✗ El servidor no confirmó 1 mensaje.",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_happens_is_said_in_both_languages(event: Lost, english: str, spanish: str) -> None:
    assert PLAIN.line(event) == english
    choose_language("es")
    assert PLAIN.line(event) == spanish


def test_a_time_that_is_not_today_has_its_date() -> None:
    now = time.time_ns() // 1_000_000
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock(now))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", clock(now - 3 * 86_400_000))
