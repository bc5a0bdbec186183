"""`rahba demo --once --json`, as `make demo ARGS="--once --json"` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import psutil
import pytest

from api.demo import STAFF, purchases
from tests.fixtures.market import market_env

ROWS = {
    "skill",
    "buyer",
    "seller",
    "mode",
    "rounds",
    "asked_fals",
    "agreed_fals",
    "paid_fals",
    "receipt_verified",
    "inclusion_verified",
}


@pytest.mark.timeout(180)
def test_the_demo_settles_real_deals_verifies_them_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo", "--once", "--json"],
        env=market_env(tmp_path),
        capture_output=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3_000:]
    told = orjson.loads(done.stdout)
    assert set(told) == {"deals", "supply", "dashboard", "first_deal_s"}
    deals = told["deals"]
    assert all(set(deal) == ROWS for deal in deals)
    assert len(deals) >= 10
    assert sum(deal["mode"] == "tender" for deal in deals) >= 3
    assert sum(deal["mode"] == "bargain" and deal["rounds"] >= 2 for deal in deals) >= 4
    assert all(deal["receipt_verified"] and deal["inclusion_verified"] for deal in deals)
    assert all(deal["paid_fals"] == deal["agreed_fals"] for deal in deals)
    assert {deal["buyer"] for deal in deals} == {"you", "concierge"}
    assert told["supply"]["equal"]
    assert told["supply"]["issued"] == told["supply"]["sum"]
    assert told["dashboard"].startswith("http://127.0.0.1:")
    assert 0 < told["first_deal_s"] < 60
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["environ", "cmdline"])
        if str(tmp_path) in str(process.info)
    ]
    assert left == []


def test_the_demo_buys_what_its_staff_sells_in_all_three_ways() -> None:
    wanted = purchases()
    assert {each.mode for each in wanted} == {"posted", "tender", "bargain"}
    assert len(STAFF) >= 8
    assert sum(each.template == "summarise" for each in STAFF) >= 3
