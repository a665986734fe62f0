"""Programs that are not Python packages: where they are on this machine, and what installs them here.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kit.bootstrap import SetupError, ensurepip_package
from kit.progress import Progress, run
from kit.words import _


class Manager(NamedTuple):
    """A package manager. Its commands ask nothing."""

    install: tuple[str, ...]
    refresh: tuple[str, ...] = ()
    """What brings its lists up to date, tried where an install fails."""
    needs_root: bool = True


MANAGERS = {
    "apt-get": Manager(("apt-get", "install", "--yes", "--no-install-recommends"), ("apt-get", "update")),
    "dnf": Manager(("dnf", "install", "--assumeyes")),
    "pacman": Manager(("pacman", "--sync", "--noconfirm", "--needed"), ("pacman", "--sync", "--refresh")),
    "zypper": Manager(("zypper", "--non-interactive", "install")),
    "apk": Manager(("apk", "add"), ("apk", "update")),
    "brew": Manager(("brew", "install"), needs_root=False),
    "choco": Manager(("choco", "install", "--yes"), needs_root=False),
    "winget": Manager(
        ("winget", "install", "--accept-package-agreements", "--accept-source-agreements", "--exact", "--id"),
        needs_root=False,
    ),
}
"""In the order in which they are looked for."""


class Tool(NamedTuple):
    name: str
    programs: tuple[str, ...]
    """Names that it goes by; the first one found is it."""
    packages: dict[str, tuple[str, ...]]
    """Package manager -> packages that bring it, tried in turn (what Debian calls so, Ubuntu calls otherwise)."""
    places: tuple[str, ...] = ()
    """Where installers put it without putting it on the path."""

    def find(self) -> str | None:
        """Its path, None where it is not installed."""
        for program in self.programs:
            if found := shutil.which(program):
                return found
        return next((place for place in map(os.path.expandvars, self.places) if Path(place).exists()), None)

    def command(self) -> str | None:
        """What installs it here, as people type it; None where no package manager is known."""
        manager = manager_here()
        if manager is None or manager not in self.packages:
            return None
        words = [*MANAGERS[manager].install[:2], self.packages[manager][0]]
        return " ".join(["sudo", *words] if MANAGERS[manager].needs_root else words)


TSHARK = Tool(
    "tshark",
    ("tshark",),
    {
        "apt-get": ("tshark",),
        "dnf": ("wireshark-cli",),
        "pacman": ("wireshark-cli",),
        "zypper": ("wireshark",),
        "apk": ("tshark",),
        "brew": ("wireshark",),
        "choco": ("wireshark",),
        "winget": ("WiresharkFoundation.Wireshark",),
    },
    (r"%ProgramFiles%\Wireshark\tshark.exe", "/Applications/Wireshark.app/Contents/MacOS/tshark"),
)
REDIS = Tool(
    "redis-server",
    ("redis-server", "valkey-server"),
    {
        "apt-get": ("redis-server",),
        "dnf": ("redis", "valkey"),
        "pacman": ("valkey", "redis"),
        "zypper": ("redis",),
        "apk": ("redis",),
        "brew": ("redis",),
        "choco": ("redis-64",),
    },
)
CHROMIUM = Tool(
    "chromium",
    ("chromium", "chromium-browser", "google-chrome", "chrome"),
    {
        "apt-get": ("chromium", "chromium-browser"),
        "dnf": ("chromium",),
        "pacman": ("chromium",),
        "zypper": ("chromium",),
        "apk": ("chromium",),
        "brew": ("--cask chromium",),
        "choco": ("chromium",),
    },
    (
        r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
)
TEST_TOOLS = (TSHARK, REDIS, CHROMIUM)


def manager_here() -> str | None:
    return next((name for name in MANAGERS if shutil.which(name)), None)


def install(tools: Iterable[Tool]) -> None:
    """Installs those that are missing, and ensurepip with them, asking nothing. Raises SetupError."""
    missing = {tool.name: tool for tool in tools if tool.find() is None}
    packages = {name: tool.packages for name, tool in missing.items()}
    if importlib.util.find_spec("ensurepip") is None:
        packages["ensurepip"] = {"apt-get": (ensurepip_package(),)}
    manager = manager_here()
    with Progress() as progress:
        for name, candidates in packages.items():
            if manager is None or manager not in candidates:
                raise SetupError(_("{tool} is not installed, and no package manager here brings it").format(tool=name))
            progress.doing(_("installing {tool}").format(tool=name))
            _install_one(name, MANAGERS[manager], candidates[manager], progress)
            progress.say(_("{tool} installed").format(tool=name))
    still = [tool.name for tool in missing.values() if tool.find() is None]
    if still:
        raise SetupError(_("Installed, and still not found: {tools}").format(tools=", ".join(still)))


def _install_one(name: str, manager: Manager, candidates: tuple[str, ...], progress: Progress) -> None:
    said: list[str] = []
    for package in candidates:
        command = [*manager.install, *package.split()]
        status, said = _run(manager, command, progress)
        if status and manager.refresh:
            _run(manager, list(manager.refresh), progress)
            status, said = _run(manager, command, progress)
        if not status:
            return
    reason = " / ".join([line for line in said if line.strip()][-3:])
    text = _("{tool} could not be installed with {manager}: {reason}")
    raise SetupError(text.format(tool=name, manager=manager.install[0], reason=reason))


def _run(manager: Manager, command: list[str], progress: Progress) -> tuple[int, list[str]]:
    if manager.needs_root and hasattr(os, "geteuid") and os.geteuid() != 0:
        command = ["sudo", "--non-interactive", *command]
        if shutil.which("sudo") is None:
            raise SetupError(_("This needs admin rights: {command}").format(command=" ".join(command)))
    return run(command, progress, environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
