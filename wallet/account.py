"""A wallet: one key, one account, and the patience to get a sure answer from the ledger.

* ``transfer``, ``hold``, ... sign, send and return the :class:`~wallet.ports.Answer`, or raise the
  class of the refusal (:mod:`wallet.errors`).
* ``sign_...`` return the signed bytes without sending: write down their id
  (:func:`wallet.transactions.transaction_id`) before :meth:`Wallet.send`, or give the wallet an
  outbox that does so, and a crash in between leaves nothing unknown.
* On a lost connection or ``retry`` the *same* bytes are sent again: they run once at most.
* All go by the expiring lane, so any number can be under way at a time.

    wallet = Wallet(ledger, signer, clock=clock, ids=ids)
    await wallet.transfer(to=seller, amount=2_000_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rahba.clock import Clock
from rahba.envelope import Signer
from rahba.errors import BadInputError
from rahba.ids import Ids
from rahba.money import wire_fals
from wallet.delivery import deliver, genesis_of, refusal
from wallet.effects import NEEDS_NO_FEE
from wallet.outbox import Outbox
from wallet.ports import Answer, Ledger
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Arbitration,
    Bail,
    Batch,
    Capture,
    Faucet,
    Genesis,
    Grant,
    Hold,
    Item,
    Recourse,
    Release,
    Revoke,
    Spending,
    Transfer,
    seal_transaction,
)

VALIDITY_MS: Final = 30_000
GRACE_S: Final = 5.0


class Wallet:
    """Acts for ``account`` by ``signer``: its own key, or a session key that it granted.

    Safe for any number of tasks at a time. ``fee_payer`` co-signs and pays all fees. With an
    ``outbox`` (of the same ledger) a crash leaves nothing unknown: see :mod:`wallet.outbox`.
    """

    def __init__(
        self,
        ledger: Ledger,
        signer: Signer,
        *,
        clock: Clock,
        ids: Ids,
        account: str | None = None,
        fee_payer: Signer | None = None,
        validity_ms: int = VALIDITY_MS,
        outbox: Outbox | None = None,
    ) -> None:
        """Act on ``ledger``; transactions are valid for ``validity_ms``."""
        self.account = account or signer.did
        self.signer = signer
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._fee_payer = fee_payer
        self._validity_ms = validity_ms
        self._outbox = outbox
        self._genesis: Genesis | None = None

    @property
    def ledger(self) -> Ledger:
        """Return the ledger that the account is on."""
        return self._ledger

    async def transfer(self, to: str, amount: int) -> Answer:
        """Pay ``amount`` fals to ``to``."""
        return await self.send(await self.sign_transfer(to, amount))

    async def batch(self, items: Sequence[tuple[str, int]]) -> Answer:
        """Pay several ``(to, amount)``, all or none."""
        return await self.send(await self.sign_batch(items))

    async def hold(
        self,
        payee: str,
        amount: int,
        expires_ms: int,
        agreement: str,
        *,
        arbitration: Arbitration | None = None,
        bail: Bail | None = None,
        recourse: Recourse | None = None,
    ) -> Answer:
        """Set ``amount`` aside for ``payee``; the answer's id is the hold's."""
        raw = await self.sign_hold(
            payee,
            amount,
            expires_ms,
            agreement,
            arbitration=arbitration,
            bail=bail,
            recourse=recourse,
        )
        return await self.send(raw)

    async def capture(
        self, hold: str, amount: int, receipt: str | None = None, *, final: bool = True
    ) -> Answer:
        """Take ``amount`` of a hold for this account; ``final`` gives the rest back."""
        return await self.send(await self.sign_capture(hold, amount, receipt, final=final))

    async def release(self, hold: str, *, forfeit: int = 0) -> Answer:
        """Give a hold back to its payer, and ``forfeit`` of the own bail in it."""
        return await self.send(await self.sign_release(hold, forfeit=forfeit))

    async def faucet(self, amount: int) -> Answer:
        """Claim test money."""
        return await self.send(await self.sign_faucet(amount))

    async def grant(  # noqa: PLR0917  # a mandate is as long as it is
        self,
        key_did: str,
        budget: int,
        per_tx: int,
        payees: Sequence[str] | None,
        types: Sequence[Spending],
        expires_ms: int,
    ) -> Answer:
        """Let another key spend within these limits."""
        return await self.send(
            await self.sign_grant(key_did, budget, per_tx, payees, types, expires_ms)
        )

    async def revoke(self, key_did: str) -> Answer:
        """End another key's session."""
        return await self.send(await self.sign_revoke(key_did))

    async def sign_transfer(self, to: str, amount: int) -> bytes:
        """Sign a transfer."""
        return await self.sign(Transfer, to=to, amount=wire_fals(amount))

    async def sign_batch(self, items: Sequence[tuple[str, int]]) -> bytes:
        """Sign a batch of payments."""
        payments = tuple(Item(to=to, amount=wire_fals(amount)) for to, amount in items)
        return await self.sign(Batch, items=payments)

    async def sign_hold(
        self,
        payee: str,
        amount: int,
        expires_ms: int,
        agreement: str,
        *,
        arbitration: Arbitration | None = None,
        bail: Bail | None = None,
        recourse: Recourse | None = None,
    ) -> bytes:
        """Sign a hold; its id will be the transaction id of these bytes.

        Whether the payee signed for its ``bail`` is the ledger's to find out (``bad_pledge``).
        """
        return await self.sign(
            Hold,
            payee=payee,
            amount=wire_fals(amount),
            expires=expires_ms,
            agreement=agreement,
            arbitration=arbitration,
            bail=bail,
            recourse=recourse,
        )

    async def sign_capture(
        self, hold: str, amount: int, receipt: str | None = None, *, final: bool = True
    ) -> bytes:
        """Sign a capture."""
        return await self.sign(
            Capture, hold=hold, amount=wire_fals(amount), final=final, receipt=receipt
        )

    async def sign_release(self, hold: str, *, forfeit: int = 0) -> bytes:
        """Sign a release; it costs no fee."""
        return await self.sign(Release, hold=hold, forfeit=wire_fals(forfeit))

    async def sign_faucet(self, amount: int) -> bytes:
        """Sign a claim of test money."""
        return await self.sign(Faucet, amount=wire_fals(amount))

    async def sign_grant(  # noqa: PLR0917  # a mandate is as long as it is
        self,
        key_did: str,
        budget: int,
        per_tx: int,
        payees: Sequence[str] | None,
        types: Sequence[Spending],
        expires_ms: int,
    ) -> bytes:
        """Sign a session for another key."""
        return await self.sign(
            Grant,
            key=key_did,
            budget=wire_fals(budget),
            per_tx=wire_fals(per_tx),
            payees=tuple(payees) if payees is not None else None,
            types=tuple(types),
            expires=expires_ms,
        )

    async def sign_revoke(self, key_did: str) -> bytes:
        """Sign the end of a session."""
        return await self.sign(Revoke, key=key_did)

    async def send(self, raw: bytes, *, key: str | None = None) -> Answer:
        """Submit signed bytes until there is a sure answer.

        With an outbox they are written down first, and ``key`` names the payment: under the same
        key it is made once.

        Raises:
            PaymentRefusedError: a subclass for the code, when refused or invalid.
            PaymentUnknownError: nobody answered in time; the same bytes may be sent again.
        """
        if self._outbox is not None:
            answer = await self._outbox.send(raw, key=key)
        elif key is not None:
            raise BadInputError("only a wallet with an outbox remembers a payment's key")
        else:
            patience_s = self._validity_ms / 1000 + GRACE_S
            answer = await deliver(self._ledger, raw, patience_s=patience_s)
        if not answer.ok:
            raise refusal(answer)
        return answer

    async def do(self, form: type[AnyTx], *others: Signer, **fields: Any) -> Answer:
        """Sign a transaction of any type with its own ``fields``, and send it."""
        return await self.send(await self.sign(form, *others, **fields))

    async def sign(self, form: type[AnyTx], *others: Signer, **fields: Any) -> bytes:
        """Sign a transaction of any type with its own ``fields``.

        ``others`` sign after this wallet's key, in the order of :mod:`wallet.authority`: further
        keys of the account, or the key that is rotated in.
        """
        rules = await self._rules()
        payer = self._fee_payer
        tx = form(
            account=self.account,
            chain=rules.chain,
            fee="0" if form in NEEDS_NO_FEE else rules.fee,
            fee_payer=payer.did if payer is not None else None,
            lane=EXPIRING_LANE,
            seq=self._ids.salt(),
            valid_until=self._clock.now_ms() + self._validity_ms,
            **fields,
        )
        return seal_transaction(tx, self.signer, *others, *([payer] if payer is not None else []))

    async def _rules(self) -> Genesis:
        """Read the ledger's genesis, once; it must be the one that its chain id names."""
        if self._genesis is None:
            self._genesis = await genesis_of(self._ledger)
        return self._genesis
