"""What all tests share: captures that this project did not make, and a run in which nothing may be skipped.

CAPTURE_VECTORS   names a folder of captures and vectors by others (relative to where pytest is started). A test that
                  takes the fixture `vectors` (the folder) or `vector` (one file of it each time, chosen by
                  `@pytest.mark.vectors("third_party/**/*.pcap*")`) is collected only where the folder is.
WIRELAB_NO_SKIPS  set to 1, a skipped test is a failed one: the machine is said to have everything that tests need.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

os.environ["MINICHAT_LANG"] = "en"  # what the tests read on screens, wherever they run
os.environ["MPLBACKEND"] = "Agg"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background, and programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

FOLDER = Path(os.environ["CAPTURE_VECTORS"]).resolve() if os.environ.get("CAPTURE_VECTORS") else None
NO_SKIPS = os.environ.get("WIRELAB_NO_SKIPS") == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vectors(*patterns): one run for each file in CAPTURE_VECTORS that matches")
    if FOLDER is not None and not FOLDER.is_dir():
        raise pytest.UsageError(f"CAPTURE_VECTORS: no such folder: {FOLDER}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Octets by their number: written out they are no name, and where they hold a time (gzip) each parallel worker
    would collect tests of other names."""
    if isinstance(val, bytes) and not (val.isascii() and val.decode("ascii").isprintable()):
        return f"{len(val)} octets"
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("vectors")
    if marker is None or "vector" not in metafunc.fixturenames:
        return
    if FOLDER is None:
        metafunc.parametrize("vector", [None])  # one, that pytest_collection_modifyitems takes out
        return
    files = sorted({file for pattern in marker.args for file in FOLDER.glob(pattern) if file.is_file()})
    if not files:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {FOLDER} has no {' or '.join(marker.args)}")
    metafunc.parametrize("vector", files, ids=[file.relative_to(FOLDER).as_posix() for file in files])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FOLDER is not None:
        return
    without = [item for item in items if {"vectors", "vector"} & set(getattr(item, "fixturenames", ()))]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FOLDER is None:
        terminalreporter.write_line("CAPTURE_VECTORS is not set: tests on captures made by others are not collected.")


@pytest.fixture(scope="session")
def vectors() -> Path:
    assert FOLDER is not None, "only collected where CAPTURE_VECTORS is set"
    return FOLDER


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and WIRELAB_NO_SKIPS is set: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if NO_SKIPS and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and WIRELAB_NO_SKIPS is set: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
