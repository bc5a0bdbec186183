"""Holds in the machine beside those of a ledger on paper: both always say the same of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    multiple,
    precondition,
    rule,
)

from rahba.pledge import Pledge, sign_pledge
from tests.fixtures.wallet import DEAL, FEE
from tests.property.hold_draws import (
    AGENT,
    DEALS,
    DIGESTS,
    JUDGE,
    NAMES,
    RECEIPTS,
    SAID,
    SIGNERS,
    WINDOW_MS,
    WORDS,
    agents,
    amounts,
    captures,
    fees,
    lives,
    names,
    outputs,
    places,
    spans,
    sponsors,
    windows,
)
from tests.property.ledger_model import HOUR, Aside
from tests.property.machine_beside_paper import BesidePaperAlone
from wallet.transactions import (
    Arbitration,
    Bail,
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Hold,
    Recourse,
    Release,
    Resolve,
    Transfer,
)


class HoldsBesidePaper(BesidePaperAlone):
    """All that is done with holds; each rule does the same to both and compares the answers."""

    holds = Bundle("holds")

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
        bail=st.sampled_from((0, FEE, 2 * FEE, 3 * FEE)),
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
            leaves = "left" in then and 0 < words["bail"] <= words["amount"]
            amount = words["bail"] if leaves else max(0, words["amount"] - less)
            self.capture(name, payee, amount, **capture)
            for step in then.split():
                self.live(name, payee, pair[2], step)
        return name

    @rule(
        target=holds,
        pair=st.permutations(NAMES),
        agent=st.sampled_from((None, AGENT)),
        bail=st.sampled_from((2 * FEE, 3 * FEE)),
        more=st.sampled_from((0, 0, FEE)),
        deal=st.sampled_from(DEALS),
        output=st.sampled_from((None, "left")),
        right=st.booleans(),
    )
    def hold_and_leave(  # noqa: PLR0917  # a rule takes what it draws
        self,
        pair: list[str],
        agent: str | None,
        bail: int,
        more: int,
        deal: str,
        output: str | None,
        right: bool,
    ) -> Any:
        """The buyer leaves, its payee takes the bail or more, and shows whose word it has."""
        if agent:
            self.grant(pair[0], 6 * FEE, 5_000)
        terms = {"lasts": 4_000, "terms": (2_000, 2_000), "deal": deal, "bail": bail}
        name = self.hold(by=pair[0], to=pair[1], amount=bail + FEE, agent=agent, **terms)
        if isinstance(name, str):
            self.capture(name, pair[1], bail + more, final=True, output=output)
            self.challenge(name, pair[0])
            self.answer_by_the_buyers_word(name, right=right)
        return name

    def live(self, name: str, payee: str, other: str, step: str) -> None:
        hold = self.paper.holds[name]
        deeds: dict[str, Any] = {
            "challenge": lambda: self.challenge(name, hold.payer),
            "spend": lambda: self.spend_everything(payee, other, 500),
            "answer": lambda: self.answer(name, 2),
            "lie": lambda: self.answer(name, 2, right=False),
            "give-up": lambda: self.release(name, payee, FEE),
            "left": lambda: self.answer_by_the_buyers_word(name),
            "foul": lambda: self.answer_by_the_buyers_word(name, right=False),
            "hour": lambda: self.an_hour_passes(name, 1),
            "almost-hour": lambda: self.an_hour_passes(name, 0),
            "again-hour": lambda: self.an_hour_passes(name, 1),
            "pledge": lambda: self.pledge_again(name),
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
        named = DIGESTS[by, known.deal or DEAL, output] if output in {"a", "b"} else None
        if output == "left":
            named = SAID.get((known.buyer or "", known.deal, "b"))
        paid = {"fee": fee, "sponsor": sponsor}
        expected = self.paper.capture(known, by, amount, now, final=final, named=named, **paid)
        fields = {"hold": hold, "amount": str(amount), "final": final, "receipt": named}
        code = self.do(Capture, by, [by], sponsor, fee, **fields)[0]
        if known.payee or code != "unknown_hold":
            self.agree(hold, expected, code)

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
            self.agree(hold, expected, self.do(Challenge, by, signers, hold=hold)[0])

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
        if part <= parts:
            key = (signer, deal, output)
            self.show(hold, by, (part, parts), key, word=False, output="AAAA")

    @rule(
        hold=holds,
        by=names,
        signer=names | st.just(AGENT),
        deal=st.sampled_from(DEALS),
        reason=st.sampled_from("ab"),
        output=st.sampled_from((None, None, "AAAA")),
    )
    def say_that_the_buyer_left(  # noqa: PLR0917  # a rule takes what it draws
        self, hold: str, by: str, signer: str, deal: str, reason: str, output: str | None
    ) -> None:
        self.show(hold, by, (1, 1), (signer, deal, reason), word=True, output=output)

    def show(
        self,
        hold: str,
        by: str,
        place: tuple[int, int],
        key: tuple[str, str, str],
        *,
        word: bool,
        output: str | None,
    ) -> None:
        known, signers, now = self.paper.holds[hold], self.own(by), self.time
        if known.payee:
            texts, digests = (WORDS, SAID) if word else (RECEIPTS, DIGESTS)
            shown = (*key[:2], digests[key])
            how = {"word": word, "output": output is not None}
            expected = self.paper.deliver(known, by, *place, shown, now, signers, **how)
            fields = {"hold": hold, "receipt": texts[key], "output": output}
            fields |= {"part": place[0], "parts": place[1]}
            self.agree(hold, expected, self.do(Deliver, by, signers, **fields)[0])

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
    @rule(which=places, right=st.sampled_from((True, True, False)))
    def answer_that_the_buyer_left(self, which: int, right: bool) -> None:
        name = self.waiting[which % len(self.waiting)]
        self.answer_by_the_buyers_word(name, right=right)

    def answer_by_the_buyers_word(self, name: str, *, right: bool = True) -> None:
        known = self.paper.holds[name]
        payee, buyer = known.payee, known.buyer or known.payer
        assert payee
        if (buyer, known.deal, "a") not in WORDS:
            return
        said = "b" if known.named == SAID[buyer, known.deal, "b"] else "a"
        if not right:  # the account's, not its key's; another's; as a delivery; a receipt as a word
            for signer in {known.payer, payee, AGENT} - {buyer}:
                self.say_that_the_buyer_left(name, payee, signer, known.deal, said, None)
            self.say_that_the_buyer_left(name, payee, buyer, known.deal, said, "AAAA")
            key = (payee, known.deal, "a")
            self.show(name, payee, (1, 1), key, word=False, output=None)
        self.say_that_the_buyer_left(name, payee, buyer, known.deal, said, None)

    @rule(hold=holds, late=st.sampled_from((-1, 0, 1)))
    def an_hour_passes(self, hold: str, late: int) -> None:
        """Go on to an hour after a hold was over: until then its pledge is in use."""
        since = self.paper.holds[hold].since(self.time)
        if since is not None:
            self.pass_time(max(0, since + HOUR + late - self.now))

    @rule(hold=holds)
    def pledge_again(self, hold: str) -> None:
        """Another hold of the same payee for the same deal, with a fresh pledge."""
        old = self.paper.holds[hold]
        if old.payee and old.bail:
            words = {"amount": FEE, "lasts": 5_000, "agent": None, "terms": None, "bail": FEE}
            self.hold(by=old.payer, to=old.payee, deal=old.deal, **words)

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
            code, _ = self.do(Release, by, [by], hold=hold, forfeit=str(forfeit))
            self.agree(hold, expected, code)

    @rule(hold=holds, by=names)
    def expire(self, hold: str, by: str) -> None:
        expected = self.paper.expire(self.paper.holds[hold], by, self.time)
        self.agree(hold, expected, self.do(Expire, by, [by], subject=hold)[0])

    @rule(hold=holds, by=names)
    def dispute(self, hold: str, by: str) -> None:
        if self.paper.holds[hold].payee:
            expected = self.paper.dispute(self.paper.holds[hold], by, self.time)
            self.agree(hold, expected, self.do(Dispute, by, [by], hold=hold)[0])

    @rule(hold=holds, by=names | st.just(JUDGE), share=st.integers(0, 4), more=st.integers(0, 1))
    def resolve(self, hold: str, by: str, share: int, more: int) -> None:
        known = self.paper.holds[hold]
        if known.payee:
            taken = known.rest * share // 4
            back = known.rest - taken + more
            expected = self.paper.resolve(known, by, taken, back, self.time)
            fields = {"hold": hold, "to_payee": str(taken), "to_payer": str(back)}
            self.agree(hold, expected, self.do(Resolve, by, [by], **fields)[0])

    @rule(hold=holds, early=st.sampled_from((0, 0, 1)))
    def wait_until_it_is_due(self, hold: str, early: int) -> None:
        known = self.paper.holds[hold]
        self.pass_time(max(0, known.due - early - self.now))
        self.capture_by_the_payee(hold, None)
        self.challenge(hold, known.payer)
        self.expire(hold, JUDGE)
