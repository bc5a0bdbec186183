"""A running witness: asks the rules, keeps what they say durably, and only then cosigns.

* One request is decided at a time, and what is kept replaces exactly what it was compared with: no
  two requests roll each other back.
* With an auditor, a checkpoint is carried out before it is cosigned. What is cosigned already, and
  what is refused anyway, is answered without waiting for that. A log with evidence against it is
  never cosigned by an auditor again (403), not after a new start either.
* Two notes that contradict each other are evidence, kept for whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from rahba.clock import Clock
from rahba.cosignature import cosign, cosigner_key
from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.merkle import extended_root
from rahba.note import Checkpoint, open_checkpoint
from wallet.auditor import Auditor, prove_fork
from wallet.evidence import AnyBundle, Fork, Rollback, hashes, write_evidence
from wallet.stores.witness import WitnessStore
from wallet.witness import Doubt, Ruling, Seen, Trust, origin_hash, rule

MAX_SHOWN: Final = 100

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
        """Cosign for the logs of ``trust``; the caller closes store and auditor."""
        self._store = store
        self._name = name
        self._signer = signer
        self._trust = trust
        self._clock = clock
        self._auditor = auditor
        self._turn = asyncio.Lock()
        self._looking = asyncio.Lock()

    @property
    def vkey(self) -> str:
        """Return the verifier key that goes into other people's policies."""
        return cosigner_key(self._name, self._signer.did)

    async def add_checkpoint(self, body: bytes) -> Ruling:
        """Answer an ``add-checkpoint`` request; see :func:`wallet.witness.rule`."""
        refusal = await self._audit(body)
        if refusal is not None:
            return refusal
        async with self._turn:
            ruling = await asyncio.to_thread(self._decide, body)
        if ruling.doubt is not None:
            await self._accuse(ruling.origin, await self._contradiction(ruling.doubt))
        return ruling

    async def checkpoint(self, name: str) -> str | None:
        """Return the newest cosigned checkpoint of the log whose origin's hash is ``name``."""
        return await asyncio.to_thread(self._shown, name)

    async def evidence(self) -> list[str]:
        """Return the first bundles that are kept against logs."""
        return await asyncio.to_thread(self._store.evidence, MAX_SHOWN)

    async def catch_up(self) -> None:
        """Carry out again what was cosigned before this start: nobody has to wait for it then."""
        if self._auditor is None:
            return
        found = [self._store.newest(origin) for origin in self._store.origins()]
        await self._auditor.catch_up(max((seen.size for seen in found if seen), default=0))

    def _decide(self, body: bytes) -> Ruling:
        ruling = rule(body, self._trust, self._store.newest)
        if ruling.seen is None:
            return ruling
        time_s = self._clock.now_ms() // 1000
        line = cosign(ruling.seen.note, self._name, self._signer, time_s)
        kept = ruling.seen._replace(note=ruling.seen.note + line)
        self._store.keep(ruling.origin, ruling.before, kept)  # before the line leaves
        return replace(ruling, body=line)

    def _shown(self, name: str) -> str | None:
        for origin in self._store.origins():
            if origin_hash(origin) == name:
                seen = self._store.newest(origin)
                return seen.note if seen else None
        return None

    async def _audit(self, body: bytes) -> Ruling | None:
        """Return a refusal if the auditor does not confirm what would be cosigned."""
        if self._auditor is None:
            return None
        ruling = await asyncio.to_thread(rule, body, self._trust, self._store.newest)
        if ruling.seen is None:
            return None
        if await asyncio.to_thread(self._store.accused, ruling.origin):
            return Ruling(403, "there is evidence against that log")
        return None if ruling.again else await self._carried_out(self._auditor, ruling, ruling.seen)

    async def _carried_out(self, auditor: Auditor, ruling: Ruling, seen: Seen) -> Ruling | None:
        try:
            wrong = await auditor.confirms(seen.note, ruling.vkey)
        except RahbaError as error:
            return Ruling(503, f"the log cannot be audited now: {error.message}")
        if wrong is None:
            return None
        logger.critical("the audit of %s failed: %s", ruling.origin, wrong)
        for bundle in auditor.evidence:
            await self._accuse(ruling.origin, bundle)
        return Ruling(403, f"the audit failed: {wrong}", origin=ruling.origin)

    async def _accuse(self, origin: str, bundle: AnyBundle | None) -> None:
        if bundle is not None:
            logger.critical("evidence against %s: %s", origin, bundle.__struct_config__.tag)
            await asyncio.to_thread(self._store.accuse, origin, write_evidence(bundle))

    async def _contradiction(self, doubt: Doubt) -> AnyBundle | None:
        """Return what proves that two notes of a log contradict each other, if anything does."""
        try:
            seen = open_checkpoint(doubt.seen, doubt.vkey)
            other = open_checkpoint(doubt.other, doubt.vkey)
            if other.size < seen.size:
                return self._set_back(doubt, seen, other)
            return await self._forked(doubt, seen, other)
        except RahbaError as error:  # it is not cosigned: that is enough
            logger.warning("no evidence against a doubtful log now: %s", error.message)
            return None

    def _set_back(self, doubt: Doubt, seen: Checkpoint, other: Checkpoint) -> Rollback | None:
        joined = self._auditor.joins(other, seen) if self._auditor is not None else None
        if joined is None or joined[0] == other.root:
            return None
        old_root, proof = b64(joined[0]), hashes(joined[1])
        return Rollback(doubt.vkey, self.vkey, doubt.seen, doubt.other, old_root, proof)

    async def _forked(self, doubt: Doubt, seen: Checkpoint, other: Checkpoint) -> Fork | None:
        if seen.size == other.size:
            differ = seen.root != other.root
            return Fork(doubt.vkey, doubt.seen, doubt.other) if differ else None
        said = extended_root(seen.size, other.size, other.root, doubt.proof)
        if said is not None and said != seen.root:
            proof = hashes(doubt.proof)
            return Fork(doubt.vkey, doubt.seen, doubt.other, b64(said), proof)
        if self._auditor is None:
            return None
        async with self._looking:
            return await prove_fork(self._auditor.ledger, doubt.seen, doubt.other, doubt.vkey)
