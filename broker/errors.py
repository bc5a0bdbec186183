"""What the broker refuses or fails at."""

from __future__ import annotations

from rahba.errors import BadInputError, LocalError, RemoteError


class BrokerUnreachableError(LocalError):
    """The broker did not answer in time; whether the last call took effect is unknown.

    Every call may be repeated: messages are told apart by their ids.
    """

    code = "broker_unreachable"
    retryable = True
    hint = "is the Redis server running, and is REDIS_URL right?"


class MailboxFullError(RemoteError):
    """The recipient has too many messages waiting; nothing was recorded or delivered."""

    code = "mailbox_full"
    retryable = True
    hint = "try again after retry_after_ms, or choose another agent"


class SenderQuotaError(RemoteError):
    """The recipient has yet to read what this sender sent before; nothing was recorded."""

    code = "sender_quota"
    retryable = True
    hint = "send no more before the recipient has read; try again after retry_after_ms"


class TooManyThreadsError(RemoteError):
    """The buyer has as many threads open with this seller as one may have."""

    code = "too_many_threads"
    retryable = True
    hint = "end a thread, or wait until one is past its deadline: retry_after_ms"


class DamagedThreadError(RemoteError):
    """The broker could not carry out a post; its own record of the thread is damaged."""

    code = "damaged_thread"
    hint = "begin another negotiation; what was signed in this one still holds"


class LeaseLostError(LocalError):
    """Somebody else took a message over before it was acknowledged; its effects are theirs."""

    code = "lease_lost"
    hint = "extend the lease while working, or choose a longer one"


class BadCursorError(BadInputError):
    """A cursor or event id was not made by this broker."""

    code = "bad_cursor"


class BadQueryError(BadInputError):
    """A query is malformed or asks for too much at once."""

    code = "bad_query"


class BadOwnerError(BadInputError):
    """A mailbox owner's name is malformed."""

    code = "bad_owner"


class StaleCardError(RemoteError):
    """A newer card of this agent is known, or the agent has left since this card was signed."""

    code = "stale_card"
    hint = "sign a fresh card"


class FirstMessageError(BadInputError):
    """A message is not well formed for its place in a thread."""

    code = "bad_message"
