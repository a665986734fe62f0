"""The doctor, on this machine and on machines that lack something."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kit.bootstrap import ROOT
from lab import doctor

BARE = getattr(sys, "_base_executable", sys.executable)


def run(*arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "lab", "doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_it_runs_on_a_python_that_has_nothing() -> None:
    done = run("--json", python=BARE)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ready"] is True
    assert {finding["name"] for finding in report["findings"]} >= {"python", "packages", "tshark", "capture_rights"}
    assert {finding["state"] for finding in report["findings"]} <= {"ok", "optional", "missing"}


def test_each_finding_is_a_line_and_what_is_not_there_says_what_brings_it() -> None:
    done = run()
    signs = [line for line in done.stdout.splitlines() if line[:1] in "✓·✗" and line[:1]]
    assert len(signs) == len(doctor.CHECKS)
    assert done.returncode == 0


def test_a_machine_without_programs_is_told_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = tmp_path / "apt-get"
    manager.write_text("")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["tshark"].state == doctor.OPTIONAL
    assert found["tshark"].mend == "sudo apt-get install tshark"
    assert found["redis-server"].mend == "sudo apt-get install redis-server"


def test_a_port_in_use_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(doctor, "CHAT_PORT", listener.getsockname()[1])
        finding = doctor._port()
    assert finding.state == doctor.OPTIONAL
    assert f"--port {doctor.CHAT_PORT + 10}" in finding.mend


def test_a_proxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.campus:3128")
    assert "http_proxy" in doctor._proxy().says
    assert "NO_PROXY" in doctor._proxy().mend


def test_no_rights_to_capture_come_with_the_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("how rights are asked for differs by system")

    def refuse(*_arguments: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    finding = doctor._capture_rights()
    assert finding.state == doctor.OPTIONAL
    instead, right = finding.mend.splitlines()
    assert "capture tap --listen" in instead
    assert right.startswith("sudo ")


def test_in_a_terminal_no_sentence_runs_over_its_edge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = doctor.Finding("long", "long", doctor.OPTIONAL, "so many words " * 20, "one command\nanother command")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: long,))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert doctor.run(argparse.Namespace(json=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if "→" in line] == ["→ one command", "→ another command"]


def test_too_little_disk_is_told_before_pip_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    monkeypatch.setattr(doctor, "lacking", lambda *groups: list(groups))
    finding = doctor._packages()
    assert finding.state == doctor.MISSING
    assert "100 MB" in finding.says
