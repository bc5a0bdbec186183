"""A seller's till: captures and releases holds on the ledger.

The capture of a deal is a function of the deal: same hold, price, receipt and deadline, same bytes,
same transaction id; so is the answer to a challenge. So it can be made again after a crash, here or
on another host, without a note of what was sent: the ledger executes those bytes once and says
``exists`` from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from typing_extensions import override

from agents.courier import BACKOFF_S
from agents.ports import Till
from rahba.clock import Clock
from rahba.encoding import MAX_INT, sha256_hex
from rahba.envelope import Signer
from rahba.ids import Ids
from wallet.effects import NEEDS_NO_FEE
from wallet.errors import LedgerUnavailableError, PaymentRefusedError, error_for
from wallet.ports import HoldView, Ledger
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Capture,
    Deliver,
    Genesis,
    Release,
    seal_transaction,
    transaction_id,
)

RELEASE_MS: Final = 60_000

_log: Final = logging.getLogger(__name__)


class LedgerTill(Till):
    """The till of one account. Only its key can take what is held for it."""

    def __init__(self, ledger: Ledger, signer: Signer, *, clock: Clock, ids: Ids) -> None:
        """Collect for the account of ``signer``."""
        self._ledger = ledger
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._genesis: Genesis | None = None

    @override
    async def look(self, hold: str) -> HoldView | None:
        return await self._ledger.hold(hold)

    @override
    async def capture(self, hold: str, amount: int, receipt: str, *, until_ms: int) -> str:
        fields = {"hold": hold, "amount": str(amount), "final": True, "receipt": receipt}
        raw = await self._sign(Capture, _salt(f"{hold}:{receipt}"), until_ms, **fields)
        try:
            await self._submit(raw)
        except PaymentRefusedError:
            if await self._ledger.transaction(transaction_id(raw)) is None:
                raise
        return transaction_id(raw)

    @override
    async def deliver(self, hold: HoldView, shown: str, parts: Sequence[str | None]) -> None:
        for number, part in enumerate(parts, 1):
            salt = _salt(f"{hold.id}:{number}/{len(parts)}:{shown}")
            fields = {"receipt": shown, "part": number, "parts": len(parts), "output": part}
            until_ms = hold.deadline_ms or 0
            await self._submit(await self._sign(Deliver, salt, until_ms, hold=hold.id, **fields))

    @override
    async def release(self, hold: HoldView, *, forfeit: int = 0) -> None:
        until_ms = self._clock.now_ms() + RELEASE_MS
        fields = {"hold": hold.id, "forfeit": str(min(forfeit, hold.bail))}
        raw = await self._sign(Release, self._ids.salt(), until_ms, **fields)
        try:
            await self._submit(raw)
        except PaymentRefusedError as error:
            _log.info("hold %s was not released: %s", hold.id, error.code)

    @override
    async def chain(self) -> str:
        return (await self._rules()).chain

    async def _sign(self, form: type[AnyTx], salt: int, until_ms: int, **fields: Any) -> bytes:
        """Sign a transaction with its own ``fields``: the same bytes for the same arguments."""
        genesis = await self._rules()
        tx = form(
            account=self._signer.did,
            chain=genesis.chain,
            fee="0" if form in NEEDS_NO_FEE else genesis.fee,
            fee_payer=None,
            lane=EXPIRING_LANE,
            seq=salt,
            valid_until=until_ms,
            **fields,
        )
        return seal_transaction(tx, self._signer)

    async def _submit(self, raw: bytes) -> None:
        """Send the same bytes until the ledger decides.

        Raises:
            PaymentRefusedError: it refuses them.
            LedgerUnavailableError: it did not answer for some seconds.
        """
        for pause_s in (*BACKOFF_S, None):
            try:
                answer = await self._ledger.submit(raw)
            except LedgerUnavailableError:
                if pause_s is None:
                    raise
            else:
                if answer.ok:
                    return
                if answer.outcome != "retry":
                    raise error_for(answer.code or "payment_refused", answer.detail)
                if pause_s is None:
                    raise LedgerUnavailableError(f"the ledger is busy: {answer.code}")
            await asyncio.sleep(pause_s)

    async def _rules(self) -> Genesis:
        if self._genesis is None:
            first = await self._ledger.entries(0, 1)
            if not first:
                raise LedgerUnavailableError("the ledger has not begun")
            self._genesis = msgspec.convert(first[0].payload, Genesis)
        return self._genesis


def _salt(text: str) -> int:
    return int(sha256_hex(text.encode())[:13], 16) % MAX_INT + 1
