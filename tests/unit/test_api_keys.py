"""API keys: what a token is, and what a stolen store reveals."""

from __future__ import annotations

import msgspec
import pytest

from api.keys import (
    KeyUnknownError,
    find_key,
    issue_key,
    list_keys,
    parse_token,
    revoke_key,
)
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.errors import BadInputError, BadSignatureError
from rahba.ids import RandomIds
from wallet.account import Wallet
from wallet.errors import PaymentRefusedError

IDS, CLOCK = RandomIds(), SystemClock()
A, B = "rhb_dev_" + "a" * 32, "rhb_dev_" + "b" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rhb_dev_",
        A + "a",
        A[:-1],
        A.upper(),
        "rhb__" + "a" * 32,
        A + "\n",
        "rhb_dev_" + "1" * 32,
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(KeyUnknownError):
        parse_token(text)


def test_a_token_never_shows_itself() -> None:
    token = parse_token(A)
    assert A not in f"{token!r} {token.box()!r}"
    assert token.network == "dev"


def test_only_the_token_opens_what_was_sealed_under_it() -> None:
    sealed = parse_token(A).box().seal(b"seed", IDS)
    assert parse_token(A).box().open(sealed) == b"seed"
    for box, text in (
        (parse_token(B).box(), sealed),
        (parse_token(A).box(), sealed[:-8] + "AAAAAAA="),
    ):
        with pytest.raises(BadSignatureError):
            box.open(text)


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    box = parse_token(A).box()
    assert box.seal(b"x", IDS) != box.seal(b"x", IDS)


async def test_a_stored_key_opens_by_its_token_alone(
    gateway_owner: Wallet, gateway_wire: Wire
) -> None:
    text = await issue(gateway_owner, gateway_wire)
    token = parse_token(text)
    record = await find_key(gateway_wire, token.hash)
    assert record is not None
    seed = token.box().open(record.sealed)
    assert Signer(seed).did == record.session
    stored = msgspec.json.encode(record)
    assert text.encode() not in stored
    assert seed not in stored


async def test_a_refused_grant_leaves_no_key(gateway_ledger: object, gateway_wire: Wire) -> None:
    poor = Wallet(gateway_ledger, Signer(bytes.fromhex(IDS.new() * 2)), clock=CLOCK, ids=IDS)  # type: ignore[arg-type]
    with pytest.raises(PaymentRefusedError):
        await issue(poor, gateway_wire)
    assert await list_keys(gateway_wire) == []


async def test_bad_labels_and_past_expiries_are_refused(
    gateway_owner: Wallet, gateway_wire: Wire
) -> None:
    later = CLOCK.now_ms() + 60_000
    for label, expires in (("", later), ("x" * 65, later), ("ok", 1)):
        with pytest.raises(BadInputError):
            await issue_key(gateway_owner, gateway_wire, 1, label, expires)


async def test_only_its_owner_revokes_a_key(gateway_owner: Wallet, gateway_wire: Wire) -> None:
    key_hash = parse_token(await issue(gateway_owner, gateway_wire)).hash
    stranger = Wallet(
        gateway_owner.ledger, Signer(bytes.fromhex(IDS.new() * 2)), clock=CLOCK, ids=IDS
    )
    with pytest.raises(KeyUnknownError):
        await revoke_key(stranger, gateway_wire, key_hash)
    record = await revoke_key(gateway_owner, gateway_wire, key_hash)
    assert record.revoked is not None
    assert [key.revoked for key in await list_keys(gateway_wire)] == [record.revoked]


async def issue(wallet: Wallet, wire: Wire) -> str:
    return await issue_key(wallet, wire, 1_000_000, "label", CLOCK.now_ms() + 60_000)
