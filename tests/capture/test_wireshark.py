"""Wireshark's profile and its command, tried by the very words through tshark, which reads both the same way."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder

from capture import command
from capture.commands import wireshark
from capture.pcap import Writer
from capture.views.wireshark import BUTTONS, COLUMNS, PROFILE, files
from kit.bootstrap import ROOT
from kit.programs import Tool
from tests.capture.engine_factory import ETHERNET, UP, Tape, chat, data, headers, message


@pytest.fixture(autouse=True)
def personal_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's own settings are touched."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WIRESHARK_CONFIG_DIR", raising=False)
    return tmp_path / "config" / "wireshark"


def written(tape: Tape, path: Path) -> Path:
    with path.open("wb") as file:
        Writer(file, ETHERNET).write(tape.packets)
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The command, as its words."""
    assert command.main(["wireshark", *map(str, arguments), "--print", "--lang", "en"]) == 0
    return shlex.split(capsys.readouterr().out)


def tshark(words: list[str], *more: str) -> str:
    assert Path(words[0]).name.lower().startswith("wireshark")
    done = subprocess.run(["tshark", *words[1:], *more], capture_output=True, text=True, check=True)
    assert "invalid" not in done.stderr.lower()
    assert "error" not in done.stderr.lower()
    return done.stdout


def test_the_printed_command_shows_frames_and_messages_by_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(chat(3), tmp_path / "it's a chat.pcapng")
    words = printed(capsys, path)
    assert f"tcp.port=={chat_port(path, capsys)},http2" in words
    rows = tshark(words, "-Y", "http2.type == 4").splitlines()
    assert rows
    assert all("SETTINGS" in row for row in rows)
    assert "HTTP2" in tshark(words)


def chat_port(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    command.main(["frames", str(path), "--format", "csv", "--fields", "server"])
    return capsys.readouterr().out.splitlines()[1].rpartition(":")[2]


def test_a_late_start_is_found_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = chat(12)
    whole = written(tape, tmp_path / "whole.pcapng")
    path = tmp_path / "late.pcapng"
    with path.open("wb") as file:
        Writer(file, ETHERNET).write(tape.packets[len(tape.packets) // 2 :])
    words = printed(capsys, path)
    assert f"tcp.port=={chat_port(whole, capsys)},http2" in words
    assert tshark(words, "-Y", "http2.type == 0")


def test_the_columns_are_the_profile_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, written(chat(1), tmp_path / "chat.pcapng"))
    shown = tshark(words, "-Y", "http2", "-T", "tabs").splitlines()
    assert {len(row.split("\t")) for row in shown} == {len(COLUMNS)}
    frame = [title for title, _content in COLUMNS].index("Frame")
    assert any("SETTINGS" in row.split("\t")[frame] for row in shown)


def test_every_button_s_filter_and_every_colour_s_is_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = printed(capsys, written(chat(1), tmp_path / "chat.pcapng"))
    coloured = [line.split("@")[2] for line in files("proto")["colorfilters"].splitlines()]
    for text in [*(text for _label, text in BUTTONS), *coloured]:
        tshark(words, "-Y", text)


def test_messages_have_names_from_a_folder_with_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / 'año "uno"'
    folder.mkdir()
    (folder / "chat.proto").write_bytes((ROOT / "proto" / "chat.proto").read_bytes())
    lines = files(folder.as_posix())["protobuf_search_paths"]
    assert lines.isascii()
    fields = [(":method", "POST"), (":path", "/minichat.v1.ChatService/Join"), ("content-type", "application/grpc")]
    talk = Tape().talk().open().send(UP, headers(1, Encoder().encode(fields)) + data(1, message(b"\x0a\x04Juan")))
    words = printed(capsys, written(talk.tape, tmp_path / "chat.pcapng"))
    profile = Path(os.environ["XDG_CONFIG_HOME"]) / "wireshark" / "profiles" / PROFILE
    (profile / "protobuf_search_paths").write_text(lines)
    assert "user = Juan" in tshark(words, "-O", "protobuf")


def test_what_a_user_has_changed_stays(
    personal_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(chat(1), tmp_path / "chat.pcapng")
    printed(capsys, path)
    profile = personal_folder / "profiles" / PROFILE
    (profile / "colorfilters").write_text("# mine\n")
    (profile / "protobuf_search_paths").write_text("# of a clone that has moved\n")
    printed(capsys, path)
    assert (profile / "colorfilters").read_text() == "# mine\n"
    assert str(ROOT / "proto") in (profile / "protobuf_search_paths").read_text()


def test_a_key_log_is_named_by_its_whole_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(chat(1), tmp_path / "chat.pcapng")
    monkeypatch.chdir(tmp_path)
    Path("keys.log").touch()
    assert f"tls.keylog_file:{tmp_path / 'keys.log'}" in printed(capsys, path, "--keylog", "keys.log")
    assert command.main(["wireshark", str(path), "--keylog", "nowhere.log"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_where_there_is_wireshark_it_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(chat(1), tmp_path / "chat.pcapng")
    words = printed(capsys, path)
    started: list[list[str]] = []
    monkeypatch.setattr(Tool, "find", lambda _tool: "/opt/wireshark")
    monkeypatch.setattr(wireshark, "_personal_folder", lambda: tmp_path / "personal")
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_how: started.append(words))
    assert command.main(["wireshark", str(path)]) == 0
    assert started == [["/opt/wireshark", *words[1:]]]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "shell", "power_shell"),
    [
        (
            ["wireshark", "-d", "tcp.port==1,http2"],
            "wireshark -d tcp.port==1,http2",
            "wireshark -d 'tcp.port==1,http2'",
        ),
        (["wireshark", "it's.pcap"], "wireshark 'it'\"'\"'s.pcap'", "wireshark 'it''s.pcap'"),
        ([r"C:\Program Files\W.exe", "a"], r"'C:\Program Files\W.exe' a", r"& 'C:\Program Files\W.exe' a"),
    ],
)
def test_a_command_is_quoted_for_the_shell(words: list[str], shell: str, power_shell: str) -> None:
    assert wireshark.typed(words, powershell=False) == shell
    assert shlex.split(shell) == words
    assert wireshark.typed(words, powershell=True) == power_shell


@pytest.mark.parametrize(
    ("arguments", "status"), [(["-"], 2), (["nowhere.pcapng"], 2), ([__file__], 1)], ids=["stdin", "missing", "no pcap"]
)
def test_what_is_no_capture_is_said_in_one_line(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["wireshark", *arguments]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_profile_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(wireshark, "_personal_folder", lambda: tmp_path / "file")
    path = written(chat(1), tmp_path / "chat.pcapng")
    assert command.main(["wireshark", str(path), "--print", "--lang", "en"]) == 3
    told: Any = capsys.readouterr()
    assert "cannot be written" in told.err
    assert told.out == ""
