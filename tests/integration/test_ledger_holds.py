"""Many holds asked for at once, of a ledger over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rahba.errors import TooLargeError
from tests.integration.test_ledger_http import ALICE, BOB, House, served
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import Capture, transaction_id


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with served(SqliteStore(tmp_path / "ledger.db")) as house:
        yield house


async def test_many_holds_are_asked_for_at_once_whether_they_last_or_have_ended(
    house: House,
) -> None:
    await house.ledger.submit_many([house.faucet(ALICE), house.faucet(BOB)])
    holds = [house.hold(ALICE, BOB.did, 100 + number) for number in range(1_200)]
    await house.ledger.submit_many(holds)
    ids = [transaction_id(raw) for raw in holds]
    tx = Capture(**house._common(BOB), hold=ids[3], amount="103", final=True, receipt=None)
    assert (await house.ledger.submit(house.sign(tx, BOB))).ok
    found = await house.ledger.holds([ids[5], "00" * 32, ids[3], ids[5], *ids])
    assert len(found) == 4 + len(ids)
    assert found[1] is None
    assert [hold and (hold.amount, hold.status, hold.captured) for hold in found[:4]] == [
        (105, "open", 0),
        None,
        (103, "captured", 103),
        (105, "open", 0),
    ]
    assert [hold and hold.id for hold in found[4:]] == ids
    assert found[:4] == await house.sequencer.holds([ids[5], "00" * 32, ids[3], ids[5]])
    assert found[2] == await house.ledger.hold(ids[3])
    assert await house.ledger.holds([]) == []
    with pytest.raises(TooLargeError):
        await house.sequencer.holds(ids)


async def test_a_hold_shown_beside_an_unknown_one_is_shown_as_it_is_on_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is live changes in place with the next group, before that group is durable."""
    await house.ledger.submit_many([house.faucet(ALICE), house.faucet(BOB)])
    raw = house.hold(ALICE, BOB.did, 700)
    assert (await house.ledger.submit(raw)).ok
    hold = transaction_id(raw)
    views = house.sequencer
    live = views._book.state.holds[hold]
    read = views._read

    async def while_reading(*job: Any) -> Any:
        live.captured = 700  # as the next group does, which may never be durable
        return await read(*job)

    monkeypatch.setattr(views, "_read", while_reading)
    shown, unknown = await views.holds([hold, "00" * 32])
    live.captured = 0
    assert unknown is None
    assert shown is not None
    assert shown.captured == 0
