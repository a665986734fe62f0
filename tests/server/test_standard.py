"""Health checking and reflection, of servers on either model, asked as gRPC's own tools ask."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from capture.sources.reflection import fetch
from capture.sources.tap import Tap
from kit.truth import Truth
from server import asynchronous, standard, threaded
from server.contract import SERVICE
from server.standard import HEALTH, REFLECTION, SERVICES
from server.threaded import CHATS
from tests.server.peers import DEADLINE, Peer, Stub, failure

ROOT = Path(__file__).resolve().parent.parent.parent
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING

RunningServer = threaded.RunningServer | asynchronous.RunningServer
Serve = Callable[..., RunningServer]
MODELS: dict[str, Serve] = {"threads": threaded.serve, "asyncio": asynchronous.serve}


@pytest.fixture(params=MODELS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return MODELS[request.param]


@pytest.fixture
def server(serve: Serve) -> Iterator[RunningServer]:
    with serve() as running:
        yield running


class Asker(Stub):
    """Who asks for health, and by reflection."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.health = HealthStub(self.channel)

    def check(self, service: str = "") -> int:
        return int(self.health.Check(HealthCheckRequest(service=service), timeout=DEADLINE).status)

    def watch(self, service: str = "") -> Any:
        return self.health.Watch(HealthCheckRequest(service=service), timeout=DEADLINE)

    def reflect(self, requests: Any, service: str = REFLECTION[0]) -> Any:
        call = self.channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )
        return call(requests, timeout=DEADLINE)


@pytest.fixture
def asker(server: RunningServer) -> Iterator[Asker]:
    with Asker(server.address) as asker:
        yield asker


class TestHealth:
    @pytest.mark.parametrize("service", ["", SERVICE])
    def test_a_server_that_takes_calls_is_serving(self, asker: Asker, service: str) -> None:
        assert asker.check(service) == SERVING

    def test_a_service_that_there_is_not_is_not_found(self, asker: Asker) -> None:
        code, sentence = failure(lambda: asker.check("some.Service"))
        assert (code, sentence) == (grpc.StatusCode.NOT_FOUND, "There is no service 'some.Service' here.")

    def test_all_are_listed(self, asker: Asker) -> None:
        listed = asker.health.List(HealthListRequest(), timeout=DEADLINE).statuses
        assert {name: listed[name].status for name in listed} == dict.fromkeys(["", *SERVICES], SERVING)

    def test_who_watches_is_told_when_the_server_begins_to_stop(self, server: RunningServer, asker: Asker) -> None:
        whole, chat, none = asker.watch(), asker.watch(SERVICE), asker.watch("some.Service")
        first = [next(watch).status for watch in (whole, chat, none)]
        assert first == [SERVING, SERVING, HealthCheckResponse.SERVICE_UNKNOWN]
        server.stop()
        assert [next(whole).status, next(chat).status] == [NOT_SERVING, NOT_SERVING]
        for watch in (whole, chat, none):
            assert failure(partial(next, watch)) == (grpc.StatusCode.UNAVAILABLE, "The server is stopping.")

    def test_who_has_stopped_watching_gives_its_place_back(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        _places(monkeypatch, 1)
        with serve() as server, Asker(server.address) as asker:
            for _number in range(3):
                _watching(asker).cancel()


class TestReflection:
    @pytest.mark.parametrize("name", REFLECTION)
    def test_it_names_the_services_and_describes_each_by_its_symbol_and_its_file(self, asker: Asker, name: str) -> None:
        questions = [
            ServerReflectionRequest(list_services="*"),
            *(ServerReflectionRequest(file_containing_symbol=service) for service in SERVICES),
            ServerReflectionRequest(file_by_filename="proto/chat.proto"),
            ServerReflectionRequest(file_containing_symbol="some.Service"),
        ]
        listed, *described, wrong = asker.reflect(iter(questions), name)
        assert {service.name for service in listed.list_services_response.service} == set(SERVICES)
        assert all(answer.file_descriptor_response.file_descriptor_proto for answer in described)
        assert wrong.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    def test_capture_reads_it(self, server: RunningServer) -> None:
        assert {SERVICE, HEALTH} <= set(fetch(server.address).services)

    def test_a_capture_is_read_with_what_the_server_describes(self, server: RunningServer, tmp_path: Path) -> None:
        file = tmp_path / "chat.pcapng"
        with Tap(server=("127.0.0.1", server.port), write=str(file)) as tap, Stub(f"127.0.0.1:{tap.port}") as stub:
            stub.join("Juan")
        command = [sys.executable, "-m", "capture", "messages", str(file), "--reflect", server.address]
        done = subprocess.run(
            [*command, "--format", "jsonl"], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=30
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert '"message":{"user":"Juan","room":"general"}' in done.stdout.replace(" ", "")

    def test_a_stream_that_stays_open_is_ended(
        self, server: RunningServer, asker: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standard, "REFLECTION_SECONDS", 0.2)
        never = threading.Event()
        stream = asker.reflect(iter(never.wait, True))
        try:
            code, sentence = failure(lambda: list(stream))
        finally:
            never.set()
        assert (code, sentence) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "A reflection stream is ended after 0.2 seconds.",
        )


class TestNobodyPays:
    def test_streams_beyond_their_places_are_refused_and_check_is_answered(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _places(monkeypatch, 1)
        with serve() as server, Asker(server.address) as asker:
            watch = asker.watch()
            assert next(watch).status == SERVING
            for stream in (asker.watch(), asker.reflect(iter([ServerReflectionRequest(list_services="*")]))):
                code, sentence = failure(partial(next, stream))
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert sentence == "All 1 places for watching health and for reflection are taken."
            assert asker.check() == SERVING

    @pytest.mark.parametrize("recorded", [False, True])
    def test_with_all_chats_and_all_watchers_there_join_is_answered(self, recorded: bool, tmp_path: Path) -> None:
        truth = Truth(tmp_path / "truth.jsonl", "server") if recorded else None
        with threaded.serve(truth=truth) as server, Asker(server.address) as asker:
            watching = [asker.watch() for _number in range(standard.STREAMS)]
            assert all(next(watch).status == SERVING for watch in watching)
            peers = [Peer(server.address, f"user {number}", "full") for number in range(CHATS)]
            try:
                for peer in peers:
                    peer.inside()
                assert asker.join().session_token
                assert asker.check() == SERVING
            finally:
                for peer in peers:
                    peer.close()

    def test_who_does_not_read_what_it_watches_holds_nobody_up(self, serve: Serve) -> None:
        with serve() as server, Asker(server.address) as asker, _Unreading(server.port):
            assert asker.check() == SERVING
            watch = asker.watch()
            assert next(watch).status == SERVING
            server.stop(0.2)
            assert next(watch).status == NOT_SERVING


class _Unreading(socket.socket):
    """Watches, and has a window of 0 octets for the answer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.settimeout(DEADLINE)
        self.connect(("127.0.0.1", port))
        protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        nothing = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
        protocol.local_settings = h2.settings.Settings(client=True, initial_values=nothing)
        protocol.initiate_connection()
        path = "/grpc.health.v1.Health/Watch"
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        protocol.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        protocol.send_data(1, bytes(5), end_stream=True)
        self.sendall(protocol.data_to_send())
        while not any(
            isinstance(event, h2.events.ResponseReceived) for event in protocol.receive_data(self.recv(65_536))
        ):
            self.sendall(protocol.data_to_send())


def _places(monkeypatch: pytest.MonkeyPatch, places: int) -> None:
    for model in (standard.Threads, standard.Tasks):
        monkeypatch.setattr(model.__init__, "__defaults__", (places,))


def _watching(asker: Asker) -> Any:
    """A watch for which there was a place: asks again and again, and each question waits for the server's answer."""
    for _number in range(1_000):
        watch = asker.watch()
        try:
            assert next(watch).status == SERVING
        except grpc.RpcError:
            continue
        return watch
    raise AssertionError("no place became free")
