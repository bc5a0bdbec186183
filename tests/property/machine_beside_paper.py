"""The machine beside a ledger on paper: what goes for all that is done to both.

The rules are in those that build on it: they do the same to both, and compare the answers.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from rahba.balance import ISSUANCE
from tests.fixtures.wallet import FEE, START_MS
from tests.property.hold_draws import (
    AGENT,
    EPOCH_MS,
    JUDGE,
    NAMES,
    OPERATOR,
    POLICY_MS,
    SIGNERS,
    UNBOND_MS,
    WINDOW_MS,
    spans,
)
from tests.property.ledger_model import Mandate, PaperLedger
from wallet.book import Book
from wallet.forms import open_transaction
from wallet.holds import free_due
from wallet.machine import Outcome
from wallet.replay import Replay
from wallet.snapshot import archive_key, restore
from wallet.transactions import (
    EXPIRING_LANE,
    Challenge,
    Deliver,
    Expire,
    Faucet,
    Genesis,
    Grant,
    Mint,
    Release,
    read,
    seal_transaction,
)

ARCHIVED = archive_key("00" * 32)[:1]
NEEDS_NO_FEE = {Release, Expire, Challenge, Deliver}


class BesidePaperAlone(RuleBasedStateMachine):
    """Time, restarts and replays; money is conserved, and both say the same of everything."""

    @initialize()
    def open(self) -> None:
        self.now = START_MS
        self.salts = itertools.count(1)
        self.genesis = Genesis(
            network="rahba:test",
            operator=OPERATOR,
            created=START_MS,
            fee=str(FEE),
            faucet_claim="30000",
            faucet_epoch="120000",
            mint_epoch="20000",
            epoch_ms=EPOCH_MS,
            unbond_ms=UNBOND_MS,
            policy_ms=POLICY_MS,
            slashed=5_000,
            reporter=1_000,
        )
        caps = {"faucet": 120_000, "mint": 20_000}
        self.paper = PaperLedger(
            FEE, 30_000, caps, EPOCH_MS, WINDOW_MS, UNBOND_MS, POLICY_MS, OPERATOR
        )
        first = read(seal_transaction(self.genesis, SIGNERS[OPERATOR]))
        self.book = Book(self.genesis, first.leaf)
        self.leaves = [first.raw]
        self.rows: dict[bytes, bytes] = {}
        for name in [*NAMES, OPERATOR, JUDGE]:
            self.give("faucet", name, name, 15 * FEE)
        for name in NAMES:
            self.grant(name, 6 * FEE, 5_000)

    def do(
        self,
        form: type[Any],
        by: str,
        signers: list[str],
        payer: str | None = None,
        fee: int = FEE,
        **fields: Any,
    ) -> tuple[str, str]:
        tx = form(
            account=by,
            chain=self.genesis.chain,
            fee=str(fee) if form not in NEEDS_NO_FEE else "0",
            fee_payer=payer,
            lane=EXPIRING_LANE,
            seq=next(self.salts),
            valid_until=self.now + 60_000,
            **fields,
        )
        raw = seal_transaction(tx, *(SIGNERS[name] for name in [*signers, *filter(None, [payer])]))
        signed = open_transaction(raw, self.genesis.chain)
        outcome: Outcome = self.book.take(signed, self.book.time(self.now))
        if outcome.outcome == "logged":
            self.leaves.append(signed.raw)
        return outcome.code or outcome.outcome, signed.id

    def own(self, by: str) -> list[str]:
        """Return the signers that the account's rule asks for."""
        found, wanted = self.paper.rule(by, self.time)
        return sorted(found)[:wanted]

    @property
    def time(self) -> int:
        return self.book.time(self.now)

    def give(self, kind: str, by: str, to: str, amount: int) -> None:
        expected = self.paper.give(kind, by, to, amount, self.time)
        form, fields = (Faucet, {}) if kind == "faucet" else (Mint, {"to": to})
        assert self.do(form, by, [by], amount=str(amount), **fields)[0] == expected

    def grant(self, by: str, budget: int, lasts: int) -> None:
        budget, per_tx = 3 * budget, budget
        expires = self.time + lasts + 1_000
        signers = self.own(by)
        expected = self.paper.grant(by, AGENT, Mandate(budget, per_tx, expires), self.time, signers)
        code, _ = self.do(
            Grant,
            by,
            signers,
            key=AGENT,
            budget=str(budget),
            per_tx=str(per_tx),
            payees=None,
            types=("transfer", "batch", "hold"),
            expires=expires,
        )
        assert code == expected

    def agree(self, hold: str, expected: str, code: str) -> None:
        """Compare what was said of a hold; one that is long over need not be known any more."""
        bygone = self.paper.holds[hold].bygone(self.time)
        assert code == expected or (bygone and code == "unknown_hold")

    @rule(by=spans)
    def pass_time(self, by: int) -> None:
        """Close the interval, if one is open, and move on."""
        if self.book.interval is not None:
            self.leaves.append(self.book.close_interval(SIGNERS[OPERATOR]).raw)
            for key, row in self.book.snapshot().rows.items():
                if row is None:
                    self.rows.pop(key, None)
                elif key[:1] != ARCHIVED:
                    self.rows[key] = row
        self.now += by

    @rule(by=spans)
    def nothing_comes(self, by: int) -> None:
        self.pass_time(by)
        free_due(self.book.state, self.time)

    @rule()
    def start_again(self) -> None:
        """Forget all but the rows of a snapshot."""
        self.pass_time(0)
        state = restore(self.genesis, sorted(self.rows.items()))
        self.book = Book.resume(state, self.book.log)

    @invariant()
    def both_know_the_same_balances(self) -> None:
        state = self.book.state
        for name in [*NAMES, JUDGE, OPERATOR]:
            assert state.available(name) == self.paper.free(name, state.log_time)
        assert state.available("fees") == self.paper.owned("fees")

    @invariant()
    def money_is_conserved(self) -> None:
        state = self.book.state
        accounts = state.accounts.values()
        assert sum(account.posted for account in accounts) == 0
        assert all(account.available >= 0 for account in accounts if account.id != ISSUANCE)
        rests = sum(hold.rest for hold in state.holds.values())
        bonds = sum(account.bond for account in accounts)
        bails = sum(hold.bail for hold in state.holds.values() if hold.rest)
        bails += sum(hold.retained for hold in state.holds.values())
        assert sum(account.held for account in accounts) == rests + bonds + bails == state.held
        assert state.held == state.escrowed + state.bonded

    @invariant()
    def what_came_back_may_be_spent_again(self) -> None:
        for (name, agent), mandate in self.paper.mandates.items():
            session = self.book.state.accounts[name].sessions.get(agent)
            assert session is None or session.spent == mandate.spent

    @invariant()
    def what_is_due_is_on_the_list(self) -> None:
        ended = {"taken", "over"}
        live = [hold.due for hold in self.paper.holds.values() if hold.state not in ended]
        assert self.book.state.deadlines.next() == min(live, default=None)

    @invariant()
    def both_tell_the_same_of_every_hold(self) -> None:
        state = self.book.state
        paper = {name: hold for name, hold in self.paper.holds.items() if hold.payee}
        live = [hold for hold in paper.values() if hold.state not in {"taken", "over"}]
        assert state.open_holds == len(live)
        forgotten = [hold for name, hold in paper.items() if name not in state.holds]
        assert all(hold.bygone(state.log_time) for hold in forgotten)
        assert {
            name: (hold.status, hold.captured, hold.retained, hold.part)
            for name, hold in state.holds.items()
        } == {
            name: (hold.called(), hold.taken, hold.contested(state.log_time), hold.shown)
            for name, hold in paper.items()
            if name in state.holds
        }

    def teardown(self) -> None:
        """Replay everything: the same log is the same state."""
        if not hasattr(self, "book"):
            return
        self.pass_time(0)
        replay = Replay()
        for raw in self.leaves:
            replay.feed(raw)
        assert replay.book.tree.root() == self.book.tree.root()
        assert replay.book.log.root() == self.book.log.root()
