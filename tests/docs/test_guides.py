"""The guides in docs/: what one language says, the other says as well, and what they point at is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from capture.events import FrameType

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted(file.name.removesuffix(".es.md") for file in (ROOT / "docs").glob("*.es.md"))
EVERY = pytest.mark.parametrize("guide", GUIDES)
WRITTEN = [ROOT / "docs" / name for guide in GUIDES for name in (f"{guide}.md", f"{guide}.es.md")]


def both(guide: str) -> tuple[str, str]:
    """In English, in Spanish."""
    folder = ROOT / "docs"
    return (folder / f"{guide}.md").read_text(encoding="utf-8"), (folder / f"{guide}.es.md").read_text(encoding="utf-8")


def headings(text: str) -> list[int]:
    """The level of each."""
    return [len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)]


def diagrams(text: str) -> list[str]:
    return re.findall(r"^```mermaid\n(.*?)^```", text, re.S | re.M)


def terms(text: str) -> Iterator[tuple[str, str, str, str]]:
    """The rows of a glossary: the word, in the other language, its meaning, its source."""
    yield from re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)


def test_the_guides_that_were_promised_are_there() -> None:
    assert {"architecture", "glossary", "scaling"} <= set(GUIDES)


@EVERY
def test_both_languages_have_the_same_parts(guide: str) -> None:
    english, spanish = both(guide)
    assert headings(english) == headings(spanish)
    assert len(headings(english)) > 4
    assert [line.count("|") for line in english.splitlines() if line.startswith("|")] == [
        line.count("|") for line in spanish.splitlines() if line.startswith("|")
    ]


@EVERY
def test_both_languages_draw_the_same_diagrams(guide: str) -> None:
    english, spanish = (diagrams(text) for text in both(guide))
    assert len(english) == len(spanish)
    for one, other in zip(english, spanish, strict=True):
        kinds = [re.findall(r"^\s*(\w[\w-]*)", text)[0] for text in (one, other)]
        assert kinds[0] == kinds[1]
        nodes = [re.findall(r"^\s*(\w+)[\[({]", text, re.M) for text in (one, other)]
        assert nodes[0] == nodes[1]
        arrows = [re.findall(r"<?[-.=]{1,2}[.-]?>+|---|\*--|o--", text) for text in (one, other)]
        assert arrows[0] == arrows[1]


@EVERY
def test_both_languages_cite_the_same_clauses_and_name_the_same_files(guide: str) -> None:
    cited = [sorted(re.findall(r"RFC \d+(?: §[\d.]+)?|§[\d.]+", text)) for text in both(guide)]
    assert cited[0] == cited[1]
    named = [sorted(set(re.findall(r"`[\w./-]+\.(?:py|proto|md|binpb)`", text))) for text in both(guide)]
    assert named[0] == named[1]


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.name)
def test_files_and_links_that_a_guide_names_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in link or (file.parent / link).exists(), link
    for name in re.findall(r"`([\w/]+/[\w.]+\.(?:py|proto|binpb))`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`?(\w+\.py)\b", text):
        assert any(ROOT.glob(f"[a-z]*/**/{name}")), name


# The glossary


def test_the_glossary_has_the_same_words_in_both_languages() -> None:
    english, spanish = (list(terms(text)) for text in both("glossary"))
    assert len(english) > 100
    assert {(en, es): source for en, es, _meaning, source in english} == {
        (en, es): source for es, en, _meaning, source in spanish
    }
    for rows in (english, spanish):
        names = [first for first, _other, _meaning, _source in rows]
        assert len(names) == len(set(names))


def test_each_word_has_a_meaning_and_a_source() -> None:
    clause = r"(§[\d.]+|Appendix [A-Z])"
    known = re.compile(
        rf"RFC \d{{3,4}}( {clause}(, {clause})*)?|`[\w./]+`|gRPC over HTTP2: .+|gRPC Core concepts"
        r"|Protocol Buffers Encoding: .+|draft-[\w-]+|Wireshark User's Guide"
    )
    for text in both("glossary"):
        for name, _other, meaning, source in terms(text):
            assert meaning.endswith("."), name
            for part in re.split(r", (?=RFC|draft)", source):
                assert known.fullmatch(part), f"{name}: {part}"


WORDS = """connection preface; frame; frame header; frame payload; stream; stream identifier; field line; field section;
field block; field block fragment; trailer section; pseudo-header field; flow-control window; connection error; stream
error; static table; dynamic table; indexed field; literal field; dynamic table size update; length-prefixed message;
compressed flag; request headers; response headers; trailers; trailers-only; custom metadata; status; segment; chunk;
packet; client; server; room; member; history; broadcast"""


def test_the_words_that_the_whole_kit_keeps_to_are_explained() -> None:
    explained = {name for name, _other, _meaning, _source in terms(both("glossary")[0])}
    assert {" ".join(word.split()) for word in WORDS.split(";")} <= explained


@pytest.mark.parametrize("language", [0, 1], ids=["en", "es"])
def test_every_frame_type_is_explained(language: int) -> None:
    explained = {name for name, _other, _meaning, _source in terms(both("glossary")[language])}
    assert {kind.name for kind in FrameType if kind <= FrameType.CONTINUATION} <= explained
