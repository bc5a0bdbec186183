"""Why work on an input is refused. Light on purpose: both sides of the sandbox import it."""

from __future__ import annotations

from rahba.errors import BadInputError, RemoteError


class UnreadableError(BadInputError):
    """The input is not what it says it is, is damaged, or is locked."""

    code = "unreadable_input"
    hint = "check that the file opens elsewhere, without a password"


class NothingToDoError(BadInputError):
    """The input holds nothing to work on."""

    code = "nothing_to_do"


class TooComplexError(BadInputError):
    """The input is within its size, yet nested, paged or worded beyond what is worked on."""

    code = "too_complex"
    hint = "send the part that matters"


class QueryRefusedError(BadInputError):
    """A question to a table is malformed, or asks for more than reading that table."""

    code = "query_refused"
    hint = 'one SELECT over the table "data", or {"group_by": …, "metrics": …, "top": …}'


class UnsafeAddressError(BadInputError):
    """A URL leads somewhere a stranger has no business: our own machine or a private network."""

    code = "unsafe_address"
    hint = "only http and https to public addresses; no user, no odd port"


class PageUnavailableError(RemoteError):
    """The other server did not give the page, or not within the limits."""

    code = "page_unavailable"
    retryable = True
