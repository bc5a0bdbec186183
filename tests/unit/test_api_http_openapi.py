"""The OpenAPI document in the repository is the one that the code makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import orjson

import api.http.__main__
from api.http.app import write_openapi
from api.http.bodies import cards_body, transactions_body
from api.http.fields import Document
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

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_openapi_file_is_current() -> None:
    assert FILE.read_bytes() == write_openapi(), "write it: python -m api.http > docs/openapi.json"


def test_the_command_writes_the_same_document() -> None:
    done = subprocess.run(
        [sys.executable, "-m", api.http.__main__.__name__.removesuffix(".__main__")],
        capture_output=True,
        check=True,
        timeout=30,
        cwd=FILE.parents[1],
    )
    assert done.stdout == write_openapi()


def test_a_body_of_cards_is_an_array_or_lines_of_envelopes() -> None:
    content = cards_body()["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    items = content["application/json"]["schema"]["items"]
    assert items["required"] == ["payload", "payloadType", "signatures"]
    assert (
        transactions_body()["requestBody"]["content"]["application/json"]["schema"]["oneOf"][0]
        == items
    )


def test_every_reference_leads_somewhere() -> None:
    text = FILE.read_text("utf-8")
    schemas = orjson.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) == set(schemas)


def test_every_route_of_the_api_is_described() -> None:
    described = set(orjson.loads(FILE.read_bytes())["paths"])
    served = {route.path for route in calls.ROUTES}
    for module in (agents, ledger, listings, market, prices, process, reputation, talks):
        served |= {route.path for route in module.router.routes}
    assert len(served) > 25
    assert {path.replace("{tile:path}", "{tile}") for path in served} == described


def test_no_answer_may_have_a_field_that_its_model_does_not_name() -> None:
    forms = Document.__subclasses__()
    assert len(forms) > 25
    open_forms = [form.__name__ for form in forms if form.model_config.get("extra") != "forbid"]
    assert open_forms == []
