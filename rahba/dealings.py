"""Who dealt with whom and how it ended: the sums that a reputation is made of, by pair.

* An :class:`Outcome` is one hold that ended. Nothing else counts: no rating, no word of anybody.
* What a deal weighs is what was really paid in fees for it, in the ledger's own unit: fees are the
  one thing that does not come back to somebody who deals with himself. The amount weighs nothing.
* Everything fades: after ``HALF_LIFE_DAYS`` it counts half. Instead of shrinking what is old, what
  is new is written larger (forward decay, Cormode et al. 2009). So a pair is a handful of integers,
  however many deals it had, and the order in which they are added changes no digit.

Weights are thousandths of an ordinary deal.

    >>> book = Dealings(unit_fals=1_000)
    >>> book.add(Outcome("buyer", "seller", 5_000_000, 2_000, 1_700_000_000_000, "kept"))
    >>> book.paid_to("seller")["buyer"].on(day_of(1_700_000_000_000)).kept
    1000
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from hashlib import sha256
from math import isqrt
from typing import Final, Literal, NamedTuple, Self

from rahba.encoding import canonical, decode
from rahba.errors import BadInputError

HALF_LIFE_DAYS: Final = 90
DAY_MS: Final = 86_400_000
DEAL: Final = 1_000  # an ordinary deal, in thousandths
MOST: Final = 2_000  # what one deal weighs at most, whatever was paid for it
WITHDRAWN: Final = 250  # what a promise given back at once weighs
_PRECISION: Final = 32  # bits
Ending = Literal["kept", "forfeited", "missed", "given_back", "lapsed", "unclear"]
"""How a hold ended for its payee.

``kept``: it took at least half. ``given_back``: it took less, or gave the hold back. ``lapsed``: it
let the hold's time run out. Of these two nobody knows whether it had agreed to the deal at all.
Where its own pledge is in the hold, it had: ``forfeited`` is given back with some of that pledge,
``missed`` is lapsed without a word. ``unclear``: what happened says nothing about it.
"""
_WITHDRAWN: Final = frozenset({"given_back", "forfeited"})
_PROVEN: Final = frozenset({"forfeited", "missed"})


class Outcome(NamedTuple):
    """A hold that ended.

    ``amount_fals`` is what its payee got, ``fee_fals`` all fees that were paid on it. ``waited`` is
    how much of its time had passed when it was given back, in thousandths.
    """

    payer: str
    payee: str
    amount_fals: int
    fee_fals: int
    ended_ms: int
    ending: Ending
    waited: int = 0


class BadDealingsError(BadInputError):
    """Kept sums of dealings cannot be read."""

    code = "bad_dealings"
    hint = "delete what was kept: it is computed again from the log"


@dataclass(slots=True)
class Pair:
    """All deals between one payer and one payee.

    ``kept``, ``proven`` failures and ``claimed`` ones are weights, written larger the later (see
    the module); the numbers and sums after them are as they were.
    """

    kept: int = 0
    proven: int = 0
    claimed: int = 0
    deals: int = 0
    failures: int = 0
    unclear: int = 0
    fees_fals: int = 0
    amount_fals: int = 0
    last_ms: int = 0

    def on(self, day: int) -> Weighed:
        """Return what the deals weigh on a day."""
        factor = growth(day)
        return Weighed(self.kept // factor, self.proven // factor, self.claimed // factor)


class Weighed(NamedTuple):
    """What deals weigh, in thousandths: kept, proven to have failed, and claimed to have."""

    kept: int
    proven: int
    claimed: int

    @property
    def failed(self) -> int:
        """Return what all failures weigh, proven or not."""
        return self.proven + self.claimed


class Tally(NamedTuple):
    """How many deals a payee has kept, and with how many payers."""

    deals: int
    counterparties: int


class Dealings:
    """The pairs of a whole log. Adding outcomes in another order leads to the same digest."""

    def __init__(self, unit_fals: int) -> None:
        """Begin with nothing; ``unit_fals`` is the fee that the ledger asks of a transaction.

        On a ledger that asks for none, nothing weighs anything.
        """
        self.unit_fals = unit_fals
        self._payees: dict[str, dict[str, Pair]] = {}
        self._payers: dict[str, dict[str, Pair]] = {}
        self._tallies: dict[str, Tally] = {}

    def add(self, outcome: Outcome) -> None:
        """Add one outcome."""
        pair = self._pair(outcome.payer, outcome.payee)
        pair.fees_fals += outcome.fee_fals
        pair.amount_fals += outcome.amount_fals
        pair.last_ms = max(pair.last_ms, outcome.ended_ms)
        self._count_in(outcome, pair, 1)

    def take_back(self, outcome: Outcome) -> None:
        """Take out an outcome that was added before: it was not the last word on its hold."""
        pair = self._pair(outcome.payer, outcome.payee)
        pair.fees_fals -= outcome.fee_fals
        pair.amount_fals -= outcome.amount_fals
        self._count_in(outcome, pair, -1)

    def paid_to(self, payee: str) -> Mapping[str, Pair]:
        """Return who dealt with a payee."""
        return self._payees.get(payee, {})

    def paid_by(self, payer: str) -> Mapping[str, Pair]:
        """Return with whom a payer dealt."""
        return self._payers.get(payer, {})

    def tally(self, payee: str) -> Tally:
        """Return how many deals a payee has kept."""
        return self._tallies.get(payee, Tally(0, 0))

    @property
    def payees(self) -> Iterable[str]:
        """Return everybody who was to be paid."""
        return self._payees.keys()

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all sums: equal for everybody who read the same log."""
        found = sha256(canonical([str(self.unit_fals)]))
        for row in self.rows():
            found.update(canonical(list(row)))
        return found.hexdigest()

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield every pair, sorted: payer, payee and the sums of :class:`Pair` in decimal."""
        for payer in sorted(self._payers):
            for payee, pair in sorted(self._payers[payer].items()):
                yield (payer, payee, *map(str, astuple(pair)))

    def dump(self) -> bytes:
        """Write all sums, for :meth:`load`."""
        lines = [canonical([str(self.unit_fals)]), *(canonical(list(row)) for row in self.rows())]
        return b"\n".join(lines)

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """Read what :meth:`dump` wrote.

        Raises:
            BadDealingsError: it is something else. Whether it is true is not checked.
        """
        try:
            head, *rows = [_strings(line) for line in raw.split(b"\n")]
            found = cls(int(head[0]))
            for payer, payee, *sums in rows:
                pair = found._pair(payer, payee)
                for field, said in zip(fields(pair), sums, strict=True):
                    setattr(pair, field.name, int(said))
                found._count(payee, pair.deals, pair.deals > 0)
        except (ValueError, IndexError, BadInputError) as error:
            raise BadDealingsError("not kept sums of dealings") from error
        return found

    def _count_in(self, outcome: Outcome, pair: Pair, times: int) -> None:
        """Count an outcome among those of a pair, or (``times`` -1) no longer."""
        grown = times * weight_of(outcome, self.unit_fals) * growth(day_of(outcome.ended_ms))
        if outcome.ending == "kept":
            before = pair.deals
            pair.deals += times
            pair.kept += grown
            self._count(outcome.payee, times, (pair.deals > 0) - (before > 0))
        elif outcome.ending == "unclear":
            pair.unclear += times
        else:
            pair.failures += times
            if outcome.ending in _PROVEN:
                pair.proven += grown
            else:
                pair.claimed += grown

    def _count(self, payee: str, deals: int, payers: int) -> None:
        if deals:
            before = self.tally(payee)
            self._tallies[payee] = Tally(before.deals + deals, before.counterparties + payers)

    def _pair(self, payer: str, payee: str) -> Pair:
        ours = self._payers.setdefault(payer, {})
        pair = ours.get(payee)
        if pair is None:
            pair = ours[payee] = Pair()
            self._payees.setdefault(payee, {})[payer] = pair
        return pair


def _strings(line: bytes) -> list[str]:
    value = decode(line)
    if not isinstance(value, list):
        raise BadDealingsError("not a row")
    return [str(item) for item in value]


def weight_of(outcome: Outcome, unit_fals: int) -> int:
    """Return what an outcome weighs on its day, in thousandths of an ordinary deal.

    An ordinary deal pays two fees (hold and capture) and weighs ``DEAL``. Paying more weighs more
    by the square root, at most ``MOST``: it buys less than another deal would. A failure pays one
    fee and weighs ``DEAL`` at most, and less the sooner the hold was given back.
    """
    if unit_fals <= 0 or outcome.ending == "unclear":
        return 0
    usual, most = (2, MOST) if outcome.ending == "kept" else (1, DEAL)
    weight = min(most, isqrt(DEAL * DEAL * outcome.fee_fals // (usual * unit_fals)))
    if outcome.ending in _WITHDRAWN:
        waited = min(max(outcome.waited, 0), DEAL)
        weight = weight * (WITHDRAWN + (DEAL - WITHDRAWN) * waited // DEAL) // DEAL
    return weight


def day_of(ledger_ms: int) -> int:
    """Return the day of a ledger time (UTC), counted from the Unix epoch."""
    return ledger_ms // DAY_MS


@lru_cache(maxsize=4_096)
def growth(day: int) -> int:
    """Return how large a weight of that day is written: twice as large every half-life."""
    halvings, rest = divmod(day, HALF_LIFE_DAYS)
    return _root(rest) << halvings


@lru_cache(maxsize=HALF_LIFE_DAYS)
def _root(rest: int) -> int:
    """Return 2^(_PRECISION + rest / HALF_LIFE_DAYS), rounded down: an integer's exact root."""
    power = 1 << (_PRECISION * HALF_LIFE_DAYS + rest)
    found = 1 << (_PRECISION + 1)  # Newton's method from above
    while True:
        n = HALF_LIFE_DAYS
        closer = ((n - 1) * found + power // found ** (n - 1)) // n
        if closer >= found:
            return found
        found = closer
