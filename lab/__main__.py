"""`python3 -m lab COMMAND`: starts on a bare Python, sets up what the command needs, and goes on in `.venv`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from kit.bootstrap import BASE, ENVIRONMENT_LACKS_SOMETHING, NOTEBOOKS, TEST, Group, SetupError, lacking, python, set_up
from kit.options import Parser
from kit.words import N_, _, language_from, use_utf8
from lab import bundle, system

INTERRUPTED = 130  # 128 + SIGINT, as shells count


class Command(NamedTuple):
    help: str
    module: str
    """Its `run(options)` does the work and returns the exit status. Imported once its groups are installed."""
    groups: tuple[Group, ...]
    """What it needs; empty for a command that runs on any Python."""


COMMANDS = {
    "demo": Command(N_("two people chat; every HTTP/2 frame of it is decoded and drawn"), "lab.demo", (BASE,)),
    "run": Command(N_("a guided lab: predict, run, look, explain"), "lab.runner", (BASE,)),
    "notebooks": Command(N_("JupyterLab with the notebooks"), "lab.notebooks", (BASE, NOTEBOOKS)),
    "doctor": Command(N_("what works on this machine, and how to get the rest"), "lab.doctor", ()),
    "test": Command(N_("every check of the kit"), "lab.checks", (BASE, NOTEBOOKS, TEST)),
    "bundle": Command(N_("the packages in one archive, for classrooms without internet"), "lab.bundle", (BASE,)),
    "clean": Command(N_("removes what the kit made in this folder"), "lab.clean", ()),
}


def main(arguments: list[str]) -> int:
    use_utf8()
    language_from(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        return _labs(parser)
    command = COMMANDS[options.command]
    try:
        if options.command == "test" and options.system:
            system.install(system.TEST_TOOLS)
        if options.command == "demo" and options.bundle:
            bundle.set_up_from(options.bundle)
        if command.groups:
            set_up(*command.groups)
        return int(importlib.import_module(command.module).run(options))
    except SetupError as error:
        print(error, file=sys.stderr)
        return ENVIRONMENT_LACKS_SOMETHING
    except KeyboardInterrupt:
        print("\n" + _("Stopped."), file=sys.stderr)
        return INTERRUPTED


def _labs(parser: Parser) -> int:
    """`python -m lab` alone lists the labs; where nothing is set up yet it says what there is."""
    if lacking():
        parser.print_help()
        return 0
    set_up()
    return int(importlib.import_module("lab.runner").list_labs())


def _parser() -> Parser:
    parser = Parser(prog=f"{python()} -m lab", description=_("The gRPC wire lab."))
    subparsers = parser.add_subparsers(dest="command", metavar=_("COMMAND"))
    parsers = {
        name: subparsers.add_parser(name, help=_(command.help), description=_(command.help))
        for name, command in COMMANDS.items()
    }
    parsers["demo"].add_argument(
        "--folder", type=Path, default=Path("demo"), help=_("where the picture and the capture go (default: demo)")
    )
    parsers["demo"].add_argument(
        "--bundle", type=Path, metavar=_("FILE"), help=_("set up from what `lab bundle` made, without internet")
    )
    _add_run_options(parsers["run"])
    parsers["notebooks"].add_argument("--no-browser", action="store_true", help=_("only tell the address"))
    parsers["doctor"].add_argument("--json", action="store_true", help=_("for programs"))
    parsers["bundle"].add_argument(
        "--output",
        "-o",
        type=Path,
        metavar=_("FILE"),
        help=_("the archive (default: named after this kind of machine)"),
    )
    parsers["clean"].add_argument("--yes", action="store_true", help=_("do not ask first"))
    parsers["test"].add_argument(
        "--system",
        action="store_true",
        help=_("first install tshark, redis-server and chromium with the system's package manager; nothing is skipped"),
    )
    return parser


def _add_run_options(parser: Parser) -> None:
    parser.add_argument("lab", metavar=_("LAB"), help=_("which one: 01"))
    parser.add_argument("--again", action="store_true", help=_("begin anew; earlier attempts are kept"))
    parser.add_argument("--plain", action="store_true", help=_("no colours, and the screen is not cleared"))
    parser.add_argument(
        "--student", metavar=_("NAME"), help=_("whose report it is; remembered (default: your account)")
    )
    parser.add_argument(
        "--auto",
        action="store_true",
        help=_("ask nothing and keep nothing: run all of it, check it, and end with status 1 if a check fails"),
    )
    parser.add_argument(
        "--answers", metavar=_("NAME=ANSWER,…"), default="", help=_("with --auto: the predictions (default: any)")
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar=_("FOLDER"),
        help=_("where the report goes (with --auto there is none otherwise)"),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
