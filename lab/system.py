"""The programs that the checks need besides Python packages, and how they are installed here, asking nothing.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable

from kit.bootstrap import SetupError, ensurepip_package
from kit.programs import MANAGERS, TSHARK, Manager, Tool, manager_here
from kit.progress import Progress, run
from kit.words import _

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
TCPDUMP = Tool(
    "tcpdump",
    ("tcpdump",),
    dict.fromkeys(("apt-get", "dnf", "pacman", "zypper", "apk", "brew"), ("tcpdump",)),
    ("/usr/sbin/tcpdump",),
)
TEST_TOOLS = (TSHARK, REDIS, CHROMIUM, *(() if sys.platform == "win32" else (TCPDUMP,)))


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
