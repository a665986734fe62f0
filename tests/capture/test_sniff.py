"""Sniffing this machine's loopback for real, and the ways of other systems through what stands in for them."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import capture
from capture.events import Packet
from capture.packets import PacketDecoder
from capture.pcap import read
from capture.sources import sniff
from capture.sources.rights import may_sniff
from capture.sources.sniff import Interface, Sniffer, SniffError, UnknownInterface, has_port, interfaces
from kit.bootstrap import python
from tests.capture.engine_factory import (
    BSD_LOOPBACK,
    COOKED,
    COOKED_V2,
    DOWN,
    ETHERNET,
    RAW,
    UP,
    as_expected,
    expected_frames,
    ip,
    ipv4,
    ipv6,
    link,
    tcp,
)
from tests.capture.loopback import Line

ROOT = Path(__file__).parent.parent.parent
may = pytest.mark.skipif(not may_sniff(), reason="this user may not sniff")
libpcap = pytest.mark.skipif(ctypes.util.find_library("pcap") is None, reason="libpcap is not installed")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the packet socket is Linux's")


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as line:
        yield line


def everything(sniffer: Sniffer) -> list[Packet]:
    """What has passed: loopback has delivered a packet when its sender goes on."""
    packets = []
    while sniffer.wait(0):
        packets += sniffer.packets(0)
    return packets


def streams(packets: list[Packet], port: int) -> dict[int, bytes]:
    """Direction -> octets, from segments that came in order, once each."""
    octets, decoder = {UP: b"", DOWN: b""}, PacketDecoder()
    for packet in packets:
        segment = decoder.decode(packet)
        assert segment is not None
        octets[DOWN if segment.key[-4:-2] == port.to_bytes(2) else UP] += segment.payload
    return octets


def without_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise ImportError("libpcap is not available. Cannot compile filter !")

    monkeypatch.setattr("scapy.arch.common.compile_filter", refuse)


# --- on loopback


@may
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_packet_comes_once_whole_and_with_its_time(host: str) -> None:
    sent = bytes(range(256)) * 4000
    with Line(host) as line, Sniffer(ports=[line.port]) as sniffer:
        line.dial().send(UP, sent).send(DOWN, sent[:1000]).hang_up()
        packets = everything(sniffer)
        assert streams(packets, line.port) == {UP: sent, DOWN: sent[:1000]}
        assert [packet.number for packet in packets] == list(range(1, len(packets) + 1))
        assert sniffer.statistics == (len(packets), 0)
    assert {packet.link_type for packet in packets} == {sniffer.link_type}
    assert [packet.length for packet in packets] == [len(packet.data) for packet in packets]
    times = [packet.time_ns for packet in packets]
    assert times == sorted(times)
    assert any(time_ns % 1000 for time_ns in times), "nanoseconds"
    assert sniffer.interface == {"linux": "lo", "darwin": "lo0"}.get(sys.platform, sniffer.interface)


@may
@linux
@pytest.mark.parametrize("has_libpcap", [True, False])
def test_only_packets_of_the_ports_are_seen_with_libpcap_or_without(
    has_libpcap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_libpcap and ctypes.util.find_library("pcap") is None:
        pytest.skip("libpcap is not installed")
    if not has_libpcap:
        without_libpcap(monkeypatch)
    with Line() as first, Line() as other, Line() as second, Sniffer(ports=[first.port, second.port]) as sniffer:
        assert sniffer.has_filter is has_libpcap
        for line in (first, other, second):
            line.chat(1)
        packets = everything(sniffer)
        assert sniffer.statistics == (len(packets), 0)
    seen = capture.decode([packets])
    servers = [connection.server for connection in seen.connections]
    assert servers == [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"]


@may
def test_nothing_is_given_where_nothing_passes(line: Line) -> None:
    with Sniffer(ports=[line.port]) as sniffer:
        assert sniffer.packets(0) == []
        assert not sniffer.wait(0.01)
    assert sniffer.packets(0) == []
    assert sniffer.statistics == (0, 0)


@may
@linux
def test_what_the_kernel_has_no_room_for_is_counted(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sniffer(ports=[line.port]) as witness:
        monkeypatch.setattr(sniff, "KERNEL_BUFFER", 8192)
        with Sniffer(ports=[line.port]) as sniffer:
            line.dial()
            for _turn in range(50):
                line.send(UP, bytes(1000))
            line.hang_up()
            seen = len(everything(sniffer))
            assert sniffer.statistics.seen == seen
            assert sniffer.statistics.dropped > 0
        assert seen + sniffer.statistics.dropped == len(everything(witness))


@may
def test_more_than_a_batch_is_given_in_batches(line: Line) -> None:
    with Sniffer(ports=[line.port]) as sniffer:
        assert sniffer.packets(0) == []  # others' packets from before the filter stood count for a batch, too
        line.dial()
        for _turn in range(sniff.BATCH):
            line.send(UP, b"x")
        batches = [sniffer.packets(0), sniffer.packets(0)]
        assert len(batches[0]) == sniff.BATCH
        assert [packet.number for packet in batches[1]][:1] == [sniff.BATCH + 1]


@may
def test_dumpcap_sees_the_same_packets(line: Line) -> None:
    if shutil.which("dumpcap") is None:
        pytest.skip("dumpcap is not installed")
    with (
        Sniffer(ports=[line.port]) as sniffer,
        subprocess.Popen(
            ["dumpcap", "-q", "-i", sniffer.interface, "-f", f"tcp port {line.port}", "-w", "-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as dumpcap,
    ):  # fmt: skip
        assert dumpcap.stderr is not None
        assert dumpcap.stdout is not None
        while b"File:" not in dumpcap.stderr.readline():  # it says so once it listens
            assert dumpcap.poll() is None
        line.chat(5)
        packets = everything(sniffer)
        theirs: list[Packet] = []
        for batch in read(dumpcap.stdout.raw):  # type: ignore[attr-defined]  # a pipe's is a BufferedReader
            theirs += batch
            if len(theirs) >= len(packets):
                break
        dumpcap.kill()
    assert [packet.data for packet in theirs] == [packet.data for packet in packets]


# --- interfaces


def test_loopback_is_listed_first_and_as_such() -> None:
    first = interfaces()[0]
    assert first.is_loopback
    assert first.is_up
    assert "127.0.0.1" in first.addresses


def test_an_interface_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UnknownInterface, match=r"no interface 'nix'; there are .*lo"):
        Sniffer("nix").__enter__()


def test_an_interface_that_is_down_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff, "interfaces", lambda: [Interface("eth7", "", [], False, False, "eth7")])
    with pytest.raises(SniffError, match="eth7 is down"):
        Sniffer("eth7").__enter__()


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), OSError("You don't have permission")])
def test_without_the_right_it_is_said_how_to_get_it_and_that_the_tap_needs_none(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(sniff, "_open", refuse)
    monkeypatch.setattr(sniff, "may_sniff", lambda: False)
    with pytest.raises(SniffError) as told:
        Sniffer().__enter__()
    assert f"{python()} -m capture tap" in str(told.value)
    assert {"linux": "setcap", "darwin": "ChmodBPF", "win32": "Npcap"}[sys.platform] in str(told.value)


def test_another_reason_is_told_as_the_system_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(sniff, "_open", refuse)
    monkeypatch.setattr(sniff, "may_sniff", lambda: True)
    with pytest.raises(SniffError, match=r"cannot be sniffed: No buffer space available$"):
        Sniffer().__enter__()


# --- what Linux tells beside the octets


class _Kernel:
    """Stands in for a packet socket: gives what it was made with, then nothing, or an error."""

    def __init__(self, packets: list[tuple[bytes, int, list[tuple[int, int, bytes]]]], error: OSError) -> None:
        """`packets`: octets, packet type, ancillary data."""
        self.packets, self.error = packets, error

    def recvmsg_into(self, buffers: list[bytearray], _ancillary: int, _flags: int) -> tuple[int, Any, int, Any]:
        if not self.packets:
            raise self.error
        octets, kind, ancillary = self.packets.pop(0)
        buffers[0][: len(octets)] = octets
        return len(octets), ancillary, 0, ("lo", 0x0800, kind, 772, bytes(6))

    def getsockopt(self, *_arguments: int) -> bytes:
        return bytes(8)


TIME = (socket.SOL_SOCKET, 35, struct.pack("@ll", 1_700_000_000, 123_456_789))


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[_Kernel], Sniffer]]:
    """A sniffer of port 50051 whose socket's place somebody else has taken."""
    with Line() as line, Sniffer(ports=[50051, line.port]) as sniffer:

        def replace(kernel: _Kernel) -> Sniffer:
            monkeypatch.setattr(sniffer._source, "_socket", kernel)
            monkeypatch.setattr(sniffer._source, "ready", lambda _timeout: True)
            return sniffer

        yield replace


OCTETS = link(ETHERNET, ip("127.0.0.1", "127.0.0.1", tcp(40000, 50051, 1, 1, 0x18, b"Hola")))


@may
@linux
def test_times_are_nanoseconds_and_outgoing_copies_are_left_out(replaced: Any) -> None:
    sniffer = replaced(_Kernel([(OCTETS, 4, [TIME]), (OCTETS, 0, [TIME])], BlockingIOError()))
    assert sniffer.packets(0) == [Packet(1, 1_700_000_000_123_456_789, ETHERNET, OCTETS, len(OCTETS))]


@may
@linux
def test_a_vlan_tag_that_the_kernel_took_off_is_put_back(replaced: Any) -> None:
    tag = (263, 8, struct.pack("=IIIHHHH", 0x51, len(OCTETS), len(OCTETS), 0, 14, 0x2007, 0x88A8))
    [packet] = replaced(_Kernel([(OCTETS, 0, [TIME, tag])], BlockingIOError())).packets(0)
    assert packet.data == OCTETS[:12] + b"\x88\xa8\x20\x07" + OCTETS[12:]
    assert packet.length == len(packet.data)


@may
@linux
def test_when_the_interface_goes_what_came_before_is_given_first(replaced: Any) -> None:
    sniffer = replaced(_Kernel([(OCTETS, 0, [TIME])], OSError(errno.ENETDOWN, "Network is down")))
    assert len(sniffer.packets(0)) == 1
    for _again in range(2):
        with pytest.raises(SniffError, match=r"lo gives no more packets: Network is down"):
            sniffer.packets(0)


# --- libpcap, the way of macOS and Windows


LIBPCAP = """
import json, sys
import scapy.arch
from scapy.config import conf
conf.use_pcap = True
from capture.sources import sniff
from tests.capture.loopback import Line
from tests.capture.test_sniff import streams
sniff._open = sniff.PcapSocket
with Line() as line, sniff.Sniffer(ports=[line.port]) as sniffer:
    sent = bytes(range(256)) * 2000
    line.dial().send(0, sent).send(1, b"Hola").hang_up()
    packets = []
    while streams(packets, line.port) != {0: sent, 1: b"Hola"} and sniffer.wait(10):
        packets += sniffer.packets(0)
    times = [packet.time_ns for packet in packets]
    print(json.dumps({"whole": streams(packets, line.port) == {0: sent, 1: b"Hola"},
                      "lengths": all(packet.length == len(packet.data) for packet in packets),
                      "ordered": times == sorted(times), "microseconds": all(time % 1000 == 0 for time in times),
                      "link_type": sniffer.link_type, "statistics": sniffer.statistics, "packets": len(packets)}))
"""


@may
@linux
@libpcap
def test_libpcap_gives_the_same_for_real() -> None:
    done = subprocess.run([sys.executable, "-c", LIBPCAP], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told.pop("statistics") == [told.pop("packets"), 0]
    assert told == {"whole": True, "lengths": True, "ordered": True, "microseconds": True, "link_type": ETHERNET}


class _Pcap:
    """Stands in for scapy's wrapper and its library: gives packets, then `last`."""

    class pcap_stat(ctypes.Structure):
        _fields_ = (("ps_recv", ctypes.c_uint), ("ps_drop", ctypes.c_uint), ("ps_ifdrop", ctypes.c_uint))

    def __init__(self, packets: list[bytes], last: int) -> None:
        from scapy.libs.winpcapy import pcap_pkthdr

        self._packets, self._last = packets, last
        self._kept: list[Any] = []
        self.pcap = self
        self.header = ctypes.POINTER(pcap_pkthdr)()
        self.pkt_data = ctypes.POINTER(ctypes.c_ubyte)()
        self.remaining = True
        self.is_closed = False

    def pcap_next_ex(self, _pcap: object, header: Any, octets: Any) -> int:
        from scapy.libs.winpcapy import pcap_pkthdr

        if not self._packets:
            return self._last
        data = self._packets.pop(0)
        head = pcap_pkthdr(caplen=len(data), len=len(data) + 5)
        head.ts.tv_sec, head.ts.tv_usec = 1_700_000_000, 123_456
        self._kept += [head, ctypes.create_string_buffer(data, len(data))]
        ctypes.cast(header, ctypes.POINTER(ctypes.POINTER(pcap_pkthdr)))[0] = ctypes.pointer(head)
        ctypes.cast(octets, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(self._kept[-1])
        return 1

    def pcap_geterr(self, _pcap: object) -> bytes:
        return b"The interface disappeared"

    def pcap_stats(self, _pcap: object, counts: Any) -> int:
        ctypes.cast(counts, ctypes.POINTER(self.pcap_stat))[0].ps_drop = 7
        return 0

    def close(self) -> None:
        self.is_closed = True


def pcap_socket(monkeypatch: pytest.MonkeyPatch, stand_in: _Pcap) -> Sniffer:
    """An open sniffer of port 50051 on a loopback of macOS, whose packets come from `stand_in`."""
    source: Any = object.__new__(sniff.PcapSocket)
    source._interface, source._pcap, source._library, source._failure = "lo0", stand_in, stand_in, None
    source._select = lambda waiting, _timeout: waiting
    source.link_type, source.has_filter = BSD_LOOPBACK, True
    monkeypatch.setattr(sniff, "_find", lambda _name: Interface("lo0", "", ["127.0.0.1"], True, True, "lo0"))
    monkeypatch.setattr(sniff, "_open", lambda *_arguments: source)
    return Sniffer(ports=[50051]).__enter__()


@libpcap
def test_libpcap_s_packets_have_their_time_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = link(BSD_LOOPBACK, ip("127.0.0.1", "127.0.0.1", tcp(40000, 50051, 1, 1, 0x18, b"Hola")))
    stand_in = _Pcap([octets], last=0)
    sniffer = pcap_socket(monkeypatch, stand_in)
    assert sniffer.packets(0) == [Packet(1, 1_700_000_000_123_456_000, BSD_LOOPBACK, octets, len(octets) + 5)]
    assert not stand_in.remaining, "scapy's select on Windows would not wait else"
    assert sniffer.packets(0) == []
    sniffer.close()
    assert stand_in.is_closed
    assert sniffer.statistics == (1, 7)


@libpcap
def test_when_libpcap_s_interface_goes_what_came_before_is_given_first(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = link(BSD_LOOPBACK, ip("::1", "::1", tcp(50051, 40000, 1, 1, 0x18, b"Hola")))
    sniffer = pcap_socket(monkeypatch, _Pcap([octets], last=-1))
    assert len(sniffer.packets(0)) == 1
    with pytest.raises(SniffError, match="lo0 gives no more packets: The interface disappeared"):
        sniffer.packets(0)


# --- the filter


SEGMENT = tcp(40000, 50051, 1, 1, 0x18, b"Hola")
ANSWER = tcp(50051, 40000, 1, 1, 0x18, b"Hola")
OTHERS = tcp(40000, 50052, 1, 1, 0x18, b"Hola")
V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fe80::1", "fe80::2")
WITH_PORT = {
    "IPv4": ipv4(*V4, SEGMENT),
    "an answer": ipv4(*V4, ANSWER),
    "IPv4 with options": ipv4(*V4, SEGMENT, options=b"\1\1\1"),
    "IPv6": ipv6(*V6, SEGMENT),
    "a first fragment": ipv4(*V4, SEGMENT, fragment=0x2000),
}
WITHOUT = {
    "another port": ipv4(*V4, OTHERS),
    "another port, IPv6": ipv6(*V6, OTHERS),
    "UDP": ipv4(*V4, SEGMENT, protocol=17),
    "UDP over IPv6": ipv6(*V6, SEGMENT, following=17),
    "a later fragment": ipv4(*V4, SEGMENT, fragment=0x0010),
    "a tunnel": ipv4(*V4, ipv4(*V4, SEGMENT), protocol=4),
}


@pytest.mark.parametrize("link_type", [ETHERNET, BSD_LOOPBACK, RAW, COOKED, COOKED_V2])
@pytest.mark.parametrize(
    ("packet", "is_wanted"),
    [(packet, True) for packet in WITH_PORT.values()] + [(packet, False) for packet in WITHOUT.values()],
    ids=[*WITH_PORT, *WITHOUT],
)
def test_a_port_is_found_as_libpcap_finds_it(link_type: int, packet: bytes, is_wanted: bool) -> None:
    wanted = {(50051).to_bytes(2)}
    octets = link(link_type, packet)
    assert has_port(octets, link_type, wanted) is is_wanted
    for end in range(len(octets) - len(SEGMENT)):
        assert not has_port(octets[:end], link_type, wanted), "cut short in front of the ports"


@pytest.mark.parametrize("tags", [b"\x81\x00\x00\x07", b"\x88\xa8\x00\x07\x81\x00\x00\x08"])
def test_vlan_tags_are_looked_behind(tags: bytes) -> None:
    for packets, is_wanted in ((WITH_PORT, True), (WITHOUT, False)):
        for packet in packets.values():
            octets = link(ETHERNET, packet)
            assert has_port(octets[:12] + tags + octets[12:], ETHERNET, {(50051).to_bytes(2)}) is is_wanted


def test_what_is_no_ip_is_left_out_and_an_unknown_link_is_let_through() -> None:
    wanted = {(50051).to_bytes(2)}
    arp = b"\xff" * 12 + b"\x08\x06" + link(ETHERNET, WITH_PORT["IPv4"])[14:]
    assert not has_port(arp, ETHERNET, wanted)
    assert not has_port(b"", RAW, wanted)
    assert has_port(arp, 127, wanted)


# --- in a notebook


@may
def test_what_passes_while_other_code_runs_is_collected_and_written(line: Line, tmp_path: Path) -> None:
    with capture.live(ports=[line.port], write=tmp_path / "mine.pcapng") as sniffing:
        line.chat(3)
    seen = capture.decode(sniffing)
    [packets] = list(sniffing)
    assert [as_expected(one) for one in seen.frames] == expected_frames(packets)
    assert capture.read(tmp_path / "mine.pcapng").frames == seen.frames
    assert {call.end for call in seen.calls} == {"trailers"}
    assert not seen.synthesised
    with (tmp_path / "mine.pcapng").open("rb") as file:
        reader = read(file)
        assert [len(batch) for batch in reader] == [len(packets)]
        [interface] = reader.interfaces
    assert (interface.received, interface.dropped, interface.name) == (len(packets), 0, sniffing._sniffer.interface)


@may
def test_what_is_too_much_to_be_kept_is_counted_as_dropped(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sniff, "MAX_COLLECTED", -1)
    with capture.live(ports=[line.port]) as sniffing:
        line.chat(1)
    assert list(sniffing) == [[]]
    assert sniffing.statistics.seen == 0
    assert sniffing.statistics.dropped > 10


@may
def test_a_collection_ends_with_the_error_that_ended_it(line: Line, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), capture.live(ports=[line.port], write="/dev/full"):
        line.chat(1)
    with pytest.raises(FileNotFoundError), capture.live(ports=[line.port], write=tmp_path / "nix" / "a.pcapng"):
        pytest.fail("it did not begin")
