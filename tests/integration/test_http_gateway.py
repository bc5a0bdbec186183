"""What a key may ask at once and a second, and what a deployment needs."""

from __future__ import annotations

import asyncio

from api.keys import list_keys, parse_token, revoke_key
from tests.fixtures.gateway import CLOCK, RHB, Site, parts_of, serving

SLOW = {"skill": "text.slow", "input": {"text": "x", "ms": 400}, "budget": "5000000"}


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(site: Site) -> None:
    parts = site.parts
    strict = parts_of(parts.ledger, parts.broker, parts.wire, rate_per_s=1, rate_burst=3)
    async with serving(strict) as url:
        other = Site(url, parts, site.owner, site.token, site.web)
        answers = [await other.ask("GET", f"/v1/calls/{'0' * 32}") for _ in range(4)]
    assert [answer.status for answer in answers] == [404, 404, 404, 429]
    assert answers[3].json["code"] == "rate_limited"
    assert int(answers[3].headers["retry-after"]) >= 1
    assert "r=0" in answers[3].headers["ratelimit"]


async def test_answers_to_a_key_say_what_is_left(stall: Site) -> None:
    answer = await stall.call()
    assert answer.headers["ratelimit-policy"].startswith('"default";q=')
    assert answer.headers["ratelimit"].startswith('"default";r=')


async def test_only_so_many_calls_of_a_key_run_at_once(stall: Site) -> None:
    parts = stall.parts
    narrow = parts_of(parts.ledger, parts.broker, parts.wire, max_calls_per_key=2)
    async with serving(narrow) as url:
        other = Site(url, parts, stall.owner, stall.token, stall.web)
        answers = await asyncio.gather(
            *(other.ask("POST", "/v1/calls", json=SLOW) for _ in range(3))
        )
        assert sorted(answer.status for answer in answers) == [200, 200, 429]
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json["code"] == "too_many_calls"
        assert (await other.ask("POST", "/v1/calls", json=SLOW)).status == 200


async def test_a_revoked_key_is_refused_and_its_session_is_over(site: Site) -> None:
    token = await site.key()
    revoked = await revoke_key(site.owner, site.parts.wire, parse_token(token).hash)
    assert revoked.revoked
    answer = await site.ask("GET", f"/v1/calls/{'0' * 32}", token=token)
    assert (answer.status, answer.json["code"]) == (401, "key_revoked")
    again = await revoke_key(site.owner, site.parts.wire, revoked.hash)
    assert again == revoked


async def test_a_revoked_key_remembered_by_a_gateway_spends_nothing(stall: Site) -> None:
    token = await stall.key()
    wanted = {"skill": "text.echo", "input": {"text": "x"}, "budget": "5000000", "mode": "posted"}
    assert (await stall.ask("POST", "/v1/calls", json=wanted, token=token)).status == 200
    await revoke_key(stall.owner, stall.parts.wire, parse_token(token).hash)
    answer = await stall.ask("POST", "/v1/calls", json=wanted, token=token)
    assert answer.json["code"] in {"key_revoked", "unknown_session"}
    assert answer.status in {401, 403}


async def test_a_key_past_its_time_is_refused(site: Site) -> None:
    token = await site.key(RHB, lasts_ms=300)
    assert (await site.ask("GET", f"/v1/calls/{'0' * 32}", token=token)).status == 404
    await asyncio.sleep(0.4)
    answer = await site.ask("GET", f"/v1/calls/{'0' * 32}", token=token)
    assert (answer.status, answer.json["code"]) == (401, "key_expired")


async def test_keys_are_listed_without_what_opens_them(site: Site) -> None:
    token = await site.key()
    listed = await list_keys(site.parts.wire, account=site.owner.account)
    assert len(listed) == 2
    assert {key.label for key in listed} == {"test"}
    stored = b"".join(
        [
            await site.parts.wire.call("GET", name)
            for name in await site.parts.wire.call("KEYS", "{k:*")
            if b"index" not in name
        ]
    )
    assert token.encode() not in stored
    assert all(key.expires > CLOCK.now_ms() for key in listed)


async def test_a_deployed_agent_is_tested_listed_and_can_be_stopped(stall: Site) -> None:
    wanted = {"template": "keywords", "name": "Keys of the souk", "config": {}}
    made = await stall.ask("POST", "/v1/deployments", json=wanted)
    assert made.status == 202, made.json
    record = made.json
    assert record["state"] == "pending"
    stranger = await key_of_another_account(stall)
    refused = await stall.ask("DELETE", made.headers["location"], token=stranger)
    assert (refused.status, refused.json["code"]) == (403, "not_yours")
    stopped = await stall.ask("DELETE", made.headers["location"])
    assert stopped.status == 202
    assert stopped.json["state"] in {"stopping", "stopped"}
    again = await stall.ask("DELETE", made.headers["location"])
    assert again.status == 202


async def test_what_cannot_be_deployed_is_refused(site: Site) -> None:
    wrong = [
        ({"template": "no-such", "name": "x"}, 422, "unknown_template"),
        ({"template": "keywords", "name": "x", "config": {"a": 1}}, 422, "bad_config"),
        ({"template": "keywords", "name": ""}, 422, "unknown_field"),
        ({"template": "keywords"}, 422, "unknown_field"),
        ({"template": "keywords", "name": "!"}, 400, "bad_offer"),
    ]
    for body, status, code in wrong:
        sent = {"idempotency-key": code}
        for _ in range(2):  # a refusal gives the Idempotency-Key back: nothing was done
            answer = await site.ask("POST", "/v1/deployments", json=body, headers=sent)
            assert answer.json["code"] == code
            assert answer.status in {status, 422}
    assert (await site.ask("GET", "/v1/deployments")).json == {"deployments": []}


async def key_of_another_account(site: Site) -> str:
    from api.keys import issue_key
    from rahba.envelope import Signer
    from tests.fixtures.gateway import IDS
    from wallet.account import Wallet

    wallet = Wallet(site.ledger, Signer(bytes.fromhex(IDS.new() * 2)), clock=CLOCK, ids=IDS)
    await wallet.faucet(RHB)
    expires = CLOCK.now_ms() + 60_000
    return await issue_key(wallet, site.parts.wire, RHB // 2, "other", expires)
