"""A concierge on a real market: it buys from sellers who bargain; the ledger shows every fals."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from typing import Any

from agents.host import Host
from agents.member import Member
from agents.template import template_named
from rahba.money import parse_fals, parse_rhb
from tests.fixtures.documents import pdf_document, read_document
from tests.fixtures.hosting import Souk, source_of

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


async def test_a_report_is_bought_from_several_agents_and_every_fals_is_accounted_for(
    souk: Souk,
) -> None:
    documents = [
        {"name": "reviews.txt", "kind": "text", "content": read_document("reviews.txt")},
        {"name": "sales.csv", "kind": "csv", "content": read_document("sales.csv")},
        {
            "name": "water-report.pdf",
            "kind": "pdf",
            "content": pdf_document(),
            "encoding": "base64",
        },
        {
            "name": "broken.pdf",
            "kind": "pdf",
            "content": base64.b64encode(b"no pdf at all").decode(),
            "encoding": "base64",
        },
    ]
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(souk.host())
        sellers = [
            await open_stall(host, template, config, f"{template} {number}")
            for number, (template, config) in enumerate(SELLERS)
        ]
        concierge = await open_stall(host, "concierge", {}, "concierge")
        before = {member.did: (await souk.account(member.did)).posted for member in sellers}
        owned = (await souk.account(concierge.did)).posted
        bought = await souk.buy(
            "concierge.report",
            {"documents": documents, "wishes": ["summary, keywords and what guests feel"]},
            mode="posted",
            within_ms=50_000,
        )
        assert await souk.settled(bought.thread) == "settled"
        report = bought.output
        lines = report["purchases"]

        earned = {
            member.did: (await souk.account(member.did)).posted - before[member.did]
            for member in sellers
        }
        own_balance = (await souk.account(concierge.did)).posted

    assert bought.receipt_verified
    failed = [line for line in lines if line["failure"] is not None]
    assert {line["document"] for line in failed} == {"broken.pdf"}
    assert "unreadable_input" in failed[0]["failure"]
    assert (
        "**pdf.text failed:** seller_failed: the seller failed: unreadable_input"
        in (report["report"])
    )

    delivered = [line for line in lines if line["failure"] is None]
    assert {line["skill"] for line in delivered} == {
        "pdf.text",
        "text.summarise",
        "text.keywords",
        "text.sentiment",
        "data.analyse",
    }
    assert {line["mode"] for line in delivered} == {"tender", "bargain"}
    assert any(line["rounds"] >= 2 for line in delivered)
    spent = sum(parse_fals(line["paid_fals"]) for line in lines)
    assert spent == parse_fals(report["spent_fals"]) <= parse_rhb("0.04")
    assert all(
        parse_fals(line["paid_fals"]) <= parse_fals(line["asked_fals"]) for line in delivered
    )

    # What the report says was paid is what the sellers got (less the fee of each capture).
    deals = {did: sum(line["seller"] == did for line in delivered) for did in earned}
    told = {
        did: sum(parse_fals(line["paid_fals"]) for line in delivered if line["seller"] == did)
        for did in earned
    }
    for did, amount in earned.items():
        assert 0 <= told[did] - amount <= 1_000 * (deals[did] + len(failed))
    assert own_balance < owned + bought.paid_fals - spent
    assert own_balance > owned + bought.paid_fals - spent - 1_000 * 4 * (len(lines) + 1)
