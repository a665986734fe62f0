"""A large capture file decoded by several processes at once.

How it works. Every process reads all packets, numbers all connections, and decodes its share of them (`Pipeline`'s
`share`): what one connection is never depends on another. Lines are put back into the order of their packets by the
process that writes: each batch comes with a horizon, the first packet that may still have something to come, and what
lies before the lowest horizon is complete. Batches are the same in all processes, since all read the same file.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from capture.events import Event, Problem
from kit.words import language_from

KINDS, FORMATS = ("frames", "messages"), ("jsonl", "tsv")
"""Records that concern one connection and carry their packet; formats in which each is one line."""
WORTH = 24 << 20
"""Octets of a file from which on a second process pays for its start."""
MAX_PROCESSES = 4
"""Each reads all packets, which is a quarter of the work: more gain little."""
MAX_AHEAD = 64
"""Batches that one process may be ahead of another, some 64 KiB of the file each."""


class Step(NamedTuple):
    """What a process made of one batch."""

    horizon: int
    """Lines of packets before this one have all been made."""
    packets: list[int]
    """Of each line."""
    lines: bytes
    """Each with its line end, and without any other."""
    problems: Sequence[Problem]


class Trouble(Protocol):
    def note(self, events: Sequence[Event]) -> None: ...


Share = Callable[[Any, tuple[int, int]], Iterator[Step]]
"""A function of a module, called with options that can be pickled and the share."""


def processes(path: str) -> int:
    """How many processes a file is worth."""
    try:
        is_large = Path(path).is_file() and Path(path).stat().st_size >= WORTH
    except (OSError, ValueError):
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MAX_PROCESSES) if is_large else 1


def decode(share: Share, options: Any, count: int, put: Callable[[bytes], None], trouble: Trouble) -> None:
    """Runs `share` in `count` processes, this one among them, and writes its lines in order.

    Raises what `share` raises, in whichever process.
    """
    context = get_context("spawn")
    sources = [share(options, (0, count))]
    others = []
    try:
        for i in range(1, count):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(share, options, (i, count), there), daemon=True)
            process.start()
            there.close()
            others.append(process)
            sources.append(_received(here))
        _merge(sources, put, trouble)
    finally:
        for process in others:
            process.terminate()
            process.join()


def _merge(sources: list[Iterator[Step]], put: Callable[[bytes], None], trouble: Trouble) -> None:
    packets: list[int] = []
    lines: list[bytes] = []
    for steps in zip(*sources, strict=True):
        for step in steps:
            packets += step.packets
            lines += step.lines.split(b"\n")[:-1]
            trouble.note(step.problems)
        order = sorted(range(len(packets)), key=packets.__getitem__)
        ready = bisect_left(order, min(step.horizon for step in steps), key=packets.__getitem__)
        put(b"".join([lines[i] + b"\n" for i in order[:ready]]))
        packets, lines = [packets[i] for i in order[ready:]], [lines[i] for i in order[ready:]]


def _work(share: Share, options: Any, which: tuple[int, int], pipe: Pipe) -> None:
    """What another process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that writes; it ends this one
    language_from([])
    try:
        for step in share(options, which):
            pipe.send(step)
        pipe.send(None)
    except (BrokenPipeError, ConnectionError):
        return
    except Exception as error:
        pipe.send(error)


def _received(pipe: Pipe) -> Iterator[Step]:
    """Another process's steps. A thread fetches them, so that neither process waits for the other for long."""
    steps: queue.Queue[Step | Exception | None] = queue.Queue(MAX_AHEAD)

    def fetch() -> None:
        step: Step | Exception | None = None
        while True:
            try:
                step = pipe.recv()
            except (EOFError, OSError):
                step = RuntimeError("a decoding process ended before its work was done")
            steps.put(step)
            if not isinstance(step, Step):
                return

    threading.Thread(target=fetch, name="parallel", daemon=True).start()
    while isinstance(step := steps.get(), Step):
        yield step
    if step is not None:
        raise step
