"""frame1: nine octets to the four numbers of a frame header (RFC 9113 §4.1)."""

from __future__ import annotations

from exercises.checker import Case, Check, Mistake, Student
from kit.words import _

FUNCTION = "read_frame_header"
PARTS = {"length": (0, 2), "type": (3, 3), "flags": (4, 4), "stream_id": (5, 8)}

Numbers = tuple[int, int, int, int]
"""Length, type, flags, stream identifier."""

EXAMPLE: Numbers = (258, 0, 1, 5)
"""The second one that the file explains."""
MADE = 60
"""Random headers of each kind, and captured ones whose reserved bit is set."""
USUAL_TYPES = 10
"""RFC 9113 defines types 0 to 9. Others may come as well (§5.5), and do among the large."""


def header(numbers: Numbers, *, reserved: bool = False) -> bytes:
    """The encoder: the figure of RFC 9113 §4.1, number by number."""
    length, type_code, flags, stream_id = numbers
    return length.to_bytes(3) + bytes([type_code, flags]) + (reserved << 31 | stream_id).to_bytes(4)


def checks(student: Student) -> list[Check]:
    """The same five for everybody: random headers stand in for a capture that is not there."""
    random = student.random("frame1").randrange
    usual = [(random(1 << 12), random(USUAL_TYPES), random(256), random(1 << 10)) for _number in range(3 * MADE)]
    large = [(random(1 << 16, 1 << 24), random(256), random(256), random(1 << 24, 1 << 31)) for _number in range(MADE)]
    made = student.origin
    captured = _captured(student)
    if captured:
        own = [
            _case(numbers, _("packet {number} of your capture").format(number=packet), is_captured=True)
            for numbers, packet in captured.items()
        ]
        with_bit = _("packet {number}, reserved bit set")
        reserved = [
            _case(numbers, with_bit.format(number=packet), reserved=True)
            for numbers, packet in list(captured.items())[:MADE]
        ]
    else:
        own = [_case(numbers, made) for numbers in usual[:MADE]]
        reserved = [_case(numbers, made, reserved=True) for numbers in usual[MADE : 2 * MADE]]
    return [
        Check("example", [_case(EXAMPLE, _("the file's second example"))]),
        Check("capture", own),
        Check("made", [_case(numbers, made) for numbers in usual[2 * MADE :]]),
        Check("large", [_case(numbers, made) for numbers in large]),
        Check("reserved", reserved),
    ]


def _captured(student: Student) -> dict[Numbers, int]:
    """The different headers of the capture, each with the number of the packet that brought the first such."""
    packets: dict[Numbers, int] = {}
    for frame in student.frames:
        packets.setdefault((frame.length, frame.type_code, frame.flags, frame.stream_id), frame.packet)
    return packets


def _case(numbers: Numbers, origin: str, *, reserved: bool = False, is_captured: bool = False) -> Case:
    return Case((header(numbers, reserved=reserved),), dict(zip(PARTS, numbers, strict=True)), origin, is_captured)


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


# Of several that explain the answers and begin at the same part, the first is told.
MISTAKES = [
    Mistake("todo", lambda octets: {"length": 0, "type": 0, "flags": 0, "stream_id": 0}, (0, 2)),
    Mistake("todo_next", lambda octets: {"length": 0}),
    Mistake("todo_next", lambda octets: {"type": 0}),
    Mistake("todo_next", lambda octets: {"flags": 0}),
    Mistake("todo_next", lambda octets: {"stream_id": 0}),
    Mistake("slice", lambda octets: {"length": octets[0:3]}),
    Mistake("slice", lambda octets: {"stream_id": octets[5:9]}),
    Mistake("slice", lambda octets: {"type": octets[3:4]}),
    Mistake("slice", lambda octets: {"flags": octets[4:5]}),
    Mistake("little_endian", lambda octets: {"length": int.from_bytes(octets[0:3], "little")}),
    Mistake("little_endian", lambda octets: {"stream_id": int.from_bytes(octets[5:9], "little")}),
    Mistake("little_endian", lambda octets: {"stream_id": int.from_bytes(octets[5:9], "little") & 0x7FFFFFFF}),
    Mistake("header_counted", lambda octets: {"length": _number(octets[0:3]) + len(octets)}),
    Mistake("length_short", lambda octets: {"length": _number(octets[0:2])}),
    Mistake("length_short", lambda octets: {"length": _number(octets[1:3])}),
    Mistake("length_long", lambda octets: {"length": _number(octets[0:4])}, (3, 3)),
    Mistake("swapped", lambda octets: {"type": octets[4], "flags": octets[3]}),
    Mistake("reserved_bit", lambda octets: {"stream_id": _number(octets[5:9])}, (5, 5)),
    Mistake("stream_short", lambda octets: {"stream_id": _number(octets[6:9])}, (5, 5)),
    Mistake("stream_short", lambda octets: {"stream_id": _number(octets[5:8])}, (8, 8)),
    Mistake("stream_short", lambda octets: {"stream_id": _number(octets[5:8]) & 0x7FFFFF}, (8, 8)),
    Mistake("stream_short", lambda octets: {"stream_id": octets[8]}, (5, 7)),
    Mistake("stream_early", lambda octets: {"stream_id": _number(octets[4:8])}, (4, 4)),
    Mistake("stream_early", lambda octets: {"stream_id": _number(octets[4:8]) & 0x7FFFFFFF}, (4, 4)),
]
