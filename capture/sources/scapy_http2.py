"""What scapy's own HTTP/2 layer (scapy.contrib.http2) says of the frames that we found: another second opinion.

It is given whole frames, from our own reassembly: scapy's TCPSession puts zeros where a segment is missing and calls
the frame complete. It keeps a dynamic table of its own for each direction. Where it raises an error, that is its
description of the frame, and of all later field blocks of that direction, whose table nobody knows any more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

from capture.compare import Frame, Reading, Row, sender_of
from capture.events import END_HEADERS, Event, FieldLine, FrameEvent, FrameType
from kit.words import N_

CUT = "a field block that is cut inside a field"
UNREADABLE = "a field that scapy does not read"
_BLOCKS = (FrameType.HEADERS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION)
_Key = tuple[int, str]


def name() -> str:
    return f"scapy {version('scapy')}"


class Scapy:
    """Events of our own in, scapy's descriptions of their frames out."""

    def __init__(self) -> None:
        self._tables: dict[_Key, Any] = {}
        self._instructions: dict[_Key, list[Any]] = {}
        """Of a field block whose end is still to come."""
        self._broken: dict[_Key, str] = {}
        """Why a direction's table is lost."""

    def feed(self, events: Iterable[Event]) -> Iterator[Frame]:
        for event in events:
            if type(event) is FrameEvent and event.payload is not None:
                yield self._describe(event, event.header + event.payload)

    def _describe(self, event: FrameEvent, octets: bytes) -> Frame:
        from scapy.contrib.http2 import H2Frame

        key = (event.connection.number, sender_of(event))
        content: dict[str, Any] = {"payload": zlib.crc32(event.payload or b"")}
        error: str | None = None
        try:
            frame = H2Frame(octets)
            content |= _content(frame)
            if event.type_code in _BLOCKS:
                fields = self._fields(key, frame, bool(event.flags & END_HEADERS))
                if fields is not None:
                    content["fields"] = fields
        except Exception as problem:  # a dissector by others, on octets by others: anything may come
            name = "" if isinstance(problem, _TableLost) else f"{type(problem).__name__}: "
            error = f"{name}{problem}".rstrip(": ")
            frame = H2Frame(bytes(3) + octets[3:9])  # what can be said without the payload
            frame.len = event.length
            if event.type_code in _BLOCKS:
                self._broken.setdefault(key, error)
        flags = frame.get_field("flags").i2m(frame, frame.getfieldval("flags"))
        # scapy reads the type as a signed octet.
        return Frame(event.packet, *key, frame.type & 0xFF, frame.stream_id, frame.len, flags, content, error)

    def _fields(self, key: _Key, frame: Any, is_end: bool) -> tuple[FieldLine, ...] | None:
        from scapy.contrib.http2 import HPackHdrTable

        if key in self._broken:
            raise _TableLost(self._broken[key])
        instructions = self._instructions.setdefault(key, [])
        instructions += getattr(frame.payload, "hdrs", [])
        if not is_end:
            if instructions and "magic" not in instructions[-1].fields:
                raise _TableLost(CUT)
            return None
        del self._instructions[key]
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = HPackHdrTable()
        return tuple(_resolved(table, instructions))


class _TableLost(Exception):
    """Nothing more can be said of a direction's fields."""


def _content(frame: Any) -> dict[str, Any]:
    """The columns that scapy has for a frame."""
    payload = frame.payload
    get: Callable[[str], Any] = payload.getfieldval if frame.len else (lambda _name: None)
    match frame.type & 0xFF:
        case FrameType.DATA:
            return {"data_length": len(get("data") or b"")}
        case FrameType.SETTINGS:
            return {"settings": [(one.id, one.value) for one in get("settings") or []]}
        case FrameType.WINDOW_UPDATE:
            return {"increment": get("win_size_incr")}
        case FrameType.RST_STREAM:
            return {"error_code": get("error")}
        case FrameType.GOAWAY:
            debug = get("additional_data") or b""
            return {"last_stream_id": get("last_stream_id"), "error_code": get("error"), "debug_data": bytes(debug)}
        case FrameType.PING:
            return {"opaque_data": int(get("opaque")).to_bytes(8)}
        case FrameType.PUSH_PROMISE:
            return {"promised_stream_id": get("stream_id")}
    return {}


def _resolved(table: Any, instructions: Iterable[Any]) -> Iterator[FieldLine]:
    """HPACK instructions to fields, as scapy's table has them."""
    from scapy.contrib.http2 import HPackDynamicSizeUpdate, HPackIndexedHdr, HPackLitHdrFldWithIncrIndexing

    for one in instructions:
        if isinstance(one, HPackDynamicSizeUpdate):
            table.resize(one.max_size)
        elif isinstance(one, HPackIndexedHdr):
            entry = table[one.index]
            yield _text(entry.name()), _text(entry.value())
        elif "index" not in one.fields:
            raise _TableLost(UNREADABLE)
        else:
            name = table[one.index].name() if one.index else one.hdr_name.getfieldval("data").origin()
            yield _text(name), _text(one.hdr_value.getfieldval("data").origin())
            if isinstance(one, HPackLitHdrFldWithIncrIndexing):
                table.register(one)


def _text(text: str | bytes) -> str | bytes:
    """scapy's strings are text or octets, by what they were coded as."""
    octets = text.encode("latin-1", "replace") if isinstance(text, str) else text
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets


def traits(row: Row, reading: Reading) -> str | None:
    """What is known of scapy's HTTP/2 layer that explains a row."""
    frame = row.frame
    is_behind_gap = reading.gaps.get(frame.connection, frame.packet + 1) <= frame.packet
    if row.theirs is None:
        return N_("scapy is given whole frames: of this one, octets are missing. (Its own reassembly would put zeros.)")
    if (frame.connection, frame.sender) in reading.uncertain:
        if row.theirs.error is not None:
            return N_("scapy knows no table entry from before the capture, and raises an error.")
        if is_behind_gap:
            return N_("scapy goes on with its table as if no field block were missing: names may be shifted.")
    error = row.theirs.error or ""
    if error.startswith("AssertionError"):
        return N_("scapy asserts what is allowed: an entry larger than its table empties it (RFC 7541 §4.4).")
    if error == CUT:
        return N_("scapy reads each frame's fragment by itself, and loses a table when one ends inside a field.")
    if error == UNREADABLE:
        return N_("scapy reads no Huffman-coded string that is not UTF-8, and loses a table with it.")
    return None
