"""What does a Redis behind the servers cost: for each message posted, each message read, and in time?

    python benchmarks/store.py                   some seconds; a redis-server of its own, appendfsync everysec
    python benchmarks/store.py --messages 50000 --writers 200

Two stores, as two servers have them, each with its event loop in a process of its own, share the rooms; the members
are lists, without gRPC, so that what is measured is the store alone. Printed are the messages per second, the CPU time
of Redis and of a server for each, and how long a message takes from the one server's `post` to a member of the other.
The arithmetic of docs/scaling.md begins with these numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from server.redis_line import Address  # noqa: E402  # needs sys.path
from server.redis_rooms import RedisRooms  # noqa: E402  # as well
from server.rooms import Message  # noqa: E402  # as well

HOST = "127.0.0.1"
ROOMS = 10
ROUND_TRIPS = 1_000
PATIENCE_SECONDS = 120.0


class Member:
    def __init__(self, user: str, room: str, expected: int = 0) -> None:
        self.user, self.room, self.session = user, room, user
        self.heard: list[tuple[int, int]] = []
        """Sequence, and when: in nanoseconds of a clock that processes share."""
        self.all_heard = asyncio.Event()
        self._expected = expected

    @property
    def waiting(self) -> int:
        return 0

    def deliver(self, message: Message) -> bool:
        self.heard.append((message.sequence, time.perf_counter_ns()))
        if len(self.heard) >= self._expected:
            self.all_heard.set()
        return True

    def replaced(self) -> None:
        raise AssertionError("nobody has this session too")

    def lost(self, sentence: str) -> None:
        raise AssertionError(sentence)


class Done(NamedTuple):
    seconds: float
    """From the first post to the last message heard."""
    cpu_seconds: float
    posted: dict[int, int]
    """The first room's messages of this process: sequence -> when `post` was called."""
    heard: list[tuple[int, int]]
    """In the first room."""


class Part(NamedTuple):
    """What one server does."""

    writers: int
    own: int
    """Messages that they post, in all."""
    rooms: int
    every: int
    """Messages that all servers' writers post. One member in each room hears those of its room."""


async def take_part(name: str, url: str, told: Connection, part: Part) -> Done:
    store: RedisRooms[Member] = RedisRooms(Address.parsed(url))
    listeners = [Member(f"{name} listens", f"{number}", part.every // part.rooms) for number in range(part.rooms)]
    speakers = [Member(f"{name} {number}", f"{number % part.rooms}") for number in range(part.writers)]
    posted: dict[int, int] = {}
    for member in [*listeners, *speakers]:
        await store.enter(member)
    told.send("ready")
    await asyncio.to_thread(told.recv)

    async def speak(member: Member) -> None:
        for number in range(part.own // part.writers):
            began = time.perf_counter_ns()
            done = await store.post(member, "Hola, ¿qué tal va todo por ahí?", f"{number}")
            assert done is not None
            if member.room == "0":
                posted[done.message.sequence] = began

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*map(speak, speakers), *(member.all_heard.wait() for member in listeners))
    done = Done(time.perf_counter() - began, time.process_time() - cpu, posted, listeners[0].heard)
    await store.close()
    return done


def run_server(told: Connection, name: str, url: str, part: Part) -> None:
    told.send(asyncio.run(take_part(name, url, told, part)))


def together(url: str, *parts: Part) -> list[Done]:
    """A process for each."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for number, part in enumerate(parts):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=run_server, args=(theirs, f"server {number}", url, part)))
        processes[-1].start()
        ends.append(ours)
    for end in ends:
        assert end.recv() == "ready"
    for end in ends:
        end.send("go")
    done: list[Done] = [end.recv() for end in ends]
    for process in processes:
        process.join()
    return done


@contextmanager
def redis(fsync: str) -> Iterator[tuple[str, int]]:
    """The URL and the process's number."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", HOST, "--dir", folder]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", fsync]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    socket.create_connection((HOST, port)).close()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline, "redis-server does not start"
                    time.sleep(0.02)
            yield f"redis://{HOST}:{port}/0", process.pid
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (Linux: proc(5), in hundredths of a second)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def saturation(fsync: str, messages: int, writers: int) -> None:
    with redis(fsync) as (url, pid):
        before = cpu_seconds(pid)
        half = Part(writers, messages // 2, ROOMS, messages)
        done = together(url, half, half)
        spent = cpu_seconds(pid) - before
    seconds = max(each.seconds for each in done)
    print(f"two servers, {writers} members posting on each as fast as they can, {ROOMS} rooms, appendfsync {fsync}:")
    print(f"  {messages / seconds:,.0f} messages/s")
    print(f"  CPU of Redis for each: {spent / messages * 1e6:.0f} µs")
    servers = sum(each.cpu_seconds for each in done)
    print(f"  CPU of the two servers for each (posted by one, read by both): {servers / messages * 1e6:.0f} µs")
    with redis(fsync) as (url, _pid):
        _writer, reader = together(url, Part(writers, messages, ROOMS, messages), Part(0, 0, ROOMS, messages))
    print(f"  CPU of a server that only reads: {reader.cpu_seconds / messages * 1e6:.0f} µs")


def latency(fsync: str) -> None:
    with redis(fsync) as (url, _pid):
        one, other = together(url, Part(1, ROUND_TRIPS, 1, ROUND_TRIPS), Part(0, 0, 1, ROUND_TRIPS))
    times = [(when - one.posted[sequence]) / 1e6 for sequence, when in other.heard]
    percentiles = statistics.quantiles(times, n=100)
    print(f"one member posts one message after the other, appendfsync {fsync}:")
    print(f"  until a member on the other server hears it: p50 {percentiles[49]:.2f} ms, p99 {percentiles[98]:.2f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--writers", type=int, default=100, help="members who post, on each server")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("redis-server is not here", file=sys.stderr)
        return 3
    for fsync in ("everysec", "always"):
        saturation(fsync, options.messages, options.writers)
        latency(fsync)
    return 0


if __name__ == "__main__":
    sys.exit(main())
