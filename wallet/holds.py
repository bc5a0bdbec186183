"""The life of a hold in the state: what each of its moves does to the sums, and nothing else.

Whether a move is allowed is :mod:`wallet.effects`' to judge, and :mod:`wallet.machine`'s to check;
only the machine makes one, and a snapshot that is read puts holds back.
"""

from __future__ import annotations

import heapq

from rahba.encoding import MAX_INT
from wallet.errors import InvariantError
from wallet.state import REMEMBER_MS, Escrow, Kept, State


def open_hold(state: State, hold: Escrow) -> None:
    """Set a hold's amount aside."""
    state.holds[hold.id] = hold
    state.open_holds += 1
    state.watch(hold.id, hold.expires)
    state.set_aside(hold.payer, hold.amount)
    if hold.bail:
        state.set_aside(hold.payee, hold.bail)
        state.pledged[hold.payee, hold.agreement] = MAX_INT


def freeze_hold(state: State, hold: Escrow, deadline: int) -> None:
    """Leave an open hold to its arbiter until ``deadline``."""
    if hold.status != "open":
        raise InvariantError("I6: only an open hold is disputed", hold=hold.id)
    hold.status, hold.deadline = "disputed", deadline
    state.watch(hold.id, deadline)


def draw_hold(state: State, hold: Escrow, taken: int, freed: int, kept: Kept | None = None) -> None:
    """Take a part of a hold and free another; with nothing left it is resolved, once.

    What is ``kept`` of what was taken may be challenged.
    """
    if hold.resolved or taken + freed > hold.rest:
        raise InvariantError("I6: a hold resolves once, to what is in it", hold=hold.id)
    state.set_aside(hold.payer, -taken - freed)
    state.dirty.add(hold.id)
    done = taken + freed == hold.rest
    hold.captured += taken
    if done:
        hold.status = "captured" if hold.captured else "released"
        state.open_holds -= 1
        if hold.session is not None:
            hold.session.spent -= freed  # what came back may be spent again
        state.set_aside(hold.payee, -hold.bail)
        if kept is not None:
            hold.retained, hold.deadline, hold.receipt = kept
            state.set_aside(hold.payee, hold.retained)
            heapq.heappush(state.retained, (hold.deadline, hold.id))
        else:
            _let_go(state, hold, state.log_time)


def challenge_hold(state: State, hold: Escrow, deadline: int) -> None:
    """Leave what was captured to its payee only if it delivers before ``deadline``."""
    if not hold.resolved or not hold.retained:
        raise InvariantError("I6: only what is retained is challenged", hold=hold.id)
    hold.status, hold.deadline = "challenged", deadline
    state.open_holds += 1
    state.watch(hold.id, deadline)


def take_part(state: State, hold: Escrow, parts: int, receipt: str) -> None:
    """Note the next of ``parts`` that are delivered; the last frees what is retained."""
    hold.part, hold.parts, hold.receipt = hold.part + 1, parts, receipt
    state.dirty.add(hold.id)
    if hold.part == parts:
        hold.status = "captured"
        state.open_holds -= 1
        _let_go(state, hold, state.log_time)


def undo_capture(state: State, hold: Escrow, back: int) -> None:
    """Free what is retained, for the postings that give ``back`` of what was captured."""
    if hold.status != "challenged" or not hold.retained:
        raise InvariantError("I6: only a challenged capture is undone", hold=hold.id)
    if hold.session is not None:
        hold.session.spent -= back
    hold.status, hold.captured = "released", 0
    state.open_holds -= 1
    _let_go(state, hold, state.log_time)


def put_hold(state: State, hold: Escrow) -> None:
    """Take a hold over from a snapshot."""
    state.holds[hold.id] = hold
    over = hold.resolved and not hold.retained
    if hold.bail:
        pledge = hold.payee, hold.agreement
        until = hold.ended + REMEMBER_MS if over else MAX_INT
        state.pledged[pledge] = max(until, state.pledged.get(pledge, 0))
    if over:
        heapq.heappush(state.resolved, (hold.ended, hold.id))
        return
    state.escrowed += hold.retained
    if hold.status in {"open", "disputed"}:
        state.escrowed += hold.rest + hold.bail
    if hold.resolved:
        heapq.heappush(state.retained, (hold.deadline, hold.id))
    else:
        state.open_holds += 1
        state.deadlines.watch(hold.id, hold.due)


def forget_holds(state: State) -> list[Escrow]:
    """Let go of the holds that were resolved long ago, and return them."""
    gone = list[Escrow]()
    while state.resolved and state.resolved[0][0] + REMEMBER_MS < state.log_time:
        hold = state.holds.pop(heapq.heappop(state.resolved)[1])
        if state.pledged.get((hold.payee, hold.agreement)) == hold.ended + REMEMBER_MS:
            del state.pledged[hold.payee, hold.agreement]
        gone.append(hold)
    return gone


def free_due(state: State, log_time: int) -> None:
    """Free what nobody can challenge any more; if there is such, time moves on to then.

    A function of time alone: it does not matter which transactions are judged in between.
    """
    while state.retained and state.retained[0][0] <= log_time:
        hold = state.holds[heapq.heappop(state.retained)[1]]
        if hold.status == "captured" and hold.retained:
            state.touched.add(hold.payee)
            _let_go(state, hold, hold.deadline)
            state.advance(log_time)


def _let_go(state: State, hold: Escrow, ended: int) -> None:
    """Free what is retained: it is over for good, and remembered for a while."""
    state.set_aside(hold.payee, -hold.retained)
    hold.retained, hold.ended = 0, ended
    if hold.bail:
        state.pledged[hold.payee, hold.agreement] = ended + REMEMBER_MS
    state.dirty.add(hold.id)
    heapq.heappush(state.resolved, (hold.ended, hold.id))
