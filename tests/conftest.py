"""What every test shares: where Chromium is, the order of the run, and honesty about skips."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = [
    "tests.fixtures.broker",
    "tests.fixtures.cluster",
    "tests.fixtures.wallet",
    "tests.fixtures.postgres",
    "tests.fixtures.log_files",
    "tests.fixtures.gateway",
    "tests.fixtures.hosting",
    "tests.fixtures.trading",
    "tests.fixtures.market",
]

ORACLES = Path(__file__).parents[1] / ".venv" / "oracles" / "bin"
ORACLE_TESTS = ("test_log_aics.py", "test_a2a_sdk.py")

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put browser tests last: Playwright's event loop stays open and async tests need their own."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what needs another Python beside ours, on a machine that has none."""
    return True if collection_path.name in ORACLE_TESTS and not ORACLES.exists() else None


def pytest_report_header() -> str | None:
    """Say so."""
    if ORACLES.exists():
        return None
    return f"not run: {', '.join(ORACLE_TESTS)} (no Python >= 3.12 here: make oracles)"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """On CI a skipped test is a failure: everything that a test may want is installed there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true" or exitstatus != pytest.ExitCode.OK:
        return
    if skipped := len(reporter.stats.get("skipped", [])):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.ensure_newline()
        reporter.write_line(f"CI=true, and {skipped} test(s) were skipped: see the reasons below.")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of an installed Chromium, or skip with the command that installs one."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def browser_type_launch_args(chromium: str) -> dict[str, Any]:
    """Make Playwright drive the installed Chromium, as root without its sandbox."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return {
        "executable_path": chromium,
        "args": ["--disable-dev-shm-usage", *(["--no-sandbox"] if as_root else [])],
    }
