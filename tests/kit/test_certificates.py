"""Certificates for a lab, and the judgement of those that are given: with openssl's own eyes (Python's ssl)."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from kit import certificates
from kit.certificates import (
    CertificateError,
    LabFiles,
    lab_certificate,
    own_names,
    problem_with_authorities,
    problem_with_pair,
    system_authorities,
)

NAMES = ("localhost", "127.0.0.1", "::1")


def greeted(files: LabFiles, name: str) -> None:
    """A TLS handshake between two memory buffers, with a client that trusts the authority and asks for the name."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(files.server)
    client_side = ssl.create_default_context(cafile=files.authority)
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


class TestLab:
    @pytest.mark.parametrize("name", NAMES)
    def test_who_trusts_the_authority_trusts_the_server_under_each_name(self, tmp_path: Path, name: str) -> None:
        files = lab_certificate(tmp_path, NAMES)
        assert files.names == NAMES
        greeted(files, name)

    def test_under_another_name_nobody_trusts_it(self, tmp_path: Path) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            greeted(lab_certificate(tmp_path, NAMES), "example.org")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
    def test_private_keys_are_their_owner_s_alone_and_the_authority_s_certificate_is_for_all(
        self, tmp_path: Path
    ) -> None:
        files = lab_certificate(tmp_path / "made" / "too", NAMES)
        modes = {file.name: file.stat().st_mode & 0o777 for file in files.authority.parent.iterdir()}
        assert modes == {"ca.pem": 0o644, "ca-secret.pem": 0o600, "server.pem": 0o600}
        assert b"PRIVATE" not in files.authority.read_bytes()

    def test_what_can_be_used_again_is(self, tmp_path: Path) -> None:
        first = lab_certificate(tmp_path, NAMES)
        octets = first.server.read_bytes(), first.authority.read_bytes()
        again = lab_certificate(tmp_path, ("127.0.0.1",))
        assert again == first
        assert (again.server.read_bytes(), again.authority.read_bytes()) == octets

    def test_a_new_name_makes_a_new_certificate_from_the_same_authority(self, tmp_path: Path) -> None:
        authority = lab_certificate(tmp_path, NAMES).authority.read_bytes()
        files = lab_certificate(tmp_path, ("other", "192.0.2.7"))
        assert files.names == ("other", "192.0.2.7")
        assert files.authority.read_bytes() == authority
        greeted(files, "other")

    def test_a_server_s_certificate_about_to_expire_is_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(certificates, "SERVER_DAYS", certificates.RENEWED_DAYS)
        first = lab_certificate(tmp_path, NAMES)
        old, authority = first.server.read_bytes(), first.authority.read_bytes()
        monkeypatch.undo()
        assert lab_certificate(tmp_path, NAMES).server.read_bytes() != old
        assert first.authority.read_bytes() == authority

    def test_with_the_authority_both_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(certificates, "AUTHORITY_DAYS", certificates.RENEWED_DAYS)
        first = lab_certificate(tmp_path, NAMES)
        old, authority = first.server.read_bytes(), first.authority.read_bytes()
        monkeypatch.undo()
        files = lab_certificate(tmp_path, NAMES)
        assert files.authority.read_bytes() != authority
        assert files.server.read_bytes() != old
        greeted(files, "localhost")

    def test_an_authority_s_file_that_was_lost_or_exchanged_comes_back(self, tmp_path: Path) -> None:
        files = lab_certificate(tmp_path, NAMES)
        authority = files.authority.read_bytes()
        files.authority.write_bytes(b"another")
        assert lab_certificate(tmp_path, NAMES).authority.read_bytes() == authority

    def test_servers_that_start_at_once_agree_on_one_authority(self, tmp_path: Path) -> None:
        start, made = threading.Barrier(4), []

        def make() -> None:
            start.wait()
            made.append(lab_certificate(tmp_path, NAMES))

        threads = [threading.Thread(target=make) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 4
        greeted(made[0], "localhost")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["ca-secret.pem", "ca.pem", "server.pem"]

    @pytest.mark.parametrize("name", ["ca-secret.pem", "server.pem"])
    def test_what_somebody_else_put_there_is_not_overwritten(self, tmp_path: Path, name: str) -> None:
        lab_certificate(tmp_path, NAMES)
        (tmp_path / name).write_text("my notes")
        with pytest.raises(CertificateError, match=f"{name} is not as it was made here; remove it"):
            lab_certificate(tmp_path, NAMES)
        assert (tmp_path / name).read_text() == "my notes"

    def test_a_folder_that_cannot_be_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            CertificateError, match=r"The certificates cannot be kept in .*file/folder: Not a directory"
        ):
            lab_certificate(tmp_path / "file" / "folder", NAMES)

    def test_the_server_s_certificate_signs_nothing_itself(self, tmp_path: Path) -> None:
        certificate = x509.load_pem_x509_certificate(lab_certificate(tmp_path, NAMES).server.read_bytes())
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        assert certificate.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=23)


class TestOwnNames:
    def test_they_are_this_machine_s(self) -> None:
        names = own_names()
        assert names[:3] == ["localhost", "127.0.0.1", "::1"]
        assert socket.gethostname() in names
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(
        ("host", "name"),
        [("chat.example.org", "chat.example.org"), ("192.0.2.9", "192.0.2.9"), ("fd00:0::9", "fd00::9")],
    )
    def test_the_host_that_is_listened_on_is_among_them(self, host: str, name: str) -> None:
        assert own_names(host)[-1] == name

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "niño", "a b"])
    def test_what_no_certificate_can_hold_is_not(self, host: str) -> None:
        assert own_names(host) == own_names()


def key_with_password() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


class TestGiven:
    @pytest.fixture
    def files(self, tmp_path: Path) -> LabFiles:
        return lab_certificate(tmp_path, NAMES)

    def test_a_pair_that_fits(self, files: LabFiles) -> None:
        assert problem_with_pair(files.server, files.server) is None

    def test_two_that_do_not(self, files: LabFiles, tmp_path: Path) -> None:
        other = lab_certificate(tmp_path / "other", NAMES).server
        sentence = f"The private key in {other} is not that of the certificate in {files.server}."
        assert problem_with_pair(files.server, other) == sentence

    def test_a_certificate_where_the_key_should_be(self, files: LabFiles) -> None:
        sentence = f"There is no certificate in {files.server}, or no private key in {files.authority}."
        assert problem_with_pair(files.server, files.authority) == sentence

    def test_a_key_with_a_password_is_said_and_not_asked_for(self, files: LabFiles, tmp_path: Path) -> None:
        key = tmp_path / "key.pem"
        key.write_bytes(key_with_password())
        sentence = f"The private key in {key} has a password; the server needs it without."
        assert problem_with_pair(files.authority, key) == sentence

    def test_files_that_are_not_there_or_something_else(self, files: LabFiles, tmp_path: Path) -> None:
        missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
        wrong.write_bytes(b"\x30\x82DER")
        assert problem_with_pair(missing, files.server) == f"There is no file {missing}."
        assert problem_with_pair(files.server, wrong) == (
            f"{wrong} is not PEM: there is no line in it that begins with -----BEGIN."
        )
        assert problem_with_authorities(tmp_path) == f"{tmp_path} cannot be read: Is a directory"

    def test_authorities(self, files: LabFiles, tmp_path: Path) -> None:
        assert problem_with_authorities(files.authority) is None
        key = tmp_path / "key.pem"
        key.write_bytes(key_with_password())
        assert problem_with_authorities(key) == f"There is no certificate in {key}."


class TestSystemAuthorities:
    def test_the_system_s_file_and_folder_are_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """OpenSSL's own variables tell where they are."""
        one, two = (lab_certificate(tmp_path / name, NAMES).authority.read_text() for name in ("one", "two"))
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "0123abcd.0").write_text(two)
        (folder / "01234567.0").symlink_to(tmp_path / "nowhere")
        (folder / "notes.txt").write_text("nothing to read")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one" / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        assert (system_authorities() or b"").decode() in (one + two, two + one)

    def test_none_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.setenv(name, str(tmp_path / "nowhere"))
        assert system_authorities() is None
