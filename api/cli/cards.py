"""``rahba publish``: agents that run elsewhere, listed by their signed cards."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from api.cli.market import visited
from api.cli.output import asynchronous, json_option, print_json
from rahba.errors import BadInputError, TooLargeError

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
MAX_SENT_BYTES: Final = 900_000
MAX_SENT_CARDS: Final = 1_000
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
@asynchronous
async def publish(files: tuple[Path, ...], *, as_json: bool) -> None:
    """List the signed cards of FILES: JSON arrays, or one card a line (NDJSON).

    One bad card does not stop the others; the exit code is 1 if any was refused. Publishing again
    renews the leases.
    """
    refused: list[dict[str, Any]] = []
    listed = 0
    async with visited() as market:
        for file in files:
            number = 0
            for some in batches(read_cards(file)):
                answer = await market.publish(some)
                listed += answer["listed"]
                refused += [
                    one | {"file": str(file), "place": number + one["place"]}
                    for one in answer["results"]
                    if one["code"] is not None
                ]
                number += len(some)
    if as_json:
        print_json({"listed": listed, "refused": refused})
    else:
        for one in refused:
            where = f"{one['file']}, card {one['place'] + 1}"
            click.secho(f"{where}: {one['code']}: {one['detail']}", fg="red", err=True)
        click.echo(f"{listed} listed, {len(refused)} refused")
    if refused:
        sys.exit(1)


def read_cards(file: Path) -> list[bytes]:
    """Return the signed cards of a file, byte by byte as they were signed.

    Raises:
        TooLargeError: the file is too large to be read at once.
        BadInputError: it looks like a JSON array and is none.
    """
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise TooLargeError("the file is too large", size_bytes=size, limit_bytes=MAX_FILE_BYTES)
    raw = file.read_bytes().strip()
    if not raw.startswith(b"["):
        return [line.strip() for line in raw.split(b"\n") if line.strip()]
    try:
        return [bytes(card) for card in _array.decode(raw)]
    except msgspec.DecodeError as error:
        raise BadInputError(f"{file.name} is no JSON array: {error}") from error


def batches(cards: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the cards in as many as the gateway takes at once."""
    some: list[bytes] = []
    size = 0
    for card in cards:
        if some and (len(some) == MAX_SENT_CARDS or size + len(card) > MAX_SENT_BYTES):
            yield some
            some, size = [], 0
        some.append(card)
        size += len(card) + 1
    if some:
        yield some
