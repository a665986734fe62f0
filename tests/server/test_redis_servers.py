"""Several server processes on one Redis, as people start them, and clients that stay however often something dies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType

import pytest

from client.events import Forgotten, Lost, Missed
from client.session import Session
from proto.chat_pb2 import ChatMessage, HistoryRequest
from tests.client.wires import Cable, session
from tests.server.peers import DEADLINE, Peer, Stub
from tests.server.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
LONG = 6 * DEADLINE
"""Seconds for what has pauses of several seconds in it."""
_numbers = count()


class Server:
    """A server process on a free port; `log` is what it has said."""

    def __init__(self, folder: Path, store: str, model: str = "asyncio", options: Sequence[str] = ()) -> None:
        self._file = folder / f"server {next(_numbers)}.log"
        command = [sys.executable, "-m", "server", "--model", model, "--port", "0", "--lang", "en", *options]
        with self._file.open("w") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "MINICHAT_STORE": store},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.wait_for("Listening on")
        found = re.search(r"Listening on (\S+:(\d+));", self.log)
        assert found is not None
        self.address, self.port = found[1], int(found[2])

    @property
    def log(self) -> str:
        return self._file.read_text(encoding="utf-8")

    def wait_for(self, part: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while part not in self.log:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9"""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(DEADLINE)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


def test_members_of_both_models_on_two_servers_share_a_room(redis: RedisServer, tmp_path: Path) -> None:
    with (
        Server(tmp_path, redis.url, "threads") as threads,
        Server(tmp_path, redis.url, "asyncio") as tasks,
        Peer(threads.address, "Juan").inside() as juan,
        Peer(tasks.address, "María").inside() as maria,
    ):
        assert juan.headers() == maria.headers()
        juan.say("Hola", "id-1")
        assert maria.texts() == juan.texts() == ["Hola"]
        maria.say("¿Qué tal?")
        assert juan.hear() == maria.hear()
        juan.say("Hola", "id-1")  # once more
        juan.say("the end")
        assert maria.texts() == ["the end"]
        with Stub(tasks.address) as stub:
            assert list(stub.join("Ana").members) == ["Juan", "María"]
            assert [message.sequence for message in stub.history("Ana")] == [1, 2, 3]
        threads.wait_for("→ BROADCASTING to 2 client(s) in #general: Hola")
        juan.leave()
        assert threads.stop() == tasks.stop() == 0


def test_a_client_that_grpc_balances_may_join_at_one_server_and_chat_at_another(
    redis: RedisServer, tmp_path: Path
) -> None:
    """As docs/scaling.md says it: each call goes to the next server, and a token holds at all of them."""
    options = ("--sessions", "required")
    policy = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))
    with (
        Server(tmp_path, redis.url, options=options) as one,
        Server(tmp_path, redis.url, options=options) as other,
        Stub(f"ipv4:{one.address},{other.address}", (policy,)) as stub,
    ):
        chats = 0
        while not ("joined" in one.log and "joined" in other.log):
            chats += 1
            assert chats < 100, "all chats are at one server"
            user = f"Ana{chats}"
            headers = (("authorization", f"Bearer {stub.join(user).session_token}"),)
            for _call in range(3):  # with the others an odd number: the next chat is another server's
                request = HistoryRequest(user=user, room="general")
                list(stub.stub.History(request, metadata=headers, timeout=DEADLINE))
            chat = stub.stub.Chat(iter([ChatMessage(user=user, room="general")]), metadata=headers, timeout=DEADLINE)
            assert list(chat) == []


def test_everybody_has_every_message_once_and_in_one_order_whatever_dies(redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(Server(tmp_path, redis.url))
        other = stack.enter_context(Server(tmp_path, redis.url))
        cables = [stack.enter_context(Cable(server.port)) for server in (one, one, other, other)]
        sessions = [session(cable.address, f"member {number}") for number, cable in enumerate(cables)]
        for each, _book in sessions:
            each.start()
            stack.callback(each.close)
        for each, _book in sessions:
            assert each.wait_until_inside(DEADLINE)
        said = 0

        def all_say(messages: int) -> None:
            nonlocal said
            for number in range(said, said + messages):
                for each, _book in sessions:
                    assert each.say(f"{each.user}: {number}")
            said += messages

        def move(to: Server, *moved: Cable) -> None:
            for cable in moved:
                cable.lead_to(to.port)
                cable.cut()

        all_say(20)
        for cable in cables[1:3]:
            cable.cut()
        all_say(20)
        one.kill()
        move(other, *cables[:2])
        all_say(20)
        redis.restart()
        all_say(20)
        third = stack.enter_context(Server(tmp_path, redis.url, "threads"))
        move(third, *cables[:3])
        all_say(20)
        other.kill()
        move(third, cables[3])
        all_say(20)
        for each, _book in sessions:
            assert each.wait_until_confirmed(LONG)
        books = [book for _session, book in sessions]
        for book in books:
            book.wait_for_texts(4 * said, LONG)
            assert [message.sequence for message in book.messages] == list(range(1, 4 * said + 1))
            assert book.texts == books[0].texts
            assert not [event for event in book.others if isinstance(event, Missed | Forgotten)]
        for each, book in sessions:
            own = [text for text in book.texts if text.startswith(each.user)]
            assert own == [f"{each.user}: {number}" for number in range(said)]


@pytest.mark.parametrize("model", ["threads", "asyncio"])
def test_a_burst_from_another_server_reaches_all_who_read(redis: RedisServer, tmp_path: Path, model: str) -> None:
    """It is longer than a history, than the log's one read, and than what may wait for a member."""
    speakers, each = 5, 400
    with Server(tmp_path, redis.url) as one, Server(tmp_path, redis.url, model) as other, ExitStack() as stack:
        listeners = [stack.enter_context(Peer(other.address, f"listener {number}").inside()) for number in range(5)]
        for number in range(speakers):
            speaker = stack.enter_context(Peer(one.address, f"speaker {number}").inside())
            for message in range(each):
                speaker.say(f"{message}")
        for listener in listeners:
            heard = listener.hear(speakers * each, LONG)
            assert [message.sequence for message in heard] == list(range(1, speakers * each + 1))


def test_members_are_told_when_redis_is_gone_and_nothing_is_lost_when_it_is_back(
    redis: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(tmp_path, redis.url, model)) for model in ("threads", "asyncio")]
        pairs = [session(server.address, f"member {number}") for number, server in enumerate(servers)]
        for each, _book in pairs:
            stack.enter_context(each)
            assert each.wait_until_inside(DEADLINE)
            each.say("confirmed")
            assert each.wait_until_confirmed(DEADLINE)
        redis.kill()
        for each, book in pairs:
            book.wait_for_kind(Lost)
            assert any(
                "has lost its store of messages" in event.reason for event in book.events if isinstance(event, Lost)
            )
            each.say("said meanwhile")
        for server in servers:
            server.wait_for("Redis is lost (Connection refused); every chat ends until it is back")
        redis.start()
        for each, book in pairs:
            assert each.wait_until_confirmed(LONG)
            assert sorted(book.wait_for_texts(4, LONG)) == ["confirmed"] * 2 + ["said meanwhile"] * 2
            assert [message.sequence for message in book.messages] == [1, 2, 3, 4]
            assert all(isinstance(event, Lost) for event in book.others)
        for server in servers:
            server.wait_for("Redis is back")


def test_who_was_away_while_more_was_said_than_the_history_holds_is_told_of_the_gap(
    redis: RedisServer, tmp_path: Path
) -> None:
    with Server(tmp_path, redis.url) as one, Server(tmp_path, redis.url) as other, Cable(one.port) as cable:
        away, book = session(cable.address, "Ana")
        speaker, heard = session(other.address, "Juan")
        with away, speaker:
            assert away.wait_until_inside(DEADLINE)
            assert speaker.wait_until_inside(DEADLINE)
            speaker.say("1")
            book.wait_for_texts(1)
            cable.unplugged = True
            cable.cut()
            book.wait_for_kind(Lost)
            say(speaker, range(2, 603))
            heard.wait_for_texts(602)
            cable.lead_to(other.port)
            cable.unplugged = False
            book.wait_for_texts(501)
            assert [event for event in book.others if isinstance(event, Missed)] == [Missed(101)]
            assert book.texts == ["1", *map(str, range(103, 603))]


def say(speaker: Session, numbers: range) -> None:
    for number in numbers:
        assert speaker.say(str(number))
    assert speaker.wait_until_confirmed(LONG)


def test_no_log_line_holds_the_password_of_a_redis(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        RedisServer(folder, password="open-sesame") as redis,
        Server(tmp_path, redis.url) as server,
        Peer(server.address).inside(),
    ):
        redis.kill()
        server.wait_for("Redis is lost")
        assert "sesame" not in server.log


def test_a_redis_that_is_not_there_is_one_sentence_and_status_3(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    redis.close()
    for model in ("threads", "asyncio"):
        command = [
            sys.executable,
            "-m",
            "server",
            "--lang",
            "en",
            "--port",
            "0",
            "--model",
            model,
            "--store",
            redis.url,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=DEADLINE)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"There is no Redis to work with at {redis.url} (Connection refused).\n"


@pytest.mark.parametrize("address", ["redis://", "http://127.0.0.1/0", "redis://:open-sesame@host:no-port/0", "disk"])
def test_what_is_no_address_of_a_redis_is_misuse(address: str) -> None:
    command = [sys.executable, "-m", "server", "--lang", "en", "--port", "0", "--store", address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --store: memory, or redis://HOST:PORT/N" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "sesame" not in done.stderr
