"""Setting up, done for real in a small root: kit/ copied, one tiny package as a wheel, an environment, pip."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import bootstrap

KIT = Path(bootstrap.__file__).parent
PYTHON = getattr(sys, "_base_executable", sys.executable)

PROGRAM = """
import sys
from kit import bootstrap
bootstrap.BASE = bootstrap.Group("requirements.txt", ("tiny",))
EXTRA = bootstrap.Group("requirements-extra.txt", ("tiny_extra",))
try:
    if sys.argv[1] == "set-up":
        bootstrap.set_up(*[EXTRA][: "extra" in sys.argv], wheels=bootstrap.ROOT / "wheels")
    elif sys.argv[1] == "set-up-from-index":
        bootstrap.set_up()
    else:
        bootstrap.reexecute()
except bootstrap.SetupError as error:
    sys.exit(f"SetupError: {error}")
import tiny
print(sys.prefix, tiny.VERSION, *sys.argv[1:])
sys.exit(7 if "seven" in sys.argv else 0)
"""

BACKEND = """
import zipfile
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "tinyroot-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        wheel.writestr("tinyroot.pth", %r)
        info = "tinyroot-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tinyroot\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, content)


class Root:
    """A clone in small."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kit").mkdir(parents=True)
        for name in ("__init__.py", "bootstrap.py", "progress.py", "words.py"):
            shutil.copy(KIT / name, folder / "kit")
        (folder / "program.py").write_text(PROGRAM)
        (folder / "backend.py").write_text(BACKEND % str(folder))
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "tinyroot"\nversion = "1.0"\n'
        )
        write_wheel(folder / "wheels", "tiny", "1.0")
        write_wheel(folder / "wheels", "tiny", "2.0")
        write_wheel(folder / "wheels", "tiny_extra", "1.0")
        self.require("tiny==1.0")
        (folder / "requirements-extra.txt").write_text("tiny_extra==1.0\n")

    def require(self, line: str) -> None:
        (self.folder / "requirements.txt").write_text(f"{line}\n")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.Popen(
            [PYTHON, "program.py", *arguments],
            cwd=self.folder,
            env={**kept, "MINICHAT_LANG": "en", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def stamp(self) -> Any:
        return json.loads((self.venv / "wirelab.json").read_text())

    def site_packages(self) -> Path:
        return next(iter([*self.venv.glob("lib/python3*/site-packages"), *self.venv.glob("Lib/site-packages")]))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root that was set up once; a test that changes it leaves it set up."""
    root = Root(tmp_path_factory.mktemp("installed") / "clone")
    status, out, err = root.run("set-up")
    assert status == 0, err
    assert out.split() == [str(root.venv), "1.0", "set-up"]
    assert "tiny 1.0" in err, "the packages are shown as they arrive"
    assert err.rstrip().endswith("Ready")
    assert "WARNING" not in err
    return root


def test_the_second_run_installs_nothing_and_says_nothing(installed: Root) -> None:
    assert installed.run("set-up") == (0, f"{installed.venv} 1.0 set-up\n", "")


def test_the_stamp_has_the_root_and_the_digest_of_what_is_installed(installed: Root) -> None:
    digest = hashlib.sha256((installed.folder / "requirements.txt").read_bytes()).hexdigest()
    assert installed.stamp["root"] == str(installed.folder)
    assert installed.stamp["installed"]["requirements.txt"] == digest


def test_our_packages_are_importable_from_anywhere(installed: Root, tmp_path: Path) -> None:
    python = installed.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run(
        [python, "-c", "import kit; print(kit.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(installed.folder / "kit" / "__init__.py"), done.stderr


def test_changed_requirements_are_installed(installed: Root) -> None:
    installed.require("tiny==2.0")
    status, out, err = installed.run("set-up")
    assert (status, out.split()[1]) == (0, "2.0"), err
    installed.require("tiny==1.0")
    assert installed.run("set-up")[1].split()[1] == "1.0"


def test_a_group_is_installed_when_it_is_asked_for_and_keeps_the_others(installed: Root) -> None:
    status, _out, err = installed.run("set-up", "extra")
    assert status == 0, err
    assert "tiny_extra 1.0" in err
    assert "tiny 1.0" not in err, "what is there already is left alone"
    assert installed.run("set-up")[2] == ""
    assert installed.run("set-up", "extra")[2] == ""


def test_a_package_whose_installation_was_interrupted_is_installed_again(installed: Root) -> None:
    """As a killed pip leaves it: metadata there, RECORD and code not."""
    (installed.venv / "wirelab.json").unlink()
    info = next(installed.site_packages().glob("tiny-*.dist-info"))
    (info / "RECORD").unlink()
    (installed.site_packages() / "tiny.py").unlink()
    status, out, err = installed.run("set-up")
    assert (status, out.split()[1]) == (0, "1.0"), err


def test_two_terminals_at_once_set_up_once(installed: Root) -> None:
    installed.require("tiny==2.0")
    with installed.start("set-up") as first, installed.start("set-up") as second:
        told = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), told
    assert sum("Ready" in err for _out, err in told) == 1
    installed.require("tiny==1.0")
    assert installed.run("set-up")[0] == 0


def test_a_moved_clone_gets_a_new_environment(installed: Root, tmp_path: Path) -> None:
    moved = tmp_path / "with a space and ñ"
    shutil.copytree(installed.folder, moved, symlinks=True)
    (moved / "backend.py").write_text(BACKEND % str(moved))
    root = Root.__new__(Root)
    root.folder = moved
    status, out, err = root.run("set-up")
    assert (status, out) == (0, f"{moved / '.venv'} 1.0 set-up\n"), err
    assert root.run("set-up")[2] == ""


def test_a_program_goes_on_in_the_environment_with_its_arguments_and_exit_status(installed: Root) -> None:
    assert installed.run("run", "a b", "seven") == (7, f"{installed.venv} 1.0 run a b seven\n", "")


@pytest.mark.parametrize(("language", "sentence"), [("en", "This does it"), ("es", "lab demo")])
def test_a_program_without_environment_says_what_makes_it(tmp_path: Path, language: str, sentence: str) -> None:
    root = Root(tmp_path / "clone")
    status, out, err = root.run("run", "--lang", language)
    assert (status, out) == (3, "")
    assert sentence in err
    assert "-m lab demo" in err
    assert len(err.splitlines()) == 1


def test_a_python_without_ensurepip_names_the_package_to_install(tmp_path: Path) -> None:
    root = Root(tmp_path / "clone")
    (root.folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'ensurepip': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    status, _out, err = root.run("set-up", PYTHONPATH=str(root.folder))
    assert status == 1
    assert "ensurepip" in err
    assert "venv" in err.rpartition("ensurepip")[2]
    assert not (root.venv / "wirelab.json").exists()


@pytest.fixture
def mute_index() -> Iterator[tuple[socket.socket, str]]:
    """A package index that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


def test_an_index_out_of_reach_is_one_sentence(installed: Root, mute_index: tuple[socket.socket, str]) -> None:
    listener, address = mute_index
    listener.close()
    installed.require("nothing-that-is-installed-here==1.0")
    status, _out, err = installed.run("set-up-from-index", PIP_INDEX_URL=address, PIP_RETRIES="0", no_proxy="*")
    assert status == 1
    assert err.splitlines()[-1].startswith("SetupError: The package index cannot be reached")
    assert "Traceback" not in err
    installed.require("tiny==1.0")
    assert installed.run("set-up")[0] == 0


def test_a_package_that_does_not_exist_is_named(installed: Root) -> None:
    installed.require("tiny==9.9")
    status, _out, err = installed.run("set-up")
    assert status == 1
    assert "tiny==9.9" in err.splitlines()[-1]
    installed.require("tiny==1.0")
    assert installed.run("set-up")[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to a process group")
def test_after_ctrl_c_in_the_middle_the_same_command_goes_on(
    installed: Root, mute_index: tuple[socket.socket, str]
) -> None:
    listener, address = mute_index
    installed.require("nothing-that-is-installed-here==1.0")
    with installed.start("set-up-from-index", PIP_INDEX_URL=address, no_proxy="*") as process:
        connection, _address = listener.accept()  # pip is in the middle of it
        os.killpg(process.pid, signal.SIGINT)
        _out, err = process.communicate(timeout=30)
        connection.close()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err, "the program that asked for the set-up decides what to say"
    assert "requirements.txt" not in installed.stamp["installed"]
    installed.require("tiny==1.0")
    status, out, err = installed.run("set-up")
    assert (status, out.split()[1]) == (0, "1.0"), err


@pytest.mark.parametrize(
    "path",
    ["kit/bootstrap.py", "kit/progress.py", "kit/words.py", "lab/__init__.py", "lab/__main__.py", "lab/system.py"],
)
def test_what_runs_before_the_version_is_checked_can_be_parsed_by_old_pythons(path: str) -> None:
    ast.parse((bootstrap.ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 8))


INTERRUPTED_WHILE_LOADING = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, *_where):
        if name == f"{sys.argv[1]}.command":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
sys.meta_path.insert(0, Interrupting())
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("program", ["server", "client", "capture"])
def test_ctrl_c_while_a_program_still_loads_ends_it_without_a_traceback(program: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_WHILE_LOADING, program]
    ended = subprocess.run(command, cwd=bootstrap.ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
