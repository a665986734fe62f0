"""`python3 -m lab bundle`: the packages in one archive, for classrooms without internet; and setting up from it.

A bundle is a zip: `bundle.json` says for which Python and kind of machine it was made and what it holds, `wheels/` has
the packages. It serves machines of the same kind with the same Python version as the one that made it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from kit.bootstrap import BASE, NOTEBOOKS, ROOT, Group, SetupError, download, install, python
from kit.words import _

GROUPS = (BASE, NOTEBOOKS)
"""What a classroom needs."""
MANIFEST = "bundle.json"


def run(options: argparse.Namespace) -> int:
    target: Path = options.output or Path(f"wire-lab-{_kind()}.zip")
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder)
        download(wheels, *GROUPS)
        try:
            _write(target, wheels)
        except OSError as error:
            raise SetupError(
                _("{file} cannot be written: {reason}.").format(file=target, reason=error.strerror)
            ) from None
    size = round(target.stat().st_size / 1e6)
    machine = platform.platform(terse=True)
    text = _("{file}: {size} MB, for Python {version} on {machine}")
    print(text.format(file=target, size=size, version=_version(), machine=machine))
    command = f"{python()} -m lab demo --bundle {target.name}"
    print(_("On a machine without internet, in a clone: {command}").format(command=command))
    return 0


def _write(target: Path, wheels: Path) -> None:
    unfinished = target.with_name(f"{target.name}.part")
    with zipfile.ZipFile(unfinished, "w") as archive:  # stored: wheels are compressed already
        archive.writestr(MANIFEST, json.dumps(_manifest(), indent=2))
        for wheel in sorted(wheels.iterdir()):
            archive.write(wheel, f"wheels/{wheel.name}")
    unfinished.replace(target)


def set_up_from(bundle: Path) -> None:
    """Installs what the bundle holds. Raises SetupError where it does not suit."""
    try:
        with zipfile.ZipFile(bundle) as archive, tempfile.TemporaryDirectory() as folder:
            manifest = json.loads(archive.read(MANIFEST))
            _check(bundle, manifest)
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith("wheels/")])
            install(*GROUPS, wheels=Path(folder) / "wheels")
    except FileNotFoundError:
        raise SetupError(_("There is no file {file}.").format(file=bundle)) from None
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise SetupError(_("{file} is no bundle that `lab bundle` made.").format(file=bundle)) from None
    except OSError as error:
        raise SetupError(_("{file} cannot be read: {reason}.").format(file=bundle, reason=error.strerror)) from None


def _check(bundle: Path, manifest: dict[str, object]) -> None:
    ours = _manifest()
    if manifest["kind"] != ours["kind"]:
        text = _("{file} was made for {theirs}, and this is {ours}: make one on a machine like this.")
        raise SetupError(text.format(file=bundle, theirs=manifest["kind"], ours=ours["kind"]))
    if manifest["requirements"] != ours["requirements"]:
        text = _("{file} was made from another version of the kit, which needs other packages: make it anew.")
        raise SetupError(text.format(file=bundle))


def _manifest() -> dict[str, object]:
    return {"kind": _kind(), "requirements": {group.file: _digest(group) for group in GROUPS}}


def _kind() -> str:
    return f"{sysconfig.get_platform()}-py{_version()}".replace(" ", "_")


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _digest(group: Group) -> str:
    return hashlib.sha256((ROOT / group.file).read_bytes()).hexdigest()
