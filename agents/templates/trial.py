"""What a template's self-test does: sells itself one job, outside the market, and looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from agents.agent import Agent
from agents.perform import try_offer
from agents.template import SelfTestError
from rahba.errors import RahbaError


async def prove(
    agent: Agent, skill: str, args: dict[str, Any], holds: Callable[[Any], bool]
) -> None:
    """Run one offer and check its output.

    Raises:
        SelfTestError: the offer failed, or ``holds`` does not hold for its output.
    """
    try:
        output = orjson.loads(await try_offer(agent, skill, args))["output"]
    except RahbaError as error:
        raise SelfTestError(f"{skill}: {error.message}", cause=error.code) from error
    if not holds(output):
        raise SelfTestError(f"{skill} gives a wrong result")
