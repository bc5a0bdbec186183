"""The courier: verified letters to whoever waits, acknowledged when their effects are durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from agents.attendance import MAX_WAITING_LETTERS, Letter, all_arrived
from agents.courier import Courier
from broker import Broker
from broker.mailboxes import MailboxLimits
from broker.transports import memory
from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.errors import LocalError, RemoteError
from rahba.ids import RandomIds
from rahba.messages import Message, Reject, seal_message

ALICE, BOB = Signer(b"a" * 32), Signer(b"b" * 32)
CLOCK, IDS = SystemClock(), RandomIds()


class TryLaterError(RemoteError):
    code = "try_later"
    retryable = True


class HopelessError(LocalError):
    code = "hopeless"


def message(thread: str = "0" * 32, *, to: str = BOB.did, late_ms: int = 0) -> bytes:
    now = CLOCK.now_ms()
    body = Message(
        id=IDS.new(),
        thread=thread,
        seq=1,
        prev=None,
        sender=ALICE.did,
        to=to,
        ts=now,
        reply_by=now + 60_000 - late_ms,
        body=Reject("no_deal"),
    )
    return seal_message(body, ALICE)


@pytest.fixture
def broker() -> Broker:
    return memory.connect(CLOCK, limits=MailboxLimits(lease_ms=200, deliveries=3))


@pytest_asyncio.fixture
async def courier(broker: Broker) -> AsyncIterator[Courier]:
    made = Courier(
        broker.mailbox, CLOCK, consumer="test", concurrency=2, lease_ms=200, wait_ms=20, backlog=4
    )
    await made.start()
    yield made
    await made.stop(grace_s=0.2)


async def until(condition: Callable[[], object], *, within_s: float = 3) -> None:
    for _ in range(int(within_s / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not come about")


async def emptied(broker: Broker) -> None:
    for _ in range(150):
        if not await broker.mailbox.depth(BOB.did):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the mailbox was not emptied")


async def test_a_letter_goes_to_whoever_attends_its_thread(
    broker: Broker, courier: Courier
) -> None:
    handled: list[Letter] = []

    async def keep(letter: Letter) -> None:
        handled.append(letter)

    courier.serve(BOB.did, keep)
    with courier.attend(BOB.did, "1" * 32) as attendance:
        await broker.mailbox.send(BOB.did, message("1" * 32))
        await broker.mailbox.send(BOB.did, message("2" * 32))
        letter = await attendance.next(2)
        await until(lambda: handled)
        assert await attendance.next(0.01) is None
    assert letter is not None
    assert letter.message.thread == "1" * 32
    assert handled[0].message.thread == "2" * 32


async def test_only_one_attends_a_thread(courier: Courier) -> None:
    with (
        courier.attend(BOB.did, "1" * 32),
        pytest.raises(ValueError, match="attends"),
        courier.attend(BOB.did, "1" * 32),
    ):
        pass


async def test_a_handled_letter_is_acknowledged(broker: Broker, courier: Courier) -> None:
    async def keep(letter: Letter) -> None:
        assert letter.token == 1

    courier.serve(BOB.did, keep)
    await broker.mailbox.send(BOB.did, message())
    await emptied(broker)


@pytest.mark.parametrize("kind", ["nonsense", "forged", "for somebody else", "expired"])
async def test_a_letter_that_does_not_verify_is_buried_unseen(
    broker: Broker, courier: Courier, kind: str
) -> None:
    seen: list[Letter] = []

    async def keep(letter: Letter) -> None:
        seen.append(letter)

    courier.serve(BOB.did, keep)
    raw = {
        "nonsense": b"{}",
        "forged": message().replace(b"sig", b"gis"),
        "for somebody else": message(to=ALICE.did),
        "expired": message(late_ms=61_000),
    }[kind]
    await broker.mailbox.send(BOB.did, raw)
    await until(lambda: courier.buried)
    assert seen == []
    await emptied(broker)  # acknowledged a moment later
    assert len(await broker.mailbox.dead(BOB.did)) == 1


async def test_a_letter_that_cannot_be_handled_now_is_handled_again(
    broker: Broker, courier: Courier
) -> None:
    tries: list[str] = []

    async def second_time(letter: Letter) -> None:
        tries.append(letter.message.id)
        if len(tries) < 2:
            raise TryLaterError

    courier.serve(BOB.did, second_time)
    await broker.mailbox.send(BOB.did, message())
    await until(lambda: len(tries) == 2)
    assert len(set(tries)) == 1
    await emptied(broker)


async def test_a_letter_that_never_can_be_handled_is_buried_with_its_reason(
    broker: Broker, courier: Courier
) -> None:
    async def never(letter: Letter) -> None:
        raise HopelessError

    courier.serve(BOB.did, never)
    await broker.mailbox.send(BOB.did, message())
    await until(lambda: courier.buried)
    await emptied(broker)
    ((_, reason),) = await broker.mailbox.dead(BOB.did)
    assert reason == "hopeless"


async def test_a_defect_in_a_handler_stops_no_other_letter(
    broker: Broker, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def brittle(letter: Letter) -> None:
        seen.append(letter.message.thread)
        if letter.message.thread == "1" * 32 and letter.token == 1:
            raise ZeroDivisionError

    courier.serve(BOB.did, brittle)
    await broker.mailbox.send(BOB.did, message("1" * 32))
    await broker.mailbox.send(BOB.did, message("2" * 32))
    await until(lambda: len(seen) >= 3)
    assert sorted(set(seen)) == ["1" * 32, "2" * 32]
    assert "failed" in caplog.text


async def test_letters_of_one_thread_are_handled_one_at_a_time_in_order(
    broker: Broker, courier: Courier
) -> None:
    running, most, order = 0, 0, []

    async def slow(letter: Letter) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        order.append(letter.message.id)
        running -= 1

    courier.serve(BOB.did, slow)
    for _ in range(3):
        await broker.mailbox.send(BOB.did, message())
    await until(lambda: len(order) == 3)
    assert most == 1


async def test_busy_handlers_never_keep_those_waiting_who_attend(
    broker: Broker, courier: Courier
) -> None:
    hanging = asyncio.Event()

    async def hang(letter: Letter) -> None:
        hanging.set()
        await asyncio.sleep(60)

    courier.serve(BOB.did, hang)
    for digit in "123456789":
        await broker.mailbox.send(BOB.did, message(digit * 32))
    await hanging.wait()
    with courier.attend(BOB.did, "f" * 32) as attendance:
        await broker.mailbox.send(BOB.did, message("f" * 32))
        assert await attendance.next(1) is not None


async def test_the_lease_of_a_long_job_is_kept_up(broker: Broker, courier: Courier) -> None:
    tokens: list[int] = []

    async def long(letter: Letter) -> None:
        tokens.append(letter.token)
        await asyncio.sleep(0.7)  # more than three leases

    courier.serve(BOB.did, long)
    await broker.mailbox.send(BOB.did, message())
    await emptied(broker)
    assert tokens == [1]


async def test_a_letter_that_nobody_wants_any_more_is_dropped(
    broker: Broker, courier: Courier
) -> None:
    with courier.attend(BOB.did, "1" * 32):
        await broker.mailbox.send(BOB.did, message("2" * 32))
        await until(lambda: courier.dropped)
    await emptied(broker)


async def test_the_letters_of_a_dismissed_owner_stay_for_the_next_host(
    broker: Broker, courier: Courier
) -> None:
    async def keep(letter: Letter) -> None:
        raise AssertionError

    courier.serve(BOB.did, keep)
    courier.dismiss(BOB.did)
    courier.dismiss(BOB.did)
    await asyncio.sleep(0.1)
    await broker.mailbox.send(BOB.did, message())
    await asyncio.sleep(0.1)
    assert await broker.mailbox.depth(BOB.did) == 1


async def test_an_attendance_holds_only_so_many_letters(courier: Courier) -> None:
    with courier.attend(BOB.did, "1" * 32) as attendance:
        await all_arrived([attendance], 0.01)
        assert attendance.take() is None
        letter = Letter(BOB.did, None, b"", 1)  # type: ignore[arg-type]
        given = [attendance.give(letter) for _ in range(MAX_WAITING_LETTERS + 1)]
        assert given == [True] * MAX_WAITING_LETTERS + [False]
        await all_arrived([attendance], 0.01)
        assert attendance.take() is not None


async def test_stopping_gives_back_what_was_not_finished(broker: Broker) -> None:
    started = asyncio.Event()

    async def hang(letter: Letter) -> None:
        started.set()
        await asyncio.sleep(60)

    short = Courier(broker.mailbox, CLOCK, consumer="short", wait_ms=20)
    short.serve(BOB.did, hang)
    await short.start()
    await broker.mailbox.send(BOB.did, message())
    await started.wait()
    await short.stop(grace_s=0.05)
    assert await broker.mailbox.depth(BOB.did) == 1
    await Courier(broker.mailbox, CLOCK, consumer="never-started").stop()
