"""What a seller refuses: orders that are not what was agreed, or not secured; nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from agents import Agent
from agents.attendance import Letter
from agents.errors import NoDealError, SellerFailedError
from agents.member import Member
from agents.negotiation import build_agreement, pack_input, seal_goods, sign_agreement
from agents.order import MAX_DEADLINE_MS
from broker.ports import ThreadView
from rahba.encoding import sha256_hex
from rahba.envelope import Signer
from rahba.messages import (
    Accept,
    Cfp,
    Failure,
    Message,
    Offer,
    Order,
    Refuse,
    open_message,
    seal_message,
)
from tests.fixtures.hosting import CLOCK, CUSTOMER, IDS, Souk, until
from wallet.transactions import Arbitration

pytestmark = pytest.mark.redis

PRICE = 2_000_000
GRACE_MS = 15_000


def grocer(**terms: Any) -> tuple[Agent, list[str]]:
    agent, sold = Agent("grocer"), []

    @agent.offer("food.sell", price="0.002", floor="0.001", **terms)
    async def sell(text: str) -> str:
        sold.append(text)
        return text

    return agent, sold


FRIEND = Signer(b"the buyer's friend".ljust(32)).did


@dataclass
class Attempt:
    """An order as a buyer would make it, to be spoilt by a test before it is sent."""

    souk: Souk
    member: Member
    posted: Offer
    thread: str
    cfp: Cfp
    order: Order
    signer: Signer = CUSTOMER

    async def hold(self, **changes: Any) -> str:
        """Hold the price as agreed, but for ``changes``."""
        terms = {
            "payee": self.member.did,
            "amount": PRICE,
            "expires_ms": self.order.deadline + GRACE_MS,
            "agreement": self.order.agreement,
        }
        return (await self.souk.wallet.hold(**{**terms, **changes})).id

    async def send(self, **changes: Any) -> ThreadView:
        """Post the accept with its order, but for ``changes``; returns the thread at rest."""
        await self.post(**changes)
        await self.souk.settled(self.thread)
        return await self.view()

    async def view(self) -> ThreadView:
        view = await self.souk.broker.threads.get(self.thread)
        assert view is not None
        return view

    async def post(self, **changes: Any) -> Letter:
        """Post the accept with its order, but for ``changes``; returns what the seller gets."""
        order = msgspec.structs.replace(self.order, **changes)
        message = Message(
            id=IDS.new(),
            thread=self.thread,
            seq=1,
            prev=None,
            sender=self.signer.did,
            to=self.member.did,
            ts=CLOCK.now_ms(),
            reply_by=CLOCK.now_ms() + 30_000,
            body=Accept(
                self.posted.digest(), order.signature, order, opening=self.cfp, posted=self.posted
            ),
        )
        raw = seal_message(message, self.signer)
        ruling = await self.souk.broker.threads.post(raw)
        assert ruling.ok, ruling
        return Letter(self.member.did, message, raw, 1)


async def attempt(souk: Souk, member: Member, *, deadline_ms: int = 5_000) -> Attempt:
    listing = await souk.broker.directory.get(member.did)
    assert listing is not None
    posted = listing.card.skills[0].posted
    assert posted is not None
    plain, deadline = pack_input("food.sell", {"text": "figs"}), CLOCK.now_ms() + deadline_ms
    cfp = Cfp(
        group=IDS.new(),
        skill="food.sell",
        mode="posted",
        input_digest=sha256_hex(plain),
        input_bytes=len(plain),
        deadline=deadline,
    )
    thread = IDS.new()
    agreement = build_agreement(
        thread=thread, buyer=CUSTOMER.did, seller=member.did, cfp=cfp, offer=posted
    )
    order = Order(
        agreement=agreement.digest(),
        signature=sign_agreement(agreement, CUSTOMER),
        hold=None,
        input=seal_goods(member.did, plain, sender="me"),
        deadline=deadline,
    )
    return Attempt(souk, member, posted, thread, cfp, order)


def failure(view: ThreadView) -> str:
    body = open_message(view.transcript[-1], me=None, now_ms=0).body
    assert isinstance(body, Failure), body
    return body.code


async def test_a_proper_order_is_served(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        view = await made.send(hold=await made.hold())
    assert (view.state, sold, view.facts["paid"]) == ("settled", ["figs"], str(PRICE))


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": PRICE - 1},
        {"agreement": "0" * 64},
        {"expires_ms": 0},
        {"payee": Signer(b"somebody else".ljust(32)).did},
        {"arbitration": Arbitration(arbiter=FRIEND, window_ms=5_000, payee_share=0)},
    ],
    ids=["too small", "for another deal", "too short", "for somebody else", "with a judge"],
)
async def test_an_order_whose_hold_does_not_secure_the_price_is_not_worked_on(
    souk: Souk, changes: dict[str, Any]
) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        if "expires_ms" in changes:
            changes = {"expires_ms": made.order.deadline + 1_000}
        hold = await made.hold(**changes)
        view = await made.send(hold=hold)
        assert (view.state, failure(view), sold) == ("failed", "bad_hold", [])
        left = await souk.ledger.hold(hold)
        assert left is not None
        mine = left.payee == member.did and left.agreement == made.order.agreement
        assert left.status == ("released" if mine else "open")
        assert "capture" not in await souk.types_logged()


@pytest.mark.parametrize("hold", [None, "0" * 64])
async def test_a_paid_job_without_a_hold_is_not_worked_on(souk: Souk, hold: str | None) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        view = await made.send(hold=hold)
    assert (view.state, failure(view), sold) == ("failed", "bad_hold", [])


async def test_a_hold_of_another_deal_with_the_same_seller_stays_that_deal_s(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        honest, thief = await attempt(souk, member), await attempt(souk, member)
        hold = await honest.hold()
        stolen = await thief.send(hold=hold)
        assert failure(stolen) == "bad_hold"
        view = await honest.send(hold=hold)
    assert (view.state, sold) == ("settled", ["figs"])


async def test_one_hold_pays_for_one_deal(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        hold = await made.hold()
        assert (await made.send(hold=hold)).state == "settled"
        again = await attempt(souk, member)
        assert failure(await again.send(hold=hold)) == "bad_hold"
    assert sold == ["figs"]
    assert (await souk.types_logged()).count("capture") == 1


async def test_an_order_that_the_buyer_did_not_sign_is_not_worked_on(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made, other = await attempt(souk, member), await attempt(souk, member)
        view = await made.send(hold=await made.hold(), signature=other.order.signature)
        assert (failure(view), sold) == ("bad_signature", [])
        assert (await souk.account(CUSTOMER.did)).held == 0


async def test_an_input_other_than_agreed_is_not_worked_on(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        other = seal_goods(member.did, pack_input("food.sell", {"text": "dates"}), sender="me")
        view = await made.send(hold=await made.hold(), input=other)
        assert (failure(view), sold) == ("bad_input", [])
        assert (await souk.account(CUSTOMER.did)).held == 0


async def test_an_order_too_many_purchases_deep_is_not_worked_on(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        view = await made.send(hold=await made.hold(), depth=5)
        assert (failure(view), sold) == ("depth_exceeded", [])


async def test_a_deadline_beyond_the_limit_is_not_accepted(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent) as member:
        far = MAX_DEADLINE_MS + 60_000
        made = await attempt(souk, member, deadline_ms=far)
        view = await made.send(hold=await made.hold())
        assert (failure(view), sold) == ("deadline_exceeded", [])
        with pytest.raises(NoDealError):
            await souk.buy(
                "food.sell", {"text": "x"}, mode="bargain", within_ms=2 * MAX_DEADLINE_MS
            )


async def test_input_over_the_offer_s_limit_is_refused_with_and_without_asking(souk: Souk) -> None:
    agent, sold = grocer(max_input_bytes=500)
    async with souk.hosting(agent):
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("food.sell", {"text": "x" * 5_000}, mode="posted")
        assert caught.value.facts["seller_code"] == "too_large"
        with pytest.raises(NoDealError):
            await souk.buy("food.sell", {"text": "x" * 5_000}, mode="bargain")
    assert sold == []


async def test_a_free_job_needs_no_hold_and_settles_at_nothing(souk: Souk) -> None:
    agent = Agent("giver")

    @agent.offer("food.give", price="0")
    def give(text: str) -> str:
        return text

    async with souk.hosting(agent):
        deal = await souk.buy("food.give", {"text": "mint"}, mode="posted", budget_fals=0)
        assert (deal.output, deal.paid_fals, deal.hold) == ("mint", 0, None)
        assert await souk.settled(deal.thread) == "settled"


async def test_a_full_agent_says_that_it_is_busy_and_a_free_one_is_bought_from(souk: Souk) -> None:
    agent, release = Agent("narrow", capacity=1, backlog=0), asyncio.Event()

    @agent.offer("food.cook", price="0.002", floor="0.001")
    async def cook(text: str) -> str:
        await release.wait()
        return text

    async with souk.hosting(agent) as member:
        first = asyncio.create_task(souk.buy("food.cook", {"text": "a"}, mode="posted"))
        await until(lambda: not member.seller.bench.free)
        with pytest.raises(NoDealError):
            await souk.buy("food.cook", {"text": "b"}, mode="bargain", within_ms=3_000)
        release.set()
        assert (await first).output == "a"
        assert (await souk.buy("food.cook", {"text": "c"}, mode="bargain")).output == "c"


async def test_a_receipt_tells_what_the_work_took(souk: Souk) -> None:
    from rahba.messages import open_receipt

    agent, _ = grocer()
    async with souk.hosting(agent) as member:
        deal = await souk.buy("food.sell", {"text": "figs"}, mode="posted")
        receipt = open_receipt(deal.receipt, seller=member.did)
        assert receipt.usage.bytes_in > len("figs")
        assert receipt.usage.bytes_out == len(b'{"output":"figs"}')
        assert (receipt.price, receipt.agreement) == (str(PRICE), deal.agreement)


async def test_fifty_buyers_at_once_each_get_their_own_answer(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent):
        deals = await asyncio.gather(
            *(souk.buy("food.sell", {"text": f"item {n}"}, mode="posted") for n in range(50))
        )
        assert [deal.output for deal in deals] == [f"item {n}" for n in range(50)]
        assert sorted(sold) == sorted(f"item {n}" for n in range(50))
        for deal in deals:
            assert await souk.settled(deal.thread) == "settled"
        assert (await souk.types_logged()).count("capture") == 50


class CutOffError(BaseException):
    """The process ends here."""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the process end once, just before or just after a call takes effect."""

    def plan(target: object, name: str, *, after: bool) -> None:
        real, cuts = getattr(target, name), [1]

        async def call(*args: Any, **named: Any) -> Any:
            if not cuts:
                return await real(*args, **named)
            cuts.clear()
            if after:
                await real(*args, **named)
            raise CutOffError

        monkeypatch.setattr(target, name, call)

    return plan


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["post", "capture", "settle"])
async def test_wherever_a_delivery_is_cut_off_it_is_finished_and_paid_once(
    souk: Souk, cut: Callable[..., None], step: str, after: bool
) -> None:
    agent, sold = grocer()
    async with souk.aside(agent) as member:
        made = await attempt(souk, member)
        letter = await made.post(hold=await made.hold())
        target = member.seller._till if step == "capture" else souk.broker.threads
        cut(target, step, after=after)
        with pytest.raises(CutOffError):
            await member.seller.handle(letter)
        await member.seller.handle(letter)
        view = await made.view()
        assert (view.state, view.facts["paid"]) == ("settled", str(PRICE))
        tx = await souk.ledger.transaction(view.facts["tx"])
        assert tx is not None
        assert tx.payload["type"] == "capture"
        assert len(sold) == (2 if (step, after) == ("post", False) else 1)
        await member.seller.handle(letter)
        assert (await souk.types_logged()).count("capture") == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["release", "post"])
async def test_wherever_a_refusal_is_cut_off_the_money_goes_back_and_the_buyer_is_told(
    souk: Souk, cut: Callable[..., None], step: str, after: bool
) -> None:
    agent, _ = grocer(max_input_bytes=10)
    async with souk.aside(agent) as member:
        made = await attempt(souk, member)
        letter = await made.post(hold=await made.hold())
        cut(member.seller._till if step == "release" else souk.broker.threads, step, after=after)
        with pytest.raises(CutOffError):
            await member.seller.handle(letter)
        await member.seller.handle(letter)
        view = await made.view()
        assert view.state == "failed"
        assert isinstance(open_message(view.transcript[-1], me=None, now_ms=0).body, Failure)
        assert (await souk.account(CUSTOMER.did)).held == 0
        assert (await souk.types_logged()).count("release") == 1


async def test_a_result_after_the_deadline_is_not_paid_and_the_hold_goes_back(souk: Souk) -> None:
    agent = Agent("late")

    @agent.offer("food.sell", price="0.002")
    async def sell(text: str) -> str:
        return text

    async with souk.aside(agent) as member:
        made = await attempt(souk, member, deadline_ms=900)
        letter = await made.post(hold=await made.hold())
        real = member.seller._result

        def held_up(*args: Any) -> Any:
            time.sleep(1)
            return real(*args)

        member.seller._result = held_up  # type: ignore[method-assign]
        await member.seller.handle(letter)
        assert (await made.view()).state == "failed"
        assert (await souk.account(CUSTOMER.did)).held == 0
        assert "capture" not in await souk.types_logged()


async def test_letters_of_unknown_threads_and_of_other_sellers_change_nothing(souk: Souk) -> None:
    agent, sold = grocer()
    async with souk.hosting(agent, key="other") as other, souk.aside(agent) as member:
        made = await attempt(souk, other)
        letter = await made.post(hold=await made.hold())
        await member.seller.handle(letter)
        stray = msgspec.structs.replace(letter.message, thread=IDS.new())
        await member.seller.handle(Letter(member.did, stray, letter.raw, 1))
        assert await souk.settled(made.thread) == "settled"
    assert sold == ["figs"]


async def test_a_seller_may_take_the_buyer_s_counter_and_works_when_the_order_comes(
    souk: Souk,
) -> None:
    agent, sold = grocer(strategy="boulware")
    async with souk.hosting(agent):
        deal = await souk.buy(
            "food.sell", {"text": "figs"}, mode="bargain", strategy="boulware", rounds=8
        )
        assert await souk.settled(deal.thread) == "settled"
        view = await souk.broker.threads.get(deal.thread)
    assert view is not None
    said = [open_message(raw, me=None, now_ms=0) for raw in view.transcript]
    assert [message.type for message in said[-3:]] == ["accept", "order", "result"]
    assert said[-3].sender == deal.seller
    assert 1_000_000 <= deal.agreed_fals < PRICE
    assert (sold, deal.rounds > 1) == (["figs"], True)


async def test_a_skill_that_the_agent_does_not_sell_is_refused_when_asked_for(souk: Souk) -> None:
    agent, _ = grocer()
    async with souk.hosting(agent) as member:
        made = await attempt(souk, member)
        cfp = msgspec.structs.replace(made.cfp, skill="food.steal", mode="bargain", rounds=2)
        message = Message(
            id=IDS.new(),
            thread=made.thread,
            seq=1,
            prev=None,
            sender=CUSTOMER.did,
            to=member.did,
            ts=CLOCK.now_ms(),
            reply_by=CLOCK.now_ms() + 30_000,
            body=cfp,
        )
        assert (await souk.broker.threads.post(seal_message(message, CUSTOMER))).ok
        assert await souk.settled(made.thread) == "closed"
        answer = open_message((await made.view()).transcript[-1], me=None, now_ms=0).body
        assert isinstance(answer, Refuse)
        assert answer.code == "unknown_skill"
