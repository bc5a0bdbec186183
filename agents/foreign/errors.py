"""What can go wrong between us and an agent of another network."""

from __future__ import annotations

from agents.perform import JobFailedError
from rahba.errors import BadInputError, LocalError, RemoteError


class NoForeignCardError(RemoteError):
    """The URL leads to no agent card."""

    code = "no_foreign_card"
    hint = "a card is served at /.well-known/agent-card.json of an A2A agent; or give its own URL"


class BadForeignCardError(RemoteError):
    """What should be an agent card is not JSON, or lacks what the A2A protocol asks of a card."""

    code = "bad_foreign_card"
    hint = "compare the card with the AgentCard of the A2A specification, 0.3 or 1.0"


class BadCardSignatureError(BadForeignCardError):
    """The card says that it is signed, and its signature does not verify."""

    code = "bad_card_signature"
    hint = "the card was altered after it was signed, or signed with another key than published"


class ForeignCardChangedError(RemoteError):
    """A listed agent shows another name, endpoint, skill or key than the one that was listed."""

    code = "foreign_card_changed"
    hint = "whoever listed it decides: end the listing and list the URL anew"


class UnsupportedProtocolError(RemoteError):
    """The agent takes no text or JSON over JSON-RPC by A2A 0.3 or 1.0."""

    code = "unsupported_protocol"


class ForeignUnreachableError(RemoteError):
    """The agent's server does not answer, not in time, or with an error of its own."""

    code = "foreign_unreachable"
    retryable = True


class ForeignAnswerError(RemoteError):
    """The agent's server answers with what is no answer of the protocol."""

    code = "bad_foreign_answer"
    retryable = True


class ForeignFailedError(JobFailedError):
    """The foreign agent failed at the job; ``facts["cause"]`` says how. Nothing is paid."""

    code = "foreign_failed"


class ForeignRefusedError(BadInputError):
    """The foreign agent says that the input is not for it. Nothing is paid."""

    code = "foreign_refused"
    hint = "see what the skill's description asks for"


class AlreadyListedError(LocalError):
    """The same account has listed this URL, and the listing lasts."""

    code = "already_listed"
    hint = "end the listing first: DELETE /v1/listings/{id}, or `rahba stop NAME`"
