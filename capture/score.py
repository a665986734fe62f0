"""What a capture tells of calls, against what the calls' own ends know of them (kit/truth.py says what they log).

Every call and message of a truth gets one verdict:

  resolved   the capture tells it, and tells it right
  unknown    the capture does not tell it, and says why: it began later, octets are lost or were not kept, …
  wrong      the capture tells it differently, or lacks it without a reason; or it tells what never happened

How a verdict comes about. The truth names the client's address of each call, so connections match by address. On a
connection, streams by their identifiers and calls by their start are the same sequence: stream 2n+1 is the call of
index n, unless one side lacks some. A stream whose method is known is paired with the call that it is expected to be if
it contradicts that one in nothing; else with the first one of which that is true; at last, what is left with what is
left, by its method, and then the contradictions are what is wrong. Order is kept, but for calls that began within
`CONCURRENT_NS`, which may have reached the other side in another order than the log. A stream without a method claims
little: it can only be the call that it is expected to be, between its neighbours.

Within a stream, each direction is runs of messages with holes between them: places where the capture itself says that
something is missing. A run must lie in the truth one by one, and runs in their order; the first one at the beginning if
no hole is before it. So nothing is matched over a hole that was not admitted, and nothing because it would fit.

The end that received knows what had arrived; the end that sent knows what it handed to gRPC. On the wire was at least
the one and at most the other: what a sender's log has beyond the capture may never have left, and what the capture has
beyond a receiver's log may never have been read, if the call did not end well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from capture.events import Call, Connection, Direction
from capture.evidence import BEFORE, NO_METHOD, Half, Known, Said, Seen, Stream, TrueCall, TrueLog, TrueMessage
from kit.words import N_

CONCURRENT_NS = 100_000_000
"""Calls of one connection that begin within this time may come in either order."""

RESOLVED, UNKNOWN, WRONG = VERDICTS = ("resolved", "unknown", "wrong")

NO_CONNECTION = N_("its connection is not in the capture")
NO_ADDRESS = N_("the log does not know its connection")
AFTER = N_("the capture ended before")
NO_CONTENT = N_("the log does not know its content")
NO_STATUS = N_("the status is unknown")
NO_SENTENCE = N_("the status's sentence is unknown")
NEVER_LEFT = N_("it never left: the call had ended")
NEVER_TRAVELLED = N_("the status never left: the call had ended")
OWN_STATUS = N_("the client ended the call itself, and the server's status was on its way")

DIFFERS = N_("the content differs")
OTHER_METHOD = N_("the method differs")
OTHER_STATUS = N_("the status differs")
OTHER_SENTENCE = N_("the status's sentence differs")
MISSING = N_("missing, and the capture admits no gap there")
NEVER_HAPPENED = N_("the capture claims it, and it never happened")
SWAPPED = N_("the capture takes the client for the server")

_LOCAL = {1, 4, 8, 13, 14}
"""Statuses that a client gives by itself: CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and INTERNAL (a response
that it does not take), UNAVAILABLE."""
_UNDONE = {"reset": {1, 4, 8, 13, 14}, "goaway": {14}, "cut": {1, 4, 14}}
"""What a client reports of a call that ended without a status from the server, by how it ended."""


class Finding(NamedTuple):
    """A verdict."""

    verdict: str
    reason: str | None
    """None where it is resolved."""
    kind: str
    """`call` or `message`."""
    log: int
    """Which of the logs, from 0."""
    call: int | None
    """Its number there; None for what only the capture claims."""
    method: str | None
    direction: Direction | None
    sequence: int | None
    time_ns: int
    """The truth's, or the capture's for what only the capture claims."""
    connection: Connection | None
    """In the capture, like the next two; None where it is not there."""
    stream_id: int | None
    packet: int | None
    expected: Any = None
    """Of what is wrong: what the truth says."""
    found: Any = None
    """Of what is wrong: what the capture says."""


class _Pair(NamedTuple):
    """A call of a log and the stream that it is taken for; one of them may be missing."""

    log: int
    call: TrueCall | None
    stream: Stream | None

    def finding(self, verdict: str, reason: str | None, **more: Any) -> Finding:
        """Of the call, unless told otherwise."""
        stream = self.stream
        shared: dict[str, Any] = {
            "kind": "call",
            "log": self.log,
            "call": None if self.call is None else self.call.number,
            "method": self.call.method if self.call else stream.call.path if stream and stream.call else None,
            "direction": None,
            "sequence": None,
            "time_ns": self.call.start_ns if self.call else stream.call.start_ns if stream and stream.call else 0,
            "connection": None if stream is None else stream.connection,
            "stream_id": None if stream is None else stream.stream_id,
            "packet": None,
        }
        return Finding(verdict, reason, **{**shared, **more})


class Score:
    """The verdicts of some logs, in their order, and what was counted."""

    def __init__(self, logs: Sequence[TrueLog], seen: Seen) -> None:
        self.findings: list[Finding] = []
        self.counts: Counter[tuple[str, str, str | None]] = Counter()
        """By kind, verdict and reason."""
        self.unproven = 0
        """Messages and calls of the capture of which the logs cannot say whether they happened."""
        for number, log in enumerate(logs):
            for finding in _score(number, log, seen, self):
                self.findings.append(finding)
                self.counts[finding.kind, finding.verdict, finding.reason] += 1

    def count(self, verdict: str, kind: str | None = None) -> int:
        return sum(n for (of, what, _why), n in self.counts.items() if what == verdict and kind in (None, of))


def _score(number: int, log: TrueLog, seen: Seen, score: Score) -> Iterator[Finding]:
    clients: dict[str | None, list[TrueCall]] = {}
    for call in log.calls:
        clients.setdefault(call.client, []).append(call)
    by_client: dict[str, list[Known]] = {}
    servers = set()
    for known in seen.connections.values():
        by_client.setdefault(known.connection.client, []).append(known)
        servers.add(known.connection.server)
    unplaced = Counter(call.method for call in clients.get(None, ()))
    for client, calls in clients.items():
        calls.sort(key=lambda call: (call.start_ns, call.number))
        connections = by_client.get(client or "", [])
        pairs = [_Pair(number, *pair) for pair in _pairs(log, calls, connections)]
        first_ns = next((pair.call.start_ns for pair in pairs if pair.call and pair.stream), None)
        for pair in pairs:
            if pair.call is None:
                yield from _claimed(log, pair, unplaced, score)
            elif pair.stream is None:
                if not connections:
                    swapped = client in servers
                    verdict, reason = (WRONG, SWAPPED) if swapped else (UNKNOWN, NO_CONNECTION)
                    if client is None:
                        reason = NO_ADDRESS
                else:
                    verdict, reason = _absent(log, pair.call, connections, first_ns)
                yield pair.finding(verdict, reason)
                for direction in Direction:
                    for sequence, true in enumerate(pair.call.messages[direction], 1):
                        place: dict[str, Any] = {"direction": direction, "sequence": sequence, "time_ns": true.time_ns}
                        yield pair.finding(verdict, reason, kind="message", **place)
            else:
                yield from _judge(log, pair, score)


# --- which stream is which call


def _pairs(
    log: TrueLog, calls: list[TrueCall], connections: list[Known]
) -> Iterator[tuple[TrueCall | None, Stream | None]]:
    """The calls of one client address and the streams of its connections (of several, if it was used again), each
    once, in the calls' order; what has no counterpart is paired with None."""
    partner: dict[int, Stream] = {}
    starts = [call.start_ns for call in calls]
    left: list[Stream] = []
    newest = -1  # index of the last call that has a stream
    for known in connections:
        drifts = {0: newest + 1}  # by stream: how far its call's index is from stream_id // 2
        nameless = []
        for stream_id, stream in sorted(known.streams.items()):
            if stream.call is None or stream.call.path is None:
                nameless.append(stream)
                continue
            if stream.call.is_grpc is False:
                continue
            expected = stream_id // 2 + drifts[max(drifts)]
            allowed = bisect_left(starts, starts[newest] - CONCURRENT_NS) if newest >= 0 else 0
            for index in (expected, *range(allowed, len(calls))):
                if allowed <= index < len(calls) and index not in partner and _agree(log, calls[index], stream):
                    partner[index] = stream
                    newest, drifts[stream_id] = max(newest, index), index - stream_id // 2
                    break
            else:
                left.append(stream)
        named = list(drifts)
        for stream in nameless:
            before = named[bisect_left(named, stream.stream_id) - 1]  # 0 is always there
            index = stream.stream_id // 2 + drifts[before]
            if 0 <= index < len(calls) and index not in partner and _agree(log, calls[index], stream):
                partner[index] = stream
            else:
                left.append(stream)
    by_method: dict[str | None, deque[Stream]] = {}
    for stream in left:
        by_method.setdefault(_path(stream), deque()).append(stream)
    for index, call in enumerate(calls):
        if index not in partner and by_method.get(call.method):
            partner[index] = by_method[call.method].popleft()
        yield call, partner.get(index)
    for streams in by_method.values():
        yield from ((None, stream) for stream in streams)


def _path(stream: Stream) -> str | None:
    return None if stream.call is None else stream.call.path


def _agree(log: TrueLog, call: TrueCall, stream: Stream) -> bool:
    """Whether the stream contradicts the call in nothing."""
    if _path(stream) not in (None, call.method):
        return False
    return all(finding.verdict != WRONG for finding in _judge(log, _Pair(0, call, stream), None))


def _absent(log: TrueLog, call: TrueCall, connections: list[Known], first_ns: int | None) -> tuple[str, str]:
    """Why a call has no stream. `first_ns` is the start of the first one that has."""
    known = connections[-1]
    for one in connections:
        if call.start_ns <= one.last_ns:
            known = one
            break
    why = known.why[0] or known.why[1]
    if not known.whole:
        is_first = first_ns is None or call.start_ns < first_ns
        return UNKNOWN, BEFORE if is_first or why is None else why
    if log.side == "client" and not call.messages[Direction.SERVER_TO_CLIENT]:
        return UNKNOWN, NEVER_LEFT
    arrived_ns = call.start_ns if log.side == "server" else call.end_ns
    if not known.closed and (arrived_ns is None or arrived_ns > known.last_ns):
        return UNKNOWN, AFTER
    return WRONG, MISSING


def _claimed(log: TrueLog, pair: _Pair, unplaced: Counter[str], score: Score) -> Iterator[Finding]:
    """A stream that is no call of the log. A client knows all of its calls. A server knows those that reached it, so a
    call must have been answered by it to prove anything. Neither knows what came after its log, and the stream may be
    one of the calls (`unplaced`, by method) whose connection the log does not know."""
    stream = pair.stream
    assert stream is not None
    call = stream.call
    if call is None or call.path is None or call.start_ns > log.last_ns:
        is_proof = False
    elif unplaced[call.path]:
        unplaced[call.path] -= 1
        is_proof = False
    else:
        is_proof = log.side == "client" or call.status == 0 or bool(stream.halves[Direction.SERVER_TO_CLIENT].runs)
    if not is_proof:
        score.unproven += 1
    else:
        yield pair.finding(WRONG, NEVER_HAPPENED)


# --- what is said of one call


def _judge(log: TrueLog, pair: _Pair, score: Score | None) -> Iterator[Finding]:
    """`pair` has both."""
    call, stream = pair.call, pair.stream
    assert call is not None
    assert stream is not None
    verdict, reason, expected, found = _judge_call(log, call, stream)
    yield pair.finding(verdict, reason, expected=expected, found=found)
    for direction in Direction:
        yield from _judge_messages(log, pair, call, stream, direction, score)


def _judge_call(log: TrueLog, true: TrueCall, stream: Stream) -> tuple[str, str | None, Any, Any]:
    """Verdict, reason, what was expected, and what was found instead."""
    call = stream.call
    if call is None or call.path is None:
        return UNKNOWN, NO_METHOD, None, None
    if call.path != true.method:
        return WRONG, OTHER_METHOD, true.method, call.path
    if not true.has_end or (true.status is None and log.side == "server"):
        return RESOLVED, None, None, None  # the log says no more
    if call.status is None:
        return *_judge_no_status(log, true, call, stream), None, None
    if call.status != true.status:
        if log.side == "client" and true.status in _LOCAL:
            return UNKNOWN, OWN_STATUS, None, None
        return WRONG, OTHER_STATUS, true.status, call.status
    if true.sentence is None or (call.status_message or "") == true.sentence:
        return RESOLVED, None, None, None
    if call.status_message is None:
        return UNKNOWN, NO_SENTENCE, None, None
    if log.side == "client" and true.status in _LOCAL:  # the same status, in grpcio's own words
        return UNKNOWN, OWN_STATUS, None, None
    return WRONG, OTHER_SENTENCE, true.sentence, call.status_message


def _judge_no_status(log: TrueLog, true: TrueCall, call: Call, stream: Stream) -> tuple[str, str | None]:
    if log.side == "client" and true.status in _UNDONE.get(call.end, ()):
        return RESOLVED, None
    reasons = {"open": AFTER, "trailers": NO_STATUS, "trailers_only": NO_STATUS}
    return UNKNOWN, stream.halves[Direction.SERVER_TO_CLIENT].hole or reasons.get(call.end, NEVER_TRAVELLED)


def _judge_messages(
    log: TrueLog, pair: _Pair, call: TrueCall, stream: Stream, direction: Direction, score: Score | None
) -> Iterator[Finding]:
    half, truth = stream.halves[direction], call.messages[direction]
    is_sender = log.sent(direction)
    is_open = not call.has_end or (not is_sender and call.status != 0)

    def found(sequence: int, verdict: str, reason: str | None, said: Said | None = None) -> Finding:
        more: dict[str, Any] = {"time_ns": truth[sequence].time_ns, "packet": said and said.event.packet}
        if verdict == WRONG:
            more |= {"expected": truth[sequence].message, "found": said and said.message}
        return pair.finding(verdict, reason, kind="message", direction=direction, sequence=sequence + 1, **more)

    at = 0
    for number, (hole, run) in enumerate(half.runs, 1):
        start: int | None = at
        if hole is not None:
            is_last = number == len(half.runs) and not is_sender and _is_complete(half, stream)
            start = _place(run, truth, at, is_open, max(at, len(truth) - len(run)) if is_last else at)
        if start is None and is_open and score is not None:
            start = max(at, len(truth))  # what the log lacks may be all of it
        if start is None:
            for said in run:
                yield _never_happened(pair, direction, said)
            continue
        for sequence in range(at, min(start, len(truth))):
            yield found(sequence, UNKNOWN, hole)
        for sequence, said in enumerate(run, start):
            if sequence >= len(truth):
                if not is_open:
                    yield _never_happened(pair, direction, said)
                elif score is not None:
                    score.unproven += 1
            elif said.why is not None:
                yield found(sequence, UNKNOWN, said.why, said)
            elif not truth[sequence].is_known:
                yield found(sequence, UNKNOWN, NO_CONTENT, said)
            elif said.message == truth[sequence].message:
                yield found(sequence, RESOLVED, None, said)
            else:
                yield found(sequence, WRONG, DIFFERS, said)
        at = start + len(run)
    if at < len(truth):
        verdict, reason = _rest(half, stream, is_sender)
        for sequence in range(at, len(truth)):
            yield found(sequence, verdict, reason)


def _place(run: list[Said], truth: list[TrueMessage], at: int, is_open: bool, wanted: int) -> int | None:
    """Where a run lies in the truth, message by message: at `wanted`, or at the first place from `at` on. A truth that
    is open at its end may lack the rest of it."""
    for start in chain((wanted,), range(at, len(truth) + 1)):
        inside = truth[start : start + len(run)]
        if (len(inside) < len(run) and not is_open) or (not inside and start > at):
            return None
        pairs = zip(run, inside, strict=False)  # the truth's end may come first
        if all(_may_be(said, true) for said, true in pairs):
            return start
    return None


def _may_be(said: Said, true: TrueMessage) -> bool:
    return said.why is not None or not true.is_known or bool(said.message == true.message)


def _is_complete(half: Half, stream: Stream) -> bool:
    """Whether nothing can be behind the last run."""
    return half.hole is None and half.begun and (half.ended or (stream.call is not None and stream.call.end != "open"))


def _rest(half: Half, stream: Stream, is_sender: bool) -> tuple[str, str]:
    """Why the truth has more than the last run."""
    if not _is_complete(half, stream):
        return UNKNOWN, half.hole or AFTER
    return (UNKNOWN, NEVER_LEFT) if is_sender else (WRONG, MISSING)


def _never_happened(pair: _Pair, direction: Direction, said: Said) -> Finding:
    """A message that only the capture claims."""
    where: dict[str, Any] = {"direction": direction, "time_ns": said.event.time_ns, "packet": said.event.packet}
    return pair.finding(WRONG, NEVER_HAPPENED, kind="message", **where, found=said.message)
