"""What an attacker sends to a ledger, case by case: a stable code, and nothing happens."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import orjson
import pytest
from nacl import bindings

from rahba.encoding import MAX_INT, b64, canonical, unb64
from rahba.envelope import pae, seal
from rahba.errors import RahbaError
from rahba.ids import did_of
from rahba.messages import RECEIPT_TYPE, TX_TYPE
from rahba.money import MAX_FALS
from rahba.note import open_checkpoint, split_note
from tests.fixtures.fuzz_inputs import NOTE, VKEY, Desk, example
from tests.fixtures.wallet import FEE, PureLedger, did, signer_of
from wallet.forms import open_transaction
from wallet.machine import MAX_VALIDITY_MS
from wallet.transactions import (
    MAX_ITEMS,
    MAX_SIGNERS,
    MAX_TX_BYTES,
    Batch,
    Item,
    Transfer,
    read,
    seal_transaction,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
# The eight points whose order divides 8, as every implementation must refuse them for keys.
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)
NON_CANONICAL = (
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
)


@pytest.fixture
def money(pure: PureLedger) -> PureLedger:
    pure.fund("amina", 1_000_000)
    return pure


def code(pure: PureLedger, raw: bytes) -> str:
    """Return what the bytes are told; whatever it is, nothing may change by it."""
    before = (pure.state.total, pure.state.held, len(pure.state.accounts))
    try:
        outcome, _ = pure.apply(raw)
    except RahbaError as error:
        found = error.code
    else:
        found = outcome.code or outcome.outcome
    if found != "logged":
        assert (pure.state.total, pure.state.held, len(pure.state.accounts)) == before
    return found


def payload(pure: PureLedger, **changes: Any) -> dict[str, Any]:
    fields = example(Transfer, "amina", 7, pure.genesis.chain) | {"type": "transfer"}
    return fields | {"valid_until": pure.now + 60_000} | changes


def signed(body: bytes, kind: str = TX_TYPE, name: str = "amina") -> bytes:
    """Sign any bytes whatever, in a well-formed envelope."""
    signer = signer_of(name)
    return canonical(
        {
            "payload": b64(body),
            "payloadType": kind,
            "signatures": [{"keyid": signer.did, "sig": signer.sign(kind, body)}],
        }
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda body: body, "logged"),
        (lambda body: body.replace(b'"amount":"5"', b'"amount":"5","amount":"6"'), "bad_encoding"),
        (lambda body: body.replace(b'"amount":"5"', b'"amount": "5"'), "bad_encoding"),
        (lambda body: b" " + body, "bad_encoding"),
        (lambda body: body + b"\n", "bad_encoding"),
        (lambda body: b"\xef\xbb\xbf" + body, "bad_encoding"),
        (lambda body: body.replace(b'"to"', b'"\\u0074o"'), "bad_encoding"),
        (lambda body: body.replace(b'"to"', '"t\u043e"'.encode()), "unknown_field"),
        (lambda body: body.replace(b'"seq":7', b'"seq":7.0'), "unknown_field"),
        (lambda body: body.replace(b'"seq":7', b'"seq":70e-1'), "unknown_field"),
        (lambda body: body.replace(b'"seq":7', b'"seq":-0'), "unknown_field"),
        (lambda body: body.replace(b'"seq":7', b'"seq":07'), "bad_encoding"),
        (lambda body: body.replace(b'"seq":7', b'"seq":NaN'), "bad_encoding"),
        (lambda body: body.replace(b'"seq":7', b'"seq":1e3'), "unknown_field"),
        (lambda body: body.replace(b'"seq":7', b'"seq":' + b"9" * 5_000), "unknown_field"),
        (lambda body: body.replace(b'"amount":"5"', b'"amount":"\xff"'), "bad_encoding"),
        (lambda body: body.replace(b'"amount":"5"', b'"amount":"\\ud800"'), "bad_encoding"),
        (lambda body: body.replace(b'"amount":"5"', b'"amount":"5\\u0000"'), "bad_amount"),
        (lambda body: b"[" * 20_000, "bad_encoding"),
        (lambda body: b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "unknown_field"),
        (lambda body: b"null", "unknown_field"),
        (lambda body: b"", "bad_encoding"),
        (lambda body: b'{"type":"channel.open"}', "unknown_field"),
    ],
)
def test_bytes_that_are_not_the_one_spelling_are_refused(
    money: PureLedger, change: Any, expected: str
) -> None:
    body = canonical(payload(money))
    found = code(money, signed(change(body)))
    assert found == expected or {found, expected} <= {"bad_encoding", "unknown_field"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.rstrip("=") if text.endswith("=") else text + "=",
        lambda text: text[:40] + "\n" + text[40:],
        lambda text: text[:40] + " " + text[40:],
        lambda text: text.replace("e", "-", 1),
        lambda text: text + "AAAA",
        lambda text: "====" + text,
        lambda text: "",
        lambda text: "é" + text,
    ],
)
def test_base64_has_one_spelling(money: PureLedger, change: Any) -> None:
    for place in ("payload", "sig"):
        envelope = orjson.loads(signed(canonical(payload(money))))
        part = envelope if place == "payload" else envelope["signatures"][0]
        part[place] = change(part[place])
        raw = orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS)
        assert code(money, raw) in {
            "bad_encoding",
            "bad_signature",
            "unknown_field",
        }


def test_no_bit_hides_in_the_last_letter_of_base64(money: PureLedger) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for padding in range(40):
        body = canonical(payload(money, seq=10**padding % MAX_INT + 1))
        envelope = orjson.loads(signed(body))
        text = envelope["payload"]
        if not text.endswith("="):
            continue
        place = len(text.rstrip("=")) - 1
        for letter in letters:
            envelope["payload"] = text[:place] + letter + text[place + 1 :]
            if b64decode(envelope["payload"]) == body and envelope["payload"] != text:
                raw = orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS)
                assert code(money, raw) == "bad_encoding"


@pytest.mark.parametrize("key", SMALL_ORDER + NON_CANONICAL)
def test_a_key_of_small_order_or_in_another_spelling_is_no_account(
    money: PureLedger, key: str
) -> None:
    try:
        name = did_of(bytes.fromhex(key))
    except RahbaError:
        return
    assert code(money, signed(canonical(payload(money, to=name)))) == "unknown_account"
    forged = canonical(
        {
            "payload": b64(canonical(payload(money, account=name))),
            "payloadType": TX_TYPE,
            "signatures": [{"keyid": name, "sig": b64(bytes.fromhex(key) + bytes(32))}],
        }
    )
    assert code(money, forged) in {"unknown_account", "bad_id", "bad_signature"}


def test_a_key_with_a_component_of_small_order_is_no_account(money: PureLedger) -> None:
    """A point of the prime-order group plus one of order 8: neither small nor clean."""
    torsion = bytes.fromhex(SMALL_ORDER[4])
    mixed = bindings.crypto_core_ed25519_add(signer_of("x").public_key, torsion)
    assert code(money, signed(canonical(payload(money, to=did_of(mixed))))) == "unknown_account"


def test_a_malleable_signature_is_refused(money: PureLedger) -> None:
    """S + L verifies the same equation; only S below L is a signature."""
    envelope = orjson.loads(signed(canonical(payload(money))))
    raw = unb64(envelope["signatures"][0]["sig"])
    for times in (1, 2, 15):
        scalar = int.from_bytes(raw[32:], "little") + times * ORDER
        if scalar >= 2**256:
            continue
        envelope["signatures"][0]["sig"] = b64(raw[:32] + scalar.to_bytes(32, "little"))
        assert code(money, canonical(envelope)) == "bad_signature"


def test_a_signature_for_another_type_of_document_is_worth_nothing(money: PureLedger) -> None:
    body = canonical(payload(money))
    signer = signer_of("amina")
    wrong = [
        seal(RECEIPT_TYPE, payload(money), signer),
        signed(body).replace(TX_TYPE.encode(), RECEIPT_TYPE.encode()),
        signed(body, RECEIPT_TYPE).replace(RECEIPT_TYPE.encode(), TX_TYPE.encode()),
        signed(pae(TX_TYPE, body)),
        signed(body, TX_TYPE.upper()),
    ]
    for raw in wrong:
        assert code(money, raw) in {"bad_signature", "bad_encoding", "unknown_field"}


def test_signers_too_many_twice_or_in_another_order_are_refused(money: PureLedger) -> None:
    tx = read(money.sign(Transfer, "amina", to=did("brahim"), amount="5")).record
    names = [f"n{number}" for number in range(MAX_SIGNERS + 1)]
    many = seal_transaction(tx, *(signer_of(name) for name in names))
    assert code(money, many) == "wrong_signers"
    twice = orjson.loads(seal_transaction(tx, signer_of("amina")))
    twice["signatures"] *= 2
    assert code(money, canonical(twice)) == "wrong_signers"
    assert code(money, canonical(twice | {"signatures": []})) == "wrong_signers"
    for order in (["amina", "brahim"], ["brahim", "amina"]):
        raw = seal_transaction(tx, *(signer_of(name) for name in order))
        assert code(money, raw) in {"not_authorised", "unknown_session"}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", "bad_amount"),
        ("00", "bad_amount"),
        ("+5", "bad_amount"),
        ("-5", "bad_amount"),
        ("5.0", "bad_amount"),
        ("\u0665", "bad_amount"),
        (" 5", "bad_amount"),
        (str(2**53), "insufficient_funds"),
        (str(MAX_FALS), "insufficient_funds"),
        (str(MAX_FALS + 1), "bad_amount"),
        (str(2**64), "bad_amount"),
        (str(2**127), "bad_amount"),
        (str(2**128), "bad_amount"),
        ("9" * 1_000, "bad_amount"),
    ],
)
def test_amounts_at_every_border(money: PureLedger, amount: str, expected: str) -> None:
    assert code(money, signed(canonical(payload(money, amount=amount)))) == expected
    assert code(money, signed(canonical(payload(money, fee=amount)))) in {
        expected,
        "insufficient_funds",
        "fee_too_low",
    }


def test_a_batch_of_borders_does_not_overflow(money: PureLedger) -> None:
    items = tuple(Item(to=did("brahim"), amount=str(MAX_FALS)) for _ in range(300))
    assert code(money, money.sign(Batch, "amina", items=items)) == "insufficient_funds"


def test_a_batch_beyond_its_limits_is_refused_whole(money: PureLedger) -> None:
    one = {"to": did("brahim"), "amount": "1"}
    body = payload(money, type="batch", items=[one] * (MAX_ITEMS + 1))
    del body["to"], body["amount"]
    raw = signed_large(body)
    assert len(raw) > MAX_TX_BYTES
    assert code(money, raw) == "too_large"
    small = signed(canonical(body | {"items": []}))
    assert code(money, small) == "unknown_field"


def signed_large(body: dict[str, Any]) -> bytes:
    raw = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    signer = signer_of("amina")
    return orjson.dumps(
        {
            "payload": b64encode(raw).decode(),
            "payloadType": TX_TYPE,
            "signatures": [{"keyid": signer.did, "sig": signer.sign(TX_TYPE, raw)}],
        }
    )


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (-1, "expired"),
        (0, "logged"),
        (MAX_VALIDITY_MS, "logged"),
        (MAX_VALIDITY_MS + 1, "too_early"),
    ],
)
def test_the_time_of_a_transaction_to_the_millisecond(
    money: PureLedger, ahead: int, expected: str
) -> None:
    body = canonical(payload(money, valid_until=money.now + ahead))
    assert code(money, signed(body)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chain": "0" * 16}, "wrong_chain"),
        ({"chain": ""}, "wrong_chain"),
        ({"lane": 2**32}, "unknown_field"),
        ({"lane": 0, "seq": 2}, "nonce_gap"),
        ({"lane": 0, "seq": MAX_INT}, "nonce_gap"),
        ({"seq": MAX_INT}, "logged"),
        ({"account": did("chadia")}, "unknown_session"),
        ({"account": "fees"}, "unknown_account"),
        ({"account": "issuance"}, "unknown_account"),
        ({"to": "fees"}, "unknown_account"),
        ({"to": "did:key:z6Mk"}, "unknown_account"),
        ({"to": did("brahim") + "\0"}, "unknown_account"),
        ({"to": did("brahim").replace("k", "\u212a", 1)}, "unknown_account"),
        ({"to": did("amina")}, "self_payment"),
    ],
)
def test_fields_that_mean_somebody_or_something_else(
    money: PureLedger, change: dict[str, Any], expected: str
) -> None:
    assert code(money, signed(canonical(payload(money, **change)))) == expected


def test_an_integer_beyond_2_to_the_53_is_none(money: PureLedger) -> None:
    for field in ("seq", "valid_until"):
        body = orjson.dumps(payload(money) | {field: 2**53}, option=orjson.OPT_SORT_KEYS)
        assert code(money, signed(body)) == "unknown_field"


def test_what_is_no_text_is_no_note_either() -> None:
    for wrong in ("\ud800", "\x00", "\x7f"):
        with pytest.raises(RahbaError):
            split_note(NOTE.replace("rahba", f"ra{wrong}ba"))
        with pytest.raises(RahbaError):
            open_checkpoint(NOTE, VKEY.replace("rahba", f"ra{wrong}ba"))


def test_every_type_is_refused_for_another_chain_and_signed_by_another_key() -> None:
    desk = Desk()
    for number, form in enumerate(desk.forms):
        fields = example(form, "amina", 100 + number, desk.chain)
        elsewhere = form(**(fields | {"chain": "f" * 16}))
        assert desk.take(seal_transaction(elsewhere, signer_of("amina"))) == "wrong_chain"
        stolen = seal_transaction(form(**fields), signer_of("thief"))
        assert desk.take(stolen) == "unknown_session"
        with pytest.raises(RahbaError):
            open_transaction(
                stolen.replace(did("thief").encode(), did("amina").encode()), desk.chain
            )
    assert FEE
