"""Addresses of Redises, and one connection that many share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from server.redis_line import BATCH, Address, Line
from server.redis_scripts import BEAT, SERVERS
from server.stores import StoreLost
from tests.server.redis_server import RedisServer


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://10.0.0.1:6380/15", "redis://10.0.0.1:6380/15"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("rediss://juan:open-sesame@redis.example.org:6379/2", "rediss://redis.example.org:6379/2"),
        ("redis://:open@sesame@localhost/0", "redis://localhost/0"),
    ],
)
def test_an_address_is_shown_without_user_and_password(url: str, shown: str) -> None:
    address = Address.parsed(url)
    assert address.url == url
    assert str(address) == shown
    assert "sesame" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "memory",
        "localhost:6379",
        "redis://",
        "http://localhost/0",
        "redis://h:0/0",
        "redis://h:65536",
        "redis://h/x",
        "redis://h/0#x",
        "redis://h/0?ssl_cert_reqs=none",
        "redis://:open-sesame@h:port/0",
        "unix:///run/redis.sock",
    ],
)
def test_what_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^memory, or redis://HOST:PORT/N") as refused:
        Address.parsed(url)
    assert "sesame" not in str(refused.value)


def run(test: Callable[[Line], Coroutine[Any, Any, None]], redis: RedisServer) -> None:
    async def whole() -> None:
        line = Line(Address.parsed(redis.url))
        try:
            await test(line)
        finally:
            await line.close()

    asyncio.run(whole())


def test_many_share_one_connection_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async def test(line: Line) -> None:
        questions = [line.ask(("ECHO", f"{number}")) for number in range(3 * BATCH)]
        assert await asyncio.gather(*questions) == [f"{number}" for number in range(3 * BATCH)]
        assert (await line.ask(("CLIENT", "LIST"))).count("id=") == 1

    with RedisServer(tmp_path) as redis:
        run(test, redis)


def test_what_redis_refuses_concerns_only_who_asked(tmp_path: Path) -> None:
    async def test(line: Line) -> None:
        answers = await asyncio.gather(
            line.ask(("ECHO", "1")), line.ask(("NO", "SUCH")), line.ask(("ECHO", "2")), return_exceptions=True
        )
        assert [answers[0], answers[2]] == ["1", "2"]
        assert isinstance(answers[1], StoreLost)
        assert "refuses to work (unknown command" in str(answers[1])

    with RedisServer(tmp_path) as redis:
        run(test, redis)


def test_a_script_that_redis_refuses_is_told_with_the_reason_alone(tmp_path: Path) -> None:
    async def test(line: Line) -> None:
        await line.ask(("CONFIG", "SET", "maxmemory", "1"))
        with pytest.raises(StoreLost) as caught:
            await line.ask(BEAT(SERVERS, "server", 1_000))
        assert str(caught.value).endswith("(command not allowed when used memory > 'maxmemory').")

    with RedisServer(tmp_path) as redis:
        run(test, redis)


def test_who_gives_up_waiting_takes_no_answer_from_others(tmp_path: Path) -> None:
    async def test(line: Line) -> None:
        await line.ask(("ECHO", "connected"))
        impatient = asyncio.create_task(line.ask(("ECHO", "1")))
        patient = asyncio.create_task(line.ask(("ECHO", "2")))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == "2"

    with RedisServer(tmp_path) as redis:
        run(test, redis)


def test_a_line_that_is_closed_answers_nobody(tmp_path: Path) -> None:
    async def test(line: Line) -> None:
        await line.ask(("ECHO", "1"))
        await line.close()
        with pytest.raises(StoreLost):
            await line.ask(("ECHO", "2"))

    with RedisServer(tmp_path) as redis:
        run(test, redis)
