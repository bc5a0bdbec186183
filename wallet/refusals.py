"""The refusals a ledger remembers, so that a late retry of the same bytes is told the same.

* A remembered refusal is told again as long as its transaction is in its time: up to and at
  ``valid_until``, by ledger time. After that the transaction is ``expired`` anyway.
* Not every refusal is remembered. One that is not is still answered ``refused``, but the same
  bytes are judged anew when they come again:

  - those charged to an account the ledger never saw: it has nothing and never had, and is refused
    again until somebody first pays it;
  - those beyond the account's share: ``PER_ACCOUNT`` at a time, ``ALWAYS`` while the memory holds
    ``CAPACITY`` or more. So nobody fills the memory, and nobody's payments suffer from others.

* What was stored before a restart counts towards the capacity, but to no account's share.

    >>> refusals = Refusals([])
    >>> refusals.add("did:key:z6Mk", Verdict("ab", "insufficient_funds", "", 2_000), now=1_000)
    True
    >>> refusals.recall("ab", 2_000).code, refusals.recall("ab", 2_001)
    ('insufficient_funds', None)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from wallet.ports import Verdict
from wallet.state import State
from wallet.transactions import Signed

CAPACITY: Final = 200_000
PER_ACCOUNT: Final = 1_000
ALWAYS: Final = 8


class Refusals:
    """Remembers verdicts until their time is over; adding one costs O(log n), amortised."""

    __slots__ = ("_by_time", "_counts", "_verdicts")

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        """Start with the verdicts that a store kept."""
        self._verdicts = {verdict.id: verdict for verdict in verdicts}
        self._by_time = [(verdict.until, verdict.id, "") for verdict in self._verdicts.values()]
        heapq.heapify(self._by_time)
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._verdicts)

    def recall(self, tx_id: str, now: int) -> Verdict | None:
        """Return what the transaction was told, unless its time is over."""
        verdict = self._verdicts.get(tx_id)
        return verdict if verdict is not None and now <= verdict.until else None

    def add(self, account: str, verdict: Verdict, now: int) -> bool:
        """Remember a verdict as one of the account's; ``False`` if it has had its share."""
        self._forget(now)
        count = self._counts.get(account, 0)
        if count >= (PER_ACCOUNT if len(self._verdicts) < CAPACITY else ALWAYS):
            return False
        self._counts[account] = count + 1
        self._verdicts[verdict.id] = verdict
        heapq.heappush(self._by_time, (verdict.until, verdict.id, account))
        return True

    def _forget(self, now: int) -> None:
        by_time, counts = self._by_time, self._counts
        while by_time and by_time[0][0] < now:
            _, tx_id, account = heapq.heappop(by_time)
            del self._verdicts[tx_id]
            if account:
                counts[account] -= 1
                if not counts[account]:
                    del counts[account]


def charged(state: State, signed: Signed) -> str | None:
    """Return whose refusal it is: the account's if the signer acts for it, else the signer's.

    A stranger who signs in another's name does not use up the other's share. ``None``: the ledger
    never saw that account.
    """
    name, actor = signed.tx.account, signed.signers[0]
    account = state.accounts.get(name)
    if actor != name and (account is None or actor not in account.sessions_at(state.log_time)):
        name = actor
    return name if name in state.accounts else None
