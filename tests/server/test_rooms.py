"""Rooms, members, history and fan-out, without a wire."""

from __future__ import annotations

import threading
from dataclasses import asdict, fields
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.rules import problem_with_user
from proto.chat_pb2 import ChatMessage
from server.limits import Limits
from server.rooms import HISTORY_LENGTH, Message, NameTaken, Posted, RoomFull, Rooms, TooManyRooms, free_name
from server.sessions import new_session


class Listener:
    """A member that keeps what it is given, up to `capacity` messages."""

    def __init__(
        self, user: str = "Juan", room: str = "general", capacity: int = 1_000_000, session: str | None = None
    ) -> None:
        self.user = user
        self.room = room
        self.session = session or new_session()
        self.told: list[str] = []
        self.heard: list[Message] = []
        self._capacity = capacity

    @property
    def waiting(self) -> int:
        return 0

    def deliver(self, message: Message) -> bool:
        if len(self.heard) == self._capacity:
            return False
        self.heard.append(message)
        return True

    def replaced(self) -> None:
        self.told.append("replaced")

    def lost(self, sentence: str) -> None:
        self.told.append(sentence)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.heard]


def entered(rooms: Rooms[Listener], *users: str, room: str = "general") -> list[Listener]:
    listeners = [Listener(user, room) for user in users]
    for listener in listeners:
        rooms.enter(listener)
    return listeners


def post(rooms: Rooms[Listener], member: Listener, text: str, message_id: str = "") -> Posted:
    posted = rooms.post(member, text, message_id)
    assert posted is not None
    return posted


def test_a_message_reaches_everybody_in_its_room_its_sender_included() -> None:
    rooms: Rooms[Listener] = Rooms()
    juan, maria = entered(rooms, "Juan", "María")
    posted = post(rooms, juan, "Hola")
    assert posted.reached == 2
    assert juan.texts == maria.texts == ["Hola"]


def test_a_message_reaches_nobody_in_another_room() -> None:
    rooms: Rooms[Listener] = Rooms()
    (juan,) = entered(rooms, "Juan")
    (pedro,) = entered(rooms, "Pedro", room="other")
    post(rooms, juan, "Hola")
    assert pedro.heard == []
    assert rooms.history("other") == []


def test_messages_are_numbered_from_1_in_each_room_of_its_own() -> None:
    rooms: Rooms[Listener] = Rooms()
    (juan,) = entered(rooms, "Juan")
    (pedro,) = entered(rooms, "Pedro", room="other")
    assert [post(rooms, juan, "a").message.sequence for _ in range(3)] == [1, 2, 3]
    assert post(rooms, pedro, "b").message.sequence == 1


def test_a_message_bears_its_time_in_milliseconds_since_the_epoch() -> None:
    rooms: Rooms[Listener] = Rooms(clock=lambda: 1_795_361_692_788_999_999)
    (juan,) = entered(rooms, "Juan")
    assert post(rooms, juan, "Hola", "id-1").message == Message("Juan", "general", "Hola", 1, 1_795_361_692_788, "id-1")


def test_who_came_later_does_not_hear_what_was_said_before() -> None:
    rooms: Rooms[Listener] = Rooms()
    (juan,) = entered(rooms, "Juan")
    post(rooms, juan, "before")
    (maria,) = entered(rooms, "María")
    post(rooms, juan, "after")
    assert maria.texts == ["after"]


def test_who_left_hears_nothing_and_can_say_nothing() -> None:
    rooms: Rooms[Listener] = Rooms()
    juan, maria = entered(rooms, "Juan", "María")
    assert rooms.leave(maria)
    post(rooms, juan, "Hola")
    assert maria.heard == []
    assert rooms.post(maria, "I am still here") is None
    assert not rooms.leave(maria)


def test_members_are_named_in_order_of_arrival() -> None:
    rooms: Rooms[Listener] = Rooms()
    juan, *_others = entered(rooms, "Juan", "María", "Ana")
    assert rooms.members("general") == ["Juan", "María", "Ana"]
    rooms.leave(juan)
    rooms.enter(juan)
    assert rooms.members("general") == ["María", "Ana", "Juan"]
    assert rooms.members("nowhere") == []


def test_a_member_that_takes_no_more_is_out_and_the_others_do_not_notice() -> None:
    rooms: Rooms[Listener] = Rooms()
    (juan,) = entered(rooms, "Juan")
    full = Listener("María", capacity=2)
    rooms.enter(full)
    assert [post(rooms, juan, str(n)).reached for n in range(4)] == [2, 2, 1, 1]
    assert juan.texts == ["0", "1", "2", "3"]
    assert rooms.members("general") == ["Juan"]


def test_it_travels_with_all_its_fields() -> None:
    message = Message("Juan", "general", "Hola", 7, 1_795_361_692_788, "id-1")
    travelled = ChatMessage.FromString(message.octets)
    assert {field.name: value for field, value in travelled.ListFields()} == asdict(message)
    assert {field.name for field in fields(message)} == set(ChatMessage.DESCRIPTOR.fields_by_name)


def test_its_octets_are_made_once_however_many_hear_it() -> None:
    rooms: Rooms[Listener] = Rooms()
    juan, maria = entered(rooms, "Juan", "María")
    post(rooms, juan, "Hola")
    assert juan.heard[0].octets is maria.heard[0].octets is rooms.history("general")[0].octets


class TestNames:
    def test_another_session_is_told_which_one_is_free(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan, _second) = entered(rooms, "Juan", "Juan2")
        for attempt in (lambda: rooms.enter(Listener("Juan")), lambda: rooms.check("Juan", "general", new_session())):
            with pytest.raises(NameTaken) as taken:
                attempt()
            assert (taken.value.user, taken.value.room, taken.value.free) == ("Juan", "general", "Juan3")
        post(rooms, juan, "still here")
        assert juan.texts == ["still here"]
        assert juan.told == []

    def test_in_another_room_the_name_is_free(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        entered(rooms, "Juan")
        rooms.check("Juan", "other", new_session())
        entered(rooms, "Juan", room="other")

    def test_who_left_does_not_keep_it(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        rooms.leave(juan)
        entered(rooms, "Juan")

    def test_the_same_session_takes_it_over_in_its_old_place(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        juan, maria = entered(rooms, "Juan", "María")
        again = Listener("Juan", session=juan.session)
        rooms.check("Juan", "general", juan.session)
        rooms.enter(again)
        assert juan.told == ["replaced"]
        assert rooms.members("general") == ["Juan", "María"]
        assert rooms.post(juan, "from the old connection") is None
        assert not rooms.leave(juan)
        post(rooms, maria, "Hola")
        assert (juan.texts, again.texts) == ([], ["Hola"])

    def test_what_the_lost_connection_may_not_have_brought_is_said_again_to_the_new_one(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        post(rooms, juan, "Hola", "id-1")
        again = Listener("Juan", session=juan.session)
        rooms.enter(again)
        assert post(rooms, again, "Hola", "id-1").repeated
        assert again.texts == ["Hola"]

    @pytest.mark.parametrize(
        ("user", "taken", "free"),
        [
            ("Juan", {"Juan"}, "Juan2"),
            ("Juan", {"Juan", "Juan2", "Juan3"}, "Juan4"),
            ("Juan2", {"Juan2"}, "Juan22"),
            ("x" * 32, {"x" * 32}, "x" * 31 + "2"),
            ("x" * 30 + " y", {"x" * 30 + " y"}, "x" * 30 + "2"),
        ],
    )
    def test_the_free_one_is_a_name_too(self, user: str, taken: set[str], free: str) -> None:
        assert free_name(user, taken) == free
        assert problem_with_user(free) is None


class TestLimits:
    def test_a_full_room_takes_nobody_but_who_comes_back(self) -> None:
        rooms: Rooms[Listener] = Rooms(Limits(members=2))
        juan, _maria = entered(rooms, "Juan", "María")
        with pytest.raises(RoomFull):
            rooms.enter(Listener("Ana"))
        rooms.enter(Listener("Juan", session=juan.session))
        entered(rooms, "Ana", room="other")


class TestHistory:
    def test_it_holds_the_500_newest_messages_oldest_first(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        for number in range(1, 702):
            post(rooms, juan, str(number))
        assert HISTORY_LENGTH == 500
        assert [message.sequence for message in rooms.history("general")] == list(range(202, 702))

    def test_a_room_that_nobody_entered_has_none(self) -> None:
        assert Rooms[Listener]().history("general") == []

    def test_it_outlives_the_members(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        post(rooms, juan, "Hola")
        rooms.leave(juan)
        assert [message.text for message in rooms.history("general")] == ["Hola"]

    @settings(deadline=None)  # a machine may be busy
    @given(said=st.integers(0, 600), after=st.integers(0, 2**64 - 1) | st.integers(0, 650), limit=st.integers(0, 600))
    def test_after_and_limit_choose_the_newest_of_those_that_follow(self, said: int, after: int, limit: int) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        for _ in range(said):
            rooms.post(juan, "a")
        kept = [number for number in range(1, said + 1) if number > said - HISTORY_LENGTH and number > after]
        expected = kept[-limit:] if limit else kept
        assert [message.sequence for message in rooms.history("general", after, limit)] == expected


class TestRepeatedMessages:
    def test_one_is_not_posted_again(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        juan, maria = entered(rooms, "Juan", "María")
        first = post(rooms, juan, "Hola", "id-1")
        second = post(rooms, juan, "Hola", "id-1")
        assert (first.repeated, second.repeated) == (False, True)
        assert second.message == first.message
        assert juan.texts == maria.texts == ["Hola"]
        assert len(rooms.history("general")) == 1

    def test_its_sender_alone_gets_it_after_coming_back(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        juan, maria = entered(rooms, "Juan", "María")
        post(rooms, juan, "Hola", "id-1")
        rooms.leave(juan)
        (again,) = entered(rooms, "Juan")
        assert post(rooms, again, "Hola", "id-1").reached == 1
        assert again.heard == juan.heard
        assert maria.texts == ["Hola"]

    def test_another_user_may_use_the_same_id(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        juan, maria = entered(rooms, "Juan", "María")
        post(rooms, juan, "Hola", "1")
        assert not post(rooms, maria, "Hola", "1").repeated

    def test_without_an_id_every_message_is_a_new_one(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        assert [post(rooms, juan, "Hola").repeated for _ in range(2)] == [False, False]

    def test_what_the_history_has_forgotten_is_not_known_any_more(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        (juan,) = entered(rooms, "Juan")
        post(rooms, juan, "Hola", "id-1")
        for _ in range(HISTORY_LENGTH - 1):
            post(rooms, juan, "filler", "")
        assert post(rooms, juan, "Hola", "id-1").repeated
        post(rooms, juan, "filler", "id-2")
        assert not post(rooms, juan, "Hola", "id-1").repeated


class TestEpochs:
    def test_it_stays_as_long_as_the_room_is_remembered(self) -> None:
        rooms: Rooms[Listener] = Rooms()
        juan = Listener()
        epoch = rooms.enter(juan)
        rooms.post(juan, "Hola")
        rooms.leave(juan)
        assert rooms.enter(Listener()) == epoch

    def test_another_server_has_another(self) -> None:
        assert Rooms[Listener]().enter(Listener()) != Rooms[Listener]().enter(Listener())

    def test_beyond_the_limit_the_empty_room_used_least_recently_is_forgotten(self) -> None:
        rooms: Rooms[Listener] = Rooms(Limits(rooms=3))
        for name in ("a", "b", "c"):
            (member,) = entered(rooms, "Juan", room=name)
            rooms.post(member, name)
            if name != "a":
                rooms.leave(member)
        entered(rooms, "Juan", room="d")
        remembered = [name for name in "abc" if rooms.history(name)]
        assert remembered == ["a", "c"]

    def test_where_every_room_is_in_use_there_is_no_other(self) -> None:
        rooms: Rooms[Listener] = Rooms(Limits(rooms=2))
        entered(rooms, "Juan", room="a")
        entered(rooms, "Juan", room="b")
        with pytest.raises(TooManyRooms):
            rooms.enter(Listener(room="c"))
        rooms.enter(Listener("María", room="a"))

    def test_rooms_in_which_nothing_was_said_leave_nothing_behind(self) -> None:
        rooms: Rooms[Listener] = Rooms(Limits(rooms=2))
        (juan,) = entered(rooms, "Juan", room="kept")
        post(rooms, juan, "Hola")
        rooms.leave(juan)
        for number in range(10):
            (juan,) = entered(rooms, "Juan", room=f"room {number}")
            rooms.leave(juan)
        assert rooms.history("kept")


def test_many_threads_at_once_give_one_order_without_gaps() -> None:
    rooms: Rooms[Listener] = Rooms(clock=count().__next__)
    listeners = entered(rooms, *(f"user {number}" for number in range(8)))
    start = threading.Barrier(len(listeners))

    def talk(listener: Listener) -> None:
        start.wait()
        for number in range(50):
            rooms.post(listener, f"{listener.user}: {number}")

    threads = [threading.Thread(target=talk, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = listeners[0].heard
    assert [message.sequence for message in heard] == list(range(1, 401))
    assert all(listener.heard == heard for listener in listeners)
    for listener in listeners:  # each one's own messages in the order in which it said them
        own = [message.text for message in heard if message.user == listener.user]
        assert own == [f"{listener.user}: {number}" for number in range(50)]
