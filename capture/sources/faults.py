"""What a tap can do to the octets that pass through it, and the line on which they wait for it.

`Faults` says what shall happen in one direction of one connection; a `Line` makes it happen. A line has no clock and no
socket: the tap puts in what arrived and at what time, asks what may pass now, and is told when to ask again.

Times are nanoseconds of a clock that never goes back; the options that people write are seconds and octets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum

from kit.words import _

READ_AHEAD = 256 << 10
"""Octets that a line holds for a receiver that does not take them before the sender is read no further: the kernel's
buffers at both ends come on top, and a sender should feel a slow receiver."""
MAX_HELD = 4 << 20
"""Octets that a line holds back for a fault. A delay needs as many as arrive meanwhile: 40 MB/s at 100 ms."""
PACE_NS = 10_000_000
"""A throttled line passes pieces of 10 ms, so that 10 kB/s are 100 octets at a time and not a lump each second."""


class Ending(Enum):
    """How a direction ends."""

    FIN = "fin"
    """Its sender has sent all it wanted."""
    RESET = "reset"
    """Its sender is gone, or the fault says so."""


@dataclass(frozen=True, slots=True)
class Faults:
    """For one direction. Octets are counted from the moment at which a connection gets its faults: from its start, or
    from the change while it runs."""

    delay: float = 0.0
    """Seconds that each octet is under way."""
    jitter: float = 0.0
    """Up to so many seconds more, drawn anew for each piece that arrives. TCP keeps its order: what comes behind a slow
    piece waits for it."""
    throttle: float = math.inf
    """Octets a second."""
    segment: int | None = None
    """Octets that are passed on at once, at most: each such piece becomes a segment of its own."""
    stall_after: int | None = None
    """After so many octets nothing more passes …"""
    stall_for: float = math.inf
    """… for so many seconds, or until the faults are changed."""
    cut_after: int | None = None
    """After so many octets the connection is cut …"""
    cut_with: Ending = Ending.RESET
    """… for both its ends: reset, or closed with FIN as if either had ended well."""
    refuse: bool = False
    """New connections are reset before the server hears of them."""

    def __post_init__(self) -> None:
        """Raises ValueError, with a sentence for people."""
        for name, least, most in _LIMITS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                limited = _("{name} is from {least} to {most}, not {value}")
                words = limited if most < math.inf else _("{name} is at least {least}, not {value}")
                name = {"segment": "split", "cut_after": "cut-after"}.get(name, name)  # as people write them
                raise ValueError(words.format(name=name, least=least, most=most, value=value))

    def __bool__(self) -> bool:
        """Whether anything differs from an honest line."""
        return any(getattr(self, field.name) != field.default for field in fields(self) if field.name not in _ONLY_WITH)


_ONLY_WITH = ("stall_for", "cut_with")
_LIMITS = (
    ("delay", 0, 3600),
    ("jitter", 0, 3600),
    ("throttle", 1, math.inf),
    ("segment", 1, math.inf),
    ("stall_after", 0, math.inf),
    ("stall_for", 0, math.inf),
    ("cut_after", 0, math.inf),
)
NO_FAULTS = Faults()


class Line:
    """The octets of one direction that have arrived and not yet passed, in order.

    What may pass is asked for with `next` and confirmed with `passed`: the receiver may take less than it is offered.
    """

    def __init__(self, faults: Faults, now_ns: int, random: Callable[[], float]) -> None:
        self._items: deque[tuple[int, float, bytes]] = deque()  # arrival, share of the jitter, octets
        self._offset = 0  # what of the first item has passed
        self._ending: tuple[int, float, Ending] | None = None
        self._random = random
        self.held = 0
        """Octets."""
        self.wake_ns: int | None = None
        """When to ask again; None while only an arrival or the receiver can change something."""
        self.change(faults, now_ns)

    def change(self, faults: Faults, now_ns: int, *, counts_on: bool = False) -> None:
        """Other faults from now on, also for what is held. With `counts_on` octets go on being counted where the last
        change began, so that a stall or a cut stays what it was: to come, in force, or over."""
        self._faults = faults
        self._honest = not faults
        self._free_ns = now_ns
        if counts_on:
            return
        self._count = 0
        self._stall_to_come = faults.stall_after is not None
        self._stalled_until = -math.inf
        self._begin_stall(now_ns)

    @property
    def full(self) -> bool:
        """Whether the sender should be read no further for now."""
        return self.held >= (READ_AHEAD if self._honest else MAX_HELD)

    @property
    def cut(self) -> bool:
        """Whether the ending that comes next is the fault's and not the sender's."""
        return self._faults.cut_after is not None and self._count >= self._faults.cut_after

    @property
    def ending(self) -> Ending | None:
        """How its sender ended, however much is still held before that."""
        return self._ending[2] if self._ending else None

    def put(self, octets: bytes, now_ns: int) -> None:
        self._items.append((now_ns, self._random() if self._faults.jitter else 0.0, octets))
        self.held += len(octets)

    def put_ending(self, ending: Ending, now_ns: int) -> None:
        """Nothing follows."""
        self._ending = (now_ns, 0.0, ending)

    def next(self, now_ns: int) -> bytes | memoryview | Ending | None:
        """What may pass now; None: nothing, and `wake_ns` says until when."""
        self.wake_ns = None
        if self._honest:
            if self._items:
                octets = self._items[0][2]
                return memoryview(octets)[self._offset :] if self._offset else octets
            return self.ending
        faults = self._faults
        if self.cut:
            return faults.cut_with
        first = self._items[0] if self._items else self._ending
        if first is None:
            return None
        arrival, share, content = first
        due = max(arrival + _ns(faults.delay + faults.jitter * share), self._stalled_until)
        if not isinstance(content, Ending):
            due = max(due, self._free_ns)
        if due > now_ns:
            self.wake_ns = None if due == math.inf else math.ceil(due)
            return None
        if isinstance(content, Ending):
            return content
        size = len(content) - self._offset
        if faults.segment is not None:
            size = min(size, faults.segment)
        if faults.throttle != math.inf:
            size = min(size, max(int(faults.throttle * PACE_NS / 1_000_000_000), 1))
        if self._stall_to_come and faults.stall_after is not None:
            size = min(size, faults.stall_after - self._count)
        if faults.cut_after is not None:
            size = min(size, faults.cut_after - self._count)
        return memoryview(content)[self._offset : self._offset + size]

    def passed(self, octets: int, now_ns: int) -> None:
        """So many octets of the piece that `next` offered have been passed on."""
        self.held -= octets
        self._offset += octets
        if self._offset == len(self._items[0][2]):
            self._items.popleft()
            self._offset = 0
        if not self._honest:
            self._count += octets
            self._free_ns = max(self._free_ns, now_ns) + _ns(octets / self._faults.throttle)
            self._begin_stall(now_ns)

    def _begin_stall(self, now_ns: int) -> None:
        if self._stall_to_come and self._count >= (self._faults.stall_after or 0):
            self._stall_to_come = False
            self._stalled_until = now_ns + self._faults.stall_for * 1_000_000_000


def _ns(seconds: float) -> int:
    return math.ceil(seconds * 1_000_000_000)
