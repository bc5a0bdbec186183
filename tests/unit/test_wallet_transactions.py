"""The bytes of transactions: what is read, what can never be valid, and nothing else passes."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.encoding import b64, canonical
from rahba.envelope import open_envelope, seal
from rahba.errors import RahbaError
from rahba.merkle import leaf_hash
from rahba.messages import MESSAGE_TYPE, TX_TYPE
from tests.fixtures.faults import receipt, two_roots
from tests.fixtures.wallet import DEAL, START_MS, PureLedger, did, signer_of
from wallet.errors import (
    ReservedTypeError,
    SelfPaymentError,
    UnknownAccountError,
    WrongChainError,
    WrongSignersError,
)
from wallet.forms import check_form, open_transaction
from wallet.transactions import (
    MAX_TX_BYTES,
    AnyTx,
    Arbitration,
    Batch,
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Faucet,
    Genesis,
    Grant,
    Hold,
    Item,
    KeyRotate,
    Mint,
    PolicySet,
    Release,
    Resolve,
    Revoke,
    Slash,
    Stake,
    StateLeaf,
    Transfer,
    Unstake,
    dev_genesis,
    read,
    seal_transaction,
    transaction_id,
)

EXAMPLES: list[tuple[type[Any], dict[str, Any]]] = [
    (Transfer, {"to": did("brahim"), "amount": "1"}),
    (Batch, {"items": (Item(to=did("brahim"), amount="1"),)}),
    (
        Hold,
        {
            "payee": did("brahim"),
            "amount": "1",
            "expires": START_MS,
            "agreement": DEAL,
            "arbitration": Arbitration(arbiter=did("chadia"), window_ms=60_000, payee_share=5_000),
            "bail": None,
        },
    ),
    (Capture, {"hold": DEAL, "amount": "0", "final": True, "receipt": None}),
    (Release, {"hold": DEAL, "forfeit": "0"}),
    (Faucet, {"amount": "1"}),
    (
        Grant,
        {
            "key": did("agent"),
            "budget": "1",
            "per_tx": "1",
            "payees": (did("brahim"),),
            "types": ("transfer",),
            "expires": START_MS,
        },
    ),
    (Revoke, {"key": did("agent")}),
    (Expire, {"subject": DEAL}),
    (Dispute, {"hold": DEAL}),
    (Challenge, {"hold": DEAL}),
    (
        Deliver,
        {
            "hold": DEAL,
            "receipt": receipt("brahim", "a"),
            "part": 1,
            "parts": 2,
            "output": "AAAA",
        },
    ),
    (Resolve, {"hold": DEAL, "to_payee": "0", "to_payer": "1"}),
    (Stake, {"amount": "1"}),
    (Unstake, {"amount": "1"}),
    (Slash, {"offender": did("operator"), "evidence": two_roots("operator")}),
    (Mint, {"to": did("brahim"), "amount": "1"}),
    (KeyRotate, {"old": did("amina"), "new": did("brahim")}),
    (PolicySet, {"keys": tuple(sorted((did("amina"), did("brahim")))), "threshold": 2}),
]


def test_the_examples_are_of_every_type() -> None:
    assert {form for form, _ in EXAMPLES} == set(get_args(AnyTx))


def fails(raw: bytes, pure: PureLedger) -> str:
    with pytest.raises(RahbaError) as caught:
        open_transaction(raw, pure.genesis.chain)
    return caught.value.code


def body(pure: PureLedger) -> dict[str, Any]:
    payload: dict[str, Any] = orjson.loads(
        read(pure.sign(Transfer, "amina", to=did("brahim"), amount="1")).payload
    )
    return payload


@pytest.mark.parametrize(("form", "fields"), EXAMPLES)
def test_every_type_survives_the_way_to_bytes_and_back(
    pure: PureLedger, form: type[Any], fields: dict[str, Any]
) -> None:
    raw = pure.sign(form, "amina", **fields)
    signed = open_transaction(raw, pure.genesis.chain)
    assert isinstance(signed.record, form)
    assert signed.id == transaction_id(raw) == leaf_hash(raw).hex()
    assert signed.payload == canonical(signed.record) == open_envelope(raw, TX_TYPE).payload
    assert seal_transaction(signed.record, signer_of("amina")) == raw


@pytest.mark.parametrize("place", range(0, 600, 7))
def test_no_byte_can_be_changed(pure: PureLedger, place: int) -> None:
    raw = bytearray(pure.sign(Transfer, "amina", to=did("brahim"), amount="1"))
    place %= len(raw)
    raw[place] ^= 1
    fails(bytes(raw), pure)


def test_a_wrong_signature_is_refused(pure: PureLedger) -> None:
    mine = read(pure.sign(Transfer, "amina", to=did("brahim"), amount="1"))
    other = read(pure.sign(Transfer, "amina", to=did("brahim"), amount="2"))
    raw = mine.raw.replace(*(b64(item.signatures[0]).encode() for item in (mine, other)))
    assert fails(raw, pure) == "bad_signature"


def test_a_signature_for_another_kind_of_document_is_worth_nothing(pure: PureLedger) -> None:
    raw = seal(MESSAGE_TYPE, body(pure), signer_of("amina"))
    assert fails(raw, pure) == "bad_signature"
    assert fails(raw.replace(MESSAGE_TYPE.encode(), TX_TYPE.encode()), pure) == "bad_signature"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b" " + raw,
        lambda raw: raw + b"\n",
        lambda raw: raw.replace(b'","payloadType"', b'", "payloadType"'),
        lambda raw: raw.replace(b"{", b'{"payload":"",', 1),
        lambda raw: raw.replace(b"application/", b"application\\/"),
    ],
)
def test_an_envelope_that_is_not_its_own_re_encoding_is_refused(
    pure: PureLedger, change: Any
) -> None:
    raw = pure.sign(Transfer, "amina", to=did("brahim"), amount="1")
    assert fails(change(raw), pure) == "bad_encoding"


def sign_bytes(payload: bytes) -> bytes:
    signer = signer_of("amina")
    return canonical(
        {
            "payload": b64(payload),
            "payloadType": TX_TYPE,
            "signatures": [{"keyid": signer.did, "sig": signer.sign(TX_TYPE, payload)}],
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda payload: payload.replace(b":", b": ", 1),
        lambda payload: payload.replace(b'{"account"', b'{"seq":9,"account"'),
        lambda payload: b'{"type":"transfer",' + payload[1:],
        lambda payload: payload.replace(b'"lane":4294967295', b'"lane":4294967295.0'),
        lambda payload: payload.replace(b'"amount":"1"', b'"amount":"\\u0031"'),
    ],
)
def test_a_payload_that_is_not_canonical_is_refused_though_signed(
    pure: PureLedger, change: Any
) -> None:
    payload = canonical(body(pure))
    changed = change(payload)
    assert changed != payload
    assert fails(sign_bytes(changed), pure) in {"bad_encoding", "unknown_field"}


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"amount": 1},
        {"amount": None},
        {"lane": -1},
        {"lane": 2**32},
        {"seq": 0},
        {"seq": 2**53},
        {"valid_until": -1},
        {"type": "transfer2"},
        {"fee_payer": 7},
    ],
)
def test_unknown_or_mistyped_fields_are_refused(pure: PureLedger, change: dict[str, Any]) -> None:
    raw = orjson.dumps(body(pure) | change, option=orjson.OPT_SORT_KEYS)
    assert fails(sign_bytes(raw), pure) == "unknown_field"


@pytest.mark.parametrize("field", ["account", "fee_payer", "fee", "lane", "to", "type"])
def test_a_missing_field_is_refused(pure: PureLedger, field: str) -> None:
    fields = body(pure)
    del fields[field]
    assert fails(sign_bytes(canonical(fields)), pure) == "unknown_field"


@pytest.mark.parametrize(
    "amount", ["", "-1", "+1", "01", "1.0", " 1", "1e3", str(2**63), "٣", "0", "9" * 5_000]
)
def test_amounts_are_plain_whole_positive_numbers(pure: PureLedger, amount: str) -> None:
    raw = pure.sign(Transfer, "amina", to=did("brahim"), amount=amount)
    assert fails(raw, pure) == "bad_amount"


def test_an_oversized_transaction_is_refused_before_it_is_decoded(pure: PureLedger) -> None:
    assert fails(b"[" * (MAX_TX_BYTES + 1), pure) == "too_large"
    items = tuple(Item(to=did(f"payee {number}"), amount="1") for number in range(700))
    assert fails(pure.sign(Batch, "amina", items=items), pure) == "too_large"


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 9_000, b'"\\ud800"']
)
def test_rubbish_is_refused(pure: PureLedger, raw: bytes) -> None:
    assert fails(raw, pure) in {"bad_encoding", "unknown_field"}


def test_a_transaction_for_another_chain_is_refused(pure: PureLedger) -> None:
    other = dev_genesis(did("operator"), START_MS + 1)
    raw = pure.sign(Transfer, "amina", to=did("brahim"), amount="1")
    with pytest.raises(WrongChainError):
        open_transaction(raw, other.chain)


@pytest.mark.parametrize("name", ["", "fees", "issuance", "did:key:z6Mk", did("x")[:-1] + "0"])
def test_names_that_are_no_keys_are_unknown_accounts(pure: PureLedger, name: str) -> None:
    with pytest.raises(UnknownAccountError):
        open_transaction(pure.sign(Transfer, "amina", to=name, amount="1"), pure.genesis.chain)
    with pytest.raises(UnknownAccountError):
        open_transaction(
            pure.sign(Transfer, "amina", account=name, to=did("x"), amount="1"),
            pure.genesis.chain,
        )


def test_an_account_does_not_pay_itself(pure: PureLedger) -> None:
    with pytest.raises(SelfPaymentError):
        open_transaction(
            pure.sign(Transfer, "amina", to=did("amina"), amount="1"), pure.genesis.chain
        )


def test_nobody_signs_twice_and_nobody_pays_a_fee_of_their_own_by_co_signature(
    pure: PureLedger,
) -> None:
    words = {"to": did("brahim"), "amount": "1"}
    raw = pure.sign(Transfer, "amina", **words)
    twice = orjson.loads(raw)
    twice["signatures"] *= 2
    own = read(pure.sign(Transfer, "amina", fee_payer=did("amina"), **words)).record
    for wrong in (canonical(twice), seal_transaction(own, signer_of("amina"))):
        with pytest.raises(WrongSignersError):
            check_form(read(wrong), pure.genesis.chain)


@pytest.mark.parametrize(
    ("keys", "threshold"),
    [
        ((did("amina"),), 2),
        (tuple(sorted((did("amina"), did("brahim")), reverse=True)), 1),
        ((did("amina"), did("amina")), 1),
    ],
)
def test_a_policy_that_nobody_or_anybody_could_satisfy_is_refused(
    pure: PureLedger, keys: tuple[str, ...], threshold: int
) -> None:
    raw = pure.sign(PolicySet, "amina", keys=keys, threshold=threshold)
    assert fails(raw, pure) == "bad_threshold"


def test_nobody_decides_in_a_case_of_their_own(pure: PureLedger) -> None:
    fields = dict(EXAMPLES[2][1])
    for name in ("amina", "brahim"):
        arbitration = Arbitration(arbiter=did(name), window_ms=60_000, payee_share=0)
        raw = pure.sign(Hold, "amina", **(fields | {"arbitration": arbitration}))
        assert fails(raw, pure) == "bad_arbitration"


def test_only_the_ledger_writes_its_own_records(pure: PureLedger) -> None:
    state = StateLeaf(log_time=START_MS, prev_size=1, root="", supply="0")
    for record in (pure.genesis, state):
        raw = seal_transaction(record, signer_of("operator"))
        assert read(raw).record == record
        with pytest.raises(ReservedTypeError):
            open_transaction(raw, pure.genesis.chain)


def test_the_chain_is_named_by_every_rule_of_its_genesis(pure: PureLedger) -> None:
    genesis = pure.genesis
    fields = {name: getattr(genesis, name) for name in genesis.__struct_fields__}
    for name, value in fields.items():
        other = Genesis(**(fields | {name: value + (1 if isinstance(value, int) else "0")}))
        assert other.chain != genesis.chain


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_in_is_read_or_refused_by_a_typed_error(raw: bytes) -> None:
    with pytest.raises(RahbaError):
        open_transaction(raw, "0" * 16)
