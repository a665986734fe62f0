"""The chat client's command line."""

from __future__ import annotations

import argparse
import os
import sys
import unicodedata
from typing import Any

from client import scripted, security
from kit.bootstrap import python
from kit.certificates import problem_with_authorities
from kit.options import BAD_INPUT, Parser, add_truth, file_path, port_number
from kit.rules import ROOM_SECRET_VARIABLE, problem_with_room, problem_with_room_secret, problem_with_user
from kit.truth import Truth
from kit.words import _, language_from, use_utf8

HOST, PORT = "127.0.0.1", 50051


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    # Letters with their accents apart (NFD) look the same to who gives them, and are another name to the server.
    options.user, options.room = (unicodedata.normalize("NFC", text) for text in (options.user, options.room))
    room = options.room.removeprefix("#")
    problem = (
        problem_with_user(options.user) or problem_with_room(room) or problem_with_room_secret(options.room_secret)
    )
    if problem is not None:
        parser.error(problem.rstrip("."))
    problem = None if options.ca is None else problem_with_authorities(options.ca)
    if problem is not None:
        print(problem, file=sys.stderr)
        return BAD_INPUT
    how: dict[str, Any] = {"room_secret": options.room_secret}
    if options.truth is not None:
        try:
            how["truth"] = Truth(options.truth, "client")
        except ValueError as error:
            print(error, file=sys.stderr)
            return BAD_INPUT
    if options.tls or options.ca is not None:
        how["credentials"] = security.credentials(options.ca)
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        from client import terminal  # prompt_toolkit, which a script need not wait for

        return terminal.run(options.server, options.user, room, **how)
    source = None if sys.stdin is None else sys.stdin.fileno()
    return scripted.run(options.server, options.user, room, source, **how)


def _parser() -> Parser:
    parser = Parser(
        prog=f"{python()} -m client",
        description=_("The chat client: joins a room, shows its history, then everybody's messages as they come."),
        epilog=_(
            "In a terminal, /help lists the commands. Without one (standard input is a file or a pipe) each line is "
            "sent, and the client leaves when all of them came back."
        ),
    )
    parser.add_argument("user", metavar=_("USER"), help=_("who you are: 1 to 32 characters"))
    parser.add_argument("room", metavar=_("ROOM"), help=_("the room: 1 to 32 characters"))
    parser.add_argument(
        "--server",
        type=_server,
        default=f"{HOST}:{PORT}",
        metavar=_("HOST:PORT"),
        help=_("where the server is (default: {server})").format(server=f"{HOST}:{PORT}"),
    )
    add_truth(parser)
    entry = parser.add_argument_group(_("who is trusted, and who may come in"))
    entry.add_argument(
        "--tls",
        action="store_true",
        help=_("speak TLS, and trust a server whose certificate is signed by somebody whom this system trusts"),
    )
    entry.add_argument(
        "--ca",
        type=file_path,
        metavar=_("FILE"),
        help=_("speak TLS, and trust a server whose certificate is signed by who is in this PEM file"),
    )
    entry.add_argument(
        "--room-secret",
        metavar=_("TEXT"),
        default=os.environ.get(ROOM_SECRET_VARIABLE, ""),
        help=_(
            "what the server lets nobody in without; better in the variable {variable}, because other users of this "
            "machine can see command lines"
        ).format(variable=ROOM_SECRET_VARIABLE),
    )
    return parser


def _server(text: str) -> str:
    """`host:port`, `[::1]:port`, or a host alone."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        problem = _("HOST:PORT is asked for, with [ ] around an IPv6 address; this is {text}")
        raise argparse.ArgumentTypeError(problem.format(text=text))
    return f"{host}:{port_number(port)}"
