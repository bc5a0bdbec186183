"""A gateway that dies leaves no call behind: whoever asks next finds out what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from agents.errors import BadResultError
from agents.till import LedgerTill
from api.http.auth import Keyring
from api.http.call_records import CallRecord, CallRecords
from api.http.recovery import recover
from broker.transports.redis.threads import pack, read_header, thread_of
from rahba.envelope import Signer
from tests.fixtures.gateway import CLOCK, IDS, Site, parts_of, serving
from wallet.keys import agent_signer

WANTED = {
    "skill": "text.slow",
    "input": {"text": "still here", "ms": 600},
    "budget": "5000000",
    "mode": "posted",
}


async def left_behind(site: Site, wanted: dict[str, object], *, after_ms: int) -> str:
    """Place a call at a gateway of its own and stop that gateway while the call runs."""
    parts = parts_of(site.parts.ledger, site.parts.broker, site.parts.wire)
    async with serving(parts) as url:
        other = Site(url, parts, site.owner, site.token, site.web)
        sent = {"prefer": "respond-async", "idempotency-key": "kept"}
        answer = await other.ask("POST", "/v1/calls", json=wanted, headers=sent)
        assert answer.status == 202
        await asyncio.sleep(after_ms / 1000)
    for name in await parts.wire.call("KEYS", "{gw:*"):
        await parts.wire.call("DEL", name)
    return str(answer.json["id"])


async def test_a_result_delivered_after_the_gateway_died_is_still_handed_out(stall: Site) -> None:
    call_id = await left_behind(stall, WANTED, after_ms=200)
    for _ in range(60):
        call = (await stall.ask("GET", f"/v1/calls/{call_id}")).json
        if call["state"] in {"settled", "failed"}:
            break
        await asyncio.sleep(0.1)
    assert call["state"] == "settled", call
    assert call["output"] == "still here"
    assert call["receipt_verified"]
    assert call["paid_fals"] == call["agreed_fals"] == "2000000"
    sent = {"idempotency-key": "kept"}
    again = await stall.ask("POST", "/v1/calls", json=WANTED, headers=sent)
    assert (again.status, again.json) == (200, call)
    talks = (await stall.ask("GET", "/v1/negotiations")).json["negotiations"]
    assert len(talks) == 1


async def abandoned(site: Site, made: dict[str, object]) -> str:
    """Record another call for the request of ``made``, as a gateway left it that died."""
    records = CallRecords(site.parts.wire, kept_s=600)
    kept = await records.read(str(made["id"]))
    left = msgspec.structs.replace(
        kept, id="e" * 32, gateway="gone", state="running", finished=None, sealed=None
    )
    assert await records.create(left)
    return f"/v1/calls/{left.id}"


async def lie(stall: Site, made: dict[str, Any], **fields: str | int) -> None:
    """Change a thread's header behind everybody's back."""
    key = thread_of(made["thread"])
    header = read_header(await stall.parts.wire.call("HGET", key, "h"))
    lied = msgspec.structs.replace(header, **fields)
    await stall.parts.wire.call("HSET", key, "h", pack(lied))


async def test_a_recovered_call_is_the_same_purchase_and_paid_as_the_ledger_says(
    stall: Site,
) -> None:
    made = (await stall.call()).json
    where = await abandoned(stall, made)
    lies = {
        "paid": "1",
        "asked": "7",
        "agreed": "1",
        "agreement": "0" * 64,
        "hold": "",
        "skill": "x",
    }
    await lie(stall, made, **lies)
    call = (await stall.ask("GET", where)).json
    assert call["state"] == "settled"
    same = set(call) - {"id", "finished"}
    assert {name: call[name] for name in same} == {name: made[name] for name in same}


async def test_a_capture_that_the_broker_made_up_pays_nothing(stall: Site) -> None:
    made = (await stall.call()).json
    where = await abandoned(stall, made)
    await lie(stall, made, tx="0" * 64)
    call = (await stall.ask("GET", where)).json
    assert (call["state"], call["capture_tx"], call["output"]) == ("delivered", None, "salam")
    assert call["paid_fals"] == made["paid_fals"]


async def test_a_result_that_does_not_stand_ends_the_call_for_good(stall: Site) -> None:
    made = (await stall.call()).json
    where = await abandoned(stall, made)
    await lie(stall, made, messages=1)
    answers = [await stall.ask("GET", where) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    call = answers[0].json
    assert (call["state"], call["problem"]["code"]) == ("failed", "bad_result")
    assert answers[1].json == call


async def test_a_delivery_to_somebody_else_or_for_another_request_is_not_recovered(
    stall: Site,
) -> None:
    made = (await stall.call()).json
    (view,) = await stall.parts.broker.threads.group(made["group"])
    keyring = Keyring(stall.parts.wire, CLOCK, network="dev", cache_ms=0)
    signer = (await keyring.open(stall.token)).signer
    assert recover(view, made["group"], signer).goods.output == "salam"
    with pytest.raises(BadResultError, match="another request"):
        recover(view, "d" * 32, signer)
    with pytest.raises(BadResultError, match="another request"):
        recover(view, made["group"], Signer(bytes(31) + b"\x09"))
    with pytest.raises(BadResultError):
        recover(replace(view, seller=signer.did), made["group"], signer)


async def test_a_call_that_never_reached_a_seller_ends_as_interrupted(stall: Site) -> None:
    call_id = "c" * 32
    records = CallRecords(stall.parts.wire, kept_s=600)
    made = (await stall.call({"prefer": "respond-async"})).json
    kept = await records.read(made["id"])
    record = CallRecord(
        id=call_id,
        key=kept.key,
        account=kept.account,
        group="d" * 32,
        gateway="gone",
        skill="text.echo",
        agent=None,
        mode=None,
        budget="1",
        deadline=CLOCK.now_ms() + 60_000,
        request="",
        created=CLOCK.now_ms(),
        state="running",
    )
    assert await records.create(record)
    call = (await stall.ask("GET", f"/v1/calls/{call_id}")).json
    assert (call["state"], call["problem"]["code"]) == ("failed", "interrupted")
    assert call == (await stall.ask("GET", f"/v1/calls/{call_id}")).json


async def test_the_end_of_a_call_is_written_once(stall: Site) -> None:
    made = (await stall.call()).json
    records = CallRecords(stall.parts.wire, kept_s=600)
    record = await records.read(made["id"])
    assert not await records.write(record)
    assert not await records.create(record)


async def test_events_of_a_call_run_elsewhere_tell_its_end(stall: Site) -> None:
    made = (await stall.call()).json
    parts = parts_of(stall.parts.ledger, stall.parts.broker, stall.parts.wire)
    async with serving(parts) as url:
        other = Site(url, parts, stall.owner, stall.token, stall.web)
        told = await other.ask("GET", f"/v1/calls/{made['id']}/events")
    line = next(part for part in told.body.split(b"\n") if part.startswith(b"data: "))
    event = orjson.loads(line.removeprefix(b"data: "))
    assert (event["kind"], event["data"]) == ("settled", made)


async def test_a_gateway_answers_only_when_broker_and_ledger_do(
    stall: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone() -> None:
        raise ConnectionError

    with contextlib.suppress(AttributeError):
        monkeypatch.setattr(stall.ledger, "supply", gone)
    ready = await stall.ask("GET", "/readyz")
    assert (ready.status, ready.json["status"], ready.json["broker"]) == (503, "not ready", "ok")


def keys_in(folder: Path) -> list[Signer]:
    """Return the keys of a host's agents."""
    return [agent_signer(path) for path in folder.glob("agents/*/key")]


async def test_money_that_was_taken_while_no_gateway_ran_is_asked_back(
    stall: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key's next question is enough, as it opens the session that can ask."""
    monkeypatch.setattr("agents.recourse.LOOKS_A_WINDOW", 3_000)
    wanted = {"skill": "fail.hang", "input": {"text": "x"}, "budget": "5000000", "mode": "posted"}
    call_id = await left_behind(stall, wanted, after_ms=300)
    held = [each for each in await stall.ledger.entries(0, 1_000) if "agreement" in each.payload]
    (hold,) = [await stall.ledger.hold(each.id) for each in held]
    assert (hold.status, hold.recourse.window_ms) == ("open", 300_000)
    (thief,) = [key for key in keys_in(tmp_path) if key.did == hold.payee]
    till = LedgerTill(stall.ledger, thief, clock=CLOCK, ids=IDS)
    await till.capture(hold.id, hold.amount, "0" * 64, until_ms=hold.expires_ms)
    await asyncio.sleep(0.5)
    assert (await stall.ledger.hold(hold.id)).status == "captured"
    assert (await stall.ask("GET", f"/v1/calls/{call_id}")).status == 200
    for _ in range(100):
        shown = (await stall.ask("GET", f"/v1/holds/{hold.id}")).json
        if shown["status"] == "challenged":
            break
        await asyncio.sleep(0.05)
    assert shown["status"] == "challenged"
    assert shown["recourse"] == {"window_ms": 300_000, "answer_ms": 600_000}


def watches() -> int:
    return sum(task.get_name() == "hold-watch" for task in asyncio.all_tasks())


@pytest.mark.long
async def test_no_watch_over_a_hold_outlives_its_gateway(
    stall: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it end when its key has to make room for another."""
    monkeypatch.setattr("api.http.calls._MAX_BUYERS", 1)
    parts, before = parts_of(stall.ledger, stall.parts.broker, stall.parts.wire), watches()
    wanted = {"skill": "fail.hang", "input": {"text": "x"}, "budget": "5000000", "mode": "posted"}
    async with serving(parts) as url:
        for number in range(3):
            other = Site(url, parts, stall.owner, await stall.key(), stall.web)
            sent = {"prefer": "respond-async", "idempotency-key": str(number)}
            assert (await other.ask("POST", "/v1/calls", json=wanted, headers=sent)).status == 202
            await asyncio.sleep(0.3)
        assert watches() == before + 3
    await asyncio.sleep(0)
    assert watches() <= before
