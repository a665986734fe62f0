"""The client's own record of its calls (kit.truth): a channel that hands every call on to another one and notes it.

grpcio's client interceptors see requests and responses, but not as octets, and a streaming call that one of them hands
on loses half of what its caller may ask it. So this is the channel itself: each call is made with serialisers of its
own, and what the caller gets back is grpcio's own call.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Callable
from typing import Any, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the one way to channelz, which knows our own address

from kit.truth import TrueCall, Truth


def recorded(channel: grpc.Channel, truth: Truth) -> grpc.Channel:
    """The channel, whose calls are logged; it must be the one that was made last."""
    return cast(grpc.Channel, _Channel(channel, truth))


class _Channel:
    """As much of a grpc.Channel as stubs ask for."""

    def __init__(self, channel: grpc.Channel, truth: Truth) -> None:
        self.channel = channel
        self._own_address = _OwnAddress(_newest_channel())
        self._truth = truth

    def unary_unary(self, method: str, *codecs: Any, **options: Any) -> _Method:
        return _Method(self, self.channel.unary_unary, method, *codecs, **options)

    def unary_stream(self, method: str, *codecs: Any, **options: Any) -> _Method:
        return _Method(self, self.channel.unary_stream, method, *codecs, **options)

    def stream_unary(self, method: str, *codecs: Any, **options: Any) -> _Method:
        return _Method(self, self.channel.stream_unary, method, *codecs, **options)

    def stream_stream(self, method: str, *codecs: Any, **options: Any) -> _Method:
        return _Method(self, self.channel.stream_stream, method, *codecs, **options)

    def close(self) -> None:
        self.channel.close()

    def begin(self, method: str) -> _Noted:
        return _Noted(self._truth.call(method), self._own_address)


class _Noted:
    """A call, and its connection: the one that there is when the first response comes. Where none comes it is, for a
    call that may have waited for long, the one that there was when its first request left."""

    def __init__(self, call: TrueCall, own_address: _OwnAddress) -> None:
        self._call = call
        self._own_address = own_address
        self._has_begun = False
        self._address: str | None = None
        self._is_placed = False

    def sent(self, octets: bytes, may_last: bool) -> None:
        if may_last and not self._has_begun:
            self._has_begun = True
            self._address = self._own_address.now()
        self._call.message("client_to_server", octets)

    def received(self, octets: bytes) -> None:
        if not self._is_placed:
            self._place(self._own_address.now() or self._address)
        self._call.message("server_to_client", octets)

    def over(self, call: Any) -> None:
        if not self._is_placed:
            self._place(self._address or self._own_address.now())
        code = call.code()
        self._call.ended(None if code is None else code.value[0], call.details())

    def _place(self, address: str | None) -> None:
        self._is_placed = True
        if address is not None:
            self._call.connected(address)


class _Method:
    """What a stub calls."""

    def __init__(
        self,
        channel: _Channel,
        make: Callable[..., Any],
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **options: Any,
    ) -> None:
        self._channel = channel
        self._make = make
        self._method = method
        self._write, self._read = request_serializer, response_deserializer
        self._options = options
        self._streams = make in (channel.channel.unary_stream, channel.channel.stream_stream)
        """Whether the responses are a stream: then what is called returns the call, and calls may last."""

    def __call__(self, request: Any, *arguments: Any, **options: Any) -> Any:
        noted, underlying = self._begin()
        if self._streams:
            call = underlying(request, *arguments, **options)
            call.add_done_callback(noted.over)
            return call
        try:
            response, call = underlying.with_call(request, *arguments, **options)
        except grpc.RpcError as error:
            noted.over(error)
            raise
        noted.over(call)
        return response

    def future(self, request: Any, *arguments: Any, **options: Any) -> Any:
        noted, underlying = self._begin()
        call = underlying.future(request, *arguments, **options)
        call.add_done_callback(noted.over)
        return call

    def _begin(self) -> tuple[_Noted, Any]:
        noted = self._channel.begin(self._method)

        def serialise(request: Any) -> bytes:
            octets = self._write(request)
            noted.sent(octets, self._streams)
            return octets

        def deserialise(octets: bytes) -> Any:
            noted.received(octets)
            return self._read(octets)

        return noted, self._make(self._method, serialise, deserialise, **self._options)


class _OwnAddress:
    """`ip:port` of a channel's own end. gRPC tells it through channelz alone, in thirds of milliseconds: one for the
    connection that is known already, three for another."""

    def __init__(self, channel_id: int) -> None:
        self._channel_id = channel_id
        self._known: tuple[int, int, str] | None = None
        """Subchannel, socket, address."""

    def now(self) -> str | None:
        """Of the connection that there is; None where there is none, or several."""
        known = self._known
        if known is not None and _referred(cygrpc.channelz_get_subchannel, known[0], "subchannel", "socket") == [
            known[1]
        ]:
            return known[2]
        found = [
            (subchannel, socket, address)
            for subchannel in _referred(cygrpc.channelz_get_channel, self._channel_id, "channel", "subchannel")
            for socket in _referred(cygrpc.channelz_get_subchannel, subchannel, "subchannel", "socket")
            if (address := _local(socket)) is not None
        ]
        self._known = found[0] if len(found) == 1 else None
        return None if self._known is None else self._known[2]


def _newest_channel() -> int:
    """channelz numbers channels in the order in which they are made."""
    newest = 0
    while True:
        page = json.loads(cygrpc.channelz_get_top_channels(newest + 1))
        newest = max([newest, *(int(channel["ref"]["channelId"]) for channel in page.get("channel", ()))])
        if page.get("end"):
            return newest


def _described(get: Callable[[int], bytes], number: int, kind: str) -> dict[str, Any]:
    """What channelz says of something; {} where that is gone."""
    try:
        described: dict[str, Any] = json.loads(get(number))[kind]
    except ValueError:
        return {}
    return described


def _referred(get: Callable[[int], bytes], number: int, kind: str, to: str) -> list[int]:
    """The numbers of what it refers to."""
    return [int(reference[f"{to}Id"]) for reference in _described(get, number, kind).get(f"{to}Ref", ())]


def _local(socket: int) -> str | None:
    address = _described(cygrpc.channelz_get_socket, socket, "socket").get("local", {}).get("tcpipAddress")
    if address is None:
        return None
    ip = ipaddress.ip_address(base64.b64decode(address["ipAddress"]))
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return f"[{ip}]:{address['port']}" if ip.version == 6 else f"{ip}:{address['port']}"
