"""Where an agent comes from, so that another process can make the same one again.

* From a template: its name, the settings, the agent's name.
* From a file: a Python module that declares agents at its top level. Loading a file runs it; only
  files that the owner of the host names are loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from agents.agent import Agent
from agents.template import template_named
from rahba.encoding import sha256_hex
from rahba.errors import BadInputError

MAX_FILE_BYTES: Final = 1024 * 1024


class BadFileError(BadInputError):
    """A file cannot be loaded, or declares no agent."""

    code = "bad_agent_file"
    hint = "at its top level the file needs `agent = Agent(...)` with at least one offer"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to make an agent again: ``place`` is the template's name, or the path of the file."""

    kind: Literal["template", "file"]
    place: Annotated[str, msgspec.Meta(max_length=4_096)]
    name: Annotated[str, msgspec.Meta(max_length=64)]
    config: dict[str, Any] = {}


def make_agent(source: Source) -> Agent:
    """Return the agent that ``source`` describes, made once a process.

    Raises:
        UnknownTemplateError, BadConfigError, BadFileError: accordingly.
    """
    return _made(msgspec.json.encode(source, order="sorted"))


@lru_cache(maxsize=256)
def _made(raw: bytes) -> Agent:
    source = msgspec.json.decode(raw, type=Source)
    if source.kind == "template":
        return template_named(source.place).make(source.config, source.name)
    for agent in agents_in(Path(source.place)):
        if agent.name == source.name:
            return agent
    raise BadFileError(f"{source.place} declares no agent called {source.name!r}")


def agents_in(path: Path) -> list[Agent]:
    """Load a Python file and return the agents it declares, in order.

    Raises:
        BadFileError: it is no Python file, fails to run, or declares no agent that sells.
    """
    if path.suffix != ".py" or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise BadFileError(f"{path} is no Python file (of at most 1 MiB)")
    name = f"hosted_{path.stem}_{sha256_hex(str(path.resolve()).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadFileError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints of its functions are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadFileError(f"{path} fails: {type(error).__name__}: {error}"[:400]) from error
    found = {id(item): item for item in vars(module).values() if isinstance(item, Agent)}
    agents = [agent for agent in found.values() if agent.offers]
    if not agents:
        raise BadFileError(f"{path} declares no agent that sells anything")
    if len({agent.name for agent in agents}) != len(agents):
        raise BadFileError(f"{path} declares two agents of the same name")
    return agents
