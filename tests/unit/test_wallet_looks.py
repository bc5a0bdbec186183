"""Looks at holds that travel together: who waits for whom, and what each is shown."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from rahba.errors import RahbaError
from wallet.ports import HoldView
from wallet.transports.convoy import MOST_AWAY, SLOW_S
from wallet.transports.looks import MAX_TOGETHER, Looks


class ClosedError(RahbaError):
    code = "closed"


def view(hold_id: str, captured: int = 0) -> HoldView:
    return HoldView(hold_id, "payer", "payee", 10, captured, 5, "deal", "open")


@dataclass
class Ledger:
    """Answers when it is told to; ``captured`` is what it reads when it answers."""

    captured: int = 0
    asked: list[list[str]] = field(default_factory=list)
    doors: list[asyncio.Event] = field(default_factory=list)
    error: RahbaError | None = None

    async def ask(self, ids: list[str]) -> list[HoldView | None]:
        door = asyncio.Event()
        self.asked.append(ids)
        self.doors.append(door)
        captured = self.captured
        await door.wait()
        if self.error is not None:
            raise self.error
        return [None if one == "none" else view(one, captured) for one in ids]


def looks_at(ledger: Ledger) -> Looks:
    return Looks(ledger.ask, lambda: ClosedError("closed"))


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_look_that_is_alone_leaves_at_once() -> None:
    ledger = Ledger()
    look = asyncio.create_task(looks_at(ledger).look("a"))
    await some_turns()
    assert ledger.asked == [["a"]]
    ledger.doors[0].set()
    assert await look == view("a")


async def test_looks_of_one_moment_are_one_request_and_each_id_is_asked_for_once() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    all_of_them = asyncio.gather(*(looks.look(one) for one in ("a", "none", "b", "a")))
    await some_turns()
    assert ledger.asked == [["a", "none", "b"]]
    ledger.doors[0].set()
    assert await all_of_them == [view("a"), None, view("b"), view("a")]


async def test_what_is_asked_for_while_a_request_is_away_is_read_after_it_was_asked_for() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    early = asyncio.create_task(looks.look("a"))
    await some_turns()
    ledger.captured = 7
    late = asyncio.gather(looks.look("a"), looks.look("b"))
    await some_turns()
    assert ledger.asked == [["a"]]
    ledger.doors[0].set()
    assert await early == view("a")
    await some_turns()
    assert ledger.asked[1:] == [["a", "b"]]
    ledger.doors[1].set()
    assert await late == [view("a", 7), view("b", 7)]


async def test_a_full_request_does_not_wait_and_few_are_away_at_a_time() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    first = asyncio.create_task(looks.look("first"))
    await some_turns()
    rest = [
        asyncio.create_task(looks.look(str(number))) for number in range(MOST_AWAY * MAX_TOGETHER)
    ]
    await some_turns()
    assert [len(ids) for ids in ledger.asked] == [1] + [MAX_TOGETHER] * (MOST_AWAY - 1)
    ledger.doors[0].set()
    await some_turns()
    assert len(ledger.asked) == MOST_AWAY + 1
    for door in ledger.doors:
        door.set()
    assert [one.id for one in await asyncio.gather(*rest) if one] == [
        str(number) for number in range(MOST_AWAY * MAX_TOGETHER)
    ]
    assert await first


async def test_nobody_waits_for_a_request_that_is_slow() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    stuck = asyncio.create_task(looks.look("stuck"))
    await some_turns()
    quick = asyncio.create_task(looks.look("quick"))
    await asyncio.sleep(3 * SLOW_S)
    assert ledger.asked == [["stuck"], ["quick"]]
    ledger.doors[1].set()
    assert await quick == view("quick")
    assert not stuck.done()
    ledger.doors[0].set()
    await stuck


async def test_whoever_gives_up_takes_nothing_from_those_who_asked_with_it() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    gone, stays = (asyncio.create_task(looks.look("a")) for _ in range(2))
    await some_turns()
    gone.cancel()
    ledger.doors[0].set()
    assert await stays == view("a")
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_an_error_is_told_to_all_who_asked_together_and_to_nobody_else() -> None:
    ledger = Ledger(error=RahbaError("no"))
    looks = looks_at(ledger)
    failed = asyncio.gather(looks.look("a"), looks.look("b"), return_exceptions=True)
    await some_turns()
    ledger.doors[0].set()
    assert [str(error) for error in await failed] == ["no", "no"]
    ledger.error = None
    later = asyncio.create_task(looks.look("c"))
    await some_turns()
    ledger.doors[1].set()
    assert await later == view("c")


async def test_a_defect_leaves_nobody_waiting() -> None:
    async def broken(ids: list[str]) -> list[HoldView | None]:
        raise ZeroDivisionError

    looks = Looks(broken, lambda: ClosedError("closed"))
    raised: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
    with pytest.raises(ClosedError):
        await looks.look("a")


async def test_closing_tells_everybody_who_waits_or_asks_later() -> None:
    ledger = Ledger()
    looks = looks_at(ledger)
    away = asyncio.create_task(looks.look("away"))
    await some_turns()
    waiting = asyncio.create_task(looks.look("waiting"))
    await some_turns()
    await looks.close()
    for look in (away, waiting, looks.look("later")):
        with pytest.raises(ClosedError):
            await look
    assert ledger.asked == [["away"]]
