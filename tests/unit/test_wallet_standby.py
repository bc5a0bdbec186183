"""A standby takes over what is left alone, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from typing_extensions import override

from rahba.clock import ManualClock
from rahba.ids import RandomIds
from tests.fixtures.wallet import START_MS, LedgerRig, did, signer_of
from wallet.account import Wallet
from wallet.errors import FencedError, LedgerCorruptError, LedgerUnavailableError, StoreError
from wallet.ports import Entry
from wallet.replay import Replay
from wallet.service import Sequencer
from wallet.standby import beating, take_over
from wallet.stores.memory import MemoryDisk, MemoryStore

POLL_S, LEASE_S = 0.01, 0.1


@pytest.fixture
async def first() -> AsyncIterator[LedgerRig]:
    """Return a ledger whose disk others can look at."""
    disk = MemoryDisk()
    rig = LedgerRig(lambda: MemoryStore(disk=disk), ManualClock(START_MS))
    await rig.open()
    yield rig
    with contextlib.suppress(LedgerUnavailableError):
        await rig.ledger.close()


def waiting(store: MemoryStore) -> asyncio.Task[Replay | None]:
    return asyncio.create_task(take_over(store, poll_s=POLL_S, lease_s=LEASE_S))


async def opened(rig: LedgerRig, store: MemoryStore, replay: Replay | None) -> Sequencer:
    return await Sequencer.open(
        store,
        genesis=None,
        operator=rig.operator,
        clock=rig.clock,
        ids=RandomIds(),
        replay=replay,
    )


async def test_a_standby_goes_on_where_the_writer_ended(first: LedgerRig) -> None:
    amina = await first.funded("amina", 1_000_000)
    store = first.make_store()
    standby = waiting(store)
    async with contextlib.AsyncExitStack() as stack:
        beats = asyncio.create_task(beating(first.ledger._store, every_s=POLL_S))
        await asyncio.sleep(3 * LEASE_S)
        await amina.transfer(did("brahim"), 5)
        assert not standby.done(), "the writer lives"
        beats.cancel()
        await first.ledger.close()
        replay = await asyncio.wait_for(standby, 5)
        assert replay is not None
        assert replay.size == store.size()
        ledger = await stack.enter_async_context(await opened(first, store, replay))
        again = Wallet(ledger, signer_of("amina"), clock=first.clock, ids=RandomIds())
        await again.transfer(did("brahim"), 7)
        found = await ledger.account(did("brahim"))
        assert found is not None
        assert found.posted == 12
        assert (await ledger.supply()).equal


async def test_what_the_writer_left_in_an_open_interval_is_kept(first: LedgerRig) -> None:
    """The writer is frozen between a commit and the state leaf that would have closed it."""
    store = first.make_store()
    standby = waiting(store)
    amina = await first.funded("amina", 1_000_000)
    frozen = first.ledger
    replay = await asyncio.wait_for(standby, 5)  # nobody beats, and nothing is appended
    async with await opened(first, store, replay) as ledger:
        account = await ledger.account(did("amina"))
        assert account is not None
        assert account.posted == 1_000_000
        assert len(await ledger.checkpoint()) > 0
        payment = asyncio.create_task(amina.transfer(did("brahim"), 5))
        with pytest.raises(LedgerUnavailableError) as caught:
            await asyncio.wait_for(frozen.stopped(), 5)
        assert isinstance(caught.value.__cause__, FencedError)
        payment.cancel()
        assert await ledger.account(did("brahim")) is None


async def test_who_appends_is_not_taken_for_dead(first: LedgerRig) -> None:
    amina = await first.funded("amina", 10_000_000)
    standby = waiting(first.make_store())
    for _ in range(15):
        await amina.transfer(did("brahim"), 5)
        await asyncio.sleep(LEASE_S / 4)
    assert not standby.done()
    standby.cancel()


async def test_a_standby_of_a_new_ledger_is_its_writer() -> None:
    store = MemoryStore()
    assert await asyncio.wait_for(waiting(store), 5) is None
    store.append([], [], None)


async def test_a_writer_that_was_overtaken_stops_beating() -> None:
    disk = MemoryDisk()
    store = MemoryStore(disk=disk)
    store.acquire()
    beats = asyncio.create_task(beating(store, every_s=POLL_S))
    newer = MemoryStore(disk=disk)
    newer.acquire(steal=True)
    with pytest.raises(FencedError):
        await asyncio.wait_for(beats, 5)


class Flaky(MemoryStore):
    """Cannot be reached the first few times."""

    failures = 3

    @override
    def size(self) -> int:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreError("the server restarts")
        return super().size()


async def test_a_store_that_cannot_be_reached_is_asked_again() -> None:
    store = Flaky()
    await asyncio.wait_for(waiting(store), 5)
    assert store.pulse().token == 1


async def test_a_standby_of_a_log_that_does_not_add_up_says_so(first: LedgerRig) -> None:
    await first.funded("amina", 1_000_000)
    store = MemoryStore(disk=MemoryDisk())
    store._disk.entries = [*first.make_store().read(0, 1), Entry(1, b"junk", bytes(32), 0)]
    with pytest.raises(LedgerCorruptError):
        await asyncio.wait_for(waiting(store), 5)
