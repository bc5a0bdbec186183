"""The seller's side of every thread of one agent: quote, bargain, check, work, deliver, collect.

Nothing is kept in memory that matters. Each letter makes the seller do what is due *now*, by the
thread as the broker has it, or as its letters tell (:mod:`agents.cases`):

    open       answer the last message: quote, counter, accept or refuse
    held       check the order and its money, work, deliver
    delivered  collect: capture the hold, note the payment
    ended      give back a hold that is still open

So a letter that comes again does what is left to do and no more. The broker lets one result stand;
the capture of a deal is the same bytes whenever it is made (:mod:`agents.till`), and the ledger
executes those once.
Order of leaving a deal: release the money first, then say that it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Final

import msgspec

from agents.agent import Agent
from agents.attendance import Letter
from agents.cases import Case, Cases
from agents.errors import OutOfPlaceError
from agents.job import Job, Purse, Terms
from agents.negotiation import (
    Commit,
    Line,
    Moment,
    Move,
    Say,
    SellerPolicy,
    Stay,
    Talk,
    agreement_of,
    seal_goods,
    seller_move,
    sign_agreement,
)
from agents.news import News
from agents.order import MAX_DEADLINE_MS, Commission, check_hold, examine
from agents.patience import UNREAD, patiently
from agents.pen import Pen
from agents.perform import BusyError, Done, Workbench
from agents.ports import Observations, Purchaser, Till
from agents.rooms import Rooms
from agents.shelf import find_posted, seller_policy
from agents.source import Source
from agents.work import WorkDesk
from broker import Broker
from broker.ports import Ruling, ThreadView
from broker.thread import ENDED
from rahba.clock import Clock
from rahba.encoding import b64, sha256_hex, unb64
from rahba.envelope import Signer, seal
from rahba.errors import BadInputError, RahbaError
from rahba.ids import Ids
from rahba.messages import (
    RECEIPT_TYPE,
    Accept,
    Agreement,
    Body,
    Cfp,
    Counter,
    Failure,
    Quote,
    Receipt,
    Refuse,
    Result,
    Usage,
    open_message,
)
from rahba.money import parse_fals
from rahba.pledge import Pledge, sign_pledge
from wallet.errors import PaymentRefusedError
from wallet.ports import HoldView

HANDOVER_MS: Final = 150
REPLY_MS: Final = 60_000
MIN_NOTICE_MS: Final = 200
POLICY_MS: Final = 12 * 3_600 * 1_000
PROMISE_GRACE_MS: Final = 2_000

_log: Final = logging.getLogger(__name__)


class Seller:
    """Sells the offers of ``agent`` under the key of ``signer``. ``handle`` is safe to repeat."""

    def __init__(
        self,
        agent: Agent,
        signer: Signer,
        *,
        source: Source,
        broker: Broker,
        till: Till,
        clock: Clock,
        ids: Ids,
        purchaser: Purchaser | None = None,
        desk: WorkDesk | None = None,
        observations: Observations | None = None,
    ) -> None:
        """Work on a bench of the agent's capacity; heavy offers go to ``desk`` if there is one.

        ``backing_fals`` is to be told what the account can put up; with nothing, nothing is.
        ``observations`` tell what the market pays; the floor does not depend on them.
        """
        self.agent = agent
        self.signer = signer
        self.closing = False
        self.bench = Workbench(agent.capacity, agent.backlog, clock)
        self._source = source
        self._broker = broker
        self._till = till
        self._clock = clock
        self._ids = ids
        self._purchaser = purchaser
        self._desk = desk
        self.backing_fals = 0
        self._policies: dict[str, tuple[int, int, SellerPolicy]] = {}
        self._pen = Pen(signer)
        self._rooms = Rooms(self.bench, broker.threads, clock)
        self._cases = Cases(signer, clock=clock, ids=ids)
        self._jobs: dict[str, asyncio.Future[Done]] = {}
        self._observations = observations
        self._news = News(broker.feed, clock)

    async def handle(self, letter: Letter) -> None:
        """Do what is due in the letter's thread; returns when the effects are durable."""
        case = self._cases.take(letter)
        if case is not None and await self._act(case, letter):
            return
        view = await patiently(lambda: self._broker.threads.get(letter.message.thread))
        if view is not None and view.seller == self.signer.did:
            _ = await self._act(Case(view, self._line(view, letter)), letter)

    async def _act(self, case: Case, letter: Letter) -> bool:
        """Do what is due; false if the thread turned out to be another than was known."""
        view, line = case.view, case.line
        if view.state in ENDED:
            self.bench.forget(view.id)
        match view.state:
            case "open":
                return await self._negotiate(case, letter)
            case "held":
                await self._serve(view, line)
            case "delivered":
                await self._collect(view, line, await self._hold_of(view))
            case "decommitted" if letter.message.sender == view.buyer:
                await self._charge(view, line)
            case "failed" | "closed":
                await self._give_back(view)
            case "expired" | "decommitted":
                await self._give_back(view, forfeits=await self._owes(view, line.talk))
            case _:  # agreed: the order is still to come; settled: all is done
                pass
        return True

    # Bargaining.

    async def _negotiate(self, case: Case, letter: Letter) -> bool:
        line = case.line
        match await self._promised(line.talk, self._move(line.talk)):
            case Say(Quote(offer=offer) | Counter(offer=offer) as body):
                pledge = await self._pledge(agreement_of(line.talk, offer))
                answer: Body = msgspec.structs.replace(body, pledge=pledge)
            case Say(body):
                answer = body
            case Commit(offer):
                agreement = agreement_of(line.talk, offer)
                signature = sign_agreement(agreement, self.signer)
                pledge = await self._pledge(agreement)
                answer = Accept(offer=offer.digest(), signature=signature, pledge=pledge)
            case _:
                return True
        if isinstance(letter.message.body, Cfp):
            self._broker.threads.expect(letter.message)
        ruling = await self._answer(line, answer, sure=bool(case.view.transcript))
        if ruling is not None and ruling.ok:
            self._cases.keep(case)
        return ruling is None or ruling.ok

    async def _promised(self, talk: Talk, move: Move) -> Move:
        """Keep room for what a move would bind us to; without room it is a refusal."""
        if talk.cfp is None:
            return move
        match move:
            case Say(Quote(offer=offer) | Counter(offer=offer)):
                until_ms = min(offer.valid_until, talk.cfp.deadline)
            case Commit():
                until_ms = talk.cfp.deadline
            case _:
                return move
        until_ms += PROMISE_GRACE_MS
        if await self._rooms.promise(talk.thread, talk.buyer, until_ms=until_ms):
            return move
        return Say(Refuse("busy"))

    async def _answer(self, line: Line, body: Body, *, sure: bool) -> Ruling | None:
        """Say it, unless the buyer does not read its mail; only what stands keeps its room."""
        stands, ruling = bool(line.talk.asks), None
        try:
            ruling = await self._post(line, body)
        except UNREAD as error:
            _log.info("left a buyer alone who does not read: %s", error)
        else:
            goes_on = ruling.state in {"open", "agreed", "held"}
            stands = goes_on and (stands or ruling.ok or not sure)  # else another look will tell
        if not stands:
            self.bench.forget(line.talk.thread)
        return ruling

    async def _pledge(self, agreement: Agreement) -> str | None:
        """Put up the penalty of an offer of ours, should it be taken."""
        offer = agreement.offer
        if parse_fals(offer.penalty) == 0:
            return None
        pledge = Pledge(
            agreement=agreement.digest(),
            amount=offer.penalty,
            buyer=agreement.buyer,
            chain=await patiently(self._till.chain),
            seller=self.signer.did,
            until=offer.valid_until,
        )
        return sign_pledge(pledge, self.signer)

    def _move(self, talk: Talk) -> Move:
        if talk.cfp is None or talk.phase not in {"asked", "countered"}:
            return Stay()
        objection = self._objection(talk)
        if objection is not None:
            return Say(Refuse(objection))
        moment = Moment(self._clock.now_ms(), self._ids.new())
        try:
            return seller_move(talk, self._policy(talk.cfp.skill, moment.now_ms), moment)
        except RahbaError as error:
            return Say(Refuse(error.code, error.message[:500]))

    def _objection(self, talk: Talk) -> str | None:
        """Return why no offer is made at all, or ``None``."""
        assert talk.cfp is not None
        spec = self.agent.offers.get(talk.cfp.skill)
        ahead_ms = talk.cfp.deadline - self._clock.now_ms()
        if spec is None:
            return "unknown_skill"
        if talk.cfp.input_bytes > spec.max_input_bytes:
            return "too_large"
        if not MIN_NOTICE_MS < ahead_ms <= MAX_DEADLINE_MS:
            return "bad_deadline"
        return "busy" if self.closing else None

    def _policy(self, skill: str, now_ms: int) -> SellerPolicy:
        backing = self.backing_fals
        made_ms, backed, policy = self._policies.get(skill, (0, 0, None))
        if policy is None or now_ms > made_ms + POLICY_MS or backed != backing:
            policy = seller_policy(
                self.agent,
                self.agent.offers[skill],
                self.signer.did,
                now_ms=now_ms,
                salt=self._ids.new(),
                backing_fals=backing,
            )
            made_ms = now_ms
            self._policies[skill] = made_ms, backing, policy
        prices = None if self._observations is None else self._observations.prices(skill)
        if prices is not policy.prices:
            policy = replace(policy, prices=prices)
            self._policies[skill] = made_ms, backing, policy
        return policy

    # Working.

    async def _serve(self, view: ThreadView, line: Line) -> None:
        try:
            commission = examine(line.talk, self.agent, self.signer, now_ms=self._clock.now_ms())
            hold_id = commission.order.hold
            hold = None if hold_id is None else await self._look(hold_id)
            hold = check_hold(commission, hold, now_ms=self._clock.now_ms())
        except RahbaError as error:
            if error.retryable:
                raise  # broker or ledger out of reach: the letter comes again
            await self._fail(view, line, error, our_fault=False)
            return
        try:
            done = await self._unless_left(view.id, self._work(commission, view))
        except RahbaError as error:
            if error.retryable and not isinstance(error, BusyError):
                raise
            await self._fail(view, line, error, our_fault=not isinstance(error, BadInputError))
            return
        if done is None:
            return
        ruling = await self._post(line, self._result(commission, done))
        if ruling.ok:
            await self._collect(view, line, hold)
        elif ruling.state != "decommitted":  # else the word of whoever left is on its way
            _log.info("the result of %s came too late: %s", view.id, ruling.verdict)
            await self._abandon(view, line.talk)

    async def _unless_left(self, thread: str, work: Coroutine[None, None, Done]) -> Done | None:
        """Do the work; ``None`` if the buyer leaves meanwhile, as nobody wants it any more."""
        job = self._jobs[thread] = asyncio.ensure_future(work)
        try:
            return await job
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                job.cancel()
                raise
            return None
        finally:
            del self._jobs[thread]

    async def _work(self, commission: Commission, view: ThreadView) -> Done:
        spec, order = commission.spec, commission.order
        terms = Terms(
            agreement=commission.digest,
            skill=spec.skill,
            buyer=commission.agreement.buyer,
            deadline=order.deadline - HANDOVER_MS,
            depth=order.depth,
            price_fals=commission.price_fals,
            issues=commission.agreement.offer.issues,
        )
        budget = commission.price_fals if spec.budget_fals is None else spec.budget_fals
        job = Job(
            terms,
            clock=self._clock,
            purse=Purse(budget),
            purchaser=self._purchaser,
            on_progress=self._news.tell,
        )
        # A posted price is a promise to nobody: who finds the agent full gets its money back.
        promise = None if view.facts.get("mode") == "posted" else view.id
        desk = self._desk
        if spec.runs == "worker" and desk is not None:
            return await self.bench.watch(
                lambda: desk.do(self._source, self.agent, commission.args, job),
                job,
                promise=promise,
            )
        return await self.bench.do(spec, commission.args, job, promise=promise)

    def _result(self, commission: Commission, done: Done) -> Result:
        agreement = commission.agreement
        receipt = Receipt(
            agreement=commission.digest,
            skill=commission.spec.skill,
            buyer=agreement.buyer,
            seller=agreement.seller,
            input_digest=agreement.input_digest,
            output_digest=sha256_hex(done.output),
            price=agreement.offer.issues.price,
            usage=Usage(
                wall_ms=done.usage.wall_ms,
                cpu_ms=done.usage.cpu_ms,
                bytes_in=commission.bytes_in,
                bytes_out=len(done.output),
            ),
            energy=commission.spec.energy,
            finished=self._clock.now_ms(),
        )
        return Result(
            agreement=commission.digest,
            signature=sign_agreement(agreement, self.signer),
            output=seal_goods(agreement.buyer, done.output, sender=self.signer.did),
            receipt=b64(seal(RECEIPT_TYPE, receipt, self.signer)),
        )

    # Money.

    async def _collect(self, view: ThreadView, line: Line, hold: HoldView | None) -> None:
        """Capture the price of a delivered job and note it; from transcript and hold alone.

        There is time to do so until the hold expires, and not less: the ledger may be away.
        """
        result, agreed, order = line.talk.result, line.talk.agreed, line.talk.order
        if result is None or agreed is None or order is None:
            raise OutOfPlaceError("nothing was delivered in this thread")
        price, tx = agreed.issues.price_fals, ""
        if price > 0 and hold is not None:
            try:
                tx = await self._till.capture(
                    hold.id,
                    price,
                    sha256_hex(unb64(result.receipt)),
                    until_ms=hold.expires_ms,
                )
            except PaymentRefusedError as error:
                _log.warning("delivered but not paid in %s: %s", view.id, error)
                _ = await patiently(lambda: self._broker.threads.close(view.id, "failed"))
                return
        _ = await patiently(lambda: self._broker.threads.settle(view.id, paid=price, tx=tx))

    async def _charge(self, view: ThreadView, line: Line) -> None:
        """The buyer left a deal: take the penalty that it agreed to, give the rest back."""
        job = self._jobs.get(view.id)
        if job is not None:
            job.cancel()
        hold, agreed = await self._hold_of(view), line.talk.agreed
        penalty = 0 if agreed is None else parse_fals(agreed.penalty)
        if hold is None or not self._is_ours(hold, view) or not penalty:
            await self._give_back(view)
            return
        receipt = sha256_hex(view.transcript[-1])
        with contextlib.suppress(PaymentRefusedError):
            _ = await self._till.capture(hold.id, penalty, receipt, until_ms=hold.expires_ms)

    async def _fail(
        self, view: ThreadView, line: Line, error: RahbaError, *, our_fault: bool
    ) -> None:
        self.bench.forget(view.id)
        await self._give_back(view, forfeits=our_fault and await self._owes(view, line.talk))
        failure = Failure(
            agreement=view.facts.get("agreement", ""),
            code=error.code[:64],
            text=error.message[:500],
            retryable=error.retryable,
        )
        ruling = await self._post(line, failure)
        if not ruling.ok:
            _ = await patiently(lambda: self._broker.threads.close(view.id, "failed"))

    async def _abandon(self, view: ThreadView, talk: Talk) -> None:
        await self._give_back(view, forfeits=await self._owes(view, talk))
        _ = await patiently(lambda: self._broker.threads.close(view.id, "failed"))

    async def _owes(self, view: ThreadView, talk: Talk) -> bool:
        """Say whether we had the time that we asked for, by the broker's clock."""
        if talk.order is None or talk.agreed is None:
            return False
        known = await patiently(lambda: self._broker.threads.get(view.id))
        agreed_ms = int((known or view).facts.get("agreed_ms") or 0)
        return talk.order.deadline - agreed_ms >= talk.agreed.issues.latency_ms

    async def _look(self, hold_id: str) -> HoldView | None:
        return await patiently(lambda: self._till.look(hold_id))

    async def _hold_of(self, view: ThreadView) -> HoldView | None:
        hold_id = view.facts.get("hold")
        return await self._look(hold_id) if hold_id else None

    async def _give_back(self, view: ThreadView, *, forfeits: bool = False) -> None:
        """Release this deal's hold, if it is; whoever breaks its word ``forfeits`` its bail."""
        hold = await self._hold_of(view)
        if hold is not None and self._is_ours(hold, view):
            await self._till.release(hold, forfeit=hold.bail if forfeits else 0)

    def _is_ours(self, hold: HoldView, view: ThreadView) -> bool:
        mine = hold.payee == self.signer.did and hold.agreement == view.facts.get("agreement")
        return mine and hold.status == "open"

    # Speaking.

    def _line(self, view: ThreadView, letter: Letter) -> Line:
        posted = None
        if view.facts.get("mode") == "posted":
            first = letter.message
            if first.seq != 1 or first.sender != view.buyer:
                first = open_message(view.transcript[0], me=None, now_ms=0)
            if isinstance(first.body, Accept):
                posted = find_posted(self.agent, self.signer.did, first.body.offer, at_ms=first.ts)
        return Line.resume(
            Talk(thread=view.id, buyer=view.buyer, seller=view.seller),
            view.transcript,
            self.signer,
            clock=self._clock,
            ids=self._ids,
            posted=posted,
        )

    async def _post(self, line: Line, body: Body) -> Ruling:
        raw = await self._pen.seal(line.next(body, reply_by=self._clock.now_ms() + REPLY_MS))
        ruling = await patiently(lambda: self._broker.threads.post(raw))
        if ruling.ok:
            line.said(body, raw)
        return ruling
