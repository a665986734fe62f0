"""Records notebooks/data/first_chat.pcap: two people who chat, sniffed from the loopback interface with tcpdump.

    sudo .venv/bin/python notebooks/record.py

The recording is shipped, so that the first notebook needs no admin rights; this says how it came to be, and makes
another one. Server and clients are the kit's own, each in a process of its own; nothing stands between them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RECORDING = FOLDER / "data" / "first_chat.pcap"
PORT = 50051
TYPING_SECONDS = 0.4


class Program:
    """One of the kit's programs, whose lines of input and output are read and written here."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-u", "-m", *arguments, "--lang", "en"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
        )

    def say(self, text: str) -> None:
        time.sleep(TYPING_SECONDS)
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise SystemExit(f"a program ended without saying {text!r}")

    def leave(self) -> None:
        """Ends a client by ending its input."""
        self.process.communicate()

    def stop(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.communicate()


def chat() -> None:
    with ExitStack() as cleanup:
        server = Program("server", "--port", str(PORT))
        cleanup.callback(server.stop)
        server.wait_for("Listening")
        address = f"127.0.0.1:{PORT}"
        juan = Program("client", "Juan", "general", "--server", address)
        server.wait_for("Juan joined")
        juan.say("Hola")
        juan.wait_for("Hola")
        maria = Program("client", "María", "general", "--server", address)
        server.wait_for("María joined")
        maria.say("¡Hola, Juan!")
        for person in (juan, maria):
            person.wait_for("¡Hola, Juan!")
        juan.say("¿Qué tal?")
        maria.wait_for("¿Qué tal?")
        maria.say("Mirando tramas.")
        juan.say("¡Yo también!")
        for person in (juan, maria):
            person.wait_for("¡Yo también!")
        for person in (juan, maria):
            time.sleep(TYPING_SECONDS)
            person.leave()


def main() -> None:
    RECORDING.parent.mkdir(exist_ok=True)
    options = ["-i", "lo", "--immediate-mode", "--time-stamp-precision=nano", "-Z", "root", "-w", str(RECORDING)]
    sniffer = subprocess.Popen(["tcpdump", *options, f"tcp port {PORT}"], stderr=subprocess.PIPE, encoding="utf-8")
    assert sniffer.stderr is not None
    print(sniffer.stderr.readline().strip())
    try:
        chat()
    finally:
        sniffer.terminate()
        print(sniffer.communicate()[1].strip())


if __name__ == "__main__":
    main()
