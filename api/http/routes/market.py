"""``/v1/templates``, ``/v1/deployments`` and ``/v1/agents``: what can be deployed, who is here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
import orjson
from fastapi import APIRouter, Query, Request, Response

from agents.deployments import Deployment, UnknownDeploymentError
from agents.errors import UnknownAgentError
from agents.template import registry
from api.http.auth import Principal
from api.http.documents import (
    AgentDocument,
    AgentPage,
    DeploymentDocument,
    DeploymentPage,
    Did,
    Id,
    TemplatePage,
    answers,
    body_of,
)
from api.http.errors import NotYoursError
from api.http.gateway import Gateway, gateway_of
from api.http.idempotency import Answer, Reservation, request_hash
from api.http.reading import form, json_body
from api.http.replies import Reply
from api.http.routes.prices import flag_document
from api.standings import glance_document
from broker.ports import Listing
from broker.ports import Query as Search
from rahba.encoding import b64
from rahba.ids import check_skill, key_of
from rahba.messages import SkillOffer
from rahba.money import parse_fals

router: Final = APIRouter(prefix="/v1")
_OWNERS: Final = "{p}:owners"


class NewDeployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/deployments``."""

    template: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    config: dict[str, Any] = {}


@router.get("/templates", responses=answers(TemplatePage), tags=["deploy"])
async def list_templates() -> Response:
    """Return every template with the JSON Schema of its configuration."""
    templates = await asyncio.to_thread(registry)
    found = [
        {
            "name": template.name,
            "title": template.title,
            "description": template.description,
            "version": template.version,
            "config_schema": template.schema(),
        }
        for template in templates.values()
    ]
    return Reply({"templates": found})


@router.post(
    "/deployments",
    status_code=202,
    responses=answers(DeploymentDocument, 202, 401, 409, 413, 415, 422, 429),
    openapi_extra=body_of(NewDeployment, secured=True),
    tags=["deploy"],
)
async def deploy(request: Request) -> Response:
    """Deploy an agent from a template: a host takes it, tests it and puts it on the market."""
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)
    raw, body = await json_body(request, max_depth=gateway.settings.max_json_depth)
    wanted = form(body, NewDeployment)
    key = request.headers.get("idempotency-key")
    if key is None:
        return await _deploy(gateway, principal, wanted, gateway.parts.ids.new(), headers)
    digest = request_hash("POST", "/v1/deployments", raw)
    reserved = await gateway.idempotency.reserve(principal.hash, key, digest, principal.box)
    if isinstance(reserved, Answer):
        return Reply(reserved.body, reserved.status, reserved.headers | headers)
    return await _deploy_once(gateway, principal, wanted, reserved, headers)


@router.get("/deployments", responses=answers(DeploymentPage), tags=["deploy"])
async def list_deployments(request: Request) -> Response:
    """Return every deployment, oldest first."""
    records = await gateway_of(request).deployments().all()
    return Reply({"deployments": [msgspec.to_builtins(record) for record in records]})


@router.get(
    "/deployments/{deployment}",
    responses=answers(DeploymentDocument, 200, 404, 422),
    tags=["deploy"],
)
async def read_deployment(request: Request, deployment: Id) -> Response:
    """Return one deployment."""
    record = await gateway_of(request).deployments().get(deployment)
    return Reply(msgspec.to_builtins(record))


@router.delete(
    "/deployments/{deployment}",
    status_code=202,
    responses=answers(DeploymentDocument, 202, 401, 403, 404, 409, 422, 429),
    openapi_extra={"security": [{"key": []}]},
    tags=["deploy"],
)
async def stop_deployment(request: Request, deployment: Id) -> Response:
    """Ask for a deployment to be stopped; asking again changes nothing."""
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)
    await gateway.deployments().get(deployment)
    owner = await gateway.parts.wire.call("HGET", _OWNERS, deployment)
    if owner is not None and owner.decode() != principal.account:
        raise NotYoursError("another account made this deployment")
    record = await gateway.deployments().stop(deployment)
    return Reply(msgspec.to_builtins(record), 202, headers)


@router.get("/agents", responses=answers(AgentPage, 200, 422), tags=["market"])
async def list_agents(  # noqa: PLR0917  # one argument a query field
    request: Request,
    skill: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=200)] = None,
    max_price: Annotated[str | None, Query(max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """Return the agents on the market, best first, with the reasons for their places."""
    gateway = gateway_of(request)
    page = await gateway.parts.broker.directory.find(
        Search(
            skill=None if skill is None else check_skill(skill),
            text=q,
            max_price=None if max_price is None else parse_fals(max_price),
            limit=limit,
            cursor=cursor,
        )
    )
    agents = [
        _agent(listing, gateway) | {"reasons": list(reasons)}
        for listing, reasons in zip(page.listings, page.reasons, strict=True)
    ]
    return Reply({"agents": agents, "next_cursor": page.next_cursor})


@router.get("/agents/{agent}", responses=answers(AgentDocument, 200, 404, 422), tags=["market"])
async def read_agent(request: Request, agent: Did) -> Response:
    """Return one agent on the market with its signed card."""
    key_of(agent)
    gateway = gateway_of(request)
    listing = await gateway.parts.broker.directory.get(agent)
    if listing is None:
        raise UnknownAgentError("no such agent is on the market now", agent=agent)
    return Reply(_agent(listing, gateway) | {"reasons": [], "card": b64(listing.raw)})


async def _deploy(
    gateway: Gateway,
    principal: Principal,
    wanted: NewDeployment,
    given: str,
    headers: dict[str, str],
) -> Response:
    wire = gateway.parts.wire
    await wire.call("HSET", _OWNERS, given, principal.account)
    try:
        record = await gateway.deployments().deploy(
            wanted.template, wanted.name, wanted.config, under=given
        )
    except BaseException:
        await wire.call("HDEL", _OWNERS, given)
        raise
    return _deployed(record, headers)


async def _deploy_once(
    gateway: Gateway,
    principal: Principal,
    wanted: NewDeployment,
    reserved: Reservation,
    headers: dict[str, str],
) -> Response:
    try:
        record = await gateway.deployments().get(reserved.resource)
        reply = _deployed(record, headers)
    except UnknownDeploymentError:
        try:
            reply = await _deploy(gateway, principal, wanted, reserved.resource, headers)
        except BaseException:
            await gateway.idempotency.forget(reserved)
            raise
    kept = {"location": reply.headers["location"], "idempotency-replayed": "true"}
    answer = Answer(reply.status_code, bytes(reply.body), kept)
    await gateway.idempotency.finish(reserved, answer, principal.box)
    return reply


def _deployed(record: Deployment, headers: dict[str, str]) -> Response:
    where = {"location": f"/v1/deployments/{record.id}"}
    return Reply(msgspec.to_builtins(record), 202, headers | where)


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
        "input_schema": _schema(entry.input_schema),
        "output_schema": _schema(entry.output_schema),
    }


def _schema(text: str) -> object:
    """Return a card's schema as JSON; what a stranger wrote wrongly is shown as nothing."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
