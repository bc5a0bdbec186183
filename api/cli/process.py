"""Commands that run processes: the whole market, or one of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import click

from api.cli.output import asynchronous, fail, json_option, print_json, service
from api.settings import Settings
from rahba.errors import BadInputError, RahbaError

NAMES = ("ledger", "witness", "gateway", "host", "worker", "redis")


@contextlib.asynccontextmanager
async def until_signalled() -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGINT or SIGTERM sets; a second SIGINT interrupts as usual."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def set_up_service() -> Settings:
    """Prepare a process of the market: its log, its end with the supervisor, its settings."""
    from api.supervisor import end_with_parent

    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    end_with_parent(os.environ)
    return Settings.read(os.environ)


@click.command()
@json_option
@asynchronous
async def up(*, as_json: bool) -> None:
    """Run the whole market on this machine until Ctrl-C.

    Keys, ledger and logs live in RAHBA_DATA (default .rahba). The first time, a wallet is made,
    filled by the faucet of the dev network, and an API key is written to the file `api-key`.
    """
    from api.market import LocalMarket
    from api.owner import prepare_owner
    from api.supervisor import exclusive

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    settings = Settings.read(os.environ)
    with exclusive(settings.data_dir):
        async with until_signalled() as stop:
            if not as_json:
                click.echo(f"starting the market in {settings.data_dir} …", err=True)
            async with LocalMarket(settings) as market:
                assert market.where is not None
                key = await prepare_owner(settings, market.where)
                url = market.where.gateway_url
                if as_json:
                    print_json({"gateway": url, "dashboard": f"{url}/", "pids": market.pids()})
                else:
                    fragment = f"#key={key}" if sys.stdout.isatty() else ""  # keys keep out of logs
                    click.echo(f"dashboard  {url}/{fragment}")
                    click.echo(f"API key    {settings.data_dir / 'api-key'}")
                    click.echo(
                        "next       rahba deploy summarise, then rahba call text.summarise …"
                    )
                    click.echo("stop       Ctrl-C")
                await stop.wait()
            if not as_json:
                click.echo("stopped", err=True)


@click.command()
@service
async def gateway() -> None:
    """Run the HTTP gateway (any number may run)."""
    from api.bootstrap import run_gateway

    settings = set_up_service()
    async with until_signalled() as stop:
        await run_gateway(settings, stop)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@service
async def host(files: tuple[Path, ...]) -> None:
    """Run the agents of Python FILES, or without any the agents deployed on this market."""
    from api.bootstrap import run_host

    settings = set_up_service()
    async with until_signalled() as stop:
        await run_host(settings, files, stop)


@click.command()
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1, 64))
def worker(processes: int) -> None:
    """Run a worker for heavy jobs (Celery); on another machine, too."""
    from api.bootstrap import run_worker

    try:
        run_worker(set_up_service(), processes)
    except RahbaError as error:
        fail(error, as_json=False)


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("-n", "--lines", default=40, show_default=True, type=click.IntRange(1, 10_000))
@json_option
def logs(name: str, lines: int, *, as_json: bool) -> None:
    """Show the last lines of a process's log."""
    try:
        found = _last_lines(name, lines)
    except RahbaError as error:
        fail(error, as_json=as_json)
        return
    if as_json:
        print_json({"name": name, "lines": found})
    else:
        click.echo("\n".join(found))


def _last_lines(name: str, count: int) -> list[str]:
    data_dir = Settings.read(os.environ).data_dir
    for folder in (data_dir, data_dir / "demo"):
        path = folder / ("redis/redis.log" if name == "redis" else f"logs/{name}.log")
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    raise BadInputError(f"there is no log of {name} in {data_dir}")
