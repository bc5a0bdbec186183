"""`rahba doctor` as people see it: marks, next steps, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from api import machine_checks
from api.cli.doctor import doctor
from api.machine_checks import Finding

BROKEN = Finding("clock", "broken", "it stands still", "wind it up")
WARNING = Finding("libraries", "warning", "one is older", "make setup")
FINE = Finding("python", "ok", "Python 3.11")


@pytest.mark.parametrize(("found", "code"), [([FINE, WARNING], 0), ([FINE, BROKEN, WARNING], 1)])
def test_it_ends_with_1_only_if_something_is_broken(
    found: list[Finding], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object) -> Iterator[Finding]:
        yield from found

    monkeypatch.setenv("RAHBA_DATA", str(tmp_path))
    monkeypatch.setattr(machine_checks, "check_machine", check)
    done = CliRunner().invoke(doctor)
    assert done.exit_code == code
    for finding in found:
        assert finding.detail in done.stdout
        assert finding.next is None or f"next: {finding.next}" in done.stdout
    assert ("1 broken" in done.stderr) is bool(code)
