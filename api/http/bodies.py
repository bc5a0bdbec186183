"""The bodies of routes that read envelopes as they were signed, for the OpenAPI document."""

from __future__ import annotations

from typing import Any


def cards_body() -> dict[str, Any]:
    """Declare the body of ``POST /v1/agents``."""
    several = {"type": "array", "items": _envelope(), "maxItems": 1000}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": several},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
        "security": [{"key": []}],
    }


def transactions_body() -> dict[str, Any]:
    """Declare the body of ``POST /v1/transactions``."""
    envelope = _envelope()
    several = {"oneOf": [envelope, {"type": "array", "items": envelope, "maxItems": 1000}]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": several},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    }


def _envelope() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "a DSSE envelope in canonical JSON",
        "required": ["payload", "payloadType", "signatures"],
        "properties": {
            "payload": {"type": "string"},
            "payloadType": {"type": "string"},
            "signatures": {"type": "array", "items": {"type": "object"}},
        },
    }
