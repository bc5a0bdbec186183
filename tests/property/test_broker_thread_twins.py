"""The rules and their script agree on any sequence of messages, honest or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from api.embedded_redis import EmbeddedRedis
from broker.mailboxes import MailboxLimits
from broker.ports import Ruling
from broker.said import told, told_at_end
from broker.thread import (
    STEPS,
    Ending,
    Header,
    Said,
    Seen,
    Side,
    ThreadRecord,
    header_of,
    rule,
    rule_ending,
)
from broker.threads import Posting
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.feed import RedisFeed
from broker.transports.redis.mailbox import stream_of
from broker.transports.redis.threads import RedisThreadStore, group_of, open_between, thread_of
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.ids import RandomIds

TYPES = sorted({kind for _, _, kind in STEPS} | {"cfp"})
FAR = 9_000_000_000_000
NOW = 1_700_000_000_000
PARTIES = ["buyer", "seller", "stranger"]
PAIRS = [open_between(one, other) for one in PARTIES for other in PARTIES]
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
    kind=st.sampled_from(["settled", "failed", "expired", "closed"]),
    code=st.sampled_from(["", "not_chosen"]),
    paid=st.sampled_from(["", "5"]),
    tx=st.sampled_from(["", "tx1", "tx2"]),
)


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


def opening(**fields: object) -> Said:
    values: dict[str, object] = {
        "id": "m0", "digest": "d", "sender": "buyer", "to": "seller", "type": "cfp", "seq": 1,
        "reply_by": FAR, "skill": "text.a", "mode": "bargain", "rounds": 20, "deadline": FAR,
    }  # fmt: skip
    return Said(**(values | fields))  # type: ignore[arg-type]


@st.composite
def plausible(draw: st.DrawFn) -> list[Said | Ending]:
    """Draw a course that mostly goes by the rules, so that deep states are reached and left."""
    course: list[Said | Ending] = [opening(mode=draw(st.sampled_from(["bargain", "tender"])))]
    record = rule(None, opening(mode=course[0].mode), NOW).record  # type: ignore[union-attr]
    for number in range(draw(st.integers(2, 14))):
        assert record is not None
        chance = draw(st.integers(0, 19))
        step: Said | Ending
        if chance < 2 and len(course) > 1:
            step = draw(st.sampled_from(course))
        elif chance < 5:
            step = draw(endings)
        else:
            step = draw(next_step(record, number))
            if chance < 9:
                step = replace(step, **draw(spoils))
        course.append(step)
        judge = rule if isinstance(step, Said) else rule_ending
        record = judge(record, step, NOW).record  # type: ignore[arg-type]
    return course


@st.composite
def next_step(draw: st.DrawFn, record: ThreadRecord, number: int) -> Said:
    """Draw a message that the table allows now, or any when it allows none."""
    allowed = [(who, kind) for state, who, kind in STEPS if state == record.state]
    offers = [move for move in allowed if move[1] in {"quote", "counter"}]
    moves = sorted(allowed) + 4 * offers or [("buyer", "accept")]
    who, kind = draw(st.sampled_from(moves))
    if kind in {"quote", "counter"}:
        who = record.turn
    standing = record.side("seller" if who == "buyer" else "buyer")
    own = record.side(who)
    taken = own.offer if kind == "withdraw" else standing.offer
    return opening(
        id=f"m{number}",
        sender=who,
        to="seller" if who == "buyer" else "buyer",
        type=kind,
        seq=own.seq + 1,
        mode=record.mode,
        reply_by=draw(st.sampled_from([FAR, FAR, FAR, 0])) if kind == "counter" else FAR,
        offer=f"o{number}" if kind in {"quote", "counter"} else taken,
        valid_until=draw(st.sampled_from([FAR, FAR, FAR, 0])),
        price=str(number),
        makes=f"a{number}",
        agreement=standing.makes if kind == "accept" else record.agreement,
        ordered=kind == "order" or (kind == "accept" and who == "buyer"),
        deadline=draw(st.sampled_from([FAR, FAR, FAR, 0])) if kind == "order" else FAR,
        hold="hold",
        code=f"code{number}",
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
        feed, thread = RedisFeed(self._wire, SystemClock()), RandomIds().new()
        limits = MailboxLimits(depth=10**9, sender_messages=10**9, sender_bytes=10**12)
        store = RedisThreadStore(self._wire, feed, SystemClock(), mailboxes=limits)
        answers: list[tuple[object, ...]] = []
        await self._wire.call("DEL", group_of("group"), *PAIRS)  # others' courses have left them
        for step in course:
            await self._wire.call("DEL", FEED, *(stream_of(party) for party in PARTIES))
            if isinstance(step, Said):
                (ruling,) = await store.post([Posting(thread, step, b"raw")])
                assert isinstance(ruling, Ruling)
            else:
                (ruling,) = await store.end([thread], step)
            kept = await self._wire.call("HGETALL", thread_of(thread))
            fields = dict(zip(kept[::2], kept[1::2], strict=True))
            seen = {
                str(name[1:], "utf-8"): str(value, "utf-8")
                for name, value in fields.items()
                if name.startswith(b"i")
            }
            (whole,) = await store.whole([thread])
            delivered = [await self._wire.call("XLEN", stream_of(party)) for party in PARTIES]
            told = [(event.kind, event.data) for _, event in await feed.tail(20)]
            header, said = (None, ()) if whole is None else whole
            answers.append((ruling.verdict, ruling.first, ruling.state, header, seen))
            answers[-1] += (delivered, told, len(said), ruling.at_ms)
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
        header = header_of(record) if record else None
        events: list[tuple[str, object]] = []
        if decision.verdict == "OK" and header is not None:
            said = isinstance(step, Said)
            events = [*(told("", step, header) if said else told_at_end("", header))]  # type: ignore[arg-type]
        to = step.to if isinstance(step, Said) and decision.deliver else ""
        answers.append(
            (
                decision.verdict,
                decision.first,
                record.state if record else "closed",
                header,
                {name: written(seen) for name, seen in (record.seen if record else {}).items()},
                [int(party == to) for party in PARTIES],
                events,
                heard,
                now_ms,
            )
        )
    return answers


def nameless(answer: tuple[object, ...]) -> tuple[object, ...]:
    """Take the thread's own name out of what was told."""
    told: list[tuple[str, dict[str, object]]] = answer[6]  # type: ignore[assignment]
    unnamed = [(kind, {**data, "thread": ""}) for kind, data in told]
    return (*answer[:6], unnamed, *answer[7:])


def written(seen: Seen) -> str:
    return f"{seen.verdict} {seen.digest} {seen.repeats}"


def check(script: Script, course: list[Said | Ending]) -> None:
    theirs = script.run(course)
    ours = twin(course, [int(str(answer[-1])) for answer in theirs])
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == nameless(other), (number, course[number])


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


def test_the_limits_are_reached_alike(script: Script) -> None:
    check(script, [opening()] * 12)
    chatter = [opening(id=f"c{n}", type="not_understood", seq=n) for n in range(2, 36)]
    check(script, [opening(), *chatter])
    refused = [opening(id=f"r{n}", type="quote", seq=9) for n in range(140)]
    check(script, [opening(), *refused, *refused[125:], chatter[0]])
    offers = [
        opening(id=f"o{n}", sender=who, to=to, type="counter", seq=n + first, rounds=20)
        for n in range(1, 23)
        for who, to, first in (("seller", "buyer", 0), ("buyer", "seller", 1))
    ]
    named = [replace(one, id=f"{one.sender}{one.seq}") for one in offers]
    check(script, [opening(), *named])


def test_times_are_judged_to_the_millisecond_alike(script: Script) -> None:
    """Deadlines a little ahead of the server's clock pass while the course is run."""
    (answer,) = script.run([opening()])
    now_ms = int(str(answer[-1]))
    for ahead in range(0, 40, 4):
        end = now_ms + ahead
        quote = opening(
            id="q", sender="seller", to="buyer", type="quote", offer="o", valid_until=end, makes="a"
        )
        accept = opening(
            id="a", type="accept", seq=2, offer="o", ordered=True, agreement="a", deadline=end + 9
        )
        expired = Ending(kind="expired")
        check(script, [opening(reply_by=end), *[quote] * 3, *[accept] * 3, *[expired] * 3])
        now_ms = int(str(script.run([opening()])[0][-1]))


def reply(**fields: object) -> Said:
    return opening(**({"sender": "seller", "to": "buyer"} | fields))


def test_a_long_bargain_and_what_must_not_follow_it_are_judged_alike(script: Script) -> None:
    quote = reply(id="s1", type="quote", offer="o1", valid_until=FAR, price="9", makes="a1")
    offers = [
        quote,
        opening(id="b2", type="counter", seq=2, offer="o2", valid_until=FAR, price="3", makes="a2"),
        reply(id="s2", type="counter", seq=2, offer="o3", valid_until=FAR, price="8", makes="a3"),
    ]
    take = {"type": "accept", "ordered": True, "seq": 3, "offer": "o3", "agreement": "a3"}
    late_order = opening(id="b3", deadline=1, **take)
    other_agreement = opening(id="b4", **(take | {"agreement": "a1"}))
    accept = opening(id="b5", hold="h", **take)
    result = reply(id="s3", type="result", seq=3, agreement="a3", receipt="r")
    paid, otherwise = (Ending(kind="settled", paid="8", tx=tx) for tx in ("t1", "t2"))
    course = [opening(), *offers, late_order, other_agreement, accept, result, paid, otherwise]
    check(script, [*course, paid, Ending(kind="failed")])
    verdicts = [answer[0] for answer in script.run([*course])]
    assert verdicts == ["OK"] * 4 + ["LATE", "OFFER_CHANGED", "OK", "OK", "OK", "CLOSED"]
    check(script, [opening(), *offers, accept, Ending(kind="expired"), Ending(kind="failed")])
    # The window: the quote is late by the buyer's reply_by although its own is far.
    check(script, [opening(reply_by=4_000_000_000_000), quote])


def test_a_quote_after_the_window_is_late_alike(script: Script) -> None:
    (answer,) = script.run([opening()])
    soon = int(str(answer[-1])) + 30
    late = [reply(id=f"s{n}", type="quote", offer="o", valid_until=FAR, seq=9) for n in range(99)]
    last = reply(id="last", type="quote", offer="o", valid_until=FAR)
    course = [opening(reply_by=soon), *late, *late, last]
    check(script, course)


def test_a_header_has_every_field_of_a_record_and_of_both_its_sides() -> None:
    own = {each.name for each in fields(ThreadRecord)} - {"buyer_side", "seller_side", "seen"}
    sides = {f"{role}_{each.name}" for role in ("buyer", "seller") for each in fields(Side)}
    assert own | sides == set(Header.__struct_fields__)
