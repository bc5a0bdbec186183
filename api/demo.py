"""The demonstration: a market of a dozen agents and real work for them.

It uses the market only as any stranger would: through the gateway, with an API key. What it reports
it has checked itself: receipts by the seller's key, payments by the log's key, both offline.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rahba.client import Market
from rahba.encoding import unb64
from rahba.errors import LocalError, RahbaError
from rahba.messages import Mode, open_receipt
from rahba.money import parse_fals, parse_rhb
from rahba.proof import InclusionProof, verify_proof

DOCUMENTS: Final = Path(__file__).parent.parent / "examples" / "documents"
BUDGET_FALS: Final = parse_rhb("0.01")
REPORT_BUDGET_FALS: Final = parse_rhb("0.08")
DEADLINE_MS: Final = 60_000
_AT_ONCE: Final = 3
_READY_S: Final = 60
_PROVEN_S: Final = 5


class NoDocumentsError(LocalError):
    """The documents that the demonstration works on are not there."""

    code = "no_documents"
    hint = "run the demo from the source tree: `make demo`"


class DemoError(RahbaError):
    """A part of the demonstration did not end as it must."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Staff:
    """One agent to deploy: its name, its template, its settings."""

    name: str
    template: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Purchase:
    """One thing to buy through the gateway."""

    skill: str
    mode: Mode
    input: dict[str, Any]
    budget_fals: int = BUDGET_FALS


@dataclass(frozen=True, slots=True)
class Deal:
    """One settled deal and what was checked of it here; amounts in fals."""

    skill: str
    buyer: str
    seller: str
    mode: str
    rounds: int
    asked_fals: int
    agreed_fals: int
    paid_fals: int
    receipt_verified: bool
    inclusion_verified: bool


STAFF: Final = (
    Staff("swift", "summarise", {"quality": "fast", "price": "0.0024", "floor": "0.0014"}),
    Staff("steady", "summarise", {"quality": "balanced", "price": "0.003", "floor": "0.0018"}),
    Staff("thorough", "summarise", {"quality": "thorough", "price": "0.0036", "floor": "0.0022"}),
    Staff("glossa", "keywords", {"strategy": "linear"}),
    Staff("mood", "sentiment", {"strategy": "stochastic"}),
    Staff("polyglot", "language-detect", {"strategy": "linear"}),
    Staff("reader", "pdf-text", {"strategy": "best"}),
    Staff("scraper", "web-to-markdown", {"strategy": "boulware"}),
    Staff("counter", "data-analyst", {"strategy": "best"}),
    Staff("tidy", "code-format", {"strategy": "linear"}),
    Staff("concierge", "concierge", {}),
)


def purchases() -> list[Purchase]:
    """Return what the demonstration buys, with the documents that it is about.

    Raises:
        NoDocumentsError: the documents are missing.
    """
    essay, reviews, sales, page = (
        _text(name)
        for name in ("the-square-and-the-road.txt", "reviews.txt", "sales.csv", "market-day.html")
    )
    report = base64.b64encode(_bytes("water-report.pdf")).decode("ascii")
    by_city = {"group_by": ["city"], "metrics": [{"op": "sum", "column": "amount"}]}
    everything = [
        {"name": "reviews.txt", "kind": "text", "content": reviews},
        {"name": "sales.csv", "kind": "csv", "content": sales},
        {"name": "water-report.pdf", "kind": "pdf", "content": report, "encoding": "base64"},
        {"name": "market-day.html", "kind": "html", "content": page},
    ]
    return [
        Purchase("text.summarise", "tender", {"text": essay, "max_sentences": 5}),
        Purchase("text.summarise", "tender", {"text": reviews, "max_sentences": 3}),
        Purchase("text.summarise", "tender", {"text": essay, "max_sentences": 2}),
        Purchase("text.keywords", "bargain", {"text": essay}),
        Purchase("text.sentiment", "bargain", {"text": reviews}),
        Purchase("pdf.text", "bargain", {"content": report}),
        Purchase("web.markdown", "bargain", {"html": page}),
        Purchase("data.analyse", "bargain", {"table": sales, **by_city}),
        Purchase("text.language", "posted", {"text": essay}),
        Purchase(
            "concierge.report",
            "posted",
            {"documents": everything, "wishes": ["sum up", "keywords", "how guests feel"]},
            REPORT_BUDGET_FALS,
        ),
    ]


async def open_stalls(market: Market) -> None:
    """Deploy the staff and wait until all of it is on the market.

    Raises:
        DemoError: an agent failed its self-test, or is not there in time.
    """
    started = [await market.deploy(each.template, each.name, each.config) for each in STAFF]
    try:
        async with asyncio.timeout(_READY_S):
            await asyncio.gather(*(market.running(record["id"]) for record in started))
    except TimeoutError:
        raise DemoError(f"not every agent was ready within {_READY_S} s") from None


async def go_shopping(market: Market, tell: Callable[[Purchase, dict[str, Any]], None]) -> None:
    """Buy everything, a few things at a time; ``tell`` is called as each is settled.

    Raises:
        DemoError: a purchase was not settled.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def buy(wanted: Purchase) -> None:
        async with slots:
            call = await market.call(
                wanted.input,
                skill=wanted.skill,
                budget_fals=wanted.budget_fals,
                mode=wanted.mode,
                deadline_ms=DEADLINE_MS,
            )
            if call["state"] != "settled":
                raise DemoError(f"{wanted.skill} was not settled: {call.get('problem')}")
            tell(wanted, call)

    tasks = [asyncio.create_task(buy(wanted)) for wanted in purchases()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def settled_deals(market: Market) -> list[Deal]:
    """Return every settled deal of the market, oldest first, each checked here."""
    names = {agent["id"]: agent["name"] async for agent in market.agents()}
    key = await market.log_key()
    found = [talk async for talk in market.negotiations() if talk["state"] == "settled"]
    return [await _checked(market, talk["agreement"], key, names) for talk in reversed(found)]


def as_data(deals: list[Deal], supply: dict[str, Any], url: str, first_s: float) -> dict[str, Any]:
    """Return the outcome as one document; amounts are strings of fals."""
    amounts = ("asked_fals", "agreed_fals", "paid_fals")
    rows = [
        {name: str(value) if name in amounts else value for name, value in asdict(deal).items()}
        for deal in deals
    ]
    return {
        "deals": rows,
        "supply": {
            "issued": supply["issued"],
            "sum": supply["total"],
            "equal": supply["issued"] == supply["total"],
        },
        "dashboard": url,
        "first_deal_s": round(first_s, 3),
    }


async def _checked(market: Market, digest: str, key: str, names: dict[str, str]) -> Deal:
    document = await _with_proof(market, digest)
    seller = document["seller"]
    return Deal(
        skill=document["skill"],
        buyer=names.get(document["buyer"], "you"),
        seller=names.get(seller, seller),
        mode=document["mode"],
        rounds=document["rounds"],
        asked_fals=parse_fals(document["asked_fals"]),
        agreed_fals=parse_fals(document["agreed_fals"]),
        paid_fals=parse_fals(document["paid_fals"]),
        receipt_verified=_receipt_stands(document),
        inclusion_verified=_is_included(document, key),
    )


async def _with_proof(market: Market, digest: str) -> dict[str, Any]:
    """Return a deal once a checkpoint covers its payment, or as it is after a while."""
    document = await market.deal(digest)
    for _ in range(_PROVEN_S * 10):
        if document.get("inclusion") is not None:
            break
        await asyncio.sleep(0.1)
        document = await market.deal(digest)
    return document


def _receipt_stands(document: dict[str, Any]) -> bool:
    """Check the seller's signature, and that the receipt is for this deal at this price."""
    try:
        receipt = open_receipt(unb64(document["receipt"]["envelope"]), seller=document["seller"])
    except (RahbaError, TypeError, KeyError):
        return False
    terms = (document["digest"], document["agreed_fals"])
    return (receipt.agreement, receipt.price) == terms


def _is_included(document: dict[str, Any], key: str) -> bool:
    """Check the payment's proof under the log's key, and that it is the proof of this payment."""
    proof = document.get("inclusion")
    if proof is None or proof["leaf_hash"] != document["capture_tx"]:
        return False
    try:
        verify_proof(
            InclusionProof(
                index=proof["index"],
                leaf_hash=proof["leaf_hash"],
                path=tuple(proof["path"]),
                checkpoint=proof["checkpoint"],
            ),
            key,
        )
    except RahbaError:
        return False
    return True


def _text(name: str) -> str:
    return _bytes(name).decode("utf-8")


def _bytes(name: str) -> bytes:
    try:
        return (DOCUMENTS / name).read_bytes()
    except FileNotFoundError as error:
        raise NoDocumentsError(f"{DOCUMENTS} has no {name}") from error
