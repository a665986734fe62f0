"""Sessions over TLS, with real servers: who gets in, and what those are told at once who never will."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from client.events import Ended, How
from client.security import credentials, speaks_tls
from client.session import Session
from kit import certificates
from kit.certificates import LabFiles, lab_certificate
from server.threaded import RunningServer, serve
from tests.client.wires import DEADLINE, OWN_CONNECTION, Book

NAMES = ("localhost", "127.0.0.1", "::1")


def served(files: LabFiles) -> RunningServer:
    octets = files.server.read_bytes()
    return serve(credentials=grpc.ssl_server_credentials([(octets, octets)]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> LabFiles:
    return lab_certificate(tmp_path_factory.mktemp("lab"), NAMES)


@pytest.fixture(scope="module")
def server(files: LabFiles) -> Iterator[RunningServer]:
    with served(files) as running:
        yield running


def ended(address: str, trusted: grpc.ChannelCredentials | None) -> Ended:
    """How a session ends that would seek a lost server for longer than the test waits."""
    book = Book()
    session = Session(
        address, "Juan", "general", tell=book, patience=10 * DEADLINE, credentials=trusted, options=OWN_CONNECTION
    )
    with session:
        assert session.join(DEADLINE), book.events
    last = book.events[-1]
    assert isinstance(last, Ended)
    assert len(book.events) == 1  # it did not try again
    return last


def test_who_trusts_the_authority_comes_in(server: RunningServer, files: LabFiles) -> None:
    book = Book()
    trusted = credentials(files.authority)
    with Session(server.address, "Juan", "general", tell=book, credentials=trusted, options=OWN_CONNECTION) as juan:
        juan.say("Hola")
        assert book.wait_for_texts(1) == ["Hola"]
        assert juan.who() == ["Juan"]


def test_whom_the_system_trusts_is_trusted(
    server: RunningServer, files: LabFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
    book = Book()
    with Session(server.address, "Juan", "general", tell=book, credentials=credentials(None), options=OWN_CONNECTION):
        book.wait_for(lambda events: bool(events))
    assert book.others[:-1] == []


def test_a_stranger_s_signature_is_told_at_once(server: RunningServer, tmp_path: Path) -> None:
    other = lab_certificate(tmp_path, NAMES).authority
    sentence = (
        f"Nobody whom this client trusts has signed the certificate of {server.address}; --ca FILE says whom to trust."
    )
    assert ended(server.address, credentials(other)) == Ended(How.REFUSED, sentence, 0)


def test_another_name_is_told_at_once(tmp_path: Path) -> None:
    elsewhere = lab_certificate(tmp_path, ["elsewhere"])
    with served(elsewhere) as server:
        sentence = f"The certificate of {server.address} is for other names than that."
        assert ended(server.address, credentials(elsewhere.authority)) == Ended(How.REFUSED, sentence, 0)


def test_a_certificate_that_has_expired_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "SERVER_DAYS", -certificates.CLOCK_DAYS / 2)
    old = lab_certificate(tmp_path, NAMES)
    with served(old) as server:
        sentence = f"The certificate of {server.address} has expired."
        assert ended(server.address, credentials(old.authority)) == Ended(How.REFUSED, sentence, 0)


def test_a_server_that_waits_for_tls_is_told_at_once(server: RunningServer) -> None:
    sentence = (
        f"The server {server.address} speaks TLS: --ca FILE says whose certificates to trust, "
        "--tls trusts the system's."
    )
    assert ended(server.address, None) == Ended(How.REFUSED, sentence, 0)


def test_a_server_that_speaks_no_tls_is_told_at_once(files: LabFiles) -> None:
    with serve() as plain:
        sentence = f"What answers at {plain.address} does not speak TLS; leave out --tls and --ca."
        assert ended(plain.address, credentials(files.authority)) == Ended(How.REFUSED, sentence, 0)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        credentials(tmp_path / "missing.pem")


class TestSpeaksTls:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_who_greets_back_does(self, server: RunningServer, host: str) -> None:
        assert speaks_tls(f"{host}:{server.port}")

    def test_a_server_in_the_clear_does_not(self) -> None:
        with serve() as plain:
            assert not speaks_tls(plain.address)

    def test_who_closes_does_not(self) -> None:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            closing = threading.Thread(target=lambda: listener.accept()[0].close())
            closing.start()
            assert not speaks_tls(f"[::1]:{listener.getsockname()[1]}")
            closing.join()

    def test_nobody_does_not(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert not speaks_tls(f"127.0.0.1:{port}")
