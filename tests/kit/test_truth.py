"""A log of calls, written by several threads, by processes that are killed, and to disks that are full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kit.truth import MAX_REMEMBERED_OCTETS, Truth
from proto.chat_pb2 import ChatMessage, JoinRequest

ROOT = Path(__file__).parents[2]
CHAT = "/minichat.v1.ChatService/Chat"


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_call_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "log", "client")
    call = truth.call(CHAT)
    call.connected("127.0.0.1:40112")
    call.message("client_to_server", ChatMessage(user="Ana", text="¡Hola!", sequence=7).SerializeToString())
    call.message("server_to_client", ChatMessage(user="Luis").SerializeToString())
    call.message("client_to_server", b"")
    call.ended(3, "no")
    call.ended(0, "")
    told = records(tmp_path / "log")
    times = [record.pop("time_ns") for record in told if "time_ns" in record]
    assert times == sorted(times)
    assert told == [
        {"record": "truth", "side": "client"},
        {"record": "call", "call": 1, "method": CHAT},
        {"record": "connection", "call": 1, "client": "127.0.0.1:40112"},
        {
            "record": "message",
            "call": 1,
            "direction": "client_to_server",
            "sequence": 1,
            "message": {"user": "Ana", "text": "¡Hola!", "sequence": "7"},
        },
        {"record": "message", "call": 1, "direction": "server_to_client", "sequence": 1, "message": {"user": "Luis"}},
        {"record": "message", "call": 1, "direction": "client_to_server", "sequence": 2, "message": {}},
        {"record": "end", "call": 1, "status": 3, "status_message": "no"},
    ]


def test_a_message_is_null_where_it_is_none_and_left_out_where_nobody_knows_it(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "log", "server")
    truth.call(CHAT).message("client_to_server", b"\xff")
    truth.call("/nobody.Knows/This").message("client_to_server", b"\x0a\x00")
    known, unknown = (record for record in records(tmp_path / "log") if record["record"] == "message")
    assert known["message"] is None
    assert "message" not in unknown


@pytest.mark.parametrize("length", [1, MAX_REMEMBERED_OCTETS * 2])
def test_requests_and_responses_are_read_as_what_they_are(tmp_path: Path, length: int) -> None:
    truth = Truth(tmp_path / "log", "server")
    call = truth.call("/minichat.v1.ChatService/Join")
    octets = JoinRequest(user="x" * length).SerializeToString()
    call.message("client_to_server", octets)
    call.message("server_to_client", octets)
    messages = [record["message"] for record in records(tmp_path / "log") if record["record"] == "message"]
    assert messages == [{"user": "x" * length}, {"session_token": "x" * length}]


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "log", "server")

    def talk(number: int) -> None:
        call = truth.call(CHAT)
        for each in range(100):
            call.message("client_to_server", ChatMessage(user=str(number), text="x" * each).SerializeToString())
        call.ended(0, "")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))
    told = records(tmp_path / "log")
    assert len(told) == 1 + 8 * 102
    for number in range(1, 9):
        own = [record for record in told if record.get("call") == number and record["record"] == "message"]
        assert [record["sequence"] for record in own] == list(range(1, 101))
        assert [len(record["message"].get("text", "")) for record in own] == list(range(100))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_leaves_every_line_that_it_wrote(tmp_path: Path) -> None:
    script = """
import sys
from kit.truth import Truth
call = Truth(sys.argv[1], "server").call("/minichat.v1.ChatService/Chat")
while True:
    call.message("client_to_server", b"")
    print("written", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log"], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    written = sum(process.stdout.readline() == "written\n" for _line in range(500))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    *whole, _last = (tmp_path / "log").read_bytes().split(b"\n")  # a write across pages can be killed between them
    assert len([json.loads(line) for line in whole]) >= 2 + written


def test_what_was_in_the_file_is_gone_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n" * 100)
    (tmp_path / "log").unlink()
    Truth(tmp_path / "log", "server").close()
    assert records(tmp_path / "log") == [{"record": "truth", "side": "server"}]
    if sys.platform != "win32":
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    Truth(tmp_path / "log", "client").close()
    assert records(tmp_path / "log") == [{"record": "truth", "side": "client"}]


def test_a_file_that_cannot_be_opened_is_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written: ") as caught:
        Truth(tmp_path / "no" / "folder", "server")
    assert str(tmp_path / "no" / "folder") in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is full here")
def test_a_full_disk_is_told_once_and_calls_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    truth = Truth("/dev/full", "server")
    call = truth.call(CHAT)
    call.message("client_to_server", b"")
    call.ended(0, "")
    err = capsys.readouterr().err
    assert err == f"/dev/full cannot be written, and the truth is not logged from here on: {os.strerror(28)}\n"


def test_nothing_is_written_once_it_is_closed(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "log", "server")
    truth.close()
    truth.call(CHAT).ended(0, "")
    truth.close()
    assert len(records(tmp_path / "log")) == 1
