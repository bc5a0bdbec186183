"""Holds in the machine beside those of a ledger on paper: both always say the same of them."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from rahba.balance import ISSUANCE
from rahba.encoding import sha256_hex, unb64
from rahba.pledge import Pledge, sign_pledge
from tests.fixtures.faults import receipt
from tests.fixtures.wallet import DEAL, FEE, START_MS, did, signer_of
from tests.property.ledger_model import Aside, Mandate, PaperLedger
from wallet.book import Book
from wallet.effects import NEEDS_NO_FEE
from wallet.forms import open_transaction
from wallet.machine import Outcome
from wallet.replay import Replay
from wallet.snapshot import restore
from wallet.transactions import (
    EXPIRING_LANE,
    Arbitration,
    Bail,
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Faucet,
    Genesis,
    Grant,
    Hold,
    Mint,
    Recourse,
    Release,
    Resolve,
    Transfer,
    read,
    seal_transaction,
)

NAMES = [did(name) for name in ("amina", "brahim", "chadia")]
OPERATOR, AGENT, STRANGER, JUDGE = (did(n) for n in ("operator", "agent", "stranger", "judge"))
SPARE = [did(f"spare {number}") for number in range(4)]
SIGNERS = {did(name): signer_of(name) for name in ("operator", "agent", "stranger", "judge")}
SIGNERS |= {did(name): signer_of(name) for name in ("amina", "brahim", "chadia")}
SIGNERS |= {did(f"spare {number}"): signer_of(f"spare {number}") for number in range(4)}
NAME_OF = {did(name): name for name in ("amina", "brahim", "chadia")}
DEALS = (DEAL, "cd" * 32, "ef" * 32)
EPOCH_MS = 10_000
WINDOW_MS, UNBOND_MS, POLICY_MS = 2_000, 3_000, 2_000
names = st.sampled_from(NAMES)
keys = st.sampled_from([*NAMES, *SPARE])
# Few values on one grid: so that limits are met exactly, not only missed and exceeded.
amounts = st.integers(1, 6).map(lambda number: number * FEE)
fees = st.sampled_from((FEE, FEE, FEE, 2 * FEE, 5 * FEE))
lives = st.sampled_from(
    (
        "spend wait restart spend",
        "wait challenge spend",
        "almost challenge wait expire spend",
        "challenge",
        "challenge answer almost answer spend",
        "restart challenge lie answer wait answer expire",
        "challenge answer restart lie answer",
        "challenge spend wait expire spend",
        "spend challenge wait expire",
        "challenge give-up",
        "challenge spend give-up",
    )
)
outputs, sponsors = st.sampled_from((None, "a", "b")), st.sampled_from((None, None, OPERATOR))
finals = st.sampled_from((True, True, True, False))
captures = st.fixed_dictionaries(
    {"final": finals, "output": outputs, "fee": fees, "sponsor": sponsors}
)
places = st.integers(0, 5)
spans = st.integers(0, 5).map(lambda number: number * 1_000)
agents = st.sampled_from((None, AGENT, None, AGENT, None, AGENT, STRANGER))
windows = st.none() | st.tuples(*[st.integers(1, 3).map(lambda number: number * 1_000)] * 2)
RECEIPTS = {
    (by, deal, output): receipt(name, output, deal)
    for by, name in NAME_OF.items()
    for deal in DEALS
    for output in "ab"
}
DIGESTS = {key: sha256_hex(unb64(text)) for key, text in RECEIPTS.items()}


class HoldsBesidePaper(RuleBasedStateMachine):
    """Every rule does the same to both and compares the answers; money is conserved."""

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

    @rule(by=names, to=names, amount=amounts, agent=agents)
    def transfer(self, by: str, to: str, amount: int, agent: str | None) -> None:
        if by != to:
            signers = [agent] if agent else self.own(by)
            expected = self.paper.pay(by, [(to, amount)], self.time, signers)
            assert self.do(Transfer, by, signers, to=to, amount=str(amount))[0] == expected

    @rule(
        target=holds,
        by=names,
        to=names,
        amount=amounts,
        lasts=spans,
        agent=agents,
        terms=st.sampled_from((None, 0, 33, 100)) | windows,
        bail=st.sampled_from((0, 0, 1, 2, 3)).map(lambda number: number * FEE),
        deal=st.sampled_from(DEALS),
    )
    def hold(  # noqa: PLR0917  # a rule takes what it draws
        self,
        by: str,
        to: str,
        amount: int,
        lasts: int,
        agent: str | None,
        terms: int | tuple[int, int] | None,
        bail: int,
        deal: str,
    ) -> Any:
        """``terms``: an arbiter who leaves that share if it is silent, or two windows, or none."""
        if by == to:
            return multiple()
        share, recourse = (None, terms) if isinstance(terms, tuple) else (terms, None)
        expires, now = self.time + lasts + (9_000 if bail else 0), self.time
        judge = None if share is None else JUDGE
        court = judge and Arbitration(
            arbiter=judge, window_ms=WINDOW_MS, payee_share=100 * (share or 0)
        )
        hold = Aside(by, to, amount, expires, judge, share or 0, bail=bail, deal=deal)
        hold.recourse = recourse
        signers = [agent] if agent else self.own(by)
        put_up = self.bail(deal, bail, to, signers[0], expires - 1_000) if bail else None
        windows = recourse and Recourse(window_ms=recourse[0], answer_ms=recourse[1])
        fields = {"payee": to, "amount": str(amount), "expires": expires, "agreement": deal}
        fields |= {"arbitration": court, "bail": put_up, "recourse": windows}
        code, name = self.do(Hold, by, signers, **fields)
        assert code == self.paper.hold(name, hold, now, signers, expires - 1_000)
        return name if code == "logged" else multiple()

    @rule(
        target=holds,
        pair=st.permutations(NAMES),
        amount=amounts,
        agent=st.sampled_from((None, AGENT)),
        terms=windows.filter(bool),
        bail=st.sampled_from((0, FEE, 2 * FEE)),
        deal=st.sampled_from(DEALS),
        less=st.sampled_from((0, 0, FEE)),
        capture=captures,
        then=lives,
    )
    def hold_and_capture(
        self, pair: list[str], less: int, capture: dict[str, Any], then: str, **words: Any
    ) -> Any:
        """Go the whole way to what may be challenged, and perhaps further."""
        if words["agent"]:
            self.grant(pair[0], 6 * FEE, 5_000)
        name, payee = self.hold(by=pair[0], to=pair[1], lasts=4_000, **words), pair[1]
        if isinstance(name, str):
            self.capture(name, payee, max(0, words["amount"] - less), **capture)
            for step in then.split():
                self.live(name, payee, pair[2], step)
        return name

    def live(self, name: str, payee: str, other: str, step: str) -> None:
        hold = self.paper.holds[name]
        deeds: dict[str, Any] = {
            "challenge": lambda: self.challenge(name, hold.payer),
            "spend": lambda: self.spend_everything(payee, other, 500),
            "answer": lambda: self.answer(name, 2),
            "lie": lambda: self.answer(name, 2, right=False),
            "give-up": lambda: self.release(name, payee, FEE),
            "expire": lambda: self.expire(name, JUDGE),
            "wait": lambda: self.pass_time(max(0, hold.due - self.now)),
            "almost": lambda: self.pass_time(max(0, hold.due - 1 - self.now)),
            "restart": lambda: (self.give("faucet", other, other, FEE), self.start_again()),
        }
        deeds[step]()

    def bail(self, deal: str, amount: int, seller: str, buyer: str, until: int) -> Bail:
        words = {"agreement": deal, "amount": str(amount), "buyer": buyer, "until": until}
        pledge = Pledge(**words, chain=self.genesis.chain, seller=seller)
        signature = sign_pledge(pledge, SIGNERS[seller])
        return Bail(amount=str(amount), until=until, signature=signature)

    @rule(
        hold=holds,
        by=names,
        amount=st.just(0) | amounts,
        final=st.booleans(),
        output=outputs,
        fee=fees,
        sponsor=sponsors,
    )
    def capture(  # noqa: PLR0917  # a rule takes what it draws
        self,
        hold: str,
        by: str,
        amount: int,
        final: bool,
        output: str | None = None,
        fee: int = FEE,
        sponsor: str | None = None,
    ) -> None:
        known, now = self.paper.holds[hold], self.time
        named = DIGESTS[by, known.deal or DEAL, output] if output else None
        paid = {"fee": fee, "sponsor": sponsor}
        expected = self.paper.capture(known, by, amount, now, final=final, named=named, **paid)
        fields = {"hold": hold, "amount": str(amount), "final": final, "receipt": named}
        code = "unknown_hold" if not known.payee else expected
        assert self.do(Capture, by, [by], sponsor, fee, **fields)[0] in {expected, code}

    @rule(hold=holds, output=st.sampled_from((None, "a")))
    def capture_by_the_payee(self, hold: str, output: str | None) -> None:
        known = self.paper.holds[hold]
        if known.payee:
            self.capture(hold, known.payee, known.rest, final=True, output=output)

    @rule(hold=holds, by=st.none() | names)
    def challenge(self, hold: str, by: str | None) -> None:
        known = self.paper.holds[hold]
        by = by or known.payer
        if known.payee:
            signers = self.own(by)
            expected = self.paper.challenge(known, by, self.time, signers)
            assert self.do(Challenge, by, signers, hold=hold)[0] == expected

    @rule(
        hold=holds,
        by=names,
        signer=names,
        part=st.integers(1, 3),
        parts=st.integers(1, 3),
        deal=st.sampled_from(DEALS),
        output=st.sampled_from("ab"),
    )
    def deliver(  # noqa: PLR0917  # a rule takes what it draws
        self, hold: str, by: str, signer: str, part: int, parts: int, deal: str, output: str
    ) -> None:
        known, key, signers = self.paper.holds[hold], (signer, deal, output), self.own(by)
        if known.payee and part <= parts:
            shown = (signer, deal, DIGESTS[key])
            expected = self.paper.deliver(known, by, part, parts, shown, self.time, signers)
            fields = {"hold": hold, "receipt": RECEIPTS[key], "part": part, "parts": parts}
            assert self.do(Deliver, by, signers, **fields, output="AAAA")[0] == expected

    @property
    def waiting(self) -> list[str]:
        return [name for name, hold in self.paper.holds.items() if hold.state == "challenged"]

    @precondition(lambda self: self.waiting)
    @rule(which=places, parts=st.integers(1, 3), right=st.sampled_from((True, True, False)))
    def deliver_what_comes_next(self, which: int, parts: int, right: bool) -> None:
        self.answer(self.waiting[which % len(self.waiting)], parts, right=right)

    def answer(self, name: str, parts: int, *, right: bool = True) -> None:
        known = self.paper.holds[name]
        payee, deal = known.payee, known.deal
        assert payee
        named = "b" if known.named == DIGESTS[payee, deal, "b"] else "a"
        parts = known.shown_of or parts
        if not right:  # neither what was named, nor of that deal, nor as many parts as was said
            another = DEALS[DEALS.index(deal) - 1]
            for terms, output in ((another, named), (deal, "ab".replace(named, ""))):
                self.deliver(name, payee, payee, known.shown + 1, parts, terms, output)
            parts += 1
        self.deliver(name, payee, payee, known.shown + 1, parts, deal, named)

    @precondition(lambda self: self.waiting)
    @rule(which=places, late=st.sampled_from((-1, 0, 0)), parts=st.integers(0, 2))
    def wait_for_an_answer(self, which: int, late: int, parts: int) -> None:
        name = self.waiting[which % len(self.waiting)]
        self.pass_time(max(0, self.paper.holds[name].due + late - self.now))
        if parts:
            self.answer(name, parts)
        self.expire(name, JUDGE)

    @rule(by=names, to=names, left=st.sampled_from((0, 0, 500)))
    def spend_everything(self, by: str, to: str, left: int) -> None:
        """What is set aside, and what may be challenged, is not there to be spent."""
        amount = self.paper.free(by, self.time) - FEE - left
        if amount > 0:
            self.transfer(by, to, amount, None)
            self.transfer(by, to, left + 1, None)

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

    @rule(by=spans)
    def pass_time(self, by: int) -> None:
        """Close the interval, if one is open, and move on."""
        if self.book.interval is not None:
            self.leaves.append(self.book.close_interval(SIGNERS[OPERATOR]).raw)
            self.rows |= {key: row for key, row in self.book.snapshot().rows.items() if row}
        self.now += by

    @rule(by=spans)
    def nothing_comes(self, by: int) -> None:
        self.pass_time(by)
        self.book.state.advance(self.time)

    @rule()
    def start_again(self) -> None:
        """Forget all but the rows of a snapshot."""
        self.pass_time(0)
        state = restore(self.genesis, sorted(self.rows.items()))
        self.book = Book.resume(state, self.book.log)

    @rule(hold=holds, early=st.sampled_from((0, 0, 1)))
    def wait_until_it_is_due(self, hold: str, early: int) -> None:
        known = self.paper.holds[hold]
        self.pass_time(max(0, known.due - early - self.now))
        self.capture_by_the_payee(hold, None)
        self.challenge(hold, known.payer)
        self.expire(hold, JUDGE)

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
        assert {
            name: (hold.status, hold.captured, hold.retained, hold.part)
            for name, hold in state.holds.items()
        } == {
            name: (hold.called(), hold.taken, hold.contested(state.log_time), hold.shown)
            for name, hold in paper.items()
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
