"""A running market whose processes are killed at random: nothing acknowledged is lost, ever.

Buyers call through the gateway all the time, each with an idempotency key that it repeats until it
gets an answer. Meanwhile one process after the other is killed with SIGKILL. Afterwards the ledger
itself is asked: supply, holds, and what each agreement was paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from rahba.clock import SystemClock
from tests.fixtures.contracts import check_contracts
from tests.fixtures.market import RunningMarket, running_market

log = logging.getLogger(__name__)

ROUNDS = 30
BUYERS = 8
BACK_S = 90.0
DEADLINE_MS = 6_000
GRACE_S = 60
VICTIMS = ("ledger", "gateway", "host", "worker", "redis")
TEXT = "The market opened early. Traders sold salt and dates. Everyone praised the market. "
SELLERS = {
    "brief": "summarise",
    "terse": "summarise",
    "words": "keywords",
    "sums": "data-analyst",
}
CSV = "city,sales\nFes,3\nRabat,5\nFes,4\n"


@dataclass
class Account:
    """What the market told its buyers."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    @property
    def settled(self) -> int:
        """Return how many calls were answered as settled."""
        return sum(answer["state"] == "settled" for answer in self.answers.values())


def orders(rng: random.Random) -> dict[str, Any]:
    text = {"text": TEXT * rng.randint(1, 4)}
    skill, args = rng.choice(
        [
            ("text.summarise", text),
            ("text.keywords", text),
            ("data.analyse", {"table": CSV, "sql": "select city, sum(sales) from data group by 1"}),
        ]
    )
    mode = rng.choice(["posted", "tender", "bargain"])
    return {
        "skill": skill,
        "input": args,
        "budget": "50000000",
        "mode": mode,
        "deadline_ms": DEADLINE_MS,
    }


async def buy_for_ever(market: RunningMarket, account: Account, seed: int) -> None:
    rng = random.Random(seed)
    headers = key_of(market) | {"prefer": "wait=10"}
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(market.url, headers=headers, timeout=timeout) as web:
        while True:
            key, body = uuid.uuid4().hex, orders(rng)
            account.sent += 1
            await ask_until_answered(web, key, body, account)


async def ask_until_answered(
    web: aiohttp.ClientSession, key: str, body: dict[str, Any], account: Account
) -> None:
    """Repeat one call under its key until the market says how it stands or that it refuses."""
    while True:
        try:
            async with web.post("/v1/calls", json=body, headers={"idempotency-key": key}) as reply:
                answer = orjson.loads(await reply.read())
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
            await asyncio.sleep(0.1)
            continue
        if status in {200, 202}:
            account.answers[key] = answer
            return
        account.refused[f"{status} {answer.get('code')}"] += 1
        if "call" in answer:  # not the request failed, but the call that it placed
            account.answers[key] = {"id": answer["call"], "state": "failed"}
            return
        if status not in {409, 429, 502, 503, 504}:
            return
        await asyncio.sleep(0.2)


def victim(market: RunningMarket, name: str) -> psutil.Process | None:
    for process in psutil.Process(market.process.pid).children(recursive=False):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[-1:] == [name] or (
                name == "redis" and process.name() in {"valkey-server", "redis-server"}
            ):
                return process
    return None


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Return every process that works for the market of this folder, orphans included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            mine = process.environ().get("RAHBA_DATA") == str(data_dir)
            if mine or process.cwd().startswith(str(data_dir)):
                found.append(process)
    return found


async def kill_at_random(market: RunningMarket, rng: random.Random) -> Counter[str]:
    killed: Counter[str] = Counter()
    for _ in range(ROUNDS):
        await asyncio.sleep(rng.uniform(0.3, 2.5))
        name = rng.choice(VICTIMS)
        async with asyncio.timeout(30):
            while (process := victim(market, name)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        killed[name] += 1
    return killed


async def document(web: aiohttp.ClientSession, path: str) -> Any:
    async with web.get(path) as reply:
        assert reply.status == 200, (path, await reply.text())
        return orjson.loads(await reply.read())


async def ledger_entries(web: aiohttp.ClientSession) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    while page := await document(web, f"/v1/entries?start={len(entries)}&limit=1000"):
        entries += page
    return entries


async def settle_down(gateway: aiohttp.ClientSession, ledger: aiohttp.ClientSession) -> None:
    """Wait until the market is ready and every hold is resolved: at most its expiry."""
    async with asyncio.timeout(GRACE_S):
        while True:
            try:
                async with gateway.get("/readyz") as reply:
                    ready = reply.status == 200
                if ready and (await document(ledger, "/v1/supply"))["open_holds"] == 0:
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)


async def deploy(gateway: aiohttp.ClientSession, template: str, name: str) -> None:
    body = {"template": template, "name": name, "config": {}}
    async with gateway.post("/v1/deployments", json=body) as reply:
        assert reply.status in {201, 202}, await reply.text()
        made = orjson.loads(await reply.read())
    async with asyncio.timeout(30):
        while made["state"] == "pending":
            await asyncio.sleep(0.1)
            made = await document(gateway, f"/v1/deployments/{made['id']}")
    assert made["state"] == "running", made


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_thirty_kills_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    log.warning("SEED=%s", seed)
    with running_market(tmp_path) as market:
        ledger_url = f"http://{market.env['RAHBA_LEDGER']}"
        async with (
            aiohttp.ClientSession(market.url, headers=key_of(market)) as gateway,
            aiohttp.ClientSession(ledger_url) as ledger,
        ):
            for name, template in SELLERS.items():
                await deploy(gateway, template, name)
            account = Account()
            await trade_while_killing(market, account, seed)
            await settle_down(gateway, ledger)
            await check_calls(gateway, account)
            await check_ledger(gateway, ledger)
            assert await check_contracts(market) >= account.settled
            await check_sellers(gateway)
            await check_trade(gateway)
        report = await asyncio.to_thread(market.rahba, "ledger", "verify")
        assert report["problems"] == []
    assert processes_of(tmp_path) == []


async def trade_while_killing(market: RunningMarket, account: Account, seed: int) -> None:
    buyers = [asyncio.create_task(buy_for_ever(market, account, seed + n)) for n in range(BUYERS)]
    killed = await kill_at_random(market, random.Random(seed))
    with contextlib.suppress(TimeoutError):  # then too little was settled, which is asserted below
        async with asyncio.timeout(BACK_S):
            while account.settled < ROUNDS / 2:  # noqa: ASYNC110  # the market is another process
                await asyncio.sleep(0.2)
    await asyncio.sleep(2)
    for buyer in buyers:
        buyer.cancel()
    ended = await asyncio.gather(*buyers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    log.warning("killed %s; of %s calls refused %s", killed, account.sent, account.refused)
    assert set(killed) == set(VICTIMS)


async def check_calls(gateway: aiohttp.ClientSession, account: Account) -> None:
    """Whatever was acknowledged has come to an end, and what was delivered was paid for.

    Only a ledger that is away until a hold expires leaves a delivery unpaid.
    """
    ends: Counter[str] = Counter()
    for answer in account.answers.values():
        call = await ended_call(gateway, answer["id"])
        ends[call["state"]] += 1
        if answer["state"] == "settled":
            assert call["state"] == "settled", (answer, call)
        if call["state"] == "settled":
            assert call["output"], call
            assert call["receipt_verified"], call
            deal = await document(gateway, f"/v1/deals/{call['agreement']}")
            assert deal["state"] == "settled", deal
            assert deal["paid_fals"] == deal["agreed_fals"] == call["paid_fals"], (deal, call)
        elif call["state"] == "delivered":
            deal = await document(gateway, f"/v1/deals/{call['agreement']}")
            assert call["output"], call
            assert (deal["hold"]["status"], deal["hold"]["captured"]) == ("released", "0"), deal
        else:
            assert answer["state"] not in {"delivered", "settled"}, orjson.dumps((answer, call))
    log.warning("calls ended: %s", ends)
    assert ends["settled"] >= ROUNDS / 2
    assert ends["delivered"] <= BUYERS


async def ended_call(gateway: aiohttp.ClientSession, call_id: str) -> dict[str, Any]:
    deal: dict[str, Any] | None = None
    for _ in range(2 * GRACE_S):
        call: dict[str, Any] = await document(gateway, f"/v1/calls/{call_id}")
        if call["state"] in {"settled", "failed"}:
            return call
        if call["state"] == "delivered":
            deal = await document(gateway, f"/v1/deals/{call['agreement']}")
            if deal["hold"]["status"] == "released":
                return call
        await asyncio.sleep(0.5)
    raise AssertionError(orjson.dumps((call, deal)))


async def check_ledger(gateway: aiohttp.ClientSession, ledger: aiohttp.ClientSession) -> None:
    """Supply is exact, no hold is open, no agreement and no call was paid twice.

    What is held is what was captured and may be challenged yet; nobody had a reason to.
    """
    asked_ms = SystemClock().now_ms()
    supply = await document(ledger, "/v1/supply")
    assert supply["equal"]
    assert supply["issued"] == supply["total"]
    assert supply["open_holds"] == 0
    agreement_of: dict[str, str] = {}
    retained: list[tuple[int, int]] = []
    paid: dict[str, list[str]] = defaultdict(list)
    for entry in await ledger_entries(ledger):
        tx = entry["payload"]
        if tx.get("type") == "hold":
            agreement_of[entry["id"]] = tx["agreement"]
        if tx.get("type") == "capture" and tx["amount"] != "0":
            paid[agreement_of[tx["hold"]]].append(tx["amount"])
            until = (await document(ledger, f"/v1/holds/{tx['hold']}"))["deadline_ms"]
            retained.append((until, int(tx["amount"]) - int(tx["fee"])))
        assert tx.get("type") not in {"challenge", "deliver"}, tx
    least, most = (
        sum(amount for until, amount in retained if until > asked_ms + slack)
        for slack in (5_000, -5_000)
    )
    assert least <= int(supply["held"]) <= most
    assert paid
    assert {agreement: sums for agreement, sums in paid.items() if len(sums) > 1} == {}
    calls: Counter[str] = Counter()
    for agreement, amounts in paid.items():
        deal = await document(gateway, f"/v1/deals/{agreement}")
        assert (deal["state"], [deal["paid_fals"]]) == ("settled", amounts), deal
        calls[deal["group"]] += 1
    assert [group for group, times in calls.items() if times > 1] == []


async def check_sellers(gateway: aiohttp.ClientSession, names: Collection[str] = SELLERS) -> None:
    """Every deployed agent is back on the market."""
    async with asyncio.timeout(GRACE_S):
        while True:
            listed = await document(gateway, "/v1/agents?limit=100")
            if {agent["name"] for agent in listed["agents"]} == set(names):
                return
            await asyncio.sleep(0.5)


async def check_trade(gateway: aiohttp.ClientSession) -> None:
    """The market works as before: every skill is sold, in every mode."""
    rng = random.Random(0)
    sold: set[tuple[str, str]] = set()
    while len(sold) < 9:
        body = orders(rng) | {"deadline_ms": 20_000}
        await bought(gateway, body)
        sold.add((body["skill"], body["mode"]))


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_a_killed_supervisor_leaves_nothing_behind_and_the_next_start_goes_on(
    tmp_path: Path,
) -> None:
    body = {"skill": "text.summarise", "input": {"text": TEXT}, "budget": "50000000"}
    with running_market(tmp_path) as market:
        async with aiohttp.ClientSession(market.url, headers=key_of(market)) as gateway:
            await deploy(gateway, "summarise", "brief")
            first = await bought(gateway, body)
        assert len(processes_of(tmp_path)) > len(VICTIMS)
        market.process.kill()
        async with asyncio.timeout(12):
            while processes_of(tmp_path):  # noqa: ASYNC110  # they cannot call us
                await asyncio.sleep(0.1)
    with running_market(tmp_path, market.env) as again:
        async with aiohttp.ClientSession(again.url, headers=key_of(market)) as gateway:
            assert (await document(gateway, f"/v1/calls/{first['id']}"))["state"] == "settled"
            await check_sellers(gateway, {"brief"})
            assert (await bought(gateway, body))["seller"] == first["seller"]
    assert processes_of(tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_the_next_start_ends_what_a_killed_supervisor_could_not(tmp_path: Path) -> None:
    """Here its children are stopped (SIGSTOP), so that they cannot leave by themselves."""
    with running_market(tmp_path) as market:
        left = [process for process in processes_of(tmp_path) if process.pid != market.process.pid]
        for process in left:
            process.suspend()
        market.process.kill()
        market.process.wait()
        assert {process.pid for process in left} <= {one.pid for one in processes_of(tmp_path)}
    with running_market(tmp_path, market.env) as again:
        assert not any(process.is_running() for process in left)
        async with aiohttp.ClientSession(again.url, headers=key_of(again)) as gateway:
            await deploy(gateway, "summarise", "brief")
    assert processes_of(tmp_path) == []


def key_of(market: RunningMarket) -> dict[str, str]:
    return {"authorization": f"Bearer {market.api_key}"}


async def bought(gateway: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    async with gateway.post("/v1/calls", json=body) as reply:
        call: dict[str, Any] = orjson.loads(await reply.read())
        assert (reply.status, call.get("state")) == (200, "settled"), call
    return call
