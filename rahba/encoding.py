"""Bytes that get signed: the canonical JSON of the market (a subset of RFC 8785).

* Keys are ASCII strings, sorted; values are strings, integers below 2^53 in size, booleans, null,
  arrays and objects. No floats: amounts are strings (``rahba.money``).
* Received bytes must equal their own re-encoding, which also refuses duplicate keys and spaces.
* Depth and size are limited before anything is decoded.

    >>> canonical({"b": 1, "a": "x"})
    b'{"a":"x","b":1}'
"""

from __future__ import annotations

import binascii
import hashlib
import threading
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec
import msgspec.inspect as forms
import orjson

from rahba.errors import BadEncodingError, TooLargeError, UnknownFieldError

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]
T = TypeVar("T")

MAX_DEPTH: Final = 32
MAX_INT: Final = 2**53 - 1
MAX_BYTES: Final = 64 * 1024
_SORTED: Final = msgspec.json.Encoder(order="sorted")


def canonical(value: object) -> bytes:
    """Encode builtins or a ``msgspec.Struct`` canonically.

    Raises:
        BadEncodingError: a float, a large integer, a non-ASCII key or an unpaired surrogate.
        TooLargeError: deeper than ``MAX_DEPTH``.
    """
    if isinstance(value, msgspec.Struct):
        raw = _of_closed(value)
        if raw is not None:
            return raw
    plain = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
    _check(plain, MAX_DEPTH)
    try:
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise BadEncodingError(f"cannot be encoded: {error}") from error


def encode_text(value: msgspec.Struct) -> bytes:
    """Encode a Struct of strings and bytes (as base64) canonically, whatever they say."""
    return _SORTED.encode(value)


def decode(raw: bytes, *, max_bytes: int = MAX_BYTES) -> Json:
    """Decode canonical bytes; anything that is not its own re-encoding is refused."""
    if len(raw) > max_bytes:
        raise TooLargeError("encoded value too large", size_bytes=len(raw), limit_bytes=max_bytes)
    try:
        value: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadEncodingError(f"not JSON: {error}") from error
    if canonical(value) != raw:
        raise BadEncodingError("not canonical: bytes differ from their own re-encoding")
    return value


def decode_as(raw: bytes, form: type[T], *, max_bytes: int = MAX_BYTES) -> T:
    """Decode canonical bytes into a ``msgspec.Struct`` (or union) and check every field.

    Forms that have room for canonical values only are read at once; whatever that does not accept
    is judged step by step.
    """
    found = _at_once(raw, form, max_bytes)
    return shape(decode(raw, max_bytes=max_bytes), form) if found is None else found


def decode_exactly(raw: bytes, form: type[T], *, max_bytes: int = MAX_BYTES) -> T:
    """Decode bytes into a closed form that would be written as these very bytes.

    Raises:
        BadEncodingError: they are not canonical, or have a default spelt out.
    """
    found = _at_once(raw, form, max_bytes)
    if found is None:
        _ = shape(decode(raw, max_bytes=max_bytes), form)  # says what is wrong as a rule
        raise BadEncodingError("the same is to be written otherwise")
    return found


def rewrite(value: T) -> tuple[bytes, T]:
    """Encode a Struct of a closed form, and return what a reader makes of the bytes as well.

    Raises:
        BadEncodingError: a field is not what the form says, so no reader accepts it.
    """
    decoder = _decoder(cast("Any", type(value)))
    if decoder is None:
        raise BadEncodingError("not a closed form")
    try:
        raw = _SORTED.encode(value)
        found: T = decoder.decode(raw)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"no reader accepts this: {error}") from error
    return raw, found


def shape(value: object, form: type[T]) -> T:
    """Give decoded JSON the form of a Struct; unknown, missing or mistyped fields are refused."""
    try:
        _ = _decoder(cast("Any", form))  # describes the form first
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise UnknownFieldError(str(error)) from error


def sha256_hex(raw: bytes) -> str:
    """Return the SHA-256 of ``raw`` as 64 lower-case hex digits."""
    return hashlib.sha256(raw).hexdigest()


def digest(value: object) -> str:
    """Return the SHA-256 (hex) of the canonical bytes of ``value``."""
    return sha256_hex(canonical(value))


def b64(raw: bytes) -> str:
    """Write bytes as standard base64 with padding (as DSSE does)."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def unb64(text: str) -> bytes:
    """Read standard base64; refuse anything that is not its own re-encoding."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise BadEncodingError("not base64") from error
    if b64(raw[-(len(raw) % 3 or 3) :]) != text[-4:]:  # bits that nobody reads
        raise BadEncodingError("not canonical base64")
    return raw


def _at_once(raw: bytes, form: type[T], max_bytes: int) -> T | None:
    """Decode bytes of a closed form that are their own re-encoding; ``None`` if they are not."""
    decoder = _decoder(cast("Any", form))
    if decoder is None or len(raw) > max_bytes:
        return None
    try:
        found: T = decoder.decode(raw)
        return found if _SORTED.encode(found) == raw else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _of_closed(value: msgspec.Struct) -> bytes | None:
    """Encode a value of a closed form at once, if it is what its form says; else ``None``."""
    try:
        return rewrite(value)[0]  # nothing has checked the fields of a Struct made in Python
    except BadEncodingError:
        return None


# msgspec (0.22) describes a Struct to itself when it is first decoded, and shows the description to
# other threads before it is complete: two that begin at once read from nowhere, which is the end of
# the process. So one at a time.
_describing: Final = threading.Lock()


@lru_cache(maxsize=256)
def _decoder(form: Hashable) -> msgspec.json.Decoder[Any] | None:
    with _describing:
        decoder = msgspec.json.Decoder(form)
        return decoder if _closed(forms.type_info(form), MAX_DEPTH) else None


def _closed(kind: forms.Type, depth: int) -> bool:
    """Say whether every value of a type is canonical: no float, large integer or free mapping."""
    match kind:
        case (
            forms.StrType()
            | forms.BytesType()
            | forms.BoolType()
            | forms.NoneType()
            | forms.LiteralType()
        ):
            return True
        case forms.IntType():
            return kind.le is not None and kind.le <= MAX_INT and kind.ge is not None
        case forms.UnionType():
            parts: list[forms.Type] = list(kind.types)
        case forms.ListType() | forms.VarTupleType():
            parts = [kind.item_type]
        case forms.StructType():
            parts = [field.type for field in kind.fields]
        case _:
            return False
    return depth > 0 and all(_closed(part, depth - 1) for part in parts)


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -MAX_INT <= value <= MAX_INT:  # type: ignore[operator]  # kind says it is an int
            raise BadEncodingError("integer beyond 2^53; amounts are strings")
        return
    if depth == 0:
        raise TooLargeError("nested too deeply", limit=MAX_DEPTH)
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                raise BadEncodingError("keys must be ASCII strings")
            _check(item, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, depth - 1)
    else:
        raise BadEncodingError(f"a {kind.__name__} has no canonical form")
