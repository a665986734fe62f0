"""The server's lines."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator

import pytest

from kit.words import choose_language
from server.log import FORMATS, Log
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


def objects(language: str = "en") -> list[dict[str, object]]:
    """The same entries for programs, without their times, which are looked at here."""
    choose_language(language)
    entries: list[str] = []
    log = Log(entries.append, "json")
    log.joined("Juan", "general", "ipv4:127.0.0.1:1234")
    log.posted(MESSAGE, 2)
    log.repeated(MESSAGE)
    log.left("Juan", "general")
    log.left("Juan", "general", "porque sí")
    log.refused("ipv4:127.0.0.1:1234", "porque sí")
    log.say("one", "two", event="listening", address="localhost:1")
    read = [json.loads(entry) for entry in entries]
    for entry in read:
        time = datetime.datetime.fromisoformat(entry.pop("time"))
        assert abs(time - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    return read


@pytest.mark.parametrize("language", ["en", "es"])
def test_for_programs_an_entry_is_an_object_that_no_language_changes(language: str) -> None:
    said = {"user": "Juan", "room": "general", "text": "Hola {text} %s", "sequence": 1, "time_ms": 0}
    assert objects(language) == [
        {"event": "joined", "user": "Juan", "room": "general", "peer": "ipv4:127.0.0.1:1234"},
        {"event": "posted", **said, "reached": 2},
        {"event": "repeated", **said},
        {"event": "left", "user": "Juan", "room": "general"},
        {"event": "left", "user": "Juan", "room": "general", "reason": "porque sí"},
        {"event": "refused", "peer": "ipv4:127.0.0.1:1234", "reason": "porque sí"},
        {"event": "listening", "address": "localhost:1", "message": "one two"},
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_what_others_write_moves_no_terminal_and_makes_no_line(format: str) -> None:
    entries: list[str] = []
    log = Log(entries.append, format)
    log.joined("Ju\x1b[2Jan", "gene\nral\u202e")
    assert "Ju·[2Jan" in entries[0]
    assert entries[0].isprintable()


def test_lost_entries_are_an_entry_themselves() -> None:
    assert Log(format="text").lost(1).endswith("] [SERVER] 1 entry of this log is lost")
    lost = json.loads(Log(format="json").lost(7))
    assert (lost["event"], lost["entries"], lost["message"]) == ("lost", 7, "7 entries of this log are lost")


def test_without_a_writer_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Log().joined("Juan", "general")
    assert capsys.readouterr() == ("", "")
