"""Lab 01: three channels of one process, and what both sides say before the first call.

`shared` opens them as anybody would; `separate` gives each a pool of its own, which is the only difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from capture.events import ACK, CONNECTION_PREFACE, FRAME_HEADER_LENGTH, Direction, Event, FrameEvent, FrameType
from capture.packets import ACK as TCP_ACK
from capture.packets import SYN, PacketDecoder
from capture.sources.files import open_capture
from capture.views.quantities import number
from capture.views.table import FrameTable
from kit.text import pad, visible, width
from kit.words import _, ngettext
from lab.attempt import Check, Run
from lab.bench import NO_PROXY, OWN_CONNECTION, PATIENCE_SECONDS, ROOM, Bench
from lab.runner import Screen
from proto.chat_pb2 import JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub

USERS = ("Ana", "Juan", "María")
HEXDUMP_OCTETS = 16


def _three_channels(path: Path, options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    with Bench(write=path) as bench, ExitStack() as open_channels:
        channels = [
            open_channels.enter_context(grpc.insecure_channel(bench.address, options=[*NO_PROXY, *options]))
            for _user in USERS
        ]
        for channel, user in zip(channels, USERS, strict=True):
            ChatServiceStub(channel).Join(JoinRequest(user=user, room=ROOM), timeout=PATIENCE_SECONDS)
        connections = bench.tap.connections
        bench.wait_until(lambda events: len(_acknowledgements(events)) == 2 * len(connections))
    return {
        "channels": len(channels),
        "connections": len(connections),
        "calls": len(bench.seen.calls),
        "frames": len(bench.seen.frames),
        "sent": sum(connection.sent for connection in connections),
        "received": sum(connection.received for connection in connections),
        "settings": sum(_is_settings(frame) for frame in bench.seen.frames),
        "acknowledgements": len(_acknowledgements(bench.seen.frames)),
        "prefaces": sum(first.startswith(CONNECTION_PREFACE) for first in first_octets(path)),
        "first": visible(first_octets(path)[0][: len(CONNECTION_PREFACE)].decode("latin-1")),
        "port": bench.tap.port,
    }


def _is_settings(frame: Event) -> bool:
    return isinstance(frame, FrameEvent) and frame.type_code == FrameType.SETTINGS and not frame.flags & ACK


def _acknowledgements(events: Sequence[Event]) -> set[tuple[int, Direction]]:
    """Connection and direction of each SETTINGS frame that acknowledges."""
    return {
        (event.connection.number, event.direction)
        for event in events
        if isinstance(event, FrameEvent) and event.type_code == FrameType.SETTINGS and event.flags & ACK
    }


def first_octets(path: Path, count: int = len(CONNECTION_PREFACE) + FRAME_HEADER_LENGTH) -> list[bytes]:
    """The first octets that each client sent, by connection, from the capture's packets."""
    decoder = PacketDecoder()
    sent: dict[bytes, bytes] = {}
    with open_capture(path) as packets:
        for segment in filter(None, (decoder.decode(packet) for batch in packets for packet in batch)):
            if segment.flags & (SYN | TCP_ACK) == SYN:
                sent[segment.key] = b""
            elif segment.key in sent and len(sent[segment.key]) < count:
                sent[segment.key] += segment.payload
    return [octets[:count] for octets in sent.values()]


RUNS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "shared": lambda path: _three_channels(path, ()),
    "separate": lambda path: _three_channels(path, OWN_CONNECTION),
}


# --- what the lesson shows


def _connections(run: Run, screen: Screen) -> str:
    lines = []
    users = {
        (message.connection.number, message.stream_id): message.message["user"]
        for message in run.seen.messages
        if message.direction == Direction.CLIENT_TO_SERVER
    }
    for connection in run.seen.connections:
        title = _("connection {n}").format(n=connection.number)
        lines.append(screen.paint.bold(f"{title} · {connection.client} ⇄ {connection.server}"))
        for call in run.seen.calls:
            if call.connection.number == connection.number:
                stream = _("stream {stream}").format(stream=call.stream_id)
                method = (call.path or "?").rpartition("/")[2]
                lines.append(f"  {stream}  {method}  {users.get((connection.number, call.stream_id), '?')}")
    return "\n".join(lines)


def _first(run: Run, screen: Screen) -> str:
    octets = first_octets(run.path)[0][: len(CONNECTION_PREFACE)]
    lines = []
    for at in range(0, len(octets), HEXDUMP_OCTETS):
        row = octets[at : at + HEXDUMP_OCTETS]
        lines.append(f"{at:4}   {row.hex(' '):{3 * HEXDUMP_OCTETS}}  {visible(row.decode('latin-1'))}")
    return "\n".join(lines)


def _settings(run: Run, screen: Screen) -> str:
    """Both sides' settings, side by side."""
    sides = [dict(_settings_frame(run, direction).settings or []) for direction in Direction]
    rows: list[tuple[str, ...]] = [(_("setting"), _("client → server"), _("server → client"))]
    for name in dict.fromkeys(name for side in sides for name in side):
        shown = name.removeprefix("SETTINGS_") if isinstance(name, str) else f"0x{name:04x}"
        rows.append((shown, *[number(side[name]) if name in side else "–" for side in sides]))
    widths = [max(width(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(pad(cell, w, right=bool(i)) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([screen.paint.dim(lines[0]), *lines[1:]])


def _settings_frame(run: Run, direction: Direction) -> FrameEvent:
    return next(f for f in run.seen.frames if f.direction == direction and _is_settings(f) and not f.connection.number)


def _header(run: Run, screen: Screen) -> str:
    """The frame header of the client's SETTINGS, taken apart (RFC 9113 §4.1)."""
    frame = _settings_frame(run, Direction.CLIENT_TO_SERVER)
    octets = frame.header
    flags = ", ".join(frame.flag_names) or _("none")
    length = ngettext("{n} octet of payload follows", "{n} octets of payload follow", frame.length)
    rows = [
        (octets[0:3], _("length"), length.format(n=number(frame.length))),
        (octets[3:4], _("type"), f"{frame.type_code}: {frame.type}"),
        (octets[4:5], _("flags"), f"{frame.flags}: {flags}"),
        (octets[5:9], _("stream"), _("{stream}: the connection itself").format(stream=frame.stream_id)),
    ]
    longest = max(width(row[1]) for row in rows)
    first = f"{frame.offset:4}   {screen.paint.bold(octets.hex(' '))}"
    lines = [
        f"       {pad('   ' * at + part.hex(' '), 29)}{pad(name, longest)}   {means}"
        for at, (part, name, means) in _placed(rows)
    ]
    return "\n".join([first, *lines])


def _placed(rows: Sequence[tuple[bytes, str, str]]) -> Iterator[tuple[int, tuple[bytes, str, str]]]:
    at = 0
    for row in rows:
        yield at, row
        at += len(row[0])


def _acks(run: Run, screen: Screen) -> str:
    """All SETTINGS frames of the first connection, and whether the client waited for the acknowledgement."""
    frames = [frame for frame in run.seen.frames if not frame.connection.number]
    settings = [frame for frame in frames if frame.type_code == FrameType.SETTINGS]
    table = FrameTable(columns=screen.columns, paint=screen.paint, interleaved=False).feed(settings)
    request = next(i for i, frame in enumerate(frames) if frame.type_code == FrameType.HEADERS)
    acknowledged = next(
        i
        for i, frame in enumerate(frames)
        if frame.direction == Direction.SERVER_TO_CLIENT and frame.type_code == FrameType.SETTINGS and frame.flags & ACK
    )
    if request < acknowledged:
        order = _("This time the client's first HEADERS frame came before the server's acknowledgement.")
    else:
        order = _("This time the client's first HEADERS frame came after the server's acknowledgement.")
    return f"{table}\n{order}"


VIEWS: dict[str, Callable[[Run, Screen], str]] = {
    "connections": _connections,
    "first": _first,
    "settings": _settings,
    "header": _header,
    "acks": _acks,
}


# --- what the lab checks


def checks(runs: Mapping[str, Run]) -> Iterator[Check]:
    shared, separate = runs["shared"], runs["separate"]
    yield _counted(_("Three channels of one process shared one TCP connection."), shared.facts["connections"], 1)
    first = first_octets(shared.path)[0][: len(CONNECTION_PREFACE)]
    yield Check(
        _("The client's first 24 octets are the connection preface."), first == CONNECTION_PREFACE, first.hex(" ")
    )
    for sender, side in ((Direction.CLIENT_TO_SERVER, _("client")), (Direction.SERVER_TO_CLIENT, _("server"))):
        frame = next(frame for frame in shared.seen.frames if frame.direction == sender)
        text = _("The first frame of the {side} is SETTINGS, and the other side acknowledged it.").format(side=side)
        acknowledged = (0, Direction(1 - sender)) in _acknowledgements(shared.seen.frames)
        yield Check(text, _is_settings(frame) and acknowledged, f"{frame.type}, ACK {acknowledged}")
    text = _("With a pool each, every channel had a connection, a preface and its own SETTINGS.")
    facts = separate.facts
    found = (facts["connections"], facts["prefaces"], facts["settings"], facts["acknowledgements"])
    n = facts["channels"]
    yield Check(text, found == (n, n, 2 * n, 2 * n), ", ".join(map(str, found)))


def _counted(says: str, found: int, needed: int) -> Check:
    return Check(says, found == needed, _("found {found}, needed {needed}").format(found=found, needed=needed))
