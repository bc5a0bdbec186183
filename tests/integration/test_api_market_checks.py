"""`rahba doctor` beside a running market: well when all is, and exact about what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from api.market import Whereabouts
from api.market_checks import check_broker, check_gateway, check_ledger, check_market
from api.settings import Settings
from rahba.clock import SystemClock
from tests.fixtures.market import RunningMarket, running_market
from tests.fixtures.serving import free_port


def doctor(env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor", "--json"],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, orjson.loads(done.stdout)


def states(report: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["state"] for finding in report["findings"]}


async def test_a_market_that_is_well_has_nothing_broken(market: RunningMarket) -> None:
    code, report = doctor(market.env)
    found = states(report)
    parts = ("market", "processes", "gateway", "ledger", "witnesses", "broker")
    assert {found[name] for name in parts} == {"ok"}
    assert [one for one in report["findings"] if one["state"] == "broken"] == []
    assert (code, report["ok"]) == (0, True)


@pytest.mark.long
def test_a_ledger_that_does_not_answer_is_found(tmp_path: Path) -> None:
    with running_market(tmp_path) as market:
        children = psutil.Process(market.process.pid).children()
        ledger = next(child for child in children if child.cmdline()[-1] == "ledger")
        ledger.send_signal(signal.SIGSTOP)
        try:
            code, report = doctor(market.env)
        finally:
            ledger.send_signal(signal.SIGCONT)
        broken = {one["check"]: one for one in report["findings"] if one["state"] == "broken"}
        assert (code, report["ok"]) == (1, False)
        assert set(broken) == {"ledger", "gateway"}
        assert "rahba logs ledger" in broken["ledger"]["next"]


async def test_without_a_market_the_next_step_is_to_start_one(tmp_path: Path) -> None:
    settings = Settings.read({"RAHBA_DATA": str(tmp_path)})
    (finding,) = [one async for one in check_market(settings, SystemClock())]
    assert finding.state == "ok"
    assert "rahba up" in str(finding.next)


@pytest.mark.long
async def test_parts_that_are_away_are_broken_within_seconds() -> None:
    away = f"127.0.0.1:{free_port()}"
    redis = f"redis://{away}/0"
    where = Whereabouts(os.getpid(), "/nowhere", redis, redis, f"http://{away}", f"http://{away}")
    assert (await check_gateway(where.gateway_url)).state == "broken"
    assert (await check_ledger(where.ledger_url)).state == "broken"
    found = [one async for one in check_broker(where, SystemClock())]
    assert [(one.check, one.state) for one in found] == [("broker", "broken")]


async def test_heavy_jobs_that_nobody_takes_are_found(redis_url: str) -> None:
    from api.market_checks import MAX_QUEUE
    from api.worker import QUEUE
    from broker.transports.redis.wire import Wire

    wire = Wire(redis_url)
    try:
        await wire.call("RPUSH", QUEUE, *["job"] * (MAX_QUEUE + 1))
        here = "http://127.0.0.1:1"
        where = Whereabouts(os.getpid(), "/nowhere", redis_url, redis_url, here, here)
        found = {one.check: one async for one in check_broker(where, SystemClock())}
    finally:
        await wire.close()
    assert found["broker"].state == "ok"
    assert found["workers"].state == "broken"
    assert found["agents"].state == "warning"
