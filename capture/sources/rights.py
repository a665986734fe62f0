"""Whether this user may sniff, and what gives the right on this system. Standard library only, for `lab doctor`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from kit import bootstrap
from kit.words import _

NPCAP = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "Npcap" / "wpcap.dll"


def may_sniff() -> bool:
    """As far as it can be known without sniffing: on Windows, Npcap may still want an administrator."""
    if sys.platform == "linux":
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
        except PermissionError:
            return False
        return True
    if sys.platform == "win32":
        return NPCAP.exists()
    return any(os.access(device, os.R_OK) for device in Path("/dev").glob("bpf*"))


def how_to_get_it(command: str = "capture live") -> str:
    """One sentence. `command` is what is started again with the right, as `python -m` is told it."""
    if sys.platform == "linux":
        words = _("{command}; or for good, for every user and program of that Python: {grant}")
        here = bootstrap.interpreter()
        python = bootstrap.as_typed((here if os.access(here, os.X_OK) else Path(sys.executable)).resolve())
        return words.format(
            command=f"sudo {bootstrap.shown_interpreter()} -m {command}",
            grant=f"sudo setcap cap_net_raw,cap_net_admin=eip {python}",
        )
    if sys.platform == "win32":
        if NPCAP.exists():
            return _("start PowerShell as administrator, or install Npcap again without its restriction to them")
        return _("install Npcap (https://npcap.com) with support for loopback traffic")
    words = _("{command}; or for good: Wireshark's ChmodBPF, which lets the group access_bpf sniff")
    return words.format(command=f"sudo {bootstrap.shown_interpreter()} -m {command}")
