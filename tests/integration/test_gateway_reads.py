"""Every route that reads: what it says of a market that traded, and what it says to nonsense."""

from __future__ import annotations

import asyncio

import pytest

from api.http.documents import (
    AccountDocument,
    AgentDocument,
    AgentPage,
    HoldDocument,
    HoldsDocument,
    InclusionDocument,
    ProblemDocument,
    SupplyDocument,
    TemplatePage,
    TransactionDocument,
)
from rahba.merkle import leaf_hash
from rahba.proof import open_receipt
from tests.fixtures.gateway import Site

NOBODY = "0" * 32
NOTHING = "0" * 64


async def test_agents_are_listed_with_their_skills_and_the_reasons(stall: Site) -> None:
    page = AgentPage.model_validate((await stall.ask("GET", "/v1/agents")).json)
    assert {agent.name for agent in page.agents} == {"parrot", "thrush", "cuckoo", "owl"}
    found = AgentPage.model_validate(
        (await stall.ask("GET", "/v1/agents?skill=text.slow&max_price=2000000")).json
    )
    assert [agent.name for agent in found.agents] == ["owl"]
    assert found.agents[0].reasons
    one = await stall.ask("GET", f"/v1/agents/{found.agents[0].id}")
    assert AgentDocument.model_validate(one.json).card
    dear = await stall.ask("GET", "/v1/agents?skill=text.slow&max_price=1999999")
    assert dear.json["agents"] == []


async def test_agents_page_by_cursor_without_gaps_or_repeats(stall: Site) -> None:
    names, cursor = [], ""
    for _ in range(4):
        page = (await stall.ask("GET", f"/v1/agents?limit=1{cursor}")).json
        names += [agent["name"] for agent in page["agents"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(names) == ["cuckoo", "owl", "parrot", "thrush"]


async def test_the_ledger_is_told_as_it_is(stall: Site) -> None:
    call = (await stall.call()).json
    account = await stall.ask("GET", f"/v1/accounts/{stall.owner.account}")
    balance = AccountDocument.model_validate(account.json)
    assert int(balance.posted) - int(balance.held) == int(balance.available)
    hold = HoldDocument.model_validate((await stall.ask("GET", f"/v1/holds/{call['hold']}")).json)
    assert hold.agreement == call["agreement"]
    holds = await stall.ask("GET", f"/v1/holds?ids={NOTHING},{call['hold']}")
    assert HoldsDocument.model_validate(holds.json).root == [None, hold]
    many = await stall.ask("GET", "/v1/holds?ids=" + ",".join([call["hold"]] * 50))
    assert HoldsDocument.model_validate(many.json).root == [hold] * 50
    tx = await stall.ask("GET", f"/v1/transactions/{call['hold']}")
    assert TransactionDocument.model_validate(tx.json).payload["type"] == "hold"
    assert SupplyDocument.model_validate((await stall.ask("GET", "/v1/supply")).json).equal
    await asyncio.sleep(0.5)
    proof = await stall.ask("GET", f"/v1/log/proof/inclusion?tx={call['hold']}")
    assert InclusionDocument.model_validate(proof.json).leaf_hash == call["hold"]
    place = f"/v1/log/proof/inclusion?format=tlog-proof&tx={call['hold']}"
    receipt = (await stall.ask("GET", place)).body.decode()
    key = (await stall.ask("GET", "/v1/log/key")).body.decode()
    assert leaf_hash(open_receipt(receipt, key).entry).hex() == call["hold"]
    note = (await stall.ask("GET", "/v1/log/checkpoint")).body.decode()
    size = int(note.split("\n")[1])
    path = await stall.ask("GET", f"/v1/log/proof/consistency?old=1&new={size}")
    assert path.json["path"]
    assert (await stall.ask("GET", "/v1/log/key")).body.startswith(b"rahba:dev/")


async def test_templates_come_with_the_schema_of_their_configuration(site: Site) -> None:
    page = TemplatePage.model_validate((await site.ask("GET", "/v1/templates")).json)
    assert len(page.templates) >= 8
    assert all(item.config_schema["type"] == "object" for item in page.templates)


async def test_health_readiness_and_figures_are_told(site: Site) -> None:
    assert (await site.ask("GET", "/healthz")).json == {"status": "ok"}
    ready = await site.ask("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "ok")
    figures = (await site.ask("GET", "/metrics")).body.decode()
    assert 'rahba_http_requests_total{method="GET",route="/healthz",status="200"} 1.0' in figures


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/nothing", 404, "not_found"),
        ("/v1/agents/me", 422, "bad_id"),
        ("/v1/agents?max_price=free", 422, "bad_amount"),
        ("/v1/agents?skill=NOT%20A%20SKILL", 422, "bad_id"),
        ("/v1/agents?limit=0", 422, "bad_input"),
        ("/v1/agents?limit=many", 422, "bad_input"),
        ("/v1/agents?q=" + "x" * 2_001, 422, "bad_input"),
        ("/v1/agents?cursor=%00", 422, "bad_cursor"),
        ("/v1/negotiations?cursor=nonsense", 422, "bad_input"),
        (f"/v1/negotiations/{NOBODY}", 404, "unknown_negotiation"),
        ("/v1/negotiations/x", 422, "bad_id"),
        (f"/v1/deals/{NOTHING}", 404, "unknown_deal"),
        ("/v1/deals/x", 422, "bad_id"),
        ("/v1/accounts/somebody", 422, "bad_id"),
        (f"/v1/transactions/{NOTHING}", 404, "transaction_not_found"),
        (f"/v1/holds/{NOTHING}", 404, "hold_not_found"),
        ("/v1/holds", 422, "bad_input"),
        ("/v1/holds?ids=", 422, "bad_id"),
        (f"/v1/holds?ids={NOTHING},x", 422, "bad_id"),
        ("/v1/holds?ids=" + ",".join([NOTHING] * 51), 413, "too_large"),
        (f"/v1/log/proof/inclusion?tx={NOTHING}", 404, "transaction_not_found"),
        (
            f"/v1/log/proof/inclusion?witnessed=1&format=tlog-proof&tx={NOTHING}",
            404,
            "transaction_not_found",
        ),
        (f"/v1/log/proof/inclusion?format=pdf&tx={NOTHING}", 422, "bad_input"),
        ("/v1/log/proof/inclusion", 422, "bad_input"),
        ("/v1/log/proof/consistency?old=9&new=1", 422, "out_of_range"),
        ("/v1/log/tile/../../etc/passwd", 404, "not_found"),
        (f"/v1/deployments/{NOBODY}", 404, "unknown_deployment"),
        ("/v1/feed?kinds=", 422, "bad_input"),
        ("/v1/feed?last_event_id=yesterday", 422, "bad_input"),
        ("/problems/none", 404, "not_found"),
        ("/v1/agents?q=" + "x" * 9000, 414, "query_too_long"),
    ],
)
async def test_nonsense_is_answered_by_a_problem(
    site: Site, path: str, status: int, code: str
) -> None:
    answer = await site.ask("GET", path)
    problem = ProblemDocument.model_validate(answer.json)
    assert (answer.status, problem.code) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.status == status


async def test_a_wrong_method_names_the_right_ones(site: Site) -> None:
    answer = await site.ask("PUT", "/v1/calls")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


async def test_every_problem_type_resolves_to_its_explanation(site: Site) -> None:
    problem = (await site.ask("GET", "/v1/deals/x")).json
    about = await site.ask("GET", problem["type"])
    assert (about.status, about.json["code"]) == (200, "bad_id")
