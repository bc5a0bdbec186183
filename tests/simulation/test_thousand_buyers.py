"""One seller and a thousand buyers at once: what is promised fits, and what is agreed is served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from agents import Agent
from agents.buyer import Buyer
from agents.errors import NoDealError, SellerFailedError
from agents.purchase import Purchase, Want
from broker.ports import ThreadView
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.messages import Refuse, open_message
from tests.fixtures.hosting import CLOCK, IDS, Souk, until
from tests.fixtures.market_messages import Talk
from wallet.account import Wallet

pytestmark = [pytest.mark.redis, pytest.mark.timeout(180)]

BUYERS: Final = 1_000
CAPACITY, BACKLOG = 24, 72
ROOM: Final = CAPACITY + BACKLOG
MONEY: Final = 10_000_000
SKILL = "food.cook"


@dataclass
class Kitchen:
    """An agent whose work waits until it is let go; counts who cooks at once."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    cooking: int = 0
    most: int = 0
    served: list[str] = field(default_factory=list)

    def agent(self) -> Agent:
        agent = Agent("kitchen", capacity=CAPACITY, backlog=BACKLOG)

        @agent.offer(SKILL, price="0.002", floor="0.001")
        async def cook(text: str) -> str:
            self.cooking += 1
            self.most = max(self.most, self.cooking)
            await self.go.wait()
            self.cooking -= 1
            self.served.append(text)
            return text

        return agent


async def customers(souk: Souk, count: int) -> list[Buyer]:
    """Return buyers with keys and accounts of their own."""
    keys = [Signer(f"buyer {number}".encode().ljust(32)) for number in range(count)]
    wallets = [Wallet(souk.ledger, key, clock=CLOCK, ids=IDS) for key in keys]
    await asyncio.gather(*(wallet.faucet(MONEY) for wallet in wallets))
    return [
        Buyer(key, wallet, souk.broker, souk.courier, clock=CLOCK, ids=IDS)
        for key, wallet in zip(keys, wallets, strict=True)
    ]


def wish(number: int, **more: Any) -> Want:
    fields = {
        "window_ms": 60_000,
        "turn_ms": 60_000,
        "within_ms": 100_000,
        "group": f"{number:032x}",
        **more,
    }
    return Want(skill=SKILL, args={"text": str(number)}, budget_fals=2_000_000, **fields)


async def all_at_once(
    buyers: list[Buyer], kitchen: Kitchen, **more: Any
) -> tuple[dict[int, Purchase], dict[int, RahbaError]]:
    """Let everybody buy at once; the kitchen opens when all who are to be refused were."""
    outcomes: dict[int, Purchase | RahbaError] = {}

    async def buy(number: int, buyer: Buyer) -> None:
        try:
            outcomes[number] = await buyer.buy(wish(number, **more))
        except RahbaError as error:
            outcomes[number] = error

    buying = [asyncio.create_task(buy(*item)) for item in enumerate(buyers)]
    await until(lambda: len(outcomes) >= len(buyers) - ROOM, within_s=120)
    kitchen.go.set()
    await asyncio.gather(*buying)
    bought = {who: one for who, one in outcomes.items() if isinstance(one, Purchase)}
    failed = {who: one for who, one in outcomes.items() if isinstance(one, RahbaError)}
    return bought, failed


async def threads_of(souk: Souk, count: int) -> list[ThreadView]:
    groups = await asyncio.gather(
        *(souk.broker.threads.group(f"{number:032x}") for number in range(count))
    )
    return [view for group in groups for view in group]


async def test_a_seller_who_bargains_with_a_thousand_buyers_keeps_its_promises_within_capacity(
    souk: Souk,
) -> None:
    kitchen = Kitchen()
    async with souk.hosting(kitchen.agent()) as member:
        buyers = await customers(souk, BUYERS)
        bought, failed = await all_at_once(buyers, kitchen, mode="bargain", rounds=4)

        # As many were agreed with as there was room for, and every one of them was served.
        assert len(bought) == ROOM
        assert sorted(kitchen.served) == sorted(str(who) for who in bought)
        assert all(bought[who].output == str(who) for who in bought)
        assert kitchen.most <= CAPACITY

        # Everybody else was told so, by a refusal in the thread, and it cost nothing.
        assert {type(error) for error in failed.values()} == {NoDealError}
        views = await threads_of(souk, BUYERS)
        agreed = [view for view in views if "agreement" in view.facts]
        assert len(views) == BUYERS
        assert len(agreed) == ROOM
        refusals = [view for view in views if "agreement" not in view.facts]
        assert {said(view) for view in refusals} == {"busy"}
        for view in agreed:
            assert await souk.settled(view.id) == "settled"
        types = await logged(souk)
        assert (types.count("hold"), types.count("capture")) == (ROOM, ROOM)

        # And now there is room again.
        assert (member.seller.bench.load, member.seller.bench.promised) == (0, 0)
        assert (await buyers[-1].buy(wish(BUYERS, mode="bargain"))).output == str(BUYERS)


async def test_of_a_thousand_who_take_the_posted_price_at_once_those_beyond_the_room_are_repaid(
    souk: Souk,
) -> None:
    kitchen = Kitchen()
    async with souk.hosting(kitchen.agent()):
        buyers = await customers(souk, BUYERS)
        bought, failed = await all_at_once(buyers, kitchen, mode="posted")
        assert len(bought) == ROOM == len(kitchen.served)
        assert kitchen.most <= CAPACITY
        assert {type(error) for error in failed.values()} == {SellerFailedError}
        assert {error.facts["seller_code"] for error in failed.values()} == {"busy"}
        assert {error.facts["at_risk_fals"] for error in failed.values()} == {"0"}
        types = await logged(souk)
        assert types.count("hold") == BUYERS
        assert types.count("capture") == ROOM
        assert types.count("release") == BUYERS - ROOM


@pytest.mark.long
async def test_buyers_who_ask_and_never_answer_keep_the_room_no_longer_than_their_deadline(
    souk: Souk,
) -> None:
    kitchen = Kitchen()
    kitchen.go.set()
    async with souk.hosting(kitchen.agent()) as member:
        bench, broker = member.seller.bench, souk.broker
        (buyer,) = await customers(souk, 1)
        talks = [Talk(seller=member.signer, mode="tender", rounds=1) for _ in range(ROOM)]
        for talk in talks:
            cfp = talk.opening(skill=SKILL, deadline_ms=2_500)
            assert (await broker.threads.post(talk.say(talk.buyer, cfp))).ok
        await until(lambda: bench.promised == ROOM)
        with pytest.raises(NoDealError):
            await buyer.buy(wish(1, mode="tender"))
        await until(lambda: bench.free, within_s=8)
        assert (await buyer.buy(wish(2, mode="tender"))).output == "2"


async def test_one_buyer_cannot_take_up_all_the_room_with_questions(souk: Souk) -> None:
    kitchen = Kitchen()
    kitchen.go.set()
    async with souk.hosting(kitchen.agent()) as member:
        bench, broker = member.seller.bench, souk.broker
        flooder = Signer(b"flooder".ljust(32))
        for _ in range(2 * ROOM):
            talk = Talk(buyer=flooder, seller=member.signer, mode="tender", rounds=1)
            assert (await broker.threads.post(talk.say(flooder, talk.opening(skill=SKILL)))).ok
        await until(lambda: bench.promised == ROOM // 2)
        (buyer,) = await customers(souk, 1)
        assert (await buyer.buy(wish(1, mode="tender"))).output == "1"
        assert bench.promised <= ROOM // 2


def said(view: ThreadView) -> str:
    body = open_message(view.transcript[-1], me=None, now_ms=0).body
    return body.code if isinstance(body, Refuse) else type(body).__name__


async def logged(souk: Souk) -> list[str]:
    types: list[str] = []
    while page := await souk.ledger.entries(len(types), 1_000):
        types += [str(entry.payload["type"]) for entry in page]
    return types


async def test_a_call_that_comes_again_and_again_frees_no_room(souk: Souk) -> None:
    """Or one could collect any number of firm quotes, and order more than the seller can do."""
    kitchen = Kitchen()
    async with souk.hosting(kitchen.agent()) as member:
        customer = Signer(b"who repeats itself".ljust(32))
        talks = [
            Talk(buyer=customer, seller=member.signer, mode="tender", rounds=1) for _ in range(6)
        ]
        for number, talk in enumerate(talks, 1):
            raw = talk.say(customer, talk.opening(skill=SKILL))
            for _ in range(4):
                await souk.broker.threads.post(raw)
                await asyncio.sleep(0.05)
            view = await souk.broker.threads.get(talk.thread)
            assert view is not None
            assert said(view) == "Quote"
            assert member.seller.bench.promised == number
        kitchen.go.set()
