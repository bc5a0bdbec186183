"""Whatever the OpenAPI document allows, and much that it does not, never breaks the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)

from tests.fixtures.gateway import Site

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
STREAMS = {"/v1/feed", "/v1/calls/{call}/events"}
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance]


def fuzz(site: Site, examples: int) -> int:
    """Send ``examples`` well-formed and as many malformed requests to each operation."""
    sent = 0
    schema = schemathesis.openapi.from_dict(orjson.loads(DOCUMENT.read_bytes()))
    headers = {"authorization": f"Bearer {site.token}", "prefer": "wait=1"}
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in STREAMS:
            continue
        bare = not operation.body and not list(operation.iter_parameters())
        for mode in (GenerationMode.POSITIVE,) if bare else tuple(GenerationMode):

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: schemathesis.Case) -> None:
                nonlocal sent
                sent += 1
                response = case.call(base_url=site.url, headers=headers, timeout=10)
                case.validate_response(response, checks=CHECKS)

            one()
    return sent


async def test_no_request_breaks_the_gateway(site: Site) -> None:
    assert await asyncio.to_thread(fuzz, site, 3) > 100
    assert (await site.ask("GET", "/readyz")).status == 200


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_no_request_of_many_breaks_the_gateway(stall: Site) -> None:
    assert await asyncio.to_thread(fuzz, stall, 15) > 500
    supply = await stall.ledger.supply()
    assert supply.equal
