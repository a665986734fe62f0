"""What a tap leaves behind: numbered packets with times, in a pcapng as they come and for whoever follows live.

Making packets and writing them takes longer than forwarding does, and an answer often arrives within microseconds. So
what was forwarded is noted with its time, and becomes packets when the tap has a moment to itself, or after GATHER_NS.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from capture.events import Packet, Problem
from capture.pcap import Writer
from capture.synthesis import RAW_IP
from kit.words import N_

GATHER_NS = 5_000_000
"""How long it may take until something forwarded is in the file, however busy the tap is."""
IDLE_SECONDS = 0.001
"""How long nothing happens in a moment that the tap has to itself: the finest that epoll knows."""
MAX_GATHERED = 32
"""Pieces noted before they become packets: at 64 KiB each, 2 MiB."""
MAX_WAITING = 64 << 20
"""Octets that wait for a live consumer. One that falls behind further loses packets, as in any capture: it is told, and
the traffic goes on."""
MAX_UNASKED = 32 << 20
"""Octets that wait before anybody has asked for packets, so that who asks a little late still gets the first ones. When
they become more, nobody seems to listen, and nothing is kept until somebody asks."""
PACKET_COST = 250
"""Octets of memory that a packet takes beside its own."""
MAX_PROBLEMS = 1_000
"""The latest that are kept."""
NOT_WRITTEN = N_("the capture file cannot be written any further: {reason}")
"""The template of the problem after which packets are missing from the file."""


class Recording:
    """`add`, `tell` and `publish` are for the tap's thread, `packets` for any other."""

    def __init__(self, stream: BinaryIO | None, description: str, comment: str, key_log: Path | None) -> None:
        self.problems: deque[Problem] = deque(maxlen=MAX_PROBLEMS)
        self.dropped = 0
        """Packets that no consumer got."""
        self._number = 0
        self._time_ns = 0
        self._gathered: list[tuple[int, Iterable[bytes], str]] = []
        self._comments: dict[int, str] = {}
        self._key_log = key_log
        self._key_log_read = key_log.stat().st_size if key_log and key_log.exists() else 0
        self._waiting: list[Packet] = []
        self._waiting_octets = 0
        self._asked = False
        self._closed = False
        self._changed = threading.Condition()
        self._writer: Writer | None = None
        if stream is not None:
            self._writer = Writer(
                stream, RAW_IP, name="tap", description=description, comment=comment, synthesised=True
            )

    @property
    def ended(self) -> bool:
        """Whether `packets` has nothing more to give, now or later."""
        return self._closed and not self._waiting

    @property
    def waits(self) -> bool:
        """Whether something has yet to be published, and there is time for it."""
        gathered = self._gathered
        return bool(gathered) and time.time_ns() - gathered[0][0] < GATHER_NS

    def add(self, octets: Iterable[bytes], comment: str = "") -> None:
        """Packets of this moment, the last of them with the comment. Times never go back, even if the clock does.

        `octets` is iterated when the packets are made, in the order in which it was added.
        """
        self._time_ns = max(time.time_ns(), self._time_ns)
        self._gathered.append((self._time_ns, octets, comment))
        if len(self._gathered) >= MAX_GATHERED:
            self.publish()

    def tell(self, template: str, **values: Any) -> None:
        """A problem that came up behind what was added last."""
        self.publish()
        self.problems.append(
            Problem(self._number, self._time_ns or time.time_ns(), None, None, None, "capture", template, values)
        )

    def publish(self) -> None:
        """Writes what was added, and hands it to who waits for it."""
        if not self._gathered:
            return
        packets: list[Packet] = []
        octets = 0
        for time_ns, gathered, comment in self._gathered:
            for data in gathered:
                self._number += 1
                packets.append(Packet(self._number, time_ns, RAW_IP, data, len(data)))
                octets += PACKET_COST + len(data)
            if comment and self._writer is not None:
                self._comments[self._number] = comment
        self._gathered.clear()
        if self._writer is not None:
            try:
                self._write(self._writer, packets)
            except OSError as error:  # a full disk, a reader that left: the traffic goes on
                self._writer = None
                self.tell(NOT_WRITTEN, reason=error.strerror)
        with self._changed:
            if self._waiting_octets + octets <= (MAX_WAITING if self._asked else MAX_UNASKED):
                self._waiting += packets
                self._waiting_octets += octets
                self._changed.notify_all()
            elif self._asked:
                self.dropped += len(packets)
            else:
                self.dropped += len(packets) + len(self._waiting)
                self._waiting = []
                self._waiting_octets = MAX_UNASKED  # full for ever, unless somebody asks

    def _write(self, writer: Writer, packets: list[Packet]) -> None:
        keys = self._new_keys()
        if keys:
            writer.write_secrets(keys)
        start = 0
        for number, comment in self._comments.items():
            at = number - packets[0].number
            writer.write(packets[start:at])
            writer.write_one(packets[at], comment)
            start = at + 1
        self._comments.clear()
        writer.write(packets[start:])

    def _new_keys(self) -> bytes:
        """Whole lines that have come to the key log. TLS writes them before the first octets that need them pass."""
        if self._key_log is None:
            return b""
        try:
            if self._key_log.stat().st_size == self._key_log_read:
                return b""
            with self._key_log.open("rb") as log:
                log.seek(self._key_log_read)
                octets = log.read()
        except OSError:
            return b""
        octets = octets[: octets.rfind(b"\n") + 1]
        self._key_log_read += len(octets)
        return b"".join(line for line in octets.splitlines(keepends=True) if not line.startswith(b"#"))

    def packets(self, timeout: float | None = None) -> list[Packet]:
        """What has come since the last call, waiting for it at most `timeout` seconds (for ever with None).

        [] after the timeout, or when the tap is closed and everything has been given.
        """
        with self._changed:
            if not self._asked and self.dropped:
                self.tell(N_("{dropped} packets had passed before anybody asked for them"), dropped=self.dropped)
                self.dropped = 0
            self._asked = True
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            packets, self._waiting, self._waiting_octets = self._waiting, [], 0
            return packets

    def close(self) -> None:
        self.publish()
        if self._writer is not None:
            try:
                self._writer.write_statistics(max(time.time_ns(), self._time_ns), self._number, 0)
            except OSError as error:
                self.tell(NOT_WRITTEN, reason=error.strerror)
        if self.dropped and self._asked:
            self.tell(
                N_("{dropped} packets came faster than they were taken, and were not shown"), dropped=self.dropped
            )
        with self._changed:
            self._closed = True
            self._changed.notify_all()
