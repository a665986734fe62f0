"""Protobuf's wire format without a description: what can be said of a message from its octets alone.

A message is a series of records, each a tag (field number, wire type) and a value
(https://protobuf.dev/programming-guides/encoding). The octets do not say what a value means, so the reading is the
plainest that fits:

  varint             a number: unsigned, as it stands there (the int32 −1 is 18446744073709551615, the sint32 −1 is 1)
  fixed64, fixed32   a number: unsigned, little-endian (a double or float is not told from a fixed one)
  length-delimited   printable UTF-8: text; else a message, if it parses completely; else UTF-8: text; else base64
  group              a message

Numbers beyond 2^53 are written as strings, as JSON readers would round them. A field that comes more than once is a
list. Keys are field numbers as strings, in the order of their first record.
"""

from __future__ import annotations

import base64
from typing import Any

from kit.words import N_

MAX_DEPTH = 100
"""Messages within messages, as protobuf's own parsers allow by default; what is deeper stays octets."""
MAX_MESSAGES = 200_000
"""Nested messages opened in one decoding: four octets can make one, and each costs a dictionary. Beyond it, octets."""
_EXACT = 1 << 53
_VARINT, _FIXED64, _DELIMITED, _GROUP, _END_GROUP, _FIXED32 = range(6)


class Damaged(Exception):
    """The octets are no message: `template` and `values` as in Problem."""

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(template, values)
        self.template = template
        self.values = values

    def __str__(self) -> str:
        return self.template.format(**self.values)


def decode(octets: bytes) -> dict[str, Any]:
    """The message by field number, ready for JSON. Raises Damaged where the octets are no protobuf message."""
    return _Walk(octets).message(0, len(octets), 0, 0)[0]


def value(content: bytes, depth: int = MAX_DEPTH) -> Any:
    """A length-delimited value on its own: text, message (of so much depth) or `{"base64": …}`."""
    return _Walk(content).delimited(0, len(content), MAX_DEPTH - depth)


def number(n: int) -> int | str:
    return n if n <= _EXACT else str(n)


def add(fields: dict[str, Any], key: str, item: Any) -> None:
    """Puts one more value under a key: the second makes it a list. (No single value is a list.)"""
    if key not in fields:
        fields[key] = item
    elif isinstance(fields[key], list):
        fields[key].append(item)
    else:
        fields[key] = [fields[key], item]


class _Walk:
    """One decoding: the octets, and how many nested messages it may still open."""

    __slots__ = ("budget", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.budget = MAX_MESSAGES

    def message(self, at: int, end: int, depth: int, group: int) -> tuple[dict[str, Any], int]:
        """The records from `at` to `end`, or to the end-group tag of the field `group`; and where they ended."""
        octets = self.octets
        fields: dict[str, Any] = {}
        item: Any
        while at < end:
            start = at
            tag = octets[at]
            at += 1
            if tag >= 0x80:
                tag, at = self.varint(start, end)
                if tag >= 1 << 32:
                    raise Damaged(N_("at octet {at} no tag can be read: it is longer than 32 bits"), at=start)
            field, kind = tag >> 3, tag & 7
            if not field:
                raise Damaged(N_("at octet {at} stands field number 0, which does not exist"), at=start)
            if kind == _DELIMITED:
                if at < end and octets[at] < 0x80:  # one octet, as most are
                    length, at = octets[at], at + 1
                else:
                    length, at = self.varint(at, end)
                if length > end - at:
                    raise Damaged(
                        N_("field {field} at octet {at} claims {length} octets, {left} are left"),
                        field=field, at=start, length=length, left=end - at,
                    )  # fmt: skip
                item = self.delimited(at, at + length, depth)
                at += length
            elif kind == _VARINT:
                n, at = self.varint(at, end)
                item = n if n <= _EXACT else str(n)
            elif kind in (_FIXED64, _FIXED32):
                width = 8 if kind == _FIXED64 else 4
                if width > end - at:
                    raise Damaged(
                        N_("field {field} at octet {at} claims {length} octets, {left} are left"),
                        field=field, at=start, length=width, left=end - at,
                    )  # fmt: skip
                item = number(int.from_bytes(octets[at : at + width], "little"))
                at += width
            elif kind == _GROUP:
                if depth >= MAX_DEPTH:
                    raise Damaged(N_("at octet {at} a group lies deeper than {depth} levels"), at=start, depth=depth)
                item, at = self.message(at, end, depth + 1, field)
            elif kind == _END_GROUP and field == group:
                return fields, at
            else:
                raise Damaged(N_("at octet {at} stands wire type {kind}, which fits nothing here"), at=start, kind=kind)
            key = str(field)
            if key in fields:
                add(fields, key, item)
            else:
                fields[key] = item
        if group:
            raise Damaged(N_("the group of field {field} has no end"), field=group)
        return fields, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """An unsigned number of at most 64 bits (more are cut off, as parsers do), and where it ended."""
        octets, n, shift = self.octets, 0, 0
        for i in range(at, min(end, at + 10)):
            octet = octets[i]
            if octet < 0x80:
                return (n | octet << shift) & 0xFFFF_FFFF_FFFF_FFFF, i + 1
            n |= (octet & 0x7F) << shift
            shift += 7
        raise Damaged(N_("the number at octet {at} has no end"), at=at)

    def delimited(self, at: int, end: int, depth: int) -> Any:
        content = self.octets[at:end]
        text: str | None
        try:
            text = content.decode()
            if text.isprintable():
                return text
        except UnicodeDecodeError:
            text = None
        if depth < MAX_DEPTH and self.budget > 0:
            self.budget -= 1
            try:
                return self.message(at, end, depth + 1, 0)[0]
            except Damaged:
                pass
        return {"base64": base64.b64encode(content).decode("ascii")} if text is None else text
