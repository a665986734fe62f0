"""What a chat server does, with real channels and real connections, whatever model it runs on."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from subprocess import PIPE
from typing import Any

import grpc
import pytest

from kit.words import choose_language
from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinRequest
from server import asynchronous, threaded
from server.limits import MESSAGE_OCTETS, OUT_QUEUE_LENGTH, Limits
from server.listening import CannotListen
from server.log import Log
from server.rooms import Message, Posted
from server.sessions import KEY_LENGTH
from server.stores import Embedded, StoreLost
from tests.server.peers import DEADLINE, Book, HandPeer, Peer, Stub, failure

OK = grpc.StatusCode.OK
ABORTED = grpc.StatusCode.ABORTED
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
LONGEST_TEXT = "x" * 4_000

RunningServer = threaded.RunningServer | asynchronous.RunningServer
Serve = Callable[..., RunningServer]
MODELS: dict[str, Serve] = {"threads": threaded.serve, "asyncio": asynchronous.serve}


@pytest.fixture(params=MODELS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return MODELS[request.param]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def server(serve: Serve, book: Book) -> Iterator[RunningServer]:
    with serve(log=Log(book)) as running:
        yield running


class ClientProcess(subprocess.Popen[str]):
    """`python -m client`, with a standard input that stays open. Killed at the end."""

    def __init__(self, server: RunningServer, user: str) -> None:
        command = [sys.executable, "-m", "client", user, "general", "--server", server.address]
        super().__init__(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)

    def __exit__(self, *exception: object) -> None:
        self.kill()
        super().__exit__(None, None, None)


class TestJoin:
    def test_it_gives_a_token_and_who_is_there(self, server: RunningServer) -> None:
        with Stub(server.address) as stub, Peer(server.address, "María") as maria:
            maria.inside()
            reply = stub.join("Juan")
            assert reply.session_token
            assert list(reply.members) == ["María"]

    def test_it_puts_nobody_into_the_room(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            stub.join("Juan")
            assert list(stub.join("María").members) == []


class TestChat:
    def test_the_first_message_subscribes_and_the_headers_follow_at_once(
        self, server: RunningServer, book: Book
    ) -> None:
        with Stub(server.address) as stub, Peer(server.address) as juan:
            assert re.fullmatch(r"[0-9a-f]{8}", str(juan.headers()["room-epoch"]))
            assert list(stub.join("María").members) == ["Juan"]
            book.wait_for("✓ Juan joined #general")
            assert stub.history() == []

    def test_a_first_message_with_a_text_is_said_too(self, server: RunningServer) -> None:
        with Peer(server.address, text="Hola") as juan:
            (heard,) = juan.hear()
            assert (heard.user, heard.room, heard.text, heard.sequence) == ("Juan", "general", "Hola", 1)
            assert heard.time_ms > 1_600_000_000_000

    def test_a_message_goes_to_everyone_in_its_room_and_to_nobody_in_another(self, server: RunningServer) -> None:
        with (
            Peer(server.address, "Juan") as juan,
            Peer(server.address, "María") as maria,
            Peer(server.address, "Pedro", "other") as pedro,
        ):
            for peer in (juan, maria, pedro):
                peer.inside()
            juan.say("Hola", "id-1")
            pedro.say("alone")
            assert juan.hear() == maria.hear()
            pedro.leave()
            assert [message.text for message in pedro.rest()] == ["alone"]

    def test_full_duplex_everybody_hears_one_order_without_gaps(self, server: RunningServer) -> None:
        users = [f"user {number}" for number in range(6)]
        peers = [Peer(server.address, user).inside() for user in users]
        for number in range(40):
            for peer in peers:
                peer.say(f"{peer.user}: {number}")
        heard = [peer.hear(240) for peer in peers]
        assert [message.sequence for message in heard[0]] == list(range(1, 241))
        assert all(each == heard[0] for each in heard)
        for peer in peers:
            own = [message.text for message in heard[0] if message.user == peer.user]
            assert own == [f"{peer.user}: {number}" for number in range(40)]
            peer.close()

    def test_who_closes_the_sending_side_hears_what_was_on_its_way_then_ok(
        self, server: RunningServer, book: Book
    ) -> None:
        with Peer(server.address) as juan:
            for number in range(50):
                juan.say(str(number))
            juan.leave()
            assert [message.text for message in juan.rest()] == [str(number) for number in range(50)]
            assert juan.status() == (OK, "")
            book.wait_for("✗ Juan left #general")
            assert book.lines[-1].endswith("#general")

    def test_a_repeated_message_reaches_nobody_twice(self, server: RunningServer, book: Book) -> None:
        with Peer(server.address, "Juan").inside() as juan, Peer(server.address, "María").inside() as maria:
            for text, message_id in (("a", "1"), ("a", "1"), ("b", "2")):
                juan.say(text, message_id)
            assert juan.texts(2) == maria.texts(2) == ["a", "b"]
            book.wait_for("RECEIVED again from Juan@general, not sent on: a")

    def test_who_comes_back_and_repeats_a_message_gets_it_as_it_was(self, server: RunningServer) -> None:
        with Peer(server.address, "Juan") as juan:
            juan.say("a", "1")
            (first,) = juan.hear()
        with Peer(server.address, "Juan").inside() as again:
            again.say("a", "1")
            assert again.hear() == [first]

    def test_a_call_without_any_message_ends_as_it_came(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            assert list(stub.stub.Chat(iter(()), timeout=DEADLINE)) == []


class TestHistory:
    @pytest.fixture
    def stub(self, server: RunningServer) -> Iterator[Stub]:
        with Stub(server.address) as stub, Peer(server.address) as juan:
            for number in range(1, 11):
                juan.say(str(number))
            juan.hear(10)
            yield stub

    @pytest.mark.parametrize(
        ("after", "limit", "expected"),
        [
            (0, 0, range(1, 11)),
            (7, 0, range(8, 11)),
            (0, 2, range(9, 11)),
            (3, 100, range(4, 11)),
            (10, 0, range(0)),
            (2**64 - 1, 2**32 - 1, range(0)),
        ],
    )
    def test_it_sends_what_was_asked_for_oldest_first(
        self, stub: Stub, after: int, limit: int, expected: range
    ) -> None:
        history = stub.history("María", after=after, limit=limit)
        assert [message.sequence for message in history] == list(expected)
        assert [message.text for message in history] == [str(number) for number in expected]

    def test_another_room_has_its_own(self, stub: Stub) -> None:
        assert stub.history(room="other") == []


BAD_NAMES = {
    "": "is empty; it takes 1 to 32 characters",
    "   ": "is empty; it takes 1 to 32 characters",
    "x" * 33: "has 33 characters; at most 32 are allowed",
    "ñ" * 1000: "has 1000 characters; at most 32 are allowed",
    "a\nb": "holds a control character",
    "\x1b[31mred": "holds a control character",
    "\u202eright to left": "holds a control character",
    "zero\0": "holds a control character",
    " Juan": "begins or ends with a space",
}
BAD_TEXTS = {
    "x" * 4_001: "The text has 4001 characters; at most 4000 are allowed.",
    "two\nlines": "The text holds a control character",
    "\x1b]0;title\x07": "The text holds a control character",
    "tab\there": "The text holds a control character",
}
GARBAGE = [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\xff\xff\xff\xff\x0f", b"\x08"]


class TestBadInput:
    """Each ends its own call with INVALID_ARGUMENT and one sentence, and nobody else notices."""

    @pytest.fixture(autouse=True)
    def _bystander(self, server: RunningServer) -> Iterator[None]:
        with Peer(server.address, "bystander", "elsewhere") as peer:
            peer.inside()
            yield
            peer.say("still here")
            assert peer.texts() == ["still here"]

    @pytest.mark.parametrize(("name", "sentence"), BAD_NAMES.items())
    def test_names_in_join_and_history(self, server: RunningServer, name: str, sentence: str) -> None:
        with Stub(server.address) as stub:
            for user, room, whose in ((name, "general", "user"), ("Juan", name, "room")):
                for method in (stub.join, stub.history):
                    code, details = failure(partial(method, user, room))
                    assert code is INVALID_ARGUMENT
                    assert details.startswith(f"The {whose}'s name {sentence}")

    @pytest.mark.parametrize(("name", "sentence"), [*BAD_NAMES.items(), ("#general", "begins with #")])
    def test_names_in_chat(self, server: RunningServer, name: str, sentence: str) -> None:
        with Peer(server.address, "Juan", name) as peer:
            code, details = peer.status()
            assert code is INVALID_ARGUMENT
            assert sentence in details

    @pytest.mark.parametrize(("text", "sentence"), BAD_TEXTS.items())
    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    def test_texts(self, server: RunningServer, text: str, sentence: str, first: bool) -> None:
        with Peer(server.address, text=text if first else "") as peer:
            if not first:
                peer.say("good")
                peer.say(text)
                assert peer.texts() == ["good"]  # what went before is not lost
            code, details = peer.status()
            assert code is INVALID_ARGUMENT
            assert sentence in details

    @pytest.mark.parametrize("escape", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\r", "\u2028"])
    def test_what_would_move_another_members_terminal_never_reaches_it(
        self, server: RunningServer, escape: str
    ) -> None:
        with Peer(server.address, "María").inside() as maria:
            for message in (
                ChatMessage(user="Juan", room="general", text=f"a{escape}b"),
                ChatMessage(user=f"J{escape}n", room="general", text="a"),
                ChatMessage(user="Juan", room=f"general{escape}", text="a"),
                ChatMessage(user="Juan", room="general", text="a", client_message_id=escape),
            ):
                with Peer(server.address, message.user, message.room) as juan:
                    juan.send_raw(message)
                    assert juan.status()[0] is INVALID_ARGUMENT
            with Stub(server.address) as stub:
                assert list(stub.join("Ana").members) == ["María"]
            maria.say("nothing came")
            assert maria.texts() == ["nothing came"]

    @pytest.mark.parametrize(
        ("message", "sentence"),
        [
            (ChatMessage(user="Juan", room="general"), "The text is empty"),
            (ChatMessage(user="María", room="general", text="a"), "is Juan's: another user needs a call of its own"),
            (ChatMessage(user="Juan", room="other", text="a"), "is in #general: another room needs a call of its own"),
            (ChatMessage(user="Juan", room="general", text="a", client_message_id="i" * 129), "has 129 characters"),
            (ChatMessage(user="Juan", room="general", text="a", client_message_id="\r"), "holds a control character"),
        ],
        ids=["empty", "user", "room", "long id", "id with control character"],
    )
    def test_later_messages(self, server: RunningServer, message: ChatMessage, sentence: str) -> None:
        with Peer(server.address).inside() as peer:
            peer.send_raw(message)
            code, details = peer.status()
            assert code is INVALID_ARGUMENT
            assert sentence in details

    @pytest.mark.parametrize("octets", GARBAGE, ids=bytes.hex)
    def test_octets_that_are_no_message(self, server: RunningServer, octets: bytes) -> None:
        with Stub(server.address) as stub:
            service = "/minichat.v1.ChatService"
            join = stub.channel.unary_unary(f"{service}/Join")
            history = stub.channel.unary_stream(f"{service}/History")
            chat = stub.channel.stream_stream(f"{service}/Chat")
            for call in (
                lambda: join(octets, timeout=DEADLINE),
                lambda: list(history(octets, timeout=DEADLINE)),
                lambda: list(chat(iter([octets]), timeout=DEADLINE)),
            ):
                code, details = failure(call)
                assert code is INVALID_ARGUMENT
                assert "not the message that this method takes" in details

    def test_a_message_that_is_too_large_for_grpc_ends_its_call_alone(self, server: RunningServer) -> None:
        with Peer(server.address) as peer:
            peer.say("x" * 5_000_000)
            assert peer.status()[0] is RESOURCE_EXHAUSTED

    def test_longest_names_and_texts_in_any_script_are_fine(self, server: RunningServer) -> None:
        user, room, text = "ñ" * 32, "房" * 32, "👩‍🚀" * 1333
        with Peer(server.address, user, room, text=text) as peer, Stub(server.address) as stub:
            (heard,) = peer.hear()
            assert (heard.user, heard.room, heard.text) == (user, room, text)
            assert list(stub.join("Juan", room).members) == [user]

    def test_a_method_that_there_is_not_is_unimplemented(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            leave = stub.channel.unary_unary("/minichat.v1.ChatService/Leave")
            assert failure(partial(leave, b"", timeout=DEADLINE))[0] is grpc.StatusCode.UNIMPLEMENTED


class TestGoing:
    """Within two seconds out of the room, and logged."""

    def test_a_cancelled_call(self, server: RunningServer, book: Book) -> None:
        with Peer(server.address) as juan:
            juan.inside().call.cancel()
            book.wait_for("✗ Juan left #general", seconds=2)

    def test_a_reset_connection(self, server: RunningServer, book: Book) -> None:
        HandPeer(server.port).inside().reset()
        book.wait_for("✗ María left #general", seconds=2)

    def test_a_closed_connection(self, server: RunningServer, book: Book) -> None:
        HandPeer(server.port).inside().close()
        book.wait_for("✗ María left #general", seconds=2)

    def test_a_killed_client(self, server: RunningServer, book: Book) -> None:
        with ClientProcess(server, "Juan") as process, Stub(server.address) as stub:
            book.wait_for("✓ Juan joined #general")
            process.kill()
            book.wait_for("✗ Juan left #general", seconds=2)
            assert list(stub.join("María").members) == []

    def test_a_frozen_client_by_keepalive(self, serve: Serve, book: Book) -> None:
        with serve(log=Log(book), keepalive=1.5) as server, ClientProcess(server, "Juan") as process:
            book.wait_for("✓ Juan joined #general")
            process.send_signal(signal.SIGSTOP)
            book.wait_for("✗ Juan left #general", seconds=1.5 + 2)

    @pytest.mark.skipif(sys.platform != "linux", reason="silence is made with a packet filter that only Linux has")
    def test_a_network_that_fell_silent_by_keepalive(self, serve: Serve, book: Book) -> None:
        with serve(log=Log(book), keepalive=1.5) as server:
            peer = HandPeer(server.port).inside()
            peer.go_silent()
            book.wait_for("✗ María left #general", seconds=1.5 + 2)
            peer.close()


class TestAdmission:
    def test_of_40_clients_30_are_in_and_10_are_told_while_join_and_history_answer(
        self, serve: Serve, book: Book
    ) -> None:
        with serve(chats=30, log=Log(book)) as server, Stub(server.address) as stub:
            peers = [Peer(server.address, f"user {number}") for number in range(40)]
            inside = [peer for peer in peers if "room-epoch" in peer.headers()]
            refused = [peer for peer in peers if peer not in inside]
            assert (len(inside), len(refused)) == (30, 10)
            sentence = "All 30 places for chatting are taken; try again when somebody has left."
            assert {peer.status() for peer in refused} == {(RESOURCE_EXHAUSTED, sentence)}
            book.wait_for("✗ refused ipv4:127.0.0.1:", times=10)
            for number in range(50):
                assert len(stub.join(f"guest {number}").members) == 30
                assert stub.history() == []
            inside[0].say("Hola")
            assert [peer.texts() for peer in inside] == [["Hola"]] * 30
            inside[0].leave()
            assert inside[0].status()[0] is OK
            with Peer(server.address, "late").inside() as late:
                late.say("in at last")
                assert late.texts() == ["in at last"]
            for peer in peers:
                peer.close()

    @pytest.mark.parametrize("end", ["leave", "bad"])
    def test_who_was_told_how_its_call_ended_may_come_again_at_once(self, serve: Serve, end: str) -> None:
        with serve(chats=1) as server:
            for _ in range(20):
                with Peer(server.address).inside() as peer:
                    if end == "bad":
                        peer.say("\n")
                    else:
                        peer.leave()
                    assert peer.status()[0] is (INVALID_ARGUMENT if end == "bad" else OK)

    def test_the_place_of_one_that_vanished_is_free_within_two_seconds(self, serve: Serve) -> None:
        with serve(chats=1) as server:
            HandPeer(server.port).inside().reset()
            until = time.monotonic() + 2
            admitted = False
            while not admitted and time.monotonic() < until:
                with Peer(server.address) as peer:
                    admitted = "room-epoch" in peer.headers()
            assert admitted

    def test_a_chat_that_never_says_whose_it_is_gives_its_place_back(self, serve: Serve) -> None:
        limits = Limits(first_message=0.3)
        with serve(chats=1, limits=limits) as server, Stub(server.address) as stub:
            silent: queue.Queue[ChatMessage | None] = queue.Queue()
            chat = stub.stub.Chat(iter(silent.get, None), timeout=DEADLINE)
            sentence = "No first message, which says who chats where, came within 0.3 seconds."
            assert failure(lambda: next(chat)) == (DEADLINE_EXCEEDED, sentence)
            silent.put(None)
            with Peer(server.address).inside():
                pass


class TestPeersThatDoNotRead:
    def test_a_member_that_does_not_read_is_dropped_and_told_and_nobody_else_notices(
        self, server: RunningServer, book: Book
    ) -> None:
        """grpcio's client takes the first 4 MB into its own window; 8 MB are sent."""
        with Peer(server.address, "stalled", reads=False).inside() as stalled, Peer(server.address).inside() as juan:
            for _ in range(2_100):
                juan.say(LONGEST_TEXT)
            heard = juan.hear(2_100, seconds=30)
            assert [message.sequence for message in heard] == list(range(1, 2_101))
            book.wait_for(f"✗ stalled left #general: You were sent {OUT_QUEUE_LENGTH} messages that you did not read")
            stalled.read()
            code, details = stalled.status()
            assert code is RESOURCE_EXHAUSTED
            assert details.startswith(f"You were sent {OUT_QUEUE_LENGTH} messages")

    def test_a_burst_drops_nobody_who_reads(self, server: RunningServer) -> None:
        readers = [Peer(server.address, f"reader {number}").inside() for number in range(4)]
        with Peer(server.address).inside() as juan:
            for number in range(OUT_QUEUE_LENGTH + 500):
                juan.say(str(number))
            expected = list(range(1, OUT_QUEUE_LENGTH + 501))
            for peer in (juan, *readers):
                assert [message.sequence for message in peer.hear(len(expected), seconds=30)] == expected
        for reader in readers:
            reader.close()

    def test_a_sender_that_does_not_read_what_comes_back_is_dropped_and_told(self, serve: Serve, book: Book) -> None:
        with serve(limits=Limits(stall=0.5), log=Log(book)) as server, Peer(server.address, reads=False) as juan:
            for _ in range(1_500):
                juan.say(LONGEST_TEXT)
            book.wait_for("✗ Juan left #general: You read nothing of what you were sent for 0.5 seconds.", seconds=30)
            juan.read()
            assert juan.status() == (RESOURCE_EXHAUSTED, "You read nothing of what you were sent for 0.5 seconds.")

    def test_who_leaves_without_reading_the_rest_is_told_and_its_place_is_free(self, serve: Serve) -> None:
        with (
            serve(chats=2, limits=Limits(stall=0.5)) as server,
            Peer(server.address, "idle", reads=False).inside() as idle,
            Peer(server.address).inside() as juan,
        ):
            for _ in range(1_500):
                juan.say(LONGEST_TEXT)
            juan.hear(1_500, seconds=30)
            idle.leave()
            until = time.monotonic() + DEADLINE
            admitted = False
            while not admitted and time.monotonic() < until:
                with Peer(server.address, "next") as peer:
                    admitted = "room-epoch" in peer.headers()
            assert admitted
            idle.read()
            assert idle.status() == (RESOURCE_EXHAUSTED, "You read nothing of what you were sent for 0.5 seconds.")

    def test_a_history_that_is_not_read_holds_up_nobody(self, serve: Serve) -> None:
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
            over = threading.Event()
            unread.add_callback(over.set)
            assert not over.wait(0.6)
            sentence = "You did not read the history within 0.5 seconds."
            assert failure(lambda: list(unread)) == (DEADLINE_EXCEEDED, sentence)


class TestNames:
    """A name is one member's in its room, until it leaves or its own session comes back."""

    TAKEN = (ALREADY_EXISTS, "Juan is taken in #general; Juan2 is free.")

    def test_another_session_is_refused_by_join_and_chat_with_one_that_is_free(self, server: RunningServer) -> None:
        with Stub(server.address) as stub, Peer(server.address, "Juan").inside() as juan:
            assert failure(lambda: stub.join("Juan")) == self.TAKEN
            with Peer(server.address, "Juan") as second:
                assert second.status() == self.TAKEN
            assert stub.join("Juan2").session_token
            juan.say("still here")
            assert juan.texts() == ["still here"]

    def test_a_token_of_another_user_is_none(self, server: RunningServer) -> None:
        with Stub(server.address) as stub, Peer(server.address, "Juan").inside():
            token = stub.join("María").session_token
            with Peer(server.address, "Juan", token=token) as second:
                assert second.status() == self.TAKEN

    def test_in_another_room_it_is_free(self, server: RunningServer) -> None:
        with Peer(server.address, "Juan").inside(), Peer(server.address, "Juan", "other").inside():
            pass

    def test_who_shows_its_token_gets_the_same_again_and_takes_the_place_of_its_older_call(
        self, server: RunningServer, book: Book
    ) -> None:
        with Stub(server.address) as stub, Peer(server.address, "María").inside() as maria:
            token = stub.join("Juan").session_token
            with Peer(server.address, "Juan", token=token).inside() as older:
                assert stub.join("Juan", token=token).session_token == token
                with Peer(server.address, "Juan", token=token).inside() as newer:
                    assert older.status() == (ABORTED, "You came back on another connection, and this one ends.")
                    assert list(stub.join("Ana").members) == ["María", "Juan"]
                    maria.say("Hola")
                    assert newer.texts() == ["Hola"]
                    assert older.rest() == []
                    newer.say("back")
                    assert maria.texts(2) == ["Hola", "back"]
            book.wait_for("✗ Juan left #general: You came back on another connection")

    def test_a_connection_that_fell_silent_does_not_keep_it_from_its_session(self, server: RunningServer) -> None:
        """Long before keepalive finds out."""
        with Stub(server.address) as stub:
            token = stub.join("María").session_token
            lost = HandPeer(server.port, "María", token=token).inside()
            lost.go_silent()
            with Peer(server.address, "María", token=token).inside() as maria:
                maria.say("Hola")
                assert maria.texts() == ["Hola"]
            lost.close()

    def test_it_is_free_for_anybody_when_its_owner_is_told_how_the_call_ended(self, serve: Serve) -> None:
        with serve() as server:
            for number in range(20):
                with Peer(server.address, "Juan").inside() as juan:
                    if number % 2:
                        juan.say("\n")
                    else:
                        juan.leave()
                    juan.status()


class TestLimits:
    """Each is told with its status and one sentence, and nobody else notices."""

    def test_more_messages_per_second_than_allowed_after_what_was_saved_up(self, serve: Serve, book: Book) -> None:
        with serve(limits=Limits(rate=0.5), log=Log(book)) as server, Peer(server.address).inside() as juan:
            for number in range(7):
                juan.say(str(number))
            assert juan.status() == (RESOURCE_EXHAUSTED, "You sent more than 0.5 messages per second.")
            assert [message.text for message in juan.rest()] == ["0", "1", "2", "3", "4"]  # 10 seconds' worth
            book.wait_for("✗ Juan left #general: You sent more than 0.5 messages per second.")

    @pytest.mark.parametrize(("rate", "said"), [(1_000.0, None), (None, None), (0.5, "0.5"), (20_000.0, "20000")])
    def test_response_headers_say_a_rate_that_is_not_the_contracts(
        self, serve: Serve, rate: float | None, said: str | None
    ) -> None:
        with serve(limits=Limits(rate=rate)) as server, Peer(server.address).inside() as juan:
            assert juan.headers().get("message-rate") == said

    def test_members_of_a_room(self, serve: Serve) -> None:
        with serve(limits=Limits(members=1)) as server, Peer(server.address, "Juan").inside():
            with Peer(server.address, "María") as maria:
                assert maria.status() == (RESOURCE_EXHAUSTED, "#general is full; it has one member, and takes no more.")
            with Peer(server.address, "María", "other").inside():
                pass

    def test_rooms(self, serve: Serve) -> None:
        with (
            serve(limits=Limits(rooms=1)) as server,
            Peer(server.address).inside(),
            Peer(server.address, room="other") as other,
        ):
            assert other.status() == (RESOURCE_EXHAUSTED, "The server has no place for another room.")

    def test_connections_with_chats_on_them(self, serve: Serve, book: Book) -> None:
        sentence = "The server has one connection with chats, and takes no more."
        with serve(limits=Limits(connections=1), log=Log(book)) as server, Stub(server.address) as stub:
            with Peer(server.address).inside() as juan:
                with Peer(server.address, "María") as maria:
                    assert maria.status() == (RESOURCE_EXHAUSTED, sentence)
                assert list(stub.join("María").members) == ["Juan"]
                juan.leave()
                juan.status()
            with Peer(server.address, "María").inside():
                pass

    def test_who_says_nothing_for_too_long(self, serve: Serve, book: Book) -> None:
        sentence = "You said nothing for 1 seconds."
        with (
            serve(limits=Limits(idle=1), log=Log(book)) as server,
            Peer(server.address, "Juan").inside() as juan,
            Peer(server.address, "María").inside() as maria,
        ):
            while juan.call.is_active():
                maria.say("still here")
                maria.hear()
            assert juan.status() == (DEADLINE_EXCEEDED, sentence)
            book.wait_for(f"✗ Juan left #general: {sentence}")
            maria.say("and here")
            assert maria.texts() == ["and here"]

    def test_octets_of_a_message(self, server: RunningServer) -> None:
        with Peer(server.address).inside() as juan:
            juan.say("x" * MESSAGE_OCTETS)
            code, details = juan.status()
            assert code is RESOURCE_EXHAUSTED
            assert re.search(rf"larger than max \(\d+ vs. {MESSAGE_OCTETS}\)", details)


class Lossy(Embedded[Any]):
    """A store that is lost while `lost` says so."""

    lost = False

    def _look(self) -> None:
        if self.lost:
            raise StoreLost("The store is gone.")

    async def enter(self, member: Any) -> str:
        self._look()
        return await super().enter(member)

    async def post(self, member: Any, text: str, client_message_id: str = "") -> Posted | None:
        self._look()
        return await super().post(member, text, client_message_id)

    async def check(self, user: str, room: str, session: str) -> None:
        self._look()
        await super().check(user, room, session)

    async def history(self, room: str, after_sequence: int = 0, limit: int = 0) -> list[Message]:
        self._look()
        return await super().history(room, after_sequence, limit)


class TestStores:
    GONE = (grpc.StatusCode.UNAVAILABLE, "The store is gone.")

    def test_every_call_that_needs_one_that_is_lost_says_so_and_the_server_runs_on(
        self, serve: Serve, book: Book
    ) -> None:
        store = Lossy()
        with serve(store=store, log=Log(book)) as server, Stub(server.address) as stub:
            with Peer(server.address).inside() as juan:
                store.lost = True
                juan.say("into the void")
                assert juan.status() == self.GONE
                book.wait_for("✗ Juan left #general: The store is gone.")
            with Peer(server.address) as juan:
                assert juan.status() == self.GONE
            assert failure(stub.join) == self.GONE
            assert failure(stub.history) == self.GONE
            store.lost = False
            assert list(stub.join().members) == []
            with Peer(server.address).inside() as juan:
                juan.say("back")
                assert juan.texts() == ["back"]

    def test_a_member_whom_the_store_lost_is_told(self, serve: Serve) -> None:
        class Losing(Embedded[Any]):
            async def post(self, member: Any, text: str, client_message_id: str = "") -> Posted | None:
                posted = await super().post(member, text, client_message_id)
                member.lost("The store is gone.")
                return posted

        with serve(store=Losing()) as server, Peer(server.address).inside() as juan:
            juan.say("Hola")
            assert juan.texts() == ["Hola"]
            assert juan.status() == self.GONE

    def test_the_store_is_closed_with_the_server(self, serve: Serve) -> None:
        closed = threading.Event()

        class Closing(Embedded[Any]):
            async def close(self) -> None:
                closed.set()

        with serve(store=Closing()):
            assert not closed.is_set()
        assert closed.is_set()

    def test_servers_that_share_one_know_each_others_sessions(self, serve: Serve) -> None:
        class Shared(Embedded[Any]):
            async def key(self) -> bytes:
                return b"k" * KEY_LENGTH

        with serve(store=Shared(), sessions_required=True) as one, Stub(one.address) as stub:
            token = stub.join().session_token
            with serve(store=Shared(), sessions_required=True) as two, Peer(two.address, token=token).inside():
                pass


class TestSessions:
    @pytest.fixture
    def server(self, serve: Serve) -> Iterator[RunningServer]:
        with serve(sessions_required=True) as running:
            yield running

    def test_with_the_token_of_join_all_is_open(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            token = stub.join().session_token
            headers = (("authorization", f"Bearer {token}"),)
            assert list(stub.stub.History(HistoryRequest(user="Juan", room="general"), metadata=headers)) == []
            with Peer(server.address, token=token).inside() as juan:
                juan.say("Hola")
                assert juan.texts() == ["Hola"]

    def test_without_a_token_neither_history_nor_chat(self, server: RunningServer) -> None:
        with Stub(server.address) as stub, Peer(server.address) as juan:
            code, details = failure(stub.history)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "authorization: Bearer TOKEN" in details
            assert juan.status() == (code, details)
            assert list(stub.join().members) == []

    @pytest.mark.parametrize("token", ["made-up", "x", "%%%", "A" * 200, "Ñ".encode().decode("latin-1")])
    def test_a_token_that_was_never_given_is_none(self, server: RunningServer, token: str) -> None:
        with Peer(server.address, token=token.encode("ascii", "replace").decode()) as juan:
            assert juan.status()[0] is grpc.StatusCode.UNAUTHENTICATED

    def test_another_servers_token_is_none_here(self, serve: Serve, server: RunningServer) -> None:
        with serve(sessions_required=True) as other, Stub(other.address) as stub:
            token = stub.join().session_token
        with Peer(server.address, token=token) as juan:
            assert juan.status()[0] is grpc.StatusCode.UNAUTHENTICATED

    def test_nobody_speaks_with_another_users_or_rooms_token(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            token = stub.join("María").session_token
        for user, room in (("Juan", "general"), ("María", "other")):
            with Peer(server.address, user, room, token=token) as peer:
                code, details = peer.status()
                assert code is grpc.StatusCode.PERMISSION_DENIED
                assert "is María's for #general" in details

    def test_two_joins_give_two_tokens_and_both_hold(self, server: RunningServer) -> None:
        with Stub(server.address) as stub:
            tokens = {stub.join().session_token for _ in range(2)}
        assert len(tokens) == 2
        for token in tokens:
            with Peer(server.address, token=token).inside() as juan:
                juan.leave()
                assert juan.status()[0] is OK

    def test_off_nobody_asks(self, serve: Serve) -> None:
        with serve() as server, Peer(server.address, token="made-up").inside():
            pass


class TestStopping:
    def test_it_may_be_told_twice(self, serve: Serve) -> None:
        server = serve()
        server.stop()
        server.stop()

    def test_its_port_is_free_at_once(self, serve: Serve) -> None:
        with serve() as first:
            pass
        with serve(port=first.port) as second:
            assert second.port == first.port

    def test_connections_are_told_to_make_no_more_calls(self, serve: Serve) -> None:
        server = serve()
        goaway = bytes((7, 0)) + struct.pack(">III", 0, 2**31 - 1, 0)  # on the connection, NO_ERROR (RFC 9113 §6.8)
        with contextlib.closing(HandPeer(server.port).inside()) as maria:
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            octets = b""
            while goaway not in octets:
                octets += maria.socket.recv(65_536)
            stopping.join()

    def test_a_member_that_does_not_read_does_not_hold_it_up(self, serve: Serve) -> None:
        server = serve()
        with Peer(server.address, "stalled", reads=False).inside(), Peer(server.address).inside() as juan:
            for _ in range(1_200):
                juan.say(LONGEST_TEXT)
            juan.hear(1_200, seconds=30)
            server.stop(seconds=0.2)


class TestListening:
    def test_servers_in_one_process_know_nothing_of_each_other(self, serve: Serve) -> None:
        with serve() as one, serve() as two, Peer(one.address).inside() as juan, Stub(two.address) as stub:
            juan.say("Hola")
            juan.hear()
            assert one.port != two.port
            assert stub.history() == []
            assert list(stub.join().members) == []

    def test_a_port_in_use_is_not_shared(self, serve: Serve, server: RunningServer) -> None:
        with pytest.raises(CannotListen, match=rf"^Port {server.port} of 127\.0\.0\.1 is in use\. Choose another"):
            serve(port=server.port)

    def test_a_port_that_another_program_listens_on_is_in_use(self, serve: Serve) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(CannotListen, match="is in use"):
            serve(port=other.getsockname()[1])

    def test_ipv6(self, serve: Serve) -> None:
        with serve("::1") as server, Stub(server.address) as stub:
            assert server.address == f"[::1]:{server.port}"
            assert stub.join().session_token

    def test_options_of_grpc_core_win_over_ours(self, serve: Serve) -> None:
        limited = (("grpc.max_concurrent_streams", 1),)
        with serve(options=limited) as server, Peer(server.address).inside() as juan:
            future = juan.stub.Join.future(JoinRequest(user="María", room="general"), timeout=0.5)
            assert future.exception().code() is DEADLINE_EXCEEDED


class TestRoomSecret:
    def test_who_has_it_gets_a_token_and_with_it_everything_else(self, serve: Serve, book: Book) -> None:
        with serve(room_secret="ábrete", log=Log(book)) as server, Stub(server.address) as stub:
            assert failure(stub.join) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "This server lets nobody in without the room secret (--room-secret).",
            )
            assert failure(partial(stub.join, secret="ciérrate"))[0] is grpc.StatusCode.PERMISSION_DENIED
            book.wait_for("✗ refused ipv4:127.0.0.1:", times=2)
            token = stub.join(secret="ábrete").session_token
            with Peer(server.address, token=token, text="Hola") as juan:
                assert juan.texts() == ["Hola"]

    def test_without_a_token_history_and_chat_are_closed(self, serve: Serve) -> None:
        with serve(room_secret="ábrete") as server, Stub(server.address) as stub, Peer(server.address) as juan:
            assert failure(stub.history)[0] is grpc.StatusCode.UNAUTHENTICATED
            assert juan.status()[0] is grpc.StatusCode.UNAUTHENTICATED


class TestLog:
    def test_in_spanish_it_is_word_for_word_as_designed(self, server: RunningServer, book: Book) -> None:
        choose_language("es")
        try:
            with Peer(server.address, "María").inside(), Peer(server.address, "Juan").inside() as juan:
                juan.say("Hola")
                juan.hear()
            book.wait_for("✗ Juan")
        finally:
            choose_language("en")
        told = [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "[14:30:15] ", line) for line in book.lines]
        assert told[1:4] == [
            "[14:30:15] [SERVIDOR] ✓ Juan se unió a #general",
            "[14:30:15] [SERVIDOR] ← RECIBIDO de Juan@general: Hola",
            "[14:30:15] [SERVIDOR] → RETRANSMITIENDO a 2 cliente(s) en #general: Hola",
        ]

    def test_in_english(self, server: RunningServer, book: Book) -> None:
        with Peer(server.address, "Juan", text="Hola") as juan:
            juan.hear()
            juan.leave()
            book.wait_for("left")
        assert [line.partition("] ")[2] for line in book.lines] == [
            "[SERVER] ✓ Juan joined #general",
            "[SERVER] ← RECEIVED from Juan@general: Hola",
            "[SERVER] → BROADCASTING to 1 client(s) in #general: Hola",
            "[SERVER] ✗ Juan left #general",
        ]
