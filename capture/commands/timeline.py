"""timeline: a capture as a picture."""

from __future__ import annotations

import argparse
from itertools import chain
from typing import Any

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
)
from capture.output import selection
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from kit.options import written_file
from kit.text import visible
from kit.words import _

VIEWS = ("timeline",)


def add(commands: Any) -> None:
    parser = command(commands, "timeline", _run, _("a picture: a lane per stream"))
    add_input(parser)
    add_schema(parser)
    parser.add_argument("--view", choices=VIEWS, default=VIEWS[0], help=_("which picture"))
    parser.add_argument("--linear", action="store_true", help=_("a linear axis of time, nothing folded"))
    name = _("where to: png, svg or pdf (default: {file})").format(file="timeline.png")
    parser.add_argument("-o", "--output", type=written_file, default="timeline.png", metavar=_("FILE"), help=name)


def _run(options: argparse.Namespace) -> None:
    from capture.views import timeline
    from capture.views.picture import FORMATS as PICTURES

    if options.output.rpartition(".")[2].lower() not in PICTURES:
        words = _("{file}: a picture's name ends in {endings}")
        endings = ", ".join(f".{ending}" for ending in PICTURES)
        raise Refusal(MISUSE, words.format(file=visible(options.output), endings=endings))
    trouble = Trouble(options.file)
    wanted = selection(options.connection, options.stream)
    with open_capture(options.file) as packets:
        events = chain.from_iterable(decoded(packets, Pipeline(ports=options.port), trouble))
        chosen = events if wanted is None else filter(wanted, events)
        data = timeline.lanes(chosen, schema=schema_for(options), linear=options.linear)
        data = data._replace(is_synthesised=packets.synthesised)
        trouble.note(packets.problems)
    if not data.frames:
        trouble.tell()
        raise Refusal(BAD_INPUT, _("{file}: no HTTP/2 frames to draw").format(file=visible(options.file)))
    timeline.save(data, options.output)
    print(timeline.facts(data))
    trouble.tell()
