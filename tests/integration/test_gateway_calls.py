"""Calls over HTTP: bought, paid and receipted; every way to fail leaves the money whole."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fixtures.gateway import RHB, Site


async def money(site: Site) -> tuple[int, int]:
    view = await site.ledger.account(site.owner.account)
    assert view is not None
    return view.posted, view.held


async def test_a_posted_call_is_answered_paid_and_receipted(bazaar: Site) -> None:
    before, _ = await money(bazaar)
    answer = await bazaar.call()
    call = answer.json
    assert answer.status == 200, call
    assert call["output"] == "salam"
    assert call["state"] == "settled"
    assert call["paid_fals"] == call["agreed_fals"] == call["asked_fals"]
    assert call["receipt_verified"]
    paid = int(call["paid_fals"])
    assert await money(bazaar) == (before - paid - 1000, 0)
    again = await bazaar.ask("GET", f"/v1/calls/{call['id']}")
    assert again.json == call
