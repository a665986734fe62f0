"""Captures from a file or from standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from capture.pcap import CaptureError, Reader, read
from kit.words import _

STANDARD_INPUT = "-"


@contextmanager
def open_capture(path: str | os.PathLike[str]) -> Iterator[Reader]:
    """The capture at `path`, or on standard input if that is `-`, as batches of packets.

        with open_capture("chat.pcapng") as packets:
            for batch in packets:
                …

    What arrives on standard input is handed on as it arrives: `tcpdump -U -w - | …` is followed live.

    Raises:
        CaptureError: no such file, no right to read it, or (from the first batch on) no capture. Its message says why:
            `PATH: message`.
    """
    with _open(path) as stream:
        yield read(stream)


def is_regular(stream: IO[Any] | None) -> bool:
    """Whether it is a file, all of which is there, and no pipe or terminal."""
    try:
        return stream is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    if os.fspath(path) == STANDARD_INPUT:
        if sys.stdin is None:  # pythonw on Windows
            raise CaptureError(_("there is no standard input"))
        yield cast(
            BinaryIO, getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        )  # unbuffered: a read takes what is there
        return
    try:
        stream = Path(path).open("rb", buffering=0)  # noqa: SIM115 - only errors of opening are caught; closed below
    except FileNotFoundError:
        raise CaptureError(_("there is no such file")) from None
    except IsADirectoryError:
        raise CaptureError(_("it is a folder, not a file")) from None
    except PermissionError:
        raise CaptureError(_("you have no right to read it")) from None
    except OSError as error:  # a name too long, a device that is not there
        raise CaptureError(_("it cannot be opened: {reason}").format(reason=error.strerror)) from None
    except ValueError:  # a null octet
        raise CaptureError(_("that is no file name")) from None
    with stream:
        yield stream
