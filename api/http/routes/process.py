"""``/healthz``, ``/readyz``, ``/metrics`` and ``/problems/<code>``: the gateway about itself."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.http.documents import (
    Code,
    HealthDocument,
    ProblemKindDocument,
    ReadyDocument,
    answers,
    plain_answers,
)
from api.http.errors import NotFoundError
from api.http.gateway import Gateway, gateway_of
from api.http.problems import KINDS
from api.http.replies import Reply
from rahba.errors import RahbaError

router: Final = APIRouter(tags=["process"])


@router.get("/healthz", responses=answers(HealthDocument))
async def healthz() -> Response:
    """Say that this process serves."""
    return Reply({"status": "ok"})


@router.get("/readyz", responses=answers(ReadyDocument, 200) | answers(ReadyDocument, 503))
async def readyz(request: Request) -> Response:
    """Say whether the broker and the ledger can be reached from here."""
    gateway = gateway_of(request)
    broker, ledger = await asyncio.gather(_broker(gateway), _ledger(gateway))
    parts = {"broker": broker, "ledger": ledger}
    ready = broker == ledger == "ok"
    return Reply({"status": "ok" if ready else "not ready"} | parts, 200 if ready else 503)


@router.get("/metrics", responses=plain_answers(200))
async def metrics(request: Request) -> Response:
    """Return the figures of this process for Prometheus."""
    text = gateway_of(request).metrics.text()
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/problems/{code}", responses=answers(ProblemKindDocument, 200, 404))
async def explain_problem(code: Code) -> Response:
    """Explain a problem by the code at the end of its ``type``."""
    kind = KINDS.get(code)
    if kind is None:
        raise NotFoundError("there is no such problem")
    return Reply({"code": code, "title": kind.title, "status": kind.status})


async def _broker(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(gateway.settings.ready_within_ms / 1000):
            await gateway.parts.wire.call("PING")
    except (RahbaError, OSError) as error:
        return getattr(error, "code", type(error).__name__)
    return "ok"


async def _ledger(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(gateway.settings.ready_within_ms / 1000):
            await gateway.parts.ledger.supply()
    except (RahbaError, OSError) as error:
        return getattr(error, "code", type(error).__name__)
    return "ok"
