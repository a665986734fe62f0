"""What people write about a tap's faults: options when it starts, lines while it runs.

A line is a verb, and what it needs in any order: `delay 200ms down`, `stall 5s`, `cut-after 64k up`, `off`. The options
have the verbs' names. Where no direction is named both are meant; "up" is from the client to the server.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from capture.events import Direction
from capture.sources.faults import NO_FAULTS, Ending, Faults
from capture.views.quantities import duration, octets
from kit.text import visible
from kit.words import N_, _

if TYPE_CHECKING:
    from capture.sources.tap import Tap

WAYS: dict[str, tuple[Direction, ...]] = {
    "up": (Direction.CLIENT_TO_SERVER,),
    "down": (Direction.SERVER_TO_CLIENT,),
    "both": tuple(Direction),
}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_MULTIPLES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min)?")
_OCTETS = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?(?:/s)?", re.IGNORECASE)


def seconds(text: str, unit: str = "ms") -> float:
    """`20ms`, `1.5s`, `2min`; a bare number is in `unit`. Raises ArgumentTypeError."""
    found = _TIME.fullmatch(text)
    if found is None:
        words = _("a time is a number and ms, s or min, as in 200ms, and this is {text}")
        raise argparse.ArgumentTypeError(words.format(text=repr(text)))
    return float(found[1]) * _SECONDS[found[2] or unit]


def stall_seconds(text: str) -> float:
    return seconds(text, "s")


def count_of_octets(text: str) -> int:
    """`1500`, `64k`, `1.5M`: k is 1,024. Raises ArgumentTypeError."""
    found = _OCTETS.fullmatch(text)
    if found is None:
        words = _("octets are a number, with k, M or G behind it if need be, as in 64k, and this is {text}")
        raise argparse.ArgumentTypeError(words.format(text=repr(text)))
    return int(float(found[1]) * _MULTIPLES[found[2].lower()])


# --- options


def add_options(parser: argparse.ArgumentParser) -> None:
    described = _(
        "200ms, 1.5s, 64k, 2M are understood; k is 1,024. Lines typed while it runs change them: help lists them"
    )
    group = parser.add_argument_group(_("faults of the line"), described)
    for verb, kind, metavar, text in (
        ("delay", seconds, _("MS"), _("each octet is so long under way")),
        ("jitter", seconds, _("MS"), _("and up to so much longer, drawn anew for each piece; the order stays")),
        ("throttle", count_of_octets, _("OCTETS/S"), _("no more than so many octets pass in a second")),
        ("split", count_of_octets, _("OCTETS"), _("no more than so many octets are passed on at once: small segments")),
        ("cut-after", count_of_octets, _("OCTETS"), _("each connection is reset after so many octets")),
        ("stall", count_of_octets, _("OCTETS"), _("after so many octets of a connection nothing more passes")),
        ("stall-seconds", stall_seconds, _("SECONDS"), _("… for so long (default: until it is changed)")),
    ):
        group.add_argument(f"--{verb}", type=kind, metavar=metavar, help=text)
    names, default = tuple(WAYS), _("(default: that of --direction)")
    group.add_argument("--stall-direction", choices=names, help=_("which way it stalls") + " " + default)
    ways = _("which way all of these hold: up is from the client to the server (default: both)")
    group.add_argument("--direction", choices=names, default="both", help=ways)
    group.add_argument("--refuse", action="store_true", help=_("new connections are reset"))


def from_options(options: argparse.Namespace) -> dict[Direction, Faults]:
    """By direction. Raises ValueError with a sentence for people."""
    if options.stall is None and (options.stall_seconds is not None or options.stall_direction is not None):
        raise ValueError(_("--stall says after how many octets it stalls; without it there is nothing to stall"))
    changes: dict[Direction, dict[str, Any]] = {way: {"refuse": options.refuse} for way in Direction}
    for name, value in (
        ("delay", options.delay),
        ("jitter", options.jitter),
        ("throttle", options.throttle),
        ("segment", options.split),
        ("cut_after", options.cut_after),
    ):
        for way in WAYS[options.direction] if value is not None else ():
            changes[way][name] = value
    for way in WAYS[options.stall_direction or options.direction] if options.stall is not None else ():
        changes[way]["stall_after"] = options.stall
        if options.stall_seconds is not None:
            changes[way]["stall_for"] = options.stall_seconds
    return {way: Faults(**changes[way]) for way in Direction}


# --- lines


LINES = {
    "delay 200ms [up|down]": N_("each octet is so long under way"),
    "jitter 50ms [up|down]": N_("and up to so much longer, drawn anew for each piece; the order stays"),
    "throttle 64k [up|down]": N_("no more than so many octets pass in a second"),
    "split 10 [up|down]": N_("no more than so many octets are passed on at once: small segments"),
    "stall [5s] [up|down]": N_("from now on nothing passes, for so long or until stall off"),
    "stall 64k [5s] [up|down]": N_("the same after so many more octets of each connection"),
    "cut-after 64k [up|down]": N_("each connection is reset after so many more octets"),
    "cut [NUMBER] [fin]": N_("resets all connections, or one; fin closes them as if all were well"),
    "refuse on|off": N_("new connections are reset"),
    "delay off, stall off, … [up|down]": N_("without this one"),
    "off": N_("an honest line again"),
    "show": N_("the faults, and the connections that are open"),
    "help": N_("this list"),
}
MIN_HELP_COLUMNS = 20
"""Of the explanations, however narrow the terminal."""
_FIELDS: dict[str, tuple[str, Callable[[str], float]]] = {
    "delay": ("delay", seconds),
    "jitter": ("jitter", seconds),
    "throttle": ("throttle", count_of_octets),
    "split": ("segment", count_of_octets),
    "cut-after": ("cut_after", count_of_octets),
}
"""Verb -> the field of Faults, and how its value is read."""
_COUNTED = {"cut_after", "stall_after"}
"""Setting one of these counts octets anew; another change leaves the counts as they are."""


class Control:
    """The faults of a tap, changed by lines. Any thread may call, one at a time."""

    def __init__(self, tap: Tap, faults: dict[Direction, Faults]) -> None:
        """`faults` are in force from now on."""
        self._tap = tap
        self._faults = dict(faults)
        self._lock = threading.RLock()
        self._lifts: dict[Direction, threading.Timer] = {}
        for way in Direction:
            tap.set_faults(self._faults[way], direction=way)

    def close(self) -> None:
        """No stall is lifted any more."""
        with self._lock:
            for timer in self._lifts.values():
                timer.cancel()
            self._lifts.clear()

    def obey(self, line: str) -> str:
        """What is to be said about it: one line or several; "" for an empty one."""
        words = line.lower().split()
        if not words:
            return ""
        verb, rest = words[0], words[1:]
        ways = WAYS["both"]
        for name in [word for word in rest if word in WAYS]:
            ways = WAYS[name]
            rest.remove(name)
        with self._lock:
            try:
                return self._obey(verb, rest, ways)
            except (ValueError, argparse.ArgumentTypeError) as problem:
                return str(problem)

    def _obey(self, verb: str, rest: list[str], ways: tuple[Direction, ...]) -> str:
        if verb == "help" and not rest:
            return "\n".join(_help(shutil.get_terminal_size().columns))
        if verb == "show" and not rest:
            return "\n".join([self.told(), *self._connections()])
        if verb == "cut":
            return self._cut(rest)
        if verb == "off" and not rest:
            return self._change(Direction, **_plain(NO_FAULTS))
        if verb == "refuse" and rest in (["on"], ["off"]):
            return self._change(Direction, refuse=rest == ["on"])
        if verb == "stall":
            return self._stall(rest, ways)
        if verb in _FIELDS and len(rest) == 1:
            field, read = _FIELDS[verb]
            return self._change(ways, **{field: getattr(NO_FAULTS, field) if rest == ["off"] else read(rest[0])})
        raise ValueError(
            _("{line} is not understood; help lists what is").format(line=visible(" ".join([verb, *rest])))
        )

    def _change(self, ways: Any, **changes: Any) -> str:
        changed = {way: replace(self._faults[way], **changes) for way in ways}  # ValueError before anything happens
        for way, faults in changed.items():
            if "stall_after" in changes and (timer := self._lifts.pop(way, None)) is not None:
                timer.cancel()
            self._faults[way] = faults
            self._tap.set_faults(faults, direction=way, counts_on=_COUNTED.isdisjoint(changes))
        return self.told()

    def _stall(self, rest: list[str], ways: tuple[Direction, ...]) -> str:
        if rest == ["off"]:
            return self._change(ways, stall_after=None, stall_for=math.inf)
        lasting = [word for word in rest if (found := _TIME.fullmatch(word)) and found[2]]
        after = [word for word in rest if word not in lasting]
        if len(lasting) > 1 or len(after) > 1:
            raise ValueError(_("a stall has one time, as 5s, and one count of octets, as 64k"))
        time = seconds(lasting[0]) if lasting else math.inf
        if after:
            return self._change(ways, stall_after=count_of_octets(after[0]), stall_for=time)
        if time < math.inf:
            Faults(stall_for=time)
        # From now on, for all connections: those that come meanwhile stall as well, those that come later do not.
        said = self._change(ways, stall_after=0, stall_for=math.inf)
        if time < math.inf:
            for way in ways:
                self._lifts[way] = timer = threading.Timer(time, self._lift, [way])
                timer.daemon = True
                timer.start()
            said += "\n" + _("the stall ends in {time}").format(time=duration(int(time * 1e9)))
        return said

    def _lift(self, way: Direction) -> None:
        """In the timer's thread."""
        with self._lock:
            if self._lifts.get(way) is threading.current_thread():
                self._change((way,), stall_after=None)

    def _cut(self, rest: list[str]) -> str:
        how = Ending.FIN if "fin" in rest else Ending.RESET
        rest = [word for word in rest if word != "fin"]
        open_now = [connection.number for connection in self._tap.connections]
        if rest:
            number = int(rest[0]) if rest[0].isascii() and rest[0].isdigit() else -1
            if len(rest) > 1 or number not in open_now:
                named = ", ".join(map(str, open_now)) or _("none")
                raise ValueError(_("a connection that is open has to be named: {numbers}").format(numbers=named))
            open_now = [number]
        for number in open_now:
            self._tap.cut(number, how)
        return _("cut: {numbers}").format(numbers=", ".join(map(str, open_now)) or _("no connection is open"))

    def told(self) -> str:
        """The faults in one line."""
        up, down = (_in_words(self._faults[way]) for way in Direction)
        if up == down:
            return up
        return " · ".join([_("up: {faults}").format(faults=up), _("down: {faults}").format(faults=down)])

    def _connections(self) -> list[str]:
        words = _("connection {number}: {client}, {sent} octets up, {received} down")
        return [words.format(**connection._asdict()) for connection in self._tap.connections]


def _help(columns: int) -> Iterator[str]:
    """The lines that there are, and what each does beside it, broken where the terminal ends."""
    indent = max(map(len, LINES)) + 2
    for form, text in LINES.items():
        first, *rest = textwrap.wrap(_(text), max(columns - indent, MIN_HELP_COLUMNS))
        yield f"{form:{indent}}{first}"
        yield from (" " * indent + line for line in rest)


def _plain(faults: Faults) -> dict[str, Any]:
    return {name: getattr(faults, name) for name in Faults.__slots__}


def _in_words(faults: Faults) -> str:
    said = []
    if faults.refuse:
        said.append(_("new connections are refused"))
    for template, value in ((_("delay {time}"), faults.delay), (_("jitter {time}"), faults.jitter)):
        if value:
            said.append(template.format(time=duration(round(value * 1e9))))
    if faults.throttle != math.inf:
        said.append(_("{octets} a second").format(octets=octets(int(faults.throttle))))
    if faults.segment is not None:
        said.append(_("pieces of {octets}").format(octets=octets(faults.segment)))
    if faults.stall_after == 0:
        said.append(_("stalled"))
    elif faults.stall_after is not None:
        said.append(_("stalls after {octets}").format(octets=octets(faults.stall_after)))
    if faults.cut_after is not None:
        said.append(_("cut after {octets}").format(octets=octets(faults.cut_after)))
    return " · ".join(said) or _("an honest line")
