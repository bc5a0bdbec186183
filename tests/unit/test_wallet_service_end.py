"""The end of a sequencer: what closing, a full disk and a lost caller do to what was submitted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rahba.clock import ManualClock
from tests.fixtures.wallet import START_MS, LedgerRig, did
from wallet.errors import LedgerUnavailableError, StoreError
from wallet.stores.sqlite import SqliteStore


async def test_a_full_disk_stops_the_ledger_and_answers_nobody(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    rig = LedgerRig(lambda: SqliteStore(tmp_path / "ledger.db", max_pages=60), clock)
    ledger = await rig.open()
    amina = await rig.funded("amina")
    answered = []

    async def pay() -> None:
        while True:
            raw = await amina.sign_transfer(did("brahim"), 1)
            answered.append((await ledger.submit(raw)).id)

    with pytest.raises(LedgerUnavailableError):
        await pay()
    with pytest.raises(LedgerUnavailableError) as stopped:
        await ledger.stopped()
    assert isinstance(stopped.value.__cause__, StoreError)
    for ask in (ledger.supply, lambda: ledger.account(did("amina")), lambda: ledger.entries(0, 1)):
        with pytest.raises(LedgerUnavailableError):
            await ask()
    await ledger.close()

    rig.make_store = lambda: SqliteStore(tmp_path / "ledger.db")
    ledger = await rig.open()
    assert len(answered) > 10
    assert (await ledger.account(did("brahim"))).posted == len(answered)  # type: ignore[union-attr]
    assert (await ledger.supply()).equal
    for name in answered:
        assert await ledger.transaction(name) is not None
    await ledger.close()


async def test_a_closed_ledger_takes_nothing_more(memory_rig: LedgerRig) -> None:
    amina = await memory_rig.funded("amina")
    raw = await amina.sign_transfer(did("brahim"), 1)
    await memory_rig.ledger.close()
    await memory_rig.ledger.close()
    with pytest.raises(LedgerUnavailableError):
        await memory_rig.ledger.submit(raw)
    await memory_rig.ledger.stopped()
    await memory_rig.open()


async def test_closing_answers_what_was_submitted(rig: LedgerRig) -> None:
    amina = await rig.funded("amina")
    raws = [await amina.sign_transfer(did("brahim"), 1) for _ in range(50)]
    sent = [asyncio.create_task(rig.ledger.submit(raw)) for raw in raws]
    await asyncio.sleep(0)
    await rig.ledger.close()
    assert {answer.outcome for answer in await asyncio.gather(*sent)} == {"logged"}
    await rig.open()
    assert await rig.available("brahim") == 50


async def test_a_caller_that_gives_up_does_not_stop_the_others(rig: LedgerRig) -> None:
    amina = await rig.funded("amina")
    raws = [await amina.sign_transfer(did("brahim"), 1) for _ in range(20)]
    sent = [asyncio.create_task(rig.ledger.submit(raw)) for raw in raws]
    await asyncio.sleep(0)
    for task in sent[::2]:
        task.cancel()
    assert {answer.outcome for answer in await asyncio.gather(*sent[1::2])} == {"logged"}
