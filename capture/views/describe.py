"""What a frame says, in words.

A `Describer` is shown every event in order, because what some frames say depends on others: which window an increment
leaves, which ping an acknowledgement answers, which message a DATA frame completes. It keeps little per connection and
describes one frame at a time, as a list of parts, the most telling one first, so that a line cut short loses the least.

Everything that comes from the wire is shown without control characters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from capture.calls import status_message
from capture.events import (
    ACK,
    END_HEADERS,
    FLAGS,
    PRIORITY_FLAG,
    Connection,
    ConnectionEnd,
    Direction,
    ErrorCode,
    Event,
    FrameEvent,
    FrameType,
    MessageEvent,
    Problem,
    Setting,
    Status,
    Unknown,
    WindowSample,
)
from capture.messages import Messages
from capture.pings import PingName, Pings, Purpose
from capture.views.quantities import duration, number, octets
from capture.windows import Windows
from kit.text import visible
from kit.words import N_, _, ngettext

if TYPE_CHECKING:
    from capture.protobuf import Schema

MAX_CLIENTS = 1_000
"""Clients whose names are remembered."""
MAX_TEXT = 2_000
"""Characters of one message or field that are ever put into words."""
MAX_ITEMS = 100
"""Messages, settings, fields or origins of one frame that are put into words; a frame can hold thousands."""
MAX_OCTETS_SHOWN = 16
"""Octets written as hex."""

_OCTETS = {Setting.HEADER_TABLE_SIZE, Setting.INITIAL_WINDOW_SIZE, Setting.MAX_FRAME_SIZE, Setting.MAX_HEADER_LIST_SIZE}

_UNREGISTERED_SETTINGS = {
    0xFE03: N_("gRPC: true-binary metadata allowed"),
    0xFE04: N_("gRPC: preferred size of received messages"),
}
"""What gRPC's core sends beyond the registry (its http2_settings)."""

_PURPOSES = {
    Purpose.BDP_ESTIMATE: N_("BDP estimate: how much fits on the way"),
    Purpose.KEEPALIVE: N_("keepalive: is anybody there"),
    Purpose.GRACEFUL_SHUTDOWN: N_("graceful shutdown: has the GOAWAY arrived"),
}

_ERRORS = {
    ErrorCode.NO_ERROR: N_("no error: all is well"),
    ErrorCode.PROTOCOL_ERROR: N_("the other side broke the protocol"),
    ErrorCode.INTERNAL_ERROR: N_("something failed inside"),
    ErrorCode.FLOW_CONTROL_ERROR: N_("more was sent than the window allowed"),
    ErrorCode.SETTINGS_TIMEOUT: N_("settings were not acknowledged in time"),
    ErrorCode.STREAM_CLOSED: N_("a frame for a stream that is closed"),
    ErrorCode.FRAME_SIZE_ERROR: N_("a frame of impossible size"),
    ErrorCode.REFUSED_STREAM: N_("refused before anything was done"),
    ErrorCode.CANCEL: N_("no longer wanted"),
    ErrorCode.COMPRESSION_ERROR: N_("the field compression state is lost"),
    ErrorCode.CONNECT_ERROR: N_("the tunnel's connection was reset"),
    ErrorCode.ENHANCE_YOUR_CALM: N_("the other side is asking too much"),
    ErrorCode.INADEQUATE_SECURITY: N_("the transport is not secure enough"),
    ErrorCode.HTTP_1_1_REQUIRED: N_("HTTP/1.1 is wanted instead"),
}
"""RFC 9113 §7, in a few words."""

_ENDS = {
    "fin": N_("sends no more (TCP FIN)"),
    "reset": N_("resets the connection (TCP RST)"),
    "replaced": N_("the ports serve a new connection"),
    "idle": N_("silent for so long that the decoder let it go"),
}


class Described(NamedTuple):
    """One event, and what can be said of it."""

    event: Event
    parts: list[str]
    """Of a frame: what it says, the most telling first."""
    messages: list[MessageEvent]
    """That it completes."""
    problems: list[Problem]
    """Of messages and windows, which it brought to light."""


class Describer:
    """`live`: batches come as they may, and each window is told as far as it can be known at once. Otherwise there is
    one batch with all events of a capture or a connection, so that a gap that is told late is already known."""

    def __init__(self, schema: Schema | None = None, *, live: bool) -> None:
        self._messages = Messages(schema)
        self._live = live
        self._windows = Windows(live=live)
        self._pings = Pings()
        self._count = 0
        """Frames described."""
        self._samples: dict[int, list[WindowSample]] = {}
        """Of the batch, by the frame that caused them."""
        self.users: dict[str, str] = {}
        """Who is behind a client's address, as its first message says."""
        self._asked: set[str] = set()

    def feed(self, events: Iterable[Event]) -> Iterator[Described]:
        """All events in order, each once."""
        batch = list(events)
        self._samples = {}
        for sample in self._windows.feed(batch) + ([] if self._live else self._windows.finish()):
            self._samples.setdefault(sample.cause, []).append(sample)
        overruns = {_place(problem): problem for problem in self._windows.problems}
        self._windows.problems.clear()
        self._windows.blocked.clear()
        for event in batch:
            described = self._describe(event)
            overrun = overruns.pop(_place(event), None) if overruns and isinstance(event, FrameEvent) else None
            if overrun is not None:
                described.problems.append(overrun)
            yield described

    def _describe(self, event: Event) -> Described:
        results = self._messages.feed([event])
        messages = [result for result in results if isinstance(result, MessageEvent)]
        problems = [result for result in results if isinstance(result, Problem)]
        pings = self._pings.feed([event])
        if not isinstance(event, FrameEvent):
            return Described(event, [], messages, problems)
        if messages:
            self._learn_user(messages[0])
        parts: Iterable[str]
        if event.payload is None:
            parts = [_("part of its {length} octets is missing from the capture").format(length=number(event.length))]
        elif event.type_code == FrameType.DATA:
            parts = self._data(event, messages)
        elif event.type_code == FrameType.PING:
            parts = _ping(event, pings[0][1])
        elif event.type_code == FrameType.WINDOW_UPDATE:
            parts = _window_update(event, self._samples.get(self._count, ()))
        elif (words := _WORDS.get(event.type_code)) is not None:
            parts = words(event)
        else:
            parts = [_hex(event.payload)] if event.payload else []
        self._count += 1
        return Described(event, [part for part in parts if part], messages, problems)

    def _learn_user(self, message: MessageEvent) -> None:
        client = message.connection.client
        if message.direction == Direction.CLIENT_TO_SERVER and client not in self._asked:
            if len(self._asked) >= MAX_CLIENTS:
                self._asked.clear()
                self.users.clear()
            self._asked.add(client)
            if user := user_of(message):
                self.users[client] = user

    def _data(self, frame: FrameEvent, messages: list[MessageEvent]) -> list[str]:
        data_length = frame.data_length
        if not messages:
            if not data_length:
                return [_("no data; this direction ends") if frame.end_stream else _("no data")]
            return [self._without_message(frame)]
        parts = [_("{n} messages").format(n=number(len(messages)))] if len(messages) > 1 else []
        for message in messages[:MAX_ITEMS]:
            parts += message_in_words(message)
        return parts

    def _without_message(self, frame: FrameEvent) -> str:
        """DATA that completes no message."""
        assembly = self._messages.assembly(frame)
        if assembly is not None and assembly.is_grpc is False:
            return _quote((frame.content or b"").decode("utf-8", "replace"))
        progress = assembly.progress if assembly is not None else None
        if progress is None:
            return _("part of a message")
        words = _("part of a message: {have} of {all} octets so far")
        return words.format(have=number(progress[0]), all=number(progress[1]))


def _place(event: FrameEvent | Problem) -> tuple[int | None, int | None, int | None]:
    return event.connection and event.connection.number, event.direction, event.offset


# --- frame types that speak for themselves


def _settings(frame: FrameEvent) -> Iterator[str]:
    if frame.flags & ACK:
        yield _("acknowledges the other side's settings")
        return
    settings = frame.settings
    if settings is None:
        yield _("no list of settings")
        return
    if not settings:
        yield _("nothing but the initial values")
    for name, value in settings[:MAX_ITEMS]:
        if isinstance(name, int):
            known = _UNREGISTERED_SETTINGS.get(name)
            meaning = _("unregistered") if known is None else _(known)
            yield f"0x{name:04x} ({meaning}) {number(value)}"
        else:
            short = name.removeprefix("SETTINGS_")
            yield f"{short} {octets(value) if Setting[short] in _OCTETS else number(value)}"


def _ping(frame: FrameEvent, name: PingName) -> Iterator[str]:
    said = _("opaque data {octets}").format(octets=_hex(frame.payload or b""))
    if not frame.flags & ACK:
        if name.purpose is not None:
            meaning = _(_PURPOSES[name.purpose])
            yield f"{meaning} ({name.implementation})" if name.implementation else meaning
        yield said
        return
    if name.round_trip_ns is None:
        yield _("answers a ping that was not seen")
    else:
        yield _("answers the ping of {time} ago").format(time=duration(name.round_trip_ns))
    yield said


def _window_update(frame: FrameEvent, samples: Iterable[WindowSample]) -> list[str]:
    if frame.increment is None:
        return [_hex(frame.payload or b"")]
    window = _("stream window") if frame.stream_id else _("connection window")
    after = [sample.octets for sample in samples if sample.stream_id == frame.stream_id]
    left = f" → {number(after[-1])}" if after else ""
    return [f"+ {number(frame.increment)}{left}", window]


def _fields(frame: FrameEvent) -> Iterator[str]:
    if frame.type_code == FrameType.PUSH_PROMISE and frame.promised_stream_id is not None:
        yield _("promises stream {stream}").format(stream=frame.promised_stream_id)
    section = frame.section
    if section is not None:
        yield from section_in_words(section.fields, frame.end_stream)
    elif not frame.flags & END_HEADERS:
        yield _("the field block goes on in CONTINUATION")
    else:
        yield _("a field block that cannot be read")
    if frame.type_code == FrameType.HEADERS and frame.flags & PRIORITY_FLAG:
        payload = frame.payload or b""
        yield from _dependency(payload[1 if "PADDED" in frame.flag_names else 0 :][:5])


def _priority(frame: FrameEvent) -> Iterator[str]:
    return _dependency(frame.payload or b"")


def _dependency(octets5: bytes) -> Iterator[str]:
    """The deprecated priority fields (RFC 7540 §6.3): E, stream dependency, weight − 1."""
    if len(octets5) != 5:
        return
    dependency, weight = struct.unpack(">IB", octets5)
    words = _("depends on stream {stream} alone") if dependency >> 31 else _("depends on stream {stream}")
    yield words.format(stream=dependency & 0x7FFFFFFF)
    yield _("weight {weight}").format(weight=weight + 1)


def _reset(frame: FrameEvent) -> Iterator[str]:
    if frame.error_code is not None:
        yield error_in_words(frame.error_code)


def _goaway(frame: FrameEvent) -> Iterator[str]:
    if frame.error_code is None or frame.last_stream_id is None:
        return
    yield error_in_words(frame.error_code)
    if frame.last_stream_id == 0x7FFFFFFF:
        yield _("last stream 2^31−1: none is refused yet")
    else:
        yield _("last stream {stream}").format(stream=number(frame.last_stream_id))
    if frame.debug_data:
        yield _quote(frame.debug_data.decode("utf-8", "replace"))


def _altsvc(frame: FrameEvent) -> Iterator[str]:
    """RFC 7838 §4: origin length, origin, Alt-Svc field value."""
    payload = frame.payload or b""
    length = int.from_bytes(payload[:2])
    origin, value = payload[2 : 2 + length], payload[2 + length :]
    yield _text(value.decode("utf-8", "replace"))
    if origin:
        yield _("for {origin}").format(origin=_text(origin.decode("utf-8", "replace")))


def _origin(frame: FrameEvent) -> Iterator[str]:
    """RFC 8336 §2.1: each origin after its length."""
    payload = frame.payload or b""
    at = 0
    for _item in range(MAX_ITEMS):
        if at + 2 > len(payload):
            return
        end = at + 2 + int.from_bytes(payload[at : at + 2])
        yield _text(payload[at + 2 : end].decode("utf-8", "replace"))
        at = end


def _priority_update(frame: FrameEvent) -> Iterator[str]:
    """RFC 9218 §7.1: prioritized stream, priority field value."""
    payload = frame.payload or b""
    if len(payload) >= 4:
        stream = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        yield _("stream {stream}").format(stream=stream) + ": " + _text(payload[4:].decode("utf-8", "replace"))


_WORDS: dict[int, Callable[[FrameEvent], Iterator[str]]] = {
    FrameType.HEADERS: _fields,
    FrameType.CONTINUATION: _fields,
    FrameType.PUSH_PROMISE: _fields,
    FrameType.PRIORITY: _priority,
    FrameType.RST_STREAM: _reset,
    FrameType.SETTINGS: _settings,
    FrameType.GOAWAY: _goaway,
    FrameType.ALTSVC: _altsvc,
    FrameType.ORIGIN: _origin,
    FrameType.PRIORITY_UPDATE: _priority_update,
}


# --- pieces, of use wherever frames are put into words


def section_in_words(fields: Iterable[tuple[Any, Any]], end_stream: bool) -> Iterator[str]:
    """Request line, response status or trailers first, then the other fields in wire order."""
    known: dict[str, Any] = {}
    others: list[tuple[Any, Any]] = []
    for name, value in fields:
        if name in _LEADING and name not in known:
            known[name] = value
        else:
            others.append((name, value))
    if ":method" in known or ":path" in known:
        yield f"{part(known.get(':method', '?'))} {part(known.get(':path', '?'))}"
        others += [(name, known[name]) for name in (":authority", ":scheme") if name in known]
    else:
        others += [(name, known[name]) for name in (":path", ":authority", ":scheme") if name in known]
    status = known.get("grpc-status")
    if ":status" in known:
        content = known.pop("content-type", None)
        yield part(known[":status"]) if content is None else f"{part(known[':status'])} {part(content)}"
    if status is not None:
        words = _("trailers-only: {status}") if ":status" in known and end_stream else _("trailers: {status}")
        yield words.format(status=f"grpc-status {status_in_words(status)}")
        if "grpc-message" in known:
            message = status_message(known["grpc-message"])
            if message != "":
                yield part(known["grpc-message"]) if message is None else _quote(message)
    elif not {":status", ":method", ":path"} & known.keys() and end_stream:
        yield _("trailers")
    if "content-type" in known:
        yield f"content-type {part(known['content-type'])}"
    for name, value in others[:MAX_ITEMS]:
        yield f"{part(name)} {part(value)}"


_LEADING = {":method", ":path", ":scheme", ":authority", ":status", "content-type", "grpc-status", "grpc-message"}


def part(value: Any) -> str:
    """A field's name or value: text, hex where it is no UTF-8, the label of what is unknown."""
    if isinstance(value, Unknown):
        return value.label
    return _hex(value) if isinstance(value, bytes) else _text(value)


def status_in_words(status: Any) -> str:
    """`5 (NOT_FOUND)`, from a number or the text of a `grpc-status` field."""
    text = part(status) if not isinstance(status, int) else str(status)
    try:
        return f"{text} ({Status(int(text)).name})"
    except ValueError:
        return text


def error_in_words(code: int) -> str:
    """`CANCEL (8): no longer wanted`."""
    try:
        error = ErrorCode(code)
    except ValueError:
        return _("unregistered error 0x{code:x}").format(code=code)
    return f"{error.name} ({code}): {_(_ERRORS[error])}"


def message_in_words(message: MessageEvent) -> tuple[str, str]:
    """`message 15 octets`, `JoinRequest {user: "Juan", room: "general"}`."""
    length = ngettext("message {n} octet", "message {n} octets", message.length).format(n=number(message.length))
    if message.compressed:
        length = _("compressed {message}").format(message=length)
    return length, content_in_words(message)


def content_in_words(message: MessageEvent) -> str:
    """`JoinRequest {user: "Juan", room: "general"}`; without a description `{1: "Juan", 2: "general"}`."""
    content = message.message
    if content is None:
        return _("cannot be read")
    name = getattr(message.codec, "type_name", None) or ""
    return f"{name.rpartition('.')[2]} {json_in_words(content)}".lstrip()


def json_in_words(content: Any, limit: int = MAX_TEXT) -> str:
    """JSON as one reads it: names without quotes, and not beyond about `limit` characters."""
    text: list[str] = []
    room = limit
    for piece in _pieces(content):
        room -= len(piece)
        if room < 0:
            text.append("…")
            break
        text.append(piece)
    return "".join(text)


def _pieces(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        border = "{"
        for name, value in content.items():
            yield border + _text(str(name)) + ": "
            yield from _pieces(value)
            border = ", "
        yield "{}" if border == "{" else "}"
    elif isinstance(content, list):
        border = "["
        for value in content:
            yield border
            yield from _pieces(value)
            border = ", "
        yield "[]" if border == "[" else "]"
    elif isinstance(content, str):
        yield _quote(content)
    else:
        yield {True: "true", False: "false", None: "null"}.get(content) or str(content)


def end_in_words(end: ConnectionEnd) -> str:
    who = _("client") if end.direction == Direction.CLIENT_TO_SERVER else _("server")
    return f"{who}: {_(_ENDS.get(end.how, end.how))}" if end.how in ("fin", "reset") else _(_ENDS.get(end.how, end.how))


def problem_in_words(problem: Problem) -> str:
    """The reason in the language in force."""
    values = {name: _text(value) if isinstance(value, str) else value for name, value in problem.values.items()}
    return _text(_(problem.template).format(**values))


def flags_in_words(frame: FrameEvent) -> list[str]:
    """What is worth a word: the end of a stream, acknowledgements, blocks that go on, and what nobody expects."""
    flags = frame.flags
    words = []
    for bit, name in FLAGS.get(frame.type_code, {}).items():
        if bit == END_HEADERS:
            if not flags & bit:
                words.append(_("goes on"))
        elif flags & bit:
            words.append(_(_FLAG_WORDS[name]))
    return words + [name for name in frame.flag_names if name.startswith("0x")]


_FLAG_WORDS = {"END_STREAM": N_("end"), "ACK": "ack", "PADDED": N_("padded"), "PRIORITY": N_("priority")}


def type_in_words(frame: FrameEvent) -> str:
    return frame.type or _("type 0x{code:02x}").format(code=frame.type_code)


def user_of(message: MessageEvent) -> str | None:
    """Who speaks, where the client's message says so in a field named `user`, as the chat's do."""
    if message.direction != Direction.CLIENT_TO_SERVER:
        return None
    content = message.message
    user = content.get("user") if isinstance(content, dict) else None
    return _text(user) if isinstance(user, str) and user else None


def peer(connection: Connection, names: Mapping[str, str]) -> str:
    """The client's address, with a name before it where one is known."""
    name = names.get(connection.client)
    return f"{name} {connection.client}" if name else connection.client


def _text(text: str) -> str:
    return visible(text[:MAX_TEXT] + "…" if len(text) > MAX_TEXT else text)


def _quote(text: str) -> str:
    return f'"{_text(text)}"'


def _hex(data: bytes) -> str:
    return data[:MAX_OCTETS_SHOWN].hex(" ") + (" …" if len(data) > MAX_OCTETS_SHOWN else "")
