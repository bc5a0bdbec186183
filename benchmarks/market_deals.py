"""Whole tendered deals on a market of its own: asked, quoted, agreed, held, delivered, captured.

Five sellers on one host answer sealed tenders; one buyer in the benchmark's own process has
``AT_ONCE`` purchases under way, over the same Redis and the same ledger (HTTP, SQLite, every commit
durable). A deal counts when its money was captured and its receipt verified; the CPU is that of all
processes, the buyer's included. Deals go on without a pause: the blocks that are measured follow on
one another, and those that begin and end a run count for nothing.

    python -m benchmarks.market_deals
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import uvloop

from agents.buyer import Buyer
from agents.courier import Courier
from agents.purchase import Purchase, Want
from api.bootstrap import Links, linked, located, tune_for_dealing
from api.settings import Settings
from benchmarks.rows import Row, row
from benchmarks.running import BenchMarket, BenchmarkFailedError, bench_host, bench_market
from broker.ports import Query
from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.ids import RandomIds
from wallet.account import Wallet

SELLERS, AT_ONCE = 5, 64
SKILL = "bench.echo"
MONEY_FALS = 100 * 10**9
BUDGET_FALS = 1_000_000
LISTED_S = 30.0
CLOCK, IDS = SystemClock(), RandomIds()
AGENTS = """\
from agents import Agent


async def echo(text: str) -> str:
    "Give back what was said."
    return text
"""
ONE_MORE = """
seller{0} = Agent("bench-{0}", capacity=256, backlog=1024)
seller{0}.offer("bench.echo", price="0.000{1}", floor="0.0001")(echo)
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: deals in each of some blocks, after a warm-up."""

    warm_up: int = 200
    blocks: int = 5
    deals: int = 400


@dataclass(frozen=True, slots=True)
class Block:
    """Deals in a row: seconds on the wall, CPU seconds of market and buyer, how long each took."""

    wall_s: float
    cpu_s: float
    times_ms: list[float]


def run(size: Size | None = None) -> list[Row]:
    """Measure; takes about half a minute."""
    size = size or Size()
    tune_for_dealing()  # as the processes do in which others buy
    with bench_market() as market:
        file = market.data_dir / "bench_sellers.py"
        sellers = [ONE_MORE.format(number, number + 2) for number in range(SELLERS)]
        file.write_text(AGENTS + "".join(sellers), encoding="utf-8")
        with bench_host(market, file) as host:
            blocks = uvloop.run(_measure(market, host, size))
    return rows_of(blocks, size)


def rows_of(blocks: list[Block], size: Size) -> list[Row]:
    """Report medians of the blocks."""
    rate = statistics.median(size.deals / block.wall_s for block in blocks)
    cost = statistics.median(block.cpu_s / size.deals for block in blocks)
    times = sorted(time_ms for block in blocks for time_ms in block.times_ms)
    name = f"market: tendered deals, {SELLERS} sellers, {AT_ONCE} at once"
    return [
        row(name, rate, "1/s", target=300),
        row(f"{name}: CPU of all processes", cost * 1e3, "ms", target=5, at_most=True),
        row(f"{name}: p50", times[len(times) // 2], "ms"),
        row(f"{name}: p99", times[min(len(times) - 1, len(times) * 99 // 100)], "ms"),
    ]


async def _measure(market: BenchMarket, host: subprocess.Popen[bytes], size: Size) -> list[Block]:
    async with linked(located(Settings.read(market.env))) as links:
        await _until_listed(links)
        signer = Signer(secrets.token_bytes(32))
        wallet = Wallet(links.ledger, signer, clock=CLOCK, ids=IDS)
        await wallet.faucet(MONEY_FALS)
        courier = Courier(links.broker.mailbox, CLOCK, consumer="bench")
        await courier.start()
        try:
            buyer = Buyer(signer, wallet, links.broker, courier, clock=CLOCK, ids=IDS)
            return await _blocks(buyer, size, lambda: market.cpu_s(host) + time.process_time())
        finally:
            await courier.stop(grace_s=1.0)


async def _until_listed(links: Links) -> None:
    async with asyncio.timeout(LISTED_S):
        while len((await links.broker.directory.find(Query(skill=SKILL))).listings) < SELLERS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _blocks(buyer: Buyer, size: Size, cpu_s: Callable[[], float]) -> list[Block]:
    """Deal, ``AT_ONCE`` at a time; each deal must be settled, or nothing counts."""
    left = iter(range(size.warm_up + size.blocks * size.deals + AT_ONCE))
    times_ms: list[float] = []
    marks = [] if size.warm_up else [(time.perf_counter(), cpu_s())]

    async def buying() -> None:
        for number in left:
            begun = time.perf_counter()
            _check(await buyer.buy(_want(number)))
            ended = time.perf_counter()
            times_ms.append((ended - begun) * 1e3)
            counted = len(times_ms) - size.warm_up
            if counted >= 0 and counted % size.deals == 0:
                marks.append((ended, cpu_s()))

    await asyncio.gather(*(buying() for _ in range(AT_ONCE)))
    starts = range(size.warm_up, size.warm_up + size.blocks * size.deals, size.deals)
    return [
        Block(wall - wall_before, cpu - cpu_before, times_ms[start : start + size.deals])
        for start, (wall_before, cpu_before), (wall, cpu) in zip(
            starts, marks, marks[1:], strict=False
        )
    ]


def _want(number: int) -> Want:
    return Want(
        skill=SKILL, args={"text": f"deal {number}"}, mode="tender", budget_fals=BUDGET_FALS
    )


def _check(bought: Purchase) -> None:
    settled = bought.paid_fals == bought.agreed_fals and bought.receipt_verified
    if bought.mode != "tender" or not settled:
        raise BenchmarkFailedError(f"deal {bought.agreement} was not settled")


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
