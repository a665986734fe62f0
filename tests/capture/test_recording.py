"""What a tap leaves behind: bounded, whoever listens or does not. (The packets themselves are tested with the tap.)"""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

from capture.events import Packet
from capture.pcap import read
from capture.sources import recording as module
from capture.sources.recording import GATHER_NS, MAX_GATHERED, PACKET_COST, Recording


def recording(stream: io.BytesIO | None = None, key_log: Path | None = None) -> Recording:
    return Recording(stream, "here to there", "made by a test", key_log)


def add(recording: Recording, *octets: bytes) -> None:
    recording.add(octets)
    recording.publish()


def data_of(packets: list[Packet]) -> list[bytes]:
    return [packet.data for packet in packets]


def test_packets_are_numbered_and_their_times_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recording()
    for now in (100, 90, 95, 101):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        add(made, b"a", b"b")
    packets = made.packets(0)
    assert [packet.number for packet in packets] == list(range(1, 9))
    assert [packet.time_ns for packet in packets] == [100] * 6 + [101] * 2


def test_who_asks_late_gets_what_came_before() -> None:
    made = recording()
    add(made, b"a")
    add(made, b"b", b"c")
    assert data_of(made.packets()) == [b"a", b"b", b"c"]
    assert made.packets(0) == []


def test_when_nobody_asks_little_is_kept_and_who_asks_then_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNASKED", 2 * (PACKET_COST + 100))
    made = recording()
    for _ in range(10):
        add(made, bytes(100))
        assert len(made._waiting) <= 2
    assert made.dropped == 10
    assert made.packets(0) == []
    assert [problem.reason for problem in made.problems] == ["10 packets had passed before anybody asked for them"]
    add(made, b"now")
    assert [packet.number for packet in made.packets()] == [11]


def test_a_consumer_that_falls_behind_loses_the_newest_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3 * (PACKET_COST + 1))
    made = recording()
    assert made.packets(0) == []
    for octet in b"abcdef":
        add(made, bytes([octet]))
    assert made.dropped == 3
    assert data_of(made.packets()) == [b"a", b"b", b"c"]
    add(made, b"g")
    assert [packet.number for packet in made.packets()] == [7]
    made.close()
    assert [p.reason for p in made.problems] == ["3 packets came faster than they were taken, and were not shown"]


def test_packets_are_made_when_there_is_time_for_them_and_before_they_become_many() -> None:
    made = recording()
    assert not made.waits
    for _ in range(MAX_GATHERED - 1):
        made.add([b"a", b"b"])
    assert made.waits
    assert made.packets(0) == []
    made.add([b"c"])
    assert not made.waits
    assert len(made.packets(0)) == 2 * MAX_GATHERED - 1


def test_what_was_added_waits_for_milliseconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recording()
    made.add([b"a"])
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + GATHER_NS)
    assert not made.waits
    assert made.packets(0) == []
    made.publish()
    assert data_of(made.packets(0)) == [b"a"]


def test_a_problem_stands_behind_what_was_added_before_it() -> None:
    made = recording()
    made.add([b"a", b"b"])
    made.tell("trouble with {what}", what="the second")
    assert [(problem.packet, problem.reason) for problem in made.problems] == [(2, "trouble with the second")]


def test_who_waits_is_woken_by_a_packet_and_by_the_end() -> None:
    made = recording()
    got: list[list[Packet]] = []

    def consume() -> None:
        got.append(made.packets())
        got.append(made.packets())

    consumer = threading.Thread(target=consume)
    consumer.start()
    add(made, b"a")
    while not got:
        consumer.join(0.001)
    made.close()
    consumer.join()
    assert data_of(got[0]) == [b"a"]
    assert got[1] == []
    assert made.ended


def test_comments_stand_at_their_packets_in_the_file() -> None:
    stream = io.BytesIO()
    made = recording(stream)
    made.add([b"a", b"b"], "at b")
    made.add([b"c"])
    made.add([b"d"], "at d")
    made.publish()
    made.close()
    file = stream.getvalue()
    assert data_of([packet for batch in read(io.BytesIO(file)) for packet in batch]) == [b"a", b"b", b"c", b"d"]
    assert -1 < file.index(b"at b") < file.index(b"c\0\0\0") < file.index(b"at d")


def test_keys_stand_before_the_packets_that_need_them_and_only_new_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    log.write_bytes(b"# of another run\nCLIENT_RANDOM 0 0\n")
    stream = io.BytesIO()
    made = recording(stream, log)
    with log.open("ab", buffering=0) as lines:
        lines.write(b"# a comment\nCLIENT_RANDOM 1 1\nCLIENT_")
        add(made, b"first")
        lines.write(b"RANDOM 2 2\n")
        add(made, b"second")
        add(made, b"third")
    reader = read(io.BytesIO(stream.getvalue()))
    assert [data_of(batch) for batch in reader] == [[b"first", b"second", b"third"]]
    assert [secrets.data for secrets in reader.secrets] == [b"CLIENT_RANDOM 1 1\n", b"CLIENT_RANDOM 2 2\n"]
    file = stream.getvalue()
    assert (
        file.index(b"CLIENT_RANDOM 1") < file.index(b"first") < file.index(b"CLIENT_RANDOM 2") < file.index(b"second")
    )
