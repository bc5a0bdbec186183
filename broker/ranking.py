"""Which listing comes first, and why; pure.

Relevance is a gate: a text query keeps only listings that share a word with it (BM25 over name,
description, skills and tags, each skill's name split into its words). Then:

* with a text, by relevance times value, where value falls as the price rises against the
  cheapest;
* without, by posted price, the cheapest first; open to bargaining only: last.

Ties are broken by agent id, so that the order never depends on who came first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from broker.ports import Listing, Query
from rahba.messages import Card, SkillOffer
from rahba.money import format_rhb

MAX_TEXT_WORDS: Final = 32
_WORD: Final = re.compile(r"[^\W_]+", re.UNICODE)
_K1: Final = 1.2
_B: Final = 0.75
_PRICE_WEIGHT: Final = 0.3


@dataclass(frozen=True, slots=True)
class Ranked:
    """A listing in its place: smaller ``key`` first; ``reasons`` are for people."""

    listing: Listing
    key: tuple[float, str]
    reasons: tuple[str, ...]


def words_of(text: str) -> list[str]:
    """Split a text into folded words, cut to a crude stem so that plurals meet."""
    return [_stem(word) for word in _WORD.findall(text.casefold())]


def price_of(card: Card, skill: str | None) -> int | None:
    """Return the lowest posted price (fals) for ``skill``, or for any; ``None`` if none."""
    prices = [entry.posted.issues.price_fals for entry in offered(card, skill) if entry.posted]
    return min(prices, default=None)


def offered(card: Card, skill: str | None) -> list[SkillOffer]:
    """Return the card's entries for ``skill``, or all."""
    return [entry for entry in card.skills if skill is None or entry.skill == skill]


def matches(card: Card, query: Query) -> bool:
    """Say whether a card passes the query's gates on skill, agent and price."""
    if query.agent is not None and card.agent != query.agent:
        return False
    entries = offered(card, query.skill)
    if query.skill is not None and not entries:
        return False
    if query.max_price is None:
        return True
    # Who is open to bargaining may come down to it; who only posts a price does not.
    return any(
        entry.negotiable
        or (entry.posted is not None and entry.posted.issues.price_fals <= query.max_price)
        for entry in entries
    )


def rank(listings: Sequence[Listing], query: Query) -> list[Ranked]:
    """Return the listings that match, best first."""
    passed = [listing for listing in listings if matches(listing.card, query)]
    scores = _relevance(passed, query.text) if query.text else None
    prices = [price_of(listing.card, query.skill) for listing in passed]
    cheapest = min((price for price in prices if price is not None), default=None)
    ranked = []
    for place, listing in enumerate(passed):
        price, score = prices[place], scores[place] if scores is not None else None
        if score is not None and score <= 0:
            continue
        key = _cost(price) if score is None else -score * _value(price, cheapest)
        reasons = _reasons(price, cheapest, score)
        ranked.append(Ranked(listing, (round(key, 6), listing.card.agent), reasons))
    return sorted(ranked, key=lambda one: one.key)


def _cost(price: int | None) -> float:
    return math.inf if price is None else float(price)


def _value(price: int | None, cheapest: int | None) -> float:
    if price is None or cheapest is None:
        return 1 - _PRICE_WEIGHT / 2
    return 1 - _PRICE_WEIGHT * (price - cheapest) / max(price, 1)


def _reasons(price: int | None, cheapest: int | None, score: float | None) -> tuple[str, ...]:
    reasons = []
    if score is not None:
        reasons.append(f"relevance {score:.2f}")
    if price is None:
        reasons.append("open to bargaining")
    elif price == cheapest:
        reasons.append(f"lowest posted price: {format_rhb(price)} RHB")
    else:
        reasons.append(f"posted price: {format_rhb(price)} RHB")
    return tuple(reasons)


def _relevance(listings: Sequence[Listing], text: str) -> list[float]:
    wanted = list(dict.fromkeys(words_of(text)))[:MAX_TEXT_WORDS]
    bags = [_bag(listing.card) for listing in listings]
    average = sum(length for _, length in bags) / len(bags) if bags else 1.0
    scores = [0.0] * len(bags)
    for word in wanted:
        holders = sum(1 for bag, _ in bags if word in bag)
        rarity = math.log(1 + (len(bags) - holders + 0.5) / (holders + 0.5))
        for place, (bag, length) in enumerate(bags):
            often = bag.get(word, 0)
            if often:
                damped = often + _K1 * (1 - _B + _B * length / average)
                scores[place] += rarity * often * (_K1 + 1) / damped
    return scores


def _bag(card: Card) -> tuple[Counter[str], int]:
    return _bag_of(_document(card))


def _document(card: Card) -> str:
    parts = [card.name, card.description]
    for entry in card.skills:
        # What an agent can do says more about it than how it is called.
        parts += [entry.skill, entry.skill, entry.description, *entry.tags]
    return " ".join(parts)


@lru_cache(maxsize=8_192)
def _bag_of(document: str) -> tuple[Counter[str], int]:
    words = words_of(document)
    return Counter(words), len(words)


def _stem(word: str) -> str:
    for ending in ("ies", "ing", "ers", "es", "ed", "er", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
