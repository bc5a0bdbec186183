"""Schemas come from type hints; input is checked before work, output before delivery."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import jsonschema
import orjson
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agents.job import Job
from agents.schema import (
    MAX_OUTPUT_BYTES,
    ArgumentsError,
    OfferDefinitionError,
    OutputError,
    Signature,
)
from rahba.errors import TooLargeError


class Box(BaseModel):
    width: int = Field(ge=1)
    label: str = "x"


class Found(TypedDict):
    words: list[str]
    score: float


def search(
    text: str, box: Box, mode: Literal["fast", "good"] = "fast", limit: int | None = None
) -> Found:
    return {"words": [text], "score": 0.5}


def test_the_input_schema_is_json_schema_with_names_types_and_defaults() -> None:
    schema = orjson.loads(Signature(search).input_schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {"text", "box", "mode", "limit"}
    assert schema["required"] == ["text", "box"]
    assert schema["additionalProperties"] is False
    jsonschema.validate({"text": "a", "box": {"width": 2}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"text": "a"}, schema)


def test_the_output_schema_describes_what_is_delivered() -> None:
    schema = orjson.loads(Signature(search).output_schema)
    jsonschema.validate({"words": ["a"], "score": 0.5}, schema)


def test_arguments_become_the_types_of_the_hints() -> None:
    parsed = Signature(search).parse({"text": "a", "box": {"width": "3"}, "limit": 4})
    assert parsed == {"text": "a", "box": Box(width=3), "mode": "fast", "limit": 4}


def test_a_fraction_may_come_as_a_string_since_signed_bytes_carry_no_floats() -> None:
    def scale(factor: float) -> float: ...

    assert Signature(scale).parse({"factor": "0.25"}) == {"factor": 0.25}


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({}, "text"),
        ({"text": "a", "box": {"width": 0}}, "box"),
        ({"text": 3, "box": {"width": 1}}, "text"),
        ({"text": "a", "box": {"width": 1}, "mode": "best"}, "mode"),
        ({"text": "a", "box": {"width": 1}, "arg_text": "b"}, "arg_text"),
        ({"text": "a", "box": {"width": 1}, "volume": 11}, "volume"),
        (["a"], None),
        (None, None),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_field(args: object, field: str | None) -> None:
    with pytest.raises(ArgumentsError) as caught:
        Signature(search).parse(args)
    assert caught.value.code == "bad_arguments"
    assert caught.value.facts["field"] == field
    assert len(caught.value.message) <= 400


def test_arguments_may_have_names_that_pydantic_uses_itself() -> None:
    def odd(json: str, copy: int, model_fields: bool, schema: str = "s") -> None: ...

    args = {"json": "{}", "copy": 1, "model_fields": True}
    assert Signature(odd).parse(args) == args | {"schema": "s"}


def test_a_job_argument_is_found_by_its_hint_and_is_no_part_of_the_schema() -> None:
    def work(text: str, job: Job) -> str: ...

    signature = Signature(work)
    assert signature.job_argument == "job"
    assert "job" not in orjson.loads(signature.input_schema)["properties"]
    with pytest.raises(ArgumentsError):
        signature.parse({"text": "a", "job": {}})


def no_hint(text) -> str: ...  # type: ignore[no-untyped-def]  # noqa: ANN001


def star(*texts: str) -> str: ...


def star_star(**texts: str) -> str: ...


def positional(text: str, /) -> str: ...


def no_json_form(handler: Callable[[int], int]) -> str: ...


def unknown_hint(text: Nowhere) -> str: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "function", [no_hint, star, star_star, positional, no_json_form, unknown_hint]
)
def test_a_function_without_a_json_form_cannot_be_sold(function: Callable[..., Any]) -> None:
    with pytest.raises(OfferDefinitionError, match=re.escape(function.__name__)):
        Signature(function)


def test_a_schema_too_long_for_a_card_is_refused() -> None:
    many = Literal[tuple(f"choice {number:04}" for number in range(2_000))]  # type: ignore[valid-type]

    def pick(one: str) -> str: ...

    pick.__annotations__["one"] = many
    with pytest.raises(OfferDefinitionError, match="longer"):
        Signature(pick)


def test_output_is_sorted_json() -> None:
    raw = Signature(search).dump({"words": ["b", "a"], "score": 0.1})
    assert raw == b'{"output":{"score":0.1,"words":["b","a"]}}'


@pytest.mark.parametrize("output", [None, {"words": "a", "score": 1}, {"words": []}, object()])
def test_output_of_another_type_than_promised_is_an_error(output: object) -> None:
    with pytest.raises(OutputError):
        Signature(search).dump(output)


def test_output_without_a_json_form_is_an_error() -> None:
    def anything(text: str) -> Any: ...

    for output in (object(), 2**70, {1: object()}):
        with pytest.raises(OutputError):
            Signature(anything).dump(output)


def test_output_over_its_limit_is_an_error() -> None:
    def copy(text: str) -> str: ...

    with pytest.raises(TooLargeError):
        Signature(copy).dump("x" * MAX_OUTPUT_BYTES)
