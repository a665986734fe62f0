"""What failed calls mean to people. The texts of grpc-core are those that it gave in real calls."""

from __future__ import annotations

import grpc
import pytest

from client.failures import Refused, ServerLost, judged


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


def test_one_that_is_late_too() -> None:
    problem = judged(Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), "host:1", 5)
    assert isinstance(problem, ServerLost)
    assert str(problem) == "The server host:1 did not answer within 5 seconds."


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_one_or_the_other_and_exhausted_resources_are_an_answer(code: grpc.StatusCode) -> None:
    lost = {"ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"}
    problem = judged(Failed(code, None), "host:1", 5)
    assert isinstance(problem, ServerLost if code.name in lost else Refused)
    assert str(problem)


def test_a_refusal_is_the_servers_own_sentence_made_safe_to_show() -> None:
    problem = judged(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "All taken.\x1b[2J"), "host:1", 5)
    assert str(problem) == "All taken.·[2J"
