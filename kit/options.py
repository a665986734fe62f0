"""Command lines: argparse in the kit's languages, refusing a bad option in one line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from kit.bootstrap import python
from kit.words import N_, _, add_language_option, ngettext

BAD_INPUT, MISUSE = 1, 2
"""The exit status where a file that was named cannot be used, and of a command line that cannot be obeyed."""


class Parser(argparse.ArgumentParser):
    """Has --lang. The language must be chosen before it is made: its help texts are made with it."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        _translate_argparse()
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)
        add_language_option(self)

    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse prints above it."""
        text = _("{program}: {problem} ({help} lists what there is)")
        self.exit(MISUSE, text.format(program=self.prog, problem=message, help="--help") + "\n")


def _translate_argparse() -> None:
    """argparse looks its own texts up through names in its module; standard catalogues of them do not exist."""
    vars(argparse).update(_=_, ngettext=ngettext)


def port_number(text: str) -> int:
    """For `type=`: 0 to 65535."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65_535:
        raise argparse.ArgumentTypeError(_("a port is a number from 0 to 65535, and this is {text}").format(text=text))
    return int(text)


def not_empty(text: str) -> str:
    """For `type=`: not empty, as it is where a shell's variable is not set."""
    if not text:
        raise argparse.ArgumentTypeError(_("a name is asked for, and this is empty"))
    return text


def file_path(text: str) -> Path:
    """For `type=`: of a file or a folder."""
    return Path(not_empty(text))


def written_file(text: str) -> str:
    """For `type=`: a file that is written, beside what goes to standard output."""
    if text == "-":
        raise argparse.ArgumentTypeError(_("a file is written, not standard output (./- is a file of that name)"))
    return not_empty(text)


def add_truth(group: argparse._ActionsContainer) -> None:
    """`--truth`, of whoever logs with kit/truth.py."""
    described = _("log every call and message, session tokens too, for what {command} compares with a capture")
    command = f"{python()} -m capture score"
    group.add_argument("--truth", type=written_file, metavar=_("FILE"), help=described.format(command=command))


def host_port(host: str, port: int) -> str:
    """`host:port`, as programs take it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


ARGPARSE_TEXTS = (
    N_("usage: "),
    N_("positional arguments"),
    N_("options"),
    N_("show this help message and exit"),
    N_("argument %(argument_name)s: %(message)s"),
    N_("the following arguments are required: %s"),
    N_("unrecognized arguments: %s"),
    N_("expected one argument"),
    N_("expected at most one argument"),
    N_("expected at least one argument"),
    N_("invalid choice: %(value)r (choose from %(choices)s)"),
    N_("invalid %(type)s value: %(value)r"),
    N_("ignored explicit argument %r"),
    N_("not allowed with argument %s"),
    N_("one of the arguments %s is required"),
)
"""What people can meet of argparse's own texts, for the catalogue."""
