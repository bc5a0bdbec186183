"""What an auditor believes, whatever it is shown, and that nobody is framed by what is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import pytest

from rahba.errors import RahbaError
from rahba.note import open_checkpoint, sign_checkpoint, verifier_key
from rahba.proof import InclusionProof
from tests.fixtures.attacks import OPERATOR, ForgedLog, witness
from tests.fixtures.wallet import START_MS, signer_of
from wallet.auditor import Auditor, NotAuditedError
from wallet.errors import LedgerUnavailableError
from wallet.evidence import BadState, NotEvidenceError, verify_evidence
from wallet.ports import Ledger, TxView
from wallet.stores.witness import WitnessStore
from wallet.transactions import dev_genesis
from wallet.witness import write_request


@dataclass
class Shown:
    """A ledger that shows the entries of a log, or does not, or others."""

    log: ForgedLog
    away: bool = False
    late: bool = False
    wrong_time: bool = False
    foreign: ForgedLog | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def entries(self, start: int, limit: int) -> list[TxView]:
        self.asked.append((start, limit))
        if self.away:
            raise LedgerUnavailableError("away")
        if self.late:
            await self.go_on.wait()
        found = await (self.foreign or self.log).entries_of(start, limit + 5)
        return (
            [msgspec.structs.replace(item, log_time=1) for item in found]
            if self.wrong_time
            else found
        )

    async def inclusion(self, tx_id: str) -> InclusionProof | None:
        raise AssertionError(tx_id)


@pytest.fixture
def log() -> ForgedLog:
    found = ForgedLog(dev_genesis(OPERATOR.did, START_MS))
    found.fund("amina", 9_000)
    found.close()
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WitnessStore]:
    found = WitnessStore(tmp_path / "w.sqlite")
    yield found
    found.close()


def vkey(log: ForgedLog) -> str:
    return verifier_key(log.genesis.origin, OPERATOR)


def auditor_of(shown: Shown, within_s: float = 3.0) -> Auditor:
    return Auditor(cast("Ledger", shown), within_s=within_s)


async def test_what_is_right_is_confirmed_and_carried_out_once(log: ForgedLog) -> None:
    shown = Shown(log)
    auditor = auditor_of(shown)
    assert await auditor.confirms(log.note, vkey(log)) is None
    assert await auditor.confirms(log.note, vkey(log)) is None
    first, size = log.note, auditor.size
    log.fund("brahim", 5_000)
    log.close()
    assert await auditor.confirms(log.note, vkey(log)) is None
    assert await auditor.confirms(first, vkey(log)) is None
    assert shown.asked == [(0, size), (size, 2)]
    assert auditor.evidence == ()


async def test_other_entries_than_those_signed_are_forgotten_and_convict_nobody(
    log: ForgedLog,
) -> None:
    other = ForgedLog(log.genesis)
    other.fund("thief", 9_000)
    other.close()
    shown = Shown(log, foreign=other)
    auditor = auditor_of(shown)
    for _ in range(2):
        with pytest.raises(NotAuditedError, match="signed root"):
            await auditor.confirms(log.note, vkey(log))
    shown.foreign = None
    assert await auditor.confirms(log.note, vkey(log)) is None
    assert auditor.evidence == ()


@pytest.mark.parametrize("path", [["zz"], ["00"], [], ["00" * 32] * 70])
async def test_a_log_that_answers_nonsense_for_a_proof_is_refused_and_convicts_nobody(
    log: ForgedLog, store: WitnessStore, path: list[str]
) -> None:
    class Nonsense(Shown):
        async def consistency(self, old_size: int, new_size: int) -> list[str]:
            assert old_size < new_size
            return path

    size, first = len(log.entries), log.note
    log.fund("brahim", 5_000)
    log.close()
    watch = witness(store, auditor_of(Nonsense(log)))
    assert (await watch.add_checkpoint(write_request(0, [], first)))[0] == 200
    assert (await watch.add_checkpoint(write_request(size, [], log.note)))[0] == 422
    assert store.evidence() == []


async def test_a_checkpoint_of_another_log_costs_no_second_pass(log: ForgedLog) -> None:
    shown = Shown(log)
    auditor = auditor_of(shown)
    assert await auditor.confirms(log.note, vkey(log)) is None
    other = ForgedLog(dev_genesis(OPERATOR.did, START_MS - 1))
    other.fund("amina", 5_000)
    other.close()
    with pytest.raises(NotAuditedError):
        await auditor.confirms(other.note, vkey(other))
    assert auditor.size == len(log.entries)


async def test_times_that_nobody_signed_convict_nobody(log: ForgedLog) -> None:
    shown = Shown(log, wrong_time=True)
    auditor = auditor_of(shown)
    with pytest.raises(NotAuditedError, match="shown wrongly"):
        await auditor.confirms(log.note, vkey(log))
    stored_wrongly = [entry._replace(log_time=1) for entry in log.entries]
    with pytest.raises(NotEvidenceError, match="signed word"):
        verify_evidence(BadState(vkey(log), log.note, 0, "wrong_time"), stored_wrongly)
    shown.wrong_time = False
    assert await auditor.confirms(log.note, vkey(log)) is None


async def test_a_log_under_somebody_elses_genesis_is_evidence(log: ForgedLog) -> None:
    thief = signer_of("thief")
    checkpoint = open_checkpoint(log.note, vkey(log))
    note = sign_checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, thief)
    key = verifier_key(checkpoint.origin, thief)
    auditor = auditor_of(Shown(log))
    assert await auditor.confirms(note, key) is not None
    (bundle,) = auditor.evidence
    assert verify_evidence(bundle, log.entries).operator == thief.did
    assert await auditor.confirms(log.note, vkey(log)) == "the log was caught before"


async def test_a_checkpoint_in_the_middle_of_an_interval_is_evidence(log: ForgedLog) -> None:
    log.fund("brahim", 5_000)
    size = len(log.entries)
    log.close()
    auditor = auditor_of(Shown(log))
    note = sign_checkpoint(log.genesis.origin, size, log.book.log.root_at(size), OPERATOR)
    assert await auditor.confirms(note, vkey(log)) is not None
    (bundle,) = auditor.evidence
    assert verify_evidence(bundle, log.entries).kind == "state"


async def test_who_asks_waits_a_moment_only_and_finds_the_work_done_later(log: ForgedLog) -> None:
    shown = Shown(log, late=True)
    auditor = auditor_of(shown, within_s=0.02)
    for _ in range(2):
        with pytest.raises(NotAuditedError, match=r"0 of 3 entries"):
            await auditor.confirms(log.note, vkey(log))
    shown.go_on.set()
    async with asyncio.timeout(10):
        await auditor.catch_up(len(log.entries))
    assert await auditor.confirms(log.note, vkey(log)) is None
    assert len(shown.asked) == 1
    await auditor.close()


async def test_a_checkpoint_beyond_what_is_shown_is_not_confirmed_and_does_no_harm(
    log: ForgedLog,
) -> None:
    auditor = auditor_of(Shown(log))
    beyond = sign_checkpoint(log.genesis.origin, 2**50, bytes(32), OPERATOR)
    with pytest.raises(NotAuditedError, match="entry 3 is not shown"):
        await auditor.confirms(beyond, vkey(log))
    assert await auditor.confirms(log.note, vkey(log)) is None


async def test_what_is_cosigned_already_needs_no_ledger_and_the_rest_is_not_cosigned(
    log: ForgedLog, store: WitnessStore
) -> None:
    """A ledger asks its auditor before it serves anything: it must not wait for itself."""
    first = witness(store, auditor_of(Shown(log)))
    assert (await first.add_checkpoint(write_request(0, [], log.note)))[0] == 200
    again = witness(store, auditor_of(Shown(log, away=True)))
    assert (await again.add_checkpoint(write_request(3, [], log.note)))[0] == 200
    assert (await again.add_checkpoint(write_request(2, [], log.note)))[0] == 409
    old = log.book.log
    log.fund("brahim", 5_000)
    log.close()
    path = [step.hex() for step in old.consistency(3, 5)]
    assert path
    body = write_request(3, [_b64(step) for step in path], log.note)
    assert (await again.add_checkpoint(body))[0] == 503
    seen = store.newest(log.genesis.origin)
    assert seen is not None
    assert seen.size == 3


async def test_after_a_start_what_was_cosigned_is_carried_out_before_anybody_asks(
    log: ForgedLog, store: WitnessStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.auditor.RETRY_S", 0.01)
    await witness(store).watch.catch_up()
    first = witness(store, auditor_of(Shown(log)))
    await first.add_checkpoint(write_request(0, [], log.note))
    shown = Shown(log, away=True)
    auditor = auditor_of(shown)
    task = asyncio.create_task(witness(store, auditor).watch.catch_up())
    async with asyncio.timeout(10):
        while len(shown.asked) < 3:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.005)
        shown.away = False
        await task
    assert auditor.size == 3


async def test_a_ledger_that_is_away_says_nothing_about_the_log(log: ForgedLog) -> None:
    shown = Shown(log, away=True)
    auditor = auditor_of(shown)
    with pytest.raises(RahbaError):
        await auditor.confirms(log.note, vkey(log))
    shown.away = False
    assert await auditor.confirms(log.note, vkey(log)) is None


def _b64(hash_hex: str) -> str:
    from rahba.encoding import b64

    return b64(bytes.fromhex(hash_hex))
