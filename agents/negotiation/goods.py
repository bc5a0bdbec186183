"""What is traded, as bytes: the sealed input and the sealed output, each with its digest.

* Input: canonical ``{"args", "skill"}``, so that both sides get the same digest.
* Output: any JSON, floats included, with sorted keys: ``{"output": ...}``.
* Both travel sealed to one key; the digests are over the plain bytes.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from agents.errors import BadResultError
from rahba.encoding import b64, canonical, decode, sha256_hex, unb64
from rahba.envelope import Signer, conceal
from rahba.errors import BadInputError, RahbaError, TooLargeError

MAX_GOODS_BYTES: Final = 1024 * 1024


def pack_input(skill: str, args: dict[str, Any]) -> bytes:
    """Return the plain bytes of a job's input; the digest of these goes into the agreement."""
    plain = canonical({"args": args, "skill": skill})
    return _within_limit(plain)


def unpack_input(sealed: str, signer: Signer, *, digest: str) -> tuple[str, dict[str, Any]]:
    """Open an order's input as (skill, args).

    Raises:
        BadInputError: it is not what the agreement names, or has another form.
        BadSignatureError: it was sealed for somebody else.
    """
    plain = signer.reveal(unb64(sealed))
    if sha256_hex(plain) != digest:
        raise BadInputError("the input is not the one agreed upon", expected=digest)
    match decode(plain, max_bytes=MAX_GOODS_BYTES):
        case {"args": dict(args), "skill": str(skill), **rest} if not rest:
            return skill, dict(args)
        case _:
            raise BadInputError("an input is {args, skill}")


def pack_output(output: Any) -> bytes:
    """Return the plain bytes of an output; the digest of these goes into the receipt.

    Raises:
        BadInputError: the output has no JSON form.
        TooLargeError: it is over ``MAX_GOODS_BYTES``.
    """
    try:
        plain = orjson.dumps({"output": output}, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"the output has no JSON form: {error}") from error
    return _within_limit(plain)


def unpack_output(sealed: str, signer: Signer, *, digest: str) -> Any:
    """Open a result's output and check that it is the one in the receipt.

    Raises:
        BadResultError: it was sealed for somebody else, is another one, or is no JSON.
    """
    try:
        plain = signer.reveal(unb64(sealed))
    except RahbaError as error:
        raise BadResultError("the output was not sealed for its buyer") from error
    if sha256_hex(plain) != digest:
        raise BadResultError("the output is not the one on the receipt", expected=digest)
    try:
        value = orjson.loads(plain)
    except orjson.JSONDecodeError as error:
        raise BadResultError("the output is not JSON") from error
    if not isinstance(value, dict) or set(value) != {"output"}:
        raise BadResultError("an output is {output}")
    return value["output"]


def seal_goods(recipient: str, plain: bytes, *, sender: str) -> str:
    """Seal packed goods of ``sender`` to their recipient, as base64."""
    return b64(conceal(recipient, plain, sender=sender))


def _within_limit(plain: bytes) -> bytes:
    if len(plain) > MAX_GOODS_BYTES:
        raise TooLargeError("too large", size_bytes=len(plain), limit_bytes=MAX_GOODS_BYTES)
    return plain
