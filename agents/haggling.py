"""The buyer's side of a tender and of bargains: from silent threads to firm offers.

* Tender: everybody is asked at once; nothing is opened before the window closes or everybody has
  answered.
* Bargain: with one seller or several, in step. All answers of a round are in (or their turn is
  over) before the first is looked at; each thread is told only the price at which it would equal
  the best firm quote elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from agents.attendance import all_arrived
from agents.negotiation.machine import (
    BuyerPolicy,
    Commit,
    Moment,
    Say,
    acceptable,
    buyer_move,
)
from agents.negotiation.score import Yardstick
from agents.parley import Parley, Request, say_all
from agents.strategies import make_strategy
from rahba.encoding import sha256_hex
from rahba.messages import Cfp, Counter, Mode, Offer


@dataclass(frozen=True, slots=True)
class Standing:
    """A firm offer that this buyer may take."""

    parley: Parley
    offer: Offer


async def tender(parleys: list[Parley], request: Request) -> list[Standing]:
    """Ask everybody for one sealed quote; return what can be taken, in no meaningful order."""
    closes = min(_now(parleys) + request.want.window_ms, request.deadline)
    cfp = _call(request, "tender", rounds=1)
    asked = await say_all(parleys, [cfp] * len(parleys), reply_by=closes)
    left_s = (closes - _now(parleys)) / 1_000
    await all_arrived([parley.attendance for parley in asked], left_s)
    unheard = [parley for parley in asked if not parley.hear_at_once()]
    await asyncio.gather(*(parley.catch_up() for parley in unheard))
    return _standing(asked, request)


async def bargain(parleys: list[Parley], request: Request, yardstick: Yardstick) -> list[Standing]:
    """Bargain with everybody in step; return what can be taken."""
    cfp = _call(request, "bargain", rounds=request.want.rounds)
    turn_ms = request.want.turn_ms
    until = min(_now(parleys) + turn_ms, request.deadline)
    active = await say_all(parleys, [cfp] * len(parleys), reply_by=until)
    while active:
        heard = await asyncio.gather(*(parley.hear(until=until) for parley in active))
        active = [parley for parley, news in zip(active, heard, strict=True) if news]
        active = [parley for parley in active if parley.talk.phase == "quoted"]
        until = min(_now(parleys) + turn_ms, request.deadline)
        moves = [(parley, _move(parley, parleys, request, yardstick)) for parley in active]
        speakers = [(parley, move) for parley, move in moves if isinstance(move, Say)]
        for parley, move in speakers:
            if isinstance(move.body, Counter):
                _tell_offer(parley, "buyer", move.body.offer)
        said = await say_all(
            [parley for parley, _ in speakers],
            [move.body for _, move in speakers],
            reply_by=until,
        )
        active = [parley for parley in said if parley.talk.phase == "countered"]
    return _standing(parleys, request)


def _move(
    parley: Parley, parleys: list[Parley], request: Request, yardstick: Yardstick
) -> Say | Commit | None:
    desk = parley.desk
    elsewhere = _elsewhere(parley, parleys, request, yardstick)
    chosen = request.want.strategy
    if isinstance(chosen, str):
        chosen = make_strategy(chosen, seed=_seed(parley, request))
    policy = BuyerPolicy(
        mandate=request.mandate,
        strategy=chosen,
        offer_ttl_ms=max(request.deadline - desk.clock.now_ms(), 1),
        elsewhere_fals=elsewhere,
        menu=parley.menu,
        yardstick=yardstick,
        prices=request.prices,
    )
    _tell_offer(parley, "seller", parley.talk.asks[-1])
    move = buyer_move(parley.talk, policy, Moment(desk.clock.now_ms(), desk.ids.new()))
    return move if isinstance(move, Say | Commit) else None


def _elsewhere(
    parley: Parley, parleys: Iterable[Parley], request: Request, yardstick: Yardstick
) -> int | None:
    """Return the price at which ``parley`` would only equal the best firm quote of the others."""
    quotes = [
        yardstick.score(other.talk.asks[-1].issues)
        for other in parleys
        if other is not parley and _takeable(other, request) is not None and other.talk.asks
    ]
    if not quotes:
        return None
    return yardstick.price_matching(max(quotes), parley.talk.asks[-1].issues)


def _standing(parleys: Iterable[Parley], request: Request) -> list[Standing]:
    found = []
    for parley in parleys:
        offer = _takeable(parley, request)
        if offer is not None:
            found.append(Standing(parley, offer))
    return found


def _takeable(parley: Parley, request: Request) -> Offer | None:
    talk = parley.talk
    if talk.phase == "agreed":
        return talk.agreed
    if talk.phase != "quoted":
        return None
    offer, now_ms = talk.asks[-1], parley.desk.clock.now_ms()
    return offer if acceptable(talk, offer, request.mandate, now_ms=now_ms) is None else None


def _call(request: Request, mode: Mode, *, rounds: int) -> Cfp:
    return Cfp(
        group=request.group,
        skill=request.skill,
        mode=mode,
        input_digest=request.input_digest,
        input_bytes=len(request.plain),
        deadline=request.deadline,
        rounds=rounds,
        needs=request.mandate.needs,
    )


def _tell_offer(parley: Parley, side: str, offer: Offer) -> None:
    parley.request.tell(
        "offer",
        thread=parley.talk.thread,
        seller=parley.seller,
        side=side,
        price=offer.issues.price,
        round=parley.talk.rounds,
    )


def _now(parleys: list[Parley]) -> int:
    return parleys[0].desk.clock.now_ms()


def _seed(parley: Parley, request: Request) -> int:
    return int(sha256_hex(f"{request.nonce}{parley.talk.thread}".encode())[:12], 16)
