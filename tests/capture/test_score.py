"""Captures of the running chat against what its ends logged: what is lost is unknown, and nothing is wrong."""

from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from capture.command import main
from capture.evidence import TrueCall, TrueLog, TrueMessage
from capture.score import (
    DIFFERS,
    MISSING,
    NEVER_HAPPENED,
    NEVER_LEFT,
    NEVER_TRAVELLED,
    NO_CONTENT,
    OTHER_SENTENCE,
    OTHER_STATUS,
    OWN_STATUS,
    RESOLVED,
    SWAPPED,
    UNKNOWN,
    WRONG,
    Score,
)
from capture.sources.rights import may_sniff
from server import asynchronous, threaded
from tests.capture.glass_box import Recorded, seen, sniffed, tapped

ROOT = Path(__file__).parents[2]
MODELS = {"threads": threaded, "asyncio": asynchronous}

Edit = Callable[[list[TrueLog]], None]


@pytest.fixture(scope="module", params=MODELS)
def rough(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    if not may_sniff():
        pytest.skip("this user may not sniff")
    return sniffed(tmp_path_factory.mktemp("rough"), MODELS[request.param])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smooth")


@pytest.fixture(scope="module")
def smooth(folder: Path) -> Recorded:
    return tapped(folder, threaded)


def shares(score: Score) -> dict[str, object]:
    """For the message of an assertion."""
    wrong = [finding for finding in score.findings if finding.verdict == WRONG]
    return {"counts": dict(score.counts), "unproven": score.unproven, "wrong": wrong[:3]}


def assert_nothing_is_wrong(score: Score) -> None:
    assert not score.count(WRONG), shares(score)


# --- whole


def test_a_whole_capture_tells_every_call_and_message(smooth: Recorded) -> None:
    score = smooth.score()
    truth = sum(1 + len(up) + len(down) for log in smooth.logs for up, down in (call.messages for call in log.calls))
    assert truth > 200
    assert score.count(RESOLVED) == truth == len(score.findings), shares(score)
    assert not score.unproven


def test_calls_that_end_badly_are_told_as_they_were(rough: Recorded) -> None:
    score = rough.score()
    assert_nothing_is_wrong(score)
    reasons = {reason for _kind, verdict, reason in score.counts if verdict == UNKNOWN}
    assert reasons <= {NEVER_LEFT, NEVER_TRAVELLED, NO_CONTENT, OWN_STATUS}, shares(score)
    assert score.count(UNKNOWN) <= 12 < 500 < score.count(RESOLVED), shares(score)


def test_a_client_may_have_its_own_words_for_a_status_that_it_gives_by_itself(rough: Recorded) -> None:
    logs = copy.deepcopy(rough.logs)
    late = [call for log in logs if log.side == "client" for call in log.calls if call.status == 4]
    assert late
    for call in late:
        call.sentence = "Stream removed (Deadline Exceeded)"
    assert_nothing_is_wrong(rough.score(logs=logs))


def test_both_ends_say_the_same_of_the_same_calls(rough: Recorded) -> None:
    server, *clients = rough.logs
    assert server.side == "server"
    assert {client.side for client in clients} == {"client"}
    assert len(server.calls) == sum(len(client.calls) for client in clients)


# --- cut, lossy, snapped


def test_a_capture_that_starts_late_is_never_wrong(rough: Recorded) -> None:
    packets = rough.packets
    for cut in range(0, len(packets), len(packets) // 12):
        assert_nothing_is_wrong(rough.score(packets[cut:]))


def test_a_capture_that_ends_early_is_never_wrong(rough: Recorded) -> None:
    packets = rough.packets
    for cut in range(1, len(packets), len(packets) // 6):
        assert_nothing_is_wrong(rough.score(packets[:cut]))


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.1, 0.3])
def test_a_capture_that_loses_segments_is_never_wrong(rough: Recorded, loss: float) -> None:
    for seed in range(2):
        draw = random.Random(seed)
        score = rough.score([packet for packet in rough.packets if draw.random() >= loss])
        assert_nothing_is_wrong(score)
        if loss <= 0.01:
            assert score.count(RESOLVED) > len(score.findings) / 2, shares(score)


def test_a_capture_that_starts_late_and_loses_segments_is_never_wrong(rough: Recorded) -> None:
    for seed in range(3):
        draw = random.Random(seed)
        rest = rough.packets[draw.randrange(len(rough.packets)) :]
        assert_nothing_is_wrong(rough.score([packet for packet in rest if draw.random() >= 0.03]))


@pytest.mark.parametrize("length", [70, 96, 110, 300])
def test_a_snapped_capture_is_never_wrong(rough: Recorded, length: int) -> None:
    score = rough.score([packet._replace(data=packet.data[:length]) for packet in rough.packets])
    assert_nothing_is_wrong(score)
    if length == 300:
        assert score.count(RESOLVED) > 100, shares(score)


def test_a_tap_capture_is_never_wrong_either(smooth: Recorded) -> None:
    packets, draw = smooth.packets, random.Random(2)
    for cut in range(0, len(packets), len(packets) // 10):
        assert_nothing_is_wrong(smooth.score(packets[cut:]))
    assert_nothing_is_wrong(smooth.score([packet for packet in packets if draw.random() >= 0.05]))
    assert_nothing_is_wrong(smooth.score([packet._replace(data=packet.data[:96]) for packet in packets]))


# --- what is wrong is seen


def chats(logs: list[TrueLog]) -> list[TrueCall]:
    return [call for log in logs for call in log.calls if call.method.endswith("/Chat") and len(call.messages[1]) > 9]


def change_a_letter(logs: list[TrueLog]) -> None:
    said = chats(logs)[0].messages[0]
    said[4] = said[4]._replace(message={**said[4].message, "text": said[4].message["text"] + "!"})


def change_a_number(logs: list[TrueLog]) -> None:
    heard = chats(logs)[1].messages[1]
    heard[6] = heard[6]._replace(message={**heard[6].message, "sequence": "77"})


def swap_two_messages(logs: list[TrueLog]) -> None:
    heard = chats(logs)[0].messages[1]
    heard[3], heard[4] = heard[4], heard[3]


def forget_a_message(logs: list[TrueLog]) -> None:
    del chats(logs)[0].messages[0][5]


def forget_the_last_message(logs: list[TrueLog]) -> None:
    chats(logs)[0].messages[0].pop()


def invent_a_message_that_was_received(logs: list[TrueLog]) -> None:
    chats(logs)[0].messages[1].append(TrueMessage(0, {"text": "never"}, True))


def change_the_status(logs: list[TrueLog]) -> None:
    chats(logs)[0].status = 9


def change_the_sentence(logs: list[TrueLog]) -> None:
    chats(logs)[0].sentence = "never said"


def forget_a_call(logs: list[TrueLog]) -> None:
    del logs[0].calls[1]


def invent_a_call(logs: list[TrueLog]) -> None:
    before = logs[0].calls[0]
    more = TrueCall(1_000, "/minichat.v1.ChatService/Never", before.start_ns + 1)
    more.client, more.has_end, more.end_ns = before.client, True, before.end_ns
    more.messages[1].append(TrueMessage(before.start_ns + 2, {}, True))
    logs[0].calls.append(more)


def swap_two_connections(logs: list[TrueLog]) -> None:
    one, other = chats(logs)[:2]
    addresses = {one.client: other.client, other.client: one.client}
    for log in logs:
        for call in log.calls:
            call.client = addresses.get(call.client, call.client)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (change_a_letter, DIFFERS),
        (change_a_number, DIFFERS),
        (swap_two_messages, DIFFERS),
        (forget_a_message, DIFFERS),
        (forget_the_last_message, NEVER_HAPPENED),
        (invent_a_message_that_was_received, MISSING),
        (change_the_status, OTHER_STATUS),
        (change_the_sentence, OTHER_SENTENCE),
        (forget_a_call, NEVER_HAPPENED),
        (invent_a_call, MISSING),
        (swap_two_connections, DIFFERS),
    ],
    ids=lambda what: getattr(what, "__name__", ""),
)
def test_what_a_capture_tells_differently_is_wrong(smooth: Recorded, edit: Edit, reason: str) -> None:
    logs = copy.deepcopy(smooth.logs)
    edit(logs)
    score = smooth.score(logs=logs)
    assert reason in {finding.reason for finding in score.findings if finding.verdict == WRONG}, shares(score)


@pytest.mark.parametrize("edit", [change_a_letter, change_a_number, swap_two_messages], ids=lambda edit: edit.__name__)
def test_a_gap_elsewhere_does_not_hide_what_is_wrong(smooth: Recorded, edit: Edit) -> None:
    logs = copy.deepcopy(smooth.logs)
    edit(logs)
    wrong = 0
    for seed in range(4):
        draw = random.Random(seed)
        wrong += bool(smooth.score([one for one in smooth.packets if draw.random() >= 0.01], logs).count(WRONG))
    assert wrong >= 2  # where the gap is not at the very place


def test_a_client_taken_for_the_server_is_wrong(smooth: Recorded) -> None:
    what = seen(smooth.packets, ())
    for known in what.connections.values():
        here = known.connection
        known.connection = here._replace(client=here.server, server=here.client)
    score = Score(smooth.logs, what)
    assert score.count(WRONG) == len(score.findings)
    assert {finding.reason for finding in score.findings} == {SWAPPED}


def test_a_stream_may_be_a_call_whose_connection_the_log_does_not_know(smooth: Recorded) -> None:
    logs = copy.deepcopy(smooth.logs)
    log = next(log for log in logs if log.side == "client")
    lost = log.calls[1]
    lost.client = None
    score = smooth.score(logs=logs)
    assert_nothing_is_wrong(score)
    assert score.count(UNKNOWN, "call") == score.unproven == 1
    log.calls.remove(lost)
    assert [finding.reason for finding in smooth.score(logs=logs).findings if finding.verdict == WRONG] == [
        NEVER_HAPPENED
    ]


def test_a_log_that_stops_before_the_capture_does_proves_nothing_of_the_rest(smooth: Recorded) -> None:
    logs = copy.deepcopy(smooth.logs)
    for log in logs:
        call = next(call for call in log.calls if call.method.endswith("/Chat"))
        call.has_end, call.end_ns, call.status = False, None, None
        del log.calls[log.calls.index(call) + 1 :]
        del call.messages[0][3:], call.messages[1][3:]
        log.last_ns = call.start_ns
    score = smooth.score(logs=logs)
    assert_nothing_is_wrong(score)
    assert score.unproven


# --- the command


def test_the_command_shows_calls_sums_and_a_summary(
    smooth: Recorded, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = [part for file in sorted(folder.glob("client*.jsonl")) for part in ("--truth", str(file))]
    assert main(["score", str(folder / "chat.pcapng"), *truths, "--lang", "en"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["log", "call", "method", "stream", "messages", "verdict"]
    every = len(smooth.score().findings)
    assert out.splitlines()[-1] == f"{every} calls and messages of the truth: {every} resolved, 0 unknown, 0 wrong"


def test_a_tap_capture_cannot_be_scored_by_the_server_alone(
    smooth: Recorded, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smooth.packets
    own = (folder / "client0.jsonl").read_text("utf-8").replace('"side": "client"', '"side": "server"')
    (tmp_path / "server.jsonl").write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", own), "utf-8")
    arguments = ["score", str(folder / "chat.pcapng"), "--truth", str(tmp_path / "server.jsonl"), "--lang", "en"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "0 resolved" in out
    assert "its connection is not in the capture" in out
    assert "give the clients' logs" in err


@pytest.mark.usefixtures("smooth")
def test_the_command_fails_where_something_is_wrong_and_says_what(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "false.jsonl"
    log.write_text((folder / "client0.jsonl").read_text("utf-8").replace('"text": "7 ', '"text": "8 '), "utf-8")
    arguments = ["score", str(folder / "chat.pcapng"), "--truth", str(log), "--lang", "en"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "the content differs" in out
    assert '"text": "8 ' in out
    assert '"text": "7 ' in out
    assert err.endswith("the capture tells something wrong\n")
    assert main([*arguments, "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    wrong = [record for record in records if record["verdict"] == "wrong"]
    assert wrong
    assert {record["reason"] for record in wrong} == {"the content differs"}
    assert all(record["expected"] != record["found"] for record in wrong)
    assert f"{len(wrong)} wrong" in err


@pytest.mark.parametrize(
    ("content", "reason", "status"),
    [
        (b"", "there is nothing in it that a server or client with --truth wrote", 1),
        (b"# README\n", "line 1 is none that a server or client with --truth writes", 1),
        (b'{"record": "truth", "side": "server"}\n{"record": "end", "call": 9}\n', "line 2 is none that", 1),
        (None, "No such file or directory", 2),
    ],
)
@pytest.mark.usefixtures("smooth")
def test_what_is_no_truth_is_refused_in_one_line(
    folder: Path, tmp_path: Path, content: bytes | None, reason: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    if content is not None:
        log.write_bytes(content)
    assert main(["score", str(folder / "chat.pcapng"), "--truth", str(log), "--lang", "en"]) == status
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert reason in err


def test_server_and_clients_log_the_truth_when_they_are_told_to(tmp_path: Path) -> None:
    python = [sys.executable, "-m"]

    def begin(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*python, *map(str, arguments)], cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, encoding="utf-8"
        )

    with begin("server", "--port", 0, "--truth", tmp_path / "server.jsonl", "--lang", "en") as server:
        assert server.stdout is not None
        address = server.stdout.readline().split(" on ")[1].split(";")[0]
        clients = [
            begin("client", name, "general", "--server", address, "--truth", tmp_path / f"{name}.jsonl")
            for name in ("Ana", "Luis")
        ]
        for client in clients:
            assert client.communicate("hola\nadiós\n", timeout=30)[1] == ""
        server.terminate()
        server.communicate(timeout=30)
    logs = [json.loads(line) for line in (tmp_path / "server.jsonl").read_text("utf-8").splitlines()]
    assert [log["status"] for log in logs if log["record"] == "end"] == [0] * 6
    assert {log["record"] for log in logs} == {"truth", "call", "connection", "message", "end"}
    server_side = {log["client"] for log in logs if log["record"] == "connection"}
    for name in ("Ana", "Luis"):
        own = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()]
        assert {log["client"] for log in own if log["record"] == "connection"} < server_side
        assert (tmp_path / f"{name}.jsonl").stat().st_mode & 0o077 == 0
