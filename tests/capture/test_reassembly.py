"""Segments to octets: in any order, repeated, overlapping, lost, wrapped around, cut short, and of ports used again.

Every case goes down the short way (plain IPv4 over Ethernet) and the long one (the same behind a VLAN tag).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture import reassembly
from capture.events import Packet
from capture.packets import Segment
from capture.reassembly import (
    MAX_CONNECTIONS,
    MAX_WAITING_OCTETS,
    MAX_WAITING_PACKETS,
    PACKETS_AFTER_ACKNOWLEDGEMENT,
    STALE_SEGMENTS,
    Flow,
    Reassembler,
)
from tests.capture.engine_factory import (
    ACK,
    CLIENT,
    DOWN,
    ETHERNET,
    FIN,
    RST,
    SERVER,
    SYN,
    UP,
    Address,
    Talk,
    Tape,
    link,
)

Road = Callable[..., Talk]


def tagged(octets: bytes) -> bytes:
    plain = link(ETHERNET, octets)
    return plain[:12] + b"\x81\x00\x00\x2a" + plain[12:]


@pytest.fixture(params=["short", "long"])
def road(request: pytest.FixtureRequest) -> Road:
    """Makes a connection on a tape, whose packets take the short way or the long one."""

    def make(tape: Tape | None = None, *args: Any, **options: Any) -> Talk:
        talk = (tape or Tape()).talk(*args, **options)
        if request.param == "long":
            talk.wrap = tagged
        return talk

    return make


class Ear:
    """Whoever stands above the reassembler: notes what it is told."""

    def __init__(self) -> None:
        self.reassembler = Reassembler(self)
        self.arrivals: list[tuple[Flow, int, int, bytes]] = []
        self.holes: list[tuple[Flow, int, int, bool]] = []
        self.ends: list[tuple[int, int, int, str]] = []
        self.flows: list[tuple[Flow, Flow]] = []

    def opened(self, flow: Flow, first: Segment) -> None:
        self.flows.append((flow, flow.peer))
        for one in (flow, flow.peer):
            one.receive = partial(self._receive, one)

    def _receive(self, flow: Flow, packet: int, time_ns: int, octets: bytes) -> None:
        assert octets
        self.arrivals.append((flow, packet, flow.delivered, octets))

    def hole(self, flow: Flow, packet: int, time_ns: int, octets: int, snapped: bool) -> None:
        assert octets > 0
        self.arrivals.append((flow, packet, flow.delivered, b""))
        self.holes.append((flow, packet, octets, snapped))

    def closed(self, flow: Flow, packet: int, time_ns: int, how: str) -> None:
        self.ends.append((flow.tcp.number, self.flows[flow.tcp.number].index(flow), packet, how))

    def feed(self, packets: list[Packet]) -> Ear:
        self.reassembler.feed(packets)
        return self

    def finish(self) -> Ear:
        self.reassembler.finish(10**9, 0)
        assert self.reassembler._waiting_octets == 0
        assert self.reassembler.oldest_waiting() is None
        return self

    def heard(self, connection: int = 0, side: int = UP) -> list[tuple[int, bytes]]:
        """(packet, octets) of one direction, as they came."""
        flow = self.flows[connection][side]
        return [(packet, octets) for one, packet, _, octets in self.arrivals if one is flow and octets]

    def octets(self, connection: int = 0, side: int = UP) -> bytes:
        return b"".join(octets for _, octets in self.heard(connection, side))

    def lost(self, connection: int = 0, side: int = UP) -> list[int]:
        """Lengths of the holes of one direction."""
        flow = self.flows[connection][side]
        return [octets for one, _, octets, _ in self.holes if one is flow]


def listen(tape: Tape) -> Ear:
    return Ear().feed(tape.packets).finish()


# -- in order ----------------------------------------------------------------------------------------------------------


def test_octets_come_as_they_were_sent_each_with_its_packet(road: Road) -> None:
    talk = road().shake().send(UP, b"one").send(DOWN, b"a").send(UP, b"two").ack(DOWN).send(DOWN, b"b")
    ear = listen(talk.tape)
    assert ear.heard(side=UP) == [(4, b"one"), (6, b"two")]
    assert ear.heard(side=DOWN) == [(5, b"a"), (8, b"b")]
    assert (ear.holes, ear.ends) == ([], [])


def test_nothing_is_missing_without_a_handshake(road: Road) -> None:
    talk = road().send(DOWN, b"a").send(UP, b"one").send(DOWN, b"b")
    ear = listen(talk.tape)
    assert ear.heard(side=0) == [(1, b"a"), (3, b"b")], "the side that spoke first is the first"
    assert ear.heard(side=1) == [(2, b"one")]
    assert not any(flow.started for flow in ear.flows[0])


def test_offsets_count_from_the_first_octet_behind_the_syn(road: Road) -> None:
    talk = road().shake().send(UP, b"abcdef")
    assert listen(talk.tape).flows[0][UP].started
    assert listen(talk.tape).flows[0][UP].delivered == 6


def test_data_in_the_syn_counts(road: Road) -> None:
    """TCP Fast Open (RFC 7413)."""
    talk = road()
    talk.segment(UP, b"early", flags=SYN, seq=talk.first[UP])
    talk.skip(UP, 5).segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN])
    talk.send(UP, b" and late")
    assert listen(talk.tape).octets() == b"early and late"


def test_data_before_its_syn_is_kept(road: Road) -> None:
    talk = road().shake().send(UP, b"data").send(UP, b" more")
    packets = talk.tape.packets
    packets[0], packets[3] = packets[3], packets[0]
    ear = listen(talk.tape)
    assert len(ear.flows) == 1
    assert (ear.octets(), ear.holes) == (b"data more", [])


@pytest.mark.parametrize("before", range(50))
def test_sequence_numbers_wrap_around_at_every_offset(road: Road, before: int) -> None:
    octets = bytes(range(45))
    talk = road(seq=(2**32 - before, 2**32 - 2 * before)).shake()
    talk.send(UP, octets, 3).send(DOWN, octets, 7)
    ear = listen(talk.tape)
    assert (ear.octets(side=UP), ear.octets(side=DOWN), ear.holes) == (octets, octets, [])
    shuffled = Tape()
    shuffled.packets = talk.tape.packets[:3] + random.Random(before).sample(talk.tape.packets[3:], 22)
    ear = listen(shuffled)
    assert (ear.octets(side=UP), ear.octets(side=DOWN), ear.holes) == (octets, octets, [])


# -- out of order, repeated --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_octets_behind_a_hole_come_with_the_packet_that_fills_it(road: Road, order: tuple[int, ...]) -> None:
    talk = road().shake().send(UP, b"abcdefgh", 2)
    tape = talk.tape
    packets = tape.packets[:3] + [tape.packets[3 + i] for i in order]
    ear = Ear().feed([packet._replace(number=i) for i, packet in enumerate(packets, 1)]).finish()
    expected = []
    latest = 0
    for i in range(4):
        latest = max(latest, 4 + order.index(i))
        expected.append((latest, b"abcdefgh"[2 * i : 2 * i + 2]))
    assert (ear.heard(), ear.holes) == (expected, [])


def test_a_retransmission_is_not_read_twice(road: Road) -> None:
    talk = road().shake().send(UP, b"once").send(UP, b"more")
    talk.segment(UP, b"once", seq=talk.first[UP] + 1)
    talk.segment(UP, b"XXXXmore", seq=talk.first[UP] + 1)
    talk.send(UP, b"!")
    assert listen(talk.tape).octets() == b"oncemore!"


def test_a_retransmission_that_goes_further_adds_its_end(road: Road) -> None:
    talk = road().shake().send(UP, b"abc")
    talk.segment(UP, b"XXXdef", seq=talk.first[UP] + 1)
    assert listen(talk.tape).heard() == [(4, b"abc"), (5, b"def")]


def test_of_overlapping_octets_the_first_arrival_wins(road: Road) -> None:
    talk = road().shake()
    first = talk.first[UP] + 1
    talk.segment(UP, b"2222", seq=first + 4)
    talk.segment(UP, b"3333", seq=first + 10)
    talk.segment(UP, b"4" * 16, seq=first + 2)
    talk.segment(UP, b"1" * 20, seq=first)
    ear = listen(talk.tape)
    assert (ear.octets(), ear.holes) == (b"11" + b"44" + b"2222" + b"44" + b"3333" + b"4444" + b"11", [])


segments_of_a_stream = st.lists(
    st.tuples(st.integers(0, 59), st.integers(1, 20), st.integers(0, 255)), min_size=1, max_size=25
)


@settings(max_examples=250, deadline=None)
@given(segments_of_a_stream, st.integers(0, 2**32 - 1), st.booleans())
def test_any_segments_give_each_octet_as_it_came_first(
    segments: list[tuple[int, int, int]], initial: int, is_long: bool
) -> None:
    """Against a model that keeps octets one by one."""
    tape = Tape()
    talk = tape.talk(seq=(initial, 7))
    if is_long:
        talk.wrap = tagged
    talk.shake()
    model: dict[int, tuple[int, int]] = {}
    for start, length, octet in segments:
        packet = talk.segment(UP, bytes((octet,)) * length, seq=(initial + 1 + start) % 2**32)
        for at in range(start, start + length):
            model.setdefault(at, (octet, packet.number))
    ear = listen(tape)
    got = []
    for flow, packet_number, behind, octets in ear.arrivals:
        if flow is ear.flows[0][UP]:
            got += [(behind - len(octets) + i, octet, packet_number) for i, octet in enumerate(octets)]
    latest, expected = 0, []
    for at in sorted(model):
        octet, number = model[at]
        latest = max(latest, number)
        expected.append((at, octet, latest))
    assert got == expected
    missing = [there - here - 1 for here, there in itertools.pairwise([-1, *sorted(model)]) if there > here + 1]
    assert ear.lost() == missing
    assert [packet for flow, packet, _, _ in ear.arrivals] == sorted(packet for flow, packet, _, _ in ear.arrivals)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 2**32))
def test_shuffled_doubled_and_recut_segments_give_the_stream(octets: bytes, initial: int, seed: int) -> None:
    rnd = random.Random(seed)
    tape = Tape()
    talk = tape.talk(seq=(initial, 7)).shake()
    cuts = sorted({0, len(octets), *(rnd.randrange(len(octets)) for _ in range(rnd.randrange(8)))})
    parts = list(itertools.pairwise(cuts)) * 2
    parts += [tuple(sorted((rnd.randrange(len(octets)), rnd.randrange(len(octets) + 1)))) for _ in range(4)]  # type: ignore[misc]  # a sorted pair is a pair
    rnd.shuffle(parts)
    for start, end in parts:
        talk.segment(UP, octets[start:end], seq=(initial + 1 + start) % 2**32)
    ear = listen(tape)
    assert (ear.octets(), ear.holes) == (octets, [])


# -- keep-alives, probes, RST, FIN -------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", b"\0"])
def test_keep_alives_are_no_data(road: Road, octets: bytes) -> None:
    """RFC 9293 §3.8.4: with the sequence number before the next, and perhaps an octet of garbage."""
    talk = road().shake().send(UP, b"abc")
    for _ in range(5):
        talk.segment(UP, octets, seq=talk.seq[UP] - 1)
        talk.ack(DOWN)
    talk.send(UP, b"def")
    ear = listen(talk.tape)
    assert (ear.octets(), ear.holes) == (b"abcdef", [])


def test_a_zero_window_probe_is_data_that_comes_again(road: Road) -> None:
    """RFC 9293 §3.8.6.1: the probe is the next octet."""
    talk = road().shake().send(UP, b"abc")
    for _ in range(3):
        talk.segment(UP, b"d")
        talk.ack(DOWN)
    talk.send(UP, b"def")
    ear = listen(talk.tape)
    assert (ear.octets(), ear.holes) == (b"abcdef", [])


def test_each_direction_ends_with_its_fin(road: Road) -> None:
    talk = road().shake().send(UP, b"x").fin(UP).send(DOWN, b"y").fin(DOWN).ack(UP)
    assert listen(talk.tape).ends == [(0, UP, 5, "fin"), (0, DOWN, 7, "fin")]


def test_a_fin_may_carry_octets_and_come_twice(road: Road) -> None:
    talk = road().shake()
    for _ in range(2):
        talk.segment(UP, b"last", flags=FIN | ACK)
    ear = listen(talk.tape)
    assert (ear.octets(), ear.ends) == (b"last", [(0, UP, 4, "fin")])


def test_a_fin_before_missing_octets_waits_for_them(road: Road) -> None:
    talk = road().shake().skip(UP, 3).fin(UP)
    talk.segment(UP, b"abc", seq=talk.first[UP] + 1)
    ear = listen(talk.tape)
    assert (ear.heard(), ear.holes, ear.ends) == ([(5, b"abc")], [], [(0, UP, 5, "fin")])


def test_octets_lost_before_a_fin_are_told_at_the_end_of_the_capture(road: Road) -> None:
    talk = road().shake().send(UP, b"ab").skip(UP, 7).fin(UP)
    ear = listen(talk.tape)
    assert (ear.lost(), ear.ends) == ([7], [(0, UP, 5, "fin")])
    assert ear.holes[0][1] == 5


def test_octets_lost_before_a_fin_are_not_waited_for_for_ever(road: Road) -> None:
    talk = road().shake().skip(UP, 7).fin(UP)
    for _ in range(PACKETS_AFTER_ACKNOWLEDGEMENT + 2):
        talk.ack(DOWN)
    ear = Ear().feed(talk.tape.packets)
    assert (ear.lost(), len(ear.ends)) == ([7], 1)


def test_a_fin_alone_ends_a_direction_of_which_nothing_was_seen(road: Road) -> None:
    talk = road().send(UP, b"x").fin(DOWN).fin(UP)
    assert [end[3] for end in listen(talk.tape).ends] == ["fin", "fin"]


def test_a_reset_gives_up_what_waits(road: Road) -> None:
    talk = road().shake().skip(UP, 4).send(UP, b"efgh").rst(DOWN)
    ear = Ear().feed(talk.tape.packets)
    assert (ear.heard(), ear.lost(), ear.ends) == ([(4, b"efgh")], [4], [(0, DOWN, 5, "reset")])


def test_the_text_of_a_reset_is_no_data(road: Road) -> None:
    """RFC 1122 §4.2.2.12."""
    talk = road().shake().send(UP, b"data")
    talk.segment(UP, b"go away", flags=RST | ACK)
    ear = listen(talk.tape)
    assert (ear.octets(), ear.holes) == (b"data", [])


def test_what_was_under_way_when_the_reset_came_is_read(road: Road) -> None:
    talk = road().shake().send(UP, b"a").rst(DOWN).send(UP, b"b").send(UP, b"c")
    assert listen(talk.tape).octets() == b"abc"


# -- ports used again --------------------------------------------------------------------------------------------------


def test_a_syn_with_another_number_begins_a_new_connection(road: Road) -> None:
    tape = Tape()
    road(tape, seq=(1000, 2000)).shake().send(UP, b"old").fin(UP).fin(DOWN)
    road(tape, seq=(500_000, 7)).shake().send(UP, b"new").send(DOWN, b"NEW")
    ear = listen(tape)
    assert len(ear.flows) == 2
    assert (ear.octets(0), ear.octets(1), ear.octets(1, DOWN)) == (b"old", b"new", b"NEW")
    assert ear.ends == [(0, UP, 5, "fin"), (0, DOWN, 6, "fin"), (0, UP, 7, "replaced")]


def test_the_same_syn_again_is_a_retransmission(road: Road) -> None:
    talk = road()
    for _ in range(3):
        talk.segment(UP, flags=SYN, seq=talk.first[UP])
    for _ in range(3):
        talk.segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN])
    talk.ack(UP).send(UP, b"x").send(DOWN, b"y")
    talk.segment(UP, flags=SYN, seq=talk.first[UP])
    talk.send(UP, b"z")
    ear = listen(talk.tape)
    assert (len(ear.flows), ear.octets(), ear.octets(side=DOWN)) == (1, b"xz", b"y")


def test_both_sides_may_begin_at_once(road: Road) -> None:
    """Simultaneous open (RFC 9293 §3.5)."""
    talk = road()
    talk.segment(UP, flags=SYN, seq=talk.first[UP])
    talk.segment(DOWN, flags=SYN, seq=talk.first[DOWN])
    talk.segment(UP, flags=SYN | ACK, seq=talk.first[UP])
    talk.segment(DOWN, flags=SYN | ACK, seq=talk.first[DOWN])
    talk.send(UP, b"x").send(DOWN, b"y")
    ear = listen(talk.tape)
    assert (len(ear.flows), ear.octets(), ear.octets(side=DOWN)) == (1, b"x", b"y")


def test_what_waited_is_told_before_a_new_connection_takes_the_ports(road: Road) -> None:
    tape = Tape()
    road(tape, seq=(1000, 2000)).shake().skip(UP, 5).send(UP, b"old")
    road(tape, seq=(500_000, 7)).shake()
    ear = listen(tape)
    assert (ear.octets(0), ear.lost(0), ear.lost(1)) == (b"old", [5], [])


def test_connections_differ_by_every_part_of_their_addresses(road: Road) -> None:
    tape = Tape()
    pairs = [
        (CLIENT, SERVER),
        (Address("10.0.0.3", CLIENT.port), SERVER),
        (Address(CLIENT.ip, 40001), SERVER),
        (CLIENT, Address("10.0.0.3", SERVER.port)),
        (CLIENT, Address(SERVER.ip, 50052)),
        (Address("::1", CLIENT.port), Address("::2", SERVER.port)),
    ]
    for client, server in pairs:
        road(tape, client, server).shake().send(UP, f"{client}{server}".encode())
    ear = listen(tape)
    assert [ear.octets(i) for i in range(len(pairs))] == [f"{client}{server}".encode() for client, server in pairs]


# -- lost --------------------------------------------------------------------------------------------------------------


def test_a_hole_that_was_acknowledged_is_given_up_soon(road: Road) -> None:
    talk = road().shake().send(UP, b"ab").skip(UP, 6).send(UP, b"ij")
    heard_at = None
    for _ in range(100):
        talk.ack(DOWN)
        ear = Ear().feed(talk.tape.packets)
        if ear.holes and heard_at is None:
            heard_at = len(talk.tape.packets) - 5
    assert heard_at is not None
    assert heard_at <= PACKETS_AFTER_ACKNOWLEDGEMENT + 2
    assert (ear.heard(), ear.lost()) == ([(4, b"ab"), (5, b"ij")], [6])


def test_a_hole_that_was_not_acknowledged_is_waited_for(road: Road) -> None:
    """The network lost it, so a retransmission will come."""
    talk = road().shake().send(UP, b"ab").skip(UP, 2)
    missing = talk.seq[UP] - 2
    for _ in range(MAX_WAITING_PACKETS // 2 - 10):
        talk.send(UP, b".")
        talk.segment(DOWN, ack=missing)
    talk.segment(UP, b"cd", seq=missing)
    ear = listen(talk.tape)
    assert ear.holes == []
    assert ear.octets() == b"abcd" + b"." * (MAX_WAITING_PACKETS // 2 - 10)


def test_no_hole_is_waited_for_longer_than_so_many_packets(road: Road) -> None:
    talk = road().shake().send(UP, b"ab").skip(UP, 2)
    missing = talk.seq[UP] - 2
    for _ in range(MAX_WAITING_PACKETS + 2):
        talk.send(UP, b".")
        talk.segment(DOWN, ack=missing)
    ear = Ear().feed(talk.tape.packets)
    assert ear.lost() == [2]
    talk.segment(UP, b"cd", seq=missing)
    assert ear.feed(talk.tape.packets[-1:]).octets() == b"ab" + b"." * (MAX_WAITING_PACKETS + 2), "too late"


def test_no_hole_is_waited_for_longer_than_so_many_octets(road: Road) -> None:
    talk = road().shake().skip(UP, 9).send(UP, bytes(MAX_WAITING_OCTETS + 60_000), 60_000)
    ear = Ear().feed(talk.tape.packets)
    assert (ear.lost(), len(ear.octets())) == ([9], MAX_WAITING_OCTETS + 60_000)


def test_the_other_direction_goes_on_while_one_waits(road: Road) -> None:
    talk = road().shake().skip(UP, 3).send(UP, b"def").send(DOWN, b"xyz").send(DOWN, b"uvw")
    ear = Ear().feed(talk.tape.packets)
    assert (ear.octets(side=UP), ear.octets(side=DOWN)) == (b"", b"xyzuvw")


def test_octets_that_only_an_acknowledgement_shows_are_told_at_the_end() -> None:
    """Nothing follows them. 1 octet would be a FIN that was missed, and a wild number is none."""
    for missed, told in ((7, [7]), (1, []), (2**30 + 1, []), (0, [])):
        talk = Tape().talk()
        talk.wrap = tagged
        talk.shake().send(UP, b"ab").skip(UP, missed).send(DOWN, b"x")
        ear = Ear().feed(talk.tape.packets)
        assert ear.lost() == []
        assert ear.finish().lost() == told


def test_a_bare_acknowledgement_shows_them_as_well(road: Road) -> None:
    talk = road().shake().send(UP, b"ab").send(DOWN, b"x").skip(UP, 7)
    talk.segment(DOWN)
    ear = Ear().feed(talk.tape.packets)
    assert ear.lost() == []
    assert ear.finish().lost() == [7]


def test_both_directions_may_lose_octets_at_once(road: Road) -> None:
    talk = road().shake()
    for i in range(40):
        talk.skip(UP, i + 1).send(UP, b"u").skip(DOWN, 2 * i + 1).send(DOWN, b"d")
    ear = listen(talk.tape)
    assert (ear.octets(side=UP), ear.octets(side=DOWN)) == (b"u" * 40, b"d" * 40)
    assert ear.lost(side=UP) == list(range(1, 41))
    assert ear.lost(side=DOWN) == list(range(1, 81, 2))


def test_what_is_given_up_never_goes_back_in_packets(road: Road) -> None:
    """A late retransmission fills one hole and leaves another, behind which older packets wait."""
    talk = road().shake()
    first = talk.first[UP] + 1
    talk.segment(UP, b"ee", seq=first + 8)
    talk.segment(UP, b"cc", seq=first + 4)
    talk.segment(UP, b"aabb", seq=first)
    ear = listen(talk.tape)
    assert ear.heard() == [(6, b"aabb"), (6, b"cc"), (6, b"ee")]
    assert [(packet, octets) for _, packet, octets, _ in ear.holes] == [(6, 2)]


@pytest.mark.parametrize("kept", range(6))
def test_a_packet_cut_short_leaves_a_hole_of_known_length(road: Road, kept: int) -> None:
    talk = road().shake().send(UP, b"abcde").send(UP, b"fg")
    packets = talk.tape.packets
    whole = packets[3]
    packets[3] = whole._replace(data=whole.data[: len(whole.data) - 5 + kept])
    ear = listen(talk.tape)
    assert ear.octets() == b"abcde"[:kept] + b"fg"
    assert [hole[1:] for hole in ear.holes] == ([(4, 5 - kept, True)] if kept < 5 else [])


def test_a_retransmission_in_full_does_not_mend_what_was_cut_short(road: Road) -> None:
    """The octets count as arrived, lost to the capture; what follows is right."""
    talk = road().shake().send(UP, b"abcde")
    talk.tape.packets[3] = talk.tape.packets[3]._replace(data=talk.tape.packets[3].data[:-3])
    talk.segment(UP, b"abcde", seq=talk.first[UP] + 1)
    talk.send(UP, b"fg")
    ear = listen(talk.tape)
    assert (ear.octets(), ear.lost()) == (b"abfg", [3])


def test_cut_short_and_out_of_order_at_once(road: Road) -> None:
    talk = road().shake().send(UP, b"abcd").send(UP, b"efgh").send(UP, b"ij")
    packets = talk.tape.packets
    packets[4] = packets[4]._replace(data=packets[4].data[:-3])
    packets[3], packets[4] = packets[4], packets[3]
    ear = listen(talk.tape)
    assert (ear.octets(), ear.lost()) == (b"abcdeij", [3])


# -- far away ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [2**31 - 1, 2**31, 3 * 2**30 - 5, 2**30 + 1])
def test_segments_left_over_from_elsewhere_are_not_believed(road: Road, far: int) -> None:
    talk = road().shake()
    for i in range(10):
        talk.send(UP, b"right" * (i + 1))
        talk.segment(UP, b"wrong", seq=talk.seq[UP] + far)
        talk.ack(DOWN)
    ear = listen(talk.tape)
    assert (ear.octets(), ear.holes) == (b"".join(b"right" * (i + 1) for i in range(10)), [])


@pytest.mark.parametrize("missed", [2**30 - 500, 2**30 + 5, 2**31 - 1, 2**31 + 5, 3 * 2**30 - 100])
def test_a_flow_goes_on_where_it_is_after_very_much_was_missed(road: Road, missed: int) -> None:
    talk = road().shake().send(UP, b"before").skip(UP, missed)
    for _ in range(20):
        talk.send(UP, b"after").ack(DOWN)
    ear = listen(talk.tape)
    believed = 20 if missed <= 2**30 else 20 - STALE_SEGMENTS + 1
    assert ear.octets() == b"before" + b"after" * believed
    assert ear.lost() == [missed + 5 * (20 - believed)]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_segments_of_one_octet_behind_holes_are_few(road: Road) -> None:
    """Every second octet is missing, and the flow moves all the time."""
    talk = road().shake()
    first = talk.first[UP] + 1
    ear = Ear().feed(talk.tape.packets)
    most = 0
    for i in range(4000):
        talk.tape.packets.clear()
        talk.segment(UP, b"y", seq=first + 100_000 + 2 * i)
        talk.segment(UP, b"x", seq=first + i)
        ear.feed(talk.tape.packets)
        most = max(most, len(ear.flows[0][0].waiting))
    assert most <= MAX_WAITING_PACKETS + 1


def test_packets_cut_to_nothing_behind_holes_are_few(road: Road) -> None:
    talk = road().shake().skip(UP, 5)
    for _ in range(3 * MAX_WAITING_PACKETS):
        packet = talk.segment(UP, bytes(100))
        talk.tape.packets[-1] = packet._replace(data=packet.data[:-100])
        talk.skip(UP, 200)
    ear = Ear().feed(talk.tape.packets)
    assert len(ear.flows[0][0].waiting) <= MAX_WAITING_PACKETS
    assert ear.reassembler._waiting_octets <= MAX_WAITING_OCTETS


def test_octets_that_wait_are_bounded_over_all_connections(monkeypatch: pytest.MonkeyPatch, road: Road) -> None:
    monkeypatch.setattr(reassembly, "MAX_WAITING_OVERALL", 200_000)
    tape = Tape()
    ear = Ear()
    for i in range(100):
        road(tape, Address("10.0.0.1", 1000 + i)).shake().skip(UP, 5).send(UP, bytes(40_000), 1000)
        ear.feed(tape.packets)
        tape.packets.clear()
        assert ear.reassembler._waiting_octets <= 202_000
    assert sum(len(ear.octets(i)) for i in range(100)) > 3_800_000
    ear.finish()
    assert all(len(ear.octets(i)) == 40_000 for i in range(100))


def test_the_longest_silent_connections_are_let_go(monkeypatch: pytest.MonkeyPatch, road: Road) -> None:
    assert MAX_CONNECTIONS == 20_000
    monkeypatch.setattr(reassembly, "MAX_CONNECTIONS", 20)
    tape = Tape()
    busy = road(tape, Address("10.0.0.1", 999)).shake()
    for i in range(100):
        road(tape, Address("10.0.0.1", 1000 + i)).shake().send(UP, b"hello").skip(UP, 1).send(UP, b"!")
        busy.send(UP, b"x")
    ear = Ear().feed(tape.packets)
    assert len(ear.reassembler._flows) <= 40
    assert len(ear.flows) == 101, "each was read"
    assert all(ear.octets(i) == b"hello!" for i in range(1, 80))
    assert ear.octets(0) == b"x" * 100, "the busy one stays"
    assert {end[3] for end in ear.ends} == {"idle"}


def test_batches_of_any_size_give_the_same(road: Road) -> None:
    tape = Tape()
    rnd = random.Random(5)
    talks = [road(tape, Address("10.0.0.1", 1000 + i)).shake() for i in range(4)]
    for _ in range(120):
        talk = rnd.choice(talks)
        talk.skip(UP, rnd.random() < 0.2).send(rnd.choice((UP, DOWN)), rnd.randbytes(rnd.randrange(1, 9)))
    whole = listen(tape)
    for size in (1, 2, 7):
        ear = Ear()
        for at in range(0, len(tape.packets), size):
            ear.feed(tape.packets[at : at + size])
        ear.finish()
        assert [arrival[1:] for arrival in ear.arrivals] == [arrival[1:] for arrival in whole.arrivals]
        assert [hole[1:] for hole in ear.holes] == [hole[1:] for hole in whole.holes]
