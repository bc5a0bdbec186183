"""A pledge is free again by time alone: whoever reads the log judges it as its writer did."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.wallet import PureLedger, did
from tests.unit.test_wallet_bail import bail_of, hold
from tests.unit.test_wallet_recourse import RECOURSE, WINDOW_MS, capture
from tests.unit.test_wallet_replay import Writer, replayed
from wallet.book import Book
from wallet.forms import open_transaction
from wallet.holds import forget_holds
from wallet.machine import LOGGED
from wallet.snapshot import archive_key, changes, restore
from wallet.state import REMEMBER_MS, State
from wallet.transactions import Expire, Faucet, Hold, Release

LASTS_MS = 60_000
ARCHIVED = archive_key("00" * 32)[:1]


def fields_of(pure: PureLedger) -> dict[str, Any]:
    """Return a hold with a fresh pledge of Brahim's for the same deal."""
    fields = {"payee": did("brahim"), "amount": "6000", "agreement": "d" * 64, "arbitration": None}
    return fields | {"bail": bail_of(pure), "expires": pure.now + LASTS_MS}


class Snapshots:
    """The rows of all snapshots of a ledger; only what changed is in the next one."""

    def __init__(self, pure: PureLedger) -> None:
        self.genesis, self.rows = pure.genesis, dict[bytes, bytes]()

    def restart(self, state: State) -> State:
        for key, row in changes(state, [*state.accounts]).items():
            if row is None:
                self.rows.pop(key, None)
            elif key[:1] != ARCHIVED:
                self.rows[key] = row
        return restore(self.genesis, sorted(self.rows.items()))


def readers(pure: PureLedger, leaves: list[bytes]) -> list[Book]:
    """Return the books of two who read that log: by a replay, and after a restart."""
    other = replayed(leaves).book
    return [replayed(leaves).book, Book.resume(Snapshots(pure).restart(other.state), other.log)]


@pytest.mark.parametrize("snapshots", [True, False], ids=["snapshots", "none"])
@pytest.mark.parametrize(("more_ms", "told"), [(-1, "pledge_used"), (0, "pledge_used"), (1, None)])
def test_whoever_read_the_log_says_the_same_of_a_pledge(
    pure: PureLedger, more_ms: int, told: str | None, snapshots: bool
) -> None:
    """Also if the ledger let go of the first hold when it took a snapshot, or not yet."""
    writer = Writer(pure)
    for name in ("amina", "brahim"):
        writer.add(pure.sign(Faucet, name, amount="50000"))
    first = writer.add(pure.sign(Hold, "amina", **fields_of(pure)))
    writer.add(pure.sign(Release, "brahim", hold=first, forfeit="0", fee="0"))
    writer.close()
    pure.now += REMEMBER_MS + more_ms
    writer.add(pure.sign(Faucet, "chadia", amount="5000"))
    writer.close()
    if snapshots:
        writer.book.snapshot()
    assert (first in writer.book.state.holds) == (not snapshots or more_ms <= 0)
    raw = pure.sign(Hold, "amina", **fields_of(pure))
    signed, at = open_transaction(raw, pure.genesis.chain), writer.book.time(pure.now)
    for book in [writer.book, *readers(pure, writer.leaves)]:
        assert book.take(signed, at).code == told
    if told is None:
        writer.leaves.append(raw)
        writer.close()
        again = replayed(writer.leaves).book
        assert (again.tree.root(), again.log.root()) == (
            writer.book.tree.root(),
            writer.book.log.root(),
        )


def test_the_sequencers_of_before_and_after_a_restart_refuse_the_same(pure: PureLedger) -> None:
    """A second hold with a pledge for that deal is in use by itself."""
    kept = Snapshots(pure)
    pure.fund("amina", 50_000)
    pure.fund("brahim", 5_000)
    first = pure.open_hold(Hold, "amina", "brahim", 6_000, bail=bail_of(pure))
    assert pure.do(Release, "brahim", hold=first, forfeit="0", fee="0") == LOGGED
    pure.now += REMEMBER_MS + 1
    second = pure.open_hold(Hold, "amina", "brahim", 6_000, bail=bail_of(pure))
    forget_holds(pure.state)
    assert [*pure.state.holds] == [second]
    for _ in range(2):
        assert hold(pure, bail_of(pure)).code == "pledge_used"
        pure.state = kept.restart(pure.state)
    pure.now += LASTS_MS
    assert pure.do(Expire, "chadia", subject=second, fee="0") == LOGGED
    pure.now += REMEMBER_MS
    for _ in range(2):
        assert hold(pure, bail_of(pure)).code == "pledge_used"
        pure.state = kept.restart(pure.state)
    pure.now += 1
    assert hold(pure, bail_of(pure)) == LOGGED


@pytest.mark.parametrize("restarted", [True, False])
def test_the_hour_of_a_pledge_begins_when_nobody_can_challenge_any_more(
    pure: PureLedger, restarted: bool
) -> None:
    kept = Snapshots(pure)
    pure.fund("amina", 50_000)
    pure.fund("brahim", 5_000)
    words = {"bail": bail_of(pure), "recourse": RECOURSE}
    taken = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, taken) == LOGGED
    if restarted:
        pure.state = kept.restart(pure.state)
    pure.now += WINDOW_MS + REMEMBER_MS
    assert hold(pure, bail_of(pure)).code == "pledge_used"
    pure.now += 1
    assert hold(pure, bail_of(pure)) == LOGGED
