"""A running ledger frees what nobody challenged, and ends what nobody answered, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rahba.encoding import sha256_hex, unb64
from rahba.errors import RahbaError
from tests.fixtures.faults import receipt
from tests.fixtures.ledger_house import ALICE, BOB, served
from tests.fixtures.wallet import DEAL, FEE, LedgerRig, did
from wallet.account import Wallet
from wallet.audit import audit_ledger
from wallet.ports import HoldView
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import Capture, Challenge, Deliver, Hold, Recourse, transaction_id

RECOURSE = Recourse(window_ms=20_000, answer_ms=10_000)
MINE = receipt("brahim", "a")
PART = {"receipt": MINE, "part": 1, "parts": 2, "output": "AAAA"}


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110  # nothing tells of what time alone does
            await asyncio.sleep(0.02)


async def captured(rig: LedgerRig) -> tuple[str, Wallet, Wallet]:
    """Return a hold of 6,000 whose payee, without other money, took all of it."""
    amina, brahim = await rig.funded("amina", 20_000), rig.wallet("brahim")
    expires = rig.clock.now_ms() + 60_000
    hold = (await amina.hold(did("brahim"), 6_000, expires, DEAL, recourse=RECOURSE)).id
    await brahim.capture(hold, 6_000, sha256_hex(unb64(MINE)))
    return hold, amina, brahim


async def challenged(rig: LedgerRig) -> tuple[str, Wallet, Wallet]:
    hold, amina, brahim = await captured(rig)
    await amina.send(await amina.sign(Challenge, hold=hold))
    return hold, amina, brahim


async def pass_time(rig: LedgerRig, milliseconds: int) -> None:
    await asyncio.sleep(0.25)  # the interval ends, time may move on
    rig.clock.advance(milliseconds)


async def seen(rig: LedgerRig, hold: str) -> HoldView:
    view = await rig.ledger.hold(hold)
    assert view is not None
    return view


async def log_of(rig: LedgerRig) -> list[str]:
    return [entry.id for entry in await rig.ledger.entries(0, 1_000)]


async def test_an_idle_ledger_frees_what_nobody_challenged_and_writes_nothing(
    rig: LedgerRig,
) -> None:
    hold, amina, brahim = await captured(rig)
    await pass_time(rig, RECOURSE.window_ms - 1)
    before = await log_of(rig)
    await asyncio.sleep(0.7)  # longer than the ledger sleeps
    assert await rig.available("brahim") == 0
    rig.clock.advance(1)

    async def free() -> bool:
        return await rig.available("brahim") == 6_000 - FEE

    await until(free)
    assert await log_of(rig) == before
    assert (await seen(rig, hold)).status == "captured"
    with pytest.raises(RahbaError) as late:
        await amina.send(await amina.sign(Challenge, hold=hold))
    assert late.value.code == "not_contestable"
    await brahim.transfer(did("chadia"), 4_000)
    assert await rig.available("chadia") == 4_000
    assert (await audit_ledger(rig.ledger)).ok


async def test_an_idle_ledger_ends_a_challenge_that_nobody_answered(rig: LedgerRig) -> None:
    hold, _, brahim = await challenged(rig)
    view = await seen(rig, hold)
    assert (view.status, view.recourse, view.delivered) == ("challenged", RECOURSE, 0)
    assert view.deadline_ms == rig.clock.now_ms() + RECOURSE.answer_ms
    await brahim.send(await brahim.sign(Deliver, hold=hold, **PART))
    assert (await seen(rig, hold)).delivered == 1
    await pass_time(rig, RECOURSE.answer_ms)

    async def given_back() -> bool:
        return (await seen(rig, hold)).status == "released"

    await until(given_back)
    assert await rig.available("amina") == 20_000 - 2 * FEE
    assert await rig.available("brahim") == 0
    last = [entry.payload for entry in await rig.ledger.entries(0, 1_000)]
    ended = [entry for entry in last if entry["type"] == "expire"]
    assert [(entry["account"], entry["subject"]) for entry in ended] == [(rig.operator.did, hold)]
    with pytest.raises(RahbaError) as late:
        await brahim.send(await brahim.sign(Deliver, hold=hold, **(PART | {"part": 2})))
    assert late.value.code == "hold_resolved"
    assert (await audit_ledger(rig.ledger)).ok


async def test_an_answer_frees_the_money_at_once(rig: LedgerRig) -> None:
    hold, _, brahim = await challenged(rig)
    for part in (1, 2):
        await brahim.send(await brahim.sign(Deliver, hold=hold, **(PART | {"part": part})))
    assert await rig.available("brahim") == 6_000 - FEE
    assert (await seen(rig, hold)).status == "captured"


async def test_a_part_beyond_the_last_is_invalid(memory_rig: LedgerRig) -> None:
    hold, _, brahim = await challenged(memory_rig)
    raw = await brahim.sign(Deliver, hold=hold, **(PART | {"part": 3}))
    answer = await memory_rig.ledger.submit(raw)
    assert (answer.outcome, answer.code) == ("invalid", "bad_part")


@pytest.mark.parametrize("every", [1, 10**9], ids=["snapshot", "replay"])
async def test_what_is_retained_is_so_after_a_restart_and_free_in_time(
    rig: LedgerRig, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", every)
    hold, _, _ = await captured(rig)
    view = await seen(rig, hold)
    await pass_time(rig, RECOURSE.window_ms - 1)
    await rig.reopen()
    assert await rig.available("brahim") == 0
    assert await seen(rig, hold) == view
    await rig.ledger.close()
    rig.clock.advance(1)
    await rig.open()

    async def free() -> bool:
        return await rig.available("brahim") == 6_000 - FEE

    await until(free)
    await rig.wallet("brahim").transfer(did("chadia"), 4_000)
    await rig.reopen()
    assert await rig.available("brahim") == 0
    assert (await audit_ledger(rig.ledger)).ok


@pytest.mark.parametrize("every", [1, 10**9], ids=["snapshot", "replay"])
@pytest.mark.parametrize("answered", [True, False])
async def test_a_challenge_goes_on_after_a_restart(
    rig: LedgerRig, monkeypatch: pytest.MonkeyPatch, every: int, answered: bool
) -> None:
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", every)
    hold, _, brahim = await challenged(rig)
    await brahim.send(await brahim.sign(Deliver, hold=hold, **PART))
    view = await seen(rig, hold)
    await pass_time(rig, RECOURSE.answer_ms - 1)
    await rig.reopen()
    assert await seen(rig, hold) == view
    brahim = rig.wallet("brahim")
    if answered:
        await brahim.send(await brahim.sign(Deliver, hold=hold, **(PART | {"part": 2})))
    await rig.ledger.close()
    rig.clock.advance(RECOURSE.window_ms)
    await rig.open()
    end = "captured" if answered else "released"

    async def over() -> bool:
        return (await seen(rig, hold)).status == end

    await until(over)
    assert await rig.available("brahim") == (6_000 - FEE if answered else 0)
    await rig.reopen()
    assert (await seen(rig, hold)).status == end
    assert (await audit_ledger(rig.ledger)).ok


async def test_a_hold_with_a_recourse_looks_the_same_from_afar(tmp_path: Path) -> None:
    async with served(SqliteStore(tmp_path / "ledger.db")) as house:
        await house.ledger.submit(house.faucet(ALICE))
        terms = Recourse(window_ms=1_000, answer_ms=1_000)
        words = {"payee": BOB.did, "amount": "6000", "agreement": "ab" * 32, "recourse": terms}
        words |= {"arbitration": None, "bail": None}
        common = house._common(ALICE)
        hold = Hold(**common, **words, expires=common["valid_until"])
        raw = house.sign(hold, ALICE)
        name = transaction_id(raw)
        taken = {"hold": name, "amount": "6000", "final": True, "receipt": None}
        taking = house.sign(Capture(**house._common(BOB), **taken), BOB)
        challenge = house.sign(Challenge(**house._common(ALICE), hold=name), ALICE)
        answers = await house.ledger.submit_many([raw, taking, challenge])
        assert [answer.outcome for answer in answers] == ["logged"] * 3
        far = await house.ledger.hold(name)
        assert far == await house.sequencer.hold(name)
        assert far is not None
        assert (far.status, far.recourse, far.captured) == ("challenged", terms, 6_000)

        async def given_back() -> bool:
            view = await house.ledger.hold(name)
            return view is not None and view.status == "released"

        await until(given_back, seconds=5.0)
