"""Templates deployed on several terms: checked, shown, bought, and worked by what was bought."""

from __future__ import annotations

from typing import Any

import pytest

from agents.agent import Tier
from agents.deployments import Deployments
from agents.schema import TierError
from agents.stores.memory import MemoryRecords
from agents.template import BUILT_IN, BadConfigError, template_named
from agents.templates.pricing import Pricing, TierSetting
from agents.templates.summarise import as_good_as
from rahba.messages import MAX_TIERS, Energy
from tests.fixtures.documents import read_document
from tests.fixtures.gateway import Site
from tests.fixtures.hosting import CLOCK, IDS, Souk, until

TIERS = [
    {"price": "0.006", "floor": "0.004", "quality": 990},
    {"price": "0.004", "latency_ms": 100, "privacy": "public", "energy_uwh": 50},
]


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_template_takes_tiers_by_its_settings(name: str) -> None:
    agent = template_named(name).make({"tiers": TIERS}, "stall")
    (offer,) = agent.offers.values()
    assert offer.tiers == (
        Tier(price="0.006", floor="0.004", quality=990),
        Tier(
            price="0.004",
            latency_ms=100,
            privacy="public",
            energy=Energy(uwh=50, high=50, method="declared"),
        ),
    )
    assert template_named(name).make({"floor": "0.0001", "tiers": []}, "b").offers[offer.skill]
    assert "TierSetting" in template_named(name).schema()["$defs"]


WRONG: list[tuple[Any, str]] = [
    ([{"price": "0.006"}], "tiers.0"),
    ([{"quality": 900}], "tiers.0.price"),
    ([{"price": "0.006", "floor": "0.007", "quality": 900}], "tiers.0"),
    ([{"price": "much", "quality": 900}], "tiers.0.price"),
    ([{"price": 0.006, "quality": 900}], "tiers.0.price"),
    ([{"price": "0.006", "quality": 1_001}], "tiers.0.quality"),
    ([{"price": "0.006", "latency_ms": 0}], "tiers.0.latency_ms"),
    ([{"price": "0.006", "privacy": "secret"}], "tiers.0.privacy"),
    ([{"price": "0.006", "energy_uwh": -1}], "tiers.0.energy_uwh"),
    ([{"price": "0.006", "quality": 900, "colour": "red"}], "tiers.0.colour"),
    ([TIERS[0], {"price": "0.006", "quality": None}], "tiers.1"),
    ({"price": "0.006"}, "tiers"),
    ([{"price": "0.006", "quality": 100 + n} for n in range(MAX_TIERS)], "tiers"),
]


@pytest.mark.parametrize(("tiers", "field"), WRONG)
def test_a_tier_that_does_not_fit_is_refused_with_its_place(tiers: Any, field: str) -> None:
    with pytest.raises(BadConfigError) as refused:
        template_named("keywords").make({"tiers": tiers}, "stall")
    assert refused.value.facts["field"] == field


def test_two_tiers_on_the_same_terms_are_refused_whatever_they_cost() -> None:
    posted = {"price": "0.004", "quality": 600}  # as without tiers
    for tiers in ([TIERS[0], TIERS[0] | {"price": "0.005"}], [posted]):
        with pytest.raises(TierError, match="same terms"):
            template_named("keywords").make({"tiers": tiers}, "stall")


def test_settings_become_what_an_agent_declares() -> None:
    assert TierSetting(price="1", quality=0).tier() == Tier(price="1", quality=0)
    assert Pricing(tiers=(TierSetting(price="1", latency_ms=5),)).terms()["tiers"] == [
        Tier(price="1", latency_ms=5)
    ]


def test_a_summary_is_made_with_the_least_effort_that_is_as_good_as_what_was_bought() -> None:
    bought = {0: "fast", 450: "fast", 451: "balanced", 650: "balanced", 800: "thorough"}
    assert {quality: as_good_as(quality) for quality in bought} == bought
    assert as_good_as(1_000) == "thorough"


@pytest.mark.redis
async def test_a_deployments_tiers_are_on_its_card_bought_and_worked_by(souk: Souk) -> None:
    config = {
        "quality": "fast",
        "tiers": [{"price": "0.004", "floor": "0.003", "quality": 800, "latency_ms": 1_200}],
    }
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    async with souk.host(deployments=deployments) as host:
        record = await deployments.deploy("summarise", "atlas", config)
        await until(lambda: host.members)
        listing = await souk.broker.directory.get(host.members[0].did)
        assert listing is not None
        (skill,) = listing.card.skills
        (tier,) = skill.tiers
        assert (tier.price, tier.quality, tier.latency_ms) == ("4000000", 800, 1_200)
        assert skill.posted is not None
        assert skill.posted.issues.quality == 450
        args = {"text": read_document("the-square-and-the-road.txt")}
        plain = await souk.buy("text.summarise", args, mode="bargain")
        better = await souk.buy("text.summarise", args, mode="bargain", min_quality=800)
        assert plain.agreed_fals < 3_000_000 <= better.agreed_fals <= 4_000_000
        assert len(plain.output["sentences"]) == 5, "as fast does"
        assert len(better.output["sentences"]) == 9, "as thorough does"
        assert (await deployments.get(record.id)).config == config


@pytest.mark.parametrize(
    ("tiers", "code"),
    [
        ([{"price": "0.004"}], "bad_config"),
        ([{"price": "0.004", "floor": "0.005", "quality": 900}], "bad_config"),
        ([{"price": "0.004", "quality": 600}], "bad_tier"),
    ],
)
async def test_tiers_that_cannot_be_deployed_are_refused(
    site: Site, tiers: list[Any], code: str
) -> None:
    body = {"template": "keywords", "name": "x", "config": {"tiers": tiers}}
    answer = await site.ask("POST", "/v1/deployments", json=body)
    assert (answer.status, answer.json["code"]) == (422, code)
    assert (await site.ask("GET", "/v1/deployments")).json == {"deployments": []}
