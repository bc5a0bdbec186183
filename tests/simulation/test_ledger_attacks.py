"""Each attack of an operator on those who trust him: who catches it, and with what evidence.

The ledgers, witnesses and auditors are real; only the operator cheats. Whatever is caught leaves a
bundle that anybody verifies offline, and that a flipped byte makes worthless.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from rahba.encoding import b64
from rahba.errors import BadSignatureError, RahbaError
from rahba.note import open_checkpoint, verifier_key
from tests.fixtures.attacks import (
    OPERATOR,
    Direct,
    ForgedLog,
    Operator,
    Shown,
    newest,
    policy,
    witness,
)
from tests.fixtures.wallet import did, signer_of
from wallet.audit import audit_entries
from wallet.auditor import Auditor, NotAuditedError, prove_dropped
from wallet.cosigning import Cosigning, NoQuorumError, RolledBackError
from wallet.evidence import (
    AnyBundle,
    Dropped,
    NotEvidenceError,
    Rollback,
    hashes,
    read_evidence,
    verify_evidence,
    write_evidence,
)
from wallet.ports import Entry, Ledger
from wallet.stores.sqlite import SqliteStore
from wallet.stores.witness import WitnessStore
from wallet.transactions import Mint, Transfer, seal_transaction
from wallet.witness import write_request


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WitnessStore]:
    found = WitnessStore(tmp_path / "witness.sqlite")
    yield found
    found.close()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def convicts(text: str, kind: str, entries: list[Entry] | None = None) -> AnyBundle:
    """Check the bundle as anybody would, and that every changed half of it is worthless."""
    bundle = read_evidence(text)
    finding = verify_evidence(bundle, entries or [])
    assert (finding.kind, finding.operator) == (kind, OPERATOR.did)
    assert read_evidence(write_evidence(bundle)) == bundle
    spoilt = 0
    for place in range(0, len(text), 7):
        letter = "A" if text[place] != "A" else "B"
        changed = text[:place] + letter + text[place + 1 :]
        try:
            other = read_evidence(changed)
        except RahbaError:  # no bundle at all is fine, too
            continue
        if other == bundle:
            continue
        try:
            again = verify_evidence(other, entries or [])
        except NotEvidenceError:
            spoilt += 1
            continue
        assert again.operator == OPERATOR.did  # another name of a witness, an unused line
    assert spoilt > 10
    return bundle


async def test_a_fork_of_one_size_is_refused_by_a_witness_who_keeps_both_notes(
    operator: Operator, store: WitnessStore
) -> None:
    note, size = await operator.write("a", "amina")
    forked, same = await operator.write("b", "thief")
    assert same == size
    watch = witness(store)
    assert (await watch.add_checkpoint(write_request(0, [], note)))[0] == 200
    assert (await watch.add_checkpoint(write_request(size, [], forked)))[0] == 422
    (bundle,) = store.evidence()
    convicts(bundle, "fork")


@pytest.mark.parametrize("names", [("amina",), ("amina", "brahim")])
async def test_a_fork_that_grew_is_proven_by_an_auditor_from_the_log_itself(
    operator: Operator, store: WitnessStore, names: tuple[str, ...]
) -> None:
    note, size = await operator.write("a", *names)
    power_of_two = not size & (size - 1)  # no proof repeats its root
    assert power_of_two is (len(names) == 1)
    other = await operator.open("b")
    for name in ("thief", "friend", "cousin"):
        await operator.wallet(other, name).faucet(5_000)
    forked, grown = await newest(other)
    assert (await witness(store).add_checkpoint(write_request(0, [], note)))[0] == 200
    watch = witness(store, Auditor(other))
    assert (await watch.add_checkpoint(write_request(size, [], forked)))[0] == 422
    assert grown > size
    await other.close()
    (bundle,) = store.evidence()
    convicts(bundle, "fork")


async def test_a_restored_backup_signs_nothing_because_a_witness_saw_more(
    operator: Operator, store: WitnessStore
) -> None:
    watch = witness(store)
    cosigning = Cosigning(policy(), {"one": watch})
    ledger = await operator.open("a", cosigning)
    await operator.wallet(ledger, "amina").faucet(9_000)
    old_note, old_size = await newest(ledger)
    await ledger.close()
    operator.copy("a", "backup")
    ledger = await operator.open("a", cosigning)
    await operator.wallet(ledger, "amina").transfer(did("brahim"), 5)
    note, size = await newest(ledger)
    await ledger.save_witnessed(note, size)
    assert (await watch.add_checkpoint(write_request(0, [], note)))[0] == 200
    await ledger.close()

    operator.copy("backup", "restored")
    before = SqliteStore(operator.folder / "restored.db")
    entries = before.size()
    before.close()
    with pytest.raises(RolledBackError) as caught:
        await operator.open("restored", Cosigning(policy(), {"one": watch}))
    assert (caught.value.facts["seen"], caught.value.facts["stored"]) == (size, old_size)
    assert open_checkpoint(str(caught.value.facts["note"]), operator.vkey).size == size
    after = SqliteStore(operator.folder / "restored.db")
    assert (after.size(), after.checkpoint()) == (entries, old_note)
    after.close()


async def test_a_restored_backup_that_goes_on_is_caught_by_an_auditor_with_what_it_cosigned(
    operator: Operator, store: WitnessStore
) -> None:
    old_note, _ = await operator.write("a", "amina")
    operator.copy("a", "backup")
    ledger = await operator.open("a")
    for name in ("brahim", "chadia", "driss"):
        await operator.wallet(ledger, name).faucet(9_000)
    note, size = await newest(ledger)
    watch = witness(store, Auditor(ledger))
    assert (await watch.add_checkpoint(write_request(0, [], note)))[0] == 200
    await ledger.close()

    ledger = await operator.open("backup")  # he asks nobody
    await operator.wallet(ledger, "amina").transfer(did("thief"), 5)
    shown, smaller = await newest(ledger)
    await ledger.close()
    assert smaller < size
    assert await watch.add_checkpoint(write_request(0, [], old_note)) == (409, f"{size}\n")
    assert store.evidence() == [], "an old checkpoint is no crime"
    assert await watch.add_checkpoint(write_request(0, [], shown)) == (409, f"{size}\n")
    (bundle,) = store.evidence()
    convicts(bundle, "rollback")


async def test_an_old_checkpoint_beside_a_cosigned_one_frames_nobody(
    operator: Operator, store: WitnessStore
) -> None:
    ledger = await operator.open("a")
    await operator.wallet(ledger, "amina").faucet(9_000)
    old_note, old_size = await newest(ledger)
    await operator.wallet(ledger, "amina").transfer(did("brahim"), 5)
    note, size = await newest(ledger)
    old_root, proof = b64(ledger.log.root_at(old_size)), ledger.log.consistency(old_size, size)
    await ledger.close()
    watch = witness(store)
    _, line = await watch.add_checkpoint(write_request(0, [], note))
    bundle = Rollback(operator.vkey, watch.watch.vkey, note + line, old_note)
    for framed in (bundle, msgspec.structs.replace(bundle, old_root=old_root, proof=hashes(proof))):
        with pytest.raises(NotEvidenceError):
            verify_evidence(framed)


async def test_who_kept_a_checkpoint_sees_a_rollback_without_any_witness(
    operator: Operator,
) -> None:
    await operator.write("a", "amina")
    operator.copy("a", "backup")
    ledger = await operator.open("a")
    await operator.wallet(ledger, "amina").transfer(did("brahim"), 5)
    mine, _ = await newest(ledger)
    await ledger.close()
    ledger = await operator.open("backup")
    await operator.wallet(ledger, "amina").transfer(did("thief"), 5)
    shown, _ = await newest(ledger)
    entries = ledger._store.read(0, 1_000)
    await ledger.close()
    report = audit_entries(entries, shown, vkey=operator.vkey, older=mine)
    assert not report.ok
    assert {problem.code for problem in report.problems} == {"wrong_root"}


async def test_the_newest_copy_and_the_unreachable_witness_do_not_stop_the_ledger(
    operator: Operator, store: WitnessStore
) -> None:
    class Away:
        async def checkpoint(self, origin: str) -> str | None:
            raise AssertionError(origin)

        async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
            from wallet.transports.witness import WitnessUnreachableError

            raise WitnessUnreachableError("nobody there")

    watch = witness(store)
    ledger = await operator.open("a", Cosigning(policy(), {"one": watch}))
    await operator.wallet(ledger, "amina").faucet(9_000)
    await newest(ledger)
    await ledger.close()
    for asked in (Cosigning(policy(), {"one": watch}), Cosigning(policy(), {"one": Away()})):
        ledger = await operator.open("a", asked)
        await operator.wallet(ledger, "amina").transfer(did("brahim"), 5)
        await ledger.close()
    with pytest.raises(NoQuorumError):
        await operator.open("a", Cosigning(policy(), {"one": Away()}, required=True))


async def audited(log: ForgedLog, store: WitnessStore) -> Direct:
    auditor = Auditor(cast("Ledger", Shown(log)))
    watch = witness(store, auditor)
    status, body = await watch.add_checkpoint(write_request(0, [], log.note))
    assert status == 403, body
    again = await watch.add_checkpoint(write_request(0, [], log.note))
    assert again[0] == 403
    started_again = witness(store, Auditor(cast("Ledger", Shown(log))))
    assert (await started_again.add_checkpoint(write_request(0, [], log.note)))[0] == 403
    return watch


async def test_a_forged_spend_is_refused_by_an_auditor_and_convicts_by_its_own_bytes(
    operator: Operator, store: WitnessStore
) -> None:
    log = ForgedLog(operator.genesis)
    log.fund("amina", 10_000)
    theft = log.tx(Transfer, "amina", to=did("thief"), amount="8000")
    forged = seal_transaction(theft, signer_of("thief")).replace(
        did("thief").encode() + b'","sig"', did("amina").encode() + b'","sig"'
    )
    log.take(forged)
    log.close()
    assert (
        await witness(WitnessStore(operator.folder / "mere.sqlite")).add_checkpoint(
            write_request(0, [], log.note)
        )
    )[0] == 200, "a mere witness looks at consistency alone"
    await audited(log, store)
    by_itself, by_replay = store.evidence()
    convicts(by_itself, "entry")
    convicts(by_replay, "state", log.entries)


async def test_money_from_nowhere_is_found_by_replaying(
    operator: Operator, store: WitnessStore
) -> None:
    log = ForgedLog(operator.genesis)
    log.fund("amina", 9_000)
    log.book.state.post([("issuance", did("thief"), 10**9)], {})
    log.book.state.touched |= {"issuance", did("thief")}
    log.close()
    await audited(log, store)
    (bundle,) = store.evidence()
    convicts(bundle, "state", log.entries)


async def test_minting_beyond_the_cap_is_found_by_replaying(
    operator: Operator, store: WitnessStore
) -> None:
    log = ForgedLog(operator.genesis)
    log.fund("operator", 9_000)
    log.book.state.caps["mint"] = 2**62
    too_much = str(int(operator.genesis.mint_epoch) + 1)
    mint = log.tx(Mint, "operator", to=did("thief"), amount=too_much)
    signed = log.take(seal_transaction(mint, OPERATOR))
    log.close()
    await audited(log, store)
    (bundle,) = store.evidence()
    found = cast("Any", convicts(bundle, "state", log.entries))
    assert log.entries[found.seq].leaf == signed.leaf


async def test_a_dropped_transaction_is_proven_by_its_receipt(operator: Operator) -> None:
    ledger = await operator.open("a")
    amina = operator.wallet(ledger, "amina")
    await amina.faucet(9_000)
    raw = await amina.sign_transfer(did("brahim"), 5)
    answer = await ledger.submit(raw, receipt=True)
    assert answer.receipt is not None
    await ledger.close()
    # He starts again from an empty disk, and leaves the payment out.
    other = await operator.open("b")
    with pytest.raises(NotAuditedError):
        await prove_dropped(other, answer.receipt, operator.vkey)
    for name in ("amina", "chadia", "driss"):
        await operator.wallet(other, name).faucet(9_000)
    await newest(other)
    bundle = await prove_dropped(other, answer.receipt, operator.vkey)
    await other.close()
    assert bundle is not None
    convicts(write_evidence(bundle), "dropped")


async def test_a_kept_promise_convicts_nobody(operator: Operator) -> None:
    ledger = await operator.open("a")
    amina = operator.wallet(ledger, "amina")
    await amina.faucet(9_000)
    answer = await ledger.submit(await amina.sign_transfer(did("brahim"), 5), receipt=True)
    assert answer.receipt is not None
    assert answer.seq is not None
    note, size = await newest(ledger)
    leaf, path = ledger.log.node(0, answer.seq), ledger.log.inclusion(answer.seq, size)
    assert await prove_dropped(ledger, answer.receipt, operator.vkey) is None
    with pytest.raises(BadSignatureError):
        await prove_dropped(
            ledger, answer.receipt, verifier_key(operator.genesis.origin, signer_of("thief"))
        )
    await ledger.close()
    assert open_checkpoint(note, operator.vkey).size == size
    with pytest.raises(NotEvidenceError, match="kept"):
        verify_evidence(Dropped(operator.vkey, answer.receipt, note, b64(leaf), hashes(path)))
    with pytest.raises(NotEvidenceError):
        verify_evidence(Rollback(operator.vkey, policy().witnesses["one"].vkey, note, note))
