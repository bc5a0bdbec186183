"""A damaged file is never run: the ledger says which entry is wrong and stays shut."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from rahba.merkle import leaf_hash
from rahba.note import open_checkpoint, sign_checkpoint
from tests.fixtures.wallet import LedgerRig, did
from wallet.errors import LedgerCorruptError
from wallet.merkle import MerkleLog
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
    written.execute("DELETE FROM checkpoint")
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
    written.execute("UPDATE checkpoint SET note = ?", (note,))
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
