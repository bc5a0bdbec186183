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
from typing import Final

import msgspec
from typing_extensions import override

from agents.courier import BACKOFF_S
from agents.ports import Till
from rahba.clock import Clock
from rahba.encoding import MAX_INT, sha256_hex
from rahba.envelope import Signer
from rahba.ids import Ids
from wallet.errors import LedgerUnavailableError, PaymentRefusedError, error_for
from wallet.ports import HoldView, Ledger
from wallet.transactions import (
    EXPIRING_LANE,
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
        genesis = await self._rules()
        raw = seal_transaction(
            Capture(
                account=self._signer.did,
                chain=genesis.chain,
                fee=genesis.fee,
                fee_payer=None,
                lane=EXPIRING_LANE,
                seq=_salt(f"{hold}:{receipt}"),
                valid_until=until_ms,
                hold=hold,
                amount=str(amount),
                final=True,
                receipt=receipt,
            ),
            self._signer,
        )
        try:
            await self._submit(raw)
        except PaymentRefusedError:
            if await self._ledger.transaction(transaction_id(raw)) is None:
                raise
        return transaction_id(raw)

    @override
    async def deliver(self, hold: HoldView, shown: str, parts: Sequence[str | None]) -> None:
        genesis = await self._rules()
        for number, part in enumerate(parts, 1):
            raw = seal_transaction(
                Deliver(
                    account=self._signer.did,
                    chain=genesis.chain,
                    fee="0",
                    fee_payer=None,
                    lane=EXPIRING_LANE,
                    seq=_salt(f"{hold.id}:{number}/{len(parts)}:{shown}"),
                    valid_until=hold.deadline_ms or 0,
                    hold=hold.id,
                    receipt=shown,
                    part=number,
                    parts=len(parts),
                    output=part,
                ),
                self._signer,
            )
            await self._submit(raw)

    @override
    async def release(self, hold: HoldView, *, forfeit: int = 0) -> None:
        genesis = await self._rules()
        raw = seal_transaction(
            Release(
                account=self._signer.did,
                chain=genesis.chain,
                fee="0",
                fee_payer=None,
                lane=EXPIRING_LANE,
                seq=self._ids.salt(),
                valid_until=self._clock.now_ms() + RELEASE_MS,
                hold=hold.id,
                forfeit=str(min(forfeit, hold.bail)),
            ),
            self._signer,
        )
        try:
            await self._submit(raw)
        except PaymentRefusedError as error:
            _log.info("hold %s was not released: %s", hold.id, error.code)

    @override
    async def chain(self) -> str:
        return (await self._rules()).chain

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
