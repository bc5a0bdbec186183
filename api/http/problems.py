"""Every error of the market as ``application/problem+json`` (RFC 9457): one table, by code.

* The table is keyed by the stable ``code`` of an error class, so that a room can add a leaf
  without the gateway importing it; a test walks all classes and holds table and docs equal to them.
* ``type`` is a path on this gateway (``/problems/<code>``) that explains the code.
* ``facts`` carries the typed facts of the error; an unforeseen error says nothing of its inside.

    >>> problem_of(NotYoursError("the call is of another key")).status
    403
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import orjson
from starlette.responses import Response

from api.http.errors import HttpError
from rahba.errors import Fact, RahbaError

PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How one code looks over HTTP."""

    status: int
    title: str


KINDS: Final[dict[str, Kind]] = {
    # the gateway's own
    "internal": Kind(500, "Something broke inside"),
    "not_found": Kind(404, "There is nothing here"),
    "method_not_allowed": Kind(405, "This method has no meaning here"),
    "unsupported_media_type": Kind(415, "The body is of another type than this route reads"),
    "headers_too_large": Kind(431, "The header fields exceed their limit"),
    "query_too_long": Kind(414, "The address exceeds its limit"),
    "key_required": Kind(401, "An API key is required"),
    "key_unknown": Kind(401, "This API key is not known"),
    "key_expired": Kind(401, "This API key is past its time"),
    "key_revoked": Kind(401, "This API key was revoked"),
    "not_yours": Kind(403, "This belongs to another key"),
    "rate_limited": Kind(429, "Too many requests"),
    "too_many_streams": Kind(503, "Too many event streams are open"),
    "too_many_calls": Kind(429, "Too many calls of this key are running"),
    "in_progress": Kind(409, "The first request with this Idempotency-Key is still running"),
    "key_reused": Kind(422, "This Idempotency-Key was used for another request"),
    "interrupted": Kind(502, "The call was cut off before a result was in"),
    "unavailable": Kind(503, "A part of the market cannot be reached"),
    "unknown_call": Kind(404, "There is no such call"),
    "unknown_deployment": Kind(404, "There is no such deployment"),
    "unknown_template": Kind(422, "There is no such template"),
    "unknown_agent": Kind(404, "There is no such agent"),
    "unknown_negotiation": Kind(404, "There is no such negotiation"),
    "unknown_deal": Kind(404, "There is no such deal"),
    "account_not_found": Kind(404, "There is no such account"),
    "transaction_not_found": Kind(404, "There is no such transaction"),
    "hold_not_found": Kind(404, "There is no such hold"),
    "not_covered_yet": Kind(404, "No checkpoint covers this yet"),
    # the kernel's
    "error": Kind(500, "The market failed"),
    "local_error": Kind(400, "The request cannot be served as it is"),
    "remote_error": Kind(502, "The other side failed"),
    "bad_input": Kind(422, "A value has not the form its field asks for"),
    "bad_encoding": Kind(422, "The bytes are not canonical JSON"),
    "unknown_field": Kind(422, "A field is unknown, missing or of a wrong type"),
    "too_large": Kind(413, "Something exceeds its limit"),
    "bad_id": Kind(422, "An id is malformed"),
    "bad_amount": Kind(422, "An amount is malformed"),
    "bad_signature": Kind(422, "A signature does not verify"),
    "envelope_expired": Kind(422, "A signed message is out of its time"),
    "wrong_audience": Kind(422, "A signed message is meant for somebody else"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document, ready to be sent."""

    code: str
    status: int
    title: str
    detail: str
    retryable: bool = False
    hint: str = ""
    facts: dict[str, Fact] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self, **members: object) -> dict[str, object]:
        """Return the JSON members; ``members`` are extensions of this occurrence."""
        document: dict[str, object] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.hint:
            document["hint"] = self.hint
        if self.facts:
            document["facts"] = self.facts
        return document | members

    def response(self, **members: object) -> Response:
        """Return the HTTP response."""
        headers = {"cache-control": "no-store"} | self.headers
        if self.status in {429, 503}:
            headers.setdefault("retry-after", str(_RETRY_AFTER_S))
        return Response(
            orjson.dumps(self.document(**members)),
            status_code=self.status,
            headers=headers,
            media_type=PROBLEM_JSON,
        )


def problem_of(error: RahbaError) -> Problem:
    """Give an error its HTTP form by its own code, else by the nearest ancestor's in the table."""
    code, kind = error.code, KINDS.get(error.code)
    for ancestor in type(error).__mro__:
        if kind is not None:
            break
        kind = KINDS.get(getattr(ancestor, "code", ""))
    return Problem(
        code=code,
        status=(kind or KINDS["error"]).status,
        title=(kind or KINDS["error"]).title,
        detail=error.message,
        retryable=error.retryable,
        hint=error.hint,
        facts=error.facts,
        headers=error.headers if isinstance(error, HttpError) else {},
    )


def plain_problem(code: str, detail: str = "", **facts: Fact) -> Problem:
    """Make a problem for what has no error object: a 404 of the router, a crash inside."""
    kind = KINDS[code]
    return Problem(code, kind.status, kind.title, detail or kind.title, facts=facts)
