"""How a log gets its checkpoints cosigned, whatever its witnesses do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rahba.clock import ManualClock
from rahba.cosignature import cosigner_key
from rahba.policy import Policy, read_policy
from tests.fixtures.wallet import START_MS, did, signer_of
from tests.fixtures.witnesses import ORIGIN, PlainLog, words
from wallet.book import Book
from wallet.cosigning import Cosigning, NoQuorumError, RolledBackError
from wallet.errors import LedgerUnavailableError
from wallet.stores.witness import WitnessStore
from wallet.transactions import dev_genesis
from wallet.transports.witness import WitnessUnreachableError
from wallet.watch import Watch
from wallet.witness import Trust, origin_hash

NAMES = ("one", "two", "three")
LIES = {
    "nonsense": (200, "not a signature\n"),
    "forger": (200, f"\u2014 w.test/two {'A' * 100}\n"),
    "ahead": (409, "999999\n"),
    "elsewhere": (422, "another root"),
    "refuses": (403, "no"),
}


@dataclass
class Growing:
    """A log as its cosigning sees it; ``sizes`` are its checkpoints to come."""

    log: PlainLog
    sizes: list[int]
    saved: list[tuple[str, int]] = field(default_factory=list)

    async def next_checkpoint(self, after: int) -> tuple[str, int]:
        while self.sizes and self.sizes[0] <= after:
            self.sizes.pop(0)
        if not self.sizes:
            raise LedgerUnavailableError("over")
        return self.log.note(self.sizes[0]), self.sizes[0]

    async def consistency(self, old_size: int, new_size: int) -> list[str]:
        return [step.hex() for step in self.log.log.consistency(old_size, new_size)]

    async def save_witnessed(self, note: str, size: int) -> None:
        self.saved.append((note, size))


@dataclass
class Party:
    """A real witness, or one that misbehaves in ``mood``."""

    watch: Watch
    mood: str = ""
    calls: int = 0

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
        self.calls += 1
        if self.mood == "away":
            raise WitnessUnreachableError("away")
        if self.mood in LIES:
            return LIES[self.mood]
        if self.mood == "hangs":
            await asyncio.Event().wait()
        ruling = await self.watch.add_checkpoint(body)
        if self.mood == "chatty":
            return 200, f"\u2014 stranger {'A' * 100}\n{ruling.body}"
        return ruling.status, ruling.body

    async def checkpoint(self, origin: str) -> str | None:
        return await self.watch.checkpoint(origin_hash(origin))


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[dict[str, Party]]:
    stores = {name: WitnessStore(tmp_path / f"{name}.sqlite") for name in NAMES}
    trust = Trust({ORIGIN: PlainLog("a").vkey}, [did("operator")])
    clock = ManualClock(START_MS)
    yield {
        name: Party(Watch(store, f"w.test/{name}", signer_of(name), trust, clock=clock))
        for name, store in stores.items()
    }
    for store in stores.values():
        store.close()


def two_of_three() -> Policy:
    lines = [f"witness {name} {cosigner_key(f'w.test/{name}', did(name))}" for name in NAMES]
    return read_policy("\n".join([*lines, "group q 2 one two three", "quorum q"]))


async def run(parties: dict[str, Party], sizes: list[int]) -> Growing:
    growing = Growing(PlainLog(*words(50)), sizes)
    async with asyncio.timeout(20):
        await Cosigning(two_of_three(), parties).run(growing)
    return growing


async def test_every_checkpoint_of_a_quorum_is_witnessed(parties: dict[str, Party]) -> None:
    growing = await run(parties, [3, 4, 17, 50])
    assert [size for _, size in growing.saved] == [3, 4, 17, 50]
    for note, _ in growing.saved:
        assert set(two_of_three().cosigners(note)) == set(NAMES)


async def test_a_witness_that_knows_less_or_more_of_the_log_is_caught_up_with(
    parties: dict[str, Party],
) -> None:
    log = PlainLog(*words(50))
    for name, size in (("one", 5), ("two", 16)):
        assert (await parties[name].add_checkpoint(log.request(0, size)))[0] == 200
    growing = await run(parties, [20])
    assert set(two_of_three().cosigners(growing.saved[0][0])) == set(NAMES)


@pytest.mark.parametrize("mood", ["away", "nonsense", "forger", "ahead", "refuses"])
async def test_one_bad_witness_of_three_changes_nothing(
    parties: dict[str, Party], mood: str
) -> None:
    parties["two"].mood = mood
    growing = await run(parties, [3, 9])
    assert [size for _, size in growing.saved] == [3, 9]
    assert set(two_of_three().cosigners(growing.saved[1][0])) == {"one", "three"}


async def test_a_witness_that_hangs_keeps_nobody_waiting_and_is_asked_once(
    parties: dict[str, Party],
) -> None:
    parties["two"].mood = "hangs"
    started = asyncio.get_running_loop().time()
    growing = await run(parties, [3, 9, 12, 20])
    assert [size for _, size in growing.saved] == [3, 9, 12, 20]
    assert asyncio.get_running_loop().time() - started < 3
    assert parties["two"].calls == 1


async def test_a_witness_may_add_nobody_elses_lines(parties: dict[str, Party]) -> None:
    parties["two"].mood = "chatty"
    growing = await run(parties, [3])
    note = growing.saved[0][0]
    assert set(two_of_three().cosigners(note)) == set(NAMES)
    assert "stranger" not in note


async def test_without_a_quorum_nothing_is_witnessed_until_there_is_one(
    parties: dict[str, Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.cosigning.RETRY_S", (0.01, 0.01))
    parties["two"].mood = parties["three"].mood = "away"
    growing = Growing(PlainLog(*words(50)), [7])
    task = asyncio.create_task(Cosigning(two_of_three(), parties).run(growing))
    await until(lambda: parties["two"].calls > 2)
    assert growing.saved == []
    parties["two"].mood = ""
    await until(lambda: bool(growing.saved))
    assert growing.saved[0][1] == 7
    await task


# Before a ledger signs: what its witnesses say, and what they can show.

GENESIS = dev_genesis(did("operator"), START_MS)
OURS = PlainLog(*words(20), origin=GENESIS.origin)


async def start(parties: dict[str, Party], size: int, *, required: bool = False) -> None:
    """Ask the witnesses as a ledger does that holds so many entries."""
    cosigning = Cosigning(two_of_three(), parties, required=required)
    await cosigning.before_signing(Book(GENESIS, OURS.log.node(0, 0)), OURS.note(size))


async def saw(parties: dict[str, Party], size: int, *names: str) -> None:
    for name in names:
        assert (await parties[name].watch.add_checkpoint(OURS.request(0, size))).status == 200


@pytest.mark.parametrize("mood", ["ahead", "elsewhere"])
@pytest.mark.parametrize("shows", [0, 5, 12])
async def test_one_witness_that_lies_before_a_start_does_not_stop_a_quorum(
    parties: dict[str, Party], mood: str, shows: int
) -> None:
    await saw(parties, 12, "one", "three")
    if shows:
        await saw(parties, shows, "two")  # the most that it can show of what our key signed
    parties["two"].mood = mood
    await start(parties, 12)
    await start(parties, 12, required=True)


@pytest.mark.parametrize("others", ["ahead", "away", "refuses"])
async def test_who_claims_to_have_seen_more_is_believed_without_a_quorum_against_it(
    parties: dict[str, Party], others: str
) -> None:
    await saw(parties, 12, *NAMES)
    parties["two"].mood, parties["three"].mood = "ahead", others
    with pytest.raises(RolledBackError) as caught:
        await start(parties, 12)
    assert (caught.value.facts["seen"], caught.value.facts["note"]) == (999_999, None)


@pytest.mark.parametrize("size", [12, 13])
async def test_one_witness_that_shows_more_stops_the_ledger_whatever_the_others_say(
    parties: dict[str, Party], size: int
) -> None:
    await saw(parties, 12, "one", "three")
    other = PlainLog(*words(size, "x"), origin=GENESIS.origin)
    assert (await parties["two"].watch.add_checkpoint(other.request(0))).status == 200
    with pytest.raises(RolledBackError) as caught:
        await start(parties, 12)
    assert str(caught.value.facts["note"]).startswith(other.note())


async def test_a_quorum_that_is_required_is_one_without_the_liar(
    parties: dict[str, Party],
) -> None:
    parties["two"].mood, parties["three"].mood = "refuses", "away"
    await start(parties, 12)
    with pytest.raises(NoQuorumError):
        await start(parties, 12, required=True)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.005)
