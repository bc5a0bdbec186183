"""The owner of a local market: a wallet with faucet money and an API key to spend it with.

Made once a data folder: ``owner.key`` (the seed, mode 0600) and ``api-key`` (mode 0600). On a
network without faucet the wallet stays empty until somebody pays into it. When the wallet's key is
rotated (:mod:`wallet.rotation`), the API keys end with it and the owner's is renewed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from api.keys import find_key, issue_key, list_keys, parse_token, revoke_key
from api.market import Whereabouts
from api.settings import Settings
from broker.transports.redis.dial import dial
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from rahba.money import FALS_PER_RHB
from wallet.account import Wallet
from wallet.ports import Ledger
from wallet.purse import Purse
from wallet.transports.http import HttpLedger

TOKEN_FILE: Final = "api-key"  # noqa: S105  # the name of a file
FAUCET_FALS: Final = 1_000 * FALS_PER_RHB
BUDGET_FALS: Final = 500 * FALS_PER_RHB
VALID_MS: Final = 30 * 24 * 3600 * 1000


def owner_wallet(data_dir: Path, ledger: Ledger) -> Wallet:
    """Return the owner's wallet, making its key the first time."""
    purse = Purse.owner(data_dir)
    signer = purse.signer(None)
    return Wallet(ledger, signer, clock=SystemClock(), ids=RandomIds(), account=purse.account)


async def prepare_owner(settings: Settings, where: Whereabouts) -> str:
    """Return the owner's API key; the first time, fund the wallet and issue one.

    A key whose record the broker has lost is replaced by a fresh one.
    """
    wire, ledger = await dial(where.redis_url), HttpLedger(where.ledger_url)
    try:
        path = settings.data_dir / TOKEN_FILE
        if path.exists():
            token = path.read_text("ascii").strip()
            if await find_key(wire, parse_token(token).hash) is not None:
                return token
        wallet = owner_wallet(settings.data_dir, ledger)
        known = await ledger.account(wallet.account)
        if known is None or known.available < BUDGET_FALS:
            await wallet.faucet(FAUCET_FALS)
        return await _issue(wallet, wire, path)
    finally:
        await wire.close()
        await ledger.close()


async def renew_api_key(settings: Settings) -> Path:
    """Mark the API keys of the owner as ended, and issue the owner's own anew.

    Returns:
        The file with the new one.
    """
    assert settings.redis_url is not None
    wire, ledger = await dial(settings.redis_url), HttpLedger(settings.ledger_url)
    try:
        wallet = owner_wallet(settings.data_dir, ledger)
        for key in await list_keys(wire, account=wallet.account):
            await revoke_key(wallet, wire, key.hash)
        path = settings.data_dir / TOKEN_FILE
        await _issue(wallet, wire, path)
        return path
    finally:
        await wire.close()
        await ledger.close()


async def _issue(wallet: Wallet, wire: Wire, path: Path) -> str:
    expires_ms = SystemClock().now_ms() + VALID_MS
    token = await issue_key(wallet, wire, BUDGET_FALS, "owner", expires_ms)
    _write_private(path, token)
    return token


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text + "\n")
