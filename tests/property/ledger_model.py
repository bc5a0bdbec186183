"""The ledger as one would explain it on paper: slow, obvious, and not the machine's code.

Balances are added up from the list of all movements each time somebody asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PaperMandate:
    budget: int
    per_tx: int
    expires: int
    spent: int = 0


@dataclass
class PaperHold:
    payer: str
    payee: str
    rest: int
    expires: int
    mandate: PaperMandate | None = None
    open: bool = True


@dataclass
class PaperLedger:
    fee: int
    claim: int
    epoch_cap: int
    epoch_ms: int
    movements: list[tuple[str, str, int]] = field(default_factory=list)
    gifts: list[tuple[int, int]] = field(default_factory=list)
    holds: dict[str, PaperHold] = field(default_factory=dict)
    mandates: dict[tuple[str, str], PaperMandate] = field(default_factory=dict)

    def owned(self, name: str) -> int:
        moves = self.movements
        return sum(m[2] for m in moves if m[1] == name) - sum(m[2] for m in moves if m[0] == name)

    def free(self, name: str) -> int:
        return self.owned(name) - sum(h.rest for h in self.holds.values() if h.payer == name)

    def pay(
        self, by: str, items: list[tuple[str, int]], now: int, agent: str | None, aside: int = 0
    ) -> str:
        """Pay the items and the fee, if ``aside`` is left over to be set aside."""
        mandate = self.mandates.get((by, agent)) if agent else None
        total = sum(amount for _, amount in items) + self.fee + aside
        for wrong, code in [
            (agent and not mandate, "unknown_session"),
            (mandate and now >= mandate.expires, "session_expired"),
            (total > self.free(by), "insufficient_funds"),
            (mandate and total > mandate.per_tx, "out_of_scope"),
            (mandate and mandate.spent + total > mandate.budget, "budget_exceeded"),
        ]:
            if wrong:
                return code
        if mandate:
            mandate.spent += total
        self.movements += [(by, to, amount) for to, amount in [*items, ("fees", self.fee)]]
        return "logged"

    def hold(self, name: str, hold: PaperHold, now: int, agent: str | None) -> str:
        hold.mandate = self.mandates.get((hold.payer, agent)) if agent else None
        may_sign = not agent or (hold.mandate and now < hold.mandate.expires)
        if may_sign and hold.expires <= now:
            return "bad_expiry"
        code = self.pay(hold.payer, [], now, agent, aside=hold.rest)
        if code == "logged":
            self.holds[name] = hold
        return code

    def capture(self, hold: PaperHold, by: str, amount: int, now: int, *, final: bool) -> str:
        for wrong, code in [
            (not hold.open, "hold_resolved"),
            (by != hold.payee, "not_payee"),
            (now >= hold.expires, "hold_expired"),
            (amount > hold.rest, "exceeds_hold"),
            (self.free(by) + amount < self.fee, "insufficient_funds"),
        ]:
            if wrong:
                return code
        self.movements += [(hold.payer, by, amount), (by, "fees", self.fee)]
        hold.rest -= amount
        return self.close(hold) if final or not hold.rest else "logged"

    def release(self, hold: PaperHold, by: str, now: int) -> str:
        if not hold.open:
            return "hold_resolved"
        return self.close(hold) if by == hold.payee or now >= hold.expires else "not_expired"

    def close(self, hold: PaperHold) -> str:
        if hold.mandate:
            hold.mandate.spent -= hold.rest
        hold.rest, hold.open = 0, False
        return "logged"

    def give(self, to: str, amount: int, now: int) -> str:
        epoch = now // self.epoch_ms
        if (
            amount > self.claim
            or amount + sum(g for e, g in self.gifts if e == epoch) > self.epoch_cap
        ):
            return "cap_exceeded"
        if self.free(to) + amount < self.fee:
            return "insufficient_funds"
        self.gifts.append((epoch, amount))
        self.movements += [("issuance", to, amount), (to, "fees", self.fee)]
        return "logged"
