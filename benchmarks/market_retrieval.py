"""How well a search finds: recall@10 and nDCG@10 by words, by meaning and by both.

The labelled set beside this file was written for it: 312 cards of as many trades, and 130 queries
with graded relevance (2: exactly this; 1: of some use); half share words with what they look for,
half say it in other words. The search under test is the directory's own, over cards without terms,
so that relevance alone decides. nDCG as in Järvelin and Kekäläinen 2002, gains not exponentiated.

Meaning is searched with the vectors of the extra ``meaning``; without it those rows are left out.

    python -m benchmarks.market_retrieval
"""

from __future__ import annotations

import asyncio
import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import orjson

from benchmarks.rows import Row, row
from broker import Broker
from broker.directory import CardDirectory, Search
from broker.meaning import Meaning
from broker.ports import Embedder, Query
from broker.stores.word_vectors import NoWordVectorsError, WordVectors
from broker.transports import memory
from rahba.clock import SystemClock
from rahba.envelope import Signer, seal
from rahba.messages import CARD_TYPE, Card, SkillOffer

DATA = Path(__file__).with_name("data")
FIRST = 10
KINDS = {"words": "queries that share words", "meaning": "queries in other words"}
CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class LabelledCard:
    """A card of the set; its skill is its name among the others."""

    skill: str
    name: str
    tags: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query, of a kind, and the grade of each relevant skill."""

    kind: str
    text: str
    relevant: dict[str, int]


@cache
def labelled_cards() -> list[LabelledCard]:
    """Read the cards."""
    return [
        LabelledCard(
            each["skill"], each["name"], tuple(each["tags"].split(",")), each["description"]
        )
        for each in _rows("discovery_cards.csv")
    ]


@cache
def labelled_queries() -> list[LabelledQuery]:
    """Read the queries."""
    return [
        LabelledQuery(
            each["kind"],
            each["text"],
            {
                skill: int(grade)
                for skill, _, grade in (one.partition("=") for one in each["relevant"].split())
            },
        )
        for each in _rows("discovery_queries.csv")
    ]


def run() -> list[Row]:
    """Measure; takes some seconds."""
    return asyncio.run(measure(_vectors()))


async def measure(embedder: Embedder | None) -> list[Row]:
    """Search for every query of the set in each way."""
    broker = memory.connect(CLOCK, search=Search(embedder=embedder))
    await _list(broker)
    found = {"text": await _found(broker, meaning=False)}
    if embedder is not None:
        assert isinstance(broker.directory, CardDirectory)
        await broker.directory.learned()
        found["text and meaning"] = await _found(broker, meaning=True)
        found["meaning"] = await _found_by_meaning(embedder)
    await broker.close()
    return [each for way, skills in found.items() for each in rows_of(way, skills)]


def rows_of(way: str, found: Sequence[Sequence[str]]) -> list[Row]:
    """Report what a way of searching found for each query of the set, in order."""
    rows = []
    for kind, said in KINDS.items():
        pairs = [
            (skills, query.relevant)
            for skills, query in zip(found, labelled_queries(), strict=True)
            if query.kind == kind
        ]
        name = f"market: search by {way}, {said}"
        rows += [
            row(f"{name}: nDCG@10", fmean(ndcg(*pair) for pair in pairs), ""),
            row(f"{name}: recall@10", fmean(recall(*pair) for pair in pairs), ""),
        ]
    return rows


def ndcg(found: Sequence[str], relevant: dict[str, int]) -> float:
    """Return the discounted gain of the first ten, beside the best possible."""
    best = _gain(sorted(relevant.values(), reverse=True))
    return _gain([relevant.get(skill, 0) for skill in found]) / best


def recall(found: Sequence[str], relevant: dict[str, int]) -> float:
    """Return which share of what is relevant is among the first ten."""
    return len(set(found[:FIRST]) & set(relevant)) / len(relevant)


def _gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:FIRST]))


async def _list(broker: Broker) -> None:
    cards = [_card(number, each) for number, each in enumerate(labelled_cards(), start=1)]
    done = await broker.directory.publish_many([seal(CARD_TYPE, card, who) for who, card in cards])
    assert all(one.listing is not None for one in done)


async def _found(broker: Broker, *, meaning: bool) -> list[list[str]]:
    found = []
    for query in labelled_queries():
        wanted = Query(text=query.text, meaning=meaning, limit=FIRST)
        page = await broker.directory.find(wanted)
        found.append([listing.card.skills[0].skill for listing in page.listings])
    return found


async def _found_by_meaning(embedder: Embedder) -> list[list[str]]:
    """Search by meaning alone, which the directory never does."""
    cards = [card for _, card in (_card(at, one) for at, one in enumerate(labelled_cards(), 1))]
    skills = {card.agent: card.skills[0].skill for card in cards}
    meaning = Meaning(embedder)
    for card in cards:
        meaning.note(card)
    await meaning.learned()
    near = [await meaning.near(query.text) for query in labelled_queries()]
    await meaning.close()
    return [[skills[agent] for _, agent in found or ()] for found, _ in near]


def _card(number: int, each: LabelledCard) -> tuple[Signer, Card]:
    signer = Signer(number.to_bytes(32, "big"))
    entry = SkillOffer(
        each.skill,
        each.description,
        list(each.tags),
        None,
        negotiable=True,
        input_schema="{}",
        output_schema="{}",
    )
    return signer, Card(
        agent=signer.did,
        name=each.name,
        description="",
        version="1",
        template="bench",
        skills=[entry],
        data_policy="sealed",
        issued=CLOCK.now_ms(),
        ttl_ms=600_000,
    )


def _vectors() -> Embedder | None:
    try:
        return WordVectors()
    except NoWordVectorsError:
        return None


def _rows(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text, delimiter="|"))


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
