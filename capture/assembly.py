"""One direction of a stream: the DATA that passes, put together to length-prefixed messages.

A message is five octets of prefix, the compressed flag and the length, and then its octets; DATA frames cut the
sequence of messages wherever they like (gRPC over HTTP2: Length-Prefixed-Message). An `Assembly` is in one of these
states:

  at a boundary       the next octet of DATA begins a prefix: true from the headers on, and behind each message
  within a message    its octets so far are kept; or, if it is lost or too long, only counted until it is over
  lost                octets are missing, or the capture began in the middle: nobody knows where a message begins

Lost is what must not become wrong. Octets that a DATA frame lacks, though its header was seen, are counted: if they
fit inside the message under way, that message is lost and the next boundary is known. Otherwise, and behind a gap that
may hold whole frames, the direction waits for a DATA frame that consists of whole messages from its first octet to its
last: a prefix whose length leads exactly to the frame's end or to another such prefix. The same holds for streams whose
headers were not seen. No message is ever put together over a hole.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Protocol

from capture.events import Connection, Direction, FrameEvent, Gap
from capture.protobuf import MAX_MESSAGE_OCTETS, Codec
from kit.words import N_

MAX_BUFFERED = 64 << 20
"""Octets of unfinished messages kept over all streams: four of the longest. Beyond it the message that needs more is
given up."""
PREFIX_LENGTH = 5
prefix = Struct(">BI").unpack_from
"""Compressed flag and length."""

Where = tuple[int, int, Connection, Direction, int | None]
"""The first five fields of Problem: packet, time, connection, direction, offset."""


class Sink(Protocol):
    """Who is told what comes of it."""

    buffered: int
    """Octets kept by all assemblies."""

    def emit(self, event: FrameEvent, assembly: Assembly, compressed: bool, data: bytes) -> None: ...

    def tell(self, where: Where, template: str, **values: Any) -> None: ...


class Assembly:
    __slots__ = ("_buffer", "_need", "_passed", "_sink", "_skip", "_synced", "_where",
                 "codec", "ended", "is_grpc", "path", "ready", "told")  # fmt: skip

    def __init__(self, sink: Sink, codec: Codec) -> None:
        self.path: str | None = None
        self.codec = codec
        self.is_grpc: bool | None = None
        """None while nothing says; then a DATA frame of whole messages does."""
        self.ready = False
        """gRPC, and at a boundary: whether a DATA frame may be read without more ado."""
        self.ended = False
        self.told = False
        """Whether an unknown encoding was told of."""
        self._sink = sink
        self._synced = False
        """Not lost."""
        self._buffer = bytearray()
        """Of the message under way, its prefix included."""
        self._need = 0
        """Octets that the buffer must hold before it can be looked at again; 0 at a boundary."""
        self._skip = 0
        """Octets left of a message that is only counted."""
        self._passed = 0
        """Octets of DATA passed over while lost."""
        self._where: Where | None = None
        """Where the message under way, or the passing over, began."""

    @property
    def progress(self) -> tuple[int, int] | None:
        """Of the message under way, its prefix not counted: octets that are here, and octets in all. None at a
        boundary, and while the length is not known."""
        if self._need <= PREFIX_LENGTH:
            return None
        return len(self._buffer) - PREFIX_LENGTH, self._need - PREFIX_LENGTH

    def settle(self) -> None:
        """Works `ready` out anew, after anything changed."""
        self.ready = bool(self.is_grpc and self._synced and not self._need and not self._skip and not self.ended)

    def begin(self) -> None:
        """The headers are over: DATA begins with the next octet."""
        self._drop()
        self._synced, self._passed = True, 0

    def data(self, event: FrameEvent) -> None:
        """A DATA frame."""
        content = event.content
        if content is None:
            self._lose(event)
        elif self.is_grpc and self._synced:
            self._join(event, content)
        elif content:
            self._find(event, content)
        self.settle()

    def gap(self, gap: Gap) -> None:
        """Whole frames may be missing."""
        if self._need or self._skip:
            where = (gap.packet, gap.time_ns, gap.connection, gap.direction, gap.offset)
            self._sink.tell(where, N_("a message under way is lost in a gap"))
        self._drop()
        self._synced = self.ready = False

    def end(self, template: str | None, where: Where | None = None) -> None:
        """No DATA comes any more. `template` tells of a message under way with {got} and {length}, at `where` or where
        it began; None where that is no trouble."""
        if self._need and template is not None and self._where is not None:
            have = len(self._buffer)
            if have < PREFIX_LENGTH:
                self._sink.tell(
                    where or self._where, N_("DATA ends within a message's prefix: {got} of 5 octets"), got=have
                )
            else:
                length = self._need - PREFIX_LENGTH
                self._sink.tell(where or self._where, template, got=have - PREFIX_LENGTH, length=length)
        self._drop()
        self._tell_passed()
        self.ended, self.ready = True, False

    def _join(self, event: FrameEvent, content: bytes) -> None:
        """The next octets of a sequence of messages whose boundaries are known."""
        buffer, at, end = self._buffer, 0, len(content)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            if not self._need:
                if end - at >= PREFIX_LENGTH:
                    compressed, size = prefix(content, at)
                    if compressed <= 1 and size <= end - at - PREFIX_LENGTH:
                        at += PREFIX_LENGTH + size
                        self._sink.emit(event, self, compressed == 1, content[at - size : at])
                        continue
                self._need, self._where = PREFIX_LENGTH, place(event)
            step = min(self._need - len(buffer), end - at)
            if self._need > PREFIX_LENGTH and self._sink.buffered + step > MAX_BUFFERED:
                template = N_("a message of {length} octets is given up: more than {limit} octets are unfinished")
                self._give_up(event, template, limit=MAX_BUFFERED)
                continue
            buffer += content[at : at + step]
            self._sink.buffered += step
            at += step
            if len(buffer) == self._need == PREFIX_LENGTH:
                compressed, size = prefix(buffer)
                if compressed > 1:
                    template = N_("the compressed flag is {flag}; only 0 and 1 exist (gRPC: Compressed-Flag)")
                    self._sink.tell(place(event), template, flag=compressed)
                    self._drop()
                    self._pass_over(event, end - at)
                    return
                self._need += size
                if size > MAX_MESSAGE_OCTETS:
                    template = N_("a message of {length} octets is passed over: at most {limit} are put together")
                    self._give_up(event, template, limit=MAX_MESSAGE_OCTETS)
                    continue
            if len(buffer) == self._need:
                compressed, data = buffer[0], bytes(buffer[PREFIX_LENGTH:])
                self._drop()
                buffer = self._buffer
                self._sink.emit(event, self, compressed == 1, data)

    def _find(self, event: FrameEvent, content: bytes) -> None:
        """DATA of a direction that is lost, or of a stream that may not be gRPC: whole messages, or nothing."""
        messages = whole_messages(content)
        if messages is None:
            self._pass_over(event, len(content))
            return
        self.is_grpc = self._synced = True
        self._tell_passed()
        for compressed, at, size in messages:
            self._sink.emit(event, self, compressed, content[at : at + size])

    def _lose(self, event: FrameEvent) -> None:
        """DATA whose octets the capture lacks, or whose padding is impossible."""
        lost = event.data_length
        if lost == 0:
            return
        if self.is_grpc and self._synced:
            if lost is not None and lost <= self._skip:
                self._skip -= lost
                return
            if lost is not None and len(self._buffer) >= PREFIX_LENGTH and lost <= self._need - len(self._buffer):
                template = N_("a message of {length} octets is lost: the capture lacks {lost} of them")
                self._give_up(event, template, lost=lost)
                self._skip -= lost
                return
            template = N_("DATA of {lost} octets is lost, and with it where messages begin; that is looked for again")
            self._sink.tell(place(event), template, lost=event.length if lost is None else lost)
        self._drop()
        self._synced = False

    def _drop(self) -> None:
        """The message under way is over, or given up."""
        if self._need:
            self._sink.buffered -= len(self._buffer)
            self._buffer = bytearray()
        self._need = self._skip = 0

    def _give_up(self, event: FrameEvent, template: str, **values: int) -> None:
        """The message under way is only counted from here on."""
        self._sink.tell(place(event), template, length=self._need - PREFIX_LENGTH, **values)
        left = self._need - len(self._buffer)
        self._drop()
        self._skip = left

    def _pass_over(self, event: FrameEvent, octets: int) -> None:
        if not self._passed:
            self._where = place(event)
        self._passed += octets
        self._synced = False

    def _tell_passed(self) -> None:
        if self._passed and self.is_grpc and self._where is not None:
            template = N_("{octets} octets of DATA were passed over: nothing says where a message begins in them")
            self._sink.tell(self._where, template, octets=self._passed)
        self._passed = 0


def place(event: FrameEvent) -> Where:
    return event.packet, event.time_ns, event.connection, event.direction, event.offset


def whole_messages(content: bytes) -> list[tuple[bool, int, int]] | None:
    """The messages that fill `content` exactly, as (compressed, where its octets begin, how many); None where they
    do not. Zeros alone are taken for one empty message, but not for many: they could be anything."""
    found = []
    at, end = 0, len(content)
    while at < end:
        if end - at < PREFIX_LENGTH:
            return None
        compressed, size = prefix(content, at)
        if compressed > 1 or size > end - at - PREFIX_LENGTH:
            return None
        found.append((compressed == 1, at + PREFIX_LENGTH, size))
        at += PREFIX_LENGTH + size
    if len(found) > 1 and not any(size for _, _, size in found):
        return None
    return found
