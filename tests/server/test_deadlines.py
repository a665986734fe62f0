"""Ends that a peer does not choose. Those of a Chat and of a History that are not read: test_models.py."""

from __future__ import annotations

import queue
from functools import partial
from typing import Any

import grpc
import pytest

from proto.chat_pb2 import JoinRequest
from server import asynchronous, threaded
from server.contract import SERVICE
from server.limits import Limits
from server.standard import HEALTH, SHORT_CALLS, STREAMS
from server.threaded import WORKERS
from tests.server.peers import DEADLINE, Peer, Stub, failure

METHODS = (f"/{SERVICE}/Join", f"/{SERVICE}/History", f"/{HEALTH}/Check", f"/{HEALTH}/Watch")


def begin(stub: Stub, method: str, requests: Any) -> Any:
    """A call of a method that takes one request, by a client that believes it takes a stream."""
    return stub.channel.stream_stream(method, lambda octets: octets, None)(requests, timeout=DEADLINE)


@pytest.fixture(params=[threaded, asynchronous], ids=["threads", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Any:
    return request.param.serve


class TestRequestInTime:
    @pytest.mark.parametrize("method", METHODS)
    def test_calls_whose_request_does_not_come_end_and_give_back_what_they_held(self, serve: Any, method: str) -> None:
        never: queue.Queue[bytes | None] = queue.Queue()
        with serve(limits=Limits(first_message=0.5)) as server, Stub(server.address) as stub:
            waiting = [begin(stub, method, iter(never.get, None)) for _ in range(max(WORKERS, STREAMS + SHORT_CALLS))]
            assert stub.join().session_token
            ended = grpc.StatusCode.DEADLINE_EXCEEDED, "No request came within 0.5 seconds."
            assert {failure(partial(list, call)) for call in waiting} == {ended}
            for _ in waiting:
                never.put(None)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_call_that_ends_without_a_request_is_told_so(self, serve: Any, method: str) -> None:
        with serve() as server, Stub(server.address) as stub:
            refused = grpc.StatusCode.INVALID_ARGUMENT, "This method takes one message, and none came."
            assert failure(lambda: list(begin(stub, method, iter(())))) == refused

    def test_who_waited_for_a_worker_longer_than_that_is_served_if_its_request_is_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threaded, "WORKERS", 1)
        with (
            threaded.serve(chats=None, limits=Limits(first_message=0.2)) as server,
            Peer(server.address).inside() as juan,
            Stub(server.address) as stub,
        ):
            names = JoinRequest(user="María", room="general")
            late = stub.stub.Join.future(names, timeout=DEADLINE)
            with pytest.raises(grpc.FutureTimeoutError):
                late.result(timeout=0.5)
            juan.leave()
            assert late.result(timeout=DEADLINE).session_token
