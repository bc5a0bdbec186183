"""A seller's till: the capture of a deal is made once, however often it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from agents.errands import Errands
from agents.errors import NoSellerError
from agents.ports import Errand
from agents.till import LedgerTill
from rahba.envelope import Signer
from tests.fixtures.hosting import CLOCK, IDS, Souk, echo_agent, source_of
from wallet.account import Wallet
from wallet.errors import (
    ExceedsHoldError,
    HoldResolvedError,
    LedgerUnavailableError,
    NotPayeeError,
    PaymentRefusedError,
)
from wallet.ports import Answer

pytestmark = pytest.mark.redis

SELLER = Signer(b"seller".ljust(32))
DEAL, RECEIPT = "a" * 64, "b" * 64


async def held(souk: Souk, amount: int = 5_000) -> str:
    await Wallet(souk.ledger, SELLER, clock=CLOCK, ids=IDS).faucet(10_000)
    return (await souk.wallet.hold(SELLER.did, amount, CLOCK.now_ms() + 60_000, DEAL)).id


def till(ledger: Any) -> LedgerTill:
    return LedgerTill(ledger, SELLER, clock=CLOCK, ids=IDS)


async def test_a_capture_made_again_is_the_same_transaction(souk: Souk) -> None:
    hold, until_ms = await held(souk), CLOCK.now_ms() + 30_000
    first = await till(souk.ledger).capture(hold, 4_000, RECEIPT, until_ms=until_ms)
    again = await till(souk.ledger).capture(hold, 4_000, RECEIPT, until_ms=until_ms)
    assert first == again
    shown = await till(souk.ledger).look(hold)
    assert shown is not None
    assert (shown.status, shown.captured) == ("captured", 4_000)
    assert (await souk.account(SELLER.did)).posted == 10_000 - 1_000 + 4_000 - 1_000
    assert (await souk.account(souk.wallet.account)).held == 0


async def test_another_capture_of_the_same_hold_is_refused(souk: Souk) -> None:
    hold, until_ms = await held(souk), CLOCK.now_ms() + 30_000
    await till(souk.ledger).capture(hold, 4_000, RECEIPT, until_ms=until_ms)
    with pytest.raises(HoldResolvedError):
        await till(souk.ledger).capture(hold, 1_000, "c" * 64, until_ms=until_ms)


async def test_more_than_is_held_is_not_captured(souk: Souk) -> None:
    hold = await held(souk)
    with pytest.raises(ExceedsHoldError):
        await till(souk.ledger).capture(hold, 5_001, RECEIPT, until_ms=CLOCK.now_ms() + 30_000)


async def test_another_s_hold_is_not_captured(souk: Souk) -> None:
    await held(souk)
    payee = Signer(b"payee".ljust(32)).did
    hold = (await souk.wallet.hold(payee, 5_000, CLOCK.now_ms() + 60_000, DEAL)).id
    with pytest.raises(NotPayeeError):
        await till(souk.ledger).capture(hold, 1_000, RECEIPT, until_ms=CLOCK.now_ms() + 30_000)


async def test_a_release_may_be_repeated(souk: Souk) -> None:
    shown = await till(souk.ledger).look(await held(souk))
    assert shown is not None
    await till(souk.ledger).release(shown)
    await till(souk.ledger).release(shown)
    assert (await souk.account(souk.wallet.account)).held == 0
    assert (await souk.types_logged()).count("release") == 1


class Flaky:
    """A ledger whose answers get lost, or that is busy, some times."""

    def __init__(self, ledger: Any, *, lost: int = 0, busy: int = 0) -> None:
        self._ledger, self.lost, self.busy = ledger, lost, busy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
        if self.busy:
            self.busy -= 1
            return Answer("retry", "0" * 64, code="busy")
        answer: Answer = await self._ledger.submit(raw)
        if self.lost:
            self.lost -= 1
            raise LedgerUnavailableError("the answer was lost")
        return answer


async def test_a_capture_whose_answers_get_lost_is_made_once(souk: Souk) -> None:
    hold = await held(souk)
    flaky = Flaky(souk.ledger, lost=2, busy=2)
    tx = await till(flaky).capture(hold, 4_000, RECEIPT, until_ms=CLOCK.now_ms() + 30_000)
    assert await souk.ledger.transaction(tx) is not None
    assert (await souk.types_logged()).count("capture") == 1


async def test_a_ledger_that_stays_away_is_said_to_be_away(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.till.BACKOFF_S", (0.0, 0.0))
    hold = await held(souk)
    for flaky in (Flaky(souk.ledger, busy=9), Flaky(souk.ledger, lost=9)):
        with pytest.raises(LedgerUnavailableError) as caught:
            await till(flaky).capture(hold, 4_000, RECEIPT, until_ms=CLOCK.now_ms() + 30_000)
        assert caught.value.retryable


async def test_a_capture_that_comes_too_late_is_refused(souk: Souk) -> None:
    hold = await held(souk)
    with pytest.raises(PaymentRefusedError):
        await till(souk.ledger).capture(hold, 4_000, RECEIPT, until_ms=CLOCK.now_ms() - 60_000)


async def test_an_errand_is_bought_or_tells_why_not_and_what_it_may_cost(souk: Souk) -> None:
    errands = Errands(souk.buyer)
    deadline_ms = CLOCK.now_ms() + 5_000
    wish = Errand("text.echo", {"text": "hey"}, 2_000_000, deadline_ms, depth=1, parent=DEAL)
    nobody = await errands.purchase(wish)
    assert isinstance(nobody.error, NoSellerError)
    assert nobody.paid_fals == 0
    async with souk.host() as host:
        member = await host.add(echo_agent(), source_of(echo_agent()))
        bought = await errands.purchase(wish)
        assert (bought.output, bought.error, bought.seller) == ("hey", None, member.did)
        assert 1_000_000 <= bought.paid_fals == bought.agreed_fals <= 2_000_000
