"""Bad input over HTTP: each kind has a typed problem, and no money moves."""

from __future__ import annotations

import asyncio
import io

import orjson
import pytest

from rahba.encoding import b64, unb64
from rahba.envelope import Signer
from tests.fixtures.gateway import CLOCK, IDS, RHB, Answered, Site
from wallet.account import Wallet

JSON = {"content-type": "application/json"}


async def held(site: Site) -> int:
    view = await site.ledger.account(site.owner.account)
    assert view is not None
    return int(view.held)


async def submit(site: Site, raw: bytes) -> Answered:
    return await site.ask("POST", "/v1/transactions", data=raw, headers=JSON)


async def poor(site: Site) -> Wallet:
    wallet = Wallet(site.ledger, Signer(bytes.fromhex(IDS.new() * 2)), clock=CLOCK, ids=IDS)
    await wallet.faucet(1_000_000)
    return wallet


async def test_a_transaction_is_logged_once_however_often_it_is_sent(site: Site) -> None:
    raw = await site.owner.sign_transfer((await poor(site)).account, 5_000)
    first, second = await submit(site, raw), await submit(site, raw)
    assert (first.status, first.json["outcome"]) == (200, "logged")
    assert (second.status, second.json["outcome"]) == (200, "exists")
    assert first.json["id"] == second.json["id"]


async def test_several_transactions_get_an_answer_each(site: Site) -> None:
    to = (await poor(site)).account
    raws = [await site.owner.sign_transfer(to, 1_000 + n) for n in range(3)]
    array = b"[" + b",".join(raws) + b"]"
    answer = await submit(site, array)
    assert [item["outcome"] for item in answer.json] == ["logged"] * 3
    lines = await site.ask(
        "POST",
        "/v1/transactions",
        data=b"\n".join([*raws, b"{}"]),
        headers={"content-type": "application/x-ndjson"},
    )
    outcomes = [orjson.loads(line)["outcome"] for line in lines.body.splitlines()]
    assert outcomes == ["exists"] * 3 + ["invalid"]


async def test_a_wrong_signature_is_refused(site: Site) -> None:
    raw = orjson.loads(await site.owner.sign_transfer((await poor(site)).account, 5_000))
    signature = bytearray(unb64(raw["signatures"][0]["sig"]))
    signature[3] ^= 1
    raw["signatures"][0]["sig"] = b64(bytes(signature))
    answer = await submit(site, orjson.dumps(raw, option=orjson.OPT_SORT_KEYS))
    assert (answer.status, answer.json["code"]) == (422, "bad_signature")


async def test_an_expired_envelope_is_refused(site: Site) -> None:
    stale = Wallet(site.ledger, site.owner.signer, clock=CLOCK, ids=IDS, validity_ms=-60_000)
    answer = await submit(site, await stale.sign_transfer((await poor(site)).account, 1_000))
    assert (answer.status, answer.json["code"]) == (422, "expired")


async def test_insufficient_funds_are_a_402_with_the_facts(site: Site) -> None:
    wallet = await poor(site)
    answer = await submit(site, await wallet.sign_transfer(site.owner.account, 10 * RHB))
    assert (answer.status, answer.json["code"]) == (402, "insufficient_funds")
    assert answer.json["outcome"] == "refused"


async def test_a_hold_is_captured_once(site: Site) -> None:
    seller = await poor(site)
    hold = await site.owner.hold(seller.account, 10_000, CLOCK.now_ms() + 60_000, "a" * 64)
    first = await submit(site, await seller.sign_capture(hold.id, 10_000))
    second = await submit(site, await seller.sign_capture(hold.id, 10_000))
    assert first.status == 200
    assert (second.status, second.json["code"]) == (409, "hold_resolved")
    supply = (await site.ask("GET", "/v1/supply")).json
    assert supply["equal"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"not json", "application/json", 422, "bad_encoding"),
        (b"[1,2", "application/json", 422, "bad_input"),
        (b"[" * 5000, "application/json", 422, "bad_input"),
        (b"", "application/json", 422, "bad_encoding"),
        (b"[" + b",".join([b"1"] * 1001) + b"]", "application/json", 413, "too_large"),
        (b"x" * (1024 * 1024 + 1), "application/json", 413, "too_large"),
    ],
)
async def test_what_is_no_transaction_is_refused(
    site: Site, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = await site.ask(
        "POST", "/v1/transactions", data=io.BytesIO(body), headers={"content-type": kind}
    )
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_a_body_that_hides_its_length_is_cut_off(site: Site) -> None:
    async def endless() -> object:
        for _ in range(64):
            yield b"x" * 65_536

    answer = await site.ask("POST", "/v1/transactions", data=endless(), headers=JSON)
    assert (answer.status, answer.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "unknown_field"),
        ({"input": {}, "budget": "1"}, 422, "bad_input"),
        ({"input": {}, "budget": "1", "skill": "NO"}, 422, "bad_id"),
        ({"input": {}, "budget": "1", "skill": "a.b", "surprise": 1}, 422, "unknown_field"),
        ({"input": {}, "budget": 1, "skill": "a.b"}, 422, "unknown_field"),
        ({"input": {}, "budget": "0.5", "skill": "a.b"}, 422, "bad_amount"),
        ({"input": [], "budget": "1", "skill": "a.b"}, 422, "unknown_field"),
        ({"input": {}, "budget": "1", "skill": "a.b", "mode": "steal"}, 422, "unknown_field"),
        ({"input": {}, "budget": "1", "skill": "a.b", "deadline_ms": 1}, 422, "unknown_field"),
        ({"input": {}, "budget": "1", "skill": "a.b", "deadline_ms": 10**9}, 422, "bad_input"),
        ({"input": {}, "budget": "1", "agent": "did:key:zNobody"}, 422, "bad_id"),
        ({"input": {}, "budget": "1", "skill": "no.such.skill"}, 404, "unknown_skill"),
        ([], 422, "unknown_field"),
    ],
)
async def test_a_malformed_call_is_refused_before_anything_is_spent(
    site: Site, body: object, status: int, code: str
) -> None:
    answer = await site.ask("POST", "/v1/calls", json=body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert await held(site) == 0


async def test_deeply_nested_input_is_refused(site: Site) -> None:
    nested: object = "x"
    for _ in range(40):
        nested = [nested]
    answer = await site.call(input={"text": nested})
    assert (answer.status, answer.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "key_required"),
        ("nonsense", "key_unknown"),
        ("rhb_dev_" + "a" * 32, "key_unknown"),
        ("rhb_main_" + "a" * 32, "key_unknown"),
    ],
)
async def test_writes_need_a_valid_key(site: Site, token: str, code: str) -> None:
    for path in ("/v1/calls", "/v1/deployments"):
        answer = await site.ask("POST", path, json={}, token=token)
        assert (answer.status, answer.json["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_headers_have_a_limit(site: Site) -> None:
    sent = {f"x-{n}": "y" * 4_000 for n in range(10)}
    answer = await site.ask("GET", "/healthz", headers=sent)
    assert (answer.status, answer.json["code"]) == (431, "headers_too_large")


async def test_an_unforeseen_error_says_nothing_of_its_inside(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("the secret")

    monkeypatch.setattr(site.ledger, "supply", broken)
    answer = await site.ask("GET", "/v1/supply")
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    await asyncio.sleep(0)
