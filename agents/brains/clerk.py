"""From an owner's wish to the terms of a mandate, before anybody else is heard.

* A clerk reads what the owner wrote and nothing else; it never sees an offer, a card or a name.
  What it writes is a :class:`Draft`: known fields within their ranges.
* A draft can only narrow what the owner allowed: the cap, the deadline and who may be dealt with
  are the owner's own, and a lower cap or a shorter time in the wish lowers them further
  (:meth:`Draft.narrow`).
* Rules are the usual clerk; a model may be (:mod:`agents.brains.langchain`), and where it fails the
  rules do it.
* Afterwards :func:`explain` says why a deal was made, from its figures alone.

    >>> draft = draft_by_rules("As fast as you can, at most 0.002 RHB, and keep it private")
    >>> draft.limit, draft.needs.privacy, draft.weights.latency
    ('2000000', 'sealed', 600)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Final, Protocol

import msgspec
from typing_extensions import override

from agents.negotiation.mandate import Weights
from agents.negotiation.menu import OPENNESS
from agents.purchase import Purchase, Want
from rahba.errors import BadInputError, RahbaError, RemoteError
from rahba.messages import Doc, Needs
from rahba.money import format_rhb, parse_fals, parse_rhb, wire_fals

MAX_WISH_CHARS: Final = 500
_DAY_MS: Final = 24 * 3_600_000
_FULL: Final = 1_000
_LEAD: Final = 600
_SIGNS: Final = {
    "price": "cheap cheaper cheapest affordable inexpensive budget thrifty",
    "quality": "best quality good accurate careful carefully thorough precise excellent",
    "latency": "fast faster fastest quick quickly urgent hurry asap soon",
    "energy": "green greenest efficient energy sustainable climate",
    "private": "private privately confidential secret sealed",
    "sure": "reliable reliably guaranteed guarantee sure certain",
}
_WORDS: Final = {name: frozenset(signs.split()) for name, signs in _SIGNS.items()}
_ISSUES: Final = ("price", "quality", "latency", "energy")
_WORD: Final = re.compile(r"[a-z]+")
_CAP: Final = re.compile(
    r"(?:under|below|at most|up to|max(?:imum)?|no more than|less than)\s+"
    r"([0-9]{1,10}(?:\.[0-9]{1,9})?)\s*rhb"
)
_TIME: Final = re.compile(
    r"(?:within|in|under|at most|no later than)\s+([0-9]{1,6})\s*"
    r"(ms|milliseconds?|s|secs?|seconds?|min|minutes?|h|hours?)\b"
)
_UNIT_MS: Final = {"ms": 1, "mi": 1, "s": 1_000, "se": 1_000, "h": 3_600_000, "ho": 3_600_000}


class ClerkError(RemoteError):
    """A clerk gave no draft: it is unreachable, too slow, or writes nonsense."""

    code = "clerk_failed"
    retryable = True


class Draft(Doc, frozen=True):
    """What a wish asks for. ``limit`` (fals) and ``within_ms`` only count where they are less.

    ``weights`` and ``needs`` are as in a mandate, ``min_penalty`` in thousandths of the price.
    """

    weights: Weights = Weights()
    needs: Needs = Needs()
    min_penalty: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    limit: str | None = None
    within_ms: Annotated[int, msgspec.Meta(ge=1, le=_DAY_MS)] | None = None

    def narrow(self, want: Want, *, now_ms: int) -> Want:
        """Return the wish within these terms: never a larger budget, nor a later deadline."""
        budget = want.budget_fals if self.limit is None else parse_fals(self.limit)
        within = want.within_ms if self.within_ms is None else self.within_ms
        deadline = want.deadline_ms
        return replace(
            want,
            deadline_ms=None if deadline is None else min(deadline, now_ms + within),
            budget_fals=min(want.budget_fals, budget),
            within_ms=min(want.within_ms, within),
            weights=want.weights if self.weights == Weights() else self.weights,
            privacy=min(want.privacy, self.needs.privacy, key=OPENNESS.__getitem__),
            min_quality=max(want.min_quality, self.needs.min_quality),
            max_latency_ms=_least(want.max_latency_ms, self.needs.max_latency_ms),
            max_energy_uwh=_least(want.max_energy_uwh, self.needs.max_energy_uwh),
            min_penalty=max(want.min_penalty, self.min_penalty),
        )


class Clerk(Protocol):
    """Writes a draft of what an owner wishes."""

    async def draft(self, wish: str) -> Draft:
        """Return the terms that ``wish`` asks for.

        Raises:
            BadInputError: the wish is too long.
            ClerkError: there is no draft to be had.
        """
        ...


class RuleClerk(Clerk):
    """Knows a few dozen words."""

    @override
    async def draft(self, wish: str) -> Draft:
        return draft_by_rules(wish)


@dataclass(frozen=True, slots=True)
class CarefulClerk(Clerk):
    """Asks one clerk, and the rules where that one fails."""

    first: Clerk

    @override
    async def draft(self, wish: str) -> Draft:
        check_wish(wish)
        try:
            return await self.first.draft(wish)
        except ClerkError:
            return draft_by_rules(wish)


def check_wish(wish: str) -> None:
    """Refuse a wish that is a letter."""
    if len(wish) > MAX_WISH_CHARS:
        raise BadInputError("a wish is a sentence or two", limit_chars=MAX_WISH_CHARS)


def check_draft(draft: Draft) -> Draft:
    """Return a draft whose amounts are amounts.

    Raises:
        ClerkError: they are not.
    """
    try:
        _ = parse_fals(draft.limit or "0")
    except RahbaError as error:
        raise ClerkError(f"the draft's limit is no amount: {error.message}") from error
    return draft


def draft_by_rules(wish: str) -> Draft:
    """Return what the words of a wish say about price, time, care and privacy."""
    check_wish(wish)
    text = wish.casefold()
    words = set(_WORD.findall(text))
    named = [issue for issue in _ISSUES if words & _WORDS[issue]]
    cap, within_ms = _CAP.search(text), _time(text)
    return Draft(
        weights=_weights(named),
        needs=Needs(
            privacy="sealed" if words & _WORDS["private"] else "public", max_latency_ms=within_ms
        ),
        min_penalty=100 if words & _WORDS["sure"] else 0,
        limit=None if cap is None else wire_fals(parse_rhb(cap.group(1))),
        within_ms=within_ms,
    )


def explain(bought: Purchase) -> str:
    """Say in a sentence or two why this deal was made, from its figures."""
    how = {
        "posted": "at its posted price",
        "tender": "by sealed tender",
        "bargain": f"after {bought.rounds} rounds of bargaining",
    }[bought.mode]
    said = f"Bought {how} for {format_rhb(bought.agreed_fals)} RHB"
    if bought.asked_fals > bought.agreed_fals:
        said += f" ({format_rhb(bought.asked_fals)} RHB were asked at first)"
    if bought.best_rejected_fals is None:
        return f"{said}; no other offer stood."
    gained = bought.advantage_fals or 0
    said += f"; the next best offer stood at {format_rhb(bought.best_rejected_fals)} RHB"
    return f"{said}, by your weights worth {format_rhb(gained)} RHB less."


def _weights(named: list[str]) -> Weights:
    """Share most of the weight among what was named, the rest among the others."""
    if not named:
        return Weights()
    others = [issue for issue in _ISSUES if issue not in named]
    lead = _FULL if not others else _LEAD
    shares = dict.fromkeys(named, lead // len(named))
    shares |= dict.fromkeys(others, (_FULL - lead) // max(len(others), 1))
    return Weights(**shares)


def _time(text: str) -> int | None:
    found = _TIME.search(text)
    if found is None:
        return None
    number, unit = int(found.group(1)), found.group(2)
    each = 60_000 if unit.startswith("min") else _UNIT_MS[unit[:2]]
    return min(max(number * each, 1), _DAY_MS)


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)
