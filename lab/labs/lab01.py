"""Lab 01: three channels of one process, and what both sides say before the first call.

`shared` opens them as anybody would; `separate` gives each a pool of its own, which is the only difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from capture.events import ACK as ACKNOWLEDGED
from capture.events import CONNECTION_PREFACE, Direction, Event, FrameEvent, FrameType
from capture.packets import ACK, SYN, PacketDecoder
from capture.sources.files import open_capture
from capture.views.quantities import number
from capture.views.table import FrameTable
from kit.words import _, ngettext
from lab.attempt import Check, Run
from lab.bench import NO_PROXY, OWN_CONNECTION, PATIENCE_SECONDS, ROOM, Bench
from lab.figures import Part, Screen, columns, dump, printable, taken_apart
from lab.lesson import wrap
from proto.chat_pb2 import JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub

USERS = ("Ana", "Juan", "María")


# --- the experiments


def _three_channels(path: Path, options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    with Bench(write=path) as bench, ExitStack() as stack:
        channels = [grpc.insecure_channel(bench.address, options=[*NO_PROXY, *options]) for _user in USERS]
        for channel, user in zip(channels, USERS, strict=True):
            stack.enter_context(channel)
            ChatServiceStub(channel).Join(JoinRequest(user=user, room=ROOM), timeout=PATIENCE_SECONDS)
        connections = len(bench.tap.connections)
        bench.wait_until(lambda events: len(_settings(events, ACKNOWLEDGED)) == 2 * connections)
    return {
        "channels": len(channels),
        "connections": connections,
        "prefaces": sum(preface == CONNECTION_PREFACE for preface in _first_octets(path)),
        "settings": len(_settings(bench.seen.frames)),
        "acknowledgements": len(_settings(bench.seen.frames, ACKNOWLEDGED)),
        "frames": len(bench.seen.frames),
        "first": printable(_first_octets(path)[0]),
        "port": str(bench.server.port),
    }


RUNS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "shared": lambda path: _three_channels(path, ()),
    "separate": lambda path: _three_channels(path, OWN_CONNECTION),
}


def _settings(events: Iterable[Event], flags: int = 0) -> list[FrameEvent]:
    """Frames that set something; with the flag ACK, those that acknowledge."""
    frames = (event for event in events if isinstance(event, FrameEvent))
    return [frame for frame in frames if frame.type_code == FrameType.SETTINGS and frame.flags == flags]


def _first_octets(path: Path, count: int = len(CONNECTION_PREFACE)) -> list[bytes]:
    """The first octets that each client sent, in the order of connections; from the packets, as no frame holds them."""
    decoder = PacketDecoder()
    sent: dict[bytes, bytes] = {}
    with open_capture(path) as packets:
        for segment in filter(None, (decoder.decode(packet) for batch in packets for packet in batch)):
            if segment.flags & (SYN | ACK) == SYN:
                sent[segment.key] = b""
            elif segment.key in sent:
                sent[segment.key] = (sent[segment.key] + segment.payload)[:count]
    return list(sent.values())


# --- what the lesson shows


def _connections(run: Run, screen: Screen) -> str:
    """Each connection, and below it its streams with who called what."""
    lines = []
    for connection in run.seen.connections:
        title = _("connection {n}").format(n=connection.number)
        lines.append(screen.paint.bold(f"{title} · {connection.client} ⇄ {connection.server}"))
        for message in run.seen.messages:
            if message.connection == connection and message.direction == Direction.CLIENT_TO_SERVER:
                stream = _("stream {stream}").format(stream=message.stream_id)
                method = (message.path or "?").rpartition("/")[2]
                lines.append(f"  {stream}  {method}  {message.message['user']}")
    return "\n".join(lines)


def _preface(run: Run, screen: Screen) -> str:
    return dump(_first_octets(run.path)[0])


def _both_settings(run: Run, screen: Screen) -> str:
    """What each side sets on the first connection, side by side."""
    sides = [dict(frame.settings or ()) for frame in _first_settings(run)]
    rows = [[_("setting"), _("client → server"), _("server → client")]]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        shown = name.removeprefix("SETTINGS_") if isinstance(name, str) else f"0x{name:04x}"
        rows.append([shown, *[number(side[name]) if name in side else "–" for side in sides]])
    return columns(rows, screen)


def _first_settings(run: Run) -> list[FrameEvent]:
    """By direction, of the first connection."""
    frames = [frame for frame in _settings(run.seen.frames) if frame.connection == run.seen.connections[0]]
    return [next(frame for frame in frames if frame.direction == direction) for direction in Direction]


def _header(run: Run, screen: Screen) -> str:
    """The frame header of the client's SETTINGS (RFC 9113 §4.1)."""
    frame = _first_settings(run)[Direction.CLIENT_TO_SERVER]
    length = ngettext("{n} octet follows", "{n} octets follow", frame.length).format(n=number(frame.length))
    flags = ", ".join(frame.flag_names) or _("none")
    parts = [
        Part(frame.header[0:3], _("length"), length),
        Part(frame.header[3:4], _("type"), f"{frame.type_code}: {frame.type}"),
        Part(frame.header[4:5], _("flags"), f"{frame.flags}: {flags}"),
        Part(frame.header[5:9], _("stream"), _("{stream}: the connection itself").format(stream=frame.stream_id)),
    ]
    return taken_apart(parts, frame.offset, screen)


def _acknowledgements(run: Run, screen: Screen) -> str:
    """All SETTINGS frames of the first connection, and whether the client waited for the server's acknowledgement."""
    frames = [frame for frame in run.seen.frames if frame.connection == run.seen.connections[0]]
    table = FrameTable(columns=screen.columns, paint=screen.paint, interleaved=False)
    rows = table.feed(frame for frame in frames if frame.type_code == FrameType.SETTINGS)
    request = next(frame for frame in frames if frame.type_code == FrameType.HEADERS)
    answers = [frame for frame in _settings(frames, ACKNOWLEDGED) if frame.direction == Direction.SERVER_TO_CLIENT]
    if frames.index(request) < frames.index(answers[0]):
        order = _("This time the client sent its first HEADERS before it had the server's acknowledgement.")
    else:
        order = _("This time the client sent its first HEADERS after the server's acknowledgement.")
    return "\n".join([rows, *wrap(order, *screen)])


VIEWS: dict[str, Callable[[Run, Screen], str]] = {
    "connections": _connections,
    "preface": _preface,
    "settings": _both_settings,
    "header": _header,
    "acknowledgements": _acknowledgements,
}


# --- what the lab checks


def checks(runs: Mapping[str, Run]) -> Iterator[Check]:
    shared, separate = runs["shared"], runs["separate"]
    found = shared.facts["connections"]
    yield Check(_("Three channels of one process shared one TCP connection."), found == 1, str(found))
    first = _first_octets(shared.path)[0]
    yield Check(_("The client's first 24 octets are the connection preface."), first == CONNECTION_PREFACE, repr(first))
    for sender, text in (
        (Direction.CLIENT_TO_SERVER, _("The client's first frame is SETTINGS, and the server acknowledged it.")),
        (Direction.SERVER_TO_CLIENT, _("The server's first frame is SETTINGS, and the client acknowledged it.")),
    ):
        frame = next(frame for frame in shared.seen.frames if frame.direction == sender)
        answers = [answer.direction for answer in _settings(shared.seen.frames, ACKNOWLEDGED)]
        holds = frame.type_code == FrameType.SETTINGS and 1 - sender in answers
        yield Check(text, holds, f"{frame.type}, ACK: {len(answers)}")
    counts = [separate.facts[name] for name in ("connections", "prefaces", "settings", "acknowledgements")]
    text = _("With pools of their own, three channels had three connections, each with preface and SETTINGS.")
    yield Check(text, counts == [3, 3, 6, 6], ", ".join(map(str, counts)))
