"""How fast is the decoder, beside Wireshark's, on the same capture in the same run?

    python benchmarks/decode.py                      a capture of 500,000 packets, three rounds
    python benchmarks/decode.py --packets 7000000    about 1 GB, for the peak memory
    python benchmarks/decode.py FILE --port P        on a capture of your own

The capture is made from real chat traffic: the kit's server, its tap, and two dozen members who join, read the history
and talk, some of them through a tap that cuts what it forwards into small pieces, so that frames span segments. That
recording is then repeated with other client addresses, interleaved in time, until there are enough packets: hundreds of
connections, each with octets that a real client and a real server exchanged.

Ours and tshark run in turn, as whole programs that write to a file; the medians of their wall-clock times and the ratio
are printed, with each program's peak memory, all its processes together. How many frames each found is compared as
well: a fast wrong answer is none.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from capture.events import Packet  # noqa: E402  # the root has to be on the path first
from capture.packets import ETHERNET  # noqa: E402
from capture.pcap import Writer  # noqa: E402

MEMBERS = 24
CALLS = 12
LINES = 40
OVERLAP_NS = 40_000_000
"""Between the starts of two repetitions: dozens of them are under way at a time."""

COLUMNS = "packet,type_code,stream_id,length,flags"
TSHARK_COLUMNS = ("frame.number", "http2.type", "http2.streamid", "http2.length", "http2.flags")
TASKS = {
    "frames, the same columns (tsv)": ("frames", "--format", "tsv", "--fields", COLUMNS),
    "frames with every field section (jsonl)": ("frames", "--format", "jsonl"),
    "messages, all protobuf (jsonl)": ("messages", "--format", "jsonl"),
}


class Run(NamedTuple):
    seconds: float
    """Wall clock."""
    megabytes: float
    """Peak resident memory, of the largest process."""


def record() -> tuple[list[Packet], int]:
    """Real chat traffic as the tap's packets, in order of time, and the server's port."""
    import grpc

    from capture.sources.faults import Faults
    from capture.sources.tap import Tap
    from proto.chat_pb2 import ChatMessage, HistoryRequest, JoinRequest
    from proto.chat_pb2_grpc import ChatServiceStub
    from server.threaded import serve

    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    packets: list[Packet] = []

    def chat(port: int, member: int) -> None:
        user, room = f"member{member:02}", f"room{member % 4}"
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = ChatServiceStub(channel)
            for _ in range(CALLS):
                stub.Join(JoinRequest(user=user, room=room))
                list(stub.History(HistoryRequest(user=user, room=room, limit=5)))

            def lines() -> Iterator[ChatMessage]:
                for i in range(LINES):
                    text = f"line {i} of {user}, who has this much to say{'!' * (i * 7 % 90)}"
                    text *= 40 if i % 20 == 19 else 1
                    yield ChatMessage(user=user, room=room, text=text, client_message_id=f"{user}-{i}")

            own = 0
            for message in stub.Chat(lines()):
                own += message.user == user
                if own == LINES:
                    break

    with serve(port=0) as server:
        for members, faults in ((MEMBERS, Faults()), (MEMBERS // 4, Faults(segment=700))):
            with Tap(server=("127.0.0.1", server.port), faults=faults) as tap, ThreadPoolExecutor(members) as pool:
                chats = [pool.submit(chat, tap.port, member) for member in range(members)]
                while not all(one.done() for one in chats):
                    packets += tap.packets(0.2)
                for one in chats:
                    one.result()
            for batch in tap:
                packets += batch
        return sorted(packets, key=lambda packet: packet.time_ns), server.port


def repeat(recording: list[Packet], port: int, count: int) -> Iterator[Packet]:
    """`count` packets: the recording again and again, each time with other client addresses (127.x.y.z), under an
    Ethernet header as a sniffer has it."""
    server, loopback, to_server = port.to_bytes(2), bytes((127, 0, 0, 1)), b"\0" * 12 + b"\x08\0"

    def once(copy: int) -> Iterator[Packet]:
        client = bytes((127, 1 + copy // 65536, copy // 256 % 256, copy % 256))
        shift = copy * OVERLAP_NS
        for _number, time_ns, _link_type, data, _length in recording:
            addresses = client + loopback if data[22:24] == server else loopback + client
            octets = to_server + data[:12] + addresses + data[20:]
            yield Packet(0, time_ns + shift, ETHERNET, octets, len(octets))

    copies = -(-count // len(recording))
    merged = heapq.merge(*(once(copy) for copy in range(copies)), key=lambda packet: packet.time_ns)
    for number, packet in zip(range(1, count + 1), merged, strict=False):
        yield packet._replace(number=number)


def make_capture(path: Path, count: int) -> int:
    """Writes the capture; the server's port."""
    recording, port = record()
    print(f"recorded {len(recording):,} packets of real chat traffic; repeating them to {count:,}", flush=True)
    with path.open("wb", buffering=1 << 20) as stream:
        writer = Writer(stream, ETHERNET, comment="chat traffic of the kit, repeated with other client addresses")
        batch: list[Packet] = []
        for packet in repeat(recording, port, count):
            batch.append(packet)
            if len(batch) == 5000:
                writer.write(batch)
                batch.clear()
        writer.write(batch)
    return port


def run(command: list[str], output: Path) -> Run:
    """Runs a program to its end; its time and peak memory, that of the processes it started included."""
    started = time.perf_counter()
    peaks: dict[int, int] = {}
    with output.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL, cwd=ROOT)
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, over))
        watcher.start()
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        over.set()
        watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    peaks[process.pid] = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1)
    return Run(seconds, sum(peaks.values()) / (1 << 20))


def _watch(pid: int, peaks: dict[int, int], over: threading.Event) -> None:
    """Notes the largest resident size of each process below `pid` (Linux: elsewhere there is no /proc, and decoding
    processes are not counted)."""
    while not over.wait(0.2):
        with contextlib.suppress(OSError):
            for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
                status = Path(f"/proc/{child}/status").read_text()
                if (found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)) is not None:
                    peaks[child] = int(found[1]) * 1024


def frames_in(output: Path) -> int:
    """Frames in tshark's or our tsv output: tshark puts all of a packet into one line, joined by commas."""
    count = 0
    with output.open() as lines:
        for line in lines:
            types = line.split("\t")[1]
            count += types.count(",") + 1 if types and types != "type_code" else 0
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--port", type=int, default=50051, help="the server's port in FILE")
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="decode-") as folder:
        path, port, output = arguments.file, arguments.port, Path(folder, "output")
        if path is None:
            path = Path(folder, "capture.pcapng")
            port = make_capture(path, arguments.packets)
        path = path.resolve()
        print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB", flush=True)
        ours = [sys.executable, "-m", "capture"]
        commands = {name: [*ours, task, str(path), "--port", str(port), *rest] for name, (task, *rest) in TASKS.items()}
        if shutil.which("tshark"):
            fields = [word for column in TSHARK_COLUMNS for word in ("-e", column)]
            decode_as = f"tcp.port=={port},http2"
            tshark = ["tshark", "-n", "-r", str(path), "-d", decode_as, "-Y", "http2", "-T", "fields", *fields]
            commands = {"tshark": tshark, **commands}
        else:
            print("tshark is not here: ours alone")
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        frames: dict[str, int] = {}
        for i in range(arguments.rounds):
            for name, command in commands.items():
                runs[name].append(run(command, output))
                if i == 0 and name in ("tshark", next(iter(TASKS))):
                    frames[name] = frames_in(output)
                print(f"  round {i + 1}  {name:<42} {runs[name][-1].seconds:8.2f} s", flush=True)
        medians = {name: statistics.median(one.seconds for one in some) for name, some in runs.items()}
        peer = medians.get("tshark")
        print(f"{'median of ' + str(arguments.rounds):<44} {'seconds':>9} {'times tshark':>13} {'peak MB':>9}")
        for name, median in medians.items():
            ratio = f"{peer / median:12.1f}x" if peer else ""
            print(f"{name:<44} {median:9.2f} {ratio:>13} {max(one.megabytes for one in runs[name]):9.0f}")
        print("frames found: " + ", ".join(f"{name} {count:,}" for name, count in frames.items()))


if __name__ == "__main__":
    main()
