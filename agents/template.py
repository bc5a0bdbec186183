"""Templates: agents ready to deploy, found by entry points, configured by a pydantic model.

* A template names itself, says what it is for, and builds an :class:`~agents.agent.Agent` from a
  checked ``Config``. Its self-test runs before a deployment goes on the market.
* Other packages bring theirs under the entry-point group ``rahba.templates``. A template of our
  own cannot be replaced by one of theirs, and one that cannot be loaded is left out with a warning.

    >>> class Echo(Template):
    ...     name, title, description = "echo", "Echo", "Gives back what it gets."
    ...     def build(self, config: BaseModel, name: str) -> Agent:
    ...         agent = Agent(name, template=self.name)
    ...         @agent.offer("text.echo", price="0.001")
    ...         def echo(text: str) -> str:
    ...             return text
    ...         return agent
    >>> Echo().make({}, "parrot")
    Agent('parrot', ['text.echo'])
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from agents.agent import Agent
from rahba.errors import BadInputError

GROUP: Final = "rahba.templates"
MAX_CONFIG_BYTES: Final = 16_384
BUILT_IN: Final[dict[str, str]] = {
    "summarise": "agents.templates.summarise:Summarise",
    "keywords": "agents.templates.keywords:Keywords",
    "sentiment": "agents.templates.sentiment:SentimentTemplate",
    "language-detect": "agents.templates.language_detect:LanguageDetect",
    "pdf-text": "agents.templates.pdf_text:PdfText",
    "web-to-markdown": "agents.templates.web_to_markdown:WebToMarkdown",
    "data-analyst": "agents.templates.data_analyst:DataAnalyst",
    "code-format": "agents.templates.code_format:CodeFormat",
    "concierge": "agents.templates.concierge:Concierge",
}
# Deployed by listing a URL, and by nobody's hand: their settings say what was seen there.
BRIDGES: Final[dict[str, str]] = {"a2a": "agents.foreign.bridge:A2aBridge"}

_log: Final = logging.getLogger(__name__)


class UnknownTemplateError(BadInputError):
    """No template of this name is installed."""

    code = "unknown_template"
    hint = "`rahba templates` lists what there is"


class BadConfigError(BadInputError):
    """A deployment's configuration does not fit its template; ``field`` is the first that fails."""

    code = "bad_config"
    hint = "see the template's config schema"


class SelfTestError(BadInputError):
    """A configured template does not do what it is for."""

    code = "self_test_failed"


class TemplateConfig(BaseModel):
    """The base of every ``Config``: unknown settings are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Template(ABC):
    """One kind of agent. Made once, without arguments; holds no state."""

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    version: ClassVar[str] = "1"
    Config: ClassVar[type[BaseModel]] = TemplateConfig

    @abstractmethod
    def build(self, config: Any, name: str) -> Agent:
        """Return an agent called ``name`` for a checked ``config`` (an instance of ``Config``)."""

    async def self_test(self, agent: Agent) -> None:
        """Raise :class:`SelfTestError` unless ``agent`` does its work; by default, sells at all."""
        if not agent.offers:
            raise SelfTestError(f"{agent.name} sells nothing")

    def configure(self, settings: object) -> BaseModel:
        """Check ``settings`` against ``Config``.

        Raises:
            BadConfigError: a setting is unknown, missing or out of its range.
        """
        try:
            return self.Config.model_validate(settings)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            place = ".".join(str(part) for part in problems[0]["loc"])
            raise BadConfigError(
                f"{self.name}: {place or 'config'}: {problems[0]['msg']}"[:400], field=place
            ) from error
        except BadInputError as error:  # a validator of the model refused by a type of ours
            raise BadConfigError(f"{self.name}: {error.message}"[:400], field="") from error

    def make(self, settings: object, name: str) -> Agent:
        """Check ``settings`` and build the agent."""
        return self.build(self.configure(settings), name)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of ``Config``: the CLI's flags, the API's body, the form."""
        return self.Config.model_json_schema()


@lru_cache(maxsize=1)
def registry() -> dict[str, Template]:
    """Return every template that loads, by name: our own first, then those of other packages."""
    found: dict[str, Template] = {}
    for place in BUILT_IN.values():
        template = _loaded(place)
        found[template.name] = template
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.value in BUILT_IN.values() or entry.name in {*found, *BRIDGES}:
            continue
        try:
            template = entry.load()()
        except Exception as error:  # noqa: BLE001  # the supervised boundary: others' packages
            _log.warning("template %s cannot be loaded", entry.name, exc_info=error)
            continue
        if isinstance(template, Template) and template.name not in {*found, *BRIDGES}:
            found[template.name] = template
    return found


@lru_cache(maxsize=1)
def bridges() -> dict[str, Template]:
    """Return the templates that listings make use of; :func:`registry` has none of them."""
    return {name: _loaded(place) for name, place in BRIDGES.items()}


def _loaded(place: str) -> Template:
    module, _, attribute = place.partition(":")
    template: Template = getattr(importlib.import_module(module), attribute)()
    return template


def template_named(name: str) -> Template:
    """Return one template, a bridge's too.

    Raises:
        UnknownTemplateError: there is none of this name.
    """
    template = bridges().get(name) if name in BRIDGES else registry().get(name)
    if template is None:
        raise UnknownTemplateError(f"no template is called {name[:64]!r}")
    return template
