"""Command lines that refuse in one line, in both languages."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from kit.options import Parser, host_port, port_number
from kit.words import choose_language


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    yield
    choose_language("en")


def parser() -> Parser:
    parser = Parser(prog="program", description="Does it.")
    parser.add_argument("name")
    parser.add_argument("--port", type=port_number)
    parser.add_argument("--level", choices=("low", "high"))
    parser.add_argument("--size", type=int)
    return parser


@pytest.mark.parametrize(
    ("language", "arguments", "line"),
    [
        ("en", "", "program: the following arguments are required: name (--help lists what there is)\n"),
        ("es", "", "program: faltan estos argumentos: name (--help muestra lo que hay)\n"),
        ("en", "a --port", "program: argument --port: expected one argument (--help lists what there is)\n"),
        ("es", "a --port", "program: argumento --port: se esperaba un argumento (--help muestra lo que hay)\n"),
        ("es", "a b", "program: argumentos desconocidos: b (--help muestra lo que hay)\n"),
        ("es", "a --por 1", "program: argumentos desconocidos: --por 1 (--help muestra lo que hay)\n"),
        (
            "es",
            "a --size x",
            "program: argumento --size: valor no válido (int): 'x' (--help muestra lo que hay)\n",
        ),
    ],
)
def test_misuse_is_one_line_and_status_2(
    language: str, arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    choose_language(language)
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(arguments.split())
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", line)


def test_the_help_is_in_the_language_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    choose_language("es")
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("uso: program [-h] [--lang {en,es}]")
    assert "\nargumentos posicionales:\n" in shown
    assert "\nopciones:\n  -h, --help " in shown
    assert " muestra esta ayuda y termina\n" in shown


def test_what_is_right_comes_through() -> None:
    options = parser().parse_args(["Juan", "--port", "0", "--level", "high", "--lang", "es"])
    assert (options.name, options.port, options.level, options.lang) == ("Juan", 0, "high", "es")


@pytest.mark.parametrize("text", ["", "-1", "65536", "1e3", "0x10", "٣", " 1", "1_000"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a port is a number from 0 to 65535"):
        port_number(text)


def test_an_ipv6_address_stands_in_brackets_before_its_port() -> None:
    assert host_port("::1", 50051) == "[::1]:50051"
    assert host_port("localhost", 50051) == "localhost:50051"
