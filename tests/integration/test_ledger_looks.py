"""Holds that are looked at together, over HTTP: one request, and each sees its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fixtures.ledger_house import ALICE, BOB, House, counted, served
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import transaction_id
from wallet.wire import LedgerAnswerError


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with served(SqliteStore(tmp_path / "ledger.db")) as house:
        yield house


async def test_looks_of_one_moment_travel_together_and_each_sees_its_own_hold(
    house: House,
) -> None:
    await house.ledger.submit(house.faucet(ALICE))
    raws = [house.hold(ALICE, BOB.did, amount) for amount in range(1, 101)]
    await house.ledger.submit_many(raws)
    ids = [transaction_id(raw) for raw in raws]
    asked = counted(house)
    views = await asyncio.gather(
        *(house.ledger.hold(one) for one in [*ids, "00" * 32, "x", ids[0]])
    )
    assert [len(path.split(",")) for path in asked] == [50, 50, 1]  # ids[0] once
    assert [view.amount for view in views if view] == [*range(1, 101), 1]
    assert views[100:102] == [None, None]
    assert await house.ledger.hold(ids[4]) == views[4]
    assert asked[3:] == [f"/v1/holds/{ids[4]}"]


async def test_a_ledger_that_shows_one_hold_at_a_time_is_asked_for_one_at_a_time(
    house: House,
) -> None:
    await house.ledger.submit(house.faucet(ALICE))
    raws = [house.hold(ALICE, BOB.did, amount) for amount in (1, 2, 3)]
    await house.ledger.submit_many(raws)
    attempt = house.ledger._attempt

    async def older(method: str, url: str, path: str, *rest: Any) -> tuple[int, bytes]:
        return await attempt(method, url, path.replace("/v1/holds?", "/v1/nothing?"), *rest)

    house.ledger._attempt = older
    views = await asyncio.gather(*(house.ledger.hold(transaction_id(raw)) for raw in raws))
    assert [view.amount for view in views if view] == [1, 2, 3]


@pytest.mark.parametrize("shown", ["swapped", "short"])
async def test_holds_that_were_not_asked_for_are_not_believed(house: House, shown: str) -> None:
    await house.ledger.submit(house.faucet(ALICE))
    raws = [house.hold(ALICE, BOB.did, amount) for amount in (1, 2)]
    await house.ledger.submit_many(raws)
    attempt = house.ledger._attempt

    async def lying(*args: Any) -> tuple[int, bytes]:
        status, body = await attempt(*args)
        views = orjson.loads(body)
        return status, orjson.dumps(views[::-1] if shown == "swapped" else views[:1])

    house.ledger._attempt = lying
    looks = [house.ledger.hold(transaction_id(raw)) for raw in raws]
    errors = await asyncio.gather(*looks, return_exceptions=True)
    assert [type(error) for error in errors] == [LedgerAnswerError] * 2
