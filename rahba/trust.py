"""Whom one caller may believe: EigenTrust (Kamvar et al. 2003) from the caller's own deals on.

* The pre-trusted are whom the caller itself paid, each as far as its deals were kept. Without any
  there is no personal trust, and :func:`personal_trust` says so with ``None``.
* Who is trusted passes trust on: to whom it paid, as far as those deals were kept and not failed,
  and half as much to whom it was really paid by. The way back is what lets customers of the same
  seller learn from each other; it costs whoever wants it a real payment to somebody trusted.
* Of what it has, everybody passes on ``PASSED``; the rest, and what leads nowhere, returns to the
  pre-trusted. So a ring of strangers keeps nothing, however large it is and however it is wired.
* Integers throughout, and every sum in full: the order of nothing matters. Within the limits a
  node's heaviest edges are taken first; ``Trust.cut`` says that there was more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from rahba.dealings import Dealings, Pair

ALL: Final = 10**12
PASSED: Final = 800  # thousandths
PAIR_MOST: Final = 4_000  # what all deals of one pair count for at most, in thousandths of a deal
_CLOSE: Final = ALL // 10**4


@dataclass(frozen=True, slots=True)
class Limits:
    """How far trust is followed: seeds, nodes, edges, edges of one node, rounds of iteration."""

    seeds: int = 500
    nodes: int = 1_000
    edges: int = 10_000
    fan: int = 64
    rounds: int = 50


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust of one caller: shares of ``ALL`` by agent, and how they were found."""

    caller: str
    shares: Mapping[str, int]
    seeds: int
    edges: int
    rounds: int
    cut: bool

    def share(self, agent: str) -> int:
        """Return an agent's share in millionths."""
        return self.shares.get(agent, 0) * 1_000_000 // ALL

    def belief(self, agent: str) -> int:
        """Return how far an agent is believed, in thousandths: 500 with the average share."""
        found = self.shares.get(agent, 0) * len(self.shares)
        return 1_000 if agent == self.caller else 1_000 * found // (found + ALL)


def saturated(weight: int, most: int) -> int:
    """Return a weight that counts in full when it is small, and never more than ``most``."""
    return weight * most // (weight + most) if weight > 0 else 0


def personal_trust(
    dealings: Dealings, caller: str, day: int, limits: Limits | None = None
) -> Trust | None:
    """Return whom ``caller`` may believe on a day; ``None`` if it paid nobody who kept a deal."""
    limits = limits or Limits()
    seeds = _fan(_gone(dealings.paid_by(caller), day), limits.seeds)
    total = sum(seeds.values())
    if not total:
        return None
    graph, cut = _reach(dealings, seeds, day, limits)
    home = {agent: weight * ALL // total for agent, weight in seeds.items()}
    rows = {agent: _Row(sum(edges.values()) * 1_000, edges) for agent, edges in graph.items()}
    shares, rounds, moved = dict(home), 0, ALL
    while moved > _CLOSE and rounds < limits.rounds:
        before, shares = shares, _passed_on(shares, rows, home)
        everybody = shares.keys() | before
        moved = sum(abs(shares.get(agent, 0) - before.get(agent, 0)) for agent in everybody)
        rounds += 1
    kept = {agent: share for agent, share in shares.items() if share}
    return Trust(caller, kept, len(seeds), sum(map(len, graph.values())), rounds, cut)


class _Row(NamedTuple):
    """Whom one passes trust on to, and the sum of the weights, times 1000."""

    total: int
    edges: Mapping[str, int]


def _passed_on(
    shares: Mapping[str, int], rows: Mapping[str, _Row], home: Mapping[str, int]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for agent, share in shares.items():
        total, edges = rows[agent]
        passed = share * PASSED
        for to, weight in edges.items():
            found[to] = found.get(to, 0) + passed * weight // total
    rest = ALL - sum(found.values())
    for agent, share in home.items():
        found[agent] = found.get(agent, 0) + rest * share // ALL
    return found


def _reach(
    dealings: Dealings, seeds: Mapping[str, int], day: int, limits: Limits
) -> tuple[dict[str, dict[str, int]], bool]:
    """Return the edges of everybody within reach, the nearest first, and whether there was more."""
    graph: dict[str, dict[str, int]] = {}
    known, queue, edges, cut = set(seeds), list(seeds), 0, False
    for agent in queue:  # it grows meanwhile
        every = _edges(dealings, agent, day)
        found = _fan(every, limits.fan)
        cut = cut or len(found) < len(every)
        ours = graph[agent] = {}
        for to, weight in found.items():
            new = to not in known
            if edges >= limits.edges or (new and len(known) >= limits.nodes):
                cut = True
                continue
            ours[to] = weight
            edges += 1
            if new:
                known.add(to)
                queue.append(to)
    return graph, cut


def _edges(dealings: Dealings, agent: str, day: int) -> dict[str, int]:
    found = _gone(dealings.paid_by(agent), day)
    for payer, pair in dealings.paid_to(agent).items():
        came = saturated(pair.on(day).kept, PAIR_MOST) // 2
        if came:
            found[payer] = found.get(payer, 0) + came
    return found


def _gone(pairs: Mapping[str, Pair], day: int) -> dict[str, int]:
    """Return whom somebody paid, each by how much more was kept than failed."""
    weighed = {payee: pair.on(day) for payee, pair in pairs.items()}
    found = {payee: saturated(one.kept - one.failed, PAIR_MOST) for payee, one in weighed.items()}
    return {payee: weight for payee, weight in found.items() if weight}


def _fan(edges: Mapping[str, int], most: int) -> dict[str, int]:
    """Return the heaviest edges, in an order that everybody finds."""
    return dict(sorted(edges.items(), key=lambda edge: (-edge[1], edge[0]))[:most])
