"""What an offer is worth to a buyer: one whole number over price, quality, latency and energy.

The score looks at one offer and what was known before any was made, so no other offer (nor one
that somebody withdraws) can turn the order of two. Whole numbers only: the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agents.negotiation.mandate import Weights
from rahba.encoding import sha256_hex
from rahba.messages import Energy, Issues, Offer

FULL: Final = 1_000_000
_ENERGY_SCALE_UWH: Final = 100_000
NO_LATENCY_LIMIT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Yardstick:
    """How a buyer measures: its weights, the price that is worth nothing to it, its patience."""

    weights: Weights
    price_scale_fals: int
    latency_scale_ms: int = NO_LATENCY_LIMIT_MS

    @property
    def best(self) -> int:
        """Return the score of a perfect service for nothing (1 if nothing matters)."""
        weights = self.weights
        return max(FULL * (weights.price + weights.quality + weights.latency + weights.energy), 1)

    def score(self, issues: Issues) -> int:
        """Return the score; above 0 is better than paying the whole scale for the worst service."""
        return self._price_part(issues.price_fals) + self._service_part(issues)

    def price_matching(self, score: int, issues: Issues) -> int | None:
        """Return the price at which this service scores ``score`` (``None`` if price is no issue).

        It may be negative: then no price makes this service as good.
        """
        weight = self.weights.price
        if weight == 0:
            return None
        scale = max(self.price_scale_fals, 1)
        missing = score - self._service_part(issues)
        return scale - missing * scale // (weight * FULL)

    def worth_fals(self, issues: Issues) -> int:
        """Return what the service is worth in fals: where price is no issue, far more than any."""
        scale = max(self.price_scale_fals, 1)
        return self._service_part(issues) * scale // (max(self.weights.price, 1) * FULL)

    def _price_part(self, price: int) -> int:
        scale = max(self.price_scale_fals, 1)
        return self.weights.price * FULL * (scale - price) // scale

    def _service_part(self, issues: Issues) -> int:
        latency = max(0, self.latency_scale_ms - issues.latency_ms)
        return (
            self.weights.quality * FULL * issues.quality // 1_000
            + self.weights.latency * FULL * latency // max(self.latency_scale_ms, 1)
            + self.weights.energy * _thrift(issues.energy)
        )


def best_first(offers: list[Offer], yardstick: Yardstick, *, nonce: str) -> list[int]:
    """Return the indices of ``offers``, best score first.

    Ties are broken by the buyer's ``nonce``: neither arrival nor a chosen salt is of any help.
    """

    def key(index: int) -> tuple[int, str]:
        offer = offers[index]
        tie = sha256_hex(f"{nonce}{offer.digest()}".encode())
        return (-yardstick.score(offer.issues), tie)

    return sorted(range(len(offers)), key=key)


def _thrift(energy: Energy) -> int:
    """Return 0 to ``FULL``: less is better, and what is not known counts as the worst."""
    if energy.method == "unknown":
        return 0
    return FULL * _ENERGY_SCALE_UWH // (_ENERGY_SCALE_UWH + energy.high)
