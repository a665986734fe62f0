"""Who learns here, and where their progress is kept: outside the checkout, so that no update loses it."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from kit.text import visible
from kit.words import _

VARIABLE = "WIRELAB_STATE"
"""Names another folder for progress: for tests, and for machines that share one account."""
MAX_NAME = 64
"""Characters of a student's name; it becomes part of a file's name."""


def state_folder() -> Path:
    """There or not."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:  # https://specifications.freedesktop.org/basedir-spec: what should survive restarts and is no data file
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "grpc-wire-lab"


def student(wanted: str | None = None, *, remember: bool = True) -> str:
    """The student's name: `wanted`, which is remembered from then on, else the remembered one, else the account's.

    Raises ValueError, with a sentence for people, where `wanted` cannot be a name."""
    file = state_folder() / "student.txt"
    if wanted is not None:
        name = wanted.strip()
        if not name or len(name) > MAX_NAME or visible(name) != name:
            text = _("A student's name has 1 to {limit} characters and no control characters.")
            raise ValueError(text.format(limit=MAX_NAME))
        if remember:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name + "\n", encoding="utf-8")
        return name
    try:
        remembered = visible(file.read_text(encoding="utf-8").strip())[:MAX_NAME]
    except (OSError, ValueError):
        remembered = ""
    return remembered or _account()


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name, in a container
        return "student"


def as_file_name(name: str) -> str:
    """`María José` -> `maría-josé`: letters, digits and hyphens, which every file system takes."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) or "student"
