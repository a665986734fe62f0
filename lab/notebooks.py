"""`python3 -m lab notebooks`: JupyterLab, with the notebooks of one's language.

They are opened as copies in notebooks/work, the student's own: JupyterLab saves outputs and changes by itself,
and in the shipped files those would stand in the way of the next update.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from kit.bootstrap import ROOT
from kit.words import choose_language, language

FOLDER = ROOT / "notebooks"
WORK = FOLDER / "work"
"""As deep as the shipped notebooks, so that paths in them hold."""


def run(options: argparse.Namespace) -> int:
    first = own_copies()[0].relative_to(FOLDER).as_posix()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={FOLDER}"]
    command.append(f"--LabApp.default_url=/lab/tree/{first}")
    if options.no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container, where it refuses otherwise
        command.append("--allow-root")
    _keep_to_this_machine()
    os.chdir(FOLDER)
    if os.name != "nt":
        os.execv(command[0], command)
    process = subprocess.Popen(command)  # on Windows an exec'd program runs detached from the console's waiting shell
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # JupyterLab got it too, and asks whether it is meant
            continue


def own_copies() -> list[Path]:
    """Of the notebooks in the language in force, in order; made where they are missing."""
    copies = []
    WORK.mkdir(exist_ok=True)
    for shipped in sorted((FOLDER / language()).glob("*.ipynb")):
        copies.append(WORK / f"{shipped.stem}.{language()}.ipynb")
        if not copies[-1].exists():
            shutil.copyfile(shipped, copies[-1])
    return copies


def _keep_to_this_machine() -> None:
    """JupyterLab would ask whether it may fetch news, over the notebook, and look for its updates."""
    settings = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(quiet), encoding="utf-8")


def speak(language: str) -> None:
    """In a notebook: tables and pictures are in this language, whatever the machine's is."""
    choose_language(language)
