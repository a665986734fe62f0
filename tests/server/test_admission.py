"""Who has a place, without a wire."""

from __future__ import annotations

import grpc

from server.admission import Admission
from server.contract import Refusal

STOPPING = Refusal(grpc.StatusCode.UNAVAILABLE, "Good night.")


def test_so_many_chats_are_admitted_and_a_place_is_free_when_one_is_over() -> None:
    admission: Admission[str] = Admission(chats=2, connections=10)
    assert [admission.admit(call, "peer") for call in "ab"] == [None, None]
    refusal = admission.admit("c", "peer")
    assert refusal == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "All 2 places for chatting are taken; try again when somebody has left.",
    )
    for _ in range(2):
        admission.discharge("a")
    assert admission.admit("c", "peer") is None
    assert admission.admit("d", "peer") is not None


def test_a_connection_counts_once_until_its_last_chat_is_over() -> None:
    admission: Admission[str] = Admission(chats=None, connections=1)
    assert [admission.admit(call, "one") for call in "ab"] == [None, None]
    admission.discharge("a")
    assert admission.admit("c", "two") is not None
    admission.discharge("b")
    assert admission.admit("c", "two") is None


def test_closed_it_admits_nobody_and_tells_who_is_there() -> None:
    admission: Admission[str] = Admission(chats=None, connections=10)
    admission.admit("a", "peer")
    assert admission.close(STOPPING) == ["a"]
    assert admission.admit("b", "peer") == STOPPING
    admission.discharge("a")
    assert admission.close(STOPPING) == []
