"""The vocabulary of the capture module: what octets on the wire become.

Small immutable records and the enums of the registries that they quote. Everything above speaks in these; nothing
here reads, decodes state, or knows a source. Content that follows from a frame's own octets (SETTINGS, an increment, an
error code) is computed from `payload` when somebody asks, so that a frame nobody looks into costs nothing.

Times are nanoseconds since the Unix epoch, as integers. Lengths and offsets are octets.
Registries: RFC 9113 §11 (frame types, settings, error codes), RFC 7838, RFC 8336, RFC 8441, RFC 9218, gRPC's status.
"""

from __future__ import annotations

import base64
import struct
from enum import IntEnum
from typing import Any, NamedTuple

CONNECTION_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_LENGTH = 9


class Direction(IntEnum):
    """Which way octets travel; `name.lower()` is the contract's spelling."""

    CLIENT_TO_SERVER = 0
    SERVER_TO_CLIENT = 1

    @property
    def label(self) -> str:
        return _DIRECTION_LABELS[self]

    @property
    def arrow(self) -> str:
        return "→←"[self]


_DIRECTION_LABELS = ("client_to_server", "server_to_client")


class FrameType(IntEnum):
    """Registered frame types. An unregistered one stays a plain number in `FrameEvent.type_code`."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    ALTSVC = 0xA
    ORIGIN = 0xC
    PRIORITY_UPDATE = 0x10


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

FLAGS: dict[int, dict[int, str]] = {
    FrameType.DATA: {END_STREAM: "END_STREAM", PADDED: "PADDED"},
    FrameType.HEADERS: {
        END_STREAM: "END_STREAM",
        END_HEADERS: "END_HEADERS",
        PADDED: "PADDED",
        PRIORITY_FLAG: "PRIORITY",
    },
    FrameType.SETTINGS: {ACK: "ACK"},
    FrameType.PUSH_PROMISE: {END_HEADERS: "END_HEADERS", PADDED: "PADDED"},
    FrameType.PING: {ACK: "ACK"},
    FrameType.CONTINUATION: {END_HEADERS: "END_HEADERS"},
}
"""The flags that a frame type defines (RFC 9113 §6), by bit. What is not here is undefined for that type."""


class Setting(IntEnum):
    """Registered settings; the member's name is the RFC's without its prefix SETTINGS_."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8
    NO_RFC7540_PRIORITIES = 0x9


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Status(IntEnum):
    """gRPC status codes (the gRPC protocol page, `grpc-status`)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Packet(NamedTuple):
    """One captured packet, as a source hands it over."""

    number: int
    """From 1, in the order of the capture."""
    time_ns: int
    link_type: int
    """LINKTYPE_ number of the capture file formats (1 Ethernet, 0 BSD loopback, 101 raw IP, 113 and 276 cooked)."""
    data: bytes
    """What was captured, perhaps less than there was."""
    length: int
    """How long the packet was on the wire."""


class Connection(NamedTuple):
    """A TCP connection. Equal numbers mean the same connection."""

    number: int
    """From 0, over all TCP connections of the capture by their first packet, as Wireshark's tcp.stream."""
    client: str
    """`ip:port`, `[ip6]:port`."""
    server: str


class Unknown(NamedTuple):
    """A name or value that the capture cannot tell: a dynamic table entry from before its start."""

    label: str
    """`?-1` is the newest entry from before the start, `?-2` the one before it, and so on; the label stays with the
    entry. `?` where nothing can be said at all (the octets are lost)."""

    def __str__(self) -> str:
        return self.label


FieldLine = tuple[Any, Any]


class FieldSection(NamedTuple):
    """A decoded field section (RFC 9113 §4.3)."""

    fields: tuple[FieldLine, ...]
    """Name and value in wire order; each a str, bytes where the octets are not UTF-8, or Unknown."""
    block: bytes
    """The field block that it was decoded from, fragments joined, without padding and priority."""
    certain: bool
    """False while the dynamic table may hold entries from before the capture's start."""
    trace: Any = None
    """How it was decoded, step by step (`hpack_tables.Trace`), where the pipeline was asked for it."""


class FrameEvent(NamedTuple):
    """One HTTP/2 frame, complete."""

    packet: int
    """Number of the packet whose arrival completed it."""
    time_ns: int
    """That packet's time."""
    connection: Connection
    direction: Direction
    offset: int
    """Of the frame header's first octet in its direction; 0 is the first octet after the SYN, or the first seen."""
    type_code: int
    flags: int
    """The flags octet, undefined ones included."""
    stream_id: int
    """31 bits: the reserved bit is masked out (and is `reserved`)."""
    length: int
    """Of the payload, as the frame header says."""
    header: bytes
    """The 9 octets of the frame header."""
    payload: bytes | None
    """None where some of its octets are missing from the capture."""
    section: FieldSection | None
    """Of the frame with END_HEADERS: the whole section, of its HEADERS or PUSH_PROMISE and all CONTINUATION frames."""

    @property
    def type(self) -> str | None:
        """The RFC's name, None for an unregistered type."""
        return TYPE_NAMES.get(self.type_code)

    @property
    def reserved(self) -> bool:
        """The bit before the stream identifier; it "MUST be ignored when receiving" (RFC 9113 §4.1)."""
        return bool(self.header[5] & 0x80)

    @property
    def flag_names(self) -> list[str]:
        """Low bit first; an undefined one as `0x40`."""
        names = FLAGS.get(self.type_code, {})
        return [names.get(bit) or f"0x{bit:02x}" for bit in _BITS if self.flags & bit]

    @property
    def end_stream(self) -> bool:
        return self.type_code <= FrameType.HEADERS and bool(self.flags & END_STREAM)

    @property
    def content(self) -> bytes | None:
        """The payload without pad length, padding, priority and promised stream: DATA's data, a field block fragment.
        None where octets are missing or the padding is impossible (RFC 9113 §6.1)."""
        payload = self.payload
        if payload is None or self.type_code not in _WITH_CONTENT:
            return payload
        start, end = 0, len(payload)
        if self.flags & PADDED and self.type_code != FrameType.CONTINUATION:
            if not payload:
                return None
            start, end = 1, end - payload[0]
        if self.type_code == FrameType.HEADERS and self.flags & PRIORITY_FLAG:
            start += 5
        elif self.type_code == FrameType.PUSH_PROMISE:
            start += 4
        return payload[start:end] if start <= end else None

    @property
    def data_length(self) -> int | None:
        """DATA: octets without padding."""
        if self.type_code != FrameType.DATA:
            return None
        if not self.flags & PADDED:
            return self.length
        content = self.content
        return None if content is None else len(content)

    @property
    def settings(self) -> list[tuple[str | int, int]] | None:
        """SETTINGS: (`SETTINGS_…` or the number of an unregistered one, value) in wire order; [] for an
        acknowledgement; None where the payload is no list of settings."""
        if self.type_code != FrameType.SETTINGS or self.payload is None or len(self.payload) % 6:
            return None
        return [(SETTING_NAMES.get(code, code), value) for code, value in struct.iter_unpack(">HI", self.payload)]

    @property
    def fields(self) -> tuple[FieldLine, ...] | None:
        return None if self.section is None else self.section.fields

    @property
    def increment(self) -> int | None:
        """WINDOW_UPDATE: 1 to 2^31−1 octets (0 breaks the protocol)."""
        return self._number(FrameType.WINDOW_UPDATE, 0, 4)

    @property
    def error_code(self) -> int | None:
        """RST_STREAM, GOAWAY."""
        if self.type_code == FrameType.RST_STREAM:
            return self._number(FrameType.RST_STREAM, 0, 4, 0xFFFFFFFF)
        return self._number(FrameType.GOAWAY, 4, None, 0xFFFFFFFF)

    @property
    def last_stream_id(self) -> int | None:
        """GOAWAY."""
        return self._number(FrameType.GOAWAY, 0, None)

    @property
    def debug_data(self) -> bytes | None:
        """GOAWAY."""
        if self.type_code != FrameType.GOAWAY or self.payload is None or len(self.payload) < 8:
            return None
        return self.payload[8:]

    @property
    def promised_stream_id(self) -> int | None:
        """PUSH_PROMISE."""
        return self._number(FrameType.PUSH_PROMISE, 1 if self.flags & PADDED else 0, None)

    def _number(self, type_code: int, at: int, exactly: int | None, mask: int = 0x7FFFFFFF) -> int | None:
        payload = self.payload
        if self.type_code != type_code or payload is None or len(payload) < at + 4:
            return None
        if exactly is not None and len(payload) != exactly:
            return None
        return int.from_bytes(payload[at : at + 4]) & mask


_BITS = tuple(1 << i for i in range(8))
_WITH_CONTENT = (FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION)
TYPE_NAMES: dict[int, str] = {int(t): t.name for t in FrameType}
SETTING_NAMES: dict[int, str] = {int(s): f"SETTINGS_{s.name}" for s in Setting}


class Problem(NamedTuple):
    """Wire trouble: something lost, impossible or unreadable. Decoding went on."""

    packet: int
    time_ns: int
    connection: Connection | None
    direction: Direction | None
    offset: int | None
    layer: str
    """`capture`, `packet`, `tcp`, `tls`, `http2`, `hpack`, `grpc` or `protobuf`."""
    template: str
    """The reason, in English, with {placeholders}: what a translation is looked up by."""
    values: dict[str, Any]
    """What the placeholders stand for."""
    octets: int | None = None
    """How many are concerned, where that can be said."""
    error_code: ErrorCode | None = None
    """What RFC 9113 has an endpoint answer, where it says so."""

    @property
    def reason(self) -> str:
        """One English sentence, with the clause that was broken where there is one."""
        return self.template.format(**self.values)


class Gap(NamedTuple):
    """Octets of one direction that the capture lacks and that will not be waited for any longer."""

    packet: int
    """The first packet behind the missing octets, or, where nothing is, the one with which the connection or the
    capture ends."""
    time_ns: int
    connection: Connection
    direction: Direction
    offset: int
    """Of the first missing octet."""
    octets: int
    frames_lost: bool
    """Whether whole frames may be missing. False where the gap lies inside one frame whose header was seen: that frame
    comes with `payload` None, and nothing else is lost."""


class ConnectionEnd(NamedTuple):
    """A direction was closed (FIN), or the connection was reset (RST) or given up by the decoder."""

    packet: int
    time_ns: int
    connection: Connection
    direction: Direction
    """Of whoever sent the FIN or RST."""
    how: str
    """`fin` (this direction sends no more), `reset`, `replaced` (its ports serve a new connection) or `idle`."""


Event = FrameEvent | Problem | Gap | ConnectionEnd
"""What the frames stage yields, in the order in which things became complete."""


def json_part(part: Any) -> Any:
    """A field's name or value as the contract writes it: text, `{"unknown": "?-3"}` or `{"base64": "…"}`."""
    if isinstance(part, Unknown):
        return {"unknown": part.label}
    if isinstance(part, bytes):
        return {"base64": base64.b64encode(part).decode("ascii")}
    return part


class MessageEvent(NamedTuple):
    """One gRPC length-prefixed message, complete."""

    packet: int
    """Number of the packet whose arrival completed it."""
    time_ns: int
    connection: Connection
    direction: Direction
    stream_id: int
    path: str | None
    """`/package.Service/Method` of the stream's request; None where the capture cannot tell."""
    compressed: bool
    """The prefix's first octet."""
    length: int
    """As prefixed, in octets on the wire."""
    data: bytes
    """The `length` octets behind the prefix, as on the wire (still compressed if `compressed`)."""
    codec: Any
    """What turns `data` into `message`: an object with `decode(data, compressed) -> object`."""

    @property
    def message(self) -> Any:
        """In protobuf's JSON form with the proto's own field names and 64-bit numbers as strings; `{"1": …}` by
        field number where no description is known; None where it cannot be read (unknown encoding, damaged)."""
        return self.codec.decode(self.data, self.compressed)


class Call(NamedTuple):
    """One gRPC call: a stream from its request headers to its end."""

    connection: Connection
    stream_id: int
    path: str | None
    start_ns: int
    """Time of its request headers (or of the first frame seen)."""
    first_response_ns: int | None
    """Time of the first response message."""
    end_ns: int | None
    status: int | None
    status_message: str | None
    """Percent-decoded."""
    sent_messages: int
    """By the client."""
    received_messages: int
    sent_octets: int
    """Of DATA, prefixes included and padding not, by the client."""
    received_octets: int
    end: str
    """`trailers`, `trailers_only`, `reset`, `goaway`, `cut` (the connection ended) or `open`."""
    is_grpc: bool | None = None
    """By its content type, or by its messages; None where nothing says."""
    http_status: int | None = None
    """`:status` of the response."""
    timeout_ns: int | None = None
    """The deadline that the client set, counted from the start (`grpc-timeout`)."""
    half_closed_ns: int | None = None
    """When the client said that it sends no more (END_STREAM)."""
    error_code: int | None = None
    """Of the RST_STREAM or GOAWAY that ended it."""
    ended_by: Direction | None = None
    """Direction of the frame or FIN that ended it: a client that cancels is CLIENT_TO_SERVER."""
    details: Any = None
    """`grpc-status-details-bin`: google.rpc.Status in protobuf's JSON form."""


class WindowSample(NamedTuple):
    """A flow-control window right after something changed it (RFC 9113 §5.2, §6.9)."""

    time_ns: int
    connection: Connection
    direction: Direction
    """Of the DATA that the window limits."""
    stream_id: int
    """0 is the connection's window."""
    octets: int
    """May be negative (RFC 9113 §6.9.2)."""
    cause: int
    """Index of the frame that changed it, from 0 in the order of `frames`."""
