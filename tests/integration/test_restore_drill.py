"""The drill: a market of payments, a backup, more payments, a lost disk, and the way back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from rahba.money import FALS_PER_RHB
from tests.fixtures.attacks import NAME, Direct, Operator, newest, policy, witness
from tests.fixtures.wallet import DEAL, did
from wallet.account import Wallet
from wallet.archive import Archive, ArchiveSource, audit_archive
from wallet.backup import back_up_file
from wallet.cosigning import Cosigning, RolledBackError
from wallet.export import export_log
from wallet.restore import Known, restore_backup
from wallet.service import Sequencer
from wallet.sources import LedgerSource
from wallet.stores.sqlite import SqliteStore
from wallet.stores.witness import WitnessStore

PEOPLE = [f"person {number}" for number in range(8)]


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Direct]:
    """A witness that survives what happens to the ledger."""
    store = WitnessStore(tmp_path / "witness.db")
    yield witness(store)
    store.close()


async def market(operator: Operator, ledger: Sequencer, rounds: int) -> list[str]:
    """Everybody pays everybody and opens holds; returns the ids of what was answered."""
    told: list[str] = []

    async def trade(name: str) -> None:
        rng, wallet = random.Random(name), operator.wallet(ledger, name)
        told.append((await wallet.faucet(FALS_PER_RHB)).id)
        for _ in range(rounds):
            other = rng.choice([each for each in PEOPLE if each != name])
            told.append((await wallet.transfer(did(other), rng.randint(1, 500))).id)
            hold = (await wallet.hold(did(other), 900, operator.clock.now_ms() + 90_000, DEAL)).id
            payee: Wallet = operator.wallet(ledger, other)
            told.append((await payee.capture(hold, rng.randint(0, 900))).id)
            operator.clock.advance(1)

    await asyncio.gather(*(trade(name) for name in PEOPLE))
    return told


async def witnessed(ledger: Sequencer, cosigning: Cosigning) -> str:
    """Have everything cosigned; returns the checkpoint."""
    running = asyncio.create_task(cosigning.run(ledger))
    note, size = await newest(ledger)
    for _ in range(2_000):
        if ledger._witnessed_size >= size:
            running.cancel()
            return note
        await asyncio.sleep(0.005)
    raise AssertionError("nobody cosigned")


def lose_the_disk(folder: Path) -> None:
    for path in folder.glob("market.db*"):
        path.unlink()


async def test_the_disk_is_lost_and_the_ledger_comes_back(tmp_path: Path, watching: Direct) -> None:
    """1. An old backup alone is caught by the witness, before anything is signed.

    2. The newest backup and the tail of the log, from who followed it, bring back every payment
    that was answered; the witness agrees, and the ledger goes on.
    """
    operator = Operator(tmp_path)
    disk = tmp_path / "market.db"
    cosigning = Cosigning(policy(), {"one": watching}, required=True)
    ledger = await operator.open("market", cosigning)
    told = await market(operator, ledger, 6)
    await witnessed(ledger, cosigning)
    await asyncio.to_thread(back_up_file, disk, tmp_path / "monday", 1)
    told += await market(operator, ledger, 6)
    await witnessed(ledger, cosigning)
    await asyncio.to_thread(back_up_file, disk, tmp_path / "tuesday", 2)
    told += await market(operator, ledger, 6)
    last = await witnessed(ledger, cosigning)
    follower = tmp_path / "follower"  # such as an auditor's copy, or the folder that is published
    await export_log(LedgerSource(ledger, last), follower)
    balances = {name: await ledger.account(did(name)) for name in PEOPLE}
    await ledger.close()
    lose_the_disk(tmp_path)

    asking = Cosigning(policy(), {"one": watching}, required=True)
    for day in ("monday", "tuesday"):
        with pytest.raises(RolledBackError) as caught:
            await restore_backup(tmp_path / day, disk, Known(ask=asking.before_signing))
        assert caught.value.facts["witness"] == "one"
        with pytest.raises(RolledBackError):
            await restore_backup(tmp_path / day, disk, Known(older=last))
        assert not disk.exists()

    assert audit_archive(Archive(follower), older=last).ok
    report = await restore_backup(
        tmp_path / "tuesday",
        disk,
        Known(older=last, ask=asking.before_signing),
        tail=ArchiveSource(Archive(follower)),
    )
    assert report.ok
    ledger = await operator.open("market", Cosigning(policy(), {"one": watching}, required=True))
    for tx_id in told:
        assert await ledger.transaction(tx_id) is not None, "answered, and lost"
    assert {name: await ledger.account(did(name)) for name in PEOPLE} == balances
    await market(operator, ledger, 1)
    await witnessed(ledger, Cosigning(policy(), {"one": watching}))
    await ledger.close()
    assert NAME in str(SqliteStore(disk).witnessed())


async def test_an_old_copy_put_in_place_by_hand_is_not_started(
    tmp_path: Path, watching: Direct
) -> None:
    """Whoever goes round ``restore`` is stopped at the start."""
    operator = Operator(tmp_path)
    cosigning = Cosigning(policy(), {"one": watching})
    ledger = await operator.open("market", cosigning)
    await market(operator, ledger, 2)
    await witnessed(ledger, cosigning)
    back_up_file(tmp_path / "market.db", tmp_path / "monday", 1)
    await market(operator, ledger, 2)
    await witnessed(ledger, cosigning)
    await ledger.close()
    lose_the_disk(tmp_path)
    (tmp_path / "monday" / "ledger.sqlite").rename(tmp_path / "market.db")
    with pytest.raises(RolledBackError):
        await operator.open("market", Cosigning(policy(), {"one": watching}))
