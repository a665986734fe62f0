"""What a call that failed means to people: a sentence, and whether another attempt makes sense."""

from __future__ import annotations

from typing import Any

import grpc

from kit.text import visible
from kit.words import _

RETRIED = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
"""What connections and servers that break leave behind. Any other status is an answer, RESOURCE_EXHAUSTED above all."""


class ServerLost(Exception):
    """Another attempt makes sense. The text is a sentence for people."""


class Refused(Exception):
    """The server's answer. The text is a sentence for people."""


def no_answer(server: str, seconds: float) -> ServerLost:
    text = _("The server {server} did not answer within {seconds:g} seconds.")
    return ServerLost(text.format(server=server, seconds=seconds))


def judged(error: Any, server: str, seconds: float) -> ServerLost | Refused:
    """`error` is the grpc.RpcError of a call to `server` that had to be answered within so many seconds."""
    code, details = error.code(), visible(error.details() or "")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused(_("What answers at {server} is a gRPC server, but not a mini chat.").format(server=server))
    if code not in RETRIED:
        return Refused(details or code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_answer(server, seconds)
    if "Connection refused" in details:
        text = _("There is no server at {server}.")
    elif details.startswith("errors resolving"):
        text = _("There is no host of that name: {server}.")
    elif "http1.x" in details:
        text = _("What answers at {server} speaks HTTP/1, and gRPC needs HTTP/2.")
    elif details.startswith("failed to connect"):
        text = _("The server {server} cannot be reached ({reason}).")
    else:
        text = _("The connection to {server} is lost ({reason}).")
    return ServerLost(text.format(server=server, reason=details.rstrip(".")))
