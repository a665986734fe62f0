"""The tap between real sockets, real TLS and real gRPC; its recording read by our reader and by Wireshark."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from capture.events import Direction, FrameEvent, FrameType, Packet
from capture.pcap import SYNTHESISED, read
from capture.pipeline import Pipeline
from capture.sources import tap as tap_module
from capture.sources.ends import context_towards_clients, context_towards_server
from capture.sources.faults import Ending, Faults
from capture.sources.tap import Tap, TapError
from capture.synthesis import SEGMENT
from kit.certificates import LabFiles, lab_certificate

CLIENT, SERVER = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT
PATIENCE = 20.0
"""Seconds after which what should have come is taken for lost: far more than anything here takes."""
LOOPBACK = "127.0.0.1"


class Origin:
    """A server that hands its connections to the test."""

    def __init__(self, host: str = LOOPBACK, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family, backlog=128)
        self.listener.settimeout(PATIENCE)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE)
        return connection


@pytest.fixture
def origin() -> Iterator[Origin]:
    server = Origin()
    with server.listener:
        yield server


def dial(tap: Tap, host: str = LOOPBACK) -> socket.socket:
    connection = socket.create_connection((host, tap.port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def knock(tap: Tap) -> bytes:
    """Connects to be refused: the reset may come while connecting or after it."""
    with dial(tap) as client:
        return receive_all(client)


@contextlib.contextmanager
def connected(tap: Tap, origin: Origin) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's socket and the server's."""
    with dial(tap) as client, origin.accept() as server:
        yield client, server


def receive(connection: socket.socket, count: int) -> bytes:
    octets = bytearray()
    while len(octets) < count:
        piece = connection.recv(65_536)
        assert piece, f"the connection ended after {len(octets)} octets of {count}"
        octets += piece
    return bytes(octets)


def receive_all(connection: socket.socket) -> bytes:
    octets = bytearray()
    while piece := connection.recv(65_536):
        octets += piece
    return bytes(octets)


def send_all(connection: socket.socket, octets: bytes) -> None:
    connection.sendall(octets)
    connection.shutdown(socket.SHUT_WR)


def send_until_stuck(connection: socket.socket, octets: bytes, seconds: float = 0.5) -> int:
    """How many octets go in before nothing has been taken for so long. They are `octets` over and over."""
    sent = 0
    connection.settimeout(seconds)
    try:
        while True:
            sent += connection.send(octets[sent % len(octets) :])
            assert sent < 1 << 30, "nothing slows the sender"
    except TimeoutError:
        return sent
    finally:
        connection.settimeout(PATIENCE)


def is_silent(connection: socket.socket, seconds: float = 0.1) -> bool:
    """Whether nothing comes for so long. (What must not happen has no event to wait for.)"""
    connection.settimeout(seconds)
    try:
        return not connection.recv(1, socket.MSG_PEEK) and False
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until(condition: Callable[[], Any]) -> None:
    """Waits for what another thread brings about and has no event for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.002)


def in_thread(work: Callable[[], Any]) -> futures.Future[Any]:
    pool = futures.ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


class Segment:
    """What a packet of the recording says, for raw IPv4 and IPv6."""

    def __init__(self, packet: Packet) -> None:
        header = 20 if packet.data[0] >> 4 == 4 else 40
        tcp = packet.data[header:]
        self.source, self.target, self.seq, self.ack, offset, self.flags = struct.unpack_from(">HHIIBB", tcp)
        self.payload = tcp[offset >> 4 << 2 :]
        self.time_ns = packet.time_ns

    @property
    def names(self) -> str:
        return "".join(name for name, bit in (("S", 2), ("F", 1), ("R", 4), ("A", 16)) if self.flags & bit)


def segments(packets: list[Packet], origin: Origin, direction: Direction | None = None) -> list[Segment]:
    found = [Segment(packet) for packet in packets]
    port = origin.address[1]
    if direction is None:
        return found
    return [s for s in found if (s.target if direction == CLIENT else s.source) == port]


def octets_of(packets: list[Packet], origin: Origin, direction: Direction) -> bytes:
    return b"".join(segment.payload for segment in segments(packets, origin, direction))


def everything(tap: Tap) -> list[Packet]:
    """All that a closed tap has to give."""
    return [packet for batch in tap for packet in batch]


def file_packets(path: Path) -> list[Packet]:
    with path.open("rb") as stream:
        reader = read(stream)
        packets = [packet for batch in reader for packet in batch]
        assert not reader.problems
        assert reader.synthesised
    return packets


def tshark(path: Path, *arguments: str) -> str:
    command = ["tshark", "-n", "-r", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wireshark_finds_nothing(path: Path) -> None:
    told = "tcp.analysis.flags || (_ws.expert.severity >= Warning && !tcp.flags.reset)"
    told += " || tcp.checksum.status != 1 || ip.checksum.status == 0"
    assert tshark(path, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", told) == ""


# -- relaying --------------------------------------------------------------------------------------------------------


def test_octets_pass_both_ways_at_once_unchanged_and_are_recorded(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    sent = [random.Random(way).randbytes(1_500_000) for way in (CLIENT, SERVER)]
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as ends:
        senders = [in_thread(partial(send_all, *pair)) for pair in zip(ends, sent, strict=True)]
        receivers = [in_thread(partial(receive_all, end)) for end in ends]
        assert [receiver.result(PATIENCE) for receiver in receivers] == [sent[SERVER], sent[CLIENT]]
        for sender in senders:
            sender.result(PATIENCE)
    packets = file_packets(path)
    assert [octets_of(packets, origin, way) for way in Direction] == sent
    assert [s.names for s in segments(packets, origin)][:3] == ["S", "SA", "A"]
    assert sum("F" in s.names for s in segments(packets, origin)) == 2
    wireshark_finds_nothing(path)
    followed = tshark(path, "-q", "-z", "follow,tcp,raw,0").split("\n")[6:-2]
    assert bytes.fromhex("".join(line for line in followed if not line.startswith("\t"))) == sent[CLIENT]


def test_a_direction_that_has_ended_leaves_the_other_open(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"all I have")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"all I have"
        for i in range(3):
            server.sendall(bytes([i]) * 1000)
            assert receive(client, 1000) == bytes([i]) * 1000
        server.close()
        assert receive_all(client) == b""


@pytest.mark.parametrize("way", list(Direction))
def test_a_reset_is_passed_on_as_a_reset(way: Direction, origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as ends:
        ends[way].sendall(b"before")
        assert receive(ends[1 - way], 6) == b"before"
        reset(ends[way])
        with pytest.raises(ConnectionResetError):
            receive_all(ends[1 - way])
        until(lambda: not tap.connections)
    found = segments(file_packets(path), origin)
    assert found[-1].names == "RA"
    assert (found[-1].target if way == CLIENT else found[-1].source) == origin.address[1]
    assert not any("F" in segment.names for segment in found)
    wireshark_finds_nothing(path)


def test_a_reset_behind_a_half_close_is_passed_on(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b""
        reset(client)
        with pytest.raises(ConnectionError):
            send_until_stuck(server, bytes(1000))
        until(lambda: not tap.connections)


def test_fifty_connections_at_once_do_not_mix(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(tap)) for _ in range(50)]
        servers = [stack.enter_context(origin.accept()) for _ in range(50)]
        until(lambda: len(tap.connections) == 50)
        for i, client in enumerate(clients):
            client.sendall(struct.pack(">I", i) * 1000)
        seen = [receive(server, 4000) for server in servers]
        for server, octets in zip(servers, seen, strict=True):
            server.sendall(octets)
        assert [receive(client, 4000) for client in clients] == [struct.pack(">I", i) * 1000 for i in range(50)]
        assert sorted(seen) == sorted(struct.pack(">I", i) * 1000 for i in range(50))
        assert [(c.number, c.sent, c.received) for c in tap.connections] == [(i, 4000, 4000) for i in range(50)]
        numbers = {c.client: c.number for c in tap.connections}
    connections = {e.connection for e in Pipeline(ports=[origin.address[1]]).feed(file_packets(path)) if e.connection}
    assert {c.client: c.number for c in connections} == numbers
    assert {c.server for c in connections} == {f"{LOOPBACK}:{origin.address[1]}"}
    wireshark_finds_nothing(path)


def test_ipv6_stays_ipv6(tmp_path: Path) -> None:
    path, server = tmp_path / "tap.pcapng", Origin("::1")
    with server.listener, Tap(server.address, ("::1", 0), write=path) as tap:
        assert tap.address == f"[::1]:{tap.port}"
        with dial(tap, "::1") as client, server.accept() as accepted:
            client.sendall(b"six")
            assert receive(accepted, 3) == b"six"
            (connection,) = tap.connections
            assert connection.client == f"[::1]:{client.getsockname()[1]}"
    assert {packet.data[0] >> 4 for packet in file_packets(path)} == {6}
    assert octets_of(file_packets(path), server, CLIENT) == b"six"
    wireshark_finds_nothing(path)


def test_a_client_with_ipv4_and_a_server_with_ipv6_are_recorded_in_ipv6(tmp_path: Path) -> None:
    path, server = tmp_path / "tap.pcapng", Origin("::1")
    with server.listener, Tap(server.address, write=path) as tap, dial(tap) as client, server.accept() as accepted:
        accepted.sendall(b"mixed")
        assert receive(client, 5) == b"mixed"
    packets = file_packets(path)
    assert packets[0].data[8:24] == bytes(10) + b"\xff\xff\x7f\0\0\1"
    assert octets_of(packets, server, SERVER) == b"mixed"


def test_a_slow_receiver_slows_its_sender_and_loses_nothing(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as (client, server):
        octets = random.Random(1).randbytes(1 << 20)
        sent = send_until_stuck(client, octets)
        assert tap.connections[0].sent < sent < 100 << 20
        client.shutdown(socket.SHUT_WR)
        received = receive_all(server)
        assert len(received) == sent
        assert received == (octets * (sent // len(octets) + 1))[:sent]


def test_a_reset_overtakes_what_nobody_takes(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as (client, server):
        send_until_stuck(client, bytes(1 << 20))
        reset(client)
        with pytest.raises(ConnectionResetError):
            receive_all(server)
        until(lambda: not tap.connections)


def test_a_server_that_is_not_there_is_recorded_and_the_tap_stays(tmp_path: Path) -> None:
    path, gone = tmp_path / "tap.pcapng", Origin()
    gone.listener.close()
    with Tap(gone.address, write=path) as tap:
        with pytest.raises(ConnectionResetError):
            knock(tap)
        until(lambda: tap.problems)
        assert tap.problems[0].reason == "connection 0: the server cannot be reached: Connection refused"
        assert tap.connections == []
        back = Origin(port=gone.address[1])
        with back.listener, dial(tap) as client, back.accept() as server:
            client.sendall(b"again")
            assert receive(server, 5) == b"again"
    found = segments(file_packets(path), gone)
    assert [segment.names for segment in found[:5]] == ["S", "RA", "S", "SA", "A"]
    assert "cannot be reached" in tshark(path, "-T", "fields", "-e", "frame.comment", "-c", "2")
    wireshark_finds_nothing(path)


def test_a_server_known_by_a_name_is_tried_at_each_of_its_addresses(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = origin.address[1]
    real = socket.getaddrinfo

    def both(host: str, *rest: Any, **options: Any) -> Any:
        first = real("::1", *rest, **options) if host == "localhost" else []
        return first + real(LOOPBACK if host == "localhost" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with Tap(("localhost", port)) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"found")
        assert receive(server, 5) == b"found"
        assert tap.connections[0].server == f"{LOOPBACK}:{port}"
        assert not tap.problems


def test_clients_are_numbered_as_they_came_also_while_the_servers_address_is_found_out(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = origin.address[1]
    real = socket.getaddrinfo

    def several(host: str, *rest: Any, **options: Any) -> Any:
        hosts = ["127.0.0.9", "127.0.0.8", LOOPBACK] if host == "somewhere" else [host]
        return [found for host in hosts for found in real(host, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with Tap(("somewhere", port)) as tap, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(tap)) for _ in range(5)]
        for _ in clients:
            stack.enter_context(origin.accept())
        until(lambda: len(tap.connections) == 5)
        names = [f"{LOOPBACK}:{client.getsockname()[1]}" for client in clients]
        assert [connection.client for connection in tap.connections] == names
        assert {connection.server for connection in tap.connections} == {f"{LOOPBACK}:{port}"}
    syns = [segment for segment in segments(everything(tap), origin) if segment.names == "S"]
    assert [f"{LOOPBACK}:{segment.source}" for segment in syns] == names


def test_more_clients_than_a_tap_takes_wait_until_one_leaves(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_module, "MAX_CONNECTIONS", 2)
    with Tap(origin.address) as tap, connected(tap, origin) as first, connected(tap, origin), dial(tap) as third:
        third.sendall(b"patient")
        until(lambda: len(tap.connections) == 2)
        for end in first:
            end.close()
        with origin.accept() as server:
            assert receive(server, 7) == b"patient"
        assert [connection.number for connection in tap.connections] == [1, 2]


EXHAUST = """
import resource, socket
from capture.sources.tap import Tap

def limit(number):
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

origin = socket.create_server(("127.0.0.1", 0))
with Tap(origin.getsockname()[:2]) as tap:
    early = socket.create_connection(("127.0.0.1", tap.port))
    while not tap.connections:
        pass
    late = socket.socket()
    limit(late.fileno() + 1)
    late.connect(("127.0.0.1", tap.port))
    while not tap.problems:
        pass
    early.sendall(b"still relayed")
    while tap.connections[0].sent < 13:
        pass
    limit(1000)
    while len(tap.connections) < 2:
        pass
    print([problem.reason for problem in tap.problems])
"""


def test_without_a_file_descriptor_left_a_client_waits_and_the_others_go_on() -> None:
    command = [sys.executable, "-c", EXHAUST]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 3, check=False)
    assert (run.stdout, run.stderr) == ("['a client has to wait: Too many open files']\n", "")


# -- recording -------------------------------------------------------------------------------------------------------


def test_who_follows_live_gets_the_very_packets_of_the_file(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    followed: list[Packet] = []
    with Tap(origin.address, write=path) as tap:
        consumer = in_thread(lambda: followed.extend(packet for batch in tap for packet in batch))
        for i in range(5):
            with connected(tap, origin) as (client, server):
                client.sendall(bytes(i * 10_000))
                assert len(receive(server, i * 10_000)) == i * 10_000
        until(lambda: not tap.connections)
    consumer.result(PATIENCE)
    assert tap.ended
    assert followed == file_packets(path)
    assert [packet.number for packet in followed] == list(range(1, len(followed) + 1))
    times = [packet.time_ns for packet in followed]
    assert times == sorted(times)
    assert tap.dropped == 0


def test_the_file_can_be_read_while_it_grows_and_says_what_it_is(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"now")
        assert receive(server, 3) == b"now"
        until(lambda: octets_of(file_packets(path), origin, CLIENT) == b"now")
    with path.open("rb") as stream:
        reader = read(stream)
        list(reader)
    (interface,) = reader.interfaces
    assert interface.name == "tap"
    assert interface.hardware == SYNTHESISED
    assert interface.description.endswith("TCP/IP synthesised by the tap")
    assert "synthesised by the tap" in reader.comment
    assert interface.dropped == 0
    assert not reader.problems


def test_a_stream_is_written_to_and_left_open(origin: Origin) -> None:
    stream = io.BytesIO()
    with Tap(origin.address, write=stream) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"x")
        receive(server, 1)
    assert sum(len(batch) for batch in read(io.BytesIO(stream.getvalue()))) > 3


def test_packets_returns_after_its_timeout_and_when_the_tap_is_closed(origin: Origin) -> None:
    tap = Tap(origin.address).start()
    assert tap.packets(0.01) == []
    assert not tap.ended
    waiting = in_thread(tap.packets)
    tap.close()
    assert waiting.result(PATIENCE) == []
    assert tap.ended
    assert tap.packets() == []
    tap.close()


def test_a_file_that_can_be_written_no_further_is_told_of_and_the_traffic_goes_on(origin: Origin) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as stream, Tap(origin.address, write=stream) as tap:
        os.close(reading)
        with connected(tap, origin) as (client, server):
            client.sendall(b"goes on")
            assert receive(server, 7) == b"goes on"
            until(lambda: tap.problems)
            client.sendall(b"and on")
            assert receive(server, 6) == b"and on"
    assert [p.reason for p in tap.problems] == ["the capture file cannot be written any further: Broken pipe"]
    assert octets_of(everything(tap), origin, CLIENT) == b"goes onand on"


def test_a_full_disk_is_told_at_the_start(origin: Origin) -> None:
    with pytest.raises(TapError, match="/dev/full cannot be written: No space left on device"):
        Tap(origin.address, write="/dev/full").start()


def test_longer_pieces_than_a_packet_holds_are_split(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as (client, server):
        client.sendall(bytes(300_000))
        receive(server, 300_000)
    assert max(len(segment.payload) for segment in segments(file_packets(path), origin)) <= SEGMENT


# -- life ------------------------------------------------------------------------------------------------------------


def test_closing_resets_what_is_open_and_leaves_no_thread_and_no_port(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    before = set(threading.enumerate())
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"x")
        receive(server, 1)
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"tap"}
        tap.close()
        for end in (client, server):
            with pytest.raises(ConnectionResetError):
                receive_all(end)
        with pytest.raises(ConnectionRefusedError):
            dial(tap)
    assert set(threading.enumerate()) == before
    assert segments(file_packets(path), origin)[-1].names == "RA"
    assert "the tap was closed" in tshark(path, "-T", "fields", "-e", "frame.comment")
    with Tap(origin.address, (LOOPBACK, tap.port)):
        pass


def test_closing_passes_on_what_has_arrived_and_lets_a_good_end_be_one(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap, connected(tap, origin) as (client, server):
        echo = in_thread(lambda: send_all(server, receive_all(server)))
        client.sendall(b"the last words")
        client.shutdown(socket.SHUT_WR)
        tap.close()
        assert receive_all(client) == b"the last words"
        echo.result(PATIENCE)
    found = segments(file_packets(path), origin)
    assert sum("F" in segment.names for segment in found) == 2
    assert not any("R" in segment.names for segment in found)


def test_what_keeps_a_tap_from_starting_is_said_in_a_sentence(origin: Origin, tmp_path: Path) -> None:
    port = origin.address[1]
    for arguments, reason in [
        ({"server": ("127.0.0.2", port), "listen": origin.address}, f"the tap cannot listen on {LOOPBACK}:{port}: "),
        ({"server": ("no.such.host.invalid", port)}, "no.such.host.invalid is no address of a host: "),
        ({"server": origin.address, "listen": ("256.1.1.1", 0)}, "256.1.1.1 is no address of a host: "),
        (
            {"server": origin.address, "listen": (LOOPBACK, 70_000)},
            "a port is a number from 0 to 65535, and this is 70000",
        ),
        ({"server": origin.address, "write": tmp_path / "no" / "file"}, f"{tmp_path}/no/file cannot be written: "),
    ]:
        with pytest.raises(TapError) as caught:
            Tap(**arguments).start()  # type: ignore[arg-type]  # any of its options
        assert str(caught.value).startswith(reason)
    free = Origin()
    free.listener.close()
    for host in (LOOPBACK, "0.0.0.0"):
        with pytest.raises(TapError, match="cannot listen where its server is"):
            Tap(free.address, (host, free.address[1])).start()
    assert not [thread for thread in threading.enumerate() if thread.name == "tap"]


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_delay_holds_every_octet_and_the_recording_shows_when_it_passed(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(delay=0.15)) as tap, connected(tap, origin) as (client, server):
        began, clock = time.monotonic(), time.time_ns()
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
        assert time.monotonic() - began >= 0.15
        server.sendall(b"pong")
        assert receive(client, 4) == b"pong"
        assert time.monotonic() - began >= 0.3
    times = [s.time_ns - clock for s in segments(everything(tap), origin) if s.payload]
    assert times[0] >= 150_000_000
    assert times[1] - times[0] >= 150_000_000


def test_a_throttle_keeps_its_rate(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(throttle=100_000)) as tap, connected(tap, origin) as (client, server):
        began = time.monotonic()
        client.sendall(bytes(30_000))
        receive(server, 30_000)
        assert time.monotonic() - began > 0.25
    pieces = [len(s.payload) for s in segments(everything(tap), origin) if s.payload]
    assert sum(pieces) == 30_000
    assert max(pieces) <= 1_000


def test_small_segments_are_small_on_the_wire_and_in_the_recording(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(segment=7)) as tap, connected(tap, origin) as (client, server):
        client.sendall(bytes(range(100)))
        assert receive(server, 100) == bytes(range(100))
    assert [len(s.payload) for s in segments(everything(tap), origin) if s.payload] == [7] * 14 + [2]


def test_a_stall_stops_one_direction_after_exactly_so_many_octets_until_it_is_lifted(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as (client, server):
        until(lambda: tap.connections)
        tap.set_faults(Faults(stall_after=1000), direction=SERVER)
        server.sendall(bytes(5000))
        assert receive(client, 1000) == bytes(1000)
        client.sendall(b"the other way is open")
        assert receive(server, 21) == b"the other way is open"
        assert is_silent(client)
        tap.set_faults(direction=SERVER)
        assert receive(client, 4000) == bytes(4000)


def test_a_stall_ends_by_itself(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(stall_after=0, stall_for=0.2)) as tap, connected(tap, origin) as ends:
        ends[0].sendall(b"late")
        assert receive(ends[1], 4) == b"late"
    found = segments(everything(tap), origin)
    data = next(segment for segment in found if segment.payload)
    assert data.time_ns - found[0].time_ns >= 200_000_000


@pytest.mark.parametrize("how", list(Ending))
def test_a_cut_ends_the_connection_after_exactly_so_many_octets(how: Ending, origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    faults = Faults(cut_after=1000, cut_with=how)
    with Tap(origin.address, write=path) as tap:
        tap.set_faults(faults, direction=CLIENT)
        with connected(tap, origin) as (client, server):
            client.sendall(bytes(1000))
            if how is Ending.FIN:
                assert receive_all(server) == bytes(1000)
                assert receive_all(client) == b""
            else:
                for end in (server, client):
                    with pytest.raises(ConnectionResetError):
                        receive_all(end)
            until(lambda: not tap.connections)
    packets = file_packets(path)
    assert octets_of(packets, origin, CLIENT) == bytes(1000)
    names = [segment.names for segment in segments(packets, origin)]
    assert names[-1] == "RA" if how is Ending.RESET else names[-4:] == ["FA", "A", "FA", "A"]
    assert "cut by the tap" in tshark(path, "-T", "fields", "-e", "frame.comment")
    wireshark_finds_nothing(path)


def test_a_connection_can_be_cut_now(origin: Origin) -> None:
    with Tap(origin.address) as tap, connected(tap, origin) as first, connected(tap, origin) as second:
        until(lambda: len(tap.connections) == 2)
        tap.cut(connection=1)
        with pytest.raises(ConnectionResetError):
            receive_all(second[0])
        first[0].sendall(b"still here")
        assert receive(first[1], 10) == b"still here"
        tap.cut()
        with pytest.raises(ConnectionResetError):
            receive_all(first[0])


def test_refusing_is_for_new_connections_and_can_be_for_one_of_them(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "tap.pcapng"
    with Tap(origin.address, write=path) as tap:
        tap.set_faults(Faults(refuse=True), connection=1)
        with connected(tap, origin) as first:
            with pytest.raises(ConnectionResetError):
                knock(tap)
            first[0].sendall(b"first")
            assert receive(first[1], 5) == b"first"
            with connected(tap, origin) as third:
                third[1].sendall(b"third")
                assert receive(third[0], 5) == b"third"
        assert [problem.reason for problem in tap.problems] == ["connection 1: refused by the tap"]
    assert tshark(path, "-T", "fields", "-e", "tcp.stream", "-Y", "tcp.flags.reset==1").split() == ["1"]


def test_faults_can_be_set_before_the_tap_starts(origin: Origin) -> None:
    tap = Tap(origin.address)
    tap.set_faults(Faults(segment=4), direction=CLIENT)
    assert tap.connections == []
    with tap, connected(tap, origin) as (client, server):
        client.sendall(bytes(8))
        receive(server, 8)
    assert [len(s.payload) for s in segments(everything(tap), origin) if s.payload] == [4, 4]


def test_faults_for_a_connection_go_before_those_for_all(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(segment=5)) as tap:
        tap.set_faults(Faults(segment=2), connection=1)
        tap.set_faults(Faults(segment=3), connection=1, direction=SERVER)
        tap.set_faults(Faults(segment=4), direction=SERVER)
        for _ in range(2):
            with connected(tap, origin) as ends:
                for way in Direction:
                    ends[way].sendall(bytes(6))
                    receive(ends[1 - way], 6)
            until(lambda: not tap.connections)
    pieces = [len(s.payload) for s in segments(everything(tap), origin) if s.payload]
    assert pieces == [5, 1, 4, 2, 2, 2, 2, 3, 3]


def test_an_ended_sender_does_not_disturb_a_delayed_line(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(delay=0.1)) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"last words")
        client.close()
        assert receive_all(server) == b"last words"
        until(lambda: tap.connections)


def test_a_delayed_reset_comes_behind_what_was_sent_before_it(origin: Origin) -> None:
    with Tap(origin.address, faults=Faults(delay=0.1)) as tap, connected(tap, origin) as (client, server):
        client.sendall(b"first this")
        until(lambda: tap.connections)
        assert is_silent(server, 0.02)
        reset(client)
        assert receive(server, 10) == b"first this"
        with pytest.raises(ConnectionResetError):
            receive_all(server)


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabFiles:
    return lab_certificate(tmp_path_factory.mktemp("tls"), ["localhost", "127.0.0.1"])


def wrap(connection: socket.socket, authority: Path) -> ssl.SSLSocket:
    return context_towards_server(authority).wrap_socket(connection, server_hostname="localhost")


def test_with_tls_on_both_sides_the_plaintext_is_recorded(origin: Origin, lab: LabFiles, tmp_path: Path) -> None:
    octets = random.Random(1).randbytes(700_000)
    towards_server = context_towards_server(lab.authority)
    with Tap(origin.address, tls=context_towards_clients(lab.server, lab.server), server_tls=towards_server) as tap:
        accepted = in_thread(
            lambda: context_towards_clients(lab.server, lab.server).wrap_socket(origin.accept(), server_side=True)
        )
        with wrap(dial(tap), lab.authority) as client, accepted.result(PATIENCE) as server:
            assert (client.selected_alpn_protocol(), server.selected_alpn_protocol()) == ("h2", "h2")
            for start in range(0, len(octets), 100_000):  # an SSLSocket is not for two threads at once
                piece = octets[start : start + 100_000]
                echo = in_thread(lambda: server.sendall(receive(server, 100_000)))
                client.sendall(piece)
                assert receive(client, 100_000) == piece
                echo.result(PATIENCE)
    packets = everything(tap)
    assert [octets_of(packets, origin, way) for way in Direction] == [octets, octets]


def test_a_half_closed_tls_connection_goes_on_the_other_way(origin: Origin, lab: LabFiles) -> None:
    with Tap(origin.address, tls=context_towards_clients(lab.server, lab.server)) as tap:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with dial(tap) as client, origin.accept() as server:
            tls = context_towards_server(lab.authority).wrap_bio(incoming, outgoing, server_hostname="localhost")

            def step(action: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return action()
                    except ssl.SSLWantReadError:
                        client.sendall(outgoing.read())
                        incoming.write(client.recv(65_536))
                    finally:
                        client.sendall(outgoing.read())

            step(tls.do_handshake)
            step(lambda: tls.write(b"all I have"))
            assert receive(server, 10) == b"all I have"
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
            client.sendall(outgoing.read())
            assert receive_all(server) == b""
            server.sendall(b"the answer")
            assert step(lambda: tls.read(100)) == b"the answer"
            server.close()
            with pytest.raises(ssl.SSLZeroReturnError):  # closed both ways, and well
                step(lambda: tls.read(100))
    found = segments(everything(tap), origin)
    assert sum("F" in segment.names for segment in found) == 2
    assert not any("R" in segment.names for segment in found)


@pytest.mark.parametrize("side", ["client", "server"])
def test_what_wireshark_decrypts_from_the_wire_is_what_was_said(
    side: str, origin: Origin, lab: LabFiles, tmp_path: Path
) -> None:
    path, keys = tmp_path / "tap.pcapng", tmp_path / "keys.log"
    said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    tls: dict[str, Any] = {"tls": context_towards_clients(lab.server, lab.server)}
    if side == "server":
        tls = {"server_tls": context_towards_server(lab.authority)}
    with Tap(("localhost", origin.address[1]), write=path, record="wire", key_log=keys, **tls) as tap:

        def accept() -> socket.socket:
            connection = origin.accept()
            if side == "client":
                return connection
            return context_towards_clients(lab.server, lab.server).wrap_socket(connection, server_side=True)

        accepted = in_thread(accept)
        client: socket.socket = dial(tap)
        if side == "client":
            client = wrap(client, lab.authority)
        with client, accepted.result(PATIENCE) as server:
            client.sendall(said)
            assert receive(server, len(said)) == said
            server.sendall(said[24:])
            assert receive(client, 9) == said[24:]
            client.close()
            assert receive_all(server) == b""
    assert "CLIENT_" in keys.read_text()
    if os.name == "posix":
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600  # for nobody else
    packets = file_packets(path)
    assert said not in octets_of(packets, origin, CLIENT)
    port = str(origin.address[1])
    fields = ["-T", "fields", "-e", "http2.type", "-e", "http2.magic", "-Y", "http2", "-d", f"tcp.port=={port},tls"]
    assert tshark(path, *fields).split("\n") == ["4\tPRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n", "4\t", ""]
    wireshark_finds_nothing(path)


def test_wire_recordings_without_tls_are_misuse(origin: Origin) -> None:
    with pytest.raises(ValueError, match="TLS"):
        Tap(origin.address, record="wire")


def test_a_tls_client_that_does_not_trust_the_tap_is_told_of(origin: Origin, lab: LabFiles) -> None:
    with Tap(origin.address, tls=context_towards_clients(lab.server, lab.server)) as tap:
        with pytest.raises(ssl.SSLCertVerificationError), dial(tap) as client:
            ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
        until(lambda: tap.problems)
        (problem,) = tap.problems
        assert problem.template == "connection {connection}: TLS with the client failed: {reason}"
        assert "UNKNOWN_CA" in problem.reason
        until(lambda: not tap.connections)


def test_a_server_that_the_tap_does_not_trust_is_told_of(origin: Origin, lab: LabFiles) -> None:
    def refuse() -> None:
        with contextlib.suppress(OSError), origin.accept() as connection:
            context_towards_clients(lab.server, lab.server).wrap_socket(connection, server_side=True)

    with Tap(origin.address, server_tls=context_towards_server()) as tap:
        server = in_thread(refuse)
        with pytest.raises(ConnectionResetError):
            knock(tap)
        server.result(PATIENCE)
        until(lambda: tap.problems)
        assert tap.problems[0].reason.startswith("connection 0: TLS with the server failed: ")
        assert "certificate" in tap.problems[0].reason


# -- gRPC ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def echo_server() -> Iterator[tuple[str, int]]:
    """A gRPC server whose one method sends each message of the stream back."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests)

    server = grpc.server(futures.ThreadPoolExecutor(4), [Handler()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield LOOPBACK, port
    server.stop(None).wait()


def test_wireshark_and_the_pipeline_see_the_same_frames_of_grpc_traffic(
    echo_server: tuple[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "tap.pcapng"
    sent = [bytes([i]) * (10**i) for i in range(6)]
    with Tap(echo_server, write=path) as tap:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(tap.address, options) as channel:
            call: Any = channel.stream_stream("/lab.Echo/Echo")
            assert list(call(iter(sent), timeout=PATIENCE)) == sent
        until(lambda: not tap.connections)
    pipeline = Pipeline()
    events = [event for batch in tap for event in pipeline.feed(batch)] + pipeline.finish()
    again = Pipeline()
    assert [*again.feed(file_packets(path)), *again.finish()] == events
    frames = [event for event in events if isinstance(event, FrameEvent)]
    assert {frame.type_code for frame in frames} >= {FrameType.HEADERS, FrameType.DATA, FrameType.SETTINGS}
    shown = tshark(
        path, "--disable-protocol", "grpc",  # it trips over some frames and then drops those behind them
        "-d", f"tcp.port=={echo_server[1]},http2", "-Y", "http2.type", "-T", "fields", "-e", "frame.number",
        "-e", "http2.type", "-e", "http2.streamid", "-e", "http2.length",
    )  # fmt: skip
    rows = []
    for line in shown.splitlines():
        number, *columns = line.split("\t")
        rows += [(int(number), *map(int, row)) for row in zip(*(c.split(",") for c in columns), strict=True)]
    assert rows == [(frame.packet, frame.type_code, frame.stream_id, frame.length) for frame in frames]
    wireshark_finds_nothing(path)


def test_calls_over_tls_are_recorded_as_plaintext(echo_server: tuple[str, int], lab: LabFiles) -> None:
    sent = [bytes([i]) * 1_000_000 for i in range(5)]
    credentials = grpc.ssl_channel_credentials(lab.authority.read_bytes())
    with Tap(echo_server, tls=context_towards_clients(lab.server, lab.server)) as tap:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"localhost:{tap.port}", credentials, options) as channel:
            call: Any = channel.stream_stream("/lab.Echo/Echo")
            assert list(call(iter(sent), timeout=PATIENCE)) == sent
    pipeline = Pipeline()
    events = pipeline.feed(everything(tap))
    paths = {
        value for e in events if isinstance(e, FrameEvent) and e.fields for name, value in e.fields if name == ":path"
    }
    assert paths == {"/lab.Echo/Echo"}
