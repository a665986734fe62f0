"""frames, messages, calls, windows, problems: a capture's records, one after the other.

A batch of packets goes through the pipeline and the stage that is needed, and what comes out is written before the next
is read, so that a pipe is shown as it comes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from capture import parallel
from capture.commands.common import (
    MISUSE,
    Refusal,
    Trouble,
    add_input,
    add_key_log,
    add_output,
    add_schema,
    asking_tshark,
    batches,
    command,
    decoded,
    needs_sections,
    output_for,
    pipeline_for,
    schema_for,
)
from capture.events import Event, Problem
from capture.export import Writer
from capture.output import FrameRows, Lines, Table, selection
from capture.pcap import TLS_KEY_LOG, Reader
from capture.records import WindowSamples, stage
from capture.sources.files import open_capture
from kit.bootstrap import python
from kit.text import visible
from kit.words import _

OWN = "own"
WIRESHARKS = ("frames", "messages", "calls")
"""The kinds of records whose events Wireshark can give."""


def add(commands: Any) -> None:
    for kind, described in (
        ("frames", _("every HTTP/2 frame")),
        ("messages", _("every gRPC message")),
        ("calls", _("every gRPC call: method, status, times, counts")),
        ("windows", _("flow-control windows, each time that one changes")),
        ("problems", _("what is lost, impossible or unreadable")),
    ):
        parser = command(commands, kind, _run, described, type=[], engine=OWN)
        add_input(parser)
        if kind in WIRESHARKS:
            engines = _("who decodes: the kit itself (default), or Wireshark, which decrypts TLS where it has keys")
            parser.add_argument("--engine", choices=(OWN, "wireshark"), default=OWN, help=engines)
            add_key_log(parser)
        add_output(parser, kind)
        add_schema(parser)


def _run(options: argparse.Namespace) -> None:
    """frames, messages, calls, windows, problems."""
    if options.engine != OWN:
        return _run_wireshark(options)
    if getattr(options, "keylog", None) is not None:
        raise Refusal(MISUSE, _("--keylog is for Wireshark, which decrypts: --engine wireshark"))
    trouble = Trouble(options.file)
    with open_capture(options.file) as packets:
        schema = schema_for(options)
        output = output_for(options, packets, schema)
        is_shareable = options.kind in parallel.KINDS and options.format in parallel.FORMATS
        # Frame headers alone cost less than a second process's reading of all packets.
        if isinstance(output, Lines) and is_shareable and needs_sections(options):
            count = parallel.processes(options.file)
            if count > 1:
                parallel.decode(_share, options, count, output.put, trouble)
                return trouble.tell(_about_tls(options, packets))
        made = stage("events" if isinstance(output, FrameRows) else options.kind, schema)
        is_empty = True
        for events in decoded(packets, pipeline_for(options), trouble):
            output.show(records := made.feed(events))
            is_empty &= not records
        output.show(records := made.finish())
        is_empty &= not records
        if options.kind == "problems":
            output.show(packets.problems)
        if isinstance(made, WindowSamples) and isinstance(output, Table):
            output.show_blocked(made.blocked)
        trouble.note(packets.problems)
        output.finish()
        if options.kind == "problems" and isinstance(output, Table) and is_empty and not trouble:
            print(_("No problems: nothing was lost, impossible or unreadable."))
    return trouble.tell(_about_tls(options, packets))


def _about_tls(options: argparse.Namespace, packets: Reader) -> str:
    """How to go on where there is TLS."""
    kind = options.kind if options.kind in WIRESHARKS else WIRESHARKS[0]
    command = f"{python()} -m capture {kind} {visible(options.file)} --engine wireshark"
    if any(secrets.kind == TLS_KEY_LOG for secrets in packets.secrets):
        return _("the file has its keys: {command}").format(command=command)
    return _("with its keys: {command}").format(command=f"{command} --keylog {_('FILE')}")


def _run_wireshark(options: argparse.Namespace) -> None:
    """The same of the events that Wireshark gives."""
    from capture.sources import tshark
    from capture.sources.opinions import circumstances

    trouble = Trouble(options.file)
    schema = schema_for(options)
    damage: list[Problem] = []
    with asking_tshark(options):
        tshark.program()  # where it is missing, that is said before a long file is read
        reading = circumstances(options.file, options.port)
        output = output_for(options, reading, schema)
        made = stage("events" if isinstance(output, FrameRows) else options.kind, schema)
        for events in batches(tshark.events(options.file, reading, options.port, options.keylog, damage)):
            trouble.note(events)
            output.show(made.feed(events))
    output.show(made.finish())
    output.finish()
    trouble.note(damage)
    trouble.tell()


def _share(options: argparse.Namespace, share: tuple[int, int]) -> Iterator[parallel.Step]:
    """The records of every n-th connection, from the i-th on, batch by batch: what one of several processes does."""
    wanted = selection(options.connection, options.stream, options.type)
    writer = Writer(options.kind, options.format, options.fields)

    def step(horizon: int, events: list[Event], records: Sequence[Any], problems: Sequence[Problem]) -> parallel.Step:
        chosen = records if wanted is None else list(filter(wanted, records))
        told = [event for event in events if type(event) is Problem]
        return parallel.Step(horizon, [one.packet for one in chosen], writer.lines(chosen), [*told, *problems])

    with open_capture(options.file) as packets:
        made = stage(options.kind, schema_for(options))
        pipeline = pipeline_for(options, share)
        for batch in batches(packets):
            events = pipeline.feed(batch)
            yield step(pipeline.horizon, events, made.feed(events), ())
        events = pipeline.finish()
        damage = packets.problems if share[0] == 0 else ()
        yield step(sys.maxsize, events, [*made.feed(events), *made.finish()], damage)
