"""The audit of a log: an honest one passes, and whatever is changed is found and named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from rahba.envelope import Signer
from rahba.errors import BadSignatureError, RahbaError
from rahba.merkle import leaf_hash
from rahba.note import sign_checkpoint, verifier_key
from wallet.audit import ENDED, MAX_PROBLEMS, Report, audit_entries, audit_ledger
from wallet.book import Book
from wallet.errors import StoreError
from wallet.machine import apply
from wallet.merkle import MerkleLog
from wallet.ports import Entry, TxView
from wallet.service import MAX_GROUP
from wallet.stores.readonly import ReadOnlyLog
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Capture,
    Expire,
    Faucet,
    Genesis,
    Hold,
    StateLeaf,
    Transfer,
    dev_genesis,
    read,
    seal_transaction,
)
from wallet.transports.http import HttpLedger

OPERATOR, ALICE, BOB, THIEF = (Signer(bytes([number]) * 32) for number in range(1, 5))
START = 1_700_000_000_000
GENESIS = dev_genesis(OPERATOR.did, START)
VKEY = verifier_key(GENESIS.origin, OPERATOR)


@dataclass
class Writer:
    """Writes a log as an operator does, honest or not."""

    entries: list[Entry]
    book: Book
    salt: int = 0

    @classmethod
    def begin(cls) -> Writer:
        raw = seal_transaction(GENESIS, OPERATOR)
        signed = read(raw)
        return cls([Entry(0, raw, signed.leaf, START)], Book(GENESIS, signed.leaf))

    def common(self, account: Signer) -> dict[str, object]:
        self.salt += 1
        return {
            "account": account.did,
            "chain": GENESIS.chain,
            "fee": "1000",
            "fee_payer": None,
            "lane": EXPIRING_LANE,
            "seq": self.salt,
            "valid_until": START + 600_000,
        }

    def add(self, tx: AnyTx, signer: Signer, at: int) -> str:
        signed = read(seal_transaction(tx, signer))
        log_time = self.book.time(START + at)
        outcome = self.book.take(signed, log_time)
        assert outcome.outcome == "logged", outcome
        self.entries.append(Entry(len(self.entries), signed.raw, signed.leaf, log_time))
        return signed.id

    def close(self) -> None:
        log_time = self.book.interval
        assert log_time is not None
        signed = self.book.close_interval(OPERATOR)
        self.entries.append(Entry(len(self.entries), signed.raw, signed.leaf, log_time))


def sign(entries: list[Entry]) -> str:
    root = MerkleLog(leaf_hash(entry.raw) for entry in entries).root()
    return sign_checkpoint(GENESIS.origin, len(entries), root, OPERATOR)


DEAL = {"payee": BOB.did, "agreement": "ab" * 32, "arbitration": None, "bail": None}


def honest_log() -> Writer:
    log = Writer.begin()
    log.close()
    log.add(Faucet(**log.common(ALICE), amount="90000"), ALICE, 10)
    log.add(Transfer(**log.common(ALICE), to=BOB.did, amount="20000"), ALICE, 20)
    log.close()
    hold = Hold(**log.common(ALICE), **DEAL, amount="5000", expires=START + 90_000)
    hold_id = log.add(hold, ALICE, 300)
    log.close()
    log.add(
        Capture(**log.common(BOB), hold=hold_id, amount="4000", final=True, receipt=None), BOB, 500
    )
    log.close()
    return log


LOG = honest_log()
ENTRIES = tuple(LOG.entries)
CHECKPOINT = sign(LOG.entries)


def audit(entries: list[Entry] | tuple[Entry, ...], checkpoint: str = CHECKPOINT) -> Report:
    return audit_entries(entries, checkpoint, vkey=VKEY)


def test_an_honest_log_passes_and_its_figures_are_told() -> None:
    report = audit(ENTRIES)
    assert report.ok
    assert report.problems == ()
    assert (report.entries, report.covered, report.transactions) == (9, 9, 4)
    assert report.accounts == 4  # issuance, fees, Alice, Bob
    assert report.supply == 90_000
    assert report.root == MerkleLog(leaf_hash(entry.raw) for entry in ENTRIES).root().hex()


def test_without_a_key_the_operator_of_the_genesis_is_believed() -> None:
    assert audit_entries(ENTRIES, CHECKPOINT).ok


def test_another_operator_is_found() -> None:
    report = audit_entries(ENTRIES, CHECKPOINT, vkey=verifier_key(GENESIS.origin, THIEF))
    assert {problem.code for problem in report.problems} == {"wrong_operator", "bad_signature"}
    assert not report.checkpoint_ok


def test_entries_beyond_the_checkpoint_are_checked_but_not_covered() -> None:
    report = audit(ENTRIES, sign(list(ENTRIES[:7])))
    assert report.ok
    assert (report.entries, report.covered) == (9, 7)


def test_an_interval_that_is_still_open_is_replayed_too() -> None:
    report = audit(ENTRIES[:8], sign(list(ENTRIES[:7])))
    assert report.ok
    assert report.transactions == 4


def test_progress_is_told() -> None:
    told: list[int] = []
    audit_entries(ENTRIES, CHECKPOINT, progress=told.append)
    assert told == [9]


def test_a_flipped_bit_anywhere_in_an_entry_is_found_by_its_number() -> None:
    rng = random.Random(7)
    for seq, entry in enumerate(ENTRIES):
        for _ in range(12):
            altered = bytearray(entry.raw)
            altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
            for leaf in (entry.leaf, leaf_hash(bytes(altered))):
                changed = list(ENTRIES)
                changed[seq] = entry._replace(raw=bytes(altered), leaf=leaf)
                report = audit(changed)
                assert not report.ok
                assert not report.checkpoint_ok
                assert report.problems[0].seq == seq


def test_a_flipped_bit_in_what_is_stored_beside_an_entry_is_found() -> None:
    for seq, entry in enumerate(ENTRIES):
        for change in ({"leaf": bytes(32)}, {"log_time": entry.log_time ^ 1}):
            changed = list(ENTRIES)
            changed[seq] = entry._replace(**change)
            report = audit(changed)
            assert [problem.seq for problem in report.problems] == [seq]
            assert not report.ok


def test_a_dropped_entry_is_found() -> None:
    for seq in range(len(ENTRIES)):
        gap = [*ENTRIES[:seq], *ENTRIES[seq + 1 :]]
        closed_up = [entry._replace(seq=place) for place, entry in enumerate(gap)]
        for changed in (gap, closed_up):
            report = audit(changed)
            assert not report.ok
            assert any(problem.seq is not None for problem in report.problems)
    assert audit([*ENTRIES[:3], *ENTRIES[4:]]).problems[0].seq == 3


def test_two_entries_that_changed_places_are_found() -> None:
    changed = [*ENTRIES[:2], ENTRIES[3]._replace(seq=2), ENTRIES[2]._replace(seq=3), *ENTRIES[4:]]
    assert not audit(changed).ok


def test_a_truncated_log_is_found() -> None:
    report = audit(ENTRIES[:7])
    assert report.problems[-1].seq == 7
    assert not report.checkpoint_ok


@pytest.mark.parametrize("field", ["root", "supply", "prev_size", "log_time"])
def test_a_state_leaf_that_its_operator_forged_is_found(field: str) -> None:
    """The forger is the operator itself: it signs the leaf, the log and the checkpoint anew."""
    said = read(ENTRIES[4].raw).record
    assert isinstance(said, StateLeaf)
    forged = {
        "root": {"root": "00" * 32},
        "supply": {"supply": "80000"},
        "prev_size": {"prev_size": said.prev_size + 1},
        "log_time": {"log_time": said.log_time - 1_000},
    }[field]
    leaf = StateLeaf(**{name: getattr(said, name) for name in said.__struct_fields__} | forged)
    changed = replaced(4, seal_transaction(leaf, OPERATOR))
    report = audit(changed, sign(changed))
    assert report.problems[0].seq == 4
    assert report.problems[0].code == "ledger_corrupt"


def test_money_that_the_payer_never_signed_away_is_found() -> None:
    log = Writer.begin()
    theft = Transfer(**log.common(ALICE), to=THIEF.did, amount="20000")
    changed = replaced(3, seal_transaction(theft, THIEF))
    report = audit(changed, sign(changed))
    assert report.problems[0].seq == 3
    assert not report.ok
    assert report.checkpoint_ok  # the operator signed for it: that is the evidence


def test_a_spend_beyond_the_balance_is_found_although_all_signatures_are_right() -> None:
    log = Writer.begin()
    rich = Transfer(**log.common(BOB), to=THIEF.did, amount="20000")
    changed = replaced(3, seal_transaction(rich, BOB))
    assert audit(changed, sign(changed)).problems[0].seq == 3


def test_a_replayed_transaction_is_found() -> None:
    changed = replaced(5, ENTRIES[3].raw)
    assert audit(changed, sign(changed)).problems[0].seq == 5


def test_an_older_checkpoint_of_another_history_is_found() -> None:
    kept = sign(list(ENTRIES[:5]))
    assert audit_entries(ENTRIES, CHECKPOINT, vkey=VKEY, older=kept).ok
    other = sign_checkpoint(GENESIS.origin, 5, bytes(32), OPERATOR)
    report = audit_entries(ENTRIES, CHECKPOINT, vkey=VKEY, older=other)
    assert [problem.code for problem in report.problems] == ["wrong_root"]


def test_a_log_that_was_rolled_back_behind_an_older_checkpoint_is_found() -> None:
    report = audit_entries(ENTRIES[:5], sign(list(ENTRIES[:5])), vkey=VKEY, older=CHECKPOINT)
    assert [problem.seq for problem in report.problems] == [5]


def test_a_log_without_a_genesis_or_without_anything_is_no_log() -> None:
    for entries in ([], [ENTRIES[2]._replace(seq=0)], [Entry(0, b"", leaf_hash(b""), 0)]):
        report = audit_entries(entries, CHECKPOINT)
        assert not report.ok
        assert not report.checkpoint_ok


def test_a_second_genesis_is_found() -> None:
    second = Genesis(**{name: getattr(GENESIS, name) for name in GENESIS.__struct_fields__})
    changed = replaced(5, seal_transaction(second, OPERATOR))
    assert audit(changed, sign(changed)).problems[0].seq == 5


def test_problems_are_limited() -> None:
    junk = [Entry(seq, b"junk", bytes(32), 0) for seq in range(MAX_PROBLEMS * 2)]
    assert len(audit(junk).problems) == MAX_PROBLEMS


def test_a_refused_transaction_leaves_no_trace_in_the_replay() -> None:
    log = honest_log()
    poor = read(seal_transaction(Transfer(**log.common(THIEF), to=BOB.did, amount="1"), THIEF))
    assert apply(log.book.state, poor, START + 900).code == "insufficient_funds"
    assert log.book.log.root() == MerkleLog(entry.leaf for entry in ENTRIES).root()


def test_a_log_that_cannot_be_read_on_is_named_with_its_place() -> None:
    def torn() -> Iterator[Entry]:
        yield from ENTRIES[:4]
        raise StoreError("the file cannot be read")

    report = audit_entries(torn(), CHECKPOINT, vkey=VKEY)
    assert (report.problems[0].seq, report.problems[0].code) == (4, "unreadable")
    assert report.root == ""
    assert not report.checkpoint_ok


def test_a_theft_in_the_open_interval_is_found_by_its_number() -> None:
    theft = seal_transaction(Transfer(**Writer.begin().common(BOB), to=THIEF.did, amount="1"), BOB)
    entry = Entry(5, theft, leaf_hash(theft), ENTRIES[5].log_time)
    report = audit([*ENTRIES[:5], entry], sign(list(ENTRIES[:5])))
    assert report.problems == ()  # Bob has the money: an honest payment
    poor = seal_transaction(Transfer(**Writer.begin().common(THIEF), to=BOB.did, amount="1"), THIEF)
    entry = Entry(5, poor, leaf_hash(poor), ENTRIES[5].log_time)
    report = audit([*ENTRIES[:5], entry], sign(list(ENTRIES[:5])))
    assert [problem.seq for problem in report.problems] == [5]


def holding_log(expiries: list[int]) -> Writer:
    """Return a log of two closed intervals; in the second, holds of Alice's are opened."""
    log = Writer.begin()
    log.close()
    log.add(Faucet(**log.common(ALICE), amount="90000"), ALICE, 10)
    for expires in expiries:
        log.add(Hold(**log.common(ALICE), **DEAL, amount="1", expires=START + expires), ALICE, 10)
    log.close()
    return log


def pay(log: Writer, at: int) -> None:
    """Add an interval in which Alice pays Bob."""
    log.add(Transfer(**log.common(ALICE), to=BOB.did, amount="1"), ALICE, at)
    log.close()


def release(log: Writer, hold_id: str, at: int) -> None:
    """End a hold as a sequencer does."""
    words = log.common(OPERATOR) | {"fee": "0"}
    log.add(Expire(**words, subject=hold_id), OPERATOR, at)


def test_a_hold_left_open_past_its_expiry_is_named_once() -> None:
    log = holding_log([1_000, 1_000, 50_000])
    for at in (999, 1_000):  # at its expiry it may be open for the interval that reaches it
        pay(log, at)
        assert audit(log.entries, sign(log.entries)).ok
    pay(log, 1_200)
    pay(log, 1_400)
    report = audit(log.entries, sign(log.entries))
    assert [problem.code for problem in report.problems] == ["overdue"] * 2
    assert {problem.seq for problem in report.problems} == {len(log.entries) - 3}
    assert not report.ok


def test_holds_that_are_released_in_the_next_interval_are_not_overdue() -> None:
    log = holding_log([1_000, 1_000])
    holds = list(log.book.state.holds)
    pay(log, 1_000)
    for hold_id in holds:
        release(log, hold_id, 1_200)
    log.close()
    pay(log, 1_400)
    assert audit(log.entries, sign(log.entries)).ok


def test_more_holds_than_one_batch_releases_may_wait_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ENDED == MAX_GROUP
    monkeypatch.setattr("wallet.audit.ENDED", 2)
    log = holding_log([1_000] * 5)
    holds = list(log.book.state.holds)
    pay(log, 1_000)
    for pair in (holds[:2], holds[2:4]):
        for hold_id in pair:
            release(log, hold_id, 1_200)
        log.close()
        assert audit(log.entries, sign(log.entries)).ok
    pay(log, 1_400)  # one was left, and nothing was released
    report = audit(log.entries, sign(log.entries))
    assert [problem.code for problem in report.problems] == ["overdue"]
    assert holds[4] in report.problems[0].detail


@pytest.mark.parametrize("size", [0, 1, 3, 4, 6, 8])
def test_a_checkpoint_in_the_middle_of_an_interval_is_named(size: int) -> None:
    middle = sign(list(ENTRIES[:size]))
    for report in (
        audit(ENTRIES, middle),
        audit_entries(ENTRIES, CHECKPOINT, vkey=VKEY, older=middle),
    ):
        assert [problem.code for problem in report.problems] == ["open_interval"]
        assert not report.ok


def test_the_supply_is_what_was_issued_under_the_checkpoint() -> None:
    assert [audit(ENTRIES, sign(list(ENTRIES[:size]))).supply for size in (2, 4, 5, 7)] == [
        0,
        0,
        90_000,
        90_000,
    ]


class Served(HttpLedger):
    """A ledger whose answers were written down: what a dishonest server could send."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.served = entries

    async def checkpoint(self) -> str:
        return CHECKPOINT

    async def verifier_key(self) -> str:
        return VKEY

    async def entries(self, start: int, limit: int) -> list[TxView]:
        return [
            TxView(item.leaf.hex() or "no hex", item.seq, item.raw, item.log_time)
            for item in self.served[start:]  # more than was asked for
        ]


async def test_a_far_ledger_is_judged_by_what_it_sends_alone() -> None:
    assert (await audit_ledger(Served(list(ENTRIES)))).ok
    assert (await audit_ledger(Served([*ENTRIES, *ENTRIES]))).ok  # the surplus is not looked at
    withheld = await audit_ledger(Served(list(ENTRIES[:6])))
    assert [problem.seq for problem in withheld.problems] == [6]
    renamed = [*ENTRIES[:6], ENTRIES[6]._replace(leaf=b""), *ENTRIES[7:]]
    assert [problem.seq for problem in (await audit_ledger(Served(renamed))).problems] == [6]
    with pytest.raises(BadSignatureError):
        await audit_ledger(Served(list(ENTRIES)), vkey=verifier_key(GENESIS.origin, THIEF))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    store.acquire()
    store.append(ENTRIES, [], CHECKPOINT)
    store.close()
    return path


def test_a_file_is_audited_beside_the_sequencer_that_writes_it(file: Path) -> None:
    store = SqliteStore(file)
    store.acquire()
    try:
        with ReadOnlyLog(file) as log:
            assert audit_entries(log, log.checkpoint, vkey=VKEY).ok
            store.append([], [], "a newer checkpoint")
            assert log.checkpoint == CHECKPOINT  # one moment: checkpoint and entries together
    finally:
        store.close()


def test_a_byte_flipped_in_the_file_is_found(file: Path) -> None:
    rng = random.Random(11)
    for seq in range(len(ENTRIES)):
        raw = bytearray(ENTRIES[seq].raw)
        raw[rng.randrange(len(raw))] ^= 0x20
        connection = apsw.Connection(str(file))
        connection.execute("UPDATE entries SET raw = ? WHERE seq = ?", (bytes(raw), seq))
        connection.close()
        with ReadOnlyLog(file) as log:
            report = audit_entries(log, log.checkpoint, vkey=VKEY)
        assert report.problems[0].seq == seq
        connection = apsw.Connection(str(file))
        connection.execute("UPDATE entries SET raw = ? WHERE seq = ?", (ENTRIES[seq].raw, seq))
        connection.close()


def test_bytes_flipped_in_the_pages_of_the_file_never_pass(file: Path) -> None:
    """Whatever of the file holds the log: after the flip the audit fails, or read the same log."""
    intact = file.read_bytes()
    rng = random.Random(13)
    for _ in range(60):
        damaged = bytearray(intact)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        for leftover in file.parent.glob("ledger.db-*"):
            leftover.unlink()
        file.write_bytes(damaged)
        seen: list[Entry] = []
        try:
            with ReadOnlyLog(file) as log:
                seen = list(log)
                report = audit_entries(seen, log.checkpoint, vkey=VKEY)
        except StoreError:
            continue
        if report.ok:
            assert [entry.raw for entry in seen] == [entry.raw for entry in ENTRIES]


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ReadOnlyLog(tmp_path / "missing.db")
    wrong = tmp_path / "wrong.db"
    wrong.write_bytes(b"no database at all" * 100)
    with pytest.raises(RahbaError):
        ReadOnlyLog(wrong)


def replaced(seq: int, raw: bytes) -> list[Entry]:
    changed = list(ENTRIES)
    changed[seq] = changed[seq]._replace(raw=raw, leaf=leaf_hash(raw))
    return changed
