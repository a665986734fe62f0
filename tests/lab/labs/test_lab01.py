from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from capture.views.style import Paint
from kit.words import choose_language
from lab.attempt import Run
from lab.figures import Screen
from lab.labs import lab01

SCREEN = Screen(78, Paint(False))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    choose_language("en")
    folder = tmp_path_factory.mktemp("lab01")
    paths = {name: folder / f"{name}.pcapng" for name in lab01.RUNS}
    return {name: Run(path, lab01.RUNS[name](path)) for name, path in paths.items()}


def test_channels_share_a_connection_unless_told_otherwise(runs: dict[str, Run]) -> None:
    facts = {name: (run.facts["channels"], run.facts["connections"]) for name, run in runs.items()}
    assert facts == {"shared": (3, 1), "separate": (3, 3)}
    shown = {name: lab01.VIEWS["connections"](run, SCREEN) for name, run in runs.items()}
    streams = {name: re.findall(r"stream (\d+)  Join  (\w+)", text) for name, text in shown.items()}
    assert streams == {
        "shared": [("1", "Ana"), ("3", "Juan"), ("5", "María")],
        "separate": [("1", "Ana"), ("1", "Juan"), ("1", "María")],
    }


def test_all_checks_hold(runs: dict[str, Run]) -> None:
    assert [(check.says, check.found) for check in lab01.checks(runs) if not check.holds] == []


def test_checks_about_connections_fail_on_other_traffic(runs: dict[str, Run]) -> None:
    holds = [check.holds for check in lab01.checks({"shared": runs["separate"], "separate": runs["shared"]})]
    assert (holds[0], holds[-1]) == (False, False)


def test_views_show_the_octets_themselves(runs: dict[str, Run]) -> None:
    preface = lab01.VIEWS["preface"](runs["shared"], SCREEN)
    assert "50 52 49 20 2a 20 48 54 54 50 2f 32 2e 30 0d 0a   PRI * HTTP/2.0··" in preface
    header = lab01.VIEWS["header"](runs["shared"], SCREEN).splitlines()
    length = re.search(r"length  (\d+) octets follow", header[1])
    assert length is not None
    assert header[0].split()[:4] == ["24", *int(length[1]).to_bytes(3).hex(" ").split()]
    assert "4: SETTINGS" in header[2]
    settings = lab01.VIEWS["settings"](runs["shared"], SCREEN).splitlines()
    assert int(length[1]) == 6 * sum(line.split()[1] != "–" for line in settings[1:])
    assert lab01.VIEWS["acknowledgements"](runs["shared"], SCREEN).count("SETTINGS ack") == 2


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_the_port_that_the_lesson_names_makes_wireshark_show_the_frames(runs: dict[str, Run]) -> None:
    run = runs["shared"]
    command = ["tshark", "-r", str(run.path), "-d", f"tcp.port=={run.facts['port']},http2", "-Y", "http2.type == 4"]
    fields = ["-T", "fields", "-e", "http2.type", "-E", "aggregator=,"]
    done = subprocess.run([*command, *fields], capture_output=True, text=True, check=True)
    assert sum(line.split(",").count("4") for line in done.stdout.split()) == 4
