"""A seller's word to forfeit money of its own if it is bought and never heard of again.

* A pledge is signed over one agreement, so it covers one deal; over the buyer's key, so that nobody
  else can use it; over the chain, so that it is worth nothing on another ledger; and it opens a
  hold no later than ``until``.
* Only the signature travels: both sides know all that it is over.
* What a ledger does with it is :mod:`wallet.effects`': the hold that carries it sets ``amount``
  aside, and the payer gets it if the payee lets that hold expire untouched.

    >>> seller, buyer = Signer(bytes(32)), Signer(bytes([1]) * 32)
    >>> pledge = Pledge(chain="c" * 16, agreement="a" * 64, buyer=buyer.did, seller=seller.did,
    ...                 amount="200", until=60_000)
    >>> check_pledge(pledge, sign_pledge(pledge, seller))
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rahba.encoding import MAX_INT, canonical
from rahba.envelope import Signer, verify
from rahba.errors import BadSignatureError

PLEDGE_TYPE: Final = "application/vnd.rahba.pledge+json"


class Pledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``seller`` forfeits up to ``amount`` fals to ``buyer`` under ``agreement`` (a digest)."""

    agreement: str
    amount: str
    buyer: str
    chain: str
    seller: str
    until: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
    v: Literal[1] = 1


def sign_pledge(pledge: Pledge, seller: Signer) -> str:
    """Return the base64 signature that makes the pledge.

    Raises:
        BadSignatureError: the signer is not the seller.
    """
    if seller.did != pledge.seller:
        raise BadSignatureError("a pledge is signed by its seller")
    return seller.sign(PLEDGE_TYPE, canonical(pledge))


def check_pledge(pledge: Pledge, signature: str) -> None:
    """Verify the seller's signature.

    Raises:
        BadSignatureError: it is not the seller's over exactly this.
    """
    verify(pledge.seller, PLEDGE_TYPE, canonical(pledge), signature)
