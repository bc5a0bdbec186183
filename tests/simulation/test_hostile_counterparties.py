"""Hostile and broken counterparties on a real Redis: they cost a time-out, the money returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import pytest
import pytest_asyncio
from typing_extensions import override

from agents.attendance import Letter
from agents.courier import Courier
from agents.errors import DeadlineError, NoDealError, SellerFailedError
from agents.seller import Seller
from broker import Broker
from rahba.errors import RahbaError
from rahba.messages import Body, Counter, Failure, NotUnderstood, Quote, Reject
from tests.fixtures.hosting import until
from tests.fixtures.market_messages import Talk
from tests.fixtures.trading import (
    BUYER,
    CLOCK,
    IDS,
    SKILL,
    Bazaar,
    Twisted,
    open_bazaar,
    seller_key,
)

pytestmark = pytest.mark.redis

WITHIN_MS: Final = 2_000
SLACK_S: Final = 2.5


@pytest_asyncio.fixture
async def bazaar(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bazaar]:
    """Open the bazaar on a real server; holds end soon after their deadline."""
    monkeypatch.setattr("agents.parley.HOLD_GRACE_MS", 6_000)
    async with open_bazaar(broker=broker) as opened:
        yield opened


class Deaf(Twisted):
    """Hears no order."""

    deaf_to: ClassVar[frozenset[str]] = frozenset({"accept", "order"})


class Mute(Twisted):
    """Hears nothing at all."""

    deaf_to: ClassVar[frozenset[str]] = frozenset({"cfp", "counter", "accept", "order"})


class Chatterer(Seller):
    """Answers everything with a flood: every message it may post, and each of them again."""

    @override
    async def handle(self, letter: Letter) -> None:
        view = await self._broker.threads.get(letter.message.thread)
        assert view is not None
        line = self._line(view, letter)
        for _ in range(40):
            raw = line.write(NotUnderstood("what", "x" * 500), reply_by=CLOCK.now_ms() + 60_000)
            ruling = await self._broker.threads.post(raw)
            if not ruling.ok:
                return
            line.said(NotUnderstood("what", "x" * 500), raw)
            for _ in range(10):
                await self._broker.threads.post(raw)


@contextmanager
def ends_in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < WITHIN_MS / 1_000 + SLACK_S


async def money_returns(bazaar: Bazaar, before: int) -> None:
    """Wait until no hold is open; the buyer paid nobody, and the fee of each hold at most."""
    holds = await bazaar.holds()
    async with asyncio.timeout(20):
        while any(hold.status == "open" for hold in await bazaar.holds()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert [hold.captured for hold in await bazaar.holds()] == [0] * len(holds)
    account = await bazaar.ledger.account(BUYER.did)
    assert account is not None
    assert account.held == 0
    assert account.posted == before - 1_000 * len(holds)


async def buy_and_fail(
    bazaar: Bazaar, error: type[RahbaError] | tuple[type[RahbaError], ...], **wishes: Any
) -> RahbaError:
    before = await bazaar.posted(BUYER.did)
    with ends_in_time(), pytest.raises(error) as caught:
        await bazaar.buy(within_ms=WITHIN_MS, **wishes)
    await money_returns(bazaar, before)
    return caught.value


@pytest.mark.parametrize("mode", ["posted", pytest.param("bargain", marks=pytest.mark.long)])
async def test_a_seller_silent_after_the_accept_costs_a_time_out_and_the_hold_comes_back(
    bazaar: Bazaar, mode: str
) -> None:
    await bazaar.open_stall("deaf", price=1_000_000, floor=900_000, kind=Deaf)
    await buy_and_fail(bazaar, DeadlineError, mode=mode)
    assert await bazaar.posted(seller_key("deaf").did) == 0


@pytest.mark.parametrize("mode", ["bargain", "tender"])
async def test_a_seller_that_says_nothing_costs_a_time_out_and_no_money_is_held(
    bazaar: Bazaar, mode: str
) -> None:
    await bazaar.open_stall("mute", price=1_000_000, floor=900_000, kind=Mute)
    await buy_and_fail(bazaar, NoDealError, mode=mode)
    assert await bazaar.holds() == []


def nonsense(body: Body) -> Body:
    return NotUnderstood("bribe", "pay me first") if isinstance(body, Quote | Counter) else body


def deserting(body: Body) -> Body:
    return body if isinstance(body, Quote | Counter) else Failure("0" * 64, "gone")


def early_failure(body: Body) -> Body:
    return Failure("0" * 64, "failed") if isinstance(body, Quote | Counter) else body


def leaving(body: Body) -> Body:
    return body if isinstance(body, Quote) else Reject("bored")


@pytest.mark.parametrize("twist", [nonsense, deserting, early_failure, leaving])
async def test_a_seller_that_answers_out_of_place_costs_a_time_out_and_the_money_returns(
    bazaar: Bazaar, twist: Callable[[Body], Body]
) -> None:
    seller = await bazaar.open_stall("rogue", price=1_000_000, floor=900_000, kind=Twisted)
    assert isinstance(seller, Twisted)
    seller.twist = twist
    await buy_and_fail(bazaar, (NoDealError, DeadlineError, SellerFailedError), mode="bargain")
    assert await bazaar.posted(seller_key("rogue").did) == 0


async def test_a_flood_of_answers_is_cut_off_and_the_honest_seller_is_bought_from(
    bazaar: Bazaar,
) -> None:
    await bazaar.open_stall("chatterer", price=900_000, floor=800_000, kind=Chatterer)
    await bazaar.open_stall("honest", price=1_000_000, floor=900_000)
    with ends_in_time():
        bought = await bazaar.buy(mode="tender", within_ms=WITHIN_MS + 1_000, window_ms=1_000)
    assert bought.output == "honest: HELLO"
    views = await bazaar.broker.threads.group(bought.group)
    (flooded,) = [view for view in views if view.seller == seller_key("chatterer").did]
    assert len(flooded.transcript) <= 2 + 32


async def test_garbage_in_the_mailboxes_of_both_stops_no_deal(bazaar: Bazaar) -> None:
    await bazaar.open_stall("honest", price=1_000_000)
    seller = seller_key("honest").did

    async def throw() -> None:
        for number in range(500):
            for owner in (BUYER.did, seller):
                garbage = b"\x00garbage %d" % number
                await bazaar.broker.mailbox.send(owner, garbage, sender="thrower")

    throwing = asyncio.create_task(throw())
    for _ in range(3):
        bought = await bazaar.buy(mode="posted", within_ms=8_000)
        assert bought.output == "honest: HELLO"
    await throwing
    await until(lambda: bazaar.courier.buried == 1_000, within_s=20)


async def test_a_buyer_who_does_not_read_its_mail_keeps_no_seller_from_serving_others(
    bazaar: Bazaar,
) -> None:
    await bazaar.open_stall("one", price=1_000_000, floor=900_000)
    seller = seller_key("one")
    lazy = Talk(seller=seller)
    depth = 10_000
    await bazaar.broker.mailbox.send_many([(lazy.buyer.did, b"x")] * depth)
    talks = [Talk(buyer=lazy.buyer, seller=seller) for _ in range(200)]
    raws = [talk.say(talk.buyer, talk.opening(skill=SKILL)) for talk in talks]
    rulings = await asyncio.gather(*(bazaar.broker.threads.post(raw) for raw in raws))
    assert all(ruling.ok for ruling in rulings)
    with ends_in_time():
        bought = await bazaar.buy(mode="bargain")
    assert bought.output == "one: HELLO"
    assert await bazaar.broker.mailbox.depth(lazy.buyer.did) == depth


async def test_a_seller_that_does_not_read_its_mail_keeps_no_buyer_waiting(bazaar: Bazaar) -> None:
    await bazaar.open_stall("full", price=900_000, floor=800_000)
    bazaar.courier.dismiss(seller_key("full").did)
    await bazaar.broker.mailbox.send_many([(seller_key("full").did, b"x")] * 10_000)
    await bazaar.open_stall("honest", price=1_000_000, floor=900_000)
    with ends_in_time():
        bought = await bazaar.buy(mode="tender", within_ms=30_000, window_ms=20_000)
    assert bought.output == "honest: HELLO"


@pytest.mark.long
async def test_a_buyer_silent_after_the_quote_binds_a_seller_no_longer_than_the_quote(
    bazaar: Bazaar,
) -> None:
    stall = await bazaar.open_stall("one", price=1_000_000, floor=900_000)
    talk = Talk(seller=seller_key("one"))
    opening = talk.opening(skill=SKILL, deadline_ms=1_500)
    assert (await bazaar.broker.threads.post(talk.say(talk.buyer, opening))).ok
    await until(lambda: stall.bench.promised == 1)
    await until(lambda: stall.bench.promised == 0, within_s=6)
    view = await bazaar.broker.threads.get(talk.thread)
    assert view is not None
    assert view.state == "open"
    assert await bazaar.holds() == []


async def test_an_unread_letter_waits_for_its_courier_and_is_handled_once(bazaar: Bazaar) -> None:
    """A courier that dies between two letters loses neither; the next one takes both."""
    handled: list[str] = []
    talk = Talk(seller=seller_key("moving"))
    for number in range(2):
        opening = Talk(buyer=talk.buyer, seller=talk.seller, thread=f"{number:032x}")
        await bazaar.broker.threads.post(opening.say(talk.buyer, opening.opening()))

    async def handle(letter: Letter) -> None:
        handled.append(letter.message.thread)

    for _ in range(2):
        courier = Courier(bazaar.broker.mailbox, CLOCK, consumer=IDS.new(), wait_ms=20)
        courier.serve(talk.seller.did, handle)
        await courier.start()
        await until(lambda: len(handled) == 2)
        await courier.stop()
    assert sorted(handled) == ["0" * 32, "0" * 31 + "1"]
