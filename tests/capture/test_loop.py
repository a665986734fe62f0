"""The tap's thread: sockets, times, and wishes from other threads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from capture.sources.loop import READ, WRITE, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_a_socket_is_watched_for_what_was_asked_and_no_longer(loop: Loop) -> None:
    seen: list[int] = []
    near, far = socket.socketpair()
    with near, far:
        loop.watch(near, READ, seen.append)
        assert not loop.turn(0)
        far.send(b"x")
        assert loop.turn(0)
        loop.watch(near, READ | WRITE, seen.append)
        loop.turn(0)
        loop.watch(near, WRITE, seen.append)
        loop.turn(0)
        loop.watch(near, 0, seen.append)
        assert not loop.turn(0)
    assert seen == [READ, READ | WRITE, WRITE]


def test_what_is_due_happens_in_order_of_time_and_not_before(loop: Loop) -> None:
    done: list[str] = []
    now = time.monotonic_ns()
    loop.at(now + 3_600_000_000_000, lambda: done.append("in an hour"))
    loop.at(now + 2_000_000, lambda: done.append("second"))
    loop.at(now + 1_000_000, lambda: done.append("first"))
    loop.at(now + 1_000_000, lambda: done.append("first too"))
    while len(done) < 3:
        loop.turn()
    assert time.monotonic_ns() >= now + 2_000_000
    assert done == ["first", "first too", "second"]


def test_a_wish_is_answered_in_the_loops_thread_and_its_error_is_the_wishers(loop: Loop) -> None:
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            loop.turn()

    thread = threading.Thread(target=turn)
    loop.run()
    thread.start()
    try:
        assert loop.call(threading.get_ident) == thread.ident
        with pytest.raises(ZeroDivisionError):
            loop.call(lambda: 1 // 0)
        assert loop.call(lambda: "still turning") == "still turning"
    finally:
        stop.set()
        loop.wake()
        thread.join()


def test_a_wish_is_answered_at_once_where_no_loop_turns() -> None:
    loop = Loop()
    assert loop.call(threading.get_ident) == threading.get_ident()
    loop.run()
    loop.close()
    assert loop.call(threading.get_ident) == threading.get_ident()


def test_a_wish_that_waits_while_the_loop_ends_is_answered(loop: Loop) -> None:
    ended = Loop()
    ended.run()
    answers: list[int] = []
    wisher = threading.Thread(target=lambda: answers.append(ended.call(lambda: 7)))
    wisher.start()
    while not ended._wishes:
        wisher.join(0.001)
    ended.close()
    wisher.join()
    assert answers == [7]
