"""Money: integers of fals, the atomic unit; 1 RHB = 10^9 fals. Never a float.

On the wire an amount is a string of decimal digits with no sign and no leading zero, at most
2^63 - 1. People write RHB with up to nine decimals.

    >>> parse_rhb("0.002"), format_rhb(2_000_000)
    (2000000, '0.002')
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from rahba.errors import BadInputError

FALS_PER_RHB: Final = 1_000_000_000
MAX_FALS: Final = 2**63 - 1
_DECIMALS: Final = 9
_WIRE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_HUMAN: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,9}))?", re.ASCII)


class BadAmountError(BadInputError):
    """An amount is not a whole number of fals within the limits."""

    code = "bad_amount"
    hint = 'amounts are strings of integers in fals ("2000000"), 1 RHB = 10^9 fals'


def parse_fals(text: object) -> int:
    """Read a wire amount: digits only, 0 to 2^63 - 1 fals."""
    if not isinstance(text, str):
        raise BadAmountError(f"not an amount in fals: {str(text)[:40]!r}")
    return _read_fals(text)


@lru_cache(maxsize=4_096)
def _read_fals(text: str) -> int:
    if _WIRE.fullmatch(text) is None:
        raise BadAmountError(f"not an amount in fals: {text[:40]!r}")
    value = int(text)
    if value > MAX_FALS:
        raise BadAmountError("amount exceeds 2^63 - 1 fals", limit_fals=str(MAX_FALS))
    return value


def wire_fals(value: int) -> str:
    """Write ``value`` (fals) for the wire."""
    if not 0 <= value <= MAX_FALS:
        raise BadAmountError(f"amount out of range: {value}")
    return str(value)


def parse_rhb(text: str) -> int:
    """Read what a person writes ("0.002") into fals."""
    match = _HUMAN.fullmatch(text)
    if match is None:
        raise BadAmountError(f"not an amount in RHB: {text[:40]!r}")
    whole, part = match.group(1), match.group(2) or ""
    value = int(whole) * FALS_PER_RHB + int(part.ljust(_DECIMALS, "0") or "0")
    if value > MAX_FALS:
        raise BadAmountError("amount exceeds 2^63 - 1 fals", limit_fals=str(MAX_FALS))
    return value


def format_rhb(value_fals: int) -> str:
    """Write fals as RHB without trailing zeros; negative values keep their sign."""
    sign = "-" if value_fals < 0 else ""
    whole, part = divmod(abs(value_fals), FALS_PER_RHB)
    decimals = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
