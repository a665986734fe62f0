"""The chat server's command line."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, as_typed, python
from kit.certificates import (
    FOLDER,
    CertificateError,
    LabFiles,
    lab_certificate,
    own_names,
    problem_with_choice,
    problem_with_pair,
)
from kit.options import BAD_INPUT, Parser, add_truth, file_path, host_port, not_empty, port_number
from kit.output import Output, Queued
from kit.rules import ROOM_SECRET_VARIABLE, problem_with_room_secret
from kit.truth import Truth
from kit.words import _, language_from, use_utf8
from server import asynchronous, process, threaded
from server.limits import CONNECTIONS, MEMBERS, ROOMS, Limits
from server.listening import KEEPALIVE_SECONDS, STOP_SECONDS, CannotListen, is_loopback
from server.log import FORMATS, Log
from server.stores import StoreLost

if TYPE_CHECKING:  # loaded where rooms are in Redis: it takes as long as grpc
    from server.redis_line import Address
    from server.redis_rooms import RedisRooms

PORT = 50051
"""The port that gRPC's own examples use."""
STORE_VARIABLE = "MINICHAT_STORE"
LOG_SECONDS = 2.0
"""What the log gets for its last lines when the server has stopped."""
HASTY_LOG_SECONDS = 0.2
"""The same when the server has to end at once."""
MODELS = {"threads": threaded, "asyncio": asynchronous}


class Number(NamedTuple):
    """What an option says; None is no limit."""

    value: float | None


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    problem = _misuse(options)
    if problem is not None:
        parser.error(problem)
    try:
        encryption = _Encryption(options)
        truth = None if options.truth is None else Truth(options.truth, "server")
    except CertificateError as error:
        print(error, file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING
    except ValueError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    output = Queued(Output(sys.stdout), lost=lambda entries: log.lost(entries))
    log = Log(output, options.log_format)
    process.prepare()
    try:
        status = _serve(options, encryption, truth, log, _Stop(output))
    except (CannotListen, StoreLost) as error:
        print(error, file=sys.stderr)
        status = ENVIRONMENT_LACKS_SOMETHING
    if not output.close(LOG_SECONDS):
        os._exit(status)  # a thread of it waits for a terminal that is held, and Python would wait for the thread
    return status


def _serve(options: argparse.Namespace, encryption: _Encryption, truth: Truth | None, log: Log, stop: _Stop) -> int:
    beyond = not is_loopback(options.host)
    model = MODELS[options.model]
    limits = _limits(options)
    store: RedisRooms[Any] | None = None
    if options.store is not None:
        from server.redis_rooms import RedisRooms

        store = RedisRooms(options.store, limits, say=lambda sentence: log.say(sentence, event="store"))
    server = model.serve(
        options.host,
        options.port,
        chats=model.CHATS if options.chats is None else options.chats.value,
        sessions_required=beyond or options.sessions == "required",
        room_secret=options.room_secret,
        credentials=encryption.credentials,
        keepalive=options.keepalive,
        log=log,
        limits=limits,
        store=store,
        truth=truth,
    )
    try:
        text = _("Listening on {address}; Ctrl-C stops it").format(address=server.address)
        log.say(text, event="listening", address=server.address, model=options.model)
        encryption.tell(log, options.host, server.port)
        if beyond and encryption.credentials is None:
            text = _("There is no encryption: who shares the network can read everything that is said")
            if options.room_secret:
                text = _("There is no encryption: who shares the network can read everything, the room secret too")
            log.say(text, event="warning")
        stop.wait()
        log.say(_("Stopping"), event="stopping")
    finally:
        server.stop(options.grace)
    log.say(_("Stopped"), event="stopped")
    return 0


class _Stop:
    """The first SIGTERM or Ctrl-C lets what is under way come to its end, the second one ends the process."""

    def __init__(self, output: Queued) -> None:
        self._output = output
        self._wanted = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._answer)

    def wait(self) -> None:
        while not self._wanted.wait(1):  # on Windows Ctrl-C does not end a wait, it is seen only between two
            pass

    def _answer(self, _number: int, _frame: object) -> None:
        if self._wanted.is_set():
            self._output.close(HASTY_LOG_SECONDS)
            os._exit(0)
        self._wanted.set()


class _Encryption:
    """What the options say about TLS. Raises CertificateError where no certificate can be made for a lab, ValueError
    with a sentence where files that were given cannot be used."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._lab: LabFiles | None = None
        self._certificate: Path | None = options.tls_cert
        self.credentials: grpc.ServerCredentials | None = None
        """None: in the clear."""
        key = options.tls_key or options.tls_cert
        if options.tls is not None:
            self._lab = lab_certificate(options.tls, own_names(options.host))
            self._certificate = key = self._lab.server
        if self._certificate is None:
            return
        problem = problem_with_pair(self._certificate, key)
        if problem is not None:
            raise ValueError(problem)
        self.credentials = grpc.ssl_server_credentials([(key.read_bytes(), self._certificate.read_bytes())])

    def tell(self, log: Log, host: str, port: int) -> None:
        if self._lab is None:
            if self._certificate is not None:
                text = _("Encrypted, with the certificate in {file}")
                log.say(text.format(file=self._certificate), event="encrypted", certificate=str(self._certificate))
            return
        file = str(self._lab.authority)
        shown, server = as_typed(self._lab.authority), host_port(self._met_at(host), port)
        command = f"{python()} -m client {_('USER')} {_('ROOM')} --server {server} --ca {shown}"
        lines = [_("Encrypted; clients trust this server with --ca: {command}").format(command=command)]
        if not is_loopback(host):
            lines.append(_("On other machines they need a copy of {file}, which is no secret").format(file=shown))
        log.say(*lines, event="encrypted", authority=file, names=" ".join(self._lab.names))

    def _met_at(self, host: str) -> str:
        """`host`, or where that stands for all addresses one that others can reach."""
        assert self._lab is not None
        if host in self._lab.names:
            return host
        return next((name for name in self._lab.names if name[0].isdigit() and not is_loopback(name)), "localhost")


def _limits(options: argparse.Namespace) -> Limits:
    given = {"rate": options.rate, "idle": options.idle}
    return Limits(
        members=options.members,
        rooms=options.rooms,
        connections=options.connections,
        **{name: limit.value for name, limit in given.items() if limit is not None},
    )


def _misuse(options: argparse.Namespace) -> str | None:
    """What is wrong with the options taken together."""
    if options.sessions == "off" and not is_loopback(options.host):
        text = _("--sessions off is for this machine only, and {host} is reached from others")
        return text.format(host=options.host)
    if options.sessions == "off" and options.room_secret:
        return _("--sessions off and a room secret exclude each other: the secret is asked for where sessions begin")
    problem = problem_with_choice(options.tls, options.tls_cert, options.tls_key)
    if problem is not None:
        return problem
    most = threaded.WORKERS if options.model == "threads" else CONNECTIONS
    if options.chats is not None and options.chats.value is not None and options.chats.value > most:
        if options.model == "threads":
            text = _("--chats takes a number from 1 to {most}, which is all workers, or none; this is {number}")
        else:
            text = _("--chats takes a number from 1 to {most} or none; this is {number}")
        return text.format(most=most, number=options.chats.value)
    problem = problem_with_room_secret(options.room_secret)
    return None if problem is None else problem.rstrip(".")


def _parser() -> Parser:
    parser = Parser(
        prog=f"{python()} -m server", description=_("The chat server: rooms, history, full-duplex streams.")
    )
    _add_network(parser.add_argument_group(_("network")))
    _add_chat(parser.add_argument_group(_("chat")))
    _add_entry(parser.add_argument_group(_("who may come in")))
    logs = parser.add_argument_group(_("logs"))
    logs.add_argument(
        "--log-format",
        choices=FORMATS,
        default="text",
        help=_("lines for people, or an object of JSON a line for programs (default: text)"),
    )
    add_truth(logs)
    return parser


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host",
        type=not_empty,
        default="127.0.0.1",
        metavar=_("ADDRESS"),
        help=_("listen on this address (default: 127.0.0.1, which only this machine reaches; 0.0.0.0 is all)"),
    )
    group.add_argument(
        "--port",
        type=port_number,
        default=PORT,
        metavar=_("NUMBER"),
        help=_("listen on this port (default: {port}; 0 takes a free one and says which)").format(port=PORT),
    )
    group.add_argument(
        "--keepalive",
        type=_seconds,
        default=KEEPALIVE_SECONDS,
        metavar=_("SECONDS"),
        help=_("a member whose connection is silent for so long is out (default: {seconds:g})").format(
            seconds=KEEPALIVE_SECONDS
        ),
    )
    group.add_argument(
        "--grace",
        type=_seconds,
        default=STOP_SECONDS,
        metavar=_("SECONDS"),
        help=_(
            "what short calls get for coming to their end when the server stops (default: {seconds:g}); a second "
            "Ctrl-C waits for nothing"
        ).format(seconds=STOP_SECONDS),
    )


def _add_chat(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        choices=MODELS,
        default="threads",
        help=_("a thread for each chat, or one event loop for all (default: threads)"),
    )
    group.add_argument(
        "--chats",
        type=_chats,
        metavar=_("NUMBER"),
        help=_(
            "admit so many chats at once and refuse the next (default: {chats}; the pool has {workers} workers; with "
            "asyncio {many}); with none, nobody is refused, and who comes when all workers are taken waits in silence"
        ).format(chats=threaded.CHATS, workers=threaded.WORKERS, many=asynchronous.CHATS),
    )
    group.add_argument(
        "--members",
        type=_from_one,
        default=MEMBERS,
        metavar=_("NUMBER"),
        help=_("let so many into one room (default: {members})").format(members=MEMBERS),
    )
    group.add_argument(
        "--rooms",
        type=_from_one,
        default=ROOMS,
        metavar=_("NUMBER"),
        help=_("remember so many rooms at once (default: {rooms})").format(rooms=ROOMS),
    )
    group.add_argument(
        "--connections",
        type=_from_one,
        default=CONNECTIONS,
        metavar=_("NUMBER"),
        help=_("admit chats over so many connections (default: {connections})").format(connections=CONNECTIONS),
    )
    group.add_argument(
        "--rate",
        type=_rate,
        metavar=_("NUMBER"),
        help=_("messages per second that one member may send, or none for no limit (default: {rate:g})").format(
            rate=Limits.rate
        ),
    )
    group.add_argument(
        "--idle",
        type=_idle,
        metavar=_("SECONDS"),
        help=_("a member who says nothing for so long is out (default: none, nobody is)"),
    )
    group.add_argument(
        "--store",
        type=_store,
        default=os.environ.get(STORE_VARIABLE) or "memory",
        metavar="memory|redis://HOST:PORT/N",
        help=_(
            "keep the rooms in this process, or in a Redis, which several servers share (default: memory); an address "
            "with a password is better in the variable {variable}"
        ).format(variable=STORE_VARIABLE),
    )


def _add_entry(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sessions",
        choices=("off", "required"),
        help=_(
            "whether History and Chat ask for the token that Join gives (default: off; beyond loopback and with a room "
            "secret: required)"
        ),
    )
    group.add_argument(
        "--room-secret",
        metavar=_("TEXT"),
        default=os.environ.get(ROOM_SECRET_VARIABLE, ""),
        help=_(
            "let nobody in without it; better in the variable {variable}, because other users of this machine can see "
            "command lines"
        ).format(variable=ROOM_SECRET_VARIABLE),
    )
    group.add_argument(
        "--tls",
        type=file_path,
        nargs="?",
        const=FOLDER,
        metavar=_("FOLDER"),
        help=_(
            "encrypt, with a certificate that is made for this machine's names, and kept in the folder (default: "
            "{folder}) with the file that clients trust it by"
        ).format(folder=as_typed(FOLDER)),
    )
    group.add_argument(
        "--tls-cert",
        type=file_path,
        metavar=_("FILE"),
        help=_("encrypt, with the certificate (and its chain) in this PEM file"),
    )
    group.add_argument(
        "--tls-key",
        type=file_path,
        metavar=_("FILE"),
        help=_("the certificate's private key (default: it is in the same file)"),
    )


def _chats(text: str) -> Number:
    if text == "none":
        return Number(None)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(_("a number from 1 on, or none; this is {text}").format(text=text))
    return Number(int(text))


def _store(text: str) -> Address | None:
    """None is memory."""
    if text == "memory":
        return None
    from server.redis_line import Address

    try:
        return Address.parsed(text)
    except ValueError as error:  # which does not repeat the text: that may hold a password
        raise argparse.ArgumentTypeError(str(error)) from None


def _from_one(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(_("a number from 1 on; this is {text}").format(text=text))
    return int(text)


def _rate(text: str) -> Number:
    if text == "none":
        return Number(None)
    number = _float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(_("a number above 0, or none; this is {text}").format(text=text))
    return Number(number)


def _idle(text: str) -> Number:
    return Number(None if text == "none" else _seconds(text))


def _seconds(text: str) -> float:
    seconds = _float(text)
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(_("seconds from 1 to 86400; this is {text}").format(text=text))
    return seconds


def _float(text: str) -> float:
    """0 for what is no number."""
    try:
        return float(text)
    except ValueError:
        return 0.0
