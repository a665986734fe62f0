"""Where a server may listen, and what is said where it may not."""

from __future__ import annotations

import errno
import socket

import pytest

from server.listening import address, is_loopback, options, why_not


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_this_machine_only(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid", ""])
def test_everything_else_counts_as_reachable(host: str) -> None:
    assert not is_loopback(host)


def test_an_ipv6_address_stands_in_brackets_before_its_port() -> None:
    assert address("::1", 50051) == "[::1]:50051"
    assert address("localhost", 50051) == "localhost:50051"


def test_the_keepalive_is_all_over_within_its_seconds() -> None:
    chosen = dict(options(30))
    assert chosen["grpc.keepalive_time_ms"] + chosen["grpc.keepalive_timeout_ms"] == 30_000
    assert dict(options(1))["grpc.keepalive_timeout_ms"] > 0


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
