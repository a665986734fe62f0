"""What does the tap cost: how much later do octets arrive through it, and how many fit through it?

    python benchmarks/tap.py                     five rounds of everything
    python benchmarks/tap.py --rounds 9 --megabytes 400

Three measures: the round trip of 100 octets over one connection, a unary gRPC call with 100 octets each way, and the
octets that go one way in a second. They are taken without a tap, through a tap that nobody listens to, through one that
writes its pcapng, and through socat where it is installed, in turns, so that a machine that is busy for a while is busy
for all. Every server, tap and socat runs in a process of its own. Medians are printed, and their ratios to the way
without a tap.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

HOST = "127.0.0.1"
SMALL = bytes(100)
LARGE = bytes(1 << 18)
ROUND_TRIPS, CALLS = 2_000, 500
PATIENCE_SECONDS = 20.0

ECHO, COUNT = b"e", b"c"
"""What a connection to the plain server is for: to have everything sent back, or counted."""


class Route(NamedTuple):
    """A way to the two servers: ports of HOST."""

    name: str
    plain: int
    grpc: int


# -- processes of their own -------------------------------------------------------------------------------------------


def run_servers(told: Connection) -> None:
    import grpc

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            echoes, received = connection.recv(1) == ECHO, 0
            while octets := connection.recv(1 << 18):
                received += len(octets)
                if echoes:
                    connection.sendall(octets)
            if not echoes:
                connection.sendall(received.to_bytes(8))

    server = grpc.server(ThreadPoolExecutor(4), [Echo()], options=[("grpc.so_reuseport", 0)])
    grpc_port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    listener = socket.create_server((HOST, 0))

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    told.send((listener.getsockname()[1], grpc_port))
    told.recv()


def run_taps(told: Connection, plain: int, grpc_port: int, folder: str | None) -> None:
    from capture.sources.tap import Tap

    files = [f"{folder}/plain.pcapng", f"{folder}/grpc.pcapng"] if folder else [None, None]
    with Tap((HOST, plain), write=files[0]) as first, Tap((HOST, grpc_port), write=files[1]) as second:
        told.send((first.port, second.port))
        told.recv()


@contextlib.contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[int, int]]:
    """The ports that the process listens on."""
    context = multiprocessing.get_context("spawn")  # forking and grpc do not go together
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    try:
        if not ours.poll(PATIENCE_SECONDS):
            raise SystemExit("a process of the benchmark did not start")
        yield ours.recv()
    finally:
        with contextlib.suppress(OSError):
            ours.send("end")
        process.join()


@contextlib.contextmanager
def socat(target: int) -> Iterator[int]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    listen = f"TCP-LISTEN:{port},bind={HOST},reuseaddr,fork,nodelay"
    with subprocess.Popen(["socat", listen, f"TCP:{HOST}:{target},nodelay"]) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection((HOST, port)).close()
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        try:
            yield port
        finally:
            process.terminate()


# -- measures ---------------------------------------------------------------------------------------------------------


def dial(port: int, purpose: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, port), PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(purpose)
    return connection


def round_trip(route: Route) -> float:
    """Microseconds, the median of many on one connection."""
    times = []
    with dial(route.plain, ECHO) as connection:
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            connection.sendall(SMALL)
            received = 0
            while received < len(SMALL):
                received += len(connection.recv(len(SMALL)))
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def grpc_call(route: Route) -> float:
    """Microseconds, the median of many on one channel."""
    import grpc

    times = []
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"{HOST}:{route.grpc}", options) as channel:
        call: Any = channel.unary_unary("/benchmark.Echo/Echo")
        call(SMALL, timeout=PATIENCE_SECONDS)
        for _ in range(CALLS):
            start = time.perf_counter()
            call(SMALL)
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def throughput(route: Route, megabytes: int) -> float:
    """Megabytes in a second, one way."""
    pieces = megabytes * 1_000_000 // len(LARGE)
    with dial(route.plain, COUNT) as connection:
        start = time.perf_counter()
        for _ in range(pieces):
            connection.sendall(LARGE)
        connection.shutdown(socket.SHUT_WR)
        counted = connection.recv(8, socket.MSG_WAITALL)
        seconds = time.perf_counter() - start
    if int.from_bytes(counted) != pieces * len(LARGE):
        raise SystemExit(f"{route.name}: {int.from_bytes(counted)} octets of {pieces * len(LARGE)} arrived")
    return pieces * len(LARGE) / seconds / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=200, help="sent one way in each round")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        plain, grpc_port = stack.enter_context(child(run_servers))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        routes = [
            Route("no tap", plain, grpc_port),
            Route("tap", *stack.enter_context(child(run_taps, plain, grpc_port, None))),
            Route("tap, writing", *stack.enter_context(child(run_taps, plain, grpc_port, folder))),
        ]
        if shutil.which("socat"):
            ports = [stack.enter_context(socat(port)) for port in (plain, grpc_port)]
            routes.append(Route("socat", *ports))
        measures: list[tuple[str, Callable[[Route], float]]] = [
            ("round trip, µs", round_trip),
            ("gRPC call, µs", grpc_call),
            ("one way, MB/s", lambda route: throughput(route, options.megabytes)),
        ]
        results: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.rounds):
            for name, measure in measures:
                for route in routes:
                    results.setdefault((route.name, name), []).append(measure(route))
        medians = {key: statistics.median(values) for key, values in results.items()}
        print(f"{'median of ' + str(options.rounds):<16}" + "".join(f"{name:>24}" for name, _ in measures))
        for route in routes:
            row = f"{route.name:<16}"
            for name, _ in measures:
                value, without = medians[route.name, name], medians[routes[0].name, name]
                row += f"{value:>14.1f}" + (f"  ({value / without:5.2f}×)" if route is not routes[0] else " " * 10)
            print(row)
        added = medians["tap", "round trip, µs"] - medians["no tap", "round trip, µs"]
        print(f"The tap adds {added:.0f} µs to a round trip, {added / 2:.0f} µs to each way.")


if __name__ == "__main__":
    main()
