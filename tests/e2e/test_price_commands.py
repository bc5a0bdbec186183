"""`rahba prices` and `rahba call --route` on a real market."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from api.cli import prices
from tests.fixtures.market import RunningMarket

pytestmark = pytest.mark.timeout(120)
TEXT = "text=The market opened early and everyone praised it."


def say(market: RunningMarket, *arguments: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env=market.env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.decode(), done.stderr.decode()


def priced(market: RunningMarket, skill: str, deals: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(50):
        found = market.rahba("prices", skill)
        if found["deals"] >= deals:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.long
def test_a_routed_call_is_followed_by_its_price_and_a_forecast(market: RunningMarket) -> None:
    for name, price in (("low", "0.002"), ("high", "0.003")):
        market.rahba("deploy", "sentiment", "--name", name, "--price", price)
    bought = market.rahba("call", "text.sentiment", "--arg", TEXT, "--route", "cheapest")
    assert bought["routing"]["how"] == "cheapest"
    assert bought["seller"] == bought["routing"]["cheapest"]
    found = priced(market, "text.sentiment", 1)
    assert found["last_fals"] == bought["paid_fals"]
    assert found["forecast"]["steps"][0]["naive_fals"]
    shown, errors = say(market, "prices", "text.sentiment")
    assert "expected from" in shown
    assert "mean absolute errors" in errors
    _, told = say(market, "call", "text.sentiment", "--arg", TEXT, "--route", "thompson")
    assert "the cheapest" in told
    assert "by the draw" in told
    dear = max(bought["routing"]["order"], key=lambda each: int(each["price_fals"]))["seller"]
    chosen = market.rahba("call", "text.sentiment", "--arg", TEXT, "--agent", dear)
    assert chosen["seller"] == dear
    for name in ("low", "high"):
        market.rahba("stop", name)


def test_a_skill_that_nobody_bought_is_said_to_be_so(market: RunningMarket) -> None:
    shown, _ = say(market, "prices", "never.sold")
    assert shown.strip() == "nobody has bought never.sold yet"
    assert market.rahba("prices", "never.sold")["forecast"] is None
    assert prices.prices.name == "prices"
