"""The microscope: every HTTP/2 frame of a capture, decoded.

    import capture

    seen = capture.read("demo/demo.pcapng")
    seen.frames[0].settings
    seen.table()        # the same as text
    seen.timeline()     # a matplotlib figure, which a notebook shows
    seen.compare()      # what Wireshark says of the same file

`import capture` loads nothing heavy; each function loads what it needs when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from capture.events import Call, Connection, Event, FrameEvent, MessageEvent, Packet, Problem, WindowSample
    from capture.protobuf import Schema
    from capture.sources.sniff import Sniffing
    from capture.sources.tap import Tap
    from capture.views.comparison import Opinion
    from capture.views.picture import Picture

__all__ = ["Capture", "decode", "live", "read", "tap"]


class Capture:
    """What a capture holds, as lists of the records of `capture.events`, each in the order of completion."""

    def __init__(self, events: list[Event], *, schema: Schema | None = None) -> None:
        """`events` as a pipeline yields them; `schema` is what messages are read by (the chat's)."""
        from capture.calls import Calls
        from capture.events import FrameEvent, MessageEvent, Problem
        from capture.messages import Messages
        from capture.protobuf import Schema
        from capture.windows import Windows

        self.schema = schema or Schema.default()
        self.synthesised = False
        """Whether a tap made the TCP/IP around the octets."""
        self.path: str | os.PathLike[str] | None = None
        """The file that it was read from."""
        self.ports: Collection[int] = ()
        """Those that were said to speak HTTP/2."""
        self.events = events
        """Frames, problems, gaps and ends of connections, in their order."""
        stage, calls, windows = Messages(self.schema), Calls(self.schema), Windows()
        results = stage.feed(events)
        results += stage.finish()
        self.frames: list[FrameEvent] = [event for event in events if isinstance(event, FrameEvent)]
        self.messages: list[MessageEvent] = [result for result in results if isinstance(result, MessageEvent)]
        self.calls: list[Call] = [*calls.feed(events, results), *calls.finish()]
        self.windows: list[WindowSample] = [*windows.feed(events), *windows.finish()]
        troubles = [thing for thing in [*events, *results, *windows.problems] if isinstance(thing, Problem)]
        self.problems: list[Problem] = sorted(troubles, key=lambda problem: problem.packet)
        connections = {event.connection.number: event.connection for event in events if event.connection is not None}
        self.connections: list[Connection] = [connection for _number, connection in sorted(connections.items())]

    def __repr__(self) -> str:
        return f"<Capture: {len(self.connections)} connections, {len(self.frames)} frames, {len(self.calls)} calls>"

    def table(self, columns: int = 100, names: Mapping[str, str] | None = None) -> str:
        """Every frame in words, by connection. `names` says who is behind a client's address."""
        from capture.views.table import frames_by_connection

        return "".join(frames_by_connection(self.events, columns=columns, schema=self.schema, names=names))

    def timeline(self, *, linear: bool = False, names: Mapping[str, str] | None = None) -> Picture:
        """A matplotlib figure with a lane per stream; what it shows is in its `facts` as text."""
        from capture.views import timeline

        data = timeline.lanes(self.events, schema=self.schema, names=names, linear=linear, synthesised=self.synthesised)
        return timeline.figure(data)

    def compare(
        self, other: Literal["wireshark", "scapy"] = "wireshark", *, key_log: str | os.PathLike[str] | None = None
    ) -> Opinion:
        """Every frame beside Wireshark's, or that of scapy's own HTTP/2 layer. `key_log`: for TLS, which Wireshark
        decrypts.

        Raises: ValueError where no file was read; capture.sources.tshark.TsharkError where tshark is missing or fails.
        """
        from capture.sources.opinions import compare_with
        from capture.views.comparison import Opinion

        if self.path is None:
            raise ValueError("only a capture that was read from a file can be compared")
        return Opinion(compare_with(other, self.path, self.ports, key_log))


def read(path: str | os.PathLike[str], ports: Collection[int] = (), schema: Schema | None = None) -> Capture:
    """Reads a whole capture file (`-`: standard input): pcap or pcapng, plain or gzip.

    `ports`: TCP ports that speak HTTP/2, for captures that begin in the middle. Raises capture.pcap.CaptureError where
    the file is no capture.
    """
    from capture.sources.files import STANDARD_INPUT, open_capture

    with open_capture(path) as packets:
        seen = decode(packets, ports, schema)
    seen.synthesised = packets.synthesised
    seen.path, seen.ports = None if os.fspath(path) == STANDARD_INPUT else path, ports
    seen.problems = [*packets.problems, *seen.problems]
    return seen


def decode(batches: Iterable[list[Packet]], ports: Collection[int] = (), schema: Schema | None = None) -> Capture:
    """What packets hold, wherever they come from: a file's batches, a tap's, or what was sniffed."""
    from capture.pipeline import Pipeline

    pipeline = Pipeline(ports=ports)
    events: list[Event] = []
    for batch in batches:
        events += pipeline.feed(batch)
    events += pipeline.finish()
    return Capture(events, schema=schema)


def live(
    interface: str | None = None, ports: Collection[int] = (50051,), write: str | os.PathLike[str] | None = None
) -> Sniffing:
    """A sniffer that collects while the body of a `with` runs, on loopback where no interface is named:

        with capture.live(write="mine.pcapng") as sniffing:
            …clients talk to their server…
        seen = capture.decode(sniffing)

    It needs the right to sniff; raises capture.sources.sniff.SniffError, which says how to get it.
    """
    from capture.sources.sniff import Sniffer, Sniffing

    return Sniffing(Sniffer(interface, ports), write)


def tap(server: tuple[str, int], **options: Any) -> Tap:
    """A proxy in front of a server that records what passes, to be used in a `with`:

        with capture.tap(("127.0.0.1", 50051), write="mine.pcapng") as tap:
            …clients connect to tap.port…
        seen = capture.read("mine.pcapng")

    The options are those of capture.sources.tap.Tap.
    """
    from capture.sources.tap import Tap

    return Tap(server, **options)
