"""Another key for the same account, so that a crash at any point leaves one that signs.

1. The new key is made and kept; the purse's record says that it is coming.
2. ``key.rotate`` is signed by the key in force and by the new one, which proves that it is there;
   the record says which transaction it is, the outbox keeps its bytes, and it is sent.
3. The ledger's sure answer alone moves the record: logged, and the new key is in force; refused,
   and the old one stays. Until then both are kept, and afterwards, too.

Whatever was interrupted is taken up again where it stopped, with the same key and the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from rahba.clock import Clock
from rahba.errors import LocalError
from rahba.ids import Ids
from wallet.account import Wallet
from wallet.delivery import refusal
from wallet.keystore import Origin
from wallet.outbox import Outbox
from wallet.ports import Answer, Ledger
from wallet.purse import Purse
from wallet.transactions import KeyRotate, transaction_id


class SharedAccountError(LocalError):
    """Several keys act for the account together: one wallet cannot rotate one of them by itself."""

    code = "shared_account"


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotation that is over: from which key to which, by which entry of the log."""

    account: str
    old: str
    new: str
    answer: Answer


async def rotate(
    purse: Purse,
    ledger: Ledger,
    outbox: Outbox,
    passphrase: str | None,
    *,
    clock: Clock,
    ids: Ids,
    given: Origin | None = None,
) -> Rotated:
    """Put the next key of a wallet (or ``given``) in force, or finish doing so.

    Raises:
        PaymentUnknownError: nobody answered; call again, or :func:`finish` later.
        PaymentRefusedError: the ledger refused; the old key stays in force.
        SharedAccountError: the account's policy asks for several keys.
    """
    with purse.exclusive():
        finished = await _finish(purse, outbox)
        if finished is not None:
            return finished
        record = purse.record()
        view = await ledger.account(record.account)
        if view is not None and view.threshold > 1:
            raise SharedAccountError("several keys act for this account together")
        if view is not None and record.coming is not None and record.coming.key.did in view.keys:
            return _settle(purse, Answer("exists", record.coming.tx or ""))  # the outbox was lost
        old = purse.signer(passphrase)
        coming = purse.prepare(passphrase, ids, given)
        new = purse.signer(passphrase, coming)
        wallet = Wallet(ledger, old, clock=clock, ids=ids, account=record.account, outbox=outbox)
        raw = await wallet.sign(KeyRotate, new, old=old.did, new=new.did)
        purse.announce(transaction_id(raw))
        return _settle(purse, await outbox.send(raw))


async def finish(purse: Purse, outbox: Outbox) -> Rotated | None:
    """Find out what became of a rotation that was interrupted; it needs no key for that.

    Returns ``None`` if none was, if it was never sent, or if it is known to have failed: then the
    old key is in force.

    Raises:
        PaymentUnknownError: nobody answered.
    """
    if purse.record().coming is None:
        return None
    with purse.exclusive():
        return await _finish(purse, outbox)


async def _finish(purse: Purse, outbox: Outbox) -> Rotated | None:
    coming = purse.record().coming
    letter = None
    if coming is not None and coming.tx is not None:
        letter = await outbox.find(coming.tx)
    if letter is None:  # never sent: the outbox keeps before it sends
        return None
    answer = await outbox.send(letter.raw)
    return _settle(purse, answer) if answer.ok else None


def _settle(purse: Purse, answer: Answer) -> Rotated:
    record = purse.record()
    assert record.coming is not None
    if not answer.ok:
        purse.abandon()
        raise refusal(answer)
    purse.activate()
    return Rotated(record.account, record.active.did, record.coming.key.did, answer)
