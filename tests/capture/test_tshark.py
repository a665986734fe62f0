"""Wireshark's frames as our own events, from real tshark and real pyshark; each beside our own reading of the file."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from capture.compare import Reading, compared
from capture.events import (
    Connection,
    ConnectionEnd,
    Event,
    FieldSection,
    FrameEvent,
    Gap,
    MessageEvent,
    Packet,
    Problem,
)
from capture.messages import Messages
from capture.pipeline import Pipeline
from capture.sources import tshark
from capture.sources.ends import context_towards_clients
from capture.sources.files import open_capture
from capture.sources.opinions import circumstances
from capture.sources.tap import Tap
from kit.certificates import lab_certificate
from tests.capture.engine_factory import (
    DOWN,
    GET,
    OK,
    SERVER,
    UP,
    Address,
    Tape,
    crowd,
    frames_of,
    gaps_of,
    headers,
    renumbered,
    write_pcap,
)
from tests.capture.zoo import zoo

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
PATIENCE = 10.0


def ours(path: Path, *ports: int) -> tuple[list[Event], Reading]:
    pipeline, reading = Pipeline(ports=ports), Reading()
    with open_capture(path) as packets:
        events = [event for batch in packets for event in pipeline.feed(batch)] + pipeline.finish()
    reading.feed(events)
    return events, reading


def theirs(path: Path, *ports: int, key_log: Path | None = None, problems: list[Problem] | None = None) -> list[Event]:
    reading = circumstances(path, ports)
    return [event for batch in tshark.events(path, reading, ports, key_log, problems) for event in batch]


def plain(events: list[Event]) -> list[Event]:
    """Frames and ends, without what only our own reader can know of a field section: whether it is certain."""
    found: list[Event] = []
    for event in events:
        if type(event) is FrameEvent and event.section is not None:
            event = event._replace(section=FieldSection(event.section.fields, event.section.block, True))
        if type(event) in (FrameEvent, ConnectionEnd):
            found.append(event)
    return found


def messages_of(events: list[Event]) -> list[tuple[int, str | None, bytes]]:
    return [(one.packet, one.path, one.data) for one in Messages().feed(events) if type(one) is MessageEvent]


def moved(packets: list[Packet]) -> list[Packet]:
    """Each ninth packet overtakes the one before."""
    swapped = list(packets)
    for i in range(40, len(swapped) - 2, 9):
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
    return renumbered(swapped)


def torn() -> list[Packet]:
    return renumbered([one for i, one in enumerate(crowd(4, calls=6, seed=3).packets) if i % 23 != 20])


def over_ipv6() -> list[Packet]:
    talk = Tape().talk(Address("::1", 40000), Address("::1", 50051)).open()
    return talk.send(UP, headers(1, GET)).send(DOWN, headers(1, OK, 5)).rst(DOWN).tape.packets


# -- the same events ---------------------------------------------------------------------------------------------------


@needs_tshark
@pytest.mark.vectors("third_party/**/*.pcap", "third_party/**/*.pcapng")
def test_captures_of_others_have_the_same_events(vector: Path) -> None:
    events, _reading = ours(vector)
    assert plain(theirs(vector)) == plain(events)


@needs_tshark
@pytest.mark.parametrize(
    "packets",
    [lambda: zoo().packets, lambda: crowd(3, calls=2).packets, lambda: moved(crowd(4, calls=3).packets), over_ipv6],
    ids=["every kind of frame", "frames over packets", "segments that overtook each other", "IPv6 and a reset"],
)
def test_our_own_captures_have_the_same_events(packets: Callable[[], list[Packet]], tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "own.pcap", packets())
    events, _reading = ours(path)
    assert len(plain(events)) > 5
    assert plain(theirs(path)) == plain(events)


@needs_tshark
def test_messages_come_of_them(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "crowd.pcap", crowd(2, calls=3).packets)
    events, _reading = ours(path)
    assert len(messages_of(events)) > 6
    assert messages_of(theirs(path)) == messages_of(events)


@needs_tshark
def test_behind_missing_segments_no_message_is_made_up(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "torn.pcap", torn())
    events, _reading = ours(path, 50051)
    mine, other = (set(messages_of(each)) for each in (events, theirs(path, 50051)))
    assert len(other) > 10
    assert {data for _packet, _path, data in other} <= {data for _packet, _path, data in mine}


@needs_tshark
def test_behind_missing_segments_there_is_a_gap_and_no_frame_that_we_do_not_have(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "torn.pcap", torn())
    found = theirs(path, 50051)
    events, _reading = ours(path, 50051)
    known = {(one.connection.number, one.direction, one.offset, one.header) for one in frames_of(events)}
    seen = {(one.connection.number, one.direction, one.offset, one.header) for one in frames_of(found)}
    assert seen <= known
    assert len(seen) > len(known) * 0.8
    assert {type(event) for event in found} >= {Gap}
    assert {(gap.connection.number, gap.direction) for gap in gaps_of(found)} <= {
        (gap.connection.number, gap.direction) for gap in gaps_of(events)
    }


@needs_tshark
def test_a_late_start_says_unknown_where_wireshark_does(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "late.pcap", renumbered(crowd(4, calls=6, seed=3).packets[60:]))
    events, _reading = ours(path, 50051)
    mine, other = (frames_of(each) for each in (events, theirs(path, 50051)))
    assert [one[:11] for one in other] == [one[:11] for one in mine]
    assert any("unknown" in str(one.fields).lower() for one in other)


@needs_tshark
def test_packets_cut_short_have_frames_without_payload_and_no_huge_buffers(tmp_path: Path) -> None:
    packets = [one._replace(data=one.data[:90]) for one in crowd(2, calls=3).packets]
    path = write_pcap(tmp_path / "snapped.pcap", packets)
    found = frames_of(theirs(path))
    assert found
    assert sum(len(one.payload) for one in found if one.payload) < 90 * len(packets)


# -- what Wireshark says itself ----------------------------------------------------------------------------------------


@needs_tshark
def test_pyshark_and_tshark_s_own_output_say_the_same(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "zoo.pcap", zoo().packets)
    _events, reading = ours(path)
    slow, fast = (read(path, reading) for read in (tshark.dissect_with_pyshark, tshark.dissect))
    described = [list(tshark.descriptions(each, reading)) for each in (slow, fast)]
    assert described[0] == described[1]
    comparison = compared(reading, described[0], tshark.name(True), tshark.traits)
    assert comparison.counts == {"equal": len(frames_of(_events))}
    assert "pyshark" in comparison.other


@needs_tshark
def test_every_column_is_wireshark_s_own_word(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "zoo.pcap", zoo().packets)
    _events, reading = ours(path)
    said: dict[str, list[Any]] = {}
    for frame in tshark.descriptions(tshark.dissect(path, reading), reading):
        for column, value in frame.content.items():
            said.setdefault(column, []).append(value)
    assert said["settings"][-1] == [(1, 0), (99, 7), (9, 1), (8, 1), (2, 0)]
    assert said["increment"] == [77]
    assert said["error_code"] == [8, 11]
    assert (said["last_stream_id"], said["debug_data"]) == ([1], [b"bye\0now"])
    assert said["promised_stream_id"] == [2, 4]
    assert said["opaque_data"] == [b"pingpong", b"\0\1\2\3\4\5\6\7"]
    assert said["data_length"] == [8, 16, 3005, 0]
    assert said["fields"][-1][-4:] == (
        ("x-bin", b"\xff\xfe\x01"), ("x-text", "tab\tend\x01"), ("x-empty", ""), ("x-es", "ñ"),
    )  # fmt: skip
    assert zlib.crc32(b"unknown!") in said["payload"]


@needs_tshark
def test_pyshark_works_inside_a_running_event_loop_again_and_again(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "short.pcap", Tape().talk().open().tape.packets)
    _events, reading = ours(path)

    async def inside() -> list[int]:
        counts = [len(tshark.dissect_with_pyshark(path, reading)) for _ in range(2)]
        await asyncio.sleep(0)  # the loop goes on
        return counts

    assert asyncio.run(inside()) == [4, 4]
    assert len(tshark.dissect_with_pyshark(path, reading)) == 4


def test_pdml_is_read_octet_by_octet_as_whole() -> None:
    pdml = (
        b'<?xml version="1.0"?>\n<pdml>\n<packet>\n  <proto name="geninfo">\n'
        b'    <field name="num" show="7" value="7"/>\n'
        b'    <field name="timestamp" show="x" value="1574.000000009"/>\n  </proto>\n'
        b'  <proto name="http2">\n    <field name="http2.stream" size="9" pos="3" show="" value="">\n'
        b'      <field name="http2.type" size="1" pos="6" show="4 \x01\xff&gt;" value="04"/>\n'
        b'      <field name="http2.header.repr" size="1" pos="6" show="not asked for" value="04"/>\n'
        b'      <field name="http2.streamid" size="4" pos="8" show="1" value="1" unmaskedvalue="80000001"/>\n'
        b"    </field>\n  </proto>\n</packet>\n</pdml>\n"
    )
    parser = tshark._Pdml()
    found = [one for at in range(len(pdml)) for one in parser.feed(pdml[at : at + 1])]
    assert found == tshark._Pdml().feed(pdml)
    (packet,) = found
    assert (packet.number, packet.time_ns) == (7, 1_574_000_000_009)
    ((protocol, layer),) = packet.layers
    assert protocol == "http2"
    assert sorted(layer) == ["http2.stream", "http2.streamid", "http2.type"]
    assert layer["http2.type"][0].show == "4 �>"
    assert layer["http2.streamid"][0].octets == b"\x80\0\0\1"


# -- what Wireshark is told --------------------------------------------------------------------------------------------


def reading_with(direct: dict[int, bool], ports: dict[int, int], encrypted: tuple[int, ...] = ()) -> Reading:
    reading = Reading()
    reading.direct = direct
    for number, port in ports.items():
        reading.connections[number] = Connection(number, "127.0.0.1:40000", f"127.0.0.1:{port}")
    reading.encrypted = {number: Problem(1, 1, None, None, None, "tls", "", {}) for number in encrypted}
    return reading


def test_ports_are_decoded_as_what_was_found_on_them() -> None:
    reading = reading_with({0: True, 1: False}, {0: 50051, 1: 8080, 2: 8443}, (2,))
    assert tshark.decode_as(reading, ()) == {
        "tcp.port==50051": "http2", "tcp.port==8080": "http", "tcp.port==8443": "tls",
    }  # fmt: skip


def test_a_named_port_is_http2_where_nothing_was_found_and_inside_tls_where_that_was() -> None:
    assert tshark.decode_as(reading_with({}, {}), [7000]) == {"tcp.port==7000": "http2"}
    told = tshark.decode_as(reading_with({}, {0: 8443}, (0,)), [8443])
    assert told == {"tcp.port==8443": "tls", "tls.port==8443": "http2"}


def test_segments_are_put_in_order_only_where_none_is_missing() -> None:
    reading = Reading()
    assert tshark.preferences(reading, None)["tcp.reassemble_out_of_order"] == "TRUE"
    reading.gaps[0] = 3
    assert tshark.preferences(reading, None)["tcp.reassemble_out_of_order"] == "FALSE"
    assert tshark.preferences(reading, "keys.log")["tls.keylog_file"] == "keys.log"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@needs_tshark
def test_a_file_that_is_cut_short_gives_what_is_there_and_tshark_s_complaint(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "cut.pcap", zoo().packets)
    path.write_bytes(path.read_bytes()[:-20])
    problems: list[Problem] = []
    found = theirs(path, problems=problems)
    events, reading = ours(path)
    assert [one for one in plain(found) if type(one) is FrameEvent] == frames_of(plain(events))
    assert "cut short" in problems[0].reason
    assert len(tshark.dissect_with_pyshark(path, reading)) > 10


@needs_tshark
def test_what_tshark_cannot_read_is_said_in_its_words(tmp_path: Path) -> None:
    path = tmp_path / "no.pcap"
    path.write_bytes(b"no capture at all")
    for read in (tshark.dissect, tshark.dissect_with_pyshark):
        with pytest.raises(tshark.TsharkError, match="isn't a capture file"):
            list(read(path, Reading()))


def test_without_tshark_it_is_said_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = tmp_path / "apt-get"
    manager.write_text("#!/bin/sh\n")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tshark.TsharkError, match=r"is not installed: .*apt-get install tshark"):
        tshark.program()
    manager.unlink()
    with pytest.raises(tshark.TsharkError, match="is not installed here"):
        tshark.program()


@needs_tshark
def test_no_tshark_is_left_behind_when_nobody_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pcap(tmp_path / "crowd.pcap", crowd(3, calls=4).packets)
    reading = circumstances(path)
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    packets = tshark.dissect(path, reading)
    next(packets)
    packets.close()  # type: ignore[attr-defined] # a generator, and declared as what its callers need
    [process] = started
    assert process.returncode is not None


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """gRPC calls through two taps: (as TLS, with keys inside; the same without; the key log), and `clear.pcapng` beside
    them with the plaintext."""
    folder = tmp_path_factory.mktemp("tls")
    lab, keys = lab_certificate(folder, ["localhost", "127.0.0.1"]), folder / "keys.log"

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests)

    server = grpc.server(futures.ThreadPoolExecutor(4), [Echo()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sent = [random.Random(i).randbytes(10**i) for i in range(5)]
    credentials = grpc.ssl_channel_credentials(lab.authority.read_bytes())
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    with (
        Tap(("127.0.0.1", port), write=folder / "clear.pcapng") as clear,
        Tap(
            ("127.0.0.1", clear.port),
            write=folder / "tls.pcapng",
            tls=context_towards_clients(lab.server, lab.server),
            record="wire",
            key_log=keys,
        ) as tap,
        grpc.secure_channel(f"localhost:{tap.port}", credentials, options) as channel,
    ):
        for _ in range(2):
            call: Any = channel.stream_stream("/lab.Echo/Echo")
            assert list(call(iter(sent), timeout=PATIENCE)) == sent
    server.stop(None).wait()
    bare = folder / "bare.pcapng"
    subprocess.run(["editcap", "--discard-all-secrets", str(folder / "tls.pcapng"), str(bare)], check=True)
    return folder / "tls.pcapng", bare, keys


def said(events: list[Event]) -> dict[int, list[tuple[Any, ...]]]:
    """By direction, without packets, times and addresses, in which two recordings differ."""
    return {
        direction: [(*one[4:], one.data_length) for one in frames_of(plain(events)) if one.direction == direction]
        for direction in (0, 1)
    }


@needs_tshark
def test_tls_with_keys_in_the_file_has_the_events_of_the_plaintext(encrypted: tuple[Path, Path, Path]) -> None:
    path, _bare, _keys = encrypted
    clear, _reading = ours(path.with_name("clear.pcapng"))
    found = theirs(path)
    assert said(found) == said(clear)
    assert len(said(found)[0]) > 10
    assert not [event for event in found if type(event) is Problem]
    lengths = [len(data) for _packet, _path, data in messages_of(found)]
    assert sorted(lengths) == sorted(4 * [10**i for i in range(5)])


@needs_tshark
def test_tls_with_a_key_log_beside_it_is_decrypted_as_well(encrypted: tuple[Path, Path, Path]) -> None:
    path, bare, keys = encrypted
    assert plain(theirs(bare, key_log=keys)) == plain(theirs(path))


@needs_tshark
def test_tls_without_its_keys_is_a_problem_for_each_connection(encrypted: tuple[Path, Path, Path]) -> None:
    _path, bare, _keys = encrypted
    (problem,) = theirs(bare)
    assert type(problem) is Problem
    assert problem.layer == "tls"
    assert "no key" in problem.reason


def test_a_connection_that_we_know_nothing_of_has_its_server_at_the_lower_port() -> None:
    segment = tshark._Segment(9, f"{SERVER.ip}:{SERVER.port}", "10.0.0.1:60000", 0, 54, None, False)
    connection, direction = tshark.Frames(Reading())._role(segment)
    assert connection == Connection(9, "10.0.0.1:60000", f"{SERVER.ip}:{SERVER.port}")
    assert direction == DOWN
