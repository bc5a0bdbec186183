"""The log again from its beginning: what a sequencer does when it starts, and an auditor always.

* Every leaf must be what the machine accepts at that place, and every ``state`` leaf must say
  what the leaves before it amount to (I10). The first that does not is named by its number.
* A transaction's ledger time is in the state leaf that closes its interval, so an interval is
  carried out when it is complete; :meth:`Replay.finish` takes one that a crash left open.
* With ``verify`` every signature is checked; a sequencer that trusts its own disk for that saves
  the time, the roots are compared anyway.

    for raw in leaves:
        replay.feed(raw)
    replay.book.state.issued
"""

from __future__ import annotations

from collections.abc import Callable

from rahba.errors import RahbaError
from wallet.book import MAX_INTERVAL, Book
from wallet.errors import LedgerCorruptError
from wallet.forms import check_account, check_form, check_signatures
from wallet.ports import Entry
from wallet.transactions import Genesis, Signed, StateLeaf, read


class Replay:
    """Rebuilds a book leaf by leaf; feed it the exact bytes, in order.

    ``taken`` is called for each entry once it has happened, with its ledger time and links.
    """

    def __init__(self, *, verify: bool = True, book: Book | None = None) -> None:
        """Start before the first leaf, or after the last one of ``book``."""
        self._verify = verify
        self._book = book
        self._waiting: list[Signed] = []
        self._chain = book.genesis.chain if book is not None else ""
        self.size = book.log.size if book is not None else 0
        self.taken: Callable[[Entry], None] | None = None

    @property
    def book(self) -> Book:
        """Return the book as of the last complete interval."""
        if self._book is None:
            raise LedgerCorruptError("the log has no genesis", seq=0)
        return self._book

    def feed(self, raw: bytes) -> Signed:
        """Take the next leaf.

        Raises:
            LedgerCorruptError: it cannot stand at this place; ``facts["seq"]`` says which.
        """
        seq = self.size
        try:
            signed = read(raw)
            if self._verify:
                check_signatures(signed)
            self._take(signed)
        except LedgerCorruptError:
            raise
        except RahbaError as error:
            raise LedgerCorruptError(
                f"leaf {seq} is wrong: {error}", seq=seq, reason=error.code
            ) from error
        self.size += 1
        return signed

    def finish(self, log_time: int) -> None:
        """Carry out the open interval at its ledger time, which no state leaf records yet."""
        first = self.size - len(self._waiting)
        for offset, signed in enumerate(self._waiting):
            outcome = self.book.take(signed, log_time)
            if outcome.outcome != "logged":
                raise LedgerCorruptError(
                    f"leaf {first + offset} is not valid there: {outcome.code}",
                    seq=first + offset,
                    reason=outcome.code,
                )
            self._tell(first + offset, signed, log_time, self.book.links)
        self._waiting = []

    def _tell(self, seq: int, signed: Signed, log_time: int, links: bytes = b"") -> None:
        if self.taken is not None:
            self.taken(Entry(seq, signed.raw, signed.leaf, log_time, links))

    def _take(self, signed: Signed) -> None:
        record = signed.record
        if self._book is None or isinstance(record, Genesis):
            self._open(signed)
        elif isinstance(record, StateLeaf):
            self._close(signed, record)
        elif len(self._waiting) >= MAX_INTERVAL:
            raise LedgerCorruptError("an interval is never closed", seq=self.size)
        else:
            check_form(signed, self._chain)
            self._waiting.append(signed)

    def _open(self, signed: Signed) -> None:
        genesis = signed.record
        if self._book is not None or not isinstance(genesis, Genesis):
            raise LedgerCorruptError("a log has one genesis, its first leaf", seq=self.size)
        check_account(genesis.operator)
        self._check_operator(signed, genesis)
        self._chain = genesis.chain
        self._book = Book(genesis, signed.leaf)
        self._tell(0, signed, genesis.created)

    def _close(self, signed: Signed, said: StateLeaf) -> None:
        book = self.book
        self._check_operator(signed, book.genesis)
        if said.log_time < book.state.log_time:
            raise LedgerCorruptError("ledger time runs backwards", seq=self.size)
        self.finish(said.log_time)
        if book.interval != said.log_time:
            raise LedgerCorruptError("a state leaf closes an interval", seq=self.size)
        found = book.summary(said.log_time)
        if found != said:
            raise LedgerCorruptError(
                f"leaf {self.size} says another state than the log leads to",
                seq=self.size,
                said=said.root,
                found=found.root,
            )
        book.add_state(signed.leaf)
        self._tell(self.size, signed, said.log_time)

    def _check_operator(self, signed: Signed, genesis: Genesis) -> None:
        if signed.signers != (genesis.operator,):
            raise LedgerCorruptError("not signed by the operator", seq=self.size)
