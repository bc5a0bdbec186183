"""One slow disk write serves one payment or a thousand: groups form by themselves, nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rahba.clock import ManualClock
from tests.fixtures.wallet import START_MS, LedgerRig, did
from wallet import service
from wallet.service import MAX_GROUP
from wallet.stores.memory import MemoryStore
from wallet.transactions import Transfer


class SlowDisk(MemoryStore):
    """Finishes a write when it is told to; knows how many entries each had."""

    def __init__(self) -> None:
        super().__init__()
        self.turning = threading.Event()
        self.turning.set()
        self.begun = threading.Event()
        self.groups: list[int] = []

    def append(self, entries: Any, *rest: Any) -> None:
        self.begun.set()
        assert self.turning.wait(30)
        super().append(entries, *rest)
        self.groups.append(len(entries))


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LedgerRig]:
    """A ledger on which no timer ever rings: only what is submitted moves it."""
    monkeypatch.setattr(service, "INTERVAL_S", 3_600.0)
    monkeypatch.setattr(service, "SWEEP_S", 3_600.0)
    disk = SlowDisk()
    found = LedgerRig(lambda: disk, ManualClock(START_MS))
    await found.open()
    yield found
    disk.turning.set()
    await found.ledger.close()


def disk_of(rig: LedgerRig) -> SlowDisk:
    store = rig.ledger._store
    assert isinstance(store, SlowDisk)
    return store


async def test_a_lone_payment_is_written_at_once(rig: LedgerRig) -> None:
    """There is no timer that it could wait for, and nobody who would fill its group."""
    amina = await rig.funded("amina")
    disk = disk_of(rig)
    disk.groups.clear()
    async with asyncio.timeout(10):
        for _ in range(5):
            assert (await amina.transfer(did("brahim"), 1)).ok
    assert disk.groups == [1] * 5


async def test_what_comes_while_the_disk_writes_is_the_next_group(rig: LedgerRig) -> None:
    amina = await rig.funded("amina")
    disk = disk_of(rig)
    disk.groups.clear()
    for size in (1, 7, 300):
        disk.begun.clear()
        disk.turning.clear()
        first = asyncio.create_task(amina.transfer(did("brahim"), 1))
        await asyncio.to_thread(disk.begun.wait, 10)
        raws = [await amina.sign_transfer(did("brahim"), 1) for _ in range(size)]
        more = asyncio.create_task(rig.ledger.submit_many(raws))
        await verified(rig, size)
        disk.turning.set()
        assert (await first).ok
        assert all(answer.ok for answer in await more)
        assert disk.groups[-2:] == [1, size]


async def test_a_group_is_never_larger_than_its_limit(rig: LedgerRig) -> None:
    amina = await rig.funded("amina")
    disk = disk_of(rig)
    disk.groups.clear()
    disk.begun.clear()
    disk.turning.clear()
    raws = [await amina.sign(Transfer, to=did("brahim"), amount="1") for _ in range(2_500)]
    first = asyncio.create_task(rig.ledger.submit(raws[0]))
    await asyncio.to_thread(disk.begun.wait, 10)
    rest = asyncio.create_task(rig.ledger.submit_many(raws[1:]))
    await verified(rig, 2_499)
    disk.turning.set()
    assert (await first).ok
    assert all(answer.ok for answer in await rest)
    assert disk.groups == [1, MAX_GROUP, MAX_GROUP, 499]


async def verified(rig: LedgerRig, items: int) -> None:
    """Wait until so many transactions wait for the disk."""
    for _ in range(4_000):
        if len(rig.ledger._admission.verified) == items:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("they were not verified")
