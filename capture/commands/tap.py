"""tap: a proxy in front of a server, that shows frames as they pass, and can make the line worse."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from capture.commands import faults
from capture.commands.common import (
    LACKING,
    MISUSE,
    Refusal,
    add_output,
    add_schema,
    add_selection,
    address,
    batches,
    command,
    output_for,
    schema_for,
    tell_new,
)
from capture.commands.console import lines_obeyed, say
from capture.events import Packet, Problem
from capture.pipeline import Pipeline
from capture.records import stage
from capture.sources.files import STANDARD_INPUT
from kit.bootstrap import python
from kit.certificates import (
    FOLDER,
    CertificateError,
    lab_certificate,
    own_names,
    problem_with_authorities,
    problem_with_choice,
    problem_with_pair,
)
from kit.options import file_path, host_port, written_file
from kit.text import visible
from kit.words import _, ngettext

if TYPE_CHECKING:
    import ssl

TAP_PATIENCE = 0.5
"""Seconds after which a tap that nothing passes through looks whether Ctrl-C was pressed (Windows does not wake it)."""
QUIET_SECONDS = 10
"""A client that does not get through tries again every few seconds."""
PROMPT = "tap ▸ "


def add(commands: Any) -> None:
    described = _("a proxy in front of a server, that shows frames as they pass; no admin rights needed")
    parser = command(commands, "tap", _run, described, kind="frames", file=STANDARD_INPUT)
    listen = _("where clients connect to instead of the server (0 takes a free port and says which)")
    parser.add_argument("--listen", type=address, required=True, metavar=_("PORT"), help=listen)
    server = _("the server that it forwards to")
    parser.add_argument("--server", type=address, required=True, metavar=_("HOST:PORT"), help=server)
    name = _("a pcapng of what passes, for this program and Wireshark")
    parser.add_argument("--write", type=written_file, metavar=_("FILE"), help=name)
    add_selection(parser)
    add_output(parser, "frames")
    add_schema(parser)
    _add_tls(parser)
    faults.add_options(parser)


def _add_tls(parser: argparse.ArgumentParser) -> None:
    tls = parser.add_argument_group("TLS")
    made = _("clients speak TLS to the tap, with a certificate that is made and kept in the folder (default: {folder})")
    tls.add_argument(
        "--tls", type=file_path, nargs="?", const=FOLDER, metavar=_("FOLDER"), help=made.format(folder=FOLDER.name)
    )
    given = _("clients speak TLS to the tap, with the certificate (and its chain) in this PEM file")
    tls.add_argument("--tls-cert", type=file_path, metavar=_("FILE"), help=given)
    key = _("the certificate's private key (default: it is in the same file)")
    tls.add_argument("--tls-key", type=file_path, metavar=_("FILE"), help=key)
    onwards = _("the tap speaks TLS to the server, and trusts whom this system trusts")
    tls.add_argument("--server-tls", action="store_true", help=onwards)
    authority = _("the same, and trusts a server whose certificate is signed by who is in this PEM file")
    tls.add_argument("--ca", type=file_path, metavar=_("FILE"), help=authority)
    log = _("where the keys of these connections go, in the form that Wireshark reads")
    tls.add_argument("--key-log", type=written_file, metavar=_("FILE"), help=log)
    records = _("what is recorded: what is inside TLS (default), or TLS itself with its keys, for Wireshark to decrypt")
    tls.add_argument("--record", choices=("plaintext", "wire"), default="plaintext", help=records)


class _Troubles:
    """The tap's problems on standard error, with what helps where that is known. Who comes again and again, as clients
    do, has the same one each time: told again is only what had not come for QUIET_SECONDS."""

    def __init__(self, trusts_given: bool) -> None:
        self._trusts_given = trusts_given
        self._newest: Problem | None = None
        self._last_ns: dict[tuple[str, str], int] = {}
        """Of each problem, by its template and its reason."""
        self._hinted: set[str] = set()

    def tell(self, problems: list[Problem]) -> None:
        """The latest that the tap has had, oldest first."""
        new = takewhile(lambda problem: problem is not self._newest, reversed(problems))
        for problem in reversed(list(new)):
            kind = problem.template, str(problem.values.get("reason"))
            before_ns = self._last_ns.get(kind)
            self._last_ns[kind] = problem.time_ns
            if before_ns is None or problem.time_ns - before_ns > QUIET_SECONDS * 1e9:
                tell_new([problem])
                hint = self._hint(problem)
                if hint not in self._hinted:
                    self._hinted.add(hint)
                    say(hint)
            self._newest = problem

    def had(self, template: str) -> bool:
        return any(template == kind for kind, _reason in self._last_ns)

    def _hint(self, problem: Problem) -> str:
        """Empty where none is known."""
        from capture.sources.relay import SERVER_TLS_FAILED, SILENT_SERVER

        if problem.template == SILENT_SERVER:
            return _("if it speaks TLS, --ca FILE says whom the tap is to trust; --server-tls trusts the system's")
        if problem.template != SERVER_TLS_FAILED:
            return ""
        if problem.values["reason"] == "WRONG_VERSION_NUMBER":
            return _("what answers there does not speak TLS; leave out --server-tls and --ca")
        if self._trusts_given or not any(word in problem.values["reason"] for word in ("issuer", "self-signed")):
            return ""
        return _("the tap trusts whom this system trusts; --ca FILE says whom to trust instead")


class _Tapped:
    """What an output asks of its source."""

    synthesised = True


def _run(options: argparse.Namespace) -> None:
    """Frames as they pass, until Ctrl-C."""
    from capture.sources.recording import NOT_WRITTEN
    from capture.sources.tap import Tap, TapError

    try:
        initial = faults.from_options(options)
    except ValueError as problem:
        raise Refusal(MISUSE, str(problem)) from None
    schema = schema_for(options)
    made = stage("events" if options.format == "table" and not options.fields else options.kind, None)
    pipeline = Pipeline(ports={options.server[1]}, live=True)
    troubles = _Troubles(options.ca is not None)
    passed = 0
    try:
        tap = Tap(options.server, options.listen, write=options.write, **_tls(options))
        control = faults.Control(tap, initial)
        with contextlib.ExitStack() as undo:
            undo.callback(control.close)
            undo.enter_context(tap)
            undo.enter_context(lines_obeyed(control.obey, PROMPT, options.format == "table"))
            output = output_for(options, _Tapped(), schema)
            words = _("{address} forwards to {server}; Ctrl-C ends it")
            say(words.format(address=tap.address, server=host_port(*options.server)))
            if any(initial.values()):
                say(control.told())
            if options.tls is not None:
                words = _("clients trust it with {option}")
                say(words.format(option=f"--ca {visible(str(options.tls / 'ca.pem'))}"))

            def passing() -> Iterator[list[Packet]]:
                while True:
                    yield tap.packets(TAP_PATIENCE)

            for batch in batches(passing()):
                passed += len(batch)
                output.show(made.feed(pipeline.feed(batch)))
                troubles.tell(tap.problems)
            tap.close()
            for batch in tap:
                passed += len(batch)
                output.show(made.feed(pipeline.feed(batch)))
            output.show(made.feed(pipeline.finish()))
            output.finish()
            troubles.tell(tap.problems)
    except TapError as error:
        raise Refusal(LACKING, str(error)) from None
    if options.write:
        if troubles.had(NOT_WRITTEN):
            raise Refusal(LACKING, _("{file}: not all that passed is in it").format(file=visible(options.write)))
        words = ngettext("{file}: {n} packet · {command}", "{file}: {n} packets · {command}", passed)
        file = visible(options.write)
        read = f"{python()} -m capture frames {file}" + (" --engine wireshark" if options.record == "wire" else "")
        say(words.format(file=file, n=passed, command=read))


def _tls(options: argparse.Namespace) -> dict[str, Any]:
    """The tap's arguments about TLS."""
    from capture.sources.ends import context_towards_clients, context_towards_server

    certificate, key = options.tls_cert, options.tls_key or options.tls_cert
    problem = problem_with_choice(options.tls, certificate, options.tls_key)
    if problem is None and certificate is not None:
        problem = problem_with_pair(certificate, key)
    if problem is None and options.ca is not None:
        problem = problem_with_authorities(options.ca)
    is_towards_server = options.server_tls or options.ca is not None
    has_tls = options.tls is not None or certificate is not None or is_towards_server
    if problem is None and not has_tls and (options.key_log is not None or options.record == "wire"):
        problem = _("without TLS there are no keys: --tls, --tls-cert, --server-tls or --ca")
    if problem is not None:
        raise Refusal(MISUSE, visible(problem))
    if options.tls is not None:
        try:
            certificate = key = lab_certificate(options.tls, own_names(options.listen[0])).server
        except CertificateError as error:
            raise Refusal(LACKING, visible(str(error))) from None
    contexts: dict[str, ssl.SSLContext | None] = {
        "tls": None if certificate is None else context_towards_clients(certificate, key),
        "server_tls": context_towards_server(options.ca) if is_towards_server else None,
    }
    return {**contexts, "key_log": options.key_log, "record": options.record}
