"""A damaged file is never run: the ledger says which entry is wrong and stays shut."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from rahba.merkle import leaf_hash
from rahba.note import open_checkpoint, sign_checkpoint
from tests.fixtures.wallet import DEAL, LedgerRig, did
from wallet.errors import LedgerCorruptError
from wallet.links import previous
from wallet.merkle import MerkleLog
from wallet.recovery import replayed
from wallet.replay import Replay
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import StateLeaf, read


@pytest.fixture
async def written(sqlite_rig: LedgerRig, tmp_path: Path) -> apsw.Connection:
    """Return a connection to the closed file of a ledger with ten payments from entry 3 on."""
    amina = await sqlite_rig.funded("amina")
    for _ in range(10):
        await amina.transfer(did("brahim"), 5)
    await sqlite_rig.ledger.close()
    return apsw.Connection(str(tmp_path / "ledger.db"))


async def refused_at(rig: LedgerRig) -> object:
    with pytest.raises(LedgerCorruptError) as caught:
        await rig.open()
    return caught.value.facts["seq"]


async def test_a_changed_entry_is_named(sqlite_rig: LedgerRig, written: apsw.Connection) -> None:
    written.execute(
        "UPDATE entries SET raw = CAST(replace(raw, 'sig', 'gis') AS BLOB) WHERE seq = 5"
    )
    assert await refused_at(sqlite_rig) == 5


async def test_an_entry_replaced_by_another_valid_one_is_noticed(
    sqlite_rig: LedgerRig, written: apsw.Connection
) -> None:
    """The hash fits its bytes, the signature is good, and still the log is another one."""
    (first,) = written.execute("SELECT raw FROM entries WHERE seq = 6").fetchall()
    written.execute(
        "UPDATE entries SET raw = ?, leaf = ? WHERE seq = 5", (first[0], leaf_hash(first[0]))
    )
    assert await refused_at(sqlite_rig) == 6


async def test_a_missing_entry_is_named(sqlite_rig: LedgerRig, written: apsw.Connection) -> None:
    written.execute("DELETE FROM entries WHERE seq = 4")
    assert await refused_at(sqlite_rig) == 4


async def test_a_log_cut_off_below_its_checkpoint_is_noticed(
    sqlite_rig: LedgerRig, written: apsw.Connection
) -> None:
    written.execute("DELETE FROM entries WHERE seq > 7")
    assert await refused_at(sqlite_rig) == 8


async def test_a_log_without_its_checkpoint_is_not_run(
    sqlite_rig: LedgerRig, written: apsw.Connection
) -> None:
    written.execute("DELETE FROM notes")
    assert await refused_at(sqlite_rig) == 1


async def test_an_interval_that_a_crash_left_open_is_closed_at_the_start(
    sqlite_rig: LedgerRig, written: apsw.Connection
) -> None:
    """Cut the file as a crash before the last checkpoint would have left it."""
    (last,) = written.execute("SELECT max(seq) FROM entries").fetchall()
    size = last[0] + 1
    (older,) = written.execute("SELECT raw, log_time FROM entries WHERE seq = 2").fetchall()
    written.execute("DELETE FROM entries WHERE seq = ?", (last[0],))
    note = first_checkpoint(sqlite_rig, written)
    written.execute("UPDATE notes SET note = ?", (note,))
    written.close()
    sqlite_rig.clock.advance(777)
    ledger = await sqlite_rig.open()
    assert ledger.log.size == size
    found = (await ledger.entries(size - 1, 1))[0]
    record = read(found.raw).record
    assert isinstance(record, StateLeaf)
    assert record.log_time == older[1]
    assert await sqlite_rig.available("brahim") == 50
    after = open_checkpoint(await ledger.checkpoint(), await ledger.verifier_key())
    assert after.size == size


def first_checkpoint(rig: LedgerRig, file: apsw.Connection) -> str:
    leaves = [row[0] for row in file.execute("SELECT leaf FROM entries WHERE seq < 2")]
    return sign_checkpoint(rig.genesis.origin, 2, MerkleLog(leaves).root(), rig.operator)


@pytest.fixture
async def long_log(sqlite_rig: LedgerRig, monkeypatch: pytest.MonkeyPatch) -> LedgerRig:
    """Return a closed ledger with a snapshot in its middle, and entries after it."""
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", 20)
    amina = await sqlite_rig.funded("amina")
    for round_ in range(2):
        held = sqlite_rig.clock.now_ms() + 60_000
        await amina.hold(did("brahim"), 500, held, DEAL)
        for amount in range(1, 25):
            await amina.transfer(did(f"payee {amount * (round_ + 1)}"), amount)
        note = await sqlite_rig.ledger.checkpoint()
        await sqlite_rig.ledger.next_checkpoint(int(note.split("\n")[1]))
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", 10**9)
    await amina.transfer(did("late"), 5)
    await sqlite_rig.ledger.close()
    return sqlite_rig


def snapshot_of(rig: LedgerRig) -> tuple[int, dict[bytes, bytes]]:
    store = rig.make_store()
    found = store.snapshot()
    assert found is not None
    rows = dict(found[1])
    store.close()
    return found[0], rows


async def test_a_start_replays_only_what_came_after_the_snapshot(long_log: LedgerRig) -> None:
    size, rows = snapshot_of(long_log)
    store = long_log.make_store()
    replay, _ = replayed(store)
    assert 20 < size < replay.size == store.size()
    whole = Replay()
    for entry in store.read(0, 10_000):
        whole.feed(entry.raw)
    assert replay.book.tree.root() == whole.book.tree.root()
    assert replay.book.log.root() == whole.book.log.root()
    assert replay.book.state.holds.keys() == whole.book.state.holds.keys()
    assert [account.last for account in replay.book.state.accounts.values()] == [
        account.last for account in whole.book.state.accounts.values()
    ]
    assert rows
    store.close()
    ledger = await long_log.open()
    assert (await ledger.supply()).equal
    assert await long_log.available("late") == 5


async def test_a_snapshot_that_does_not_fit_the_log_is_not_used(
    long_log: LedgerRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size, rows = snapshot_of(long_log)
    path = tmp_path / "ledger.db"
    last = max(key for key in rows if key[:1] == b"a")
    other = next(key for key in rows if key[:1] == b"a" and key != last and key[-1] > 3)
    for damage in (
        "UPDATE snapshot SET value = x'00' WHERE key = ?",
        "DELETE FROM snapshot WHERE key = ?",
    ):
        for key in (last, other, b"m"):
            if damage.startswith("DELETE") and key == b"m":
                continue  # then the time is missing, see below
            copy = tmp_path / "copy.db"
            for suffix in ("", "-wal"):
                copy.with_name(copy.name + suffix).unlink(missing_ok=True)
            copy.write_bytes(path.read_bytes())
            file = apsw.Connection(str(copy))
            file.execute(damage, (key,))
            file.close()
            store = SqliteStore(copy)
            caplog.clear()
            replay, _ = replayed(store)
            assert f"the snapshot at size {size} is not used" in caplog.text
            assert replay.size == store.size()
            assert replay.book.state.issued == replay.book.state.total > 0
            store.close()


async def test_a_leaf_hash_that_was_changed_below_the_snapshot_stops_the_start(
    long_log: LedgerRig, tmp_path: Path
) -> None:
    file = apsw.Connection(str(tmp_path / "ledger.db"))
    file.execute("UPDATE entries SET leaf = zeroblob(32) WHERE seq = 3")
    file.close()
    assert await refused_at(long_log) == 3


async def test_links_lead_from_an_accounts_newest_entry_to_its_first(long_log: LedgerRig) -> None:
    ledger = await long_log.open()
    account = ledger._book.state.accounts[did("amina")]
    store, found, at = ledger._store, [], account.last
    while at:
        (entry,) = store.read(at - 1, 1)
        found.append(entry.leaf)
        at = previous(entry.links, account.position)
    tip = bytes(32)
    for leaf in reversed(found):
        tip = sha256(tip + leaf).digest()
    assert tip == account.tip
    assert len(found) == 52
