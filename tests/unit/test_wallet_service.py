"""The sequencer on both stores: every answer it gives, and what it does by itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rahba.clock import ManualClock
from rahba.encoding import b64
from rahba.errors import BadInputError, RahbaError
from rahba.merkle import OutOfRangeError, verify_consistency, verify_inclusion
from rahba.messages import TX_TYPE
from rahba.note import open_checkpoint
from rahba.promise import open_promise
from tests.fixtures.wallet import DEAL, FEE, START_MS, LedgerRig, did, signer_of
from wallet.account import Wallet
from wallet.admission import MAX_QUEUED
from wallet.book import Book
from wallet.errors import (
    HoldExpiredError,
    InsufficientFundsError,
    LedgerCorruptError,
    WrongGenesisError,
)
from wallet.service import Sequencer
from wallet.stores.memory import MemoryStore
from wallet.transactions import StateLeaf, dev_genesis, read, seal_transaction, transaction_id


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while True:
            if await true():
                return
            await asyncio.sleep(0.01)


async def test_a_transfer_is_logged_and_then_seen(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    answer = await amina.transfer(did("brahim"), 4_000)
    assert (answer.outcome, answer.seq) == ("logged", 3)  # after genesis, its state, the faucet
    assert await rig.available("brahim") == 4_000
    found = await rig.ledger.transaction(answer.id)
    assert found is not None
    assert (found.seq, found.payload["to"]) == (3, did("brahim"))
    assert transaction_id(found.raw) == answer.id


@pytest.mark.parametrize("together", [1, 200])
async def test_nothing_is_kept_of_what_was_never_valid(rig: LedgerRig, together: int) -> None:
    """Neither bytes nor errors: whoever sends nonsense must not fill the ledger's memory."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(one, RahbaError) for one in gc.get_objects())

    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10)
    mark = raw.index(b'"sig":"') + 7
    other = b"B" if raw[mark : mark + 1] == b"A" else b"A"
    forged = raw[:mark] + other + raw[mark + 1 :]
    before = kept()
    told: set[str] = set()
    for _ in range(400 // together):
        answers = await rig.ledger.submit_many([b"nonsense", forged] * together)
        told |= {f"{answer.outcome} {answer.code}" for answer in answers}
    del answers
    assert told == {"invalid bad_encoding", "invalid bad_signature"}
    assert kept() - before < 10


async def test_a_replayed_payment_changes_nothing(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10)
    first = await rig.ledger.submit(raw)
    again = await asyncio.gather(*(rig.ledger.submit(raw) for _ in range(8)))
    assert {(answer.outcome, answer.seq, answer.id) for answer in again} == {
        ("exists", first.seq, first.id)
    }
    assert await rig.available("brahim") == 10


async def test_one_authorization_sent_eight_times_at_once_pays_once(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10)
    answers = await asyncio.gather(*(rig.ledger.submit(raw) for _ in range(8)))
    assert sorted(answer.outcome for answer in answers) == ["exists"] * 7 + ["logged"]
    assert len({answer.seq for answer in answers}) == 1
    assert await rig.available("brahim") == 10


async def test_a_replay_after_valid_until_and_a_restart_still_exists(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10)
    first = await rig.ledger.submit(raw)
    rig.clock.advance(3_600_000)
    await rig.reopen()
    await rig.funded("chadia")
    again = await rig.ledger.submit(raw)
    assert (again.outcome, again.seq) == ("exists", first.seq)


async def test_a_transaction_that_came_too_late_is_invalid(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10)
    rig.clock.advance(30_001)
    await rig.reopen()
    answer = await rig.ledger.submit(raw)
    assert (answer.outcome, answer.code) == ("invalid", "expired")


async def test_the_same_lane_and_seq_by_other_bytes_is_a_conflict(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    tx = read(await amina.sign_transfer(did("brahim"), 10)).record
    first, second = (
        seal_transaction(
            type(tx)(**{**_fields(tx), "lane": 0, "seq": 1, "amount": amount}), signer_of("amina")
        )
        for amount in ("10", "20")
    )
    assert (await rig.ledger.submit(first)).outcome == "logged"
    assert (await rig.ledger.submit(second)).outcome == "conflict"
    assert (await rig.ledger.submit(first)).outcome == "exists"


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}  # type: ignore[attr-defined]


async def test_a_refusal_is_remembered_until_valid_until(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 10_000)
    answer = await rig.ledger.submit(raw)
    assert (answer.outcome, answer.code) == ("refused", "insufficient_funds")
    await amina.faucet(1_000_000)
    assert await rig.ledger.submit(raw) == answer
    await rig.reopen()
    assert await rig.ledger.submit(raw) == answer
    assert await rig.available("brahim") == 0


async def test_invalid_submissions_say_why(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    good = await amina.sign_transfer(did("brahim"), 10)
    other = dev_genesis(rig.operator.did, START_MS + 1).chain
    tx = read(good).record
    signature = b64(read(good).signatures[0])
    forged = good.replace(
        signature.encode(), signer_of("amina").sign(TX_TYPE, b"something else").encode()
    )
    cases = {
        b"": "bad_encoding",
        b"x" * 70_000: "too_large",
        good + b" ": "bad_encoding",
        forged: "bad_signature",
        seal_transaction(type(tx)(**{**_fields(tx), "chain": other}), signer_of("amina")): (
            "wrong_chain"
        ),
        seal_transaction(rig.genesis, rig.operator): "reserved_type",
    }
    answers = await rig.ledger.submit_many([*cases, good])
    assert [(answer.outcome, answer.code) for answer in answers[:-1]] == [
        ("invalid", code) for code in cases.values()
    ]
    assert answers[-1].outcome == "logged"


async def test_many_answers_come_in_the_order_of_their_submissions(rig: LedgerRig) -> None:
    amina = await rig.funded("amina")
    raws = [await amina.sign_transfer(did("brahim"), amount) for amount in range(1, 41)]
    answers = await rig.ledger.submit_many(raws)
    assert [answer.id for answer in answers] == [transaction_id(raw) for raw in raws]
    places = [answer.seq for answer in answers if answer.seq is not None]
    assert places == sorted(places)
    assert len(places) == 40


async def test_a_full_queue_says_busy_and_takes_nothing(memory_rig: LedgerRig) -> None:
    amina = await memory_rig.funded("amina")
    raw = await amina.sign_transfer(did("brahim"), 1)
    answers = await memory_rig.ledger.submit_many([raw] * (MAX_QUEUED + 2))
    assert [answer.code for answer in answers[-2:]] == ["busy", "busy"]
    assert answers[0].outcome == "logged"
    assert {answer.outcome for answer in answers[1:-2]} == {"exists"}


async def test_an_expired_hold_is_ended_by_the_ledger_itself(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    brahim = rig.wallet("brahim")
    hold = (await amina.hold(did("brahim"), 5_000, rig.clock.now_ms() + 1_000, DEAL)).id
    await asyncio.sleep(0.25)  # the interval ends, time may move on
    rig.clock.advance(1_000)

    async def released() -> bool:
        view = await rig.ledger.hold(hold)
        return view is not None and view.status == "released"

    await until(released, seconds=2.0)
    assert await rig.available("amina") == 10_000 - FEE
    last = (await rig.ledger.entries(0, 1_000))[-1]
    if last.payload["type"] == "state":
        last = (await rig.ledger.entries(0, 1_000))[-2]
    assert (last.payload["type"], last.payload["account"]) == ("expire", rig.operator.did)
    with pytest.raises(RahbaError) as late:
        await brahim.capture(hold, 5_000)
    assert late.value.code == "hold_resolved"


async def test_a_capture_after_expiry_is_refused_even_before_the_release(rig: LedgerRig) -> None:
    amina, brahim = await rig.funded("amina", 10_000), await rig.funded("brahim")
    hold = (await amina.hold(did("brahim"), 5_000, rig.clock.now_ms() + 1_000, DEAL)).id
    await asyncio.sleep(0.25)
    rig.clock.advance(1_000)
    with pytest.raises(HoldExpiredError):
        await brahim.capture(hold, 5_000)


async def test_an_interval_is_closed_by_a_state_leaf_and_a_checkpoint(rig: LedgerRig) -> None:
    vkey = await rig.ledger.verifier_key()
    before = open_checkpoint(await rig.ledger.checkpoint(), vkey)
    assert before.size == 2
    amina = await rig.funded("amina", 10_000)
    answer = await amina.transfer(did("brahim"), 10)

    async def covered() -> bool:
        return await rig.ledger.inclusion(answer.id) is not None

    await until(covered, seconds=1.0)
    proof = await rig.ledger.inclusion(answer.id)
    assert proof is not None
    after = open_checkpoint(proof.checkpoint, vkey)
    leaf = bytes.fromhex(proof.leaf_hash)
    path = [bytes.fromhex(step) for step in proof.path]
    verify_inclusion(leaf, proof.index, after.size, path, after.root)
    steps = await rig.ledger.consistency(before.size, after.size)
    verify_consistency(
        before.size, after.size, before.root, after.root, [bytes.fromhex(step) for step in steps]
    )
    state = read((await rig.ledger.entries(after.size - 1, 1))[0].raw).record
    assert isinstance(state, StateLeaf)
    assert state.supply == str((await rig.ledger.supply()).issued)
    assert (state.prev_size, state.log_time) == (after.size - 1, START_MS)


async def test_no_proof_goes_beyond_the_latest_checkpoint(memory_rig: LedgerRig) -> None:
    amina = await memory_rig.funded("amina")
    answer = await amina.transfer(did("brahim"), 1)
    assert await memory_rig.ledger.inclusion(answer.id) is None
    with pytest.raises(OutOfRangeError):
        await memory_rig.ledger.consistency(0, 4)
    assert await memory_rig.ledger.inclusion("0" * 64) is None


async def test_without_traffic_nothing_is_written(memory_rig: LedgerRig) -> None:
    await memory_rig.funded("amina")
    await asyncio.sleep(0.3)
    size = memory_rig.ledger.log.size
    memory_rig.clock.advance(10_000)
    await asyncio.sleep(1.1)
    assert memory_rig.ledger.log.size == size


async def test_reading_asks_for_sensible_things(memory_rig: LedgerRig) -> None:
    ledger = memory_rig.ledger
    for start, limit in ((-1, 1), (0, -1)):
        with pytest.raises(BadInputError):
            await ledger.entries(start, limit)
    with pytest.raises(BadInputError):
        await ledger.transaction("not an id")
    assert await ledger.account("nobody") is None
    assert await ledger.hold("0" * 64) is None
    assert await ledger.transaction("0" * 64) is None
    assert await ledger.submit_many([]) == []
    assert await ledger.chain() == ledger.genesis.chain


async def test_what_was_answered_is_there_after_a_restart(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 100_000)
    hold = (await amina.hold(did("brahim"), 5_000, rig.clock.now_ms() + 60_000, DEAL)).id
    await amina.transfer(did("brahim"), 10)
    before = (
        await rig.ledger.account(did("amina")),
        await rig.ledger.hold(hold),
        await rig.ledger.supply(),
    )
    await rig.reopen()
    after = (
        await rig.ledger.account(did("amina")),
        await rig.ledger.hold(hold),
        await rig.ledger.supply(),
    )
    assert after == before
    note = await rig.ledger.checkpoint()
    await rig.reopen()
    assert await rig.ledger.checkpoint() == note


async def test_a_view_never_shows_what_is_not_on_disk(tmp_path: Path) -> None:
    """A store that takes its time; whoever reads meanwhile waits for it."""
    store = SlowStore()
    rig = LedgerRig(lambda: store, ManualClock(START_MS))
    ledger = await rig.open()
    amina = await rig.funded("amina", 10_000)
    sending = asyncio.create_task(amina.transfer(did("brahim"), 10))
    seen_unwritten = 0
    while not sending.done():
        account = await ledger.account(did("brahim"))
        if account is not None and store.size() < 4:
            seen_unwritten += 1
        await asyncio.sleep(0)
    assert seen_unwritten == 0
    assert (await sending).ok
    await ledger.close()


class SlowStore(MemoryStore):
    """Takes 20 ms for an append."""

    def append(self, *group: Any) -> None:
        import time

        time.sleep(0.02)
        super().append(*group)


async def test_an_empty_store_needs_a_genesis_and_a_ledger_its_operator(
    memory_rig: LedgerRig,
) -> None:
    words = {"clock": memory_rig.clock, "ids": memory_rig.ids}
    await memory_rig.ledger.close()
    with pytest.raises(WrongGenesisError, match="needs a genesis"):
        await Sequencer.open(MemoryStore(), genesis=None, operator=memory_rig.operator, **words)
    with pytest.raises(WrongGenesisError, match="another operator"):
        await Sequencer.open(
            memory_rig.make_store(), genesis=None, operator=signer_of("other"), **words
        )
    with pytest.raises(WrongGenesisError, match="another operator"):
        await Sequencer.open(
            MemoryStore(), genesis=memory_rig.genesis, operator=signer_of("other"), **words
        )


async def test_a_fresh_genesis_does_not_replace_the_stored_one(memory_rig: LedgerRig) -> None:
    chain = await memory_rig.ledger.chain()
    memory_rig.genesis = dev_genesis(memory_rig.operator.did, START_MS + 5)
    await memory_rig.reopen()
    assert await memory_rig.ledger.chain() == chain


async def test_a_session_key_pays_from_its_account_within_its_budget(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 1_000_000)
    agent = signer_of("agent")
    expires = rig.clock.now_ms() + 60_000
    await amina.grant(agent.did, 20_000, 20_000, None, ["transfer"], expires)
    spender = Wallet(rig.ledger, agent, account=did("amina"), clock=rig.clock, ids=rig.ids)
    await spender.transfer(did("brahim"), 9_000)
    with pytest.raises(RahbaError) as caught:
        await spender.transfer(did("brahim"), 9_001)
    assert caught.value.code == "budget_exceeded"
    await rig.reopen()
    spender = Wallet(rig.ledger, agent, account=did("amina"), clock=rig.clock, ids=rig.ids)
    await spender.transfer(did("brahim"), 9_000)
    await (rig.wallet("amina")).revoke(agent.did)
    with pytest.raises(RahbaError) as caught:
        await spender.transfer(did("brahim"), 1)
    assert caught.value.code == "unknown_session"


async def test_parallel_spending_never_overdraws(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10 * (FEE + 100))
    results = await asyncio.gather(
        *(amina.transfer(did("brahim"), 100) for _ in range(30)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, InsufficientFundsError)]
    assert len(refused) == 20
    assert await rig.available("brahim") == 1_000
    assert await rig.available("amina") == 0


async def test_an_interval_that_is_full_is_closed_at_once(
    memory_rig: LedgerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    amina = await memory_rig.funded("amina")
    raws = [await amina.sign_transfer(did("brahim"), 1) for _ in range(25)]
    monkeypatch.setattr("wallet.book.MAX_INTERVAL", 10)
    assert {answer.outcome for answer in await memory_rig.ledger.submit_many(raws)} == {"logged"}
    entries = await memory_rig.ledger.entries(2, 100)
    states = [entry.seq for entry in entries if entry.payload["type"] == "state"]
    assert states == [12, 23]
    await memory_rig.reopen()
    assert await memory_rig.available("brahim") == 25


async def test_what_became_of_a_transaction_can_be_asked(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raw = await amina.sign_transfer(did("brahim"), 1)
    name = transaction_id(raw)
    assert (await rig.ledger.status(name)).outcome == "unknown"
    await rig.ledger.submit(raw)
    found = await rig.ledger.status(name)
    assert (found.outcome, found.finality) == ("logged", "durable")
    await rig.ledger.save_witnessed(await rig.ledger.checkpoint(), 1)
    assert (await rig.ledger.status(name)).finality == "durable"
    note, size = await rig.ledger.next_checkpoint(found.seq or 0)
    await rig.ledger.save_witnessed(note, size)
    assert (await rig.ledger.status(name)).finality == "witnessed"
    too_much = await amina.sign_transfer(did("brahim"), 10**9)
    assert (await rig.ledger.submit(too_much)).outcome == "refused"
    told = await rig.ledger.status(transaction_id(too_much))
    assert (told.outcome, told.code) == ("refused", "insufficient_funds")
    await rig.reopen()
    assert (await rig.ledger.status(name)).finality == "witnessed"
    assert await rig.ledger.witnessed() == note


async def test_a_receipt_is_the_operators_word_on_what_is_in_the_log(rig: LedgerRig) -> None:
    amina = await rig.funded("amina", 10_000)
    raws = [await amina.sign_transfer(did("brahim"), amount) for amount in (1, 10**9)]
    paid, refused = await rig.ledger.submit_many(raws, receipt=True)
    assert refused.receipt is None
    assert paid.receipt is not None
    promise = open_promise(paid.receipt, rig.operator.did)
    assert (promise.id, promise.seq) == (transaction_id(raws[0]), paid.seq)
    assert promise.chain == await rig.ledger.chain()
    again = await rig.ledger.submit(raws[0], receipt=True)
    assert (again.outcome, again.receipt) == ("exists", paid.receipt)
    assert (await rig.ledger.submit(raws[0])).receipt is None
    with pytest.raises(RahbaError):
        open_promise(paid.receipt, did("amina"))


async def test_whoever_is_asked_before_signing_may_forbid_it(sqlite_rig: LedgerRig) -> None:
    await sqlite_rig.funded("amina")
    await sqlite_rig.ledger.close()
    asked: list[tuple[int, str]] = []

    async def forbid(book: Book, note: str) -> None:
        asked.append((book.log.size, note))
        raise LedgerCorruptError("somebody saw more")

    store = sqlite_rig.make_store()
    words = {"genesis": None, "clock": sqlite_rig.clock, "ids": sqlite_rig.ids}
    size = store.size()
    with pytest.raises(LedgerCorruptError):
        await Sequencer.open(store, operator=sqlite_rig.operator, before_signing=forbid, **words)
    ledger = await sqlite_rig.open()
    assert asked == [(size, await ledger.checkpoint())]
    assert ledger.log.size == size
    await ledger.close()
