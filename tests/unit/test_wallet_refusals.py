"""Which refusals are remembered, for how long, and that nobody fills the memory."""

from __future__ import annotations

import asyncio
import time

import pytest

from rahba.clock import ManualClock
from tests.fixtures.wallet import START_MS, LedgerRig, PureLedger, did, signer_of
from wallet.ports import Verdict
from wallet.refusals import Refusals, charged
from wallet.stores.memory import MemoryStore
from wallet.transactions import Faucet, Grant, Transfer, read


def verdict(number: int, until: int = 2_000) -> Verdict:
    return Verdict(f"{number:064x}", "insufficient_funds", "", until)


def test_a_refusal_is_recalled_up_to_its_time_and_not_after() -> None:
    refusals = Refusals([verdict(1)])
    assert refusals.add("amina", verdict(2), 1_000)
    for number in (1, 2):
        assert refusals.recall(verdict(number).id, 2_000) == verdict(number)
        assert refusals.recall(verdict(number).id, 2_001) is None


def test_what_is_over_makes_room_in_any_order() -> None:
    refusals = Refusals([verdict(number, 1_000 + number) for number in (5, 1, 9)])
    for number in (7, 3):
        assert refusals.add("amina", verdict(number, 1_000 + number), 1_000)
    assert refusals.add("amina", verdict(20, 1_020), 1_005)
    assert len(refusals) == 4  # 5, 7, 9, 20
    assert refusals.add("amina", verdict(21, 3_000), 2_000)
    assert len(refusals) == 1


def test_an_account_has_a_share_and_gets_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallet.refusals.PER_ACCOUNT", 3)
    refusals = Refusals([])
    assert [refusals.add("amina", verdict(n), 1_000) for n in range(5)] == [True] * 3 + [False] * 2
    assert refusals.add("brahim", verdict(9), 1_000)
    assert refusals.add("amina", verdict(10, 5_000), 2_001)
    assert len(refusals) == 1


def test_a_full_memory_still_has_room_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallet.refusals.CAPACITY", 10)
    monkeypatch.setattr("wallet.refusals.ALWAYS", 2)
    refusals = Refusals([])
    hostile = [refusals.add("hostile", verdict(number), 1_000) for number in range(12)]
    assert hostile == [True] * 10 + [False] * 2
    honest = [refusals.add("honest", verdict(number), 1_000) for number in range(20, 23)]
    assert honest == [True, True, False]


def test_a_full_memory_costs_nothing_to_add_to() -> None:
    refusals = Refusals([verdict(number, 10**6 + number) for number in range(200_000)])
    began = time.perf_counter()
    for number in range(2_000):
        refusals.add(f"account {number}", verdict(300_000 + number, 10**7), 1_000)
    assert time.perf_counter() - began < 1.0  # a scan each time took 17 s


def test_a_refusal_is_charged_to_whom_the_signer_acts_for(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.fund("brahim")
    limits = {"budget": "10", "per_tx": "10", "payees": None, "types": ["transfer"]}
    grant = {"key": did("agent"), "expires": pure.now + 60_000, **limits}
    assert pure.do(Grant, "amina", **grant).outcome == "logged"
    for account, signer, whose in (
        ("amina", "amina", did("amina")),
        ("amina", "agent", did("amina")),
        ("amina", "brahim", did("brahim")),  # a stranger does not use up her share
        ("amina", "nobody", None),
        ("nobody", "nobody", None),
    ):
        raw = pure.sign(Transfer, account, signed_by=signer, to=did("chadia"), amount="1")
        assert charged(pure.state, read(raw)) == whose
    claim = pure.sign(Faucet, "nobody", amount="1")
    assert charged(pure.state, read(claim)) is None


async def test_an_unknown_account_is_refused_again_and_again_and_fills_nothing(
    memory_rig: LedgerRig,
) -> None:
    poor = memory_rig.wallet("poor")
    raw = await poor.sign_transfer(did("brahim"), 1)
    answers = await memory_rig.ledger.submit_many([raw, raw])
    assert {answer.code for answer in answers} == {"insufficient_funds"}
    assert answers[0] == answers[1] == await memory_rig.ledger.submit(raw)
    assert memory_rig.make_store().verdicts() == []


async def test_beyond_its_share_an_account_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wallet.refusals.PER_ACCOUNT", 2)
    store = MemoryStore()
    rig = LedgerRig(lambda: store, ManualClock(START_MS))
    await rig.open()
    amina = await rig.funded("amina", 10)
    raws = [await amina.sign_transfer(did("brahim"), 1) for _ in range(4)]
    answers = await rig.ledger.submit_many(raws)
    assert {answer.code for answer in answers} == {"insufficient_funds"}
    assert [kept.id for kept in store.verdicts()] == [answer.id for answer in answers[:2]]
    await amina.faucet(1_000_000)
    again = await rig.ledger.submit_many(raws)
    assert again[:2] == answers[:2]
    assert [answer.outcome for answer in again[2:]] == ["logged"] * 2
    await rig.ledger.close()


async def test_after_valid_until_a_refused_transaction_is_expired(memory_rig: LedgerRig) -> None:
    amina = await memory_rig.funded("amina", 10)
    raw = await amina.sign_transfer(did("brahim"), 1)
    assert (await memory_rig.ledger.submit(raw)).outcome == "refused"
    assert read(raw).signers == (signer_of("amina").did,)
    await asyncio.sleep(0.25)  # the interval ends, time may move on
    memory_rig.clock.advance(60_001)
    answer = await memory_rig.ledger.submit(raw)
    assert (answer.outcome, answer.code) == ("invalid", "expired")
