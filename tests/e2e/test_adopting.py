"""`rahba adopt`: an agent elsewhere is listed on a whole market, and again after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from api.cli.listings import adopt
from rahba.clock import SystemClock
from tests.fixtures.foreign_agents import stranger
from tests.fixtures.market import RunningMarket, market_env, running_market

CLOCK = SystemClock()


async def ask(market: RunningMarket, *words: str) -> Any:
    return await asyncio.to_thread(market.rahba, *words)


async def refused(market: RunningMarket, *words: str) -> dict[str, Any]:
    """Run a command that fails, and return the error that it prints."""
    command = [sys.executable, "-m", "api.cli", *words, "--json"]
    process = await asyncio.create_subprocess_exec(*command, env=market.env, stdout=-1, stderr=-1)
    printed, said = await process.communicate()
    assert process.returncode == 1, said
    error: dict[str, Any] = orjson.loads(printed or said)["error"]
    return error


def pid_of(market: RunningMarket, service: str) -> int:
    """Return the process of the market that runs ``rahba SERVICE``."""
    children = psutil.Process(market.process.pid).children()
    (found,) = [child.pid for child in children if child.cmdline()[-1] == service]
    return found


async def looked_at_after(market: RunningMarket, killed_ms: int) -> dict[str, Any]:
    """Return the one listing once its bridge has looked at the other end again."""
    async with asyncio.timeout(60):
        while True:
            shown: dict[str, Any]
            (shown,) = await ask(market, "ls", "listings")
            if shown["state"] == "listed" and shown["checked"] > killed_ms:
                return shown
            await asyncio.sleep(0.2)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_an_agent_is_adopted_bought_from_found_after_a_kill_and_let_go(
    tmp_path: Path,
) -> None:
    assert adopt.name == "adopt"
    env = market_env(tmp_path) | {"RAHBA_ALLOW_PRIVATE": "1"}
    async with stranger() as agent:
        with running_market(tmp_path, env) as market:
            made = await ask(market, "adopt", agent.url, "--price", "0.002", "--probe-seconds", "1")
            assert made["state"] == "listed"
            done = await ask(market, "call", "greet", "--arg", "text=you")
            assert done["output"]["text"] == "hello, you"
            assert done["paid_fals"] == "2000000"
            os.kill(pid_of(market, "host"), signal.SIGKILL)
            shown = await looked_at_after(market, CLOCK.now_ms())
            assert (shown["url"], shown["agent"]) == (agent.url, made["agent"])
            again = await ask(market, "call", "greet", "--arg", "text=again")
            assert again["output"]["text"] == "hello, again"
            table = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "api.cli", "ls", "listings"],
                env=market.env,
                capture_output=True,
                text=True,
                check=True,
            )
            assert "Greeter" in table.stdout
            assert "unsigned" in table.stdout
            error = await refused(market, "adopt", f"{agent.url}/nothing")
            assert error["code"] == "no_foreign_card"
            assert (await ask(market, "stop", "Greeter"))["state"] == "stopping"


async def test_a_market_adopts_nobody_on_its_own_machine_by_itself(market: RunningMarket) -> None:
    async with stranger() as agent:
        error = await refused(market, "adopt", agent.url)
        assert error["code"] == "unsafe_address"
        assert agent.shown == 0
