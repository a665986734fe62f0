"""Where a server may listen, and what is said where it may not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its file names every option that there is

from kit.certificates import LabFiles, lab_certificate
from server import asynchronous, threaded
from server.listening import CannotListen, is_loopback, options, why_not
from tests.server.peers import Stub, failure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_this_machine_only(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid", ""])
def test_everything_else_counts_as_reachable(host: str) -> None:
    assert not is_loopback(host)


def test_the_keepalive_is_all_over_within_its_seconds() -> None:
    chosen = dict(options(30))
    assert chosen["grpc.keepalive_time_ms"] + chosen["grpc.keepalive_timeout_ms"] == 30_000
    assert dict(options(1))["grpc.keepalive_timeout_ms"] > 0


def test_grpc_core_knows_each_of_the_options() -> None:
    """What it does not know it ignores: clients that ping as they may were sent away with too_many_pings."""
    core = Path(cygrpc.__file__).read_bytes()
    unknown = [name for name, _value in options(30) if name.encode() + b"\0" not in core]
    assert not unknown


class TestWhyNot:
    def test_nothing_where_one_can_listen(self) -> None:
        assert why_not("127.0.0.1", 0) is None

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            assert why_not("127.0.0.1", port) == (
                f"Port {port} of 127.0.0.1 is in use. Choose another one with --port; --port 0 finds a free one."
            )

    def test_an_address_of_another_machine(self) -> None:
        assert why_not("192.0.2.1", 0) == "192.0.2.1 is not an address of this machine."

    def test_a_host_that_there_is_not(self) -> None:
        assert why_not("no-such-host.invalid", 0) == "There is no host no-such-host.invalid."

    @pytest.mark.parametrize(
        ("number", "sentence"),
        [
            (errno.EACCES, "Port 80 of 127.0.0.1 is not allowed to this user."),
            (errno.EMFILE, "The server cannot listen on port 80 of 127.0.0.1: Too many open files"),
        ],
    )
    def test_what_the_system_does_not_grant(self, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
        def refuse(_self: socket.socket, _address: object) -> None:
            raise OSError(number, "Too many open files")

        monkeypatch.setattr(socket.socket, "bind", refuse)
        assert (why_not("127.0.0.1", 80) or "").startswith(sentence)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> LabFiles:
    return lab_certificate(tmp_path_factory.mktemp("lab"), ["localhost", "127.0.0.1", "::1"])


@pytest.fixture
def credentials(files: LabFiles) -> grpc.ServerCredentials:
    octets = files.server.read_bytes()
    return grpc.ssl_server_credentials([(octets, octets)])


@pytest.mark.parametrize("serve", [threaded.serve, asynchronous.serve], ids=["threads", "asyncio"])
class TestOpenPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
    def test_over_tls_who_trusts_the_authority_gets_in(
        self, serve: Callable[..., Any], files: LabFiles, credentials: grpc.ServerCredentials, host: str
    ) -> None:
        trusted = grpc.ssl_channel_credentials(files.authority.read_bytes())
        with serve(host, credentials=credentials) as server, Stub(server.address, credentials=trusted) as stub:
            assert stub.join().session_token

    def test_in_the_clear_nobody_gets_in(self, serve: Callable[..., Any], credentials: grpc.ServerCredentials) -> None:
        with serve(credentials=credentials) as server, Stub(server.address) as stub:
            assert failure(stub.join)[0] is grpc.StatusCode.UNAVAILABLE

    def test_a_port_in_use_is_refused_over_tls_too(
        self, serve: Callable[..., Any], credentials: grpc.ServerCredentials
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(CannotListen, match="is in use"):
            serve(port=other.getsockname()[1], credentials=credentials)
