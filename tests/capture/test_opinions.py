"""A file read twice, by us and by somebody else; in programs, in a running event loop, and in a notebook."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import capture
from capture.pcap import CaptureError
from capture.sources import opinions, tshark
from capture.sources.opinions import circumstances, compare_with
from tests.capture.engine_factory import crowd, renumbered, write_pcap
from tests.capture.zoo import zoo

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

FRAMES = 26
"""In the zoo."""


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("opinions") / "zoo.pcap", zoo().packets)


@needs_tshark
@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_wireshark_reads_the_captures_of_others_as_we_do(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "MAX_WITH_PYSHARK", 30)  # the shorter half through pyshark
    comparison = compare_with("wireshark", vector)
    assert len(comparison.rows) >= 10
    assert comparison.differences == 0


@needs_tshark
def test_a_short_capture_goes_through_pyshark_and_a_long_one_past_it(
    zoo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = compare_with("wireshark", zoo_file)
    monkeypatch.setattr(opinions, "MAX_WITH_PYSHARK", 3)
    long = compare_with("wireshark", zoo_file)
    assert ("pyshark" in short.other, "pyshark" in long.other) == (True, False)
    assert short.rows == long.rows
    assert short.counts == {"equal": len(short.rows)}


@needs_tshark
def test_a_capture_that_began_late_is_compared_on_a_named_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "MAX_WITH_PYSHARK", 0)  # slow
    path = write_pcap(tmp_path / "late.pcap", renumbered(crowd(4, calls=6, seed=3).packets[60:]))
    comparison = compare_with("wireshark", path, [50051])
    assert len(comparison.rows) > 100
    assert comparison.explained == comparison.differences


@needs_tshark
@pytest.mark.parametrize("other", ["wireshark", "scapy"])
def test_of_more_frames_than_are_kept_both_readings_end_at_the_same_packet(
    other: opinions.Other, zoo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capture.compare.MAX_FRAMES", 12)
    comparison = compare_with(other, zoo_file)
    assert comparison.is_cut
    assert max(row.frame.packet for row in comparison.rows) == max(
        row.ours.packet for row in comparison.rows if row.ours
    )


def test_circumstances_keep_no_frames_and_know_a_tap_s_files(zoo_file: Path) -> None:
    reading = circumstances(zoo_file)
    assert reading.frames == []
    assert reading.direct == {0: True}
    assert not reading.synthesised
    assert not reading.is_cut


def test_what_is_no_capture_is_said_by_us(tmp_path: Path) -> None:
    path = tmp_path / "no.pcap"
    path.write_text("nothing")
    with pytest.raises(CaptureError):
        compare_with("scapy", path)


def test_a_missing_tshark_is_said_before_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tshark.TsharkError):
        compare_with("wireshark", tmp_path / "there is none")


# -- notebooks ---------------------------------------------------------------------------------------------------------


@needs_tshark
def test_a_capture_is_compared_inside_a_running_event_loop(zoo_file: Path) -> None:
    async def cell() -> str:
        return repr(capture.read(zoo_file).compare())

    assert f"{FRAMES} equal · 0 differing" in asyncio.run(cell())


def test_a_comparison_has_a_table(zoo_file: Path) -> None:
    opinion = capture.read(zoo_file).compare("scapy")
    assert len(opinion.rows) == len(capture.read(zoo_file).frames)
    assert "PUSH_PROMISE" in opinion.table()
    assert opinion.table().splitlines()[-1] == repr(opinion)


def test_what_was_not_read_from_a_file_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="from a file"):
        capture.decode([zoo().packets]).compare()


@needs_tshark
def test_it_works_in_a_real_notebook(zoo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    v4: Any = nbformat.v4  # nbformat has no types
    code = f"import capture\nseen = capture.read({str(zoo_file)!r})\nseen.compare()"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert f"{FRAMES} equal · 0 differing" in notebook.cells[0].outputs[-1]["data"]["text/plain"]
