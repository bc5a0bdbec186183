"""Work is bounded in number and time, and every way to fail has a typed error."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import orjson
import pytest

from agents import Agent, Job
from agents.job import Terms
from agents.perform import (
    BusyError,
    Done,
    JobDeadlineError,
    JobFailedError,
    UnknownOfferError,
    Workbench,
    try_offer,
)
from agents.schema import ArgumentsError
from rahba.clock import SystemClock
from rahba.errors import BadInputError
from rahba.messages import Usage

CLOCK = SystemClock()
agent = Agent("tester")


class TooManyPagesError(BadInputError):
    code = "too_many_pages"


@agent.offer("echo.sync", price="1")
def echo(text: str) -> str:
    return text


@agent.offer("echo.async", price="1")
async def echo_later(text: str) -> str:
    await asyncio.sleep(0)
    return text


@agent.offer("nap.sync", price="1", timeout=0.2)
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


@agent.offer("nap.async", price="1", timeout=0.2)
async def nap_later(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@agent.offer("fail", price="1")
def fail(how: str) -> str:
    match how:
        case "exit":
            sys.exit(1)
        case "stop":
            raise StopIteration
        case "timeout":
            raise TimeoutError("some socket")
        case "pages":
            raise TooManyPagesError("501 pages")
        case "type":
            return 3  # type: ignore[return-value]
        case _:
            raise ValueError("with a password in it")


@agent.offer("fail.async", price="1")
async def fail_later(text: str) -> str:
    raise TimeoutError(text)


@agent.offer("stream", price="1")
def stream(text: str, job: Job) -> str | None:
    for word in text.split():
        job.emit(word)
    return None


@agent.offer("who", price="1")
def who() -> bool:
    return threading.current_thread() is threading.main_thread()


def job(skill: str, ms: int = 5_000) -> Job:
    return Job(Terms("d", skill, "b", CLOCK.now_ms() + ms), clock=CLOCK)


async def done(skill: str, bench: Workbench | None = None, **args: object) -> object:
    bench = bench or Workbench(2, 0, CLOCK)
    finished = await bench.do(agent.offers[skill], args, job(skill))
    return orjson.loads(finished.output)["output"]


@pytest.mark.parametrize("skill", ["echo.sync", "echo.async"])
async def test_functions_and_coroutines_are_performed(skill: str) -> None:
    assert await done(skill, text="salam") == "salam"


async def test_plain_functions_keep_off_the_event_loop_s_thread() -> None:
    assert await done("who") is False


async def test_what_is_emitted_is_the_result_if_nothing_is_returned() -> None:
    assert await done("stream", text="a b c") == "abc"


@pytest.mark.parametrize("how", ["exit", "stop", "value", "timeout"])
async def test_whatever_a_function_raises_is_a_failed_job_and_tells_no_secrets(how: str) -> None:
    with pytest.raises(JobFailedError) as caught:
        await done("fail", how=how)
    assert "password" not in caught.value.message


async def test_a_time_out_inside_a_coroutine_is_its_failure_not_the_deadline() -> None:
    with pytest.raises(JobFailedError):
        await done("fail.async", text="x")


async def test_a_refusal_of_the_input_keeps_its_own_code() -> None:
    with pytest.raises(TooManyPagesError):
        await done("fail", how="pages")


async def test_a_result_of_another_type_is_a_failed_job() -> None:
    with pytest.raises(JobFailedError) as caught:
        await done("fail", how="type")
    assert caught.value.facts["cause"] == "bad_output"


@pytest.mark.parametrize("skill", ["nap.sync", "nap.async"])
async def test_work_beyond_its_timeout_ends(skill: str) -> None:
    begun = time.monotonic()
    with pytest.raises(JobDeadlineError):
        await done(skill, seconds=0.6)
    assert time.monotonic() - begun < 0.5


async def test_hanging_work_keeps_its_place_until_it_really_ends() -> None:
    bench = Workbench(1, 0, CLOCK)
    with pytest.raises(JobDeadlineError):
        await done("nap.sync", bench, seconds=0.5)
    assert bench.load == 1
    with pytest.raises(BusyError):
        await done("echo.sync", bench, text="x")
    await asyncio.wait_for(bench.idle(), 2)
    assert await done("echo.sync", bench, text="x") == "x"


async def test_a_bounded_number_run_and_wait_and_the_rest_are_told_busy() -> None:
    bench, running, most = Workbench(2, 1, CLOCK), 0, 0
    crowd = Agent("crowd")

    @crowd.offer("count", price="1")
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    calls = [bench.do(crowd.offers["count"], {}, job("count")) for _ in range(5)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert most == 2
    assert sum(isinstance(end, BusyError) for end in ends) == 2
    assert bench.load == 0


async def test_waiting_for_a_place_counts_against_the_deadline() -> None:
    bench = Workbench(1, 1, CLOCK)
    first = asyncio.create_task(done("nap.async", bench, seconds=0.15))
    await asyncio.sleep(0)
    with pytest.raises(JobDeadlineError):
        await bench.do(agent.offers["echo.async"], {"text": "x"}, job("echo.async", ms=50))
    assert await first == "rested"


async def test_bad_arguments_take_no_place() -> None:
    bench = Workbench(1, 0, CLOCK)
    with pytest.raises(ArgumentsError):
        await done("echo.sync", bench, words="x")
    assert bench.load == 0


async def test_a_cancelled_job_gives_its_place_back() -> None:
    bench = Workbench(1, 0, CLOCK)
    task = asyncio.create_task(
        bench.do(agent.offers["nap.async"], {"seconds": 9}, job("nap.async"))
    )
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.load == 0


async def test_work_done_elsewhere_takes_a_place_and_ends_at_the_deadline() -> None:
    bench = Workbench(1, 0, CLOCK)

    async def elsewhere() -> Done:
        await asyncio.sleep(5)
        return Done(b"", Usage())

    waiting = asyncio.create_task(bench.watch(elsewhere, job("x", ms=100)))
    await asyncio.sleep(0.01)
    with pytest.raises(BusyError):
        await bench.watch(elsewhere, job("x"))
    with pytest.raises(JobDeadlineError):
        await waiting
    assert bench.load == 0


async def test_usage_is_metered() -> None:
    busy = Agent("busy")

    @busy.offer("spin", price="1")
    def spin() -> int:
        end = time.thread_time() + 0.06
        while time.thread_time() < end:
            pass
        return 1

    finished = await Workbench(1, 0, CLOCK).do(busy.offers["spin"], {}, job("spin"))
    assert finished.usage.cpu_ms >= 50
    assert finished.usage.wall_ms >= 50
    assert finished.usage.bytes_out == len(finished.output)


async def test_an_offer_can_be_tried_outside_the_market() -> None:
    assert await try_offer(agent, "echo.sync", {"text": "x"}) == b'{"output":"x"}'
    with pytest.raises(UnknownOfferError):
        await try_offer(agent, "text.none", {})
