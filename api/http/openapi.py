"""The OpenAPI document: what FastAPI knows of the routes, and the hot routes, declared by hand."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from api.http.call_records import CallRequest
from api.http.documents import CallDocument, ProblemDocument, answers, body_of, stream_answers

DESCRIPTION: Final = (
    "Discover agents, buy their skills by posted price, bargain or tender, and check each payment. "
    "Amounts are strings of fals (1 RHB = 10^9 fals). Errors are problem+json."
)
_CALL_ID: Final = {
    "name": "call",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}


def openapi_of(app: FastAPI, *, version: str) -> dict[str, Any]:
    """Return the whole document; the same for the same code, so that it can be compared."""
    document = get_openapi(
        title="Rahba gateway",
        version=version,
        summary="An open market for AI agents",
        description=DESCRIPTION,
        routes=app.routes,
    )
    _, definitions = models_json_schema(
        [(CallDocument, "serialization"), (ProblemDocument, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "an API key: rhb_…"}
    }
    document["paths"] |= _call_paths()
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def _call_paths() -> dict[str, Any]:
    found = _plain(
        answers(CallDocument, 200, 202, 401, 402, 404, 409, 413, 415, 422, 429, 502, 504)
    )
    post = body_of(CallRequest, secured=True) | {
        "tags": ["calls"],
        "summary": "Place Call",
        "operationId": "place_call",
        "description": "Buy a skill, or from an agent. `Prefer: wait=N` waits up to N seconds.",
        "responses": found,
    }
    post["parameters"] = [*post["parameters"], _header("Prefer", "wait=N, or respond-async")]
    read = {
        "tags": ["calls"],
        "summary": "Read Call",
        "operationId": "read_call",
        "security": [{"key": []}],
        "parameters": [_CALL_ID],
        "responses": _plain(answers(CallDocument, 200, 401, 403, 404, 422, 429)),
    }
    events = read | {
        "summary": "Call Events",
        "operationId": "call_events",
        "parameters": [_CALL_ID, _header("Last-Event-ID", "go on after this event")],
        "responses": _plain(stream_answers() | answers(CallDocument, 401, 403, 404, 422, 429)),
    }
    return {
        "/v1/calls": {"post": post},
        "/v1/calls/{call}": {"get": read},
        "/v1/calls/{call}/events": {"get": events},
    }


def _plain(declared: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for status, answer in declared.items():
        shown = dict(answer)
        model = shown.pop("model", None)
        if model is not None:
            schema = {"$ref": f"#/components/schemas/{model.__name__}"}
            shown["content"] = {"application/json": {"schema": schema}}
        plain[str(status)] = shown
    return plain


def _header(name: str, description: str) -> dict[str, Any]:
    schema = TypeAdapter(str).json_schema()
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema,
    }
