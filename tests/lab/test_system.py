"""Finding and installing programs, with package managers that are small scripts in a PATH of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from kit.bootstrap import SetupError
from kit.programs import MANAGERS, Tool
from lab import system

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins for package managers are shell scripts")

WIDGET = Tool("widget", ("widget", "widget-ng"), {"apt-get": ("widget",), "brew": ("--cask widget",)})


class Machine:
    """A PATH with what a test puts there, and the log of what its package manager was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "asked.log"
        for name in ("sh", "touch", "chmod", "cat"):
            (folder / name).symlink_to(str(shutil.which(name)))

    def program(self, name: str, script: str = "") -> None:
        path = self.folder / name
        path.write_text(f"#!{self.folder}/sh\necho {name} $* >> {self.log}\n{script}\n")
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def makes(self, name: str) -> str:
        return f'echo "#!/bin/sh" > {self.folder}/{name}; chmod +x {self.folder}/{name}'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


def test_a_tool_is_found_under_any_of_its_names(machine: Machine) -> None:
    assert WIDGET.find() is None
    machine.program("widget-ng")
    assert WIDGET.find() == str(machine.folder / "widget-ng")


def test_a_tool_that_its_installer_left_out_of_the_path_is_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine.folder / "Program Files" / "widget"
    place.parent.mkdir()
    tool = WIDGET._replace(places=("$WIDGETS/widget",))
    monkeypatch.setenv("WIDGETS", str(place.parent))
    assert tool.find() is None
    place.touch()
    assert tool.find() == str(place)


def test_what_is_there_is_not_installed_again(machine: Machine) -> None:
    machine.program("apt-get")
    machine.program("widget")
    system.install([WIDGET])
    assert machine.asked == []


def test_what_is_missing_is_installed_without_a_question(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.program("apt-get", machine.makes("widget"))
    system.install([WIDGET])
    assert machine.asked == ["apt-get install --yes --no-install-recommends widget"]
    assert "widget installed" in capsys.readouterr().err


def test_a_machine_with_old_lists_refreshes_them_first(machine: Machine) -> None:
    lists = machine.folder / "lists"
    machine.program("apt-get", f'[ "$1" = update ] && touch {lists}\n[ -e {lists} ] && {machine.makes("widget")}')
    system.install([WIDGET])
    assert [line.split()[1] for line in machine.asked] == ["install", "update", "install"]


def test_a_package_that_is_called_otherwise_here_is_tried_next(machine: Machine) -> None:
    tool = WIDGET._replace(packages={"apt-get": ("widget", "widget-browser")})
    machine.program("apt-get", f'case "$*" in *browser) {machine.makes("widget")};; *) exit 100;; esac')
    system.install([tool])
    assert machine.asked[-1].endswith("widget-browser")


def test_why_it_could_not_be_installed_is_said(machine: Machine) -> None:
    machine.program("apt-get", 'echo "E: Unable to locate package $4"; exit 100')
    with pytest.raises(SetupError, match="widget could not be installed with apt-get: E: Unable to locate package"):
        system.install([WIDGET])


def test_an_install_that_brings_nothing_is_no_success(machine: Machine) -> None:
    machine.program("apt-get")
    with pytest.raises(SetupError, match="still not found: widget"):
        system.install([WIDGET])


def test_without_a_package_manager_it_says_so(machine: Machine) -> None:
    with pytest.raises(SetupError, match="widget is not installed"):
        system.install([WIDGET])


def test_who_is_not_root_installs_through_sudo_that_asks_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.program("apt-get", machine.makes("widget"))
    with pytest.raises(SetupError, match="admin rights"):
        system.install([WIDGET])
    machine.program("sudo", 'shift; "$@"')
    system.install([WIDGET])
    assert machine.asked[0].startswith("sudo --non-interactive apt-get install")


def test_homebrew_needs_no_rights(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.program("brew", machine.makes("widget"))
    system.install([WIDGET])
    assert machine.asked == ["brew install --cask widget"]


def test_the_command_to_type_is_the_one_of_this_machine(machine: Machine) -> None:
    assert WIDGET.command() is None
    machine.program("brew")
    assert WIDGET.command() == "brew install --cask widget"
    machine.program("apt-get")
    assert WIDGET.command() == "sudo apt-get install widget"


@pytest.mark.parametrize("tool", system.TEST_TOOLS, ids=lambda tool: tool.name)
def test_every_tool_of_the_tests_has_a_package_where_it_can_be_tested(tool: Tool) -> None:
    assert set(tool.packages) <= set(MANAGERS)
    assert {"apt-get", "dnf", "brew"} <= set(tool.packages)
    assert "choco" in tool.packages or tool is system.TCPDUMP, "which is not wanted on Windows"


def test_ensurepip_is_installed_with_them_where_python_lacks_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    machine.program("apt-get")
    system.install([])
    assert machine.asked[0].rpartition(" ")[2] in ("python3-venv", f"python3.{sys.version_info.minor}-venv")
