"""Where a server listens, and the channel arguments of grpc-core that any model of it runs with."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

import grpc

from kit.options import host_port
from kit.words import _
from server.limits import MESSAGE_OCTETS

KEEPALIVE_SECONDS = 30.0
"""After so much silence of its connection a member is taken for gone."""
STOP_SECONDS = 2.0
"""What is left to calls for ending by themselves when the server stops."""
CLIENT_PING_SECONDS = 5.0
"""Clients may look whether the server still lives, but not more often: then GOAWAY with `too_many_pings`."""


class CannotListen(OSError):
    """The address cannot be listened on; the text is a sentence for people."""


def options(keepalive: float) -> list[tuple[str, Any]]:
    """A ping after two thirds of the silence, the rest for its answer. The second pair of limits is for processes that
    are frozen while their kernel still acknowledges."""
    timeout_ms = round(keepalive * 1000 / 3)
    return [
        ("grpc.so_reuseport", 0),  # else a second server on the same port would share its connections
        ("grpc.max_receive_message_length", MESSAGE_OCTETS),
        ("grpc.keepalive_time_ms", round(keepalive * 1000) - timeout_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(CLIENT_PING_SECONDS * 1000)),
    ]


def open_port(server: Any, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    """Makes a grpc.Server or grpc.aio.Server listen; without credentials in the clear. Returns the port. Raises
    CannotListen."""
    where = host_port(host, port)
    try:
        return int(server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where))
    except RuntimeError as error:
        raise CannotListen(why_not(host, port) or str(error)) from None


def why_not(host: str, port: int) -> str | None:
    """grpcio does not say why an address cannot be listened on; trying it oneself does."""
    try:
        (family, kind, protocol, _name, address), *_rest = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            probe.listen()
    except socket.gaierror:
        return _("There is no host {host}.").format(host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = _("Port {port} of {host} is in use. Choose another one with --port; --port 0 finds a free one.")
        elif error.errno == errno.EACCES:
            text = _("Port {port} of {host} is not allowed to this user. Choose one from 1024 on with --port.")
        elif error.errno == errno.EADDRNOTAVAIL:
            text = _("{host} is not an address of this machine.")
        else:
            text = _("The server cannot listen on port {port} of {host}: {reason}")
        return text.format(port=port, host=host, reason=error.strerror)
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name counts if all its addresses do; one that nobody knows does not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(address[0]) for *_what, address in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in found)
