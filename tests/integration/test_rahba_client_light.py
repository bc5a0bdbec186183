"""The light client against a real ledger over HTTP, and against one that lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.cli.counter import Counter
from api.cli.wallet_history import _checked
from api.door import Reply, serve_app
from api.ledger_http import LedgerApp, serve
from rahba.client.light import (
    ForkError,
    Known,
    LedgerSilentError,
    LightClient,
    NotWitnessedError,
    StaleLedgerError,
    compare,
)
from rahba.clock import SystemClock
from rahba.cosignature import cosign, cosigner_key
from rahba.errors import RahbaError
from rahba.merkle import BadProofError
from rahba.note import open_checkpoint, sign_checkpoint
from rahba.policy import read_policy
from rahba.proof import write_proof
from tests.fixtures.serving import serving
from tests.fixtures.wallet import FEE, LedgerRig, did, signer_of
from tests.fixtures.witnesses import PlainLog, words
from wallet.evidence import read_evidence, verify_evidence
from wallet.outbox import Outbox
from wallet.purse import Purse
from wallet.stores.outbox import SqliteOutbox
from wallet.transports.http import HttpLedger
from wallet.wire import plain


@dataclass
class Site:
    url: str
    rig: LedgerRig

    async def client(self, **options: Any) -> LightClient:
        return LightClient(self.url, await self.rig.ledger.verifier_key(), **options)


@pytest.fixture
async def site(sqlite_rig: LedgerRig) -> AsyncIterator[Site]:
    ledger = sqlite_rig.ledger
    async with serving(partial(serve, ledger, "127.0.0.1", 0, log=ledger.log)) as url:
        yield Site(url, sqlite_rig)


async def settled(rig: LedgerRig) -> None:
    await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)


async def test_it_proves_a_balance_and_a_whole_history(site: Site, tmp_path: Path) -> None:
    amina = await site.rig.funded("amina", 100_000)
    for amount in range(1, 30):
        await amina.transfer(did(f"payee {amount % 3}"), amount)
    await settled(site.rig)
    async with await site.client(memory=tmp_path / "seen") as light:
        found = await light.balance(did("amina"))
        assert found.balance == 100_000 - sum(range(1, 30)) - 29 * FEE
        assert len(await light.history(did("amina"))) == 30
        assert len(await light.history(did("payee 0"))) == 9
    assert light.known is not None
    again = await site.client(memory=tmp_path / "seen")
    assert again.known == light.known


async def test_it_remembers_and_advances_only_along_the_same_log(
    site: Site, tmp_path: Path
) -> None:
    await site.rig.funded("amina", 5)
    await settled(site.rig)
    async with await site.client(memory=tmp_path / "seen") as light:
        first = await light.advance()
        assert await light.advance() == first
        await site.rig.funded("brahim", 5)
        await settled(site.rig)
        assert (await light.advance()).size > first.size


async def test_a_payment_and_its_receipt_are_checked(site: Site) -> None:
    amina = await site.rig.funded("amina", 100_000)
    answer = await amina.transfer(did("brahim"), 5)
    await settled(site.rig)
    async with await site.client() as light:
        entry, proof = await light.payment(answer.id)
        receipt = light.receipt(write_proof(proof, entry.raw))
        assert (receipt.index, receipt.entry) == (answer.seq, entry.raw)
        with pytest.raises(RahbaError):
            light.receipt(write_proof(proof, entry.raw).replace(f"index {answer.seq}", "index 1"))


async def test_with_a_policy_only_cosigned_checkpoints_are_believed(site: Site) -> None:
    await site.rig.funded("amina", 5)
    await settled(site.rig)
    key = cosigner_key("w.test/one", did("witness"))
    policy = read_policy(f"witness one {key}\nquorum one\n")
    async with await site.client(policy=policy) as light:
        with pytest.raises(LedgerSilentError):
            await light.advance()
        note = await site.rig.ledger.checkpoint()
        size = open_checkpoint(note, await site.rig.ledger.verifier_key()).size
        await site.rig.ledger.save_witnessed(note, size)
        with pytest.raises(NotWitnessedError):
            await light.advance()
        cosigned = note + cosign(note, "w.test/one", signer_of("witness"), 7)
        await site.rig.ledger.save_witnessed(cosigned, size + 1)
        assert (await light.advance()).size == size


def cosigned(note: str) -> str:
    return note + cosign(note, "w.test/one", signer_of("witness"), 7)


POLICY = read_policy(f"witness one {cosigner_key('w.test/one', did('witness'))}\nquorum one\n")


async def test_with_a_policy_a_balance_counts_once_a_cosigned_checkpoint_extends_it(
    site: Site, tmp_path: Path
) -> None:
    amina = await site.rig.funded("amina", 100_000)
    answer = await amina.transfer(did("brahim"), 5)
    await settled(site.rig)
    ledger, key = site.rig.ledger, await site.rig.ledger.verifier_key()
    memory = tmp_path / "seen"
    async with await site.client(policy=POLICY, timeout_s=0.3, memory=memory) as hasty:
        with pytest.raises(NotWitnessedError):
            await hasty.balance(did("brahim"))
        with pytest.raises(LedgerSilentError):
            await hasty.payment(answer.id)
        assert hasty.known is None
        assert not memory.exists()
    async with await site.client(policy=POLICY, memory=memory) as light:
        asking = asyncio.create_task(light.balance(did("brahim")))
        await asyncio.sleep(0.05)
        assert not asking.done()
        note = cosigned(await ledger.checkpoint())
        await ledger.save_witnessed(note, open_checkpoint(note, key).size)
        assert (await asking).balance == 5
        assert memory.read_text("utf-8") == note
        entry, proof = await light.payment(answer.id)
        assert proof.checkpoint == note
        assert light.receipt(write_proof(proof, entry.raw)).index == answer.seq
        bare = await ledger.inclusion(answer.id)
        assert bare is not None
        with pytest.raises(NotWitnessedError):
            light.receipt(write_proof(bare, entry.raw))


async def test_who_asks_much_at_once_remembers_the_newest(site: Site, tmp_path: Path) -> None:
    amina = await site.rig.funded("amina", 100_000)
    async with await site.client(memory=tmp_path / "seen") as light:
        asking = []
        for amount in range(1, 5):
            await amina.transfer(did("brahim"), amount)
            await settled(site.rig)
            asking += [asyncio.create_task(light.balance(did("brahim"))) for _ in range(5)]
        await asyncio.gather(*asking)
        await light.balance(did("brahim"))
        assert light.known is not None
        assert light.known.checkpoint.size == site.rig.ledger.log.size


@pytest.mark.parametrize("size", [1, 2, 4, 5, 7, 8, None])
async def test_two_histories_leave_evidence_that_a_judge_accepts(
    site: Site, tmp_path: Path, size: int | None
) -> None:
    amina = await site.rig.funded("amina", 100_000)
    for _ in range(8):
        await amina.transfer(did("brahim"), 1)
    await settled(site.rig)
    size, memory = size or site.rig.ledger.log.size, tmp_path / "seen"
    assert size <= site.rig.ledger.log.size > 8
    origin = site.rig.ledger.genesis.origin
    memory.write_text(sign_checkpoint(origin, size, b"\7" * 32, site.rig.operator), "utf-8")
    before = memory.read_bytes()
    async with await site.client(memory=memory) as light:
        with pytest.raises(ForkError):
            await light.advance()
        with pytest.raises(ForkError):
            await light.balance(did("amina"))
    assert memory.read_bytes() == before
    found = read_evidence((tmp_path / "seen.evidence.json").read_text("utf-8"))
    assert verify_evidence(found).operator == site.rig.operator.did


async def test_a_smaller_checkpoint_than_the_remembered_one_is_refused(
    site: Site, tmp_path: Path
) -> None:
    await site.rig.funded("amina", 5)
    await settled(site.rig)
    memory = tmp_path / "seen"
    origin = site.rig.ledger.genesis.origin
    memory.write_text(sign_checkpoint(origin, 10**6, b"\7" * 32, site.rig.operator), "utf-8")
    async with await site.client(memory=memory) as light:
        with pytest.raises(StaleLedgerError):
            await light.advance()
    memory.write_text("nonsense", "utf-8")
    with pytest.raises(RahbaError):
        await site.client(memory=memory)


# A ledger that lies: the real one, with some of its answers changed on the way.


@dataclass
class Liar:
    app: LedgerApp
    path: str = ""
    change: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.path and self.path in scope["path"]:
            sent: list[dict[str, Any]] = []

            async def keep(message: dict[str, Any]) -> None:
                sent.append(message)

            await self.app(scope, receive, keep)
            body = self.change(b"".join(message.get("body", b"") for message in sent))
            from api.door import send_reply

            await send_reply(send, Reply(body))
        else:
            await self.app(scope, receive, send)


@pytest.fixture
async def liar(sqlite_rig: LedgerRig) -> AsyncIterator[tuple[Liar, Site]]:
    app = Liar(LedgerApp(sqlite_rig.ledger, log=sqlite_rig.ledger.log))
    amina = await sqlite_rig.funded("amina", 100_000)
    for amount in range(1, 9):
        await amina.transfer(did("brahim"), amount)
    await settled(sqlite_rig)
    async with serving(partial(serve_app, app, "127.0.0.1", 0)) as url:
        yield app, Site(url, sqlite_rig)


def without(index: int) -> Any:
    def change(body: bytes) -> bytes:
        page = orjson.loads(body)
        if len(page) > index:
            del page[index]
        return orjson.dumps(page)

    return change


@pytest.mark.parametrize("index", [0, 3, 7])
async def test_a_transaction_that_is_left_out_of_a_history_is_missed(
    liar: tuple[Liar, Site], index: int
) -> None:
    app, site = liar
    app.path, app.change = "/history", without(index)
    async with await site.client() as light:
        with pytest.raises(BadProofError):
            await light.history(did("amina"))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("/proof", b'"balance":"', b'"balance":"9'),
        ("/proof", b'"position":2', b'"position":3'),
        ("/checkpoint", b"\n2\n", b"\n3\n"),
    ],
)
async def test_a_changed_answer_is_refused(
    liar: tuple[Liar, Site], path: str, old: bytes, new: bytes
) -> None:
    app, site = liar
    app.path, app.change = path, lambda body: body.replace(old, new, 1)
    async with await site.client() as light:
        if path == "/checkpoint":
            app.change = lambda body: body[:-20] + b"A" + body[-19:]
            with pytest.raises(RahbaError):
                await light.advance()
        else:
            with pytest.raises(RahbaError):
                await light.balance(did("amina"))


async def test_another_accounts_proof_is_not_taken_for_mine(liar: tuple[Liar, Site]) -> None:
    app, site = liar
    async with await site.client() as light:
        other = await light._get(f"/v1/accounts/{did('brahim')}/proof", 10**6)
        app.path, app.change = "/proof", lambda _: other
        with pytest.raises(BadProofError, match="another account"):
            await light.balance(did("amina"))


async def test_an_answer_without_end_or_sense_is_cut_off(liar: tuple[Liar, Site]) -> None:
    app, site = liar
    async with await site.client() as light:
        for body in (b"x" * 70_000, b"", b"{}", b"\xff"):
            app.path, app.change = "/checkpoint", lambda _, body=body: body
            with pytest.raises(RahbaError):
                await light.advance()
        app.path, app.change = "/proof", lambda _: b"[" * 5_000
        with pytest.raises(RahbaError):
            await light.balance(did("amina"))


async def test_a_wallet_reads_no_history_that_goes_round_in_circles(
    liar: tuple[Liar, Site], tmp_path: Path
) -> None:
    app, site = liar
    async with HttpLedger(site.url) as ledger:
        purse = Purse.owner(tmp_path)
        outbox = Outbox(SqliteOutbox(purse.outbox), ledger, clock=SystemClock())
        counter = Counter(purse, ledger, outbox, site.url)
        assert (await _checked(counter, did("amina"), 3)).count == 9
        page = orjson.dumps([plain(tx) for tx in await ledger.history(did("amina"), limit=3)])
        app.path, app.change = "/history", lambda _: page
        async with asyncio.timeout(5):
            with pytest.raises(BadProofError, match="newest first"):
                await _checked(counter, did("amina"), 3)
        await outbox.close()


async def test_nonsense_for_a_proof_leaves_room_for_the_evidence_to_come(
    liar: tuple[Liar, Site], tmp_path: Path
) -> None:
    app, site = liar
    memory, evidence = tmp_path / "seen", tmp_path / "seen.evidence.json"
    ledger, operator = site.rig.ledger, site.rig.operator
    origin, root = ledger.genesis.origin, ledger.log.root_at(7)
    memory.write_text(sign_checkpoint(origin, 7, root, operator), "utf-8")
    app.path, app.change = "/proof/consistency", lambda _: b'{"path":[]}'
    async with await site.client(memory=memory) as light:
        with pytest.raises(ForkError):
            await light.advance()
    assert not evidence.exists()
    assert (tmp_path / "seen.doubtful.json").exists()
    app.path = ""
    memory.write_text(sign_checkpoint(origin, 7, b"\7" * 32, operator), "utf-8")
    async with await site.client(memory=memory) as light:
        with pytest.raises(ForkError):
            await light.advance()
    assert verify_evidence(read_evidence(evidence.read_text("utf-8"))).operator == operator.did


async def test_a_fork_is_told_though_its_evidence_cannot_be_written(
    site: Site, tmp_path: Path
) -> None:
    await site.rig.funded("amina", 5)
    await settled(site.rig)
    memory, ledger = tmp_path / "seen", site.rig.ledger
    forged = sign_checkpoint(ledger.genesis.origin, 2, b"\7" * 32, site.rig.operator)
    memory.write_text(forged, "utf-8")
    (tmp_path / "seen.evidence.json.new").mkdir()
    async with await site.client(memory=memory) as light:
        with pytest.raises(ForkError) as caught:
            await light.advance()
    assert caught.value.facts == {"first": forged, "second": await ledger.checkpoint()}


async def test_a_payment_under_another_name_or_place_is_refused(
    liar: tuple[Liar, Site],
) -> None:
    app, site = liar
    (newest,) = await site.rig.ledger.history(did("amina"), limit=1)
    for old, new in ((f'"seq":{newest.seq}', '"seq":0'), (newest.id, "0" * 64)):
        app.path = "/v1/transactions/"
        app.change = lambda body, old=old, new=new: body.replace(old.encode(), new.encode(), 1)
        async with await site.client() as light:
            with pytest.raises(BadProofError):
                await light.payment(newest.id)


async def test_a_history_that_goes_round_in_circles_is_refused(liar: tuple[Liar, Site]) -> None:
    app, site = liar
    async with await site.client() as light:
        page = await light._get(f"/v1/accounts/{did('amina')}/history?limit=3", 10**6)
        app.path, app.change = "/history", lambda _: page
        with pytest.raises(BadProofError, match="newest first"):
            await light.history(did("amina"))
        renamed = orjson.loads(page)
        renamed[0]["id"] = renamed[1]["id"]
        app.change = lambda _: orjson.dumps(renamed)
        with pytest.raises(BadProofError, match="than it names"):
            await light.history(did("amina"))


# The decision, without any ledger.


def known(log: PlainLog, size: int) -> Known:
    note = log.note(size)
    return Known(open_checkpoint(note, log.vkey), note)


def test_a_fork_carries_both_notes() -> None:
    mine, other = PlainLog(*words(9)), PlainLog(*words(9, "x"))
    with pytest.raises(ForkError) as caught:
        compare(known(mine, 7), known(other, 7), ())
    assert caught.value.facts == {"first": mine.note(7), "second": other.note(7)}
    with pytest.raises(ForkError):
        compare(known(mine, 7), known(other, 9), tuple(other.log.consistency(7, 9)))
    with pytest.raises(StaleLedgerError):
        compare(known(mine, 9), known(mine, 7), ())
    assert compare(known(mine, 7), known(mine, 9), tuple(mine.log.consistency(7, 9)))
    assert not compare(known(mine, 7), known(mine, 7), ())
    assert compare(None, known(other, 3), ())
