"""An outbox knows what it sent, whatever happens between writing down, sending and hearing."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from rahba.errors import BadInputError, BadSignatureError
from tests.fixtures.line import Line
from tests.fixtures.wallet import FEE, LedgerRig, did, signer_of
from wallet.account import Wallet
from wallet.errors import InsufficientFundsError, PaymentUnknownError, WrongChainError
from wallet.outbox import (
    Keep,
    Letter,
    Outbox,
    OutboxError,
    OutboxFullError,
    PaymentKeyReusedError,
    Settle,
)
from wallet.ports import Answer
from wallet.stores.outbox import SqliteOutbox
from wallet.transactions import transaction_id

FUNDS = 100_000


@pytest.fixture
async def line(memory_rig: LedgerRig) -> Line:
    await memory_rig.funded("amina", FUNDS)
    return Line(memory_rig)


@pytest.fixture
async def outbox(line: Line, tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = opened(line, tmp_path)
    yield outbox
    await outbox.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteOutbox]:
    store = SqliteOutbox(tmp_path / "letters.sqlite", max_unknown=3, max_settled=2)
    yield store
    store.close()


def opened(line: Line, folder: Path, **options: Any) -> Outbox:
    store = SqliteOutbox(folder / "outbox.sqlite")
    return Outbox(store, line, clock=line.rig.clock, **({"patience_s": 0.05} | options))


def wallet_on(line: Line, outbox: Outbox) -> Wallet:
    rig = line.rig
    return Wallet(line, signer_of("amina"), clock=rig.clock, ids=rig.ids, outbox=outbox)


async def paid(line: Line) -> int:
    return await line.rig.available("brahim")


async def test_the_bytes_are_on_disk_before_they_are_sent(line: Line, tmp_path: Path) -> None:
    seen: list[Letter] = []

    class Watched(Line):
        async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
            other = SqliteOutbox(tmp_path / "outbox.sqlite")
            seen.extend(other.unknown(10))
            other.close()
            return await super().submit(raw, receipt=receipt)

    outbox = opened(Watched(line.rig), tmp_path)
    answer = await wallet_on(line, outbox).transfer(did("brahim"), 10)
    assert [(letter.id, transaction_id(letter.raw)) for letter in seen] == [(answer.id, answer.id)]
    assert await outbox.unknown() == []
    kept = await outbox.find(answer.id)
    assert kept is not None
    assert kept.answer == answer
    assert kept.receipt is not None
    await outbox.close()


async def test_what_nobody_answered_for_is_listed_and_settled_later_and_paid_once(
    line: Line, outbox: Outbox
) -> None:
    line.lose_answers = 10_000
    wallet = wallet_on(line, outbox)
    with pytest.raises(PaymentUnknownError) as caught:
        await wallet.transfer(did("brahim"), 10)
    (letter,) = await outbox.unknown()
    assert letter.id == caught.value.facts["id"]
    assert letter.answer is None
    still = await outbox.resume()
    assert [(each.id, error.code) for each, error in still.unknown] == [
        (letter.id, "payment_unknown")
    ]
    line.lose_answers = 0
    assert [answer.outcome for answer in (await outbox.resume()).settled] == ["exists"]
    assert await outbox.unknown() == []
    assert await paid(line) == 10
    assert set(line.sent) == {letter.raw}


async def test_a_payment_that_was_kept_and_never_sent_is_made_by_resuming(
    line: Line, outbox: Outbox, tmp_path: Path
) -> None:
    raw = await line.rig.wallet("amina").sign_transfer(did("brahim"), 10)
    letter = Letter(transaction_id(raw), raw, None, 0)
    SqliteOutbox(tmp_path / "outbox.sqlite").write([Keep(letter)])
    assert [answer.outcome for answer in (await outbox.resume()).settled] == ["logged"]
    assert await paid(line) == 10


async def test_a_payment_whose_time_is_over_is_known_never_to_be_made(
    line: Line, outbox: Outbox
) -> None:
    line.lose_requests = 10_000
    with pytest.raises(PaymentUnknownError):
        await wallet_on(line, outbox).transfer(did("brahim"), 10)
    line.lose_requests = 0
    ledger = line.rig.ledger
    await ledger.next_checkpoint(ledger.log.size - 1)  # ledger time stands still within an interval
    line.rig.clock.advance(40_000)
    (answer,) = (await outbox.resume()).settled
    assert (answer.outcome, answer.code) == ("invalid", "expired")
    assert await paid(line) == 0


async def test_a_refusal_is_sure_and_raised_every_time(line: Line, outbox: Outbox) -> None:
    wallet = wallet_on(line, outbox)
    raw = await wallet.sign_transfer(did("brahim"), 10 * FUNDS)
    for _ in range(2):
        with pytest.raises(InsufficientFundsError):
            await wallet.send(raw)
    assert await outbox.unknown() == []
    assert len(line.sent) == 1, "what is sure is not asked again"


async def test_a_payments_key_pays_once(line: Line, outbox: Outbox) -> None:
    wallet = wallet_on(line, outbox)
    line.lose_answers = 10_000
    with pytest.raises(PaymentUnknownError):
        await wallet.send(await wallet.sign_transfer(did("brahim"), 10), key="invoice 17")
    line.lose_answers = 0
    for _ in range(2):
        again = await wallet.send(await wallet.sign_transfer(did("brahim"), 10), key="invoice 17")
        assert again.ok
    assert await paid(line) == 10
    assert len(set(line.sent)) == 1
    with pytest.raises(PaymentKeyReusedError):
        await wallet.send(await wallet.sign_transfer(did("brahim"), 11), key="invoice 17")
    await wallet.send(await wallet.sign_transfer(did("brahim"), 11), key="invoice 18")
    assert await paid(line) == 21


async def test_a_key_whose_payment_is_known_to_have_failed_may_pay(
    line: Line, outbox: Outbox
) -> None:
    wallet = wallet_on(line, outbox)
    with pytest.raises(InsufficientFundsError):
        await wallet.send(await wallet.sign_transfer(did("brahim"), FUNDS), key="rent")
    await line.rig.wallet("amina").faucet(FUNDS)
    assert (await wallet.send(await wallet.sign_transfer(did("brahim"), FUNDS), key="rent")).ok
    assert await paid(line) == FUNDS


async def test_a_key_without_an_outbox_or_of_no_length_is_refused(
    line: Line, outbox: Outbox
) -> None:
    wallet = line.rig.wallet("amina")
    raw = await wallet.sign_transfer(did("brahim"), 10)
    with pytest.raises(BadInputError, match="outbox"):
        await wallet.send(raw, key="invoice")
    for key in ("", "x" * 256):
        with pytest.raises(BadInputError):
            await outbox.send(raw, key=key)
    assert line.sent == []


async def test_a_thousand_payments_at_once_are_all_kept_and_paid(
    line: Line, outbox: Outbox
) -> None:
    await line.rig.wallet("amina").faucet(2_000 * FEE)
    wallet = wallet_on(line, outbox)
    await asyncio.gather(*(wallet.transfer(did("brahim"), 1) for _ in range(1_000)))
    assert await paid(line) == 1_000
    assert await outbox.unknown() == []


async def test_a_ledger_of_another_chain_settles_nothing(
    line: Line, outbox: Outbox, tmp_path: Path
) -> None:
    line.lose_answers = 10_000
    with pytest.raises(PaymentUnknownError):
        await wallet_on(line, outbox).transfer(did("brahim"), 10)

    class Other(Line):
        async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
            return Answer("invalid", transaction_id(raw), code="wrong_chain")

    elsewhere = opened(Other(line.rig), tmp_path)
    ((letter, error),) = (await elsewhere.resume()).unknown
    assert isinstance(error, WrongChainError)
    assert await outbox.unknown() == [letter]
    await elsewhere.close()


async def test_a_letter_whose_ledger_is_gone_is_forgotten_when_its_owner_says_so(
    line: Line, outbox: Outbox
) -> None:
    line.lose_requests = 10_000
    with pytest.raises(PaymentUnknownError) as caught:
        await wallet_on(line, outbox).transfer(did("brahim"), 10)
    name = str(caught.value.facts["id"])
    await outbox.forget(name)
    assert await outbox.unknown() == []
    kept = await outbox.find(name)
    assert kept is not None
    assert (kept.outcome, kept.code) == ("invalid", "forgotten")
    with pytest.raises(OutboxError):
        await outbox.forget("0" * 64)


async def test_an_operator_that_gives_no_receipt_settles_nothing(
    line: Line, tmp_path: Path
) -> None:
    class Silent(Line):
        async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
            return await super().submit(raw)

    outbox = opened(Silent(line.rig), tmp_path)
    with pytest.raises(BadSignatureError):
        await wallet_on(line, outbox).transfer(did("brahim"), 10)
    assert len(await outbox.unknown()) == 1
    await outbox.close()


async def test_an_unreachable_ledger_leaves_every_letter_as_it_is(
    line: Line, tmp_path: Path
) -> None:
    raw = await line.rig.wallet("amina").sign_transfer(did("brahim"), 10)
    outbox = opened(line, tmp_path)
    await line.rig.ledger.close()
    with pytest.raises(PaymentUnknownError):
        await outbox.send(raw)
    assert [letter.raw for letter in await outbox.unknown()] == [raw]
    await outbox.close()


def letter(number: int, key: str | None = None) -> Letter:
    return Letter(f"{number:064x}", b"raw %d" % number, key, number)


def settle(number: int, outcome: Any = "logged") -> Settle:
    return Settle(Answer(outcome, f"{number:064x}", number), number)


def test_an_outbox_is_private_and_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "wallets" / "outbox.sqlite"
    first = SqliteOutbox(path)
    first.write([Keep(letter(1, "rent")), Keep(letter(2)), settle(2)])
    first.close()
    first.close()
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
    again = SqliteOutbox(path)
    assert again.unknown(10) == [letter(1, "rent")]
    found = again.find(letter(2).id)
    assert found is not None
    assert (found.outcome, found.seq, found.settled_ms) == ("logged", 2, 2)
    again.close()


def test_an_outbox_has_room_for_so_many_unknown_letters(store: SqliteOutbox) -> None:
    results = store.write([Keep(letter(number)) for number in range(5)])
    assert [isinstance(each, OutboxFullError) for each in results] == [False] * 3 + [True] * 2
    assert len(store.unknown(10)) == 3
    assert store.unknown(1) == [letter(0)]
    store.write([settle(0)])
    assert store.write([Keep(letter(9))]) == [letter(9)]


def test_only_the_newest_settled_letters_are_kept(store: SqliteOutbox) -> None:
    for number in range(6):
        store.write([Keep(letter(number)), settle(number)])
    store.write([Keep(letter(9))])
    kept = [number for number in range(10) if store.find(letter(number).id) is not None]
    assert kept == [4, 5, 9]


def test_the_first_sure_answer_stands(store: SqliteOutbox) -> None:
    store.write([Keep(letter(1)), settle(1)])
    (after,) = store.write([settle(1, "refused")])
    assert isinstance(after, Letter)
    assert after.outcome == "logged"
    (stranger,) = store.write([settle(7)])
    assert isinstance(stranger, OutboxError)


def test_letters_and_keys_are_kept_once_for_all_processes(tmp_path: Path) -> None:
    first, second = (SqliteOutbox(tmp_path / "outbox.sqlite") for _ in range(2))
    first.write([Keep(letter(1, "rent"))])
    assert second.write([Keep(letter(1)), Keep(letter(2, "rent"))]) == [letter(1, "rent")] * 2
    first.write([settle(1, "refused")])
    assert second.write([Keep(letter(2, "rent"))]) == [letter(2, "rent")]
    assert first.unknown(10) == [letter(2, "rent")]
    for each in (first, second):
        each.close()
        with pytest.raises(OutboxError, match="closed"):
            each.unknown(1)


def test_what_is_no_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but a text that is long enough" * 50)
    newer = apsw.Connection(str(tmp_path / "newer"))
    newer.execute("PRAGMA user_version = 9; CREATE TABLE t (x)")
    newer.close()
    for name in ("text", "newer", "."):
        with pytest.raises(OutboxError):
            SqliteOutbox(tmp_path / name)


def test_a_full_disk_writes_nothing(store: SqliteOutbox) -> None:
    assert store._file is not None
    store._file.execute("PRAGMA max_page_count = 1").fetchall()
    big = letter(1)._replace(raw=b"x" * 1_000_000)
    with pytest.raises(OutboxError):
        store.write([Keep(letter(2)), Keep(big)])
    assert store.unknown(10) == []
