"""A loopback TCP proxy that records what passes through it: a capture that needs no admin rights.

    with Tap(server=("127.0.0.1", 50051), write="chat.pcapng") as tap:
        …clients connect to tap.port…
        events = pipeline.feed(tap.packets(timeout=0.2))

The tap runs in a thread of its own (`loop`), with a `relay` for each connection, whose two `ends` are sockets with or
without TLS and whose lines can be made worse while they run (`faults`). What passed goes to a `recording`: packets with
numbers and times, in the file and for who asks, the same in both.

What is recorded, exactly: octets when and as they were forwarded, between the client's real address and the server's: a
delay or a stall shows as its receiver sees it. The TCP/IP around them is synthesised (`capture.synthesis`), and the
file says so. With TLS either the plaintext is recorded, or, with `record="wire"`, the ciphertext of the client's side
(of the server's where only that has TLS) with its keys in the file, for Wireshark to decrypt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, cast

from capture.events import Direction, Packet, Problem
from capture.sources.faults import NO_FAULTS, Ending, Faults
from capture.sources.loop import READ, Loop, Result
from capture.sources.recording import IDLE_SECONDS, Recording
from capture.sources.relay import Relay, SocketAddress, Target
from kit.options import host_port
from kit.words import N_, _

MAX_CONNECTIONS = 240 if os.name == "nt" else 1_000
"""At once; a further client waits in the listening socket's queue. Windows' select knows 512 sockets, and a connection
has two."""
BACKLOG = 128
MAX_PORT = 0xFFFF
CLOSING_GRACE = 0.3
"""Seconds that connections which are half closed have to end by themselves when the tap is closed."""
ACCEPT_AGAIN_NS = 100_000_000
"""When to look for a client again after the process had no file descriptor left for it."""


class TapError(Exception):
    """The tap cannot start. The message is one sentence for people, in their language."""


class TapConnection(NamedTuple):
    """A connection that is open now."""

    number: int
    """As in the recording, from 0."""
    client: str
    server: str
    sent: int
    """Octets forwarded to the server."""
    received: int


class Tap:
    """See the module. `server` and `listen` are host and port; port 0 to listen on is any that is free.

    `write`: a path, or a binary stream that stays open. `faults`: for every connection, both ways (`set_faults` for
    others). `tls`: the context of a TLS server for the clients; `server_tls`: that of a TLS client for the server
    (`ends.context_towards_clients`, `ends.context_towards_server`). `key_log`: where the keys of these go, in the form
    that Wireshark reads. `seed`: for jitter and initial sequence numbers, where runs shall be alike.

    Raises, on start: TapError.
    """

    def __init__(
        self,
        server: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        write: str | os.PathLike[str] | BinaryIO | None = None,
        faults: Faults = NO_FAULTS,
        tls: ssl.SSLContext | None = None,
        server_tls: ssl.SSLContext | None = None,
        record: Literal["plaintext", "wire"] = "plaintext",
        key_log: str | os.PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        if record == "wire" and tls is None and server_tls is None:
            raise ValueError("record='wire' says something only where there is TLS")
        self.server_name = server[0]
        self.client_tls, self.server_tls = tls, server_tls
        self.records_wire = record == "wire"
        self.random = random.Random(seed)
        self._server, self._listen, self._write = server, listen, write
        self._key_log = Path(key_log) if key_log is not None else None
        self._rules: dict[tuple[int | None, Direction | None], Faults] = {(None, None): faults}
        self._relays: set[Relay] = set()
        self._count = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._exhausted = False
        self._failure: BaseException | None = None
        self._cleanup = contextlib.ExitStack()

    # life

    def start(self) -> Tap:
        """Listens, and returns when clients can connect."""
        with contextlib.ExitStack() as undo:
            self.targets = self._addresses = _resolve(*self._server)
            self._listener = undo.enter_context(_listen(*self._listen))
            self._address = self._listener.getsockname()
            if any(_meets(address, self._address) for _family, address in self.targets):
                raise TapError(_("the tap cannot listen where its server is: {address}").format(address=self.address))
            stream = self._open_file(undo)
            key_log = self._log_keys(undo)
            try:
                self.recording = Recording(stream, self._describe(), _about(), key_log if self.records_wire else None)
            except OSError as error:
                raise self._not_written(error) from None
            self.loop = Loop()
            self._cleanup = undo.pop_all()
        self.loop.watch(self._listener, READ, self._accept)
        self.loop.run()
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends what is still open, writes what is still to be written, and leaves no thread behind."""
        if self._thread is None:
            return
        self._closing = True
        self.loop.wake()
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Tap:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # what it tells

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self._address[1])

    @property
    def address(self) -> str:
        """The same as `host:port`."""
        return _text(self._address)

    @property
    def problems(self) -> list[Problem]:
        """What went wrong that is no packet: a server that cannot be reached, TLS that failed, a full disk."""
        return list(self.recording.problems)

    @property
    def dropped(self) -> int:
        """Packets that `packets` has not given because it was called too late or too seldom; the file has them."""
        return self.recording.dropped

    @property
    def ended(self) -> bool:
        """Whether the tap is closed and `packets` has given everything."""
        return self.recording.ended

    def packets(self, timeout: float | None = None) -> list[Packet]:
        """What has passed since the last call, waiting for something at most `timeout` seconds (None: for ever).

        [] after the timeout, or when the tap is closed and everything has been given. The first call gets what passed
        before it too, unless that was more than some megabytes.
        """
        return self.recording.packets(timeout)

    def __iter__(self) -> Iterator[list[Packet]]:
        """Batches, until the tap is closed."""
        while packets := self.packets():
            yield packets

    @property
    def connections(self) -> list[TapConnection]:
        """Those that are open, by number."""
        return self._call(
            lambda: sorted(
                TapConnection(relay.number, _text(relay.client), _text(relay.server), *relay.passed)
                for relay in self._relays
                if relay.number is not None and relay.is_open
            )
        )

    # what can be done to it

    def set_faults(
        self,
        faults: Faults = NO_FAULTS,
        *,
        connection: int | None = None,
        direction: Direction | None = None,
        counts_on: bool = False,
    ) -> None:
        """Faults from now on, in force when this returns; without arguments, none.

        For one connection (that there is, or will be) and one direction, or for all. Of several that fit, those for a
        connection go before those for a direction, and both before those for all. `counts_on`: octets go on being
        counted (`Line.change`).
        """
        self._call(lambda: self._set_faults((connection, direction), faults, counts_on))

    def cut(self, connection: int | None = None, how: Ending = Ending.RESET) -> None:
        """Cuts one connection, or all, now."""

        def cut() -> None:
            for relay in list(self._relays):
                if connection in (None, relay.number):
                    relay.cut(how, _("cut by the tap"))

        self._call(cut)

    def _call(self, wish: Callable[[], Result]) -> Result:
        """In the tap's thread, if it runs."""
        return wish() if self._thread is None else self.loop.call(wish)

    def _set_faults(self, key: tuple[int | None, Direction | None], faults: Faults, counts_on: bool) -> None:
        self._rules[key] = faults
        for relay in list(self._relays):
            if relay.number is not None:
                for direction in Direction:
                    if self._rule(relay.number, direction) == key:
                        relay.change_faults(direction, faults, counts_on)

    def _rule(self, connection: int, direction: Direction) -> tuple[int | None, Direction | None]:
        keys = ((connection, direction), (connection, None), (None, direction))
        return next((key for key in keys if key in self._rules), (None, None))

    # what its relays need

    def next_number(self) -> int:
        self._count += 1
        return self._count - 1

    def faults_of(self, connection: int, direction: Direction) -> Faults:
        return self._rules[self._rule(connection, direction)]

    def settle(self, target: Target | None) -> None:
        self.targets = self._addresses if target is None else [target]
        self._accept_again()

    def forget(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._accept_again()

    def _accept_again(self) -> None:
        """Lets clients in, unless there are too many or one is still looking for the server's address: the next one's
        number depends on it."""
        looking = any(relay.number is None for relay in self._relays)
        lets_in = not self._closing and not looking and len(self._relays) < MAX_CONNECTIONS
        self.loop.watch(self._listener, READ if lets_in else 0, self._accept)

    # the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                if not self.loop.turn(IDLE_SECONDS if self.recording.waits else None) or not self.recording.waits:
                    self.recording.publish()
            self._wind_up()
        except BaseException as error:
            self._failure = error
        finally:
            for relay in list(self._relays):
                relay.cut(Ending.RESET, _("the tap was closed"))
            self.recording.close()
            self.loop.close()
            self._cleanup.close()

    def _wind_up(self) -> None:
        """Forwards what has arrived, and lets connections end that are about to."""
        self.loop.watch(self._listener, 0, self._accept)
        deadline = time.monotonic() + CLOSING_GRACE
        while (left := deadline - time.monotonic()) > 0:
            ending = any(any(relay.ended) for relay in self._relays)
            if not self.loop.turn(left if ending else 0) and not ending:
                break
            self.recording.publish()

    def _accept(self, _events: int) -> None:
        try:
            connection, client = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # who knocked has left again
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            if not self._exhausted:
                self.recording.tell(N_("a client has to wait: {reason}"), reason=error.strerror)
            self._exhausted = True
            self.loop.watch(self._listener, 0, self._accept)
            self.loop.at(time.monotonic_ns() + ACCEPT_AGAIN_NS, self._accept_again)
            return
        self._exhausted = False
        relay = Relay(self, connection, client)
        self._relays.add(relay)
        number = self._count if relay.number is None else relay.number
        if self.faults_of(number, Direction.CLIENT_TO_SERVER).refuse:
            relay.refuse(N_("connection {connection}: refused by the tap"))
        else:
            relay.connect()
        self._accept_again()

    # starting

    def _open_file(self, undo: contextlib.ExitStack) -> BinaryIO | None:
        if self._write is None:
            return None
        if not isinstance(self._write, str | os.PathLike):
            return self._write
        try:
            stream = Path(self._write).open("wb")  # noqa: SIM115 - closed with the tap
        except OSError as error:
            raise self._not_written(error) from None
        undo.callback(_close_quietly, stream)
        return stream

    def _not_written(self, error: OSError) -> TapError:
        file = self._write if isinstance(self._write, str | os.PathLike) else _("the capture file")
        return TapError(_("{file} cannot be written: {reason}").format(file=file, reason=error.strerror))

    def _log_keys(self, undo: contextlib.ExitStack) -> Path | None:
        """Where TLS keys go: they are asked for, or needed in the file."""
        path = self._key_log
        if path is None and self.records_wire:
            path = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="tap-"))) / "keys.log"
        if path is not None:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))  # who reads it reads everything
                for context in (self.client_tls, self.server_tls):
                    if context is not None:
                        context.keylog_filename = str(path)
                        undo.callback(setattr, context, "keylog_filename", None)
            except OSError as error:
                words = _("{file} cannot be written: {reason}")
                raise TapError(words.format(file=path, reason=error.strerror)) from None
        return path

    def _describe(self) -> str:
        return _("{address} to {server}; TCP/IP synthesised by the tap").format(
            address=self.address, server=_text(self._server)
        )


_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _close_quietly(stream: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # what could not be written has been told
        stream.close()


def _about() -> str:
    return _(
        "Recorded by a tap, a proxy between client and server. The octets of each connection are real, and so are the "
        "times, at which the tap passed them on. The TCP and IP around them were synthesised by the tap: handshakes, "
        "sequence numbers, acknowledgements, and where one packet ends and the next begins."
    )


def _resolve(host: str, port: int) -> list[Target]:
    if not 0 <= port <= MAX_PORT:
        raise TapError(_("a port is a number from 0 to {most}, and this is {port}").format(most=MAX_PORT, port=port))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TapError(_("{host} is no address of a host: {reason}").format(host=host, reason=error)) from None
    return [(family, cast(SocketAddress, address)) for family, _type, _protocol, _name, address in found]


def _meets(server: SocketAddress, listener: SocketAddress) -> bool:
    """Whether who connects to the server meets the listener, which may listen on all addresses of the machine."""
    return server[1] == listener[1] and listener[0] in (server[0], "0.0.0.0", "::")


def _listen(host: str, port: int) -> socket.socket:
    family, address = _resolve(host, port)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Windows would otherwise let two programs listen on one port; elsewhere the port would stay taken for a minute.
        option = "SO_EXCLUSIVEADDRUSE" if os.name == "nt" else "SO_REUSEADDR"
        listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise TapError(
            _("the tap cannot listen on {address}: {reason}").format(address=_text((host, port)), reason=error.strerror)
        ) from None
    return listener


def _text(address: SocketAddress) -> str:
    return host_port(*address[:2])
