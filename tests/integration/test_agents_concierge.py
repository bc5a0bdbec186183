"""A concierge on a real market: it buys from sellers who bargain; the ledger shows every fals."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import pytest

from agents.host import Host
from agents.member import Member
from agents.purchase import Purchase
from agents.template import template_named
from rahba.money import parse_fals, parse_rhb
from tests.fixtures.documents import pdf_document, read_document
from tests.fixtures.hosting import Souk, source_of

FEE_FALS = 1_000
SELLERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("summarise", {"quality": "fast", "price": "0.0024", "floor": "0.0014"}),
    ("summarise", {"quality": "thorough", "price": "0.0036", "floor": "0.0022"}),
    ("keywords", {"strategy": "linear"}),
    ("sentiment", {"strategy": "linear"}),
    ("pdf-text", {"strategy": "linear"}),
    ("data-analyst", {"runs": "inline"}),
)


async def open_stall(host: Host, template: str, config: dict[str, Any], name: str) -> Member:
    agent = template_named(template).make(config, name)
    return await host.add(agent, source_of(agent))


def documents() -> list[dict[str, str]]:
    broken = base64.b64encode(b"no pdf at all").decode()
    return [
        {"name": "reviews.txt", "kind": "text", "content": read_document("reviews.txt")},
        {"name": "sales.csv", "kind": "csv", "content": read_document("sales.csv")},
        {"name": "paper.pdf", "kind": "pdf", "content": pdf_document(), "encoding": "base64"},
        {"name": "broken.pdf", "kind": "pdf", "content": broken, "encoding": "base64"},
    ]


@dataclass
class Outcome:
    """One bought report, and by how much each account grew."""

    bought: Purchase
    earned: dict[str, int]
    concierge_gained: int

    @property
    def lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.bought.output["purchases"]
        return lines

    @property
    def delivered(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["failure"] is None]


@pytest.fixture
async def outcome(souk: Souk) -> Outcome:
    async def posted(member: Member) -> int:
        return (await souk.account(member.did)).posted

    async with souk.host() as host:
        sellers = [
            await open_stall(host, template, config, f"{template} {number}")
            for number, (template, config) in enumerate(SELLERS)
        ]
        concierge = await open_stall(host, "concierge", {}, "concierge")
        before = {member.did: await posted(member) for member in sellers}
        owned = await posted(concierge)
        bought = await souk.buy(
            "concierge.report",
            {"documents": documents(), "wishes": ["summary, keywords and what guests feel"]},
            mode="posted",
            within_ms=50_000,
        )
        assert await souk.settled(bought.thread) == "settled"
        earned = {member.did: await posted(member) - before[member.did] for member in sellers}
        return Outcome(bought, earned, await posted(concierge) - owned)


async def test_a_report_is_bought_from_sellers_who_bargain(outcome: Outcome) -> None:
    assert outcome.bought.receipt_verified
    assert {line["skill"] for line in outcome.delivered} == {
        "pdf.text",
        "text.summarise",
        "text.keywords",
        "text.sentiment",
        "data.analyse",
    }
    assert {line["mode"] for line in outcome.delivered} == {"tender", "bargain"}
    assert any(line["rounds"] >= 2 for line in outcome.delivered)
    assert all(
        parse_fals(line["paid_fals"]) <= parse_fals(line["asked_fals"])
        for line in outcome.delivered
    )

    report = outcome.bought.output["report"]
    assert "| Marrakech |" in report
    assert "channel" in report
    told = "**pdf.text failed:** seller_failed: the seller failed: unreadable_input"
    assert told in report
    failed = [line for line in outcome.lines if line["failure"] is not None]
    assert {line["document"] for line in failed} == {"broken.pdf"}
    assert [line["paid_fals"] for line in failed] == ["0"] * 4


async def test_what_the_report_says_was_paid_is_what_the_ledger_shows(outcome: Outcome) -> None:
    spent = sum(parse_fals(line["paid_fals"]) for line in outcome.lines)
    assert spent == parse_fals(outcome.bought.output["spent_fals"])
    assert 0 < spent <= parse_rhb("0.04")
    for did, earned in outcome.earned.items():
        paid = [parse_fals(x["paid_fals"]) for x in outcome.delivered if x["seller"] == did]
        # Sellers pay the fee of each capture, and of the release of what failed.
        assert 0 <= sum(paid) - earned <= FEE_FALS * (len(paid) + 1)
    gained = outcome.bought.paid_fals - spent
    assert 0 < gained - outcome.concierge_gained <= FEE_FALS * (len(outcome.lines) + 1)
