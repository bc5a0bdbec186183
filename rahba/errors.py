"""The root of every error of the market.

Each error carries a stable ``code``, says whether trying again can help (``retryable``), offers a
next step for the human (``hint``) and keeps its facts as data (``facts``). Blame is in the type:
:class:`LocalError` is the caller's own doing, :class:`RemoteError` the other side's.

Leaves live beside the code that raises them; one table in ``api`` maps classes to wire codes.

    >>> raise TooLargeError("body too large", size_bytes=70_000, limit_bytes=65_536)
    Traceback (most recent call last):
    rahba.errors.TooLargeError: body too large
"""

from __future__ import annotations

from typing import ClassVar

Fact = str | int | bool | None


class RahbaError(Exception):
    """Anything the market refuses or fails at; ``code`` is stable across versions."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""

    def __init__(self, message: str = "", **facts: Fact) -> None:
        """Say what happened in ``message``; keep the typed ``facts`` for programs."""
        super().__init__(message or self.code)
        self.message = message or self.code
        self.facts: dict[str, Fact] = facts


class LocalError(RahbaError):
    """The caller can mend this: its input, its money or its configuration is wrong."""

    code = "local_error"


class RemoteError(RahbaError):
    """The other side broke the rules, failed or is unreachable."""

    code = "remote_error"


class BadInputError(LocalError):
    """A value does not have the form its field asks for."""

    code = "bad_input"


class BadEncodingError(BadInputError):
    """Bytes are not the canonical encoding of anything."""

    code = "bad_encoding"
    hint = "send RFC 8785 canonical JSON: sorted ASCII keys, no spaces, no floats, each key once"


class UnknownFieldError(BadInputError):
    """A message has a field that its type does not define, lacks one, or has a wrong type."""

    code = "unknown_field"


class TooLargeError(BadInputError):
    """Something exceeds its limit of bytes, items or depth."""

    code = "too_large"


class BadSignatureError(RemoteError):
    """A signature is missing, wrong, or by somebody else than it claims."""

    code = "bad_signature"


class EnvelopeExpiredError(RemoteError):
    """An envelope arrived after its own ``reply_by``, or is dated in the future."""

    code = "envelope_expired"
    hint = "check the clocks of both machines and sign a fresh message"


class WrongAudienceError(RemoteError):
    """An envelope is addressed to somebody else."""

    code = "wrong_audience"
