"""How Wireshark shows what this kit shows: a profile of its own, as files.

A profile keeps columns, colours, filter buttons and protobuf's search paths out of the user's other profiles, and lets
a command name all of it by one word: the same settings as options would need quotes inside quotes, which each shell
understands in another way.

The formats are Wireshark's own: `preferences` and the tables ("UAT") as its dialogs save them, `colorfilters` with
16 bits for each of red, green and blue.
"""

from __future__ import annotations

from collections.abc import Mapping

from capture.events import FrameType
from capture.views.style import GREY, look

PROFILE = "grpc-wire-lab"

COLUMNS = (
    ("No.", "%m"),
    ("Time", "%t"),
    ("From port", "%Cus:tcp.srcport:0:U"),
    ("To port", "%Cus:tcp.dstport:0:U"),
    ("Stream", "%Cus:http2.streamid:0:U"),
    ("Frame", "%Cus:http2.type:0:R"),
    ("Octets", "%Cus:http2.length:0:U"),
    ("Protocol", "%p"),
    ("Info", "%i"),
)
"""Title, and what is in it. Where a packet carries several frames, theirs stand side by side."""

BUTTONS = (
    ("frames", "http2"),
    ("calls", "http2.type == 1"),
    ("messages", "grpc"),
    ("windows", "http2.type == 8"),
    ("settings", "http2.type == 4"),
    ("trouble", "http2.type == 3 || http2.type == 7 || tcp.analysis.flags"),
)
"""Label of a filter button, display filter."""

COLOURED = (
    FrameType.RST_STREAM,
    FrameType.GOAWAY,
    FrameType.HEADERS,
    FrameType.DATA,
    FrameType.SETTINGS,
    FrameType.PING,
    FrameType.WINDOW_UPDATE,
)
"""A packet has the colour of the first of these that it carries."""
_TINT = 0.45
"""How much of a type's colour is behind black text; the rest is white. GOAWAY, which is black, becomes grey."""


def files(proto_folder: str) -> Mapping[str, str]:
    """The profile's files by name. `proto_folder` is where .proto files are."""
    return {
        "preferences": _preferences(),
        "colorfilters": _colours(),
        "dfilter_buttons": "".join(f'"TRUE","{label}","{text}",""\n' for label, text in BUTTONS),
        "protobuf_search_paths": f'"{_escaped(proto_folder)}","TRUE"\n',
    }


def _preferences() -> str:
    columns = ",\n".join(f'\t"{title}", "{content}"' for title, content in COLUMNS)
    return f"gui.column.format:\n{columns}\n"


def _colours() -> str:
    lines = [f"@{kind.name}@http2.type == {int(kind)}@{_behind(look(kind).colour)}[0,0,0]" for kind in COLOURED]
    lines.append(f"@TCP alone@tcp.len == 0@[65535,65535,65535]{_sixteen_bits(GREY)}")
    return "\n".join(lines) + "\n"


def _behind(colour: str) -> str:
    mixed = (round(255 - _TINT * (255 - part)) for part in bytes.fromhex(colour[1:]))
    return _sixteen_bits("#" + bytes(mixed).hex())


def _sixteen_bits(colour: str) -> str:
    return f"[{','.join(str(part * 257) for part in bytes.fromhex(colour[1:]))}]"


def _escaped(text: str) -> str:
    """In a table: what is no printable ASCII, a quote or a backslash is \\x and two digits for each octet."""
    plain = (
        chr(octet) if 0x20 <= octet < 0x7F and octet not in b'"\\' else f"\\x{octet:02x}" for octet in text.encode()
    )
    return "".join(plain)
