"""A standing as JSON: one shape for the gateway and the command line.

Rates and evidence are thousandths, amounts strings of fals. ``log`` says of which entries the
figures are: ``rahba reputation AGENT --at SIZE`` computes the same from any copy of the log.
"""

from __future__ import annotations

from typing import Final

from rahba.beta import Interval
from rahba.dealings import Tally
from rahba.encoding import Json
from rahba.standing import Personal, Standing, Weights
from wallet.reputation import Basis

METHOD: Final = "rahba-reputation/1"


def standing_document(one: Standing, basis: Basis) -> dict[str, Json]:
    """Return a standing with the entries that it was computed from."""
    return {
        "agent": one.agent,
        "method": METHOD,
        "log": {"size": basis.size, "root": basis.root, "log_time": basis.log_time},
        "rate": _rate(one.rate),
        "evidence": _evidence(one.evidence),
        "deals": one.deals,
        "failures": one.failures,
        "unclear": one.unclear,
        "counterparties": one.counterparties,
        "effective_counterparties": one.effective,
        "fees_fals": str(one.fees_fals),
        "paid_fals": str(one.amount_fals),
        "last": one.last_ms,
        "personal": None if one.personal is None else _personal(one.personal),
        "reasons": list(one.reasons),
    }


def glance_document(rate: Interval, tally: Tally) -> dict[str, Json]:
    """Return what a list says of an agent's standing."""
    return {**_rate(rate), "deals": tally.deals, "counterparties": tally.counterparties}


def _personal(own: Personal) -> dict[str, Json]:
    return {
        "caller": own.caller,
        "rate": _rate(own.rate),
        "evidence": _evidence(own.evidence),
        "strangers": own.strangers,
        "trust": own.trust,
        "known": own.known,
        "own_deals": own.own_deals,
        "own_failures": own.own_failures,
    }


def _rate(rate: Interval) -> dict[str, Json]:
    return {"mean": rate.mean, "low": rate.low, "high": rate.high}


def _evidence(evidence: Weights) -> dict[str, Json]:
    return {"kept": evidence.kept, "failed": evidence.failed}
