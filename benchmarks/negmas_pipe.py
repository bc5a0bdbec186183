"""NegMAS as an opponent: its own environment, its own process, JSON lines between the two.

The environment is built on demand from `benchmarks/negmas/requirements.lock` (600 MB) and belongs
to no other part of Rahba. Nothing of NegMAS is imported here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson

from agents.strategies import Bid, Outcome, Preferences, Strategy, Take, View
from benchmarks.bargaining_domains import Domain
from rahba.errors import RahbaError

FOLDER: Final = Path(__file__).resolve().parent / "negmas"
BUILD_S: Final = 900.0
GUEST: Final = "guest"
BUILT_IN: Final = (
    "stochastic boulware",
    "boulware",
    "linear",
    "fast micro",
    "hybrid",
    "tit for tat",
    "micro",
    "conceder",
)


class NoOpponentsError(RahbaError):
    """The environment of NegMAS could not be built, or it ended in the middle of a game."""

    code = "no_opponents"
    hint = "it needs a package index, or one that was built before: benchmarks/negmas/.venv"


@dataclass(frozen=True, slots=True)
class Played:
    """How a game ended: the outcome (``None`` without a deal) and the rounds it took."""

    outcome: Outcome | None
    rounds: int


@dataclass(slots=True)
class Guest:
    """Sits at NegMAS's table for one side of one game with a strategy of the house.

    NegMAS asks the first player, then the second, ``rounds`` times; so the first's last offer is
    the very last one that can be taken, and the second can only take or leave it.
    """

    strategy: Strategy
    preferences: Preferences
    turn: int
    rounds: int
    mine: list[Outcome] = field(default_factory=list)
    theirs: list[Outcome] = field(default_factory=list)

    def answer(self, heard: list[Any] | None) -> dict[str, Any]:
        """Return what to say to the offer that was heard (``None``: nothing was said yet)."""
        if heard is not None:
            self.theirs.append(tuple(heard))
        match self.strategy.propose(self._view()):
            case Bid(outcome):
                self.mine.append(outcome)
                return {"bid": list(outcome)}
            case Take():
                return {"take": True}
            case _:
                return {}

    def _view(self) -> View:
        bids = self.rounds - self.turn
        left = max(bids - len(self.mine), 0)
        return View(
            preferences=self.preferences,
            mine=tuple(self.mine),
            theirs=tuple(self.theirs),
            time=min(len(self.mine) / (bids - 1), 1.0) if bids > 1 else 1.0,
            bids_left=left,
            closing=self.turn == 0 and left == 1,
        )


@dataclass(frozen=True, slots=True)
class Opponents:
    """A running process of NegMAS; one game at a time."""

    to: IO[bytes]
    back: IO[bytes]

    def play(
        self,
        domain: Domain,
        players: tuple[str, str],
        *,
        rounds: int,
        seed: int,
        strategy: Callable[[int], Strategy],
    ) -> Played:
        """Play one game between built-ins and guests that play ``strategy(seed)``."""
        guests = {
            turn: Guest(strategy(seed + turn), domain.sides[turn].preferences(), turn, rounds)
            for turn, player in enumerate(players)
            if player == GUEST
        }
        self._say(_game(domain, players, rounds, seed))
        while True:
            said = self._hear()
            if "turn" not in said:
                agreed = said["agreement"]
                return Played(None if agreed is None else tuple(agreed), said["steps"])
            self._say(guests[said["turn"]].answer(said["heard"]))

    def _say(self, line: dict[str, Any]) -> None:
        self.to.write(orjson.dumps(line) + b"\n")
        self.to.flush()

    def _hear(self) -> dict[str, Any]:
        line = self.back.readline()
        if not line:
            raise NoOpponentsError("the process of NegMAS ended in the middle of a game")
        said: dict[str, Any] = orjson.loads(line)
        return said


@contextmanager
def opponents(python: Path) -> Iterator[Opponents]:
    """Start NegMAS in its environment, and end it."""
    command = [str(python), str(FOLDER / "opponents.py")]
    env = {**os.environ, "PYTHONHASHSEED": "0"}  # some of its strategies draw from sets
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Opponents(process.stdin, process.stdout)
        finally:
            process.kill()


def environment(folder: Path = FOLDER) -> Path:
    """Return the Python that has NegMAS; build its environment if the lock has changed.

    Raises:
        NoOpponentsError: it cannot be built here.
    """
    lock, home, stamp = folder / "requirements.lock", folder / ".venv", stamp_of(folder)
    python = home / "bin" / "python"
    if not stamp.exists():
        print("building the environment of NegMAS (600 MB, once) …", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        install = ["-m", "pip", "install", "--quiet", "--no-compile", "--retries", "1"]
        _run([str(python), *install, "--require-hashes", "--no-deps", "-r", str(lock)])
        stamp.touch()
    return python


def stamp_of(folder: Path) -> Path:
    """Return the file that says which lock an environment was built from."""
    lock = (folder / "requirements.lock").read_bytes()
    return folder / ".venv" / f"installed-{hashlib.sha256(lock).hexdigest()[:12]}"


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_S)
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise NoOpponentsError(f"the environment of NegMAS was not built: {told[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoOpponentsError(f"the environment of NegMAS was not built: {error}") from error


def _game(domain: Domain, players: tuple[str, str], rounds: int, seed: int) -> dict[str, Any]:
    return {
        "issues": [list(tastes) for tastes in domain.sides[0].tastes],
        "sides": [
            {
                "tastes": [{str(value): taste for value, taste in t.items()} for t in side.tastes],
                "weights": side.weights,
                "reserve": side.reserve,
            }
            for side in domain.sides
        ],
        "players": players,
        "steps": rounds,
        "seed": seed,
    }
