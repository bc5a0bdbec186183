"""The Makefile sets everything up, and says plainly what it misses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As if make had not started this run.
OUTSIDE = {name: value for name, value in os.environ.items() if "MAKE" not in name}
OUTSIDE.pop("MFLAGS", None)
OUTSIDE.pop("ARGS", None)


def make(
    *arguments: str, folder: Path = ROOT, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run make; `path` is the PATH it sees."""
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**OUTSIDE, "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_a_new_enough_python_make_says_which_one_it_needs(tmp_path: Path) -> None:
    done = make("setup", "PYTHON=", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr


def test_make_passes_an_old_python_by_and_takes_the_first_that_is_new_enough(
    tmp_path: Path,
) -> None:
    for name in ("python3", "python3.13"):
        script(tmp_path / name, "exit 1")  # too old
    script(tmp_path / "python3.12", "exit 0")
    done = make("-n", "setup", f"VENV={tmp_path}/venv", path=f"{tmp_path}:/usr/bin:/bin")
    assert '"python3.12" -m venv' in done.stdout


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    python = script(tmp_path / "python3", "exit 1")
    done = make("setup", f"PYTHON={python}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


def test_a_changed_lock_is_installed_anew() -> None:
    done = make("--dry-run", "setup", "sum=changed")
    assert "--require-hashes --no-deps -r requirements-dev.lock" in done.stdout


def test_demo_passes_its_arguments_on() -> None:
    done = make("--dry-run", "demo", "ARGS=--once")
    assert ".venv/bin/rahba demo --once" in done.stdout


def test_every_target_is_explained_by_make_help() -> None:
    explained = make().stdout
    for target in ("demo", "up", "test", "test-long", "lint", "fmt", "bench", "lock", "clean"):
        assert f"make {target} " in explained


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_fresh_clone_sets_itself_up_once(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a repository to clone (Debian: apt-get install git)")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    done = make("setup", "dashboard", folder=clone)
    assert done.returncode == 0, done.stderr
    assert make("--question", "setup", "dashboard", folder=clone).returncode == 0, "nothing is left"
    shown = subprocess.run(
        [clone / ".venv/bin/rahba", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "demo" in shown.stdout


@pytest.mark.parametrize(("failing", "code"), [("none", 0), ("test", 1), ("test-long", 1)])
def test_the_ci_script_fails_when_either_run_fails(failing: str, code: int, tmp_path: Path) -> None:
    script(tmp_path / "make", f'echo "ran $1"; [ "$1" != {failing} ]')
    script(tmp_path / "apt-get", "exit 0")  # nothing is installed by a test
    done = subprocess.run(
        [ROOT / ".ci/run"],
        env={**OUTSIDE, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "ran test\n" in done.stdout
    assert "ran test-long\n" in done.stdout
