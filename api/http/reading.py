"""What comes in: bodies, cursors and numbers, each within its limit.

* ``body`` reads within the limit that the frame enforces while the bytes stream in.
* ``json_object`` refuses another media type, bad UTF-8, what is no object, and deep nesting.
* A cursor is opaque to the client: base64url of a few canonical fields, checked on return.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final, TypeVar

import msgspec
import orjson
from starlette.requests import Request

from api.http.errors import MediaTypeError
from rahba.errors import BadInputError, TooLargeError, UnknownFieldError

T = TypeVar("T")

_MAX_CURSOR: Final = 4_096


def media_type(request: Request) -> str:
    """Return the media type of the body without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request, *, max_depth: int) -> tuple[bytes, Any]:
    """Read the body as JSON no deeper than ``max_depth``; return bytes and value."""
    if media_type(request) != "application/json":
        raise MediaTypeError("this route reads application/json")
    raw = await request.body()
    return raw, parse_json(raw, max_depth=max_depth)


def parse_json(raw: bytes, *, max_depth: int) -> Any:
    """Decode JSON and check its depth level by level, so that no input can exhaust the stack."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"the body is not JSON: {error}") from error
    level = [value]
    for _ in range(max_depth):
        level = [item for inner in level for item in _items(inner)]
        if not level:
            return value
    raise TooLargeError("the body is nested too deeply", limit=max_depth)


def form(value: object, shape: type[T]) -> T:
    """Give decoded JSON the form of a Struct; unknown or mistyped fields are refused."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise UnknownFieldError(str(error)) from error


def read_weights(text: str) -> dict[str, int]:
    """Read weights as ``price:50,latency:20``; what is not named counts nothing.

    Raises:
        BadInputError: a name is unknown or comes twice, or a weight is no whole number.
    """
    weights = dict.fromkeys(("price", "latency", "quality", "energy"), 0)
    seen = set()
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        if name not in weights or name in seen or not colon or not _is_weight(number):
            raise BadInputError("weights are written as price:50,latency:20,quality:20,energy:10")
        seen.add(name)
        weights[name] = int(number)
    return weights


def _is_weight(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 7


def make_cursor(*fields: str | int | list[str]) -> str:
    """Write the place where the next page begins."""
    return urlsafe_b64encode(orjson.dumps(fields)).decode().rstrip("=")


def read_cursor(text: str, shape: type[T]) -> T:
    """Read a cursor of ours.

    Raises:
        BadInputError: it is not one.
    """
    try:
        raw = urlsafe_b64decode(text[:_MAX_CURSOR].encode("ascii") + b"=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=shape)
    except (ValueError, msgspec.DecodeError) as error:
        raise BadInputError("this cursor was not made here") from error


def _items(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
