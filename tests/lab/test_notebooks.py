from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kit.bootstrap import ROOT
from kit.words import choose_language, language
from lab import notebooks

SECONDS = 60


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(notebooks, "WORK", tmp_path / "work")
    return tmp_path / "work"


def test_a_student_gets_copies_that_are_never_written_over(work: Path) -> None:
    choose_language("es")
    first = notebooks.own_copies()[0]
    assert first == work / "01_first_timeline.es.ipynb"
    assert first.read_bytes() == (ROOT / "notebooks" / "es" / "01_first_timeline.ipynb").read_bytes()
    first.write_text("mine", encoding="utf-8")
    assert notebooks.own_copies()[0].read_text(encoding="utf-8") == "mine"
    choose_language("en")
    assert notebooks.own_copies()[0].name == "01_first_timeline.en.ipynb"


def test_paths_in_the_copies_lead_where_they_lead_in_the_shipped_ones() -> None:
    assert notebooks.WORK.parent == (notebooks.FOLDER / "en").parent
    assert (notebooks.WORK.parent / "data" / "first_chat.pcap").exists()


def test_a_notebook_speaks_its_language_whatever_the_machine_s_is() -> None:
    notebooks.speak("es")
    assert language() == "es"
    notebooks.speak("en")
    assert language() == "en"


def page(address: str) -> str:
    """Once it is there: JupyterLab tells its address a moment before it listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with direct.open(address, timeout=SECONDS) as answer:
                assert answer.status == 200
                return str(answer.read().decode("utf-8"))
        except urllib.error.URLError:
            assert time.monotonic() < deadline


def test_jupyterlab_opens_the_first_notebook_and_asks_nobody_for_news(tmp_path: Path) -> None:
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(tmp_path / name.lower()) for name in folders}
    command = [sys.executable, "-m", "lab", "notebooks", "--no-browser", "--lang", "es"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stderr is not None
            address = next(found for line in process.stderr if (found := re.search(r"http://\S+token=\w+", line)))[0]
            assert "/lab/tree/work/01_first_timeline.es.ipynb?" in address
            assert "jupyter-config-data" in page(address)
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)
    settings = json.loads(Path(sys.prefix, "share", "jupyter", "lab", "settings", "overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
