"""Numbers, octets and times as people read them, in the language in force."""

from __future__ import annotations

from kit.words import _, language

_MARKS = {"en": (",", "."), "es": ("\u00a0", ",")}
"""Between thousands, and before decimals. Spanish writes a (no-break) space, and none in numbers of four digits (RAE,
Ortografía, Los números)."""
MIB, KIB = 1 << 20, 1 << 10
SECOND, MILLISECOND, MINUTE, HOUR = 10**9, 10**6, 60, 3600


def number(n: int) -> str:
    """4,194,304"""
    between, _mark = _MARKS[language()]
    if between != "," and abs(n) < 10_000:
        return str(n)
    return f"{n:,}".replace(",", between)


def decimal(value: float, digits: int) -> str:
    """With so many digits behind the mark."""
    between, mark = _MARKS[language()]
    whole, dot, rest = f"{value:,.{digits}f}".partition(".")
    if between != "," and len(whole.lstrip("-")) < 6:
        between = ""
    return whole.replace(",", between) + (mark if dot else "") + rest


def milliseconds(ns: int) -> str:
    return decimal(ns / MILLISECOND, 2)


def octets(n: int) -> str:
    """Powers of two as such where nothing is lost by it: `4 MiB`, `16 KiB`, `65,535 octets`."""
    if n >= MIB and n % MIB == 0:
        return f"{number(n // MIB)} MiB"
    if n >= KIB and n % KIB == 0:
        return f"{number(n // KIB)} KiB"
    return _("{n} octets").format(n=number(n))


def duration(ns: int) -> str:
    """Two or three digits that count: `0.31 ms`, `412 ms`, `3.2 s`, `2 min 5 s`, `1 h 4 min`."""
    if ns < 10 * MILLISECOND:
        return f"{decimal(ns / MILLISECOND, 2 if ns < MILLISECOND else 1)} ms"
    if round(ns / MILLISECOND) < 1000:
        return f"{round(ns / MILLISECOND)} ms"
    if round(ns / SECOND, 1) < MINUTE:
        return f"{decimal(ns / SECOND, 1)} s"
    seconds = round(ns / SECOND)
    if seconds < HOUR:
        return f"{seconds // MINUTE} min {seconds % MINUTE} s"
    return f"{number(seconds // HOUR)} h {seconds % HOUR // MINUTE} min"
