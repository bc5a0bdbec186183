"""The examples run as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.job import Job, Terms
from agents.perform import Workbench
from agents.source import agents_in
from rahba.clock import SystemClock
from rahba.messages import Issues

EXAMPLES = Path(__file__).parents[2] / "examples"
CLOCK = SystemClock()


async def do(name: str, skill: str, issues: Issues, **args: Any) -> bytes:
    (agent,) = agents_in(EXAMPLES / name)
    terms = Terms("", skill, "", CLOCK.now_ms() + 5_000, issues=issues)
    bench = Workbench(1, 0, CLOCK)
    return (await bench.do(agent.offers[skill], args, Job(terms, clock=CLOCK))).output


async def test_a_function_works_as_the_tier_that_was_bought_says() -> None:
    text = "teh market is seperate"
    for quality, expected in ((500, b"the market is seperate"), (900, b"the market is separate")):
        output = await do("tiers.py", "text.proofread", Issues("1", quality=quality), text=text)
        assert expected in output


async def test_the_translator_translates() -> None:
    output = await do("translator.py", "text.translate", Issues("1"), text="good morning")
    assert b"bon matin" in output
