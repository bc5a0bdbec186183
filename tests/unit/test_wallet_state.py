"""The few mutations of the state keep its sums right, and its memory bounded."""

from __future__ import annotations

import pytest

from tests.fixtures.wallet import DEAL, START_MS, PureLedger, did
from wallet.errors import InvariantError
from wallet.holds import draw_hold, open_hold
from wallet.state import Escrow, State


def hold(name: str, expires: int, amount: int = 10) -> Escrow:
    return Escrow(name, did("amina"), did("brahim"), amount, expires, DEAL)


@pytest.fixture
def state(pure: PureLedger) -> State:
    pure.fund("amina", 1_000)
    return pure.state


def test_holds_expire_oldest_first_and_resolved_ones_do_not(state: State) -> None:
    for name, expires in (("a", 300), ("b", 100), ("c", 200), ("d", 900)):
        open_hold(state, hold(name, expires))
    draw_hold(state, state.holds["b"], 10, 0)
    assert state.deadlines.next() == 200
    assert state.deadlines.pop(299, 10) == ["c"]
    assert state.deadlines.pop(300, 10) == ["a"]
    assert state.deadlines.pop(10_000, 0) == []
    assert state.deadlines.pop(10_000, 10) == ["d"]
    assert state.deadlines.next() is None


@pytest.mark.parametrize(("taken", "freed"), [(11, 0), (0, 11), (6, 5)])
def test_a_hold_never_gives_more_than_is_in_it(state: State, taken: int, freed: int) -> None:
    open_hold(state, hold("a", 300))
    with pytest.raises(InvariantError, match="I6"):
        draw_hold(state, state.holds["a"], taken, freed)
    assert (state.held, state.escrowed) == (10, 10)


def test_a_hold_resolves_once(state: State) -> None:
    open_hold(state, hold("a", 300))
    draw_hold(state, state.holds["a"], 0, 10)
    with pytest.raises(InvariantError, match="I6"):
        draw_hold(state, state.holds["a"], 0, 0)


def test_salts_are_forgotten_when_nobody_can_use_them_any_more(state: State) -> None:
    account = state.register(did("amina"))
    state.spend_salt(account, 5, START_MS + 10_000)
    state.advance(START_MS + 10_000)
    assert 5 in account.salts
    state.advance(START_MS + 70_000)
    assert 5 not in account.salts


def test_accounts_keep_the_position_of_their_first_appearance(state: State) -> None:
    assert [account.position for account in state.accounts.values()] == [0, 1, 2]
    assert [*state.accounts] == ["issuance", "fees", did("amina")]
    assert state.register("fees").position == 1


def test_the_leaf_of_an_account_names_its_lanes(state: State) -> None:
    account = state.register(did("amina"))
    before = account.leaf()
    account.lanes[3] = 1
    assert account.leaf().nonces != before.nonces
    assert account.leaf().balance == 1_000
