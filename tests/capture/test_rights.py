"""What is told about the right to sniff, on each system."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from capture.sources import rights
from kit import bootstrap


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.setattr(sys, "platform", request.param)
    return str(request.param)


@pytest.mark.parametrize("system", ["linux"], indirect=True)
def test_linux_is_asked_for_a_packet_socket(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, *_arguments: object) -> None:
            raise PermissionError

    monkeypatch.setattr(socket, "AF_PACKET", 17, raising=False)
    monkeypatch.setattr(socket, "socket", Refused)
    assert not rights.may_sniff()
    assert "-m capture live; or for good" in rights.how_to_get_it()


@pytest.mark.parametrize("system", ["linux"], indirect=True)
@pytest.mark.parametrize("is_set_up", [True, False])
def test_linux_gives_the_right_to_the_program_behind_the_links(
    system: str, is_set_up: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not is_set_up:
        monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    python = rights.how_to_get_it().rpartition("cap_net_raw,cap_net_admin=eip ")[2]
    assert Path(python).resolve() == Path(python)
    assert Path(python).is_file()
    assert not Path(python).is_symlink()


@pytest.mark.parametrize("system", ["darwin"], indirect=True)
def test_macos_has_chmodbpf(system: str) -> None:
    assert "access_bpf" in rights.how_to_get_it()
    assert rights.how_to_get_it().startswith("sudo ")


@pytest.mark.parametrize("system", ["win32"], indirect=True)
def test_windows_needs_npcap_and_perhaps_an_administrator(
    system: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rights, "NPCAP", tmp_path / "wpcap.dll")
    assert not rights.may_sniff()
    assert "https://npcap.com" in rights.how_to_get_it()
    (tmp_path / "wpcap.dll").touch()
    assert rights.may_sniff()
    assert "administrator" in rights.how_to_get_it()
