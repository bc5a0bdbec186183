"""What payment costs: posted-price calls through the gateway, paid beside unpaid.

One agent file sells the same function twice, for a price and for nothing, on a market of its own.
Paid and unpaid blocks take turns at the same concurrency; what a block costs is the CPU of *all*
processes of the market (gateway, hosts, ledger, Redis, worker, supervisor), without what the idle
market costs in that time (it would hide the difference); the client's is not counted. Neighbouring
blocks make a pair, so that both met the same machine; the median pair is reported.

    python -m benchmarks.gateway
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import orjson

from benchmarks.rows import Row, row
from benchmarks.running import BenchMarket, ask, bench_host, bench_market, session

PAIRS = 7
CALLS = 200
IDLE_S = 4.0
WARM_UP = 150
AT_ONCE = 16
LIMIT = 2.0
LISTED_S = 15.0
PAID, FREE = "bench.paid", "bench.free"
AGENT = """\
from agents import Agent

agent = Agent("bench", capacity=256)


async def echo(text: str) -> str:
    "Give back what was said."
    return text


agent.offer("bench.paid", price="0.0001")(echo)
agent.offer("bench.free", price="0")(echo)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Some calls of one kind: CPU seconds of the market, seconds, and each call's time."""

    cpu_s: float
    wall_s: float
    times_ms: list[float]


def run() -> list[Row]:
    """Measure; takes about a minute."""
    with bench_market() as market:
        file = market.data_dir / "bench_agent.py"
        file.write_text(AGENT, encoding="utf-8")
        with bench_host(market, file) as host:
            paid, free = asyncio.run(_measure(market, host))
    return rows_of(paid, free)


def rows_of(paid: list[Block], free: list[Block]) -> list[Row]:
    """Compare blocks that took turns, pair by pair."""
    costs = [
        (one.cpu_s / CALLS, other.cpu_s / CALLS) for one, other in zip(paid, free, strict=True)
    ]
    cost, reference = sorted(costs, key=lambda pair: pair[0] / pair[1])[len(costs) // 2]
    rows = [
        row(
            "gateway: CPU of a paid call, beside the same call unpaid",
            cost * 1e3,
            "ms",
            reference=reference * 1e3,
            target=LIMIT,
            at_most=True,
        ),
        row(
            f"gateway: paid calls at {AT_ONCE} at once, beside unpaid",
            statistics.median(CALLS / block.wall_s for block in paid),
            "1/s",
            reference=statistics.median(CALLS / block.wall_s for block in free),
        ),
    ]
    for name, part in (("p50", 50), ("p99", 99)):
        value, beside = (_percentile(blocks, part) for blocks in (paid, free))
        label = f"gateway: paid call {name}, beside unpaid"
        rows.append(row(label, value, "ms", reference=beside))
    return rows


async def _measure(
    market: BenchMarket, host: subprocess.Popen[bytes]
) -> tuple[list[Block], list[Block]]:
    async with session(market) as web:
        await _until_listed(web)
        blocks: dict[str, list[Block]] = {PAID: [], FREE: []}
        for skill in blocks:
            await _block(web, skill, WARM_UP)
        idle = await _idle(market, host)
        for number in range(PAIRS):
            order = (PAID, FREE) if number % 2 else (FREE, PAID)
            for skill in order:
                cpu_s, begun = market.cpu_s(host), time.perf_counter()
                times_ms = await _block(web, skill, CALLS)
                wall_s = time.perf_counter() - begun
                spent_s = market.cpu_s(host) - cpu_s - idle * wall_s
                blocks[skill].append(Block(spent_s, wall_s, times_ms))
    return blocks[PAID], blocks[FREE]


async def _idle(market: BenchMarket, host: subprocess.Popen[bytes]) -> float:
    """Return what the market costs while nobody calls, in CPU seconds a second."""
    cpu_s, begun = market.cpu_s(host), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    return (market.cpu_s(host) - cpu_s) / (time.perf_counter() - begun)


async def _until_listed(web: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(LISTED_S):
        while not (await ask(web, "GET", f"/v1/agents?skill={FREE}"))["agents"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _block(web: aiohttp.ClientSession, skill: str, count: int) -> list[float]:
    """Make ``count`` calls, ``AT_ONCE`` at a time; each must be settled, or nothing counts."""
    left = iter(range(count))
    times_ms: list[float] = []

    async def caller() -> None:
        for number in left:
            body = {"skill": skill, "input": {"text": f"call {number}"}, "budget": "1000000"}
            begun = time.perf_counter()
            call = await ask(web, "POST", "/v1/calls", body | {"mode": "posted"})
            times_ms.append((time.perf_counter() - begun) * 1e3)
            paid = call["paid_fals"] != "0"
            assert (call["state"], paid) == ("settled", skill == PAID), call

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return times_ms


def _percentile(blocks: list[Block], part: int) -> float:
    times = sorted(time_ms for block in blocks for time_ms in block.times_ms)
    return times[min(len(times) - 1, len(times) * part // 100)]


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
