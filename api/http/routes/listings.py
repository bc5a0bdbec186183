"""``/v1/listings``: agents elsewhere on the web, put on this market by their URL.

The card is fetched, verified and probed here first, so that whoever lists learns at once what is
wrong with it; the host that makes the bridge looks again, and keeps looking.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from agents.deployments import Deployment, UnknownDeploymentError
from agents.foreign.bridge import A2aConfig, snapshot
from agents.foreign.errors import AlreadyListedError
from agents.foreign.look import knock, see
from agents.pulse import Report
from agents.template import bridges
from agents.templates.crafts.addresses import check_url
from api.http.auth import Principal
from api.http.documents import Id, answers, body_of
from api.http.errors import NotYoursError
from api.http.gateway import Gateway, gateway_of
from api.http.listing_documents import ListingDocument, ListingPage
from api.http.reading import form, json_body
from api.http.replies import Reply
from rahba.encoding import sha256_hex
from rahba.money import format_rhb, parse_fals, parse_rhb, wire_fals

router: Final = APIRouter(prefix="/v1", tags=["deploy"])
TEMPLATE: Final = "a2a"
_OWNERS: Final = "{p}:owners"
_LIVE: Final = frozenset({"pending", "running", "stopping"})


class NewListing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/listings``; ``price`` is what a call costs, in fals."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    price: Annotated[str, msgspec.Meta(max_length=20)] = "0"
    call_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    probe_seconds: Annotated[int, msgspec.Meta(ge=1, le=300)] = 20

    def settings(self) -> dict[str, Any]:
        """Return what the lister chose of a bridge's settings."""
        return {
            "price": format_rhb(parse_fals(self.price)),
            "call_seconds": self.call_seconds,
            "probe_seconds": self.probe_seconds,
        }


@router.post(
    "/listings",
    status_code=202,
    responses=answers(ListingDocument, 202, 401, 404, 409, 413, 415, 422, 429, 502),
    openapi_extra=body_of(NewListing, secured=True) | {"parameters": []},
)
async def list_by_url(request: Request) -> Response:
    """List an A2A agent by its URL: its card is fetched, verified and probed, then it is bridged.

    The same account asking for the same again gets the listing that there is.
    """
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)
    _, body = await json_body(request, max_depth=gateway.settings.max_json_depth)
    wanted = form(body, NewListing)
    _ = wanted.settings()  # what is malformed is refused before anybody is asked
    url = str(check_url(wanted.url)).rstrip("/")
    listing = sha256_hex(f"{principal.account} {url}".encode())[:32]
    record = await _standing(gateway, listing, wanted)
    if record is None:
        record = await _look_and_list(gateway, principal, wanted, url, listing)
    headers |= {"location": f"/v1/listings/{record.id}"}
    return Reply(await _document(gateway, record), 202, headers)


@router.get("/listings", responses=answers(ListingPage))
async def read_listings(request: Request) -> Response:
    """Return every agent that was listed by URL, oldest first."""
    gateway = gateway_of(request)
    records = [each for each in await gateway.deployments().all() if each.template == TEMPLATE]
    shown = await asyncio.gather(*(_document(gateway, record) for record in records))
    return Reply({"listings": shown})


@router.get("/listings/{listing}", responses=answers(ListingDocument, 200, 404, 422))
async def read_listing(request: Request, listing: Id) -> Response:
    """Return one of them."""
    gateway = gateway_of(request)
    return Reply(await _document(gateway, await _found(gateway, listing)))


@router.delete(
    "/listings/{listing}",
    status_code=202,
    responses=answers(ListingDocument, 202, 401, 403, 404, 409, 422, 429),
    openapi_extra={"security": [{"key": []}]},
)
async def end_listing(request: Request, listing: Id) -> Response:
    """Take a listed agent off the market; asking again changes nothing."""
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)
    record = await _found(gateway, listing)
    owner = await gateway.parts.wire.call("HGET", _OWNERS, listing)
    if owner is None or owner.decode() != principal.account:
        raise NotYoursError("another account listed this agent")
    record = await gateway.deployments().stop(record.id)
    return Reply(await _document(gateway, record), 202, headers)


async def _standing(gateway: Gateway, listing: str, wanted: NewListing) -> Deployment | None:
    """Return the listing that stands already, if it is the one that is wanted."""
    try:
        record = await gateway.deployments().get(listing)
    except UnknownDeploymentError:
        return None
    if record.state not in _LIVE:
        return None
    kept = {name: record.config.get(name) for name in wanted.settings()}
    if record.state == "stopping" or kept != wanted.settings():
        raise AlreadyListedError("this URL is listed on other terms, or just ends", listing=listing)
    if wanted.name not in {None, record.name}:
        raise AlreadyListedError("this URL is listed under another name", listing=listing)
    return record


async def _look_and_list(
    gateway: Gateway, principal: Principal, wanted: NewListing, url: str, listing: str
) -> Deployment:
    private = gateway.settings.allow_private
    async with gateway.visits.turn(principal.hash):
        sight = await see(url, allow_private=private)
        _ = await knock(sight.card, allow_private=private)
    settings = wanted.settings() | ({"allow_private": True} if private else {})
    name, config = snapshot(sight, url, principal.account, name=wanted.name, **settings)
    wire = gateway.parts.wire
    await wire.call("HSET", _OWNERS, listing, principal.account)
    await gateway.reports.remove(listing)
    try:
        return await gateway.deployments().deploy(TEMPLATE, name, config, under=listing)
    except BaseException:
        await wire.call("HDEL", _OWNERS, listing)
        raise


async def _found(gateway: Gateway, listing: str) -> Deployment:
    record = await gateway.deployments().get(listing)
    if record.template != TEMPLATE:
        raise UnknownDeploymentError("there is no such listing")
    return record


async def _document(gateway: Gateway, record: Deployment) -> dict[str, Any]:
    config = bridges()[TEMPLATE].configure(record.config)
    assert isinstance(config, A2aConfig)
    raw = await gateway.reports.get(record.id)
    report = Report(0) if raw is None else msgspec.json.decode(raw, type=Report)
    state: str = record.state
    if state == "running" and record.agent is not None:
        listing = await gateway.parts.broker.directory.get(record.agent)
        state = "silent" if listing is None else "listed"
    return {
        "id": record.id,
        "name": record.name,
        "url": config.url,
        "endpoint": config.endpoint,
        "protocol": config.protocol,
        "seal": config.seal,
        "lister": config.lister,
        "agent": record.agent,
        "state": state,
        "price": wire_fals(parse_rhb(config.price)),
        "skills": [{"skill": each.skill, "id": each.id} for each in config.skills],
        "created": record.created,
        "checked": report.checked or None,
        "latency_ms": report.latency_ms,
        "failures": report.failures,
        "code": report.code,
        "error": record.error or report.error,
    }
