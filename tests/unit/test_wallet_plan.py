"""What a change makes available before the postings take it."""

from __future__ import annotations

from tests.fixtures.wallet import DEAL, did
from wallet.plan import Bond, Close, Draw, Freeze, OpenHold, Seize, Unbond, Unbonded, freed
from wallet.state import Account, Escrow, Unbonding


def test_what_is_set_aside_is_missing_and_what_ends_is_there() -> None:
    amina = did("amina")
    brahim = did("brahim")
    hold = Escrow("h", amina, brahim, 100, 5, DEAL, bail=7)
    part = Unbonding("u", amina, 30, 9)
    assert freed(OpenHold(hold)) == ((amina, -100), (brahim, -7))
    assert freed(Draw(hold, 40, 60)) == ((amina, 100), (brahim, 7))
    assert freed(Draw(hold, 40, 0)) == ((amina, 40), (brahim, 0))
    assert freed(Bond(amina, 7)) == ((amina, -7),)
    assert freed(Unbonded(part)) == ((amina, 30),)
    assert freed(Seize(Account(amina, 2), 12, "f")) == ((amina, 12),)
    for neither in (Freeze(hold, 9), Unbond(part), Close("key")):
        assert freed(neither) == ()
