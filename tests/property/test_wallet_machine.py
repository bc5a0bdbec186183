"""The machine beside a ledger on paper: both always say the same, and money is conserved."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, multiple, rule

from tests.fixtures.faults import note
from tests.fixtures.wallet import FEE, did
from tests.property.hold_draws import AGENT, NAMES, OPERATOR, SPARE, agents, amounts, names, spans
from tests.property.holds_beside_paper import HoldsBesidePaper
from wallet.transactions import (
    Batch,
    Item,
    KeyRotate,
    NoteFault,
    PolicySet,
    Slash,
    Stake,
    Transfer,
    Unstake,
)

keys = st.sampled_from([*NAMES, *SPARE])


class BesidePaper(HoldsBesidePaper):
    """All that accounts do, and not only with holds."""

    holds = Bundle("holds")

    @rule(to=names, amount=amounts)
    def faucet(self, to: str, amount: int) -> None:
        self.give("faucet", to, to, 2 * amount)

    @rule(by=names | st.just(OPERATOR), to=names, amount=amounts)
    def mint(self, by: str, to: str, amount: int) -> None:
        self.give("mint", by, to, 2 * amount)

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

    @rule(by=names, amount=amounts, payer=st.none() | names)
    def stake(self, by: str, amount: int, payer: str | None) -> None:
        if payer is None or (
            self.own(payer) == [payer]
            and by not in self.paper.rule(payer, self.time)[0]
            and payer not in self.paper.rule(by, self.time)[0]  # else it signs for both
        ):
            expected = self.paper.stake(by, amount, self.time, payer)
            assert self.do(Stake, by, [by], payer, amount=str(amount))[0] == expected

    @rule(by=names, budget=amounts, lasts=spans)
    def grant_again(self, by: str, budget: int, lasts: int) -> None:
        self.grant(by, budget, lasts)

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

    @rule(by=names, to=names, more=st.integers(0, 1))
    def spend_all_that_is_left_of_a_mandate(self, by: str, to: str, more: int) -> None:
        mandate = self.paper.mandates.get((by, AGENT))
        if mandate is not None:
            amount = min(mandate.budget - mandate.spent, mandate.per_tx) - FEE + more
            if amount > 0:
                self.transfer(by, to, amount, AGENT)


TestHoldsBesidePaper = HoldsBesidePaper.TestCase
TestBesidePaper = BesidePaper.TestCase
ORDINARY = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBesidePaper.settings = ORDINARY
TestHoldsBesidePaper.settings = settings(ORDINARY, max_examples=250)
