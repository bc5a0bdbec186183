"""The gateway as an application: routes, the frame around them, and one form for all errors.

Nothing is global: ``create_app`` puts a :class:`~api.http.gateway.Gateway` made of the given parts
on ``app.state``; the lifespan starts and stops what it owns.

    app = create_app(GatewayParts(ledger=…, broker=…, courier=…, redis=…, clock=…, ids=…))
    await serve(app, host="127.0.0.1", port=8700)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Lifespan

from api.http.dashboard import Dashboard
from api.http.frame import Frame
from api.http.gateway import Gateway
from api.http.openapi import openapi_of
from api.http.parts import GatewayParts
from api.http.problems import plain_problem, problem_of
from api.http.routes import (
    agents,
    calls,
    ledger,
    listings,
    market,
    prices,
    process,
    reputation,
    talks,
)
from rahba.errors import RahbaError

API_VERSION: Final = "1"

_log: Final = logging.getLogger(__name__)
_BY_STATUS: Final = {
    400: "bad_input",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "bad_input",
}


def create_app(parts: GatewayParts) -> FastAPI:
    """Build the application; it does nothing before its lifespan begins.

    A gateway belongs to the event loop that runs it: call this inside the loop.
    """
    gateway = Gateway(parts)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with gateway.running():
            yield

    app = routed(lifespan)
    app.state.gateway = gateway
    app.router.routes.extend(Dashboard(parts.settings.dashboard_dir).routes())
    app.add_middleware(Frame, settings=parts.settings, metrics=gateway.metrics)
    app.add_exception_handler(RahbaError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_form)
    app.add_exception_handler(Exception, _on_defect)
    return app


def routed(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Return an application with the API's routes, and nothing behind them yet."""
    app = FastAPI(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        telemetry={"tracing": False},
    )
    app.router.routes.extend(calls.ROUTES)
    for module in (market, agents, prices, listings, reputation, talks, ledger, process):
        app.include_router(module.router)
    app.openapi = _Openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def write_openapi() -> bytes:
    """Return the OpenAPI document as ``docs/openapi.json`` holds it."""
    return orjson.dumps(
        routed().openapi(),
        option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE,
    )


class _Openapi:
    """Makes the OpenAPI document once."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._made is None:
            self._made = openapi_of(self._app, version=API_VERSION)
        return self._made


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RahbaError)
    problem = problem_of(error)
    if problem.status >= 500 and not error.retryable:
        _log.error("%s: %s", error.code, error.message)
    headers = {"www-authenticate": 'Bearer realm="rahba"'} if problem.status == 401 else {}
    response = problem.response()
    response.headers.update(headers)
    return response


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, "local_error")
    response = plain_problem(code).response()
    response.headers.update(error.headers or {})
    return response


async def _on_form(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return plain_problem(
        "bad_input", f"{place}: {first['msg']}"[:400], field=place[:100]
    ).response()


async def _on_defect(request: Request, error: Exception) -> Response:
    _log.error("%s %s broke", request.method, request.url.path[:200], exc_info=error)
    return plain_problem("internal").response()
