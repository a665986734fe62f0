"""Bundles: what goes in comes out, and what does not suit is refused in a sentence."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import pytest

from kit.bootstrap import Group, SetupError
from lab import bundle


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Group, ...], dict[str, bytes]]]:
    """What would have been installed: groups, and the wheels that were there for it. Nothing is downloaded."""
    seen: list[tuple[tuple[Group, ...], dict[str, bytes]]] = []

    def download(folder: Path, *groups: Group) -> None:
        for group in groups:
            (folder / f"{group.modules[0]}-1.0-py3-none-any.whl").write_bytes(group.file.encode())

    def install(*groups: Group, wheels: Path) -> None:
        seen.append((groups, {wheel.name: wheel.read_bytes() for wheel in wheels.iterdir()}))

    monkeypatch.setattr(bundle, "download", download)
    monkeypatch.setattr(bundle, "install", install)
    return seen


def made(folder: Path) -> Path:
    file = folder / "classroom.zip"
    assert bundle.run(argparse.Namespace(output=file)) == 0
    return file


def test_what_was_bundled_is_what_is_installed(
    tmp_path: Path,
    installed: list[tuple[tuple[Group, ...], dict[str, bytes]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = made(tmp_path)
    assert f"--bundle {file.name}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]
    bundle.set_up_from(file)
    [(groups, wheels)] = installed
    assert groups == bundle.GROUPS
    assert sorted(wheels.values()) == sorted(group.file.encode() for group in bundle.GROUPS)


def changed(file: Path, **values: object) -> None:
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(bundle.MANIFEST))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(bundle.MANIFEST, json.dumps({**manifest, **values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [({"kind": "win-amd64-py3.9"}, "made for win-amd64-py3.9"), ({"requirements": {}}, "another version of the kit")],
)
def test_a_bundle_for_something_else_is_refused(
    tmp_path: Path, installed: list[object], values: dict[str, object], says: str
) -> None:
    file = made(tmp_path)
    changed(file, **values)
    with pytest.raises(SetupError, match=says):
        bundle.set_up_from(file)
    assert installed == []


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(tmp_path: Path, installed: list[object], content: bytes) -> None:
    file = tmp_path / "other.zip"
    file.write_bytes(content)
    with pytest.raises(SetupError, match="is no bundle"):
        bundle.set_up_from(file)
    assert installed == []


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path, installed: list[object]) -> None:
    with pytest.raises(SetupError, match="There is no file"):
        bundle.set_up_from(tmp_path / "none.zip")
    assert installed == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, installed: list[object]) -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        made(tmp_path / "no such folder")
