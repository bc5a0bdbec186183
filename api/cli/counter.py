"""Where the wallet commands stand: one wallet, the ledger it is on, and what was left unsettled.

Named wallets lie in ``RAHBA_DATA/wallets``; without ``--wallet`` it is the owner's, of the market
that runs. The ledger is that market's, or the one that RAHBA_LEDGER_URL names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from api.cli.secret_input import read_passphrase
from api.settings import Settings

if TYPE_CHECKING:
    from rahba.client.light import LightClient
    from wallet.account import Wallet
    from wallet.outbox import Outbox
    from wallet.purse import Purse
    from wallet.transports.http import HttpLedger

wallet_option = click.option(
    "--wallet", "name", metavar="NAME", help="A named wallet (default: the owner's)."
)


@dataclass(frozen=True, slots=True)
class Counter:
    """A wallet at its ledger."""

    purse: Purse
    ledger: HttpLedger
    outbox: Outbox
    ledger_url: str

    def wallet(self, passphrase: str | None) -> Wallet:
        """Return the wallet that signs with the key in force and sends through the outbox."""
        from rahba.clock import SystemClock
        from rahba.ids import RandomIds
        from wallet.account import Wallet

        return Wallet(
            self.ledger,
            self.purse.signer(passphrase),
            clock=SystemClock(),
            ids=RandomIds(),
            account=self.purse.account,
            outbox=self.outbox,
        )

    @contextlib.asynccontextmanager
    async def light(self) -> AsyncIterator[LightClient]:
        """Give a client that believes the ledger nothing, and what this wallet saw of it before.

        Of several addresses it asks the first one that answers.
        """
        from rahba.client.light import LedgerSilentError, LightClient

        vkey, chain = await self.ledger.verifier_key(), await self.ledger.chain()
        *others, url = self.ledger_url.split(",")
        memory = self.purse.seen(chain)
        for other in others:
            with contextlib.suppress(LedgerSilentError):
                async with LightClient(other, vkey) as light:
                    await light.advance()
                url = other
                break
        async with LightClient(url, vkey, memory=memory) as light:
            await light.advance()
            yield light

    async def settle_rotation(self) -> None:
        """Find out which key is in force, if a rotation was interrupted."""
        from wallet.rotation import finish

        await finish(self.purse, self.outbox)


@contextlib.asynccontextmanager
async def at_counter(name: str | None) -> AsyncIterator[Counter]:
    """Open the wallet of that name, or the owner's, at the ledger."""
    from rahba.clock import SystemClock
    from wallet.outbox import Outbox
    from wallet.stores.outbox import SqliteOutbox
    from wallet.transports.http import HttpLedger

    settings = ledger_settings()
    purse = find_purse(name, settings)
    ledger = HttpLedger(settings.ledger_url)
    outbox = Outbox(SqliteOutbox(purse.outbox), ledger, clock=SystemClock())
    try:
        yield Counter(purse, ledger, outbox, settings.ledger_url)
    finally:
        await outbox.close()
        await ledger.close()


def find_purse(name: str | None, settings: Settings | None = None) -> Purse:
    """Return the wallet of that name, or the owner's."""
    from wallet.purse import OWNER, Purse

    own = Settings.read(os.environ)
    if name is not None and name != OWNER:
        return Purse.named(own.data_dir, name)
    return Purse.owner((settings or own).data_dir)


def ledger_settings() -> Settings:
    """Return settings that say where a ledger is: a named one, or that of the running market."""
    from api.bootstrap import located

    settings = Settings.read(os.environ)
    return settings if os.environ.get("RAHBA_LEDGER_URL") else located(settings)


def unlock(purse: Purse, passphrase_file: str | None) -> str | None:
    """Return the passphrase that opens ``purse``, asking for it if it has one."""
    return read_passphrase(passphrase_file) if purse.locked else None
