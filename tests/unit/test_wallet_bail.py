"""What a payee pledges is set aside with the hold, and lost only by silence or by its own word."""

from __future__ import annotations

from typing import Any

import pytest

from rahba.errors import BadSignatureError
from rahba.pledge import Pledge, check_pledge, sign_pledge
from tests.fixtures.wallet import DEAL, FEE, PureLedger, did, signer_of
from wallet.errors import BadPledgeError
from wallet.machine import LOGGED, Outcome
from wallet.transactions import Bail, Capture, Expire, Hold, KeyRotate, Release, Transfer

LASTS_MS = 60_000


def bail_of(pure: PureLedger, fals: int = 500, **changes: Any) -> Bail:
    """Return what Brahim puts up for Amina's deal, but for ``changes`` to what he signs."""
    fields: dict[str, Any] = {
        "agreement": DEAL,
        "amount": str(fals),
        "buyer": did("amina"),
        "chain": pure.genesis.chain,
        "seller": did("brahim"),
        "until": pure.now + 5_000,
    }
    pledge = Pledge(**(fields | changes))
    signer = next(s for s in map(signer_of, ("brahim", "chadia")) if s.did == pledge.seller)
    until = fields["until"]
    return Bail(amount=str(fals), until=until, signature=sign_pledge(pledge, signer))


def hold(pure: PureLedger, bail: Bail | None, payer: str = "amina", **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "payee": did("brahim"),
        "amount": "6000",
        "agreement": DEAL,
        "arbitration": None,
        "bail": bail,
        "expires": pure.now + LASTS_MS,
    }
    return pure.do(Hold, payer, **(fields | changes))


@pytest.fixture
def held(pure: PureLedger) -> str:
    """Return a hold of 6000 of Amina's with 500 of Brahim's set aside."""
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    return pure.open_hold(Hold, "amina", "brahim", 6_000, bail=bail_of(pure))


def test_a_pledge_is_set_aside_with_the_hold(pure: PureLedger, held: str) -> None:
    assert pure.state.holds[held].bail == 500
    assert pure.available("brahim") == 4_500


def test_a_payee_that_delivers_gets_its_bail_back(pure: PureLedger, held: str) -> None:
    words = {"hold": held, "amount": "6000", "final": True, "receipt": None}
    assert pure.do(Capture, "brahim", **words) == LOGGED
    assert pure.available("brahim") == 5_000 + 6_000 - FEE


def test_a_payee_that_is_never_heard_of_again_loses_its_bail(pure: PureLedger, held: str) -> None:
    before = pure.available("amina")
    pure.now += LASTS_MS
    assert pure.do(Expire, "chadia", subject=held, fee="0") == LOGGED
    assert pure.available("amina") == before + 6_000 + 500
    assert pure.available("brahim") == 4_500


@pytest.mark.parametrize(("taken", "lost"), [(1_000, 0), (500, 0), (200, 300)])
def test_what_was_taken_in_parts_counts_towards_the_bail(
    pure: PureLedger, held: str, taken: int, lost: int
) -> None:
    words = {"hold": held, "amount": str(taken), "final": False, "receipt": None}
    assert pure.do(Capture, "brahim", **words) == LOGGED
    pure.now += LASTS_MS
    assert pure.do(Expire, "chadia", subject=held, fee="0") == LOGGED
    assert pure.available("brahim") == 5_000 + taken - FEE - lost


@pytest.mark.parametrize("token", [0, 1, 499])
def test_a_token_capture_does_not_save_the_bail(pure: PureLedger, held: str, token: int) -> None:
    before = pure.available("amina")
    words = {"hold": held, "amount": str(token), "final": True, "receipt": None}
    assert pure.do(Capture, "brahim", **words) == LOGGED
    assert pure.available("amina") == before + 6_000 - token + (500 - token)
    assert pure.available("brahim") == 5_000 + token - FEE - (500 - token)


@pytest.mark.parametrize("forfeit", [0, 200, 500])
def test_a_payee_that_leaves_forfeits_what_it_says(
    pure: PureLedger, held: str, forfeit: int
) -> None:
    before = pure.available("amina")
    assert pure.do(Release, "brahim", hold=held, forfeit=str(forfeit), fee="0") == LOGGED
    assert pure.available("amina") == before + 6_000 + forfeit
    assert pure.available("brahim") == 5_000 - forfeit


def test_nobody_forfeits_more_than_was_set_aside(pure: PureLedger, held: str) -> None:
    outcome = pure.do(Release, "brahim", hold=held, forfeit="501", fee="0")
    assert outcome.code == "exceeds_hold"
    assert pure.state.holds[held].status == "open"


def test_what_is_set_aside_cannot_be_spent(pure: PureLedger, held: str) -> None:
    del held
    outcome = pure.do(Transfer, "brahim", to=did("chadia"), amount=str(4_500 - FEE + 1))
    assert outcome.code == "insufficient_funds"


def test_a_pledge_opens_one_hold(pure: PureLedger, held: str) -> None:
    assert hold(pure, bail_of(pure)).code == "pledge_used"
    assert pure.do(Release, "brahim", hold=held, forfeit="0", fee="0") == LOGGED
    assert hold(pure, bail_of(pure)).code == "pledge_used"


def test_a_pledge_is_over_after_its_time(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    late = bail_of(pure)
    pure.now += 5_001
    assert hold(pure, late).code == "bad_pledge"


def test_a_pledge_cannot_outlast_the_memory_of_its_use(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    pure.now -= 1
    far = bail_of(pure)
    pure.now += 1
    hour = Bail(amount="500", until=pure.now + 3_600_001, signature=far.signature)
    signed = Pledge(
        agreement=DEAL,
        amount="500",
        buyer=did("amina"),
        chain=pure.genesis.chain,
        seller=did("brahim"),
        until=hour.until,
    )
    good = Bail(amount="500", until=hour.until, signature=sign_pledge(signed, signer_of("brahim")))
    assert hold(pure, good).code == "bad_pledge"


@pytest.mark.parametrize(
    "changes",
    [
        {"agreement": "cd" * 32},
        {"amount": "499"},
        {"buyer": did("chadia")},
        {"chain": "0" * 16},
        {"seller": did("chadia")},
        {"until": 1},
    ],
)
def test_a_pledge_covers_each_of_its_terms(pure: PureLedger, changes: dict[str, Any]) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    with pytest.raises(BadPledgeError):
        hold(pure, bail_of(pure, **changes))
    assert pure.available("brahim") == 5_000


def test_nobody_else_can_use_a_pledge(pure: PureLedger) -> None:
    pure.fund("chadia", 20_000)
    pure.fund("brahim", 5_000)
    with pytest.raises(BadPledgeError):
        hold(pure, bail_of(pure), payer="chadia")


def test_a_pledge_without_money_behind_it_opens_nothing(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 499)
    assert hold(pure, bail_of(pure)).code == "pledge_unbacked"
    assert pure.state.holds == {}


def test_a_key_that_was_rotated_away_pledges_nothing(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    words = {"old": did("brahim"), "new": did("agent"), "fee_by": "agent"}
    pure.fund("agent", 5_000)
    outcome = pure.do(KeyRotate, "brahim", **words)
    assert outcome == LOGGED, outcome
    assert hold(pure, bail_of(pure)).code == "bad_pledge"


def test_a_hold_with_a_bail_lasts_long_enough_to_be_noticed(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    assert hold(pure, bail_of(pure), expires=pure.now + 11_999).code == "bad_expiry"
    assert hold(pure, bail_of(pure), expires=pure.now + 12_000) == LOGGED


def test_only_the_seller_makes_a_pledge(pure: PureLedger) -> None:
    pledge = Pledge(
        agreement=DEAL,
        amount="5",
        buyer=did("amina"),
        chain=pure.genesis.chain,
        seller=did("brahim"),
        until=pure.now,
    )
    with pytest.raises(BadSignatureError):
        sign_pledge(pledge, signer_of("amina"))
    check_pledge(pledge, sign_pledge(pledge, signer_of("brahim")))
