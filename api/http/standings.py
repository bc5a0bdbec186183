"""A standing as a model, for the OpenAPI document; what is sent is :mod:`api.standings`'."""

from __future__ import annotations

from pydantic import Field

from api.http.fields import Document, Fals, Millis

_Thousandths = Field(ge=0, le=1_000, description="thousandths")
_Deals = Field(ge=0, description="thousandths of an ordinary deal")


class LogDocument(Document):
    """The entries that figures are of: so many, under this Merkle root, at this ledger time."""

    size: int
    root: str
    log_time: int = Millis


class RateDocument(Document):
    """A success rate; the true one lies between ``low`` and ``high`` with 90 %."""

    mean: int = _Thousandths
    low: int = _Thousandths
    high: int = _Thousandths


class GlanceDocument(RateDocument):
    """A success rate, and how many deals with how many counterparties were settled for it.

    As of what the gateway has read of the log: ``/reputation`` tells of which entries.
    """

    deals: int
    counterparties: int


class EvidenceDocument(Document):
    """What the rate was computed from: deals kept and failed, as far as they count."""

    kept: int = _Deals
    failed: int = _Deals


class PersonalDocument(Document):
    """An agent as one caller sees it. ``trust`` is its share of the caller's, in millionths.

    ``known`` of its counterparties are trusted; ``strangers`` is what all others count for.
    """

    caller: str
    rate: RateDocument
    evidence: EvidenceDocument
    strangers: int = _Deals
    trust: int = Field(ge=0, le=1_000_000, description="millionths")
    known: int
    own_deals: int
    own_failures: int


class StandingDocument(Document):
    """What settled deals say of an agent.

    ``deals``, ``failures`` and ``unclear`` are numbers of holds that ended so. ``personal`` is null
    unless a caller was named that has paid somebody who kept a deal.
    """

    agent: str
    method: str
    log: LogDocument
    rate: RateDocument
    evidence: EvidenceDocument
    deals: int
    failures: int
    unclear: int
    counterparties: int
    effective_counterparties: int = Field(
        ge=0, description="thousandths: so many equally good ones would weigh the same"
    )
    fees_fals: str = Fals
    paid_fals: str = Fals
    last: int | None = Field(description="when the newest of them ended, ledger time")
    personal: PersonalDocument | None
    reasons: list[str]
