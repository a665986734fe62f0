"""The Wireshark guide: what it tells people to type is understood by the program that it is for."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from capture import command
from capture.pcap import Writer
from lab.system import TCPDUMP
from tests.capture.engine_factory import ETHERNET, chat

ROOT = Path(__file__).resolve().parents[2]
BOTH = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("wireshark.md", "wireshark.es.md")]
EACH = pytest.mark.parametrize("text", BOTH, ids=["en", "es"])
FILTERS = sorted({cell.replace("\\|", "|") for cell in re.findall(r"^\|.*\| `(.+)` \|$", BOTH[0], re.M)} - {""})


@pytest.fixture(scope="module")
def capture_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guide") / "chat.pcapng"
    with path.open("wb") as file:
        Writer(file, ETHERNET).write(chat(1).packets)
    return path


def commands(text: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    return [line for block in blocks for line in block.splitlines()]


def test_both_languages_have_the_same_commands_and_the_same_code() -> None:
    english, spanish = BOTH
    assert commands(english) == commands(spanish)
    assert sorted(re.findall(r"`([^`\n]+)`", english)) == sorted(re.findall(r"`([^`\n]+)`", spanish))


@EACH
def test_every_command_of_the_kit_is_understood(text: str) -> None:
    typed = [*commands(text), *re.findall(r"`(python3 [^`]+)`", text)]
    found = [match[1] for line in typed for match in re.finditer(r"python3 -m capture ([^|]+)", line)]
    assert len(found) > 7
    for arguments in found:
        try:
            command._parser().parse_args(shlex.split(arguments))
        except SystemExit:
            pytest.fail(f"not understood: {arguments}")


@pytest.mark.parametrize("text", [text for text in FILTERS if not re.match(r"sudo |dumpcap ", text)])
def test_wireshark_understands_every_display_filter(text: str, capture_file: Path) -> None:
    shown = subprocess.run(
        ["tshark", "-r", str(capture_file), "-d", "tcp.port==50051,http2", "-Y", text], capture_output=True, check=False
    )
    assert shown.returncode == 0, shown.stderr.decode()


def test_tcpdump_understands_its_filter() -> None:
    program = TCPDUMP.find()
    if program is None:
        pytest.skip("tcpdump is not installed")
    [compiled] = {
        subprocess.run([program, "-d", "-y", "EN10MB", text], capture_output=True, check=True).stdout
        for text in re.findall(r'tcpdump .*?"(tcp[^"]+)"', BOTH[0])
    }
    assert b"0xc383" in compiled  # 50051
