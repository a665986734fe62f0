"""The floors: who may import whom, read from the sources with ast, imports inside functions included.

A package may import packages of lower floors. Inside a package, a module may import those listed before it in ORDER:
a new module is put there, at its place. What design calls the core (capture without its sources) has no socket, no
clock, no thread and no print.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = {"kit": 0, "proto": 0, "capture": 1, "server": 2, "client": 2, "lab": 3, "exercises": 4}

ORDER = {
    "kit": """
        __init__ pace words progress bootstrap text options output truth rules programs student certificates catalogue
    """,
    "proto": "__init__ chat_pb2 chat_pb2_grpc generate",
    "capture": """
        events octets tls withheld
        packets reassembly
        hpack_tables boundaries frames recognition
        wireformat grpc_services protojson protobuf
        streams assembly messages
        calls windows pings compare
        pipeline
        synthesis pcap
        sources.__init__ sources.files sources.faults sources.ends sources.loop sources.recording sources.relay
        sources.tap sources.rights sources.sniff sources.tshark sources.scapy_http2 sources.opinions sources.reflection
        records evidence score
        views.__init__ views.quantities views.style views.describe views.hpack views.picture views.table views.timeline
        views.comparison views.verdicts views.wireshark
        export views.trace report __init__ output parallel
        commands.__init__ commands.common commands command __main__ sniff_grpc
    """,
    "server": """
        __init__ limits rooms sessions stores redis_scripts redis_line redis_rooms log listening contract admission
        deadlines standard truth threaded asynchronous process command __main__ server
    """,
    "client": "__init__ events failures security truth session lines scripted terminal by_hand command __main__ client",
    "lab": """
        __init__ system bench attempt lesson figures labs terminal guide runner
        bundle checks clean demo doctor notebooks __main__
    """,
    "exercises": """
        __init__ caller course solutions *.__init__ *.exercise checker *.check progress results screen command __main__
    """,
}
"""A folder's name stands for all in it; * for any."""

NEVER = {("capture", "proto"): "capture is handed descriptors, or reads a descriptor set as data"}

EDGES = tuple(
    f"capture.{name}" for name in ("sources", "output", "parallel", "commands", "command", "__main__", "sniff_grpc")
)
"""The modules of capture that may do I/O, and what runs its command line; the others are the core."""

BANNED_MODULES = {
    "asyncio",
    "concurrent",
    "multiprocessing",
    "queue",
    "sched",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "time",
}
BANNED_CALLS = {"print", "input", "breakpoint", "now", "utcnow", "today"}
HEAVY = {"IPython", "grpc", "lxml", "matplotlib", "numpy", "pandas", "pyshark", "scapy"}


def modules(package: str) -> dict[str, Path]:
    """Dotted name (`capture.sources.tap`, `kit.__init__`) -> file."""
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in (ROOT / package).rglob("*.py")}
    return {name: names[name] for name in sorted(names) if ".work." not in name}  # students' copies


OURS = {name: file for package in FLOORS for name, file in modules(package).items()}


def resolve(dotted: str) -> str | None:
    """The module of ours that `import dotted` runs last; None for somebody else's."""
    if dotted in OURS:
        return dotted
    return f"{dotted}.__init__" if f"{dotted}.__init__" in OURS else None


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Absolute dotted names that a module imports, with the line. `from a import b` names a.b where that is a module
    of ours, else a."""
    tree = ast.parse(OURS[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
            for alias in node.names:
                yield (f"{base}.{alias.name}" if resolve(f"{base}.{alias.name}") else base), node.lineno


def place(module: str) -> int:
    """Where a module stands in its package's order; a folder listed by its name stands for all in it."""
    package, _dot, name = module.partition(".")
    order = ORDER[package].split()
    for at, listed in enumerate(order):
        if fnmatchcase(name, listed) or name.startswith(f"{listed}."):
            return at
    raise AssertionError(f"{module} is not in ORDER ({Path(__file__).name}): put it where it belongs")


def breach(module: str, target: str) -> str | None:
    """Why `module` must not import `target`, None where it may."""
    ours, theirs = module.partition(".")[0], target.partition(".")[0]
    if (ours, theirs) in NEVER:
        return NEVER[ours, theirs]
    if ours == theirs:
        return None if place(target) <= place(module) else f"{target} comes later in {ours}'s order"
    if FLOORS[theirs] < FLOORS[ours]:
        return None
    return f"{ours} is on floor {FLOORS[ours]}, {theirs} on floor {FLOORS[theirs]}"


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down_a_floor_or_to_a_module_listed_before(package: str) -> None:
    breaches = [
        f"{OURS[module].relative_to(ROOT)}:{line} imports {name}: {reason}"
        for module in modules(package)
        for name, line in imports(module)
        if (target := resolve(name)) is not None and (reason := breach(module, target))
    ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_has_its_place_in_the_order(package: str) -> None:
    for module in modules(package):
        place(module)


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("capture.frames", "kit.text", True),
        ("capture.frames", "capture.events", True),
        ("capture.events", "capture.frames", False),
        ("capture.frames", "server.rooms", False),
        ("capture.frames", "proto.chat_pb2", False),
        ("server.rooms", "client.session", False),
        ("client.session", "capture.frames", True),
        ("lab.demo", "server.threaded", True),
        ("server.rooms", "server.threaded", False),
        ("kit.text", "proto.chat_pb2", False),
        ("capture.views.timeline", "capture.sources.tap", True),
        ("capture.sources.tap", "capture.views.timeline", False),
    ],
)
def test_the_rule_itself_tells_a_breach_from_what_is_allowed(module: str, target: str, allowed: bool) -> None:
    assert (breach(module, target) is None) is allowed


def test_imports_are_found_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "probe.py"
    source.write_text("import os\ndef f():\n    from .events import Packet\n    from capture import frames, read\n")
    monkeypatch.setitem(OURS, "capture.probe", source)
    monkeypatch.setitem(OURS, "capture.frames", source)
    assert list(imports("capture.probe")) == [("os", 1), ("capture.events", 3), ("capture.frames", 4), ("capture", 4)]


def core() -> list[str]:
    return [module for module in modules("capture") if not module.startswith(EDGES)]


@pytest.mark.parametrize("module", core())
def test_the_core_has_no_socket_clock_thread_or_print(module: str) -> None:
    file = OURS[module]
    breaches = [f"line {at} imports {name}" for name, at in imports(module) if name.partition(".")[0] in BANNED_MODULES]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            if called in BANNED_CALLS:
                breaches.append(f"line {node.lineno} calls {called}()")
    assert not breaches, f"{file.relative_to(ROOT)}: " + ", ".join(breaches)


def loaded_by(code: str, folder: Path) -> set[str]:
    """Top-level packages in memory after running it in a new Python elsewhere."""
    probe = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_capture_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded_by("import capture", tmp_path) & HEAVY


def test_the_core_decodes_without_loading_anything_heavy(tmp_path: Path) -> None:
    stages = [
        m for m in core() if not m.startswith(("capture.views", "capture.__init__")) and place(m) < place_of_sources()
    ]
    assert stages
    assert not loaded_by("\n".join(f"import {module}" for module in stages), tmp_path) & HEAVY


def place_of_sources() -> int:
    return place("capture.sources.__init__")


def test_the_proto_package_that_is_imported_is_ours(tmp_path: Path) -> None:
    """proto-plus installs a top-level `proto` of its own."""
    spec = importlib.util.find_spec("proto")
    assert spec is not None
    assert spec.origin == str(ROOT / "proto" / "__init__.py")
    done = subprocess.run(
        [sys.executable, "-c", "import proto; print(proto.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == ROOT / "proto" / "__init__.py"
