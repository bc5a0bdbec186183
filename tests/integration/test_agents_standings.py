"""Jobs of agents on a host choose whom to ask by what sellers have earned in the ledger's log."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from agents import Agent, Job
from agents.host import Host, host_folder, name_for
from agents.member import Member
from api.bootstrap import REPUTATIONS, run_host
from api.ledger_http import serve
from api.settings import Settings
from broker.ports import Query
from rahba.envelope import Signer
from rahba.money import FALS_PER_RHB
from tests.fixtures.hosting import CLOCK, IDS, Souk, echo_agent, source_of, until
from tests.fixtures.serving import serving
from wallet.account import Wallet
from wallet.outcomes import OutcomeLog
from wallet.reputation import Reputations

pytestmark = pytest.mark.redis

EXAMPLE = Path(__file__).parents[2] / "examples" / "translator.py"
SELLERS = 9  # one more than a buyer asks


def messenger() -> Agent:
    """Return an agent whose jobs buy."""
    agent = Agent("messenger")

    @agent.offer("errand.run", price="0.01")
    async def run(text: str, job: Job) -> str:
        return str(await job.call("text.echo", {"text": text}, budget="0.005"))

    return agent


async def opened(host: Host, count: int) -> list[Member]:
    """Put sellers of the same service at the same price on the market, in order of their keys."""
    members = [
        await host.add(echo_agent(), source_of(echo_agent()), key=f"parrot {number}")
        for number in range(count)
    ]
    return sorted(members, key=lambda member: member.did)


async def asked(souk: Souk, market: list[Member]) -> set[int]:
    """Have an errand run; returns which of the sellers were asked."""
    before = [event_id for event_id, _ in await souk.broker.feed.tail(1)]
    deal = await souk.buy("errand.run", {"text": "salam"}, mode="posted")
    assert deal.output == "salam"
    told = [event for event_id, event in await souk.broker.feed.tail(1_000) if [event_id] > before]
    opened = [event for event in told if event.kind == "negotiation.opened"]
    sellers = {str(event.data["sellers"][0]) for event in opened}  # type: ignore[index, call-overload]
    return {place for place, member in enumerate(market) if member.did in sellers}


async def earn(souk: Souk, seller: Signer, *, deals: int) -> None:
    """Let a seller keep deals with customers of its own."""
    till = Wallet(souk.ledger, seller, clock=CLOCK, ids=IDS)
    for number in range(deals):
        payer = Signer(f"{number} {seller.did[-24:]}".encode().ljust(32)[:32])
        wallet = Wallet(souk.ledger, payer, clock=CLOCK, ids=IDS)
        await wallet.faucet(FALS_PER_RHB)
        held = await wallet.hold(seller.did, 10_000, CLOCK.now_ms() + 60_000, f"{number:064x}")
        assert (await till.capture(held.id, 10_000)).ok


async def test_a_job_asks_those_who_have_earned_it_and_not_whoever_is_named_first(
    souk: Souk, tmp_path: Path
) -> None:
    file = tmp_path / "reputation.json"
    standings = Reputations(souk.ledger, file=file)
    async with souk.host(standings=standings) as host:
        market = await opened(host, SELLERS)
        await host.add(messenger(), source_of(messenger()))
        assert 0 in await asked(souk, market), "while nobody has earned anything, order is by name"
        for member in market[1:]:
            await earn(souk, member.signer, deals=2)
        await until(lambda: min(standings.lower_bound(each.did) for each in market[1:]) > 100)
        assert standings.lower_bound(market[0].did) < 100
        assert await asked(souk, market) == set(range(1, SELLERS))
    assert OutcomeLog.load(file.read_bytes()).size == standings.basis.size > 0


async def test_the_host_that_is_composed_follows_the_log_and_begins_where_the_gateway_is(
    souk: Souk, empty_redis: str, tmp_path: Path
) -> None:
    await earn(souk, Signer(b"a seller of old".ljust(32)), deals=3)
    gateway = Reputations(souk.ledger, file=tmp_path / "gateway" / REPUTATIONS)
    await gateway.catch_up()
    await gateway.save()
    door = partial(serve, souk.ledger, "127.0.0.1", 0, log=souk.ledger.log)
    async with serving(door) as url:
        settings = Settings.read(
            {
                "RAHBA_DATA": str(tmp_path),
                "REDIS_URL": empty_redis,
                "RAHBA_LEDGER_URL": url,
                "CELERY_BROKER_URL": empty_redis,
            }
        )
        stop = asyncio.Event()
        host = asyncio.create_task(run_host(settings, [EXAMPLE], stop))
        async with asyncio.timeout(20):
            while not (await souk.broker.directory.find(Query(skill="text.translate"))).listings:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await earn(souk, Signer(b"a seller of now".ljust(32)), deals=1)
        await asyncio.sleep(2.5)  # the log is read every two seconds
        stop.set()
        await host
    kept = OutcomeLog.load((host_folder(tmp_path, name_for([EXAMPLE])) / REPUTATIONS).read_bytes())
    assert kept.size > gateway.basis.size > 0
