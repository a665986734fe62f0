"""wireshark: a capture in Wireshark, with all set that it cannot know by itself."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from capture.commands.common import LACKING, MISUSE, Refusal, add_file, add_key_log, command
from capture.views.wireshark import PROFILE, files
from kit.bootstrap import ROOT
from kit.programs import TSHARK, WIRESHARK
from kit.text import visible
from kit.words import _

STALE = "protobuf_search_paths"
"""The profile's file that follows the clone. The others are made once, and then are the user's to change."""


def add(commands: Any) -> None:
    described = _(
        "opens Wireshark with ports, protobuf, columns and colours set; prints the command where there is none"
    )
    parser = command(commands, "wireshark", _run, described)
    add_file(parser)
    add_key_log(parser)
    parser.add_argument("--print", dest="prints", action="store_true", help=_("print the command, open nothing"))


def _run(options: argparse.Namespace) -> None:
    from capture.sources.opinions import circumstances
    from capture.sources.tshark import decode_as

    if options.file == "-":
        raise Refusal(MISUSE, _("Wireshark opens a file, and this is standard input"))
    reading = circumstances(options.file, options.port)
    rules = decode_as(reading, options.port)
    arguments = ["-C", PROFILE]
    for criterion, protocol in rules.items():
        arguments += ["-d", f"{criterion},{protocol}"]
    # Segments that overtook each other are put in order; where some are missing, it would wait for them for ever.
    arguments += ["-o", f"tcp.reassemble_out_of_order:{'FALSE' if reading.has_gaps else 'TRUE'}"]
    if options.keylog is not None:
        if not Path(options.keylog).is_file():
            raise Refusal(MISUSE, _("{file}: there is no such file").format(file=visible(options.keylog)))
        arguments += ["-o", f"tls.keylog_file:{Path(options.keylog).absolute()}"]
    arguments += ["-r", options.file]
    if not rules:
        words = _("{file}: no HTTP/2 was found; if there is some, --port says where")
        print("capture: " + words.format(file=visible(options.file)), file=sys.stderr)
    folder = _make_profile()
    program = WIRESHARK.find()
    if program is None or options.prints:
        print(typed([program or "wireshark", *arguments], powershell=os.name == "nt"))
        words = _("colours, columns, buttons and protobuf's search path are in the profile {folder}")
        print(words.format(folder=visible(str(folder))), file=sys.stderr)
        if program is None:
            print(_missing(), file=sys.stderr)
        return
    nowhere = subprocess.DEVNULL
    subprocess.Popen([program, *arguments], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def _missing() -> str:
    install = WIRESHARK.command()
    if install is None:
        return _("Wireshark is not installed here")
    return _("Wireshark is not installed here: {command}").format(command=install)


def typed(words: list[str], powershell: bool) -> str:
    """A command as people type it."""
    if not powershell:
        return shlex.join(words)
    quoted = [word if re.fullmatch(r"[\w.:/\\-]+", word) else "'" + word.replace("'", "''") + "'" for word in words]
    return " ".join(quoted if quoted[0] == words[0] else ["&", *quoted])


def _make_profile() -> Path:
    """The profile's folder."""
    folder = _personal_folder() / "profiles" / PROFILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files((ROOT / "proto").as_posix()).items():
            file = folder / name
            if name == STALE or not file.exists():
                file.write_text(text, encoding="utf-8")
    except OSError as error:
        words = _("{file} cannot be written: {reason}")
        raise Refusal(LACKING, words.format(file=visible(str(folder)), reason=error.strerror)) from None
    return folder


def _personal_folder() -> Path:
    """Where Wireshark keeps its user's settings: as it says itself, else as its manual does."""
    program = TSHARK.find()
    if program is not None:
        told = subprocess.run([program, "-G", "folders"], capture_output=True, text=True, errors="replace", check=False)
        found = re.search(r"^Personal configuration:\s*(\S.*?)\s*$", told.stdout, re.M)
        if found:
            return Path(found[1])
    if "WIRESHARK_CONFIG_DIR" in os.environ:
        return Path(os.environ["WIRESHARK_CONFIG_DIR"])
    if os.name == "nt":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / "Wireshark"
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "wireshark"
