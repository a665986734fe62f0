"""The server's lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kit.words import choose_language
from server.log import Log
from server.rooms import Message

MESSAGE = Message("Juan", "general", "Hola {text} %s", 1, 0, "")


@pytest.fixture(autouse=True)
def _language() -> Iterator[None]:
    yield
    choose_language("en")


def told(language: str) -> list[str]:
    choose_language(language)
    entries: list[str] = []
    log = Log(entries.append)
    log.joined("Juan", "general")
    log.posted(MESSAGE, 2)
    log.repeated(MESSAGE)
    log.left("Juan", "general")
    log.left("Juan", "general", "porque sí")
    log.refused("ipv4:127.0.0.1:1234", "porque sí")
    log.say("one", "two")
    assert len(entries) == 7  # what belongs together comes together
    lines = "\n".join(entries).split("\n")
    assert all(re.match(r"\[\d\d:\d\d:\d\d\] \[", line) for line in lines)
    return [line.partition(" ")[2] for line in lines]


def test_english() -> None:
    assert told("en") == [
        "[SERVER] ✓ Juan joined #general",
        "[SERVER] ← RECEIVED from Juan@general: Hola {text} %s",
        "[SERVER] → BROADCASTING to 2 client(s) in #general: Hola {text} %s",
        "[SERVER] ← RECEIVED again from Juan@general, not sent on: Hola {text} %s",
        "[SERVER] ✗ Juan left #general",
        "[SERVER] ✗ Juan left #general: porque sí",
        "[SERVER] ✗ refused ipv4:127.0.0.1:1234: porque sí",
        "[SERVER] one",
        "[SERVER] two",
    ]


def test_spanish() -> None:
    assert told("es") == [
        "[SERVIDOR] ✓ Juan se unió a #general",
        "[SERVIDOR] ← RECIBIDO de Juan@general: Hola {text} %s",
        "[SERVIDOR] → RETRANSMITIENDO a 2 cliente(s) en #general: Hola {text} %s",
        "[SERVIDOR] ← RECIBIDO otra vez de Juan@general, no se retransmite: Hola {text} %s",
        "[SERVIDOR] ✗ Juan salió de #general",
        "[SERVIDOR] ✗ Juan salió de #general: porque sí",
        "[SERVIDOR] ✗ rechazado ipv4:127.0.0.1:1234: porque sí",
        "[SERVIDOR] one",
        "[SERVIDOR] two",
    ]


def test_without_a_writer_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Log().joined("Juan", "general")
    assert capsys.readouterr() == ("", "")
