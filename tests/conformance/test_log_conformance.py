"""A log written by the real sequencer, read by other people's implementations."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from pymerkle import InmemoryTree
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.ids import RandomIds, key_of
from rahba.merkle import leaf_hash
from rahba.messages import TX_TYPE
from rahba.note import open_checkpoint
from wallet.merkle import MerkleLog
from wallet.ports import TxView
from wallet.service import Sequencer
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    EXPIRING_LANE,
    Faucet,
    Transfer,
    dev_genesis,
    seal_transaction,
    transaction_id,
)

OPERATOR, ALICE, BOB = (Signer(bytes([number]) * 32) for number in range(1, 4))
CLOCK, IDS = SystemClock(), RandomIds()


def key_of_did(did: str) -> SSlibKey:
    return SSlibKey(did, "ed25519", "ed25519", {"public": key_of(did).hex()})


class Written:
    """What a ledger wrote: its entries, its checkpoint, its key."""

    entries: list[TxView]
    note: str
    key: str


@pytest.fixture
async def written(tmp_path: Path) -> Written:
    found = Written()
    genesis = dev_genesis(OPERATOR.did, CLOCK.now_ms())
    store = SqliteStore(tmp_path / "ledger.db")
    async with await Sequencer.open(
        store, genesis=genesis, operator=OPERATOR, clock=CLOCK, ids=IDS
    ) as ledger:
        raws = [_faucet(genesis.chain), *(_transfer(genesis.chain, n) for n in range(1, 40))]
        for raw in raws:
            assert (await ledger.submit(raw)).ok
        async with asyncio.timeout(5):
            while (proof := await ledger.inclusion(transaction_id(raws[-1]))) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # until a checkpoint covers it
        found.note, found.key = proof.checkpoint, await ledger.verifier_key()
        size = open_checkpoint(found.note, found.key).size
        found.entries = await ledger.entries(0, size)
    return found


def test_every_leaf_is_a_dsse_envelope_that_securesystemslib_verifies(written: Written) -> None:
    assert len(written.entries) > 40
    for entry in written.entries:
        envelope = Envelope.from_dict(orjson.loads(entry.raw))
        signers = list(envelope.signatures)
        assert envelope.payload_type == TX_TYPE
        assert orjson.loads(envelope.payload) == entry.payload
        assert set(envelope.verify([key_of_did(did) for did in signers], len(signers))) == set(
            signers
        )


def test_securesystemslib_refuses_a_leaf_that_was_altered(written: Written) -> None:
    content = orjson.loads(written.entries[2].raw)
    payload = b64decode(content["payload"]).replace(b'"amount":"', b'"amount":"9')
    envelope = Envelope.from_dict(content)
    forged = Envelope(payload, envelope.payload_type, envelope.signatures)
    with pytest.raises(VerificationError):
        forged.verify([key_of_did(did) for did in envelope.signatures], 1)


def test_pymerkle_finds_the_root_that_the_checkpoint_signs(written: Written) -> None:
    tree = InmemoryTree(algorithm="sha256")
    for entry in written.entries:
        assert entry.id == sha256(b"\0" + entry.raw).hexdigest()
        tree.append_entry(entry.raw)
    checkpoint = open_checkpoint(written.note, written.key)
    assert (tree.get_size(), tree.get_root()) == (checkpoint.size, checkpoint.root)


def test_pymerkle_finds_every_root_from_one_leaf_to_two_thousand() -> None:
    tree, log = InmemoryTree(algorithm="sha256"), MerkleLog()
    roots = []
    for number in range(2_000):
        leaf = b"%d" % number
        tree.append_entry(leaf)
        log.append(leaf_hash(leaf))
        roots.append(tree.get_root())
        assert log.root() == roots[-1]
    assert [log.root_at(size) for size in range(1, 2_001)] == roots


def _faucet(chain: str) -> bytes:
    return seal_transaction(Faucet(**_common(chain), amount="1000000"), ALICE)


def _transfer(chain: str, amount: int) -> bytes:
    return seal_transaction(Transfer(**_common(chain), to=BOB.did, amount=str(amount)), ALICE)


def _common(chain: str) -> dict[str, object]:
    return {
        "account": ALICE.did,
        "chain": chain,
        "fee": "1000",
        "fee_payer": None,
        "lane": EXPIRING_LANE,
        "seq": IDS.salt(),
        "valid_until": CLOCK.now_ms() + 60_000,
    }
