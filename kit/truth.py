"""What one end of a chat knows of its calls, as lines of JSON: what a capture of the same calls is scored against.

A log begins with a line that names its end, `{"record": "truth", "side": "server"}`, or `client`. Each call then has

    {"record": "call", "call": 1, "time_ns": …, "method": "/minichat.v1.ChatService/Chat"}
    {"record": "connection", "call": 1, "client": "127.0.0.1:40112"}
    {"record": "message", "call": 1, "direction": "client_to_server", "sequence": 1, "time_ns": …, "message": {…}}
    {"record": "end", "call": 1, "time_ns": …, "status": 0, "status_message": ""}

`sequence` counts from 1, in each direction of a call by itself; `message` is protobuf's JSON with the proto's field
names, 64-bit numbers as strings; null where the octets are not the message that the method takes; and left out where
what the method takes is not known here. `connection` says the client's side of the TCP connection, and is left out
where it cannot be told. The `status` is null where none was given: the other side cancelled, or the connection was
lost. Times are nanoseconds since the Unix epoch.

What a side was handed had arrived, and so had everything before it. What it sent it gave to gRPC, in this order; where
the call ended early, the last of that may never have left.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from functools import lru_cache
from typing import Any, Literal

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from kit.words import _

Side = Literal["server", "client"]
Way = Literal["client_to_server", "server_to_client"]

MAX_REMEMBERED = 256
MAX_REMEMBERED_OCTETS = 8 << 10
"""Messages whose JSON is kept, because a broadcast sends the same octets to many: 2 MiB of them at most."""


class Truth:
    """A log, which only its owner may read: session tokens are in it. Any thread may write, and each line is with the
    system when the call returns, so that a process that is killed loses none; at most the one that it was still writing
    is cut off. A line takes some ten microseconds, and the JSON of a message that is not one of the last some fifty
    more. Where the file cannot be written any more, one line on standard error says so, and calls go on without a
    log."""

    def __init__(self, path: str | os.PathLike[str], side: Side) -> None:
        """What was in the file is gone. Raises ValueError, whose text is a sentence, where it cannot be written."""
        self._path = os.fspath(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)  # Windows has text files
        try:
            self._file: int | None = os.open(path, flags, 0o600)
        except OSError as error:
            text = _("{file} cannot be written: {reason}")
            raise ValueError(text.format(file=self._path, reason=error.strerror)) from None
        self._lock = threading.Lock()
        self._calls = itertools.count(1)
        self.write({"record": "truth", "side": side})

    def call(self, method: str) -> TrueCall:
        """A call that begins now. `method` is `/package.Service/Method`."""
        return TrueCall(self, next(self._calls), method)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def write(self, record: dict[str, Any]) -> None:
        self.write_line(json.dumps(record, ensure_ascii=False))

    def write_line(self, line: str) -> None:
        octets = line.encode("utf-8", "replace") + b"\n"
        with self._lock:
            try:
                while octets and self._file is not None:
                    octets = octets[os.write(self._file, octets) :]
            except OSError as error:
                self._file = None
                text = _("{file} cannot be written, and the truth is not logged from here on: {reason}")
                print(text.format(file=self._path, reason=error.strerror), file=sys.stderr)


class TrueCall:
    """One call in a log."""

    def __init__(self, truth: Truth, number: int, method: str) -> None:
        self._truth = truth
        self._number = number
        self._method = method
        self._sent: dict[Way, int] = {"client_to_server": 0, "server_to_client": 0}
        self._has_ended = False
        truth.write({"record": "call", "call": number, "time_ns": time.time_ns(), "method": method})

    def connected(self, client: str) -> None:
        """`client`: `ip:port` of its side."""
        self._truth.write({"record": "connection", "call": self._number, "client": client})

    def message(self, way: Way, octets: bytes) -> None:
        """The next message of a direction, of which each is written by one thread at a time."""
        self._sent[way] = sequence = self._sent[way] + 1
        read = in_json if len(octets) <= MAX_REMEMBERED_OCTETS else in_json.__wrapped__
        message = read(self._method, way == "client_to_server", octets)
        message = message and f', "message": {message}'
        self._truth.write_line(
            f'{{"record": "message", "call": {self._number}, "direction": "{way}", "sequence": {sequence}, '
            f'"time_ns": {time.time_ns()}{message}}}'
        )

    def ended(self, status: int | None, sentence: str | None) -> None:
        """Only the first end counts."""
        if not self._has_ended:
            self._has_ended = True
            end = {"time_ns": time.time_ns(), "status": status, "status_message": sentence}
            self._truth.write({"record": "end", "call": self._number, **end})


@lru_cache(MAX_REMEMBERED)
def in_json(method: str, is_request: bool, octets: bytes) -> str:
    """A message in protobuf's JSON: `null` where it is not the method's, nothing where the method is not described."""
    try:
        described = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:
        return ""
    kind = message_factory.GetMessageClass(described.input_type if is_request else described.output_type)
    try:
        message = json_format.MessageToDict(kind.FromString(octets), preserving_proto_field_name=True)
    except DecodeError:
        return "null"
    except TypeError:  # an Any of a type that is not described
        return ""
    return json.dumps(message, ensure_ascii=False)
