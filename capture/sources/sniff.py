"""Packets as they pass an interface of this machine.

    with Sniffer(ports={50051}) as sniffer:
        while …:
            events = pipeline.feed(sniffer.packets(timeout=0.2))

scapy opens the socket and knows the interfaces; the octets are taken from that socket as they are. No packet is
dissected here. There are two ways:

- Linux: scapy's AF_PACKET socket (packet(7)). `recvmsg` tells what scapy's own `recv` leaves out: nanoseconds as
  integers, and which packets are outgoing. On a loopback interface each packet is outgoing once and incoming once;
  only the incoming ones are taken there, as tcpdump does.
- elsewhere: libpcap, or Npcap on Windows, through scapy's bindings. Times are in microseconds.

There is no thread: what arrives while nobody asks waits in the kernel's buffer. (A thread beside a busy program would
get one packet every 5 ms: each call to the kernel gives Python's lock away.) `Sniffing` has one, for notebooks.

Packets are chosen by port in the kernel where libpcap is there to compile the filter, and again here, where that is the
only filter there is, and for those that came between the opening of the socket and the filter's.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol

from capture.events import Packet
from capture.packets import (
    BSD_LOOPBACK,
    COOKED,
    COOKED_V2,
    ETHERNET,
    IPV4,
    IPV6,
    OPENBSD_LOOPBACK,
    RAW_BSD,
    RAW_IP,
    RAW_OPENBSD,
    TCP,
    VLAN,
    VLAN_OLD,
    VLAN_SERVICE,
)
from capture.pcap import MAX_PACKET, Writer
from capture.sources.recording import PACKET_COST
from capture.sources.rights import how_to_get_it, may_sniff
from kit.bootstrap import python
from kit.text import visible
from kit.words import _

CHAT_PORT = 50051
BATCH = 256
"""Packets taken at once: some milliseconds of work, then others have their turn."""
KERNEL_BUFFER = 64 << 20
"""Octets that the kernel is asked to keep while this program does something else: some 100,000 packets of a chat, as
Linux counts. It gives less to who lacks CAP_NET_ADMIN (net.core.rmem_max)."""
MAX_COLLECTED = 256 << 20
"""Octets, Python's overhead included, that `Sniffing` collects; later packets are counted as dropped."""
TURN_SECONDS = 0.1
"""After so long `Sniffing` looks whether it is to end."""


class SniffError(Exception):
    """Why sniffing cannot begin, or go on. One sentence for people, in their language."""


class UnknownInterface(SniffError):
    """There is no such interface."""


class Statistics(NamedTuple):
    """Packets since the beginning."""

    seen: int
    """That passed the filter and were given out."""
    dropped: int
    """By the kernel, for want of room in its buffer; where the filter is not in the kernel, of all traffic."""


class Interface(NamedTuple):
    name: str
    description: str
    """Where the system has one that says more than the name."""
    addresses: list[str]
    is_up: bool
    is_loopback: bool
    network_name: str
    """What the system calls it; on Windows another than what people do."""


class Source(Protocol):
    """A socket that packets are read from."""

    link_type: int
    """LINKTYPE_ number of the capture file formats."""
    has_filter: bool
    """Whether the kernel, or libpcap, leaves out what was not asked for."""

    def ready(self, timeout: float | None) -> bool: ...

    def read(self) -> list[tuple[int, bytes, int]]:
        """(time in nanoseconds, octets, length on the wire) of what is there, BATCH packets at most."""

    def dropped(self) -> int: ...

    def close(self) -> None: ...


class Sniffer:
    """See the module. `interface` None is this system's loopback; `ports` are TCP's, of which a packet has one.

    Raises, on entering: SniffError.
    """

    def __init__(self, interface: str | None = None, ports: Collection[int] = (CHAT_PORT,)) -> None:
        if not ports:
            raise ValueError("a sniffer needs a port")
        self.interface = interface or ""
        """Its name, once it is known."""
        self.ports = sorted(set(ports))
        self.link_type = ETHERNET
        self.newest_ns = 0
        """When the last packet passed that was taken from the kernel, asked for or not."""
        self._wanted = frozenset(port.to_bytes(2) for port in self.ports)
        self._source: Source | None = None
        self._seen = 0
        self._dropped = 0
        self._has_filter = True
        self._has_more = False
        """Whether the last read may have left something, so that there is nothing to wait for."""

    def __enter__(self) -> Sniffer:
        found = _find(self.interface)
        self.interface = found.name
        expression = " or ".join(f"tcp port {port}" for port in self.ports)
        try:
            self._source = _open(found, expression)
        except SniffError:
            raise
        except Exception as error:  # scapy passes on what each system raises: OSError, Scapy_Exception, ValueError
            if isinstance(error, PermissionError) or not may_sniff():
                raise SniffError(no_right()) from None
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            words = _("{interface} cannot be sniffed: {reason}")
            raise SniffError(words.format(interface=found.name, reason=reason)) from None
        self.link_type, self._has_filter = self._source.link_type, self._source.has_filter
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The statistics stay."""
        if self._source is not None:
            self._dropped = self._source.dropped()
            self._source.close()
            self._source = None

    @property
    def has_filter(self) -> bool:
        """Whether the filter is the kernel's."""
        return self._has_filter

    @property
    def statistics(self) -> Statistics:
        return Statistics(self._seen, self._dropped if self._source is None else self._source.dropped())

    def wait(self, timeout: float | None = None) -> bool:
        """Whether there may be packets, after at most `timeout` seconds (None: for ever). Ctrl-C loses none here."""
        if self._source is None:
            return False
        return self._has_more or self._source.ready(timeout)

    def packets(self, timeout: float | None = None) -> list[Packet]:
        """What has passed since the last call, numbered from 1: BATCH packets at most.

        Waits for something at most `timeout` seconds (None: for ever). [] after that, when what passed was not asked
        for, or when the sniffer is closed. Raises SniffError when the interface is gone.
        """
        if self._source is None or not self.wait(timeout):
            return []
        found = self._source.read()
        self._has_more = len(found) == BATCH
        if found:
            self.newest_ns = found[-1][0]
        packets = []
        number, link_type, wanted = self._seen, self.link_type, self._wanted
        for time_ns, octets, length in found:
            if has_port(octets, link_type, wanted):
                number += 1
                packets.append(Packet(number, time_ns, link_type, octets, length))
        self._seen = number
        return packets


class Sniffing:
    """A sniffer that collects in a thread of its own what passes while other code runs:

    with capture.live(write="mine.pcapng") as sniffing:
        …
    seen = capture.decode(sniffing)
    """

    def __init__(self, sniffer: Sniffer, write: str | os.PathLike[str] | None = None) -> None:
        self._sniffer, self._write = sniffer, write
        self._packets: list[Packet] = []
        self._octets = self._left_out = 0
        self._ends = threading.Event()
        self._failure: BaseException | None = None
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Sniffing:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._sniffer)
            self._file = undo.enter_context(Path(self._write).open("wb")) if self._write is not None else None
            self._cleanup = undo.pop_all()
        self._thread = threading.Thread(target=self._run, name="sniffing", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def __iter__(self) -> Iterator[list[Packet]]:
        """The packets so far, in one batch."""
        yield list(self._packets)

    @property
    def statistics(self) -> Statistics:
        seen, dropped = self._sniffer.statistics
        return Statistics(seen - self._left_out, dropped + self._left_out)

    def _run(self) -> None:
        try:
            with self._cleanup:
                writer = recorder(self._file, self._sniffer) if self._file is not None else None
                while not self._ends.is_set():
                    if self._sniffer.wait(TURN_SECONDS):
                        self._take(writer)
                end_ns = time.time_ns()
                while self._sniffer.newest_ns < end_ns and self._sniffer.wait(0):
                    self._take(writer)
                if writer is not None:
                    finish_recording(writer, self._sniffer.statistics)
        except BaseException as error:
            self._failure = error

    def _take(self, writer: Writer | None) -> None:
        packets = self._sniffer.packets(0)
        if writer is not None:
            writer.write(packets)
        if self._octets > MAX_COLLECTED:
            self._left_out += len(packets)
            return
        self._packets += packets
        self._octets += sum(PACKET_COST + len(packet.data) for packet in packets)


def recorder(stream: BinaryIO, sniffer: Sniffer) -> Writer:
    """The capture file of what a sniffer, which is open, gives."""
    return Writer(stream, sniffer.link_type, name=sniffer.interface)


def finish_recording(writer: Writer, statistics: Statistics) -> None:
    """Says in the file how many packets it lacks."""
    writer.write_statistics(time.time_ns(), sum(statistics), statistics.dropped)


def no_right() -> str:
    words = _("sniffing needs a right that this user lacks ({tap} needs none). To get it: {way}")
    return words.format(tap=f"{python()} -m capture tap", way=how_to_get_it())


# --- interfaces


def interfaces() -> list[Interface]:
    """Those of this machine, loopback first."""
    found = [_described(device) for device in _devices()]
    return sorted(found, key=lambda interface: (not interface.is_loopback, interface.name))


def _scapy() -> Any:
    """scapy's configuration, with its sockets in place. It logs, on standard error, what is told here otherwise."""
    logging.getLogger("scapy").setLevel(logging.CRITICAL)
    config = importlib.import_module("scapy.config").conf
    importlib.import_module("scapy.arch")
    if sys.platform != "linux" and not config.use_pcap:
        config.use_pcap = True  # stays False where there is no libpcap
    return config


def _devices() -> list[Any]:
    """scapy's NetworkInterface objects, as things are now."""
    config = _scapy()
    config.ifaces.reload()
    return list(config.ifaces.values())


def _described(device: Any) -> Interface:
    flags = str(device.flags).split("+")
    description = "" if device.description in (device.name, device.network_name) else device.description
    is_loopback = "LOOPBACK" in flags or device.network_name == _scapy().loopback_name
    addresses = [*device.ips[4], *device.ips[6]]
    return Interface(device.name, description, addresses, "UP" in flags, is_loopback, device.network_name)


def _find(name: str) -> Interface:
    """By any name that it has; "" is loopback."""
    known = interfaces()
    for interface in known:
        names = (interface.name, interface.network_name, interface.description)
        if (name in names) if name else interface.is_loopback:
            if not interface.is_up:
                raise SniffError(_("{interface} is down").format(interface=visible(interface.name)))
            return interface
    if sys.platform == "win32" and not may_sniff():
        raise SniffError(no_right())
    words = _("there is no interface {name}; there are {names}")
    listed = visible(", ".join(interface.name for interface in known))
    raise UnknownInterface(words.format(name=repr(name or _scapy().loopback_name), names=listed))


# --- sockets


def _open(interface: Interface, expression: str) -> Source:
    return (PacketSocket if sys.platform == "linux" else PcapSocket)(interface, expression)


class PacketSocket:
    """Linux: packet(7), socket(7)."""

    def __init__(self, interface: Interface, expression: str) -> None:
        listen: Any = importlib.import_module("scapy.arch.linux").L2ListenSocket
        data: Any = importlib.import_module("scapy.data")
        self._interface = interface.name
        self._scapy = listen(iface=interface.name, nofilter=1, promisc=False)
        self._socket: socket.socket = self._scapy.ins
        self._buffer = bytearray(MAX_PACKET)
        self._dropped = 0
        self._skips_outgoing = interface.is_loopback
        self._failure: SniffError | None = None
        try:
            hardware = self._socket.getsockname()[3]
            self.link_type = _link_type(data.ARPHRD_TO_DLT.get(hardware, -1), interface.name)
            self._set_up(interface.is_loopback)
            self.has_filter = self._attach(expression)
            self._count_dropped()
            self._dropped = 0  # before the filter stood
        except BaseException:
            self._scapy.close()
            raise

    def _set_up(self, is_loopback: bool) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, KERNEL_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, int(not is_loopback))  # only VLAN tags are taken from it
        if is_loopback:
            with contextlib.suppress(OSError):  # Linux before 4.20: read() does it
                self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)

    def _attach(self, expression: str) -> bool:
        """Whether there is a libpcap to compile the filter."""
        common: Any = importlib.import_module("scapy.arch.common")
        structures: Any = importlib.import_module("scapy.libs.structures")
        scapy_exception: Any = importlib.import_module("scapy.error").Scapy_Exception
        try:
            program = common.compile_filter(expression, linktype=self.link_type)
        except (ImportError, scapy_exception):
            return False
        try:
            for at in range(program.bf_len):
                instruction = program.bf_insns[at]
                if instruction.code == _RETURN and instruction.k:  # scapy would have packets cut to 65,535 octets
                    instruction.k = MAX_PACKET
            filter_program = structures.sock_fprog(program.bf_len, program.bf_insns)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
        finally:
            common.free_filter(program)
        return True

    def ready(self, timeout: float | None) -> bool:
        return bool(self._scapy.select([self._scapy], timeout))

    def read(self) -> list[tuple[int, bytes, int]]:
        if self._failure is not None:
            raise self._failure
        found: list[tuple[int, bytes, int]] = []
        receive, view, buffers = self._socket.recvmsg_into, memoryview(self._buffer), [self._buffer]
        try:
            for _turn in range(BATCH):
                length, ancillary, _flags, address = receive(buffers, _ANCILLARY, _NOW_AND_WHOLE)
                if self._skips_outgoing and address[2] == _PACKET_OUTGOING:
                    continue
                octets, time_ns = bytes(view[:length]), 0
                for level, kind, value in ancillary:
                    if kind == _SO_TIMESTAMPNS and level == socket.SOL_SOCKET:
                        seconds, nanoseconds = _TIMESPEC.unpack(value)
                        time_ns = seconds * 1_000_000_000 + nanoseconds
                    elif kind == _PACKET_AUXDATA and level == _SOL_PACKET and len(value) == _AUXDATA.size:
                        status, tag, protocol = _AUXDATA.unpack(value)
                        if status & _VLAN_VALID:  # the kernel took it off
                            protocol = protocol if status & _VLAN_PROTOCOL_VALID else VLAN
                            octets = octets[:12] + protocol.to_bytes(2) + tag.to_bytes(2) + octets[12:]
                            length += 4
                found.append((time_ns, octets, length))
        except BlockingIOError:
            pass
        except OSError as error:
            self._failure = _gone(self._interface, str(error.strerror))
            if not found:
                raise self._failure from None
        return found

    def _count_dropped(self) -> None:
        """Asking sets the kernel's counts to 0."""
        self._dropped += struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]

    def dropped(self) -> int:
        self._count_dropped()
        return self._dropped

    def close(self) -> None:
        self._scapy.close()


_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35  # asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 6, 8, 23  # linux/if_packet.h
_PACKET_OUTGOING = 4
_NOW_AND_WHOLE = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_TRUNC", 0)
"""Do not wait; and tell a packet's length even if the buffer is shorter."""
_RETURN = 0x06
"""BPF_RET | BPF_K: an instruction that says how many octets of a packet pass."""
_ANCILLARY = 256
"""Octets for a time and a tpacket_auxdata."""
_TIMESPEC = struct.Struct("@ll")
_AUXDATA = struct.Struct("=I12xHH")
"""Of a tpacket_auxdata: status, VLAN tag, VLAN protocol."""
_VLAN_VALID, _VLAN_PROTOCOL_VALID = 0x10, 0x40


class PcapSocket:
    """libpcap, or Npcap: pcap(3PCAP)."""

    def __init__(self, interface: Interface, expression: str) -> None:
        self._interface = interface.name
        scapy_pcap: Any = importlib.import_module("scapy.arch.libpcap")
        self._library: Any = importlib.import_module("scapy.libs.winpcapy")
        self._select: Any = importlib.import_module("scapy.automaton").select_objects
        self._failure: SniffError | None = None
        self._pcap: Any = scapy_pcap.open_pcap(interface.network_name, MAX_PACKET, False, PCAP_TIMEOUT_MS)
        try:
            self.link_type = _link_type(self._pcap.datalink(), interface.name)
            self._pcap.setnonblock(True)
            if "bsd" in sys.platform or sys.platform == "darwin":  # else packets come when the kernel's buffer is full
                fcntl: Any = importlib.import_module("fcntl")
                fcntl.ioctl(self._pcap.fileno(), scapy_pcap.BIOCIMMEDIATE, struct.pack("I", 1))
            self._pcap.setfilter(expression)
        except BaseException:
            self._pcap.close()
            raise
        self.has_filter = True

    def ready(self, timeout: float | None) -> bool:
        return bool(self._select([self._pcap], timeout))

    def read(self) -> list[tuple[int, bytes, int]]:
        if self._failure is not None:
            raise self._failure
        found: list[tuple[int, bytes, int]] = []
        pcap, following = self._pcap, self._library.pcap_next_ex
        header, octets = ctypes.byref(pcap.header), ctypes.byref(pcap.pkt_data)
        for _turn in range(BATCH):
            status = following(pcap.pcap, header, octets)
            if status != _ONE_PACKET:
                pcap.remaining = False  # what scapy's select on Windows asks for
                if status < 0:
                    self._failure = _gone(
                        self._interface, self._library.pcap_geterr(pcap.pcap).decode(errors="replace")
                    )
                    if not found:
                        raise self._failure
                break
            head = pcap.header.contents
            time_ns = (head.ts.tv_sec * 1_000_000 + head.ts.tv_usec) * 1000
            found.append((time_ns, ctypes.string_at(pcap.pkt_data, head.caplen), head.len))
        return found

    def dropped(self) -> int:
        counts = self._library.pcap_stat()
        self._library.pcap_stats(self._pcap.pcap, ctypes.byref(counts))
        return int(counts.ps_drop)

    def close(self) -> None:
        self._pcap.close()


PCAP_TIMEOUT_MS = 100
"""The longest that a system which gathers packets keeps the first of them."""
_ONE_PACKET = 1


def _gone(interface: str, reason: str) -> SniffError:
    return SniffError(_("{interface} gives no more packets: {reason}").format(interface=interface, reason=reason))


def _link_type(data_link_type: int, interface: str) -> int:
    """LINKTYPE_ number for DLT_ number: where the latter differs by system, it is raw IP."""
    if data_link_type < 0:
        raise SniffError(_("{interface} has packets of a kind that is not known here").format(interface=interface))
    return RAW_IP if data_link_type in (RAW_BSD, RAW_OPENBSD) else data_link_type


# --- the filter


def has_port(octets: bytes, link_type: int, wanted: Collection[bytes]) -> bool:
    """Whether a packet is TCP from or to a port of `wanted` (2 octets each), as `tcp port …` means it: over IPv4 or
    IPv6, with or without VLAN tags, not in a tunnel, no later fragment. True for link types that are not known here."""
    at = _IP_AT.get(link_type)
    if at is None:
        return True
    if link_type == ETHERNET:
        kind = octets[12:14]
        while kind in _VLAN_TAGS:
            kind, at = octets[at + 2 : at + 4], at + 4
        if kind not in _IP:
            return False
    try:
        first = octets[at]
        if first >> 4 == 4:  # RFC 791 §3.1
            if octets[at + 9] != TCP or octets[at + 6] & 0x1F or octets[at + 7]:
                return False
            at += (first & 15) * 4
        elif first >> 4 == 6:  # RFC 8200 §3
            if octets[at + 6] != TCP:
                return False
            at += 40
        else:
            return False
    except IndexError:
        return False
    return octets[at : at + 2] in wanted or octets[at + 2 : at + 4] in wanted


_IP_AT = {ETHERNET: 14, BSD_LOOPBACK: 4, OPENBSD_LOOPBACK: 4, COOKED: 16, COOKED_V2: 20, RAW_IP: 0}
"""By link type: where the IP header begins, VLAN tags apart."""
_IP = {kind.to_bytes(2) for kind in (IPV4, IPV6)}
_VLAN_TAGS = {kind.to_bytes(2) for kind in (VLAN, VLAN_SERVICE, VLAN_OLD)}
