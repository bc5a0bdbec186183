"""How long a newcomer waits: from the start of `rahba up` to the first settled deal.

An empty data folder in an installed environment; as soon as everything answers, one agent is
deployed and called over HTTP. The reference is the limit, ten seconds.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.rows import Row, row
from benchmarks.running import BenchMarket, BenchmarkFailedError, ask, bench_market, session

LIMIT_S = 10.0
PATIENCE_S = 60.0
CALL = {
    "skill": "text.summarise",
    "input": {"text": "The market opened early. Traders sold salt and dates. All were glad."},
    "budget": "50000000",
}


def run() -> list[Row]:
    """Measure one start; takes some seconds."""
    with bench_market() as market:
        ready_s = time.perf_counter() - market.started
        listed_s, settled_s = asyncio.run(_first_deal(market))
    parts = [
        ("startup: processes ready", ready_s),
        ("startup: then the first agent on the market", listed_s - ready_s),
        ("startup: then the first deal settled", settled_s - listed_s),
    ]
    name = "startup: `rahba up` to the first settled deal"
    whole = row(name, settled_s, "s", reference=LIMIT_S, target=1.0, at_most=True)
    return [whole, *(row(part, value, "s", reference=LIMIT_S) for part, value in parts)]


async def _first_deal(market: BenchMarket) -> tuple[float, float]:
    async with asyncio.timeout(PATIENCE_S), session(market) as web:
        body = {"template": "summarise", "name": "first", "config": {}}
        made = await ask(web, "POST", "/v1/deployments", body)
        while made["state"] == "pending":
            await asyncio.sleep(0.01)
            made = await ask(web, "GET", f"/v1/deployments/{made['id']}")
        if made["state"] != "running":
            raise BenchmarkFailedError(f"the first agent is {made['state']}: {made['error']}")
        listed_s = time.perf_counter() - market.started
        call = await ask(web, "POST", "/v1/calls", CALL)
        while call["state"] != "settled":
            await asyncio.sleep(0.01)
            call = await ask(web, "GET", f"/v1/calls/{call['id']}")
        return listed_s, time.perf_counter() - market.started
