"""Where do frames begin, when the capture began in the middle?

How it works. A frame header (RFC 9113 §4.1) is nine octets in which little is free: the type is one of a few, each type
allows few flags, some types have one length only, some live on stream 0 and the others never do. And it says where the
next one is. So every position that could hold a header starts a chain; a chain that runs into an impossible header is
dropped, and one that has gathered enough evidence, or gathered some and ends exactly where a segment ends, is believed.
Of several, the one that begins first is taken: it holds the most frames.

Evidence: 1 for a header that is merely possible, 2 for one that is hard to meet by chance (a control frame of fixed
shape, a DATA frame that begins with a length-prefixed message, a HEADERS frame whose block begins like one). A chain
begins with a strong header, with any that stands where a segment or the search begins, or with that of a long DATA
frame: in the middle of a large transfer there is nothing else. That one counts only by what it leads to.
"""

from __future__ import annotations

import re

from capture.events import END_HEADERS, FLAGS, FRAME_HEADER_LENGTH, PADDED, PRIORITY_FLAG, FrameType

ENOUGH, ENOUGH_AT_END = 6, 2
"""Evidence at which a chain is believed wherever it ends, and where it ends with a segment (senders flush whole
frames), on a connection of which nothing is known."""
KNOWN_ENOUGH, KNOWN_ENOUGH_AT_END = 3, 1
"""The same on a connection that is known, or said, to speak HTTP/2."""
MAX_SEARCHED = 1 << 20
"""Octets kept while searching, for the frames in them; a start inside a larger frame loses what comes before."""
MAX_ODD = 1 << 14
"""Octets of a frame that nobody has defined, where it stands between others."""
MAX_CANDIDATES = 256
"""Chains followed at a time. Real captures have one or two; octets made to mislead may have many."""

_NOT_ON_STREAM_0 = {0, 1, 2, 3, 5, 9}
_ONLY_ON_STREAM_0 = {4, 6, 7, 0xC, 0x10}
_FIXED_LENGTH = {2: 5, 3: 4, 6: 8, 8: 4}
_LONG = 256
"""Octets of a DATA frame that may begin a chain without being strong. Numbers of a few octets each, in rows, often look
like the headers of short ones."""
_NAME_BEGINS = frozenset(b"abcdefghijklmnopqrstuvwxyz:")
_TELLING = 9
"""Octets of a payload that `evidence` looks at."""
_FLAG_MASK = {int(t): sum(FLAGS.get(t, ())) for t in FrameType}

# A quick sieve, run over all positions: length below 2^22 (4 MiB, what grpcio announces), then type and flags that go
# together, then no reserved bit. What passes is looked at by `evidence`.
_SIEVE = re.compile(
    rb"(?=[\x00-\x3f][\x00-\xff]{2}"
    rb"(?:\x00[\x00\x01\x08\x09]|\x01[\x00-\x2d]|[\x02\x03\x07\x08\x0a\x0c\x10]\x00|[\x04\x06][\x00\x01]"
    rb"|\x05[\x00\x04\x08\x0c]|\x09[\x00\x04])[\x00-\x7f])",
    re.DOTALL,
)


def evidence(octets: bytes | bytearray, at: int) -> int:
    """How much a frame header at `at` is worth: 0 impossible, 1 possible, 2 hardly by chance. Nine octets must be
    there; of the payload what is there is looked at."""
    header = octets[at : at + FRAME_HEADER_LENGTH]
    length, type_code, flags = int.from_bytes(header[:3]), header[3], header[4]
    stream_id = int.from_bytes(header[5:9])
    if type_code not in _FLAG_MASK or flags & ~_FLAG_MASK[type_code] or stream_id >> 31 or length >> 22:
        return 0
    if (type_code in _NOT_ON_STREAM_0 and not stream_id) or (type_code in _ONLY_ON_STREAM_0 and stream_id):
        return 0
    if type_code in _FIXED_LENGTH:
        payload = octets[at + 9 : at + 13]
        if type_code == FrameType.WINDOW_UPDATE and len(payload) == 4 and not 0 < int.from_bytes(payload) < 1 << 31:
            return 0
        return 2 if length == _FIXED_LENGTH[type_code] else 0
    if type_code == FrameType.SETTINGS:
        if length % 6 or (flags and length) or length > 6 * 64:
            return 0
        setting = octets[at + 9 : at + 11] if length else b""
        return 2 if setting[:1] in (b"", b"\0") and setting != b"\0\0" else 0
    if type_code == FrameType.GOAWAY:
        return 2 if 8 <= length < 1 << 14 else 0
    if type_code == FrameType.DATA:
        first = octets[at + 9 : at + 14]
        if not length:
            return 1 if flags == 1 else 0  # an empty DATA frame only ever ends a stream
        is_message = len(first) == 5 and first[0] <= 1 and int.from_bytes(first[1:]) == length - 5 and not flags & 8
        return 2 if is_message else 1
    if type_code == FrameType.HEADERS:
        if not 0 < length < 1 << 17:
            return 0
        before = bool(flags & PADDED) + 5 * bool(flags & PRIORITY_FLAG)
        padding = octets[at + 9] if flags & PADDED and len(octets) > at + 9 else 0
        if length < before + padding:
            return 0
        # A block that goes on fills its frame. A short DATA frame that ends its stream, read from its second octet on,
        # looks like HEADERS that go on.
        is_usual = (length <= 1 << 14 if flags & END_HEADERS else length == 1 << 14) and stream_id < 1 << 24
        return 2 if is_usual and _begins_block(octets[at + 9 + before : at + 12 + before]) else 1
    return 1


def _begins_block(first: bytes | bytearray) -> bool:
    """Whether a field block may begin with these three octets, as they usually do: request and response headers with a
    pseudo-header field of the static table, trailers with grpc-status, or a field of whose name the length and the
    first character are here (RFC 7541 §6.2.2)."""
    if len(first) < 3 or first[0] & 0xEF:
        return bool(first) and first[0] > 0x1F and first[0] != 0x80
    return first[1] > 0x80 or (0 < first[1] < 0x80 and first[2] in _NAME_BEGINS)


def is_odd(octets: bytes | bytearray, at: int) -> bool:
    """Whether a header that is no evidence is one that a receiver has to put up with all the same: of an unknown type,
    with undefined flags or the reserved bit, an empty DATA frame (RFC 9113 §4.1, §5.5)."""
    length, type_code = int.from_bytes(octets[at : at + 3]), octets[at + 3]
    if length > MAX_ODD:
        return False
    mask = _FLAG_MASK.get(type_code)
    if mask is None:
        return True
    flags, stream = octets[at + 4] & mask, octets[at + 5] & 0x7F
    plain = bytes(octets[at : at + 4]) + bytes((flags, stream)) + bytes(octets[at + 6 : at + 9 + _TELLING])
    return bool(evidence(plain, 0)) or (type_code == FrameType.DATA and not length and any(plain[5:9]))


def _is_long(octets: bytes | bytearray, at: int) -> bool:
    """Whether a header that is weak evidence, and stands anywhere, may begin a chain: that of a long DATA frame without
    padding, of a stream such as there are."""
    return (
        octets[at + 3] == FrameType.DATA
        and not (octets[at + 4] & PADDED or octets[at + 5])
        and (int.from_bytes(octets[at : at + 3]) >= _LONG)
    )


class Chain:
    """A position that may begin a frame, and what followed from it."""

    __slots__ = ("evidence", "is_doubtful", "last", "next", "start")

    def __init__(self, start: int, is_doubtful: bool) -> None:
        self.start = self.last = self.next = start
        self.evidence = -1 if is_doubtful else 0
        self.is_doubtful = is_doubtful
        """Its weak headers count only if they are those of long DATA frames, and the first of them against it."""


class BoundarySearch:
    """The octets of one direction, kept until a frame boundary is certain enough.

    Positions are offsets of the direction; `offset` is that of the first octet kept.
    """

    def __init__(self, offset: int) -> None:
        self.offset = self._first = offset
        self.octets = bytearray()
        self._segment = offset
        """Where the newest segment begins."""
        self._scanned = offset
        """Positions before it were looked at as starts of a chain."""
        self._chains: list[Chain] = []

    @property
    def end(self) -> int:
        return self.offset + len(self.octets)

    @property
    def is_hopeful(self) -> bool:
        """Whether what is kept may yet turn out to be frames."""
        return bool(self._chains)

    def append(self, octets: bytes) -> None:
        self._segment = self.end
        self.octets += octets

    def may_begin(self, at: int) -> bool:
        """Whether `at` can be a boundary: as far as the octets reach, possible header follows possible header. The last
        frame must end where they end, unless there is more evidence: any octets can be a long DATA frame's header."""
        position, total = at - self.offset, 0
        if not 0 <= position <= len(self.octets) - FRAME_HEADER_LENGTH:
            return False
        while position + FRAME_HEADER_LENGTH <= len(self.octets):
            found = evidence(self.octets, position)
            if not found:
                return False
            total += found
            position += FRAME_HEADER_LENGTH + int.from_bytes(self.octets[position : position + 3])
        return total > 1 or position == len(self.octets)

    def find(self, enough: int, enough_at_end: int) -> int | None:
        """The position of the first frame, once there is a chain to believe: with so much evidence, or less and an
        end that is the end of what is here. None: more octets are needed."""
        last = self.end - FRAME_HEADER_LENGTH
        for match in _SIEVE.finditer(self.octets, self._scanned - self.offset):
            start = self.offset + match.start()
            if start > last:
                break
            found = evidence(self.octets, match.start())
            is_doubtful = found == 1 and start not in (self._segment, self._first)
            if found and (not is_doubtful or _is_long(self.octets, match.start())):
                self._chains.append(Chain(start, is_doubtful))
                del self._chains[:-MAX_CANDIDATES]
        # A header says more with the first octets of its payload: those at the end are looked at again.
        self._scanned = max(self._scanned, last + 1 - _TELLING)
        self._follow()
        return min(
            (
                chain.start
                for chain in self._chains
                if chain.start < chain.next
                and (chain.evidence >= enough or (chain.evidence >= enough_at_end and chain.next == self.end))
            ),
            default=None,
        )

    def trim(self, keep: int) -> None:
        """Lets go what no chain needs, but for the last `keep` octets. A chain that needs too many goes on from its
        newest header, or the one that it waits for."""
        for chain in self._chains:
            if self.end - chain.start > MAX_SEARCHED:
                is_near = self.end - chain.last <= MAX_SEARCHED
                chain.start, chain.is_doubtful = chain.last if is_near else chain.next, False
        needed = min([self.end - keep, *(chain.start for chain in self._chains)])
        if needed > self.offset:
            del self.octets[: needed - self.offset]
            self.offset = needed

    def drop(self, keep: int) -> None:
        """Gives up all chains, and lets go of all but the last `keep` octets."""
        self._chains.clear()
        self.trim(keep)

    def _follow(self) -> None:
        """Moves every chain as far as the octets reach; drops the impossible, and those that meet an earlier one."""
        alive: list[Chain] = []
        visited: set[int] = set()
        for chain in self._chains:
            while chain.next not in visited:
                visited.add(chain.next)
                at = chain.next - self.offset
                length = int.from_bytes(self.octets[at : at + 3])
                if at + FRAME_HEADER_LENGTH + min(length, _TELLING) > len(self.octets):
                    alive.append(chain)
                    break
                found, stop = evidence(self.octets, at), at + FRAME_HEADER_LENGTH + length
                if not found:
                    if chain.evidence < 2 or not is_odd(self.octets, at):
                        break
                    if stop + FRAME_HEADER_LENGTH <= len(self.octets):
                        if not evidence(self.octets, stop):
                            break  # one odd frame is an exception, two are none
                    elif stop != len(self.octets):
                        alive.append(chain)
                        break
                if found == 2 or not chain.is_doubtful or (chain.next > chain.start and _is_long(self.octets, at)):
                    chain.evidence += found
                chain.last, chain.next = chain.next, chain.next + FRAME_HEADER_LENGTH + length
        self._chains = alive
