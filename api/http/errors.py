"""What the gateway itself refuses, as typed errors; the other rooms bring their own leaves.

The wire form of every error, of whatever room, is decided in ``api.http.problems`` alone.
"""

from __future__ import annotations

from rahba.errors import Fact, LocalError, RemoteError


class HttpError(LocalError):
    """What the gateway itself refuses; ``headers`` go out with the problem."""

    code = "local_error"

    def __init__(
        self, message: str = "", *, headers: dict[str, str] | None = None, **facts: Fact
    ) -> None:
        """Say what happened; name the header fields that belong to the answer."""
        super().__init__(message, **facts)
        self.headers = headers or {}


class NotFoundError(HttpError):
    """Nothing has this address."""

    code = "not_found"


class MediaTypeError(HttpError):
    """The body is of a type that the route does not read."""

    code = "unsupported_media_type"
    hint = "send Content-Type: application/json"


class HeadersTooLargeError(HttpError):
    """The header fields of the request exceed their limit."""

    code = "headers_too_large"


class QueryTooLongError(HttpError):
    """Path or query exceed their limit."""

    code = "query_too_long"


class UnavailableError(RemoteError):
    """The broker, the ledger or a host cannot be reached at the moment."""

    code = "unavailable"
    retryable = True


class UnknownThingError(LocalError):
    """What was asked for by its name does not exist, or not any more."""

    code = "not_found"


class UnknownNegotiationError(UnknownThingError):
    """No negotiation has this id, or it is older than seven days."""

    code = "unknown_negotiation"


class UnknownDealError(UnknownThingError):
    """No agreement has this digest, or it is older than seven days."""

    code = "unknown_deal"


class UnknownAccountError(UnknownThingError):
    """The ledger never saw this account."""

    code = "account_not_found"


class UnknownTransactionError(UnknownThingError):
    """The ledger has no such transaction; the same bytes may be sent again."""

    code = "transaction_not_found"


class NotCoveredYetError(UnknownThingError):
    """The transaction is logged, and the next checkpoint will cover it."""

    code = "not_covered_yet"
    retryable = True
    hint = "checkpoints are signed several times a second: ask again"


class UnknownHoldError(UnknownThingError):
    """The ledger has no such hold."""

    code = "hold_not_found"


class UnknownCallError(UnknownThingError):
    """No call has this id, or it is older than seven days."""

    code = "unknown_call"


class NotYoursError(LocalError):
    """The thing belongs to another key; only its owner may see or change it."""

    code = "not_yours"
    hint = "use the API key that made it"


class RateLimitedError(HttpError):
    """The key spent its requests for now."""

    code = "rate_limited"
    retryable = True


class TooManyCallsError(HttpError):
    """As many calls of this key are running as may."""

    code = "too_many_calls"
    retryable = True
    hint = "wait for one of the running calls to end"


class TooManyStreamsError(HttpError):
    """This gateway holds as many event streams as it may."""

    code = "too_many_streams"
    retryable = True


class InProgressError(HttpError):
    """The first request with this Idempotency-Key has not ended yet."""

    code = "in_progress"
    retryable = True
    hint = "send the same request again a little later; it is never carried out twice"


class KeyReusedError(HttpError):
    """The Idempotency-Key came with another request before."""

    code = "key_reused"
    hint = "take a new Idempotency-Key for a new request"


class CallInterruptedError(RemoteError):
    """The gateway died while the call ran, before a result was in; unspent money comes back."""

    code = "interrupted"
    retryable = True
    hint = "the hold is released at its expiry at the latest; place the call again"
