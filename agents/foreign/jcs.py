"""JSON in the one spelling that signatures of cards are made over (RFC 8785, JCS).

Our own signed bytes are a subset without floats (:mod:`rahba.encoding`); a stranger's card may hold
any number, so this one writes them all, as ECMAScript does.

    >>> jcs({"b": 1e21, "a": [0.1, -0.0, 100.0]})
    b'{"a":[0.1,0,100],"b":1e+21}'
"""

from __future__ import annotations

import math
from typing import Final

import orjson

from rahba.errors import BadInputError

_MAX_INT: Final = 2**53


def jcs(value: object) -> bytes:
    """Return the canonical bytes of decoded JSON.

    Raises:
        BadInputError: a number beyond those that every reader understands alike.
    """
    return _written(value).encode()


def _written(value: object) -> str:
    if isinstance(value, dict):
        fields = sorted(value.items(), key=lambda field: field[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_written(item)}" for key, item in fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(item) for item in value) + "]"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _MAX_INT:
        raise BadInputError("an integer beyond 2^53 has no canonical form")
    return _text(value)


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def _float(value: float) -> str:
    """Write a number as ECMAScript does: from the fewest digits that read back the same."""
    if not math.isfinite(value):
        raise BadInputError("a number that is not finite has no canonical form")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The point stands after ``place`` of the digits.
    place = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    return ("-" if value < 0 else "") + _placed(digits, place)


def _placed(digits: str, place: int) -> str:
    if len(digits) <= place <= 21:
        return digits + "0" * (place - len(digits))
    if 0 < place <= 21:
        return f"{digits[:place]}.{digits[place:]}"
    if -6 < place <= 0:
        return "0." + "0" * -place + digits
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{rest}e{'+' if place > 0 else '-'}{abs(place - 1)}"
