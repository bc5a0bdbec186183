"""``/v1/calls``: buy a skill or from an agent. The hot path: raw body in, bytes out, no models."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http.auth import Principal
from api.http.call_records import DONE, CallRequest
from api.http.calls import Running
from api.http.errors import InProgressError, UnknownCallError
from api.http.gateway import Gateway, gateway_of
from api.http.idempotency import Reservation, request_hash
from api.http.problems import PROBLEM_JSON
from api.http.reading import form, json_body
from api.http.replies import Reply
from api.http.sse import EventStream
from broker.errors import BrokerUnreachableError
from rahba.errors import BadInputError, RahbaError
from rahba.ids import check_id

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*([0-9]{1,5})(?:$|[,;\s])", re.ASCII)
_ASYNC: Final = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", re.ASCII)

Headers = dict[str, str]


async def place_call(request: Request) -> Response:
    """Buy: 200 with the result if it is in within the wait, else 202 and where to look.

    1. Who asks, and may it ask so often?
    2. Is the request well formed?
    3. Was it made before? Then its answer is given again, and nothing is bought.
    4. Record it, start it, wait as long as the client prefers.
    """
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)  # 1
    raw, body = await json_body(request, max_depth=gateway.settings.max_json_depth)  # 2
    wanted = form(body, CallRequest)
    wait_ms = _wait_ms(request, wanted, gateway)
    digest, reserved = request_hash("POST", "/v1/calls", raw), None
    if (key := request.headers.get("idempotency-key")) is not None:  # 3
        before = await _before(gateway, principal, key, digest)
        if not isinstance(before, Reservation):
            return _reply(before, headers | {"idempotency-replayed": "true"})
        reserved = before
    running = await _place(gateway, principal, wanted, digest, reserved)  # 4
    try:
        async with asyncio.timeout(wait_ms / 1000):
            await running.ended.wait()
    except TimeoutError:
        pass
    return _reply(running.document, headers)


async def read_call(request: Request) -> Response:
    """Return a call of this key as it stands."""
    gateway = gateway_of(request)
    principal, headers = await gateway.spender(request)
    return Reply(await gateway.calls.look(principal, request.path_params["call"]), 200, headers)


async def call_events(request: Request) -> Response:
    """Follow a call of this key until it ends."""
    gateway = gateway_of(request)
    principal, _ = await gateway.spender(request)
    call_id = check_id(request.path_params["call"])
    await gateway.calls.look(principal, call_id)
    last = request.headers.get("last-event-id", "0")
    if not (last.isascii() and last.isdigit() and len(last) < 10):
        raise BadInputError("Last-Event-ID is not an id of this stream")
    return EventStream(gateway.calls.follow(principal, call_id, int(last)), gateway.seats)


ROUTES: Final = (
    Route("/v1/calls", place_call, methods=["POST"]),
    Route("/v1/calls/{call}", read_call, methods=["GET"]),
    Route("/v1/calls/{call}/events", call_events, methods=["GET"]),
)


async def _place(
    gateway: Gateway,
    principal: Principal,
    wanted: CallRequest,
    digest: str,
    reserved: Reservation | None,
) -> Running:
    """Place the call; a refusal before anything was recorded gives the idempotency key back."""
    call_id = gateway.parts.ids.new() if reserved is None else reserved.resource
    try:
        return await gateway.calls.place(principal, wanted, call_id, digest)
    except (InProgressError, BrokerUnreachableError):
        raise  # the call is recorded, or may be
    except RahbaError:
        if reserved is not None:
            await gateway.idempotency.forget(reserved)
        raise


async def _before(
    gateway: Gateway, principal: Principal, key: str, digest: str
) -> Reservation | dict[str, Any]:
    """Reserve the key, or return the call if it was placed under it before."""
    try:
        reserved = await gateway.idempotency.reserve(principal.hash, key, digest, principal.box)
    except InProgressError as error:
        call_id = str(error.facts["resource"])
        try:
            return _ended(await gateway.calls.look(principal, call_id), call_id)
        except UnknownCallError:
            raise error from None
    assert isinstance(reserved, Reservation)
    if not reserved.resumed:
        return reserved
    try:
        found = await gateway.calls.look(principal, reserved.resource)
    except UnknownCallError:
        return reserved
    return _ended(found, reserved.resource)


def _ended(document: dict[str, Any], call_id: str) -> dict[str, Any]:
    if document["state"] not in DONE:
        where = {"location": f"/v1/calls/{call_id}", "retry-after": "1"}
        raise InProgressError("the call is still running", headers=where, resource=call_id)
    return document


def _reply(document: dict[str, Any], headers: Headers) -> Response:
    where = {"location": f"/v1/calls/{document['id']}"}
    if document["state"] not in DONE:
        return Reply(document, 202, headers | where)
    problem = document.get("problem")
    if problem is None:
        return Reply(document, 200, headers | where)
    reply = Reply(problem, problem["status"], headers | where)
    reply.headers["content-type"] = PROBLEM_JSON
    return reply


def _wait_ms(request: Request, wanted: CallRequest, gateway: Gateway) -> int:
    settings = gateway.settings
    prefer = request.headers.get("prefer", "")
    if _ASYNC.search(prefer):
        return 0
    if match := _WAIT.search(prefer):
        return min(int(match.group(1)) * 1000, settings.max_wait_ms)
    return min(wanted.deadline_ms or settings.default_deadline_ms, settings.max_wait_ms)
