"""``/v1/prices/{skill}``: what a skill cost, and what it is expected to, with naive beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.http.documents import answers
from api.http.gateway import gateway_of
from api.http.price_documents import PricesDocument, SkillName
from api.http.replies import Reply
from broker.knowledge.flags import Flag
from broker.knowledge.forecast import INTERVAL, Forecast, course_for
from broker.knowledge.history import MAX_HOURS, Bucket, History
from broker.observer import Observer
from rahba.ids import check_skill
from rahba.money import wire_fals

router: Final = APIRouter(prefix="/v1")


@router.get("/prices/{skill}", responses=answers(PricesDocument, 200, 422), tags=["market"])
async def read_prices(
    request: Request,
    skill: SkillName,
    buckets: Annotated[int, Query(ge=0, le=MAX_HOURS)] = MAX_HOURS,
) -> Response:
    """Return what settled deals of a skill cost, and a forecast; empty if there was none.

    ``buckets`` is how many of the newest minutes and hours are shown at most.
    """
    gateway = gateway_of(request)
    now_ms = gateway.parts.clock.now_ms()
    return Reply(prices_of(check_skill(skill), gateway.observer, now_ms, buckets=buckets))


def prices_of(skill: str, observer: Observer, now_ms: int, *, buckets: int) -> dict[str, object]:
    """Return the document on a skill's prices."""
    history = observer.history(skill)
    known = history or History()
    found = observer.outlook(skill)
    return {
        "skill": skill,
        "deals": known.deals,
        "last_fals": None if history is None else wire_fals(history.last),
        "last_at": None if history is None else history.last_ms,
        "forecast": None if found is None else _forecast(known, found, now_ms),
        "minutes": _buckets(known.minutes.buckets(), buckets),
        "hours": _buckets(known.hours.buckets(), buckets),
    }


def flag_document(flag: Flag) -> dict[str, object]:
    """Return a flag as the cards of its agents show it."""
    return {
        "kind": flag.kind,
        "agents": list(flag.agents),
        "skill": flag.skill,
        "agreement": flag.agreement,
        "reason": flag.reason,
        "score": flag.score,
        "times": flag.times,
        "since": flag.since_ms,
        "until": flag.until_ms,
    }


def _forecast(history: History, found: Forecast, now_ms: int) -> dict[str, object]:
    width_ms = course_for(history).width_ms
    first_ms = now_ms // width_ms * width_ms
    rows = zip(found.values, found.low, found.high, found.naive, strict=True)
    return {
        "method": found.method,
        "width_ms": width_ms,
        "interval": INTERVAL,
        "errors_fals": {method: round(error, 1) for method, error in found.errors.items()},
        "steps": [
            {
                "start": first_ms + place * width_ms,
                "value_fals": wire_fals(round(value)),
                "low_fals": wire_fals(round(low)),
                "high_fals": wire_fals(round(high)),
                "naive_fals": wire_fals(round(naive)),
            }
            for place, (value, low, high, naive) in enumerate(rows)
        ],
    }


def _buckets(buckets: Sequence[Bucket], most: int) -> list[dict[str, object]]:
    return [
        {
            "start": bucket.start_ms,
            "deals": bucket.count,
            "low_fals": wire_fals(bucket.low),
            "median_fals": wire_fals(bucket.median),
            "high_fals": wire_fals(bucket.high),
            "volume_fals": wire_fals(bucket.volume),
        }
        for bucket in buckets[len(buckets) - min(most, len(buckets)) :]
    ]
