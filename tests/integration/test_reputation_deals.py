"""What deals of real buyers and sellers, good and bad, make of their reputations."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from agents.errors import SellerFailedError
from agents.seller import Seller
from api.ledger_http import serve
from api.places import opened_source
from api.settings import Settings
from rahba.envelope import Signer
from rahba.money import FALS_PER_RHB
from rahba.standing import ReputationBook, Standing
from tests.fixtures.serving import serving
from tests.fixtures.trading import BUYER, CLOCK, IDS, Bazaar, bazaar, seller_key
from wallet.account import Wallet
from wallet.reputation import Reputations, recompute

__all__ = ["bazaar"]
STRANGER = Signer(bytes([9]) * 32)


async def stall(bazaar: Bazaar, name: str, **terms: object) -> Seller:
    await Wallet(bazaar.ledger, seller_key(name), clock=CLOCK, ids=IDS).faucet(FALS_PER_RHB)
    seller = await bazaar.open_stall(name, **terms)  # type: ignore[arg-type]
    seller.backing_fals = FALS_PER_RHB
    return seller


async def fails(text: str) -> str:
    raise ValueError(text)


async def ended(bazaar: Bazaar, agent: str, ends: int) -> tuple[Standing, Standing]:
    """Return what all and what the buyer make of an agent after so many holds have ended."""
    found = Reputations(bazaar.ledger)
    for _ in range(100):
        own, _ = await found.standing(agent, BUYER.did)
        if own.deals + own.failures + own.unclear >= ends:
            return (await found.standing(agent))[0], own
        await asyncio.sleep(0.05)
    raise AssertionError(f"only {own} ended")


async def test_a_delivered_job_is_a_deal_kept_for_all_and_more_so_for_its_buyer(
    bazaar: Bazaar,
) -> None:
    seller = await stall(bazaar, "amber")
    for mode in ("posted", "tender"):
        await bazaar.buy(mode=mode)
    all_see, own = await ended(bazaar, seller.signer.did, 2)
    assert (all_see.deals, all_see.failures, all_see.counterparties) == (2, 0, 1)
    assert all_see.fees_fals == 4 * 1_000
    assert own.personal is not None
    assert own.personal.rate.low > all_see.rate.low > 50


async def test_a_tendered_job_that_fails_is_proven_by_the_sellers_own_forfeit(
    bazaar: Bazaar,
) -> None:
    seller = await stall(bazaar, "amber", work=fails)
    with pytest.raises(SellerFailedError):
        await bazaar.buy(mode="tender")
    all_see, _ = await ended(bazaar, seller.signer.did, 1)
    assert (all_see.deals, all_see.failures) == (0, 1)
    assert all_see.evidence.failed > 0, "though nobody knows the buyer"
    assert all_see.rate.low < 50


async def test_a_posted_job_that_fails_is_the_word_of_a_buyer_nobody_knows(
    bazaar: Bazaar,
) -> None:
    seller = await stall(bazaar, "amber", work=fails)
    good = await stall(bazaar, "beryl", price=1_000_000)
    with pytest.raises(SellerFailedError):
        await bazaar.buy(mode="posted", agent=seller.signer.did)
    await bazaar.buy(mode="posted", agent=good.signer.did)
    await ended(bazaar, good.signer.did, 1)
    all_see, own = await ended(bazaar, seller.signer.did, 1)
    assert all_see.failures == 1
    assert all_see.rate.low >= 49, "a single deal elsewhere is hardly a say"
    assert own.personal is not None
    assert own.personal.own_failures == 1
    assert own.personal.rate.low < 50, "who was there knows"


@pytest.mark.long
async def test_holds_that_nobody_agreed_to_harm_nobody_on_a_real_ledger(
    bazaar: Bazaar, tmp_path: Path
) -> None:
    seller = await stall(bazaar, "amber")
    await bazaar.buy(mode="posted")
    before, _ = await ended(bazaar, seller.signer.did, 1)
    hostile = Wallet(bazaar.ledger, STRANGER, clock=CLOCK, ids=IDS)
    await hostile.faucet(FALS_PER_RHB)
    for number in range(20):
        expires = CLOCK.now_ms() + (5_200 if number % 2 else 300)
        await hostile.hold(seller.signer.did, 5_000, expires, f"{number:064x}")
    await asyncio.sleep(5.5)
    after, _ = await ended(bazaar, seller.signer.did, 21)
    assert (after.failures, after.unclear) == (10, 10)
    assert (after.rate, after.evidence) == (before.rate, before.evidence)


async def test_figures_are_recomputed_from_the_address_of_a_running_ledger(
    bazaar: Bazaar,
) -> None:
    seller = await stall(bazaar, "amber")
    await bazaar.buy(mode="posted")
    told, own = await ended(bazaar, seller.signer.did, 1)
    door = partial(serve, bazaar.ledger, "127.0.0.1", 0, log=bazaar.ledger.log)
    async with serving(door) as url, opened_source(url, Settings.read({})) as source:
        report, read = await recompute(source)
    assert report.ok
    book = ReputationBook(read.dealings, read.log_time)
    assert book.standing(seller.signer.did).rate == told.rate
    assert book.standing(seller.signer.did, BUYER.did).personal == own.personal
