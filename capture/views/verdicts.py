"""A score in words: a line for each call, what is wrong in full, and the sums by reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from capture.events import Direction
from capture.score import RESOLVED, UNKNOWN, VERDICTS, WRONG, Finding, Score
from capture.views.style import Paint
from kit.text import pad, visible, width
from kit.words import _, ngettext

MAX_CONTENT = 200
"""Characters shown of a message that is wrong."""
MAX_BEFORE = 40
"""Of them, before the first difference."""


def record(finding: Finding, logs: Sequence[str]) -> dict[str, Any]:
    """A finding for programs. `logs` are the logs' names."""
    where = finding.connection
    return {
        "verdict": finding.verdict,
        "reason": finding.reason,
        "kind": finding.kind,
        "log": logs[finding.log],
        "call": finding.call,
        "method": finding.method,
        "direction": None if finding.direction is None else finding.direction.label,
        "sequence": finding.sequence,
        "time_ns": finding.time_ns,
        "connection": None if where is None else where.number,
        "stream_id": finding.stream_id,
        "packet": finding.packet,
        "expected": finding.expected,
        "found": finding.found,
    }


def render(score: Score, logs: Sequence[str], paint: Paint) -> Iterator[str]:
    """The lines of a table."""
    calls: dict[tuple[int, int], list[Finding]] = {}
    for finding in score.findings:
        if finding.call is not None:
            calls.setdefault((finding.log, finding.call), []).append(finding)
    rows = [(_("log"), _("call"), _("method"), _("stream"), _("messages"), _("verdict"))]
    rows += [_row(logs[log], number, findings) for (log, number), findings in calls.items()]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    for index, row in enumerate(rows):
        line = "  ".join(map(pad, row, widths)).rstrip()
        yield paint.dim(line) if not index else line
    for finding in score.findings:
        if finding.verdict == WRONG:
            yield from ("", *_wrong(finding, logs))
    yield ""
    yield from _sums(score)


def _row(log: str, number: int, findings: list[Finding]) -> tuple[str, str, str, str, str, str]:
    call = next(finding for finding in findings if finding.kind == "call")
    messages = [finding for finding in findings if finding.kind == "message" and finding.sequence is not None]
    told = sum(finding.verdict == RESOLVED for finding in messages)
    why = Counter((finding.verdict, finding.reason) for finding in findings if finding.verdict != RESOLVED)
    parts = [_verdict(RESOLVED)] if call.verdict == RESOLVED and not why else []
    for (verdict, reason), count in sorted(why.items(), key=lambda item: item[0][0], reverse=True):
        part = _("{verdict}: {count} × {reason}")
        parts.append(part.format(verdict=_verdict(verdict), count=count, reason=reason and _(reason)))
    stream = "-" if call.connection is None else f"{call.connection.number}:{call.stream_id}"
    method = (call.method or "").rpartition("/")[2]
    return (
        visible(log),
        str(number),
        visible(method),
        stream,
        _("{told} of {all}").format(told=told, all=len(messages)),
        "; ".join(parts),
    )


def _wrong(finding: Finding, logs: Sequence[str]) -> Iterator[str]:
    where = [visible(logs[finding.log])]
    if finding.call is not None:
        where.append(_("call {number}").format(number=finding.call))
    if finding.connection is not None:
        place = _("connection {connection}, stream {stream}")
        where.append(place.format(connection=finding.connection.number, stream=finding.stream_id))
    if finding.direction is not None:
        arrow = Direction(finding.direction).arrow
        where.append(_("message {arrow} {number}").format(arrow=arrow, number=finding.sequence or "?"))
    if finding.packet is not None:
        where.append(_("packet {number}").format(number=finding.packet))
    yield f"{_verdict(WRONG)}: {' · '.join(where)}: {_(finding.reason or '')}"
    if finding.expected is not None or finding.found is not None:
        true, told = _content(finding.expected), _content(finding.found)
        pairs = zip(true, told, strict=False)
        same = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(true), len(told)))
        yield "  " + _("truth:   {content}").format(content=_clipped(true, same))
        yield "  " + _("capture: {content}").format(content=_clipped(told, same))


def _content(value: Any) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _clipped(text: str, same: int) -> str:
    """A part of a long text in which the first difference is."""
    start = 0 if same < MAX_CONTENT - MAX_BEFORE else same - MAX_BEFORE
    part = text[start : start + MAX_CONTENT]
    return f"{'…' if start else ''}{part}{'…' if start + len(part) < len(text) else ''}"


def _sums(score: Score) -> Iterator[str]:
    table: list[tuple[str, ...]] = [("", _("calls"), _("messages"))]
    for verdict in VERDICTS:
        table.append((_verdict(verdict), *(str(score.count(verdict, kind)) for kind in ("call", "message"))))
        reasons = dict.fromkeys(why for _kind, what, why in score.counts if what == verdict and why is not None)
        for reason in reasons:
            table.append(
                ("  " + _(reason), *(str(score.counts[kind, verdict, reason]) for kind in ("call", "message")))
            )
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    for what, *counts in table:
        cells = (count.rjust(most + 2) for count, most in zip(counts, widths[1:], strict=True))
        yield (pad(what, widths[0]) + "".join(cells)).rstrip()
    if score.unproven:
        words = ngettext(
            "{n} more in the capture: the logs cannot say whether it happened",
            "{n} more in the capture: the logs cannot say whether they happened",
            score.unproven,
        )
        yield words.format(n=score.unproven)
    yield ""
    yield summary(score)


def summary(score: Score) -> str:
    """One line."""
    resolved, unknown, wrong = map(score.count, VERDICTS)
    words = _("{all} calls and messages of the truth: {resolved} resolved, {unknown} unknown, {wrong} wrong")
    claims = sum(one.call is None or (one.kind == "message" and one.sequence is None) for one in score.findings)
    everything = resolved + unknown + wrong - claims
    return words.format(all=everything, resolved=resolved, unknown=unknown, wrong=wrong)


def _verdict(verdict: str) -> str:
    return {RESOLVED: _("resolved"), UNKNOWN: _("unknown"), WRONG: _("wrong")}[verdict]
