"""The octets of one direction to HTTP/2 frames (RFC 9113 §4).

How it works. A `FrameReader` is handed octets as they arrive, in order, and cuts them at the lengths that the frame
headers give. What a frame header says is worked out once and looked up after that: the nine octets are the key
(`_shapes`), and a chat repeats a few dozen of them for ever. Frames whose header says it all (`PLAIN`) become events at
once; those that change or need state (field blocks, SETTINGS), and those that break a rule, take a turn through
`_handle`.

A gap inside a frame whose header was seen costs that frame its payload and nothing else: where it ends is known. Any
other gap loses the boundary, and `lost` is told; so is it when a header is so impossible that the boundary before it
must have been wrong.

State belongs to the connection, not to the direction: the SETTINGS of one side bound the field blocks and the frame
sizes of the other, so each reader knows its `peer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from capture.boundaries import evidence, is_odd
from capture.events import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_LENGTH,
    PADDED,
    PRIORITY_FLAG,
    TYPE_NAMES,
    Connection,
    Direction,
    ErrorCode,
    Event,
    FieldSection,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
)
from capture.hpack_tables import DEFAULT_TABLE_SIZE, Budget, FieldDecoder
from kit.words import N_

DEFAULT_MAX_FRAME_SIZE = 1 << 14
"""RFC 9113 §6.5.2."""
LARGEST_SEEN = 1 << 22
"""What is taken for allowed where the capture did not see it: grpcio announces 4 MiB, and nobody is known to say more.
"""
MAX_SHAPES = 1 << 16
"""Frame headers remembered, about 20 MiB at most; then the memory starts over."""
MAX_BLOCK = 1 << 20
"""Octets of a field block over its CONTINUATION frames: without a limit they never end (CVE-2024-27316)."""
MAX_PARTIAL_OVERALL = 64 << 20
"""Octets of unfinished frames and field blocks over all connections. A frame holds up to 16 MiB; beyond this its
content is let go, and only its header stays."""
PART_OVERHEAD = 64
"""Octets that Python spends on a piece of a frame besides its content: a frame may come in pieces of one octet."""

PLAIN, WINDOW_UPDATE, WHOLE_BLOCK, STATEFUL = range(4)
"""How a frame is handled: its header says it all; unless its increment is 0; a field block in one piece; with care."""


class Shape(NamedTuple):
    """What nine octets of frame header say."""

    handling: int
    type_code: int
    flags: int
    stream_id: int
    length: int


_shapes: dict[bytes, Shape] = {}


class FrameReader:
    """One direction of an HTTP/2 connection, from a frame boundary on.

    `whole`: the connection's first octet was seen, so that tables and settings have their initial values.
    `lost(packet, time_ns, rest)` is called when the boundary is lost, with the octets behind it.
    """

    def __init__(
        self,
        connection: Connection,
        direction: Direction,
        emit: Callable[[Event], None],
        budget: Budget,
        *,
        whole: bool,
        sections: bool,
        trace: bool,
        lost: Callable[[int, int, bytes], None],
    ) -> None:
        self.connection, self.direction, self.emit = connection, direction, emit
        self.sections = sections
        self.tables = FieldDecoder(whole, trace, budget)
        self.peer: FrameReader | None = None
        self.offset = 0
        """Of the next frame header; for a partial frame, of its own header."""
        self._budget, self._lost = budget, lost
        self._parts: list[bytes] = []
        """The beginning of a frame that is not all there yet."""
        self._have = 0
        """Octets of it that have passed, missing ones included."""
        self._need = FRAME_HEADER_LENGTH
        """Octets at which there is something to do."""
        self._holed = False
        """Whether some of them are missing."""
        self._spent = 0
        """What `_parts` takes of the budget."""
        self._block = bytearray()
        self._block_stream: int | None = None
        """The stream whose field block goes on in CONTINUATION."""
        self._block_lost = False
        self.largest: int | None = DEFAULT_MAX_FRAME_SIZE if whole else None
        """SETTINGS_MAX_FRAME_SIZE of the other side; None while it cannot be known."""
        self._takes_frame: int | None = DEFAULT_MAX_FRAME_SIZE if whole else None
        """The same of this side: what bounds the other."""
        self._takes_table: int | None = DEFAULT_TABLE_SIZE if whole else None
        """The largest SETTINGS_HEADER_TABLE_SIZE of this side."""
        self._doubts = 0
        """Frames that still have to confirm the boundary that the reader was started at."""
        self._first = whole
        """Whether the next frame is the connection's first in this direction, which must be SETTINGS."""
        self._is_wary = whole
        """Whether one of these, or a field block to be continued, has every frame handled with care."""

    # -- octets ----------------------------------------------------------------------------------------------------

    def feed(self, packet: int, time_ns: int, octets: bytes) -> None:
        """The hot loop: one turn a frame."""
        if self._have:
            octets = self._resume(octets)
            if not octets:
                return None
            if self._holed:
                octets = self._finish_holed(packet, time_ns, octets)
        position, end, base = 0, len(octets), self.offset
        shapes, new, is_calm = _shapes, tuple.__new__, not self._is_wary
        connection, direction, emit = self.connection, self.direction, self.emit
        while position < end:
            header = octets[position : position + 9]
            shape = shapes.get(header)
            if shape is None:
                if len(header) < FRAME_HEADER_LENGTH:
                    break
                shape = _learn(header)
            handling, type_code, flags, stream_id, length = shape
            stop = position + 9 + length
            if is_calm and handling <= WINDOW_UPDATE:
                if stop > end:
                    break
                payload = octets[position + 9 : stop]
                if handling == PLAIN or payload != b"\0\0\0\0":
                    # FrameEvent(...) without the detour through its own __new__, which costs as much as all the rest.
                    plain = (
                        packet, time_ns, connection, direction, base + position,
                        type_code, flags, stream_id, length, header, payload, None,
                    )  # fmt: skip
                    emit(new(FrameEvent, plain))
                    position = stop
                    continue
            elif (handling == STATEFUL or not is_calm) and self._is_no_boundary(octets, position):
                self.offset = base + position
                self._lose_state()
                return self._lost(packet, time_ns, octets[position:])
            if stop > end:
                break
            payload = octets[position + 9 : stop]
            section = None
            if handling == WHOLE_BLOCK and is_calm and self.sections:
                section = self.tables.decode(payload)
            if handling != WHOLE_BLOCK or not is_calm or self.tables.complaints:
                self._handle(packet, time_ns, base + position, header, payload, section)
                is_calm = not self._is_wary
            else:
                event = (
                    packet, time_ns, connection, direction, base + position,
                    type_code, flags, stream_id, length, header, payload, section,
                )  # fmt: skip
                emit(new(FrameEvent, event))
            # A field section may tell who is the client, and SETTINGS what the connection is.
            connection, direction, emit = self.connection, self.direction, self.emit
            position = stop
        self.offset = base + position
        if position < end:
            self._keep(octets[position:] if position else octets)
        return None

    def hole(self, packet: int, time_ns: int, octets: int) -> bool:
        """So many octets are missing here; False where that loses the boundary."""
        at = self.offset + self._have
        inside = self._have >= FRAME_HEADER_LENGTH and self._have + octets <= self._need
        self.emit(Gap(packet, time_ns, self.connection, self.direction, at, octets, not inside))
        if self._have < FRAME_HEADER_LENGTH:
            self._drop_partial()
            self._lose_state()
            self.offset = at + octets
            return False
        self._holed = True
        left = self._need - self._have
        self._drop_content()
        self._have += min(left, octets)
        if self._have == self._need:
            self._finish_holed(packet, time_ns, b"")
        if octets > left:
            self._lose_state()
            self.offset = at + octets
            return False
        return True

    def begin(self, offset: int, doubts: int) -> None:
        """The next octets are a frame header's, at `offset`. The next `doubts` headers must be beyond reproach: that
        this is a boundary was inferred."""
        self.offset, self._doubts = offset, doubts
        self._watch()

    def meet(self, peer: FrameReader) -> None:
        """The reader of the other direction. What either announced before the other was there bounds it from now on."""
        self.peer, peer.peer = peer, self
        self._announce()
        peer._announce()

    def end(self, packet: int, time_ns: int, what: str) -> None:
        """No more octets come. A frame under way is told, as `what` says, and what its header broke."""
        if self._have:
            where = (packet, time_ns, self.connection, self.direction, self.offset, "http2")
            self.emit(Problem(*where, what, {"octets": self._have}, self._have))
            header = b"".join(self._parts)[:FRAME_HEADER_LENGTH]
            if len(header) == FRAME_HEADER_LENGTH:
                for template, code, values in self._header_complaints(header):
                    self.emit(Problem(*where, template, values, self._have, code))

    def close(self) -> None:
        """Lets go of what is held."""
        self._drop_partial()
        self._drop_block()
        self.tables.lose()

    def _keep(self, rest: bytes) -> None:
        self._parts = [rest]
        self._have = len(rest)
        self._need = FRAME_HEADER_LENGTH
        if len(rest) >= FRAME_HEADER_LENGTH:
            self._need += int.from_bytes(rest[:3])
        self._spend(len(rest) + PART_OVERHEAD)

    def _resume(self, octets: bytes) -> bytes:
        """Joins new octets to the partial frame; empty while there is nothing to do yet."""
        self._have += len(octets)
        if self._holed:
            return octets if self._have >= self._need else b""
        self._parts.append(octets)
        self._spend(len(octets) + PART_OVERHEAD)
        if self._have < self._need:
            return b""
        joined = b"".join(self._parts)
        self._drop_partial()
        return joined

    def _spend(self, octets: int) -> None:
        """Accounts for octets of the partial frame, whose content is let go where all connections hold too many."""
        self._spent += octets
        self._budget.partial += octets
        if self._budget.partial > MAX_PARTIAL_OVERALL and FRAME_HEADER_LENGTH < self._need > self._have:
            self._holed = True
            self._drop_content()

    def _drop_partial(self) -> None:
        self._budget.partial -= self._spent
        self._parts, self._have, self._need, self._holed, self._spent = [], 0, FRAME_HEADER_LENGTH, False, 0

    def _drop_content(self) -> None:
        """Keeps the header of a partial frame only."""
        self._parts = [b"".join(self._parts)[:FRAME_HEADER_LENGTH]]
        self._budget.partial -= self._spent
        self._spent = 0

    def _finish_holed(self, packet: int, time_ns: int, octets: bytes) -> bytes:
        """Ends a frame of which octets are missing; what lies behind it."""
        header = b"".join(self._parts)[:FRAME_HEADER_LENGTH]
        rest = octets[len(octets) - (self._have - self._need) :]
        offset, need = self.offset, self._need
        self._drop_partial()
        self.offset = offset + need
        self._handle(packet, time_ns, offset, header, None)
        return rest

    # -- frames that need more than their header -------------------------------------------------------------------

    def _handle(
        self,
        packet: int,
        time_ns: int,
        offset: int,
        header: bytes,
        payload: bytes | None,
        section: FieldSection | None = None,
    ) -> None:
        """A frame with state or trouble. `payload` is None where octets are missing; `section` is given where the
        field block was decoded already."""
        _, type_code, flags, stream_id, length = _shapes.get(header) or _learn(header)
        frame = FrameEvent(
            packet,
            time_ns,
            self.connection,
            self.direction,
            offset,
            type_code,
            flags,
            stream_id,
            length,
            header,
            payload,
            section,
        )
        problems: list[Problem] = []

        def complain(
            template: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR, layer: str = "http2", **values: Any
        ) -> None:
            where = (packet, time_ns, self.connection, self.direction, offset, layer)
            problems.append(Problem(*where, template, values, length + 9, code))

        for template, code, values in self._header_complaints(header):
            complain(template, code, **values)
        is_sound = not problems
        if self._first:
            self._first = False
            if type_code != FrameType.SETTINGS or flags & ACK:
                complain(N_("the first frame must be SETTINGS, and no acknowledgement (RFC 9113 §3.4)"))
        expected = self._block_stream
        if expected is not None and (type_code != FrameType.CONTINUATION or stream_id != expected):
            complain(
                N_("the field block of stream {stream} is interrupted (RFC 9113 §6.10)"),
                stream=expected,
            )
            self._drop_block()
            self.tables.lose()
        content = frame.content if payload is not None else None
        if payload is not None and content is None:
            has_priority = type_code == FrameType.HEADERS and flags & PRIORITY_FLAG
            fixed = 4 if type_code == FrameType.PUSH_PROMISE else 5 if has_priority else 0
            if flags & PADDED and len(payload) > fixed:
                complain(N_("padding that leaves no room in a {type} frame (RFC 9113 §6.1)"), type=frame.type)
            else:
                complain(
                    N_("{type} with a payload of {length} octets: too short for its fields (RFC 9113 §4.2)"),
                    ErrorCode.FRAME_SIZE_ERROR,
                    type=frame.type,
                    length=length,
                )
        if type_code in (FrameType.HEADERS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION):
            if section is None:
                frame = frame._replace(section=self._fragment(frame, content, expected, complain))
            for wrong in self.tables.complaints:
                complain(wrong.template, wrong.error_code, "hpack", **wrong.values)
            self.tables.complaints.clear()
            if type_code == FrameType.PUSH_PROMISE:
                self._check_promise(frame, complain)
        elif type_code == FrameType.SETTINGS and is_sound:
            self._settings(frame, complain)
        elif type_code == FrameType.WINDOW_UPDATE and frame.increment == 0:
            complain(N_("a window increment of 0 (RFC 9113 §6.9)"))
        self._watch()
        self.emit(frame)
        for problem in problems:
            # The connection's roles may have been learnt from this very frame.
            self.emit(problem._replace(connection=self.connection, direction=self.direction))

    def _fragment(
        self, frame: FrameEvent, content: bytes | None, expected: int | None, complain: Callable[..., None]
    ) -> FieldSection | None:
        """A piece of a field block; the section where it is the last."""
        if frame.type_code == FrameType.CONTINUATION:
            if expected is None or expected != frame.stream_id:
                if self.tables.complete:
                    complain(N_("CONTINUATION without a field block to continue (RFC 9113 §6.10)"))
                self._block_lost = True
        else:
            self._drop_block()
        if content is None:
            self._block_lost = True
        elif not self._block_lost:
            self._block += content
            self._budget.partial += len(content)
            if len(self._block) > MAX_BLOCK or self._budget.partial > MAX_PARTIAL_OVERALL:
                complain(
                    N_("a field block of {octets} octets and more is not kept"),
                    ErrorCode.ENHANCE_YOUR_CALM,
                    octets=len(self._block),
                )
                self._block_lost = True
        if self._block_lost:
            self._budget.partial -= len(self._block)
            self._block.clear()
        if not frame.flags & END_HEADERS:
            self._block_stream = frame.stream_id
            return None
        block, is_lost = bytes(self._block), self._block_lost
        self._drop_block()
        if is_lost:
            self.tables.lose()
            return None
        return self.tables.decode(block) if self.sections else None

    def _drop_block(self) -> None:
        self._budget.partial -= len(self._block)
        self._block.clear()
        self._block_stream, self._block_lost = None, False

    def _check_promise(self, frame: FrameEvent, complain: Callable[..., None]) -> None:
        """RFC 9113 §6.6, §8.4."""
        promised = frame.promised_stream_id
        if promised is not None and (promised == 0 or promised % 2):
            complain(N_("PUSH_PROMISE of stream {promised} (RFC 9113 §5.1.1)"), promised=promised)
        if self.direction == Direction.CLIENT_TO_SERVER:
            complain(N_("PUSH_PROMISE from a client (RFC 9113 §8.4)"))

    def _settings(self, frame: FrameEvent, complain: Callable[..., None]) -> None:
        """What one side announces bounds the other (RFC 9113 §6.5.2)."""
        if frame.payload is None:
            self._takes_frame = self._takes_table = None
        for name, value in frame.settings or ():
            lowest, highest, clause, code = _POSSIBLE.get(name, _ANYTHING)
            if name == "SETTINGS_ENABLE_PUSH" and self.direction == Direction.SERVER_TO_CLIENT:
                highest = 0
            if not lowest <= value <= highest:
                complain(N_("{setting} may not be {value} ({clause})"), code, setting=name, value=value, clause=clause)
            if name == "SETTINGS_HEADER_TABLE_SIZE" and self._takes_table is not None:
                self._takes_table = max(value, self._takes_table)
            elif name == "SETTINGS_MAX_FRAME_SIZE" and self._takes_frame is not None:
                self._takes_frame = max(min(value, MAX_FRAME_SIZE), self._takes_frame)
        self._announce()

    def _announce(self) -> None:
        """Bounds the other direction by what this side has said it takes."""
        if self.peer is not None:
            self.peer.largest, self.peer.tables.bound = self._takes_frame, self._takes_table

    def _header_complaints(self, header: bytes) -> list[tuple[str, ErrorCode, dict[str, Any]]]:
        """The rules that a frame header breaks: sentence, what an endpoint would answer, what fills the sentence."""
        _, type_code, flags, stream_id, length = _shapes.get(header) or _learn(header)
        complaints: list[tuple[str, ErrorCode, dict[str, Any]]] = []
        broken = _header_complaint(length, type_code, flags, stream_id)
        if broken is not None:
            template, clause, code = broken
            name = TYPE_NAMES.get(type_code) or f"0x{type_code:02x}"
            complaints.append((template, code, {"type": name, "length": length, "stream": stream_id, "clause": clause}))
        if self.largest is not None and length > self.largest:
            template = N_("a frame of {length} octets, where at most {largest} were allowed (RFC 9113 §4.2)")
            complaints.append((template, ErrorCode.FRAME_SIZE_ERROR, {"length": length, "largest": self.largest}))
        return complaints

    def _watch(self) -> None:
        """Whether the frames to come need more than a look at their header."""
        self._is_wary = self._first or self._block_stream is not None or self._doubts > 0

    def _is_no_boundary(self, octets: bytes, position: int) -> bool:
        """Whether a header disproves that this is a boundary: while the boundary is only inferred, by breaking any
        rule, unless it is odd and another one follows; later by being longer than allowed and of a type, or with
        flags, that nobody has defined."""
        is_sound = bool(evidence(octets, position))
        length = int.from_bytes(octets[position : position + 3])
        if self._doubts:
            stop = position + FRAME_HEADER_LENGTH + length
            self._doubts -= stop <= len(octets)  # a frame that is not all there yet will be looked at again
            can_see = stop + FRAME_HEADER_LENGTH <= len(octets)
            return not is_sound and not (is_odd(octets, position) and (not can_see or evidence(octets, stop)))
        return not is_sound and length > (self.largest or LARGEST_SEEN)

    def _lose_state(self) -> None:
        """Frames may have been missed: what they changed is no longer known."""
        self._drop_block()
        self._first = False
        self.tables.lose()
        self._takes_frame = self._takes_table = None
        self._announce()
        self._watch()


_ON_STREAM = {
    FrameType.DATA: "§6.1",
    FrameType.HEADERS: "§6.2",
    FrameType.PRIORITY: "§6.3",
    FrameType.RST_STREAM: "§6.4",
    FrameType.PUSH_PROMISE: "§6.6",
    FrameType.CONTINUATION: "§6.10",
}
_ON_CONNECTION = {FrameType.SETTINGS: "§6.5", FrameType.PING: "§6.7", FrameType.GOAWAY: "§6.8"}
_LENGTHS = {
    FrameType.PRIORITY: (5, "§6.3"),
    FrameType.RST_STREAM: (4, "§6.4"),
    FrameType.PING: (8, "§6.7"),
    FrameType.WINDOW_UPDATE: (4, "§6.9"),
}
MAX_FRAME_SIZE = (1 << 24) - 1
_POSSIBLE: dict[str | int, tuple[int, int, str, ErrorCode]] = {
    "SETTINGS_ENABLE_PUSH": (0, 1, "RFC 9113 §6.5.2", ErrorCode.PROTOCOL_ERROR),
    "SETTINGS_INITIAL_WINDOW_SIZE": (0, (1 << 31) - 1, "RFC 9113 §6.5.2", ErrorCode.FLOW_CONTROL_ERROR),
    "SETTINGS_MAX_FRAME_SIZE": (DEFAULT_MAX_FRAME_SIZE, MAX_FRAME_SIZE, "RFC 9113 §6.5.2", ErrorCode.PROTOCOL_ERROR),
    "SETTINGS_ENABLE_CONNECT_PROTOCOL": (0, 1, "RFC 8441 §3", ErrorCode.PROTOCOL_ERROR),
    "SETTINGS_NO_RFC7540_PRIORITIES": (0, 1, "RFC 9218 §2.1", ErrorCode.PROTOCOL_ERROR),
}
_ANYTHING = (0, 0xFFFFFFFF, "", ErrorCode.PROTOCOL_ERROR)
"""Smallest and largest value of a setting, where that is said, and what is wrong with another."""
_STATEFUL = {FrameType.HEADERS, FrameType.SETTINGS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION}


def _learn(header: bytes) -> Shape:
    """Works out a frame header, and remembers it."""
    length, type_code, flags = int.from_bytes(header[:3]), header[3], header[4]
    stream_id = int.from_bytes(header[5:]) & 0x7FFFFFFF
    if _header_complaint(length, type_code, flags, stream_id) is not None:
        handling = STATEFUL
    elif type_code == FrameType.WINDOW_UPDATE:
        handling = WINDOW_UPDATE
    elif length > DEFAULT_MAX_FRAME_SIZE:
        handling = STATEFUL
    elif type_code == FrameType.HEADERS and flags & ~END_STREAM == END_HEADERS:
        handling = WHOLE_BLOCK
    elif type_code in _STATEFUL or (type_code == FrameType.DATA and flags & PADDED):
        handling = STATEFUL
    else:
        handling = PLAIN
    if len(_shapes) >= MAX_SHAPES:
        _shapes.clear()
    shape = _shapes[header] = Shape(handling, type_code, flags, stream_id, length)
    return shape


def _header_complaint(length: int, type_code: int, flags: int, stream_id: int) -> tuple[str, str, ErrorCode] | None:
    """The rule that a frame header breaks by itself."""
    if type_code in _ON_STREAM and not stream_id:
        sentence = N_("{type} belongs on a stream, and is on stream 0 (RFC 9113 {clause})")
        return sentence, _ON_STREAM[FrameType(type_code)], ErrorCode.PROTOCOL_ERROR
    if type_code in _ON_CONNECTION and stream_id:
        sentence = N_("{type} belongs on stream 0, and is on stream {stream} (RFC 9113 {clause})")
        return sentence, _ON_CONNECTION[FrameType(type_code)], ErrorCode.PROTOCOL_ERROR
    if type_code in _LENGTHS:
        exact, clause = _LENGTHS[FrameType(type_code)]
        is_wrong = length != exact
    elif type_code == FrameType.GOAWAY:
        is_wrong, clause = length < 8, "§6.8"
    else:
        is_wrong, clause = type_code == FrameType.SETTINGS and bool(length % 6 or (flags & ACK and length)), "§6.5"
    if is_wrong:
        sentence = N_("{type} with a payload of {length} octets (RFC 9113 {clause})")
        return sentence, clause, ErrorCode.FRAME_SIZE_ERROR
    return None
