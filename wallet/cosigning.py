"""The log's side of being witnessed: ask for cosignatures, and for what the witnesses know.

* :meth:`Cosigning.run` sends each new checkpoint to the witnesses of the policy, each with the
  proof from the size that it knows, and keeps the note as *witnessed* once a quorum signed it.
* :meth:`Cosigning.before_signing` comes first after a start: a witness that has seen more of this
  log than our disk holds, or another root, means that the disk was set back. The ledger then does
  not sign anything (:class:`RolledBackError`): it would fork its own log.
* A witness that cannot be reached does not stop the ledger, unless ``required`` says so: payments
  stay durable, and clients that ask for witnessed finality see that they have none yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from rahba.cosignature import cosigned_at
from rahba.encoding import b64
from rahba.errors import BadInputError, RahbaError, RemoteError
from rahba.note import open_checkpoint, verifier_key_of
from rahba.policy import Policy
from wallet.book import Book
from wallet.errors import LedgerUnavailableError
from wallet.witness import write_request

RETRY_S: Final = (0.1, 0.5, 2.0, 5.0)
_MAX_TURNS: Final = 3

logger: Final = logging.getLogger("rahba.ledger.witness")


class RolledBackError(RemoteError):
    """A witness has seen more of the log, or another one, than the store holds.

    ``facts``: the witness, its size and ours; ``evidence`` is what it answered.
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


class Cosigning:
    """Asks the witnesses of ``policy``; ``witnesses`` are those that have an address, by name."""

    def __init__(
        self, policy: Policy, witnesses: Mapping[str, Witness], *, required: bool = False
    ) -> None:
        """Remember whom to ask."""
        self._policy = policy
        self._witnesses = dict(witnesses)
        self._required = required
        self._sizes = dict.fromkeys(self._witnesses, 0)

    async def before_signing(self, book: Book, note: str) -> None:
        """Ask every witness whether it knows more than the stored checkpoint.

        Raises:
            RolledBackError: one does.
            NoQuorumError: too few answered, and they are required.
        """
        if not note:
            return
        size = open_checkpoint(
            note, verifier_key_of(book.genesis.origin, book.genesis.operator)
        ).size
        names = list(self._witnesses)
        asked = [self._compare(name, note, size) for name in names]
        answered = await asyncio.gather(*asked)
        there = {name: True for name, answer in zip(names, answered, strict=True) if answer}
        if self._required and not self._policy.met(there):
            raise NoQuorumError("too few witnesses answered", answered=len(there))

    async def _compare(self, name: str, note: str, size: int) -> bool:
        """Say whether the witness answered; raise if it knows better."""
        try:
            status, body = await self._witnesses[name].add_checkpoint(write_request(size, [], note))
        except RahbaError as error:
            logger.warning("witness %s cannot be asked before the start: %s", name, error.message)
            return False
        if status in {409, 422}:  # another size, or another root (409 with the same size, once)
            seen = _size(body) if status == 409 else size
            if seen is None or seen >= size:
                raise RolledBackError(
                    f"witness {name} has seen size {seen}, the store has {size}",
                    witness=name,
                    seen=seen,
                    stored=size,
                )
            self._sizes[name] = seen
        elif status == 200:
            self._sizes[name] = size
        return status in {200, 404, 409, 422}

    async def run(self, log: WitnessedLog) -> None:
        """Have every new checkpoint cosigned, until cancelled or the ledger stops."""
        size, tries = 0, 0
        while True:
            try:
                note, size = await log.next_checkpoint(size)
                complete = await self._witness(log, note, size)
            except LedgerUnavailableError:
                return
            tries = 0 if complete else min(tries + 1, len(RETRY_S))
            if not complete:  # the next checkpoint, or the same one again after a pause
                await asyncio.sleep(RETRY_S[tries - 1])
                size -= 1

    async def _witness(self, log: WitnessedLog, note: str, size: int) -> bool:
        """Gather cosignatures; says whether there is a quorum."""
        lines = await asyncio.gather(
            *(self._ask(log, name, note, size) for name in self._witnesses)
        )
        cosigned = note + "".join(line for line in lines if line)
        if not self._policy.met(self._policy.cosigners(cosigned)):
            return False
        await log.save_witnessed(cosigned, size)
        return True

    async def _ask(self, log: WitnessedLog, name: str, note: str, size: int) -> str | None:
        """Return the signature line of one witness, if it gives one that verifies."""
        vkey = self._policy.witnesses[name].vkey
        try:
            for _ in range(_MAX_TURNS):
                old = self._sizes[name]
                path = [b64(bytes.fromhex(step)) for step in await log.consistency(old, size)]
                request = write_request(old, path, note)
                status, body = await self._witnesses[name].add_checkpoint(request)
                if status == 200:
                    if cosigned_at(note + body, vkey) is None:
                        raise BadInputError("it did not sign")
                    self._sizes[name] = size
                    return body
                seen = _size(body) if status == 409 else None
                if seen is None or seen > size:
                    raise BadInputError(f"{status} {body[:200].strip()}")
                self._sizes[name] = seen
        except LedgerUnavailableError:
            raise
        except RahbaError as error:
            logger.warning("witness %s did not cosign size %d: %s", name, size, error.message)
        return None


def _size(body: str) -> int | None:
    text = body.removesuffix("\n")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
