"""What PING frames are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from capture import pings
from capture.events import Event
from capture.pcap import read
from capture.pings import KEEPALIVE_SILENCE_NS, PingName, Pings, Purpose
from capture.pipeline import Pipeline
from tests.capture.factory import CLIENT, SERVER, Talk

RANDOM = bytes.fromhex("dcaf28716cf17116")
OTHER = bytes.fromhex("b45c9f12fae32cc6")
BDP, KEEPALIVE, SHUTDOWN = Purpose.BDP_ESTIMATE, Purpose.KEEPALIVE, Purpose.GRACEFUL_SHUTDOWN


def names(events: list[Event]) -> list[PingName]:
    return [name for _, name in Pings().feed(events)]


def purposes(events: list[Event]) -> list[Purpose | None]:
    return [name.purpose for name in names(events)]


@pytest.mark.parametrize(
    ("payload", "purpose", "implementation"),
    [
        ("0204 1010 090e 0707", BDP, "grpc-go"),
        ("0000 0000 0000 0000", KEEPALIVE, "grpc-go"),
        ("0106 0108 0003 0309", SHUTDOWN, "grpc-go"),
        ("0000 0000 0000 04d2", BDP, "grpc-java"),
        ("0000 0000 0000 dead", KEEPALIVE, "grpc-java"),
        ("0000 0009 7ace f001", SHUTDOWN, "grpc-java"),
    ],
)
def test_payloads_that_are_always_the_same_tell_purpose_and_implementation(
    payload: str, purpose: Purpose, implementation: str
) -> None:
    talk = Talk()
    talk.begin()
    talk.ping(CLIENT, bytes.fromhex(payload))
    assert names(talk.events) == [PingName(purpose, implementation, False, None, None)]


def test_an_answer_has_its_question_s_purpose_and_the_time_between() -> None:
    talk = Talk()
    talk.begin()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    talk.ping(SERVER, RANDOM)
    talk.ping(CLIENT, OTHER)
    talk.ping(CLIENT, RANDOM, ack=True)
    assert names(talk.events) == [
        PingName(BDP, None, False, None, None),
        PingName(None, None, False, None, None),
        PingName(BDP, None, True, 6, 2_000_000),
    ]


def test_an_answer_whose_question_came_before_the_capture_is_told_by_its_payload() -> None:
    talk = Talk(whole=False)
    talk.ping(CLIENT, bytes.fromhex("020410 10090e0707"), ack=True)
    talk.ping(CLIENT, RANDOM, ack=True)
    assert names(talk.events) == [
        PingName(BDP, "grpc-go", True, None, None),
        PingName(None, None, True, None, None),
    ]


def test_both_sides_may_ask_with_the_same_octets() -> None:
    talk = Talk()
    talk.ping(CLIENT, RANDOM)
    talk.ping(CLIENT, RANDOM, ack=True)
    assert [name.question for name in names(talk.events)] == [None, None]


def test_random_octets_that_follow_data_measure() -> None:
    talk = Talk()
    talk.begin()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    talk.window_update(SERVER, 0, 1)
    talk.ping(SERVER, RANDOM)
    talk.ping(SERVER, OTHER)
    assert purposes(talk.events) == [BDP, None]


def test_data_that_the_sender_sent_itself_is_nothing_to_measure() -> None:
    talk = Talk()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    talk.ping(CLIENT, RANDOM)
    assert purposes(talk.events) == [None]


def test_random_octets_after_a_silence_ask_whether_anybody_is_there() -> None:
    talk = Talk()
    talk.begin()
    talk.request(1)
    talk.ping(SERVER, RANDOM, after_ns=KEEPALIVE_SILENCE_NS)
    talk.ping(CLIENT, RANDOM, ack=True)
    talk.ping(SERVER, OTHER, after_ns=KEEPALIVE_SILENCE_NS - 1_000_000)
    talk.ping(CLIENT, OTHER, ack=True)
    talk.ping(SERVER, RANDOM, after_ns=1_000_000)
    assert purposes(talk.events) == [KEEPALIVE, KEEPALIVE, KEEPALIVE, KEEPALIVE, None]


def test_after_a_silence_that_followed_data_nothing_tells_a_measurement_from_a_keepalive() -> None:
    talk = Talk()
    talk.begin()
    talk.request(1)
    talk.data(CLIENT, 1, b"x")
    talk.ping(SERVER, RANDOM, after_ns=2 * KEEPALIVE_SILENCE_NS)
    assert purposes(talk.events) == [None]


def test_random_octets_behind_a_graceful_goaway_ask_whether_it_arrived() -> None:
    talk = Talk()
    talk.begin()
    talk.goaway(SERVER, 2**31 - 1)
    talk.ping(CLIENT, OTHER)
    talk.ping(SERVER, RANDOM)
    talk.ping(CLIENT, RANDOM, ack=True)
    talk.goaway(SERVER, 5)
    talk.ping(SERVER, OTHER)
    assert purposes(talk.events) == [None, SHUTDOWN, SHUTDOWN, None]


def test_connections_do_not_mix_and_start_over_when_they_end() -> None:
    one, two = Talk(0), Talk(1)
    one.ping(CLIENT, RANDOM)
    two.ping(SERVER, RANDOM, ack=True)
    one.finish(CLIENT, "reset")
    one.ping(SERVER, RANDOM, ack=True)
    assert [name.question for name in names([*one.events[:1], *two.events, *one.events[1:]])] == [None, None, None]


def test_questions_that_nobody_answers_are_forgotten_in_time() -> None:
    talk = Talk()
    for i in range(pings.MAX_UNANSWERED + 1):
        talk.ping(CLIENT, i.to_bytes(8))
    talk.ping(SERVER, (0).to_bytes(8), ack=True)
    talk.ping(SERVER, (1).to_bytes(8), ack=True)
    assert [name.question for name in names(talk.events)[-2:]] == [None, 1]


def test_a_ping_whose_octets_are_missing_is_a_ping() -> None:
    talk = Talk()
    talk.frame(CLIENT, 6, RANDOM, lost=True)
    talk.frame(SERVER, 6, RANDOM, flags=1, lost=True)
    assert names(talk.events) == [PingName(None, None, False, None, None), PingName(None, None, True, None, None)]


@pytest.mark.vectors("third_party/packt-grpc-go/*.pcapng")
def test_grpc_go_s_pings_measure_and_each_is_answered(vector: Path) -> None:
    pipeline = Pipeline()
    events: list[Event] = []
    with vector.open("rb") as stream:
        for batch in read(stream):
            events += pipeline.feed(batch)
    found = names(events + pipeline.finish())
    assert {(name.purpose, name.implementation) for name in found} == {(BDP, "grpc-go")}
    assert sum(name.is_answer for name in found) == sum(not name.is_answer for name in found) > 0
