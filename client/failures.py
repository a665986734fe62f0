"""What a call that failed means to people: a sentence, and whether another attempt makes sense."""

from __future__ import annotations

from typing import Any

import grpc

from kit.text import visible
from kit.words import N_, _

RETRIED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
"""What connections and servers that break leave behind. Any other status is an answer: RESOURCE_EXHAUSTED above all,
and ABORTED, after which coming back would take the place of where this session went on."""

HOPELESS = (
    ("WRONG_VERSION_NUMBER", N_("What answers at {server} does not speak TLS; leave out --tls and --ca.")),
    ("certificate has expired", N_("The certificate of {server} has expired.")),
    ("certificate is not yet valid", N_("The certificate of {server} is not valid yet, by this machine's clock.")),
    (
        "CERTIFICATE_VERIFY_FAILED",
        N_("Nobody whom this client trusts has signed the certificate of {server}; --ca FILE says whom to trust."),
    ),
    ("Hostname Verification Check", N_("The certificate of {server} is for other names than that.")),
)
"""What grpc-core says of connections over TLS that will not come about however often they are tried, and what it
means. The first that fits."""


class ServerLost(Exception):
    """Another attempt makes sense. The text is a sentence for people."""


class Refused(Exception):
    """The server's answer. The text is a sentence for people."""


def no_answer(server: str, seconds: float) -> ServerLost:
    text = _("The server {server} did not answer within {seconds:g} seconds.")
    return ServerLost(text.format(server=server, seconds=seconds))


def never_spoke(error: Any) -> bool:
    """Whether somebody took the connection and closed it without a word of HTTP/2: as a server does who waits for
    TLS."""
    details = error.details() or ""
    return details.startswith("failed to connect") and ("Socket closed" in details or "reset by peer" in details)


def waits_for_tls(server: str) -> Refused:
    text = _("The server {server} speaks TLS: --ca FILE says whose certificates to trust, --tls trusts the system's.")
    return Refused(text.format(server=server))


def judged(error: Any, server: str, seconds: float | None) -> ServerLost | Refused:
    """`error` is the grpc.RpcError of a call to `server` that had to be answered within so many seconds; None: it had
    all the time that it wanted, and DEADLINE_EXCEEDED is the server's own answer."""
    code, details = error.code(), visible(error.details() or "")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused(_("What answers at {server} is a gRPC server, but not a mini chat.").format(server=server))
    if code not in RETRIED:
        return Refused(details or code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refused(details) if seconds is None else no_answer(server, seconds)
    for part, sentence in HOPELESS:
        if part in details:
            return Refused(_(sentence).format(server=server))
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
