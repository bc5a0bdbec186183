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
from rahba.pledge import Pledge, sign_pledge
from tests.fixtures.faults import note
from tests.fixtures.wallet import DEAL, FEE, START_MS, did, signer_of
from tests.property.ledger_model import Aside, Mandate, PaperLedger
from wallet.book import Book
from wallet.effects import NEEDS_NO_FEE
from wallet.forms import open_transaction
from wallet.machine import Outcome
from wallet.replay import Replay
from wallet.transactions import (
    EXPIRING_LANE,
    Arbitration,
    Bail,
    Batch,
    Capture,
    Dispute,
    Expire,
    Faucet,
    Genesis,
    Grant,
    Hold,
    Item,
    KeyRotate,
    Mint,
    NoteFault,
    PolicySet,
    Release,
    Resolve,
    Slash,
    Stake,
    Transfer,
    Unstake,
    read,
    seal_transaction,
)

NAMES = [did(name) for name in ("amina", "brahim", "chadia")]
OPERATOR, AGENT, STRANGER, JUDGE = (did(n) for n in ("operator", "agent", "stranger", "judge"))
SPARE = [did(f"spare {number}") for number in range(4)]
SIGNERS = {
    did(name): signer_of(name)
    for name in ("amina", "brahim", "chadia", "operator", "agent", "stranger", "judge")
} | {did(f"spare {number}"): signer_of(f"spare {number}") for number in range(4)}
EPOCH_MS = 10_000
WINDOW_MS, UNBOND_MS, POLICY_MS = 2_000, 3_000, 2_000
names = st.sampled_from(NAMES)
keys = st.sampled_from([*NAMES, *SPARE])
# Few values on one grid: so that limits are met exactly, not only missed and exceeded.
amounts = st.integers(1, 6).map(lambda number: number * FEE)
spans = st.integers(0, 5).map(lambda number: number * 1_000)
agents = st.sampled_from((None, AGENT, None, AGENT, None, AGENT, STRANGER))


class BesidePaper(RuleBasedStateMachine):
    """Every rule does the same to both and compares the answers."""

    holds = Bundle("holds")

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
        for name in [*NAMES, OPERATOR, JUDGE]:
            self.give("faucet", name, name, 15 * FEE)
        for name in NAMES:
            self.grant(name, 6 * FEE, 5_000)

    def do(
        self, form: type[Any], by: str, signers: list[str], payer: str | None = None, **fields: Any
    ) -> tuple[str, str]:
        tx = form(
            account=by,
            chain=self.genesis.chain,
            fee=str(FEE) if form not in NEEDS_NO_FEE else "0",
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

    @rule(to=names, amount=amounts)
    def faucet(self, to: str, amount: int) -> None:
        self.give("faucet", to, to, 2 * amount)

    @rule(by=names | st.just(OPERATOR), to=names, amount=amounts)
    def mint(self, by: str, to: str, amount: int) -> None:
        self.give("mint", by, to, 2 * amount)

    @rule(by=names, to=names, amount=amounts, agent=agents)
    def transfer(self, by: str, to: str, amount: int, agent: str | None) -> None:
        if by != to:
            signers = [agent] if agent else self.own(by)
            expected = self.paper.pay(by, [(to, amount)], self.time, signers)
            assert self.do(Transfer, by, signers, to=to, amount=str(amount))[0] == expected

    @rule(by=names, to=names, signers=st.lists(keys, min_size=1, max_size=3, unique=True))
    def transfer_by_whatever_keys(self, by: str, to: str, signers: list[str]) -> None:
        if by != to:
            expected = self.paper.pay(by, [(to, FEE)], self.time, signers)
            assert self.do(Transfer, by, signers, to=to, amount=str(FEE))[0] == expected

    @rule(by=names, amounts=st.lists(amounts, min_size=1, max_size=4), agent=agents)
    def batch(self, by: str, amounts: list[int], agent: str | None) -> None:
        payees = itertools.cycle(name for name in NAMES if name != by)
        items = list(zip(payees, amounts, strict=False))
        signers = [agent] if agent else self.own(by)
        expected = self.paper.pay(by, items, self.time, signers)
        wire = tuple(Item(to=to, amount=str(amount)) for to, amount in items)
        assert self.do(Batch, by, signers, items=wire)[0] == expected

    @rule(
        target=holds,
        by=names,
        to=names,
        amount=amounts,
        lasts=spans,
        agent=agents,
        share=st.sampled_from((None, 0, 33, 100)),
        bail=st.sampled_from((0, 0, 1, 2, 3)).map(lambda number: number * FEE),
        deal=st.sampled_from((DEAL, "cd" * 32, "ef" * 32)),
    )
    def hold(  # noqa: PLR0917  # a rule takes what it draws
        self,
        by: str,
        to: str,
        amount: int,
        lasts: int,
        agent: str | None,
        share: int | None,
        bail: int,
        deal: str,
    ) -> Any:
        if by == to:
            return multiple()
        expires, now = self.time + lasts + (9_000 if bail else 0), self.time
        judge = None if share is None else JUDGE
        court = judge and Arbitration(
            arbiter=judge, window_ms=WINDOW_MS, payee_share=100 * (share or 0)
        )
        fields = {"payee": to, "amount": str(amount), "expires": expires, "agreement": deal}
        hold = Aside(by, to, amount, expires, judge, share or 0, bail=bail, deal=deal)
        signers = [agent] if agent else self.own(by)
        put_up = self.bail(deal, bail, to, signers[0], expires - 1_000) if bail else None
        code, name = self.do(Hold, by, signers, **fields, arbitration=court, bail=put_up)
        assert code == self.paper.hold(name, hold, now, signers, expires - 1_000)
        return name if code == "logged" else multiple()

    def bail(self, deal: str, amount: int, seller: str, buyer: str, until: int) -> Bail:
        pledge = Pledge(
            agreement=deal,
            amount=str(amount),
            buyer=buyer,
            chain=self.genesis.chain,
            seller=seller,
            until=until,
        )
        signature = sign_pledge(pledge, SIGNERS[seller])
        return Bail(amount=str(amount), until=until, signature=signature)

    @rule(hold=holds, by=names, amount=st.just(0) | amounts, final=st.booleans())
    def capture(self, hold: str, by: str, amount: int, final: bool) -> None:
        expected = self.paper.capture(self.paper.holds[hold], by, amount, self.time, final=final)
        fields = {"hold": hold, "amount": str(amount), "final": final, "receipt": None}
        code = "unknown_hold" if not self.paper.holds[hold].payee else expected
        assert self.do(Capture, by, [by], **fields)[0] in {expected, code}

    @rule(hold=holds)
    def capture_by_the_payee(self, hold: str) -> None:
        known = self.paper.holds[hold]
        if known.payee:
            self.capture(hold, known.payee, known.rest, final=True)

    @rule(hold=holds, by=names, forfeit=st.sampled_from((0, 0, FEE, 2 * FEE)))
    def release(self, hold: str, by: str, forfeit: int) -> None:
        if self.paper.holds[hold].payee:
            expected = self.paper.release(self.paper.holds[hold], by, self.time, forfeit)
            assert self.do(Release, by, [by], hold=hold, forfeit=str(forfeit))[0] == expected

    @rule(hold=holds, by=names)
    def expire(self, hold: str, by: str) -> None:
        expected = self.paper.expire(self.paper.holds[hold], by, self.time)
        assert self.do(Expire, by, [by], subject=hold)[0] == expected

    @rule(hold=holds, by=names)
    def dispute(self, hold: str, by: str) -> None:
        if self.paper.holds[hold].payee:
            expected = self.paper.dispute(self.paper.holds[hold], by, self.time)
            assert self.do(Dispute, by, [by], hold=hold)[0] == expected

    @rule(hold=holds, by=names | st.just(JUDGE), share=st.integers(0, 4), more=st.integers(0, 1))
    def resolve(self, hold: str, by: str, share: int, more: int) -> None:
        known = self.paper.holds[hold]
        if known.payee:
            taken = known.rest * share // 4
            back = known.rest - taken + more
            expected = self.paper.resolve(known, by, taken, back, self.time)
            fields = {"hold": hold, "to_payee": str(taken), "to_payer": str(back)}
            assert self.do(Resolve, by, [by], **fields)[0] == expected

    @rule(by=names, amount=amounts, payer=st.none() | names)
    def stake(self, by: str, amount: int, payer: str | None) -> None:
        if payer is None or (
            self.own(payer) == [payer]
            and by not in self.paper.rule(payer, self.time)[0]
            and payer not in self.paper.rule(by, self.time)[0]  # else it signs for both
        ):
            expected = self.paper.stake(by, amount, self.time, payer)
            assert self.do(Stake, by, [by], payer, amount=str(amount))[0] == expected

    @rule(target=holds, by=names, amount=amounts)
    def unstake(self, by: str, amount: int) -> Any:
        now = self.time
        code, name = self.do(Unstake, by, [by], amount=str(amount))
        assert code == self.paper.unstake(name, by, amount, now)
        return name if code == "logged" else multiple()

    @rule(by=names, offender=names, size=st.integers(1, 3), root=st.integers(3, 4))
    def slash(self, by: str, offender: str, size: int, root: int) -> None:
        if by != offender:
            expected = self.paper.slash(by, offender, (offender, size), self.time)
            key = next(n for n in ("amina", "brahim", "chadia") if did(n) == offender)
            evidence = NoteFault(first=note(key, size, 1), second=note(key, size, root))
            code, _ = self.do(Slash, by, [by], offender=offender, evidence=evidence)
            assert code == expected

    @rule(by=names, budget=amounts, lasts=spans)
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

    @rule(by=names, old=keys, new=keys, proven=st.sampled_from((True, True, False)))
    def rotate(self, by: str, old: str, new: str, proven: bool) -> None:
        signers = [*self.own(by), *([new] if proven else [])]
        if old != new and len(set(signers)) == len(signers):
            expected = self.paper.rotate(by, old, new, self.time, signers)
            assert self.do(KeyRotate, by, signers, old=old, new=new)[0] == expected

    @rule(by=names, wanted=st.integers(1, 2), chosen=st.sets(keys, min_size=2, max_size=3))
    def set_policy(self, by: str, wanted: int, chosen: set[str]) -> None:
        signers = self.own(by)
        expected = self.paper.set_rule(by, frozenset(chosen), wanted, self.time, signers)
        fields = {"keys": tuple(sorted(chosen)), "threshold": wanted}
        assert self.do(PolicySet, by, signers, **fields)[0] == expected

    @rule(by=spans)
    def pass_time(self, by: int) -> None:
        """Close the interval, if one is open, and move on."""
        if self.book.interval is not None:
            self.leaves.append(self.book.close_interval(SIGNERS[OPERATOR]).raw)
        self.now += by

    @rule(hold=holds)
    def wait_until_it_is_due(self, hold: str) -> None:
        self.pass_time(max(0, self.paper.holds[hold].due - self.now))
        self.capture_by_the_payee(hold)
        self.expire(hold, JUDGE)

    @rule(by=names, to=names, more=st.integers(0, 1))
    def spend_all_that_is_left_of_a_mandate(self, by: str, to: str, more: int) -> None:
        mandate = self.paper.mandates.get((by, AGENT))
        if mandate is not None:
            amount = min(mandate.budget - mandate.spent, mandate.per_tx) - FEE + more
            if amount > 0:
                self.transfer(by, to, amount, AGENT)

    @invariant()
    def both_know_the_same_balances(self) -> None:
        state = self.book.state
        for name in [*NAMES, JUDGE, OPERATOR]:
            assert state.available(name) == self.paper.free(name)
        assert state.available("fees") == self.paper.owned("fees")

    @invariant()
    def money_is_conserved(self) -> None:
        state = self.book.state
        accounts = state.accounts.values()
        assert sum(account.posted for account in accounts) == 0
        assert all(account.available >= 0 for account in accounts if account.id != ISSUANCE)
        rests = sum(hold.rest for hold in state.holds.values())
        bonds = sum(account.bond for account in accounts)
        bails = sum(hold.bail for hold in state.holds.values() if not hold.resolved)
        assert sum(account.held for account in accounts) == rests + bonds + bails == state.held

    @invariant()
    def what_is_due_is_on_the_list(self) -> None:
        live = [hold.due for hold in self.paper.holds.values() if hold.state != "over"]
        assert self.book.state.deadlines.next() == min(live, default=None)

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
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
