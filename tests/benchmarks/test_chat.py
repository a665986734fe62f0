"""The benchmark's own sums: how fast anything is, is not asked here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chat import (
    QUICK,
    Loader,
    Way,
    burst,
    in_turns,
    loaded,
    percentile,
    rate,
    redis,
    serving,
    slow,
)
from benchmarks.load import Opened, Run, Trouble

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = QUICK._replace(seconds=0.1, crowd=40)


def assert_adds_up(run: Run, members: int) -> None:
    assert run.posts > 0
    assert run.deliveries == run.posts * members
    assert 0 < run.measured <= len(run.latencies_ns) <= run.deliveries
    assert min(run.latencies_ns) > 0


@pytest.mark.parametrize("model", ["threads", "asyncio"])
@pytest.mark.parametrize("connections", [0, 2])
def test_every_post_reaches_every_member(model: str, connections: int) -> None:
    ((run,),) = in_turns({"": Way((model,), 7, connections)}, TINY).values()
    assert_adds_up(run, 7)
    assert rate(run).deliveries == run.measured / run.seconds


def test_every_post_reaches_every_member_through_redis() -> None:
    with redis() as url:
        ((run,),) = in_turns({"": Way(("asyncio", "--store", url), 7)}, TINY).values()
    assert_adds_up(run, 7)


def test_one_load_after_the_other_on_the_same_server_is_counted_by_itself() -> None:
    with serving("asyncio") as server:
        for _again in range(2):
            with loaded(server, 4) as load:
                run = load.call("pace", server=server.pid, seconds=0.1, per_second=2_000, text_length=4_000)
                assert_adds_up(run, 4)


def test_a_burst_finds_everybody_inside_and_everybody_gets_a_message() -> None:
    for one in burst(TINY).values():
        assert one.opened.inside == one.deliveries == TINY.crowd
        assert one.opened.refused == []
        assert one.joins_ms
        assert one.octets > 0


def test_who_is_refused_is_counted_with_status_and_sentence() -> None:
    with serving("threads", "--chats", "2") as server, Loader() as load:
        opened: Opened = load.call("open", port=server.port, members=3, connections=1, per_room=3)
    (refused,) = opened.refused
    assert opened.inside == 2
    assert refused.status == 8  # RESOURCE_EXHAUSTED
    assert refused.sentence.startswith("All 2 places")


def test_a_server_that_does_not_start_is_named_with_what_it_said() -> None:
    with pytest.raises(Trouble, match="ended with status 2"), serving("no such model"):
        pass


def test_the_slow_member_is_dropped_and_the_readers_get_all() -> None:
    done = slow(QUICK)
    assert_adds_up(done.without, QUICK.readers)
    assert_adds_up(done.beside, QUICK.readers)
    assert done.octets > 2 * 4_194_304
    assert done.ended.status == 8  # RESOURCE_EXHAUSTED
    assert 0 < done.before <= done.most


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(1, 201))
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (100, 198, 200)
    assert percentile([7], 50) == 7


def test_the_command_prints_what_it_measured() -> None:
    command = [sys.executable, "benchmarks/chat.py", "--quick", "--only", "latency"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "p99 of 10,000 deliveries/s" in done.stdout
