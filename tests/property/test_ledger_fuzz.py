"""Whatever is fed to the ledger's parsers and to its machine: typed errors, and nothing changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.errors import RahbaError
from tests.fixtures.fuzz_inputs import ODD, Desk, transactions
from wallet.forms import open_transaction

ROOT = Path(__file__).parents[2]
RUNS = 1_000_000
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


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_a_million_inputs_guided_by_coverage_crash_nothing_and_change_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or machine")
    corpus = tmp_path / "corpus"
    command = [sys.executable, "-m", "tests.fixtures.fuzz_ledger", str(corpus)]
    flags = [f"-runs={RUNS}", "-max_len=4096", "-rss_limit_mb=2048", "-print_final_stats=1"]
    done = subprocess.run(
        [*command, *flags, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert found is not None
    assert int(found.group(1)) >= RUNS
