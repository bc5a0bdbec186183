"""The benchmark beside NegMAS: its domains, its figures, and what it says where it cannot run."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import orjson
import pytest

from agents.strategies import Bid, Decision, Leave, Take, View
from benchmarks import market_negmas, negmas_pipe
from benchmarks.bargaining_domains import SHAPES, SIZES, WORTH_A_DEAL, frontier, generate
from benchmarks.market_negmas import Game, paired, rows_of, table
from benchmarks.negmas_pipe import BUILT_IN, FOLDER, GUEST, Guest, NoOpponentsError, opponents

DOMAINS = list(generate(15, part="train"))

# A table of nobody: asks each guest once, in turn, and ends with what the second one said.
ASKS = """\
import json, sys
for line in sys.stdin:
    heard, said = None, None
    for turn, player in enumerate(json.loads(line)["players"]):
        if player == "guest":
            print(json.dumps({"turn": turn, "step": 0, "heard": heard}), flush=True)
            said = json.loads(sys.stdin.readline())
            heard = said.get("bid", heard)
    print(json.dumps({"agreement": heard if said.get("take") else None, "steps": 1}), flush=True)
"""


class Watcher:
    """Remembers what it was shown; bids its best outcome and takes what it hears at the end."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def propose(self, view: View) -> Decision:
        self.views.append(view)
        if view.bids_left:
            return Bid(view.preferences.ranked[0][1])
        return Take() if view.theirs else Leave()


def game(player: str, opponent: str, domain: int, side: int, advantage: float) -> Game:
    deal = advantage > 0
    return Game(player, opponent, domain, side, advantage, 9, 0.01 if deal else None, 0.2)


def told(ours: float, theirs: float) -> list[Game]:
    players = {GUEST: ours, "boulware": theirs, "linear": theirs - 0.1}
    return [
        game(player, opponent, domain, side, gain + domain / 1_000)
        for player, gain in players.items()
        for opponent in players
        for domain in range(12)
        for side in (0, 1)
    ]


def test_the_domains_come_in_all_shapes_sizes_and_reserves_and_hold_a_deal_for_both() -> None:
    for number, domain in enumerate(DOMAINS):
        assert domain.name.startswith(SHAPES[number % len(SHAPES)])
        assert SIZES[0] <= prod(len(tastes) for tastes in domain.sides[0].tastes) <= SIZES[1]
        fair = [
            min(domain.sides[0].advantage(outcome), domain.sides[1].advantage(outcome))
            for outcome in domain.outcomes
        ]
        assert max(fair) >= WORTH_A_DEAL - 1e-9
        for side in domain.sides:
            assert sum(side.weights) == pytest.approx(1.0)
            mine = side.preferences()
            assert mine.worth(mine.ranked[-1][1]) == pytest.approx(side.worth(mine.ranked[-1][1]))
    assert len({side.reserve for domain in DOMAINS for side in domain.sides}) > 2


def test_the_domains_are_the_same_in_each_run_and_those_kept_aside_are_others() -> None:
    assert list(generate(15, part="train")) == DOMAINS
    aside = list(generate(15, part="aside"))
    assert not any(one.sides == other.sides for one in DOMAINS for other in aside)


def test_nobody_can_improve_upon_a_point_of_the_frontier() -> None:
    points = [(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1), (0.5, 0.2)]
    assert sorted(frontier(points)) == [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1)]


@pytest.mark.parametrize("turn", [0, 1])
def test_a_guest_is_told_when_its_bid_is_the_last_that_can_be_taken(turn: int) -> None:
    watcher = Watcher()
    guest = Guest(watcher, DOMAINS[0].sides[turn].preferences(), turn, 3)
    heard = list(DOMAINS[0].sides[1 - turn].preferences().ranked[0][1])
    answers = [guest.answer(heard if turn or step else None) for step in range(3)]
    assert [view.bids_left for view in watcher.views] == ([3, 2, 1] if turn == 0 else [2, 1, 0])
    assert [view.closing for view in watcher.views] == [False, False, turn == 0]
    assert [view.time for view in watcher.views][:2] == ([0.0, 0.5] if turn == 0 else [0.0, 1.0])
    assert answers[-1] == ({"take": True} if turn else {"bid": list(guest.mine[0])})


def test_games_pass_over_the_pipe_and_a_process_that_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opponents.py").write_text(ASKS)
    monkeypatch.setattr(negmas_pipe, "FOLDER", tmp_path)
    with opponents(Path(sys.executable)) as room:
        played = room.play(
            DOMAINS[0], (GUEST, GUEST), rounds=1, seed=1, strategy=lambda _: Watcher()
        )
        assert played.outcome == DOMAINS[0].sides[0].preferences().ranked[0][1]
        assert played.rounds == 1
    (tmp_path / "opponents.py").write_text("")
    with opponents(Path(sys.executable)) as room, pytest.raises((NoOpponentsError, OSError)):
        room.play(DOMAINS[0], (GUEST, GUEST), rounds=1, seed=1, strategy=lambda _: Watcher())


def test_a_tournament_tells_each_game_from_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opponents.py").write_text(ASKS)
    monkeypatch.setattr(negmas_pipe, "FOLDER", tmp_path)
    games = market_negmas.tournament(
        DOMAINS[:4],
        rounds=1,
        players=[GUEST],
        strategy=lambda _: Watcher(),
        python=Path(sys.executable),
    )
    assert len(games) == 8
    assert {one.case for one in games} == {(n, side, GUEST) for n in range(4) for side in (0, 1)}
    assert all(one.pareto == pytest.approx(0.0) for one in games)
    assert [one.advantage for one in games if one.side == 0] == pytest.approx([1.0] * 4)


def test_a_lead_is_judged_against_the_best_built_in_of_the_same_run() -> None:
    test = paired(told(0.70, 0.60))
    assert test.against == "boulware"
    assert test.lead == pytest.approx(0.10)
    assert test.low <= test.lead <= test.high
    assert test.p < 0.05
    assert test.pairs == 12 * 2 * 3
    assert paired(told(0.60, 0.60)).p > 0.5


@pytest.mark.parametrize(("ours", "met"), [(0.64, True), (0.62, False)])
def test_a_lead_below_its_target_is_reported_as_not_met(ours: float, *, met: bool) -> None:
    rows = {one.name.split(": ", 1)[1]: one for one in rows_of(told(ours, 0.60), 20)}
    assert rows["lead over boulware"].met is met
    assert rows["agreement"].met is True
    assert rows["advantage beside boulware"].reference == pytest.approx(0.6055)
    assert rows["linear, advantage"].value == pytest.approx(0.5055)
    assert rows["linear, advantage"].met is None


def test_a_game_without_a_deal_counts_as_nothing_gained_and_as_no_distance() -> None:
    games = [game(GUEST, "linear", 0, 0, 0.0), game(GUEST, "linear", 1, 0, 0.8)]
    (line,) = table(games)
    assert (line.advantage, line.agreement, line.pareto) == (0.4, 0.5, 0.01)


@pytest.mark.long
def test_where_no_environment_can_be_built_the_reason_is_given_instead_of_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.lock").write_text("no-such-project-at-all==1 --hash=sha256:00\n")
    with pytest.raises(NoOpponentsError, match="not built"):
        negmas_pipe.environment(tmp_path)

    def refuse() -> Path:
        raise NoOpponentsError("no index")

    monkeypatch.setattr(market_negmas, "environment", refuse)
    (only,) = market_negmas.run()
    assert "not measured (no index)" in only.name
    assert (only.value, only.met) == (0.0, None)


def test_an_environment_that_matches_its_lock_is_not_built_again(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_bytes((FOLDER / "requirements.lock").read_bytes())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    stamp = negmas_pipe.stamp_of(tmp_path)
    stamp.touch()
    assert negmas_pipe.environment(tmp_path) == python
    (tmp_path / "requirements.lock").write_text("other")
    assert negmas_pipe.stamp_of(tmp_path) != stamp


def test_every_player_of_the_table_is_one_of_negmas(tmp_path: Path) -> None:
    source = (FOLDER / "opponents.py").read_text()
    assert all(f'"{name}"' in source for name in BUILT_IN)
    assert "import negmas" not in (Path(negmas_pipe.__file__)).read_text()


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_the_best_strategy_leads_negmas_on_a_few_domains() -> None:
    try:
        python = negmas_pipe.environment()
    except NoOpponentsError as error:
        pytest.skip(str(error))
    games = market_negmas.tournament(list(generate(5, part="train")), rounds=20, python=python)
    first = table(games)[0]
    assert first.player == GUEST, orjson.dumps([line.player for line in table(games)])
    assert first.agreement >= 0.9
    assert "negmas" not in sys.modules
