"""What can go wrong when agents trade, by whose doing.

Money facts are on every error raised after a hold was made: ``hold`` (its id), ``hold_expires_ms``
(when the ledger gives it back by itself) and ``hold_status`` as the ledger last showed it.
"""

from __future__ import annotations

from rahba.errors import LocalError, RemoteError


class NoSellerError(LocalError):
    """Nobody on the market sells what was asked for."""

    code = "unknown_skill"
    hint = "list what is on offer: GET /v1/agents, or `rahba ls agents`"


class UnknownAgentError(NoSellerError):
    """The agent that was asked for is not listed, or does not sell that skill."""

    code = "unknown_agent"
    hint = "an agent is listed only while its lease lasts: GET /v1/agents"


class NoDealError(RemoteError):
    """There are sellers, but none agreed to terms within the mandate."""

    code = "no_deal"
    hint = "raise the budget, allow more rounds or a longer deadline"


class DeadlineError(RemoteError):
    """No result arrived before the deadline; the hold returns by itself at its expiry."""

    code = "deadline_missed"
    retryable = True
    hint = "the money returns when the hold expires; try again with a longer deadline"


class SellerFailedError(RemoteError):
    """A seller took the order and failed; ``facts["seller_code"]`` is its own word for why."""

    code = "seller_failed"
    hint = "the hold was released; another seller may do better"


class ArgumentsRefusedError(SellerFailedError):
    """A seller says that the input does not fit its skill: the buyer's to mend."""

    code = "bad_arguments"
    hint = "see the skill's input schema on the seller's card; the hold was released"


class BadResultError(SellerFailedError):
    """A seller delivered something other than what it signed for."""

    code = "bad_result"
    hint = "keep the transcript: the seller's signatures on it are evidence"


class ThreadRefusedError(RemoteError):
    """The broker refused a message; ``facts["verdict"]`` says why."""

    code = "thread_refused"


class MandateExceededError(LocalError):
    """Terms go beyond what the owner allowed; ``facts["check"]`` is the number of the check."""

    code = "mandate_exceeded"
    hint = "only the owner can widen a mandate, by signing another"


class OfferInadmissibleError(RemoteError):
    """The other side's offer is malformed, stale or for something else."""

    code = "offer_inadmissible"


class OutOfPlaceError(RemoteError):
    """A message does not belong at this point of the negotiation."""

    code = "out_of_place"
