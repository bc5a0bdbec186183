"""Who may act for an account: every order, number and kind of signatures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.wallet import FEE, PureLedger, did, signer_of
from wallet.authority import authorise, policy_of
from wallet.forms import open_transaction
from wallet.machine import LOGGED
from wallet.state import Policy
from wallet.transactions import (
    Grant,
    KeyRotate,
    PolicySet,
    Revoke,
    Signed,
    Transfer,
    seal_transaction,
)

PAY = {"to": did("brahim"), "amount": "1"}


def by_key(*names: str) -> list[str]:
    """Return the names in the order of their keys."""
    return sorted(names, key=did)


def signed(pure: PureLedger, form: type[Any], names: list[str], **words: Any) -> Signed:
    """Sign ``amina``'s transaction by the keys of ``names``, in this order."""
    tx = open_transaction(pure.sign(form, "amina", **words), pure.genesis.chain).record
    raw = seal_transaction(tx, *(signer_of(name) for name in names))
    return open_transaction(raw, pure.genesis.chain)


def told(pure: PureLedger, form: type[Any], names: list[str], **words: Any) -> str | None:
    raw = signed(pure, form, names, **words).raw
    outcome, _ = pure.apply(raw)
    return outcome.code or outcome.outcome


def share(pure: PureLedger, *names: str, threshold: int) -> None:
    """Put amina's account under a policy, and wait until it is in force."""
    pure.fund("amina")
    keys = tuple(did(name) for name in by_key(*names))
    assert pure.do(PolicySet, "amina", keys=keys, threshold=threshold) == LOGGED
    pure.now += pure.genesis.policy_ms


def test_an_account_acts_by_its_own_key_and_no_other(pure: PureLedger) -> None:
    assert policy_of(None, did("amina"), 0) == Policy((did("amina"),), 1)
    assert authorise(pure.state, signed(pure, Transfer, ["amina"], **PAY), pure.now) is None
    pure.fund("amina")
    assert told(pure, Transfer, ["chadia"], **PAY) == "unknown_session"
    assert told(pure, Transfer, ["amina", "chadia"], **PAY) == "not_authorised"


def test_a_fee_payer_signs_last(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.fund("sponsor")
    words = PAY | {"fee_payer": did("sponsor")}
    for names, code in [
        (["amina"], "not_authorised"),
        (["amina", "chadia"], "not_authorised"),
        (["amina", "sponsor", "chadia"], "not_authorised"),
        (["sponsor", "amina"], "unknown_session"),
        (["amina", "sponsor"], "logged"),
    ]:
        assert told(pure, Transfer, names, **words) == code
    assert pure.available("sponsor") == 1_000_000 - FEE


def test_a_policy_wants_exactly_so_many_of_its_keys_in_order(pure: PureLedger) -> None:
    names = by_key("amina", "brahim", "chadia")
    share(pure, *names, threshold=2)
    for signers, code in [
        (names[:1], "not_authorised"),
        (names, "not_authorised"),
        ([names[1], names[0]], "not_authorised"),
        ([names[0], "stranger"], "not_authorised"),
        (["stranger", names[0]], "unknown_session"),
        ([names[0], names[2]], "logged"),
    ]:
        assert told(pure, Transfer, signers, **{**PAY, "to": did("hassan")}) == code, signers


def test_a_stronger_policy_is_in_force_at_once_and_a_weaker_one_later(pure: PureLedger) -> None:
    names = by_key("amina", "brahim")
    share(pure, *names, threshold=1)
    keys = tuple(did(name) for name in names)
    assert told(pure, PolicySet, names[:1], keys=keys, threshold=2) == "logged"
    assert told(pure, Transfer, names[:1], **PAY) == "not_authorised"
    assert told(pure, PolicySet, names, keys=keys[:1], threshold=1) == "logged"
    assert told(pure, Transfer, names[:1], **PAY) == "not_authorised"
    pure.now += pure.genesis.policy_ms - 1
    assert told(pure, Transfer, names[:1], **PAY) == "not_authorised"
    pure.now += 1
    hassan = {**PAY, "to": did("hassan")}
    assert told(pure, Transfer, names[:1], **hassan) == "logged"
    assert told(pure, Transfer, names[1:], **hassan) == "unknown_session"


def test_a_pending_weaker_policy_is_withdrawn_by_another_one(pure: PureLedger) -> None:
    pure.fund("amina")
    mine, thief = (did("amina"),), (did("thief"),)
    assert told(pure, PolicySet, ["amina"], keys=thief, threshold=1) == "logged"
    pure.now += pure.genesis.policy_ms - 1
    assert told(pure, PolicySet, ["amina"], keys=mine, threshold=1) == "logged"
    pure.now += 10
    assert told(pure, Transfer, ["thief"], **PAY) == "unknown_session"
    assert told(pure, Transfer, ["amina"], **PAY) == "logged"


@pytest.mark.parametrize(
    ("keys", "threshold", "at_once"),
    [("ab", 2, True), ("abc", 2, False), ("abc", 3, True), ("a", 1, False), ("ac", 2, False)],
)
def test_a_policy_covers_another_if_its_smallest_coalition_does(
    keys: str, threshold: int, at_once: bool
) -> None:
    assert Policy(tuple(keys), threshold).covers(Policy(("a", "b"), 2)) is at_once


def test_a_rotated_key_is_in_force_at_once_and_the_old_one_is_not(pure: PureLedger) -> None:
    pure.fund("amina")
    words = {"old": did("amina"), "new": did("next")}
    for names, code in [
        (["amina"], "not_authorised"),
        (["amina", "stranger"], "not_authorised"),
        (["next", "amina"], "unknown_session"),
        (["amina", "next"], "logged"),
    ]:
        assert told(pure, KeyRotate, names, **words) == code
    assert told(pure, Transfer, ["amina"], **PAY) == "unknown_session"
    assert told(pure, Transfer, ["next"], **PAY) == "logged"
    assert pure.state.accounts[did("amina")].policy == Policy((did("next"),), 1)


def test_only_a_key_of_the_account_is_rotated_and_only_to_a_new_one(pure: PureLedger) -> None:
    names = by_key("amina", "brahim")
    share(pure, *names, threshold=2)
    stranger = {"old": did("stranger"), "new": did("next")}
    assert told(pure, KeyRotate, [*names, "next"], **stranger) == "unknown_key"
    words = {"old": did("brahim"), "new": did("next")}
    assert told(pure, KeyRotate, [*names, "next"], **words) == "logged"
    assert set(pure.state.accounts[did("amina")].policy_at(pure.now).keys) == {
        did("amina"),
        did("next"),
    }


def test_one_key_of_several_does_not_rotate_another_away(pure: PureLedger) -> None:
    """Else one of two keys brings a stranger's in at once, past the delay of policies."""
    share(pure, "amina", "brahim", threshold=1)
    words = {"old": did("amina"), "new": did("thief")}
    assert told(pure, KeyRotate, ["brahim", "thief"], **words) == "not_authorised"
    keys = tuple(sorted([did("brahim"), did("thief")]))
    assert told(pure, PolicySet, ["brahim"], keys=keys, threshold=1) == "logged"
    assert told(pure, Transfer, ["thief"], **{**PAY, "to": did("hassan")}) == "unknown_session"
    assert told(pure, Transfer, ["amina"], **{**PAY, "to": did("hassan")}) == "logged"
    assert told(pure, KeyRotate, ["amina", "next"], old=did("amina"), new=did("next")) == "logged"


def mandate(pure: PureLedger) -> dict[str, Any]:
    return {
        "key": did("agent"),
        "budget": "100000",
        "per_tx": "50000",
        "payees": None,
        "types": ("transfer",),
        "expires": pure.now + 24 * 3_600_000,
    }


def test_a_key_that_is_taken_out_takes_along_the_sessions_it_granted(pure: PureLedger) -> None:
    share(pure, "amina", "thief", threshold=1)
    assert told(pure, Grant, ["thief"], **mandate(pure)) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "logged"
    assert told(pure, PolicySet, ["amina"], keys=(did("amina"),), threshold=1) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "unknown_session"


def test_a_session_ends_when_a_pending_policy_is_due_and_never_comes_back(pure: PureLedger) -> None:
    pure.fund("amina")
    keys = tuple(sorted([did("amina"), did("brahim")]))
    assert told(pure, Grant, ["amina"], **mandate(pure)) == "logged"
    assert told(pure, PolicySet, ["amina"], keys=keys, threshold=1) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "logged"
    pure.now += pure.genesis.policy_ms
    assert told(pure, Transfer, ["agent"], **PAY) == "unknown_session"
    assert told(pure, Revoke, ["brahim"], key=did("agent")) == "unknown_session"
    assert told(pure, PolicySet, ["amina"], keys=(did("amina"),), threshold=1) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "unknown_session"


def test_a_session_granted_by_the_policy_that_came_in_stands(pure: PureLedger) -> None:
    share(pure, "amina", "brahim", threshold=1)
    assert told(pure, Grant, ["brahim"], **mandate(pure)) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "logged"
    keys = tuple(sorted([did("amina"), did("brahim")]))
    assert told(pure, PolicySet, ["amina"], keys=keys, threshold=1) == "logged"  # the same again
    assert told(pure, Transfer, ["agent"], **PAY) == "logged"


def test_rotating_a_key_ends_what_a_thief_may_have_granted_with_it(pure: PureLedger) -> None:
    pure.fund("amina")
    grant = mandate(pure)
    assert told(pure, Grant, ["amina"], **grant) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "logged"
    words = {"old": did("amina"), "new": did("next")}
    assert told(pure, KeyRotate, ["amina", "next"], **words) == "logged"
    assert told(pure, Transfer, ["agent"], **PAY) == "unknown_session"


def test_a_session_neither_rotates_keys_nor_sets_policies(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.state.accounts[did("amina")].sessions[did("agent")] = _session(pure)
    words = {"old": did("amina"), "new": did("next")}
    assert told(pure, KeyRotate, ["agent", "next"], **words) == "out_of_scope"
    assert told(pure, PolicySet, ["agent"], keys=(did("agent"),), threshold=1) == "out_of_scope"


def test_the_operators_key_is_the_genesis_and_stays(pure: PureLedger) -> None:
    pure.fund("operator")
    policy = pure.do(PolicySet, "operator", keys=(did("thief"),), threshold=1)
    assert policy.code == "fixed_key"


def test_a_fee_payer_under_a_policy_signs_as_its_policy_asks(pure: PureLedger) -> None:
    pure.fund("sponsor")
    names = by_key("sponsor", "second")
    keys = tuple(did(name) for name in names)
    assert pure.do(PolicySet, "sponsor", keys=keys, threshold=2) == LOGGED
    pure.now += pure.genesis.policy_ms
    pure.fund("amina", 10)
    words = PAY | {"fee_payer": did("sponsor")}
    assert told(pure, Transfer, ["amina", "sponsor"], **words) == "not_authorised"
    assert told(pure, Transfer, ["amina", *names], **words) == "logged"


def _session(pure: PureLedger) -> Any:
    from wallet.state import Session

    return Session(did("agent"), 10**9, 10**9, None, frozenset({"transfer"}), pure.now + 3_600_000)
