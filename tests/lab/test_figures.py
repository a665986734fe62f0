from __future__ import annotations

from capture.views.style import Paint
from lab.figures import Part, Screen, columns, dump, taken_apart

SCREEN = Screen(78, Paint(False))


def test_columns_stand_under_their_headings() -> None:
    assert columns([["ajuste", "→", "←"], ["A", "4 194 304", "–"], ["ÑANDÚ_LARGO", "0", "65 535"]], SCREEN) == (
        "ajuste               →       ←\nA            4 194 304       –\nÑANDÚ_LARGO          0  65 535"
    )


def test_a_dump_says_where_what_and_how_it_reads() -> None:
    assert dump(b"PRI * HTTP/2.0\r\n\r\n\xffM", offset=24).splitlines() == [
        "   24   50 52 49 20 2a 20 48 54 54 50 2f 32 2e 30 0d 0a   PRI * HTTP/2.0··",
        "   40   0d 0a ff 4d                                       ···M",
    ]
    assert dump(b"") == ""


def test_a_dump_fits_beside_a_margin_of_two() -> None:
    assert max(len(line) for line in dump(bytes(64), offset=99_000).splitlines()) <= 78


def test_octets_taken_apart_stand_below_their_place() -> None:
    parts = [Part(b"\0\0\x24", "length", "36"), Part(b"\4", "type", "SETTINGS"), Part(b"\0" * 2, "rest", "-")]
    assert taken_apart(parts, 24, SCREEN).splitlines() == [
        "   24   00 00 24 04 00 00",
        "        00 00 24            length  36",
        "                 04         type    SETTINGS",
        "                    00 00   rest    -",
    ]
