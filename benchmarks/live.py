"""Does `capture live` keep up with a chat, and does it lose packets where tcpdump loses none?

    python benchmarks/live.py                          1,000 to 16,000 exchanges a second
    python benchmarks/live.py --seconds 5 --rates 2000 4000

Needs the right to sniff, and tcpdump. A process of its own plays exchanges as a chat's connections have them: the
client sends a segment with a message (DATA), the server answers with one that has two WINDOW_UPDATE frames and the
message for everybody (DATA). Both sniff the same packets at the same time: `live --format jsonl --write`, which decodes
every frame into a line and writes the file, and `tcpdump -w`, which writes the file. For each rate is printed what was
sent, how many packets each of them has and how many the kernel dropped for it, and the lag: how long after the sending
process had ended live printed the last frame. Kept up with is a rate whose lag stays small however long it goes on;
elsewhere buffers only put off the loss.
"""

from __future__ import annotations

import argparse
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

RATES = (1_000, 2_000, 4_000, 8_000, 16_000)
CONNECTIONS = 10
FRAMES_OF_AN_EXCHANGE = 4
PATIENCE_SECONDS = 60.0
TCPDUMP_GATHERS_SECONDS = 1.5
"""tcpdump has its packets brought in blocks, at the latest after a second; ended before, it forgets them."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def message(*fields: tuple[int, str]) -> bytes:
    content = b"".join(bytes((number << 3 | 2, len(text.encode()))) + text.encode() for number, text in fields)
    return b"\0" + len(content).to_bytes(4) + content


SETTINGS = frame(4, 0, 0, b"")
REQUEST = frame(1, 4, 1, b"\x83\x86" + b"\x44\x1f/minichat.v1.ChatService/Chat__")
UP = frame(0, 0, 1, message((1, "Juan"), (2, "general"), (3, "Hola a todos"), (6, "DydO4JtU-1")))
UPDATE = frame(8, 0, 1, bytes((0, 0, 0, 50))) + frame(8, 0, 0, bytes((0, 0, 0, 50)))
DOWN = UPDATE + frame(0, 0, 1, message((1, "María"), (2, "general"), (3, "¡Hola, Juan!"), (6, "pAFhfaEm-1")))


def play(listener: socket.socket, rate: int, seconds: float) -> int:
    """Exchanges, as near to `rate` in a second as this machine gets; how many there were."""
    pairs = []
    for _connection in range(CONNECTIONS):
        client = socket.create_connection(listener.getsockname())
        server, _address = listener.accept()
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(PREFACE + SETTINGS + REQUEST)
        server.recv(1 << 16)
        server.sendall(SETTINGS)
        client.recv(1 << 16)
        pairs.append((client, server))
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        if done >= passed * rate:
            time.sleep(0.0005)
            continue
        client, server = pairs[done % CONNECTIONS]
        client.sendall(UP)
        server.recv(1 << 16)
        server.sendall(DOWN)
        client.recv(1 << 16)
        done += 1
    for pair in pairs:
        for end in pair:
            end.close()
    return done


class Outcome(NamedTuple):
    rate: float
    """Exchanges a second, as they were."""
    frames: int
    live: tuple[int, int, int]
    """Frames printed, packets, dropped."""
    tcpdump: tuple[int, int]
    """Packets, dropped."""
    lag: float
    """Seconds from the sending process's end to the last frame printed."""


class _Lines:
    """Counts the lines that come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self.count = 0
        self.last = 0.0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while octets := self._stream.read1(1 << 20):  # type: ignore[attr-defined]  # a pipe's is a BufferedReader
            with self._changed:
                self.count += octets.count(b"\n")
                self.last = time.perf_counter()
                self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Until there are so many, or no more have come for two seconds."""
        with self._changed:
            seen = -1
            while self.count < count and self.count != seen:
                seen = self.count
                self._changed.wait_for(lambda: self.count >= count, 2)


def measure(rate: int, seconds: float, folder: Path) -> Outcome:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dump = subprocess.Popen(
            ["tcpdump", "-i", "lo", "-w", str(folder / "tcpdump.pcap"), f"tcp port {port}"], stderr=subprocess.PIPE
        )
        arguments = ["--port", str(port), "--format", "jsonl", "--write", str(folder / "live.pcapng")]
        live = subprocess.Popen(
            [sys.executable, "-m", "capture", "live", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            for process, word in ((dump, b"listening on"), (live, b"Listening on")):
                expect(process, word)
            lines = _Lines(live)
            player = subprocess.run(
                [sys.executable, __file__, "--play", str(listener.fileno()), str(rate), str(seconds)],
                pass_fds=[listener.fileno()], capture_output=True, text=True, check=True,
            )  # fmt: skip
            end, done = time.perf_counter(), int(player.stdout)
            expected = done * FRAMES_OF_AN_EXCHANGE + CONNECTIONS * 3
            lines.wait(expected)
            time.sleep(TCPDUMP_GATHERS_SECONDS)
            told = []
            for process in (live, dump):
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE_SECONDS)
                assert process.stderr is not None
                told.append(process.stderr.read().decode())
        finally:
            for process in (live, dump):
                process.kill()
                process.wait()
    seen, dropped = re.findall(r"lo: (\d+) packets?.*: (\d+)$", told[0], re.M)[0]
    captured, lost = (int(re.findall(rf"(\d+) packets? {words}", told[1])[0]) for words in ("captured", "dropped"))
    return Outcome(
        done / seconds, expected, (lines.count, int(seen), int(dropped)), (captured, lost), max(lines.last - end, 0.0)
    )


def expect(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Until the process says so."""
    assert process.stderr is not None
    while True:
        if not select.select([process.stderr], [], [], PATIENCE_SECONDS)[0]:
            raise SystemExit(f"{process.args!r}: nothing said")
        line = process.stderr.readline()
        if word in line:
            return
        if not line:
            raise SystemExit(f"{process.args!r} ended; is there the right to sniff?")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a chat capture live follows, beside tcpdump.")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--play", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        descriptor, rate, seconds = options.play
        with socket.socket(fileno=int(descriptor)) as listener:
            print(play(listener, int(rate), float(seconds)))
        return
    if shutil.which("tcpdump") is None:
        raise SystemExit("tcpdump is not installed")
    print("exchanges/s  frames sent   shown   lag s │ live: packets  dropped │ tcpdump: packets  dropped")
    for rate in options.rates:
        with tempfile.TemporaryDirectory() as folder:
            one = measure(rate, options.seconds, Path(folder))
        shown, packets, dropped = one.live
        print(
            f"{one.rate:11,.0f} {one.frames:12,} {shown:7,} {one.lag:7.2f} │ {packets:13,} {dropped:8,} │ "
            f"{one.tcpdump[0]:16,} {one.tcpdump[1]:8,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
