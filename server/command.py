"""The chat server's command line."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import NamedTuple

from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING
from kit.options import Parser, port_number
from kit.output import Output
from kit.words import _, language_from, use_utf8
from server.listening import KEEPALIVE_SECONDS, CannotListen, is_loopback
from server.log import Log
from server.threaded import CHATS, WORKERS, serve

PORT = 50051
"""The port that gRPC's own examples use."""


class Chats(NamedTuple):
    """How many chats are admitted; None: nobody is refused."""

    limit: int | None


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    beyond = not is_loopback(options.host)
    if beyond and options.sessions == "off":
        text = _("--sessions off is for this machine only, and {host} is reached from others")
        parser.error(text.format(host=options.host))
    sessions_required = beyond or options.sessions == "required"
    log = Log(Output(sys.stdout))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        server = serve(
            options.host,
            options.port,
            chats=options.chats.limit,
            sessions_required=sessions_required,
            keepalive=options.keepalive,
            log=log,
        )
    except CannotListen as error:
        print(error, file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING
    with server:
        log.say(_("Listening on {address}; Ctrl-C stops it").format(address=server.address))
        if beyond:
            log.say(_("There is no encryption: who shares the network can read everything that is said"))
        while not stop.wait(1):  # on Windows Ctrl-C does not end a wait, it is seen only between two
            pass
        log.say(_("Stopping"))
    log.say(_("Stopped"))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m server", description=_("The chat server: rooms, history, full-duplex streams."))
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar=_("ADDRESS"),
        help=_("listen on this address (default: 127.0.0.1, which only this machine reaches; 0.0.0.0 is all)"),
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=PORT,
        metavar=_("NUMBER"),
        help=_("listen on this port (default: {port}; 0 takes a free one and says which)").format(port=PORT),
    )
    parser.add_argument(
        "--chats",
        type=_chats,
        default=Chats(CHATS),
        metavar=_("NUMBER"),
        help=_(
            "admit so many chats at once and refuse the next (default: {chats}; the pool has {workers} workers); "
            "with none, nobody is refused, and who comes when all workers are taken waits in silence"
        ).format(chats=CHATS, workers=WORKERS),
    )
    parser.add_argument(
        "--sessions",
        choices=("off", "required"),
        help=_("whether History and Chat ask for the token that Join gives (default: off; beyond loopback: required)"),
    )
    parser.add_argument(
        "--keepalive",
        type=_seconds,
        default=KEEPALIVE_SECONDS,
        metavar=_("SECONDS"),
        help=_("a member whose connection is silent for so long is out (default: {seconds:g})").format(
            seconds=KEEPALIVE_SECONDS
        ),
    )
    return parser


def _chats(text: str) -> Chats:
    if text == "none":
        return Chats(None)
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= WORKERS:
        problem = _("a number from 1 to {workers}, which is all workers, or none; this is {text}")
        raise argparse.ArgumentTypeError(problem.format(workers=WORKERS, text=text))
    return Chats(int(text))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(_("seconds from 1 to 86400; this is {text}").format(text=text))
    return seconds
