"""`python3 -m lab demo`: two people chat through a tap; every frame that this causes is told, drawn and kept."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

from capture import Capture
from capture.events import FRAME_HEADER_LENGTH, Direction, FrameEvent, MessageEvent
from capture.sources.tap import TapError
from capture.views import timeline
from capture.views.quantities import number
from capture.views.style import Paint
from capture.views.table import MAX_WIDTH, RecordTable, frames_by_connection
from kit.bootstrap import ENVIRONMENT_LACKS_SOMETHING, as_typed, shown_interpreter
from kit.output import Output
from kit.text import pad, width
from kit.words import _, ngettext
from lab.bench import ROOM, Bench, BenchError, Person
from server.listening import CannotListen

JUAN, MARIA = "Juan", "María"
FIRST = "Hola"
"""What the account at the end is about."""
FAREWELLS = {JUAN: "Adiós", MARIA: "¡Hasta luego!"}
TYPING_SECONDS = 0.35
"""Between two messages: long enough to be seen as a silence in the picture."""
PREFIX_LENGTH = 5
"""The compressed flag and the length before a gRPC message (gRPC protocol page, Length-Prefixed-Message)."""
SERVER_PORT, TAP_PORT = 50051, 50052
"""What people are told to try next."""
DEMO_FAILED = 1


def run(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Demo(folder).run()
    except OSError as error:
        sentence = _("{folder} cannot be written: {reason}.").format(folder=folder, reason=error.strerror)
        status = ENVIRONMENT_LACKS_SOMETHING
    except (CannotListen, TapError) as error:
        sentence, status = str(error), ENVIRONMENT_LACKS_SOMETHING
    except BenchError as error:
        sentence, status = str(error), DEMO_FAILED
    else:
        return 0
    print(sentence, file=sys.stderr)
    return status


class Demo:
    """`say` is where lines go; where nobody reads them any longer (`| head`), the rest is done all the same."""

    def __init__(self, folder: Path) -> None:
        self.picture, self.file = folder / "timeline.png", folder / "demo.pcapng"
        self.say = Output(sys.stdout)
        self.paint = Paint.of(sys.stdout)
        self.columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def run(self) -> None:
        with Bench(write=self.file) as bench:
            addresses = _("server {server} · tap {tap} · no admin rights needed")
            addresses = addresses.format(server=bench.server.address, tap=bench.address)
            title = _("gRPC wire lab · demo")
            is_roomy = self.columns is None or width(f"{title}   {addresses}") <= self.columns
            self.say(self.paint.bold(title) + ("   " if is_roomy else "\n") + self.paint.dim(addresses))
            self._chat(bench)
        self._tell(bench.seen)
        picture = timeline.lanes(bench.seen.events, schema=bench.seen.schema, synthesised=True)
        timeline.save(picture, self.picture)
        self._tell_what_next()

    # the conversation

    def _chat(self, bench: Bench) -> None:
        """In the order in which a beginner meets things: join, history, one way, the other way, both at once."""
        juan = self._join(bench, JUAN)
        self._speak(juan, FIRST, [juan])
        maria = self._join(bench, MARIA)
        both = [juan, maria]
        self._speak(maria, "¡Hola, Juan!", both)
        self._speak(juan, "¿Ves cada trama?", both)
        time.sleep(TYPING_SECONDS)
        for person in both:
            person.say(FAREWELLS[person.user])  # neither waits for the other: full duplex
        for person in both:
            person.wait_until_heard(*FAREWELLS.values())
        for message in juan.heard[-len(FAREWELLS) :]:
            self._line(message.user, message.text)

    def _join(self, bench: Bench, user: str) -> Person:
        person = bench.join(user)
        count = len(person.history)
        if count:
            text = ngettext(
                "joined; the history has {count} message", "joined; the history has {count} messages", count
            )
        else:
            text = _("joined; the history is empty")
        self._line(user, self.paint.dim(text.format(count=count)))
        return person

    def _speak(self, person: Person, text: str, listeners: list[Person]) -> None:
        time.sleep(TYPING_SECONDS)
        person.say(text)
        for listener in listeners:
            listener.wait_until_heard(text)
        self._line(person.user, text)

    def _line(self, user: str, text: str) -> None:
        self.say(f"  {pad(user, max(width(JUAN), width(MARIA)))} ▸ #{ROOM}  {text}")

    # what it caused

    def _tell(self, seen: Capture) -> None:
        self.say("")
        for part in frames_by_connection(seen.events, columns=self.columns, paint=self.paint, schema=seen.schema):
            self.say(part.removesuffix("\n"))
        self.say("\n" + self.paint.bold(_("Each call is a stream")))
        calls = sorted(seen.calls, key=lambda call: call.start_ns)
        self.say(RecordTable("calls", columns=self.columns, paint=self.paint).feed(calls))
        for sentence in (frame_counts(seen), account(seen)):
            self.say("\n".join(textwrap.wrap(sentence, self.columns or MAX_WIDTH)))

    def _tell_what_next(self) -> None:
        python, file = shown_interpreter(), as_typed(self.file)
        heads = (_("timeline"), _("capture"), _("next"), _("or"))
        look, other = _("open it: a lane per stream"), _("the same frames, for other programs")
        texts = (
            f"{self.picture}  ({look})",
            f"{self.file}  ({other})",
            _("a guided lab about what you have just seen"),
            _("a server of your own; in other terminals, clients and a tap"),
        )
        commands = (
            (),
            (f"{python} -m capture frames {file}", f"{python} -m capture wireshark {file}"),
            (f"{python} -m lab run 01",),
            (
                f"{python} -m server",
                f"{python} -m client {JUAN} {ROOM}",
                f"{python} -m capture tap --listen {TAP_PORT} --server 127.0.0.1:{SERVER_PORT}",
            ),
        )
        self.say("")
        for head, text, typed in zip(heads, texts, commands, strict=True):
            self.say(f"  {self.paint.bold(pad(head, max(map(width, heads))))}  {text}")
            for command in typed:
                self.say(f"      {command}")


def frame_counts(seen: Capture) -> str:
    """How many frames of each type, most frequent first: what another program must count as well."""
    counts = Counter(frame.type or f"0x{frame.type_code:02x}" for frame in seen.frames)
    kinds = ", ".join(f"{number(count)} {name}" for name, count in counts.most_common())
    text = ngettext("{count} frame: {kinds}", "{count} frames: {kinds}", len(seen.frames))
    return text.format(count=number(len(seen.frames)), kinds=kinds)


def account(seen: Capture) -> str:
    """What the first message cost on the wire, as this run's octets say."""
    message = next(message for message in seen.messages if _is_first(message))
    frame = next(frame for frame in seen.frames if _carries(frame, message))
    assert frame.length == PREFIX_LENGTH + message.length, "grpcio sends a chat message in a frame of its own"
    words = _(
        '"{text}" is {octets} octets of text. It left {user} as {protobuf} octets of protobuf, behind {prefix} of gRPC '
        "prefix and {header} of HTTP/2 frame header: {total} in all, before TCP and IP (sniff it to see those)."
    )
    return words.format(
        text=FIRST,
        octets=number(len(FIRST.encode())),
        user=JUAN,
        protobuf=number(message.length),
        prefix=PREFIX_LENGTH,
        header=FRAME_HEADER_LENGTH,
        total=number(FRAME_HEADER_LENGTH + frame.length),
    )


def _is_first(message: MessageEvent) -> bool:
    content = message.message
    sent = message.direction == Direction.CLIENT_TO_SERVER
    return sent and isinstance(content, dict) and content.get("text") == FIRST


def _carries(frame: FrameEvent, message: MessageEvent) -> bool:
    ours = (message.connection, message.direction, message.stream_id, message.packet)
    return (frame.connection, frame.direction, frame.stream_id, frame.packet) == ours and bool(frame.data_length)
