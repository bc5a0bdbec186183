"""Plays NegMAS's own strategies, in the environment of NegMAS, against whoever sits at the pipe.

Nothing of Rahba is imported here, and nothing of NegMAS there: JSON lines pass between two
processes. One line in is one game:

    {"issues": [[...], ...], "sides": [{"tastes": [{...}], "weights": [...], "reserve": 0.2}, ...],
     "players": ["boulware", "guest"], "steps": 20, "seed": 1}

While it is played, each turn of a ``guest`` is one line out and one line in:

    {"turn": 0, "step": 3, "heard": [...] | null}      ->  {"bid": [...]} | {"take": true} | {}

``heard`` is what the other side offered since. The game ends with one line out:

    {"agreement": [...] | null, "steps": 17}
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import numpy as np
from negmas.outcomes import make_issue
from negmas.preferences import LinearAdditiveUtilityFunction
from negmas.sao import ResponseType, SAOMechanism, SAONegotiator, SAOResponse
from negmas.sao.negotiators import (
    AspirationNegotiator,
    BoulwareTBNegotiator,
    ConcederTBNegotiator,
    FastMiCRONegotiator,
    HybridNegotiator,
    LinearTBNegotiator,
    MiCRONegotiator,
    NaiveTitForTatNegotiator,
)

BUILT_IN = {
    "stochastic boulware": lambda **known: AspirationNegotiator(
        aspiration_type="boulware", stochastic=True, **known
    ),
    "boulware": BoulwareTBNegotiator,
    "linear": LinearTBNegotiator,
    "fast micro": FastMiCRONegotiator,
    "hybrid": HybridNegotiator,
    "tit for tat": NaiveTitForTatNegotiator,
    "micro": MiCRONegotiator,
    "conceder": ConcederTBNegotiator,
}


class Guest(SAONegotiator):
    """Asks the pipe what to do; it is shown the other side's offers and nothing else."""

    def __init__(self, turn: int, **known: Any) -> None:
        super().__init__(**known)
        self._turn = turn

    def __call__(self, state: Any, dest: str | None = None) -> SAOResponse:  # noqa: ARG002
        """Answer the standing offer with what the guest says."""
        heard = state.current_offer
        _say({"turn": self._turn, "step": state.step, "heard": heard and list(heard)})
        answer = json.loads(sys.stdin.readline())
        if "bid" in answer:
            return SAOResponse(ResponseType.REJECT_OFFER, tuple(answer["bid"]))
        if "take" in answer:
            return SAOResponse(ResponseType.ACCEPT_OFFER, heard)
        return SAOResponse(ResponseType.END_NEGOTIATION, None)


def play(game: dict[str, Any]) -> dict[str, Any]:
    """Play one game and return how it ended."""
    random.seed(game["seed"])
    np.random.seed(game["seed"])  # noqa: NPY002 (NegMAS draws from it)
    issues = [make_issue(values, f"i{n}") for n, values in enumerate(game["issues"])]
    session = SAOMechanism(issues=issues, n_steps=game["steps"], sync_calls=True)
    for turn, (name, side) in enumerate(zip(game["players"], game["sides"], strict=True)):
        tastes = [
            {value: table[str(value)] for value in values}
            for values, table in zip(game["issues"], side["tastes"], strict=True)
        ]
        utility = LinearAdditiveUtilityFunction(
            tastes, weights=side["weights"], issues=issues, reserved_value=side["reserve"]
        )
        known = {"name": f"{turn} {name}"}
        player = Guest(turn, **known) if name == "guest" else BUILT_IN[name](**known)
        session.add(player, ufun=utility)
    end = session.run()
    return {"agreement": end.agreement and list(end.agreement), "steps": end.step}


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Play game after game until the pipe is closed."""
    for line in sys.stdin:
        _say(play(json.loads(line)))


if __name__ == "__main__":
    main()
