"""How fast the ledger is on PostgreSQL, beside the same ledger on SQLite, in one run.

Both wait for the disk before they acknowledge. They take turns, so that both meet the same
machine; medians are reported. The server is started for the benchmark, as it is installed;
without a server or its driver there are no figures.

    python -m benchmarks.ledger_stores
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from api.bootstrap import tune_for_ledger
from benchmarks.ledger import Stopwatch, open_funded, submit_all, transfer
from benchmarks.rows import Row, row
from rahba.merkle import leaf_hash
from wallet.ports import Entry, Store
from wallet.stores.sqlite import SqliteStore

TARGET = 0.7
GROUP = 1_000
CHECKPOINT_EVERY = 8
Pair = tuple[Store, Store]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    groups: int = 100
    rounds: int = 7
    transfers: int = 2_500


def run(size: Size | None = None) -> list[Row]:
    """Measure both stores, bare and under a ledger; takes some ten seconds."""
    size = size or Size()
    tune_for_ledger()  # as the ledger's own process does
    with both() as stores:
        if stores is None:
            sys.stderr.write("no PostgreSQL: install a server, and 'rahba[postgres]'\n")
            return []
        rows = _appends(stores, size)
    with both() as stores:
        assert stores is not None
        rows += asyncio.run(_payments(stores, size))
    return rows


@contextmanager
def both() -> Iterator[Pair | None]:
    """Give a PostgreSQL database and a SQLite file, both new; nothing if there is no server."""
    try:
        from tools.postgres import running, server_programs  # noqa: PLC0415  # may be missing
        from wallet.stores.postgres import PostgresStore  # noqa: PLC0415  # may be missing
    except ImportError:
        yield None
        return
    programs = server_programs()
    if programs is None:
        yield None
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rahba-bench-"))
        url = stack.enter_context(running(programs))
        stores = PostgresStore(url), SqliteStore(Path(folder) / "ledger.db")
        for store in stores:
            stack.callback(store.close)
        yield stores


def _appends(stores: Pair, size: Size) -> list[Row]:
    """Append groups of entries of the size of a transfer."""
    raw = transfer("0" * 16, 0)
    spans: list[list[float]] = [[], []]
    for store in stores:
        store.acquire()
    for group in range(size.groups):
        entries = [_entry(seq, raw) for seq in range(group * GROUP, (group + 1) * GROUP)]
        note = f"checkpoint {group}" if group % CHECKPOINT_EVERY == 0 else None
        for store, walls in zip(stores, spans, strict=True):
            with Stopwatch() as watch:
                store.append(entries, [], note)
            walls.append(watch.span.wall_s)
    return [_compared(f"stores: PostgreSQL, entries appended {GROUP} a commit", GROUP, spans)]


def _entry(seq: int, raw: bytes) -> Entry:
    mine = raw[:-20] + b"%020d" % seq
    return Entry(seq, mine, leaf_hash(mine), 1_700_000_000_000 + seq, bytes(24))


async def _payments(stores: Pair, size: Size) -> list[Row]:
    """Sequence signed transfers on both."""
    spans: list[list[float]] = [[], []]
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(await open_funded(store)) for store in stores]
        for _ in range(size.rounds):
            for ledger, walls in zip(ledgers, spans, strict=True):
                chain = await ledger.chain()
                raws = [transfer(chain, number) for number in range(size.transfers)]
                walls.append((await submit_all(ledger, raws)).wall_s)
    return [_compared("ledger on PostgreSQL: signed transfers", size.transfers, spans)]


def _compared(name: str, count: int, spans: list[list[float]]) -> Row:
    ours, theirs = (count / statistics.median(walls) for walls in spans)
    return row(f"{name}, beside SQLite", ours, "1/s", reference=theirs, target=TARGET)


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
