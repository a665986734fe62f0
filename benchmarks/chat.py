"""What the chat server bears: how much it delivers, how late, to how many, and at what price.

    python benchmarks/chat.py                      everything, some minutes
    python benchmarks/chat.py --only burst
    python benchmarks/chat.py --quick              a look whether all works; its numbers mean little
    python benchmarks/chat.py --unpinned           the system places server and load on its processors

A delivery is one message on its way to one member: a post in a room of 30 is 30 deliveries. Every server is a process
of its own (`python -m server` on a free port), and so is the load (benchmarks/load.py): it talks HTTP/2 over plain
sockets, because Python gRPC clients would be the bottleneck, and what it uses of a processor is printed as the check
that it isn't. With two processors or more, server and load have one each; --unpinned lets both use all, which is how
servers run, and costs the threads more, because they then wait for Python's lock on several processors at once. What is
compared is measured in turns, so that a machine that is busy for a while is busy for all; medians are printed. Every
run ends when each post has reached every member, and it is an error if one doesn't.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path[0] = str(ROOT)

from benchmarks.load import HOST, Ended, Opened, Run, Trouble, run  # noqa: E402  # the root has to be on the path first

SERVER = [sys.executable, "-m", "server"]
PATIENCE_SECONDS = 20.0
"""For a process to start."""
MEMBERS = 30
"""Of a room, where nothing else is said: as many chats as the threaded server admits."""
IN_FLIGHT = 30
"""Posts on their way at saturation: enough that the server always has one, and far below what drops a member."""
MS = 1e-6
"""Nanoseconds to milliseconds."""


class Scale(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    """Of each run."""
    large: int
    """Members of a room that only asyncio has place for."""
    crowd: int
    """Members who come in a burst."""
    per_room: int
    """Of the crowd."""
    readers: int
    """Beside the slow member."""
    slow_posts: float
    """Per second."""
    slow_seconds: float
    """So many that far more than 4 MB go past it, and then as much as the server keeps for a member."""


FULL = Scale(rounds=5, seconds=4.0, large=300, crowd=2_000, per_room=100, readers=50, slow_posts=200, slow_seconds=14.0)
QUICK = Scale(rounds=1, seconds=0.3, large=60, crowd=100, per_room=20, readers=3, slow_posts=1_500, slow_seconds=1.5)


class Server(NamedTuple):
    port: int
    pid: int

    def memory(self) -> int:
        """Resident octets."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


# -- processes of their own -------------------------------------------------------------------------------------------


class Placing:
    """Which processors processes get."""

    pinned = True

    @classmethod
    @contextlib.contextmanager
    def on(cls, number: int) -> Iterator[None]:
        """Processes that are started meanwhile stay on that one of those that we may use, where there are several."""
        all_of_them = os.sched_getaffinity(0)
        if cls.pinned:
            os.sched_setaffinity(0, {sorted(all_of_them)[number % len(all_of_them)]})
        try:
            yield
        finally:
            os.sched_setaffinity(0, all_of_them)


@contextlib.contextmanager
def serving(model: str, *options: str) -> Iterator[Server]:
    """`python -m server` on a free port."""
    command = [*SERVER, "--port", "0", "--lang", "en", "--model", model, *options]
    with tempfile.TemporaryFile() as output:
        with Placing.on(0):
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Server(listening(process, output.fileno()), process.pid)
        finally:
            process.terminate()
            process.wait()


def listening(process: subprocess.Popen[bytes], output: int) -> int:
    """The port that the server says it listens on."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        said = os.pread(output, 4_096, 0).decode()
        if found := re.search(r"Listening on \S*:(\d+)", said):
            return int(found[1])
        if process.poll() is not None:
            raise Trouble(f"{' '.join(process.args)} ended with status {process.returncode}: {said.strip()}")  # type: ignore[arg-type]  # a list of strings
        time.sleep(0.02)
    raise Trouble("the server does not say that it listens")


class Loader:
    """A process of load: `benchmarks.load.Load` from outside."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # forking and grpc do not go together
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs,))
        with Placing.on(1):
            self._process.start()

    def call(self, method: str, meanwhile: Callable[[], object] | None = None, **arguments: Any) -> Any:
        """`meanwhile` is called again and again until the method returns."""
        self._pipe.send((method, arguments))
        while meanwhile is not None and not self._pipe.poll():
            meanwhile()
        result = self._pipe.recv()
        if isinstance(result, Trouble):
            raise result
        return result

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pipe.send(None)
        self._process.join()


@contextlib.contextmanager
def loaded(
    server: Server, members: int, *, connections: int = 0, per_room: int = 0, silent: int = 0
) -> Iterator[Loader]:
    """Members who are in the server's rooms: of one room and with a connection each, if nothing else is said."""
    with Loader() as load:
        opened: Opened = load.call(
            "open",
            port=server.port,
            members=members,
            connections=connections or members,
            per_room=per_room or members,
            silent=silent,
        )
        if opened.refused:
            raise Trouble(f"{len(opened.refused)} members were refused; the first: {opened.refused[0]}")
        yield load


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis of our own: the URL that --store takes."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            HOST,
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    socket.create_connection((HOST, port)).close()
                    break
                except ConnectionRefusedError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise Trouble("redis-server does not start") from None
                    time.sleep(0.02)
            yield f"redis://{HOST}:{port}/0"
        finally:
            process.terminate()
            process.wait()


# -- numbers ----------------------------------------------------------------------------------------------------------


def percentile(values: list[int], percent: int) -> int:
    """The smallest value that so many percent of all are not above."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


class Rate(NamedTuple):
    """A saturated server."""

    deliveries: float
    """Per second."""
    cpu: float
    """The server's processor seconds per 100,000 deliveries."""
    load: float
    """The load's share of a processor."""


def rate(one: Run) -> Rate:
    return Rate(one.measured / one.seconds, one.server_cpu / one.measured * 1e5, one.cpu / one.seconds)


def median(rates: list[Rate]) -> Rate:
    return Rate(*(statistics.median(column) for column in zip(*rates, strict=True)))


class Way(NamedTuple):
    """A server with these options, and so many members in one room."""

    options: tuple[str, ...]
    members: int
    connections: int = 0
    """0: one for each member."""


def in_turns(ways: dict[str, Way], scale: Scale) -> dict[str, list[Run]]:
    """Saturates each."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(scale.rounds):
        for name, way in ways.items():
            with serving(*way.options) as server, loaded(server, way.members, connections=way.connections) as load:
                one = load.call("saturate", server=server.pid, seconds=scale.seconds, in_flight=IN_FLIGHT)
            runs[name].append(one)
            print(f"  round {number + 1}  {name:<42} {rate(one).deliveries:>9,.0f} deliveries/s", flush=True)
    return runs


def print_rates(runs: dict[str, list[Run]], rounds: int, compared: dict[str, str]) -> None:
    """`compared` says to which other one some are in proportion."""
    medians = {name: median([rate(one) for one in some]) for name, some in runs.items()}
    print(f"{'median of ' + str(rounds):<42} {'deliveries/s':>13} {'':>8} {'CPU s per 100,000':>18} {'load':>8}")
    for name, one in medians.items():
        ratio = f"({one.deliveries / medians[compared[name]].deliveries:.2f}×)" if name in compared else ""
        print(f"{name:<42} {one.deliveries:>13,.0f} {ratio:>8} {one.cpu:>18.2f} {one.load:>8.0%}")


def latencies(one: Run) -> str:
    values = one.latencies_ns.tolist()
    p50, p99, worst = percentile(values, 50) * MS, percentile(values, 99) * MS, max(values) * MS
    return f"p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   worst {worst:6.1f} ms"


# -- measures ---------------------------------------------------------------------------------------------------------


def saturation(scale: Scale) -> dict[str, list[Run]]:
    few, large = MEMBERS, scale.large
    ways = {
        f"threads, {few} members on one connection": Way(("threads",), few, 1),
        f"asyncio, {few} members on one connection": Way(("asyncio",), few, 1),
        f"asyncio, {large} members on 3 connections": Way(("asyncio",), large, 3),
        f"threads, {few} members, a connection each": Way(("threads",), few),
        f"asyncio, {few} members, a connection each": Way(("asyncio",), few),
        f"asyncio, {large} members, a connection each": Way(("asyncio",), large),
    }
    runs = in_turns(ways, scale)
    names = list(ways)
    print_rates(runs, scale.rounds, {names[i]: names[i // 3 * 3] for i in (1, 2, 4, 5)})
    return runs


def latency(scale: Scale) -> dict[str, Run]:
    members, per_second = MEMBERS, 10_000
    runs = {}
    with serving("asyncio") as server, loaded(server, members) as load:
        for number in range(scale.rounds):
            one = load.call("pace", server=server.pid, seconds=scale.seconds, per_second=per_second)
            runs[f"round {number + 1}"] = one
            print(
                f"  round {number + 1}  {members} members, {one.measured / one.seconds:,.0f} deliveries/s   "
                f"{latencies(one)}   server {one.server_cpu / one.seconds:.0%}, load {one.cpu / one.seconds:.0%}",
                flush=True,
            )
    for name, percent in (("p50", 50), ("p99", 99)):
        values = [percentile(one.latencies_ns.tolist(), percent) * MS for one in runs.values()]
        print(f"{name} of {per_second:,} deliveries/s, median of {scale.rounds}: {statistics.median(values):.2f} ms")
    return runs


class Burst(NamedTuple):
    opened: Opened
    deliveries: int
    joins_ms: list[float]
    octets: float
    """Of the server's memory, for each member."""


def burst(scale: Scale) -> dict[str, Burst]:
    bursts = {}
    for name, connections in (("shared connections", max(1, scale.crowd // 100)), ("one connection each", scale.crowd)):
        one = bursts[name] = one_burst(scale, connections)
        p50, worst = statistics.median(one.joins_ms), max(one.joins_ms)
        print(
            f"{scale.crowd:,} members, {name:<20} {one.opened.inside:,} inside after {one.opened.seconds:.2f} s, "
            f"{len(one.opened.refused)} refused;   {len(one.joins_ms):,} Joins meanwhile: p50 {p50:.1f} ms, "
            f"worst {worst:.1f} ms;   {one.octets / 1000:.1f} kB a member",
            flush=True,
        )
        for ended in one.opened.refused[:1]:
            print(f"  the first who was refused: {ended}")
    return bursts


def one_burst(scale: Scale, connections: int) -> Burst:
    import grpc

    joins: list[float] = []
    with serving("asyncio") as server:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"{HOST}:{server.port}", options) as channel:
            unary: Any = channel.unary_unary("/minichat.v1.ChatService/Join")
            user, room = b"probe", b"r0000"
            request = b"\x0a%c%s\x12%c%s" % (len(user), user, len(room), room)

            def join() -> None:
                start = time.perf_counter()
                unary(request, timeout=PATIENCE_SECONDS)
                joins.append((time.perf_counter() - start) * 1000)
                time.sleep(0.002)

            join()
            joins.clear()
            with Loader() as load:
                before = server.memory()
                everybody: dict[str, Any] = {
                    "members": scale.crowd,
                    "connections": connections,
                    "per_room": scale.per_room,
                }
                opened = load.call("open", meanwhile=join, port=server.port, **everybody)
                deliveries = 0 if opened.refused else load.call("greet", meanwhile=join)
                octets = (server.memory() - before) / scale.crowd
    return Burst(opened, deliveries, joins, octets)


class Slow(NamedTuple):
    without: Run
    beside: Run
    before: int
    most: int
    after: int
    """The server's memory, octets."""
    ended: Ended
    octets: int
    """Text that was sent past the member."""


def slow(scale: Scale) -> Slow:
    """Long texts, to readers and to one whose client's window takes 4 MiB and then no more."""
    text_length, per_second = 4_000, scale.slow_posts * scale.readers
    arguments: dict[str, Any] = {"per_second": per_second, "text_length": text_length}
    runs: list[Run] = []
    with serving("asyncio") as server:
        for silent in (0, 1):
            with loaded(server, scale.readers, silent=silent) as load:
                before = most = server.memory()

                def look() -> None:
                    nonlocal most
                    most = max(most, server.memory())
                    time.sleep(0.05)

                runs.append(load.call("pace", look, server=server.pid, seconds=scale.slow_seconds, **arguments))
                after = server.memory()
                ended: list[Ended] = load.call("wake")
    done = Slow(runs[0], runs[1], before, most, after, ended[0], runs[1].posts * text_length)
    print(
        f"{scale.readers} readers, {text_length:,} characters, {per_second:,.0f} deliveries/s, "
        f"{done.octets / 1e6:.1f} MB sent to each"
    )
    print(f"  readers alone                     {latencies(done.without)}")
    print(f"  beside one who reads nothing      {latencies(done.beside)}")
    print(f"  server's memory: {before / 1e6:.0f} MB before, {most / 1e6:.0f} at most, {after / 1e6:.0f} after")
    print(f"  the status of who read nothing, when it reads on: {done.ended.status}, {done.ended.sentence}")
    return done


def stores(scale: Scale) -> dict[str, list[Run]] | None:
    if shutil.which("redis-server") is None:
        print("redis-server is not here: Redis is not compared")
        return None
    with redis() as url:
        sizes = (MEMBERS, scale.large)
        ways = {f"embedded, {size} members": Way(("asyncio",), size) for size in sizes}
        ways |= {f"Redis, {size} members": Way(("asyncio", "--store", url), size) for size in sizes}
        runs = in_turns(ways, scale)
    print_rates(runs, scale.rounds, {f"Redis, {size} members": f"embedded, {size} members" for size in sizes})
    return runs


MEASURES: dict[str, Callable[[Scale], object]] = {
    "saturation": saturation,
    "latency": latency,
    "burst": burst,
    "slow": slow,
    "redis": stores,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(MEASURES), help="one measure")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="some seconds in all")
    parser.add_argument("--unpinned", action="store_true", help="see above")
    options = parser.parse_args()
    Placing.pinned = not options.unpinned
    if not Path("/proc/self/status").exists():
        print(
            "The benchmark reads processor time and memory from Linux's /proc, and there is none here", file=sys.stderr
        )
        return 3
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = scale._replace(rounds=options.rounds)
    for name, measure in MEASURES.items():
        if options.only in (None, name):
            print(f"-- {name}", flush=True)
            try:
                measure(scale)
            except Trouble as trouble:
                print(f"{name}: {trouble}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
