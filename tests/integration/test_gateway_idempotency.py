"""Idempotency-Key: what is sent again is answered again, and never carried out twice."""

from __future__ import annotations

import asyncio

from api.http.auth import Principal
from tests.fixtures.gateway import IDS, Site, parts_of, serving

DEPLOY = {"template": "keywords", "name": "Keys", "config": {}}


async def spent(site: Site) -> int:
    view = await site.ledger.account(site.owner.account)
    assert view is not None
    return int(view.posted)


async def purchases(site: Site) -> int:
    return len((await site.ask("GET", "/v1/negotiations?limit=100")).json["negotiations"])


async def test_eight_equal_posts_at_once_buy_once(stall: Site) -> None:
    before = await spent(stall)
    answers = await asyncio.gather(*(stall.call({"idempotency-key": "one"}) for _ in range(8)))
    served = [answer.json for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert served
    assert all(call == served[0] for call in served)
    assert {(item.status, item.json["code"]) for item in refused} <= {(409, "in_progress")}
    assert all(item.headers["retry-after"] == "1" for item in refused)
    assert await purchases(stall) == 1
    assert await spent(stall) == before - int(served[0]["paid_fals"]) - 1000


async def test_a_retry_gets_the_same_answer_and_pays_nothing(stall: Site) -> None:
    first = await stall.call({"idempotency-key": "two"})
    after = await spent(stall)
    again = await stall.call({"idempotency-key": "two"})
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert await spent(stall) == after


async def test_a_failed_call_fails_again_without_another_try(stall: Site) -> None:
    first = await stall.call({"idempotency-key": "x"}, skill="fail.raise")
    again = await stall.call({"idempotency-key": "x"}, skill="fail.raise")
    assert (first.status, again.status) == (502, 502)
    assert again.json == first.json
    assert await purchases(stall) == 1


async def test_another_body_under_the_same_key_is_refused(stall: Site) -> None:
    await stall.call({"idempotency-key": "three"})
    other = await stall.call({"idempotency-key": "three"}, input={"text": "other"})
    assert (other.status, other.json["code"]) == (422, "key_reused")
    assert await purchases(stall) == 1


async def test_keys_of_two_callers_do_not_meet(stall: Site) -> None:
    stranger = await stall.key()
    wanted = {"skill": "text.echo", "input": {"text": "x"}, "budget": "5000000", "mode": "posted"}
    sent = {"idempotency-key": "four"}
    first = await stall.ask("POST", "/v1/calls", json=wanted, headers=sent)
    second = await stall.ask("POST", "/v1/calls", json=wanted, headers=sent, token=stranger)
    assert (first.status, second.status) == (200, 200)
    assert first.json["id"] != second.json["id"]


async def test_an_answer_outlives_the_gateway_that_gave_it(stall: Site) -> None:
    first = await stall.call({"idempotency-key": "five"})
    parts = stall.parts
    async with serving(parts_of(parts.ledger, parts.broker, parts.wire)) as url:
        other = Site(url, parts, stall.owner, stall.token, stall.web)
        again = await other.call({"idempotency-key": "five"})
    assert (again.status, again.json) == (200, first.json)


async def test_a_malformed_key_is_refused(stall: Site) -> None:
    for key in ("", "x" * 129, "with space"):
        answer = await stall.call({"idempotency-key": key})
        assert (answer.status, answer.json["code"]) == (422, "bad_input")
    assert await purchases(stall) == 0


async def test_a_reservation_left_behind_is_resumed_with_the_same_id(stall: Site) -> None:
    """A gateway that died between reservation and record: the retry goes on under its id."""
    gateway = await principal(stall)
    parts = stall.parts
    async with serving(parts_of(parts.ledger, parts.broker, parts.wire, reservation_ms=200)) as url:
        other = Site(url, parts, stall.owner, stall.token, stall.web)
        wanted = {
            "skill": "text.echo",
            "input": {"text": "salam"},
            "budget": "5000000",
            "mode": "posted",
        }
        import orjson

        from api.http.idempotency import Idempotency, Reservation, request_hash

        raw = orjson.dumps(wanted)
        store = Idempotency(parts.wire, IDS, 200, 3600)
        digest = request_hash("POST", "/v1/calls", raw)
        left = await store.reserve(gateway.hash, "six", digest, gateway.box)
        assert isinstance(left, Reservation)
        sent = {"idempotency-key": "six", "content-type": "application/json"}
        early = await other.ask("POST", "/v1/calls", data=raw, headers=sent)
        assert (early.status, early.json["code"]) == (409, "in_progress")
        await asyncio.sleep(0.25)
        resumed = await other.ask("POST", "/v1/calls", data=raw, headers=sent)
        assert (resumed.status, resumed.json["id"]) == (200, left.resource)


async def test_a_deployment_is_made_once(site: Site) -> None:
    sent = {"idempotency-key": "d"}
    answers = await asyncio.gather(
        *(site.ask("POST", "/v1/deployments", json=DEPLOY, headers=sent) for _ in range(8))
    )
    made = {answer.json["id"] for answer in answers if answer.status == 202}
    assert len(made) == 1
    assert {answer.status for answer in answers} <= {202, 409}
    again = await site.ask("POST", "/v1/deployments", json=DEPLOY, headers=sent)
    assert (again.status, again.json["id"]) == (202, made.pop())
    assert again.headers["location"] == f"/v1/deployments/{again.json['id']}"
    assert len((await site.ask("GET", "/v1/deployments")).json["deployments"]) == 1


async def principal(site: Site) -> Principal:
    from api.http.auth import Keyring
    from rahba.clock import SystemClock

    keyring = Keyring(site.parts.wire, SystemClock(), network="dev", cache_ms=0)
    return await keyring.open(site.token)


async def test_a_refused_deadline_gives_the_key_back(stall: Site) -> None:
    sent = {"idempotency-key": "seven"}
    for _ in range(2):
        refused = await stall.call(sent, deadline_ms=10_000_000)
        assert (refused.status, refused.json["code"]) == (422, "bad_input")
    served = await stall.call(sent)
    assert (served.status, served.json["state"]) == (200, "settled")
    again = await stall.call(sent)
    assert again.json == served.json
    assert await purchases(stall) == 1


async def test_a_call_that_was_one_too_many_may_come_again_under_its_key(stall: Site) -> None:
    parts = stall.parts
    small = parts_of(parts.ledger, parts.broker, parts.wire, max_calls_per_key=1)
    async with serving(small) as url:
        other = Site(url, small, stall.owner, stall.token, stall.web)
        slow = {"skill": "text.slow", "input": {"text": "x", "ms": 500}}
        running = await other.call({"prefer": "respond-async"}, **slow)
        for _ in range(2):
            refused = await other.call({"idempotency-key": "eight"})
            assert (refused.status, refused.json["code"]) == (429, "too_many_calls")
        for _ in range(100):
            call = (await other.ask("GET", running.headers["location"])).json
            if call["state"] != "running":
                break
            await asyncio.sleep(0.05)
        served = await other.call({"idempotency-key": "eight"})
    assert (served.status, served.json["state"]) == (200, "settled")
    assert await purchases(stall) == 2
