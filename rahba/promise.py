"""The ledger's signed word on a submission: this transaction is in the log, there and by then.

A promise is a DSSE envelope of its own type, signed by the operator. Whoever holds one proves that
the operator dropped or moved the transaction by showing a checkpoint of ``by_size`` entries or more
whose leaf ``seq`` is another: nothing else has to be believed.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rahba.encoding import MAX_INT, decode_as
from rahba.envelope import Signer, open_envelope, seal
from rahba.errors import BadSignatureError
from rahba.ids import check_digest

PROMISE_TYPE: Final = "application/vnd.rahba.promise+json"
MAX_PROMISE_BYTES: Final = 4_096
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Transaction ``id`` is leaf ``seq`` of every log of chain ``chain`` from ``by_size`` on."""

    type: Literal["promise"] = "promise"
    chain: str
    id: str
    seq: Count
    by_size: Count


def sign_promise(promise: Promise, operator: Signer) -> str:
    """Return the promise's envelope as text (JSON)."""
    return seal(PROMISE_TYPE, promise, operator).decode()


def open_promise(text: str, operator_did: str) -> Promise:
    """Verify a promise by the operator's key.

    Raises:
        BadSignatureError, BadInputError: not the operator's, or no promise.
    """
    opened = open_envelope(text.encode(), PROMISE_TYPE, max_bytes=MAX_PROMISE_BYTES)
    if opened.signers != (operator_did,):
        raise BadSignatureError("the promise is not signed by the operator")
    promise = decode_as(opened.payload, Promise)
    check_digest(promise.id)
    if promise.by_size <= promise.seq:
        raise BadSignatureError("a promise names a size that holds its leaf")
    return promise
