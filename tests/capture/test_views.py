"""The views: what a frame says in words, the tables, and the timeline's data and drawing."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hpack import Encoder
from PIL import Image

from capture.events import (
    Connection,
    Direction,
    Event,
    FieldSection,
    FrameEvent,
    FrameType,
    Gap,
    Problem,
    Unknown,
    WindowSample,
)
from capture.export import COLUMNS
from capture.protobuf import Schema
from capture.views import hpack, quantities, style, table, timeline
from capture.views.describe import Describer, section_in_words
from capture.views.picture import Picture, drawable
from kit.text import width
from kit.words import choose_language
from tests.capture.engine_factory import (
    DOWN,
    REQUEST,
    RESPONSE,
    UP,
    Address,
    Tape,
    continuation,
    crowd,
    data,
    events_of,
    frame,
    frames_of,
    goaway,
    headers,
    message,
    ping,
    rst_stream,
    settings,
    window_update,
)

MS = 1_000_000
JUAN, MARIA = Address("127.0.0.1", 52110), Address("127.0.0.1", 52112)
SERVER = Address("127.0.0.1", 50051)


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language("en")


def field(number: int, text: str) -> bytes:
    """A protobuf field of text."""
    octets = text.encode()
    return bytes([number << 3 | 2, len(octets)]) + octets


def chat_tape() -> Tape:
    """Juan and María: each joins, then both talk, with silences of 400 and 1,500 ms between."""
    tape = Tape()
    talks = []
    for who, address in (("Juan", JUAN), ("María", MARIA)):
        up, down = Encoder(), Encoder()
        talk = tape.talk(address, SERVER).open()
        join = [(n, "/minichat.v1.ChatService/Join" if n == ":path" else v) for n, v in REQUEST]
        talk.send(UP, headers(1, up.encode(join)) + data(1, message(field(1, who) + field(2, "general")), flags=1))
        talk.send(DOWN, headers(1, down.encode(RESPONSE)) + data(1, message(field(1, "token"))))
        talk.send(DOWN, headers(1, down.encode([("grpc-status", "0")]), flags=5))
        talk.send(UP, headers(3, up.encode(REQUEST))).send(DOWN, headers(3, down.encode(RESPONSE)))
        talks.append((talk, who))
        tape.time_ns += 400 * MS
    for talk, who in talks:
        said = message(field(1, who) + field(2, "general") + field(3, "¡Hola!"))
        for other, _who in talks:
            if other is talk:
                talk.send(UP, data(3, said))
            other.send(DOWN, data(3, said)).send(UP, window_update(0, len(said)))
        tape.time_ns += 1500 * MS
    for talk, _who in talks:
        talk.send(UP, data(3, b"", flags=1)).fin(UP).fin(DOWN)
    return tape


CHAT = events_of(chat_tape().packets)


def said_of(octets: bytes, direction: int = UP) -> str:
    """The words for the last frame of a connection that began well, in which one side then sends `octets`."""
    talk = Tape().talk().open().send(direction, octets)
    return said_of_events(events_of(talk.tape.packets))


def said_of_events(events: list[Event]) -> str:
    *_others, last = [
        item for item in Describer(Schema.default(), live=True).feed(events) if isinstance(item.event, FrameEvent)
    ]
    return " · ".join(last.parts)


# --- quantities


@pytest.mark.parametrize(
    ("n", "english", "spanish"),
    [
        (0, "0", "0"),
        (1234, "1,234", "1234"),
        (4_194_304, "4,194,304", "4\u00a0194\u00a0304"),
        (-12_345, "-12,345", "-12\u00a0345"),
    ],
)
def test_numbers_are_grouped_as_the_language_does(n: int, english: str, spanish: str) -> None:
    assert quantities.number(n) == english
    choose_language("es")
    assert quantities.number(n) == spanish


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (310_000, "0.31 ms"),
        (2_500_000, "2.5 ms"),
        (411_600_000, "412 ms"),
        (999_400_000, "999 ms"),
        (999_600_000, "1.0 s"),
        (59_940_000_000, "59.9 s"),
        (59_960_000_000, "1 min 0 s"),
        (125_000_000_000, "2 min 5 s"),
        (3_840_000_000_000, "1 h 4 min"),
    ],
)
def test_durations_have_the_digits_that_count(ns: int, said: str) -> None:
    assert quantities.duration(ns) == said


def test_milliseconds_follow_the_language() -> None:
    assert quantities.milliseconds(1_234_567_000_000) == "1,234,567.00"
    choose_language("es")
    assert quantities.milliseconds(1_234_567_000_000) == "1\u00a0234\u00a0567,00"
    assert quantities.milliseconds(1_234_560_000) == "1234,56"


def test_octets_are_powers_of_two_only_where_nothing_is_lost() -> None:
    assert [quantities.octets(n) for n in (4 << 20, 16_384, 65_535, 0)] == [
        "4 MiB",
        "16 KiB",
        "65,535 octets",
        "0 octets",
    ]


# --- words


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (settings((2, 0), (4, 4 << 20), (0x99, 7)),
         "ENABLE_PUSH 0 · INITIAL_WINDOW_SIZE 4 MiB · 0x0099 (unregistered) 7"),
        (settings(), "nothing but the initial values"),
        (settings((0xFE03, 1)), "0xfe03 (gRPC: true-binary metadata allowed) 1"),
        (frame(4, 1), "acknowledges the other side's settings"),
        (window_update(0, 1000), "+ 1,000 → 66,535 · connection window"),
        (rst_stream(1, 8), "CANCEL (8): no longer wanted"),
        (rst_stream(1, 0x99), "unregistered error 0x99"),
        (goaway(0x7FFFFFFF), "NO_ERROR (0): no error: all is well · last stream 2^31−1: none is refused yet"),
        (
            goaway(5, 11, b"too_many_pings"),
            'ENHANCE_YOUR_CALM (11): the other side is asking too much · last stream 5 · "too_many_pings"',
        ),
        (ping(bytes.fromhex("02041010090e0707")),
         "BDP estimate: how much fits on the way (grpc-go) · opaque data 02 04 10 10 09 0e 07 07"),
        (ping(b"12345678", flags=1), "answers a ping that was not seen · opaque data 31 32 33 34 35 36 37 38"),
        (frame(2, 0, 3, b"\x80\0\0\x01\x0f"), "depends on stream 1 alone · weight 16"),
        (frame(0x10, 0, 0, b"\0\0\0\x03u=1"), "stream 3: u=1"),
        (frame(0xC, 0, 0, b"\0\x09https://a\0\x09https://b"), "https://a · https://b"),
        (frame(0xA, 0, 0, b'\0\x01ah2=":443"'), 'h2=":443" · for a'),
        (frame(0xBE, 0, 0, bytes(range(20))), "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f …"),
        (headers(1, b"\x82", flags=0), "the field block goes on in CONTINUATION"),
        (headers(1, b"\x82", flags=0) + continuation(1, b"\x84"), "GET /"),
        (headers(1, b"\x82\xff\xff\xff\x01"), "GET ? · ? ?"),
        (headers(1, b"\0\0\0\x07\x1f\x82\x84", flags=0x24), "GET / · depends on stream 7 · weight 32"),
    ],
)  # fmt: skip
def test_each_frame_says_what_it_says(octets: bytes, said: str) -> None:
    assert said_of(octets) == said


def test_a_ping_s_answer_says_how_long_it_took() -> None:
    talk = Tape().talk().open().send(UP, ping())
    talk.tape.time_ns += 2 * MS
    talk.send(DOWN, ping(flags=1))
    assert said_of_events(events_of(talk.tape.packets)).startswith("answers the ping of 2.0 ms ago · ")


def test_a_request_leads_with_its_method_and_a_response_with_its_status() -> None:
    assert " · ".join(section_in_words(REQUEST, False)) == (
        "POST /minichat.v1.ChatService/Chat · content-type application/grpc · te trailers · "
        "user-agent grpc-python/1.85.1 · :authority 10.0.0.2:50051 · :scheme http"
    )
    assert " · ".join(section_in_words(RESPONSE, False)) == "200 application/grpc · server minichat"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("grpc-status", "0"), ("grpc-message", "")], "trailers: grpc-status 0 (OK)"),
        ([("grpc-status", "8"), ("grpc-message", "sala%20llena%0A")],
         'trailers: grpc-status 8 (RESOURCE_EXHAUSTED) · "sala llena·"'),
        ([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")],
         "200 application/grpc · trailers-only: grpc-status 5 (NOT_FOUND)"),
        ([("grpc-status", "99")], "trailers: grpc-status 99"),
        ([("x", "y")], "trailers · x y"),
    ],
)  # fmt: skip
def test_trailers_name_their_status(fields: list[tuple[Any, Any]], said: str) -> None:
    assert " · ".join(section_in_words(fields, True)) == said


def test_what_is_unknown_or_no_text_is_said_to_be_so() -> None:
    fields = [
        (":method", "POST"),
        (":path", Unknown("?-2")),
        (Unknown("?-1"), "x"),
        ("k", b"\xff\x00"),
        ("e", "\x1b[31m"),
    ]
    assert list(section_in_words(fields, False)) == ["POST ?-2", "?-1 x", "k ff 00", "e ·[31m"]


def test_messages_are_decoded_and_cut_ones_say_how_far_they_are() -> None:
    up = Encoder()
    octets = message(field(1, "Juan") + field(2, "general") + field(3, "a\x1b[2Jb"))
    begin = headers(1, up.encode(REQUEST)) + data(1, octets[:12])
    assert said_of(begin) == "part of a message: 7 of 23 octets so far"
    assert said_of(begin + data(1, octets[12:])) == (
        'message 23 octets · ChatMessage {user: "Juan", room: "general", text: "a·[2Jb"}'
    )
    two = message(field(1, "Ana")) + message(b"")
    assert said_of(headers(1, Encoder().encode(REQUEST)) + data(1, two)) == (
        '2 messages · message 5 octets · ChatMessage {user: "Ana"} · message 0 octets · ChatMessage {}'
    )
    assert said_of(begin + data(1, b"", flags=1)) == "no data; this direction ends"


def test_a_long_message_is_not_spelt_out_to_its_end() -> None:
    text = said_of(headers(1, Encoder().encode(REQUEST)) + data(1, message(b"\x1a\x80\x7d" + b"x" * 16000)))
    assert text.endswith("…")
    assert len(text) < 3000


def test_data_that_is_no_grpc_is_quoted() -> None:
    page = headers(1, Encoder().encode([(":status", "200"), ("content-type", "text/html")]))
    request = headers(1, Encoder().encode([(":method", "GET"), (":path", "/")]), flags=5)
    talk = Tape().talk().open().send(UP, request).send(DOWN, page + data(1, b"<p>\x07hi"))
    assert said_of_events(events_of(talk.tape.packets)) == '"<p>·hi"'


def test_a_frame_with_missing_octets_says_so() -> None:
    here = Connection(0, "a:1", "b:2")
    lost = FrameEvent(1, 1, here, Direction(UP), 0, 0, 0, 1, 500, b"\0\x01\xf4\0\0\0\0\0\1", None, None)
    assert said_of_events([lost]) == "part of its 500 octets is missing from the capture"


# --- tables


def test_the_table_reads_like_the_wire() -> None:
    text = "".join(table.frames_by_connection(CHAT, columns=100, schema=Schema.default()))
    lines = text.splitlines()
    assert lines[0] == "Connection 0 · Juan 127.0.0.1:52110 ⇄ 127.0.0.1:50051 · 17 frames, 2 streams"
    assert lines[1].split() == ["ms", "dir", "stream", "frame", "octets", "what", "it", "says"]
    assert re.match(r" +0\.00   → +0  SETTINGS +0  nothing but the initial values$", lines[2])
    assert any(re.match(r" +0\.\d\d   → +1  HEADERS +\d+  POST /minichat.v1.ChatService/Join$", x) for x in lines)
    at = next(i for i, x in enumerate(lines) if "DATA end" in x)
    assert lines[at].endswith(" 20  message 15 octets")
    assert lines[at + 1] == " " * 24 + 'JoinRequest {user: "Juan", room: "general"}'
    assert any("HEADERS end" in x and "trailers: grpc-status 0 (OK)" in x for x in lines)
    assert sum("· · ·  1.5 s of silence  · · ·" in x for x in lines) == 4
    assert any("client: sends no more (TCP FIN)" in x for x in lines)
    assert "Connection 1 · María 127.0.0.1:52112" in text


@pytest.mark.parametrize("columns", [80, 100, 132])
@pytest.mark.parametrize("language", ["en", "es"])
def test_no_line_is_wider_than_the_terminal(columns: int, language: str) -> None:
    choose_language(language)
    text = "".join(table.frames_by_connection(CHAT, columns=columns, schema=Schema.default()))
    text += table.FrameTable(columns=columns, schema=Schema.default()).feed(CHAT)
    assert max(width(line) for line in text.splitlines()) <= columns
    assert ("…" in text) is (columns < 132)
    for said in ('JoinRequest {user: "Juan", room: "general"}', "POST /minichat.v1.ChatService/Chat"):
        assert said in text


@pytest.mark.parametrize("columns", [80, 100, 110, 132])
@pytest.mark.parametrize("language", ["en", "es"])
def test_no_line_about_field_blocks_is_wider_than_the_terminal(columns: int, language: str) -> None:
    choose_language(language)
    blocks = [*hpack.Blocks(0).feed(events_of(crowd(1).packets, trace=True))]
    lines = "".join(hpack.render(block, style.Paint(False), columns) for block in blocks).splitlines()
    assert len(blocks) > 3
    assert max(map(width, lines)) <= columns
    assert any(":method: POST" in line and line.endswith("  83") for line in lines)


def test_a_pipe_gets_whole_lines() -> None:
    assert "user-agent grpc-python/1.85.1" in table.FrameTable(schema=Schema.default()).feed(CHAT)


def test_what_matters_gets_a_second_line_where_it_does_not_fit_and_no_third() -> None:
    wide = table.FrameTable(schema=Schema.default()).feed(CHAT).splitlines()
    narrow = table.FrameTable(columns=80, schema=Schema.default()).feed(CHAT).splitlines()
    begins = [line for line in narrow if not line.startswith(" " * 26) or "silence" in line]
    assert len(begins) == len(wide)
    assert not any("PING" in one and two.startswith(" " * 26) for one, two in itertools.pairwise(narrow))


def test_fed_event_by_event_the_table_is_the_same() -> None:
    whole = table.FrameTable(columns=100, schema=Schema.default()).feed(CHAT)
    rows = table.FrameTable(columns=100, schema=Schema.default())
    assert "".join(rows.feed([event]) for event in CHAT) == whole
    assert whole.count("Connection 0 ·") == whole.count("Connection 1 ·") == 1


def test_a_selection_hides_rows_but_not_what_they_change() -> None:
    def wanted(event: Event) -> bool:
        return isinstance(event, FrameEvent) and event.type_code == FrameType.WINDOW_UPDATE

    text = table.FrameTable(columns=100, schema=Schema.default(), only=wanted).feed(CHAT)
    rows = [line for line in text.splitlines() if "WINDOW_UPDATE" in line]
    assert len(rows) == 4
    assert "SETTINGS" not in text
    assert "+ 29 → 65,523 · connection window" in rows[0]


def test_problems_and_gaps_stand_where_they_happened() -> None:
    here = Connection(0, "a:1", "b:2")
    problem = Problem(1, 5, here, Direction(UP), 9, "http2", "bad {what}", {"what": "\x1b[31mred"})
    gap = Gap(2, 6, here, Direction(DOWN), 100, 1448, True)
    text = table.FrameTable(columns=80).feed([problem, gap])
    assert "! http2: bad ·[31mred" in text
    assert "! whole frames may be missing here" in text


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\r\n", "\u202e", "\x9b31m", "\x07", "\u2028"])
def test_nothing_from_the_wire_moves_the_terminal(hostile: str) -> None:
    """Wherever a text may come from: paths, field values, messages, debug data, reasons, origins."""
    up, down = Encoder(), Encoder()
    request = [(n, f"/a.B/{hostile}" if n == ":path" else v) for n, v in REQUEST] + [("x", hostile)]
    trailers = [("grpc-status", hostile), ("grpc-message", f"%1B[2J{hostile}")]
    talk = Tape().talk().open()
    talk.send(UP, headers(1, up.encode(request)) + data(1, message(field(1, hostile))))
    talk.send(DOWN, headers(1, down.encode(RESPONSE)) + headers(1, down.encode(trailers), flags=5))
    talk.send(DOWN, goaway(1, 0, hostile.encode()) + frame(0xC, 0, 0, b"\0\x09" + hostile.encode().ljust(9, b"x")))
    talk.send(DOWN, frame(0x10, 0, 0, b"\0\0\0\1" + hostile.encode()) + frame(0xA, 0, 0, b"\0\0" + hostile.encode()))
    events = events_of(talk.tape.packets)
    for columns in (80, None):
        shown = table.FrameTable(columns=columns).feed(events)
        shown += "".join(table.frames_by_connection(events, columns=columns))
        shown += timeline.facts(timeline.lanes(events))
        assert not {c for c in shown if not c.isprintable() and c not in "\n\u00a0"}


def test_colours_only_where_they_are_wanted() -> None:
    plain = table.FrameTable(columns=100).feed(CHAT)
    assert "\x1b" not in plain
    exact = table.FrameTable(columns=100, paint=style.Paint(True, true_colour=True)).feed(CHAT)
    near = table.FrameTable(columns=100, paint=style.Paint(True, true_colour=False)).feed(CHAT)
    assert "\x1b[38;2;0;114;178mDATA" in exact
    assert "\x1b[38;5;32mDATA" in near
    for painted in (exact, near):
        assert re.sub(r"\x1b\[[\d;]*m", "", painted) == plain


def test_paint_asks_the_stream_and_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style.Paint.of(Terminal()).colour
    assert not style.Paint.of(io.StringIO()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style.Paint.of(Terminal()).colour


def test_the_other_records_have_tables_too() -> None:
    from capture.calls import Calls
    from capture.messages import Messages
    from capture.windows import Windows

    messages, calls = Messages(Schema.default()), Calls()
    results = messages.feed(CHAT)
    made: dict[str, list[Any]] = {
        "messages": results,
        "calls": [*calls.feed(CHAT, results), *calls.finish()],
        "windows": Windows().feed(CHAT),
        "problems": [Problem(3, 5, None, None, None, "capture", "cut short", {})],
    }
    text = {kind: table.RecordTable(kind, columns=80).feed(records) for kind, records in made.items()}
    assert 'Join            15 JoinRequest {user: "Juan", room' in text["messages"]
    assert re.search(r" 1 Join .* 1 / 20 +1 / 12 trailers · 0 \(OK\)$", text["calls"], re.M)
    assert re.search(r"→ +connection +65,\d{3} \d", text["windows"])
    assert re.search(r" 3 .*capture  cut short", text["problems"])
    for kind, shown in text.items():
        assert max(width(line) for line in shown.splitlines()) <= 80, kind
        assert len([line for line in shown.splitlines() if line[:9].strip()]) == len(made[kind]) + 1
    assert text["messages"].count('text: "¡Hola!"') == 6, "a narrow terminal costs lines, and no text"
    assert table.RecordTable("calls").feed([]) == ""


def test_every_kind_of_record_that_can_be_exported_has_a_table() -> None:
    for kind in set(COLUMNS) - {"frames"}:
        table.RecordTable(kind)


# --- the timeline's data


def test_there_is_a_lane_for_each_stream_and_a_mark_for_each_frame() -> None:
    shown = timeline.lanes(CHAT, schema=Schema.default())
    frames = frames_of(CHAT)
    assert [(lane.connection and lane.connection.number, lane.stream_id, lane.label) for lane in shown.lanes] == [
        (0, 0, "stream 0 · the connection"), (0, 1, "stream 1 · Join · Juan"), (0, 3, "stream 3 · Chat · Juan"),
        (1, 0, "stream 0 · the connection"), (1, 1, "stream 1 · Join · María"), (1, 3, "stream 3 · Chat · María"),
    ]  # fmt: skip
    assert shown.headings[0] == "connection 0 · Juan 127.0.0.1:52110 ⇄ 127.0.0.1:50051"
    drawn = sorted((mark for lane in shown.lanes for mark in lane.marks), key=lambda mark: mark.x)
    assert [(mark.time_ns, mark.type_code, mark.direction, mark.ends_stream) for mark in drawn] == [
        (frame.time_ns, frame.type_code, frame.direction, frame.end_stream) for frame in frames
    ]
    assert len({mark.x for mark in drawn}) == len(frames), "each frame has a place of its own, in the order of all"
    assert shown.frames == len(frames)
    assert (shown.bin_frames, shown.bin_ns) == (0, 0)


def test_every_long_silence_is_folded_and_keeps_its_true_length() -> None:
    shown = timeline.lanes(CHAT)
    times = [frame.time_ns for frame in frames_of(CHAT)]
    silences = [
        (after - before, after - times[0]) for before, after in itertools.pairwise(times) if after - before > MS
    ]
    assert [fold.ns for fold in shown.folds] == [length for length, _end in silences]
    for fold in shown.folds:
        assert not any(fold.start <= mark.x <= fold.end for lane in shown.lanes for mark in lane.marks)
    assert [ns for _x, ns in shown.ticks] == [0, *(end for _length, end in silences)]
    assert timeline.notes(shown)[0] == f"{len(silences)} silences are folded: 400 ms – 1.5 s"


def test_only_the_longest_silences_are_folded_where_there_are_many() -> None:
    tape = Tape()
    talk = tape.talk().open()
    for n in range(200):
        for _burst in range(9):
            talk.send(UP, ping())
        tape.time_ns += (2 + n) * MS
    shown = timeline.lanes(events_of(tape.packets))
    assert len(shown.folds) == timeline.MAX_FOLDS
    assert min(fold.ns for fold in shown.folds) > (200 - timeline.MAX_FOLDS) * MS


def test_steady_traffic_is_not_folded() -> None:
    tape = Tape()
    talk = tape.talk().open()
    for _n in range(50):
        tape.time_ns += 20 * MS
        talk.send(UP, ping())
    assert timeline.lanes(events_of(tape.packets)).folds == []


def test_linear_time_is_milliseconds_and_folds_nothing() -> None:
    shown = timeline.lanes(CHAT, linear=True)
    first = frames_of(CHAT)[0].time_ns
    assert shown.folds == []
    for lane in shown.lanes:
        for mark in lane.marks:
            assert mark.x == pytest.approx((mark.time_ns - first) / MS)


@pytest.mark.parametrize("linear", [False, True])
def test_many_frames_are_binned_and_none_is_lost(linear: bool) -> None:
    tape = Tape()
    talk = tape.talk().open()
    for _n in range(3):
        talk.send(UP, ping() * 2000 + window_update(0, 1) * 500)
        tape.time_ns += 100 * MS
    shown = timeline.lanes(events_of(tape.packets), linear=linear)
    marks = [mark for lane in shown.lanes for mark in lane.marks]
    assert shown.frames == 7504
    assert sum(mark.frames for mark in marks) == 7504
    assert len(marks) <= 2 * timeline.BINS
    assert bool(shown.bin_ns) is linear
    assert bool(shown.bin_frames) is not linear
    assert "7,504 frames are binned" in "\n".join(timeline.notes(shown))
    assert "PING 6,000" in timeline.facts(shown)


def test_streams_beyond_the_room_share_a_lane_that_says_so() -> None:
    talk = Tape().talk().open()
    for stream in range(1, 2 * timeline.MAX_LANES, 2):
        talk.send(UP, headers(stream, b"\x82\x84", flags=5))
    shown = timeline.lanes(events_of(talk.tape.packets))
    assert len(shown.lanes) == timeline.MAX_LANES + 1
    assert shown.lanes[-1].label == "1 more stream"
    assert sum(len(lane.marks) for lane in shown.lanes) == shown.frames


def test_what_was_not_observed_is_marked_from_the_last_frame_before_to_the_first_after() -> None:
    talk = Tape().talk().open().send(UP, ping() + ping())
    talk.send(DOWN, ping(flags=1))
    before = len(frames_of(events_of(talk.tape.packets)))
    talk.skip(UP, 170).send(UP, ping() * 3).ack(DOWN)
    for _n in range(1200):
        talk.send(DOWN, ping(flags=1))
    events = events_of(talk.tape.packets)
    assert any(isinstance(event, Gap) and event.frames_lost for event in events)
    shown = timeline.lanes(events)
    ((way, start, end),) = shown.lanes[0].unobserved
    assert way == Direction.CLIENT_TO_SERVER
    ups = [mark.x for mark in shown.lanes[0].marks if mark.direction == way]
    assert start == ups[3]
    assert end == ups[4]
    assert before < shown.frames
    assert "1 span was not observed" in timeline.notes(shown)


def test_a_connection_that_begins_in_the_middle_is_unobserved_before() -> None:
    tape = chat_tape()
    events = events_of(tape.packets[25:], ports=[50051])
    shown = timeline.lanes(events)
    spans = {span for lane in shown.lanes for span in lane.unobserved}
    assert spans
    assert all(start == shown.extent[0] for _way, start, _end in spans)


def test_who_closed_a_connection_stands_behind_its_last_frame() -> None:
    shown = timeline.lanes(events_of(crowd(1, calls=2).packets))
    last = max(mark.x for lane in shown.lanes for mark in lane.marks)
    ends = [[(end.direction, end.word) for end in lane.ends] for lane in shown.lanes]
    assert ends == [[(UP, "FIN"), (DOWN, "FIN")], [], []]
    assert all(last < end.x < shown.extent[1] for end in shown.lanes[0].ends)
    assert timeline.facts(shown).splitlines()[0].endswith("   → FIN   ← FIN")


def test_colours_say_the_stream_and_cycle_beyond_eight() -> None:
    talk = Tape().talk().open()
    for stream in range(1, 21, 2):
        talk.send(UP, headers(stream, b"\x82\x84", flags=5))
    colours = [lane.colour for lane in timeline.lanes(events_of(talk.tape.packets)).lanes]
    assert colours[0] == style.GREY
    assert colours[1:9] == list(style.STREAM_COLOURS)
    assert colours[9:] == list(style.STREAM_COLOURS[:2])


def test_names_that_are_given_go_before_those_that_are_learnt() -> None:
    shown = timeline.lanes(CHAT, schema=Schema.default(), names={"127.0.0.1:52110": "Juan P."})
    assert shown.headings[0].startswith("connection 0 · Juan P. 127.0.0.1:52110")
    assert shown.headings[1].startswith("connection 1 · María 127.0.0.1:52112")


def test_facts_say_as_text_what_the_picture_shows() -> None:
    shown = timeline.lanes(CHAT, schema=Schema.default(), synthesised=True)
    facts = timeline.facts(shown)
    assert "stream 3 · Chat · Juan" in facts
    assert re.search(r"stream 1 · Join · Juan +→ DATA 1, HEADERS 1   ← DATA 1, HEADERS 2", facts)
    assert "the TCP/IP around them is synthesised" in facts.replace("\n", " ")
    assert max(map(width, facts.splitlines())) <= 80


def test_each_frame_type_has_a_look_of_its_own() -> None:
    looks = [(look.colour, look.marker, look.filled) for look in style.LOOKS.values()]
    assert set(style.LOOKS) == set(FrameType)
    assert len(set(looks)) == len(looks)
    shapes = [(look.marker, look.filled) for code, look in style.LOOKS.items() if code <= FrameType.CONTINUATION]
    pairs = {shape for shape in shapes if shapes.count(shape) > 1}
    assert pairs == {("X", True)}, "only the two ways to end share a shape, and they differ from light to black"
    assert style.look(0xBE) == style.OTHER


# --- drawing


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("linear", [False, True])
def test_the_picture_is_drawn_without_overlap(language: str, linear: bool) -> None:
    """No label runs into another, nothing hangs over the edge: measured on what is drawn."""
    choose_language(language)
    events = events_of(crowd(4, 2).packets)
    picture = timeline.figure(timeline.lanes(events, linear=linear, synthesised=True))
    assert_tidy(picture)
    picture = timeline.figure(timeline.lanes(CHAT, schema=Schema.default(), linear=linear))
    assert_tidy(picture)


def assert_tidy(picture: Picture) -> None:
    picture.canvas.draw()
    axes = picture.axes[0]
    edge = picture.bbox
    boxes = []
    left, right = axes.get_xlim()
    ticks = [label for label in axes.get_xticklabels() if left <= label.get_position()[0] <= right]
    for text in [*axes.texts, *picture.texts, *ticks, axes.xaxis.label, *picture.legends[0].get_texts()]:
        if text.get_text().strip() and text.get_visible():
            box = text.get_window_extent()
            assert edge.x0 <= box.x0, text.get_text()
            assert box.x1 <= edge.x1, text.get_text()
            assert edge.y0 <= box.y0, text.get_text()
            assert box.y1 <= edge.y1, text.get_text()
            boxes.append((text.get_text(), box))
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} overlaps {other!r}"


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_data_makes_the_same_file(kind: str, tmp_path: Path) -> None:
    shown = timeline.lanes(CHAT, schema=Schema.default())
    for name in ("a", "b"):
        timeline.save(shown, tmp_path / f"{name}.{kind}")
    octets = (tmp_path / f"a.{kind}").read_bytes()
    assert octets == (tmp_path / f"b.{kind}").read_bytes()
    assert octets.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])


def test_a_png_is_between_1200_and_1600_pixels_wide(tmp_path: Path) -> None:
    timeline.save(timeline.lanes(CHAT), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert 1200 <= image.width <= 1600


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gif"):
        timeline.save(timeline.lanes(CHAT), tmp_path / "a.gif")


def test_text_without_glyphs_or_with_dollars_is_drawn_as_it_is(tmp_path: Path) -> None:
    """Warnings are errors here: matplotlib warns of a missing glyph, and reads $…$ as mathematics."""
    here = Connection(0, "a:1", "b:2")
    section = FieldSection(((":path", r"/a.B/$\frac$名🫨"),), b"", True)
    request = FrameEvent(1, 1, here, Direction(UP), 0, 1, 4, 1, 1, b"\0\0\1\1\4\0\0\0\1", b"x", section)
    shown = timeline.lanes([request], names={"a:1": "名 $x_1$"})
    assert shown.lanes[0].label == r"stream 1 · $\frac$名🫨 · 名 $x_1$"
    timeline.save(shown, tmp_path / "a.png")
    assert drawable("名a\U0001fae8") == "□a□"


def test_an_empty_timeline_can_be_drawn(tmp_path: Path) -> None:
    for linear in (False, True):
        shown = timeline.lanes([], linear=linear)
        assert shown.frames == 0
        timeline.save(shown, tmp_path / "a.png")


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    picture = timeline.figure(timeline.lanes(CHAT))
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert "stream 3" in picture.facts


def test_a_users_matplotlibrc_changes_nothing() -> None:
    shown = timeline.lanes(CHAT)
    plain = timeline.figure(shown)._repr_png_()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        assert timeline.figure(shown)._repr_png_() == plain


def test_records_of_windows_keep_their_sign() -> None:
    sample = WindowSample(5, Connection(1, "a:1", "b:2"), Direction(DOWN), 7, -1200, 40)
    assert re.search(r"1  ← +stream 7 +-1,200 40$", table.RecordTable("windows", columns=80).feed([sample]).strip())
