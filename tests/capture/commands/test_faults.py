"""What people write about faults: units, options, and lines that change a tap while octets pass through it."""

from __future__ import annotations

import argparse
import math
import socket
import threading
from collections.abc import Iterator

import pytest

from capture.commands import faults
from capture.commands.faults import Control, count_of_octets, from_options, seconds, stall_seconds
from capture.events import Direction
from capture.sources.faults import NO_FAULTS, Faults
from capture.sources.tap import Tap
from kit.options import Parser

UP, DOWN = Direction
PATIENCE = 20.0


@pytest.mark.parametrize(
    ("text", "expected"), [("20", 0.02), ("20ms", 0.02), ("1.5s", 1.5), ("2min", 120.0), ("0", 0.0)]
)
def test_a_time_has_a_unit_or_is_in_milliseconds(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


def test_the_time_of_a_stall_is_in_seconds_where_no_unit_stands() -> None:
    assert (stall_seconds("5"), stall_seconds("5ms")) == (5.0, 0.005)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1500", 1500), ("64k", 65_536), ("64KiB", 65_536), ("1.5M", 1_572_864), ("2g", 2 << 30), ("10k/s", 10_240)],
)
def test_octets_may_be_in_multiples_of_1024(text: str, expected: int) -> None:
    assert count_of_octets(text) == expected


@pytest.mark.parametrize("read", [seconds, count_of_octets])
@pytest.mark.parametrize("text", ["", "fast", "-1", "1e9", "ms", "5 s", "1.k"])
def test_what_is_no_number_is_refused_with_a_sentence(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(argparse.ArgumentTypeError, match=r"as in (200ms|64k)"):
        read(text)


# --- options


def given(*arguments: str) -> dict[Direction, Faults]:
    parser = Parser(prog="tap", description="")
    faults.add_options(parser)
    return from_options(parser.parse_args(arguments))


def test_without_options_the_line_is_honest() -> None:
    assert given() == {UP: NO_FAULTS, DOWN: NO_FAULTS}


def test_options_hold_both_ways_or_the_way_that_is_named() -> None:
    assert given("--delay", "20", "--split", "10") == dict.fromkeys(Direction, Faults(delay=0.02, segment=10))
    chosen = given("--throttle", "64k", "--jitter", "5ms", "--direction", "down", "--refuse")
    assert chosen == {UP: Faults(refuse=True), DOWN: Faults(throttle=65_536, jitter=0.005, refuse=True)}


def test_a_stall_may_have_a_direction_of_its_own() -> None:
    chosen = given("--delay", "1s", "--stall", "4k", "--stall-direction", "up", "--stall-seconds", "3")
    assert chosen == {UP: Faults(delay=1, stall_after=4096, stall_for=3), DOWN: Faults(delay=1)}


def test_how_to_stall_without_a_stall_is_misuse() -> None:
    with pytest.raises(ValueError, match="--stall says"):
        given("--stall-seconds", "3")


def test_impossible_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="throttle is at least 1"):
        given("--throttle", "0")


# --- lines


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


class Wire:
    """A tap with one connection through it, and who controls it."""

    def __init__(self, listener: socket.socket, tap: Tap, control: Control) -> None:
        self.tap, self.control, self._listener = tap, control, listener
        self.client, self.server = self.connect()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.tap.port), PATIENCE)
        server, _address = self._listener.accept()
        server.settimeout(PATIENCE)
        server.sendall(b"!")
        return client, server

    def close(self) -> None:
        self.control.close()
        for end in (self.client, self.server):
            end.close()


@pytest.fixture
def wire(listener: socket.socket) -> Iterator[Wire]:
    with Tap(listener.getsockname()) as tap:
        made = Wire(listener, tap, Control(tap, dict.fromkeys(Direction, NO_FAULTS)))
        assert made.client.recv(1) == b"!"
        yield made
        made.close()


def passes(sender: socket.socket, receiver: socket.socket, octets: bytes = b"x", within: float = PATIENCE) -> bool:
    """Whether octets sent now arrive within so many seconds."""
    sender.sendall(octets)
    receiver.settimeout(within)
    try:
        return receiver.recv(len(octets)) == octets
    except TimeoutError:
        return False
    finally:
        receiver.settimeout(PATIENCE)


@pytest.mark.parametrize(
    ("line", "up", "down"),
    [
        ("delay 200ms", Faults(delay=0.2), Faults(delay=0.2)),
        ("DELAY down 200", NO_FAULTS, Faults(delay=0.2)),
        ("jitter 1s up", Faults(jitter=1), NO_FAULTS),
        ("throttle 64k/s down", NO_FAULTS, Faults(throttle=65_536)),
        ("split 10 both", Faults(segment=10), Faults(segment=10)),
        ("cut-after 1M up", Faults(cut_after=1 << 20), NO_FAULTS),
        ("stall up", Faults(stall_after=0), NO_FAULTS),
        ("stall 64k 5s down", NO_FAULTS, Faults(stall_after=65_536, stall_for=5)),
        ("refuse on", Faults(refuse=True), Faults(refuse=True)),
    ],
)
def test_a_line_sets_a_fault_and_off_takes_it_back(
    line: str, up: Faults, down: Faults, listener: socket.socket
) -> None:
    tap = Tap(listener.getsockname())
    control = Control(tap, dict.fromkeys(Direction, NO_FAULTS))
    said = control.obey(line)
    assert (tap.faults_of(0, UP), tap.faults_of(0, DOWN)) == (up, down)
    assert said == control.told()
    assert said != "an honest line"
    assert control.obey(f"{line.split()[0].lower()} off") == "an honest line"
    assert (tap.faults_of(0, UP), tap.faults_of(0, DOWN)) == (NO_FAULTS, NO_FAULTS)


def test_faults_add_up_and_off_takes_all_back(wire: Wire) -> None:
    wire.control.obey("delay 200ms down")
    said = wire.control.obey("split 2k")
    assert said == "up: pieces of 2 KiB · down: delay 200 ms · pieces of 2 KiB"
    assert wire.control.obey("off") == "an honest line"


@pytest.mark.parametrize(
    "line",
    ["bogus", "delay", "delay x", "delay 1 2", "stall 1s 2s", "stall 1k 2k", "refuse", "cut 7", "off now", "split 0",
     "stall 2h", "delay 2000min"],
)  # fmt: skip
def test_what_is_not_understood_changes_nothing_and_is_answered_in_one_line(line: str, wire: Wire) -> None:
    wire.control.obey("delay 1ms")
    said = wire.control.obey(line)
    assert said
    assert "\n" not in said
    assert wire.control.told() == "delay 1.0 ms"


def test_an_empty_line_says_nothing_and_help_names_every_verb(wire: Wire) -> None:
    assert wire.control.obey("  ") == ""
    said = wire.control.obey("help")
    for verb in ("delay", "jitter", "throttle", "split", "stall", "cut-after", "cut", "refuse", "off", "show"):
        assert any(line.startswith(verb) for line in said.splitlines())


def test_help_is_broken_between_words_where_the_terminal_ends(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    narrow = wire.control.obey("help")
    assert max(map(len, narrow.splitlines())) <= 70
    monkeypatch.setenv("COLUMNS", "400")
    wide = wire.control.obey("help")
    assert len(wide.splitlines()) == len(faults.LINES) < len(narrow.splitlines())
    assert wide.split() == narrow.split()


def test_a_stall_holds_what_comes_until_it_is_lifted(wire: Wire) -> None:
    wire.control.obey("stall down")
    assert passes(wire.client, wire.server)
    assert not passes(wire.server, wire.client, within=0.1)
    wire.control.obey("stall off")
    assert wire.client.recv(1) == b"x"


def test_a_stall_for_a_time_ends_by_itself_for_later_connections_too(wire: Wire) -> None:
    said = wire.control.obey("stall 200ms down")
    assert said.splitlines() == ["up: an honest line · down: stalled", "the stall ends in 200 ms"]
    assert passes(wire.server, wire.client)
    assert wire.control.told() == "an honest line"


def test_another_fault_does_not_begin_a_stall_again_that_is_over(wire: Wire) -> None:
    wire.control.obey("stall 1 100ms down")
    assert passes(wire.server, wire.client, b"a")
    assert passes(wire.server, wire.client, b"b")  # 100 ms later
    wire.control.obey("split 1")
    assert passes(wire.server, wire.client, b"c")
    assert passes(wire.server, wire.client, b"d", within=PATIENCE)
    wire.control.obey("stall 1 60s down")
    assert passes(wire.server, wire.client, b"e")
    assert not passes(wire.server, wire.client, b"f", within=0.1)


def test_cut_resets_what_is_open_and_fin_closes_it_well(wire: Wire) -> None:
    assert wire.control.obey("show").splitlines()[1].startswith("connection 0: 127.0.0.1:")
    assert wire.control.obey("cut") == "cut: 0"
    with pytest.raises(ConnectionResetError):
        wire.client.recv(1)
    client, server = wire.connect()
    with client, server:
        assert client.recv(1) == b"!"
        assert wire.control.obey("cut 1 fin") == "cut: 1"
        assert (client.recv(1), server.recv(1)) == (b"", b"")


def test_refusing_is_for_those_who_come(wire: Wire) -> None:
    wire.control.obey("refuse on")
    assert passes(wire.client, wire.server)
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", wire.tap.port), PATIENCE) as refused,
    ):
        refused.recv(1)


def test_a_stall_that_would_have_been_lifted_is_forgotten_when_the_tap_closes(listener: socket.socket) -> None:
    with Tap(listener.getsockname()) as tap:
        control = Control(tap, dict.fromkeys(Direction, Faults(delay=math.pi)))
        control.obey("stall 60s")
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        assert len(timers) == 2
        control.close()
        for timer in timers:
            timer.join(PATIENCE)
            assert not timer.is_alive()
