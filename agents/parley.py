"""One seller as a buyer deals with it: says, hears, commits, and takes delivery.

* Every message goes through the broker's thread, which rules on it; only what stands is noted.
* The same bytes are posted again while the broker is away: the thread tells repeats apart.
* Order of commitment: hold the money, then accept. If the accept does not stand, the hold names an
  agreement that does not exist; the thread is ended, and the ledger gives the money back at the
  hold's expiry in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agents.attendance import Attendance
from agents.courier import BACKOFF_S, Courier
from agents.errors import (
    ArgumentsRefusedError,
    DeadlineError,
    OutOfPlaceError,
    SellerFailedError,
    ThreadRefusedError,
)
from agents.negotiation.agreement import build_agreement, sign_agreement
from agents.negotiation.goods import seal_goods
from agents.negotiation.guard import authorise
from agents.negotiation.line import Line
from agents.negotiation.mandate import Mandate
from agents.negotiation.talk import OVER, Talk
from agents.patience import UNREAD
from agents.pen import Pen
from agents.ports import Payer
from agents.purchase import Want, Watcher
from agents.recourse import HoldWatch
from agents.routing import Routing
from broker.knowledge.forecast import PriceView
from broker.ports import Listing, Ruling, Threads
from rahba.clock import Clock
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.ids import Ids
from rahba.messages import (
    Accept,
    Agreement,
    Body,
    Cfp,
    Decommit,
    Issues,
    Job,
    Message,
    Offer,
    Order,
    Reject,
    SkillOffer,
    open_message,
)
from rahba.money import parse_fals
from wallet.errors import (
    BadPledgeError,
    PaymentUnknownError,
    PledgeUnbackedError,
    PledgeUsedError,
)
from wallet.transactions import Bail

_log: Final = logging.getLogger(__name__)
HOLD_GRACE_MS: Final = 15_000
SIGNATURE_CHARS: Final = 88
_LOOK_EVERY_S: Final = 2.0
_CLOSING_TRIES: Final = 5
_CLOSING_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Desk:
    """What a buyer works with."""

    signer: Signer
    pen: Pen
    wallet: Payer
    threads: Threads
    courier: Courier
    clock: Clock
    ids: Ids
    watch: HoldWatch


@dataclass(slots=True)
class Hold:
    """Money secured for one deal; ``id`` is null while nobody knows whether it was."""

    id: str | None
    amount: int
    expires_ms: int


@dataclass(slots=True)
class Request:
    """One wish being fulfilled: its fixed terms, and the holds made on its way.

    ``prices`` is what was known of the market before any seller was heard.
    """

    want: Want
    skill: str
    group: str
    plain: bytes
    input_digest: str
    mandate: Mandate
    deadline: int
    nonce: str
    watch: Watcher | None
    holds: list[Hold]
    prices: PriceView | None = None
    routing: Routing | None = None

    def tell(self, kind: str, **data: str | int) -> None:
        """Tell the watcher about a step."""
        if self.watch is not None:
            self.watch(kind, {"group": self.group, **data})


class Parley:
    """The thread with one seller."""

    def __init__(
        self, desk: Desk, request: Request, listing: Listing, attendance: Attendance, thread: str
    ) -> None:
        """Begin a thread with the seller of ``listing``; nothing is said yet."""
        entry = listing.card.skill(request.skill)
        assert entry is not None
        self.desk = desk
        self.request = request
        self.entry: SkillOffer = entry
        self.attendance = attendance
        self.hold: Hold | None = None
        self.released = False
        self._heard: set[str] = set()
        talk = Talk(thread, desk.signer.did, listing.card.agent, posted=entry.posted)
        self.line = Line(talk, desk.signer, clock=desk.clock, ids=desk.ids)

    @property
    def talk(self) -> Talk:
        """Return what has been said."""
        return self.line.talk

    @property
    def is_sealed(self) -> bool:
        """Say whether the seller was asked for one sealed quote."""
        return self.talk.cfp is not None and self.talk.cfp.mode == "tender"

    @property
    def menu(self) -> tuple[Issues, ...]:
        """Return what can be had from this seller, as its card says."""
        posted = () if self.entry.posted is None else (self.entry.posted.issues,)
        return (*posted, *self.entry.tiers)

    @property
    def seller(self) -> str:
        """Return the seller's did."""
        return self.line.talk.seller

    # Speech.

    async def say(self, body: Body, *, reply_by: int) -> None:
        """Post a message.

        Raises:
            ThreadRefusedError: it does not stand.
        """
        raw = await self.desk.pen.seal(self.line.next(body, reply_by=reply_by))
        self.note(body, raw, await self.insist(body, raw, reply_by=reply_by))

    def note(self, body: Body, raw: bytes, ruling: Ruling) -> None:
        """Note what we said if it stands; errors as of :meth:`say`."""
        if not ruling.ok:
            raise ThreadRefusedError(
                f"the message was ruled {ruling.verdict}",
                verdict=ruling.verdict,
                state=ruling.state,
                thread=self.talk.thread,
            )
        self.line.said(body, raw)

    async def hear(self, *, until: int) -> bool:
        """Note the seller's next message; says whether one came by ``until``."""
        if self.hear_at_once():
            return True
        while (left := until - self.desk.clock.now_ms()) > 0:
            letter = await self.attendance.next(min(left / 1_000, _LOOK_EVERY_S))
            if letter is None and left / 1_000 > _LOOK_EVERY_S and await self.catch_up():
                return True  # somebody else with this key may have taken the letter
            if letter is not None and self._note(letter.message, letter.raw):
                return True
        return await self.catch_up()

    def hear_at_once(self) -> bool:
        """Note the seller's next message if its letter has come; says whether one had."""
        while (letter := self.attendance.take()) is not None:
            if self._note(letter.message, letter.raw):
                return True
        return False

    async def catch_up(self) -> bool:
        """Note what the thread's transcript has and the mailbox did not bring."""
        try:
            view = await self.desk.threads.get(self.talk.thread)
        except RahbaError as error:
            if not error.retryable:
                raise
            return False
        news = False
        for raw in view.transcript if view is not None else ():
            message = open_message(raw, me=None, now_ms=0)
            if message.sender == self.seller:
                news |= self._note(message, raw)
        return news

    def farewell(self, reason: str) -> Body | None:
        """Return how to tell a seller that it was not chosen, or that no deal is in sight."""
        body: Body | None = None
        if self.released:
            return None
        if self.talk.phase in {"asked", "quoted", "countered"}:
            body = Reject(reason)
        elif self.talk.phase == "agreed" and self.talk.agreed is not None:
            body = Decommit(self.agreement(self.talk.agreed).digest(), reason)
        if body is not None:
            self.request.tell("released", thread=self.talk.thread, seller=self.seller, code=reason)
        return body

    # Commitment.

    def agreement(self, offer: Offer) -> Agreement:
        """Return the agreement on ``offer`` in this thread."""
        return build_agreement(
            thread=self.talk.thread,
            buyer=self.talk.buyer,
            seller=self.seller,
            cfp=self.talk.cfp or self.opening(),
            offer=offer,
        )

    def opening(self) -> Cfp:
        """Return what a posted deal says in place of a call for proposals."""
        request = self.request
        return Cfp(
            group=request.group,
            skill=request.skill,
            mode="posted",
            input_digest=request.input_digest,
            input_bytes=len(request.plain),
            deadline=request.deadline,
            needs=request.mandate.needs,
        )

    async def commit(self, offer: Offer, *, deadline: int) -> Agreement:
        """Hold the money, then bind both sides.

        1. The offer keeps the mandate (again: time has passed).
        2. The price is held for the seller and this very agreement, until the deadline and a grace,
           together with what the seller put up for the penalty.
        3. The accept, or the order where the seller accepted, stands.

        Raises:
            DeadlineError: the ledger did not answer; what it did is unknown until the expiry.
            MandateExceededError: the mandate is over.
            PaymentRefusedError: the ledger does not hold the money.
            SellerFailedError: the seller's pledge is worth nothing.
            ThreadRefusedError: the deal does not stand any more; the hold is on the request.
        """
        desk, request = self.desk, self.request
        authorise(offer, request.mandate, party=self.seller, now_ms=desk.clock.now_ms())  # 1
        agreement = self.agreement(offer)
        deal = agreement.digest()
        expires = deadline + HOLD_GRACE_MS
        price = offer.issues.price_fals
        if price:  # 2
            bail = None if self.talk.phase == "new" else self._bail(offer)
            self.hold = await self._secure(price, expires, deal, bail)
        order = Order(
            agreement=deal,
            signature=sign_agreement(agreement, desk.signer),
            hold=None if self.hold is None else self.hold.id,
            input=seal_goods(self.seller, request.plain, sender=desk.signer.did),
            deadline=deadline,
            depth=request.want.depth,
            parent=request.want.parent,
        )
        try:
            await self.say(self._binding(offer, order), reply_by=expires)  # 3
        except RahbaError:
            await release([self], "hold_unused")
            raise
        request.tell("ordered", thread=self.talk.thread, agreement=deal, price=str(price))
        return agreement

    def _bail(self, offer: Offer) -> Bail | None:
        """Return what the seller put up; a posted price has nothing."""
        if parse_fals(offer.penalty) == 0:
            return None
        signature = self.talk.pledge or ""
        if len(signature) != SIGNATURE_CHARS:
            raise self._worthless("no_pledge")
        return Bail(amount=offer.penalty, until=offer.valid_until, signature=signature)

    def _worthless(self, code: str) -> SellerFailedError:
        return SellerFailedError(
            f"the seller's pledge is worth nothing: {code}",
            seller=self.seller,
            seller_code=code,
            thread=self.talk.thread,
        )

    async def _secure(self, price: int, expires: int, deal: str, bail: Bail | None) -> Hold:
        desk, request = self.desk, self.request
        hold = Hold(None, price, expires)
        try:
            async with asyncio.timeout((request.deadline - desk.clock.now_ms()) / 1_000):
                answer = await desk.wallet.hold(
                    self.seller, price, expires, deal, bail=bail, recourse=desk.watch.recourse
                )
        except (TimeoutError, PaymentUnknownError) as error:
            request.holds.append(hold)
            desk.watch.look_back(until_ms=expires)
            raise DeadlineError("the ledger did not answer in time", agreement=deal) from error
        except (BadPledgeError, PledgeUsedError, PledgeUnbackedError) as error:
            raise self._worthless(error.code) from error
        hold.id = answer.id
        request.holds.append(hold)
        desk.watch.watch(answer.id, deal)
        request.tell("held", thread=self.talk.thread, hold=answer.id, amount=str(price))
        return hold

    def _binding(self, offer: Offer, order: Order) -> Body:
        if self.talk.phase == "agreed":
            return Job(order)
        opening = self.opening() if self.talk.phase == "new" else None
        posted = offer if opening is not None else None
        return Accept(offer.digest(), order.signature, order, opening, posted)

    async def delivery(self, *, deadline: int) -> None:
        """Wait until the seller has delivered.

        Raises:
            SellerFailedError: it says that it failed, or left.
            DeadlineError: nothing came by ``deadline``; the thread is expired.
        """
        while self.talk.phase not in OVER:
            if not await self.hear(until=deadline) and await self._expire():
                raise DeadlineError(
                    "the seller did not deliver in time",
                    seller=self.seller,
                    thread=self.talk.thread,
                )
        if self.talk.phase != "delivered":
            kind = ArgumentsRefusedError if self.talk.code == "bad_arguments" else SellerFailedError
            raise kind(
                f"the seller failed: {self.talk.code}",
                seller=self.seller,
                seller_code=self.talk.code,
                thread=self.talk.thread,
            )

    async def _expire(self) -> bool:
        """Close the thread for good; false if the seller came first."""
        for _ in range(_CLOSING_TRIES):
            with contextlib.suppress(RahbaError):
                ruling = await self.desk.threads.close(self.talk.thread, "expired")
                if ruling.ok:
                    return True
                if ruling.verdict == "CLOSED" and await self.catch_up():
                    return False
            await asyncio.sleep(_CLOSING_PAUSE_S)
        return True

    # Inside.

    def _note(self, message: Message, raw: bytes) -> bool:
        if message.id in self._heard:
            return False
        self._heard.add(message.id)
        try:
            self.line.heard(message, raw)
        except OutOfPlaceError as error:
            _log.info("skipped a %s: %s", message.type, error)
            return False
        return True

    async def insist(
        self, body: Body, raw: bytes, *, reply_by: int, failure: RahbaError | None = None
    ) -> Ruling:
        """Post until there is an answer; ``failure`` is why there was none before."""
        # Only a deal for which money is held is worth waiting for a seller that does not read.
        unread = () if isinstance(body, Accept | Job) else UNREAD
        until = min(reply_by, self.request.deadline)
        failures = 0
        while True:
            if failure is None:
                try:
                    return await self.desk.threads.post(raw)
                except RahbaError as error:
                    failure = error
            pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            late = self.desk.clock.now_ms() + pause_s * 1_000 > until
            if not failure.retryable or isinstance(failure, unread) or late:
                raise failure
            failures += 1
            failure = None
            await asyncio.sleep(pause_s)


async def say_all(
    parleys: Sequence[Parley], bodies: Sequence[Body], *, reply_by: int
) -> list[Parley]:
    """Post a message in each thread, all at once; returns those in whose threads it stands."""
    if not parleys:
        return []
    raws = await parleys[0].desk.pen.seal_all(
        [
            parley.line.next(body, reply_by=reply_by)
            for parley, body in zip(parleys, bodies, strict=True)
        ]
    )
    outcomes = await parleys[0].desk.threads.post_all(raws)
    well = []
    for parley, body, raw, outcome in zip(parleys, bodies, raws, outcomes, strict=True):
        try:
            ruling = (
                await parley.insist(body, raw, reply_by=reply_by, failure=outcome)
                if isinstance(outcome, RahbaError)
                else outcome
            )
            parley.note(body, raw, ruling)
        except RahbaError as error:
            _log.info("%s is out: %s", parley.seller, error)
        else:
            well.append(parley)
    return well


async def release(parleys: Sequence[Parley], reason: str) -> None:
    """Be done with sellers that were not chosen, all at once; never raises.

    Who bargains is told so. Who answered a sealed tender finds its thread closed.
    """
    farewells = [(parley, parley.farewell(reason)) for parley in parleys]
    told = [(parley, body) for parley, body in farewells if body is not None]
    sealed = [parley for parley, body in told if parley.is_sealed and isinstance(body, Reject)]
    if sealed:
        with contextlib.suppress(RahbaError):
            await sealed[0].desk.threads.release([each.talk.thread for each in sealed], reason)
            for each in sealed:
                each.released = True
        told = [(parley, body) for parley, body in told if parley not in sealed]
    if told:
        reply_by = told[0][0].desk.clock.now_ms() + HOLD_GRACE_MS
        losers, bodies = [parley for parley, _ in told], [body for _, body in told]
        with contextlib.suppress(RahbaError):
            _ = await say_all(losers, bodies, reply_by=reply_by)
