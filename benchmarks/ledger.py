"""How fast the ledger takes payments, beside what verifying their signatures alone would cost.

The bound is libsodium's verify through PyNaCl, and nothing else, over the same bytes: on as many
threads as the ledger verifies with (rates), and in CPU time (costs, which other load on the
machine spoils less). Bound and ledger take turns, so that both meet the same machine; medians
are reported.

    python -m benchmarks.ledger
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import apsw
import orjson
from nacl import bindings

from api.bootstrap import tune_for_ledger
from benchmarks.rows import Row, row
from rahba.clock import SystemClock
from rahba.envelope import Signer, pae
from rahba.ids import RandomIds, key_of
from rahba.merkle import leaf_hash, verify_inclusion
from rahba.messages import TX_TYPE
from wallet.merkle import MerkleLog
from wallet.ports import Store
from wallet.service import VERIFIERS, Sequencer
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Batch,
    Faucet,
    Item,
    Transfer,
    dev_genesis,
    read,
    seal_transaction,
)

CALL = 125
BATCH = 100
OPERATOR, PAYER = Signer(bytes([1]) * 32), Signer(bytes([2]) * 32)
PAYEES = [Signer(bytes([3, number]) * 16).did for number in range(100)]
CLOCK, IDS = SystemClock(), RandomIds()


@dataclass(frozen=True, slots=True)
class Span:
    """What some work took: seconds on the wall and of CPU (all threads)."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int = 5
    transfers: int = 2_500
    batches: int = 120
    singles: int = 150
    leaves: int = 100_000


class Stopwatch:
    """Measures a ``with`` block."""

    span: Span

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.span = Span(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def run(size: Size | None = None) -> list[Row]:
    """Measure everything; takes some ten seconds."""
    size = size or Size()
    tune_for_ledger()  # as the ledger's own process does
    with tempfile.TemporaryDirectory(prefix="rahba-bench-") as folder:
        rows = asyncio.run(_payments(Path(folder), size))
    return rows + _proofs(size.leaves)


async def open_funded(store: Store) -> Sequencer:
    """Open a new ledger in which the payer has plenty."""
    ledger = await Sequencer.open(
        store,
        genesis=dev_genesis(OPERATOR.did, CLOCK.now_ms()),
        operator=OPERATOR,
        clock=CLOCK,
        ids=IDS,
    )
    faucet = Faucet(**_common(await ledger.chain()), amount=str(10**12))
    answer = await ledger.submit(_sign(faucet))
    assert answer.ok, answer
    return ledger


async def _payments(folder: Path, size: Size) -> list[Row]:
    async with await open_funded(SqliteStore(folder / "ledger.db")) as ledger:
        chain = await ledger.chain()
        rows = await _transfers(ledger, chain, size)
        rows += await _batches(ledger, chain, size.batches)
        rows += await _one_at_a_time(ledger, chain, folder, size.singles)
        supply = await ledger.supply()
        assert supply.equal
    return rows


async def _transfers(ledger: Sequencer, chain: str, size: Size) -> list[Row]:
    bounds, spans = [], []
    with ThreadPoolExecutor(VERIFIERS) as pool:
        for _ in range(size.rounds):
            raws = [transfer(chain, number) for number in range(size.transfers)]
            bounds.append(_verify_all(raws, pool))
            spans.append(await submit_all(ledger, raws))
    rate, cost = _medians(spans, size.transfers)
    bound_rate, bound_cost = _medians(bounds, size.transfers)
    return [
        row(
            "ledger: signed transfers, beside verifying alone on as many threads",
            rate,
            "1/s",
            reference=bound_rate,
            target=0.6,
        ),
        row(
            "ledger: signed transfers a second of one core's time, beside verifying alone",
            1 / cost,
            "1/s",
            reference=1 / bound_cost,
            target=0.8,
        ),
    ]


async def _batches(ledger: Sequencer, chain: str, count: int) -> list[Row]:
    raws = [_batch(chain) for _ in range(count)]
    with ThreadPoolExecutor(VERIFIERS) as pool:
        bound = _verify_all(raws, pool)
    span = await submit_all(ledger, raws)
    name = f"ledger: payments in signed batches of {BATCH}"
    rate = count * BATCH / span.wall_s
    return [
        row(f"{name}, beside verifying alone", rate, "1/s", reference=count * BATCH / bound.wall_s),
        row(name, rate, "1/s", target=500_000),
    ]


async def _one_at_a_time(ledger: Sequencer, chain: str, folder: Path, count: int) -> list[Row]:
    """Each payment waits for its own commit; so does each bare row it is compared with."""
    raws = [transfer(chain, number) for number in range(count)]
    bare = _bare_commits(folder / "bare.db", raws)
    with Stopwatch() as watch:
        for raw in raws:
            assert (await ledger.submit(raw)).ok
    name = "ledger: transfers one at a time, beside bare durable SQLite commits"
    return [row(name, count / watch.span.wall_s, "1/s", reference=count / bare.wall_s)]


def _proofs(count: int) -> list[Row]:
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]
    with Stopwatch() as watch:
        log = MerkleLog(leaves)
    rows = [row("log: append a leaf", watch.span.cpu_s / count * 1e6, "us")]
    places = range(0, count, 97)
    root = log.root()
    with Stopwatch() as watch:
        paths = [log.inclusion(place, count) for place in places]
    label = f"log: inclusion proof, {count} leaves"
    rows.append(row(label, watch.span.cpu_s / len(places) * 1e6, "us"))
    with Stopwatch() as watch:
        for place, path in zip(places, paths, strict=True):
            verify_inclusion(leaves[place], place, count, path, root)
    rows.append(row("log: verify an inclusion", watch.span.cpu_s / len(places) * 1e6, "us"))
    return rows


def _verify_all(raws: list[bytes], pool: ThreadPoolExecutor) -> Span:
    signed = [_signed_bytes(raw) for raw in raws]
    step = -(-len(signed) // VERIFIERS)
    parts = [signed[at : at + step] for at in range(0, len(signed), step)]

    def verify(part: list[tuple[bytes, bytes]]) -> None:
        for message, key in part:
            bindings.crypto_sign_open(message, key)

    with Stopwatch() as watch:
        list(pool.map(verify, parts))
    return watch.span


def _signed_bytes(raw: bytes) -> tuple[bytes, bytes]:
    """Return what libsodium verifies of an envelope, signature first, and the key."""
    signed = read(raw)
    return signed.signatures[0] + pae(TX_TYPE, signed.payload), key_of(signed.signers[0])


async def submit_all(ledger: Sequencer, raws: list[bytes]) -> Span:
    """Submit transactions that are all to be logged."""
    calls = [raws[at : at + CALL] for at in range(0, len(raws), CALL)]
    with Stopwatch() as watch:
        found = await asyncio.gather(*(ledger.submit_many(call) for call in calls))
    outcomes = {answer.outcome for answers in found for answer in answers}
    assert outcomes == {"logged"}, outcomes
    return watch.span


def _bare_commits(path: Path, raws: list[bytes]) -> Span:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, raw BLOB)")
    with Stopwatch() as watch:
        for raw in raws:
            connection.execute("INSERT INTO entries (raw) VALUES (?)", (raw,))
    connection.close()
    return watch.span


def _medians(spans: list[Span], count: int) -> tuple[float, float]:
    """Return the median rate (1/s) and the median CPU cost (s) of one item."""
    rate = statistics.median(count / span.wall_s for span in spans)
    return rate, statistics.median(span.cpu_s / count for span in spans)


def _common(chain: str) -> dict[str, Any]:
    return {
        "account": PAYER.did,
        "chain": chain,
        "fee": "1000",
        "fee_payer": None,
        "lane": EXPIRING_LANE,
        "seq": IDS.salt(),
        "valid_until": CLOCK.now_ms() + 600_000,
    }


def _sign(tx: AnyTx) -> bytes:
    return seal_transaction(tx, PAYER)


def transfer(chain: str, number: int) -> bytes:
    """Sign one small payment to one of the payees."""
    to = PAYEES[number % len(PAYEES)]
    return _sign(Transfer(**_common(chain), to=to, amount="5"))


def _batch(chain: str) -> bytes:
    items = tuple(Item(to=to, amount="5") for to in PAYEES[:BATCH])
    return _sign(Batch(**_common(chain), items=items))


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
