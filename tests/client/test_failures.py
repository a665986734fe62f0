"""What failed calls mean to people. The texts of grpc-core are those that it gave in real calls."""

from __future__ import annotations

import grpc
import pytest

from client.failures import Refused, ServerLost, judged, never_spoke


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


CONNECT = "failed to connect to all addresses; last error: "


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        (
            f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
            "There is no server at host:1.",
        ),
        (
            "errors resolving host:1: [field:hostname lookup error:address lookup failed for host:1: Domain name not "
            "found]",
            "There is no host of that name: host:1.",
        ),
        (
            f"{CONNECT}INTERNAL: ipv4:127.0.0.1:1: Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, "
            "got frame type 80) (Trying to connect an http1.x server (HTTP status 400))",
            "What answers at host:1 speaks HTTP/1, and gRPC needs HTTP/2.",
        ),
        (f"{CONNECT}No route to host", f"The server host:1 cannot be reached ({CONNECT}No route to host)."),
        ("Stream removed (Socket closed)", "The connection to host:1 is lost (Stream removed (Socket closed))."),
        ("The server is stopping.", "The connection to host:1 is lost (The server is stopping)."),
        ("\x1b[31mred", "The connection to host:1 is lost (·[31mred)."),
    ],
)
def test_a_server_that_cannot_be_had_is_worth_another_attempt(details: str, sentence: str) -> None:
    problem = judged(Failed(grpc.StatusCode.UNAVAILABLE, details), "host:1", 5)
    assert isinstance(problem, ServerLost)
    assert str(problem) == sentence


HANDSHAKE = f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:"


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        (
            f"{HANDSHAKE}100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification "
            "context: OK",
            "What answers at host:1 does not speak TLS; leave out --tls and --ca.",
        ),
        (
            f"{HANDSHAKE}1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer "
            "certificate: OK",
            "Nobody whom this client trusts has signed the certificate of host:1; --ca FILE says whom to trust.",
        ),
        (
            f"{HANDSHAKE}1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "The certificate of host:1 has expired.",
        ),
        (
            f"{HANDSHAKE}1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate is not yet "
            "valid: OK",
            "The certificate of host:1 is not valid yet, by this machine's clock.",
        ),
        (
            f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: Custom verification check failed with error: UNAUTHENTICATED: "
            "Hostname Verification Check failed.",
            "The certificate of host:1 is for other names than that.",
        ),
    ],
)
def test_tls_that_will_never_come_about_is_not_worth_another_attempt(details: str, sentence: str) -> None:
    problem = judged(Failed(grpc.StatusCode.UNAVAILABLE, details), "host:1", 5)
    assert isinstance(problem, Refused)
    assert str(problem) == sentence


@pytest.mark.parametrize(
    ("details", "never"),
    [
        (f"{CONNECT}UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", True),
        (f"{CONNECT}UNAVAILABLE: ipv4:127.0.0.1:1: recvmsg:Connection reset by peer", True),
        (f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused", False),
        ("Socket closed", False),
        (None, False),
    ],
)
def test_who_closes_without_a_word_of_http_2_may_have_waited_for_tls(details: str | None, never: bool) -> None:
    assert never_spoke(Failed(grpc.StatusCode.UNAVAILABLE, details)) is never


def test_one_that_is_late_too() -> None:
    problem = judged(Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), "host:1", 5)
    assert isinstance(problem, ServerLost)
    assert str(problem) == "The server host:1 did not answer within 5 seconds."


def test_a_deadline_of_the_servers_own_is_its_answer() -> None:
    problem = judged(Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "You said nothing."), "host:1", None)
    assert isinstance(problem, Refused)
    assert str(problem) == "You said nothing."


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_one_or_the_other_and_exhausted_resources_are_an_answer(code: grpc.StatusCode) -> None:
    lost = {"CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"}
    problem = judged(Failed(code, None), "host:1", 5)
    assert isinstance(problem, ServerLost if code.name in lost else Refused)
    assert str(problem)


def test_a_refusal_is_the_servers_own_sentence_made_safe_to_show() -> None:
    problem = judged(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "All taken.\x1b[2J"), "host:1", 5)
    assert str(problem) == "All taken.·[2J"
