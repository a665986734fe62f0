"""The chat client's command line."""

from __future__ import annotations

import argparse
import sys

from client import scripted
from kit.options import Parser, port_number
from kit.rules import problem_with_room, problem_with_user
from kit.words import _, language_from, use_utf8

HOST, PORT = "127.0.0.1", 50051


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    room = options.room.removeprefix("#")
    problem = problem_with_user(options.user) or problem_with_room(room)
    if problem is not None:
        parser.error(problem.rstrip("."))
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        from client import terminal  # prompt_toolkit, which a script need not wait for

        return terminal.run(options.server, options.user, room)
    return scripted.run(options.server, options.user, room, None if sys.stdin is None else sys.stdin.fileno())


def _parser() -> Parser:
    parser = Parser(
        prog="python -m client",
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
