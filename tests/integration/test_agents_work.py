"""Heavy jobs between a desk and a workshop: sealed, done once, asked for again when lost."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import orjson
import pytest
import pytest_asyncio

from agents import Agent, Job
from agents.job import Terms
from agents.perform import JobDeadlineError, JobFailedError, UnknownOfferError
from agents.schema import ArgumentsError
from agents.source import Source
from agents.stores.redis import RedisMarks, RedisRecords
from agents.work import Outcome, Task, WorkDesk, WorkKey, Workshop
from broker import Broker
from broker.errors import BrokerUnreachableError
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.errors import BadInputError, BadSignatureError, RahbaError, TooLargeError
from rahba.ids import RandomIds

CLOCK, IDS = SystemClock(), RandomIds()
HOST = "host-1"
DEAL = "d" * 64
SOURCE = Source("file", "nowhere.py", "mill")


class Mill:
    """One agent with one heavy offer, a queue that can be told to lose tasks, and a workshop."""

    def __init__(self, broker: Broker, wire: Wire) -> None:
        self.key = WorkKey(b"k" * 32)
        self.marks = RedisMarks(wire, lease_ms=1_000)
        self.mailbox = broker.mailbox
        self.shop = Workshop(
            self.key, self.marks, broker.mailbox, CLOCK, IDS, load=lambda _: self.agent
        )
        self.desk = WorkDesk(self.key, self, self.marks, CLOCK, reply_to=HOST)
        self.runs: list[str] = []
        self.sent: list[str] = []
        self.lose = 0
        self.refuse = 0
        self.tasks: set[asyncio.Task[str]] = set()
        self.agent = Agent("mill")

        @self.agent.offer("text.grind", price="1", runs="worker", timeout=30)
        async def grind(text: str, nap: float = 0) -> str:
            self.runs.append(text)
            await asyncio.sleep(nap)
            if text == "stone":
                raise ValueError(text)
            return text.upper()

    async def send(self, agreement: str, sealed: str, *, limit_s: float) -> None:
        self.sent.append(sealed)
        if self.refuse:
            self.refuse -= 1
            raise BrokerUnreachableError("no broker")
        if self.lose:
            self.lose -= 1
            return
        task = asyncio.create_task(self.shop.run(agreement, sealed))
        self.tasks.add(task)

    async def do(self, text: str, *, ms: int = 5_000, **more: object) -> object:
        job = Job(Terms(DEAL, "text.grind", "b", CLOCK.now_ms() + ms), clock=CLOCK)
        done = await self.desk.do(SOURCE, self.agent, {"text": text, **more}, job)
        return orjson.loads(done.output)["output"]

    async def carry(self) -> None:
        """Bring the host its mail, as its post room does."""
        reader = self.mailbox.receive([HOST], consumer="h")
        try:
            while True:
                for delivery in await reader.next(wait_ms=100):
                    self.desk.arrived(delivery.raw)
                    await reader.done([delivery])
        finally:
            await reader.close()


@pytest_asyncio.fixture
async def mill(broker: Broker, redis_url: str) -> AsyncIterator[Mill]:
    wire = Wire(redis_url)
    made = Mill(broker, wire)
    carrying = asyncio.create_task(made.carry())
    yield made
    for task in (carrying, *made.tasks):
        task.cancel()
    await asyncio.gather(carrying, *made.tasks, return_exceptions=True)
    await wire.close()


async def test_a_heavy_job_comes_back_done(mill: Mill) -> None:
    assert await mill.do("wheat") == "WHEAT"
    assert (mill.runs, len(mill.sent)) == (["wheat"], 1)


async def test_what_travels_is_sealed(mill: Mill) -> None:
    await mill.do("a secret recipe")
    kept = await mill.marks.kept(DEAL)
    assert kept is not None
    assert b"SECRET" not in kept
    assert "secret" not in mill.sent[0]


async def test_bad_arguments_are_refused_before_anything_is_queued(mill: Mill) -> None:
    with pytest.raises(ArgumentsError):
        await mill.do("wheat", volume=11)
    assert mill.sent == []


async def test_a_failure_comes_back_as_the_same_error(mill: Mill) -> None:
    with pytest.raises(JobFailedError):
        await mill.do("stone")


async def test_a_task_queued_twice_is_done_once_and_answered_twice(mill: Mill) -> None:
    await mill.do("wheat")
    assert await mill.shop.run(DEAL, mill.sent[0]) == "sent again"
    assert mill.runs == ["wheat"]


async def test_a_task_that_is_being_worked_on_is_left_to_whoever_does(mill: Mill) -> None:
    doing = asyncio.create_task(mill.do("wheat", nap=1.6))
    while not mill.runs:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.2)  # longer than a lease: it is renewed
    assert await mill.shop.run(DEAL, mill.sent[0]) == "taken"
    assert await doing == "WHEAT"
    assert mill.runs == ["wheat"]


@pytest.mark.long
async def test_a_worker_that_dies_is_noticed_by_its_lease_and_the_task_is_queued_again(
    mill: Mill,
) -> None:
    doing = asyncio.create_task(mill.do("wheat", nap=2))
    while not await mill.marks.taken(DEAL):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.6)  # the desk has seen that the work had begun
    for task in list(mill.tasks):
        task.cancel()
    await asyncio.wait_for(doing, 5)
    assert mill.runs == ["wheat", "wheat"]


async def test_a_broker_that_is_away_for_a_moment_costs_a_moment(mill: Mill) -> None:
    mill.refuse = 2
    assert await mill.do("wheat") == "WHEAT"
    assert len(mill.sent) == 3


async def test_a_task_that_nobody_takes_ends_at_the_deadline(mill: Mill) -> None:
    mill.lose = 99
    with pytest.raises(JobDeadlineError):
        await mill.do("wheat", ms=300)


async def test_a_result_that_comes_when_nobody_waits_is_kept_for_who_asks_again(
    mill: Mill,
) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mill.do("wheat", nap=0.3), 0.1)
    await asyncio.gather(*mill.tasks)
    assert await mill.do("wheat", nap=0.3) == "WHEAT"
    assert mill.runs == ["wheat"]


async def test_a_late_task_is_not_begun(mill: Mill) -> None:
    task = sealed_task(mill.key, deadline=CLOCK.now_ms() - 1)
    assert await mill.shop.run(DEAL, task) == "late"
    assert mill.runs == []


async def test_an_offer_that_the_agent_does_not_have_is_a_typed_failure(mill: Mill) -> None:
    await mill.shop.run(DEAL, sealed_task(mill.key, skill="text.none"))
    kept = await mill.marks.kept(DEAL)
    assert kept is not None
    assert mill.key.open_outcome(kept).code == UnknownOfferError.code


@pytest.mark.parametrize("sealed", ["", "AAAA", "!!", "A" * 400])
async def test_a_task_that_was_not_sealed_by_us_is_refused(mill: Mill, sealed: str) -> None:
    with pytest.raises(RahbaError):
        await mill.shop.run(DEAL, sealed)
    with pytest.raises(BadSignatureError):
        await mill.shop.run(DEAL, sealed_task(WorkKey(b"x" * 32)))
    with pytest.raises(BadSignatureError):
        await mill.shop.run("e" * 64, sealed_task(mill.key))
    assert mill.runs == []


async def test_an_outcome_that_was_not_made_by_a_worker_of_ours_is_dropped(mill: Mill) -> None:
    outcome = Outcome(DEAL, output='{"output":"forged"}')
    forged = WorkKey(b"x" * 32).seal_outcome(outcome)
    true = orjson.loads(mill.key.seal_outcome(outcome))
    mixed = orjson.dumps({"sealed": true["sealed"], "sig": orjson.loads(forged)["sig"]})
    for raw in (b"", b"{}", b"\xff", b"x" * 5_000_000, forged, mixed):
        assert mill.desk.arrived(raw) is False
    assert mill.desk.arrived(orjson.dumps(true)) is False  # nobody waits for it


def test_a_task_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLargeError):
        sealed_task(WorkKey(b"k" * 32), args={"text": "x" * 3_000_000})


def test_the_work_key_of_a_folder_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    task = sealed_task(WorkKey.at(tmp_path / "data"))
    assert WorkKey.at(tmp_path / "data").open_task(task).agreement == DEAL
    path = tmp_path / "data" / "work.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["work.key"]
    with pytest.raises(BadInputError):
        WorkKey(b"short")


async def test_records_in_redis_are_replaced_only_where_the_old_one_stands(
    empty_redis: str,
) -> None:
    wire = Wire(empty_redis)
    records = RedisRecords(wire)
    await records.put("a", b"1")
    await records.put("b", b"2")
    assert not await records.replace("a", b"0", b"9")
    assert await records.replace("a", b"1", b"9")
    assert not await records.replace("none", b"", b"9")
    assert (await records.get("a"), await records.get("none")) == (b"9", None)
    assert (sorted(await records.all()), await records.count()) == ([b"2", b"9"], 2)
    await wire.close()


async def test_a_lease_is_one_holder_s_until_it_is_over(empty_redis: str) -> None:
    wire = Wire(empty_redis)
    marks = RedisMarks(wire, lease_ms=500)
    assert await marks.take(DEAL, "one")
    assert not await marks.take(DEAL, "two")
    assert not await marks.renew(DEAL, "two")
    for _ in range(3):
        await asyncio.sleep(0.2)
        assert await marks.renew(DEAL, "one")
    await asyncio.sleep(0.6)
    assert not await marks.taken(DEAL)
    assert not await marks.renew(DEAL, "one")
    assert await marks.take(DEAL, "two")
    await marks.leave(DEAL, "one")
    assert await marks.taken(DEAL)
    await marks.leave(DEAL, "two")
    assert not await marks.taken(DEAL)
    await wire.close()


def sealed_task(key: WorkKey, **changes: object) -> str:
    task = Task(
        agreement=DEAL,
        source=SOURCE,
        skill="text.grind",
        args={"text": "wheat"},
        buyer="b",
        deadline=CLOCK.now_ms() + 5_000,
        depth=0,
        reply_to=HOST,
    )
    return key.seal_task(msgspec.structs.replace(task, **changes))
