"""`python3 -m lab clean`: removes what the kit made here, and nothing that a person made."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from kit.bootstrap import ROOT, VENV
from kit.certificates import FILES, FOLDER
from kit.options import MISUSE
from kit.words import _, ngettext

CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
DEMO = ("demo.pcapng", "timeline.png")
"""In the folder demo; what else is there somebody put there."""


def run(options: argparse.Namespace) -> int:
    found = list(made())
    if not found:
        print(_("There is nothing to remove."))
        return 0
    sizes = {path: _size(path) for path in found}
    for path in found:
        print(f"  {sizes[path] / 1e6:8.1f} MB  {path.relative_to(ROOT)}")
    if not options.yes and not _agreed(len(found)):
        return MISUSE if not sys.stdin.isatty() else 0
    for path in found:
        _remove(path)
    print(_("{size} MB removed.").format(size=round(sum(sizes.values()) / 1e6)))
    return 0


def made() -> Iterator[Path]:
    """What is there of what the kit makes. `.venv` comes last: this may be its Python."""
    for name in DEMO:
        if (ROOT / "demo" / name).exists():
            yield ROOT / "demo" / name
    for name in FILES:
        if (ROOT / FOLDER.name / name).exists():
            yield ROOT / FOLDER.name / name
    for name in CACHES:
        if (ROOT / name).is_dir():
            yield ROOT / name
    for folder, names, _files in os.walk(ROOT):
        if "__pycache__" in names:
            yield Path(folder) / "__pycache__"
        names[:] = [name for name in names if not name.startswith(".") and name != "__pycache__"]
    if VENV.is_dir():
        yield VENV


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        print(_("Nobody is there to ask; --yes removes them."), file=sys.stderr)
        return False
    question = ngettext("Remove it? [y/N] ", "Remove these {count}? [y/N] ", count).format(count=count)
    answer = input(question).strip().lower()
    return answer[:1] in ("y", "s")  # yes, sí


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*"))
