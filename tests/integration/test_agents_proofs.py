"""What sellers say they were paid is worth what the ledger shows: real deals, a real liar."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from agents.host import Host
from agents.member import Member, Surroundings
from agents.proofs import LedgerProofs, bears_out
from agents.routing import Arm, route
from api.ledger_http import serve
from benchmarks.market_anomalies import Teller
from broker.knowledge.endings import Ending
from broker.knowledge.outcomes import Evidence
from broker.observer import Observer
from broker.ports import Ruling, Threads
from rahba.envelope import Signer
from tests.fixtures.hosting import CLOCK, IDS, Souk, echo_agent, source_of, until
from tests.fixtures.serving import free_port, serving
from wallet.ports import HoldView
from wallet.transports.http import HttpLedger

pytestmark = pytest.mark.redis

SKILL = "text.echo"
PRICE = 2_000_000


class Boasting(Threads):
    """The threads as a liar's process has them: it notes ``times`` what it was paid."""

    def __init__(self, threads: Threads, times: int) -> None:
        self._threads, self._times = threads, times

    def __getattribute__(self, name: str) -> Any:
        if name in {"settle", "_threads", "_times"}:
            return super().__getattribute__(name)
        return getattr(self._threads, name)

    @override
    async def settle(self, thread: str, *, paid: int, tx: str) -> Ruling:
        return await self._threads.settle(thread, paid=self._times * paid, tx=tx)


@asynccontextmanager
async def watched(souk: Souk, ledger: Any = None) -> AsyncIterator[Observer]:
    """Run an observer of the feed that asks the ledger."""
    observer = Observer(souk.broker.feed, CLOCK, LedgerProofs(ledger or souk.ledger))
    running = asyncio.create_task(observer.run())
    try:
        yield observer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def liar(souk: Souk, host: Host, *, times: int = 1_000) -> Member:
    """Put a seller on the market that says it was paid so many times what it was."""
    member = Member(
        echo_agent(),
        Signer(b"a liar".ljust(32)),
        source_of(echo_agent()),
        Surroundings(
            replace(souk.broker, threads=Boasting(souk.broker.threads, times)),
            souk.ledger,
            host._courier,
            CLOCK,
            IDS,
            faucet=True,
        ),
    )
    await member.join()
    return member


async def settled_events(souk: Souk) -> list[dict[str, Any]]:
    return [
        event.data for _, event in await souk.broker.feed.tail(1_000) if event.kind == "settled"
    ]


async def test_a_price_that_a_seller_made_up_enters_neither_history_nor_forecast_nor_routing(
    souk: Souk,
) -> None:
    async with watched(souk) as observer, souk.host() as host:
        honest = await host.add(echo_agent(), source_of(echo_agent()))
        false = await liar(souk, host)
        for _ in range(3):
            for seller in (honest, false):
                deal = await souk.buy(SKILL, {"text": "a"}, agent=seller.did, mode="posted")
                assert await souk.settled(deal.thread) == "settled"
                assert deal.paid_fals == PRICE, "the ledger shows what was really paid"
        told = await settled_events(souk)
        assert {each["paid"] for each in told} == {str(PRICE), str(1_000 * PRICE)}
        history = None
        await until(lambda: (history := observer.history(SKILL)) and history.deals == 3)
        await asyncio.sleep(0.6)  # everything that was told has been asked for
        history = observer.history(SKILL)
        assert history is not None
        assert (history.deals, history.last) == (3, PRICE)
        prices = observer.prices(SKILL)
        assert prices is not None
        assert {prices.median, prices.forecast, prices.high, prices.naive} == {PRICE}
        assert observer.evidence(SKILL, honest.did).successes > 2.9
        assert observer.evidence(SKILL, false.did) == Evidence()
        arms = [
            Arm(each.did, PRICE, 0.5, observer.evidence(SKILL, each.did))
            for each in (false, honest)
        ]
        first = [route(arms, how="thompson", seed=seed).order[0] for seed in range(200)]
        assert sum(first) > 120, "what was made up earns no place"


async def test_who_understates_or_invents_a_whole_deal_teaches_nothing_either(souk: Souk) -> None:
    async with watched(souk) as observer, souk.host() as host:
        false = await liar(souk, host, times=0)
        deal = await souk.buy(SKILL, {"text": "a"}, agent=false.did, mode="posted")
        assert await souk.settled(deal.thread) == "settled"
        real = (await settled_events(souk))[0]
        assert real["hold"] == deal.hold
        for _, event in Teller().job("somebody", false.did, 9 * PRICE, skill=SKILL):
            await souk.broker.feed.publish(event.kind, event.data)
        for about in ({"seller": "another"}, {"agreement": "a" * 64}, {"hold": "b" * 64}):
            event = {**real, "paid": str(PRICE), **about}
            await souk.broker.feed.publish("settled", event)
        await asyncio.sleep(0.8)
        assert observer.history(SKILL) is None
        await souk.broker.feed.publish("settled", {**real, "paid": str(PRICE)})
        await until(lambda: observer.history(SKILL) is not None)


async def test_failures_count_only_where_money_was_held(souk: Souk) -> None:
    async with watched(souk) as observer, souk.host() as host:
        member = await host.add(echo_agent(), source_of(echo_agent()))
        for number in range(5):
            for _, event in Teller().job(
                f"b{number}", member.did, PRICE, skill=SKILL, end="failed"
            ):
                await souk.broker.feed.publish(event.kind, event.data)
        held = await souk.wallet.hold(member.did, PRICE, CLOCK.now_ms() + 60_000, f"{7:064x}")
        (accepted, ordered, failed) = Teller().job(
            "c", member.did, PRICE, skill=SKILL, end="failed"
        )
        accepted[1].data["agreement"], ordered[1].data["hold"] = f"{7:064x}", held.id
        for _, event in (accepted, ordered, failed):
            await souk.broker.feed.publish(event.kind, event.data)
        await until(lambda: observer.evidence(SKILL, member.did).failures > 0)
        assert observer.evidence(SKILL, member.did) == Evidence(0.0, 1.0)


async def test_while_the_ledger_is_away_deals_wait_and_count_late(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.observer._PAUSE_S", 0.1)
    port = free_port()
    async with (
        HttpLedger(f"http://127.0.0.1:{port}", patience_s=0.2) as ledger,
        watched(souk, ledger) as observer,
        souk.host() as host,
    ):
        await host.add(echo_agent(), source_of(echo_agent()))
        deal = await souk.buy(SKILL, {"text": "a"}, mode="posted")
        assert await souk.settled(deal.thread) == "settled"
        await until(lambda: len(observer._known.waiting) == 1)
        assert observer.history(SKILL) is None
        async with serving(partial(serve, souk.ledger, "127.0.0.1", port)):
            await until(lambda: observer.history(SKILL) is not None)


def test_a_hold_bears_out_its_own_story_and_no_other() -> None:
    hold = HoldView("h", "payer", "s", 100, 60, 0, "a", "captured")
    paid = Ending(0, "skill", "b", "s", "a", "h", 60)
    assert bears_out(hold, paid)
    for other in ({"seller": "t"}, {"agreement": "c"}, {"paid_fals": 59}, {"paid_fals": 61}):
        assert not bears_out(hold, msgspec.structs.replace(paid, **other))
    assert not bears_out(hold, msgspec.structs.replace(paid, paid_fals=None)), "it was taken"
    given_back = msgspec.structs.replace(hold, captured=0, status="released")
    assert bears_out(given_back, msgspec.structs.replace(paid, paid_fals=None))
    assert not bears_out(given_back, paid)


async def test_asking_costs_little_and_one_request_for_many(souk: Souk) -> None:
    payee = Signer(b"payee".ljust(32)).did
    held = await souk.wallet.hold(payee, 1, CLOCK.now_ms() + 60_000, f"{1:064x}")
    endings = [Ending(0, SKILL, "b", payee, f"{1:064x}", held.id) for _ in range(400)]
    async with (
        serving(partial(serve, souk.ledger, "127.0.0.1", 0)) as url,
        HttpLedger(url) as ledger,
    ):
        proofs = LedgerProofs(ledger)
        assert await proofs.borne_out(endings) == [True] * 400
        started = time.process_time()
        for _ in range(5):
            await proofs.borne_out(endings)
        each_s = (time.process_time() - started) / 2_000
    assert each_s < 100e-6, "client and ledger together"
