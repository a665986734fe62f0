"""What the commands share: their options, their input and output, Ctrl-C, and how they refuse.

Exit status: 0 done (a damaged capture is read as far as it can be, and one line on standard error says so), 1 the input
is no capture or a check failed, 2 the command was misused, 3 the environment lacks something.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType as StackFrame
from typing import TYPE_CHECKING, Any, TypeVar

from capture.events import Event, FrameType, Packet, Problem
from capture.export import COLUMNS, FORMATS, UnknownColumn, Writer
from capture.output import Columns, FrameRows, Lines, Output, Source, Table, selection
from capture.pipeline import Pipeline
from capture.sources.files import STANDARD_INPUT, is_regular
from kit.bootstrap import python
from kit.options import Parser, host_port, port_number
from kit.text import visible
from kit.words import _, ngettext

if TYPE_CHECKING:
    from capture.protobuf import Schema
    from capture.views.style import Paint

DONE, BAD_INPUT, MISUSE, LACKING = range(4)
Batch = TypeVar("Batch")
NEED_SECTIONS = {"fields", "client", "server", "direction"}
"""Columns of frames for which field sections have to be decoded: they say who is the client where nothing else does."""


class Refusal(Exception):
    """Why a command cannot go on, in one sentence, and the exit status for it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


# --- Ctrl-C


class _Interruption:
    """The first Ctrl-C ends the input: what was seen until then is still shown. The second one ends the program."""

    def __init__(self) -> None:
        self.is_asked_for = False
        self.is_waiting = False

    def __call__(self, _number: int, _frame: StackFrame | None) -> None:
        is_second, self.is_asked_for = self.is_asked_for, True
        if self.is_waiting or is_second:
            raise KeyboardInterrupt


_interruption = _Interruption()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    before = {number: signal.signal(number, _interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interruption.is_asked_for = False


def batches(packets: Iterable[Batch]) -> Iterator[Batch]:
    """Until the input ends, or Ctrl-C ends it."""
    source = iter(packets)
    while not _interruption.is_asked_for:
        try:
            _interruption.is_waiting = True
            batch = next(source, None)
        except KeyboardInterrupt:
            return
        finally:
            _interruption.is_waiting = False
        if batch is None:
            return
        yield batch


# --- input and output


def decoded(packets: Iterable[list[Packet]], pipeline: Pipeline, trouble: Trouble) -> Iterator[list[Event]]:
    """What the pipeline makes of each batch, until the input ends or Ctrl-C ends it, and then of the end."""
    for batch in batches(packets):
        events = pipeline.feed(batch)
        trouble.note(events)
        yield events
    events = pipeline.finish()
    trouble.note(events)
    yield events


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """A file of this name is written; where it cannot be, there is a Refusal."""
    try:
        yield
    except OSError as error:
        words = _("{file} cannot be written: {reason}")
        raise Refusal(LACKING, words.format(file=visible(name), reason=error.strerror)) from None


def pipeline_for(options: argparse.Namespace, share: tuple[int, int] = (0, 1)) -> Pipeline:
    """Field sections are decoded only where what was asked for needs them. Standard input that is no file shows what
    there is at once."""
    live = options.file == STANDARD_INPUT and not is_regular(sys.stdin)
    return Pipeline(ports=options.port, sections=needs_sections(options), live=live, share=share)


def needs_sections(options: argparse.Namespace) -> bool:
    return options.kind != "frames" or not options.fields or not NEED_SECTIONS.isdisjoint(options.fields)


def output_for(options: argparse.Namespace, packets: Source, schema: Schema | None) -> Output:
    wanted = selection(options.connection, options.stream, options.type)
    is_table = options.format == "table"
    try:
        if options.fields or not is_table:
            writer = Writer(options.kind, "tsv" if is_table else options.format, options.fields)
            return Columns(sys.stdout, writer, wanted) if is_table else Lines(sys.stdout, writer, wanted)
    except UnknownColumn as unknown:
        words = _("there is no column {name}; there are {columns}")
        columns = ", ".join(unknown.known)
        raise Refusal(MISUSE, words.format(name=repr(unknown.name), columns=columns)) from None
    paint, width = terminal()
    if options.kind != "frames":
        return Table(sys.stdout, options.kind, packets, wanted, paint, width)
    return FrameRows(sys.stdout, packets, wanted, paint, width, schema, grouped=options.file != STANDARD_INPUT)


def terminal() -> tuple[Paint, int | None]:
    """How to colour, and how wide: the terminal's width, or COLUMNS, or (in a pipe) as wide as it comes."""
    from capture.views.style import Paint

    is_told = os.environ.get("COLUMNS", "").isdigit()
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() or is_told else None
    return Paint.of(sys.stdout), columns


def schema_for(options: argparse.Namespace) -> Schema | None:
    """What the user named, and behind it the kit's own chat; None where no message is read."""
    if options.kind == "windows" or (options.kind == "frames" and (options.format != "table" or options.fields)):
        return None
    from capture.protobuf import Schema, SchemaError

    try:
        schemas = [Schema.from_proto_files(options.proto)] if options.proto else []
        if options.descriptor_set:
            octets = Path(options.descriptor_set).read_bytes()
            schemas.append(Schema.from_descriptor_set(octets, options.descriptor_set))
        if options.reflect:
            schemas.append(_reflected(options.reflect))
        return Schema.merged(*schemas, Schema.default())
    except SchemaError as error:
        raise Refusal(MISUSE, visible(str(error))) from None
    except OSError as error:
        raise Refusal(MISUSE, visible(f"{options.descriptor_set}: {error.strerror}")) from None


def _reflected(server: tuple[str, int]) -> Schema:
    from capture.protobuf import SchemaError
    from capture.sources.reflection import fetch

    try:
        return fetch(host_port(*server))
    except SchemaError as error:
        raise Refusal(LACKING, visible(str(error))) from None


@contextlib.contextmanager
def asking_tshark(options: argparse.Namespace) -> Iterator[None]:
    """Wireshark reads the file, behind our own reader: what it needs is there, or there is a Refusal."""
    from capture.sources.tshark import TsharkError

    if options.file == STANDARD_INPUT:
        raise Refusal(MISUSE, _("the file is read twice, so that it cannot be standard input"))
    if options.keylog is not None and not Path(options.keylog).is_file():
        raise Refusal(MISUSE, _("{file}: there is no such file").format(file=visible(options.keylog)))
    try:
        yield
    except TsharkError as error:
        raise Refusal(LACKING, visible(str(error))) from None


class Trouble:
    """What went wrong, for one line at the end."""

    def __init__(self, file: str) -> None:
        self._file = visible(file)
        self._count = 0
        self._worst: Problem | None = None

    def __bool__(self) -> bool:
        """Whether anything went wrong so far."""
        return self._worst is not None

    def note(self, events: Sequence[Event]) -> None:
        if Problem not in set(map(type, events)):
            return
        for event in events:
            if type(event) is Problem:
                self._count += 1
                # Damage of the file itself explains most of the rest; otherwise the first says more than what follows.
                if self._worst is None or (event.layer == "capture" and self._worst.layer != "capture"):
                    self._worst = event

    def tell(self, about_tls: str = "") -> None:
        """`about_tls`: what to do where TLS is the worst."""
        if self._worst is None:
            return
        from capture.views.describe import problem_in_words

        sys.stdout.flush()
        line = f"capture: {self._file}: {problem_in_words(self._worst)}"
        if self._worst.layer == "tls" and about_tls:
            line += f" · {about_tls}"
        if more := self._count - 1:
            words = ngettext("and {n} more problem: {command}", "and {n} more problems: {command}", more)
            line += " · " + words.format(n=more, command=f"{python()} -m capture problems {self._file}")
        print(line, file=sys.stderr)


def tell_new(problems: list[Problem]) -> int:
    if problems:
        from capture.views.describe import problem_in_words

        for problem in problems:
            print(f"capture: {problem_in_words(problem)}", file=sys.stderr, flush=True)
    return len(problems)


# --- options


def command(commands: Any, name: str, run: Any, described: str, **fixed: Any) -> Parser:
    """A command of the parser, and what its options hold that cannot be chosen."""
    parser: Parser = commands.add_parser(name, help=described, description=described)
    parser.set_defaults(**{"run": run, "kind": name, **fixed})
    return parser


def add_input(command: Parser) -> None:
    add_file(command)
    add_selection(command)


def add_file(command: Parser) -> None:
    command.add_argument("file", metavar=_("FILE"), help=_("pcap or pcapng, gzip or not; - is standard input"))
    ports = _("this TCP port speaks HTTP/2, preface seen or not (may be given again)")
    command.add_argument("--port", action="append", type=port_number, default=[], metavar=_("NUMBER"), help=ports)


def add_key_log(command: Parser) -> None:
    keys = _("keys of its TLS connections, as SSLKEYLOGFILE has them; keys in a pcapng are found without")
    command.add_argument("--keylog", metavar=_("FILE"), help=keys)


def add_selection(command: Parser) -> None:
    command.add_argument("--connection", type=count, metavar=_("NUMBER"), help=_("only this TCP connection, from 0"))
    command.add_argument("--stream", type=count, metavar=_("NUMBER"), help=_("only this stream; 0 is the connection"))


def add_output(command: Parser, kind: str) -> None:
    formats = _("table, for people (default), or lines for programs")
    command.add_argument("--format", choices=("table", *FORMATS), default="table", help=formats)
    columns = _("only these columns: {names}").format(names=", ".join(COLUMNS[kind]))
    command.add_argument("--fields", type=names, metavar=_("NAME,NAME…"), help=columns)
    if kind == "frames":
        types = _("only frames of this type (may be given again)")
        command.add_argument(
            "--type", action="append", type=frame_type, default=[], metavar=_("NAME|NUMBER"), help=types
        )


def add_schema(command: Parser) -> None:
    proto = _("a .proto file that describes the messages (may be given again)")
    command.add_argument("--proto", action="append", default=[], metavar=_("FILE"), help=proto)
    descriptors = _("what protoc --descriptor_set_out --include_imports wrote")
    command.add_argument("--descriptor-set", metavar=_("FILE"), help=descriptors)
    reflect = _("ask this server what its messages are (gRPC server reflection)")
    command.add_argument("--reflect", type=address, metavar=_("HOST:PORT"), help=reflect)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, or a port of this machine."""
    host, _colon, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", port_number(port)


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        words = _("a number from 0 on is needed, and this is {text}")
        raise argparse.ArgumentTypeError(words.format(text=repr(text)))
    return int(text)


def frame_type(text: str) -> int:
    with contextlib.suppress(KeyError):
        return FrameType[text.upper()]
    with contextlib.suppress(ValueError):
        if 0 <= (number := int(text, 0)) <= 0xFF:
            return number
    words = _("there is no frame type {text}: it is a number up to 255, or one of {names}")
    raise argparse.ArgumentTypeError(words.format(text=repr(text), names=", ".join(FrameType.__members__)))
