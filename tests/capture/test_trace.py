"""The trace: well formed as its format demands, and saying what the other views say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from capture import command
from capture.output import selection
from capture.pcap import Writer
from capture.protobuf import Schema
from capture.views import trace
from capture.views.trace import Trace, TraceEvent
from tests.capture.engine_factory import (
    DOWN,
    ETHERNET,
    UP,
    Tape,
    chat,
    crowd,
    data,
    events_of,
    headers,
    message,
    rst_stream,
)

Made = list[dict[str, Any]]


def written(tape: Tape, path: Path) -> Path:
    with path.open("wb") as file:
        Writer(file, ETHERNET).write(tape.packets)
    return path


def exported(path: Path, *options: str) -> dict[str, Any]:
    out = path.with_suffix(".json")
    assert command.main(["export", str(path), "-o", str(out), "--lang", "en", *options]) == 0
    loaded: dict[str, Any] = json.loads(out.read_bytes())
    return loaded


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three connections at once, with four calls each."""
    return written(crowd(3, 4), tmp_path_factory.mktemp("trace") / "crowd.pcapng")


def of(events: Iterable[TraceEvent], **wanted: str) -> Made:
    return [event for event in events if all(event.get(name) == value for name, value in wanted.items())]


def assert_well_formed(events: Made) -> None:
    """What the format asks for, and viewers refuse or draw wrong where it is missing."""
    for event in events:
        assert event["ph"] in set("XsfCiM")
        assert isinstance(event["pid"], int)
        assert event["ph"] == "M" or event["ts"] >= 0
    for slices in by_thread(of(events, ph="X")).values():
        open_until: list[float] = []
        for start, end in sorted(((one["ts"], one["ts"] + one["dur"]) for one in slices), key=lambda s: (s[0], -s[1])):
            assert end > start
            while open_until and open_until[-1] <= start + 1e-6:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + 1e-6, "slices overlap, and neither lies in the other"
            open_until.append(end)
    starts, ends = ({one["id"]: one for one in of(events, ph=ph)} for ph in "sf")
    assert len(starts) == len(of(events, ph="s"))
    assert len(ends) == len(of(events, ph="f"))
    assert starts.keys() == ends.keys()
    for identity, start in starts.items():
        assert start["ts"] <= ends[identity]["ts"]
        assert start["tid"] != ends[identity]["tid"]
        for end in (start, ends[identity]):  # an arrow that lies in no slice is not drawn
            assert any(
                one["ts"] < end["ts"] < one["ts"] + one["dur"] for one in by_thread(of(events, ph="X"))[end["tid"]]
            )
    named = [(event["pid"], event["tid"], event["name"]) for event in of(events, ph="M")]
    assert len(set(named)) == len(named)
    assert {event["tid"] for event in of(events, ph="X")} <= {tid for _pid, tid, name in named if name == "thread_name"}


def by_thread(slices: Made) -> dict[int, Made]:
    threads: dict[int, Made] = {}
    for one in slices:
        threads.setdefault(one["tid"], []).append(one)
    return threads


def test_a_crowd_s_trace_is_well_formed_and_complete(crowded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = exported(crowded)
    events = made["traceEvents"]
    assert_well_formed(events)
    frames = [one["args"] for one in of(events, cat="frame")]
    command.main(["frames", str(crowded), "--format", "jsonl"])
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert sorted(
        frames, key=lambda one: (one["packet"], one["connection"], one["direction"], one["offset"])
    ) == sorted(expected, key=lambda one: (one["packet"], one["connection"], one["direction"], one["offset"]))
    assert made["otherData"] == {"start_ns": made["otherData"]["start_ns"], "synthesised": False, "frames_left_out": 0}
    for kind, records in (("calls", of(events, cat="call")), ("messages", of(events, ph="X", cat="message"))):
        command.main([kind, str(crowded), "--format", "jsonl"])
        lines = capsys.readouterr().out.splitlines()
        assert Counter(json.dumps(one["args"], sort_keys=True) for one in records) == Counter(
            json.dumps(json.loads(line), sort_keys=True) for line in lines
        )


def test_times_are_microseconds_with_their_nanoseconds(crowded: Path) -> None:
    made = exported(crowded)
    for one in of(made["traceEvents"], cat="frame"):
        late = one["ts"] * 1000 - (one["args"]["time_ns"] - int(made["otherData"]["start_ns"]))
        assert -0.01 < late < 20_000  # those of one instant stand side by side


def test_processes_are_connections_and_threads_are_ends_of_streams(crowded: Path) -> None:
    events = exported(crowded)["traceEvents"]
    processes = [one["args"]["name"] for one in of(events, ph="M", name="process_name")]
    assert [name.split(" · ")[0] for name in processes] == ["connection 0", "connection 1", "connection 2"]
    threads = {one["args"]["name"] for one in of(events, ph="M", name="thread_name")}
    assert {"connection · client", "connection · server"} <= threads
    assert any(name.startswith("stream 1 · ") and name.endswith(" · client") for name in threads)


def test_an_arrow_goes_from_the_sender_s_frame_to_the_other_end(crowded: Path) -> None:
    events = exported(crowded, "--connection", "0", "--stream", "1")["traceEvents"]
    names = {one["tid"]: one["args"]["name"].rpartition(" · ")[2] for one in of(events, ph="M", name="thread_name")}
    found = [
        (names[start["tid"]], names[end["tid"]])
        for start, end in zip(of(events, ph="s"), of(events, ph="f"), strict=True)
    ]
    assert ("client", "server") in found
    assert ("server", "client") in found


def test_windows_are_counters(crowded: Path) -> None:
    events = exported(crowded)["traceEvents"]
    counters = of(events, ph="C")
    assert {"window → connection", "window ← connection"} <= {one["name"] for one in counters}
    assert all(isinstance(one["args"]["octets"], int) for one in counters)


def test_trouble_and_the_end_of_a_connection_are_instants(tmp_path: Path) -> None:
    talk = Tape().talk().open().send(UP, headers(1, b"\x82\x84", flags=4) + data(1, message(b"\x0a\x04Juan")))
    talk.send(DOWN, rst_stream(1)).send(UP, b"\0\0\4\x08\0\0\0\0\1\0\0\0\0")
    events = exported(written(talk.tape, tmp_path / "a.pcapng"))["traceEvents"]
    assert_well_formed(events)
    [problem] = of(events, ph="i", cat="problem")
    assert problem["args"]["layer"] == "http2"
    assert problem["args"]["reason"]
    assert problem["s"] in "tp"


def test_a_late_start_is_well_formed_too() -> None:
    packets = chat(5).packets
    for start in range(3, len(packets) - 1, 7):
        made = Trace(Schema.default())
        events = events_of(packets[start:], ports={50051})
        listed = [*made.feed(events), *made.finish()]
        assert_well_formed(listed)


def test_what_no_viewer_can_show_is_left_out_and_told(
    crowded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace, "MAX_STREAMS", 4)
    made = exported(crowded)
    assert_well_formed(made["traceEvents"])
    shown = len(of(made["traceEvents"], cat="frame"))
    left_out = made["otherData"]["frames_left_out"]
    told = capsys.readouterr().out
    assert f"{left_out} frames more are left out" in told
    monkeypatch.setattr(trace, "MAX_EVENTS", 30)
    few = exported(crowded)
    assert_well_formed(few["traceEvents"])
    assert len(of(few["traceEvents"], cat="frame")) + few["otherData"]["frames_left_out"] == shown + left_out


def test_only_what_was_asked_for_is_shown(crowded: Path) -> None:
    made = Trace(Schema.default(), selection(1, 3))
    events = events_of(crowd(3, 4).packets)
    listed = [*made.feed(events), *made.finish()]
    assert {event["pid"] for event in listed} == {2}
    assert {one["args"]["name"].split(" · ")[0] for one in of(listed, ph="M", name="thread_name")} == {"stream 3"}


@pytest.mark.parametrize(
    ("out", "status", "said"),
    [("nowhere/t.json", 3, "cannot be written"), ("SAME", 2, "would be overwritten")],
)
def test_where_nothing_can_be_written_is_said_in_one_line(
    out: str, status: int, said: str, crowded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = crowded.read_bytes()
    name = str(crowded) if out == "SAME" else str(crowded.parent / out)
    assert command.main(["export", str(crowded), "-o", name, "--lang", "en"]) == status
    shown = capsys.readouterr()
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert crowded.read_bytes() == before


def test_a_capture_without_frames_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(Tape(), tmp_path / "empty.pcapng")
    assert command.main(["export", str(path), "-o", str(tmp_path / "t.json"), "--lang", "en"]) == 1
    assert "no HTTP/2 frames to export" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()
