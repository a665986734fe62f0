"""Many members of the chat in one process that needs little of the processor: raw HTTP/2 over plain sockets.

How it works. A Python gRPC client spends more on receiving a message than the server does on sending it, so that it
would be the client that is measured. Here one thread waits for all sockets (a selector), reads what there is, and walks
over frame headers. Of a DATA frame it reads the length prefixes of the messages in it and, at a place that is the same
in every message because all names are equally long, the time at which the message was posted. Field blocks are sent as
literals that are made once (RFC 7541 §6.2.2) and, being rare, received with hpack. Both directions' flow-control
windows are kept (RFC 9113 §6.9): a member that reads gives back what it has read, one that doesn't gives back nothing,
as a gRPC client does whose program stopped reading.

`Load` is that process's inside. `run` is the process: it takes the names of Load's methods and their arguments from a
pipe and answers with what they return.
"""

from __future__ import annotations

import array
import gc
import os
import random
import resource
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection as Pipe
from select import select
from typing import NamedTuple
from urllib.parse import unquote

from hpack import Decoder

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60.0
"""For what has to happen in the end: members inside, posts delivered."""
WARM_SECONDS = 0.5
"""Before a measurement begins."""
DRAW = 1
"""Seeds the times of posts, so that every round has the same."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = struct.Struct(">HBBBI")
"""Length in two parts (24 bits), type, flags, stream identifier (RFC 9113 §4.1)."""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE = 4
"""The setting's number."""
FIRST_WINDOW = 65_535
"""Of every connection and, before SETTINGS, of every stream (RFC 9113 §6.9.2)."""
STREAM_WINDOW = 4 << 20
"""What a stream may receive unread: as grpcio announces."""
CONNECTION_WINDOW = 64 << 20
READ_OCTETS = 1 << 18
OTHER_FILES = 100
"""That a process has open beside its connections, at most."""

STAMP_LENGTH = 19
"""Digits of a post's time, in nanoseconds of the monotonic clock: the beginning of its text."""


READ_SECONDS = 0.001
"""How often a load that saturates reads."""


class Trouble(Exception):
    """The run is worth nothing; the text says why."""


class Ended(NamedTuple):
    """A Chat call's end."""

    user: str
    status: int
    sentence: str


class Opened(NamedTuple):
    inside: int
    """Members who got their response headers."""
    refused: list[Ended]
    seconds: float


class Run(NamedTuple):
    """Posts that were made, and what came of them."""

    posts: int
    deliveries: int
    """Of all the posts."""
    seconds: float
    """How long was measured: without the warming up, and without waiting for the last ones."""
    measured: int
    """Deliveries meanwhile."""
    cpu: float
    """Processor seconds of this process meanwhile."""
    server_cpu: float
    latencies_ns: array.array[int]
    """Of the measured deliveries, each from the time at which its post was due."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return FRAME_HEADER.pack(length >> 8, length & 255, kind, flags, stream_id) + payload


def field_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Literals without indexing, new names, no Huffman code: RFC 7541 §6.2.2, strings of at most 126 octets."""
    parts = []
    for field in fields:
        strings = [text.encode() for text in field]
        parts.append(b"\0" + b"".join(bytes((len(octets),)) + octets for octets in strings))
    return b"".join(parts)


def string_field(number: int, octets: bytes) -> bytes:
    """A protobuf field of wire type 2."""
    return bytes((number << 3 | 2,)) + varint(len(octets)) + octets


def varint(number: int) -> bytes:
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def prefixed(message: bytes) -> bytes:
    """A length-prefixed message of gRPC, not compressed."""
    return struct.pack(">BI", 0, len(message)) + message


def cpu_seconds(pid: int) -> float:
    """User and system time of a process until now, from Linux's /proc."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Member:
    """One Chat call."""

    __slots__ = ("connection", "ended", "inside", "reads", "rest", "room", "stream_id", "unreturned", "user", "window")

    def __init__(self, number: int, room: int, connection: Connection, reads: bool = True) -> None:
        self.user = f"m{number:06}"
        self.room = f"r{room:04}"
        self.connection = connection
        self.reads = reads
        self.stream_id = connection.add(self)
        self.window = FIRST_WINDOW
        """Octets that may be sent."""
        self.rest = b""
        """Of a message that has not come to its end."""
        self.unreturned = 0
        """Octets received whose window was not given back."""
        self.inside = False
        self.ended: Ended | None = None

    def post(self, text: bytes, message_id: bytes = b"") -> None:
        fields = [(1, self.user.encode()), (2, self.room.encode()), (3, text), (6, message_id)]
        message = b"".join(string_field(number, octets) for number, octets in fields if octets)
        self.connection.post(self, frame(DATA, 0, self.stream_id, prefixed(message)))

    def end(self, status: int, sentence: str) -> None:
        if self.ended is None:
            self.ended = Ended(self.user, status, sentence)
            self.connection.load.ended += self.reads


class Connection:
    """One TCP connection and the Chat calls on it."""

    def __init__(self, load: Load, port: int) -> None:
        self.load = load
        self._members: dict[int, Member] = {}
        """By stream identifier."""
        self._decoder = Decoder()
        self._window = FIRST_WINDOW
        self._initial_window = FIRST_WINDOW
        self._unreturned = 0
        self._waiting: deque[tuple[Member, bytes]] = deque()
        """DATA frames for which a window is too small."""
        self._partial = b""
        """The beginning of a frame."""
        self._unsent = bytearray()
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, STREAM_WINDOW)
        self._unsent += PREFACE + frame(SETTINGS, 0, 0, settings)
        self._unsent += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", CONNECTION_WINDOW - FIRST_WINDOW))
        authority = f"{HOST}:{port}"
        self._block = field_block(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/minichat.v1.ChatService/Chat"),
                (":authority", authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ]
        )
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._address = (HOST, port)

    def add(self, member: Member) -> int:
        stream_id = 2 * len(self._members) + 1  # the client's are odd (RFC 9113 §5.1.1)
        self._members[stream_id] = member
        return stream_id

    def open(self) -> None:
        """Connects, and opens every member's call with the message that says who chats where."""
        for member in self._members.values():
            self._unsent += frame(HEADERS, END_HEADERS, member.stream_id, self._block)
            member.post(b"")
        self.socket.connect_ex(self._address)
        self.load.selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def post(self, member: Member, data: bytes) -> None:
        self._waiting.append((member, data))
        self._post_waiting()

    def _post_waiting(self) -> None:
        while self._waiting:
            member, data = self._waiting[0]
            length = len(data) - FRAME_HEADER.size
            if length > self._window or length > member.window:
                return
            self._waiting.popleft()
            self._window -= length
            member.window -= length
            self._send(data)

    def _send(self, octets: bytes) -> None:
        idle = not self._unsent
        self._unsent += octets
        if idle:
            self.write()
            if self._unsent and self.load.is_registered(self.socket):
                self.load.selector.modify(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def write(self) -> None:
        try:
            del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lost(str(error))

    def writable(self) -> None:
        """The selector says that the socket takes octets."""
        self.write()
        if not self._unsent and self.load.is_registered(self.socket):
            self.load.selector.modify(self.socket, selectors.EVENT_READ, self)

    def close(self) -> None:
        if self.load.is_registered(self.socket):
            self.load.selector.unregister(self.socket)
        self.socket.close()

    def _lost(self, why: str) -> None:
        for member in self._members.values():
            member.end(-1, why)
        self.close()

    def readable(self) -> None:
        """Reads once, as much as there is, and takes all whole frames apart."""
        try:
            octets = self.socket.recv(READ_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(str(error))
            return
        if not octets:
            self._lost("the server closed the connection")
            return
        now = time.monotonic_ns()
        if self._partial:
            octets = self._partial + octets
        at, end = 0, len(octets)
        members, deliver, unpack = self._members, self.load.deliver, FRAME_HEADER.unpack_from
        while end - at >= 9:
            high, low, kind, flags, stream_id = unpack(octets, at)
            length = high << 8 | low
            if at + 9 + length > end:
                break
            payload = octets[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == DATA:
                self._unreturned += length
                member = members[stream_id]
                member.unreturned += length
                if member.reads:
                    deliver(member, payload, now)
                    if member.unreturned > STREAM_WINDOW // 2:
                        self.give_back(member)
            else:
                self._handle(kind, flags, stream_id, payload)
        self._partial = octets[at:]
        if self._unreturned > CONNECTION_WINDOW // 2:
            self._send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unreturned)))
            self._unreturned = 0

    def give_back(self, member: Member) -> None:
        """The window of what the member has read."""
        self._send(frame(WINDOW_UPDATE, 0, member.stream_id, struct.pack(">I", member.unreturned)))
        member.unreturned = 0

    def _handle(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            if not flags & END_HEADERS:
                raise Trouble("the server splits field blocks, and this client does not join them")
            fields = dict(self._decoder.decode(payload, raw=True))
            member = self._members[stream_id]
            if b"grpc-status" in fields:
                member.end(int(fields[b"grpc-status"]), unquote(fields.get(b"grpc-message", b"").decode()))
            elif flags & END_STREAM:
                member.end(-1, f"HTTP status {fields[b':status'].decode()}")
            else:
                member.inside = True
        elif kind == RST_STREAM:
            self._members[stream_id].end(-1, f"RST_STREAM with error {int.from_bytes(payload)}")
        elif kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == INITIAL_WINDOW_SIZE:
                    for member in self._members.values():
                        member.window += value - self._initial_window  # RFC 9113 §6.9.2
                    self._initial_window = value
            self._send(frame(SETTINGS, ACK, 0))
            self._post_waiting()
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload)
            if stream_id == 0:
                self._window += increment
            elif stream_id in self._members:
                self._members[stream_id].window += increment
            self._post_waiting()
        elif kind == GOAWAY:
            code = int.from_bytes(payload[4:8])
            if code:
                self._lost(f"GOAWAY with error {code}: {payload[8:].decode(errors='replace')}")


class Load:
    """Members on connections; a room has `per_room` of them. Every method returns when what it does is done."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._tag = os.urandom(4).hex()
        """Makes message ids differ from those of an earlier load on the same server."""
        self._connections: list[Connection] = []
        self._members: list[Member] = []
        """Those that read."""
        self._silent: list[Member] = []
        """Those that don't."""
        self._rooms = 0
        self._per_room = 0
        self._posts = 0
        self._deliveries = 0
        self._padding = b""
        self._stamp_at = 0
        """Where a post's time begins in its length-prefixed message."""
        self._latencies: array.array[int] | None = None
        self.ended = 0
        """Calls that were to go on and did not."""

    def open(self, port: int, members: int, connections: int, per_room: int, silent: int = 0) -> Opened:
        """All at once. `silent` members more are in the first room, each on a connection of its own, and read nothing.
        Returns when each is inside or refused."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = connections + silent + OTHER_FILES
        if hard < files:
            raise Trouble(
                f"{connections:,} connections need {files:,} open files, and {hard:,} are allowed (ulimit -Hn)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
        self._connections = [Connection(self, port) for _ in range(connections + silent)]
        self._per_room, self._rooms = per_room, members // per_room
        self._members = [Member(i, i // per_room, self._connections[i % connections]) for i in range(members)]
        self._silent = [Member(members + i, 0, self._connections[connections + i], False) for i in range(silent)]
        start = time.monotonic()
        for connection in self._connections:
            connection.open()
        everybody = self._members + self._silent
        self._turn_until(lambda: all(member.inside or member.ended for member in everybody), "members inside")
        refused = [member.ended for member in everybody if member.ended is not None]
        return Opened(sum(member.inside for member in everybody), refused, time.monotonic() - start)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def wake(self) -> list[Ended]:
        """Those that read nothing read on, until the status comes that is behind all that waits for them."""

        def done() -> bool:
            for member in self._silent:
                if member.unreturned:
                    member.connection.give_back(member)
            return all(member.ended for member in self._silent)

        self._turn_until(done, "calls ended whose members read nothing")
        return [member.ended for member in self._silent if member.ended]

    def saturate(self, server: int, seconds: float, in_flight: int, text_length: int = STAMP_LENGTH) -> Run:
        """Posts as fast as the server, whose process is named, delivers: no more than `in_flight` posts, counted in
        deliveries, are on their way."""

        def go_on(until: float) -> None:
            while time.monotonic() < until:
                while self._missing() < in_flight * self._per_room:
                    self._post(time.monotonic_ns())
                # As on a network, the server does not pay for waking who reads each message at once.
                time.sleep(READ_SECONDS)
                self._turn(0)

        return self._measure(go_on, server, seconds, text_length)

    def pace(self, server: int, seconds: float, per_second: float, text_length: int = STAMP_LENGTH) -> Run:
        """Posts at so many deliveries per second, at random times (a Poisson process): when each is due was decided
        before, and its latency counts from there, so that a server that lags does not slow down what it is asked."""
        gap_ns = 1e9 * self._per_room / per_second
        draw = random.Random(DRAW)
        due = time.monotonic_ns()

        def go_on(until: float) -> None:
            nonlocal due
            while (now := time.monotonic()) < until:
                while due < time.monotonic_ns():
                    self._post(due)
                    due += round(draw.expovariate(1) * gap_ns)
                # select has microseconds where epoll has milliseconds
                select([self.selector.fileno()], [], [], max(0.0, min(until, due / 1e9) - now))
                self._turn(0)

        return self._measure(go_on, server, seconds, text_length)

    def greet(self) -> int:
        """One post in each room, one room after the other. The number of deliveries, which is all members'."""
        before = self._deliveries
        self._set_text(STAMP_LENGTH)
        for member in self._members[:: self._per_room]:
            self._post(time.monotonic_ns(), member)
            self._drain()
        return self._deliveries - before

    def deliver(self, member: Member, octets: bytes, now: int) -> None:
        """What a DATA frame brought to a member."""
        if member.rest:
            octets = member.rest + octets
        at, end = 0, len(octets)
        while end - at >= 5:
            after = at + 5 + int.from_bytes(octets[at + 1 : at + 5])
            if after > end:
                break
            self._deliveries += 1
            if self._latencies is not None:
                stamp = at + self._stamp_at
                self._latencies.append(now - int(octets[stamp : stamp + STAMP_LENGTH]))
            at = after
        member.rest = octets[at:]

    def is_registered(self, it: socket.socket) -> bool:
        return it.fileno() >= 0 and it in self.selector.get_map()

    def _measure(self, go_on: Callable[[float], None], server: int, seconds: float, text_length: int) -> Run:
        self._set_text(text_length)
        posts, deliveries = self._posts, self._deliveries
        go_on(time.monotonic() + min(WARM_SECONDS, seconds))
        latencies = self._latencies = array.array("q")
        at_start, cpu, server_cpu = self._deliveries, time.process_time(), cpu_seconds(server)
        start = time.monotonic()
        go_on(start + seconds)
        self._turn_until(lambda: self._deliveries > at_start, "posts delivered")
        took = time.monotonic() - start
        measured = self._deliveries - at_start
        cpu, server_cpu = time.process_time() - cpu, cpu_seconds(server) - server_cpu
        self._drain()
        self._latencies = None
        posts, deliveries = self._posts - posts, self._deliveries - deliveries
        return Run(posts, deliveries, took, measured, cpu, server_cpu, latencies)

    def _set_text(self, length: int) -> None:
        first = self._members[0]
        head = string_field(1, first.user.encode()) + string_field(2, first.room.encode())
        self._stamp_at = 5 + len(head) + 1 + len(varint(length))
        self._padding = b"." * (length - STAMP_LENGTH)

    def _post(self, now: int, member: Member | None = None) -> None:
        """From one member after the other, unless it is said from whom."""
        member = member or self._members[self._posts % len(self._members)]
        member.post(b"%0*d" % (STAMP_LENGTH, now) + self._padding, f"{self._tag}{self._posts:08x}".encode())
        self._posts += 1

    def _missing(self) -> int:
        return self._posts * self._per_room - self._deliveries

    def _drain(self) -> None:
        self._turn_until(lambda: self._missing() <= 0 or self.ended > 0, "posts delivered")
        if self.ended:
            raise Trouble(f"a call ended: {next(member.ended for member in self._members if member.ended)}")
        if self._missing():
            raise Trouble(f"{-self._missing()} deliveries more than posts times members")

    def _turn(self, seconds: float) -> None:
        for key, events in self.selector.select(seconds):
            connection: Connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.writable()
            if events & selectors.EVENT_READ and connection.socket.fileno() >= 0:
                connection.readable()

    def _turn_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise Trouble(f"not all {what} after {PATIENCE_SECONDS:g} s")
            self._turn(0.1)


def run(pipe: Pipe) -> None:
    """The process: until None comes, calls a method of Load and answers with its result or its Trouble."""
    gc.disable()  # what is measured here are the server's pauses
    load = Load()
    while (command := pipe.recv()) is not None:
        name, arguments = command
        try:
            pipe.send(getattr(load, name)(**arguments))
        except Trouble as trouble:
            pipe.send(trouble)
    load.close()
