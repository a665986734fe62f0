"""The demo as a newcomer runs it, and what it leaves, against tshark's reading of the same file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import capture
from capture.events import FrameType
from kit.bootstrap import ROOT


class Run:
    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        done = subprocess.run(
            [sys.executable, "-m", "lab", "demo", "--folder", str(folder), *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.lines = self.out.splitlines()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("run") / "demo")
    assert (run.status, run.err) == (0, "")
    return run


@pytest.fixture(scope="module")
def seen(demo: Run) -> capture.Capture:
    return capture.read(demo.folder / "demo.pcapng")


def test_the_conversation_is_shown_as_it_goes(demo: Run) -> None:
    said = [line for line in demo.lines if "▸ #general" in line]
    assert said[1].split() == ["Juan", "▸", "#general", "Hola"]
    assert "the history has 1 message" in said[2]
    assert "¡Hola, Juan!" in said[3]


def test_every_frame_has_its_line(demo: Run, seen: capture.Capture) -> None:
    rows = [line for line in demo.lines if re.match(r" +[\d,]+\.\d\d +[→←] +\d+ ", line)]
    assert len(rows) == len(seen.frames) > 50
    for name in ("SETTINGS", "HEADERS", "DATA", "WINDOW_UPDATE"):
        assert any(re.search(rf" {name} ", row) for row in rows)
    assert any('ChatMessage {user: "Juan", room: "general", text: "Hola"' in row for row in rows)
    assert any("POST /minichat.v1.ChatService/History" in row for row in rows)


def test_the_calls_are_two_joins_two_histories_and_two_chats_that_ended_well(seen: capture.Capture) -> None:
    calls = Counter((call.path or "").rpartition("/")[2] for call in seen.calls)
    assert calls == {"Join": 2, "History": 2, "Chat": 2}
    assert {call.status for call in seen.calls} == {0}
    assert seen.problems == []
    assert len(seen.connections) == 2


def test_both_talk_at_the_same_time(seen: capture.Capture) -> None:
    """Full duplex: on one stream messages go both ways before either way has ended."""
    chat = next(call for call in seen.calls if (call.path or "").endswith("/Chat"))
    ways = [
        frame.direction
        for frame in seen.frames
        if (frame.connection, frame.stream_id) == (chat.connection, chat.stream_id) and frame.data_length
    ]
    assert len(set(ways)) == 2
    assert sum(before != after for before, after in pairwise(ways)) > 2


def test_the_account_of_the_first_message_is_this_run_s(demo: Run, seen: capture.Capture) -> None:
    message = next(m for m in seen.messages if isinstance(m.message, dict) and m.message.get("text") == "Hola")
    [line] = [line for line in demo.lines if line.startswith('"Hola" is')]
    numbers = [int(n) for n in re.findall(r"\d+", line.partition("TCP")[0].replace("HTTP/2", ""))]
    assert numbers == [4, message.length, 5, 9, message.length + 5 + 9]
    assert len(message.data) == message.length


def test_tshark_counts_the_same_frames_of_each_type(demo: Run, seen: capture.Capture) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    port = seen.connections[0].server.rpartition(":")[2]
    command = ["tshark", "-r", str(demo.folder / "demo.pcapng"), "-d", f"tcp.port=={port},http2"]
    done = subprocess.run([*command, "-T", "fields", "-e", "http2.type"], capture_output=True, text=True, check=True)
    theirs = Counter(int(code) for code in re.findall(r"\d+", done.stdout))
    assert theirs == Counter(frame.type_code for frame in seen.frames)
    [counted] = [line for line in demo.lines if re.match(r"\d+ frames: ", line)]
    told = {FrameType[name]: int(count) for count, name in re.findall(r"(\d+) ([A-Z_]+)", counted)}
    assert told == dict(theirs)


def test_the_picture_is_there_and_is_a_picture(demo: Run) -> None:
    octets = (demo.folder / "timeline.png").read_bytes()
    assert octets.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(octets) > 20_000


def test_what_it_says_to_type_next_works(demo: Run) -> None:
    [command] = [line.strip() for line in demo.lines if " -m capture frames " in line]
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "SETTINGS" in done.stdout


def test_it_runs_in_spanish_and_in_a_folder_with_an_accent(tmp_path: Path) -> None:
    run = Run(tmp_path / "demostración", "--lang", "es")
    assert (run.status, run.err) == (0, "")
    assert "María ▸ #general  ¡Hola, Juan!" in run.out
    assert (tmp_path / "demostración" / "demo.pcapng").exists()


def test_a_campus_proxy_does_not_get_in_the_way(tmp_path: Path) -> None:
    run = Run(tmp_path / "demo", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", no_proxy="")
    assert (run.status, run.err) == (0, "")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = Run(tmp_path / "file" / "demo")
    assert (run.status, run.out, len(run.err.splitlines())) == (3, "", 1)
    assert "Traceback" not in run.err
