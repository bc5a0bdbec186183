"""Connections cut and processes killed in the middle of a payment: paid once, nothing forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.ids import RandomIds
from tests.fixtures.ledger_server import LedgerProcess
from wallet.audit import audit_entries
from wallet.ports import Answer
from wallet.stores.readonly import ReadOnlyLog
from wallet.transactions import EXPIRING_LANE, AnyTx, Faucet, Transfer, seal_transaction
from wallet.transports.http import HttpLedger, LedgerUnreachableError

ALICE, BOB = Signer(bytes([2]) * 32), Signer(bytes([3]) * 32)
CLOCK, IDS = SystemClock(), RandomIds()
ISSUED = 10**9


@pytest.fixture
def process(tmp_path: Path) -> Iterator[LedgerProcess]:
    ledger = LedgerProcess(tmp_path / "ledger.db")
    ledger.start()
    yield ledger
    ledger.kill()


def common(chain: str, signer: Signer) -> dict[str, object]:
    return {
        "account": signer.did,
        "chain": chain,
        "fee": "1000",
        "fee_payer": None,
        "lane": EXPIRING_LANE,
        "seq": IDS.salt(),
        "valid_until": CLOCK.now_ms() + 120_000,
    }


def transfer(chain: str, amount: int) -> bytes:
    tx: AnyTx = Transfer(**common(chain, ALICE), to=BOB.did, amount=str(amount))
    return seal_transaction(tx, ALICE)


async def fund(ledger: HttpLedger) -> str:
    chain = await ledger.chain()
    faucet = seal_transaction(Faucet(**common(chain, ALICE), amount=str(ISSUED)), ALICE)
    assert (await ledger.submit(faucet)).ok
    return chain


class Proxy:
    """A TCP relay that can swallow the answer to a request and cut both connections.

    ``cuts`` is how many answers to submissions are still to be swallowed: the request has
    reached the ledger by then, and the client cannot know.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.cuts = 0
        self.requests = 0
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        relays: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relay = asyncio.create_task(self._relay(reader, writer))
            relays.add(relay)
            relay.add_done_callback(relays.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*relays)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, up = await asyncio.open_connection("127.0.0.1", self.target)
        posted = False

        async def requests() -> None:
            nonlocal posted
            while request := await reader.read(65_536):
                if request.startswith((b"POST", b"GET")):
                    posted = request.startswith(b"POST")
                    self.requests += posted
                up.write(request)

        async def answers() -> None:
            while answer := await upstream.read(65_536):
                if posted and self.cuts:
                    self.cuts -= 1
                    return
                writer.write(answer)

        pumps = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (up, writer):
            end.transport.abort()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def test_an_answer_lost_on_the_way_is_told_as_exists_and_paid_once(
    process: LedgerProcess,
) -> None:
    async with (
        Proxy(process.port).running() as proxy,
        HttpLedger(proxy.url) as ledger,
        HttpLedger(process.url) as direct,
    ):
        chain = await fund(ledger)
        proxy.cuts, proxy.requests = 3, 0
        answer = await ledger.submit(transfer(chain, 7_000))
        assert (answer.outcome, proxy.requests) == ("exists", 4)
        bob = await direct.account(BOB.did)
        assert bob is not None
        assert bob.posted == 7_000


async def test_a_batch_lost_on_the_way_is_paid_once_item_by_item(process: LedgerProcess) -> None:
    async with Proxy(process.port).running() as proxy, HttpLedger(proxy.url) as ledger:
        chain = await fund(ledger)
        proxy.cuts = 1
        raws = [transfer(chain, 1) for _ in range(50)]
        answers = await asyncio.gather(*(ledger.submit(raw) for raw in raws))
        assert [answer.outcome for answer in answers] == ["exists"] * 50
        supply, bob = await ledger.supply(), await ledger.account(BOB.did)
        assert supply.equal
        assert bob is not None
        assert bob.posted == 50


async def test_what_could_not_be_answered_in_time_can_be_asked_later(
    process: LedgerProcess,
) -> None:
    async with (
        Proxy(process.port).running() as proxy,
        HttpLedger(proxy.url, patience_s=0.5) as ledger,
        HttpLedger(process.url) as direct,
    ):
        chain = await fund(ledger)
        proxy.cuts = 1_000
        raw = transfer(chain, 5)
        with pytest.raises(LedgerUnreachableError):
            await ledger.submit(raw)
        proxy.cuts = 0
        assert (await ledger.submit(raw)).outcome == "exists"
        bob = await direct.account(BOB.did)
        assert bob is not None
        assert bob.posted == 5


@pytest.mark.parametrize(
    "rounds",
    [2, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(300)])],
)
async def test_a_ledger_killed_under_load_forgets_nothing_and_pays_nothing_twice(
    process: LedgerProcess, rounds: int
) -> None:
    each = 60
    answers: list[Answer] = []
    async with HttpLedger(process.url, patience_s=20, attempt_s=3) as ledger:
        chain = await fund(ledger)
        for number in range(rounds):
            raws = [transfer(chain, 1) for _ in range(each)]
            payments = [asyncio.create_task(ledger.submit(raw)) for raw in raws]
            await asyncio.sleep(0.002 * (number % 8))
            process.kill()
            restart = asyncio.create_task(asyncio.to_thread(process.start))
            answers += await asyncio.gather(*payments)
            await restart
        assert all(answer.ok for answer in answers)
        assert len({answer.seq for answer in answers}) == rounds * each
        supply, bob = await ledger.supply(), await ledger.account(BOB.did)
        assert supply.equal
        assert supply.issued == ISSUED
        assert bob is not None
        assert bob.posted == rounds * each
    process.kill()
    with ReadOnlyLog(process.path) as log:
        report = audit_entries(log, log.checkpoint)
    assert report.ok, report.problems
    assert report.transactions == rounds * each + 1
    assert report.supply == ISSUED
