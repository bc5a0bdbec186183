"""The log's side of being witnessed: ask for cosignatures, and for what the witnesses know.

* :meth:`Cosigning.run` sends each new checkpoint to the witnesses of the policy, each with the
  proof from the size that it knows, and keeps the note as *witnessed* as soon as a quorum signed
  it. Who is slow or silent is hardly waited for, unless there is no quorum without it.
* :meth:`Cosigning.before_signing` comes first after a start: a witness that has seen more of this
  log than our disk holds, or another root, means that the disk was set back. The ledger then does
  not sign anything (:class:`RolledBackError`): it would fork its own log. A witness that only says
  so, and shows nothing that our key signed, does not stop a quorum that has seen no more.
* A witness that cannot be reached does not stop the ledger, unless ``required`` says so: payments
  stay durable, and clients that ask for witnessed finality see that they have none yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from rahba.cosignature import cosigned_at
from rahba.encoding import b64
from rahba.errors import BadInputError, RahbaError, RemoteError
from rahba.note import (
    COSIGNATURE,
    open_checkpoint,
    read_verifier_key,
    signed_by,
    verifier_key_of,
)
from rahba.policy import Party, Policy, write_policy
from wallet.book import Book
from wallet.errors import LedgerUnavailableError
from wallet.witness import write_request

RETRY_S: Final = (0.1, 0.5, 2.0, 5.0)
GRACE_S: Final = 0.1
_MAX_TURNS: Final = 3

logger: Final = logging.getLogger("rahba.ledger.witness")


class RolledBackError(RemoteError):
    """A witness has seen more of the log, or another one, than the store holds.

    ``facts``: the witness, its size and ours; ``note`` is the checkpoint that it cosigned, if it
    shows one that our own key signed: then there is no doubt that it is right.
    """

    code = "rolled_back"
    hint = "restore the newest copy of the ledger; do not go on from this one"


class NoQuorumError(RemoteError):
    """Too few witnesses could be asked before the ledger signs, and it is told to wait for them."""

    code = "no_quorum"
    retryable = True
    hint = "start the witnesses of the policy, or do not require them"


class Witness(Protocol):
    """A witness that can be asked (:class:`wallet.transports.witness.HttpWitness`)."""

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
        """Send a request; returns status and body."""
        ...

    async def checkpoint(self, origin: str) -> str | None:
        """Return the newest checkpoint that it cosigned of a log, if it shows one."""
        ...


class WitnessedLog(Protocol):
    """What is asked of the sequencer."""

    async def next_checkpoint(self, after: int) -> tuple[str, int]:
        """Wait for a durable checkpoint of more than ``after`` entries."""
        ...

    async def consistency(self, old_size: int, new_size: int) -> list[str]:
        """Return the proof between two sizes, hashes as hex."""
        ...

    async def save_witnessed(self, note: str, size: int) -> None:
        """Keep a checkpoint that a quorum cosigned."""
        ...


@dataclass(slots=True)
class _Asked:
    """A witness as the log knows it: the size that it cosigned last, and one request at a time."""

    witness: Witness
    size: int = 0
    silent: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Cosigning:
    """Asks the witnesses of ``policy``; ``witnesses`` are those that have an address, by name."""

    def __init__(
        self, policy: Policy, witnesses: Mapping[str, Witness], *, required: bool = False
    ) -> None:
        """Remember whom to ask."""
        self._policy = policy
        self._required = required
        self._asked = {name: _Asked(witness) for name, witness in witnesses.items()}
        self._round = 0
        self._open: set[asyncio.Task[str | None]] = set()

    def policy_of(self, vkey: str) -> str:
        """Return the policy that a client needs to judge checkpoints of the log ``vkey``."""
        return write_policy(replace(self._policy, logs=[Party(vkey, None)]))

    async def before_signing(self, book: Book, note: str) -> None:
        """Ask every witness whether it knows more than the stored checkpoint.

        1. Who shows a checkpoint that our own key signed, larger than the stored one or of another
           root, is right, whoever it is.
        2. Who only says so is believed unless a quorum answers that it has seen no more.

        Raises:
            RolledBackError: one does.
            NoQuorumError: too few answered, and they are required.
        """
        if not note:
            return
        vkey = verifier_key_of(book.genesis.origin, book.genesis.operator)
        names = list(self._asked)
        said = await asyncio.gather(*(self._compare(name, note, vkey) for name in names))
        agreed = {name: True for name, word in zip(names, said, strict=True) if word is True}
        objections = [word for word in said if isinstance(word, RolledBackError)]
        for objection in objections:  # 1
            if objection.facts["note"] is not None:
                raise objection
        quorum = self._policy.met(agreed)
        for objection in objections:  # 2
            if not (quorum and agreed):
                raise objection
            logger.warning("a quorum has seen no more, but: %s", objection.message)
        if self._required and not quorum:
            raise NoQuorumError("too few witnesses answered", answered=len(agreed))

    async def _compare(self, name: str, note: str, vkey: str) -> bool | RolledBackError:
        """Say whether the witness answered, or what it says that the store lacks."""
        asked, size = self._asked[name], open_checkpoint(note, vkey).size
        try:
            status, body = await asked.witness.add_checkpoint(write_request(size, [], note))
        except RahbaError as error:
            logger.warning("witness %s cannot be asked before the start: %s", name, error.message)
            return False
        if status in {409, 422}:  # another size, or another root (409 with the same size, once)
            seen = _size(body) if status == 409 else size
            if seen is None or seen >= size:
                return RolledBackError(
                    f"witness {name} has seen size {seen}, the store has {size}",
                    witness=name,
                    seen=seen,
                    stored=size,
                    note=await _shown(asked.witness, note, vkey),
                )
            asked.size = seen
        elif status == 200:
            asked.size = size
        else:
            logger.warning("witness %s answers %d %s", name, status, body[:200].strip())
        return status in {200, 404, 409}

    async def run(self, log: WitnessedLog) -> None:
        """Have every new checkpoint cosigned, until cancelled or the ledger stops."""
        size, tries = 0, 0
        try:
            while True:
                note, size = await log.next_checkpoint(size)
                complete = await self._witness(log, note, size)
                tries = 0 if complete else min(tries + 1, len(RETRY_S))
                if not complete:  # the next checkpoint, or the same one again after a pause
                    await asyncio.sleep(RETRY_S[tries - 1])
                    size -= 1
        except LedgerUnavailableError:
            return
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _witness(self, log: WitnessedLog, note: str, size: int) -> bool:
        """Gather cosignatures until there is a quorum; says whether there is one.

        What is still under way then goes on, so that its witness knows the newest size; nobody is
        sent a second request meanwhile.
        """
        self._round += 1
        waiting = {
            asyncio.create_task(
                self._ask(log, name, note, size, self._round), name=f"cosign-{name}"
            )
            for name in self._asked
        }
        self._open |= waiting
        cosigned, met = note, self._policy.met({})
        while waiting:  # once there is a quorum, the others have a moment to add to it
            done, waiting = await asyncio.wait(
                waiting,
                timeout=GRACE_S if met else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                break
            self._open -= done
            cosigned += "".join(line for task in done if (line := task.result()))
            met = self._policy.met(self._policy.cosigners(cosigned))
        if not met:
            return False
        self._round += 1
        for task in waiting:
            task.add_done_callback(self._left)
        await log.save_witnessed(cosigned, size)
        return True

    def _left(self, task: asyncio.Task[str | None]) -> None:
        """Forget a request that nobody waits for any more."""
        self._open.discard(task)
        if not task.cancelled():
            task.exception()

    async def _ask(
        self, log: WitnessedLog, name: str, note: str, size: int, turn: int
    ) -> str | None:
        """Return the signature line of one witness, if it gives one that verifies."""
        asked = self._asked[name]
        queued = asked.turn.locked()
        async with asked.turn:
            if queued and turn != self._round:  # a quorum did without it
                return None
            try:
                line = await self._cosigned(log, name, note, size)
            except LedgerUnavailableError:
                raise
            except RahbaError as error:
                level = logging.DEBUG if asked.silent else logging.WARNING
                logger.log(
                    level, "witness %s did not cosign size %d: %s", name, size, error.message
                )
                asked.silent = True
                return None
            if asked.silent:
                logger.info("witness %s cosigns again", name)
            asked.silent = False
            return line

    async def _cosigned(self, log: WitnessedLog, name: str, note: str, size: int) -> str:
        asked, vkey = self._asked[name], self._policy.witnesses[name].vkey
        for _ in range(_MAX_TURNS):
            path = [b64(bytes.fromhex(step)) for step in await log.consistency(asked.size, size)]
            request = write_request(asked.size, path, note)
            status, body = await asked.witness.add_checkpoint(request)
            if status == 200:
                if cosigned_at(note + body, vkey) is None:
                    raise BadInputError("it did not sign")
                asked.size = size
                key = read_verifier_key(vkey, COSIGNATURE)
                return signed_by(note + body, key).rpartition("\n\n")[2]  # and nobody else's
            seen = _size(body) if status == 409 else None
            if seen is not None and seen > size:
                logger.critical("witness %s has seen size %d, we are at %d", name, seen, size)
                raise BadInputError("it has seen more: another copy of this ledger signs")
            if seen is None:
                raise BadInputError(f"{status} {body[:200].strip()}")
            asked.size = seen
        raise BadInputError("it changes its mind about what it has seen")


async def _shown(witness: Witness, stored: str, vkey: str) -> str | None:
    """Return the checkpoint that a witness shows, if our key signed it and the store lacks it."""
    ours = open_checkpoint(stored, vkey)
    try:
        note = await witness.checkpoint(ours.origin)
        shown = open_checkpoint(note, vkey) if note is not None else ours
    except RahbaError:
        return None
    more = shown.size > ours.size or (shown.size == ours.size and shown.root != ours.root)
    return note if more else None


def _size(body: str) -> int | None:
    text = body.removesuffix("\n")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
