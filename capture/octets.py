"""A stream's octets as they arrive, and what is packed in them if they are gzip (RFC 1952)."""

from __future__ import annotations

import select
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO

from kit.words import N_

BLOCK = 1 << 16
"""Octets asked for at once: what a pipe holds, and what stays in the processor's cache while it is walked (packets came
out of blocks of a megabyte at two thirds of the speed)."""

_GZIP = b"\x1f\x8b"


def arriving(stream: BinaryIO) -> Iterator[bytes]:
    """What is there, at most BLOCK octets at once; waits only where there is nothing."""
    read = getattr(stream, "read1", stream.read)  # one system call; a raw file's own `read` is
    while True:
        block = read(BLOCK)
        if block:
            yield block
        elif block is None:  # the stream does not block
            select.select([stream], [], [])
        else:
            return


def unpacked(blocks: Iterator[bytes], tell: Callable[[str], None]) -> Iterator[bytes]:
    """The blocks, of a gzip file what is packed in them: at most BLOCK octets at once, so that no bomb goes off."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= len(_GZIP):
            break
    if not first.startswith(_GZIP):
        if first:
            yield first
        yield from blocks
        return
    member = None
    for packed in chain([first], blocks):
        pending = packed
        full = False
        while pending or full:
            if member is None:
                pending = pending.lstrip(b"\0")  # padding that tape and block devices leave behind a member
                if not pending:
                    break
                member = zlib.decompressobj(wbits=31)  # gzip's own header and check (RFC 1952)
            before = member.copy()
            try:
                data = member.decompress(pending, BLOCK)
            except zlib.error:
                yield from _before_damage(before, pending)
                tell(N_("the gzip data is damaged: nothing behind is read"))
                return
            if data:
                yield data
            full = len(data) == BLOCK
            pending = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:  # another member may follow (RFC 1952 §2.2)
                member, full = None, False
    if member is not None:
        tell(N_("the gzip data is cut short"))


def _before_damage(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """What can be unpacked before the octet with which zlib finds damage, wherever the block began."""
    data = []
    try:
        for i in range(len(packed)):
            data.append(member.decompress(packed[i : i + 1]))
    except zlib.error:
        pass
    if any(data):
        yield b"".join(data)
