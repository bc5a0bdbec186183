"""``/v1/agents``: who is on the market, found and listed."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Query, Request, Response

from agents.errors import UnknownAgentError
from api.http.bodies import cards_body
from api.http.documents import (
    AgentDocument,
    AgentPage,
    Did,
    PublicationPage,
    answers,
)
from api.http.errors import MediaTypeError
from api.http.gateway import Gateway, gateway_of
from api.http.reading import media_type, read_weights
from api.http.replies import Reply
from api.http.routes.prices import flag_document
from api.standings import glance_document
from broker.ports import Listing, Privacy, Published, Sort, Weights
from broker.ports import Query as Search
from rahba.encoding import b64
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import check_skill, key_of
from rahba.messages import SkillOffer
from rahba.money import parse_fals

router: Final = APIRouter(prefix="/v1")
MAX_CARDS: Final = 1_000
NDJSON: Final = "application/x-ndjson"
_envelopes: Final = msgspec.json.Decoder(list[msgspec.Raw])


@router.get("/agents", responses=answers(AgentPage, 200, 422), tags=["market"])
async def list_agents(  # noqa: PLR0917  # one argument a query field
    request: Request,
    skill: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=2_000)] = None,
    tag: Annotated[list[Annotated[str, Query(max_length=64)]] | None, Query(max_length=8)] = None,
    max_price: Annotated[str | None, Query(max_length=20)] = None,
    max_latency_ms: Annotated[int | None, Query(ge=0, le=10**12)] = None,
    min_quality: Annotated[int | None, Query(ge=0, le=1_000)] = None,
    max_energy: Annotated[int | None, Query(ge=0, le=10**12)] = None,
    data_policy: Privacy | None = None,
    meaning: bool | None = None,
    sort: Sort = "best",
    weights: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return the agents on the market, best first, with the reasons for their places.

    ``weights`` as ``price:50,latency:20,quality:20,energy:10``; what is not named counts nothing.
    """
    gateway = gateway_of(request)
    page = await gateway.parts.broker.directory.find(
        Search(
            skill=None if skill is None else check_skill(skill),
            text=q,
            tags=tuple(tag or ()),
            max_price=None if max_price is None else parse_fals(max_price),
            max_latency_ms=max_latency_ms,
            min_quality=min_quality,
            max_energy=max_energy,
            data_policy=data_policy,
            meaning=meaning,
            sort=sort,
            weights=Weights() if weights is None else Weights(**read_weights(weights)),
            limit=limit,
            cursor=cursor,
        )
    )
    agents = [
        _agent(listing, gateway) | {"reasons": list(reasons)}
        for listing, reasons in zip(page.listings, page.reasons, strict=True)
    ]
    return Reply({"agents": agents, "next_cursor": page.next_cursor, "notes": list(page.notes)})


@router.post(
    "/agents",
    responses=answers(PublicationPage, 200, 401, 413, 415, 422, 429),
    openapi_extra=cards_body(),
    tags=["market"],
)
async def publish_agents(request: Request) -> Response:
    """List signed cards, each under its own lease; one that is refused does not stop the others.

    A JSON array of envelopes, or NDJSON with one a line. Listing a card again renews its lease.
    """
    gateway = gateway_of(request)
    _, headers = await gateway.spender(request)
    cards = _cards(media_type(request), await request.body())
    done = await gateway.parts.broker.directory.publish_many(cards)
    results = [_published(one) for one in done]
    refused = sum(one.code is not None for one in done)
    body = {"results": results, "listed": len(done) - refused, "refused": refused}
    return Reply(body, 200, headers)


@router.get("/agents/{agent}", responses=answers(AgentDocument, 200, 404, 422), tags=["market"])
async def read_agent(request: Request, agent: Did) -> Response:
    """Return one agent on the market with its signed card."""
    key_of(agent)
    listing = await gateway_of(request).parts.broker.directory.get(agent)
    if listing is None:
        raise UnknownAgentError("no such agent is on the market now", agent=agent)
    return Reply(_agent(listing, gateway_of(request)) | {"reasons": [], "card": b64(listing.raw)})


def _cards(kind: str, body: bytes) -> list[bytes]:
    """Take a body apart into envelopes, their bytes as they came: they are what was signed."""
    if kind == NDJSON:
        cards = [line.strip() for line in body.split(b"\n") if line.strip()]
    elif kind == "application/json":
        try:
            cards = [bytes(raw) for raw in _envelopes.decode(body)]
        except msgspec.DecodeError as error:
            raise BadInputError(f"the body is no JSON array: {error}") from error
    else:
        raise MediaTypeError("this route reads application/json and application/x-ndjson")
    if len(cards) > MAX_CARDS:
        raise TooLargeError("too many cards at once", cards=len(cards), limit=MAX_CARDS)
    return cards


def _published(one: Published) -> dict[str, Any]:
    listing = one.listing
    return {
        "place": one.place,
        "agent": None if listing is None else listing.card.agent,
        "digest": None if listing is None else listing.digest,
        "lease_until": None if listing is None else listing.lease_until_ms,
        "code": one.code,
        "detail": one.detail,
    }


def _agent(listing: Listing, gateway: Gateway) -> dict[str, object]:
    card = listing.card
    return {
        "id": card.agent,
        "name": card.name,
        "description": card.description,
        "version": card.version,
        "template": card.template,
        "data_policy": card.data_policy,
        "skills": [_skill(entry) for entry in card.skills],
        "lease_until": listing.lease_until_ms,
        "digest": listing.digest,
        "flags": [flag_document(flag) for flag in gateway.observer.flags(card.agent)],
        "success": glance_document(*gateway.reputations.glance(card.agent)),
    }


def _skill(entry: SkillOffer) -> dict[str, object]:
    posted = entry.posted
    return {
        "skill": entry.skill,
        "description": entry.description,
        "tags": entry.tags,
        "negotiable": entry.negotiable,
        "price_fals": None if posted is None else posted.issues.price,
        "posted": None if posted is None else msgspec.to_builtins(posted),
        "tiers": msgspec.to_builtins(entry.tiers),
        "input_schema": _schema(entry.input_schema),
        "output_schema": _schema(entry.output_schema),
    }


def _schema(text: str) -> object:
    """Return a card's schema as JSON; what a stranger wrote wrongly is shown as nothing."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
