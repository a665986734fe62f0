"""Sets the kit up in `.venv` and runs programs there. Standard library only: it starts on a bare Python.

    from kit.bootstrap import reexecute
    reexecute()                          # first line of each program: go on in .venv if this Python lacks packages

    set_up(BASE, TEST)                   # the lab's own: install what is missing (visibly), then go on in .venv

How it stays right: `.venv/wirelab.json`, the stamp, is written last, with the folder that the clone stood in and the
digest of each requirements file that is installed. No stamp, another folder or another digest means installing (again);
pip skips what is there already, so an interrupted set-up goes on where it stopped. A moved clone gets a new `.venv`,
because a virtual environment has its own path written into its scripts. A lock lets a second terminal wait for the
first.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from kit.progress import Progress, run
from kit.words import _, language_from, ngettext, use_utf8

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "wirelab.json"
LOCK = VENV / "wirelab.lock"
LOG = VENV / "wirelab-pip.log"
OLDEST_PYTHON = (3, 11)
PYTHON_ADDRESS = "https://www.python.org/downloads/"
ENVIRONMENT_LACKS_SOMETHING = 3  # the exit status of everything that cannot run here until something is installed


class Group(NamedTuple):
    """Packages that are installed together."""

    file: str
    """The requirements file, in the root."""
    modules: tuple[str, ...]
    """What is imported to see that they work; that also compiles what those modules need, and nothing else."""


BASE = Group(
    "requirements.txt",
    (
        "cryptography.x509",
        "grpc",
        "grpc_health.v1.health_pb2",
        "grpc_reflection.v1alpha.reflection",
        "google.protobuf.json_format",
        "h2.connection",
        "hiredis",
        "hpack",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "orjson",
        "prompt_toolkit",
        "pyshark",
        "redis.asyncio",
        "scapy.all",
        "wcwidth",
    ),
)
TEST = Group("requirements-test.txt", ("pytest", "xdist", "hypothesis"))
NOTEBOOKS = Group("requirements-notebooks.txt", ("jupyterlab", "ipykernel", "nbformat", "nbclient"))
GROUPS = (BASE, TEST, NOTEBOOKS)


class SetupError(Exception):
    """Why the kit cannot be set up here and what to do about it, in one or two sentences for people."""


def interpreter() -> Path:
    """The Python of `.venv`, there or not."""
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def inside() -> bool:
    """Whether this process is the Python of `.venv`."""
    return VENV.is_dir() and Path(sys.prefix).resolve() == VENV.resolve()


def python() -> str:
    """What people type to start the Python that the kit is set up with."""
    return "python" if os.name == "nt" else "python3"


def as_typed(path: Path) -> str:
    """A path as people type it in a shell, in the folder where they are."""
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    if os.name != "nt":
        return shlex.quote(str(path))
    return f'"{path}"' if " " in str(path) else str(path)


def shown_interpreter() -> str:
    """The Python of `.venv`, as people type it in front of a command."""
    typed = as_typed(interpreter())
    return f"& {typed}" if typed.startswith('"') else typed  # PowerShell takes a quoted text for a text


def require_python() -> None:
    """Raises SetupError where this Python is older than the kit needs."""
    if sys.version_info < OLDEST_PYTHON:
        text = _("The kit needs Python {needed} or newer, and this is {found} ({path}). Get a newer one: {address}")
        needed, found = (".".join(map(str, version)) for version in (OLDEST_PYTHON, sys.version_info[:3]))
        raise SetupError(text.format(needed=needed, found=found, path=sys.executable, address=PYTHON_ADDRESS))


def ctrl_c_ends_at_once() -> None:
    """Until the program has an answer of its own to Ctrl-C, while it loads what it needs, it ends as one does that is
    not in Python: without a traceback. Where Ctrl-C is ignored (in the background), it still is."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def reexecute() -> None:
    """Returns where the requirements can be imported; elsewhere the same command goes on in `.venv`.

    Ends the process with status 3 and one line where there is no `.venv` yet, or where it lacks packages."""
    missing = [name for name in BASE.modules if not _importable(name)]
    if not missing:
        return
    if interpreter().exists() and not inside() and hasattr(sys, "orig_argv"):
        _execute()
    use_utf8()
    language_from(sys.argv[1:])
    try:
        require_python()
        text = _("The kit is not set up here yet ({package} is missing). This does it, in {folder}: {command}")
        package = missing[0].partition(".")[0]
        print(text.format(package=package, folder=ROOT, command=f"{python()} -m lab demo"), file=sys.stderr)
    except SetupError as error:
        print(error, file=sys.stderr)
    sys.exit(ENVIRONMENT_LACKS_SOMETHING)


def set_up(*groups: Group, wheels: Path | None = None) -> None:
    """Returns in `.venv` with the groups installed (and BASE always); elsewhere the same command goes on there.

    `wheels` is a folder that has them all: then no package index is asked. Raises SetupError."""
    require_python()
    if lacking(*groups):
        install(*groups, wheels=wheels)
    if not inside():
        _execute()
    importlib.invalidate_caches()


def lacking(*groups: Group) -> list[Group]:
    """Those of the groups, and of BASE, that are not installed as their files say now."""
    wanted = list(dict.fromkeys((BASE, *groups)))
    stamp = _read_stamp()
    if stamp.root != str(ROOT) or not interpreter().exists():
        return wanted
    return [group for group in wanted if stamp.installed.get(group.file) != _digest(group)]


def install(*groups: Group, wheels: Path | None = None) -> None:
    """Makes `.venv` where it has to be made, and installs the groups that are lacking. Raises SetupError."""
    try:
        VENV.mkdir(exist_ok=True)
        with _locked(), Progress() as progress:
            wanted = lacking(*groups)
            if wanted:  # else another terminal did it while this one waited
                _install(wanted, wheels, progress)
    except OSError as error:
        raise SetupError(_("Setting up failed: {error}").format(error=error)) from None


def download(folder: Path, *groups: Group) -> None:
    """Puts the groups' packages into the folder as wheels, with all that they need. Raises SetupError."""
    files = [argument for group in groups for argument in ("-r", str(ROOT / group.file))]
    with Progress() as progress:
        _pip(["download", "--only-binary=:all:", "--dest", str(folder), *files], progress, _Arrivals(progress).follow)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _execute() -> None:
    """The command that started this process, in the Python of `.venv`. Does not return."""
    command = [str(interpreter()), *sys.orig_argv[1:]]
    os.environ.pop("__PYVENV_LAUNCHER__", None)  # macOS' framework Python would lead the new one astray
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    process = subprocess.Popen(command)  # on Windows an exec'd program runs detached from the console's waiting shell
    while True:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:  # the program got it too, and answers it in its own way
            continue


# The stamp and the lock


class _Stamp(NamedTuple):
    root: str
    installed: dict[str, str]
    """Requirements file -> its digest when it was installed."""


def _read_stamp() -> _Stamp:
    try:
        content = json.loads(STAMP.read_text(encoding="utf-8"))
        return _Stamp(str(content["root"]), dict(content["installed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _Stamp("", {})


def _write_stamp(stamp: _Stamp) -> None:
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(json.dumps(stamp._asdict(), indent=2), encoding="utf-8")
    os.replace(unfinished, STAMP)


def _digest(group: Group) -> str:
    return hashlib.sha256((ROOT / group.file).read_bytes()).hexdigest()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One set-up at a time; the system lets go of the lock however the process ends."""
    with LOCK.open("a+b") as file:
        if not _try_lock(file):
            print(_("Another terminal is setting the kit up; waiting for it …"), file=sys.stderr)
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: two set-ups at once are unlikely enough there
        return True
    return True


# What is done, in order


def _install(groups: list[Group], wheels: Path | None, progress: Progress) -> None:
    stamp = _read_stamp()
    usable = _usable(stamp)
    if not usable and not can_make_environments():
        raise SetupError(ensurepip_advice())
    progress.say(_("Setting the kit up in {folder}, this once").format(folder=VENV))
    if not usable:
        _make_environment(progress)
        stamp = _Stamp("", {})
    others = {file: digest for file, digest in stamp.installed.items() if file not in {group.file for group in groups}}
    _write_stamp(_Stamp(str(ROOT), others))  # what is not touched stays usable, for other terminals too
    _remove_unfinished_packages()
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    files = [argument for group in groups for argument in ("-r", str(ROOT / group.file))]
    # Not compiled by pip: it would compile everything, for 15 seconds; what is imported below compiles itself.
    _pip(["install", "--no-compile", *source, *files], progress, _Arrivals(progress).follow)
    if BASE in groups:
        progress.doing(_("putting the kit's own packages on the path"))
        _pip(["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], progress)
    progress.doing(_("importing everything once"))
    _import_once(groups)
    _write_stamp(_Stamp(str(ROOT), {**others, **{group.file: _digest(group) for group in groups}}))
    progress.say(_("Ready"))


def _usable(stamp: _Stamp) -> bool:
    """Whether what is in `.venv` can be built upon: made here, complete, and new enough."""
    if stamp.root not in ("", str(ROOT)) or not interpreter().exists():
        return False
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    return subprocess.run([interpreter(), "-c", probe], capture_output=True).returncode == 0


def _make_environment(progress: Progress) -> None:
    for old in VENV.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old != LOCK:
            old.unlink()
    progress.doing(_("making the Python environment"))
    base = getattr(sys, "_base_executable", sys.executable)  # this may be the Python of a .venv that was moved here
    status, lines = run([base, "-m", "venv", "--prompt", "wire-lab", str(VENV)], progress)
    if status:
        raise SetupError(_("Python could not make an environment: {reason}").format(reason=_last_words(lines)))
    progress.say(_("Python {version} environment").format(version=".".join(map(str, sys.version_info[:3]))))


def can_make_environments() -> bool:
    return _importable("ensurepip") and _importable("venv")


def ensurepip_package() -> str:
    """Debian, Ubuntu and their kin ship Python without ensurepip; this package of theirs has it for this Python."""
    default = Path("/usr/bin/python3").resolve() == Path(sys.executable).resolve()
    return "python3-venv" if default else f"python3.{sys.version_info.minor}-venv"


def ensurepip_advice() -> str:
    """What to do where this Python cannot make environments."""
    if shutil.which("apt-get"):
        command = f"sudo apt-get install {ensurepip_package()}"
        advice = _("Install it, then start again: {command}").format(command=command)
    else:
        text = _("Install your system's package {package}, or Python from {address}")
        advice = text.format(package=ensurepip_package(), address=PYTHON_ADDRESS)
    text = _("This Python ({path}) comes without ensurepip, which makes environments. {advice}")
    return text.format(path=sys.executable, advice=advice)


def site_packages() -> list[Path]:
    return [*VENV.glob("lib/python3*/site-packages"), *VENV.glob("Lib/site-packages")]


def _remove_unfinished_packages() -> None:
    """pip writes INSTALLER and RECORD last; what lacks them was interrupted, and pip would take it for installed."""
    for folder in site_packages():
        for package in folder.glob("*.dist-info"):
            if not (package / "RECORD").exists() or not (package / "INSTALLER").exists():
                shutil.rmtree(package)


def _import_once(groups: list[Group]) -> None:
    """Proves that what was installed works, from a folder that is not the root, and leaves it compiled."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS")}
    code = "\n".join(f"import {module}" for group in groups for module in group.modules)

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [str(interpreter()), "-c", code]
        return subprocess.run(
            command, cwd=VENV, env=environment, capture_output=True, encoding="utf-8", errors="replace"
        )

    if run("import kit").returncode:
        # Python 3.11 on Windows reads .pth files in the console's code page, hatchling writes UTF-8: a root with ñ in
        # it is not found. A line that begins with "import" is run, and this one is ASCII whatever the path.
        for folder in site_packages():
            (folder / "wirelab-root.pth").write_text(f"import sys; sys.path.append({str(ROOT)!a})\n", "ascii")
    result = run("import kit\n" + code)
    if result.returncode:
        raise SetupError(
            _("A package was installed and does not work: {reason}").format(
                reason=_last_words(result.stderr.splitlines())
            )
        )


# pip, and what it says


_ARRIVAL = re.compile(r"\s*(?:Downloading|Using cached|Processing) (?P<file>\S+)(?: \((?P<size>[\d.]+ \w?B)\))?")
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|ConnectionResetError"
    r"|Failed to establish a new connection|Temporary failure in name resolution|getaddrinfo failed"
    r"|Network is unreachable|Connection refused|timed out"
)
_MISLEADING = ("PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PROGRESS_BAR")
"""Of the environment: would have pip install elsewhere, or write what nobody reads here."""


def _pip(arguments: list[str], progress: Progress, follow: Callable[[str], None] | None = None) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "3"]
    environment = {k: v for k, v in os.environ.items() if k not in _MISLEADING}
    environment |= {"PYTHONUNBUFFERED": "1", "PIP_USER": "0"}
    command = [str(interpreter()), "-m", "pip", *arguments, *options]
    status, lines = run(command, progress, environment=environment, follow=follow)
    with LOG.open("a", encoding="utf-8") as log:
        log.writelines(f"{line}\n" for line in lines)
    if not status:
        return
    if any(_NO_NETWORK.search(line) for line in lines):
        text = _(
            "The package index cannot be reached: connect this machine to the internet (behind a proxy, set "
            "HTTPS_PROXY) and start again; what has arrived is kept."
        )
        raise SetupError(text)
    text = _("pip could not install the packages: {reason} (all it said: {log})")
    raise SetupError(text.format(reason=_last_words(lines), log=LOG))


def _last_words(lines: list[str]) -> str:
    """The line that says most about a failure: pip's own errors, else the last one that says anything."""
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    told = [line.strip() for line in lines if line.strip() and not line.startswith("WARNING")]
    return (errors or told or [_("it did not say why")])[-1]


class _Arrivals:
    """Reads what pip says as it installs, and shows it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._arrived = 0

    def follow(self, line: str) -> None:
        arrival = _ARRIVAL.match(line)
        if arrival and not arrival["file"].endswith(".metadata"):
            name, _dash, rest = re.split(r"[\\/]", arrival["file"])[-1].partition("-")
            version = rest.partition("-")[0].removesuffix(".tar.gz")
            self._arrived += 1
            size = f", {arrival['size']}" if arrival["size"] else ""
            self._progress.doing(f"{self._arrived:3}  {name} {version}{size}")
        elif line.startswith("Installing collected packages: "):
            count = line.count(", ") + 1
            before = _installed()
            text = ngettext("installing {count} package", "installing {count} packages", count).format(count=count)
            self._progress.doing(text, lambda: f": {min(len(_installed() - before), count)}")


def _installed() -> set[str]:
    return {package.name for folder in site_packages() for package in folder.glob("*.dist-info")}
