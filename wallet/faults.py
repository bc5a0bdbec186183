"""What signatures alone prove: that somebody said two things, or that a receipt was given.

* ``notes``: two C2SP checkpoints of one log and one size with different roots, both signed by the
  offender as the log. A log that does so shows different people different histories.
* ``receipts``: two receipts of one seller for one agreement with different results.

:func:`fault_of` checks all of it, offline, and returns the fault's name: a digest over who did
what where, however the evidence is written, so that one fault is punished once.
"""

from __future__ import annotations

from rahba.encoding import digest, sha256_hex, unb64
from rahba.errors import RahbaError
from rahba.messages import Decommit, open_message, open_receipt
from rahba.note import open_checkpoint, verifier_key_of
from wallet.errors import BadEvidenceError, WrongReceiptError
from wallet.transactions import NoteFault, ReceiptFault


def fault_of(offender: str, evidence: NoteFault | ReceiptFault) -> str:
    """Check the evidence against ``offender``; returns the name of the fault (64 hex digits).

    Raises:
        BadEvidenceError: it does not prove a fault of the offender's.
    """
    try:
        if isinstance(evidence, NoteFault):
            return _two_roots(offender, evidence)
        return _two_results(offender, evidence)
    except BadEvidenceError:
        raise
    except RahbaError as error:
        raise BadEvidenceError(f"the evidence does not hold: {error}") from error


def receipt_digest(text: str, seller: str, agreement: str) -> str:
    """Return the SHA-256 (hex) of a receipt (base64) that is the seller's for that agreement.

    Raises:
        WrongReceiptError: it is not.
    """
    try:
        raw = unb64(text)
        receipt = open_receipt(raw, seller=seller)
    except RahbaError as error:
        raise WrongReceiptError(f"not a receipt of the payee's: {error}") from error
    if receipt.agreement != agreement:
        raise WrongReceiptError("the receipt is for another agreement")
    return sha256_hex(raw)


def leaving_digest(text: str, buyer: str, agreement: str) -> str:
    """Return the SHA-256 (hex) of a message (base64) by which the buyer left that agreement.

    Raises:
        WrongReceiptError: it is no such message.
    """
    try:
        raw = unb64(text)
        message = open_message(raw, me=None, now_ms=0)
    except RahbaError as error:
        raise WrongReceiptError(f"not a message of the buyer's: {error}") from error
    body = message.body
    left = isinstance(body, Decommit) and body.agreement == agreement
    if message.sender != buyer or not left:
        raise WrongReceiptError("the buyer did not leave that agreement by it")
    return sha256_hex(raw)


def _two_roots(offender: str, evidence: NoteFault) -> str:
    origin = evidence.first.partition("\n")[0]
    vkey = verifier_key_of(origin, offender)
    first, second = open_checkpoint(evidence.first, vkey), open_checkpoint(evidence.second, vkey)
    if first.size != second.size or first.root == second.root:
        raise BadEvidenceError("the notes do not contradict each other")
    return digest(["notes", offender, origin, first.size])


def _two_results(offender: str, evidence: ReceiptFault) -> str:
    first = open_receipt(unb64(evidence.first), seller=offender)
    second = open_receipt(unb64(evidence.second), seller=offender)
    if first.agreement != second.agreement or first.output_digest == second.output_digest:
        raise BadEvidenceError("the receipts do not contradict each other")
    return digest(["receipts", offender, first.agreement])
