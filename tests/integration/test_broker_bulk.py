"""Many cards at once: at the broker, over HTTP, and from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli import cards
from api.cli.cards import batches, publish, read_cards
from api.http.documents import PublicationPage
from broker import bulk
from broker.bulk import MAX_AT_ONCE
from broker.ports import Query
from rahba.client.market import Market
from rahba.clock import SystemClock
from rahba.errors import BadInputError, TooLargeError
from rahba.messages import MAX_CARD_BYTES
from tests.fixtures.broker import Stand
from tests.fixtures.gateway import Site
from tests.fixtures.market_messages import signed_card, signer

NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}


def mixed(now_ms: int) -> tuple[list[bytes], list[str | None]]:
    """Return good and bad cards, and the code of what each is refused by."""
    good = [signed_card(signer(), now_ms) for _ in range(150)]
    raws = [*good[:70], b"no card", signed_card(signer(), now_ms - 60_000), *good[70:],
            good[0].replace(b'"sig":"', b'"sig":"A', 1), b" " * (MAX_CARD_BYTES + 1)]  # fmt: skip
    codes = [None] * 70 + ["bad_encoding", "expired"] + [None] * 80 + ["bad_encoding", "too_large"]
    return raws, codes


async def test_one_bad_card_does_not_stop_the_others(stand: Stand) -> None:
    raws, codes = mixed(stand.clock.now_ms())
    done = await stand.broker.directory.publish_many(raws)
    assert [one.place for one in done] == list(range(len(raws)))
    refused = {one.place: one.code for one in done if one.listing is None}
    assert set(refused) == {place for place, code in enumerate(codes) if code}
    assert all(one.detail for one in done if one.code)
    assert await stand.broker.directory.count() == 150
    page = await stand.broker.directory.find(Query(limit=100))
    assert len(page.listings) == 100


async def test_of_two_cards_of_one_agent_the_later_stands_and_a_stale_one_is_refused(
    stand: Stand,
) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    first, second = (signed_card(owner, now_ms + at, price=5 + at) for at in range(2))
    done = await stand.broker.directory.publish_many([first, second, first])
    assert [one.code for one in done] == [None, None, "stale_card"]
    listing = await stand.broker.directory.get(owner.did)
    assert listing is not None
    assert listing.raw == second


async def test_too_many_cards_are_refused_together(stand: Stand) -> None:
    with pytest.raises(TooLargeError):
        await stand.broker.directory.publish_many([b"x"] * (MAX_AT_ONCE + 1))
    assert await stand.broker.directory.publish_many([]) == []


async def test_the_loop_goes_on_while_cards_are_verified(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    raws = [signed_card(signer(), stand.clock.now_ms()) for _ in range(600)]
    monkeypatch.setattr(bulk, "SLICE", 16)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await stand.broker.directory.publish_many(raws)
    ticking.cancel()
    assert ticks > 600 / (16 * bulk.THREADS)


@pytest.mark.parametrize("kind", ["array", "lines"])
async def test_a_gateway_lists_many_cards_and_says_what_became_of_each(
    site: Site, kind: str
) -> None:
    raws, codes = mixed(SystemClock().now_ms())
    raws, codes = raws[:75], codes[:75]
    if kind == "array":
        raws[70] = b'{"no":"card"}'
        sent, headers = b"[" + b",".join(raws) + b"]", JSON
    else:
        sent, headers = b"\n".join(raws) + b"\n\n", NDJSON
    answer = await site.ask("POST", "/v1/agents", data=sent, headers=headers)
    assert answer.status == 200, answer.body
    page = PublicationPage.model_validate(answer.json)
    assert (page.listed, page.refused) == (73, 2)
    assert [one.code is None for one in page.results] == [code is None for code in codes]
    found = await site.ask("GET", "/v1/agents?q=summaries&limit=100", token="")
    assert len(found.json["agents"]) == 73


async def test_a_gateway_refuses_cards_without_a_key_or_in_another_form(site: Site) -> None:
    for sent, headers, token, status in (
        (b"[]", JSON, "", 401),
        (b"[]", {"content-type": "text/plain"}, None, 415),
        (b"{}", JSON, None, 422),
        (b"[", JSON, None, 422),
        (b"[" + b",".join([b"{}"] * 1_001) + b"]", JSON, None, 413),
    ):
        answer = await site.ask("POST", "/v1/agents", data=sent, headers=headers, token=token)
        assert answer.status == status, answer.body
    empty = await site.ask("POST", "/v1/agents", data=b"", headers=NDJSON)
    assert empty.json == {"results": [], "listed": 0, "refused": 0}


async def test_agents_are_found_by_everything_that_a_query_says(site: Site) -> None:
    raw = signed_card(signer(), SystemClock().now_ms(), price=5)
    async with Market(site.url, site.token) as market:
        assert (await market.publish([raw]))["listed"] == 1
    for query in ("tag=summary", "tag=text&tag=summary", "q=shorten", "max_latency_ms=60000",
                  "min_quality=500", "data_policy=sealed", "sort=price", "weights=price:1",
                  "q=summaries&meaning=false", "weights=quality:2,latency:1"):  # fmt: skip
        answer = await site.ask("GET", f"/v1/agents?{query}", token="")
        assert answer.status == 200, answer.body
        assert len(answer.json["agents"]) == 1, query
    for query in ("tag=other", "max_latency_ms=1", "min_quality=501", "max_energy=1"):
        assert (await site.ask("GET", f"/v1/agents?{query}")).json["agents"] == [], query
    for query in ("sort=age", "weights=price", "weights=price:1,price:2", "weights=price:0",
                  "data_policy=none", "min_quality=1001", "tag=", "weights=speed:1"):  # fmt: skip
        assert (await site.ask("GET", f"/v1/agents?{query}")).status == 422, query
    told = await site.ask("GET", "/v1/agents?q=summaries&meaning=true", token="")
    assert told.json["notes"] == ["meaning: no embeddings are configured"]


def test_files_of_cards_are_read_as_they_were_signed(tmp_path: Path) -> None:
    raws = [signed_card(signer(), 1) for _ in range(3)]
    lines, array = tmp_path / "lines", tmp_path / "array"
    lines.write_bytes(b"\n".join(raws) + b"\n\n")
    array.write_bytes(b"[ " + b" ,\n".join(raws) + b"]")
    assert read_cards(lines) == read_cards(array) == raws
    array.write_bytes(b"[{]")
    with pytest.raises(BadInputError):
        read_cards(array)
    many = [b"x" * 400_000] * 5
    assert [len(some) for some in batches(many)] == [2, 2, 1]
    assert [len(some) for some in batches([b"x"] * 2_500)] == [1_000, 1_000, 500]


async def test_cards_are_published_from_the_command_line(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = SystemClock().now_ms()
    file = tmp_path / "cards.ndjson"
    file.write_bytes(b"\n".join([signed_card(signer(), now_ms), b"no card"]))
    env = {"RAHBA_URL": site.url, "RAHBA_API_KEY": site.token, "RAHBA_DATA": str(tmp_path)}
    monkeypatch.setattr(cards, "MAX_SENT_CARDS", 1)
    done = await asyncio.to_thread(CliRunner(env=env).invoke, publish, [str(file)])
    assert done.exit_code == 1, done.output
    assert "1 listed, 1 refused" in done.output
    assert f"{file}, card 2: " in done.output
    file.write_bytes(signed_card(signer(), now_ms))
    done = await asyncio.to_thread(CliRunner(env=env).invoke, publish, [str(file), "--json"])
    assert done.exit_code == 0, done.output
    assert '"listed": 1' in done.output
