"""The ledger as one would explain it on paper: slow, obvious, and not the machine's code.

Balances are added up from the list of all movements each time somebody asks for one. A deed is a
list of what may be wrong with it, in the machine's order, and of what moves if nothing is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Moves = list[tuple[str, str, int]]
HOUR = 3_600_000


@dataclass
class Mandate:
    budget: int
    per_tx: int
    expires: int
    spent: int = 0
    rule: tuple[frozenset[str], int] | None = None  # by which it was given, and with which it ends


@dataclass
class Aside:
    """Money aside for a deal with ``payee``; without one, a stake on its way back."""

    payer: str
    payee: str | None
    rest: int
    due: int
    judge: str | None = None
    share: int = 0  # hundredths that are the payee's if the judge is silent
    mandate: Mandate | None = None
    state: str = "open"
    bail: int = 0
    deal: str = ""
    taken: int = 0
    recourse: tuple[int, int] | None = None  # how long for a challenge, and then for an answer
    kept: int = 0  # what of it the payee cannot spend before
    named: str | None = None
    shown: int = 0
    shown_of: int = 0
    buyer: str | None = None  # whose word counts that it left
    ended: int = 0

    def contested(self, now: int) -> int:
        """What of it the payee has no use of, as it may have to give it back."""
        return self.kept if self.state in {"taken", "challenged"} and not self.over(now) else 0

    def over(self, now: int) -> bool:
        return self.state == "over" or (self.state == "taken" and now >= self.due)

    def since(self, now: int) -> int | None:
        """When it was over, if it is."""
        return None if not self.over(now) else self.due if self.state == "taken" else self.ended

    def bygone(self, now: int, by: int = HOUR) -> bool:
        """Whether it has been over for longer than that: nobody needs to remember it."""
        since = self.since(now)
        return since is not None and since + by < now

    @property
    def moved(self) -> str | None:
        """Why nobody can take, return or freeze it any more."""
        if self.state in {"over", "taken"}:
            return "hold_resolved" if self.payee else "unknown_hold"
        return None

    def called(self) -> str:
        """The name that the ledger has for what became of it."""
        if self.state in {"taken", "over"}:
            return "captured" if self.taken else "released"
        return self.state


@dataclass
class PaperLedger:
    fee: int
    claim: int
    caps: dict[str, int]
    epoch_ms: int
    window: int
    unbond: int
    delay: int
    operator: str
    moves: Moves = field(default_factory=list)
    issued: Counter[tuple[str, int]] = field(default_factory=Counter)
    holds: dict[str, Aside] = field(default_factory=dict)
    stakes: Counter[str] = field(default_factory=Counter)
    mandates: dict[tuple[str, str], Mandate] = field(default_factory=dict)
    rules: dict[str, list[tuple[int, frozenset[str], int]]] = field(default_factory=dict)
    punished: set[object] = field(default_factory=set)

    def owned(self, name: str) -> int:
        return sum(m[2] for m in self.moves if m[1] == name) - sum(
            m[2] for m in self.moves if m[0] == name
        )

    def free(self, name: str, now: int) -> int:
        aside = sum(hold.rest for hold in self.holds.values() if hold.payer == name)
        theirs = [hold for hold in self.holds.values() if hold.payee == name]
        aside += sum(hold.contested(now) for hold in theirs)
        aside += sum(hold.bail for hold in theirs if hold.rest)
        return self.owned(name) - aside - self.stakes[name]

    def rule(self, name: str, now: int) -> tuple[frozenset[str], int]:
        """Who acts for an account: the newest of its rules that is in force."""
        rules = [(0, frozenset({name}), 1), *self.rules.get(name, [])]
        return [rule[1:] for rule in rules if rule[0] <= now][-1]

    def deed(
        self,
        by: str,
        signers: list[str],
        now: int,
        *wrongs: tuple[object, str],
        moves: Moves | None = None,
        aside: int = 0,
        freed: tuple[tuple[str, int], ...] = (),
        spends: bool = False,
        payer: str | None = None,
        key: str | None = None,
        costs: bool = True,
        fee: int = 0,
    ) -> str:
        keys, wanted = self.rule(by, now)
        self.mandates = {
            pair: given
            for pair, given in self.mandates.items()
            if pair[0] != by or given.rule == (keys, wanted)
        }
        own = signers[0] in keys
        agent = None if own else self.mandates.get((by, signers[0]))
        asked = sorted(keys & set(signers[:wanted])) if own else signers[:1]
        moves = [*(moves or []), *([(payer or by, "fees", fee or self.fee)] if costs else [])]
        after = Counter({by: -aside})
        for who, amount in freed:
            after[who] += amount
        for debit, credit, amount in moves:
            after[debit] -= amount
            after[credit] += amount
        short = any(
            n < 0 and self.free(who, now) + n < 0 for who, n in after.items() if who != "issuance"
        )
        spent = (sum(m[2] for m in moves if m[0] == by) + aside) if spends else self.fee
        for bad, code in [
            (not own and not agent, "unknown_session"),
            (agent and now >= agent.expires, "session_expired"),
            (signers != [*asked, *([key] if key else [])], "not_authorised"),
            (own and len(asked) < wanted, "not_authorised"),
            *wrongs,
            (short, "insufficient_funds"),
            (agent and spent > agent.per_tx, "out_of_scope"),
            (agent and agent.spent + spent > agent.budget, "budget_exceeded"),
        ]:
            if bad:
                return code
        if agent:
            agent.spent += spent
        self.moves += moves
        return "logged"

    def pay(self, by: str, items: list[tuple[str, int]], now: int, signers: list[str]) -> str:
        moves = [(by, to, amount) for to, amount in items]
        return self.deed(by, signers, now, moves=moves, spends=True)

    def hold(self, name: str, hold: Aside, now: int, signers: list[str], until: int) -> str:
        assert hold.payee
        bound = [old for old in self.holds.values() if old.bail and not old.bygone(now)]
        pledges = [(old.payee, old.deal) for old in bound]
        own_key = self.rule(hold.payee, now) == (frozenset({hold.payee}), 1)
        code = self.deed(
            hold.payer,
            signers,
            now,
            (hold.due <= now, "bad_expiry"),
            (hold.bail and not own_key, "bad_pledge"),
            (hold.bail and hold.due < now + 12_000, "bad_expiry"),
            (hold.bail and until < now, "bad_pledge"),
            (hold.bail and (hold.payee, hold.deal) in pledges, "pledge_used"),
            (hold.bail and self.free(hold.payee, now) < hold.bail, "pledge_unbacked"),
            aside=hold.rest,
            freed=((hold.payee, -hold.bail),),
            spends=True,
        )
        if code == "logged":
            own = signers[0] in self.rule(hold.payer, now)[0]
            hold.mandate = None if own else self.mandates[hold.payer, signers[0]]
            hold.buyer = signers[0] if hold.bail else None
            self.holds[name] = hold
        return code

    def draw(
        self,
        hold: Aside,
        by: str,
        taken: int,
        back: int,
        now: int,
        *wrongs: tuple[object, str],
        costs: bool = True,
        forfeit: int = 0,
        kept: int = 0,
        **fees: Any,
    ) -> str:
        """Give ``taken`` of what is aside to the payee and ``back`` to the payer.

        What the payee put up itself is free again when nothing is left, but for its ``forfeit``;
        what is ``kept`` of what was taken is not free yet.
        """
        over = (hold.moved, hold.moved or "")
        payee = hold.payee or hold.payer
        moves = [(hold.payer, payee, taken), (payee, hold.payer, forfeit)]
        ends = taken + back == hold.rest
        own = (hold.bail if ends else 0) - kept
        freed = ((hold.payer, taken + back), (payee, own))
        fees |= {"costs": costs}
        code = self.deed(by, [by], now, over, *wrongs, moves=moves, freed=freed, **fees)
        if code == "logged":
            hold.rest -= taken + back
            hold.taken += taken
            hold.state = hold.state if hold.rest else "taken" if kept else "over"
            hold.kept, hold.ended = kept, now
            if hold.mandate and not hold.rest:
                hold.mandate.spent -= back
        return code

    def capture(
        self,
        hold: Aside,
        by: str,
        amount: int,
        now: int,
        *,
        final: bool,
        named: str | None = None,
        fee: int = 0,
        sponsor: str | None = None,
    ) -> str:
        """Of what may be challenged the payee can spend the usual fee, if it pays that itself.

        Its bail is free at once, but for what it did not take of it.
        """
        back = max(0, hold.rest - amount) if final else 0
        ends = amount + back == hold.rest
        own_fee = 0 if sponsor else self.fee
        contestable = hold.recourse and amount > own_fee
        code = self.draw(
            hold,
            by,
            amount,
            back,
            now,
            (hold.state in {"disputed", "challenged"}, hold.state),
            (by != hold.payee, "not_payee"),
            (now >= hold.due, "hold_expired"),
            (amount > hold.rest, "exceeds_hold"),
            (hold.recourse and not ends, "not_final"),
            forfeit=max(0, hold.bail - hold.taken - amount) if ends else 0,
            kept=amount - own_fee if contestable else 0,
            fee=fee,
            payer=sponsor,
        )
        if code == "logged" and contestable:
            assert hold.recourse
            hold.named, hold.due = named, now + hold.recourse[0]
        return code

    def undo(self, hold: Aside, by: str, now: int, own: int, *wrongs: tuple[object, str]) -> str:
        """Give the payer back what was kept, and as much of the payee's ``own``."""
        assert hold.payee
        freed, moves = ((hold.payee, hold.kept),), [(hold.payee, hold.payer, hold.kept + own)]
        code = self.deed(by, [by], now, *wrongs, moves=moves, freed=freed, costs=False)
        if code == "logged":
            if hold.mandate:
                hold.mandate.spent -= min(hold.taken, hold.kept + own)
            hold.state, hold.taken, hold.ended = "over", 0, now
        return code

    def release(self, hold: Aside, by: str, now: int, forfeit: int) -> str:
        return self.draw(
            hold,
            by,
            0,
            hold.rest,
            now,
            (hold.state == "challenged", "challenged"),
            (by != hold.payee, "not_payee"),
            (forfeit > hold.bail, "exceeds_hold"),
            costs=False,
            forfeit=forfeit,
        )

    def expire(self, hold: Aside, by: str, now: int) -> str:
        taken = hold.rest * hold.share // 100 if hold.state == "disputed" else 0
        early = (now < hold.due, "not_expired")
        if hold.state == "challenged":
            assert hold.payee
            owed = hold.taken - hold.kept + min(hold.taken, hold.bail)
            return self.undo(hold, by, now, min(owed, self.free(hold.payee, now)), early)
        lost = max(0, hold.bail - hold.taken) if hold.state == "open" else 0
        back = hold.rest - taken
        return self.draw(hold, by, taken, back, now, early, costs=False, forfeit=lost)

    def challenge(self, hold: Aside, by: str, now: int, signers: list[str]) -> str:
        code = self.deed(
            by,
            signers,
            now,
            (hold.called() == "released", "hold_resolved"),
            (hold.state == "open", "not_contestable"),
            (hold.state in {"disputed", "challenged"}, hold.state),
            (by != hold.payer, "not_party"),
            (hold.over(now), "not_contestable"),
            costs=False,
        )
        if code == "logged":
            assert hold.recourse
            hold.state, hold.due = "challenged", now + hold.recourse[1]
        return code

    def deliver(  # noqa: PLR0917  # all of what may be wrong
        self,
        hold: Aside,
        by: str,
        part: int,
        parts: int,
        receipt: tuple[str, str, str],
        now: int,
        signers: list[str],
        *,
        word: bool = False,
        output: bool = True,
    ) -> str:
        """``receipt`` is who signed it, for which deal, and its digest; ``word``: that it left.

        Without ``output`` it should be the word of the buyer, and with it the payee's receipt.
        """
        signer, deal, digest = receipt
        right = hold.payee if output else hold.buyer
        last = part == parts
        assert hold.payee
        code = self.deed(
            by,
            signers,
            now,
            (hold.called() == "released", "hold_resolved"),
            (hold.state != "challenged", "not_challenged"),
            (by != hold.payee, "not_payee"),
            (now >= hold.due, "deadline_passed"),
            (part != hold.shown + 1, "bad_part"),
            (hold.shown and parts != hold.shown_of, "bad_part"),
            (word is output or signer != right or deal != hold.deal, "wrong_receipt"),
            (not output and hold.taken > hold.bail, "wrong_receipt"),
            (hold.named and digest != hold.named, "wrong_receipt"),
            freed=((hold.payee, hold.kept if last else 0),),
            costs=False,
        )
        if code == "logged":
            hold.shown, hold.shown_of, hold.named = part, parts, digest
            hold.state = "over" if last else "challenged"
            hold.ended = now
        return code

    def dispute(self, hold: Aside, by: str, now: int) -> str:
        code = self.deed(
            by,
            [by],
            now,
            (hold.moved, "hold_resolved"),
            (hold.state in {"disputed", "challenged"}, hold.state),
            (by not in {hold.payer, hold.payee}, "not_party"),
            (not hold.judge, "no_arbiter"),
            (now >= hold.due, "hold_expired"),
        )
        if code == "logged":
            hold.state, hold.due = "disputed", now + self.window
        return code

    def resolve(self, hold: Aside, by: str, taken: int, back: int, now: int) -> str:
        return self.draw(
            hold,
            by,
            taken,
            back,
            now,
            (hold.state != "disputed", "not_disputed"),
            (by != hold.judge, "not_arbiter"),
            (now >= hold.due, "deadline_passed"),
            (taken + back != hold.rest, "bad_split"),
        )

    def stake(self, by: str, amount: int, now: int, payer: str | None) -> str:
        code = self.deed(by, [by], now, aside=amount, payer=payer)
        self.stakes[by] += amount if code == "logged" else 0
        return code

    def leaving(self, name: str) -> list[Aside]:
        parts = [(part.due, id_, part) for id_, part in self.holds.items() if not part.payee]
        own = [(due, id_) for due, id_, part in parts if part.payer == name and part.rest]
        return [self.holds[id_] for _, id_ in sorted(own)]

    def unstake(self, name: str, by: str, amount: int, now: int) -> str:
        bond = self.stakes[by] + sum(part.rest for part in self.leaving(by))
        too_much = (amount > bond, "insufficient_stake"), (amount > self.stakes[by], "unbonding")
        code = self.deed(by, [by], now, *too_much)
        if code == "logged":
            self.stakes[by] -= amount
            self.holds[name] = Aside(by, None, amount, now + self.unbond)
        return code

    def slash(self, by: str, offender: str, fault: object, now: int) -> str:
        """Half of the bond is taken, what is staked first; a tenth of that is the reporter's."""
        amount = (self.stakes[offender] + sum(p.rest for p in self.leaving(offender))) // 2
        reward = amount // 10
        code = self.deed(
            by,
            [by],
            now,
            (fault in self.punished, "evidence_used"),
            (not amount, "no_bond"),
            moves=[(offender, by, reward), (offender, "issuance", amount - reward)],
            freed=((offender, amount),),
        )
        if code == "logged":
            self.punished.add(fault)
            first = min(amount, self.stakes[offender])
            self.stakes[offender] -= first
            amount -= first
            for part in reversed(self.leaving(offender)):
                share = min(part.rest, amount)
                part.rest, amount = part.rest - share, amount - share
                part.state = "open" if part.rest else "over"
        return code

    def give(self, kind: str, by: str, to: str, amount: int, now: int) -> str:
        epoch = (kind, now // self.epoch_ms)
        code = self.deed(
            by,
            [by],
            now,
            (kind == "mint" and by != self.operator, "not_minter"),
            (kind == "faucet" and amount > self.claim, "cap_exceeded"),
            (self.issued[epoch] + amount > self.caps[kind], "cap_exceeded"),
            moves=[("issuance", to, amount)],
        )
        self.issued[epoch] += amount if code == "logged" else 0
        return code

    def grant(self, by: str, agent: str, mandate: Mandate, now: int, signers: list[str]) -> str:
        code = self.deed(by, signers, now)
        if code == "logged":
            mandate.rule = self.rule(by, now)
            self.mandates[by, agent] = mandate
        return code

    def rotate(self, by: str, old: str, new: str, now: int, signers: list[str]) -> str:
        keys, wanted = self.rule(by, now)
        unknown = (old not in keys or new in keys, "unknown_key")
        silent = (old in keys and old not in signers[:wanted], "not_authorised")
        code = self.deed(by, signers, now, silent, unknown, key=new)
        if code == "logged":
            self.rules[by] = [(now, keys - {old} | {new}, wanted)]
        return code

    def set_rule(
        self, by: str, keys: frozenset[str], wanted: int, now: int, signers: list[str]
    ) -> str:
        present = self.rule(by, now)
        code = self.deed(by, signers, now)
        if code == "logged":
            weaker = wanted - len(keys - present[0]) < present[1]
            self.rules[by] = [(0, *present), (now + self.delay if weaker else now, keys, wanted)]
        return code
