"""score: what a capture tells of calls, against what their own ends logged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from capture.commands.common import (
    BAD_INPUT,
    MISUSE,
    Refusal,
    Trouble,
    add_file,
    add_schema,
    command,
    decoded,
    schema_for,
    terminal,
)
from capture.pipeline import Pipeline
from capture.sources.files import open_capture
from kit.text import visible
from kit.words import _


def add(commands: Any) -> None:
    described = _("what the capture tells of calls, against what the server and the clients logged with --truth")
    parser = command(commands, "score", _run, described)
    add_file(parser)
    truth = _("what a server or a client with --truth wrote (may be given again)")
    parser.add_argument("--truth", action="append", required=True, metavar=_("LOG"), help=truth)
    formats = _("table, for people (default), or a line of JSON for each call and message")
    parser.add_argument("--format", choices=("table", "jsonl"), default="table", help=formats)
    add_schema(parser)


def _run(options: argparse.Namespace) -> None:
    from capture.evidence import Seen
    from capture.export import to_json
    from capture.protobuf import Schema
    from capture.score import NO_CONNECTION, UNKNOWN, WRONG, Score
    from capture.views.verdicts import record, render, summary

    logs = [_log(name) for name in options.truth]
    seen = Seen(schema_for(options) or Schema.default())
    trouble = Trouble(options.file)
    with open_capture(options.file) as packets:
        for events in decoded(packets, Pipeline(ports=options.port), trouble):
            seen.feed(events)
        trouble.note(packets.problems)
    seen.finish()
    score = Score(logs, seen)
    names = [Path(name).name for name in options.truth]
    if options.format == "jsonl":
        for finding in score.findings:
            print(to_json(record(finding, names)))
        print(summary(score), file=sys.stderr)
    else:
        paint, _columns = terminal()
        for line in render(score, names, paint):
            print(line)
    trouble.tell()
    if packets.synthesised and score.counts["call", UNKNOWN, NO_CONNECTION]:
        print(
            "capture: " + _("a tap's capture has the clients' own addresses: give the clients' logs"), file=sys.stderr
        )
    if score.count(WRONG):
        words = _("{file}: the capture tells something wrong")
        raise Refusal(BAD_INPUT, words.format(file=visible(options.file)))


def _log(name: str) -> Any:
    from capture.evidence import TruthError, read_truth

    try:
        with Path(name).open("rb") as lines:
            return read_truth(lines)
    except TruthError as error:
        raise Refusal(BAD_INPUT, f"{visible(name)}: {error}") from None
    except (OSError, ValueError) as error:
        raise Refusal(MISUSE, visible(f"{name}: {getattr(error, 'strerror', error)}")) from None
