"""live: frames as they pass an interface. interfaces: which there are.

What was sniffed is written to the file first and decoded when there is time: while this program decodes, the kernel
keeps what comes, and each turn takes more from it than it decodes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capture.commands.common import (
    LACKING,
    MISUSE,
    Refusal,
    add_output,
    add_schema,
    add_selection,
    batches,
    command,
    count,
    needs_sections,
    output_for,
    schema_for,
    terminal,
    writing,
)
from capture.events import Event, FrameEvent, Packet
from capture.output import FrameRows, Output, selection
from capture.pipeline import Pipeline
from capture.records import Stage, stage
from capture.sources.files import STANDARD_INPUT
from capture.sources.recording import PACKET_COST
from kit.bootstrap import python
from kit.options import not_empty, port_number, written_file
from kit.text import pad, visible, width
from kit.words import _, ngettext

if TYPE_CHECKING:
    from capture.sources.sniff import Interface, Sniffer

CHAT_PORT = 50051
PATIENCE_SECONDS = 0.5
"""After so long without a packet it is looked whether Ctrl-C was pressed (Windows does not wake who waits)."""
TAKEN_IN_A_TURN = 8
"""Batches that are taken from the kernel for each that is decoded."""
MAX_WAITING = 64 << 20
"""Octets taken and not decoded yet. Then the kernel's buffer fills, and drops what it has no room for."""


def add(commands: Any) -> None:
    described = _("frames as they pass an interface; needs the right to sniff (without it: tap)")
    parser = command(commands, "live", _run, described, kind="frames", file=STANDARD_INPUT)
    interface = _("where to listen (default: loopback); the command interfaces lists what there is")
    parser.add_argument("--interface", type=not_empty, metavar=_("NAME"), help=interface)
    ports = _("only packets of this TCP port (default: {port}; may be given again)").format(port=CHAT_PORT)
    parser.add_argument("--port", action="append", type=_port, default=[], metavar=_("NUMBER"), help=ports)
    file = _("a pcapng of what passes, for this program and Wireshark")
    parser.add_argument("--write", type=written_file, metavar=_("FILE"), help=file)
    parser.add_argument("--seconds", type=_seconds, metavar=_("NUMBER"), help=_("end after so long"))
    parser.add_argument("--frames", type=_at_least_one, metavar=_("NUMBER"), help=_("end after so many frames shown"))
    add_selection(parser)
    add_output(parser, "frames")
    add_schema(parser)

    listed = command(commands, "interfaces", _list, _("what can be sniffed here, and whether this user may"))
    listed.add_argument("--format", choices=("table", "jsonl"), default="table", help=_("for people, or for programs"))


def _port(text: str) -> int:
    port = port_number(text)
    if port == 0:
        raise argparse.ArgumentTypeError(_("packets have no port 0"))
    return port


def _at_least_one(text: str) -> int:
    if (number := count(text)) == 0:
        raise argparse.ArgumentTypeError(_("a number from 1 on is needed, and this is {text}").format(text=repr(text)))
    return number


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(_("seconds are a number above 0, and this is {text}").format(text=repr(text)))


# --- live


class _Sniffed:
    """What an output asks of its source."""

    synthesised = False


class _Show:
    """From packets to the output, until as many frames as asked for were shown."""

    def __init__(self, options: argparse.Namespace, output: Output, made: Stage) -> None:
        self._pipeline = Pipeline(ports=options.port, sections=needs_sections(options), live=True)
        self._output, self._made = output, made
        self._wanted = selection(options.connection, options.stream, options.type)
        self._left: int | None = options.frames
        self.frames = 0
        """Decoded, shown or not."""
        self.connections: set[int] = set()
        """That had frames, by number."""

    @property
    def is_full(self) -> bool:
        return self._left == 0

    def packets(self, packets: list[Packet]) -> None:
        self._events(self._pipeline.feed(packets))

    def finish(self) -> None:
        if not self.is_full:
            self._events(self._pipeline.finish())
        self._output.finish()

    def _events(self, events: list[Event]) -> None:
        for at, event in enumerate(events):
            if type(event) is FrameEvent:
                self.frames += 1
                self.connections.add(event.connection.number)
                if self._left is not None and (self._wanted is None or self._wanted(event)):
                    self._left -= 1
                    if self.is_full:
                        events = events[: at + 1]
                        break
        self._output.show(self._made.feed(events))


class _File:
    """The capture file."""

    def __init__(self, name: str, sniffer: Sniffer) -> None:
        from capture.sources.sniff import recorder

        self._name = name
        with self._telling():
            self._stream = Path(name).open("wb")  # noqa: SIM115 - closed by close()
            self._writer = recorder(self._stream, sniffer)

    def write(self, packets: list[Packet]) -> None:
        with self._telling():
            self._writer.write(packets)

    def close(self, sniffer: Sniffer) -> None:
        from capture.sources.sniff import finish_recording

        with self._telling():
            finish_recording(self._writer, sniffer.statistics)
            self._stream.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with writing(self._name):
                yield
        except Refusal:
            with contextlib.suppress(AttributeError, OSError):  # it was not opened, or tries to write once more
                self._stream.close()
            raise


def _run(options: argparse.Namespace) -> None:
    """Frames as they pass, until Ctrl-C or as many as were asked for."""
    from capture.sources.sniff import Sniffer, SniffError, UnknownInterface

    options.port = options.port or [CHAT_PORT]
    output = output_for(options, _Sniffed(), schema_for(options))
    show = _Show(options, output, stage("events" if isinstance(output, FrameRows) else "frames", None))
    try:
        with Sniffer(options.interface, options.port) as sniffer:
            file = _File(options.write, sniffer) if options.write else None
            words = _("Listening on {interface}, port {port}; Ctrl-C ends it")
            told = words.format(interface=visible(sniffer.interface), port=", ".join(map(str, sniffer.ports)))
            print(told, file=sys.stderr, flush=True)
            failure = _Follower(sniffer, file, show).follow(options.seconds)
            show.finish()
    except UnknownInterface as error:
        raise Refusal(MISUSE, str(error)) from None
    except SniffError as error:
        raise Refusal(LACKING, str(error)) from None
    if file is not None:
        file.close(sniffer)
    _tell(options, sniffer, show)
    if failure is not None:
        raise Refusal(LACKING, str(failure))


class _Follower:
    """Packets from the kernel to the file and, when there is time, to the display."""

    def __init__(self, sniffer: Sniffer, file: _File | None, show: _Show) -> None:
        self._sniffer, self._file, self._show = sniffer, file, show
        self._waiting: deque[list[Packet]] = deque()
        self._octets = 0
        self._failure: Exception | None = None

    def follow(self, seconds: float | None) -> Exception | None:
        """Until the end that was asked for, or Ctrl-C, or until the interface goes: then the error is returned. What
        had passed by then is decoded."""
        end = math.inf if seconds is None else time.monotonic() + seconds
        for _is_ready in batches(self._waits(end)):
            self._turn()
        end_ns = time.time_ns()
        while self._goes_on and self._sniffer.newest_ns < end_ns and self._sniffer.wait(0):
            self._turn()
        while self._waiting and not self._show.is_full:
            self._decode()
        return self._failure

    @property
    def _goes_on(self) -> bool:
        return not self._show.is_full and self._failure is None

    def _waits(self, end: float) -> Iterator[bool]:
        """All waiting is here, where Ctrl-C may end it: between the kernel and the file no packet can be lost."""
        while self._goes_on and (left := end - time.monotonic()) > 0:
            yield self._sniffer.wait(0 if self._waiting else min(left, PATIENCE_SECONDS))

    def _turn(self) -> None:
        from capture.sources.sniff import SniffError

        for _batch in range(TAKEN_IN_A_TURN if self._octets < MAX_WAITING else 0):
            try:
                packets = self._sniffer.packets(0)
            except SniffError as error:
                self._failure = error
                break
            if not packets:
                break
            if self._file is not None:
                self._file.write(packets)
            self._waiting.append(packets)
            self._octets += _cost(packets)
        if self._waiting:
            self._decode()

    def _decode(self) -> None:
        packets = self._waiting.popleft()
        self._octets -= _cost(packets)
        self._show.packets(packets)


def _cost(packets: list[Packet]) -> int:
    return sum(PACKET_COST + len(packet.data) for packet in packets)


def _tell(options: argparse.Namespace, sniffer: Sniffer, show: _Show) -> None:
    """What was seen, decoded, and lost."""
    seen, dropped = sniffer.statistics
    parts = {
        "packets": ngettext("{n} packet", "{n} packets", seen).format(n=seen),
        "frames": ngettext("{n} frame", "{n} frames", show.frames).format(n=show.frames),
        "connections": ngettext("{n} connection", "{n} connections", len(show.connections)).format(
            n=len(show.connections)
        ),
        "dropped": dropped,
    }
    if sniffer.has_filter:
        words = _("{interface}: {packets}, {frames} of {connections}; dropped by the kernel: {dropped}")
    else:
        words = _("{interface}: {packets}, {frames} of {connections}; dropped by the kernel, of all ports: {dropped}")
    print(words.format(interface=visible(sniffer.interface), **parts), file=sys.stderr)
    if options.write:
        name = visible(options.write)
        ports = "".join(f" --port {port}" for port in sniffer.ports)
        words = ngettext("{file}: {n} packet · {command}", "{file}: {n} packets · {command}", seen)
        print(words.format(file=name, n=seen, command=f"{python()} -m capture frames {name}{ports}"), file=sys.stderr)


# --- interfaces


def _list(options: argparse.Namespace) -> None:
    from capture.sources.rights import may_sniff
    from capture.sources.sniff import interfaces, no_right

    found, may = interfaces(), may_sniff()
    if options.format == "jsonl":
        for one in found:
            print(json.dumps(_fields(one, may), ensure_ascii=False))
        return
    heads = (_("interface"), _("state"), _("addresses"), "")
    rows = [heads, *(_row(one) for one in found)]
    widths = [max(width(row[at]) for row in rows) for at in range(len(heads))]
    paint, _columns = terminal()
    for at, row in enumerate(rows):
        line = "  ".join(map(pad, row, widths)).rstrip()
        print(paint.dim(line) if at == 0 else line)
    print("\n" + (_("This user may sniff.") if may else no_right()))


def _fields(one: Interface, may_sniff: bool) -> dict[str, Any]:
    return {
        "name": one.name,
        "description": one.description,
        "addresses": one.addresses,
        "up": one.is_up,
        "loopback": one.is_loopback,
        "may_sniff": may_sniff,
    }


def _row(one: Interface) -> tuple[str, str, str, str]:
    state = _("up") if one.is_up else _("down")
    says = _("loopback: what programs on this machine say to each other") if one.is_loopback else one.description
    return visible(one.name), state, ", ".join(one.addresses), visible(says)
