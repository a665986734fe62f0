"""Programs that are not Python packages: where they are on this machine, and what installs them here.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple


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

WIRESHARK = Tool(
    "wireshark",
    ("wireshark",),
    {
        "apt-get": ("wireshark",),
        "dnf": ("wireshark",),
        "pacman": ("wireshark-qt",),
        "zypper": ("wireshark",),
        "apk": ("wireshark",),
        "brew": ("wireshark-app",),
        "choco": ("wireshark",),
        "winget": ("WiresharkFoundation.Wireshark",),
    },
    (r"%ProgramFiles%\Wireshark\Wireshark.exe", "/Applications/Wireshark.app/Contents/MacOS/Wireshark"),
)


def manager_here() -> str | None:
    return next((name for name in MANAGERS if shutil.which(name)), None)
