"""A running witness: asks the rules, keeps what they say durably, and only then cosigns.

One request of all logs is decided at a time, so that no two compare themselves with the same
checkpoint. With an auditor, a checkpoint is also carried out before it is cosigned.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from rahba.clock import Clock
from rahba.cosignature import cosign, cosigner_key
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.note import open_checkpoint
from wallet.auditor import Auditor, prove_fork
from wallet.evidence import AnyBundle, BadState, Fork, write_evidence
from wallet.stores.witness import WitnessStore
from wallet.witness import Fault, Ruling, Trust, rule

logger: Final = logging.getLogger("rahba.witness")


class Watch:
    """A witness by the name ``name``, with a key and a store that are its alone."""

    def __init__(
        self,
        store: WitnessStore,
        name: str,
        signer: Signer,
        trust: Trust,
        *,
        clock: Clock,
        auditor: Auditor | None = None,
    ) -> None:
        """Cosign for the logs of ``trust``; the caller closes the store."""
        self._store = store
        self._name = name
        self._signer = signer
        self._trust = trust
        self._clock = clock
        self._auditor = auditor
        self._turn = asyncio.Lock()

    @property
    def vkey(self) -> str:
        """Return the verifier key that goes into other people's policies."""
        return cosigner_key(self._name, self._signer.did)

    async def add_checkpoint(self, body: bytes) -> Ruling:
        """Answer an ``add-checkpoint`` request; see :func:`wallet.witness.rule`."""
        async with self._turn:
            ruling = await asyncio.to_thread(rule, body, self._trust, self._store.newest)
            if ruling.fault is not None:
                await self._accuse(await self._fork(ruling.fault))
            if ruling.seen is None:
                return ruling
            refusal = await self._audit(ruling)
            if refusal is not None:
                return refusal
            await asyncio.to_thread(self._store.keep, ruling.origin, ruling.seen)
            time_s = self._clock.now_ms() // 1000
            return replace(ruling, body=cosign(ruling.note, self._name, self._signer, time_s))

    async def _audit(self, ruling: Ruling) -> Ruling | None:
        """Return a refusal if the auditor does not confirm the checkpoint."""
        if self._auditor is None:
            return None
        vkey = self._vkey_of(ruling.origin, ruling.note)
        try:
            wrong = await self._auditor.confirms(ruling.note, vkey)
        except RahbaError as error:
            return Ruling(503, f"the log cannot be audited now: {error.message}")
        if wrong is None:
            return None
        evidence = self._auditor.evidence
        if isinstance(evidence, BadState):
            more = await self._auditor.entry_evidence(ruling.note, vkey, evidence.seq)
            await self._accuse(more)
        await self._accuse(evidence)
        logger.critical("the audit of %s failed: %s", ruling.origin, wrong)
        return Ruling(422, f"the audit failed: {wrong}", origin=ruling.origin)

    async def _accuse(self, bundle: AnyBundle | None) -> None:
        if bundle is not None:
            logger.critical("evidence against the log: %s", bundle.__struct_config__.tag)
            await asyncio.to_thread(self._store.accuse, write_evidence(bundle))

    async def _fork(self, fault: Fault) -> Fork | None:
        """Two checkpoints of one size convict by themselves; others with the log's entries."""
        vkey = self._vkey_of(fault.origin, fault.second)
        first, second = open_checkpoint(fault.first, vkey), open_checkpoint(fault.second, vkey)
        logger.critical("%s: size %d contradicts size %d", fault.origin, second.size, first.size)
        if first.size == second.size:
            return Fork(vkey, fault.first, fault.second)
        if self._auditor is None:
            return None
        try:
            return await prove_fork(self._auditor.ledger, fault.first, fault.second, vkey)
        except RahbaError:
            return None  # it cannot be asked now; the witness does not cosign, that is enough

    def _vkey_of(self, origin: str, note: str) -> str:
        for vkey in self._trust.keys(origin):
            try:
                open_checkpoint(note, vkey)
            except RahbaError:
                continue
            return vkey
        raise AssertionError("only a signed note comes here")
