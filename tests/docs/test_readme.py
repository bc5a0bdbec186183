"""The README does what it says: its commands are run as they stand, on a real market."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.fixtures.market import RunningMarket

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def block_with(language: str, words: str) -> str:
    found = [block for block in blocks(language) if words in block]
    assert len(found) == 1, (words, len(found))
    return found[0]


def test_the_priced_agent_of_the_readme_is_the_one_in_the_examples() -> None:
    assert block_with("python", "Agent(") == (ROOT / "examples/translator.py").read_text("utf-8")


@pytest.mark.timeout(120)
def test_the_priced_agent_sells_as_the_readme_shows(market: RunningMarket, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "translator.py").write_text(block_with("python", "Agent("), "utf-8")
    shown = block_with("sh", "rahba host").replace("rahba", f"{sys.executable} -m api.cli")
    env = market.env | {"PYTHONPATH": str(ROOT)}
    hosting, calling = shown.strip().split("\n")
    with subprocess.Popen(hosting.rstrip("& ").split(), cwd=tmp_path, env=env) as host:
        try:
            until_listed(market, "text.translate")
            done = subprocess.run(
                ["sh", "-c", calling], cwd=tmp_path, env=env, capture_output=True, check=True
            )
        finally:
            host.terminate()
    assert done.stdout.decode().strip() == "bon matin marché"
    assert b"receipt verified" in done.stderr
    deal = next(d for d in market.rahba("ls", "deals") if d["skill"] == "text.translate")
    assert deal["state"] == "settled"
    assert int(deal["paid_fals"]) >= 1_200_000


@pytest.mark.timeout(120)
def test_the_curl_call_of_the_readme_is_answered_and_paid(
    market: RunningMarket, summariser: str
) -> None:
    command = (
        block_with("sh", "curl -s http://127.0.0.1:8700/v1/calls")
        .replace("http://127.0.0.1:8700", market.url)
        .replace(".rahba/api-key", str(market.data_dir / "api-key"))
        .replace("…", "The market opens. People trade. Everyone goes home happy with the market.")
    )
    answers = [
        orjson.loads(subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert answers[0]["state"] == "settled", answers[0]
    assert answers[0]["output"]["summary"]
    assert answers[1] == answers[0], "the same idempotency key buys once"


def test_every_file_that_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_setting_is_documented() -> None:
    source = (ROOT / "api/settings.py").read_text("utf-8")
    named = set(re.findall(r'"((?:RAHBA|REDIS|CELERY)_[A-Z_]+)"', source))
    table = (ROOT / "docs/settings.md").read_text("utf-8")
    assert named
    assert {name for name in named if f"`{name}`" not in table} == set()


def test_every_command_is_documented() -> None:
    from api.cli.main import COMMANDS

    page = (ROOT / "docs/commands.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"`rahba {name}" not in page] == []


@pytest.fixture(scope="session")
def summariser(market: RunningMarket) -> str:
    """Have at least one summariser on the market."""
    if not market.rahba("ls", "agents", "--skill", "text.summarise"):
        market.rahba("deploy", "summarise", "--name", "readme")
    return "text.summarise"


def until_listed(market: RunningMarket, skill: str) -> None:
    for _ in range(100):
        if market.rahba("ls", "agents", "--skill", skill):
            return
    raise AssertionError(f"{skill} was not listed in time")
