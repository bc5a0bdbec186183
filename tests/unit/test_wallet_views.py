"""What the sequencer shows is on disk, however many write and read at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rahba.clock import ManualClock
from tests.fixtures.wallet import DEAL, FEE, START_MS, LedgerRig, did, signer_of
from wallet.book import Book
from wallet.errors import InvariantError, LedgerUnavailableError
from wallet.ports import Entry, Snapshot, Verdict
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    EXPIRING_LANE,
    Faucet,
    Hold,
    Transfer,
    read,
    seal_transaction,
    transaction_id,
)


class WatchedStore(SqliteStore):
    """A real store that takes 5 ms more for an append, and counts what it has after it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.paid = self.issued = 0
        self.held: set[str] = set()

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        time.sleep(0.005)
        super().append(entries, verdicts, checkpoint, snapshot)
        for entry in entries:
            tx = read(entry.raw).record
            self.paid += isinstance(tx, Transfer)
            self.issued += int(tx.amount) if isinstance(tx, Faucet) else 0
            if isinstance(tx, Hold):
                self.held.add(entry.leaf.hex())


class Crowd:
    """Writers that leave the ledger no pause, and readers that compare it with its store."""

    def __init__(self, rig: LedgerRig, store: WatchedStore) -> None:
        self.rig = rig
        self.store = store
        self.ahead: list[str] = []
        self.reads: list[int] = []

    def hold(self) -> bytes:
        now = self.rig.clock.now_ms()
        fields = {
            "payee": did("brahim"),
            "amount": "1",
            "agreement": DEAL,
            "arbitration": None,
            "bail": None,
        }
        common = {"chain": self.rig.genesis.chain, "fee": str(FEE), "fee_payer": None}
        place = {"lane": EXPIRING_LANE, "seq": self.rig.ids.salt(), "valid_until": now + 60_000}
        hold = Hold(account=did("amina"), expires=now + 60_000, **fields, **common, **place)
        return seal_transaction(hold, signer_of("amina"))

    async def write(self, number: int) -> None:
        amina, payer = self.rig.wallet("amina"), self.rig.wallet(f"payer {number}")
        for _ in range(20):
            await amina.transfer(did("brahim"), 1)
            await payer.faucet(FEE + 1)

    async def look(self, hold_id: str) -> None:
        ledger, store = self.rig.ledger, self.store
        account = await ledger.account(did("brahim"))
        if account is not None and account.posted > store.paid:
            self.ahead.append("account")
        supply = await ledger.supply()
        if supply.issued > store.issued or supply.open_holds > len(store.held):
            self.ahead.append("supply")
        if await ledger.hold(hold_id) is not None and hold_id not in store.held:
            self.ahead.append("hold")

    async def watch(self, reader: int, writers: asyncio.Future[list[None]]) -> None:
        while not writers.done():
            raw = self.hold()
            sent = asyncio.create_task(self.rig.ledger.submit(raw))
            await asyncio.sleep(0.001 * reader)
            await self.look(transaction_id(raw))
            self.reads[reader] += 1
            await sent


async def test_no_view_is_ahead_of_the_store_and_none_waits_for_a_quiet_moment(
    tmp_path: Path,
) -> None:
    store = WatchedStore(tmp_path / "ledger.db")
    rig = LedgerRig(lambda: store, ManualClock(START_MS))
    await rig.open()
    await rig.funded("amina")
    crowd = Crowd(rig, store)
    crowd.reads = [0] * 4
    writers = asyncio.gather(*(crowd.write(number) for number in range(6)))
    async with asyncio.timeout(30):
        await asyncio.gather(writers, *(crowd.watch(reader, writers) for reader in range(4)))
    await rig.ledger.close()
    assert crowd.ahead == []
    assert min(crowd.reads) >= 5


async def test_a_group_that_broke_half_way_is_never_shown(
    memory_rig: LedgerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    amina = await memory_rig.funded("amina", 10_000)
    ledger, take = memory_rig.ledger, Book.take

    def break_after(*words: object) -> object:
        take(*words)  # type: ignore[arg-type]
        raise InvariantError("broken on purpose")

    raw = await amina.sign_transfer(did("brahim"), 10)
    monkeypatch.setattr(Book, "take", break_after)
    sending = asyncio.create_task(ledger.submit(raw))
    seen: list[object] = []

    async def look_until_it_stops() -> None:
        while True:
            seen.append(await ledger.account(did("brahim")))
            await asyncio.sleep(0)

    with pytest.raises(LedgerUnavailableError):
        await look_until_it_stops()
    assert set(seen) <= {None}
    with pytest.raises(LedgerUnavailableError):
        await sending
