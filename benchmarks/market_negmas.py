"""The house's best strategy among NegMAS's own, on domains that were kept aside.

Everybody plays everybody (itself included) as both sides, for 20 and for 100 rounds. Advantage =
(utility - reserve) / (best - reserve), 0 without a deal, averaged over all games of a player.

The paired test compares ours with the best built-in of the same run on the same domain, side and
opponent. Games on one domain depend on each other, so domains are what is resampled: the interval
is a bootstrap over domains, and ``p`` is the share of random sign flips of their means that reach
the difference.

    python -m benchmarks.market_negmas [--part train] [--domains 30] [--rounds 20] [--json]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from math import dist
from pathlib import Path
from statistics import fmean
from typing import Final

import orjson

from agents.strategies import Strategy, make_strategy
from benchmarks.bargaining_domains import Domain, Part, generate
from benchmarks.negmas_pipe import (
    BUILT_IN,
    GUEST,
    NoOpponentsError,
    Played,
    environment,
    opponents,
)
from benchmarks.rows import Row, row

ROUNDS: Final = (20, 100)
DOMAINS: Final = 30
PLAYERS: Final = (GUEST, *BUILT_IN)
PROCESSES: Final = 2
RESAMPLES: Final = 2_000

LEAD: Final = 0.03
AGREEMENT: Final = 0.97
PARETO: Final = 0.02


@dataclass(frozen=True, slots=True)
class Game:
    """One game, as one of its two players sees it."""

    player: str
    opponent: str
    domain: int
    side: int
    advantage: float
    rounds: int
    pareto: float | None
    nash: float | None

    @property
    def case(self) -> tuple[int, int, str]:
        """Return what a paired test holds equal."""
        return (self.domain, self.side, self.opponent)


@dataclass(frozen=True, slots=True)
class Line:
    """A player's line in the table."""

    player: str
    advantage: float
    agreement: float
    pareto: float
    nash: float
    rounds: float


@dataclass(frozen=True, slots=True)
class Paired:
    """How much ours leads the best built-in: mean, 95 % interval, and the sign-flip test's p."""

    against: str
    lead: float
    low: float
    high: float
    p: float
    pairs: int


def best(seed: int) -> Strategy:
    """Return the strategy that is measured."""
    return make_strategy("best", seed=seed)


def tournament(
    domains: Sequence[Domain],
    *,
    rounds: int,
    players: Sequence[str] = PLAYERS,
    strategy: Callable[[int], Strategy] = best,
    python: Path | None = None,
) -> list[Game]:
    """Play all pairs on all domains; each game is told twice, once by either player.

    Raises:
        NoOpponentsError: NegMAS cannot be had here.
    """
    interpreter = python or environment()

    def part(start: int) -> list[Game]:
        found: list[Game] = []
        with opponents(interpreter) as room:
            for number in range(start, len(domains), PROCESSES):
                for at, pair in enumerate(product(players, players)):
                    seed = 1_000 * number + 2 * at
                    played = room.play(
                        domains[number], pair, rounds=rounds, seed=seed, strategy=strategy
                    )
                    found += _told(number, domains[number], pair, played)
        return found

    with ThreadPoolExecutor(PROCESSES) as pool:
        return [game for games in pool.map(part, range(PROCESSES)) for game in games]


def _told(number: int, domain: Domain, pair: tuple[str, str], played: Played) -> list[Game]:
    outcome = played.outcome
    if outcome is None:
        gains, pareto, nash = [0.0, 0.0], None, None
    else:
        point = (domain.sides[0].worth(outcome), domain.sides[1].worth(outcome))
        gains = [side.advantage(outcome) for side in domain.sides]
        pareto = min(dist(point, other) for other in domain.frontier)
        nash = dist(point, domain.nash)
    return [
        Game(pair[side], pair[1 - side], number, side, gains[side], played.rounds, pareto, nash)
        for side in (0, 1)
    ]


def table(games: Iterable[Game]) -> list[Line]:
    """Return a line a player, the most successful first."""
    by_player: dict[str, list[Game]] = {}
    for game in games:
        by_player.setdefault(game.player, []).append(game)
    lines = [_line(player, own) for player, own in by_player.items()]
    return sorted(lines, key=lambda line: -line.advantage)


def _line(player: str, games: Sequence[Game]) -> Line:
    deals = [game for game in games if game.pareto is not None]
    return Line(
        player=player,
        advantage=fmean(game.advantage for game in games),
        agreement=len(deals) / len(games),
        pareto=fmean(game.pareto or 0.0 for game in deals) if deals else 0.0,
        nash=fmean(game.nash or 0.0 for game in deals) if deals else 0.0,
        rounds=fmean(game.rounds for game in games),
    )


def paired(games: Sequence[Game], *, seed: int = 1) -> Paired:
    """Compare ours with the best built-in, case by case."""
    against = next(line.player for line in table(games) if line.player != GUEST)
    theirs = {game.case: game.advantage for game in games if game.player == against}
    leads: dict[int, list[float]] = {}
    for game in games:
        if game.player == GUEST:
            lead = game.advantage - theirs[game.case]
            leads.setdefault(game.domain, []).append(lead)
    means = [fmean(values) for values in leads.values()]
    mean = fmean(means)
    rng = random.Random(seed)
    drawn = sorted(fmean(rng.choices(means, k=len(means))) for _ in range(RESAMPLES))
    flipped = [fmean(rng.choice((-1, 1)) * value for value in means) for _ in range(RESAMPLES)]
    reached = sum(abs(value) >= abs(mean) for value in flipped)
    return Paired(
        against=against,
        lead=mean,
        low=drawn[RESAMPLES * 25 // 1_000],
        high=drawn[RESAMPLES * 975 // 1_000],
        p=(reached + 1) / (RESAMPLES + 1),
        pairs=sum(map(len, leads.values())),
    )


def rows_of(games: Sequence[Game], rounds: int) -> list[Row]:
    """Return the figures with their targets, then everybody's line of the table."""
    lines = table(games)
    ours = next(line for line in lines if line.player == GUEST)
    test = paired(games)
    rival = next(line for line in lines if line.player == test.against)
    name = f"negotiation with NegMAS, {rounds} rounds"
    beside = f"{name}: advantage beside {rival.player}"
    return [
        row(beside, ours.advantage, "share", reference=rival.advantage),
        row(f"{name}: lead over {rival.player}", test.lead, "share", target=LEAD),
        row(f"{name}: lead, lower end of 95 %", test.low, "share", target=0.0),
        row(f"{name}: lead, p of a sign-flip test", test.p, "share", target=0.05, at_most=True),
        row(f"{name}: agreement", ours.agreement, "share", target=AGREEMENT),
        row(f"{name}: Pareto distance", ours.pareto, "utility", target=PARETO, at_most=True),
        row(f"{name}: Nash distance", ours.nash, "utility", reference=rival.nash),
        row(f"{name}: rounds", ours.rounds, "rounds", reference=rival.rounds),
        *(item for line in lines if line is not ours for item in _plain(name, line)),
    ]


def _plain(name: str, line: Line) -> list[Row]:
    """Return a built-in's line as rows that only inform."""
    start = f"{name}: {line.player}"
    return [
        row(f"{start}, advantage", line.advantage, "share"),
        row(f"{start}, agreement", line.agreement, "share"),
        row(f"{start}, Pareto distance", line.pareto, "utility"),
        row(f"{start}, Nash distance", line.nash, "utility"),
        row(f"{start}, rounds", line.rounds, "rounds"),
    ]


def run() -> list[Row]:
    """Measure on the domains that were kept aside; without NegMAS, say why there is no figure."""
    domains = list(generate(DOMAINS, part="aside"))
    try:
        python = environment()
    except NoOpponentsError as error:
        return [row(f"negotiation with NegMAS: not measured ({error})", 0.0, "games")]
    found: list[Row] = []
    for rounds in ROUNDS:
        games = tournament(domains, rounds=rounds, python=python)
        _print(games, rounds)
        found += rows_of(games, rounds)
    return found


def _print(games: Sequence[Game], rounds: int) -> None:
    """Print the whole table beside the rows (to standard error: rows go to standard output)."""
    form = "{player:<20} {advantage:9.3f} {agreement:9.3f} {pareto:7.3f} {nash:6.3f} {rounds:6.1f}"
    head = f"{f'{rounds} rounds':<20} advantage agreement  pareto   nash rounds"
    lines = [form.format(**(asdict(line) | {"player": _named(line)})) for line in table(games)]
    test = paired(games)
    end = (
        f"ours - {test.against}: {test.lead:+.3f}, 95 % from {test.low:+.3f} to {test.high:+.3f}, "
        f"p = {test.p:.4f}, {test.pairs} pairs"
    )
    print("\n".join([head, *lines, end, ""]), file=sys.stderr)


def _named(line: Line) -> str:
    return "ours (best)" if line.player == GUEST else line.player


def main() -> None:
    """Print the tables, or with ``--json`` everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: tuple[Part, Part] = ("train", "aside")
    parser.add_argument("--part", choices=parts, default="aside")
    parser.add_argument("--domains", type=int, default=DOMAINS)
    parser.add_argument("--rounds", type=int, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    domains = list(generate(options.domains, part=options.part))
    told = {}
    for rounds in options.rounds or ROUNDS:
        games = tournament(domains, rounds=rounds)
        _print(games, rounds)
        told[str(rounds)] = {
            "table": [asdict(line) for line in table(games)],
            "paired": asdict(paired(games)),
        }
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(told) + b"\n")


if __name__ == "__main__":
    main()
