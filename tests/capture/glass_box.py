"""Chats over real sockets whose both ends log the truth, and captures of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import grpc

from capture.events import Packet
from capture.evidence import Seen, TrueLog, read_truth
from capture.pipeline import Pipeline
from capture.protobuf import Schema
from capture.score import Score
from capture.sources.faults import Faults
from capture.sources.files import open_capture
from capture.sources.sniff import Sniffer
from capture.sources.tap import Tap
from client.session import Session
from client.truth import recorded
from kit.truth import Truth
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub

DEADLINE = 20.0
"""Seconds after which what should have come is taken for lost."""
SEGMENT = 61
"""Octets of a segment on the way through the tap: nearly every frame is in pieces."""
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
DIRECT = ("grpc.enable_http_proxy", 0)


class Recorded(NamedTuple):
    """A capture of a chat, and what the chat's ends logged."""

    packets: list[Packet]
    logs: list[TrueLog]
    ports: Collection[int]

    def score(self, packets: Sequence[Packet] | None = None, logs: Sequence[TrueLog] | None = None) -> Score:
        """Of other packets, or by other logs, where they are given."""
        return Score(logs or self.logs, seen(self.packets if packets is None else packets, self.ports))


def seen(packets: Sequence[Packet], ports: Collection[int]) -> Seen:
    pipeline, what = Pipeline(ports=ports), Seen(Schema.default())
    for start in range(0, len(packets), 256):
        what.feed(pipeline.feed(list(packets[start : start + 256])))
    what.feed(pipeline.finish())
    what.finish()
    return what


def read_logs(files: Iterable[Path]) -> list[TrueLog]:
    logs = []
    for file in files:
        with file.open("rb") as lines:
            logs.append(read_truth(lines))
    return logs


def sniffed(folder: Path, model: ModuleType) -> Recorded:
    """A chat with all its troubles, sniffed on both sides of a tap that cuts everything into small segments. The first
    log is the server's."""
    server = model.serve(truth=Truth(folder / "server.jsonl", "server"))
    packets: list[Packet] = []
    with Tap(("127.0.0.1", server.port)) as tap:
        tap.set_faults(Faults(segment=SEGMENT))
        ports = {server.port, tap.port}
        with Sniffer(ports=ports) as sniffer:
            logs = chat(tap.address, folder, with_trouble=True, at_the_end=server.stop)
            tap.close()
            while sniffer.wait(0):
                packets += sniffer.packets(0)
            assert not sniffer.statistics.dropped
    return Recorded(packets, read_logs([folder / "server.jsonl", *logs]), ports)


def tapped(folder: Path, model: ModuleType) -> Recorded:
    """A chat in which nothing goes wrong, recorded by a tap in `chat.pcapng`. The logs are the clients': a tap is
    somebody else's connection to the server."""
    server = model.serve()  # its port is told: where a capture starts late, nothing else may tell the two sides apart
    with Tap(("127.0.0.1", server.port), write=folder / "chat.pcapng") as tap:
        logs = chat(tap.address, folder, with_trouble=False, at_the_end=server.stop)
    with open_capture(folder / "chat.pcapng") as file:
        packets = [packet for batch in file for packet in batch]
    return Recorded(packets, read_logs(logs), {server.port})


def chat(address: str, folder: Path, *, with_trouble: bool, at_the_end: object) -> list[Path]:
    """Four members in two rooms, and others who misbehave. Returns the clients' logs."""
    files = (folder / f"client{number}.jsonl" for number in range(100))
    logs: list[Path] = []

    def truth() -> Truth:
        logs.append(next(files))
        return Truth(logs[-1], "client")

    def member(user: str, room: str) -> Session:
        session = Session(address, user, room, tell=lambda _event: None, truth=truth(), options=[OWN_CONNECTION])
        session.start()
        return session

    members = [member(f"Ana{number}", f"room{number % 2}") for number in range(4)]
    assert all(one.wait_until_inside(DEADLINE) for one in members)
    if with_trouble:
        misbehave(address, truth())
    draw = random.Random(1)
    for number in range(12):
        for one in members:
            one.say(f"{number} " + "áx" * draw.randrange(400))
        if number % 5 == 0:
            members[0].who()
    assert all(one.wait_until_confirmed(DEADLINE) for one in members)
    late = member("Eva", "room1")  # reads the history
    assert late.wait_until_inside(DEADLINE)
    late.leave()
    assert late.join(DEADLINE)
    if with_trouble:
        members.pop().close()  # cancels
        assert callable(at_the_end)
        at_the_end()  # the server stops while they chat
        for one in members:
            one.close()
        return logs
    for one in members:
        one.leave()
    assert all(one.join(DEADLINE) for one in members)
    for one in [*members, late]:
        one.close()
    assert callable(at_the_end)
    at_the_end()
    return logs


def misbehave(address: str, truth: Truth) -> None:
    """Every way in which a call ends badly, on one connection."""
    channel = recorded(grpc.insecure_channel(address, options=[OWN_CONNECTION, DIRECT]), truth)
    stub = ChatServiceStub(channel)

    def fail(method: str, request: bytes) -> None:
        try:
            channel.unary_unary(method, bytes, bytes)(request, timeout=DEADLINE)
        except grpc.RpcError:
            return

    fail("/minichat.v1.ChatService/Join", JoinRequest(user="", room="room0").SerializeToString())
    fail("/minichat.v1.ChatService/Join", b"\xff\xff\xff")
    fail("/minichat.v1.ChatService/Nothing", b"\x0a\x01x")
    fail("/grpc.health.v1.Health/Check", b"")
    for number in range(6):
        talk(stub, f"Luis{number}", number)
    list(stub.History(HistoryRequest(user="Luis", room="room0", limit=3), timeout=DEADLINE))
    channel.close()


def talk(stub: ChatServiceStub, user: str, texts: int) -> None:
    """Says so much, and then: with an even number what is refused, with an odd one nothing until the call is cancelled,
    with 5 nothing until its time is over."""
    is_over = threading.Event()

    def requests() -> Iterator[ChatMessage]:
        yield ChatMessage(user=user, room="room0")
        for number in range(texts):
            yield ChatMessage(user=user, room="room0", text=f"{texts}-{number}")
        if texts % 2:
            is_over.wait(DEADLINE)
        yield ChatMessage(user="another", room="room0", text="refused")
        yield ChatMessage(user="another", room="room0", text="never read")

    call = stub.Chat(requests(), timeout=0.3 if texts == 5 else DEADLINE)
    try:
        if texts in (1, 3):
            for _heard in range(texts):
                next(call)
            call.cancel()
        list(call)
    except grpc.RpcError:
        pass  # as expected: what became of it is in the logs
    is_over.set()
