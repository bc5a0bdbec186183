"""Buys a skill: finds sellers, negotiates, secures the money, takes delivery.

* All three ways end in firm offers, ranked by one score; the best is taken at its own price, and
  the next one if its seller fails or is late, at the original cap.
* The mandate is signed before anybody is heard; no free text of a seller is ever read.
* A tender stays sealed: nothing is opened before its window closes or everybody has answered.
  Bargains with several sellers go in step, so that no answer gains by being first.
* Each seller is held to its own promise of latency while another one is left to try.
* No failure costs more than time: a hold is captured by a seller, released by it, or released by
  the ledger at its expiry. Errors say which: ``facts["at_risk_fals"]`` and the rest. What a seller
  captures and did not deliver is challenged, and comes back (:mod:`agents.recourse`).

    buyer = Buyer(signer, wallet, broker, courier, clock=clock, ids=ids)
    purchase = await buyer.buy(Want(skill="text.summarise", args={...}, budget_fals=2_000_000))
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Final, Protocol

from agents.courier import Courier
from agents.delivery import take_delivery
from agents.errors import (
    BadResultError,
    DeadlineError,
    NoDealError,
    NoSellerError,
    SellerFailedError,
    ThreadRefusedError,
    UnknownAgentError,
)
from agents.haggling import Standing, bargain, tender
from agents.negotiation.goods import pack_input
from agents.negotiation.machine import acceptable
from agents.negotiation.mandate import Mandate, sign_mandate
from agents.negotiation.score import NO_LATENCY_LIMIT_MS, Yardstick, best_first
from agents.parley import Desk, Hold, Parley, Request, release
from agents.pen import Pen
from agents.ports import Observations, Payer
from agents.purchase import Purchase, Want, Watcher
from agents.recourse import USUAL, HoldWatch
from agents.routing import put_in_order
from broker.ports import Directory, Listing, Query, Threads
from rahba.clock import Clock
from rahba.encoding import sha256_hex
from rahba.envelope import Signer
from rahba.errors import BadInputError, RahbaError
from rahba.ids import Ids
from rahba.messages import Mode, open_card
from rahba.money import wire_fals
from wallet.transactions import Recourse

MAX_LISTINGS: Final = 20
MAX_ROUTED: Final = 100
RUNNERS_UP: Final = 2
PROMISE_SLACK_MS: Final = 5_000


class Market(Protocol):
    """The broker, as far as a buyer needs one."""

    @property
    def directory(self) -> Directory:
        """Return who sells what."""
        ...

    @property
    def threads(self) -> Threads:
        """Return where negotiations are ruled on."""
        ...


class Buyer:
    """Buys on behalf of one key, which may be a session of the account that pays.

    May be used by many tasks at a time.
    """

    def __init__(
        self,
        signer: Signer,
        wallet: Payer,
        broker: Market,
        courier: Courier,
        *,
        clock: Clock,
        ids: Ids,
        observations: Observations | None = None,
        recourse: Recourse = USUAL,
    ) -> None:
        """Speak as ``signer`` and pay from ``wallet``; ``courier`` must be started.

        Without ``observations`` of the market nobody has a record, and no price is usual. Captures
        may be challenged as ``recourse`` says, as long as the process lives: see :attr:`holds`.
        """
        self.holds = HoldWatch(wallet, broker.threads, clock, recourse)
        pen = Pen(signer)
        self._desk = Desk(signer, pen, wallet, broker.threads, courier, clock, ids, self.holds)
        self._directory = broker.directory
        self._observations = observations

    async def buy(self, want: Want, on_event: Watcher | None = None) -> Purchase:
        """Buy what is wanted, or raise why not.

        Raises:
            BadInputError: the wish itself is not in order.
            NoSellerError: nobody sells it. ``UnknownAgentError``: that agent does not.
            NoDealError: no terms within the mandate.
            PaymentRefusedError: the ledger does not hold the money (by its code).
            SellerFailedError, BadResultError, DeadlineError: the last seller that was tried failed.
        """
        want.check()
        if want.route is not None and want.mode is None:
            want = replace(want, mode="posted")
        listings, skill = await self._candidates(want)
        request = self._request(want, skill, on_event)
        fit = [listing for listing in listings if _qualifies(listing, request)]
        if not fit:
            raise NoDealError("every seller's price is fixed above the budget", skill=skill)
        fit = self._routed(fit, request)
        mode = want.mode or _choose_mode(fit, skill)
        try:
            return await self._trade(request, fit[: want.max_sellers], mode)
        except RahbaError as error:
            await self._account_for(error, request)
            raise

    # Who, and on what terms.

    async def _candidates(self, want: Want) -> tuple[list[Listing], str]:
        if want.agent is not None:
            listing = await self._directory.get(want.agent)
            if listing is None or want.agent in self._own():
                raise UnknownAgentError("no such agent is listed", agent=want.agent)
            return [_verified(listing)], _skill_of(listing, want.skill)
        assert want.skill is not None
        limit = MAX_LISTINGS if want.route is None else MAX_ROUTED
        page = await self._directory.find(Query(skill=want.skill, limit=limit))
        found = [
            _verified(listing)
            for listing in page.listings
            if listing.card.agent not in self._own() and listing.card.skill(want.skill) is not None
        ]
        if not found:
            raise NoSellerError(f"nobody sells {want.skill}", skill=want.skill)
        return found, want.skill

    def _own(self) -> set[str]:
        return {self._desk.signer.did, self._desk.wallet.account}

    def _request(self, want: Want, skill: str, watch: Watcher | None) -> Request:
        now, me = self._desk.clock.now_ms(), self._desk.signer
        deadline = now + want.within_ms if want.deadline_ms is None else want.deadline_ms
        if deadline <= now:
            raise DeadlineError("the deadline is over before the purchase began", deadline=deadline)
        plain = pack_input(skill, want.args)
        mandate = Mandate(
            owner=me.did,
            agent=me.did,
            side="buy",
            skill=skill,
            limit=wire_fals(want.budget_fals),
            valid_until=deadline,
            salt=self._desk.ids.new(),
            parties=None if want.parties is None else list(want.parties),
            weights=want.weights,
            min_quality=want.min_quality,
            min_penalty=want.min_penalty,
            max_latency_ms=want.max_latency_ms,
            max_energy_uwh=want.max_energy_uwh,
            privacy=want.privacy,
            rounds=want.rounds,
        )
        return Request(
            want=want,
            skill=skill,
            group=want.group or self._desk.ids.new(),
            plain=plain,
            input_digest=sha256_hex(plain),
            mandate=sign_mandate(mandate, me).mandate,
            deadline=deadline,
            nonce=self._desk.ids.new(),
            watch=watch,
            holds=[],
            prices=None if self._observations is None else self._observations.prices(skill),
        )

    def _routed(self, fit: list[Listing], request: Request) -> list[Listing]:
        """Put listings in the order of the wish's route, if it has one."""
        want = request.want
        if want.route is None:
            return fit
        ordered, request.routing = put_in_order(
            fit,
            request.skill,
            how=want.route,
            limit_fals=request.mandate.limit_fals,
            weights=want.weights,
            observations=self._observations,
            seed=int(sha256_hex(request.nonce.encode())[:12], 16),
            shown=want.max_sellers,
        )
        if (chosen := request.routing) is not None:
            first = chosen.order[0].seller
            request.tell("routed", how=want.route, seller=first, cheapest=chosen.cheapest)
        return ordered

    # From listings to a purchase.

    async def _trade(self, request: Request, fit: list[Listing], mode: Mode) -> Purchase:
        """Negotiate; once more if a card changed after it was read, within what is left."""
        try:
            return await self._negotiate(request, fit, mode)
        except ThreadRefusedError as error:
            if mode != "posted" or error.facts.get("verdict") != "OFFER_CHANGED":
                raise
            refused = error
        held = await self._at_risk(request)
        listings, _ = await self._candidates(request.want)
        fit = [each for each in listings if _qualifies(each, request, held=held)]
        if not fit:
            raise refused
        fit = self._routed(fit, request)
        return await self._negotiate(request, fit[: request.want.max_sellers], mode)

    async def _negotiate(self, request: Request, fit: list[Listing], mode: Mode) -> Purchase:
        yardstick = _yardstick(fit, request)
        with ExitStack() as attending:
            parleys = [self._parley(listing, request, attending) for listing in fit]
            request.tell("opened", skill=request.skill, mode=mode, sellers=len(parleys))
            standing = await self._offers(parleys, request, mode, yardstick)
            standing = [item for item in standing if not _gift(item)]
            ranked = _ranked(standing, request, mode, yardstick)
            first = ranked[: 1 + RUNNERS_UP]
            kept = {id(item.parley) for item in first}
            others = [parley for parley in parleys if id(parley) not in kept]
            releasing = asyncio.create_task(release(others, "not_chosen"))
            try:
                return _compared(await self._award(request, first), ranked, yardstick)
            finally:
                await releasing
                await release(parleys, "not_chosen")

    def _parley(self, listing: Listing, request: Request, attending: ExitStack) -> Parley:
        desk = self._desk
        thread = desk.ids.new()
        attendance = attending.enter_context(desk.courier.attend(desk.signer.did, thread))
        return Parley(desk, request, listing, attendance, thread)

    async def _offers(
        self, parleys: list[Parley], request: Request, mode: Mode, yardstick: Yardstick
    ) -> list[Standing]:
        match mode:
            case "tender":
                return await tender(parleys, request)
            case "bargain":
                return await bargain(parleys, request, yardstick)
            case "posted":
                now_ms = self._desk.clock.now_ms()
                return [
                    Standing(parley, offer)
                    for parley in parleys
                    if (offer := parley.entry.posted) is not None
                    and acceptable(parley.talk, offer, request.mandate, now_ms=now_ms) is None
                ]

    async def _award(self, request: Request, ranked: list[Standing]) -> Purchase:
        """Take the best offer; when its seller fails, the next, at the original cap.

        What earlier sellers hold and may still capture counts towards that cap.
        """
        failure: RahbaError = NoDealError("no offer within the mandate", skill=request.skill)
        for place, item in enumerate(ranked):
            deadline = self._order_deadline(request, item, last=place == len(ranked) - 1)
            left = request.mandate.limit_fals - await self._at_risk(request)
            if deadline is None or item.offer.issues.price_fals > left:
                continue
            request.tell(
                "chosen",
                thread=item.parley.talk.thread,
                seller=item.parley.seller,
                price=item.offer.issues.price,
            )
            try:
                agreement = await item.parley.commit(item.offer, deadline=deadline)
                await item.parley.delivery(deadline=deadline)
                bought = await take_delivery(item.parley, agreement)
                at_risk = await self._at_risk(request, but=bought.hold)
                return replace(bought, at_risk_fals=at_risk, routing=request.routing)
            except BadResultError:
                raise
            except (SellerFailedError, DeadlineError, ThreadRefusedError) as error:
                failure = error
                request.tell("failed", thread=item.parley.talk.thread, code=error.code)
        raise failure

    def _order_deadline(self, request: Request, item: Standing, *, last: bool) -> int | None:
        """Return until when this seller may work; ``None`` if time or its offer is over."""
        now = self._desk.clock.now_ms()
        left = request.deadline - now
        if left <= 0 or now > item.offer.valid_until:
            return None
        if last:
            return request.deadline
        promised = 2 * item.offer.issues.latency_ms + PROMISE_SLACK_MS
        return now + min(promised, left * 2 // 3)

    async def _account_for(self, error: RahbaError, request: Request) -> None:
        """Say on ``error`` what may still happen to money that was held on the way."""
        at_risk = 0
        for hold in request.holds:
            status, amount = await self._state_of(hold)
            at_risk += amount
            error.facts |= {
                "hold": hold.id,
                "hold_status": status,
                "hold_expires_ms": hold.expires_ms,
            }
        error.facts |= {"group": request.group, "at_risk_fals": wire_fals(at_risk)}

    async def _at_risk(self, request: Request, *, but: str | None = None) -> int:
        """Return what was or may yet be captured of the request's holds, except ``but``."""
        others = [hold for hold in request.holds if but is None or hold.id != but]
        return sum([(await self._state_of(hold))[1] for hold in others])

    async def _state_of(self, hold: Hold) -> tuple[str, int]:
        if hold.id is None:
            return "unknown", hold.amount
        try:
            shown = await self._desk.wallet.ledger.hold(hold.id)
        except RahbaError:
            return "unknown", hold.amount
        if shown is None:
            return "unknown", hold.amount
        return shown.status, hold.amount if shown.status == "open" else shown.captured


def _verified(listing: Listing) -> Listing:
    """Check the card's own signature again: the directory is not trusted with who is paid."""
    _check_card(listing.raw)
    return listing


@lru_cache(maxsize=1_024)
def _check_card(raw: bytes) -> None:
    open_card(raw, now_ms=None)


def _skill_of(listing: Listing, skill: str | None) -> str:
    skills = [entry.skill for entry in listing.card.skills]
    if skill is None:
        if len(skills) != 1:
            raise BadInputError("say which skill of the agent", skills=", ".join(skills))
        return skills[0]
    if skill not in skills:
        raise UnknownAgentError(f"the agent does not sell {skill}", skill=skill)
    return skill


def _qualifies(listing: Listing, request: Request, *, held: int = 0) -> bool:
    """Say whether a deal is thinkable within the budget, less the fals that are ``held``."""
    entry = listing.card.skill(request.skill)
    if entry is None or (request.want.mode == "posted" and entry.posted is None):
        return False
    if entry.posted is None:
        return True
    within = entry.posted.issues.price_fals <= request.mandate.limit_fals - held
    return within or (entry.negotiable and request.want.mode != "posted")


def _choose_mode(fit: list[Listing], skill: str) -> Mode:
    if len(fit) > 1:
        return "tender"
    entry = fit[0].card.skill(skill)
    assert entry is not None
    return "posted" if entry.posted is not None and not entry.negotiable else "bargain"


def _yardstick(fit: list[Listing], request: Request) -> Yardstick:
    """Measure prices against the budget, or twice the cheapest posted price if that is less.

    Latencies are measured against the slowest that is on offer: a second is much among seconds.
    """
    limit = request.mandate.limit_fals
    entries = [listing.card.skill(request.skill) for listing in fit]
    posted = [entry.posted.issues.price_fals for entry in entries if entry and entry.posted]
    scale = min([limit, *(2 * price for price in posted)])
    menus = [
        *(entry.posted.issues for entry in entries if entry and entry.posted),
        *(issues for entry in entries if entry for issues in entry.tiers),
    ]
    slowest = max((issues.latency_ms for issues in menus), default=NO_LATENCY_LIMIT_MS)
    patience_ms = min(max(slowest, 1), NO_LATENCY_LIMIT_MS)
    return Yardstick(request.want.weights, scale, patience_ms)


def _compared(bought: Purchase, ranked: list[Standing], yardstick: Yardstick) -> Purchase:
    """Say what the next best offer was, and what taking this one was worth."""
    taken = next(item.offer for item in ranked if item.parley.talk.thread == bought.thread)
    others = [item.offer for item in ranked if item.parley.talk.thread != bought.thread]
    if not others:
        return bought
    second = others[0].issues
    matching = yardstick.price_matching(yardstick.score(second), taken.issues)
    return replace(
        bought,
        best_rejected_fals=second.price_fals,
        advantage_fals=None if matching is None else matching - taken.issues.price_fals,
    )


def _ranked(
    standing: list[Standing], request: Request, mode: Mode, yardstick: Yardstick
) -> list[Standing]:
    """Return the offers, best first: by their route at posted prices, else by their score."""
    if request.routing is not None and mode == "posted":
        return standing  # in the order in which they were asked
    offers = [item.offer for item in standing]
    return [standing[i] for i in best_first(offers, yardstick, nonce=request.nonce)]


def _gift(item: Standing) -> bool:
    """Say whether something is offered for nothing that is not posted for nothing."""
    posted = item.parley.entry.posted
    free = posted is not None and posted.issues.price_fals == 0
    return item.offer.issues.price_fals == 0 and not free
