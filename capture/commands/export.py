"""export: a capture as a file for trace viewers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capture.commands.common import (
    BAD_INPUT,
    MISUSE,
    Refusal,
    Trouble,
    add_input,
    add_schema,
    command,
    decoded,
    schema_for,
    writing,
)
from capture.output import selection
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from kit.options import written_file
from kit.text import visible
from kit.words import _, ngettext

if TYPE_CHECKING:
    from capture.views.trace import Trace, TraceEvent

VIEWERS = "ui.perfetto.dev, chrome://tracing"


def add(commands: Any) -> None:
    described = _("a trace for Perfetto and chrome://tracing: a track for each end of a stream, arrows for messages")
    parser = command(commands, "export", _run, described)
    add_input(parser)
    add_schema(parser)
    name = _("where to (default: {file})").format(file="trace.json")
    parser.add_argument("-o", "--output", type=written_file, default="trace.json", metavar=_("FILE"), help=name)


def _run(options: argparse.Namespace) -> None:
    from capture.protobuf import Schema
    from capture.views.trace import Trace

    files = [Path(options.file), Path(options.output)]
    if all(file.exists() for file in files) and files[0].samefile(files[1]):
        raise Refusal(MISUSE, _("{file} would be overwritten").format(file=visible(options.file)))
    trouble = Trouble(options.file)
    trace = Trace(schema_for(options) or Schema.default(), selection(options.connection, options.stream))
    with open_capture(options.file) as packets:
        made = _events(options, packets, trace, trouble)
        beginning = []
        for event in made:  # until there is something to show, there is no file
            beginning.append(event)
            if trace.frames:
                break
        if not trace.frames:
            trouble.tell()
            raise Refusal(BAD_INPUT, _("{file}: no HTTP/2 frames to export").format(file=visible(options.file)))
        _write(options.output, chain(beginning, made), trace, packets)
        trouble.note(packets.problems)
    told = ngettext("{file}: {n} frame · opens in {viewers}", "{file}: {n} frames · opens in {viewers}", trace.frames)
    print(told.format(file=visible(options.output), n=trace.frames, viewers=VIEWERS))
    if trace.left_out:
        words = ngettext(
            "{n} frame more is left out: no viewer shows so much; choose with --connection and --stream",
            "{n} frames more are left out: no viewer shows so much; choose with --connection and --stream",
            trace.left_out,
        )
        print(words.format(n=trace.left_out))
    trouble.tell()


def _events(options: argparse.Namespace, packets: Any, trace: Trace, trouble: Trouble) -> Iterator[TraceEvent]:
    for events in decoded(packets, Pipeline(ports=options.port), trouble):
        yield from trace.feed(events)
    yield from trace.finish()


def _write(name: str, events: Iterator[TraceEvent], trace: Trace, packets: Any) -> None:
    """One object, an event a line, so that an editor can show it and a reader can stop anywhere."""
    import orjson

    with writing(name), Path(name).open("wb") as out:
        out.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        border = b""
        for event in events:
            out.write(border + orjson.dumps(event))
            border = b",\n"
        about = {"start_ns": str(trace.start_ns), "synthesised": packets.synthesised, "frames_left_out": trace.left_out}
        out.write(b'\n],"otherData":' + orjson.dumps(about) + b"}\n")
