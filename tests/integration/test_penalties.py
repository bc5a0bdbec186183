"""What leaving a deal costs, on the real ledger: the bail of a seller, the fee of a buyer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pytest

from agents.agent import Agent
from agents.errors import DeadlineError, NoDealError, SellerFailedError
from agents.negotiation import Line, Talk, agreement_of
from agents.recourse import HoldWatch
from agents.seller import Seller
from agents.sureties import PATIENCE_MS, Sureties
from agents.till import LedgerTill
from broker.ports import ThreadView
from rahba.messages import Body, Cfp, Decommit, Quote, open_message
from rahba.money import FALS_PER_RHB
from tests.fixtures.trading import BUYER, CLOCK, IDS, SKILL, Bazaar, Twisted, bazaar, seller_key
from wallet.account import Wallet
from wallet.ports import HoldView
from wallet.transactions import Bail, Challenge

__all__ = ["bazaar"]
PRICE = 2_000_000
PENALTY = PRICE // 10


class Deaf(Twisted):
    """Quotes, and is never heard of again."""

    deaf_to: ClassVar[frozenset[str]] = frozenset({"accept"})


class Greedy(Twisted):
    """Hears of an order and of nothing after it, and works for ever."""

    deaf_to: ClassVar[frozenset[str]] = frozenset({"accept", "decommit"})


class Unsigned(Twisted):
    """Quotes a penalty that it does not sign for."""

    twist = staticmethod(
        lambda body: msgspec.structs.replace(body, pledge=None) if isinstance(body, Quote) else body
    )


class Forging(Twisted):
    """Quotes a penalty with a signature that is none."""

    twist = staticmethod(
        lambda body: (
            msgspec.structs.replace(body, pledge="A" * 86 + "==")
            if isinstance(body, Quote)
            else body
        )
    )


async def stall(bazaar: Bazaar, name: str, *, money: int = FALS_PER_RHB, **terms: Any) -> Seller:
    """Open a stall whose owner can put something up."""
    signer = seller_key(name)
    if money:
        await Wallet(bazaar.ledger, signer, clock=CLOCK, ids=IDS).faucet(money)
    seller = await bazaar.open_stall(name, **terms)
    seller.backing_fals = FALS_PER_RHB
    return seller


async def fails(text: str) -> str:
    raise ValueError(text)


async def test_a_tendered_deal_has_the_sellers_bail_in_its_hold(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "amber", price=PRICE)
    bought = await bazaar.buy(mode="tender")
    (hold,) = await bazaar.holds()
    assert hold.bail == PENALTY
    account = await bazaar.ledger.account(seller.signer.did)
    assert account is not None
    assert account.held == PRICE - 1_000  # the price alone, while it may be challenged
    assert bought.paid_fals == PRICE


async def test_a_job_that_fails_costs_its_seller_the_penalty(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "amber", price=PRICE, work=fails)
    before = await bazaar.posted(BUYER.did), await bazaar.posted(seller.signer.did)
    with pytest.raises(SellerFailedError):
        await bazaar.buy(mode="tender")
    fee = 1_000
    assert await bazaar.posted(BUYER.did) == before[0] + PENALTY - fee
    assert await bazaar.posted(seller.signer.did) == before[1] - PENALTY


async def test_less_time_than_was_asked_for_costs_the_seller_nothing(bazaar: Bazaar) -> None:
    async def slow(text: str) -> str:
        await asyncio.sleep(5)
        return text

    seller = await stall(bazaar, "amber", price=PRICE, work=slow, latency_ms=4_000)
    before = await bazaar.posted(seller.signer.did)
    with pytest.raises((DeadlineError, SellerFailedError)):
        await bazaar.buy(mode="tender", within_ms=1_500)
    await seller.bench.idle()
    assert await bazaar.posted(seller.signer.did) == before


async def test_arguments_that_do_not_fit_cost_the_seller_nothing(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "amber", price=PRICE)
    before = await bazaar.posted(seller.signer.did)
    with pytest.raises(SellerFailedError):
        await bazaar.buy(mode="tender", args={"txet": "hello"})
    assert await bazaar.posted(seller.signer.did) == before
    (release,) = await bazaar.logged("release")
    assert release["forfeit"] == "0"


async def test_the_runner_up_takes_over_from_a_seller_that_does_not_show_up(
    bazaar: Bazaar,
) -> None:
    await stall(bazaar, "cheap", price=PRICE, kind=Deaf, latency_ms=1)
    await stall(bazaar, "dear", price=PRICE * 5 // 4, latency_ms=1)
    bought = await bazaar.buy(mode="tender", within_ms=9_000)
    assert bought.seller == seller_key("dear").did
    first, second = await bazaar.holds()
    assert (first.status, first.bail) == ("open", PENALTY)  # the ledger pays it out at its expiry
    assert second.status == "captured"


async def test_no_penalty_without_money_behind_it(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "poor", price=PRICE, money=0)
    with pytest.raises(SellerFailedError) as failed:
        await bazaar.buy(mode="tender")
    assert failed.value.facts["seller_code"] == "pledge_unbacked"
    seller.backing_fals = 0
    assert (await bazaar.buy(mode="tender")).paid_fals == PRICE
    assert [hold.bail for hold in await bazaar.holds()] == [0]


async def test_a_penalty_nobody_signed_for_is_no_penalty(bazaar: Bazaar) -> None:
    await stall(bazaar, "sly", price=PRICE, kind=Unsigned)
    with pytest.raises(SellerFailedError) as failed:
        await bazaar.buy(mode="tender")
    assert failed.value.facts["seller_code"] == "no_pledge"
    assert await bazaar.holds() == []


async def test_a_forged_pledge_opens_no_hold_and_the_next_seller_is_bought_from(
    bazaar: Bazaar,
) -> None:
    await stall(bazaar, "forger", price=PRICE, kind=Forging)
    with pytest.raises(SellerFailedError) as failed:
        await bazaar.buy(mode="tender")
    assert failed.value.facts["seller_code"] == "bad_pledge"
    await stall(bazaar, "dear", price=PRICE * 5 // 4)
    bought = await bazaar.buy(mode="tender")
    assert (bought.seller, bought.at_risk_fals) == (seller_key("dear").did, 0)
    assert [hold.payee for hold in await bazaar.holds()] == [bought.seller]


async def test_a_buyer_may_ask_for_a_penalty(bazaar: Bazaar) -> None:
    await stall(bazaar, "amber", price=PRICE)
    assert (await bazaar.buy(mode="tender", min_penalty=100)).agreed_fals == PRICE
    with pytest.raises(NoDealError):
        await bazaar.buy(mode="tender", min_penalty=101)


async def test_bargains_carry_the_penalty_from_either_side(bazaar: Bazaar) -> None:
    await stall(bazaar, "amber", price=PRICE, floor=PRICE // 2)
    bought = await bazaar.buy(mode="bargain", rounds=6)
    (hold,) = await bazaar.holds()
    assert 0 < hold.bail <= bought.agreed_fals // 10
    assert hold.bail >= bought.agreed_fals // 10 - 2  # whole fals, rounded down twice


@dataclass
class Opened:
    """A thread in which the seller has quoted to a buyer that the test plays."""

    bazaar: Bazaar
    line: Line
    raw: list[bytes]

    @property
    def talk(self) -> Talk:
        return self.line.talk

    async def say(self, body: Body) -> None:
        raw = self.line.write(body, reply_by=CLOCK.now_ms() + 20_000)
        ruling = await self.bazaar.broker.threads.post(raw)
        assert ruling.ok, ruling
        self.line.said(body, raw)

    async def view(self) -> ThreadView:
        view = await self.bazaar.broker.threads.get(self.talk.thread)
        assert view is not None
        return view

    async def heard(self) -> None:
        for _ in range(200):
            view = await self.view()
            if len(view.transcript) > len(self.raw):
                for raw in view.transcript[len(self.raw) :]:
                    self.raw.append(raw)
                    message = open_message(raw, me=None, now_ms=0)
                    if message.sender != BUYER.did:
                        self.line.heard(message, raw)
                if self.talk.phase == "quoted":
                    return
            await asyncio.sleep(0.02)
        raise AssertionError("the seller said nothing")

    async def hold(self) -> str:
        """Hold the money and the bail, without a word to the seller."""
        offer = self.talk.asks[-1]
        bail = Bail(amount=offer.penalty, until=offer.valid_until, signature=self.talk.pledge or "")
        agreement = agreement_of(self.talk, offer).digest()
        expires = CLOCK.now_ms() + 30_000
        answer = await self.bazaar.wallet.hold(
            self.talk.seller, offer.issues.price_fals, expires, agreement, bail=bail
        )
        return answer.id


async def opened(bazaar: Bazaar, seller: Seller) -> Opened:
    talk = Talk(thread=IDS.new(), buyer=BUYER.did, seller=seller.signer.did)
    found = Opened(bazaar, Line(talk, BUYER, clock=CLOCK, ids=IDS), [])
    cfp = Cfp(IDS.new(), SKILL, "tender", "ab" * 32, 10, CLOCK.now_ms() + 20_000)
    await found.say(cfp)
    await found.heard()
    return found


def watching(bazaar: Bazaar, seller: Seller, clock: Any) -> Sureties:
    till = LedgerTill(bazaar.ledger, seller.signer, clock=CLOCK, ids=IDS)
    return Sureties(
        seller.signer.did,
        ledger=bazaar.ledger,
        threads=bazaar.broker.threads,
        till=till,
        clock=clock,
    )


@dataclass
class Later:
    """The clock of somebody for whom time goes by."""

    by_ms: int = 0

    def now_ms(self) -> int:
        return CLOCK.now_ms() + self.by_ms

    def monotonic_ms(self) -> int:
        return self.now_ms()


async def test_a_hold_that_nobody_ordered_by_is_given_back_in_time(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "amber", price=PRICE)
    before, owned = await bazaar.posted(BUYER.did), await bazaar.posted(seller.signer.did)
    thread = await opened(bazaar, seller)
    hold = await thread.hold()
    clock = Later()
    sureties = watching(bazaar, seller, clock)
    assert await sureties.look() == []
    clock.by_ms = PATIENCE_MS
    assert await sureties.look() == [hold]
    assert await sureties.look() == []
    shown = await bazaar.ledger.hold(hold)
    assert shown is not None
    assert shown.status == "released"
    assert await bazaar.posted(BUYER.did) == before - 1_000  # the trick cost a fee
    assert await bazaar.posted(seller.signer.did) == owned


async def test_a_hold_with_its_order_is_left_alone(bazaar: Bazaar) -> None:
    seller = await stall(bazaar, "cheap", price=PRICE, kind=Deaf)
    clock = Later()
    sureties = watching(bazaar, seller, clock)
    with pytest.raises(DeadlineError):
        await bazaar.buy(mode="tender", within_ms=2_500)
    assert await sureties.look() == []
    clock.by_ms = PATIENCE_MS
    assert await sureties.look() == []
    (hold,) = await bazaar.holds()
    assert hold.status == "open"


async def working(bazaar: Bazaar) -> ThreadView:
    """Return the thread of the first deal once its order is there."""
    async with asyncio.timeout(5):
        while True:
            holds = await bazaar.holds()
            view = await bazaar.broker.threads.deal(holds[0].agreement) if holds else None
            if view is not None and view.state == "held":
                return view
            await asyncio.sleep(0.02)


async def leave(bazaar: Bazaar, view: ThreadView) -> None:
    """Say as the buyer that it leaves."""
    line = Line.resume(
        Talk(thread=view.id, buyer=BUYER.did, seller=view.seller),
        view.transcript,
        BUYER,
        clock=CLOCK,
        ids=IDS,
    )
    raw = line.write(Decommit(view.facts["agreement"]), reply_by=CLOCK.now_ms() + 5_000)
    assert (await bazaar.broker.threads.post(raw)).ok


async def test_a_buyer_that_leaves_a_held_deal_pays_the_penalty_and_no_more(
    bazaar: Bazaar,
) -> None:
    """Nor does it help to deny it afterwards: the seller has the buyer's own word."""
    done = asyncio.Event()

    async def slow(text: str) -> str:
        await done.wait()
        return text

    seller = await stall(bazaar, "amber", price=PRICE, work=slow)
    buying = asyncio.create_task(bazaar.buy(mode="tender"))
    await leave(bazaar, await working(bazaar))
    async with asyncio.timeout(5):
        await seller.bench.idle()  # nobody works on what nobody wants
    (hold,) = await bazaar.holds()
    for _ in range(250):
        if hold.status != "open":
            break
        await asyncio.sleep(0.02)
        (hold,) = await bazaar.holds()
    assert (hold.status, hold.captured) == ("captured", PENALTY)
    assert not done.is_set()
    buying.cancel()
    await asyncio.gather(buying, return_exceptions=True)
    await bazaar.wallet.do(Challenge, hold=hold.id)
    _ = await watching(bazaar, seller, CLOCK).look()
    (hold,) = await bazaar.holds()
    assert (hold.status, hold.captured) == ("captured", PENALTY)
    (shown,) = await bazaar.logged("deliver")
    assert shown["output"] is None


async def left_to(bazaar: Bazaar, *, takes: int) -> tuple[Seller, HoldView]:
    """Leave a deal whose seller takes so much of the hold; returns both."""
    seller = await stall(bazaar, "amber", price=PRICE, kind=Greedy)
    buying = asyncio.create_task(bazaar.buy(mode="tender"))
    await leave(bazaar, await working(bazaar))
    (hold,) = await bazaar.holds()
    buying.cancel()
    await asyncio.gather(buying, return_exceptions=True)
    till = LedgerTill(bazaar.ledger, seller.signer, clock=CLOCK, ids=IDS)
    await till.capture(hold.id, takes, "0" * 64, until_ms=hold.expires_ms)
    return seller, hold


async def test_a_buyer_that_left_does_not_challenge_what_it_owes(
    bazaar: Bazaar,
) -> None:
    _, hold = await left_to(bazaar, takes=PENALTY)
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    watch.watch(hold.id, hold.agreement)
    assert [await watch.look() for _ in range(3)] == [[], [], []]
    assert not watch._watched


async def test_a_seller_whose_buyer_left_takes_no_more_than_the_penalty(bazaar: Bazaar) -> None:
    seller, hold = await left_to(bazaar, takes=PRICE)
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    watch.watch(hold.id, hold.agreement)
    assert [await watch.look() for _ in range(2)] == [[], [hold.id]]
    _ = await watching(bazaar, seller, CLOCK).look()
    assert not await bazaar.logged("deliver")


async def test_a_hold_without_the_pledge_is_refused_before_the_work(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves would owe nothing, and could deny that it left."""
    await stall(bazaar, "amber", price=PRICE)
    hold = bazaar.wallet.hold

    async def bare(*args: Any, bail: Bail | None, **words: Any) -> Any:
        assert bail is not None
        return await hold(*args, **words)

    monkeypatch.setattr(bazaar.wallet, "hold", bare)
    with pytest.raises(SellerFailedError) as failed:
        await bazaar.buy(mode="tender")
    assert failed.value.facts["seller_code"] == "bad_hold"
    assert failed.value.facts["hold_status"] == "released"


def test_a_penalty_is_a_share_of_the_price() -> None:
    with pytest.raises(Exception, match="thousandths"):
        Agent("amber").offer(SKILL, price="1", penalty=1_001)(fails)
