"""A bridge to an A2A agent elsewhere on the web: sold here, worked there.

* Its settings are a snapshot of what was seen when the URL was listed, with a pin: name, endpoint,
  skills and key. Whenever it is looked at again, the card must still match the pin.
* A job is sent on as one message and its reply handed over as data. Whatever goes wrong fails the
  job, so that the money returns.
* The card says what it is: that the agent is elsewhere, at which URL, who listed it, and whether
  its own card is signed. Nothing is promised about what the other side does with the input, so the
  data policy is ``public``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import orjson
from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import MAX_OFFERS, Agent
from agents.foreign.card import Protocol
from agents.foreign.errors import ForeignCardChangedError, ForeignFailedError, ForeignRefusedError
from agents.foreign.look import MAX_ANSWER_BYTES, Sight, knock, see
from agents.foreign.names import agent_name, clean, skill_names
from agents.foreign.rpc import Target, Wish, send
from agents.foreign.seals import Seal
from agents.foreign.web import Reach
from agents.job import Job
from agents.template import MAX_CONFIG_BYTES, Template, TemplateConfig
from agents.templates.pricing import Rhb
from rahba.errors import BadInputError, RahbaError

MAX_URL_CHARS: Final = 256
MAX_TEXT_CHARS: Final = 200_000
TAGS: Final = ("a2a", "bridged")
_MARGIN_S: Final = 1.5
_SHOWN_TAGS: Final = 6
_ROOM_BYTES: Final = MAX_CONFIG_BYTES - 512

Url = Annotated[str, Field(max_length=MAX_URL_CHARS)]


class BridgedReply(TypedDict):
    """What the agent answered: its text, data and files (as base64, or where they are)."""

    text: str
    data: list[Any]
    files: list[dict[str, str]]


class BridgedSkill(TemplateConfig):
    """One skill: our name for it, the agent's own, and what it says of it."""

    skill: Annotated[str, Field(max_length=64)]
    id: Annotated[str, Field(max_length=256)]
    description: Annotated[str, Field(max_length=300)]
    tags: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=_SHOWN_TAGS)]


class A2aConfig(TemplateConfig):
    """What was seen at the URL, who listed it, for how much, and how far a call may go."""

    url: Url
    card_url: Annotated[str, Field(max_length=2_048)]
    endpoint: Annotated[str, Field(max_length=2_048)]
    protocol: Protocol
    tenant: Annotated[str, Field(max_length=256)] = ""
    foreign_name: Annotated[str, Field(max_length=128)]
    description: Annotated[str, Field(max_length=300)]
    version: Annotated[str, Field(max_length=64)]
    pin: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    seal: Seal
    lister: Annotated[str, Field(max_length=64)]
    skills: Annotated[list[BridgedSkill], Field(min_length=1, max_length=MAX_OFFERS)]
    price: Rhb = "0"
    call_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    probe_seconds: Annotated[int, Field(ge=1, le=300)] = 20
    capacity: Annotated[int, Field(ge=1, le=64)] = 8
    allow_private: bool = False


class OtherEnd:
    """The agent behind a bridge, looked at: the card that was listed, an answer at its door."""

    def __init__(self, config: A2aConfig) -> None:
        """Expect what ``config`` says."""
        self._config = config

    @property
    def every_s(self) -> float:
        """Return how often it is looked at."""
        return float(self._config.probe_seconds)

    @property
    def reaches_private(self) -> bool:
        """Say whether it may be in our own networks."""
        return self._config.allow_private

    async def check(self) -> int:
        """Look at card and door; return how long the door took, in milliseconds.

        Raises:
            ForeignCardChangedError: the card is another than the one that was listed.
            RahbaError: as :func:`agents.foreign.look.see` and ``knock`` do.
        """
        config = self._config
        sight = await see(config.url, allow_private=config.allow_private)
        if sight.pin != config.pin:
            raise ForeignCardChangedError(
                "the agent shows another card than the one that was listed",
                listed_as=config.foreign_name,
                shows=clean(sight.card.name, 128),
            )
        return await knock(sight.card, allow_private=config.allow_private)


class A2aBridge(Template):
    """Sells the skills of one A2A agent on the web."""

    name: ClassVar[str] = "a2a"
    title: ClassVar[str] = "Bridge to an A2A agent"
    description: ClassVar[str] = "Sells the skills of an A2A agent elsewhere, listed by its URL."
    Config: ClassVar[type[BaseModel]] = A2aConfig

    @override
    def build(self, config: A2aConfig, name: str) -> Agent:
        agent = Agent(
            name,
            description=_about(config),
            version=config.version or self.version,
            template=self.name,
            data_policy="public",
            capacity=config.capacity,
            vital=OtherEnd(config),
        )
        for skill in config.skills:
            _ = agent.offer(
                skill.skill,
                price=config.price,
                description=skill.description,
                tags=[*TAGS, *skill.tags],
                timeout=config.call_seconds + _MARGIN_S,
                latency_ms=config.call_seconds * 1_000,
            )(_forwarding(config, skill.id))
        return agent


def snapshot(
    sight: Sight, url: str, lister: str, *, name: str | None = None, **settings: Any
) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of a bridge to what was seen at ``url``.

    ``settings`` are those of :class:`A2aConfig` that a lister may choose. Of more skills than fit
    the first ones are taken.

    Raises:
        BadInputError: ``url`` is too long to be shown on a card.
        BadConfigError: a setting is out of its range.
    """
    if len(url) > MAX_URL_CHARS:
        raise BadInputError("a listed URL is shown on the card", limit_chars=MAX_URL_CHARS)
    card = sight.card
    names = skill_names([skill.id for skill in card.skills])
    skills = [
        {
            "skill": ours,
            "id": theirs.id,
            "description": clean(f"{theirs.name}: {theirs.description}", 300),
            "tags": [tag for each in theirs.tags[:_SHOWN_TAGS] if (tag := clean(each, 32))],
        }
        for ours, theirs in zip(names, card.skills, strict=True)
    ][:MAX_OFFERS]
    config: dict[str, Any] = {
        "url": url,
        "card_url": sight.url,
        "endpoint": card.endpoint,
        "protocol": card.protocol,
        "tenant": card.tenant,
        "foreign_name": clean(card.name, 128),
        "description": clean(card.description, 300),
        "version": clean(card.version, 64),
        "pin": sight.pin,
        "seal": sight.seal,
        "lister": lister,
        **settings,
    }
    config["skills"] = skills
    while len(orjson.dumps(config)) > _ROOM_BYTES and len(skills) > 1:
        _ = skills.pop()
    A2aBridge().configure(config)
    return name or agent_name(card.name, "foreign agent"), config


_SEALS: Final[dict[Seal, str]] = {
    "verified": "signed by its server",
    "unsigned": "unsigned",
    "unverifiable": "signed in a way that cannot be verified",
}


def _about(config: A2aConfig) -> str:
    return clean(
        f"Bridge to an A2A agent at {config.url}, listed by {config.lister}; "
        f"its card is {_SEALS[config.seal]}. {config.description}",
        500,
    )


def _forwarding(config: A2aConfig, skill_id: str) -> Any:
    reach = Reach(MAX_ANSWER_BYTES, config.call_seconds, allow_private=config.allow_private)
    target = Target(config.endpoint, config.protocol, config.tenant, reach)

    async def forward(
        job: Job,
        text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] = "",
        data: dict[str, Any] | None = None,
    ) -> BridgedReply:
        """Send ``text`` and ``data`` on to the agent and hand over what it answers."""
        if not text and data is None:
            raise BadInputError("there is neither text nor data to send")
        within_s = max(0.1, min(config.call_seconds, job.remaining_ms / 1_000 - _MARGIN_S))
        wish = Wish(job.terms.agreement or "trial", text, data, skill_id)
        try:
            reply = await send(target, wish, within_s=within_s)
        except (ForeignFailedError, ForeignRefusedError):
            raise
        except RahbaError as error:
            raise ForeignFailedError(
                f"{error.code}: {error.message}"[:300], cause=error.code
            ) from error
        return {"text": reply.text, "data": reply.data, "files": reply.files}

    return forward
