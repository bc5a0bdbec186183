"""Sellers who take money without working, and buyers who try to get work without paying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from typing_extensions import override

from agents.attendance import Letter
from agents.errors import BadResultError, DeadlineError, SellerFailedError
from agents.recourse import HoldWatch
from agents.seller import Seller
from agents.sureties import Sureties
from agents.till import LedgerTill
from rahba.encoding import unb64
from rahba.messages import open_receipt
from tests.fixtures.trading import (
    BUYER,
    CLOCK,
    IDS,
    Bazaar,
    Twisted,
    open_bazaar,
    seller_key,
    with_result,
)
from wallet.account import Wallet
from wallet.ports import HoldView
from wallet.transactions import Challenge, Recourse

FEE = 1_000
SOON = Recourse(window_ms=2_000, answer_ms=1_500)


class Thief(Seller):
    """Says nothing to an order, and takes the hold when the buyer has gone elsewhere."""

    pause_s = 3.0

    @override
    async def handle(self, letter: Letter) -> None:
        view = await self._broker.threads.get(letter.message.thread)
        if view is None or view.state != "held":
            await super().handle(letter)
            return
        hold = await self._hold_of(view)
        assert hold is not None
        await asyncio.sleep(self.pause_s)
        await self._till.capture(hold.id, hold.amount, "0" * 64, until_ms=hold.expires_ms)


class Hasty(Thief):
    """Takes the hold at once, while its buyer waits."""

    pause_s = 0.0


class Waste(Twisted):
    """Signs for what it did, and sends something else."""

    twist = staticmethod(lambda body: with_result(body, output="AAAA"))


class Scribbler(Twisted):
    """Delivers something with a receipt that is none, and takes the price for it."""

    twist = staticmethod(lambda body: with_result(body, receipt="AAAA"))


@pytest_asyncio.fixture
async def hurried(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bazaar]:
    """Give a bazaar in which challenges last seconds, and sellers put up with that."""
    monkeypatch.setattr("agents.order.MIN_ANSWER_MS", 1_000)
    async with open_bazaar(recourse=SOON) as opened:
        yield opened


async def ended(bazaar: Bazaar, hold: str, *, within_s: float = 6) -> HoldView:
    """Return a hold once nothing can happen to it any more."""
    for _ in range(int(within_s / 0.05)):
        shown = await bazaar.ledger.hold(hold)
        assert shown is not None
        late = CLOCK.now_ms() >= (shown.deadline_ms or 0)
        if shown.status == "released" or (shown.status == "captured" and late):
            return shown
        await asyncio.sleep(0.05)
    raise AssertionError(shown)


async def captures(bazaar: Bazaar, number: int) -> None:
    """Wait for so many captures in the log."""
    for _ in range(200):
        if len(await bazaar.logged("capture")) >= number:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nothing was captured")


async def answer(bazaar: Bazaar, seller: Seller) -> None:
    """Do once what a host does for its seller every few seconds."""
    till = LedgerTill(bazaar.ledger, seller.signer, clock=CLOCK, ids=IDS)
    threads = bazaar.broker.threads
    sureties = Sureties(
        seller.signer.did, ledger=bazaar.ledger, threads=threads, till=till, clock=CLOCK
    )
    _ = await sureties.look()


@pytest.mark.parametrize("kind", [pytest.param(Thief, marks=pytest.mark.long), Hasty])
async def test_a_seller_that_takes_the_price_and_delivers_nothing_does_not_keep_it(
    hurried: Bazaar, kind: type[Seller]
) -> None:
    thief = await hurried.open_stall("thief", price=2_000_000, kind=kind)
    await Wallet(hurried.ledger, thief.signer, clock=CLOCK, ids=IDS).faucet(10 * FEE)
    before, theirs = await hurried.posted(BUYER.did), await hurried.posted(thief.signer.did)
    with pytest.raises(DeadlineError):
        await hurried.buy(within_ms=3_500)
    (hold,) = await hurried.holds()
    assert (await ended(hurried, hold.id, within_s=9)).status == "released"
    assert await hurried.posted(BUYER.did) == before - FEE  # for the hold
    assert await hurried.posted(thief.signer.did) == theirs - FEE
    assert not await hurried.logged("deliver")


class Modest(Hasty):
    """Takes no more than what it put up, as if its buyer had left."""

    @override
    async def handle(self, letter: Letter) -> None:
        capture = self._till.capture

        async def less(hold: str, amount: int, receipt: str, *, until_ms: int) -> str:
            shown = await self._till.look(hold)
            assert shown is not None
            return await capture(hold, shown.bail or amount, receipt, until_ms=until_ms)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._till, "capture", less)
            await super().handle(letter)


@pytest.mark.parametrize(("penalty", "kind"), [(1_000, Hasty), (500, Modest), (100, Modest)])
async def test_what_a_thief_put_up_hides_nothing_of_what_it_takes(
    hurried: Bazaar, penalty: int, kind: type[Seller]
) -> None:
    """A bail as high as the price, and a capture of no more than the bail: it loses its bail."""
    thief = await hurried.open_stall("thief", price=2_000_000, kind=kind, penalty=penalty)
    await Wallet(hurried.ledger, thief.signer, clock=CLOCK, ids=IDS).faucet(3_000_000)
    thief.backing_fals = 10**10  # it says so
    before, theirs = await hurried.posted(BUYER.did), await hurried.posted(thief.signer.did)
    with pytest.raises(DeadlineError):
        await hurried.buy(within_ms=2_500, mode="tender")
    (hold,) = await hurried.holds()
    assert hold.bail == 2_000 * penalty
    assert (await ended(hurried, hold.id)).status == "released"
    assert await hurried.posted(BUYER.did) == before - FEE + hold.bail
    assert await hurried.posted(thief.signer.did) == theirs - FEE - hold.bail


async def test_a_buyer_that_spent_all_it_had_gets_its_money_back(hurried: Bazaar) -> None:
    await hurried.open_stall("thief", price=2_000_000, kind=Hasty)
    spare = await hurried.posted(BUYER.did) - 2_000_000 - 2 * FEE
    await hurried.wallet.transfer(seller_key("somebody").did, spare)
    with pytest.raises(DeadlineError):
        await hurried.buy(within_ms=1_500)
    (hold,) = await hurried.holds()
    assert (await ended(hurried, hold.id)).status == "released"
    assert await hurried.posted(BUYER.did) == 2_000_000 - FEE


async def test_a_seller_that_signs_for_waste_paper_keeps_the_price(hurried: Bazaar) -> None:
    """The limit of it: what was signed for and shown is a delivery, whatever it is worth."""
    seller = await hurried.open_stall("waste", price=2_000_000, kind=Waste)
    with pytest.raises(BadResultError) as failed:
        await hurried.buy()
    assert failed.value.facts["at_risk_fals"] == "2000000"
    (hold,) = await hurried.holds()
    await hurried.wallet.do(Challenge, hold=hold.id)
    await answer(hurried, seller)
    assert (await ended(hurried, hold.id)).captured == 2_000_000
    (shown,) = await hurried.logged("deliver")
    receipt = open_receipt(unb64(str(shown["receipt"])), seller=seller.signer.did)
    assert receipt.agreement == hold.agreement  # its signature stays, for whoever asks later


async def test_a_purchase_that_was_given_up_is_not_challenged_if_it_was_delivered(
    hurried: Bazaar,
) -> None:
    async def late(text: str) -> str:
        await asyncio.sleep(0.5)
        return text

    await hurried.open_stall("honest", price=2_000_000, work=late)
    buying = asyncio.create_task(hurried.buy())
    await asyncio.sleep(0.3)
    buying.cancel()
    await captures(hurried, 1)
    await hurried.buyer.holds.over()
    assert not await hurried.logged("challenge")


async def test_a_thief_without_any_money_costs_its_own_fee_and_no_more(hurried: Bazaar) -> None:
    thief = await hurried.open_stall("thief", price=2_000_000, kind=Hasty)
    before = await hurried.posted(BUYER.did)
    with pytest.raises(DeadlineError):
        await hurried.buy(within_ms=1_500)
    (hold,) = await hurried.holds()
    assert (await ended(hurried, hold.id)).status == "released"
    assert await hurried.posted(BUYER.did) == before - 2 * FEE
    assert await hurried.posted(thief.signer.did) == 0


async def test_a_seller_whose_receipt_is_none_does_not_keep_the_price(hurried: Bazaar) -> None:
    seller = await hurried.open_stall("scribbler", price=2_000_000, kind=Scribbler)
    before = await hurried.posted(BUYER.did)
    with pytest.raises(BadResultError):
        await hurried.buy()
    (hold,) = await hurried.holds()
    for _ in range(20):  # while its host tries to answer for it
        await answer(hurried, seller)
        await asyncio.sleep(0.1)
    assert (await ended(hurried, hold.id)).status == "released"
    assert await hurried.posted(BUYER.did) >= before - 2 * FEE


@pytest.mark.parametrize("words", [1, 60_000])
async def test_a_buyer_that_denies_what_it_got_pays_all_the_same(
    bazaar: Bazaar, words: int
) -> None:
    """A long output takes several transactions."""

    async def chatter(text: str) -> str:
        return f"{text} " * words

    seller = await bazaar.open_stall("honest", price=2_000_000, work=chatter)
    bought = await bazaar.buy()
    assert bought.hold is not None
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    challenged = await bazaar.ledger.hold(bought.hold)
    assert challenged is not None
    assert challenged.status == "challenged"
    await answer(bazaar, seller)
    shown = await bazaar.ledger.hold(bought.hold)
    assert shown is not None
    assert (shown.status, shown.captured) == ("captured", 2_000_000)
    parts = await bazaar.logged("deliver")
    assert len(parts) == (1 if words == 1 else 11)
    assert shown.delivered == len(parts)
    account = await bazaar.ledger.account(seller.signer.did)
    assert account is not None
    assert (account.available, account.held) == (2_000_000 - FEE, 0)


async def test_an_answer_that_was_cut_off_is_completed(bazaar: Bazaar) -> None:
    async def chatter(text: str) -> str:
        return f"{text} " * 20_000

    seller = await bazaar.open_stall("honest", price=2_000_000, work=chatter)
    bought = await bazaar.buy()
    assert bought.hold is not None
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    submit, left = bazaar.ledger.submit, 2

    async def fall_over(raw: bytes, *, receipt: bool = False) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("killed")
        return await submit(raw, receipt=receipt)

    bazaar.ledger.submit = fall_over  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError):
        await answer(bazaar, seller)
    bazaar.ledger.submit = submit  # type: ignore[method-assign]
    assert len(await bazaar.logged("deliver")) == 2
    await answer(bazaar, seller)
    shown = await bazaar.ledger.hold(bought.hold)
    assert shown is not None
    assert shown.status == "captured"
    assert len(await bazaar.logged("deliver")) == 4


@pytest.mark.long
async def test_what_was_delivered_is_not_challenged(hurried: Bazaar) -> None:
    await hurried.open_stall("honest", price=2_000_000)
    for _ in range(3):
        _ = await hurried.buy()
    await hurried.buyer.holds.over()
    await asyncio.sleep(SOON.window_ms / 1_000)
    assert not await hurried.logged("challenge")


async def test_who_starts_again_looks_after_what_was_held_before(hurried: Bazaar) -> None:
    """The thief's hold is challenged; what the honest one delivered is not."""
    await hurried.open_stall("honest", price=2_000_000)
    _ = await hurried.buy()
    await hurried.open_stall("thief", price=1_000_000, kind=Hasty)
    buying = asyncio.create_task(hurried.buy(agent=seller_key("thief").did))
    await captures(hurried, 2)
    buying.cancel()
    for hold in list(hurried.buyer.holds._watched):  # the process is gone, and its memory
        hurried.buyer.holds.delivered(hold)
    again = HoldWatch(hurried.wallet, hurried.broker.threads, CLOCK, SOON)
    again.look_back()
    await again.over()
    (challenge,) = await hurried.logged("challenge")
    stolen = await ended(hurried, str(challenge["hold"]))
    assert (stolen.status, stolen.payee) == ("released", seller_key("thief").did)


async def test_a_hold_of_which_nobody_heard_is_looked_after(
    hurried: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = await hurried.open_stall("thief", price=1_000_000)
    hold = hurried.wallet.hold

    async def unheard(*args: object, **words: object) -> None:
        await hold(*args, **words)  # type: ignore[arg-type]
        raise TimeoutError

    monkeypatch.setattr(hurried.wallet, "hold", unheard)
    with pytest.raises(DeadlineError):
        await hurried.buy(within_ms=1_500)
    (made,) = await hurried.holds()
    till = LedgerTill(hurried.ledger, thief.signer, clock=CLOCK, ids=IDS)
    await till.capture(made.id, made.amount, "0" * 64, until_ms=made.expires_ms)
    assert (await ended(hurried, made.id)).status == "released"


@pytest.mark.long
async def test_thieving_sellers_together_get_nothing(hurried: Bazaar) -> None:
    await hurried.open_stall("first", price=1_900_000, kind=Thief)
    await hurried.open_stall("second", price=1_950_000, kind=Thief)
    await hurried.open_stall("honest", price=2_000_000)
    before = await hurried.posted(BUYER.did)
    with pytest.raises(DeadlineError) as failed:
        await hurried.buy(budget_fals=2_000_000, within_ms=4_000)
    assert int(str(failed.value.facts["at_risk_fals"])) <= 2_000_000
    for hold in await hurried.holds():
        assert (await ended(hurried, hold.id, within_s=20)).status == "released"
    assert before - await hurried.posted(BUYER.did) <= 2 * len(await hurried.holds()) * FEE


@pytest.mark.long
async def test_a_purchase_says_what_failed_sellers_may_still_take(bazaar: Bazaar) -> None:
    await bazaar.open_stall("thief", price=1_000_000, kind=Thief)
    await bazaar.open_stall("honest", price=1_100_000)
    bought = await bazaar.buy(mode="tender", budget_fals=4_000_000, within_ms=6_000)
    assert bought.output == "honest: HELLO"
    assert 0 < bought.at_risk_fals <= 1_000_000


async def test_a_hold_that_no_capture_can_outlast_is_refused_before_the_work(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.parley.HOLD_GRACE_MS", 2 * 3_600_000)
    await bazaar.open_stall("one", price=1_000_000)
    with pytest.raises(SellerFailedError) as refused:
        await bazaar.buy(within_ms=6_000)
    assert refused.value.facts["seller_code"] == "bad_hold"
    assert refused.value.facts["hold_status"] == "released"


async def test_a_hold_that_leaves_no_time_to_answer_is_refused_before_the_work() -> None:
    async with open_bazaar(recourse=SOON) as bazaar:
        await bazaar.open_stall("one", price=1_000_000)
        with pytest.raises(SellerFailedError) as refused:
            await bazaar.buy(within_ms=6_000)
        assert refused.value.facts["seller_code"] == "bad_hold"
