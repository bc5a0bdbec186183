"""The ledger's views as JSON: what is written reads back, amounts never as numbers."""

from __future__ import annotations

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import BadEncodingError
from rahba.proof import InclusionProof
from wallet.ports import AccountView, Answer, HoldView, SupplyView, TxView
from wallet.transactions import Capture, Recourse, seal_transaction
from wallet.wire import (
    LedgerAnswerError,
    View,
    encode,
    encode_all,
    encode_answers,
    encode_holds,
    encode_theirs,
    read,
)

RECORD = Capture(
    account=Signer(bytes(32)).did,
    chain="0" * 16,
    fee="1000",
    fee_payer=None,
    lane=0,
    seq=1,
    valid_until=60_000,
    hold="ab" * 32,
    amount="5",
    final=True,
    receipt=None,
)
RAW = seal_transaction(RECORD, Signer(bytes(32)))
VIEWS: list[View] = [
    AccountView("did:key:z", 2**63 - 1, 5, {0: 7, 2**32 - 1: 1}, 3),
    AccountView("issuance", -(2**63 - 1), 0),
    HoldView("ab", "payer", "payee", 10, 4, 1_700_000_000_000, "cd", "open"),
    SupplyView(2**63 - 1, 2**63 - 1, 12, 3),
    TxView("ab", 3, RAW, 5),
    InclusionProof(3, "ab", ("cd", "ef"), "note\n"),
    Answer("refused", "ab", None, "insufficient_funds", "2 fals short"),
    HoldView(
        "ab",
        "payer",
        "payee",
        10,
        4,
        1_700_000_000_000,
        "cd",
        "challenged",
        deadline_ms=1_700_000_030_000,
        bail=2,
        recourse=Recourse(window_ms=1_000, answer_ms=3_600_000),
        delivered=31,
    ),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_view_reads_back_as_it_was_written(view: View) -> None:
    assert read(encode(view), type(view)) == view


def test_lists_read_back_as_they_were_written() -> None:
    answers = [Answer("logged", "ab", 3), Answer("retry", "cd", None, "busy")]
    assert read(encode_answers(answers), list[Answer]) == answers
    entries = [view for view in VIEWS if isinstance(view, TxView)]
    assert read(encode_all(entries), list[TxView]) == entries
    holds = [view for view in VIEWS if isinstance(view, HoldView)]
    assert read(encode_holds([*holds, None]), list[HoldView | None]) == [*holds, None]


def test_views_look_the_same_alone_and_in_a_list() -> None:
    entries = [view for view in VIEWS if isinstance(view, TxView)]
    holds = [view for view in VIEWS if isinstance(view, HoldView)]
    assert orjson.loads(encode_all(entries)) == [orjson.loads(encode(view)) for view in entries]
    assert orjson.loads(encode_holds(list(holds))) == [orjson.loads(encode(view)) for view in holds]


@pytest.mark.parametrize(
    "raw",
    [
        b"junk",
        b"{}",
        orjson.dumps({"payload": b64(b'{}},{"id":"FAKE"'), "payloadType": "x", "signatures": []}),
        orjson.dumps({"payload": b64(b"oops"), "payloadType": "x", "signatures": []}),
        orjson.dumps({"payload": "", "payloadType": "x", "signatures": []}),
    ],
)
def test_what_a_ledger_shows_as_a_transaction_and_is_none_is_not_passed_on(raw: bytes) -> None:
    with pytest.raises(LedgerAnswerError):
        encode_theirs([TxView("ab", 3, raw, 5)])
    with pytest.raises(LedgerAnswerError):
        encode(TxView("ab", 3, raw, 5))


def test_what_a_transaction_says_is_taken_from_its_bytes_and_from_nowhere_else() -> None:
    said = orjson.loads(encode_all([TxView("ab", 3, RAW, 5)]))
    assert said[0]["payload"] == msgspec.to_builtins(RECORD)
    said[0]["payload"]["amount"] = "500"
    (view,) = read(orjson.dumps(said), list[TxView])
    assert view.payload == msgspec.to_builtins(RECORD)
    with pytest.raises(BadEncodingError):
        _ = TxView("ab", 3, b"{}", 5).payload


def test_amounts_are_strings_and_what_follows_from_them_is_told() -> None:
    account = orjson.loads(encode(VIEWS[0]))
    assert (account["posted"], account["available"]) == (str(2**63 - 1), str(2**63 - 6))
    supply = orjson.loads(encode(VIEWS[3]))
    assert (supply["issued"], supply["equal"]) == (str(2**63 - 1), True)


@given(st.binary(max_size=60))
def test_what_no_ledger_answers_is_refused(raw: bytes) -> None:
    for form in (AccountView, list[Answer]):
        try:
            read(raw, form)
        except LedgerAnswerError:
            continue
        assert orjson.loads(raw) == []
