"""`rahba mail` without a market says what to do; with one it is tested in tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli.mail import mail


@pytest.mark.parametrize("command", ["dead", "replay"])
def test_without_a_market_the_error_names_the_next_step(tmp_path: Path, command: str) -> None:
    env = {"RAHBA_DATA": str(tmp_path), "REDIS_URL": "", "CELERY_BROKER_URL": ""}
    done = CliRunner().invoke(mail, [command, "anybody", "--json"], env=env)
    error = json.loads(done.output)["error"]
    assert (done.exit_code, error["code"]) == (1, "no_market")
    assert "rahba up" in error["hint"]
