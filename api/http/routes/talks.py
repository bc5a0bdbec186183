"""``/v1/negotiations``, ``/v1/deals`` and ``/v1/feed``: what is being said and what came of it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.http.documents import (
    DealDocument,
    Digest,
    Id,
    NegotiationDocument,
    NegotiationPage,
    answers,
    stream_answers,
)
from api.http.errors import UnknownDealError, UnknownNegotiationError
from api.http.gateway import Gateway, gateway_of
from api.http.negotiations import deal, negotiation, summary
from api.http.reading import make_cursor, read_cursor
from api.http.replies import Reply
from api.http.sse import EventStream, parse_event_id
from broker.ports import ThreadView
from rahba.errors import BadInputError
from rahba.ids import check_digest, check_id
from wallet.wire import plain

router: Final = APIRouter(prefix="/v1")
_MAX_KINDS: Final = 16


@router.get("/negotiations", responses=answers(NegotiationPage, 200, 422), tags=["market"])
async def list_negotiations(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=4096)] = None,
) -> Response:
    """Return the negotiations, newest first."""
    threads = gateway_of(request).parts.broker.threads
    before_ms, seen = read_cursor(cursor, tuple[int, list[str]]) if cursor else (None, [])
    groups = await threads.recent(
        limit=limit + len(seen), before_ms=None if before_ms is None else before_ms + 1
    )
    fresh = [group for group in groups if group not in seen][:limit]
    views = await asyncio.gather(*(threads.group(group) for group in fresh))
    shown = [(group, found) for group, found in zip(fresh, views, strict=True) if found]
    documents = [summary(group, found) for group, found in shown]
    return Reply(
        {
            "negotiations": documents,
            "next_cursor": _next(shown, seen, before_ms) if len(fresh) == limit else None,
        }
    )


@router.get(
    "/negotiations/{group}", responses=answers(NegotiationDocument, 200, 404, 422), tags=["market"]
)
async def read_negotiation(
    request: Request, group: Id, raw: Annotated[int, Query(ge=0, le=1)] = 0
) -> Response:
    """Return every thread of one negotiation; ``raw=1`` adds the signed bytes (base64)."""
    threads = await gateway_of(request).parts.broker.threads.group(check_id(group))
    if not threads:
        raise UnknownNegotiationError("there is no such negotiation", group=group)
    return Reply(negotiation(group, threads, raw=bool(raw)))


@router.get("/deals/{digest}", responses=answers(DealDocument, 200, 404, 422), tags=["market"])
async def read_deal(request: Request, digest: Digest) -> Response:
    """Return a deal with all that proves it: signatures, receipt, hold, capture, inclusion."""
    gateway = gateway_of(request)
    view = await gateway.parts.broker.threads.deal(check_digest(digest))
    if view is None:
        raise UnknownDealError("there is no such deal", digest=digest)
    return Reply(deal(view) | await _money(gateway, view))


@router.get("/feed", responses=stream_answers(), tags=["market"])
async def follow_feed(
    request: Request,
    kinds: Annotated[str | None, Query(max_length=400)] = None,
    tail: Annotated[int, Query(ge=0, le=1000)] = 0,
    last_event_id: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Follow the public events of the market, from now or after ``Last-Event-ID``.

    ``kinds`` names the wanted kinds, parted by commas; ``tail`` begins with that many past events.
    """
    gateway = gateway_of(request)
    wanted = None if kinds is None else frozenset(kind for kind in kinds.split(",") if kind)
    if wanted is not None and not 0 < len(wanted) <= _MAX_KINDS:
        raise BadInputError("name 1 to 16 kinds", limit=_MAX_KINDS)
    after = request.headers.get("last-event-id") or last_event_id
    if after is not None:
        parse_event_id(after)
    elif tail == 0:
        after = await gateway.hub.now()
    return EventStream(gateway.hub.follow(after, wanted, tail=tail), gateway.seats)


async def _money(gateway: Gateway, view: ThreadView) -> dict[str, object]:
    """Return hold, capture and inclusion proof, as far as the ledger has them."""
    ledger, hold_id, tx = gateway.parts.ledger, view.facts.get("hold"), view.facts.get("tx")
    hold = await ledger.hold(hold_id) if hold_id else None
    proof = await ledger.inclusion(tx) if tx else None
    return {
        "hold": None if hold is None else plain(hold),
        "inclusion": None if proof is None else plain(proof),
    }


def _next(
    shown: list[tuple[str, list[ThreadView]]], seen: list[str], before_ms: int | None
) -> str | None:
    """Write the cursor after this page: its last millisecond, and what was shown of it."""
    times = {group: int(views[0].facts.get("opened_ms") or 0) for group, views in shown}
    if not times:
        return None
    last_ms = min(times.values())
    told = [group for group, at_ms in times.items() if at_ms == last_ms]
    return make_cursor(last_ms, [*(seen if last_ms == before_ms else []), *told])
