"""Sellers that fail, hang, come late or deliver something else: what becomes of the money."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents.errors import (
    BadResultError,
    DeadlineError,
    SellerFailedError,
    ThreadRefusedError,
)
from agents.negotiation.goods import seal_goods
from agents.parley import HOLD_GRACE_MS
from agents.purchase import Want
from rahba.encoding import b64, unb64
from rahba.envelope import seal
from rahba.messages import (
    AGREEMENT_TYPE,
    RECEIPT_TYPE,
    Body,
    Result,
    open_receipt,
)
from tests.fixtures.trading import (
    BUYER,
    SKILL,
    Bazaar,
    Twisted,
    seller_key,
    with_result,
)


async def hang(text: str) -> str:
    await asyncio.sleep(60)
    return text


async def crash(text: str) -> str:
    raise ValueError("no such word")


# Sellers that fail.


async def test_the_runner_up_takes_over_when_the_winner_never_delivers(bazaar: Bazaar) -> None:
    await bazaar.open_stall("sleepy", price=1_000_000, work=hang)
    await bazaar.open_stall("awake", price=2_000_000)
    bought = await bazaar.buy(within_ms=3_000)
    assert bought.output == "awake: HELLO"
    assert bought.seller == seller_key("awake").did
    first, second = await bazaar.holds()
    assert first.payee == seller_key("sleepy").did
    assert first.captured == 0
    assert second.status == "captured"


async def test_the_runner_up_takes_over_when_the_winner_fails(bazaar: Bazaar) -> None:
    await bazaar.open_stall("clumsy", price=1_000_000, work=crash)
    await bazaar.open_stall("able", price=2_000_000)
    stages: list[str] = []
    bought = await bazaar.buyer.buy(
        Want(skill=SKILL, args={"text": "hello"}, budget_fals=3_000_000, within_ms=8_000),
        on_event=lambda kind, data: stages.append(kind),
    )
    assert bought.seller == seller_key("able").did
    assert [hold.status for hold in await bazaar.holds()] == ["released", "captured"]
    assert stages[0] == "opened"
    assert stages[-1] == "settled"
    assert stages.index("failed") < stages.index("settled")


async def test_a_purchase_stops_after_two_runners_up_and_makes_no_hold_for_those_let_go(
    bazaar: Bazaar,
) -> None:
    for number in range(5):
        await bazaar.open_stall(f"n{number}", price=1_000_000 + number, work=crash)
    with pytest.raises(SellerFailedError) as caught:
        await bazaar.buy()
    holds = await bazaar.holds()
    assert [hold.status for hold in holds] == ["released"] * 3
    assert caught.value.facts["at_risk_fals"] == "0"


async def test_an_accept_that_is_ruled_too_late_leaves_a_hold_that_is_owned_up_to(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bazaar.open_stall("one", price=1_000_000, floor=900_000)
    hold = bazaar.wallet.hold

    async def slow_hold(*terms: Any, **more: Any) -> Any:
        answer = await hold(*terms, **more)
        (group,) = await bazaar.broker.threads.recent(limit=1)
        for view in await bazaar.broker.threads.group(group):
            await bazaar.broker.threads.close(view.id, "failed")
        return answer

    monkeypatch.setattr(bazaar.wallet, "hold", slow_hold)
    with pytest.raises(ThreadRefusedError) as caught:
        await bazaar.buy(mode="bargain")
    facts = caught.value.facts
    assert facts["verdict"] == "CLOSED"
    (made,) = await bazaar.holds()
    assert (facts["hold"], facts["hold_status"]) == (made.id, "open")
    assert facts["at_risk_fals"] == str(made.amount)
    assert facts["hold_expires_ms"] == made.expires_ms


async def test_a_ledger_that_does_not_answer_ends_at_the_deadline_with_the_price_at_risk(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bazaar.open_stall("one", price=1_000_000)

    async def never(*terms: Any, **more: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(bazaar.wallet, "hold", never)
    with pytest.raises(DeadlineError) as caught:
        await bazaar.buy(mode="posted", within_ms=400)
    assert caught.value.facts["hold_status"] == "unknown"
    assert caught.value.facts["at_risk_fals"] == "1000000"


async def test_letters_that_somebody_else_took_are_read_from_the_transcript(
    bazaar: Bazaar,
) -> None:
    """Two processes may share a key and its mailbox; the thread has it all."""
    await bazaar.open_stall("one", price=1_000_000)
    bazaar.courier._attending = Forgetful()
    bought = await bazaar.buy(mode="posted", within_ms=8_000)
    assert bought.output == "one: HELLO"


class Forgetful(dict[tuple[str, str], object]):
    """Whoever attends is never found."""

    def get(self, *_: object) -> None:  # type: ignore[override]
        return None


async def test_a_seller_that_raises_is_not_paid_and_says_why(bazaar: Bazaar) -> None:
    await bazaar.open_stall("clumsy", price=1_000_000, work=crash)
    before = await bazaar.posted(BUYER.did)
    with pytest.raises(SellerFailedError) as caught:
        await bazaar.buy(mode="posted")
    assert caught.value.facts["seller_code"] == "job_failed"
    assert caught.value.facts["at_risk_fals"] == "0"
    assert caught.value.facts["hold_status"] == "released"
    assert await bazaar.posted(seller_key("clumsy").did) == 0
    assert before - await bazaar.posted(BUYER.did) == 1_000  # the fee of the hold


@pytest.mark.long
async def test_a_seller_that_hangs_misses_its_deadline_and_the_hold_comes_back(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.parley.HOLD_GRACE_MS", 5_200)
    seller = await bazaar.open_stall("sleepy", price=1_000_000, kind=Twisted)
    assert isinstance(seller, Twisted)
    seller.deaf_to = frozenset({"accept"})
    with pytest.raises(DeadlineError) as caught:
        await bazaar.buy(mode="posted", within_ms=800)
    facts = caught.value.facts
    assert facts["at_risk_fals"] == "1000000"
    assert facts["hold_status"] == "open"
    for _ in range(90):
        (hold,) = await bazaar.holds()
        if hold.status == "released":
            break
        await asyncio.sleep(0.1)
    assert hold.status == "released"
    account = await bazaar.ledger.account(BUYER.did)
    assert account is not None
    assert account.held == 0


def test_a_hold_outlasts_its_deadline_by_a_grace_in_which_the_seller_can_collect() -> None:
    assert HOLD_GRACE_MS == 15_000


async def test_a_seller_that_comes_after_the_deadline_gives_the_money_back(bazaar: Bazaar) -> None:
    seller = await bazaar.open_stall("late", price=1_000_000, kind=Twisted)
    assert isinstance(seller, Twisted)
    seller.delay_s = 1.0
    with pytest.raises(DeadlineError):
        await bazaar.buy(mode="posted", within_ms=900)
    await asyncio.sleep(0.5)
    (hold,) = await bazaar.holds()
    assert hold.captured == 0
    assert hold.status == "released"
    assert await bazaar.posted(seller_key("late").did) == 0


def other_receipt(body: Body) -> Body:
    """Sign the receipt with another key."""
    if not isinstance(body, Result):
        return body
    receipt = open_receipt(unb64(body.receipt), seller=seller_key("rogue").did)
    forged = seal(RECEIPT_TYPE, receipt, seller_key("somebody else"))
    return with_result(body, receipt=b64(forged))


def other_output(body: Body) -> Body:
    sealed = seal_goods(BUYER.did, b'{"output":"something else"}', sender="me")
    return with_result(body, output=sealed)


def other_signature(body: Body) -> Body:
    return with_result(body, signature=seller_key("rogue").sign(AGREEMENT_TYPE, b"{}"))


def not_for_this_buyer(body: Body) -> Body:
    return with_result(body, output=seal_goods(OTHER, b'{"output":"x"}', sender="me"))


OTHER = seller_key("other").did


@pytest.mark.parametrize(
    ("twist", "check"),
    [(other_signature, 1), (other_receipt, 2), (other_output, 3), (not_for_this_buyer, 3)],
)
async def test_a_result_that_is_not_what_was_signed_is_refused_by_its_check(
    bazaar: Bazaar, twist: Any, check: int
) -> None:
    seller = await bazaar.open_stall("rogue", price=1_000_000, kind=Twisted)
    assert isinstance(seller, Twisted)
    seller.twist = twist
    with pytest.raises(BadResultError) as caught:
        await bazaar.buy(mode="posted")
    assert caught.value.facts["check"] == check
    assert caught.value.facts["seller"] == seller_key("rogue").did
    assert caught.value.facts["hold_status"] in {"open", "captured"}
    assert caught.value.facts["at_risk_fals"] == "1000000"
