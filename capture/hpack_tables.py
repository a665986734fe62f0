"""Field blocks to field sections (RFC 7541), for a reader that may have come late.

How it works. An encoder numbers its dynamic table from the newest entry backwards: 62 is what was inserted last, 63
what was inserted before that (§2.3.3). So a reader that starts in the middle counts as well as any other: what was
inserted since it came it knows exactly, and an index that reaches further back means an entry from before. That entry
gets the label `?-1` if it was the newest when the reader came, `?-2` if it was the one before, and the label stays with
it: each insertion moves the index and the count by one. Nothing is ever guessed.

Eviction (§4.4) matters to this count only at the far end: an encoder never refers to what it evicted. It is modelled to
bound memory, to notice references that no table can hold, and to know when everything from before must have left: after
a size update to 0, after an entry larger than the table, or once the octets inserted since reach the table's maximum
where that is known (`complete`).

A lost piece of a field block (`lose`) is a new start: how many entries it inserted nobody knows.

SETTINGS_HEADER_TABLE_SIZE, sent the other way, only bounds the table; the size in force is the encoder's last dynamic
table size update (§4.2), 4,096 before the first.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman

from capture.events import ErrorCode, FieldLine, FieldSection, Unknown
from kit.words import N_

DEFAULT_TABLE_SIZE = 4096
"""RFC 9113 §6.5.2."""
ENTRY_OVERHEAD = 32
"""RFC 7541 §4.1: an entry counts its name, its value and this."""
MAX_TABLE_OCTETS = 1 << 20
"""Kept of a table whatever size its encoder claims; browsers and proxies stay at or below 64 KiB."""
MAX_SECTION_OCTETS = 1 << 20
"""Of a decoded field section: a block can name a large entry thousands of times. Servers allow 8 KiB to 64 KiB."""
MAX_INTEGER = 1 << 32
"""Beyond it an integer is no length, index or size that means anything (RFC 7541 §5.1 asks for a limit)."""
MAX_TABLES_OCTETS = 32 << 20
"""Of the tables of all connections together; Python takes some four times as much. 20,000 connections with two times a
dozen entries have 30 MiB."""
MAX_COMPLAINTS = 8
"""Told of one field block: a block can be wrong at every octet."""
MAX_CACHED = 4096
"""Strings remembered at a time; then the cache starts over."""
MAX_BLOCKS = 32
MAX_INDEXED = 64
"""The same of a connection's blocks of so many indexed fields at most."""
MAX_CACHED_OCTETS = 512
"""Longer strings are not remembered: 4,096 of these are 2 MiB."""

NOTHING = Unknown("?")
"""Octets that are there and cannot be read."""


class Complaint(NamedTuple):
    """What is wrong with a field block."""

    template: str
    values: dict[str, Any]
    error_code: ErrorCode = ErrorCode.COMPRESSION_ERROR


class Step(NamedTuple):
    """One instruction of a field block, for those who want to watch."""

    kind: str
    """`indexed`, `literal with incremental indexing`, `literal without indexing`, `literal never indexed`, or
    `dynamic table size update` (RFC 7541 §6)."""
    entry: int | None
    """The index of the entry, or of the entry that lends its name; None for a literal name."""
    field: FieldLine | None
    octets: bytes
    """As in the block."""
    evicted: tuple[FieldLine, ...]
    size: int | None = None
    """The new maximum, of a size update."""


class Trace(NamedTuple):
    """How a block was decoded, and the table that it left."""

    steps: tuple[Step, ...]
    table: tuple[FieldLine, ...]
    """Inserted since the start and not evicted, newest (index 62) first."""
    size: int
    """Octets of these entries (RFC 7541 §4.1)."""
    maximum: int | None
    """The size in force; None while it cannot be known."""


class _Broken(Exception):
    """The rest of the block cannot be read."""


class Budget:
    """Octets that all connections of a pipeline hold together: of unfinished frames and blocks, and of tables."""

    __slots__ = ("partial", "tables")

    def __init__(self) -> None:
        self.partial = self.tables = 0


class FieldDecoder:
    """The dynamic table of one direction, and the blocks that it is built from.

    `whole`: the connection's first octet was seen, so that the table is known to begin empty. `trace`: sections come
    with the steps that made them.
    """

    def __init__(self, whole: bool = True, trace: bool = False, budget: Budget | None = None) -> None:
        self._trace = trace
        self._budget = budget or Budget()
        self.complete = whole
        """No entry from before the start can be in the table any more."""
        self.maximum: int | None = DEFAULT_TABLE_SIZE if whole else None
        """The size in force; None while it cannot be known."""
        self.bound: int | None = DEFAULT_TABLE_SIZE if whole else None
        """The largest maximum that the other side has allowed; None while it cannot be known. Whoever reads its
        SETTINGS sets it."""
        self.size = 0
        """Octets of the entries below, as RFC 7541 §4.1 counts (at least: an unknown name counts as empty)."""
        self.entries: deque[tuple[FieldLine, int]] = deque()
        """Inserted since the start and not evicted, with their sizes, newest last."""
        self.complaints: list[Complaint] = []
        """Since whoever reads them cleared them."""
        self._inserted = 0
        """Entries since the start."""
        self._inserted_octets = 0
        self._blocks: dict[bytes, FieldSection] = {}
        """Blocks of indexed fields only, as long as the table stands still: most requests of a busy connection."""

    # -- epochs ----------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """A field block, or part of one, was missed: a new start."""
        self._budget.tables -= self.size
        self.entries.clear()
        self._blocks.clear()
        self.size = self._inserted = self._inserted_octets = 0
        self.complete = False
        self.maximum = None

    # -- blocks ----------------------------------------------------------------------------------------------------

    def decode(self, block: bytes) -> FieldSection:
        """A whole field block (fragments joined) to its section. Trouble goes to `complaints`; what could be read
        before it stays, and an unreadable rest is one field of unknown name and value."""
        section = self._blocks.get(block)
        if section is not None:
            return section
        steps: list[Step] | None = [] if self._trace else None
        fields: list[FieldLine] = []
        is_indexed = True
        position, end, decoded = 0, len(block), 0
        try:
            while position < end:
                start, octet = position, block[position]
                index: int | None = None
                size: int | None = None
                evicted: tuple[FieldLine, ...] = ()
                field: FieldLine | None
                if octet & 0x80:  # indexed field (§6.1)
                    kind = "indexed"
                    index, position = _integer(block, position, 0x7F)
                    field = self._entry(index)
                elif octet & 0x40:  # literal with incremental indexing (§6.2.1)
                    kind, is_indexed = "literal with incremental indexing", False
                    index, field, lengths, position = self._literal(block, position, 0x3F)
                    evicted = self._insert(field, lengths)
                elif octet & 0x20:  # dynamic table size update (§6.3)
                    kind, is_indexed, field = "dynamic table size update", False, None
                    size, position = _integer(block, position, 0x1F)
                    if fields:
                        self._complain(N_("a dynamic table size update behind a field (RFC 7541 §4.2)"))
                    evicted = self._resize(size)
                else:  # literal without indexing (§6.2.2), never indexed (§6.2.3)
                    kind, is_indexed = "literal never indexed" if octet & 0x10 else "literal without indexing", False
                    index, field, _, position = self._literal(block, position, 0x0F)
                if field is not None:
                    decoded += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
                    if decoded <= MAX_SECTION_OCTETS:
                        fields.append(field)
                if steps is not None:
                    steps.append(Step(kind, index or None, field, block[start:position], evicted, size))
        except _Broken as broken:
            self._complain(broken.args[0], **(broken.args[1] if len(broken.args) > 1 else {}))
            fields.append((NOTHING, NOTHING))
            self.lose()
            return FieldSection(tuple(fields), block, False, self._traced(steps))
        if decoded > MAX_SECTION_OCTETS:
            self._complain(
                N_("a field section of {octets} octets, of which {limit} are kept"),
                octets=decoded,
                limit=MAX_SECTION_OCTETS,
            )
            fields.append((NOTHING, NOTHING))
        section = FieldSection(tuple(fields), block, self.complete, self._traced(steps))
        if self._budget.tables > MAX_TABLES_OCTETS:
            self._complain(N_("all dynamic tables together have more than {limit} octets"), limit=MAX_TABLES_OCTETS)
            self.lose()
        if steps is None and is_indexed and len(fields) <= MAX_INDEXED and not self.complaints:
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            self._blocks[block] = section
        return section

    def _traced(self, steps: list[Step] | None) -> Trace | None:
        if steps is None:
            return None
        table = tuple(field for field, _ in reversed(self.entries))
        return Trace(tuple(steps), table, self.size, self.maximum)

    def _entry(self, index: int) -> FieldLine:
        """What an index stands for (§2.3.3)."""
        if index <= 61:
            if index == 0:
                raise _Broken(N_("index 0 stands for nothing (RFC 7541 §6.1)"))
            return STATIC_TABLE[index]
        back = index - 61
        if back <= len(self.entries):
            return self.entries[-back][0]
        if self.complete:
            self._complain(
                N_("index {index}, but the dynamic table has {entries} entries (RFC 7541 §2.3.3)"),
                index=index,
                entries=len(self.entries),
            )
            return (NOTHING, NOTHING)
        if back <= self._inserted:  # inserted since the start, and evicted or let go
            self._complain(N_("index {index} stands for an entry that was evicted (RFC 7541 §4.4)"), index=index)
            return (NOTHING, NOTHING)
        label = Unknown(f"?-{back - self._inserted}")
        return (label, label)

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[int, FieldLine, int, int]:
        """(index of the name or 0, the field, octets of its name and value, position behind it)."""
        index, position = _integer(block, position, mask)
        if index:
            name = self._entry(index)[0]
            name_length = 0 if isinstance(name, Unknown) else len(name if isinstance(name, bytes) else name.encode())
        else:
            name, name_length, position = self._string(block, position)
        value, value_length, position = self._string(block, position)
        return index, (name, value), name_length + value_length, position

    def _string(self, block: bytes, position: int) -> tuple[Any, int, int]:
        """(text, or octets that are not UTF-8, or Unknown; its decoded length; position behind it) (§5.2)."""
        if position >= len(block):
            raise _Broken(N_("a field block that ends in the middle of a field (RFC 7541 §5)"))
        huffman = block[position] & 0x80
        length, start = _integer(block, position, 0x7F)
        position = start + length
        if position > len(block):
            raise _Broken(
                N_("a string of {octets} octets where the field block has {left} left (RFC 7541 §5.2)"),
                {"octets": length, "left": len(block) - start},
            )
        raw = block[start:position]
        if not huffman:
            text, octets = _plain(raw)
        else:
            text, octets = _huffman(raw)
            if text is NOTHING:
                self._complain(N_("a string that is no Huffman code (RFC 7541 §5.2)"))
        return text, octets, position

    # -- the table -------------------------------------------------------------------------------------------------

    def _insert(self, field: FieldLine, octets: int) -> tuple[FieldLine, ...]:
        """Adds an entry and evicts what no longer fits (§4.4); returns the evicted."""
        self._blocks.clear()
        size = octets + ENTRY_OVERHEAD
        self._inserted += 1
        self._inserted_octets += size
        self.entries.append((field, size))
        self.size += size
        self._budget.tables += size
        evicted = self._evict()
        limit = self.maximum if self.maximum is not None else self.bound
        if limit is not None and self._inserted_octets >= limit:
            self.complete = True
        return evicted

    def _resize(self, size: int) -> tuple[FieldLine, ...]:
        if self.bound is not None and size > self.bound:
            self._complain(
                N_("a dynamic table size update to {size}, where at most {bound} is allowed (RFC 7541 §6.3)"),
                size=size,
                bound=self.bound,
            )
        self._blocks.clear()
        self.maximum = size
        evicted = self._evict()
        if self._inserted_octets >= size:
            self.complete = True
        return evicted

    def _evict(self) -> tuple[FieldLine, ...]:
        limit = self.maximum if self.maximum is not None else self.bound
        limit = MAX_TABLE_OCTETS if limit is None else min(limit, MAX_TABLE_OCTETS)
        if self.size <= limit:
            return ()
        evicted = []
        while self.size > limit:
            field, size = self.entries.popleft()
            self.size -= size
            self._budget.tables -= size
            evicted.append(field)
        return tuple(evicted)

    def _complain(self, template: str, **values: Any) -> None:
        if len(self.complaints) < MAX_COMPLAINTS:
            self.complaints.append(Complaint(template, values))


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """An integer with the prefix that `mask` covers, and the position behind it (§5.1)."""
    if position >= len(block):
        raise _Broken(N_("a field block that ends in the middle of a field (RFC 7541 §5)"))
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while position < len(block):
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        shift += 7
        if value > MAX_INTEGER or shift > 63:
            raise _Broken(N_("an integer beyond {limit} (RFC 7541 §5.1)"), {"limit": MAX_INTEGER})
        if not octet & 0x80:
            return value, position
    raise _Broken(N_("a field block that ends in the middle of an integer (RFC 7541 §5.1)"))


_plain_strings: dict[bytes, tuple[Any, int]] = {}
_huffman_strings: dict[bytes, tuple[Any, int]] = {}


def _plain(raw: bytes) -> tuple[Any, int]:
    known = _plain_strings.get(raw)
    if known is None:
        known = _remember(_plain_strings, raw, raw)
    return known


def _huffman(raw: bytes) -> tuple[Any, int]:
    known = _huffman_strings.get(raw)
    if known is None:
        try:
            known = _remember(_huffman_strings, raw, decode_huffman(raw))
        except HPACKDecodingError:
            return NOTHING, 0
    return known


def _remember(cache: dict[bytes, tuple[Any, int]], raw: bytes, octets: bytes) -> tuple[Any, int]:
    text: str | bytes
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        text = bytes(octets)
    known = (text, len(octets))
    if len(raw) <= MAX_CACHED_OCTETS:
        if len(cache) >= MAX_CACHED:
            cache.clear()
        cache[raw] = known
    return known


STATIC_TABLE: tuple[FieldLine, ...] = (
    ("", ""),
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
)
"""RFC 7541 Appendix A; index 0 stands for nothing."""
