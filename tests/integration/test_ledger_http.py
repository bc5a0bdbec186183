"""The ledger behind its HTTP door: a real sequencer on a real file, a real server, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest

from api.ledger_http import MAX_BODY_BYTES, MAX_ITEMS, serve
from api.standby_http import serve_standby
from rahba.clock import SystemClock
from rahba.cosignature import cosign
from rahba.envelope import Signer
from rahba.errors import BadInputError
from rahba.ids import RandomIds
from rahba.merkle import OutOfRangeError, leaf_hash, verify_consistency
from rahba.note import open_checkpoint
from rahba.proof import open_receipt, verify_proof
from tests.fixtures.serving import serving
from wallet.audit import audit_ledger
from wallet.merkle import MerkleLog
from wallet.ports import Store
from wallet.service import Sequencer
from wallet.stores.memory import MemoryStore
from wallet.stores.sqlite import SqliteStore
from wallet.tiles import Tile, split_bundle, split_hashes, tile_path
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Faucet,
    Hold,
    Transfer,
    dev_genesis,
    seal_transaction,
    transaction_id,
)
from wallet.transports.http import HttpLedger, LedgerUnreachableError

OPERATOR, ALICE, BOB = (Signer(bytes([number]) * 32) for number in range(1, 4))
CLOCK, IDS = SystemClock(), RandomIds()
NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
POST = (
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\ncontent-length: %s\r\n\r\n"
)


@dataclass
class House:
    """A served ledger, a client of ours, and one that speaks bare HTTP."""

    url: str
    sequencer: Sequencer
    ledger: HttpLedger
    web: aiohttp.ClientSession
    chain: str

    def _common(self, signer: Signer) -> dict[str, object]:
        return {
            "account": signer.did,
            "chain": self.chain,
            "fee": "1000",
            "fee_payer": None,
            "lane": EXPIRING_LANE,
            "seq": IDS.salt(),
            "valid_until": CLOCK.now_ms() + 60_000,
        }

    def faucet(self, signer: Signer, amount: int = 10**9) -> bytes:
        return self.sign(Faucet(**self._common(signer), amount=str(amount)), signer)

    def transfer(self, signer: Signer, to: str, amount: int) -> bytes:
        return self.sign(Transfer(**self._common(signer), to=to, amount=str(amount)), signer)

    def hold(self, signer: Signer, payee: str, amount: int) -> bytes:
        expires = CLOCK.now_ms() + 60_000
        tx = Hold(
            **self._common(signer),
            payee=payee,
            arbitration=None,
            bail=None,
            amount=str(amount),
            expires=expires,
            agreement="ab" * 32,
        )
        return self.sign(tx, signer)

    @staticmethod
    def sign(tx: AnyTx, signer: Signer) -> bytes:
        return seal_transaction(tx, signer)

    async def covered(self, tx_id: str) -> None:
        """Wait until a checkpoint covers the transaction."""
        async with asyncio.timeout(5):
            while await self.ledger.inclusion(tx_id) is None:  # noqa: ASYNC110  # it is far away
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def served(store: Store) -> AsyncIterator[House]:
    genesis = dev_genesis(OPERATOR.did, CLOCK.now_ms())
    async with (
        await Sequencer.open(
            store, genesis=genesis, operator=OPERATOR, clock=CLOCK, ids=IDS
        ) as sequencer,
        aiohttp.ClientSession() as web,
    ):
        server = partial(serve, sequencer, "127.0.0.1", 0, log=sequencer.log)
        async with serving(server) as url, HttpLedger(url) as ledger:
            yield House(url, sequencer, ledger, web, await ledger.chain())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with served(SqliteStore(tmp_path / "ledger.db")) as house:
        yield house


async def test_money_moves_over_http_and_every_view_shows_it(house: House) -> None:
    faucet, pay = house.faucet(ALICE), house.transfer(ALICE, BOB.did, 5_000)
    hold = house.hold(ALICE, BOB.did, 700)
    answers = await house.ledger.submit_many([faucet, pay, hold])
    assert [answer.outcome for answer in answers] == ["logged"] * 3
    assert (await house.ledger.submit(pay)).outcome == "exists"
    alice, bob = await house.ledger.account(ALICE.did), await house.ledger.account(BOB.did)
    assert alice is not None
    assert bob is not None
    assert (bob.posted, alice.held) == (5_000, 700)
    assert alice.available == 10**9 - 5_000 - 700 - 3_000
    assert await house.ledger.account(Signer(b"x" * 32).did) is None
    found = await house.ledger.hold(transaction_id(hold))
    assert found is not None
    assert (found.amount, found.status) == (700, "open")
    logged = await house.ledger.transaction(transaction_id(pay))
    assert logged is not None
    assert (logged.raw, logged.payload["amount"]) == (pay, "5000")
    assert await house.ledger.transaction("00" * 32) is None
    supply = await house.ledger.supply()
    assert supply.equal
    assert supply.issued == 10**9


async def test_views_over_http_are_those_of_the_sequencer(house: House) -> None:
    pay = house.faucet(ALICE)
    await house.ledger.submit(pay)
    await house.covered(transaction_id(pay))
    near, far = house.sequencer, house.ledger
    for name in ("issuance", "fees", ALICE.did):
        assert await far.account(name) == await near.account(name)
    assert await far.entries(0, 1_000) == await near.entries(0, 1_000)
    assert await far.supply() == await near.supply()
    assert await far.verifier_key() == await near.verifier_key()
    assert await far.inclusion(transaction_id(pay)) == await near.inclusion(transaction_id(pay))
    assert await far.consistency(1, 3) == await near.consistency(1, 3)


async def test_proofs_from_over_http_verify_offline(house: House) -> None:
    key = await house.ledger.verifier_key()
    before = open_checkpoint(await house.ledger.checkpoint(), key)
    raws = [house.faucet(ALICE), *(house.transfer(ALICE, BOB.did, n) for n in range(1, 30))]
    await house.ledger.submit_many(raws)
    await house.covered(transaction_id(raws[-1]))
    for raw in raws:
        proof = await house.ledger.inclusion(transaction_id(raw))
        assert proof is not None
        verify_proof(proof, key)
    async with house.web.get(
        f"{house.url}/v1/log/proof/inclusion",
        params={"tx": transaction_id(raws[7]), "format": "tlog-proof"},
    ) as reply:
        assert open_receipt(await reply.text(), key).entry == raws[7]
    after = open_checkpoint(await house.ledger.checkpoint(), key)
    path = [bytes.fromhex(step) for step in await house.ledger.consistency(before.size, after.size)]
    verify_consistency(before.size, after.size, before.root, after.root, path)


async def test_a_proof_under_the_cosigned_checkpoint_waits_for_it(house: House) -> None:
    raw = house.faucet(ALICE)
    tx_id = transaction_id(raw)
    await house.ledger.submit(raw)
    await house.covered(tx_id)
    place = f"{house.url}/v1/log/proof/inclusion?witnessed=1&format=tlog-proof&tx={tx_id}"
    assert await house.ledger.inclusion(tx_id, witnessed=True) is None
    async with house.web.get(place) as reply:
        assert reply.status == 404
    key = await house.ledger.verifier_key()
    note = await house.ledger.checkpoint()
    cosigned = note + cosign(note, "w.test/one", Signer(bytes([9]) * 32), 7)
    await house.sequencer.save_witnessed(cosigned, open_checkpoint(note, key).size)
    proof = await house.ledger.inclusion(tx_id, witnessed=True)
    assert proof is not None
    assert proof.checkpoint == cosigned
    async with house.web.get(place) as reply:
        text = await reply.text()
    assert text.endswith(cosigned)
    assert open_receipt(text, key).entry == raw


async def test_a_ledger_is_audited_over_http(house: House) -> None:
    older = await house.ledger.checkpoint()
    raws = [house.faucet(ALICE), *(house.transfer(ALICE, BOB.did, n) for n in range(1, 1_200))]
    for start in range(0, len(raws), 400):
        answers = await house.ledger.submit_many(raws[start : start + 400])
        assert all(answer.ok for answer in answers)
    await house.covered(transaction_id(raws[-1]))
    report = await audit_ledger(house.ledger, older=older)
    assert report.ok, report.problems
    assert report.transactions == 1_200
    assert report.supply == 10**9


async def test_the_log_can_be_rebuilt_from_its_tiles(house: House) -> None:
    raws = [house.faucet(ALICE), *(house.transfer(ALICE, BOB.did, n) for n in range(1, 300))]
    await house.ledger.submit_many(raws)
    await house.covered(transaction_id(raws[-1]))
    checkpoint = open_checkpoint(await house.ledger.checkpoint(), await house.ledger.verifier_key())
    last = Tile(None, 1, checkpoint.size - 256)
    entries: list[bytes] = []
    for tile in (Tile(None, 0), last):
        entries += split_bundle(await fetch(house, tile))
    assert set(raws) < set(entries)
    log = MerkleLog(leaf_hash(entry) for entry in entries)
    assert log.root() == checkpoint.root
    hashes = split_hashes(await fetch(house, Tile(0, 0)))
    assert hashes == [leaf_hash(entry) for entry in entries[:256]]
    assert await fetch(house, Tile(1, 0, 1)) == MerkleLog(hashes).root()
    for path in ("tile/0/001", "tile/0/000.p/256", "tile/9/000", "tile/entries/009"):
        async with house.web.get(f"{house.url}/v1/log/{path}") as reply:
            assert reply.status == 404


async def fetch(house: House, tile: Tile) -> bytes:
    async with house.web.get(f"{house.url}/v1/log/{tile_path(tile)}") as reply:
        assert reply.status == 200
        assert "immutable" in reply.headers["cache-control"]
        return await reply.read()


async def test_submissions_of_one_moment_travel_together(house: House) -> None:
    await house.ledger.submit(house.faucet(ALICE))
    posts = 0
    attempt = house.ledger._attempt

    async def counted(*args: object) -> tuple[int, bytes]:
        nonlocal posts
        posts += 1
        return await attempt(*args)

    house.ledger._attempt = counted
    raws = [house.transfer(ALICE, BOB.did, n) for n in range(1, 101)]
    answers = await asyncio.gather(*(house.ledger.submit(raw) for raw in raws))
    assert posts == 1
    assert [answer.id for answer in answers] == [transaction_id(raw) for raw in raws]


async def test_a_call_larger_than_one_post_is_split_and_keeps_its_order(house: House) -> None:
    raws = [house.faucet(ALICE), *(house.transfer(ALICE, BOB.did, 1) for _ in range(1_100))]
    answers = await house.ledger.submit_many(raws)
    assert [answer.outcome for answer in answers] == ["logged"] * 1_101
    numbers = [answer.seq for answer in answers if answer.seq is not None]
    assert numbers == sorted(numbers)


async def test_one_bad_item_spoils_nobody_elses_payment(house: House) -> None:
    good = [house.faucet(ALICE), house.faucet(BOB)]
    bad = [b"", b"{}", b"not json", b"5", b"a\nb", b"\xff\xfe", bytes(1_200_000)]
    answers = await asyncio.gather(*(house.ledger.submit(raw) for raw in (good[0], *bad, good[1])))
    assert [answer.outcome for answer in answers] == ["logged", *["invalid"] * 7, "logged"]
    assert all(answer.code for answer in answers[1:-1])


async def test_a_refusal_is_told_with_its_code(house: House) -> None:
    poor = house.transfer(BOB, ALICE.did, 5)
    answer = await house.ledger.submit(poor)
    assert (answer.outcome, answer.code) == ("refused", "insufficient_funds")
    async with house.web.post(f"{house.url}/v1/transactions", data=poor, headers=JSON) as reply:
        problem = await reply.json(content_type="application/problem+json")
        assert reply.status == problem["status"] == 422
        assert (problem["code"], problem["outcome"]) == ("insufficient_funds", "refused")
        assert problem["id"] == transaction_id(poor)


async def test_one_envelope_an_array_and_ndjson_are_all_taken(house: House) -> None:
    raws = [house.faucet(ALICE, n) for n in range(10_000, 10_006)]
    array = b" [" + b" ,\n".join(raws[1:3]) + b"] "
    posts = [
        (b"\n " + raws[0] + b" \n", JSON),
        (array, {"content-type": "application/json; charset=utf-8"}),
        (b"\n".join(raws[3:5]), NDJSON),
        (raws[5] + b"\n\n", NDJSON),
    ]
    outcomes = []
    for body, headers in posts:
        async with house.web.post(
            f"{house.url}/v1/transactions", data=body, headers=headers
        ) as reply:
            assert reply.status == 200
            answer = orjson.loads(await reply.read())
            outcomes += answer if isinstance(answer, list) else [answer]
    assert [outcome["outcome"] for outcome in outcomes] == ["logged"] * 6
    assert [outcome["id"] for outcome in outcomes] == [transaction_id(raw) for raw in raws]


async def test_an_array_with_one_bad_item_takes_the_others(house: House) -> None:
    good = house.faucet(ALICE)
    items = [b'{"payload":"","payloadType":"","signatures":[]}', b"null", good, b"[[]]", b'"x"']
    async with house.web.post(
        f"{house.url}/v1/transactions", data=b"[" + b",".join(items) + b"]", headers=JSON
    ) as reply:
        assert reply.status == 200
        outcomes = [answer["outcome"] for answer in orjson.loads(await reply.read())]
    assert outcomes == ["invalid", "invalid", "logged", "invalid", "invalid"]


WRONG = [
    (b"{", JSON, 400, "bad_encoding"),
    (b"", JSON, 400, "bad_encoding"),
    (b"[", JSON, 400, "bad_encoding"),
    (b"[1,]", JSON, 400, "bad_encoding"),
    (b"[\xff]", JSON, 400, "bad_encoding"),
    (b"[" * 100_000, JSON, 400, "bad_encoding"),
    (b'{"a":' * 10_000, JSON, 400, "unknown_field"),
    (b" " * 70_000 + b"{" + b" " * 70_000 + b"}", JSON, 400, "too_large"),
    (b"[" + b"1," * MAX_ITEMS + b"1]", JSON, 413, "too_large"),
    (b"1\n" * (MAX_ITEMS + 1), NDJSON, 413, "too_large"),
    (b" " * (MAX_BODY_BYTES + 1), JSON, 413, "too_large"),
    (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    (b"{}", {"content-type": ""}, 415, "unsupported_media_type"),
]


async def test_wrong_content_is_the_callers_fault(house: House) -> None:
    for body, headers, status, code in WRONG:
        async with house.web.post(
            f"{house.url}/v1/transactions", data=io.BytesIO(body), headers=headers
        ) as reply:
            assert reply.content_type == "application/problem+json"
            problem = orjson.loads(await reply.read())
            assert (reply.status, problem["code"]) == (status, code), body[:50]
    assert (await house.ledger.submit(house.faucet(ALICE))).ok


async def test_a_body_without_a_declared_length_has_the_same_limit(house: House) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    async with house.web.post(
        f"{house.url}/v1/transactions", data=endless(), headers=JSON
    ) as reply:
        assert reply.status == 413


ADDRESSES = [
    ("GET", "/", 404),
    ("GET", "/v1", 404),
    ("GET", "/v1/nothing", 404),
    ("GET", "/v1/transactions", 405),
    ("DELETE", "/v1/transactions", 405),
    ("POST", "/v1/accounts/fees", 405),
    ("POST", "/v1/supply", 405),
    ("GET", "/v1/transactions/nothing", 404),
    ("GET", "/v1/transactions/%00%ff", 404),
    ("GET", "/v1/holds/" + "0" * 64, 404),
    ("GET", "/v1/accounts/nobody", 404),
    ("GET", "/v1/accounts/", 404),
    ("GET", "/v1/accounts/" + "x" * 300, 413),
    ("GET", "/v1/entries?start=-1", 400),
    ("GET", "/v1/entries?start=x", 400),
    ("GET", "/v1/entries?start=9999999999999999999999", 400),
    ("GET", "/v1/entries?limit=0", 200),
    ("GET", "/v1/entries?start=999999&limit=5", 200),
    ("GET", "/v1/entries?" + "a=1&" * 20, 400),
    ("GET", "/v1/entries?" + "a" * 2_000, 413),
    ("GET", "/v1/log/proof/inclusion", 404),
    ("GET", "/v1/log/proof/inclusion?tx=" + "0" * 64 + "&format=tlog-proof", 404),
    ("GET", "/v1/log/proof/consistency", 400),
    ("GET", "/v1/log/proof/consistency?old=1&new=999999", 404),
    ("GET", "/v1/log/proof/consistency?old=2&new=1", 404),
    ("GET", "/v1/log/tile/../../etc/passwd", 404),
    ("GET", "/v1/log/tile/0/000.p/255", 404),
    ("GET", "/healthz", 200),
]


async def test_every_address_answers_with_a_typed_status(house: House) -> None:
    for method, path, status in ADDRESSES:
        async with house.web.request(method, house.url + path) as reply:
            body = await reply.read()
            assert reply.status == status, path
            if status >= 400:
                assert reply.content_type == "application/problem+json"
                assert orjson.loads(body)["code"]


BROKEN = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET /v1/accounts/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/entries?start=\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    POST % (b"application/json", b"-5") + b"{}",
    POST % (b"\xff", b"2") + b"{}",
    POST % (b"application/json", b"50") + b"{",
]


async def test_broken_http_never_hurts_the_server(house: House) -> None:
    host, port = house.url.removeprefix("http://").split(":")
    for sent in BROKEN:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(65_536), 5)
        assert b" 500 " not in answer.split(b"\r\n", 1)[0], sent
        writer.close()
        await writer.wait_closed()
    async with house.web.get(f"{house.url}/healthz") as reply:
        assert reply.status == 200


async def test_questions_beyond_the_log_are_typed_errors_in_the_client(house: House) -> None:
    with pytest.raises(OutOfRangeError):
        await house.ledger.consistency(1, 999_999)
    with pytest.raises(BadInputError):
        await house.ledger.entries(-1, 5)


async def test_a_ledger_whose_disk_is_full_is_unhealthy_and_loses_no_answer() -> None:
    async with served(MemoryStore(limit=6)) as house:
        async with HttpLedger(house.url, patience_s=0.5) as ledger:
            assert (await ledger.submit(house.faucet(ALICE))).ok
            with pytest.raises(LedgerUnreachableError):
                await ledger.submit_many([house.transfer(ALICE, BOB.did, 1) for _ in range(9)])
        async with house.web.get(f"{house.url}/healthz") as reply:
            problem = orjson.loads(await reply.read())
            assert (reply.status, problem["code"]) == (503, "ledger_unavailable")
            assert reply.headers["retry-after"] == "1"


async def test_an_unreachable_ledger_is_told_after_patience_is_over() -> None:
    async with HttpLedger("http://127.0.0.1:9", patience_s=0.3) as ledger:
        with pytest.raises(LedgerUnreachableError) as caught:
            await ledger.submit(b"{}")
        assert caught.value.retryable
        with pytest.raises(LedgerUnreachableError):
            await ledger.supply()


async def test_closing_the_client_tells_everybody_who_waits(house: House) -> None:
    ledger = HttpLedger("http://127.0.0.1:9", patience_s=60)
    waiting = [asyncio.create_task(ledger.submit(b"%d" % number)) for number in range(9)]
    await asyncio.sleep(0.1)
    await ledger.close()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, LedgerUnreachableError) for error in told)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8701", "ftp://x", "http://", "http://x?y=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInputError):
        HttpLedger(url)


async def test_a_client_asks_whoever_serves_the_ledger(house: House) -> None:
    """One address is dead, one is a standby's: the third one answers."""
    async with serving(partial(serve_standby, "127.0.0.1", 0)) as waiting:
        async with house.web.get(f"{waiting}/healthz") as reply:
            assert (reply.status, (await reply.json(content_type=None))["code"]) == (503, "standby")
            assert reply.headers["retry-after"] == "1"
        urls = f"http://127.0.0.1:9,{waiting}/, {house.url}"
        async with HttpLedger(urls, patience_s=5) as ledger:
            answers = await asyncio.gather(
                *(ledger.submit(house.faucet(Signer(bytes([9, n]) * 16))) for n in range(20))
            )
            assert {answer.outcome for answer in answers} == {"logged"}
            assert (await ledger.supply()).equal
        async with HttpLedger(f"http://127.0.0.1:9,{waiting}", patience_s=0.3) as ledger:
            with pytest.raises(LedgerUnreachableError):
                await ledger.chain()
