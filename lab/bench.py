"""What an experiment needs, in a line: a server, a tap in front of it, and people who come through the tap.

    with Bench() as bench:
        juan, maria = bench.join("Juan"), bench.join("María")
        juan.say("Hola")
        maria.wait_until_heard("Hola")
    bench.seen.frames                       # everything that it caused on the wire, decoded

Everything listens on free ports of 127.0.0.1. Each person, and each `channel`, has a TCP connection of their own. What
passes the tap is decoded at once, so that an experiment can wait for it (`wait_until`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

import grpc

from capture import Capture
from capture.events import Event
from capture.pipeline import Pipeline
from capture.sources.tap import Tap
from client.events import Entered, Heard
from client.events import Event as SessionEvent
from client.session import Session
from kit.words import _
from proto.chat_pb2 import ChatMessage
from server.threaded import RunningServer, serve

ROOM = "general"
PATIENCE_SECONDS = 10.0
"""Everything here is on one machine; what has not happened after this time will not."""
MAX_EVENTS = 1_000_000
"""Kept of one experiment: some 500 MB. A lab's has hundreds."""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Otherwise all channels of a process to one target share a connection."""
NO_PROXY = (("grpc.enable_http_proxy", 0),)

Options = Sequence[tuple[str, Any]]
T = TypeVar("T")


class BenchError(Exception):
    """The experiment could not be carried out; one sentence for people."""


class Person:
    """Somebody in a room: a client's session, and what it has heard."""

    def __init__(self, server: str, user: str, room: str, options: Options) -> None:
        self.user = user
        self.members: tuple[str, ...] = ()
        """Who was there when this one came."""
        self._changed = threading.Condition()
        self._heard: list[Heard] = []
        self.session = Session(
            server, user, room, tell=self._tell, patience=PATIENCE_SECONDS, options=[*OWN_CONNECTION, *options]
        )

    @property
    def heard(self) -> list[ChatMessage]:
        """Since this one came, its own included, in the room's order."""
        with self._changed:
            return [event.message for event in self._heard if not event.past]

    @property
    def history(self) -> list[ChatMessage]:
        """What was said before this one came."""
        with self._changed:
            return [event.message for event in self._heard if event.past]

    def say(self, text: str) -> None:
        self.session.say(text)

    def wait_until_heard(self, *texts: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Raises BenchError where they do not come within the time."""

        def all_heard() -> bool:
            return set(texts) <= {event.message.text for event in self._heard}

        with self._changed:
            if not self._changed.wait_for(all_heard, seconds):
                missing = ", ".join(sorted(set(texts) - {event.message.text for event in self._heard}))
                raise BenchError(_("{user} did not hear in time: {texts}").format(user=self.user, texts=missing))

    def leave(self) -> None:
        """As one should: the server ends the call. Returns when that is done."""
        self.session.leave()
        self.session.join(PATIENCE_SECONDS)
        self.session.close()

    def _enter(self) -> None:
        self.session.start()
        if not self.session.wait_until_inside(PATIENCE_SECONDS):
            ended = self.session.ended
            self.session.close()
            reason = ended.reason if ended else _("no answer")
            raise BenchError(_("{user} could not join: {reason}").format(user=self.user, reason=reason))

    def _tell(self, event: SessionEvent) -> None:
        with self._changed:
            if isinstance(event, Heard):
                self._heard.append(event)
            elif isinstance(event, Entered):
                self.members = event.members
            self._changed.notify_all()


class Bench:
    """See the module. `server` are arguments for `serve` (or for another server's function in its place), `tap` those
    for the tap (`faults`, `tls`, …), `write` the capture file that the tap leaves."""

    def __init__(
        self,
        *,
        serve: Callable[..., RunningServer] = serve,
        server: Mapping[str, Any] | None = None,
        tap: Mapping[str, Any] | None = None,
        write: str | os.PathLike[str] | None = None,
    ) -> None:
        self._serve, self._server_arguments = serve, dict(server or {})
        self._tap_arguments = {"write": write, **(tap or {})}
        self._cleanup = ExitStack()
        self._pipeline = Pipeline(live=True)
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._failure: BaseException | None = None
        self._seen: Capture | None = None

    server: RunningServer
    tap: Tap

    @property
    def address(self) -> str:
        """Where clients connect: the tap's."""
        return self.tap.address

    def join(self, user: str, room: str = ROOM, *, options: Options = ()) -> Person:
        """A person who is in the room when this returns, and leaves at the end. Raises BenchError."""
        person = Person(self.address, user, room, options)
        person._enter()
        self._cleanup.callback(person.leave)
        return person

    def channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A gRPC channel with a connection of its own, for calls made by hand."""
        channel = grpc.insecure_channel(self.address, options=[*NO_PROXY, *OWN_CONNECTION, *options])
        self._cleanup.callback(channel.close)
        return channel

    @property
    def events(self) -> list[Event]:
        """What the tap has seen so far, decoded; everything, once the bench is closed."""
        with self._changed:
            return list(self._events)

    @property
    def seen(self) -> Capture:
        """The same as a capture: frames, messages, calls, windows."""
        if self._seen is None or self._thread.is_alive():
            self._seen = Capture(self.events)
            self._seen.synthesised = True
            self._seen.problems = [*self.tap.problems, *self._seen.problems]
        return self._seen

    def wait_until(self, condition: Callable[[list[Event]], T], seconds: float = PATIENCE_SECONDS) -> T:
        """Waits until `condition` holds of the events so far, and returns what it returned. Raises BenchError."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (result := condition(self._events)):
                if self._failure is not None or not self._changed.wait(deadline - time.monotonic()):
                    raise BenchError(_("What the experiment waits for did not happen in time."))
            return result

    def __enter__(self) -> Bench:
        with ExitStack() as undo:
            self.server = undo.enter_context(self._serve(**self._server_arguments))
            self.tap = undo.enter_context(Tap(server=(self.server.host, self.server.port), **self._tap_arguments))
            self._thread = threading.Thread(target=self._collect, name="bench", daemon=True)
            self._thread.start()
            self._cleanup = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """People leave, then tap and server end; all that has passed is decoded when this returns."""
        self._cleanup.close()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _collect(self) -> None:
        try:
            for packets in self.tap:
                self._add(self._pipeline.feed(packets))
            self._add(self._pipeline.finish())
        except BaseException as error:
            self._failure = error
            with self._changed:
                self._changed.notify_all()

    def _add(self, events: list[Event]) -> None:
        with self._changed:
            if len(self._events) + len(events) > MAX_EVENTS:
                raise BenchError(_("The experiment caused more frames than are kept."))
            self._events += events
            self._changed.notify_all()
