"""A session against a real server, over cables that are cut."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from client import session as session_module
from client.events import Ended, Entered, Forgotten, Heard, How, Lost, Missed
from client.failures import Refused, ServerLost
from kit.pace import MESSAGES_PER_SECOND
from proto.chat_pb2 import ChatMessage, JoinReply, JoinRequest
from proto.chat_pb2_grpc import ChatServiceServicer, add_ChatServiceServicer_to_server
from server import asynchronous, threaded
from server.limits import Limits
from server.log import Log
from server.threaded import RunningServer, serve
from tests.client.wires import DEADLINE, Cable, session
from tests.server.peers import Book as ServerBook
from tests.server.peers import Peer, Stub


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in real life would only make the tests long."""
    monkeypatch.setattr(session_module, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(session_module, "LONGEST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def log() -> ServerBook:
    return ServerBook()


@pytest.fixture(params=[serve, asynchronous.serve], ids=["threads", "asyncio"])
def server(request: pytest.FixtureRequest, log: ServerBook) -> Iterator[RunningServer]:
    with request.param(log=Log(log)) as running:
        yield running


@pytest.fixture
def cable(server: RunningServer) -> Iterator[Cable]:
    with Cable(server.port) as cable:
        yield cable


class TestConversation:
    def test_it_enters_hears_the_history_first_and_then_what_is_said(self, server: RunningServer) -> None:
        with Peer(server.address, "María").inside() as maria:
            maria.say("before")
            maria.hear()
            juan, book = session(server.address)
            with juan:
                assert juan.wait_until_inside(DEADLINE)
                assert juan.say("Hola")
                book.wait_for_texts(2)
        past, entered, own, *_rest = book.events
        assert isinstance(past, Heard)
        assert (past.message.text, past.past, past.mine) == ("before", True, False)
        assert entered == Entered(("María",), again=False)
        assert isinstance(own, Heard)
        assert (own.message.text, own.past, own.mine) == ("Hola", False, True)

    def test_what_is_said_before_the_room_is_open_is_not_lost(self, server: RunningServer) -> None:
        juan, book = session(server.address)
        juan.say("early")
        with juan:
            assert book.wait_for_texts(1) == ["early"]

    def test_leaving_ends_politely_after_everything_was_confirmed(self, server: RunningServer, log: ServerBook) -> None:
        juan, book = session(server.address)
        juan.start()
        for number in range(300):
            juan.say(str(number))
        juan.leave()
        assert juan.join(DEADLINE)
        assert book.texts == [str(number) for number in range(300)]
        assert book.events[-1] == juan.ended == Ended(How.LEFT, "", 0)
        log.wait_for("✗ Juan left #general")
        assert log.lines[-1].endswith("✗ Juan left #general")

    def test_another_session_of_the_same_name_is_not_mine(self, server: RunningServer) -> None:
        heard = []
        for session_of_juan, book in (session(server.address), session(server.address)):
            with session_of_juan:
                assert session_of_juan.wait_until_inside(DEADLINE)
                session_of_juan.say("Hola")
            heard.append([event.mine for event in book.events if isinstance(event, Heard)])
        assert heard == [[True], [False, True]]

    def test_who_asks_the_server_and_adds_nobody(self, server: RunningServer) -> None:
        juan, _book = session(server.address)
        with juan, Peer(server.address, "María").inside():
            assert juan.wait_until_inside(DEADLINE)
            for _ in range(3):
                assert sorted(juan.who()) == ["Juan", "María"]

    def test_with_sessions_required_it_shows_its_token(self) -> None:
        with serve(sessions_required=True) as server:
            juan, book = session(server.address)
            with juan:
                juan.say("Hola")
                assert book.wait_for_texts(1) == ["Hola"]

    def test_nothing_stays_behind(self, server: RunningServer) -> None:
        before = set(threading.enumerate())
        juan, _book = session(server.address)
        with juan:
            assert juan.wait_until_inside(DEADLINE)
        for thread in set(threading.enumerate()) - before:
            if not thread.name.startswith(("chat", "recv_loop")):  # those are the server's
                thread.join(DEADLINE)
                assert not thread.is_alive(), thread
        with pytest.raises(ServerLost, match="has ended"):
            juan.who()
        assert not juan.say("too late")


class TestComingBack:
    def test_a_cut_connection_is_told_once_and_what_was_said_meanwhile_is_heard(
        self, server: RunningServer, cable: Cable
    ) -> None:
        juan, book = session(cable.address)
        with juan, Peer(server.address, "María").inside() as maria:
            assert juan.wait_until_inside(DEADLINE)
            cable.unplugged = True
            cable.cut()
            book.wait_for_kind(Lost)
            maria.say("meanwhile")
            maria.hear()
            cable.wait_for_attempts(2)
            cable.unplugged = False
            book.wait_for_kind(Entered, 2)
            maria.say("after")
            assert book.wait_for_texts(2) == ["meanwhile", "after"]
        kinds = [type(event) for event in book.events]
        assert kinds == [Entered, Lost, Heard, Entered, Heard, Ended]
        assert isinstance(lost := book.events[1], Lost)
        assert lost.reason.startswith(f"The connection to {cable.address} is lost (")
        assert book.events[3] == Entered(("María",), again=True)

    def test_it_takes_its_name_back_from_a_connection_that_the_server_believes_in(
        self, server: RunningServer, cable: Cable, log: ServerBook
    ) -> None:
        juan, book = session(cable.address)
        with juan:
            assert juan.wait_until_inside(DEADLINE)
            cable.unnoticed = True
            cable.cut()
            book.wait_for_kind(Entered, 2)
            log.wait_for("✗ Juan left #general: You came back on another connection, and this one ends.")
            juan.say("back")
            assert book.wait_for_texts(1) == ["back"]
            assert juan.who() == ["Juan"]
        assert [event for event in book.events if isinstance(event, Entered)] == [
            Entered((), again=False),
            Entered((), again=True),
        ]

    def test_what_was_said_while_it_was_away_is_sent_on_return(self, server: RunningServer, cable: Cable) -> None:
        juan, book = session(cable.address)
        with juan:
            assert juan.wait_until_inside(DEADLINE)
            cable.unplugged = True
            cable.cut()
            book.wait_for_kind(Lost)
            assert not juan.inside
            for text in ("a", "b", "c"):
                assert juan.say(text)
            cable.unplugged = False
            assert book.wait_for_texts(3) == ["a", "b", "c"]
            assert juan.wait_until_confirmed(DEADLINE)
        with Stub(server.address) as stub:
            assert [message.text for message in stub.history()] == ["a", "b", "c"]

    def test_what_the_server_has_and_did_not_get_round_to_confirm_is_not_said_twice(
        self, server: RunningServer, cable: Cable
    ) -> None:
        juan, book = session(cable.address)
        with juan, Peer(server.address, "María").inside() as maria:
            assert juan.wait_until_inside(DEADLINE)
            cable.deaf = True
            juan.say("Hola")
            assert maria.texts() == ["Hola"]  # it has arrived
            assert not juan.wait_until_confirmed(0)
            cable.deaf = False
            cable.cut()
            assert book.wait_for_texts(1) == ["Hola"]
            assert juan.wait_until_confirmed(DEADLINE)
            maria.say("done")
            assert maria.texts() == ["done"]
        assert book.texts == ["Hola", "done"]

    def test_however_often_cables_are_cut_everybody_hears_everything_once_in_one_order(
        self, server: RunningServer
    ) -> None:
        chance = random.Random(7)
        cables = [Cable(server.port) for _ in range(3)]
        sessions = [session(cable.address, f"user {number}") for number, cable in enumerate(cables)]
        for each, _book in sessions:
            each.start()
        for number in range(120):
            for each, _book in sessions:
                each.say(f"{each.user}: {number}")
            if number % 10 == 5:
                chance.choice(cables).cut()
        for each, book in sessions:
            assert each.wait_until_confirmed(3 * DEADLINE), book.events[-3:]
        for each, book in sessions:
            book.wait_for_texts(360, 3 * DEADLINE)
            each.leave()
            assert each.join(DEADLINE)
        first = sessions[0][1].messages
        assert [message.sequence for message in first] == list(range(1, 361))
        for each, book in sessions:
            assert book.messages == first
            own = [message.text for message in first if message.user == each.user]
            assert own == [f"{each.user}: {number}" for number in range(120)]
        for cable in cables:
            cable.close()

    def test_a_server_that_stopped_and_started_anew_has_forgotten_the_room_and_that_is_told(self) -> None:
        old = serve()
        with Cable(old.port) as cable:
            juan, book = session(cable.address)
            with juan:
                for text in ("a", "b", "c"):
                    juan.say(text)
                book.wait_for_texts(3)
                old.stop()
                book.wait_for_kind(Lost)
                with serve() as new:
                    cable.lead_to(new.port)
                    book.wait_for_kind(Entered, 2)
                    juan.say("d")
                    assert book.wait_for_texts(4) == ["a", "b", "c", "d"]
                    assert [message.sequence for message in book.messages] == [1, 2, 3, 1]
                    juan.leave()
                    assert juan.join(DEADLINE)
        lost, forgotten, _ended = book.others
        assert lost == Lost(f"The connection to {cable.address} is lost (The server is stopping).")
        assert forgotten == Forgotten()

    def test_what_the_server_does_not_remember_any_more_is_told_as_missed(
        self, server: RunningServer, cable: Cable
    ) -> None:
        juan, book = session(cable.address)
        with juan, Peer(server.address, "María").inside() as maria:
            assert juan.wait_until_inside(DEADLINE)
            cable.unplugged = True
            cable.cut()
            book.wait_for_kind(Lost)
            for number in range(1, 601):
                maria.say(str(number))
            maria.hear(600)
            cable.unplugged = False
            book.wait_for_texts(500)
        assert book.texts == [str(number) for number in range(101, 601)]
        assert Missed(100) in book.others

    def test_leaving_while_the_server_is_lost_waits_for_nothing(self, cable: Cable) -> None:
        juan, book = session(cable.address)
        juan.start()
        assert juan.wait_until_inside(DEADLINE)
        cable.unplugged = True
        cable.cut()
        book.wait_for_kind(Lost)
        juan.say("never heard")
        juan.leave(deliver=False)
        assert juan.join(DEADLINE)
        assert juan.ended == Ended(How.LEFT, "", 1)

    def test_closing_ends_it_wherever_it_is(self, cable: Cable, server: RunningServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for address in (f"127.0.0.1:{silent.getsockname()[1]}", cable.address):
                juan, _book = session(address)
                juan.start()
                juan.close()
                assert juan.ended is not None


class TestRefusals:
    def test_a_server_that_is_full_is_not_asked_again(self, log: ServerBook) -> None:
        with serve(chats=1, log=Log(log)) as server, Peer(server.address, "María").inside():
            juan, book = session(server.address)
            juan.say("Hola")
            juan.start()
            assert juan.join(DEADLINE)
            sentence = "The one place for chatting is taken; try again when somebody has left."
            assert book.events == [Ended(How.REFUSED, sentence, 1)]
            assert sum("refused" in line for line in log.lines) == 1

    def test_a_refusal_after_the_return_ends_it_too(self) -> None:
        with serve(chats=1) as server, Cable(server.port) as cable:
            juan, book = session(cable.address)
            juan.start()
            assert juan.wait_until_inside(DEADLINE)
            cable.unplugged = True
            cable.cut()
            book.wait_for_kind(Lost)
            with Peer(server.address, "María").inside():
                cable.unplugged = False
                assert juan.join(DEADLINE)
            assert isinstance(ended := book.events[-1], Ended)
            assert ended.how is How.REFUSED

    def test_a_name_that_is_taken_with_one_that_is_free(self, server: RunningServer) -> None:
        with Peer(server.address, "Juan").inside():
            juan, book = session(server.address)
            juan.start()
            assert juan.join(DEADLINE)
        assert book.events == [Ended(How.REFUSED, "Juan is taken in #general; Juan2 is free.", 0)]

    def test_a_name_that_somebody_else_took_while_it_was_away(self) -> None:
        with serve() as first, serve() as second, Cable(first.port) as cable:
            juan, book = session(cable.address)
            juan.start()
            assert juan.wait_until_inside(DEADLINE)
            with Peer(second.address, "Juan").inside():
                cable.lead_to(second.port)
                cable.cut()
                assert juan.join(DEADLINE)
        assert book.events[-1] == Ended(How.REFUSED, "Juan is taken in #general; Juan2 is free.", 0)

    def test_where_its_session_goes_on_elsewhere_it_does_not_come_back(self, server: RunningServer) -> None:
        """Else two clients with one token would throw each other out for ever."""
        juan, book = session(server.address)
        juan.start()
        assert juan.wait_until_inside(DEADLINE)
        ((_header, bearer),) = juan._headers
        with Peer(server.address, "Juan", token=bearer.removeprefix("Bearer ")).inside() as elsewhere:
            assert juan.join(DEADLINE)
            elsewhere.say("I stay")
            assert elsewhere.texts() == ["I stay"]
        sentence = "You came back on another connection, and this one ends."
        assert book.events == [Entered((), again=False), Ended(How.REFUSED, sentence, 0)]

    def test_who_said_nothing_for_too_long_does_not_come_back(self) -> None:
        with serve(limits=Limits(idle=0.1)) as server:
            juan, book = session(server.address)
            juan.start()
            assert juan.join(DEADLINE)
        assert book.events[-1] == Ended(How.REFUSED, "You said nothing for 0.1 seconds.", 0)

    def test_a_name_that_the_server_does_not_take(self, server: RunningServer) -> None:
        juan, book = session(server.address, "x" * 33)
        juan.start()
        assert juan.join(DEADLINE)
        assert book.events == [Ended(How.REFUSED, "The user's name has 33 characters; at most 32 are allowed.", 0)]
        with pytest.raises(ServerLost):
            juan.who()

    def test_a_text_that_the_server_does_not_take(self, server: RunningServer) -> None:
        juan, book = session(server.address)
        juan.say("good")
        juan.say("\x1b[2J")
        juan.start()
        assert juan.join(DEADLINE)
        assert book.texts == ["good"]
        assert isinstance(ended := book.events[-1], Ended)
        assert (ended.how, ended.unconfirmed) == (How.REFUSED, 1)
        assert "control character" in ended.reason

    def test_who_is_refused_for_what_is_not_allowed(self, server: RunningServer) -> None:
        juan, _book = session(server.address, room="")
        with pytest.raises(Refused, match="room's name is empty"):
            juan.who()
        juan.close()

    def test_a_grpc_server_that_is_no_chat(self) -> None:
        pool = ThreadPoolExecutor(1)
        other = grpc.server(pool)
        port = other.add_insecure_port("127.0.0.1:0")
        other.start()
        juan, book = session(f"127.0.0.1:{port}")
        juan.start()
        assert juan.join(DEADLINE)
        other.stop(None).wait()
        pool.shutdown()
        reason = f"What answers at 127.0.0.1:{port} is a gRPC server, but not a mini chat."
        assert book.events == [Ended(How.REFUSED, reason, 0)]


class TestPatience:
    def test_where_there_is_no_server_it_gives_up_in_time_and_says_so(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            address = f"127.0.0.1:{reserved.getsockname()[1]}"
        juan, book = session(address, patience=0.5)
        juan.say("Hola")
        juan.start()
        assert juan.join(DEADLINE)
        reason = f"There is no server at {address}."
        assert book.events == [Lost(reason), Ended(How.GAVE_UP, reason, 1)]

    def test_a_return_begins_it_anew(self, cable: Cable) -> None:
        juan, book = session(cable.address, patience=2)
        with juan:
            for visit in range(1, 4):
                book.wait_for_kind(Entered, visit)
                cable.cut()
                book.wait_for_kind(Lost, visit)
            book.wait_for_kind(Entered, 4)

    def test_a_server_that_does_not_answer_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            juan, book = session(address)
            juan.start()
            book.wait_for_kind(Lost)
            juan.close()
        assert book.events[0] == Lost(f"The server {address} did not answer within 0.3 seconds.")

    def test_a_chat_without_response_headers_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The silence that --chats none brings to the 33rd."""
        monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.3)
        over = threading.Event()

        class Silent(ChatServiceServicer):
            def Join(self, _request: JoinRequest, _context: grpc.ServicerContext) -> JoinReply:
                return JoinReply()

            def History(self, _request: object, _context: object) -> Iterator[ChatMessage]:
                raise NotImplementedError

            def Chat(self, _requests: object, _context: object) -> Iterator[ChatMessage]:
                over.wait(DEADLINE)
                yield from ()

        pool = ThreadPoolExecutor(4)
        server = grpc.server(pool)
        add_ChatServiceServicer_to_server(Silent(), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        juan, book = session(address)
        juan.start()
        book.wait_for_kind(Lost)
        juan.close()
        over.set()
        server.stop(None).wait()
        pool.shutdown()
        assert book.events[0] == Lost(f"The server {address} did not answer within 0.3 seconds.")

    def test_a_web_server_is_told_from_a_chat(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:
            address = f"127.0.0.1:{web.getsockname()[1]}"
            stop = threading.Event()

            def answer() -> None:
                while not stop.is_set():
                    connection, _address = web.accept()
                    with connection:
                        connection.recv(1_000)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            juan, book = session(address)
            juan.start()
            book.wait_for_kind(Lost)
            juan.close()
            stop.set()
            socket.create_connection(web.getsockname()).close()
            thread.join(DEADLINE)
        assert book.events[0] == Lost(f"What answers at {address} speaks HTTP/1, and gRPC needs HTTP/2.")


class TestBounds:
    @pytest.mark.parametrize("model", [threaded, asynchronous], ids=["threads", "asyncio"])
    def test_it_sends_no_faster_than_a_server_allows(self, model: Any, log: ServerBook) -> None:
        """100 messages at once and 10 a second after that are allowed; 105 are said at once."""
        with model.serve(limits=Limits(rate=10), log=Log(log)) as server:
            juan, book = session(server.address)
            with juan:
                for number in range(105):
                    juan.say(str(number))
                assert len(book.wait_for_texts(105)) == 105
        assert book.events[-1] == Ended(How.LEFT, "", 0)

    @pytest.mark.parametrize("word", [None, "", "fast", "0", "-1", "nan", "inf", "1e999"])
    def test_a_rate_that_makes_no_sense_is_none(self, word: str | None) -> None:
        assert session_module._rate(word) == MESSAGES_PER_SECOND

    def test_only_so_much_is_kept_for_a_server_that_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session_module, "UNCONFIRMED_LENGTH", 3)
        with serve() as server:
            juan, book = session(server.address)
            assert [juan.say(str(number), wait=False) for number in range(5)] == [True, True, True, False, False]
            with juan:
                for number in range(3, 50):
                    assert juan.say(str(number))  # waits for its turn
                assert book.wait_for_texts(50) == [str(number) for number in range(50)]

    def test_who_waits_for_a_turn_is_let_go_when_the_session_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session_module, "UNCONFIRMED_LENGTH", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            juan, _book = session(f"127.0.0.1:{silent.getsockname()[1]}")
            juan.start()
            assert juan.say("first")
            with ThreadPoolExecutor(1) as pool:
                second = pool.submit(juan.say, "second")
                juan.close()
                assert second.result(DEADLINE) is False
