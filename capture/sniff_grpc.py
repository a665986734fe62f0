"""A sniffer for gRPC in plain scapy, to read from top to bottom: what SETTINGS, HEADERS, DATA and WINDOW_UPDATE say.

    sudo python3 capture/sniff_grpc.py [PORT]       then start a client: it follows connections that it sees begin

It needs admin rights; `python -m capture tap` shows the same without them. Each side of a connection sends octets in
TCP segments, and the octets are frames, one behind the other, each with nine octets in front that say how long it is.
What this leaves to the rest of the capture module (`python -m capture live`): segments that are lost or come in another
order, connections that began before, padding, protobuf, the other frames.
"""
# ruff: noqa: E402 - packages are imported once it is sure that they are there

import struct
import sys
import time
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

if not __package__:  # started by its path: kit is in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, python, reexecute

reexecute()
from hpack import Decoder, HPACKError
from scapy.all import TCP, Packet, Scapy_Exception, conf, sniff  # type: ignore[attr-defined]  # it has TCP once it runs

from capture.events import SETTING_NAMES
from kit.options import Parser, port_number
from kit.output import Output
from kit.text import visible
from kit.words import _, language_from, use_utf8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # a client sends it before its first frame (RFC 9113 §3.4)
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8  # frame types (RFC 9113 §6)
NAMES = {DATA: "DATA", HEADERS: "HEADERS", SETTINGS: "SETTINGS", WINDOW_UPDATE: "WINDOW_UPDATE"}
END_STREAM = 0x1  # the flag on a side's last DATA or HEADERS of a stream
SYN, FIN, RST = 0x02, 0x01, 0x04  # TCP's flags for a connection's beginning and end
SENDERS = 1000  # sides of connections followed at once, a bound for the memory; two people who chat make four


class Sender:
    """One side of a connection: what is known about the octets that it sends."""

    def __init__(self, next_number: int) -> None:
        self.next_number = next_number  # TCP numbers the octets (RFC 9293 §3.4): the next one's
        self.octets = b""  # came, and are no whole frame yet
        self.decoder = Decoder()  # of fields; remembers those that it has seen (RFC 7541 §2.3.2)


senders: dict[tuple[str, int, str, int], Sender] = {}


def frames(packet: Packet) -> Iterator[str]:
    """The frames that a packet completes, a line each."""
    tcp, ip = packet[TCP], packet[TCP].underlayer
    way = (ip.src, tcp.sport, ip.dst, tcp.dport)
    if tcp.flags & SYN and len(senders) < SENDERS:
        senders[way] = Sender(tcp.seq + 1)
        return
    sender = senders.get(way)
    if sender is None or tcp.seq != sender.next_number % 2**32:
        return  # it began before this program, or came already: Linux shows each packet of the loopback twice
    octets = bytes(tcp.payload)
    sender.next_number += len(octets)
    sender.octets = (sender.octets + octets).removeprefix(PREFACE)
    while len(sender.octets) >= 9:
        length = int.from_bytes(sender.octets[0:3], "big")  # the frame header (RFC 9113 §4.1)
        type_code, flags = sender.octets[3], sender.octets[4]
        stream = int.from_bytes(sender.octets[5:9], "big") & 0x7FFFFFFF
        if len(sender.octets) < 9 + length:
            break  # the rest is in segments that are still to come
        payload, sender.octets = sender.octets[9 : 9 + length], sender.octets[9 + length :]
        if type_code in NAMES:
            clock = time.strftime("%H:%M:%S", time.localtime(float(packet.time)))
            name = NAMES[type_code] + (" end" if type_code in (DATA, HEADERS) and flags & END_STREAM else "")
            what = meaning(type_code, payload, sender.decoder)
            yield (f"{clock} {tcp.sport:5} → {tcp.dport:5} stream {stream:<3} {name:13} {length:5}  {what}").rstrip()
    if tcp.flags & (FIN | RST):
        del senders[way]


def meaning(type_code: int, payload: bytes, decoder: Decoder) -> str:
    """What a frame says, in words."""
    if type_code == WINDOW_UPDATE:
        return _("{count} octets more may be sent").format(count=int.from_bytes(payload, "big"))
    if type_code == SETTINGS:
        pairs = struct.iter_unpack(">HI", payload)  # two octets say which, four its value (RFC 9113 §6.5.1)
        settings = [f"{SETTING_NAMES.get(number, number)} {value}" for number, value in pairs]
        return " · ".join(settings) or _("acknowledged")
    if type_code == HEADERS:
        try:
            return " · ".join(visible(" ".join(map(str, field))) for field in decoder.decode(payload))
        except HPACKError:
            return _("fields that cannot be read from here on")
    if len(payload) < 5:
        return ""
    text = visible(payload[5:].decode(errors="replace"))  # behind gRPC's five octets: a flag, and the message's length
    return _("message of {count} octets: {text}").format(count=int.from_bytes(payload[1:5], "big"), text=text)


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = Parser(prog="sniff_grpc.py", description=_("Prints gRPC frames as they pass the loopback interface."))
    parser.add_argument("port", nargs="?", type=port_number, default=50051, metavar=_("PORT"))
    port, say = parser.parse_args(arguments).port, Output(sys.stdout)

    def begun() -> None:
        text = _("Listening on {interface}, port {port}; start a client now. Ctrl-C ends it")
        say(text.format(interface=conf.loopback_name, port=port))

    def arrived(packet: Packet) -> None:
        if TCP in packet and port in (packet[TCP].sport, packet[TCP].dport):
            for line in frames(packet):
                say(line)

    # With libpcap the kernel picks the packets; else all of the loopback's come here, and of very many some get lost.
    wanted = f"tcp port {port}" if find_library("pcap") else None
    try:
        sniff(iface=conf.loopback_name, filter=wanted, prn=arrived, store=False, started_callback=begun)
    except (OSError, RuntimeError, Scapy_Exception) as error:
        text = _("Sniffing needs admin rights ({reason}): sudo {python} {file}. {python} -m capture tap needs none.")
        print(text.format(reason=error, python=python(), file=sys.argv[0]), file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
