"""Whatever is fed to the ledger's parsers and to its machine: typed errors, and nothing changed."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.encoding import canonical
from rahba.errors import RahbaError
from tests.fixtures.fuzz_door import CHOICES, Door
from tests.fixtures.fuzz_inputs import ODD, Desk, example, plain, transactions
from tests.fixtures.wallet import DEAL
from wallet.forms import open_transaction

ROOT = Path(__file__).parents[2]
RUNS = 1_000_000
FUZZERS = 2
DESK = Desk()
SEEDS = transactions(DESK)


@settings(max_examples=1_500, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=3))))
def test_changed_bytes_of_a_transaction_are_refused_or_the_same(
    raw: bytes, changes: list[tuple[int, bytes]]
) -> None:
    changed = bytearray(raw)
    for place, piece in changes:
        at = place % len(changed)
        changed[at : at + len(piece)] = piece
    if bytes(changed) != raw:
        with pytest.raises(RahbaError):
            open_transaction(bytes(changed), DESK.chain)


@settings(max_examples=3_000, deadline=None)
@given(st.binary(max_size=12))
def test_a_signed_transaction_with_any_fields_is_logged_or_changes_nothing(data: bytes) -> None:
    DESK.submit(data)


def test_every_field_of_every_type_stands_every_odd_value() -> None:
    desk, told = Desk(), set()
    for form, kind in enumerate(desk.forms):
        fields = len(kind.__struct_fields__)
        for field in range(fields):
            for value in range(len(ODD)):
                told.add(desk.submit(bytes([form, 0, field, value])))
    assert {"logged", "unknown_field", "bad_amount", "insufficient_funds", "wrong_chain"} <= told


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()


@settings(max_examples=3_000, deadline=None)
@given(
    head=st.binary(min_size=CHOICES, max_size=CHOICES),
    body=st.one_of(st.sampled_from(SEEDS), st.binary(max_size=200)),
)
def test_whatever_the_door_is_asked_it_gives_a_whole_and_typed_answer(
    door: Door, head: bytes, body: bytes
) -> None:
    door.ask(head + body)


def test_every_address_of_the_door_stands_every_query(door: Door) -> None:
    told = {
        door.ask(bytes([method, path, query, 0, 0, places, 0]) + tail)
        for method, path, query, places in itertools.product(range(5), range(14), range(6), (0, 3))
        for tail in (b"7", b"-1", b"\xff\x00", b"9" * 40, DEAL.encode())
    }
    assert {200, 400, 404, 405} <= told


@settings(max_examples=1_500, deadline=None)
@given(
    st.sampled_from(DESK.forms),
    st.dictionaries(st.integers(0, 40), st.sampled_from(ODD), max_size=6),
)
def test_the_canonical_bytes_of_every_type_are_those_of_rfc_8785(
    form: type[Any], changes: dict[int, Any]
) -> None:
    fields = example(form, "amina", 1, DESK.chain)
    names = sorted(fields)
    fields |= {names[place % len(names)]: value for place, value in changes.items()}
    fields = {name: plain(value) for name, value in fields.items()}
    try:
        raw = canonical(fields | {"type": form.__struct_config__.tag})
    except RahbaError:
        return
    assert raw == rfc8785.dumps(orjson.loads(raw))


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_a_million_inputs_guided_by_coverage_crash_nothing_and_change_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or machine")
    with ThreadPoolExecutor(FUZZERS) as pool:
        ran = list(pool.map(_fuzz, [tmp_path / f"{seed}" for seed in range(1, FUZZERS + 1)]))
    assert sum(ran) >= RUNS


def _fuzz(folder: Path) -> int:
    """Run one fuzzer with a corpus and a seed of its own; returns how many inputs it tried."""
    folder.mkdir()
    flags = [f"-runs={-(-RUNS // FUZZERS)}", f"-seed={folder.name}", "-max_len=4096"]
    limits = ["-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fixtures.fuzz_ledger",
            str(folder / "corpus"),
            *flags,
            *limits,
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert found is not None
    return int(found.group(1))
