"""The tables of holds and stakes are whole, and the docs are drawn from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest

from wallet.errors import HoldResolvedError, PaymentRefusedError
from wallet.moves import ENDS, HOLD, check_move, may_lead
from wallet.state import Status
from wallet.transactions import Capture, Challenge, Deliver, Dispute, Resolve

ROOT = Path(__file__).parents[2]


def test_every_status_knows_every_type_that_names_a_hold() -> None:
    assert set(HOLD) == set(get_args(Status))
    assert len({frozenset(moves) for moves in HOLD.values()}) == 1


def test_nothing_follows_an_end_but_a_challenge_to_a_capture() -> None:
    assert may_lead("captured", Challenge, "challenged")
    for end in ENDS:
        for kind in HOLD[end].keys() - {Challenge, Deliver}:
            with pytest.raises(HoldResolvedError):
                check_move(end, kind)
            assert not any(may_lead(end, kind, to) for to in HOLD)


def test_what_the_table_refuses_is_a_refusal_with_a_code() -> None:
    refused = [there for moves in HOLD.values() for there in moves.values()]
    assert all(
        isinstance(there, tuple) or issubclass(there, PaymentRefusedError) for there in refused
    )
    check_move("open", Capture)
    assert may_lead("open", Dispute, "disputed")
    assert not may_lead("open", Resolve, "captured")
    assert not may_lead("open", Capture, "disputed")


def test_the_docs_are_what_the_tables_say() -> None:
    spec = importlib.util.spec_from_file_location("states", ROOT / "tools" / "state_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = (ROOT / "docs" / "ledger-states.md").read_text("utf-8")
    assert written == tool.document(), "python tools/state_diagrams.py > docs/ledger-states.md"
