"""Certificates: one for a lab, made on the spot, and whether those that somebody gives can be used.

For a lab, `lab_certificate` keeps three files in a folder:

    ca.pem         the certificate of a certification authority of this folder's own: clients get it, and trust it
    ca-secret.pem  the same with its private key, which signs
    server.pem     the server's certificate and its private key

What can be used again is: the authority until it expires, so that clients need its file only once; the server's
certificate until it expires or has to hold a name that it lacks. A certificate and its key share a file, which is put
in its place whole, so that two servers that start at once never mix theirs.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from kit.bootstrap import ROOT
from kit.words import _

if TYPE_CHECKING:  # loaded where it is needed, as ssl is: most runs of a program do without
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FOLDER = ROOT / "certificates"
"""Where a lab's certificates are, unless somebody says another place. Git ignores it."""
FILES = ("ca.pem", "ca-secret.pem", "server.pem")
AUTHORITY_DAYS = 730
"""Two courses."""
SERVER_DAYS = 365
RENEWED_DAYS = 14
"""What is valid for less than that is made anew, so that nothing expires in the middle of a course."""
CLOCK_DAYS = 1
"""How far other machines' clocks may be behind."""

_HASHED = re.compile(r"[0-9a-f]{8}\.\d")
"""A file of a folder of trusted authorities, named after its subject as OpenSSL wants it."""


class CertificateError(Exception):
    """The message is one sentence for people."""


class LabFiles(NamedTuple):
    authority: Path
    """What clients trust: `ca.pem`."""
    server: Path
    """The server's certificate and private key."""
    names: tuple[str, ...]
    """Names and addresses under which the server's certificate may be met."""


def lab_certificate(folder: Path, names: Iterable[str]) -> LabFiles:
    """The files in `folder`, made where there are none that can be used. Raises CertificateError."""
    authority, secret, server = (folder / name for name in FILES)
    wanted = tuple(dict.fromkeys(names))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        signer = _read(secret)
        if signer is None or not _lasts(signer.certificate):
            _write(secret, _new_authority(), replaces=signer is not None)
            signer = _read(secret)  # perhaps another process's, which was faster
            assert signer is not None
        public = _pem(signer.certificate)
        if not authority.exists() or authority.read_bytes() != public:
            _put(authority, public, mode=0o644)
        own = _read(server)
        if own is None or not _lasts(own.certificate) or not _signed_by(own, signer) or set(wanted) - set(own.names()):
            own = _new_server(signer, wanted)
            _write(server, own)
    except OSError as error:
        text = _("The certificates cannot be kept in {folder}: {reason}")
        raise CertificateError(text.format(folder=folder, reason=error.strerror)) from None
    return LabFiles(authority, server, tuple(own.names()))


def own_names(host: str = "") -> list[str]:
    """Names and addresses under which this machine may be met, and `host`, unless that stands for all addresses."""
    name = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", name]
    if "." not in name:
        names.append(f"{name}.local")  # as multicast DNS gives it to a classroom without a server for names
    with contextlib.suppress(OSError):
        names += [str(address[0]) for *_what, address in socket.getaddrinfo(name, None)]
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, RFC 3849
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anywhere, 9))  # sends nothing, but chooses the address that packets would leave from
            names.append(str(probe.getsockname()[0]))
    return list(dict.fromkeys(filter(None, map(_as_certified, [*names, host]))))


def problem_with_choice(made: Path | None, certificate: Path | None, key: Path | None) -> str | None:
    """Why --tls, --tls-cert and --tls-key do not go together; None where they do."""
    if made is not None and certificate is not None:
        return _("--tls makes a certificate and --tls-cert names one; one of the two is enough")
    if key is not None and certificate is None:
        return _("--tls-key is the key of a certificate, which --tls-cert names")
    return None


def problem_with_pair(certificate: Path, key: Path) -> str | None:
    """Why a server cannot use the two PEM files, as a sentence; None where it can."""
    for file in (certificate, key):
        problem = _problem_with_pem(file)
        if problem is not None:
            return problem
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _HasPasswordError:
        return _("The private key in {file} has a password; the server needs it without.").format(file=key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = _("The private key in {key} is not that of the certificate in {certificate}.")
            return text.format(key=key, certificate=certificate)
        text = _("There is no certificate in {certificate}, or no private key in {key}.")
        return text.format(certificate=certificate, key=key)
    return None


def problem_with_authorities(file: Path) -> str | None:
    """Why nobody can be trusted by the PEM file, as a sentence; None where somebody can."""
    problem = _problem_with_pem(file)
    if problem is not None:
        return problem
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return _("There is no certificate in {file}.").format(file=file)
    return None


def system_authorities() -> bytes | None:
    """Whom this system trusts, in PEM (grpcio itself knows a list of its own only). None where none were found."""
    import ssl

    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    if folder is not None:  # OpenSSL would look into it when it meets a certificate
        for file in sorted(Path(folder).iterdir()):
            if _HASHED.fullmatch(file.name):
                with contextlib.suppress(OSError):  # ssl.SSLError is one; a link to nowhere
                    context.load_verify_locations(file)
    return "".join(map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))).encode() or None


class _HasPasswordError(Exception):
    pass


def _refuse_password() -> NoReturn:
    """OpenSSL would ask for it in the terminal."""
    raise _HasPasswordError


def _problem_with_pem(file: Path) -> str | None:
    try:
        octets = file.read_bytes()
    except FileNotFoundError:
        return _("There is no file {file}.").format(file=file)
    except OSError as error:
        return _("{file} cannot be read: {reason}").format(file=file, reason=error.strerror)
    if b"-----BEGIN " not in octets:
        return _("{file} is not PEM: there is no line in it that begins with {marker}.").format(
            file=file, marker="-----BEGIN"
        )
    return None


def _as_certified(name: str) -> str:
    """How a certificate holds it; empty for what none can hold."""
    try:
        address = ipaddress.ip_address(name.partition("%")[0])  # fe80::1%eth0: the interface is this machine's business
    except ValueError:
        return name if re.fullmatch(r"[A-Za-z0-9_.-]+", name) else ""
    return "" if address.is_unspecified else str(address)


# One certificate and its key


class _Pair(NamedTuple):
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    def names(self) -> list[str]:
        from cryptography import x509

        try:
            alternative = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return []
        return [str(name.value) for name in alternative]


def _new_authority() -> _Pair:
    from cryptography import x509

    key = _new_key()
    name = _name(f"gRPC wire lab CA, {socket.gethostname()}")
    certificate = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(_signed(certificate, key), key)


def _new_server(signer: _Pair, names: Iterable[str]) -> _Pair:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = _new_key()
    alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
    public = signer.key.public_key()
    certificate = (
        _builder(_name(socket.gethostname()), signer.certificate.subject, key, SERVER_DAYS)
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return _Pair(_signed(certificate, signer.key), key)


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:64])])  # RFC 5280: ub-common-name


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=CLOCK_DAYS))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(certificate: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return certificate.sign(key, hashes.SHA256())


def _lasts(certificate: x509.Certificate) -> bool:
    now = datetime.datetime.now(datetime.UTC)
    return certificate.not_valid_after_utc - now > datetime.timedelta(days=RENEWED_DAYS)


def _signed_by(pair: _Pair, signer: _Pair) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        pair.certificate.verify_directly_issued_by(signer.certificate)
    except (InvalidSignature, ValueError):
        return False
    return True


# In files


def _read(file: Path) -> _Pair | None:
    """None where there is no such file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        octets = file.read_bytes()
    except FileNotFoundError:
        return None
    with contextlib.suppress(ValueError, TypeError):  # TypeError: the key has a password
        certificate, key = x509.load_pem_x509_certificate(octets), load_pem_private_key(octets, password=None)
        if isinstance(key, EllipticCurvePrivateKey):
            return _Pair(certificate, key)
    text = _("{file} is not as it was made here; remove it, and a new one is made.")
    raise CertificateError(text.format(file=file))


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _write(file: Path, pair: _Pair, replaces: bool = True) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _put(file, _pem(pair.certificate) + key, mode=0o600, replaces=replaces)


def _put(file: Path, octets: bytes, *, mode: int, replaces: bool = True) -> None:
    """Whole or not at all. Without `replaces` a file that has come to be there meanwhile stays."""
    handle, name = tempfile.mkstemp(dir=file.parent)  # for its owner alone, from the beginning
    try:
        with open(handle, "wb") as new:
            new.write(octets)
        os.chmod(name, mode)
        if replaces:
            os.replace(name, file)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(name, file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
