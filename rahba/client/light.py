"""A client that believes a ledger nothing: it remembers one checkpoint and checks all else.

* What it remembers only grows. A checkpoint that is smaller or contradicts it is refused, and both
  signed notes are kept: :class:`ForkError` carries them, and a file beside the memory
  (``.evidence.json``) is evidence for ``rahba witness judge``. What was shown without a proof that
  convicts is beside it, too (``.doubtful.json``).
* Payments, balances and whole histories are checked against that checkpoint, by the pure functions
  of :mod:`rahba.proof` and :mod:`rahba.balance`; whoever has the answers can check them offline.
* With a ``policy`` only checkpoints that a quorum of witnesses cosigned are believed. A balance is
  newer than the newest of those: it counts once a cosigned checkpoint extends its own.

    async with LightClient("http://127.0.0.1:8700", vkey, memory=Path("ledger.seen")) as light:
        account = await light.balance(did)
        history = await light.history(did)      # complete, or an error
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from rahba.balance import AccountProof, ProvenAccount, verify_account, verify_history
from rahba.encoding import b64
from rahba.errors import BadEncodingError, RahbaError, RemoteError, TooLargeError
from rahba.merkle import (
    HASH_BYTES,
    BadProofError,
    extended_root,
    leaf_hash,
    node_hash,
    unhex,
    verify_consistency,
)
from rahba.note import Checkpoint, open_checkpoint, read_verifier_key
from rahba.policy import Policy
from rahba.proof import InclusionProof, Receipt, open_receipt, verify_proof

T = TypeVar("T")
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
MAX_NOTE_BYTES: Final = 64 * 1024
PAGE: Final = 1_000
MAX_HISTORY: Final = 1_000_000
PAUSE_S: Final = 0.1


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
    """A transaction as the ledger shows it; ``raw`` is what was signed, ``id`` fits it.

    Of a history, ``seq`` is what the ledger says: its order is proven, its places are not.
    """

    id: str
    seq: int
    raw: bytes


class Told(Protocol):
    """An entry of a history, whoever reads it: its id, its place, its exact bytes."""

    @property
    def id(self) -> str:  # noqa: D102
        ...

    @property
    def seq(self) -> int:  # noqa: D102
        ...

    @property
    def raw(self) -> bytes:  # noqa: D102
        ...


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
            first=known.note,
            second=shown.note,
        ) from error
    return new.size > old.size


def evidence_of(
    first: Known, second: Known, path: tuple[bytes, ...], old_root: bytes | None, vkey: str
) -> str:
    """Return both checkpoints of a fork, the smaller one first, as a document for a judge.

    It convicts by itself if the sizes are equal, or ``old_root`` is what ``path`` extends.
    """
    document = {
        "kind": "fork",
        "vkey": vkey,
        "first": first.note,
        "second": second.note,
        "old_root": b64(old_root) if old_root is not None else None,
        "proof": [b64(step) for step in path],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


class LightClient:
    """Checks what one ledger says; ``memory`` is the file of what it believed last.

    For any number of tasks of one event loop; no two clients share a file.
    """

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
        self._timeout_s = timeout_s
        self._web: aiohttp.ClientSession | None = None
        self._believing = asyncio.Lock()
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
        async with self._believing:
            note = (await self._get(f"/v1/log/{place}", MAX_NOTE_BYTES)).decode("utf-8", "replace")
            shown = Known(open_checkpoint(note, self._vkey), note)
            if not self._met(note):
                raise NotWitnessedError("too few witnesses cosigned the checkpoint")
            if await self._follows(self.known, shown):
                self._remember(shown)
        return shown.checkpoint

    async def balance(self, account: str) -> ProvenAccount:
        """Return an account as the newest checkpoint proves it; see :meth:`prove`."""
        return (await self.prove(account))[0]

    async def history(self, account: str) -> list[Entry]:
        """Return all transactions of an account up to a checkpoint, oldest first: complete.

        Raises:
            BadProofError: the ledger left something out, added or changed something.
        """
        proven, _ = await self.prove(account)
        path = f"/v1/accounts/{quote(account, safe='')}/history?limit={PAGE}"
        found: list[Entry] = []
        page, last = await self._read(path, list[Entry]), None
        while page:
            check_page(page, last, len(found))
            found += page
            last = page[-1].seq
            page = await self._read(f"{path}&before={last}", list[Entry])
        found = [entry for entry in reversed(found) if entry.seq < proven.size]
        verify_history([entry.raw for entry in found], proven.tip)
        return found

    async def payment(self, tx_id: str) -> tuple[Entry, InclusionProof]:
        """Return a transaction with its inclusion, verified under a believed checkpoint."""
        entry = await self._read(f"/v1/transactions/{quote(tx_id, safe='')}", Entry)
        witnessed = int(self._policy is not None)
        path = f"/v1/log/proof/inclusion?tx={quote(tx_id, safe='')}&witnessed={witnessed}"
        proof = await self._read(path, InclusionProof)
        same = leaf_hash(entry.raw).hex() == proof.leaf_hash == tx_id == entry.id
        if not same or entry.seq != proof.index:
            raise BadProofError("the ledger shows another transaction")
        verify_proof(proof, self._vkey)
        await self._cover(proof.checkpoint)
        return entry, proof

    def receipt(self, text: str) -> Receipt:
        """Check a ``tlog-proof`` file offline, and that it does not contradict what is known.

        Raises:
            NotWitnessedError: a policy is set, and its checkpoint lacks cosignatures.
            ForkError: its checkpoint is another one of the known size.
        """
        receipt = open_receipt(text, self._vkey)
        note = text.partition("\n\n")[2]
        if not self._met(note):
            raise NotWitnessedError("too few witnesses cosigned the receipt's checkpoint")
        known = self.known
        if known is not None and known.checkpoint.size == receipt.checkpoint.size:
            shown = Known(receipt.checkpoint, note)
            try:
                compare(known, shown, ())
            except ForkError:
                self._accuse(known, shown)
                raise
        return receipt

    async def prove(self, account: str) -> tuple[ProvenAccount, AccountProof]:
        """Return an account with the proof of it, which anybody can check offline.

        Raises:
            NotWitnessedError: a policy is set, and no cosigned checkpoint came to cover it.
        """
        path = f"/v1/accounts/{quote(account, safe='')}/proof"
        proof = await self._read(path, AccountProof)
        proven = verify_account(proof, self._vkey)
        if proven.id != account:
            raise BadProofError("the ledger shows another account")
        await self._cover(proof.inclusion.checkpoint)
        return proven, proof

    async def _cover(self, note: str) -> None:
        """Check that the checkpoint a proof stands on is one of the log that is believed."""
        shown = Known(open_checkpoint(note, self._vkey), note)
        give_up = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            known = self.known
            older = known is not None and shown.checkpoint.size <= known.checkpoint.size
            if older or self._met(note):
                break
            if asyncio.get_running_loop().time() > give_up:
                raise NotWitnessedError("no cosigned checkpoint covers this yet")
            await self._look_again()
        async with self._believing:
            known = self.known
            if known is not None and shown.checkpoint.size < known.checkpoint.size:
                await self._follows(shown, known)  # it is from a replica that is behind, perhaps
            elif await self._follows(known, shown):
                self._remember(shown)

    async def _look_again(self) -> None:
        """Ask for a cosigned checkpoint, and pause when there is nothing new."""
        known = self.known
        try:
            await self.advance()
        except RemoteError as error:
            if not error.retryable:
                raise
        if self.known is known:
            await asyncio.sleep(PAUSE_S)

    async def _follows(self, known: Known | None, shown: Known) -> bool:
        """Say whether ``shown`` is newer; ask for the proof that it extends ``known``."""
        path: tuple[bytes, ...] = ()
        if known is not None and known.checkpoint.size < shown.checkpoint.size:
            path = await self._path(known.checkpoint.size, shown.checkpoint.size)
        try:
            return compare(known, shown, path)
        except ForkError:
            if known is not None:
                said = await self._extended(known.checkpoint.size, shown.checkpoint, path)
                self._accuse(known, shown, path, said)
            raise

    async def _extended(self, old: int, new: Checkpoint, path: tuple[bytes, ...]) -> bytes | None:
        """Return the root at size ``old`` that ``path`` extends, if it is a proof at all.

        No proof repeats the root of a power of two; there the log's own tile has its parts.
        """
        if not old or old & (old - 1):
            return extended_root(old, new.size, new.root, path)
        level, height = divmod(old.bit_length() - 1, 8)
        try:
            raw = await self._get(f"/v1/log/tile/{level}/000.p/{1 << height}", MAX_NOTE_BYTES)
            nodes = [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
            for _ in range(height):
                nodes = [node_hash(*pair) for pair in zip(nodes[::2], nodes[1::2], strict=False)]
            said = b"".join(nodes)
            verify_consistency(old, new.size, said, new.root, path)
        except RahbaError:
            return None
        return said

    def _accuse(
        self, first: Known, second: Known, path: tuple[bytes, ...] = (), said: bytes | None = None
    ) -> None:
        """Keep the first evidence that convicts the ledger, and apart from it what does not yet."""
        if self._memory is None:
            return
        convicts = said is not None or first.checkpoint.size == second.checkpoint.size
        kind = "evidence" if convicts else "doubtful"
        file = self._memory.with_name(f"{self._memory.name}.{kind}.json")
        if convicts and file.exists():
            return
        with contextlib.suppress(OSError):  # the error itself carries both notes
            write_durably(file, evidence_of(first, second, path, said, self._vkey).encode())

    def _met(self, note: str) -> bool:
        return self._policy is None or self._policy.met(self._policy.cosigners(note))

    async def _path(self, old: int, new: int) -> tuple[bytes, ...]:
        found = await self._read(f"/v1/log/proof/consistency?old={old}&new={new}", _Path)
        return tuple(unhex(step) for step in found.path)

    def _remembered(self) -> Known | None:
        if self._memory is None or not self._memory.exists():
            return None
        raw = self._memory.read_bytes()
        if len(raw) > MAX_NOTE_BYTES:
            raise TooLargeError("the remembered checkpoint is too large", limit=MAX_NOTE_BYTES)
        note = raw.decode("utf-8", "replace")
        return Known(open_checkpoint(note, self._vkey), note)

    def _remember(self, shown: Known) -> None:
        if self._memory is not None:
            write_durably(self._memory, shown.note.encode())
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


def check_page(page: Sequence[Told], before: int | None, told: int) -> None:
    """Check one more page of a history, newest first; nothing in it is proven yet.

    ``before`` is the place of the last entry of the pages before it, ``told`` how many those had.

    Raises:
        BadProofError: it goes round in circles, or names entries that it does not show.
        TooLargeError: nobody's history is that long.
    """
    seqs = [*([] if before is None else [before]), *(entry.seq for entry in page)]
    if any(later <= earlier for later, earlier in itertools.pairwise(seqs)):
        raise BadProofError("a history is told newest first")
    if any(leaf_hash(entry.raw).hex() != entry.id for entry in page):
        raise BadProofError("the ledger shows another transaction than it names")
    if told + len(page) > MAX_HISTORY:
        raise TooLargeError("the history is too long", limit=MAX_HISTORY)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file, so that a crash leaves the old one or the new one."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
