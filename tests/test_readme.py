"""The README in both languages: they say the same, and what they tell people to type, open or believe is there."""

from __future__ import annotations

import argparse
import ast
import gettext
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import capture
from kit.options import Parser
from kit.words import DOMAIN, LOCALE_FOLDER

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, SPANISH = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md"))
EACH = pytest.mark.parametrize("text", [ENGLISH, SPANISH], ids=["en", "es"])

PARSERS = {
    "server": "server.command",
    "client": "client.command",
    "capture": "capture.command",
    "exercises": "exercises.command",
    "lab": "lab.__main__",
}
"""Module -> where its `_parser()` is."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.S | re.M)
STARTS = r"(?:python3? |\.venv|echo |sudo |tcpdump |tshark |wireshark |dumpcap |export |& |\$env:|\$OutputEncoding)"
KIT = re.compile(r"\bpython3? (?:-m (?P<module>\w+)|(?P<script>\S+\.py))(?P<arguments>[^|;]*)")
WHERE_POWERSHELL_DIFFERS = re.compile(r"^(?:export |\.venv/bin/|wireshark |tshark )", re.M)


class _Filled(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "{" + name + "}"


FILLED = _Filled(port="50051", host="127.0.0.1")
"""For sentences of the programs: what a reader sees; other placeholders stay."""

SHOWN = {
    "unary call": ("JoinRequest", "JoinReply", "grpc-status 0"),
    "server streaming": ("HistoryRequest", "ChatMessage"),
    "bidirectional streaming": ("ChatService/Chat", "→", "←"),
    "asynchronous messages": ("Adiós", "¡Hasta luego!"),
    "broker": ("client_to_server", "server_to_client", '"text":"Hola"'),
    "layers": (),
    "beginning of a connection": (),
    "frames": ("SETTINGS", "HEADERS", "DATA", "WINDOW_UPDATE"),
    "header compression": ("Block 1", "literal", "indexed"),
    "flow control": ("connection", "stream 3"),
}
"""The rows of "What it demonstrates", and what each one's command has to show; empty where it is no view of a file."""


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language, content."""
    return BLOCK.findall(text)


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def commands(text: str) -> Iterator[str]:
    """All that is there to be typed, in blocks and in sentences."""
    for _shell, block in code_blocks(text):
        yield from block.splitlines()
    yield from (span for span in code_spans(text) if re.match(STARTS, span))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", text))


def headings(text: str) -> list[int]:
    """The level of each."""
    return [len(marks) for marks in re.findall(r"^(#+) ", BLOCK.sub("", text), re.M)]


def tables(text: str) -> list[list[list[str]]]:
    """Table, row, cell, without the heads."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    return [[[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]] for table in found]


def demonstrated(text: str) -> list[list[str]]:
    """The rows of the table whose rows name tests."""
    [table] = [table for table in tables(text) if all(".py::" in row[-1] for row in table)]
    return table


def parser_of(module: str) -> Parser:
    parser = importlib.import_module(PARSERS[module])._parser()
    assert isinstance(parser, Parser)
    return parser


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def names_of_tests(file: Path) -> set[str]:
    """`test_it`, `TestClass::test_it`."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    inside = {f"{one.name}::{node.name}" for one in classes for node in one.body if isinstance(node, ast.FunctionDef)}
    return inside | {node.name for node in body if isinstance(node, ast.FunctionDef)}


# --- one says what the other says


def test_both_have_the_same_headings() -> None:
    assert headings(ENGLISH) == headings(SPANISH)
    assert len(headings(ENGLISH)) > 10


def test_both_have_the_same_blocks_of_code_in_the_same_order() -> None:
    assert code_blocks(ENGLISH) == code_blocks(SPANISH)


def test_both_have_the_same_commands() -> None:
    assert Counter(commands(ENGLISH)) == Counter(commands(SPANISH))


def test_both_link_to_the_same_pages_each_in_its_language() -> None:
    def neutral(link: str) -> str:
        return re.sub(r"\.es(\.\w+)$", r"\1", link)

    assert [neutral(link) for link in links(ENGLISH)] == [neutral(link) for link in links(SPANISH)]
    for link in links(SPANISH):
        translated = re.sub(r"(\.\w+)$", r".es\1", link)
        is_local_text = link.endswith((".md", ".png")) and link != "README.md" and ".es." not in link
        has_translation = is_local_text and (ROOT / translated).exists()
        assert not has_translation, f"{translated} is there, and {link} is linked to"


def test_both_have_the_same_tables() -> None:
    def shapes(text: str) -> list[list[int]]:
        return [[len(row) for row in table] for table in tables(text)]

    assert shapes(ENGLISH) == shapes(SPANISH)
    assert [row[2:] for row in demonstrated(ENGLISH)] == [row[2:] for row in demonstrated(SPANISH)]


# --- and it is true


@EACH
def test_what_is_linked_to_is_there(text: str) -> None:
    local = [link for link in links(text) if not link.startswith("https://")]
    assert [link for link in local if not (ROOT / link).exists()] == []


@EACH
def test_every_command_of_the_kit_is_understood_by_its_program(text: str) -> None:
    named = set()
    for command in commands(text):
        for found in KIT.finditer(command):
            if found["script"]:
                assert (ROOT / found["script"].replace("\\", "/")).is_file(), command
            elif found["module"] != "pytest":
                named.add(found["module"])
                try:
                    parser_of(found["module"]).parse_args(shlex.split(found["arguments"]))
                except SystemExit:
                    pytest.fail(f"not understood: {command}")
    assert named == set(PARSERS)


@EACH
def test_every_option_named_in_a_sentence_exists(text: str) -> None:
    known = {option for module in PARSERS for option in options_of(parser_of(module))}
    named = {span.split()[0] for span in code_spans(text) if span.startswith("--")}
    assert named >= {"--json", "--proto", "--lang", "--system"}
    assert named <= known


@EACH
def test_every_test_that_is_named_exists(text: str) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::([\w:]+)", text)
    assert len(named) >= len(SHOWN)
    assert [(file, name) for file, name in named if name not in names_of_tests(ROOT / file)] == []


@EACH
def test_where_powershell_differs_its_own_block_follows(text: str) -> None:
    shells = [*code_blocks(text), ("", "")]
    differ = [i for i, (shell, block) in enumerate(shells) if shell == "sh" and WHERE_POWERSHELL_DIFFERS.search(block)]
    assert len(differ) == 5
    assert [shells[i][1] for i in differ if shells[i + 1][0] != "powershell"] == []


@EACH
def test_what_has_a_comma_is_quoted_for_powershell(text: str) -> None:
    bare = [command for command in commands(text) if "," in re.sub(r'".*?(?<!\\)"|\$\(.*?\)', "", command)]
    assert [command for command in bare if not command.startswith("sudo ")] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "The kit is not set up here yet ({package} is missing). This does it, in {folder}: {command}",
        "Port {port} of {host} is in use. Choose another one with --port; --port 0 finds a free one.",
        "There is no server at {server}.",
        "Sniffing needs admin rights ({reason}): sudo {python} {file}. {python} -m capture tap needs none.",
        "sniffing needs a right that this user lacks ({tap} needs none). To get it: {way}",
    ],
)
def test_trouble_is_quoted_as_the_programs_tell_it(sentence: str) -> None:
    translated = gettext.translation(DOMAIN, LOCALE_FOLDER, ["es"]).gettext(sentence)
    assert translated != sentence
    for said, text in ((sentence, ENGLISH), (translated, SPANISH)):
        beginning = re.split(r" ?[{(.] ?(?!\d)", said.format_map(FILLED))[0]
        assert any(beginning in span for span in code_spans(text)), beginning


# --- what the table promises, on what the demo leaves


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo has run: it holds demo/demo.pcapng."""
    here = tmp_path_factory.mktemp("run")
    done = subprocess.run(
        [sys.executable, "-m", "lab", "demo", "--folder", str(here / "demo")],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return here


def test_the_table_has_what_the_kit_demonstrates() -> None:
    assert [row[0] for row in demonstrated(ENGLISH)] == list(SHOWN)


@pytest.mark.parametrize("name", [name for name, shown in SHOWN.items() if shown])
def test_a_row_s_command_shows_what_the_row_says(name: str, folder: Path) -> None:
    [typed] = [row[2].strip("`") for row in demonstrated(ENGLISH) if row[0] == name]
    [found] = KIT.finditer(typed)
    done = subprocess.run(
        [sys.executable, "-m", str(found["module"]), *shlex.split(found["arguments"])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [words for words in SHOWN[name] if words not in done.stdout] == []


def test_tshark_does_what_its_commands_are_said_to_do(folder: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    file = folder / "demo" / "demo.pcapng"
    port = capture.read(file).connections[0].server.rpartition(":")[2]
    filters = [span for span in code_spans(ENGLISH) if re.match(r"(?:http2|grpc)(?:$|\.\w+ ==)", span)]
    assert len(filters) == 4
    typed = [command for command in commands(ENGLISH) if command.startswith("tshark ")]
    assert len(typed) == 3
    typed += [f'tshark -r sniffed.pcap -d "tcp.port==50051,http2" -Y "{filter}"' for filter in filters]
    shown = []
    for command in typed:
        here = command.replace("$PWD", ROOT.as_posix()).replace("50051", port)
        words = [str(file) if word == "sniffed.pcap" else word for word in shlex.split(here)]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), command
        shown.append(done.stdout)
    assert "SETTINGS[0]" in shown[0]
    assert "user = Juan" in shown[1]
    assert "/minichat.v1.ChatService/Chat" in shown[2]
