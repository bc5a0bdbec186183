"""Calls over HTTP: bought, paid and receipted; every way to fail leaves the money whole."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tests.fixtures.gateway import Answered, Site


async def money(site: Site) -> tuple[int, int]:
    view = await site.ledger.account(site.owner.account)
    assert view is not None
    return view.posted, view.held


async def test_a_posted_call_is_answered_paid_and_receipted(stall: Site) -> None:
    before, _ = await money(stall)
    answer = await stall.call()
    call = answer.json
    assert answer.status == 200, call
    assert call["output"] == "salam"
    assert call["state"] == "settled"
    assert call["paid_fals"] == call["agreed_fals"] == call["asked_fals"]
    assert call["receipt_verified"]
    paid = int(call["paid_fals"])
    assert await money(stall) == (before - paid - 1000, 0)
    again = await stall.ask("GET", f"/v1/calls/{call['id']}")
    assert again.json == call


async def test_a_call_may_name_the_agent_and_bargain(stall: Site) -> None:
    agents = (await stall.ask("GET", "/v1/agents?skill=text.echo")).json["agents"]
    thrush = next(agent["id"] for agent in agents if agent["name"] == "thrush")
    answer = await stall.call(agent=thrush, skill=None, mode="bargain", budget="2500000")
    call = answer.json
    assert answer.status == 200, call
    assert call["seller"] == thrush
    assert int(call["agreed_fals"]) < int(call["asked_fals"])
    assert call["rounds"] >= 2


async def test_a_tender_takes_the_best_offer_of_several(stall: Site) -> None:
    answer = await stall.call(mode="tender", deadline_ms=20_000)
    assert answer.status == 200, answer.json
    assert answer.json["mode"] == "tender"
    talk = (await stall.ask("GET", f"/v1/negotiations/{answer.json['group']}")).json
    assert len(talk["threads"]) == 2


async def test_a_free_call_needs_no_money(stall: Site) -> None:
    before = await money(stall)
    answer = await stall.call(skill="text.free", budget="0")
    assert (answer.status, answer.json["paid_fals"]) == (200, "0"), answer.json
    assert await money(stall) == before


async def test_a_call_that_takes_longer_than_the_client_waits_goes_on(stall: Site) -> None:
    answer = await stall.call(
        {"prefer": "respond-async"}, skill="text.slow", input={"text": "x", "ms": 300}
    )
    assert answer.status == 202
    assert answer.json["state"] == "running"
    where = answer.headers["location"]
    assert where == f"/v1/calls/{answer.json['id']}"
    done = await ended(stall, where)
    assert (done["state"], done["output"]) == ("settled", "x")


async def test_the_steps_of_a_call_can_be_followed_and_resumed(stall: Site) -> None:
    placed = await stall.call({"prefer": "respond-async"}, skill="text.slow", input={"text": "x"})
    where = f"/v1/calls/{placed.json['id']}/events"
    told = events(await stall.ask("GET", where))
    kinds = [event["kind"] for event in told]
    assert kinds[0] == "accepted"
    assert kinds[-1] == "settled"
    assert {"held", "delivered"} <= set(kinds)
    assert [event["id"] for event in told] == list(range(1, len(told) + 1))
    rest = events(await stall.ask("GET", where, headers={"last-event-id": "2"}))
    assert rest == told[2:]


async def test_a_provider_that_raises_gives_the_money_back(stall: Site) -> None:
    before = await money(stall)
    answer = await stall.call(skill="fail.raise")
    assert (answer.status, answer.json["code"]) == (502, "seller_failed")
    assert b"secret inside" not in answer.body
    await released(stall)
    assert await money(stall) == (before[0] - 1000, 0)
    call = await stall.ask("GET", answer.headers["location"])
    assert (call.json["state"], call.json["problem"]["code"]) == ("failed", "seller_failed")


async def test_a_provider_that_hangs_is_given_up_at_the_deadline(stall: Site) -> None:
    before = await money(stall)
    answer = await stall.call(skill="fail.hang", deadline_ms=1_000)
    said = (answer.status, answer.json["code"])
    assert said in {(504, "deadline_missed"), (502, "seller_failed")}  # whoever notices first
    await released(stall)
    assert await money(stall) == (before[0] - 1000, 0)


async def test_a_budget_is_enforced_by_the_ledger(stall: Site) -> None:
    token = await stall.key(2_100_000)
    wanted = {"skill": "text.echo", "input": {"text": "x"}, "budget": "5000000", "mode": "posted"}
    first = await stall.ask("POST", "/v1/calls", json=wanted, token=token)
    second = await stall.ask("POST", "/v1/calls", json=wanted, token=token)
    assert first.status == 200, first.json
    assert (second.status, second.json["code"]) == (402, "budget_exceeded")
    await released(stall)


async def test_too_small_a_budget_finds_no_deal(stall: Site) -> None:
    answer = await stall.call(budget="1")
    assert (answer.status, answer.json["code"]) == (409, "no_deal")
    assert (await money(stall))[1] == 0


async def test_a_call_is_nobody_elses_business(stall: Site) -> None:
    call = (await stall.call()).json
    stranger = await stall.key()
    answer = await stall.ask("GET", f"/v1/calls/{call['id']}", token=stranger)
    assert (answer.status, answer.json["code"]) == (403, "not_yours")
    assert (await stall.ask("GET", f"/v1/calls/{call['id']}", token="")).status == 401
    assert (await stall.ask("GET", f"/v1/calls/{'0' * 32}")).status == 404


async def test_what_is_stored_of_a_call_reveals_no_output(stall: Site) -> None:
    secret = "a very private answer"
    call = (await stall.call({"idempotency-key": "k"}, input={"text": secret})).json
    assert call["output"] == secret
    wire, stored = stall.parts.wire, b""
    for name in await wire.call("KEYS", "*"):
        kind = await wire.call("TYPE", name)
        if kind == b"hash":
            stored += b"".join(await wire.call("HGETALL", name))
        elif kind == b"string":
            stored += await wire.call("GET", name)
    assert call["id"].encode() in stored
    assert secret.encode() not in stored


async def test_calls_of_one_key_each_get_their_own_answer(stall: Site) -> None:
    answers = await asyncio.gather(*(stall.call(input={"text": f"n{n}"}) for n in range(20)))
    assert [answer.json.get("output") for answer in answers] == [f"n{n}" for n in range(20)]
    assert (await stall.ledger.supply()).equal


async def ended(site: Site, where: str) -> Any:
    for _ in range(100):
        call = (await site.ask("GET", where)).json
        if call["state"] in {"settled", "failed"}:
            return call
        await asyncio.sleep(0.05)
    raise AssertionError(call)


async def released(site: Site) -> None:
    for _ in range(100):
        if (await money(site))[1] == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a hold stays open")


def events(answer: Answered) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [
        orjson.loads(line.removeprefix(b"data: "))
        for line in answer.body.split(b"\n")
        if line.startswith(b"data: ")
    ]


async def test_a_wish_narrows_what_a_call_may_cost_and_the_deal_is_explained(stall: Site) -> None:
    answer = await stall.call(mode="tender", deadline_ms=20_000, wish="cheap, please")
    assert answer.status == 200, answer.json
    assert answer.json["explanation"].startswith("Bought by sealed tender for ")
    assert int(answer.json["best_rejected_fals"]) >= int(answer.json["agreed_fals"])
    before = await money(stall)
    answer = await stall.call(mode="tender", deadline_ms=20_000, wish="at most 0.000000001 RHB")
    assert answer.json["code"] == "no_deal"
    assert await money(stall) == before


async def test_needs_and_weights_are_checked_before_anything_is_done(stall: Site) -> None:
    for wrong in (
        {"needs": {"min_quality": 1_001}},
        {"needs": {"colour": "red"}},
        {"weights": {"price": -1}},
        {"min_penalty": 1_001},
        {"wish": "x" * 501},
    ):
        answer = await stall.call(**wrong)
        assert answer.status in {400, 422}, answer.json
    answer = await stall.call(needs={"min_quality": 1_000}, mode="tender")
    assert answer.json["code"] == "no_deal"
