"""hpack: a connection's field blocks, instruction by instruction."""

from __future__ import annotations

import argparse
from typing import Any

from capture.commands.common import BAD_INPUT, Refusal, Trouble, add_input, command, count, decoded, terminal
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from kit.text import visible
from kit.words import _

COLUMNS = 110
"""Where the output has no width of its own."""


def add(commands: Any) -> None:
    described = _("a connection's HPACK: each field block's instructions, and the dynamic table behind it")
    parser = command(commands, "hpack", _run, described)
    add_input(parser)
    parser.add_argument("--block", type=count, metavar=_("NUMBER"), help=_("only this field block, from 1"))


def _run(options: argparse.Namespace) -> None:
    """A connection's field blocks, instruction by instruction."""
    from capture.views import hpack

    paint, width = terminal()
    trouble = Trouble(options.file)
    shown = 0
    with open_capture(options.file) as packets:
        blocks = hpack.Blocks(options.connection or 0)
        for events in decoded(packets, Pipeline(ports=options.port, trace=True), trouble):
            for block in blocks.feed(events):
                if options.block in (None, block.number) and options.stream in (None, block.frame.stream_id):
                    shown += 1
                    print(hpack.render(block, paint, width or COLUMNS), flush=True)
        trouble.note(packets.problems)
    trouble.tell()
    if not shown:
        words = _("{file}: connection {number} has no such field block")
        raise Refusal(BAD_INPUT, words.format(file=visible(options.file), number=options.connection or 0))
