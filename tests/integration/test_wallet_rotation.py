"""A rotation that is cut off anywhere leaves a key that signs, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl import pwhash

from tests.fixtures.line import Line
from tests.fixtures.wallet import FEE, LedgerRig, did, signer_of
from wallet.account import Wallet
from wallet.errors import (
    InsufficientFundsError,
    PaymentUnknownError,
    UnknownSessionError,
)
from wallet.keystore import Origin, save_keystore
from wallet.outbox import Outbox
from wallet.phrase import new_phrase
from wallet.ports import Answer
from wallet.purse import Purse
from wallet.rotation import Rotated, SharedAccountError, finish, rotate
from wallet.slip10 import agent_path
from wallet.stores.outbox import SqliteOutbox
from wallet.transactions import PolicySet

FUNDS = 100_000


class CrashError(BaseException):
    """The process ends here: nothing after it runs, not even what catches errors."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(path: Path, origin: Origin, passphrase: str, **options: Any) -> None:
        least = {"memory": pwhash.argon2id.MEMLIMIT_MIN, "passes": 1}
        save_keystore(path, origin, passphrase, **(least | options))

    monkeypatch.setattr("wallet.purse.save_keystore", save)


class Desk:
    """A wallet on a line, opened anew each time as a fresh process would."""

    def __init__(self, line: Line, folder: Path) -> None:
        self.line = line
        self.folder = folder
        origin = Origin.from_phrase(new_phrase(line.rig.ids))
        Purse.create(folder, "savings", origin, "one")
        self.origin = origin

    @property
    def purse(self) -> Purse:
        return Purse.named(self.folder, "savings")

    def outbox(self) -> Outbox:
        store = SqliteOutbox(self.purse.outbox)
        return Outbox(store, self.line, clock=self.line.rig.clock, patience_s=0.05)

    async def rotate(self, purse: Purse | None = None) -> Rotated:
        outbox = self.outbox()
        try:
            return await rotate(
                purse or self.purse,
                self.line,
                outbox,
                "one",
                clock=self.line.rig.clock,
                ids=self.line.rig.ids,
            )
        finally:
            await outbox.close()

    async def finish(self) -> Rotated | None:
        outbox = self.outbox()
        try:
            return await finish(self.purse, outbox)
        finally:
            await outbox.close()

    async def pay(self, signer: Any = None) -> Answer:
        rig, purse = self.line.rig, self.purse
        wallet = Wallet(
            self.line,
            signer or purse.signer("one"),
            clock=rig.clock,
            ids=rig.ids,
            account=purse.account,
        )
        return await wallet.transfer(did("brahim"), 1)

    async def keys(self) -> tuple[str, ...]:
        view = await self.line.rig.ledger.account(self.origin.did)
        assert view is not None
        return view.keys

    def key(self, number: int) -> str:
        return self.origin.signer(agent_path(key=number)).did


@pytest.fixture
async def desk(memory_rig: LedgerRig, tmp_path: Path) -> Desk:
    desk = Desk(Line(memory_rig), tmp_path)
    await (await memory_rig.funded("amina", 2 * FUNDS)).transfer(desk.origin.did, FUNDS)
    return desk


async def test_the_next_key_signs_for_the_same_account_and_the_old_one_no_more(
    desk: Desk,
) -> None:
    done = await desk.rotate()
    assert (done.account, done.old, done.new) == (desk.origin.did, desk.key(0), desk.key(1))
    assert await desk.keys() == (desk.key(1),)
    assert (await desk.pay()).ok
    with pytest.raises(UnknownSessionError):
        await desk.pay(desk.origin.signer())
    assert (await desk.rotate()).new == desk.key(2)
    assert (await desk.pay()).ok


@pytest.mark.parametrize("step", ["prepare", "announce", "activate"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("ask", ["rotate", "finish"])
async def test_a_crash_beside_any_step_leaves_a_key_that_signs_and_is_made_good(
    desk: Desk, step: str, moment: str, ask: str
) -> None:
    purse = desk.purse
    whole: Callable[..., Any] = getattr(purse, step)

    def torn(*args: Any) -> None:
        if moment == "after":
            whole(*args)
        raise CrashError

    setattr(purse, step, torn)
    with pytest.raises(CrashError):
        await desk.rotate(purse)
    if ask == "rotate" and (step, moment) != ("activate", "after"):
        await desk.rotate()
    else:
        await desk.finish()
    active = desk.purse.record().active.did
    assert await desk.keys() == (active,)
    assert (await desk.pay()).ok
    assert len(set(desk.line.sent)) <= 3, "nothing was signed anew that had been sent"
    rotated = ask == "rotate" or step == "activate"
    assert active == desk.key(int(rotated))


async def test_a_lost_answer_is_found_out_without_any_key(desk: Desk) -> None:
    desk.line.lose_answers = 1_000
    with pytest.raises(PaymentUnknownError):
        await desk.rotate()
    with pytest.raises(PaymentUnknownError):
        await desk.finish()
    record = desk.purse.record()
    assert record.active.did == desk.key(0)
    assert record.coming is not None
    desk.line.lose_answers = 0
    done = await desk.finish()
    assert done is not None
    assert done.answer.outcome == "exists"
    assert desk.purse.record().active.did == desk.key(1)
    assert await desk.finish() is None
    assert len(set(desk.line.sent)) == 1


async def test_a_rotation_that_came_too_late_is_signed_again_with_the_same_key(
    desk: Desk,
) -> None:
    desk.line.lose_requests = 1_000
    with pytest.raises(PaymentUnknownError):
        await desk.rotate()
    desk.line.lose_requests = 0
    ledger = desk.line.rig.ledger
    await ledger.next_checkpoint(ledger.log.size - 1)
    desk.line.rig.clock.advance(60_000)
    assert await desk.finish() is None
    assert (await desk.pay()).ok
    assert (await desk.rotate()).new == desk.key(1)


async def test_a_refused_rotation_leaves_the_old_key_in_force(desk: Desk) -> None:
    view = await desk.line.rig.ledger.account(desk.origin.did)
    assert view is not None
    rig = desk.line.rig
    wallet = Wallet(rig.ledger, desk.purse.signer("one"), clock=rig.clock, ids=rig.ids)
    await wallet.transfer(did("brahim"), view.available - FEE)
    with pytest.raises(InsufficientFundsError):
        await desk.rotate()
    record = desk.purse.record()
    assert (record.active.did, record.coming) == (desk.key(0), None)
    await rig.wallet("amina").transfer(desk.origin.did, 10_000)
    assert (await desk.rotate()).new == desk.key(2)


async def test_a_rotation_whose_outbox_is_gone_is_seen_in_the_ledger(desk: Desk) -> None:
    purse = desk.purse

    def torn() -> None:
        raise CrashError

    purse.activate = torn  # type: ignore[method-assign]
    with pytest.raises(CrashError):
        await desk.rotate(purse)
    for path in purse.outbox.parent.glob("*.outbox*"):
        path.unlink()
    assert (await desk.rotate()).new == desk.key(1)
    assert (await desk.pay()).ok


async def test_a_key_of_several_that_act_together_is_not_rotated_by_itself(desk: Desk) -> None:
    rig = desk.line.rig
    signer = desk.purse.signer("one")
    wallet = Wallet(rig.ledger, signer, clock=rig.clock, ids=rig.ids)
    keys = tuple(sorted([signer.did, signer_of("partner").did]))
    await wallet.do(PolicySet, keys=keys, threshold=2)
    with pytest.raises(SharedAccountError):
        await desk.rotate()
    assert desk.purse.record().coming is None
