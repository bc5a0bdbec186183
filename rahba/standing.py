"""What an agent's settled deals say of it: a success rate with bounds, for all or for one caller.

The evidence of one payer, in thousandths of a deal (``docs/reputation.md`` derives it in full):

1. Its deals with the agent, kept and failed, fade and together weigh no more than ``PAIR_MOST``:
   many deals with one counterparty say little more than a few.
2. A failure counts if the hold has the payee's own pledge in it. Any other hold is opened without
   asking the payee, so it counts as far as its payer has a say: up to what it had kept here before;
   beyond that it is *alleged*, up to one deal, by a payer that paid for many deals elsewhere and
   let few of them fail. What is alleged never outweighs half of what is kept, but for two deals. A
   key that paid nobody can blame nobody.
3. All of it counts for a quarter, and in full as the payer becomes known elsewhere by deals that it
   paid for.

For a caller, its own deals count in full; those of whom it trusts (:mod:`rahba.trust`) as far as
it does; and what strangers bring, all of them together, for ``STRANGERS_MOST`` at most. A thousand
keys made up for the purpose are strangers.

    >>> book = ReputationBook(Dealings(unit_fals=1_000), at_ms=1_700_000_000_000)
    >>> book.lower_bound("somebody new")
    50
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from rahba.beta import Interval, interval
from rahba.dealings import Dealings, Outcome, Pair, Weighed, day_of
from rahba.trust import PAIR_MOST, Limits, Trust, personal_trust, saturated

OWN_MOST: Final = 16_000  # what a caller's own deals with an agent count for at most
STRANGERS_MOST: Final = 8_000
KNOWN_HALF: Final = 2_000  # so much paid elsewhere makes a payer half known
SAY_HALF: Final = 8_000  # so much paid elsewhere gives half a say in what failed
ALLEGED_MOST: Final = 2_000
UNKNOWN: Final = 250  # what a payer counts for that is known nowhere else
_TRUSTS_KEPT: Final = 256


class SuccessBounds(Protocol):
    """What a ranking needs to know of reputations."""

    def lower_bound(self, agent: str) -> int:
        """Return a success rate in thousandths that the true one exceeds with 95 %."""
        ...


class Weights(NamedTuple):
    """Evidence in thousandths of a deal; ``alleged`` failures are told by who kept nothing here."""

    kept: int = 0
    failed: int = 0
    alleged: int = 0

    def plus(self, other: Weights) -> Weights:
        """Return the sum."""
        return Weights(
            self.kept + other.kept, self.failed + other.failed, self.alleged + other.alleged
        )

    def minus(self, other: Weights) -> Weights:
        """Return what is left without ``other``, which is part of these."""
        return Weights(
            self.kept - other.kept, self.failed - other.failed, self.alleged - other.alleged
        )

    def share(self, thousandths: int) -> Weights:
        """Return that share of all three."""
        return Weights(*(part * thousandths // 1_000 for part in self))

    def within(self, most: int) -> Weights:
        """Return them in the same proportion, saturated to less than ``most`` together."""
        total = self.kept + self.failed + self.alleged
        if not total:
            return self
        rest = saturated(total, most)
        failed, alleged = rest * self.failed // total, rest * self.alleged // total
        return Weights(rest - failed - alleged, failed, alleged)

    def judged(self) -> Weights:
        """Return what is alleged among the failures, as far as it may weigh."""
        most = self.kept // 2 + ALLEGED_MOST
        return Weights(self.kept, self.failed + saturated(self.alleged, most))

    def rate(self) -> Interval:
        """Return the success rate that they speak for."""
        return interval(self.kept, self.failed)


@dataclass(frozen=True, slots=True)
class Personal:
    """An agent as one caller sees it; ``trust`` is its share of the caller's, in millionths.

    ``known`` of its payers are trusted; what strangers bring is ``strangers`` (thousandths).
    """

    caller: str
    rate: Interval
    evidence: Weights
    strangers: int
    trust: int
    known: int
    own_deals: int
    own_failures: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one agent; rates and evidence in thousandths.

    ``deals``, ``failures`` and ``unclear`` are plain numbers of holds, ``counterparties`` of payers
    with a deal kept; ``effective`` of them (thousandths) is how many equally good ones would weigh
    the same (1 / Simpson's index). ``personal`` is there if a caller asked that has paid somebody.
    """

    agent: str
    at_ms: int
    rate: Interval
    evidence: Weights
    deals: int
    failures: int
    unclear: int
    counterparties: int
    effective: int
    fees_fals: int
    amount_fals: int
    last_ms: int | None
    personal: Personal | None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the figures in words."""
        return tuple(_reasons(self))


class _Payer(NamedTuple):
    """A payer as a witness: what it paid for and what it says failed, by pair saturated."""

    kept: int
    claimed: int


class _Witness(NamedTuple):
    """A payer's deals with the agent; what was kept with all others, and what it says failed."""

    pair: Weighed
    kept: int
    claimed: int

    @property
    def counts(self) -> int:
        """Return how much of its word counts, in thousandths."""
        return UNKNOWN + (1_000 - UNKNOWN) * self.kept // (self.kept + KNOWN_HALF)

    @property
    def say(self) -> int:
        """Return how much of one deal it may allege, in thousandths."""
        if not self.kept:
            return 0
        known = 1_000 * self.kept**2 // (self.kept**2 + SAY_HALF**2)
        return known * self.kept**2 // (self.kept + self.claimed) ** 2

    def part(self) -> Weights:
        """Return what it says to everybody, as far as its word counts."""
        kept, proven, claimed = self.pair
        alleged = min(max(claimed - kept, 0), self.say)
        told = Weights(kept, proven + min(claimed, kept), alleged)
        return told.within(PAIR_MOST).share(self.counts)

    def believed(self, belief: int) -> Weights:
        """Return what it says to somebody who believes it so far (thousandths)."""
        kept, proven, claimed = self.pair
        failed = proven + min(claimed, kept + max(belief, self.say))
        return Weights(kept, failed).within(PAIR_MOST)


class ReputationBook:
    """Standings out of dealings at one ledger time. Pure: the same log gives the same figures.

    ``record`` what ended, ``advance`` the time; figures are kept until something changes them.
    """

    def __init__(self, dealings: Dealings, at_ms: int, limits: Limits | None = None) -> None:
        """Read ``dealings`` as of ledger time ``at_ms``; trust is followed within ``limits``."""
        self.dealings = dealings
        self._at_ms = at_ms
        self._limits = limits
        self._payers: dict[str, _Payer] = {}
        self._parts: dict[str, dict[str, Weights]] = {}  # by agent and payer
        self._sums: dict[str, Weights] = {}
        self._stale: dict[str, set[str]] = {}  # whose part is to be computed again, by agent
        self._trusts: OrderedDict[str, Trust | None] = OrderedDict()

    @property
    def at_ms(self) -> int:
        """Return the ledger time of the figures."""
        return self._at_ms

    def record(self, outcome: Outcome) -> None:
        """Add what ended to the dealings."""
        self.dealings.add(outcome)
        self.heed(outcome)

    def heed(self, outcome: Outcome) -> None:
        """Note what an outcome changes, which is in the dealings already: its payer's words."""
        payer = outcome.payer
        self._payers.pop(payer, None)
        for payee in self.dealings.paid_by(payer):
            if payee in self._parts:
                self._stale.setdefault(payee, set()).add(payer)
        self._trusts.clear()

    def advance(self, at_ms: int) -> None:
        """Move the ledger time on; with a new day everything has faded a little more."""
        if day_of(at_ms) != day_of(self._at_ms):
            for figures in (self._payers, self._parts, self._sums, self._stale, self._trusts):
                figures.clear()
        self._at_ms = max(self._at_ms, at_ms)

    def lower_bound(self, agent: str, caller: str | None = None) -> int:
        """Return a success rate (thousandths) that the true one exceeds with 95 %: for rankings.

        Nobody's is above 1000, a newcomer's is 50.
        """
        trust = self.trust(caller) if caller is not None else None
        rate = self.rate(agent) if trust is None else self._view(agent, trust).rate
        return rate.low

    def rate(self, agent: str) -> Interval:
        """Return the success rate that all its payers speak for."""
        return self._judged(agent).rate()

    def trust(self, caller: str) -> Trust | None:
        """Return whom a caller may believe; ``None`` if it has no deals of its own to go by."""
        if caller in self._trusts:
            self._trusts.move_to_end(caller)
            return self._trusts[caller]
        found = personal_trust(self.dealings, caller, day_of(self._at_ms), self._limits)
        self._trusts[caller] = found
        if len(self._trusts) > _TRUSTS_KEPT:
            self._trusts.popitem(last=False)
        return found

    def standing(self, agent: str, caller: str | None = None) -> Standing:
        """Return all that is known of an agent, and what it is to ``caller``."""
        evidence = self._judged(agent)
        pairs = self.dealings.paid_to(agent)
        trust = self.trust(caller) if caller is not None else None
        return Standing(
            agent=agent,
            at_ms=self._at_ms,
            rate=evidence.rate(),
            evidence=evidence,
            deals=self.dealings.tally(agent).deals,
            failures=sum(pair.failures for pair in pairs.values()),
            unclear=sum(pair.unclear for pair in pairs.values()),
            counterparties=self.dealings.tally(agent).counterparties,
            effective=_effective(pairs, day_of(self._at_ms)),
            fees_fals=sum(pair.fees_fals for pair in pairs.values()),
            amount_fals=sum(pair.amount_fals for pair in pairs.values()),
            last_ms=max((pair.last_ms for pair in pairs.values()), default=None),
            personal=None if trust is None else self._view(agent, trust),
        )

    def _judged(self, agent: str) -> Weights:
        return self._told(agent).judged()

    def _told(self, agent: str) -> Weights:
        """Return what all payers say of an agent, each as far as its word counts."""
        pairs, parts = self.dealings.paid_to(agent), self._parts.get(agent)
        if not pairs:  # anybody may ask for anybody: nothing is kept of strangers
            return Weights()
        if parts is None:
            parts, stale = self._parts.setdefault(agent, {}), set(pairs)
        else:
            stale = self._stale.pop(agent, set())
        total = self._sums.get(agent, Weights())
        for payer in stale:
            part = self._witness(payer, pairs[payer]).part()
            total = total.minus(parts.get(payer, Weights())).plus(part)
            parts[payer] = part
        self._sums[agent] = total
        return total

    def _view(self, agent: str, trust: Trust) -> Personal:
        """Return an agent as a caller sees it: who is no stranger is taken out and weighed anew."""
        strangers, total, known = self._told(agent), Weights(), 0
        pairs, parts = self.dealings.paid_to(agent), self._parts.get(agent, {})
        for payer in {trust.caller, *trust.shares} & pairs.keys():
            witness, belief = self._witness(payer, pairs[payer]), trust.belief(payer)
            strangers = strangers.minus(parts[payer])
            if payer == trust.caller:
                own = witness.pair
                total = total.plus(Weights(own.kept, own.failed).within(OWN_MOST))
                continue
            known += 1
            strangers = strangers.plus(parts[payer].share(1_000 - belief))
            total = total.plus(witness.believed(belief).share(belief))
        some = strangers.within(STRANGERS_MOST).judged()
        total = total.plus(some)
        mine = pairs.get(trust.caller, Pair())
        return Personal(
            caller=trust.caller,
            rate=total.rate(),
            evidence=total,
            strangers=some.kept + some.failed,
            trust=trust.share(agent),
            known=known,
            own_deals=mine.deals,
            own_failures=mine.failures,
        )

    def _witness(self, payer: str, pair: Pair) -> _Witness:
        day = day_of(self._at_ms)
        every, here = self._payer(payer, day), _as_payer(pair.on(day))
        return _Witness(pair.on(day), every.kept - here.kept, every.claimed - here.claimed)

    def _payer(self, payer: str, day: int) -> _Payer:
        found = self._payers.get(payer)
        if found is None:
            words = [_as_payer(pair.on(day)) for pair in self.dealings.paid_by(payer).values()]
            kept, claimed = sum(one.kept for one in words), sum(one.claimed for one in words)
            found = self._payers[payer] = _Payer(kept, claimed)
        return found


def _as_payer(pair: Weighed) -> _Payer:
    """Return what one pair adds to its payer's word; what is proven is no claim of anybody."""
    claims = Weights(pair.kept, pair.claimed).within(PAIR_MOST)
    return _Payer(saturated(pair.kept, PAIR_MOST), claims.failed)


def _effective(pairs: Mapping[str, Pair], day: int) -> int:
    weights = [pair.on(day).kept for pair in pairs.values()]
    squares = sum(weight * weight for weight in weights)
    return 1_000 * sum(weights) ** 2 // squares if squares else 0


def _reasons(one: Standing) -> list[str]:
    rate, found = one.rate, []
    if not one.deals and not one.evidence.failed:
        found.append("no settled deals: what anybody new is given")
    else:
        found.append(
            f"{one.deals} settled deals with {one.counterparties} counterparties, "
            f"as good as {_decimal(one.effective)} equal ones"
        )
        found.append(
            f"evidence worth {_decimal(one.evidence.kept)} deals kept "
            f"and {_decimal(one.evidence.failed)} failed"
        )
    if one.failures:
        found.append(
            f"{one.failures} failed: they count as far as they are proven or their payers known"
        )
    if one.unclear:
        found.append(f"{one.unclear} holds say nothing about it")
    found.append(
        f"success rate {_percent(rate.mean)}, between {_percent(rate.low)} and "
        f"{_percent(rate.high)} (90 %)"
    )
    if one.personal is not None:
        found += _personal_reasons(one.personal)
    return found


def _personal_reasons(own: Personal) -> list[str]:
    rate = own.rate
    return [
        f"for you: {_percent(rate.mean)}, between {_percent(rate.low)} and {_percent(rate.high)}",
        f"your own deals with it: {own.own_deals} settled, {own.own_failures} failed",
        f"you trust {own.known} of its counterparties",
        f"all strangers together count for {_decimal(own.strangers)} deals",
    ]


def _decimal(thousandths: int) -> str:
    return f"{thousandths // 1_000}.{thousandths % 1_000 // 100}"


def _percent(thousandths: int) -> str:
    return f"{thousandths // 10}.{thousandths % 10} %"
