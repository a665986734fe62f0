"""Wireshark's view of a capture as our own records: a second opinion, and the way into TLS when there are keys.

How it works. tshark dissects the file and writes what it found as PDML, an XML element for each field with its octets
and where they stood. `Dissection` is one packet of it, read by expat element by element as it comes (`dissect`), or by
pyshark (`dissect_with_pyshark`), which is what most people would reach for, and slower (some 250 packets a second). An
HTTP/2 frame is a layer; its payload is put together from the octets of its fields, wherever all of them are there.

`Frames` makes events of dissections, in our own form; `descriptions` has what Wireshark itself says of each frame, for
`capture.compare`.

What Wireshark cannot know of a file, our own reader tells it beforehand (`Reading`): on which ports HTTP/2 or TLS was
found, whether segments are missing, who is client and who is server. Its gRPC dissector is off: in the middle of a
conversation that of 4.0 fails, and takes the rest of the packet's frames with it.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from capture.compare import HEADER, Frame, Reading, Row, sender_of
from capture.events import (
    CONNECTION_PREFACE,
    END_HEADERS,
    FRAME_HEADER_LENGTH,
    Connection,
    ConnectionEnd,
    Direction,
    Event,
    FieldLine,
    FieldSection,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
    Unknown,
)
from capture.packets import FIN, RST
from kit.programs import TSHARK
from kit.words import N_, _

CHUNK = 1 << 18
"""Octets read of tshark's output at a time: some dozen packets."""
BATCH = 500
"""Packets whose events are handed on together."""
MAX_PENDING = 1_000
"""Field blocks of which the beginning was seen and the end not, over all streams; a sender has one at a time
(RFC 9113 §4.3), so that more of them are of connections that have ended."""
UNSEEN = "<unknown>"
"""What Wireshark calls a table entry from before the capture."""
_PROTOS = Path(__file__).resolve().parents[2] / "proto"


class TsharkError(Exception):
    """tshark is missing, or failed. The message is one sentence for people, in their language."""


class Part(NamedTuple):
    """A field of PDML."""

    show: str
    value: str
    """In hexadecimal, all octets that the field has a part in; "" where it stands for none."""
    at: int
    """Where they begin, in the packet or in what was reassembled."""
    size: int

    @property
    def octets(self) -> bytes:
        return bytes.fromhex(self.value)


Layer = dict[str, list[Part]]
"""A layer's fields by their names."""


class Dissection(NamedTuple):
    """A packet, as far as we ask."""

    number: int
    time_ns: int
    layers: list[tuple[str, Layer]]
    """(protocol, its fields), outermost first."""


# -- asking tshark -----------------------------------------------------------------------------------------------------


def program() -> str:
    """tshark's path. Raises TsharkError where it is not installed."""
    path = TSHARK.find()
    if path is None:
        command = TSHARK.command()
        if command is None:
            raise TsharkError(_("tshark, Wireshark's program for terminals, is not installed here"))
        words = _("tshark, Wireshark's program for terminals, is not installed: {command}")
        raise TsharkError(words.format(command=command))
    return path


def name(through_pyshark: bool = False) -> str:
    """Who gives this opinion, with versions."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    said = f"Wireshark {found[0]}" if found else "Wireshark"
    return f"{said} (pyshark {version('pyshark')})" if through_pyshark else said


def decode_as(reading: Reading, ports: Collection[int]) -> dict[str, str]:
    """What Wireshark has to be told: which ports speak HTTP/2, plain, behind an upgrade from HTTP/1.1, or in TLS.

    `ports`: those that the user named.
    """
    rules: dict[str, str] = {}
    encrypted = {_port(reading.connections[number].server) for number in reading.encrypted}
    for port in {_port(reading.connections[number].server) for number in reading.direct} | set(ports):
        numbers = [number for number in reading.direct if _port(reading.connections[number].server) == port]
        is_upgraded = bool(numbers) and not any(reading.direct[number] for number in numbers)
        if port not in encrypted:
            rules[f"tcp.port=={port}"] = "http" if is_upgraded else "http2"
    for port in encrypted:
        rules[f"tcp.port=={port}"] = "tls"
        if port in ports:
            rules[f"tls.port=={port}"] = "http2"
    return rules


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def preferences(reading: Reading, key_log: str | os.PathLike[str] | None) -> dict[str, str]:
    """Segments that overtook each other are put in order, unless some are missing: then Wireshark would wait for them
    for ever."""
    chosen = {
        "tcp.reassemble_out_of_order": "FALSE" if reading.has_gaps else "TRUE",
        "uat:protobuf_search_paths": f'"{_PROTOS.as_posix()}","TRUE"',
    }
    if key_log is not None:
        chosen["tls.keylog_file"] = os.fspath(key_log)
    return chosen


_LOST = "tcp.analysis.lost_segment"
_FILTER = f"http2 || tcp.flags.fin == 1 || tcp.flags.reset == 1 || {_LOST}"
_LAYERS = ["-J", "http2 tcp ip ipv6"]
"""The protocols whose fields are written; of others only that they are there."""


def dissect(
    path: str | os.PathLike[str],
    reading: Reading,
    ports: Collection[int] = (),
    key_log: str | os.PathLike[str] | None = None,
    problems: list[Problem] | None = None,
) -> Iterator[Dissection]:
    """The packets with frames, behind a missing segment, or with the end of a connection, as tshark dissects them.

    What tshark complains of at the end of a file of which it has read something is added to `problems`.

    Raises: TsharkError.
    """
    command = [program(), "-n", "-r", os.fspath(path), "-Y", _FILTER, "-T", "pdml", *_LAYERS]
    command += ["--disable-protocol", "grpc"]
    for name, value in preferences(reading, key_log).items():
        command += ["-o", f"{name}:{value}"]
    for criterion, protocol in decode_as(reading, ports).items():
        command += ["-d", f"{criterion},{protocol}"]
    parser = _Pdml()
    last: Dissection | None = None
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        try:
            while chunk := process.stdout.read(CHUNK):
                for last in parser.feed(chunk):
                    yield last
            status = process.wait()
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
        complaints.seek(0)
        sentence = _sentence(complaints.read().decode("utf-8", "replace"))
    if status:
        if last is None or problems is None:
            raise TsharkError(sentence)
        where = (last.number, last.time_ns, None, None, None, "capture")
        problems.append(Problem(*where, N_("Wireshark says: {sentence}"), {"sentence": sentence}))


def _sentence(said: str) -> str:
    """The last thing that tshark said, without its name."""
    lines = [line.removeprefix("tshark: ").strip() for line in said.splitlines()]
    kept = [line for line in lines if line and not line.startswith("Running as user")]
    return kept[-1] if kept else _("tshark failed, and does not say why")


class _Pdml:
    """PDML, as it comes, to dissections. Only the packet at hand is kept."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._ready: list[Dissection] = []
        self._layers: list[tuple[str, Layer]] = []
        self._rest = b""
        """The beginning of an element."""

    def feed(self, chunk: bytes) -> list[Dissection]:
        self._ready = []
        octets = self._rest + chunk
        end = octets.rfind(b">\n") + 1  # between two elements
        octets, self._rest = octets[:end], octets[end:]
        try:
            # Texts of fields come from the wire, with characters that XML does not allow.
            text = self._decoder.decode(_UNWANTED.sub(b"", octets).translate(None, _NOT_XML))
            self._parser.Parse(text.replace("\ufffe", "").replace("\uffff", ""))
        except expat.ExpatError as error:
            raise TsharkError(_("tshark's output cannot be read: {reason}").format(reason=error)) from None
        return self._ready

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "field":
            if self._layers:
                get = attributes.get
                value = get("unmaskedvalue") or get("value", "")
                part = Part(get("show", ""), value, int(get("pos", 0)), int(get("size", 0)))
                self._layers[-1][1].setdefault(get("name", ""), []).append(part)
        elif element == "proto":
            self._layers.append((attributes.get("name", ""), {}))
        elif element == "packet":
            self._layers = []

    def _end(self, element: str) -> None:
        if element == "packet" and self._layers:
            general = self._layers[0][1]
            number, time_ns = int(general["num"][0].show), _nanoseconds(general["timestamp"][0].value)
            self._ready.append(Dissection(number, time_ns, self._layers[1:]))
            self._layers = []


_WANTED = (
    rb"num|timestamp|ip\.(?:src|dst)|ipv6\.(?:src|dst)|tcp\.(?:stream|srcport|dstport|seq|len|hdr_len|flags|analysis\.lost_segment)|"
    rb"http2\.headers(?:\.weight|\.padding)?|http2\.header\.(?:name|value)|"
    rb"http2\.(?!header|flags\.|r\"|request|response|body)[^\"]*"
)
_UNWANTED = re.compile(rb'<field name="(?!(?:' + _WANTED + rb')")[^>]*/>\n?')
"""Nine of ten fields are of no use here. They are taken out before expat turns each into a call of Python."""
_NOT_XML = bytes(code for code in range(32) if code not in (9, 10, 13))


def _nanoseconds(seconds: str) -> int:
    """`1576574783.752065000`, before 1970 with a minus."""
    whole, _point, fraction = seconds.partition(".")
    nanoseconds = int(whole) * 1_000_000_000
    part = int(fraction.ljust(9, "0")[:9])
    return nanoseconds - part if whole.startswith("-") else nanoseconds + part


# -- through pyshark ---------------------------------------------------------------------------------------------------


def dissect_with_pyshark(
    path: str | os.PathLike[str],
    reading: Reading,
    ports: Collection[int] = (),
    key_log: str | os.PathLike[str] | None = None,
) -> list[Dissection]:
    """The packets with frames, through pyshark. It works wherever it is called, inside a running event loop (Jupyter)
    too: pyshark's capture is made, read and closed in a thread of its own, with a loop of its own.

    Raises: TsharkError.
    """
    found: list[Dissection] = []
    failures: list[Exception] = []
    tshark = program()

    def work() -> None:
        import pyshark

        loop = asyncio.new_event_loop()
        try:
            packets = pyshark.FileCapture(
                os.fspath(path),
                keep_packets=False,
                display_filter="http2",
                decode_as=decode_as(reading, ports),
                override_prefs=preferences(reading, key_log),
                disable_protocol="grpc",
                custom_parameters=_LAYERS,
                tshark_path=tshark,
                eventloop=loop,
            )
            try:
                found.extend(map(_dissection_of, packets))
                packets.close()
            finally:
                # Where tshark ended with a complaint, pyshark would complain again when the capture is collected.
                packets._running_processes.clear()
        except Exception as error:  # whatever it is, the thread that waits tells it
            failures.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=work, name="pyshark", daemon=True)
    thread.start()
    thread.join()
    if failures and not found:  # of a file that is cut short, there is what comes before
        said = re.search(r"Last error line: (.+)", str(failures[0]))
        reason = said[1].removeprefix("tshark: ") if said else f"{type(failures[0]).__name__}: {failures[0]}"
        raise TsharkError(_("pyshark failed: {reason}").format(reason=reason.splitlines()[0]))
    return found


def _dissection_of(packet: Any) -> Dissection:
    """pyshark's packet. Where a name stands for several layers, `packet.http2` would be the first of them only."""
    names = list(dict.fromkeys(layer.layer_name for layer in packet.layers))
    of_name = {name: iter(packet.get_multiple_layers(name)) for name in names}
    layers = [next(of_name[layer.layer_name]) for layer in packet.layers]
    described = [(layer.layer_name, _layer_of(layer)) for layer in layers]
    return Dissection(int(packet.number), _nanoseconds(packet.sniff_timestamp), described)


def _layer_of(layer: Any) -> Layer:
    fields: Layer = {}
    for name in layer.field_names:
        for field in layer.get_field(name).all_fields:
            value = field.unmaskedvalue or field.raw_value or ""
            part = Part(field.show or "", value, int(field.pos or 0), int(field.size or 0))
            fields.setdefault(field.name, []).append(part)
    return fields


# -- frames ------------------------------------------------------------------------------------------------------------


class _Segment(NamedTuple):
    """What a dissection says of TCP."""

    stream: int
    source: str
    destination: str
    offset: int | None
    """Of its first octet, counted from the first one that was seen of its direction; None without octets."""
    at: int
    """Where in the packet that is."""
    ends: str | None
    """`fin`, `reset`."""
    is_behind_loss: bool


def _segment(dissection: Dissection) -> _Segment | None:
    """Of the innermost TCP and IP layer."""
    addresses: tuple[str, str] | None = None
    tcp: Layer | None = None
    for protocol, layer in dissection.layers:
        if protocol in ("ip", "ipv6") and f"{protocol}.src" in layer:
            addresses = (_address(layer[f"{protocol}.src"][0]), _address(layer[f"{protocol}.dst"][0]))
        elif protocol == "tcp" and "tcp.stream" in layer:
            tcp = layer
    if tcp is None or addresses is None:
        return None
    ports = [int(tcp[name][0].show) for name in ("tcp.srcport", "tcp.dstport")]
    flags = int(tcp["tcp.flags"][0].show, 0) if "tcp.flags" in tcp else 0
    has_octets = int(tcp["tcp.len"][0].show) > 0 if "tcp.len" in tcp else False
    return _Segment(
        int(tcp["tcp.stream"][0].show),
        f"{addresses[0]}:{ports[0]}",
        f"{addresses[1]}:{ports[1]}",
        int(tcp["tcp.seq"][0].show) - 1 if has_octets and "tcp.seq" in tcp else None,
        tcp["tcp.srcport"][0].at + int(tcp["tcp.hdr_len"][0].show),
        "reset" if flags & RST else "fin" if flags & FIN else None,
        _LOST in tcp,
    )


def _address(part: Part) -> str:
    address = ip_address(part.octets)
    return f"[{address}]" if address.version == 6 else str(address)


class _Block(NamedTuple):
    """A field block whose end is still to come."""

    fields: list[FieldLine]
    fragments: list[bytes | None]


class _Blocks:
    """Field sections over CONTINUATION frames: Wireshark shows each field with the frame in which it is complete, and
    we show all of them with the last."""

    def __init__(self) -> None:
        self._pending: dict[tuple[int, str, int], _Block] = {}

    def section(self, key: tuple[int, str, int], frame: FrameEvent, layer: Layer) -> FieldSection | None:
        """`key`: connection, sender, stream."""
        if frame.type_code not in (FrameType.HEADERS, FrameType.PUSH_PROMISE, FrameType.CONTINUATION):
            return None
        block = self._pending.pop(key, None) if frame.type_code == FrameType.CONTINUATION else None
        block = block or _Block([], [])
        block.fields.extend(_fields(layer))
        block.fragments.append(frame.content)
        if not frame.flags & END_HEADERS:
            while len(self._pending) >= MAX_PENDING:
                del self._pending[next(iter(self._pending))]
            self._pending[key] = block
            return None
        octets = b"".join(fragment or b"" for fragment in block.fragments)
        is_certain = not any(isinstance(name, Unknown) for name, _value in block.fields)
        return FieldSection(tuple(block.fields), octets, is_certain)


def _fields(layer: Layer) -> Iterator[FieldLine]:
    names, values = layer.get("http2.header.name", []), layer.get("http2.header.value", [])
    for name, value in zip(names, values, strict=False):
        if name.show != UNSEEN:
            yield _text(name), _text(value)
        else:
            yield Unknown("?"), _text(value) or Unknown("?")


def _text(part: Part) -> Any:
    octets = part.octets
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets


def _octets(layer: Layer) -> tuple[bytes, bytes | None] | None:
    """A frame's header and payload, put together from the octets of its fields; None for what is no whole frame header
    (the connection preface, or what is left of a frame in a packet cut short), and for a payload that is not all
    there."""
    if "http2.type" not in layer or "http2.streamid" not in layer or "http2.flags" not in layer:
        return None
    whole = layer["http2.stream"][0]
    length = int(layer["http2.length"][0].show)
    is_whole = whole.size >= FRAME_HEADER_LENGTH + length
    room = FRAME_HEADER_LENGTH + (length if is_whole else 0)
    octets, seen = bytearray(room), bytearray(room)
    for name, parts in layer.items():
        if name.startswith(_ELSEWHERE) and name not in _HERE:
            continue
        first = 0 if name in _HEADER else FRAME_HEADER_LENGTH
        for part in parts:
            start, end = part.at - whole.at, part.at - whole.at + part.size
            if first <= start < end <= len(octets) and len(part.value) == 2 * part.size:
                octets[start:end] = part.octets
                seen[start:end] = b"\1" * part.size
    if 0 in seen[:FRAME_HEADER_LENGTH]:
        return None
    if not is_whole or 0 in seen:
        return bytes(octets[:FRAME_HEADER_LENGTH]), None
    return bytes(octets[:FRAME_HEADER_LENGTH]), bytes(octets[FRAME_HEADER_LENGTH:])


_HEADER = {"http2.length", "http2.type", "http2.flags", "http2.streamid"}
_ELSEWHERE = ("http2.header.", "http2.headers.", "http2.body", "http2.request", "http2.response")
"""Fields whose octets stand in something that was decompressed or reassembled, not in the frame."""
_HERE = {"http2.headers.weight", "http2.headers.padding"}


class Frames:
    """Dissections to the events of our own pipeline.

    `reading` says who is client and who is server.
    """

    def __init__(self, reading: Reading) -> None:
        self._roles = reading.connections
        self._encrypted = reading.encrypted
        self._has_gaps = reading.has_gaps
        self._connections: dict[int, Connection] = {}
        """Those with frames."""
        self._next: dict[tuple[int, str], int] = {}
        """Offset of the next frame, by connection and sender."""
        self._ended: set[tuple[int, str]] = set()
        self._blocks = _Blocks()

    def feed(self, dissections: Iterable[Dissection]) -> list[Event]:
        events: list[Event] = []
        for dissection in dissections:
            segment = _segment(dissection)
            if segment is None:
                continue
            layers = [layer for protocol, layer in dissection.layers if protocol == "http2" and "http2.stream" in layer]
            if segment.stream in self._encrypted:  # its offsets are of what was decrypted
                segment = segment._replace(offset=None)
            if self._has_gaps and segment.is_behind_loss and segment.offset is not None:
                self._resume(dissection, segment, segment.offset, events)
            if layers:
                self._anchor(dissection, segment, layers[0], events)
            for layer in layers:
                frame = self._frame(dissection, segment, layer)
                if frame is not None:
                    events.append(frame)
            if segment.ends and segment.stream in self._connections:
                self._end(dissection, segment, events)
        return events

    def finish(self) -> list[Event]:
        """The capture is over: what stayed closed."""
        said = N_("TLS that Wireshark could not decrypt to HTTP/2: no key for it, or something else in it")
        locked = [problem for number, problem in self._encrypted.items() if number not in self._connections]
        return [problem._replace(template=said, values={}) for problem in locked]

    def _anchor(self, dissection: Dissection, segment: _Segment, first: Layer, events: list[Event]) -> None:
        """Where the first frame of a packet stands in its direction. In the packet itself that can be read; where it
        was reassembled or decrypted, frames follow each other."""
        key, at = (segment.stream, segment.source), first["http2.stream"][0].at
        if segment.offset is None or at < segment.at:
            self._next.setdefault(key, 0)
            return
        self._resume(dissection, segment, segment.offset + at - segment.at, events)

    def _resume(self, dissection: Dissection, segment: _Segment, offset: int, events: list[Event]) -> None:
        """The next frame begins at `offset`; what lies before it and was in none is a gap."""
        key = (segment.stream, segment.source)
        expected = self._next.get(key)
        if expected is not None and offset > expected:
            where = (dissection.number, dissection.time_ns, *self._role(segment))
            events.append(Gap(*where, expected, offset - expected, True))
        self._next[key] = offset

    def _role(self, segment: _Segment) -> tuple[Connection, Direction]:
        connection = self._connections.get(segment.stream)
        if connection is None:
            ends = (segment.source, segment.destination)
            known = self._roles.get(segment.stream)
            if known is None or {known.client, known.server} != set(ends):  # by port, as our own reader guesses
                client, server = ends if _port(ends[0]) > _port(ends[1]) else ends[::-1]
                known = Connection(segment.stream, client, server)
            connection = self._connections[segment.stream] = known
        is_client = segment.source == connection.client
        return connection, Direction.CLIENT_TO_SERVER if is_client else Direction.SERVER_TO_CLIENT

    def _frame(self, dissection: Dissection, segment: _Segment, layer: Layer) -> FrameEvent | None:
        key = (segment.stream, segment.source)
        connection, direction = self._role(segment)
        offset = self._next[key]
        if "http2.magic" in layer:
            self._next[key] = offset + len(CONNECTION_PREFACE)
            return None
        octets = _octets(layer)
        if octets is None:
            return None
        header, payload = octets
        length, stream_id = int(layer["http2.length"][0].show), int(layer["http2.streamid"][0].show)
        self._next[key] = offset + FRAME_HEADER_LENGTH + length
        type_code, flags = int(layer["http2.type"][0].show), int(layer["http2.flags"][0].show, 0)
        frame = FrameEvent(
            dissection.number, dissection.time_ns, connection, direction, offset,
            type_code, flags, stream_id, length, header, payload, None,
        )  # fmt: skip
        section = self._blocks.section((*key, stream_id), frame, layer)
        return frame if section is None else frame._replace(section=section)

    def _end(self, dissection: Dissection, segment: _Segment, events: list[Event]) -> None:
        """Once for each direction."""
        if segment.ends is None or (segment.stream, segment.source) in self._ended:
            return
        self._ended.add((segment.stream, segment.source))
        events.append(ConnectionEnd(dissection.number, dissection.time_ns, *self._role(segment), segment.ends))


def events(
    path: str | os.PathLike[str],
    reading: Reading,
    ports: Collection[int] = (),
    key_log: str | os.PathLike[str] | None = None,
    problems: list[Problem] | None = None,
) -> Iterator[list[Event]]:
    """Wireshark's frames as our own events, in batches. Raises: TsharkError."""
    frames = Frames(reading)
    batch: list[Dissection] = []
    for dissection in dissect(path, reading, ports, key_log, problems):
        batch.append(dissection)
        if len(batch) >= BATCH:
            yield frames.feed(batch)
            batch = []
    yield frames.feed(batch) + frames.finish()


# -- descriptions ------------------------------------------------------------------------------------------------------


def descriptions(dissections: Iterable[Dissection], reading: Reading) -> Iterator[Frame]:
    """What Wireshark itself says of each frame, read by its own fields wherever it has some."""
    frames = Frames(reading)
    for dissection in dissections:
        found = [event for event in frames.feed([dissection]) if type(event) is FrameEvent]
        layers = [layer for protocol, layer in dissection.layers if protocol == "http2" and _octets(layer) is not None]
        for event, layer in zip(found, layers, strict=True):
            yield _description(event, layer)


def _description(event: FrameEvent, layer: Layer) -> Frame:
    content: dict[str, Any] = {}
    for column, field in _NUMBERS.get(event.type_code, ()):
        if field in layer:
            content[column] = int(layer[field][0].show, 0)
    for column, field in _OCTETS.get(event.type_code, ()):
        if field in layer:
            content[column] = layer[field][0].octets
    if event.type_code == FrameType.DATA:
        # With a stream's last frame Wireshark shows the whole body, too, under the same name.
        whole, parts = layer["http2.stream"][0], layer.get("http2.data.data", [])
        start, end = whole.at + FRAME_HEADER_LENGTH, whole.at + whole.size
        content["data_length"] = sum(part.size for part in parts if start <= part.at <= part.at + part.size <= end)
    if event.type_code == FrameType.SETTINGS:
        names = [name for name in layer if name.startswith("http2.settings.")]
        values = {part.at: part for name in names for part in layer[name]}
        codes = layer.get("http2.settings.id", [])
        whole_ones = [(code, values[code.at + 2]) for code in codes if code.at + 2 in values]
        content["settings"] = [(int(code.show), int(value.value, 16)) for code, value in whole_ones]
    if event.section is not None:
        content["fields"] = event.section.fields
    if event.payload is not None:
        content["payload"] = zlib.crc32(event.payload)
    where = (event.packet, event.connection.number, sender_of(event))
    return Frame(*where, event.type_code, event.stream_id, event.length, event.flags, content)


_NUMBERS: dict[int, tuple[tuple[str, str], ...]] = {
    FrameType.WINDOW_UPDATE: (("increment", "http2.window_update.window_size_increment"),),
    FrameType.RST_STREAM: (("error_code", "http2.rst_stream.error"),),
    FrameType.GOAWAY: (("error_code", "http2.goaway.error"), ("last_stream_id", "http2.goaway.last_stream_id")),
    FrameType.PUSH_PROMISE: (("promised_stream_id", "http2.push_promise.promised_stream_id"),),
}
_OCTETS: dict[int, tuple[tuple[str, str], ...]] = {
    FrameType.PING: (("opaque_data", "http2.ping"), ("opaque_data", "http2.pong")),
    FrameType.GOAWAY: (("debug_data", "http2.goaway.addata"),),
}
"""By frame type: our column, Wireshark's field."""


def traits(row: Row, reading: Reading) -> str | None:
    """What is known of Wireshark 4.0 that explains a row."""
    frame = row.frame
    number = frame.connection
    is_behind_gap = reading.gaps.get(number, frame.packet + 1) <= frame.packet
    columns = {difference.column for difference in row.differences}
    if row.verdict == "differing":
        if columns == {"packet"}:
            return N_("Wireshark shows a frame in the packet in which its own reassembly completed it.")
        if columns <= {"packet", "fields"} and (number, frame.sender) in reading.uncertain:
            if row.theirs is not None and not row.theirs.content.get("fields"):
                return N_("Wireshark gives up a connection's field blocks after a reference beyond 99 unseen entries.")
            if is_behind_gap:
                return N_("Wireshark goes on with its table as if no field block were missing: names may be shifted.")
            return N_("Wireshark fills a table that it has not seen with 99 entries, and may shift names by them.")
    elif number in reading.encrypted:
        return N_("Wireshark has decrypted this connection; our own reader sees that it is TLS.")
    if is_behind_gap:
        return N_("Where octets are missing, Wireshark loses the frame boundary and may take content for frames.")
    if number in reading.late and (row.verdict != "differing" or columns & HEADER):
        return N_("Wireshark takes the first octet that it sees for a frame's: a start inside a frame decodes nothing.")
    return None
