"""A hostile server is looked at and refused: each kind of hostility by an error of its own."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from agents.foreign import look
from agents.foreign.errors import (
    BadCardSignatureError,
    BadForeignCardError,
    ForeignAnswerError,
    ForeignUnreachableError,
    NoForeignCardError,
)
from agents.foreign.look import Sight, knock, see
from agents.foreign.seals import MAX_SIGNATURES
from agents.templates.crafts.addresses import check_address
from agents.templates.crafts.bodies import read_body
from agents.templates.crafts.refusals import TooComplexError, UnsafeAddressError
from rahba.errors import TooLargeError
from tests.fixtures.foreign_agents import (
    Ed25519Key,
    P256Key,
    Stranger,
    card_of,
    rpc,
    signed,
    stranger,
)


async def seen(agent: Stranger, path: str = "") -> Sight:
    return await see(agent.url + path, allow_private=True)


async def raw(body: bytes, kind: str = "application/json", **more: Any) -> web.Response:
    return web.Response(body=body, content_type=kind, **more)


async def test_a_card_is_found_by_its_site_or_by_its_own_url() -> None:
    async with stranger() as agent:
        for path in ("", "/", "/.well-known/agent-card.json"):
            sight = await seen(agent, path)
            assert (sight.card.name, sight.seal) == ("Greeter", "unsigned")
            assert sight.url == f"{agent.url}/.well-known/agent-card.json"
        assert await knock(sight.card, allow_private=True) >= 0
        assert agent.asked[-1]["method"] == "GetTask"
        assert agent.headers[-1]["A2A-Version"] == "1.0"


async def test_nothing_of_ours_goes_along_to_a_stranger() -> None:
    async with stranger() as agent:
        _ = await knock((await seen(agent)).card, allow_private=True)
        assert not {"Authorization", "Cookie", "Referer"} & set(agent.headers[-1])


async def test_a_site_without_a_card_is_told_apart_from_one_that_fails() -> None:
    async with stranger() as agent:
        with pytest.raises(NoForeignCardError):
            await seen(agent, "/nothing/here")
        agent.on_card = lambda _: raw(b"<html>", "text/html")
        with pytest.raises(NoForeignCardError):
            await seen(agent)
        agent.on_card = lambda _: raw(b"{}", status=500)
        with pytest.raises(ForeignUnreachableError):
            await seen(agent)
    with pytest.raises(ForeignUnreachableError):
        await seen(agent)  # it is gone


async def test_a_huge_card_is_cut_off() -> None:
    async with stranger() as agent:
        agent.card = card_of(agent.url, description="x" * look.MAX_CARD_BYTES)
        with pytest.raises(TooLargeError):
            await seen(agent)


async def test_a_card_that_is_huge_only_when_unpacked_is_cut_off() -> None:
    packed = gzip.compress(orjson.dumps({"description": "x" * 50_000_000}))
    assert len(packed) < look.MAX_CARD_BYTES
    async with stranger() as agent:
        agent.on_card = lambda _: raw(packed, headers={"Content-Encoding": "gzip"})
        with pytest.raises(TooLargeError):
            await seen(agent)


async def test_a_card_packed_in_another_way_is_not_unpacked() -> None:
    async with stranger() as agent:
        agent.on_card = lambda _: raw(b"{}", headers={"Content-Encoding": "br"})
        with pytest.raises(ForeignAnswerError):
            await seen(agent)
        async with aiohttp.ClientSession(auto_decompress=False) as web_session:
            agent.on_card = lambda _: raw(b"{}")
            async with web_session.get(f"{agent.url}/.well-known/agent-card.json") as response:
                assert await read_body(response, 2) == b"{}"


async def test_a_card_that_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "CARD_S", 0.3)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with stranger() as agent:
        agent.on_card = drip
        async with asyncio.timeout(2):
            with pytest.raises(ForeignUnreachableError):
                await seen(agent)


async def test_card_and_keys_together_have_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "SEE_S", 0.3)

    async def late(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=302, headers={"Location": "/.well-known/agent-card.json"})

    async with stranger() as agent:
        agent.on_card = late
        with pytest.raises(ForeignUnreachableError):
            await seen(agent)
        assert agent.shown == 2  # each in time, and too much together


async def test_a_card_of_invalid_json_is_refused() -> None:
    async with stranger() as agent:
        for body in (b"{", b"", b"{'name': 1}", b"\xff\xfe", b"NaN", b'{"name": "\xed\xa0\x80"}'):
            agent.on_card = lambda _, body=body: raw(body)
            with pytest.raises(BadForeignCardError):
                await seen(agent)


@pytest.mark.parametrize("depth", [33, 100, 900, 100_000])
async def test_a_card_of_deep_json_is_refused_and_exhausts_no_stack(depth: int) -> None:
    async with stranger() as agent:
        deep = b'{"name":' + b"[" * depth + b"]" * depth + b"}"
        agent.on_card = lambda _: raw(deep)
        with pytest.raises((TooComplexError, BadForeignCardError)):
            await seen(agent)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://168.63.129.16/metadata",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://100.100.100.200/",
        "file:///etc/passwd",
        "http://user@example.org/",
    ],
)
async def test_a_redirect_to_a_metadata_address_is_refused_even_where_private_ones_are_allowed(
    target: str,
) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    async with stranger() as agent:
        agent.on_card = away
        with pytest.raises(UnsafeAddressError):
            await seen(agent)


async def test_redirects_do_not_go_on_for_ever() -> None:
    async def again(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/.well-known/agent-card.json"})

    async with stranger() as agent:
        agent.on_card = again
        with pytest.raises(TooComplexError):
            await seen(agent)
        assert agent.shown == 4


async def test_without_the_setting_nothing_of_ours_is_asked_at_all() -> None:
    async with stranger() as agent:
        port = agent.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "0x7f000001", "[::ffff:127.0.0.1]"):
            with pytest.raises(UnsafeAddressError):
                await see(f"http://{host}:{port}/")
        with pytest.raises(UnsafeAddressError):
            await knock((await seen(agent)).card)
        assert agent.shown == 1
        assert agent.asked == []


async def test_an_endpoint_that_a_card_points_inwards_is_refused_before_it_is_asked() -> None:
    async with stranger() as agent:
        for inwards in ("http://169.254.169.254", "file:///etc", "http://10.0.0.1:22", "nonsense"):
            agent.card = card_of(inwards)
            with pytest.raises(UnsafeAddressError):
                await seen(agent)


def test_the_setting_opens_private_networks_and_no_others() -> None:
    for address in ("127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "fd12::1"):
        assert check_address(address, allow_private=True)
    for address in (
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "0.0.0.0",
        "224.0.0.1",
        "100.64.0.1",
    ):
        with pytest.raises(UnsafeAddressError):
            check_address(address, allow_private=True)


@pytest.mark.parametrize("kind", [Ed25519Key, P256Key])
async def test_a_signature_by_a_key_of_the_cards_own_site_is_verified(
    kind: type[Ed25519Key | P256Key],
) -> None:
    key = kind()
    async with stranger() as agent:
        agent.keys = {"keys": [{"kty": "RSA"}, key.jwk() | {"kid": "k"}]}
        agent.card = signed(agent.card, key, f"{agent.url}/keys.json")
        sight = await seen(agent)
        assert sight.seal == "verified"
        assert len(sight.key) == 64


@pytest.mark.parametrize("kind", [Ed25519Key, P256Key])
async def test_a_bad_signature_refuses_the_card(kind: type[Ed25519Key | P256Key]) -> None:
    key = kind()
    async with stranger() as agent:
        jku = f"{agent.url}/keys.json"
        good = signed(agent.card, key, jku)
        broken = good["signatures"][0]
        altered = broken | {"signature": "A" * len(broken["signature"])}
        bad = {
            "an altered card": good | {"description": "gives money away"},
            "an altered signature": good | {"signatures": [altered]},
            "padding": good | {"signatures": [broken | {"signature": broken["signature"] + "=="}]},
            "another key": signed(agent.card, kind(), jku),
            "an unknown key": signed(agent.card, key, jku, kid="other"),
        }
        agent.keys = {"keys": [key.jwk() | {"kid": "k"}]}
        for card in bad.values():
            agent.card = card
            with pytest.raises(BadCardSignatureError):
                await seen(agent)
        for keys in ({"keys": []}, {"keys": [key.jwk() | {"kid": "k", "use": "enc"}]}):
            agent.card, agent.keys = good, keys
            with pytest.raises(BadCardSignatureError):
                await seen(agent)


async def test_a_key_from_elsewhere_or_none_leaves_a_card_unverifiable_and_nobody_asked() -> None:
    key = Ed25519Key()
    async with stranger() as agent, stranger() as other:
        other.keys = {"keys": [key.jwk() | {"kid": "k"}]}
        plain = agent.card
        for jku in (f"{other.url}/keys.json", "", "file:///keys.json", "not a url"):
            agent.card = signed(plain, key, jku)
            assert (await seen(agent)).seal == "unverifiable"
        assert other.keys_shown == 0
        agent.card = signed(plain, key, f"{agent.url}/keys.json", alg="none")
        assert (await seen(agent)).seal == "unverifiable"
        agent.card = signed(plain, key, f"{agent.url}/keys.json", crit=["exp"])
        assert (await seen(agent)).seal == "unverifiable"


@pytest.mark.parametrize("signatures", ["all of them", [1], [{"protected": "e30"}]])
async def test_what_is_no_list_of_signatures_refuses_the_card(signatures: object) -> None:
    async with stranger() as agent:
        agent.card |= {"signatures": signatures}
        with pytest.raises(BadForeignCardError):
            await seen(agent)


async def test_more_signatures_than_anybody_needs_are_refused_before_any_is_verified() -> None:
    async with stranger() as agent:
        one = signed(agent.card, Ed25519Key(), f"{agent.url}/keys.json")["signatures"][0]
        agent.card |= {"signatures": [one] * (MAX_SIGNATURES + 1)}
        with pytest.raises(BadForeignCardError):
            await seen(agent)
        assert agent.keys_shown == 0


async def test_what_is_added_to_a_signed_card_is_not_read() -> None:
    """Older fields are merged into signed cards by real servers; they may not speak for it."""
    key = Ed25519Key()
    async with stranger() as agent:
        agent.keys = {"keys": [key.jwk() | {"kid": "k"}]}
        plain = {name: value for name, value in agent.card.items() if value != {}}
        agent.card = signed(plain, key, f"{agent.url}/keys.json") | {
            "url": "https://evil.example",
            "preferredTransport": "JSONRPC",
            "capabilities": {"stateTransitionHistory": True},
        }
        sight = await seen(agent)
        assert (sight.seal, sight.card.endpoint) == ("verified", f"{agent.url}/rpc")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b'{"jsonrpc": "2.0", "id": "rahba-probe"}',
        b'{"jsonrpc": "1.0", "id": "rahba-probe", "result": {}}',
        b'{"jsonrpc": "2.0", "id": "other", "result": {}}',
        b'{"jsonrpc": "2.0", "id": "rahba-probe", "error": "no"}',
        b'{"jsonrpc": "2.0", "id": "rahba-probe", "error": {"code": "x", "message": "y"}}',
        b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32601, "message": "no method"}}',
        b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32009, "message": "no version"}}',
    ],
)
async def test_a_probe_takes_nothing_but_an_answer_of_the_protocol(answer: bytes) -> None:
    async with stranger() as agent:
        agent.on_rpc = lambda _: raw(answer)
        with pytest.raises(ForeignAnswerError):
            await knock((await seen(agent)).card, allow_private=True)


async def test_a_server_that_fails_on_the_probe_is_unreachable() -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://169.254.169.254/"})

    async with stranger() as agent:
        card = (await seen(agent)).card
        agent.on_rpc = lambda _: raw(b"{}", status=500)
        with pytest.raises(ForeignUnreachableError):
            await knock(card, allow_private=True)
        agent.on_rpc = away
        with pytest.raises(ForeignAnswerError):
            await knock(card, allow_private=True)


async def test_a_task_found_where_none_should_be_is_an_answer_all_the_same() -> None:
    async def found(request: web.Request) -> web.Response:
        return rpc(await request.json(), result={"id": "rahba-probe", "status": {"state": "x"}})

    async with stranger() as agent:
        agent.on_rpc = found
        assert await knock((await seen(agent)).card, allow_private=True) >= 0
