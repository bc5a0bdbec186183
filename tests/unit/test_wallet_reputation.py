"""Reputations that follow a ledger, and anybody's recomputation of them from a copy of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from rahba.errors import RahbaError
from rahba.standing import ReputationBook
from tests.fixtures.deal_log import DealLog
from tests.fixtures.wallet import START_MS, LedgerRig, did, memory_rig
from wallet.auditor import NotAuditedError
from wallet.errors import LedgerCorruptError, LedgerUnavailableError, StoreError
from wallet.ports import Entry, TxView
from wallet.reputation import MAX_ASKING, ReputationBusyError, Reputations, recompute

__all__ = ["memory_rig"]


@pytest.fixture
def log() -> DealLog:
    found = DealLog()
    for number in range(8):
        found.deal(f"buyer-{number % 4}", f"seller-{number % 3}")
    return found


async def test_followed_figures_are_those_that_anybody_recomputes_at_the_same_size(
    log: DealLog,
) -> None:
    followed = Reputations(log.ledger)
    for number in range(4):
        standing, basis = await followed.standing(did("seller-1"), did("buyer-1"))
        report, read = await recompute(log, at=basis.size)
        assert report.ok
        assert basis == (read.size, read.frontier.root().hex(), read.log_time)
        book = ReputationBook(read.dealings, read.log_time)
        assert book.standing(did("seller-1"), did("buyer-1")) == standing
        assert followed.lower_bound(did("seller-1")) == standing.rate.low
        log.deal(f"buyer-{number}", "seller-1")
    earlier, _ = await followed.standing(did("seller-1"))
    assert earlier.deals == 7


async def test_a_later_process_goes_on_where_an_earlier_one_stopped(
    log: DealLog, tmp_path: Path
) -> None:
    file = tmp_path / "market" / "reputation.json"
    first = Reputations(log.ledger, file=file)
    await first.catch_up()
    await first.save()
    asked: list[int] = []

    class Watched(DealLog):
        @override
        async def entries(self, start: int, limit: int) -> list[TxView]:
            asked.append(start)
            return await super().entries(start, limit)

    size = len(log.entries_)
    log.deal("buyer-9", "seller-1")
    log.__class__ = Watched
    second = Reputations(log.ledger, file=file)
    assert second.basis.size == size
    standing, _ = await second.standing(did("seller-1"))
    assert asked == [size]
    log.__class__ = DealLog
    assert (standing, second.basis) == await Reputations(log.ledger).standing(did("seller-1"))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 99])
async def test_a_file_that_cannot_be_read_costs_time_and_nothing_else(
    log: DealLog, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "reputation.json"
    file.write_bytes(content)
    found = Reputations(log.ledger, file=file)
    assert (await found.standing(did("seller-1")))[0].deals == 3


async def test_a_file_of_another_ledger_is_found_out_and_read_anew(
    log: DealLog, tmp_path: Path
) -> None:
    file = tmp_path / "reputation.json"
    other = DealLog()
    other.deal("stranger", "seller-1")
    before = Reputations(other.ledger, file=file)
    await before.catch_up()
    await before.save()
    found = Reputations(log.ledger, file=file)
    with pytest.raises(NotAuditedError, match="signed root"):
        await found.catch_up()
    assert (await found.standing(did("seller-1")))[0].counterparties == 3


async def test_another_ledger_at_the_same_address_is_read_from_its_beginning(
    log: DealLog, tmp_path: Path
) -> None:
    file = tmp_path / "reputation.json"
    before = Reputations(log.ledger, file=file)
    await before.catch_up()
    await before.save()
    new = DealLog(created_ms=START_MS + 1)
    new.deal("buyer", "seller-1")
    after = Reputations(new.ledger, file=file)
    standing, basis = await after.standing(did("seller-1"))
    assert (standing.deals, basis.size) == (1, len(new.entries_))
    new.note = log.note
    with pytest.raises(RahbaError):
        await after.standing(did("seller-1"))


async def test_asking_for_strangers_leaves_nothing_behind(log: DealLog) -> None:
    found = Reputations(log.ledger)
    await found.standing(did("seller-1"), did("buyer-1"))
    kept = len(found._book._parts)
    for number in range(20):
        await found.standing(did(f"stranger-{number}"), did("buyer-1"))
    assert len(found._book._parts) == kept


class Liar(DealLog):
    """Shows another deal in the place of one that it signed for, or too little."""

    lie = ""
    other: DealLog | None = None

    @override
    async def entries(self, start: int, limit: int) -> list[TxView]:
        if self.lie == "nothing":
            return []
        if self.lie == "nonsense":
            return [TxView("00", start, b"{}", 0)]
        if self.lie == "another log":
            assert self.other is not None
            return await self.other.entries(start, limit)
        return await super().entries(start, limit)

    @override
    async def checkpoint(self) -> str:
        if self.lie == "away":
            raise LedgerUnavailableError("away")
        return await super().checkpoint()


@pytest.mark.parametrize("lie", ["nothing", "nonsense", "another log", "away"])
async def test_a_ledger_that_shows_something_else_than_it_signed_is_not_believed(lie: str) -> None:
    log, other = Liar(), DealLog()
    for _ in range(3):
        log.deal("buyer", "seller")
        other.deal("buyer", "shill")
    log.other, log.lie = other, lie
    found = Reputations(log.ledger)
    with pytest.raises(RahbaError):
        await found.standing(did("seller"))
    log.lie = ""
    standing, _ = await found.standing(did("seller"))
    assert standing.deals == 3
    assert found.lower_bound(did("shill")) == 50


async def test_a_checkpoint_from_behind_changes_nothing_that_was_proven(log: DealLog) -> None:
    found, old = Reputations(log.ledger), log.note
    log.deal("buyer-1", "seller-1")
    newest = await found.standing(did("seller-1"))
    log.note = old
    assert await found.standing(did("seller-1")) == newest


async def test_a_flood_of_questions_is_refused_beyond_a_limit_and_leaves_nothing_behind(
    log: DealLog,
) -> None:
    found = Reputations(log.ledger)
    questions = [found.standing(did("seller-1"), did("buyer-1")) for _ in range(MAX_ASKING + 5)]
    answers = await asyncio.gather(*questions, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, ReputationBusyError)]
    assert len(refused) == 5
    assert (await found.standing(did("seller-1")))[0].deals == 3


async def test_what_was_read_beyond_a_checkpoint_that_is_shown_is_not_told(
    log: DealLog, tmp_path: Path
) -> None:
    """Sums that a file brings are no more than a claim until a signed root bears them out."""
    file, old = tmp_path / "reputation.json", log.note
    log.deal("buyer-1", "seller-1")
    first = Reputations(log.ledger, file=file)
    await first.catch_up()
    await first.save()
    newest, log.note = log.note, old
    second = Reputations(log.ledger, file=file)
    with pytest.raises(NotAuditedError, match="less than before"):
        await second.standing(did("seller-1"))
    log.note = newest
    assert (await second.standing(did("seller-1")))[0] == (await first.standing(did("seller-1")))[0]


async def test_while_the_ledger_is_away_lists_say_what_was_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wallet.reputation.EVERY_S", 0.01)
    monkeypatch.setattr("wallet.reputation.AGAIN_S", 0.01)
    log = Liar()
    log.deal("buyer", "seller")
    found = Reputations(log.ledger)
    log.lie = "away"
    running = asyncio.create_task(found.run())
    await until(lambda: "not up to date" in caplog.text)
    assert found.glance(did("seller")) == ((500, 50, 950), (0, 0))
    log.lie = ""
    await until(lambda: found.glance(did("seller"))[1] == (1, 1))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_file_that_cannot_be_written_is_said_and_harms_nothing(
    log: DealLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = Reputations(log.ledger, file=blocked / "reputation.json")
    await found.catch_up()
    await found.save()
    assert "not kept" in caplog.text
    assert found.lower_bound(did("seller-1")) > 50


async def test_a_copy_with_a_page_missing_is_reported(log: DealLog) -> None:
    class Torn(DealLog):
        @override
        async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
            yield self.entries_[:5]
            raise StoreError("a page is missing")

    log.__class__ = Torn
    report, read = await recompute(log)
    assert not report.ok
    assert "a page is missing" in {problem.detail for problem in report.problems}
    assert read.read_size == 5


async def test_a_log_that_does_not_verify_is_reported_and_its_figures_are_not_taken(
    log: DealLog,
) -> None:
    forged = log.entries_[9]
    raw = forged.raw.replace(b'"sig":"', b'"sig":"AAAA', 1)
    log.entries_[9] = Entry(9, raw, forged.leaf, forged.log_time)
    report, read = await recompute(log)
    assert not report.ok
    assert read.size <= 9


@pytest.mark.parametrize("at", [0, 3, 10_000])
async def test_figures_at_a_size_that_no_interval_ends_with_are_refused(
    log: DealLog, at: int
) -> None:
    with pytest.raises(LedgerCorruptError):
        await recompute(log, at=at)


async def test_reputations_keep_up_with_a_running_ledger_and_write_down_what_they_read(
    memory_rig: LedgerRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.reputation.EVERY_S", 0.02)
    monkeypatch.setattr("wallet.reputation.SAVE_AFTER", 1)
    file = tmp_path / "reputation.json"
    found = Reputations(memory_rig.ledger, file=file)
    running = asyncio.create_task(found.run())
    buyer, seller = await memory_rig.funded("buyer"), await memory_rig.funded("seller")
    expires = memory_rig.clock.now_ms() + 60_000
    kept = await buyer.hold(did("seller"), 500, expires, "d" * 64)
    await seller.capture(kept.id, 500, "e" * 64)
    lapsed = await buyer.hold(did("seller"), 500, expires, "f" * 64)
    memory_rig.clock.advance(60_001)
    await until(lambda: found.lower_bound(did("seller")) != 50)
    standing = None
    for _ in range(100):
        standing, _ = await found.standing(did("seller"), did("buyer"))
        if standing.failures:
            break
        await asyncio.sleep(0.05)
    assert standing is not None
    assert (standing.deals, standing.failures) == (1, 1)
    assert standing.personal is None, "what was kept and what failed cancel out: nobody is trusted"
    await until(file.exists)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert lapsed.ok


async def until(holds: Any) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


async def test_a_process_that_never_ran_begins_where_a_neighbour_is(
    log: DealLog, tmp_path: Path
) -> None:
    other, own = tmp_path / "gateway.json", tmp_path / "host.json"
    neighbour = Reputations(log.ledger, file=other)
    await neighbour.catch_up()
    await neighbour.save()
    log.deal("buyer-9", "seller-1")
    found = Reputations(log.ledger, file=own, neighbours=[tmp_path / "nobody.json", other])
    assert found.basis == neighbour.basis
    await found.catch_up()
    await found.save()
    log.deal("buyer-8", "seller-1")
    again = Reputations(log.ledger, file=own, neighbours=[other])
    assert again.basis == found.basis, "its own file goes first"
    assert (await again.standing(did("seller-1"))) == (
        await Reputations(log.ledger).standing(did("seller-1"))
    )


async def test_a_neighbours_file_of_another_log_is_found_out_and_read_anew(
    log: DealLog, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    foreign = DealLog()
    foreign.deal("buyer-9", "seller-2")
    elsewhere = Reputations(foreign.ledger, file=other)
    await elsewhere.catch_up()
    await elsewhere.save()
    found = Reputations(log.ledger, neighbours=[other])
    with pytest.raises(NotAuditedError):
        await found.catch_up()
    await found.catch_up()
    assert found.lower_bound(did("seller-1")) == (
        (await Reputations(log.ledger).standing(did("seller-1")))[0].rate.low
    )
