"""Calls: buying on the market for whoever holds a key, over restarts of the gateway.

What it does: records a call, lets the key's own buyer carry it out, keeps the outcome, and finds
out what became of a call whose gateway died.

Rules:

* The record is stored before anything is done. A call has one end, written once.
* A call goes on when its client hangs up; the client reads it again by its id.
* A call left behind is resolved from its threads when its owner asks: a delivered result is opened
  with the key's session (it was sealed to it) and checked as a buyer checks it; one that does not
  stand ends the call as that failure, and no result at all as ``interrupted``. Money that was held
  and not earned comes back at the expiry of its hold.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

import orjson
from msgspec import to_builtins

from agents.brains.clerk import explain
from agents.buyer import Buyer
from agents.ports import Observations
from agents.purchase import Purchase, Want
from agents.recourse import HoldWatch
from agents.routing import Routing
from api.http.auth import Principal
from api.http.call_records import DONE, CallRecord, CallRecords, CallRequest, CallState
from api.http.errors import CallInterruptedError, InProgressError, NotYoursError
from api.http.metrics import Metrics
from api.http.parts import GatewayParts
from api.http.problems import plain_problem, problem_of
from api.http.rates import Turnstile
from api.http.recovery import Recovered, paid_for, recover
from api.http.told import Told
from broker.errors import BrokerUnreachableError
from broker.ports import ThreadView
from rahba.encoding import b64
from rahba.errors import BadInputError, RahbaError
from rahba.ids import check_skill, key_of
from wallet.account import Wallet

GRACE_MS: Final = 15_000
_BEAT_S: Final = 2.0
_POLL_S: Final = 0.5
_MAX_BUYERS: Final = 256

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """A call that this process carries out."""

    record: CallRecord
    document: dict[str, object]
    events: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, kind: str, data: dict[str, object]) -> None:
        """Add an event for those who follow the call."""
        number = len(self.events) + 1
        body = orjson.dumps({"id": number, "kind": kind, "data": data}, default=str)
        self.events.append(b"id: %d\ndata: %s\n\n" % (number, body))
        self.changed.set()
        self.changed = asyncio.Event()


class Calls:
    """The calls of one gateway process."""

    def __init__(
        self, parts: GatewayParts, metrics: Metrics, observations: Observations | None = None
    ) -> None:
        """Carry calls out with ``parts``."""
        settings = parts.settings
        self._parts, self._metrics = parts, metrics
        self._observations = observations
        self._gateway = parts.ids.new()
        self._records = CallRecords(parts.wire, kept_s=settings.call_kept_s)
        self._turnstile = Turnstile(settings.max_calls_per_key)
        self._buyers: OrderedDict[str, Buyer] = OrderedDict()
        self._watches: list[HoldWatch] = []  # of buyers that had to make room
        self._looked_back: set[str] = set()
        self._running: dict[str, Running] = {}
        self._told = Told()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Tell the other gateways that this one is alive, until cancelled."""
        while True:
            try:
                await self._records.beat(self._gateway)
            except BrokerUnreachableError as error:
                _log.warning("cannot say that this gateway is alive: %s", error)
            await asyncio.sleep(_BEAT_S)

    async def close(self) -> None:
        """Let go of running calls: they stay recorded and are resolved from their threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watch in (*self._watches, *(buyer.holds for buyer in self._buyers.values())):
            watch.stop()

    async def place(
        self, principal: Principal, request: CallRequest, call_id: str, digest: str
    ) -> Running:
        """Record a call and start it.

        Raises:
            BadInputError: neither skill nor agent is named, or a field is malformed.
            TooManyCallsError: as many calls of this key are running as may.
            InProgressError: a call of this id exists already.
        """
        want = self._want(request)
        now_ms = self._parts.clock.now_ms()
        record = CallRecord(
            id=call_id,
            key=principal.hash,
            account=principal.account,
            group=want.group or "",
            gateway=self._gateway,
            skill=request.skill,
            agent=request.agent,
            mode=request.mode,
            budget=request.budget,
            deadline=want.deadline_ms or now_ms,
            request=digest,
            created=now_ms,
            state="running",
        )
        self._turnstile.enter(principal.hash)
        try:
            made = await self._records.create(record)
        except BaseException:
            self._turnstile.leave(principal.hash)
            raise
        if not made:
            self._turnstile.leave(principal.hash)
            raise InProgressError("this call was placed before", resource=call_id)
        running = Running(record, record.document(principal.box))
        self._running[call_id] = running
        task = asyncio.create_task(self._carry_out(principal, want, running, wish=request.wish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return running

    async def look(self, principal: Principal, call_id: str) -> dict[str, object]:
        """Return a call of this key as it stands, after finding out what became of it.

        Raises:
            UnknownCallError: there is none of this id.
            NotYoursError: it is another key's.
        """
        if (running := self._running.get(call_id)) is not None:
            _own(running.record, principal)
            return running.document
        record = await self._records.read(call_id)
        _own(record, principal)
        if record.state == "delivered" or (
            record.state not in DONE and not await self._records.alive(record.gateway)
        ):
            return await self._resolve(record, principal)
        return record.document(principal.box)

    async def follow(
        self, principal: Principal, call_id: str, after: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a call after number ``after``, until it ends."""
        running = self._running.get(call_id)
        while running is not None:
            changed = running.changed
            for event in running.events[after:]:
                yield event
            after = max(after, len(running.events))
            if running.ended.is_set():
                return
            await changed.wait()
        if (told := self._told.of(call_id)) is not None:
            for event in told[after:]:
                yield event
            return
        while True:  # carried out elsewhere, or long over: its state is all there is to tell
            document = await self.look(principal, call_id)
            if document["state"] in DONE:
                body = orjson.dumps({"id": after + 1, "kind": document["state"], "data": document})
                yield b"id: %d\ndata: %s\n\n" % (after + 1, body)
                return
            await asyncio.sleep(_POLL_S)

    def _want(self, request: CallRequest) -> Want:
        settings, now_ms = self._parts.settings, self._parts.clock.now_ms()
        if request.skill is None and request.agent is None:
            raise BadInputError("name a skill, an agent, or both")
        if request.skill is not None:
            check_skill(request.skill)
        if request.agent is not None:
            key_of(request.agent)
        lasts_ms = request.deadline_ms or settings.default_deadline_ms
        if lasts_ms > settings.max_deadline_ms:
            raise BadInputError("the deadline is too far", limit_ms=settings.max_deadline_ms)
        return Want(
            skill=request.skill,
            agent=request.agent,
            args=request.input,
            budget_fals=request.budget_fals,
            mode=request.mode,
            route=request.route,
            deadline_ms=now_ms + lasts_ms,
            group=self._parts.ids.new(),
            rounds=request.rounds,
            weights=request.weights,
            min_penalty=request.min_penalty,
            privacy=request.needs.privacy,
            min_quality=request.needs.min_quality,
            max_latency_ms=request.needs.max_latency_ms,
            max_energy_uwh=request.needs.max_energy_uwh,
        )

    async def _carry_out(
        self, principal: Principal, want: Want, running: Running, *, wish: str | None
    ) -> None:
        record, box, ids = running.record, principal.box, self._parts.ids
        self._metrics.running.inc()
        state: CallState = "failed"
        try:
            running.tell("accepted", {"call": record.id, "group": record.group})
            try:
                if wish is not None:
                    draft = await self._parts.clerk.draft(wish)
                    running.tell("drafted", {"group": record.group, "terms": to_builtins(draft)})
                    want = draft.narrow(want, now_ms=self._parts.clock.now_ms())
                purchase = await self._buyer(principal).buy(want, on_event=running.tell)
                state, outcome = _state(purchase), _outcome(purchase)
            except RahbaError as error:
                outcome = {"problem": problem_of(error).document(call=record.id)}
            except Exception:  # noqa: BLE001  # the supervised boundary: a defect ends this call alone
                _log.exception("call %s broke", record.id)
                outcome = {"problem": plain_problem("internal").document(call=record.id)}
            ended = record.ended(state, outcome, self._parts.clock.now_ms(), box, ids)
            await self._end(running, ended, ended.document(box))
        finally:
            self._metrics.running.dec()
            self._turnstile.leave(principal.hash)
            self._running.pop(record.id, None)

    async def _end(self, running: Running, ended: CallRecord, document: dict[str, object]) -> None:
        while True:
            try:
                await self._records.write(ended)
                break
            except BrokerUnreachableError as error:
                _log.warning("the end of call %s cannot be stored yet: %s", ended.id, error)
                await asyncio.sleep(_POLL_S)
        running.record, running.document = ended, document
        running.ended.set()
        running.tell(ended.state, document)
        self._told.keep(ended.id, running.events)
        self._metrics.calls.labels(ended.state).inc()

    def _buyer(self, principal: Principal) -> Buyer:
        buyer = self._buyers.get(principal.hash)
        if buyer is None:
            parts = self._parts
            wallet = Wallet(
                parts.ledger,
                principal.signer,
                account=principal.account,
                clock=parts.clock,
                ids=parts.ids,
            )
            buyer = Buyer(
                principal.signer,
                wallet,
                parts.broker,
                parts.courier,
                clock=parts.clock,
                ids=parts.ids,
                observations=self._observations,
            )
            if principal.account not in self._looked_back:
                self._looked_back.add(principal.account)
                buyer.holds.look_back()  # what the gateway before this one held, and did not get
            self._buyers[principal.hash] = buyer
            if len(self._buyers) > _MAX_BUYERS:
                _, gone = self._buyers.popitem(last=False)
                self._watches = [each for each in (*self._watches, gone.holds) if each.busy]
        self._buyers.move_to_end(principal.hash)
        return buyer

    async def _resolve(self, record: CallRecord, principal: Principal) -> dict[str, object]:
        """Find out from its threads what became of a call that its gateway left behind."""
        _ = self._buyer(principal)  # looks after the money that was held for it
        threads = await self._parts.broker.threads.group(record.group)
        now_ms = self._parts.clock.now_ms()
        broken: RahbaError | None = None
        for view in threads:
            if view.state in {"delivered", "settled"}:
                try:
                    found = recover(view, record.group, principal.signer)
                except RahbaError as error:
                    broken = broken or error
                    continue
                return await self._recovered(record, principal, view, found)
        if record.state == "delivered":  # what was given stays given
            return record.document(principal.box)
        if any(view.state == "held" for view in threads) and now_ms < record.deadline + GRACE_MS:
            return record.document(principal.box)
        for view in threads:
            if view.state in {"open", "agreed", "held"}:
                await self._parts.broker.threads.close(view.id, "expired")
        cause = broken or CallInterruptedError("the gateway stopped while this call was running")
        outcome: dict[str, object] = {"problem": problem_of(cause).document(call=record.id)}
        return await self._settle(record, principal, "failed", outcome)

    async def _recovered(
        self, record: CallRecord, principal: Principal, view: ThreadView, found: Recovered
    ) -> dict[str, object]:
        """Note a delivery that stands; it is settled once the ledger shows the price paid."""
        paid = await paid_for(self._parts.ledger, view, found)
        over = self._parts.clock.now_ms() >= record.deadline + GRACE_MS
        known = paid.hold is None or paid.tx is not None or over  # the capture is noted after it
        settled = paid.fals == found.price_fals and known
        if record.state == "delivered" and not settled:
            return record.document(principal.box)
        state: CallState = "settled" if settled else "delivered"
        return await self._settle(record, principal, state, found.outcome(paid))

    async def _settle(
        self,
        record: CallRecord,
        principal: Principal,
        state: CallState,
        outcome: dict[str, object],
    ) -> dict[str, object]:
        at_ms = self._parts.clock.now_ms()
        ended = record.ended(state, outcome, at_ms, principal.box, self._parts.ids)
        if not await self._records.write(ended):
            ended = await self._records.read(record.id)
        elif ended.state in DONE:
            self._metrics.calls.labels(ended.state).inc()
        return ended.document(principal.box)


def _own(record: CallRecord, principal: Principal) -> None:
    if record.key != principal.hash:
        raise NotYoursError("this call was made with another key")


def _state(purchase: Purchase) -> CallState:
    return "settled" if purchase.paid_fals == purchase.agreed_fals else "delivered"


def _fals(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _routing(routing: Routing) -> dict[str, object]:
    return {
        "how": routing.how,
        "cheapest": routing.cheapest,
        "order": [
            {"seller": each.seller, "price_fals": str(each.price_fals), "reason": each.reason}
            for each in routing.order
        ],
    }


def _outcome(purchase: Purchase) -> dict[str, object]:
    return {
        "skill": purchase.skill,
        "mode": purchase.mode,
        "rounds": purchase.rounds,
        "seller": purchase.seller,
        "thread": purchase.thread,
        "agreement": purchase.agreement,
        "asked_fals": str(purchase.asked_fals),
        "agreed_fals": str(purchase.agreed_fals),
        "paid_fals": str(purchase.paid_fals),
        **({} if purchase.routing is None else {"routing": _routing(purchase.routing)}),
        "hold": purchase.hold,
        "capture_tx": purchase.capture_tx,
        "receipt": b64(purchase.receipt),
        "receipt_verified": purchase.receipt_verified,
        "deal": b64(purchase.deal),
        "best_rejected_fals": _fals(purchase.best_rejected_fals),
        "advantage_fals": _fals(purchase.advantage_fals),
        "explanation": explain(purchase),
        "output": purchase.output,
    }
