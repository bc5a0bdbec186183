"""The machine beside a ledger on paper: both always say the same, and money is conserved."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from rahba.balance import ISSUANCE
from tests.fixtures.wallet import DEAL, FEE, START_MS, did, signer_of
from tests.property.ledger_model import PaperHold, PaperLedger, PaperMandate
from wallet.book import Book
from wallet.forms import open_transaction
from wallet.machine import Outcome
from wallet.replay import Replay
from wallet.transactions import (
    EXPIRING_LANE,
    Batch,
    Capture,
    Faucet,
    Genesis,
    Grant,
    Hold,
    Item,
    Release,
    Transfer,
    read,
    seal_transaction,
)

NAMES = ("amina", "brahim", "chadia")
EPOCH_MS = 10_000
names = st.sampled_from(NAMES)
# Few values on one grid: so that limits are met exactly, not only missed and exceeded.
amounts = st.integers(1, 6).map(lambda number: number * FEE)
spans = st.integers(0, 5).map(lambda number: number * 1_000)
agents = st.sampled_from((None, "agent", None, "agent", None, "agent", "stranger"))


class BesidePaper(RuleBasedStateMachine):
    """Every rule does the same to both and compares the answers."""

    holds = Bundle("holds")

    @initialize()
    def open(self) -> None:
        self.now = START_MS
        self.salts = itertools.count(1)
        self.genesis = Genesis(
            network="rahba:test",
            operator=did("operator"),
            created=START_MS,
            fee=str(FEE),
            faucet_claim="30000",
            faucet_epoch="120000",
            epoch_ms=EPOCH_MS,
        )
        self.paper = PaperLedger(FEE, 30_000, 120_000, EPOCH_MS)
        first = read(seal_transaction(self.genesis, signer_of("operator")))
        self.book = Book(self.genesis, first.leaf)
        self.leaves = [first.raw]
        for name in NAMES:
            self.faucet(name, 15 * FEE)
            self.grant(name, 6 * FEE, 5_000)

    def do(self, form: type[Any], by: str, agent: str | None, **fields: Any) -> tuple[str, str]:
        tx = form(
            account=did(by),
            chain=self.genesis.chain,
            fee=str(FEE) if form is not Release else "0",
            fee_payer=None,
            lane=EXPIRING_LANE,
            seq=next(self.salts),
            valid_until=self.now + 60_000,
            **fields,
        )
        signed = open_transaction(seal_transaction(tx, signer_of(agent or by)), self.genesis.chain)
        outcome: Outcome = self.book.take(signed, self.book.time(self.now))
        if outcome.outcome == "logged":
            self.leaves.append(signed.raw)
        return outcome.code or outcome.outcome, signed.id

    @property
    def time(self) -> int:
        return self.book.time(self.now)

    @rule(to=names, amount=amounts)
    def faucet(self, to: str, amount: int) -> None:
        expected = self.paper.give(to, 2 * amount, self.time)
        assert self.do(Faucet, to, None, amount=str(2 * amount))[0] == expected

    @rule(by=names, to=names, amount=amounts, agent=agents)
    def transfer(self, by: str, to: str, amount: int, agent: str | None) -> None:
        if by != to:
            expected = self.paper.pay(by, [(to, amount)], self.time, agent)
            assert self.do(Transfer, by, agent, to=did(to), amount=str(amount))[0] == expected

    @rule(by=names, amounts=st.lists(amounts, min_size=1, max_size=4), agent=agents)
    def batch(self, by: str, amounts: list[int], agent: str | None) -> None:
        payees = itertools.cycle(name for name in NAMES if name != by)
        items = list(zip(payees, amounts, strict=False))
        expected = self.paper.pay(by, items, self.time, agent)
        wire = tuple(Item(to=did(to), amount=str(amount)) for to, amount in items)
        assert self.do(Batch, by, agent, items=wire)[0] == expected

    @rule(target=holds, by=names, to=names, amount=amounts, lasts=spans, agent=agents)
    def hold(self, by: str, to: str, amount: int, lasts: int, agent: str | None) -> Any:
        if by == to:
            return multiple()
        expires = self.time + lasts
        fields = {"payee": did(to), "amount": str(amount), "expires": expires, "agreement": DEAL}
        hold = PaperHold(by, to, amount, expires)
        now = self.time
        code, name = self.do(Hold, by, agent, **fields)
        assert code == self.paper.hold(name, hold, now, agent)
        return name if code == "logged" else multiple()

    @rule(hold=holds, by=names, amount=st.just(0) | amounts, final=st.booleans())
    def capture(self, hold: str, by: str, amount: int, final: bool) -> None:
        expected = self.paper.capture(self.paper.holds[hold], by, amount, self.time, final=final)
        fields = {"hold": hold, "amount": str(amount), "final": final, "receipt": None}
        assert self.do(Capture, by, None, **fields)[0] == expected

    @rule(hold=holds)
    def capture_by_the_payee(self, hold: str) -> None:
        known = self.paper.holds[hold]
        self.capture(hold, known.payee, known.rest, final=True)

    @rule(hold=holds, by=names)
    def release(self, hold: str, by: str) -> None:
        expected = self.paper.release(self.paper.holds[hold], by, self.time)
        assert self.do(Release, by, None, hold=hold)[0] == expected

    @rule(by=names, budget=amounts, lasts=spans)
    def grant(self, by: str, budget: int, lasts: int) -> None:
        budget, per_tx = 3 * budget, budget
        expires = self.time + lasts + 1_000
        mandate = PaperMandate(budget, per_tx, expires)
        expected = self.paper.pay(by, [], self.time, None)
        if expected == "logged":
            self.paper.mandates[by, "agent"] = mandate
        code, _ = self.do(
            Grant,
            by,
            None,
            key=did("agent"),
            budget=str(budget),
            per_tx=str(per_tx),
            payees=None,
            types=("transfer", "batch", "hold"),
            expires=expires,
        )
        assert code == expected

    @rule(by=spans)
    def pass_time(self, by: int) -> None:
        """Close the interval, if one is open, and move on."""
        if self.book.interval is not None:
            self.leaves.append(self.book.close_interval(signer_of("operator")).raw)
        self.now += by

    @rule(hold=holds)
    def wait_until_it_expires(self, hold: str) -> None:
        self.pass_time(max(0, self.paper.holds[hold].expires - self.now))
        self.capture_by_the_payee(hold)

    @rule(by=names, to=names, more=st.integers(0, 1))
    def spend_all_that_is_left_of_a_mandate(self, by: str, to: str, more: int) -> None:
        mandate = self.paper.mandates[by, "agent"]
        amount = min(mandate.budget - mandate.spent, mandate.per_tx) - FEE + more
        if amount > 0:
            self.transfer(by, to, amount, "agent")

    @invariant()
    def both_know_the_same_balances(self) -> None:
        state = self.book.state
        for name in NAMES:
            assert state.available(did(name)) == self.paper.free(name)
        assert state.available("fees") == self.paper.owned("fees")

    @invariant()
    def money_is_conserved(self) -> None:
        accounts = self.book.state.accounts.values()
        assert sum(account.posted for account in accounts) == 0
        assert all(account.available >= 0 for account in accounts if account.id != ISSUANCE)
        rests = sum(hold.rest for hold in self.book.state.holds.values())
        assert sum(account.held for account in accounts) == rests == self.book.state.held

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


TestBesidePaper = BesidePaper.TestCase
TestBesidePaper.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
