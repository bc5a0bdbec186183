"""Challenges and their answers between a real ledger and a broker in memory, fault by fault."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents.answers import PART_CHARS, Answers, parts_of
from agents.negotiation.goods import MAX_GOODS_BYTES, unpack_output
from agents.recourse import USUAL, HoldWatch
from agents.till import LedgerTill
from rahba.encoding import b64, sha256_hex, unb64
from rahba.messages import open_receipt
from tests.fixtures.trading import BUYER, CLOCK, IDS, OPERATOR, Bazaar, bazaar, seller_key
from wallet.account import Wallet
from wallet.errors import LedgerUnavailableError, OutOfScopeError
from wallet.ports import HoldView
from wallet.transactions import MAX_PARTS, Challenge, Recourse

__all__ = ["bazaar"]


def till_of(bazaar: Bazaar, name: str) -> LedgerTill:
    return LedgerTill(bazaar.ledger, seller_key(name), clock=CLOCK, ids=IDS)


def answers_of(bazaar: Bazaar, name: str) -> Answers:
    return Answers(seller_key(name).did, threads=bazaar.broker.threads, till=till_of(bazaar, name))


async def shown(bazaar: Bazaar, hold: str) -> HoldView:
    found = await bazaar.ledger.hold(hold)
    assert found is not None
    return found


async def taken(bazaar: Bazaar, name: str, recourse: Recourse | None = USUAL) -> str:
    """Hold a million fals for a seller that takes them at once; returns the hold's id."""
    expires = CLOCK.now_ms() + 60_000
    answer = await bazaar.wallet.hold(
        seller_key(name).did, 1_000_000, expires, "d" * 64, recourse=recourse
    )
    await till_of(bazaar, name).capture(answer.id, 1_000_000, "0" * 64, until_ms=expires)
    return answer.id


def test_the_largest_output_fits_into_the_parts_that_there_may_be() -> None:
    sealed = b64(bytes(MAX_GOODS_BYTES + 256))
    parts = parts_of(sealed)
    assert "".join(parts) == sealed
    assert len(parts) <= MAX_PARTS
    assert all(len(part) <= PART_CHARS and unb64(part) for part in parts)


async def test_what_the_log_has_of_a_delivery_is_what_its_buyer_can_open(bazaar: Bazaar) -> None:
    await bazaar.open_stall("honest", price=2_000_000)
    bought = await bazaar.buy()
    assert bought.hold is not None
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    answers = answers_of(bazaar, "honest")
    answers.noted(bought.hold)
    assert await answers.give() == [bought.hold]
    (said,) = await bazaar.logged("deliver")
    receipt = open_receipt(unb64(str(said["receipt"])), seller=bought.seller)
    assert unb64(str(said["receipt"])) == bought.receipt
    assert unpack_output(str(said["output"]), BUYER, digest=receipt.output_digest) == bought.output


async def test_who_delivered_nothing_has_no_answer(bazaar: Bazaar) -> None:
    hold = await taken(bazaar, "thief")
    await bazaar.wallet.do(Challenge, hold=hold)
    answers = answers_of(bazaar, "thief")
    answers.noted(hold)
    assert await answers.give() == []
    assert (await shown(bazaar, hold)).status == "challenged"


async def test_nobody_answers_for_another_or_where_nothing_is_asked(bazaar: Bazaar) -> None:
    await bazaar.open_stall("honest", price=2_000_000)
    bought = await bazaar.buy()
    assert bought.hold is not None
    theirs, ours = answers_of(bazaar, "other"), answers_of(bazaar, "honest")
    ours.noted(bought.hold)
    assert await ours.give() == []  # it is not challenged
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    theirs.noted(bought.hold)
    ours.noted("0" * 64)
    assert await theirs.give() == await ours.give() == []
    assert not await bazaar.logged("deliver")


async def test_a_receipt_that_the_capture_did_not_name_is_no_answer(bazaar: Bazaar) -> None:
    """A seller that captured for another receipt than it delivered has only itself to blame."""
    seller = await bazaar.open_stall("muddled", price=2_000_000)
    till = seller._till
    capture = till.capture

    async def other(hold: str, amount: int, receipt: str, *, until_ms: int) -> str:
        return await capture(hold, amount, sha256_hex(receipt.encode()), until_ms=until_ms)

    till.capture = other  # type: ignore[method-assign]
    bought = await bazaar.buy()
    assert bought.hold is not None
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    answers = answers_of(bazaar, "muddled")
    answers.noted(bought.hold)
    assert await answers.give() == []


async def test_an_answer_waits_for_a_broker_that_is_away(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bazaar.open_stall("honest", price=2_000_000)
    bought = await bazaar.buy()
    assert bought.hold is not None
    await bazaar.wallet.do(Challenge, hold=bought.hold)
    answers = answers_of(bazaar, "honest")
    answers.noted(bought.hold)
    with monkeypatch.context() as patch:

        async def away(_: str) -> None:
            raise LedgerUnavailableError("away")

        patch.setattr(bazaar.broker.threads, "deal", away)
        assert await answers.give() == []
    assert await answers.give() == [bought.hold]


async def test_the_most_urgent_challenge_is_answered_first_and_none_waits_for_another(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bazaar.open_stall("honest", price=2_000_000)
    bought = [await bazaar.buy() for _ in range(4)]
    answers = answers_of(bazaar, "honest")
    for each in bought:
        assert each.hold is not None
        await bazaar.wallet.do(Challenge, hold=each.hold)
        await asyncio.sleep(0.25)  # intervals of their own
    for each in reversed(bought):
        answers.noted(str(each.hold))
    deal = bazaar.broker.threads.deal

    async def away(agreement: str) -> Any:
        if agreement == bought[1].agreement:
            raise LedgerUnavailableError("away")
        return await deal(agreement)

    with monkeypatch.context() as patch:
        patch.setattr(bazaar.broker.threads, "deal", away)
        assert await answers.give() == [bought[0].hold, bought[2].hold, bought[3].hold]
    assert await answers.give() == [bought[1].hold]


async def test_a_hold_that_cannot_be_judged_keeps_nobody_from_judging_the_others(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    held = [await taken(bazaar, f"thief {number}") for number in range(2)]
    for number, hold in enumerate(held):
        watch.watch(hold, str(number) * 64)
    _ = await watch.look()

    async def away(agreement: str) -> None:
        if agreement == "0" * 64:
            raise LedgerUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(bazaar.broker.threads, "deal", away)
        assert await watch.look() == held[1:]
        with pytest.raises(LedgerUnavailableError):
            await watch.look()
    assert await watch.look() == held[:1]


async def test_entries_that_cannot_be_read_blind_nobody_to_what_is_known(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    hold = await taken(bazaar, "thief")
    watch.watch(hold, "d" * 64)
    watch.look_back()

    async def away(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(bazaar.ledger, "history", away)
        with pytest.raises(LedgerUnavailableError):
            await watch.look()
        assert await watch.look() == [hold]
    watch.stop()


async def test_a_hold_is_found_behind_thousands_of_newer_entries(bazaar: Bazaar) -> None:
    hold = await taken(bazaar, "thief")
    for _ in range(3):
        payments = [await bazaar.wallet.sign_transfer(OPERATOR.did, 1) for _ in range(700)]
        assert all(each.ok for each in await bazaar.ledger.submit_many(payments))
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    watch.look_back()
    _ = await watch.look()
    assert await watch.look() == [hold]
    watch.stop()


async def test_who_was_stopped_watches_nothing_more(bazaar: Bazaar) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    watch.watch("0" * 64, "d" * 64)
    assert watch.busy
    watch.stop()
    await asyncio.sleep(0)
    watch.watch("1" * 64, "d" * 64)
    watch.look_back()
    assert not watch.busy


async def test_a_clock_that_is_ahead_challenges_all_the_same(bazaar: Bazaar) -> None:
    class Ahead:
        def now_ms(self) -> int:
            return CLOCK.now_ms() + 3_600_000

        def monotonic_ms(self) -> int:
            return CLOCK.monotonic_ms()

    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, Ahead())
    hold = await taken(bazaar, "thief")
    watch.watch(hold, "d" * 64)
    _ = await watch.look()
    assert await watch.look() == [hold]


async def test_a_capture_is_seen_twice_before_it_is_challenged(bazaar: Bazaar) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    hold = await taken(bazaar, "thief")
    watch.watch(hold, "d" * 64)
    assert await watch.look() == []
    assert await watch.look() == [hold]
    assert await watch.look() == []
    assert (await shown(bazaar, hold)).status == "challenged"


async def test_what_was_delivered_between_two_looks_is_left_alone(bazaar: Bazaar) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    hold = await taken(bazaar, "honest")
    watch.watch(hold, "d" * 64)
    assert await watch.look() == []
    watch.delivered(hold)
    assert await watch.look() == []
    assert (await shown(bazaar, hold)).status == "captured"


async def test_nothing_is_watched_that_nobody_can_challenge(bazaar: Bazaar) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    final, late = (
        await taken(bazaar, "one", None),
        await taken(bazaar, "two", Recourse(window_ms=1_000, answer_ms=60_000)),
    )
    given = await bazaar.wallet.hold(seller_key("x").did, 5, CLOCK.now_ms() + 60_000, "e" * 64)
    hold = await shown(bazaar, given.id)
    await till_of(bazaar, "x").release(hold)
    await asyncio.sleep(1.1)
    for each in (final, late, given.id, "0" * 64):
        watch.watch(each, "d" * 64)
    for _ in range(3):
        assert await watch.look() == []
    assert not watch._watched
    assert not await bazaar.logged("challenge")


async def test_a_ledger_that_is_away_is_asked_again(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = HoldWatch(
        bazaar.wallet, bazaar.broker.threads, CLOCK, Recourse(window_ms=1_500, answer_ms=60_000)
    )
    hold = await taken(bazaar, "thief")
    left = 3

    async def away(ids: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise LedgerUnavailableError("away")
        return await looks(ids)

    looks = bazaar.ledger.holds
    monkeypatch.setattr(bazaar.ledger, "holds", away)
    watch.watch(hold, "d" * 64)
    await watch.over()
    assert left < 0
    assert (await shown(bazaar, hold)).status == "challenged"


async def test_a_challenge_that_did_not_arrive_is_made_again(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    hold = await taken(bazaar, "thief")
    watch.watch(hold, "d" * 64)
    _ = await watch.look()
    with monkeypatch.context() as patch:

        async def away(*_: Any, **__: Any) -> None:
            raise LedgerUnavailableError("away")

        patch.setattr(bazaar.wallet, "do", away)
        with pytest.raises(LedgerUnavailableError):
            await watch.look()
    assert await watch.look() == [hold]


async def test_a_challenge_that_is_refused_is_tried_again_and_told_once(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one of a session is that was granted before there were challenges."""
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    hold = await taken(bazaar, "thief")
    watch.watch(hold, "d" * 64)

    async def refused(*_: Any, **__: Any) -> None:
        raise OutOfScopeError("the session does not cover challenge")

    with monkeypatch.context() as patch:
        patch.setattr(bazaar.wallet, "do", refused)
        for _ in range(3):
            assert await watch.look() == []
    assert caplog.text.count("does not cover challenge") == 1
    assert await watch.look() == [hold]


async def test_two_that_watch_one_account_challenge_once(
    bazaar: Bazaar, caplog: pytest.LogCaptureFixture
) -> None:
    hold = await taken(bazaar, "thief")
    pair = [HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK) for _ in range(2)]
    for watch in pair:
        watch.watch(hold, "d" * 64)
        _ = await watch.look()
    looks = await asyncio.gather(*(watch.look() for watch in pair))
    assert sorted(looks) == [[], [hold]]
    assert "stays so" not in caplog.text


async def test_no_more_holds_are_watched_than_there_is_room_for(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.recourse.MAX_WATCHED", 3)
    monkeypatch.setattr("agents.recourse.MAX_LOOKED_AT", 2)
    watch = HoldWatch(bazaar.wallet, bazaar.broker.threads, CLOCK)
    held = [await taken(bazaar, f"thief {number}") for number in range(4)]
    for hold in held:
        watch.watch(hold, "d" * 64)
    _ = await watch.look()
    assert await watch.look() == held[1:]


async def test_a_session_that_may_only_buy_can_challenge(bazaar: Bazaar) -> None:
    """API keys spend by sessions: holds, releases and challenges."""
    agent = seller_key("session")
    until = CLOCK.now_ms() + 60_000
    await bazaar.wallet.grant(
        agent.did, 5_000_000, 5_000_000, None, ("hold", "release", "challenge"), until
    )
    wallet = Wallet(bazaar.ledger, agent, clock=CLOCK, ids=IDS, account=BUYER.did)
    hold = await wallet.hold(seller_key("thief").did, 1_000_000, until, "d" * 64, recourse=USUAL)
    await till_of(bazaar, "thief").capture(hold.id, 1_000_000, "0" * 64, until_ms=until)
    watch = HoldWatch(wallet, bazaar.broker.threads, CLOCK)
    watch.watch(hold.id, "d" * 64)
    _ = await watch.look()
    assert await watch.look() == [hold.id]
