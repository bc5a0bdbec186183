"""An account's proof: from the checkpoint's signature to the last fals, and its whole history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rahba.balance import (
    AccountLeaf,
    AccountProof,
    BalanceProof,
    verify_account,
    verify_balance,
    verify_history,
)
from rahba.encoding import b64, unb64
from rahba.errors import RahbaError
from rahba.merkle import BadProofError
from rahba.note import sign_checkpoint
from tests.fixtures.wallet import FEE, LedgerRig, did, signer_of


@pytest.fixture
async def proof(rig: LedgerRig) -> AccountProof:
    amina = await rig.funded("amina", 100_000)
    for amount in range(1, 6):
        await amina.transfer(did("brahim"), amount)
    await rig.funded("chadia", 5)
    await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)
    found = await rig.ledger.account_proof(did("amina"))
    assert found is not None
    return found


async def test_a_proof_tells_balance_time_and_tip(proof: AccountProof, rig: LedgerRig) -> None:
    found = verify_account(proof, await rig.ledger.verifier_key())
    assert (found.id, found.balance) == (did("amina"), 100_000 - 15 - 5 * FEE)
    assert found.size == rig.ledger.log.size
    account = rig.ledger._book.state.accounts[did("amina")]
    assert found.tip == account.tip


async def test_every_changed_part_of_a_proof_is_refused(
    proof: AccountProof, rig: LedgerRig
) -> None:
    vkey = await rig.ledger.verifier_key()
    other = await rig.ledger.account_proof(did("brahim"))
    assert other is not None
    note = proof.inclusion.checkpoint
    elsewhere = sign_checkpoint("other/log", 5, bytes(32), signer_of("operator"))
    wrong = [
        replace(proof, balance=proof.balance + 1),
        replace(proof, id=other.id),
        replace(proof, nonces="00" * 32),
        replace(proof, tip=other.tip),
        replace(proof, position=other.position),
        replace(proof, accounts=proof.accounts + 1),
        replace(proof, path=other.path),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=("zz", *proof.path[1:])),
        replace(proof, state=b64(unb64(proof.state)[:-2] + b"}}")),
        replace(proof, inclusion=replace(proof.inclusion, index=proof.inclusion.index - 1)),
        replace(proof, inclusion=replace(proof.inclusion, checkpoint=elsewhere)),
        replace(proof, inclusion=replace(proof.inclusion, checkpoint=note[:-9] + note[-8:])),
    ]
    for changed in wrong:
        with pytest.raises(RahbaError):
            verify_account(changed, vkey)
    assert verify_account(proof, vkey).balance == proof.balance


def test_more_accounts_than_can_be_counted_are_refused() -> None:
    leaf = AccountLeaf(did("amina"), 0, bytes(32), bytes(32))
    for last in (2**53, 2**64, 2**70):
        proof = BalanceProof(leaf, last, last + 1, (bytes(48),) * last.bit_count())
        with pytest.raises(BadProofError, match="no such position"):
            verify_balance(proof, bytes(32))


async def test_an_earlier_state_leaf_is_not_the_checkpoints(rig: LedgerRig) -> None:
    await rig.funded("amina", 5)
    await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)
    early = await rig.ledger.account_proof(did("amina"))
    assert early is not None
    await rig.funded("brahim", 5)
    await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)
    late = await rig.ledger.account_proof(did("amina"))
    assert late is not None
    size = rig.ledger.log.size
    path = tuple(step.hex() for step in rig.ledger.log.inclusion(early.inclusion.index, size))
    stale = replace(late.inclusion, index=early.inclusion.index, path=path)
    stale = replace(stale, leaf_hash=early.inclusion.leaf_hash)
    with pytest.raises(BadProofError, match="last"):
        verify_account(replace(early, inclusion=stale), await rig.ledger.verifier_key())


async def test_a_history_is_complete_or_refused(proof: AccountProof, rig: LedgerRig) -> None:
    tip = verify_account(proof, await rig.ledger.verifier_key()).tip
    pages, before = [], None
    while page := await rig.ledger.history(did("amina"), before=before, limit=4):
        pages += page
        before = page[-1].seq
    raws = [entry.raw for entry in reversed(pages)]
    assert verify_history(raws, tip) == 6
    swapped = [raws[1], raws[0], *raws[2:]]
    foreign = [*raws, (await rig.ledger.history(did("chadia")))[0].raw]
    for wrong in (raws[1:], raws[:-1], raws[:2] + raws[3:], swapped, foreign, [], [*raws, raws[0]]):
        with pytest.raises(BadProofError):
            verify_history(wrong, tip)


async def test_one_foreign_entry_is_named(proof: AccountProof, rig: LedgerRig) -> None:
    tip = verify_account(proof, await rig.ledger.verifier_key()).tip
    raws = [entry.raw for entry in reversed(await rig.ledger.history(did("amina")))]
    foreign = (await rig.ledger.history(did("chadia")))[0].raw
    for at in range(len(raws) + 1):
        with pytest.raises(BadProofError) as caught:
            verify_history([*raws[:at], foreign, *raws[at:]], tip)
        assert caught.value.facts == {"entry": at}
    with pytest.raises(BadProofError) as caught:
        verify_history(raws[1:], tip)
    assert caught.value.facts == {"entries": len(raws) - 1}


async def test_an_account_nobody_saw_has_no_proof_and_no_history(rig: LedgerRig) -> None:
    assert await rig.ledger.account_proof(did("nobody")) is None
    assert await rig.ledger.history(did("nobody")) == []
    with pytest.raises(RahbaError):
        await rig.ledger.history("fees")
    await rig.funded("amina", 5)
    with pytest.raises(RahbaError, match="no entry of this account"):
        await rig.ledger.history(did("amina"), before=0)
