"""What the memory's card store forgets, and how those who follow it are told."""

from __future__ import annotations

import pytest

from broker.transports import memory_cards
from broker.transports.memory_cards import MemoryCardStore
from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.messages import Card


def card_of(number: int, issued: int) -> Card:
    return Card(
        agent=Signer(bytes([number]) * 32).did,
        name=f"agent {number}",
        description="",
        version="1",
        template="custom",
        skills=[],
        data_policy="sealed",
        issued=issued,
        ttl_ms=10_000,
    )


async def test_the_list_of_changes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_cards, "MAX_CHANGES", 3)
    store = MemoryCardStore(SystemClock())
    began = await store.position()
    for number in range(1, 8):
        await store.put(card_of(number, 1_000), b"raw", f"{number:064x}")
    recent = await store.changes("5-0")
    assert [agent for _, agent in recent.changes] == [card_of(n, 0).agent for n in (6, 7)]
    assert (await store.changes(began)).lost  # who missed more reads everything anew


async def test_a_card_that_left_is_not_listed_again_by_its_old_bytes() -> None:
    store = MemoryCardStore(SystemClock())
    card = card_of(1, 1_000)
    await store.put(card, b"raw", "1" * 64)
    assert await store.drop(card.agent)
    assert not await store.drop(card.agent)
    assert (await store.put(card, b"raw", "1" * 64)).outcome == "stale"
