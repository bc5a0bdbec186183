"""The rules and their script agree on any sequence of messages, honest or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.embedded_redis import EmbeddedRedis
from broker.thread import (
    HEADER,
    SIDE,
    STEPS,
    Ending,
    Said,
    Seen,
    ThreadRecord,
    header_of,
    rule,
    rule_ending,
)
from broker.transports.redis.threads import RedisThreadStore
from broker.transports.redis.wire import Wire
from rahba.ids import RandomIds

TYPES = sorted({kind for _, _, kind in STEPS} | {"cfp"})
FAR = 9_000_000_000_000
PARTIES = ["buyer", "seller", "stranger"]
DIGESTS = ["d1", "d2", "d3"]

times = st.sampled_from([0, 1, FAR, FAR + 7])
said = st.builds(
    Said,
    id=st.sampled_from([f"id{number}" for number in range(12)]),
    digest=st.sampled_from(DIGESTS),
    sender=st.sampled_from(PARTIES),
    to=st.sampled_from(PARTIES),
    type=st.sampled_from(TYPES),
    seq=st.integers(1, 6),
    reply_by=times,
    group=st.just("group"),
    skill=st.sampled_from(["text.a", "text.b"]),
    mode=st.sampled_from(["bargain", "tender", "posted"]),
    rounds=st.integers(1, 3),
    deadline=times,
    input_digest=st.just("input"),
    opening=st.booleans(),
    offer=st.sampled_from(DIGESTS),
    valid_until=times,
    price=st.sampled_from(["0", "5", "7000000000000000000"]),
    makes=st.sampled_from(DIGESTS),
    posted=st.sampled_from(["", *DIGESTS]),
    ordered=st.booleans(),
    agreement=st.sampled_from(DIGESTS),
    hold=st.sampled_from(["", "hold"]),
    receipt=st.just("receipt"),
    code=st.sampled_from(["", "busy", "überfüllt"]),
)
endings = st.builds(
    Ending,
    kind=st.sampled_from(["settled", "failed", "expired"]),
    paid=st.sampled_from(["", "5"]),
    tx=st.sampled_from(["", "tx1", "tx2"]),
)


@st.composite
def plausible(draw: st.DrawFn) -> list[Said | Ending]:
    """Draw a course that goes by the rules most of the time, so that deep states are reached."""
    course: list[Said | Ending] = []
    seqs = {"buyer": 0, "seller": 0}
    mode = draw(st.sampled_from(["bargain", "bargain", "tender"]))
    moves = [("buyer", "cfp"), ("seller", "quote"), ("buyer", "counter"), ("seller", "counter"),
             ("buyer", "accept"), ("seller", "accept"), ("buyer", "order"), ("seller", "result"),
             ("buyer", "withdraw"), ("seller", "failure"), ("buyer", "not_understood")]  # fmt: skip
    script = [0, 1, *draw(st.lists(st.integers(1, len(moves) - 1), max_size=14))]
    for number, move in enumerate(script):
        who, kind = moves[move]
        one = Said(
            id=f"m{number}", digest="d1", sender=who, to="seller" if who == "buyer" else "buyer",
            type=kind, seq=seqs[who] + 1, reply_by=FAR, group="group", skill="text.a", mode=mode,
            rounds=3, deadline=FAR, offer=draw(st.sampled_from(["o1", "o1", "o1", "o2"])),
            valid_until=FAR, price="5", makes="a1", agreement="a1", hold="hold",
            ordered=kind == "order" or (kind == "accept" and who == "buyer"),
        )  # fmt: skip
        spoiled = draw(st.integers(0, 9))
        if spoiled == 0:
            one = replace(one, **draw(spoils))
        course.append(one)
        if draw(st.integers(0, 9)) == 0:
            course.append(draw(endings))
        if draw(st.integers(0, 9)) == 0:
            course.append(one)
        # Count on as an honest side would if this was heard; a wrong guess is a wrong sequence.
        seqs[who] += draw(st.sampled_from([1, 1, 1, 1, 0]))
    return course


spoils = st.fixed_dictionaries(
    {},
    optional={
        "seq": st.integers(1, 40),
        "reply_by": times,
        "deadline": times,
        "valid_until": times,
        "agreement": st.sampled_from(DIGESTS),
        "makes": st.sampled_from(DIGESTS),
        "skill": st.just("text.b"),
        "digest": st.just("d2"),
        "id": st.just("m1"),
        "ordered": st.booleans(),
        "opening": st.booleans(),
    },
)


class Script:
    """The script on a real server, driven from tests that are not async themselves."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._url = url
        self._wire: Wire | None = None

    def run(self, course: list[Said | Ending]) -> list[tuple[object, ...]]:
        return self._loop.run_until_complete(self._run(course))

    def close(self) -> None:
        if self._wire is not None:
            self._loop.run_until_complete(self._wire.close())
        self._loop.close()

    async def _run(self, course: list[Said | Ending]) -> list[tuple[object, ...]]:
        self._wire = self._wire or Wire(self._url)
        store, thread = RedisThreadStore(self._wire), RandomIds().new()
        answers: list[tuple[object, ...]] = []
        for step in course:
            if isinstance(step, Said):
                ruled = await store.say(thread, step, b"raw")
            else:
                ruled = await store.end(thread, step)
            (header,) = await store.headers([thread])
            ids = await self._wire.call("HGETALL", f"{{t:{thread}}}:ids")
            seen = {
                str(name, "utf-8"): str(value, "utf-8")
                for name, value in zip(ids[::2], ids[1::2], strict=True)
            }
            ruling = ruled.ruling
            answers.append(
                (ruling.verdict, ruling.first, ruling.state, ruled.deliver, header, seen)
            )
            answers[-1] += (ruling.at_ms, len((await store.transcripts([thread]))[0]))
        return answers


@pytest.fixture(scope="module")
def script(embedded_redis: EmbeddedRedis) -> Iterator[Script]:
    made = Script(embedded_redis.url)
    yield made
    made.close()


def twin(course: list[Said | Ending], times_ms: list[int]) -> list[tuple[object, ...]]:
    record: ThreadRecord | None = None
    answers: list[tuple[object, ...]] = []
    heard = 0
    for step, now_ms in zip(course, times_ms, strict=True):
        if isinstance(step, Said):
            decision = rule(record, step, now_ms)
            heard += decision.verdict == "OK"
        else:
            decision = rule_ending(record, step, now_ms)
        record = decision.record
        answers.append(
            (
                decision.verdict,
                decision.first,
                record.state if record else "closed",
                decision.deliver,
                header_of(record) if record else {},
                {name: written(seen) for name, seen in (record.seen if record else {}).items()},
                now_ms,
                heard,
            )
        )
    return answers


def written(seen: Seen) -> str:
    return f"{seen.verdict} {seen.digest} {seen.repeats}"


def check(script: Script, course: list[Said | Ending]) -> None:
    theirs = script.run(course)
    ours = twin(course, [int(str(answer[-2])) for answer in theirs])
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == other, (number, course[number])


SETTINGS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(course=plausible())
def test_rules_and_script_agree_on_what_parties_do(
    script: Script, course: list[Said | Ending]
) -> None:
    check(script, course)


@SETTINGS
@given(course=st.lists(st.one_of(said, said, said, endings), max_size=20))
def test_rules_and_script_agree_on_noise(script: Script, course: list[Said | Ending]) -> None:
    check(script, course)


def test_every_step_of_the_table_is_reached_alike(script: Script) -> None:
    """Walk each step of the table from a state built by the shortest honest way."""

    def one(who: str, kind: str, seq: int, **fields: object) -> Said:
        ordered = kind == "order" or (kind == "accept" and who == "buyer")
        said_fields = {"ordered": ordered, "makes": "a1", "agreement": "a1", **fields}
        return Said(
            id=f"{who}{seq}", digest="d", sender=who, to="seller" if who == "buyer" else "buyer",
            type=kind, seq=seq, reply_by=FAR, skill="text.a", mode="bargain", rounds=5,
            deadline=FAR, offer="o1", valid_until=FAR, price="5", **said_fields,
        )  # fmt: skip

    ways = {
        "open": [one("buyer", "cfp", 1), one("seller", "quote", 1), one("buyer", "counter", 2)],
        "agreed": [
            one("buyer", "cfp", 1), one("seller", "quote", 1), one("buyer", "counter", 2),
            one("seller", "accept", 2),
        ],
        "held": [one("buyer", "cfp", 1), one("seller", "quote", 1), one("buyer", "accept", 2)],
    }  # fmt: skip
    for (state, who, kind), after in STEPS.items():
        way = ways[state]
        if (who, kind) == ("buyer", "counter"):
            way = way[:2]
        seq = 1 + sum(1 for step in way if step.sender == who)
        course: list[Said | Ending] = [*way, one(who, kind, seq)]
        check(script, course)
        assert script.run(course)[-1][0:3:2] == ("OK", after), (state, who, kind)


def test_the_stored_fields_are_the_records_fields() -> None:
    assert {"buyer", "state", "settled_ms"} <= set(HEADER)
    assert SIDE == ("seq", "offers", "reply_by", "offer", "until", "price", "makes")
