"""How a hold with a recourse is written, and that one without is written as it always was."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from rahba.encoding import b64
from rahba.envelope import seal
from rahba.errors import BadEncodingError, RahbaError
from rahba.messages import TX_TYPE
from tests.fixtures.wallet import DEAL, FEE, PureLedger, did, signer_of
from wallet.errors import BadRecourseError
from wallet.machine import LOGGED
from wallet.transactions import Arbitration, Hold, Recourse, read

RECOURSE = Recourse(window_ms=30_000, answer_ms=20_000)


def fields_of(pure: PureLedger, **words: Any) -> dict[str, Any]:
    """Return the fields of a hold as JSON has them: without ``recourse``, unless it is given."""
    return {
        "type": "hold",
        "account": did("amina"),
        "chain": pure.genesis.chain,
        "fee": str(FEE),
        "fee_payer": None,
        "lane": 0,
        "seq": 1,
        "valid_until": pure.now + 60_000,
        "payee": did("brahim"),
        "amount": "6000",
        "expires": pure.now + 60_000,
        "agreement": DEAL,
        "arbitration": None,
        "bail": None,
    } | words


def test_a_hold_from_before_there_was_recourse_still_reads(pure: PureLedger) -> None:
    payload = orjson.dumps(fields_of(pure), option=orjson.OPT_SORT_KEYS)
    raw = seal(TX_TYPE, fields_of(pure), signer_of("amina"))
    assert b64(payload) in raw.decode()
    signed = read(raw)
    assert isinstance(signed.record, Hold)
    assert signed.record.recourse is None
    assert pure.sign(Hold, "amina", **_own(signed.record)) == raw
    pure.fund("amina", 20_000)
    assert pure.apply(raw)[0] == LOGGED


def test_an_explicit_null_is_not_how_a_hold_without_a_recourse_is_written(
    pure: PureLedger,
) -> None:
    with pytest.raises(BadEncodingError):
        read(seal(TX_TYPE, fields_of(pure, recourse=None), signer_of("amina")))


def test_a_hold_with_a_recourse_reads_as_it_was_written(pure: PureLedger) -> None:
    words = {"recourse": {"window_ms": 30_000, "answer_ms": 20_000}}
    raw = seal(TX_TYPE, fields_of(pure, **words), signer_of("amina"))
    signed = read(raw)
    assert isinstance(signed.record, Hold)
    assert signed.record.recourse == RECOURSE
    assert pure.sign(Hold, "amina", **_own(signed.record)) == raw


def _own(record: Hold) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


@pytest.mark.parametrize(
    "recourse",
    [
        {"window_ms": 999, "answer_ms": 1_000},
        {"window_ms": 1_000, "answer_ms": 999},
        {"window_ms": 3_600_001, "answer_ms": 1_000},
        {"window_ms": 1_000, "answer_ms": 3_600_001},
        {"window_ms": 1_000},
        {"window_ms": 1_000, "answer_ms": 1_000, "more": 1},
        {},
        False,
    ],
)
def test_the_times_of_a_recourse_are_a_second_to_an_hour(
    pure: PureLedger, recourse: object
) -> None:
    with pytest.raises(RahbaError):
        read(seal(TX_TYPE, fields_of(pure, recourse=recourse), signer_of("amina")))


def test_where_an_arbiter_decides_nothing_is_challenged(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    court = Arbitration(arbiter=did("judge"), window_ms=5_000, payee_share=5_000)
    with pytest.raises(BadRecourseError):
        pure.open_hold(Hold, "amina", "brahim", 600, arbitration=court, recourse=RECOURSE)
