"""What scapy's own HTTP/2 layer says, beside what we say."""

from __future__ import annotations

from pathlib import Path

import pytest

from capture.compare import Comparison, Reading, compared
from capture.events import Packet
from capture.sources.files import open_capture
from capture.sources.scapy_http2 import CUT, UNREADABLE, Scapy, name, traits
from tests.capture.engine_factory import UP, Tape, crowd, events_of, headers, ping, renumbered
from tests.capture.zoo import zoo


def beside(packets: list[Packet], *ports: int) -> Comparison:
    events = events_of(packets, ports=ports)
    reading = Reading()
    reading.feed(events)
    return compared(reading, Scapy().feed(events), name(), traits)


@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_captures_of_others_are_read_alike(vector: Path) -> None:
    with open_capture(vector) as packets:
        comparison = beside([packet for batch in packets for packet in batch])
    assert len(comparison.rows) >= 10
    assert comparison.differences == 0


def test_every_kind_of_frame_is_read_alike() -> None:
    comparison = beside(zoo(fragments=False).packets)
    assert comparison.other.startswith("scapy ")
    (row,) = [row for row in comparison.rows if row.verdict != "equal"]
    assert row.theirs is not None
    assert row.theirs.error == UNREADABLE  # octets that are no text
    assert "Huffman" in str(row.trait)


def test_a_block_that_is_cut_inside_a_field_loses_scapy_s_table() -> None:
    comparison = beside(zoo().packets)
    rows = [row for row in comparison.rows if row.differences]
    assert {row.frame.type_code for row in rows} == {1, 5, 9}
    assert {row.theirs.error for row in rows if row.theirs} == {CUT}
    assert all({one.column for one in row.differences} == {"fields"} for row in rows)
    assert all(row.trait is not None and "fragment" in row.trait for row in rows)


def test_an_entry_larger_than_its_table_is_asserted_against() -> None:
    block = b"\x82\x20\x40\x01a\x01b"  # a size update to 0, behind a field or not, then an insertion
    tape = Tape().talk().open().send(UP, headers(1, block[1:] + b"\x82") + ping()).tape
    comparison = beside(tape.packets)
    (row,) = [row for row in comparison.rows if row.differences]
    assert row.theirs is not None
    assert str(row.theirs.error).startswith("AssertionError")
    assert "RFC 7541 §4.4" in str(row.trait)
    assert row.ours is not None
    assert row.ours.content["fields"] == (("a", "b"), (":method", "GET"))


def test_a_late_start_is_an_error_of_scapy_s_and_explained() -> None:
    comparison = beside(renumbered(crowd(4, calls=6, seed=3).packets[60:]), 50051)
    assert comparison.counts["differing"] > 10
    assert comparison.explained == comparison.differences
    assert any("from before the capture" in str(row.trait) for row in comparison.rows)


def test_frames_that_are_not_whole_are_not_given_to_it() -> None:
    packets = renumbered([one for i, one in enumerate(crowd(4, calls=6, seed=3).packets) if i % 23 != 20])
    comparison = beside(packets, 50051)
    lacking = [row for row in comparison.rows if row.theirs is None]
    assert lacking
    assert all("octets are missing" in str(row.trait) for row in lacking)
    assert comparison.explained == comparison.differences
