"""The command line of `capture`: what a capture holds, as tables, lines for programs, and pictures.

Each command is a module of `capture.commands`. Modules that take long to load are imported by the commands that need
them: `frames` on a small file is there at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import Any

from capture.commands import compare, export, hpack, live, records, score, tap, timeline, wireshark
from capture.commands.common import BAD_INPUT, DONE, LACKING, MISUSE, Refusal, interruptible
from capture.pcap import CaptureError
from kit.bootstrap import python
from kit.options import Parser
from kit.text import visible
from kit.words import _, language_from, use_utf8

COMMANDS = (records, hpack, timeline, compare, score, export, wireshark, tap, live)


def main(arguments: list[str]) -> int:
    # Events hold no cycles: looking for some every 700 records costs a fifth of the time, and finds none.
    gc.set_threshold(50_000, 5, 5)
    use_utf8()
    language_from(arguments)
    options = _parser().parse_args(arguments)
    try:
        with interruptible():
            options.run(options)
            sys.stdout.flush()
    except Refusal as refusal:
        return _complain(str(refusal), refusal.status)
    except CaptureError as error:
        return _complain(f"{visible(options.file)}: {error}", _status_of(error))
    except BrokenPipeError:
        # Who reads our output has seen enough. What Python flushes at its exit goes nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        pass
    except OSError as error:
        return _complain(visible(f"{error.filename}: {error.strerror}" if error.filename else str(error)), LACKING)
    return DONE


def _complain(sentence: str, status: int) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"capture: {sentence}", file=sys.stderr)
    return status


def _status_of(error: CaptureError) -> int:
    cause = error.__context__
    if isinstance(cause, PermissionError):
        return LACKING
    return MISUSE if isinstance(cause, OSError | ValueError) else BAD_INPUT


def _parser() -> Parser:
    parser = Parser(
        prog=f"{python()} -m capture", description=_("What went over the wire: every HTTP/2 frame, in words.")
    )
    # mypy: the stubs want a class where argparse calls whatever there is
    commands: Any = parser.add_subparsers(metavar=_("COMMAND"), required=True, parser_class=_command_parser)  # type: ignore[call-overload]
    for module in COMMANDS:
        module.add(commands)
    return parser


def _command_parser(*, prog: str, description: str, **_unused: Any) -> Parser:
    return Parser(prog=prog, description=description)
