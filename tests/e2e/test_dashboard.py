"""The dashboard in a real Chromium, on a market that runs as a user's does."""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from rahba.envelope import Signer, seal
from rahba.merkle import leaf_hash
from rahba.messages import MESSAGE_TYPE
from tests.fixtures.market import RunningMarket, running_market
from wallet.merkle import MerkleLog

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

AXE = Path(__file__).parents[2] / "api/dashboard/node_modules/axe-core/axe.min.js"
SHOTS = Path(__file__).parents[2] / "screenshots"
SUMMARISERS = {"swift": "0.003", "steady": "0.0034", "thorough": "0.004"}
TEXT = (
    "The caravan reached the market before dawn. Traders unpacked salt, leather and dates. "
    "By noon the square was full, and every price was argued over twice. "
    "At dusk the traders counted what they had earned and praised the market."
)


@pytest.fixture(scope="session")
def busy_market(market: RunningMarket) -> dict[str, str]:
    """Deploy three summarisers and buy once by tender and once by bargaining; names the groups."""
    for name, price in SUMMARISERS.items():
        market.rahba("deploy", "summarise", "--name", name, "--set", f"price={price}", "--wait")
    groups = {}
    for mode in ("tender", "bargain"):
        bought = market.rahba("call", "text.summarise", "--mode", mode, "--arg", f"text={TEXT}")
        groups[mode] = bought["group"]
    return groups


@contextmanager
def watched(
    browser: Browser, *, scheme: Any = "light", width: int = 1280, allow: str = ""
) -> Iterator[Page]:
    """Open a page; any error on its console fails the test, unless ``allow`` matches it."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    page = context.new_page()
    faults: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not (allow and re.search(allow, message.text)):
            faults.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert not faults, faults


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with the page as it is now."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{item['id']}: {item['nodes'][0]['html'][:200]}" for item in found]


def shoot(page: Page, name: str) -> None:
    """Keep a picture for a person to look at."""
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("width", [320, pytest.param(1280, marks=pytest.mark.long)])
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_the_market_page_is_readable_for_everybody(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str], scheme: str, width: int
) -> None:
    with watched(browser, scheme=scheme, width=width) as page:
        page.goto(f"{market.url}/")
        expect(page.get_by_role("heading", name="The market")).to_be_visible()
        expect(page.locator(".feed li.settled").first).to_be_visible()
        expect(page.locator(".strip .badge.good")).to_be_visible()
        expect(page.locator("rahba-price-chart canvas").first).to_be_visible()
        expect(page.get_by_text("expected now").first).to_be_visible(timeout=10_000)
        assert fits(page)
        assert violations(page) == []
        shoot(page, f"market-{scheme}-{width}")


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_negotiation_shows_its_curve_and_every_signature_checked_here(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str], scheme: str, width: int
) -> None:
    with watched(browser, scheme=scheme, width=width) as page:
        page.goto(f"{market.url}/negotiations/{busy_market['bargain']}")
        expect(page.locator(".lead")).to_contain_text("bought text.summarise from")
        expect(page.locator(".rail [aria-current=step]")).to_have_text("settled")
        expect(page.locator("svg.curve .deal")).to_be_visible()
        assert page.locator("svg.curve .point.buyer").count() >= 2
        assert page.locator("svg.curve .point.seller").count() >= 2
        rows = page.locator("table tbody tr").count()
        assert rows == page.locator("table .badge.good").count() > 4
        assert fits(page)
        assert violations(page) == []
        shoot(page, f"negotiation-{scheme}-{width}")


def test_sellers_are_shown_with_what_their_settled_deals_say(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str]
) -> None:
    with watched(browser) as page:
        page.goto(f"{market.url}/")
        settled = page.locator(".sellers tbody tr", has=page.locator("td.number", has_text="1"))
        expect(settled.first).to_be_visible()
        first = page.locator(".sellers tbody tr").first
        agent = first.get_attribute("data-agent")
        told = page.request.get(f"{market.url}/v1/agents/{agent}/reputation").json()
        rate = told["rate"]
        expect(first.locator(".rate")).to_have_text(f"{rate['mean'] / 10:.1f} %")
        expect(first.locator("small")).to_have_text(
            f"{rate['low'] / 10:.1f} % to {rate['high'] / 10:.1f} %"
        )
        expect(first.locator("td.number").first).to_have_text(str(told["deals"]))
        expect(first.locator("td.number").last).to_have_text(str(told["counterparties"]))


def test_a_tender_shows_every_seller(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str]
) -> None:
    with watched(browser) as page:
        group = busy_market["tender"]
        page.goto(f"{market.url}/negotiations/{group}")
        talk = page.request.get(f"{market.url}/v1/negotiations/{group}").json()
        quoted = sum(len(thread["offers"]) for thread in talk["threads"])  # in time, that is
        assert len(talk["threads"]) >= len(SUMMARISERS)
        assert quoted >= 2
        expect(page.locator("svg.curve .point.seller")).to_have_count(quoted)
        page.get_by_role("button", name="by time").click()
        expect(page.get_by_role("button", name="by time")).to_have_attribute("aria-pressed", "true")
        shoot(page, "tender")


@pytest.mark.parametrize("place", [1, 2], ids=["a seller's offer", "the buyer's answer"])
def test_one_byte_altered_in_flight_turns_the_badge_red(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str], place: int
) -> None:
    def alter(route: Route) -> None:
        body = orjson.loads(route.fetch().body())
        transcript = body["threads"][0]["transcript"]
        envelope = orjson.loads(base64.b64decode(transcript[place]))
        payload = base64.b64decode(envelope["payload"])
        price = re.search(rb'"price":"(\d)', payload)
        assert price is not None
        other = b"1" if price.group(1) != b"1" else b"2"
        changed = payload[: price.start(1)] + other + payload[price.end(1) :]
        envelope["payload"] = base64.b64encode(changed).decode()
        transcript[place] = base64.b64encode(orjson.dumps(envelope)).decode()
        route.fulfill(json=body)

    with watched(browser) as page:
        page.route("**/v1/negotiations/*?raw=1", alter)
        page.goto(f"{market.url}/negotiations/{busy_market['bargain']}")
        expect(page.locator("table .badge.bad")).to_have_count(1)


def test_a_rewritten_log_shows_red(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str]
) -> None:
    with watched(browser) as page:
        page.goto(f"{market.url}/")
        expect(page.locator(".strip .badge.good")).to_be_visible()
        page.evaluate(
            """() => {
                const seen = JSON.parse(localStorage.getItem("rahba.checkpoint"));
                seen.root = btoa("x".repeat(32));
                seen.size -= 1;
                localStorage.setItem("rahba.checkpoint", JSON.stringify(seen));
            }"""
        )
        page.reload()
        expect(page.locator(".strip .badge.bad")).to_be_visible()


def test_a_paused_feed_holds_still_and_catches_up(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str]
) -> None:
    with watched(browser) as page:
        page.goto(f"{market.url}/")
        expect(page.locator(".feed li").first).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        newest = page.locator(".feed li").first.get_attribute("data-id")
        market.rahba("call", "text.summarise", "--mode", "posted", "--arg", f"text={TEXT}")
        expect(page.get_by_role("button", name=re.compile(r"Resume \([1-9]"))).to_be_visible()
        assert page.locator(".feed li").first.get_attribute("data-id") == newest
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".feed li.settled").first).to_be_visible()
        assert page.locator(".feed li").first.get_attribute("data-id") != newest


def test_an_unknown_negotiation_is_said_in_words(browser: Browser, market: RunningMarket) -> None:
    with watched(browser, allow="404") as page:
        page.goto(f"{market.url}/negotiations/{'0' * 32}")
        expect(page.get_by_role("alert")).to_be_visible()
        assert violations(page) == []
        page.goto(f"{market.url}/nowhere")
        expect(page.locator("body")).to_contain_text(re.compile("not found|nothing", re.IGNORECASE))


@pytest.mark.long
def test_an_empty_market_says_how_to_fill_it_and_a_dead_gateway_is_noticed(
    browser: Browser, tmp_path: Path
) -> None:
    refused = "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY|503|502"
    with running_market(tmp_path) as market, watched(browser, allow=refused) as page:
        page.goto(f"{market.url}/#key={market.api_key}")
        expect(page.get_by_role("heading", name="No offers yet")).to_be_visible()
        assert market.api_key not in page.url
        assert violations(page) == []
        shoot(page, "empty")
        page.get_by_role("button", name="Deploy three agents").click()
        expect(page.locator(".feed li.agent-listed")).to_have_count(3, timeout=30_000)
        seen = page.locator(".feed li").count()
        supervisor = psutil.Process(market.process.pid)
        gateway = next(p for p in supervisor.children() if "gateway" in p.cmdline())
        os.kill(gateway.pid, signal.SIGKILL)
        expect(page.locator(".status.lost")).to_contain_text("reconnecting")
        expect(page.locator(".status.live")).to_be_visible(timeout=30_000)
        market.rahba("call", "text.summarise", "--mode", "posted", "--arg", f"text={TEXT}")
        expect(page.locator(".feed li.settled")).to_have_count(1)
        ids = page.locator(".feed li").evaluate_all("rows => rows.map((row) => row.dataset.id)")
        assert len(ids) == len(set(ids)) > seen


def test_the_browser_verifies_as_we_do(
    browser: Browser, market: RunningMarket, busy_market: dict[str, str]
) -> None:
    """One set of vectors, made here and checked by both."""
    good = seal(MESSAGE_TYPE, {"a": 1}, Signer(b"\x01" * 32))
    forged = good.replace(b'"sig":"', b'"sig":"A', 1)[: len(good)]
    tree = MerkleLog()
    for number in range(40):
        tree.append(leaf_hash(b"%d" % number))
    proofs = [
        {
            "old": old,
            "new": new,
            "oldRoot": base64.b64encode(tree.root_at(old)).decode(),
            "newRoot": base64.b64encode(tree.root_at(new)).decode(),
            "path": [item.hex() for item in tree.consistency(old, new)],
        }
        for new in range(1, 41)
        for old in range(1, new + 1)
    ]
    with watched(browser) as page:
        page.goto(f"{market.url}/")
        answer = page.evaluate(
            """async ({good, forged, proofs}) => {
                const { openEnvelope, extendsLog, keyOf } = await import("/static/verify.js");
                const valid = async (raw) => {
                    try { return (await openEnvelope(raw)).valid; } catch { return false; }
                };
                const wrong = [];
                for (const p of proofs) {
                    const said = (from) => extendsLog(p.old, p.new, from, p.newRoot, p.path);
                    if (!(await said(p.oldRoot))) wrong.push([p.old, p.new]);
                    if (p.old < p.new && (await said(p.newRoot))) wrong.push([p.old, -p.new]);
                }
                const none = keyOf("did:web:x");
                return { good: await valid(good), forged: await valid(forged), wrong, none };
            }""",
            {
                "good": base64.b64encode(good).decode(),
                "forged": base64.b64encode(forged).decode(),
                "proofs": proofs,
            },
        )
    assert answer == {"good": True, "forged": False, "wrong": [], "none": None}
