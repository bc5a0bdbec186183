"""Templates are found by entry points, configured by a checked model, and tested first."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field

import agents.template as found_in
from agents import Agent
from agents.perform import try_offer
from agents.template import (
    BUILT_IN,
    BadConfigError,
    SelfTestError,
    Template,
    TemplateConfig,
    UnknownTemplateError,
    registry,
    template_named,
)


class ParrotConfig(TemplateConfig):
    times: int = Field(default=1, ge=1, le=9)


class Parrot(Template):
    name: ClassVar[str] = "parrot"
    title: ClassVar[str] = "Parrot"
    description: ClassVar[str] = "Says it again."
    Config: ClassVar[type[BaseModel]] = ParrotConfig

    def build(self, config: Any, name: str) -> Agent:
        agent = Agent(name, template=self.name)

        @agent.offer("text.again", price="0.001")
        def again(text: str) -> str:
            return text * config.times

        return agent


class Impostor(Parrot):
    name: ClassVar[str] = "keywords"


class Broken(Parrot):
    def __init__(self) -> None:
        raise RuntimeError("missing library")


not_a_template = dict


async def test_a_template_makes_an_agent_of_its_settings() -> None:
    agent = Parrot().make({"times": 3}, "polly")
    assert (agent.name, agent.template) == ("polly", "parrot")
    assert await try_offer(agent, "text.again", {"text": "ah"}) == b'{"output":"ahahah"}'


@pytest.mark.parametrize(
    ("settings", "field"), [({"times": 10}, "times"), ({"time": 1}, "time"), ([], ""), (None, "")]
)
def test_settings_that_do_not_fit_are_refused_by_field(settings: object, field: str) -> None:
    with pytest.raises(BadConfigError) as caught:
        Parrot().configure(settings)
    assert caught.value.facts["field"] == field


def test_the_schema_of_the_settings_is_json_schema() -> None:
    assert Parrot().schema()["properties"]["times"]["maximum"] == 9


async def test_an_agent_that_sells_nothing_fails_the_plainest_self_test() -> None:
    await Parrot().self_test(Parrot().make({}, "polly"))
    with pytest.raises(SelfTestError):
        await Parrot().self_test(Agent("idle"))


def test_every_built_in_template_loads_under_its_own_name() -> None:
    assert set(BUILT_IN) <= set(registry())
    assert all(template.name == name for name, template in registry().items())


@pytest.mark.parametrize("name", sorted(BUILT_IN))
async def test_every_built_in_template_passes_its_self_test_as_it_comes(name: str) -> None:
    template = template_named(name)
    await template.self_test(template.make({}, name))


def test_an_unknown_template_is_a_typed_error() -> None:
    with pytest.raises(UnknownTemplateError):
        template_named("no-such-template")


def test_others_may_bring_templates_but_replace_none_and_break_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = registry()["keywords"]
    entries = [
        EntryPoint(name, f"{__name__}:{attribute}", found_in.GROUP)
        for name, attribute in [
            ("parrot", "Parrot"),
            ("impostor", "Impostor"),
            ("broken", "Broken"),
            ("strange", "not_a_template"),
            ("missing", "nothing_here"),
        ]
    ]
    monkeypatch.setattr(found_in, "entry_points", lambda group: entries)
    registry.cache_clear()
    try:
        known = registry()
    finally:
        registry.cache_clear()
    assert isinstance(known["parrot"], Template)
    assert type(known["keywords"]) is type(ours)
    assert "broken" not in known
    assert {"template broken cannot be loaded", "template missing cannot be loaded"} <= {
        record.getMessage() for record in caplog.records
    }
