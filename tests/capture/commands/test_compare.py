"""`python -m capture compare`, and --engine wireshark of the commands that list records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capture import command
from capture.export import COLUMNS
from capture.pcap import Writer
from capture.sources import opinions
from tests.capture.engine_factory import ETHERNET, Tape, crowd, renumbered, write_pcap
from tests.capture.zoo import zoo

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("compare") / "zoo.pcap", zoo().packets)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# -- compare -----------------------------------------------------------------------------------------------------------


@needs_tshark
def test_what_agrees_ends_with_status_0(zoo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "compare", zoo_file)
    assert (status, err) == (0, "")
    assert out.count("\n= ") == 26
    assert "Beside Wireshark" in out.rpartition("\n\n")[2]


def test_what_differs_ends_with_status_1(zoo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "compare", zoo_file, "--with", "scapy")
    assert status == 1
    assert "≠" in out
    assert err == f"capture: {zoo_file}: 4 of 26 frames are not the same\n"


def test_a_file_that_is_cut_short_is_compared_and_said_to_be(
    zoo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.pcap"
    short.write_bytes(zoo_file.read_bytes()[:-1])
    _status, out, err = run(capsys, "compare", short, "--with", "scapy")
    assert "Beside scapy" in out
    assert err.startswith(f"capture: {short}: the file is cut short: ")


def test_only_what_was_asked_for_is_compared(zoo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _err = run(capsys, "compare", zoo_file, "--with", "scapy", "--stream", 0)
    assert status == 0
    assert "PING" in out
    assert "HEADERS" not in out


def test_each_line_of_json_has_both_sides(zoo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "compare", zoo_file, "--with", "scapy", "--format", "jsonl")
    rows = lines_of(out)
    assert status == 1
    assert len(rows) == 26
    assert "Beside scapy" in err
    (first, *_rest) = [row for row in rows if row["verdict"] == "differing"]
    assert first["differences"][0]["column"] == "fields"
    assert first["ours"]["packet"] == first["theirs"]["packet"] == 10
    assert first["trait"].startswith("scapy")
    equal = next(row for row in rows if row["verdict"] == "equal")
    assert equal["ours"] | {"payload": 0} == equal["theirs"] | {"payload": 0}


@needs_tshark
def test_a_port_can_be_named_where_the_capture_begins_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opinions, "MAX_WITH_PYSHARK", 0)  # slow
    path = write_pcap(tmp_path / "late.pcap", renumbered(crowd(2, calls=2, seed=3).packets[40:]))
    status, out, _err = run(capsys, "compare", path, "--port", 50051, "--all")
    assert status == 1
    assert "inside a frame" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("compare", "-"), 2, "cannot be standard input"),
        (("compare", "{folder}/none.pcap"), 2, "no such file"),
        (("compare", "{folder}/text.pcap"), 1, "no capture"),
        (("compare", "{file}", "--keylog", "{folder}/none.log"), 2, "none.log: there is no such file"),
        (("frames", "{file}", "--keylog", "keys.log"), 2, "--engine wireshark"),
        (("frames", "-", "--engine", "wireshark"), 2, "cannot be standard input"),
        (("calls", "{folder}/text.pcap", "--engine", "wireshark"), 1, "no capture"),
        (("windows", "{file}", "--engine", "wireshark"), 2, "--engine"),
    ],
)
@needs_tshark
def test_misuse_is_one_line(
    arguments: tuple[str, ...],
    status: int,
    words: str,
    zoo_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.pcap").write_text("nothing of the kind")
    filled = [one.format(file=zoo_file, folder=tmp_path) for one in arguments]
    try:
        found = command.main(filled)
    except SystemExit as stopped:
        found = stopped.code  # type: ignore[assignment] # argparse's own: a number
    err = capfd.readouterr().err
    assert found == status
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("compare",), ("frames", "--engine", "wireshark")])
def test_without_tshark_one_sentence_says_what_installs_it(
    arguments: tuple[str, ...],
    zoo_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manager = tmp_path / "apt-get"
    manager.write_text("#!/bin/sh\n")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, err = run(capsys, arguments[0], zoo_file, *arguments[1:])
    assert (status, out) == (3, "")
    assert err.startswith("capture: tshark")
    assert err.endswith("apt-get install tshark\n")
    assert err.count("\n") == 1


# -- the other engine --------------------------------------------------------------------------------------------------


@needs_tshark
@pytest.mark.parametrize("kind", ["frames", "messages", "calls"])
def test_wireshark_s_records_are_ours_to_the_octet(kind: str, tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "crowd.pcap", [*crowd(3, calls=3).packets])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = [
        subprocess.run(
            [sys.executable, "-m", "capture", kind, path, "--format", "jsonl", *engine],
            capture_output=True, check=True, env=environment, cwd=ROOT,
        )
        for engine in ((), ("--engine", "wireshark"))
    ]  # fmt: skip
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.count(b"\n") >= 9
    assert set(json.loads(said[1].stdout.splitlines()[0])) <= set(COLUMNS[kind])


@needs_tshark
def test_frames_of_wireshark_s_can_be_chosen_and_shown(zoo_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "frames", zoo_file, "--engine", "wireshark", "--type", "PUSH_PROMISE")
    assert (status, err) == (0, "")
    assert out.count("PUSH_PROMISE") == 2


@needs_tshark
def test_a_file_that_is_cut_short_is_read_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_pcap(tmp_path / "cut.pcap", zoo().packets)
    path.write_bytes(path.read_bytes()[:-20])
    status, out, err = run(capsys, "frames", path, "--engine", "wireshark")
    assert status == 0
    assert "GOAWAY" in out
    assert "Wireshark says" in err
    assert err.count("\n") == 1


def test_where_there_is_tls_it_is_said_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = Tape()
    tape.talk().shake().send(0, bytes.fromhex("1703030010") + bytes(16)).fin(0).fin(1)
    path = tmp_path / "tls.pcapng"
    for secrets, words in ((b"", "with its keys: "), (b"CLIENT_RANDOM 00 00\n", "the file has its keys: ")):
        with path.open("wb") as file:
            writer = Writer(file, ETHERNET)
            if secrets:
                writer.write_secrets(secrets)
            writer.write(tape.packets)
        status, _out, err = run(capsys, "frames", path)
        assert status == 0
        assert f" · {words}python3 -m capture frames {path} --engine wireshark" in err
        assert err.endswith(" --keylog FILE\n") is not bool(secrets)
