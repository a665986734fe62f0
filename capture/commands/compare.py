"""compare: every frame of ours beside Wireshark's, or beside that of scapy's own HTTP/2 layer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from capture.commands.common import (
    BAD_INPUT,
    Refusal,
    Trouble,
    add_input,
    add_key_log,
    asking_tshark,
    batches,
    command,
    terminal,
)
from capture.compare import Comparison
from kit.text import visible
from kit.words import _


def add(commands: Any) -> None:
    described = _("every frame of ours beside Wireshark's, and what differs")
    parser = command(commands, "compare", _run, described)
    add_input(parser)
    others = _("who is asked for the second opinion (default: wireshark)")
    parser.add_argument("--with", dest="other", choices=("wireshark", "scapy"), default="wireshark", help=others)
    add_key_log(parser)
    formats = _("table, for people (default), or a line of JSON for each frame")
    parser.add_argument("--format", choices=("table", "jsonl"), default="table", help=formats)
    parser.add_argument("--all", action="store_true", help=_("list equal frames in a long capture, too"))


def _run(options: argparse.Namespace) -> None:
    from capture.views.comparison import render, summary

    trouble = Trouble(options.file)
    for comparison in batches(_compared(options, trouble)):
        chosen = comparison.only(options.connection, options.stream)
        if options.format == "jsonl":
            _write_lines(chosen)
            print(summary(chosen), file=sys.stderr)
        else:
            paint, columns = terminal()
            for line in render(chosen, every=options.all, columns=columns, paint=paint):
                print(line)
        trouble.tell()
        if chosen.differences:
            words = _("{file}: {n} of {all} frames are not the same")
            file = visible(options.file)
            raise Refusal(BAD_INPUT, words.format(file=file, n=chosen.differences, all=len(chosen.rows)))


def _compared(options: argparse.Namespace, trouble: Trouble) -> Iterator[Comparison]:
    """Once, unless Ctrl-C comes first."""
    from capture.sources.opinions import compare_with

    with asking_tshark(options):
        yield compare_with(options.other, options.file, options.port, options.keylog, trouble.note)


def _write_lines(comparison: Comparison) -> None:
    from capture.export import to_json

    for row in comparison.rows:
        record = {
            "verdict": row.verdict,
            "connection": row.frame.connection,
            "sender": row.frame.sender,
            "ours": row.ours and row.ours.record,
            "theirs": row.theirs and row.theirs.record,
            "differences": [one._asdict() for one in row.differences],
            "trait": row.trait,
        }
        print(to_json(record))
