"""What an offer takes and gives, read from the type hints of its function.

* Every argument has a name and a type; ``*args`` and ``**kwargs`` cannot be sold.
* An argument annotated ``Job`` is filled in by the runtime and is no part of the schema.
* Input is checked by pydantic before any work: unknown, missing and mistyped arguments are refused
  with the place and the reason (numbers may come as strings: signed bytes carry no floats).
* Output is checked too, and becomes sorted JSON of at most ``MAX_OUTPUT_BYTES``.

    >>> def shout(text: str, times: int = 1) -> str: ...
    >>> Signature(shout).parse({"text": "hey", "times": "2"})
    {'text': 'hey', 'times': 2}
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, get_type_hints

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from agents.job import Job
from rahba.errors import BadInputError, LocalError, TooLargeError

MAX_INPUT_BYTES: Final = 1024 * 1024
MAX_OUTPUT_BYTES: Final = 1024 * 1024
MAX_SCHEMA_CHARS: Final = 16_384
MAX_ARGUMENTS: Final = 32
_SHOWN: Final = 5
_PREFIX: Final = "arg_"  # keeps arguments named `json` or `copy` off pydantic's own attributes


class OfferDefinitionError(LocalError):
    """A function cannot be sold as it is written."""

    code = "bad_offer"
    hint = "give every argument and the return value a type that JSON can express"


class TierError(OfferDefinitionError):
    """An offer cannot be had on these other terms."""

    code = "bad_tier"
    hint = "give each tier terms of its own, a floor up to its price, and at most seven of them"


class ArgumentsError(BadInputError):
    """The arguments of a call do not fit the offer; ``field`` is the first that does not."""

    code = "bad_arguments"
    hint = "see the skill's input schema on the seller's card"


class OutputError(LocalError):
    """A function returned something other than it promises."""

    code = "bad_output"


class Signature:
    """The two schemas of a function, and the only way in and out of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the hints of ``function``; refuse what has no JSON form."""
        name = getattr(function, "__name__", "offer")
        hints = _hints(function, name)
        fields: dict[str, Any] = {}
        self.job_argument: str | None = None
        for parameter in inspect.signature(function).parameters.values():
            hint = hints.get(parameter.name)
            _check_parameter(parameter, hint, name)
            if hint is Job:
                self.job_argument = parameter.name
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[_PREFIX + parameter.name] = (hint, Field(default, alias=parameter.name))
        if len(fields) > MAX_ARGUMENTS:
            raise OfferDefinitionError(f"{name}: more than {MAX_ARGUMENTS} arguments")
        self._names = [field.removeprefix(_PREFIX) for field in fields]
        try:
            self._model = create_model(
                name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
            )
            self._output: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))
            self.input_schema = _schema_text(self._model.model_json_schema(), name)
            self.output_schema = _schema_text(self._output.json_schema(mode="serialization"), name)
        except (PydanticUserError, PydanticSchemaGenerationError) as error:
            raise OfferDefinitionError(f"{name}: {error}") from error

    def parse(self, args: object) -> dict[str, Any]:
        """Return the keyword arguments for the function, defaults included.

        Raises:
            ArgumentsError: unknown, missing or mistyped arguments.
        """
        try:
            model = self._model.model_validate(args)
        except ValidationError as error:
            raise _refusal(error) from error
        return {name: getattr(model, _PREFIX + name) for name in self._names}

    def dump(self, output: object) -> bytes:
        """Return ``{"output": ...}`` as sorted JSON.

        Raises:
            OutputError: not of the promised type, or with no JSON form.
            TooLargeError: larger than ``MAX_OUTPUT_BYTES``.
        """
        try:
            plain = self._output.dump_python(
                self._output.validate_python(output), mode="json", by_alias=True
            )
            raw = orjson.dumps({"output": plain}, option=orjson.OPT_SORT_KEYS)
        except (ValidationError, PydanticSerializationError, orjson.JSONEncodeError) as error:
            raise OutputError("the result is not of the promised type") from error
        if len(raw) > MAX_OUTPUT_BYTES:
            raise TooLargeError("result too large", size_bytes=len(raw), limit=MAX_OUTPUT_BYTES)
        return raw


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise OfferDefinitionError(f"{name}: its type hints cannot be read: {error}") from error


def _check_parameter(parameter: inspect.Parameter, hint: object, name: str) -> None:
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise OfferDefinitionError(f"{name}: {parameter.name!r} must be a plain named argument")
    if hint is None:
        raise OfferDefinitionError(f"{name}: argument {parameter.name!r} has no type hint")


def _schema_text(schema: dict[str, Any], name: str) -> str:
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode()
    if len(text) > MAX_SCHEMA_CHARS:
        raise OfferDefinitionError(f"{name}: a schema is longer than {MAX_SCHEMA_CHARS} characters")
    return text


def _refusal(error: ValidationError) -> ArgumentsError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in problems[:_SHOWN]
    ]
    first = problems[0]["loc"]
    return ArgumentsError(
        "; ".join(told)[:400], field=str(first[0]) if first else None, problems=len(problems)
    )
