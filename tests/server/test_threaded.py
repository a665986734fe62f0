"""What is about threads in the threaded server. What it does as a chat server is in test_models.py."""

from __future__ import annotations

import queue
import threading
from functools import partial

import grpc
import pytest

from proto.chat_pb2 import ChatMessage, HistoryRequest
from server import threaded
from server.contract import Refusal
from server.limits import Limits
from server.rooms import Message
from server.threaded import CHATS, WORKERS, OutQueue, serve
from tests.server.peers import DEADLINE, Peer, Stub, failure

OK = grpc.StatusCode.OK
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
LONGEST_TEXT = "x" * 4_000


class TestWorkers:
    def test_by_default_two_stay_free_for_join_and_history(self) -> None:
        with serve() as server, Stub(server.address) as stub:
            peers = [Peer(server.address, f"user {number}").inside() for number in range(CHATS)]
            with Peer(server.address, "one too many") as refused:
                assert refused.status()[0] is RESOURCE_EXHAUSTED
            assert WORKERS - CHATS == 2
            assert len(stub.join("guest").members) == CHATS
            for peer in peers:
                peer.close()

    def test_with_chats_none_the_33rd_waits_in_silence_and_join_with_it_until_somebody_leaves(self) -> None:
        with serve(chats=None) as server:
            peers = [Peer(server.address, f"user {number}").inside() for number in range(WORKERS)]
            with Peer(server.address, "one too many") as waiting, Stub(server.address) as stub:
                with pytest.raises(queue.Empty):
                    waiting.headers(seconds=0.5)
                assert failure(partial(stub.join, timeout=0.5))[0] is DEADLINE_EXCEEDED
                peers[0].leave()
                waiting.inside()
            for peer in peers:
                peer.close()

    def test_who_leaves_without_reading_the_rest_does_not_keep_a_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threaded, "WORKERS", 2)
        with (
            serve(limits=Limits(stall=0.5)) as server,
            Peer(server.address, "idle", reads=False).inside() as idle,
            Peer(server.address).inside() as juan,
            Stub(server.address) as stub,
        ):
            for _ in range(1_500):
                juan.say(LONGEST_TEXT)
            juan.hear(1_500, seconds=30)
            idle.leave()
            assert list(stub.join("guest").members) == ["Juan"]  # by the worker that was idle's: there are but two
            idle.read()
            assert idle.status() == (RESOURCE_EXHAUSTED, "You read nothing of what you were sent for 0.5 seconds.")

    def test_a_history_that_is_not_read_holds_up_no_room_and_gives_its_worker_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threaded, "WORKERS", 2)
        narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
        with (
            serve(limits=Limits(history=0.5)) as server,
            Peer(server.address).inside() as juan,
            Stub(server.address, narrow) as stub,
        ):
            for _ in range(200):
                juan.say(LONGEST_TEXT)
            juan.hear(200)
            unread = stub.stub.History(HistoryRequest(user="María", room="general"), timeout=DEADLINE)
            next(unread)
            juan.say("meanwhile")
            assert juan.texts() == ["meanwhile"]
            assert list(stub.join("guest").members) == ["Juan"]  # the other worker was in Chat: this one is History's
            sentence = "You did not read the history within 0.5 seconds."
            assert failure(lambda: list(unread)) == (DEADLINE_EXCEEDED, sentence)

    def test_every_chat_is_told_and_no_thread_stays(self) -> None:
        before = set(threading.enumerate())
        silent: queue.Queue[ChatMessage | None] = queue.Queue()
        with serve() as server, Stub(server.address) as stub:
            peers = [Peer(server.address, f"user {number}").inside() for number in range(5)]
            unsubscribed = stub.stub.Chat(iter(silent.get, None))
            stub.join()  # sent after it, on the same connection: now it holds a worker
            new = set(threading.enumerate()) - before
            ours = [thread for thread in new if thread.name.startswith(("chat", "recv_loop"))]
            assert len(ours) >= 2 * len(peers)  # a worker and a reader each
            server.stop()
            assert not [thread for thread in ours if thread.is_alive()]
            for peer in peers:
                assert peer.status() == (grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
                peer.close()
            assert failure(lambda: next(unsubscribed)) == (grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
            silent.put(None)

    def test_calls_that_wait_for_a_worker_end_too(self) -> None:
        server = serve(chats=None)
        peers = [Peer(server.address, f"user {number}").inside() for number in range(WORKERS)]
        waiting = Peer(server.address, "waiting")
        server.stop(seconds=0.2)
        assert waiting.status()[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        for peer in (*peers, waiting):
            peer.close()


class TestOutQueue:
    @staticmethod
    def message(number: int) -> Message:
        return Message("Juan", "general", "Hola", number, 0, "")

    def test_messages_come_out_in_order_then_the_ending(self) -> None:
        out_q = OutQueue()
        assert out_q.put(self.message(1))
        assert out_q.put(self.message(2))
        out_q.end(Refusal(OK, ""))
        assert [out_q.get() for _ in range(4)] == [self.message(1), self.message(2), (OK, ""), (OK, "")]

    def test_when_it_is_full_or_ended_nothing_goes_in(self) -> None:
        out_q = OutQueue(1)
        assert out_q.put(self.message(1))
        assert not out_q.put(self.message(2))
        out_q.get()
        out_q.end(Refusal(OK, ""))
        assert not out_q.put(self.message(3))

    def test_the_first_ending_stands(self) -> None:
        out_q = OutQueue()
        for code in (RESOURCE_EXHAUSTED, OK):
            out_q.end(Refusal(code, "why"), discard=True)
        assert out_q.get() == (RESOURCE_EXHAUSTED, "why")

    def test_waiting_for_it_to_drain_ends_with_the_time(self) -> None:
        out_q = OutQueue()
        out_q.put(self.message(1))
        assert not out_q.wait_until_below(1, 0.01)
        assert out_q.wait_until_below(2, 0.01)
        out_q.get()
        assert out_q.wait_until_below(1, 0.01)
