"""``rahba demo``: the whole market on real documents, told as it happens, then as a table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.money import format_rhb

if TYPE_CHECKING:
    from api.demo import Deal, Purchase
    from rahba.client import Market


@click.command()
@click.option("--once", is_flag=True, help="End by itself, with exit code 0, when all is done.")
@json_option
@asynchronous
async def demo(*, once: bool, as_json: bool) -> None:
    """Run a market of eleven agents on real documents and show the deals.

    It uses a fresh ledger and data folder of its own (RAHBA_DATA/demo) and free ports, and goes on
    until Ctrl-C so that you can look around; with --once it ends by itself.
    """
    from api.cli.process import until_signalled
    from api.demo import as_data, go_shopping, open_stalls, purchases, settled_deals
    from api.market import LocalMarket, on_free_ports
    from api.owner import prepare_owner
    from api.supervisor import exclusive
    from rahba.client import Market

    say = _Teller(quiet=as_json)
    purchases()  # the documents are there, before anything is started
    settings = _demo_settings()
    with exclusive(settings.data_dir):
        settings = on_free_ports(_emptied(settings))
        async with until_signalled() as stop, LocalMarket(settings) as local:
            assert local.where is not None
            key = await prepare_owner(settings, local.where)
            url = local.where.gateway_url
            say(f"the market is open: {url}/  (started in {say.elapsed_s:.1f} s)")
            async with Market(url, key) as market, _narrated(market, say):
                await open_stalls(market)
                say("every agent has passed its self-test and is listed")
                await go_shopping(market, say.bought)
                deals, supply = await settled_deals(market), await market.supply()
            data = as_data(deals, supply, f"{url}/", say.first_deal_s)
            if as_json:
                print_json(data)
            else:
                _print_summary(deals, data)
                fragment = f"#key={key}" if sys.stdout.isatty() else ""  # keys keep out of logs
                click.echo("" if once else f"\ndashboard  {url}/{fragment}")
            if not once:
                say("Ctrl-C stops the market")
                await stop.wait()
    if not _all_good(data):
        sys.exit(1)


class _Teller:
    """Prints what happens as it happens, and keeps the time of the first settled deal."""

    def __init__(self, *, quiet: bool) -> None:
        import psutil

        from rahba.clock import SystemClock

        self._quiet = quiet
        self._clock = asyncio.get_running_loop().time
        age_s = SystemClock().now_ms() / 1000 - psutil.Process().create_time()
        self._began = self._clock() - age_s
        self.first_deal_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since this process was started."""
        return self._clock() - self._began

    def __call__(self, text: str) -> None:
        if not self._quiet:
            click.echo(text)

    def heard(self, kind: str, data: dict[str, Any], names: dict[str, str]) -> None:
        """Tell of an event of the feed."""
        if kind == "settled" and not self.first_deal_s:
            self.first_deal_s = self.elapsed_s
        sentence = _sentence(kind, data, names)
        if sentence:
            self(f"{self.elapsed_s:7.2f} s  {sentence}")

    def bought(self, wanted: Purchase, call: dict[str, Any]) -> None:
        """Tell that a purchase of the demonstration itself is through."""
        paid = format_rhb(int(call["paid_fals"]))
        self(f"{self.elapsed_s:7.2f} s  got {wanted.skill} ({wanted.mode}) for {paid} RHB")


def _demo_settings() -> Settings:
    elsewhere = {"RAHBA_LEDGER_STORE", "RAHBA_LEDGER_URL", "RAHBA_URL"}
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}
    settings = Settings.read(env)
    return replace(settings, data_dir=settings.data_dir / "demo")


def _emptied(settings: Settings) -> Settings:
    """Empty the demo's own folder: each demonstration begins with a fresh ledger."""
    for path in settings.data_dir.iterdir():
        if path.name in {"up.lock", "processes.json", "redis"}:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in (settings.data_dir / "redis").glob("appendonlydir/*"):
        path.unlink()
    return settings


@contextlib.asynccontextmanager
async def _narrated(market: Market, say: _Teller) -> AsyncIterator[None]:
    """Follow the feed while the demonstration runs."""
    names: dict[str, str] = {}

    async def follow() -> None:
        async for event in market.feed(tail=1000):
            data = event["data"]
            if event["kind"] == "agent.listed":
                names[data["agent"]] = data["name"]
            say.heard(event["kind"], data, names)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _sentence(kind: str, data: dict[str, Any], names: dict[str, str]) -> str:
    """Say in words what an event of the feed means; nothing for those that need no telling."""

    def name(role: str) -> str:
        return names.get(data.get(role, ""), "you")

    def rhb(field: str) -> str:
        return f"{format_rhb(int(data[field]))} RHB" if field in data else "a sealed price"

    tell: dict[str, Callable[[], str]] = {
        "agent.listed": lambda: f"{data['name']} offers {', '.join(data['skills'])}",
        "negotiation.opened": lambda: (
            f"{name('buyer')}: who does {data['skill']}? ({data['mode']})"
        ),
        "offer": lambda: f"   {name('from')} offers {rhb('price')}",
        "accepted": lambda: f"   {name('buyer')} and {name('seller')} agree: {rhb('price')}",
        "settled": lambda: f"   {name('seller')} is paid {rhb('paid')} for {data['skill']}",
        "failed": lambda: f"   a job failed ({data.get('code')}); the money went back",
    }
    return tell[kind]() if kind in tell else ""


def _print_summary(deals: list[Deal], data: dict[str, Any]) -> None:
    rows = [
        (
            deal.skill,
            deal.buyer,
            deal.seller,
            deal.mode,
            deal.rounds,
            f"{format_rhb(deal.asked_fals)} → {format_rhb(deal.agreed_fals)}",
            format_rhb(deal.paid_fals),
            "✓" if deal.receipt_verified else "✗",
            "✓" if deal.inclusion_verified else "✗",
        )
        for deal in deals
    ]
    click.echo()
    columns = ["bought", "by", "from", "mode", "rounds", "asked → agreed", "paid", "receipt", "log"]
    print_table(columns, rows)
    supply = data["supply"]
    sign = "=" if supply["equal"] else "≠"
    issued, total = (format_rhb(int(supply[name])) for name in ("issued", "sum"))
    click.echo(f"\nsupply     {issued} RHB issued {sign} {total} RHB owned by all accounts")
    click.echo(f"first deal settled {data['first_deal_s']} s after the start")


def _all_good(data: dict[str, Any]) -> bool:
    checked = all(row["receipt_verified"] and row["inclusion_verified"] for row in data["deals"])
    return bool(data["deals"]) and checked and data["supply"]["equal"]
