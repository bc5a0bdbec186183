"""Commands for the users of a market: deploy, buy, look, watch. All go through the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import orjson

from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.errors import BadInputError
from rahba.ids import short
from rahba.money import format_rhb, parse_rhb

if TYPE_CHECKING:
    from rahba.client import Market
    from rahba.messages import Mode

_MAX_FILE_BYTES = 1024 * 1024
_LISTED = 50
_PLAIN = {
    "deployments": ["name", "template", "state", "id"],
    "listings": ["name", "url", "seal", "state"],
}
_EVEN = {"price": 100, "quality": 100, "latency": 100, "energy": 100}


@contextlib.asynccontextmanager
async def visited() -> AsyncIterator[Market]:
    """Open the gateway that RAHBA_URL names, or that of the market that runs here."""
    from api.market import NoMarketError, find_market
    from api.owner import TOKEN_FILE
    from rahba.client import Market

    settings = Settings.read(os.environ)
    url, key = settings.gateway_url, settings.api_key
    try:
        where = find_market(settings)
    except NoMarketError:
        if "RAHBA_URL" not in os.environ:
            raise
    else:
        url = url if "RAHBA_URL" in os.environ else where.gateway_url
        kept = Path(where.data_dir) / TOKEN_FILE
        key = key or (kept.read_text("ascii").strip() if kept.exists() else None)
    async with Market(url, key) as market:
        yield market


@click.command()
@json_option
@asynchronous
async def templates(*, as_json: bool) -> None:
    """List the agent templates."""
    async with visited() as market:
        found = await market.templates()
    if as_json:
        print_json(found)
    else:
        print_table(["template", "does"], [(each["name"], each["description"]) for each in found])


@click.command()
@click.argument("template")
@click.option("--name", help="What the agent is called (default: the template's name).")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, repeatable."
)
@click.option("--price", help="Its price in RHB; the same as --set price=…")
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    metavar="KEY=VALUE,…",
    help="Other terms at another price, repeatable: price, floor, quality, latency_ms, privacy, "
    "energy_uwh.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is listed.")
@json_option
@asynchronous
async def deploy(
    template: str,
    name: str | None,
    settings: tuple[str, ...],
    price: str | None,
    tiers: tuple[str, ...],
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Deploy an agent from TEMPLATE (see `rahba templates`)."""
    config = _pairs(settings) | ({"price": price} if price else {})
    config |= {"tiers": [_pairs(tier.split(",")) for tier in tiers]} if tiers else {}
    async with visited() as market:
        record = await market.deploy(template, name or template, config)
        if wait:
            record = await market.running(record["id"])
    if as_json:
        print_json(record)
    else:
        click.echo(f"{record['name']} is {record['state']}: {record.get('agent') or record['id']}")


@click.command()
@click.argument("deployment")
@json_option
@asynchronous
async def stop(deployment: str, *, as_json: bool) -> None:
    """Stop DEPLOYMENT, named by its id or by its agent's name."""
    async with visited() as market:
        live = [each for each in await market.deployments() if each["state"] in _LIVE]
        fitting = [each for each in live if deployment in {each["id"], each["name"]}]
        if len(fitting) != 1:
            raise BadInputError(f"{len(fitting)} live deployments are called {deployment!r}")
        record = await market.stop(fitting[0]["id"])
    if as_json:
        print_json(record)
    else:
        click.echo(f"{record['name']} is {record['state']}")


_LIVE = {"pending", "running", "stopping"}


@click.command()
@click.argument(
    "what",
    type=click.Choice(["agents", "deployments", "listings", "negotiations", "deals"]),
)
@click.option("--skill", help="Only agents that sell this skill.")
@click.option("--text", help="Only agents that these words find, the most relevant first.")
@click.option("--tag", help="Only agents with this tag.")
@json_option
@asynchronous
async def ls(
    what: str, skill: str | None, text: str | None, tag: str | None, *, as_json: bool
) -> None:
    """List WHAT there is, agents by rank, the rest newest first (50 at most)."""
    given = {"skill": skill, "q": text, "tag": tag}
    filters = {name: value for name, value in given.items() if value}
    async with visited() as market:
        found, names = await _listed(market, what, filters)
    if as_json:
        print_json(found)
        return
    if what == "agents":
        listed = [
            (
                each["name"],
                ", ".join(offer["skill"] for offer in each["skills"]),
                ", ".join(_rhb(offer.get("price_fals")) for offer in each["skills"]),
                f"{each['success']['low'] / 10:.1f}",
                each["success"]["deals"],
                short(each["id"]),
                ", ".join(sorted({flag["kind"] for flag in each["flags"]})),
            )
            for each in found
        ]
        heads = ["agent", "skills", "RHB", "success % at least", "deals", "id", "flags"]
        print_table(heads, listed)
    elif what in _PLAIN:
        print_table(_PLAIN[what], [[each[field] for field in _PLAIN[what]] for each in found])
    else:
        lines = [
            (
                each["skill"],
                names.get(each["buyer"], f"…{short(each['buyer'])}"),
                names.get(each["seller"] or "", ""),
                each["mode"],
                f"{_rhb(each['asked_fals'])} → {_rhb(each['agreed_fals'])}",
                each["state"],
                (each["agreement"] or each["group"])[:16],
            )
            for each in found
        ]
        print_table(["skill", "buyer", "seller", "mode", "asked → agreed", "state", "id"], lines)


@click.command()
@click.argument("skill")
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="KEY=VALUE",
    help="An argument; VALUE is text, JSON after :=, or a file after @ (its text).",
)
@click.option("--budget", default="0.01", show_default=True, help="RHB it may cost at most.")
@click.option("--mode", type=click.Choice(["posted", "tender", "bargain"]))
@click.option(
    "--route",
    type=click.Choice(["thompson", "cheapest"]),
    help="Try sellers at posted prices: by what they delivered, or the cheapest first.",
)
@click.option("--agent", help="Buy from this agent (its id) only.")
@click.option("--deadline", default=60, show_default=True, help="Seconds.")
@click.option("--key", help="Idempotency key: the same key buys once.")
@click.option("--min-quality", type=click.IntRange(0, 1000), help="Thousandths.")
@click.option("--max-latency", type=click.IntRange(0), help="Milliseconds it may take.")
@click.option("--privacy", type=click.Choice(["sealed", "logged", "public"]), help="At least.")
@click.option("--max-energy", type=click.IntRange(0), help="Micro-watt-hours of one call.")
@click.option(
    "--prefer",
    type=click.Choice(["price", "quality", "latency", "energy"]),
    help="What matters most among those that will do.",
)
@click.option(
    "--min-penalty",
    default=0,
    type=click.IntRange(0, 1000),
    help="What a seller must put up, in thousandths of the price.",
)
@click.option("--wish", help='All that in words: "fast, at most 0.002 RHB, keep it private".')
@json_option
@asynchronous
async def call(  # noqa: PLR0917  # one parameter an option
    skill: str,
    arguments: tuple[str, ...],
    budget: str,
    mode: Mode | None,
    route: Literal["thompson", "cheapest"] | None,
    agent: str | None,
    deadline: int,
    key: str | None,
    min_quality: int | None,
    max_latency: int | None,
    privacy: str | None,
    max_energy: int | None,
    prefer: str | None,
    min_penalty: int,
    wish: str | None,
    *,
    as_json: bool,
) -> None:
    """Buy SKILL on the market and print what was delivered."""
    args = _pairs(arguments)
    needs = {
        "min_quality": min_quality,
        "max_latency_ms": max_latency,
        "privacy": privacy,
        "max_energy_uwh": max_energy,
    }
    async with visited() as market:
        done = await market.call(
            args,
            skill=skill,
            agent=agent,
            budget_fals=parse_rhb(budget),
            mode=mode,
            route=route,
            deadline_ms=deadline * 1000,
            key=key,
            needs={name: value for name, value in needs.items() if value is not None},
            weights=None if prefer is None else {**_EVEN, prefer: 700},
            min_penalty=min_penalty,
            wish=wish,
        )
    if as_json:
        print_json(done)
        return
    if routing := done.get("routing"):
        for choice in routing["order"]:
            note = ", the cheapest" if choice["seller"] == routing["cheapest"] else ""
            click.secho(f"…{short(choice['seller'])}{note}: {choice['reason']}", dim=True, err=True)
    output = done["output"]
    click.echo(output if isinstance(output, str) else orjson.dumps(output, option=2).decode())
    click.secho(
        f"{done['mode']}, {done['rounds']} rounds: asked {_rhb(done['asked_fals'])}, agreed "
        f"{_rhb(done['agreed_fals'])}, paid {_rhb(done['paid_fals'])} RHB; receipt "
        f"{'verified' if done['receipt_verified'] else 'NOT VERIFIED'}; "
        f"deal {done['agreement'][:16]}",
        dim=True,
        err=True,
    )


@click.command()
@click.option("--tail", default=20, show_default=True, type=click.IntRange(0, 1000))
@click.option("--kinds", help="Only these kinds, parted by commas.")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many events.")
@json_option
@asynchronous
async def watch(tail: int, kinds: str | None, count: int | None, *, as_json: bool) -> None:
    """Follow the market's feed until Ctrl-C; with --json one event a line."""
    seen = 0
    async with visited() as market:
        async for event in market.feed(tail=tail, kinds=kinds):
            if as_json:
                click.echo(orjson.dumps(event))
            else:
                facts = " ".join(f"{name}={_brief(value)}" for name, value in event["data"].items())
                click.echo(f"{event['kind']:<20} {facts}")
            seen += 1
            if seen == count:
                return


async def _listed(
    market: Market, what: str, filters: dict[str, str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    if what == "agents":
        return await _first(market.agents(**filters)), {}
    if what == "deployments":
        return list(reversed(await market.deployments()))[:_LISTED], {}
    if what == "listings":
        return list(reversed(await market.listings()))[:_LISTED], {}
    found = await _first(market.negotiations(), settled_only=what == "deals")
    sides = {did for each in found for did in (each["buyer"], each["seller"]) if did}
    return found, dict(await asyncio.gather(*(_named(market, did) for did in sorted(sides))))


async def _named(market: Market, did: str) -> tuple[str, str]:
    """Return the name of who is listed, else the end of its id."""
    from rahba.client.market import MarketProblemError

    try:
        return did, (await market.agent(did))["name"]
    except MarketProblemError:
        return did, f"…{short(did)}"


async def _first(
    source: AsyncIterator[dict[str, Any]], *, settled_only: bool = False
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for each in source:
        if not settled_only or each["state"] == "settled":
            found.append(each)
        if len(found) == _LISTED:
            break
    return found


def _pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Read KEY=VALUE (text), KEY:=JSON and KEY=@FILE."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.rstrip(":"):
            raise BadInputError(f"write KEY=VALUE, not {text[:60]!r}")
        if name.endswith(":"):
            try:
                found[name[:-1]] = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise BadInputError(f"{name[:-1]}: {value[:60]!r} is not JSON") from error
        elif value.startswith("@"):
            found[name] = _file(Path(value[1:]))
        else:
            found[name] = value
    return found


def _file(path: Path) -> str:
    """Return the text of a file; a PDF and its like as base64."""
    import base64

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > _MAX_FILE_BYTES:
        raise BadInputError(f"{path} is larger than 1 MiB", limit_bytes=_MAX_FILE_BYTES)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")


def _rhb(fals: str | None) -> str:
    return "-" if fals is None else format_rhb(int(fals))


def _brief(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"…{text[-8:]}" if len(text) > 40 else text
