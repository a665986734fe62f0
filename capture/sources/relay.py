"""One connection through the tap.

Octets that arrive at one end are put on the line of their direction; what the line lets pass is sent out at the other
end, and what was sent is recorded. Ways are numbered as `Direction`: way 0 leads from the client's end (0) to the
server's (1), way 1 back. Nothing is read from an end while the line behind it is full, so a slow receiver slows its
sender, as it would without a tap.

Nothing is read from the client before the server has answered. A relay ends when both ways have ended (FIN), or at once
(RST, from an end or from a fault).
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from errno import ECONNREFUSED, EINPROGRESS, EWOULDBLOCK
from functools import partial
from typing import Protocol

from capture.events import CONNECTION_PREFACE, Direction
from capture.sources.ends import Plain, Secure
from capture.sources.faults import Ending, Faults, Line
from capture.sources.loop import READ, WRITE, Loop
from capture.sources.recording import Recording
from capture.synthesis import Address, Conversation
from kit.words import N_, _

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Target = tuple[socket.AddressFamily, SocketAddress]
WAYS = (Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT)
SILENT_SERVER = N_("connection {connection}: the server ended it without a word")
SERVER_TLS_FAILED = N_("connection {connection}: TLS with the server failed: {reason}")
_UNDER_WAY = {EINPROGRESS, EWOULDBLOCK, 10035}  # the last is Windows'


class Surroundings(Protocol):
    """What a relay needs of its tap."""

    loop: Loop
    recording: Recording
    random: random.Random
    targets: list[Target]
    server_name: str
    client_tls: ssl.SSLContext | None
    server_tls: ssl.SSLContext | None
    records_wire: bool

    def next_number(self) -> int:
        """The number of the connection whose SYN is recorded now."""

    def settle(self, target: Target | None) -> None:
        """The server answers at this address; None: at none."""

    def faults_of(self, connection: int, direction: Direction) -> Faults: ...

    def forget(self, relay: Relay) -> None: ...


def _close_well(end: Plain) -> None:
    with contextlib.suppress(OSError):  # it may have finished already, or be broken
        end.finish()
    end.close()


class Relay:
    """Made when a client has been accepted."""

    def __init__(self, tap: Surroundings, inward: socket.socket, client: SocketAddress) -> None:
        self._tap = tap
        self._inward = inward
        self.client: Address = (client[0], client[1])
        self.server: Address = tap.targets[0][1][:2]
        self._targets = list(tap.targets)
        self._outward: socket.socket | None = None
        self._error = 0
        self._conversation: Conversation | None = None
        self.number: int | None = None
        """As in the recording, from 0; None while it is not known at which address the server will answer."""
        self.passed = [0, 0]
        """Octets forwarded each way."""
        self.ended = [False, False]
        """Ways whose FIN has been passed on."""
        self.closed = False
        self._ends: list[Plain] = []
        self._lines: list[Line] = []
        if len(self._targets) == 1:
            self._converse()

    @property
    def is_open(self) -> bool:
        """Whether there are two ends."""
        return bool(self._ends) and not self.closed

    # connecting

    def _converse(self) -> Conversation:
        """The connection as it is recorded. It begins with the client's SYN, once it is known where that goes."""
        if self._conversation is None:
            bits = self._tap.random.getrandbits
            self._conversation = Conversation(self.client, self.server, bits(32), bits(32))
            self.client, self.server = self._conversation.client, self._conversation.server
            self.number = self._tap.next_number()
            self._tap.recording.add(self._conversation.request())
        return self._conversation

    def connect(self) -> None:
        """Tries the server's addresses one after the other, until one answers."""
        while self._targets:
            family, address = self._targets[0]
            try:
                outward = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # no file descriptor left, no IPv6 here
                self._error = error.errno or 0
                self._targets.pop(0)
                continue
            outward.setblocking(False)
            self._outward = outward
            result = outward.connect_ex(address)
            if result in _UNDER_WAY:
                self._tap.loop.watch(outward, WRITE, self._answered)
                return
            if self._stands(outward, result):
                return
        self.refuse(N_("connection {connection}: the server cannot be reached: {reason}"), os.strerror(self._error))
        self._tap.settle(None)

    def _answered(self, _events: int) -> None:
        outward = self._outward
        if outward is None or self.closed:
            return
        self._tap.loop.watch(outward, 0, self._answered)
        if not self._stands(outward, outward.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self.connect()

    def _stands(self, outward: socket.socket, error: int) -> bool:
        target = self._targets.pop(0)
        if not error and outward.getsockname()[:2] == target[1][:2]:
            error = ECONNREFUSED  # nobody listens there, and chance gave the socket that very port: it met itself
        self._error = error
        if error:
            outward.close()
        else:
            if self._conversation is None:
                self.server = target[1][:2]
            self._open(outward)
            self._tap.settle(target)
        return not error

    def refuse(self, template: str, reason: str = "") -> None:
        """The client's connection is reset, as if the server had refused it."""
        recording, conversation = self._tap.recording, self._converse()
        recording.add(conversation.refuse(), _(template).format(connection=self.number, reason=reason))
        recording.tell(template, connection=self.number, reason=reason)
        if self._outward is not None:
            self._tap.loop.watch(self._outward, 0, self._answered)
            self._outward.close()
        self._close(lambda end: end.abort(), [Plain(self._inward)])

    def _open(self, outward: socket.socket) -> None:
        tap, now = self._tap, time.monotonic_ns()
        tap.recording.add(self._converse().accept())
        assert self.number is not None  # known from its beginning
        self._ends = [Plain(self._inward), Plain(outward)]
        if tap.server_tls is not None:
            watch = partial(self._on_wire, 1) if tap.records_wire and tap.client_tls is None else None
            self._ends[1] = Secure(outward, tap.server_tls, server_side=False, host=tap.server_name, watch=watch)
        if tap.client_tls is not None:
            watch = partial(self._on_wire, 0) if tap.records_wire else None
            self._ends[0] = Secure(self._inward, tap.client_tls, server_side=True, watch=watch)
        self._lines = [Line(tap.faults_of(self.number, way), now, tap.random.random) for way in WAYS]
        self._callbacks: list[Callable[[int], None]] = [partial(self._ready, way) for way in WAYS]
        self._wake_ns: list[int | None] = [None, None]
        self._gone = [False, False]  # ends whose socket is broken
        self._began = [b"", b""]  # what came first from each end
        self._finished_on_record = [False, False]
        self._ends[1].start()
        for way in WAYS:
            self._pump(way)  # a fault may end it here

    # relaying

    def _ready(self, end: int, events: int) -> None:
        """The end's socket can be read or written."""
        if self.closed:
            return
        try:
            if events & WRITE:
                self._ends[end].flush()
            if events & READ and self._is_read(end):
                self._read(end)
        except OSError as error:
            self._lost(end, error)
        self._pump(end)
        if events & WRITE or (self._lines[1 - end].held and not self.closed):
            self._pump(1 - end)

    def _is_read(self, end: int) -> bool:
        return not (self._ends[end].ended or self._gone[0] or self._gone[1] or self._lines[end].full)

    def _read(self, end: int) -> None:
        octets = self._ends[end].receive()
        if octets:
            self._began[end] = self._began[end] or octets[: len(CONNECTION_PREFACE)]
            self._lines[end].put(octets, time.monotonic_ns())
        if self._ends[end].ended:
            self._note_silence(end)
            self._lines[end].put_ending(Ending.FIN, time.monotonic_ns())

    def _pump(self, way: int) -> None:
        """Passes on what may pass, and sees to it that there is a next time."""
        if self.closed:
            return
        line, sink = self._lines[way], self._ends[1 - way]
        while not self.ended[way] and not self._gone[1 - way]:
            now = time.monotonic_ns()
            piece = line.next(now)
            if piece is None:
                break
            if isinstance(piece, Ending):
                self._end(way, piece)
                break
            try:
                sent = sink.send(piece)
            except OSError as error:
                self._lost(1 - way, error)
                break
            if not sent:
                if self._gone[way]:  # a reset overtakes what the receiver does not take
                    self._reset(way)
                break
            if not self._tap.records_wire:
                self._tap.recording.add(self._converse().data(WAYS[way], bytes(piece[:sent])))
            self.passed[way] += sent
            line.passed(sent, now)
        self._arrange(way)

    def _arrange(self, way: int) -> None:
        """When this way goes on: at what time, and at which state of the sockets."""
        if self.closed:
            return
        if all(self.ended) and not any(end.stuck for end in self._ends):
            self.cut(Ending.FIN)
            return
        wake_ns = self._lines[way].wake_ns
        planned = self._wake_ns[way]
        if wake_ns is not None and (planned is None or wake_ns < planned):
            self._wake_ns[way] = wake_ns
            self._tap.loop.at(wake_ns, partial(self._woken, way, wake_ns))
        for end in WAYS:
            events = (READ if self._is_read(end) else 0) | (WRITE if self._ends[end].stuck else 0)
            self._tap.loop.watch(self._ends[end].socket, events, self._callbacks[end])

    def _woken(self, way: int, wake_ns: int) -> None:
        if self._wake_ns[way] == wake_ns:
            self._wake_ns[way] = None
        self._pump(way)

    # ending

    def _lost(self, end: int, error: OSError) -> None:
        """An end's socket is broken: what it sent still passes, then a reset."""
        if self.closed or self._gone[end]:
            return
        self._gone[end] = True
        self._note_silence(end)
        if isinstance(error, ssl.SSLError):
            template = N_("connection {connection}: TLS with the client failed: {reason}")
            if end == Direction.SERVER_TO_CLIENT:
                template = SERVER_TLS_FAILED
            reason = getattr(error, "verify_message", "").rstrip(".") or error.reason or str(error)
            self._tap.recording.tell(template, connection=self.number, reason=reason)
            self._reset(end, _(template).format(connection=self.number, reason=reason))
        elif self.ended[end] or self._gone[1 - end]:
            self._reset(end)
        else:
            self._lines[end].put_ending(Ending.RESET, time.monotonic_ns())
            self._pump(end)

    def _note_silence(self, end: int) -> None:
        """A server that ends a connection without its own preface (RFC 9113 §3.4), as one does that waits for TLS."""
        is_servers = end == Direction.SERVER_TO_CLIENT and not self.ended[0] and self._tap.server_tls is None
        if is_servers and self._began == [CONNECTION_PREFACE, b""]:
            self._tap.recording.tell(SILENT_SERVER, connection=self.number)

    def _end(self, way: int, ending: Ending) -> None:
        if self._lines[way].cut:
            comment = _("cut by the tap")
            if ending is Ending.RESET:
                self._reset(way, comment)
            else:
                self.cut(ending, comment)
        elif ending is Ending.RESET:
            self._reset(way)
        else:
            self.ended[way] = True
            if not self._tap.records_wire:
                self._record_finish(way)
            try:
                self._ends[1 - way].finish()
            except OSError as error:
                self._lost(1 - way, error)

    def cut(self, how: Ending, comment: str = "") -> None:
        """Ends the connection now, with a reset or a FIN for both ends."""
        if not self._ends:
            self.refuse(N_("connection {connection}: ended before the server had answered"))
        elif how is Ending.RESET:
            self._reset(Direction.SERVER_TO_CLIENT, comment)
        else:
            for way in WAYS:
                self._record_finish(way, comment)
            self._close(_close_well, self._ends)

    def _reset(self, way: int, comment: str = "") -> None:
        self._tap.recording.add(self._converse().reset(WAYS[way]), comment)
        self._close(lambda end: end.abort(), self._ends)

    def _close(self, how: Callable[[Plain], None], ends: list[Plain]) -> None:
        self.closed = True
        for end in ends:
            self._tap.loop.watch(end.socket, 0, self._answered)
            how(end)
        self._tap.forget(self)

    # from the tap

    def change_faults(self, direction: Direction, faults: Faults, counts_on: bool) -> None:
        if self.is_open:
            self._lines[direction].change(faults, time.monotonic_ns(), counts_on=counts_on)
            self._pump(direction)

    # recording

    def _record_finish(self, way: int, comment: str = "") -> None:
        if not self._finished_on_record[way]:
            self._finished_on_record[way] = True
            self._tap.recording.add(self._converse().finish(WAYS[way]), comment)

    def _on_wire(self, end: int, out: bool, octets: bytes) -> None:
        """Octets of TLS at one end: what is recorded where the wire is wanted as it is."""
        way = 1 - end if out else end
        if octets:
            self._tap.recording.add(self._converse().data(WAYS[way], octets))
        else:
            self._record_finish(way)
