"""A client that believes a ledger nothing: it remembers one checkpoint and checks all else.

* What it remembers only grows. A checkpoint that is smaller or contradicts it is refused, and both
  signed notes are kept: :class:`ForkError` carries them.
* Payments, balances and whole histories are checked against that checkpoint, by the pure functions
  of :mod:`rahba.proof` and :mod:`rahba.balance`; whoever has the answers can check them offline.
* With a ``policy`` only checkpoints that a quorum of witnesses cosigned are believed.

    async with LightClient("http://127.0.0.1:8700", vkey, memory=Path("ledger.seen")) as light:
        account = await light.balance(did)
        history = await light.history(did)      # complete, or an error
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from rahba.balance import AccountProof, ProvenAccount, verify_account, verify_history
from rahba.errors import BadEncodingError, BadSignatureError, RemoteError, TooLargeError
from rahba.merkle import BadProofError, leaf_hash, verify_consistency
from rahba.note import Checkpoint, open_checkpoint, read_verifier_key
from rahba.policy import Policy
from rahba.proof import InclusionProof, Receipt, open_receipt, verify_proof

T = TypeVar("T")
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
MAX_NOTE_BYTES: Final = 64 * 1024
PAGE: Final = 1_000
MAX_HISTORY: Final = 1_000_000


class LedgerSilentError(RemoteError):
    """The ledger did not answer, or with something else than was asked."""

    code = "ledger_silent"
    retryable = True


class StaleLedgerError(RemoteError):
    """The ledger shows less than it showed before."""

    code = "stale_ledger"
    hint = "ask another gateway; if all show it, the ledger was rolled back: keep both checkpoints"


class NotWitnessedError(RemoteError):
    """The checkpoint lacks the cosignatures that the policy asks for."""

    code = "not_witnessed"
    retryable = True


class ForkError(RemoteError):
    """The ledger signed two histories: ``facts`` hold both notes."""

    code = "forked_ledger"
    hint = "stop paying here; both notes are evidence (`rahba witness judge`)"


@dataclass(frozen=True, slots=True)
class Known:
    """The newest checkpoint that was believed, as its note says it."""

    checkpoint: Checkpoint
    note: str


class Entry(msgspec.Struct, frozen=True):
    """A transaction as the ledger shows it; ``raw`` is what was signed."""

    id: str
    seq: int
    raw: bytes


class _Path(msgspec.Struct):
    path: tuple[str, ...]


def compare(known: Known | None, shown: Known, path: tuple[bytes, ...]) -> bool:
    """Say whether a checkpoint is newer than the known one, and belongs to the same history.

    Pure. ``path`` is the consistency proof from the known size to the shown one.

    Raises:
        StaleLedgerError: it is smaller.
        ForkError: it contradicts the known one.
    """
    if known is None:
        return True
    old, new = known.checkpoint, shown.checkpoint
    if new.size < old.size:
        raise StaleLedgerError("the ledger shows less than before", known=old.size, shown=new.size)
    try:
        verify_consistency(old.size, new.size, old.root, new.root, path)
    except BadProofError as error:
        raise ForkError(
            f"size {new.size} does not extend size {old.size}: {error.message}",
            known=known.note,
            shown=shown.note,
        ) from error
    return new.size > old.size


class LightClient:
    """Checks what one ledger says; ``memory`` is the file of what it believed last."""

    def __init__(
        self,
        url: str,
        vkey: str,
        *,
        memory: Path | None = None,
        policy: Policy | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Ask ``url`` (a gateway or a ledger) about the log whose verifier key is ``vkey``."""
        read_verifier_key(vkey)
        self._url = url.rstrip("/")
        self._vkey = vkey
        self._memory = memory
        self._policy = policy
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._web: aiohttp.ClientSession | None = None
        self.known = self._remembered()

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._web = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._web is not None:
            await self._web.close()

    async def advance(self) -> Checkpoint:
        """Ask for the newest checkpoint and remember it, if it extends the one that is known.

        Raises:
            ForkError, StaleLedgerError: it does not; nothing is remembered.
            NotWitnessedError: a policy is set and not met.
        """
        place = "witnessed" if self._policy is not None else "checkpoint"
        note = (await self._get(f"/v1/log/{place}", MAX_NOTE_BYTES)).decode("utf-8", "replace")
        return await self._believe(note)

    async def balance(self, account: str) -> ProvenAccount:
        """Return an account as the newest checkpoint proves it."""
        return (await self.prove(account))[0]

    async def history(self, account: str) -> list[Entry]:
        """Return all transactions of an account up to a checkpoint, oldest first: complete.

        Raises:
            BadProofError: the ledger left something out, added or changed something.
        """
        proven, _ = await self.prove(account)
        found: list[Entry] = []
        before = ""
        while len(found) < MAX_HISTORY:
            path = f"/v1/accounts/{quote(account, safe='')}/history?limit={PAGE}{before}"
            page = await self._read(path, list[Entry])
            found += page
            if not page:
                break
            before = f"&before={page[-1].seq}"
        found = [entry for entry in reversed(found) if entry.seq < proven.size]
        verify_history([entry.raw for entry in found], proven.tip)
        return found

    async def payment(self, tx_id: str) -> tuple[Entry, InclusionProof]:
        """Return a transaction with its inclusion, verified under a believed checkpoint."""
        entry = await self._read(f"/v1/transactions/{quote(tx_id, safe='')}", Entry)
        proof = await self._read(
            f"/v1/log/proof/inclusion?tx={quote(tx_id, safe='')}", InclusionProof
        )
        if not leaf_hash(entry.raw).hex() == proof.leaf_hash == tx_id:
            raise BadProofError("the ledger shows another transaction")
        verify_proof(proof, self._vkey)
        await self._believe(proof.checkpoint, cosigned=False)
        return entry, proof

    def receipt(self, text: str) -> Receipt:
        """Check a ``tlog-proof`` file offline, and that it does not contradict what is known."""
        receipt = open_receipt(text, self._vkey)
        known = self.known
        if known is not None and known.checkpoint.size == receipt.checkpoint.size:
            shown = Known(receipt.checkpoint, text.partition("\n\n")[2])
            compare(known, shown, ())
        return receipt

    async def prove(self, account: str) -> tuple[ProvenAccount, AccountProof]:
        """Return an account with the proof of it, which anybody can check offline."""
        path = f"/v1/accounts/{quote(account, safe='')}/proof"
        proof = await self._read(path, AccountProof)
        proven = verify_account(proof, self._vkey)
        if proven.id != account:
            raise BadProofError("the ledger shows another account")
        await self._believe(proof.inclusion.checkpoint, cosigned=False)
        return proven, proof

    async def _believe(self, note: str, *, cosigned: bool = True) -> Checkpoint:
        """Remember a checkpoint that extends the known one; an older one must be its prefix."""
        checkpoint = open_checkpoint(note, self._vkey)
        if self._policy is not None and cosigned and not self._met(note):
            raise NotWitnessedError("too few witnesses cosigned the checkpoint")
        known, shown = self.known, Known(checkpoint, note)
        if known is not None and checkpoint.size < known.checkpoint.size and not cosigned:
            # A proof may come from a replica that is a moment behind: it is checked backwards.
            compare(shown, known, await self._path(checkpoint.size, known.checkpoint.size))
            return checkpoint
        path: tuple[bytes, ...] = ()
        if known is not None and known.checkpoint.size < checkpoint.size:
            path = await self._path(known.checkpoint.size, checkpoint.size)
        if compare(known, shown, path):
            self._remember(shown)
        return checkpoint

    def _met(self, note: str) -> bool:
        assert self._policy is not None
        return self._policy.met(self._policy.cosigners(note))

    async def _path(self, old: int, new: int) -> tuple[bytes, ...]:
        found = await self._read(f"/v1/log/proof/consistency?old={old}&new={new}", _Path)
        try:
            return tuple(bytes.fromhex(step) for step in found.path)
        except ValueError as error:
            raise BadProofError("a hash is written as hex digits") from error

    def _remembered(self) -> Known | None:
        if self._memory is None or not self._memory.exists():
            return None
        raw = self._memory.read_bytes()
        if len(raw) > MAX_NOTE_BYTES:
            raise TooLargeError("the remembered checkpoint is too large", limit=MAX_NOTE_BYTES)
        note = raw.decode("utf-8", "replace")
        return Known(open_checkpoint(note, self._vkey), note)

    def _remember(self, shown: Known) -> None:
        """Replace the file in one durable step."""
        if self._memory is not None:
            draft = self._memory.with_name(self._memory.name + ".new")
            with draft.open("wb") as file:
                file.write(shown.note.encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._memory)
        self.known = shown

    async def _read(self, path: str, form: type[T]) -> T:
        raw = await self._get(path, MAX_ANSWER_BYTES)
        try:
            return msgspec.json.decode(raw, type=form, strict=False)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise BadEncodingError(f"not the answer of a ledger: {error}") from error

    async def _get(self, path: str, limit: int) -> bytes:
        assert self._web is not None, "use `async with LightClient(...)`"
        try:
            async with self._web.get(self._url + path, allow_redirects=False) as reply:
                raw = bytearray()
                async for chunk in reply.content.iter_any():
                    raw += chunk
                    if len(raw) > limit:
                        raise TooLargeError("the answer is too large", limit=limit)
                if reply.status != 200:
                    said = bytes(raw[:300]).decode("utf-8", "replace")
                    raise LedgerSilentError(f"{path}: {reply.status} {said}", status=reply.status)
                return bytes(raw)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise LedgerSilentError(f"{self._url}{path}: {error!r}") from error


__all__ = [
    "BadSignatureError",
    "Entry",
    "ForkError",
    "LedgerSilentError",
    "LightClient",
    "NotWitnessedError",
    "StaleLedgerError",
    "compare",
]
