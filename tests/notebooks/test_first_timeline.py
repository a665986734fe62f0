"""The first notebook, executed in a kernel as JupyterLab would: on the shipped recording, and on one's own capture."""

from __future__ import annotations

import base64
import os
import struct
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import capture
from capture.events import Direction
from kit.words import LANGUAGES
from lab.bench import Bench
from notebooks.build import FOLDER

NAME = "01_first_timeline.ipynb"
RECORDING = FOLDER / "data" / "first_chat.pcap"
SECONDS = 120
ENOUGH_PIXELS = (1_000, 300)


@pytest.fixture(autouse=True)
def _kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Jupyter the machine has, and wherever it keeps things."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("LC_ALL", "C.UTF-8" if os.name != "nt" else "C")
    monkeypatch.delenv("MINICHAT_LANG")
    monkeypatch.delenv("MPLBACKEND")


def executed(language: str, file: Path | None = None) -> list[Any]:
    """The cells with their outputs; with a file, the line that names the capture is changed, and nothing else."""
    v4: Any = nbformat.v4  # nbformat has no types
    notebook = v4.reads((FOLDER / language / NAME).read_text(encoding="utf-8"))
    if file is not None:
        lines = [cell for cell in notebook.cells if '"../data/first_chat.pcap"\n' in cell.source]
        (cell,) = [cell for cell in lines if cell.cell_type == "code"]
        cell.source = cell.source.replace('"../data/first_chat.pcap"', repr(str(file)))
    resources = {"metadata": {"path": str(FOLDER / language)}}
    NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cells: list[Any]) -> str:
    return "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")


def pictures(cells: list[Any]) -> list[tuple[int, int]]:
    """Width and height of each PNG that was shown (PNG specification, IHDR)."""
    found = [output.data for cell in cells for output in cell.outputs if "data" in output]
    octets = [base64.b64decode(data["image/png"]) for data in found if "image/png" in data]
    return [struct.unpack(">II", png[16:24]) for png in octets]


def test_the_recording_is_a_chat_of_two_from_the_first_octet_on() -> None:
    seen = capture.read(RECORDING)
    assert not seen.problems
    assert not seen.synthesised
    assert len(seen.connections) == 2
    assert sorted(call.path.rpartition("/")[2] for call in seen.calls if call.path) == [
        *["Chat"] * 2,
        *["History"] * 2,
        *["Join"] * 2,
    ]
    assert {call.status for call in seen.calls} == {0}
    hola = [m for m in seen.messages if isinstance(m.message, dict) and m.message.get("text") == "Hola"]
    assert [m.direction for m in hola].count(Direction.CLIENT_TO_SERVER) == 1
    assert len(hola) == 3  # back to Juan, and in María's history
    assert len({frame.packet for frame in seen.frames}) < len(seen.frames)


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_lists_and_draws_the_recording(language: str) -> None:
    cells = executed(language)
    text = said(cells)
    for expected in ("⇄ 127.0.0.1:50051", "WINDOW_UPDATE", "ChatMessage", '"Hola"', "Juan", "María"):
        assert expected in text
    assert ("what it says" in text) is (language == "en")
    ((width, height),) = pictures(cells)
    assert (width, height) >= ENOUGH_PIXELS
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]


def test_one_line_changed_it_does_the_same_with_one_s_own_capture(tmp_path: Path) -> None:
    own = tmp_path / "own.pcapng"
    with Bench(write=own) as bench:
        eva, leo = bench.join("Eva"), bench.join("Leo")
        eva.say("¿Se ve?")
        leo.wait_until_heard("¿Se ve?")
    cells = executed("es", own)
    text = said(cells)
    for expected in ("Eva", "Leo", "¿Se", f"⇄ {bench.server.address}"):
        assert expected in text
    assert "María" not in text
    assert len(pictures(cells)) == 1
