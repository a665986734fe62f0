from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hpack import Encoder
from scapy.all import IP, TCP, IPv6, Packet  # type: ignore[attr-defined]  # it has them once it runs

from capture import sniff_grpc
from proto.chat_pb2 import ChatMessage, JoinRequest
from proto.chat_pb2_grpc import ChatServiceStub
from server.threaded import RunningServer, serve

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, str(ROOT / "capture" / "sniff_grpc.py")]
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"] if os.geteuid() == 0 else []
CLIENT, SERVER = 40000, 50051


@pytest.fixture(autouse=True)
def _no_senders_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff_grpc, "senders", {})


def frame(type_code: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([type_code, flags]) + stream.to_bytes(4) + payload


SETTINGS = frame(4, 0, 0, bytes.fromhex("0004 00400000 0010 00000007"))
MESSAGE = frame(0, 1, 1, b"\0\0\0\0\4Hola")


class Conversation:
    """Segments as scapy would deliver them."""

    def __init__(self, *, ip: type[IP | IPv6] = IP, initial: int = 1000) -> None:
        self._ip = ip
        self._next = {CLIENT: initial, SERVER: 7_000_000}

    def segment(self, sender: int, octets: bytes = b"", flags: str = "PA") -> Packet:
        address = "127.0.0.1" if self._ip is IP else "::1"
        tcp = TCP(sport=sender, dport=CLIENT + SERVER - sender, seq=self._next[sender], flags=flags)
        self._next[sender] = (self._next[sender] + len(octets) + ("S" in flags)) % 2**32
        built = self._ip(src=address, dst=address) / tcp / octets
        packet: Packet = self._ip(bytes(built))
        packet.time = 1_700_000_000.5
        return packet

    def begin(self) -> list[Packet]:
        return [self.segment(CLIENT, flags="S"), self.segment(SERVER, flags="SA")]


def seen(*packets: Packet) -> list[str]:
    """The lines for the packets, without the clock."""
    lines = itertools.chain.from_iterable(map(sniff_grpc.frames, packets))
    return [" ".join(line.split()[1:]) for line in lines]


def test_frames_of_one_segment_are_shown_one_by_one_behind_the_preface() -> None:
    talk = Conversation()
    window = frame(8, 0, 3, (4096).to_bytes(4))
    lines = seen(*talk.begin(), talk.segment(CLIENT, sniff_grpc.PREFACE + SETTINGS + window + frame(4, 1, 0, b"")))
    assert lines == [
        "40000 → 50051 stream 0 SETTINGS 12 SETTINGS_INITIAL_WINDOW_SIZE 4194304 · 16 7",
        "40000 → 50051 stream 3 WINDOW_UPDATE 4 4096 octets more may be sent",
        "40000 → 50051 stream 0 SETTINGS 0 acknowledged",
    ]


def test_a_frame_over_many_segments_is_shown_when_its_last_octet_came() -> None:
    talk, octets = Conversation(), sniff_grpc.PREFACE + SETTINGS + MESSAGE
    begun = talk.begin()
    packets = [talk.segment(CLIENT, octets[i : i + 1]) for i in range(len(octets))]
    assert len(seen(*begun, *packets[:-1])) == 1
    assert seen(packets[-1]) == ["40000 → 50051 stream 1 DATA end 9 message of 4 octets: Hola"]


def test_fields_are_read_with_the_table_that_each_side_fills() -> None:
    talk, encoder = Conversation(), Encoder()
    blocks = [encoder.encode([(":path", "/minichat.v1.ChatService/Join"), ("te", "trailers")]) for _call in range(2)]
    lines = seen(*talk.begin(), *(talk.segment(CLIENT, frame(1, 4, 1, block)) for block in blocks))
    assert [line.partition(" HEADERS ")[2] for line in lines] == [
        f"{len(block)} :path /minichat.v1.ChatService/Join · te trailers" for block in blocks
    ]
    assert len(blocks[1]) == 2, "the second block is two indexes, which only the table explains"


def test_a_field_block_that_needs_what_was_not_seen_is_said_to_be_unreadable() -> None:
    talk = Conversation()
    lines = seen(*talk.begin(), talk.segment(SERVER, frame(1, 5, 1, b"\xbe") + MESSAGE))
    assert lines == [
        "50051 → 40000 stream 1 HEADERS end 1 fields that cannot be read from here on",
        "50051 → 40000 stream 1 DATA end 9 message of 4 octets: Hola",
    ]


def test_a_packet_that_is_seen_twice_is_shown_once() -> None:
    talk = Conversation()
    packets = [*talk.begin(), talk.segment(CLIENT, MESSAGE), talk.segment(CLIENT, MESSAGE)]
    assert len(seen(*(one for packet in packets for one in (packet, packet)))) == 2


def test_sequence_numbers_may_wrap() -> None:
    talk = Conversation(initial=2**32 - 12)
    assert len(seen(*talk.begin(), *(talk.segment(CLIENT, MESSAGE) for _number in range(3)))) == 3


def test_ipv6_is_read_as_well() -> None:
    talk = Conversation(ip=IPv6)
    assert len(seen(*talk.begin(), talk.segment(SERVER, MESSAGE))) == 1


def test_a_connection_that_began_before_is_left_alone() -> None:
    talk = Conversation()
    talk.begin()
    assert seen(talk.segment(CLIENT, MESSAGE)) == []


def test_a_connection_that_ended_is_forgotten_and_its_ports_may_serve_another() -> None:
    talk = Conversation()
    assert len(seen(*talk.begin(), talk.segment(CLIENT, MESSAGE, "FPA"), talk.segment(SERVER, flags="RA"))) == 1
    assert sniff_grpc.senders == {}
    assert len(seen(*talk.begin(), talk.segment(CLIENT, MESSAGE))) == 1


def test_so_many_senders_are_followed_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff_grpc, "SENDERS", 1)
    talk = Conversation()
    assert seen(*talk.begin(), talk.segment(SERVER, MESSAGE)) == []
    assert len(seen(talk.segment(CLIENT, MESSAGE))) == 1


def test_types_that_it_does_not_show_pass_and_control_characters_do_not() -> None:
    talk = Conversation()
    ping, evil = frame(6, 0, 0, bytes(8)), frame(0, 0, 1, b"\0\0\0\0\5\x1b[2Ja")
    lines = seen(*talk.begin(), talk.segment(CLIENT, ping + evil + frame(0, 1, 1, b"")))
    assert lines == [
        "40000 → 50051 stream 1 DATA 10 message of 5 octets: ·[2Ja",
        "40000 → 50051 stream 1 DATA end 0",
    ]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve() as running:
        yield running


@pytest.mark.skipif(os.geteuid() != 0, reason="sniffing needs admin rights")
def test_on_the_loopback_it_shows_a_chat_as_it_passes(server: RunningServer) -> None:
    command = [*SCRIPT, str(server.port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert process.stdout is not None
    with process:
        lines = [process.stdout.readline()]
        assert lines == [f"Listening on lo, port {server.port}; start a client now. Ctrl-C ends it\n"]
        with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = ChatServiceStub(channel)
            stub.Join(JoinRequest(user="Juan", room="general"))
            said = [ChatMessage(user="Juan", room="general"), ChatMessage(user="Juan", room="general", text="Hola")]
            assert [reply.text for reply in stub.Chat(iter(said))] == ["Hola"]
            while sum("HEADERS end" in line for line in lines) < 2:  # Join's trailers, Chat's trailers
                lines.append(process.stdout.readline())
                assert lines[-1], "it ended by itself"
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
    assert process.returncode == 0
    text = "".join(lines)
    to_server, to_client = f"→ {server.port:5}", f"{server.port:5} → "
    for way in (to_server, to_client):
        for kind in ("SETTINGS", "HEADERS", "DATA", "WINDOW_UPDATE"):
            assert any(way in line and kind in line for line in lines), (way, kind, text)
    assert sum("Hola" in line and " DATA " in line for line in lines) == 2, text  # there and back, each once
    assert sum("/minichat.v1.ChatService/" in line for line in lines) == 2, text
    assert sum("grpc-status 0" in line for line in lines) == 2, text


def test_without_rights_it_says_so_in_one_sentence_with_both_ways_out() -> None:
    done = subprocess.run([*WITHOUT_RIGHTS, *SCRIPT], capture_output=True, encoding="utf-8")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "sudo python3" in done.stderr
    assert "python3 -m capture tap" in done.stderr


def test_what_is_no_port_is_refused_in_one_line() -> None:
    done = subprocess.run([*SCRIPT, "chat"], capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
