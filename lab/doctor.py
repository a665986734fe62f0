"""`python3 -m lab doctor`: what works on this machine, and how to get the rest.

Standard library only, so that it can tell why a set-up fails. Each check looks for itself and changes nothing.
"""

from __future__ import annotations

import argparse
import json
import locale
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

from capture.sources.rights import how_to_get_it, may_sniff
from kit import bootstrap
from kit.bootstrap import BASE, NOTEBOOKS, ROOT, TEST, Group, SetupError, lacking, python
from kit.programs import TSHARK, Tool
from kit.words import _
from lab import system

OK, OPTIONAL, MISSING = "ok", "optional", "missing"
"""`optional`: the kit runs without it, and says which part does not. `missing`: the kit does not run."""
SIGNS = {OK: "✓", OPTIONAL: "·", MISSING: "✗"}

CHAT_PORT = 50051
MIN_COLUMNS = 80
SETUP_OCTETS = 400 << 20
"""Base packages take about 300 MB; pip needs some room while it works."""


class Finding(NamedTuple):
    name: str
    """The same in every language, for programs that read --json."""
    title: str
    state: str
    says: str
    mend: str = ""
    """A command, or a sentence where none does it; several ways stand on lines of their own."""


def run(options: argparse.Namespace) -> int:
    findings = list(examine())
    missing = [finding.name for finding in findings if finding.state == MISSING]
    if options.json:
        machine = {"system": platform.platform(), "machine": platform.machine(), "ready": not missing}
        print(json.dumps({**machine, "findings": [f._asdict() for f in findings]}, indent=2, ensure_ascii=False))
    else:
        wide = max(len(finding.title) for finding in findings)
        for finding in findings:
            margin = " " * (wide + len("✓   "))
            says = f"\n{margin}".join(_folded(finding.says, len(margin)))
            print(f"{SIGNS[finding.state]} {finding.title:{wide}}  {says}")
            for mend in finding.mend.splitlines():  # whole, so that a command can be copied
                print(f"{margin}→ {mend}")
        print()
        print(_("Everything that the kit needs is here.") if not missing else _("Do what stands behind ✗ first."))
    return bootstrap.ENVIRONMENT_LACKS_SOMETHING if missing else 0


def _folded(text: str, margin: int) -> list[str]:
    """Lines that fit into the terminal beside the margin."""
    if not sys.stdout.isatty():
        return [text]
    return textwrap.wrap(
        text, max(shutil.get_terminal_size().columns - margin, MIN_COLUMNS // 4), break_on_hyphens=False
    )


def examine() -> Iterator[Finding]:
    """All findings, in the order in which a newcomer needs the things."""
    for check in CHECKS:
        yield check()


def _python() -> Finding:
    title, says = _("Python"), f"{platform.python_version()} ({sys.executable})"
    try:
        bootstrap.require_python()
    except SetupError as error:
        return Finding("python", title, MISSING, says, str(error))
    if not bootstrap.interpreter().exists() and not bootstrap.can_make_environments():
        return Finding("python", title, MISSING, says, bootstrap.ensurepip_advice())
    return Finding("python", title, OK, says)


def _group(name: str, title: str, group: Group, state: str, command: str) -> Finding:
    if lacking(group):
        return Finding(name, title, state, _("not installed in .venv, or not as its requirements say now"), command)
    return Finding(name, title, OK, _("as {file} says, in .venv").format(file=group.file))


def _packages() -> Finding:
    finding = _group("packages", _("packages"), BASE, OPTIONAL, f"{python()} -m lab demo")
    if finding.state != OK and shutil.disk_usage(ROOT).free < SETUP_OCTETS:
        free = shutil.disk_usage(ROOT).free >> 20
        says = _("not installed, and {free} MB of disk are left; they take about 300").format(free=free)
        return finding._replace(state=MISSING, says=says, mend=_("Free some disk space."))
    return finding


def _notebooks() -> Finding:
    return _group("jupyterlab", "JupyterLab", NOTEBOOKS, OPTIONAL, f"{python()} -m lab notebooks")


def _test_tools() -> Finding:
    return _group("test_tools", _("test tools"), TEST, OPTIONAL, f"{python()} -m lab test")


def _tool(tool: Tool, purpose: str) -> Finding:
    path = tool.find()
    if path is not None:
        return Finding(tool.name, tool.name, OK, f"{_version(path)} ({path})")
    mend = tool.command() or _("Install {tool} as your system does it.").format(tool=tool.name)
    return Finding(tool.name, tool.name, OPTIONAL, _("not installed; {purpose}").format(purpose=purpose), mend)


def _version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace", timeout=20, stdin=subprocess.DEVNULL
        )
        version = re.search(r"\d+(\.\d+)+", done.stdout)
        return version[0] if version else _("version unknown")
    except (OSError, subprocess.TimeoutExpired):
        return _("it does not start")


def _tshark() -> Finding:
    return _tool(TSHARK, _("comparing with Wireshark and the TLS lab need it"))


def _redis() -> Finding:
    return _tool(system.REDIS, _("the lab with more than one server needs it"))


def _chromium() -> Finding:
    return _tool(system.CHROMIUM, _("only the kit's own tests of notebooks need it"))


def _capture_rights() -> Finding:
    title = _("capture rights")
    if may_sniff():
        return Finding("capture_rights", title, OK, _("this user may sniff"))
    instead = f"{python()} -m capture tap --listen 50052 --server 127.0.0.1:{CHAT_PORT}"
    says = _("none; without rights the tap does the same")
    return Finding("capture_rights", title, OPTIONAL, says, f"{instead}\n{how_to_get_it()}")


def _loopback() -> Finding:
    title = _("loopback")
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(5)
            with socket.create_connection(listener.getsockname(), timeout=5) as client:
                server, _address = listener.accept()
                with server:
                    client.sendall(b"wire")
                    server.settimeout(5)
                    arrived = server.recv(4) == b"wire"
    except OSError as error:
        mend = _("A firewall or security program keeps programs on this machine apart; allow 127.0.0.1.")
        return Finding("loopback", title, MISSING, str(error), mend)
    return Finding("loopback", title, OK if arrived else MISSING, _("programs on this machine reach each other"))


def _port() -> Finding:
    title = _("port {port}").format(port=CHAT_PORT)
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", CHAT_PORT))
    except OSError:
        command = f"{python()} -m server --port {CHAT_PORT + 10}"
        return Finding("port", title, OPTIONAL, _("in use by another program; start the server on another"), command)
    return Finding("port", title, OK, _("free for the chat server"))


def _proxy() -> Finding:
    title = _("proxy")
    variables = [name for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy") if os.environ.get(name)]
    if not variables:
        return Finding("proxy", title, OK, _("none set"))
    says = _("{variable} is set; the kit's own programs pass it by for this machine, other gRPC clients may not")
    mend = '$env:NO_PROXY = "127.0.0.1,localhost"' if os.name == "nt" else "export NO_PROXY=127.0.0.1,localhost"
    return Finding("proxy", title, OPTIONAL, says.format(variable=variables[0]), mend)


def _terminal() -> Finding:
    title = _("terminal")
    if not sys.stdout.isatty():
        return Finding("terminal", title, OPTIONAL, _("output goes elsewhere; the client then reads and writes lines"))
    columns, lines = shutil.get_terminal_size()
    says = _("{columns} × {lines}").format(columns=columns, lines=lines)
    if columns < MIN_COLUMNS:
        mend = _("Make the window at least {columns} columns wide.").format(columns=MIN_COLUMNS)
        return Finding("terminal", title, OPTIONAL, says, mend)
    return Finding("terminal", title, OK, says)


def _colours() -> Finding:
    title = _("colours")
    if os.environ.get("NO_COLOR"):
        return Finding("colours", title, OPTIONAL, _("switched off by NO_COLOR"))
    if os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return Finding("colours", title, OPTIONAL, _("none here; everything is told without them as well"))
    many = os.environ.get("COLORTERM") in ("truecolor", "24bit")
    return Finding("colours", title, OK, _("16 million") if many else _("256"))


def _utf8() -> Finding:
    title, was = "UTF-8", _console_encoding()
    if was.lower().replace("-", "").replace("_", "") in ("utf8", "cp65001"):
        return Finding("utf8", title, OK, _("the console shows ✓, ñ and →"))
    says = _("the console says {encoding}; the kit writes UTF-8 all the same, which it may show wrongly")
    mend = "chcp 65001" if os.name == "nt" else "export LC_ALL=C.UTF-8"
    return Finding("utf8", title, OPTIONAL, says.format(encoding=was), mend)


def _console_encoding() -> str:
    """What the console takes output for, whatever Python writes."""
    if sys.platform == "win32":
        import ctypes

        return f"cp{ctypes.windll.kernel32.GetConsoleOutputCP()}"
    return locale.getencoding() if sys.version_info >= (3, 11) else locale.getpreferredencoding()


def _fonts() -> Finding:
    title = _("fonts")
    places = [folder / "matplotlib" / "mpl-data" / "fonts" / "ttf" for folder in bootstrap.site_packages()]
    if any((place / "DejaVuSans.ttf").exists() for place in places):
        return Finding("fonts", title, OK, _("DejaVu Sans, which matplotlib brings, for all pictures"))
    return Finding("fonts", title, OPTIONAL, _("come with the packages"), f"{python()} -m lab demo")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _packages,
    _loopback,
    _port,
    _proxy,
    _terminal,
    _colours,
    _utf8,
    _fonts,
    _capture_rights,
    _tshark,
    _notebooks,
    _redis,
    _test_tools,
    _chromium,
)
