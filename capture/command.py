"""The command line of `capture`: what a capture holds, as tables, lines for programs, and pictures.

A command opens its input, feeds batches of packets through the pipeline and the stage that it needs, and writes what
comes out before it reads on, so that a pipe is shown as it comes. Modules that take long to load are imported by the
commands that need them: `frames` on a small file is there at once.

Exit status: 0 done (a damaged capture is read as far as it can be, and one line on standard error says so), 1 the input
is no capture, 2 the command was misused, 3 the environment lacks something.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType as StackFrame
from typing import TYPE_CHECKING, Any

from capture import parallel
from capture.events import Event, FrameType, Packet, Problem
from capture.export import COLUMNS, FORMATS, UnknownColumn, Writer
from capture.output import Columns, FrameRows, Lines, Output, Source, Table, selection
from capture.pcap import CaptureError
from capture.pipeline import Pipeline
from capture.records import WindowSamples, stage
from capture.sources.files import STANDARD_INPUT, is_regular, open_capture
from kit.options import Parser, port_number
from kit.text import visible
from kit.words import _, language_from, ngettext, use_utf8

if TYPE_CHECKING:
    from capture.protobuf import Schema
    from capture.views.style import Paint

DONE, BAD_INPUT, MISUSE, LACKING = range(4)
VIEWS = ("timeline",)
NEED_SECTIONS = {"fields", "client", "server", "direction"}
"""Columns of frames for which field sections have to be decoded: they say who is the client where nothing else does."""


HPACK_COLUMNS = 110
"""Where the output has no width of its own."""
TAP_PATIENCE = 0.5
"""Seconds after which a tap that nothing passes through looks whether Ctrl-C was pressed (Windows does not wake it)."""


class Refusal(Exception):
    """Why a command cannot go on, in one sentence, and the exit status for it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def main(arguments: list[str]) -> int:
    # Events hold no cycles: looking for some every 700 records costs a fifth of the time, and finds none.
    gc.set_threshold(100_000, 20, 50)
    use_utf8()
    language_from(arguments)
    options = _parser().parse_args(arguments)
    try:
        with _interruptible():
            options.run(options)
            sys.stdout.flush()
    except Refusal as refusal:
        return _complain(str(refusal), refusal.status)
    except CaptureError as error:
        return _complain(f"{visible(options.file)}: {error}", _status_of(error))
    except BrokenPipeError:
        # Who reads our output has seen enough. What Python flushes at its exit goes nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        pass
    except OSError as error:
        return _complain(visible(f"{error.filename}: {error.strerror}" if error.filename else str(error)), LACKING)
    return DONE


def _complain(sentence: str, status: int) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"capture: {sentence}", file=sys.stderr)
    return status


def _status_of(error: CaptureError) -> int:
    cause = error.__context__
    if isinstance(cause, PermissionError):
        return LACKING
    return MISUSE if isinstance(cause, OSError | ValueError) else BAD_INPUT


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
def _interruptible() -> Iterator[None]:
    before = {number: signal.signal(number, _interruption) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interruption.is_asked_for = False


def _batches(packets: Iterable[list[Packet]]) -> Iterator[list[Packet]]:
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


# --- the commands


def _records(options: argparse.Namespace) -> None:
    """frames, messages, calls, windows, problems."""
    trouble = _Trouble(options.file)
    with open_capture(options.file) as packets:
        schema = _schema(options)
        output = _output(options, packets, schema)
        is_shareable = options.kind in parallel.KINDS and options.format in parallel.FORMATS
        # Frame headers alone cost less than a second process's reading of all packets.
        if isinstance(output, Lines) and is_shareable and _needs_sections(options):
            count = parallel.processes(options.file)
            if count > 1:
                parallel.decode(_share, options, count, output.put, trouble)
                return trouble.tell()
        made = stage("events" if isinstance(output, FrameRows) else options.kind, schema)
        pipeline = _pipeline(options)
        for batch in _batches(packets):
            events = pipeline.feed(batch)
            trouble.note(events)
            output.show(made.feed(events))
        events = pipeline.finish()
        trouble.note(events)
        output.show(made.feed(events))
        output.show(made.finish())
        if options.kind == "problems":
            output.show(packets.problems)
        if isinstance(made, WindowSamples) and isinstance(output, Table):
            output.show_blocked(made.blocked)
        trouble.note(packets.problems)
        output.finish()
    return trouble.tell()


def _hpack(options: argparse.Namespace) -> None:
    """A connection's field blocks, instruction by instruction."""
    from capture.views import hpack

    paint, width = _terminal()
    trouble = _Trouble(options.file)
    shown = 0
    with open_capture(options.file) as packets:
        pipeline = Pipeline(ports=options.port, trace=True)
        blocks = hpack.Blocks(options.connection or 0)
        for batch in itertools.chain(_batches(packets), (None,)):
            events = pipeline.finish() if batch is None else pipeline.feed(batch)
            trouble.note(events)
            for block in blocks.feed(events):
                if options.block in (None, block.number) and options.stream in (None, block.frame.stream_id):
                    shown += 1
                    print(hpack.render(block, paint, width or HPACK_COLUMNS), flush=True)
        trouble.note(packets.problems)
    trouble.tell()
    if not shown:
        words = _("{file}: connection {number} has no such field block")
        raise Refusal(BAD_INPUT, words.format(file=visible(options.file), number=options.connection or 0))


def _share(options: argparse.Namespace, share: tuple[int, int]) -> Iterator[parallel.Step]:
    """The records of every n-th connection, from the i-th on, batch by batch: what one of several processes does."""
    wanted = selection(options.connection, options.stream, options.type)
    writer = Writer(options.kind, options.format, options.fields)

    def step(horizon: int, events: list[Event], records: Sequence[Any], problems: Sequence[Problem]) -> parallel.Step:
        chosen = records if wanted is None else list(filter(wanted, records))
        told = [event for event in events if type(event) is Problem]
        return parallel.Step(horizon, [one.packet for one in chosen], writer.lines(chosen), [*told, *problems])

    with open_capture(options.file) as packets:
        made = stage(options.kind, _schema(options))
        pipeline = _pipeline(options, share)
        for batch in _batches(packets):
            events = pipeline.feed(batch)
            yield step(pipeline.horizon, events, made.feed(events), ())
        events = pipeline.finish()
        damage = packets.problems if share[0] == 0 else ()
        yield step(sys.maxsize, events, [*made.feed(events), *made.finish()], damage)


def _pipeline(options: argparse.Namespace, share: tuple[int, int] = (0, 1)) -> Pipeline:
    """Field sections are decoded only where what was asked for needs them. Standard input that is no file shows what
    there is at once."""
    live = options.file == STANDARD_INPUT and not is_regular(sys.stdin)
    return Pipeline(ports=options.port, sections=_needs_sections(options), live=live, share=share)


def _needs_sections(options: argparse.Namespace) -> bool:
    return options.kind != "frames" or not options.fields or not NEED_SECTIONS.isdisjoint(options.fields)


def _output(options: argparse.Namespace, packets: Source, schema: Schema | None) -> Output:
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
    paint, width = _terminal()
    if options.kind != "frames":
        return Table(sys.stdout, options.kind, packets, wanted, paint, width)
    return FrameRows(sys.stdout, packets, wanted, paint, width, schema, grouped=options.file != STANDARD_INPUT)


def _terminal() -> tuple[Paint, int | None]:
    """How to colour, and how wide: the terminal's width, or COLUMNS, or (in a pipe) as wide as it comes."""
    from capture.views.style import Paint

    is_told = os.environ.get("COLUMNS", "").isdigit()
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() or is_told else None
    return Paint.of(sys.stdout), columns


def _schema(options: argparse.Namespace) -> Schema | None:
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
        return fetch(_host_port(server))
    except SchemaError as error:
        raise Refusal(LACKING, visible(str(error))) from None


class _Trouble:
    """What went wrong, for one line at the end."""

    def __init__(self, file: str) -> None:
        self._file = visible(file)
        self._count = 0
        self._worst: Problem | None = None

    def note(self, events: Sequence[Event]) -> None:
        for event in events:
            if type(event) is Problem:
                self._count += 1
                # Damage of the file itself explains most of the rest; otherwise the first says more than what follows.
                if self._worst is None or (event.layer == "capture" and self._worst.layer != "capture"):
                    self._worst = event

    def tell(self) -> None:
        if self._worst is None:
            return
        from capture.views.describe import problem_in_words

        sys.stdout.flush()
        line = f"capture: {self._file}: {problem_in_words(self._worst)}"
        if more := self._count - 1:
            words = ngettext("and {n} more problem: {command}", "and {n} more problems: {command}", more)
            line += " · " + words.format(n=more, command=f"python -m capture problems {self._file}")
        print(line, file=sys.stderr)


def _timeline(options: argparse.Namespace) -> None:
    from capture.views import timeline
    from capture.views.picture import FORMATS as PICTURES

    if options.output.rpartition(".")[2].lower() not in PICTURES:
        words = _("{file}: a picture's name ends in {endings}")
        endings = ", ".join(f".{ending}" for ending in PICTURES)
        raise Refusal(MISUSE, words.format(file=visible(options.output), endings=endings))
    trouble = _Trouble(options.file)
    wanted = selection(options.connection, options.stream)
    with open_capture(options.file) as packets:
        pipeline = Pipeline(ports=options.port)

        def events() -> Iterator[Event]:
            for batch in _batches(packets):
                yield from chosen(pipeline.feed(batch))
            yield from chosen(pipeline.finish())

        def chosen(new: list[Event]) -> Iterable[Event]:
            trouble.note(new)
            return new if wanted is None else filter(wanted, new)

        data = timeline.lanes(events(), schema=_schema(options), linear=options.linear)
        data = data._replace(is_synthesised=packets.synthesised)
        trouble.note(packets.problems)
    if not data.frames:
        trouble.tell()
        raise Refusal(BAD_INPUT, _("{file}: no HTTP/2 frames to draw").format(file=visible(options.file)))
    timeline.save(data, options.output)
    print(timeline.facts(data))
    trouble.tell()


class _Tapped:
    """What an output asks of its source."""

    synthesised = True


def _tap(options: argparse.Namespace) -> None:
    """Frames as they pass, until Ctrl-C."""
    from capture.sources.tap import Tap, TapError

    output = _output(options, _Tapped(), _schema(options))
    made = stage("events" if isinstance(output, FrameRows) else options.kind, None)
    pipeline = Pipeline(ports={options.server[1]}, live=True)
    told = passed = 0
    try:
        with Tap(options.server, options.listen, write=options.write) as tap:
            words = _("{address} forwards to {server}; Ctrl-C ends it")
            print(words.format(address=tap.address, server=_host_port(options.server)), file=sys.stderr, flush=True)

            def batches() -> Iterator[list[Packet]]:
                while True:
                    yield tap.packets(TAP_PATIENCE)

            for batch in _batches(batches()):
                passed += len(batch)
                output.show(made.feed(pipeline.feed(batch)))
                told += _tell_new(tap.problems[told:])
        for batch in tap:
            passed += len(batch)
            output.show(made.feed(pipeline.feed(batch)))
        output.show(made.feed(pipeline.finish()))
        output.finish()
        _tell_new(tap.problems[told:])
        if options.write:
            words = ngettext("{file}: {n} packet · {command}", "{file}: {n} packets · {command}", passed)
            file = visible(options.write)
            print(
                words.format(file=file, n=passed, command=f"python -m capture frames {file}"),
                file=sys.stderr,
            )
    except TapError as error:
        raise Refusal(LACKING, str(error)) from None


def _tell_new(problems: list[Problem]) -> int:
    if problems:
        from capture.views.describe import problem_in_words

        for problem in problems:
            print(f"capture: {problem_in_words(problem)}", file=sys.stderr, flush=True)
    return len(problems)


def _host_port(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- the command line


def _parser() -> Parser:
    parser = Parser(prog="python -m capture", description=_("What went over the wire: every HTTP/2 frame, in words."))
    # mypy: the stubs want a class where argparse calls whatever there is
    commands: Any = parser.add_subparsers(metavar=_("COMMAND"), required=True, parser_class=_command_parser)  # type: ignore[call-overload]
    for kind, described in (
        ("frames", _("every HTTP/2 frame")),
        ("messages", _("every gRPC message")),
        ("calls", _("every gRPC call: method, status, times, counts")),
        ("windows", _("flow-control windows, each time that one changes")),
        ("problems", _("what is lost, impossible or unreadable")),
    ):
        command = commands.add_parser(kind, help=described, description=described)
        command.set_defaults(run=_records, kind=kind, type=[])
        _add_input(command)
        _add_output(command, kind)
        _add_schema(command)
    described = _("a connection's HPACK: each field block's instructions, and the dynamic table behind it")
    command = commands.add_parser("hpack", help=described, description=described)
    command.set_defaults(run=_hpack, kind="hpack")
    _add_input(command)
    command.add_argument("--block", type=_count, metavar=_("NUMBER"), help=_("only this field block, from 1"))
    described = _("a picture: a lane per stream")
    command = commands.add_parser("timeline", help=described, description=described)
    command.set_defaults(run=_timeline, kind="timeline")
    _add_input(command)
    _add_schema(command)
    command.add_argument("--view", choices=VIEWS, default=VIEWS[0], help=_("which picture"))
    command.add_argument("--linear", action="store_true", help=_("a linear axis of time, nothing folded"))
    name = _("where to: png, svg or pdf (default: {file})").format(file="timeline.png")
    command.add_argument("-o", "--output", default="timeline.png", metavar=_("FILE"), help=name)
    described = _("a proxy in front of a server, that shows frames as they pass; no admin rights needed")
    command = commands.add_parser("tap", help=described, description=described)
    command.set_defaults(run=_tap, kind="frames", file=STANDARD_INPUT)
    listen = _("where clients connect to instead of the server (0 takes a free port and says which)")
    command.add_argument("--listen", type=_address, required=True, metavar=_("PORT"), help=listen)
    server = _("the server that it forwards to")
    command.add_argument("--server", type=_address, required=True, metavar=_("HOST:PORT"), help=server)
    command.add_argument(
        "--write", metavar=_("FILE"), help=_("a pcapng of what passes, for this program and Wireshark")
    )
    _add_selection(command)
    _add_output(command, "frames")
    _add_schema(command)
    return parser


def _command_parser(*, prog: str, description: str, **_unused: Any) -> Parser:
    return Parser(prog=prog, description=description)


def _add_input(command: Parser) -> None:
    command.add_argument("file", metavar=_("FILE"), help=_("pcap or pcapng, gzip or not; - is standard input"))
    ports = _("this TCP port speaks HTTP/2, preface seen or not (may be given again)")
    command.add_argument("--port", action="append", type=port_number, default=[], metavar=_("NUMBER"), help=ports)
    _add_selection(command)


def _add_selection(command: Parser) -> None:
    command.add_argument("--connection", type=_count, metavar=_("NUMBER"), help=_("only this TCP connection, from 0"))
    command.add_argument("--stream", type=_count, metavar=_("NUMBER"), help=_("only this stream; 0 is the connection"))


def _add_output(command: Parser, kind: str) -> None:
    formats = _("table, for people (default), or lines for programs")
    command.add_argument("--format", choices=("table", *FORMATS), default="table", help=formats)
    names = _("only these columns: {names}").format(names=", ".join(COLUMNS[kind]))
    command.add_argument("--fields", type=_names, metavar=_("NAME,NAME…"), help=names)
    if kind == "frames":
        types = _("only frames of this type (may be given again)")
        command.add_argument("--type", action="append", type=_frame_type, metavar=_("NAME|NUMBER"), help=types)


def _add_schema(command: Parser) -> None:
    proto = _("a .proto file that describes the messages (may be given again)")
    command.add_argument("--proto", action="append", default=[], metavar=_("FILE"), help=proto)
    descriptors = _("what protoc --descriptor_set_out --include_imports wrote")
    command.add_argument("--descriptor-set", metavar=_("FILE"), help=descriptors)
    reflect = _("ask this server what its messages are (gRPC server reflection)")
    command.add_argument("--reflect", type=_address, metavar=_("HOST:PORT"), help=reflect)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, or a port of this machine."""
    host, _colon, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", port_number(port)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        words = _("a number from 0 on is needed, and this is {text}")
        raise argparse.ArgumentTypeError(words.format(text=repr(text)))
    return int(text)


def _frame_type(text: str) -> int:
    with contextlib.suppress(KeyError):
        return FrameType[text.upper()]
    with contextlib.suppress(ValueError):
        if 0 <= (number := int(text, 0)) <= 0xFF:
            return number
    words = _("there is no frame type {text}: it is a number up to 255, or one of {names}")
    raise argparse.ArgumentTypeError(words.format(text=repr(text), names=", ".join(FrameType.__members__)))
