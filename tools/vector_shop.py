"""The small ledger that the vectors are made of; see :mod:`tools.vectors`."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from rahba.balance import AccountProof
from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.note import sign_checkpoint, verifier_key
from rahba.proof import InclusionProof
from wallet.book import Book
from wallet.forms import open_transaction
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Faucet,
    Genesis,
    Transfer,
    dev_genesis,
    read,
    seal_transaction,
)

START_MS: Final = 1_700_000_000_000
FEE: Final = 1_000

Case = dict[str, Any]


def signer(name: str) -> Signer:
    """Return the key of a name, the same for ever."""
    return Signer(sha256(name.encode()).digest())


OPERATOR: Final = signer("operator")
AMINA, BRAHIM, CHADIA, DALILA = (signer(name) for name in ("amina", "brahim", "chadia", "dalila"))


@dataclass
class Shop:
    """A ledger in memory: its book, its entries, and the checkpoint after each interval."""

    genesis: Genesis = field(default_factory=lambda: dev_genesis(OPERATOR.did, START_MS))
    entries: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    histories: dict[str, list[bytes]] = field(default_factory=dict)
    salt: int = 0

    def __post_init__(self) -> None:
        """Open the book."""
        signed = read(seal_transaction(self.genesis, OPERATOR))
        self.entries.append(signed.raw)
        self.book = Book(self.genesis, signed.leaf)
        self.close()

    @property
    def vkey(self) -> str:
        """Return the log's verifier key."""
        return verifier_key(self.genesis.origin, OPERATOR)

    def do(self, form: type[AnyTx], by: Signer, **words: str) -> None:
        """Log a transaction."""
        self.salt += 1
        fields: dict[str, Any] = {
            "account": by.did,
            "chain": self.genesis.chain,
            "fee": str(FEE),
            "fee_payer": None,
            "lane": EXPIRING_LANE,
            "seq": self.salt,
            "valid_until": START_MS + 60_000,
        }
        raw = seal_transaction(form(**fields, **words), by)
        signed = open_transaction(raw, self.genesis.chain)
        outcome = self.book.take(signed, self.book.time(START_MS + self.book.log.size))
        if outcome.outcome != "logged":
            raise RuntimeError(f"not logged: {outcome}")
        self.entries.append(raw)
        for account in self.book.state.concerned:
            self.histories.setdefault(account.id, []).append(raw)

    def close(self) -> None:
        """Close the interval."""
        self.entries.append(self.book.close_interval(OPERATOR).raw)
        log = self.book.log
        self.sizes.append(log.size)
        self.notes.append(sign_checkpoint(self.genesis.origin, log.size, log.root(), OPERATOR))

    def proof(self, index: int) -> InclusionProof:
        """Prove an entry under the newest checkpoint."""
        log = self.book.log
        path = tuple(step.hex() for step in log.inclusion(index, log.size))
        return InclusionProof(index, log.node(0, index).hex(), path, self.notes[-1])

    def account(self, name: str) -> AccountProof:
        """Prove an account under the newest checkpoint."""
        found = self.book.tree.proof(self.book.state.accounts[name].position)
        return AccountProof(
            id=name,
            balance=found.leaf.balance,
            nonces=found.leaf.nonces.hex(),
            tip=found.leaf.tip.hex(),
            position=found.position,
            accounts=found.accounts,
            path=tuple(record.hex() for record in found.path),
            state=b64(self.entries[-1]),
            inclusion=self.proof(len(self.entries) - 1),
        )


def shop() -> Shop:
    """Run the small ledger: five intervals, six accounts, one of them only paid."""
    made = Shop()
    for who in (AMINA, BRAHIM, CHADIA):
        made.do(Faucet, who, amount="50000")
    made.close()
    for amount in range(1, 8):
        made.do(Transfer, AMINA, to=BRAHIM.did, amount=str(amount))
    made.close()
    made.do(Transfer, BRAHIM, to=CHADIA.did, amount="12")
    made.do(Transfer, CHADIA, to=DALILA.did, amount="7")
    made.close()
    made.do(Transfer, AMINA, to=CHADIA.did, amount="40")
    made.close()
    return made


def case(kind: str, name: str, given: dict[str, Any], says: object = None) -> Case:
    """Return a case; it holds if it ``says`` something."""
    found: Case = {"kind": kind, "name": name, "valid": says is not None, "input": given}
    return found if says is None else found | {"says": says}


def flip(text: str, at: int) -> str:
    """Change one character of base64."""
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def flip_hex(digits: str) -> str:
    """Flip one bit of a hash."""
    return f"{int(digits[0], 16) ^ 1:x}" + digits[1:]
