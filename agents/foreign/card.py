"""Reads an A2A AgentCard, of version 1.0 or 0.3, as far as a bridge needs it.

A card names itself, where and how it is spoken to, and what it can do. Servers of 1.0 leave out
what is empty (as protocol buffers do), so lists may be missing; what is unknown is passed over.
A 1.0 card lists its ``supportedInterfaces``; a 0.3 card has one ``url`` with a
``preferredTransport``. Of the ways to speak to the agent only JSON-RPC is taken, the newest first.

Source: https://a2a-protocol.org/latest/specification/ (section 4.4, AgentCard) and the JSON schema
of version 0.3.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from agents.foreign.errors import BadForeignCardError, UnsupportedProtocolError

Protocol = Literal["0.3", "1.0"]
T = TypeVar("T")

MAX_SKILLS: Final = 512
_SPOKEN: Final = frozenset({"text", "text/plain", "text/*", "*/*", "application/json"})

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Address = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
Prose = Annotated[str, msgspec.Meta(max_length=20_000)]
Words = Annotated[list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=64)]


class ForeignSkill(msgspec.Struct, frozen=True, rename="camel"):
    """One thing the agent can do, in its own words. No modes of its own mean those of the card."""

    id: Line
    name: Line
    description: Prose = ""
    tags: Words = []
    input_modes: Words = []
    output_modes: Words = []


class ForeignCard(msgspec.Struct, frozen=True):
    """A card that was read: who, where, by which protocol, and what can be asked of it in text."""

    name: str
    description: str
    version: str
    endpoint: str
    protocol: Protocol
    tenant: str
    skills: list[ForeignSkill]


class _Basics(msgspec.Struct, frozen=True, rename="camel"):
    name: Line
    description: Prose
    version: Annotated[str, msgspec.Meta(max_length=256)]
    skills: Annotated[list[ForeignSkill], msgspec.Meta(min_length=1, max_length=MAX_SKILLS)]
    capabilities: dict[str, Any] = {}
    default_input_modes: Words = []
    default_output_modes: Words = []


class _Interface(msgspec.Struct, frozen=True, rename="camel"):
    url: Address
    protocol_binding: Line
    protocol_version: Line
    tenant: Annotated[str, msgspec.Meta(max_length=256)] = ""


class _Newer(msgspec.Struct, frozen=True, rename="camel"):
    supported_interfaces: Annotated[list[_Interface], msgspec.Meta(min_length=1, max_length=32)]


class _Way(msgspec.Struct, frozen=True):
    url: Address
    transport: Line


class _Older(msgspec.Struct, frozen=True, rename="camel"):
    url: Address
    protocol_version: Line = "0.3.0"
    preferred_transport: Line = "JSONRPC"
    additional_interfaces: Annotated[list[_Way], msgspec.Meta(max_length=32)] | None = None


def read_card(value: object) -> ForeignCard:
    """Return the card in decoded JSON.

    Raises:
        BadForeignCardError: a required field is missing or of another type.
        UnsupportedProtocolError: we cannot speak with this agent.
    """
    if not isinstance(value, dict):
        raise BadForeignCardError("a card is a JSON object")
    basics = _as(value, _Basics)
    ways = _newer_ways(value) if "supportedInterfaces" in value else _older_ways(value)
    best = max(ways, key=lambda way: way[1], default=None)
    if best is None:
        raise UnsupportedProtocolError("the agent offers no JSON-RPC of A2A 0.3 or 1.0")
    skills = [skill for skill in basics.skills if _speaks(skill, basics)]
    if not skills:
        raise UnsupportedProtocolError("the agent takes neither text nor JSON")
    if len({skill.id for skill in basics.skills}) != len(basics.skills):
        raise BadForeignCardError("two skills have the same id")
    endpoint, protocol, tenant = best
    return ForeignCard(
        name=basics.name,
        description=basics.description,
        version=basics.version,
        endpoint=endpoint,
        protocol=protocol,
        tenant=tenant,
        skills=skills,
    )


def _newer_ways(value: object) -> Iterator[tuple[str, Protocol, str]]:
    for way in _as(value, _Newer).supported_interfaces:
        protocol = _dialect(way.protocol_version)
        if way.protocol_binding.upper() == "JSONRPC" and protocol is not None:
            yield way.url, protocol, way.tenant


def _older_ways(value: object) -> Iterator[tuple[str, Protocol, str]]:
    card = _as(value, _Older)
    protocol = _dialect(card.protocol_version)
    ways = [_Way(card.url, card.preferred_transport), *(card.additional_interfaces or [])]
    for way in ways:
        if way.transport.upper() == "JSONRPC" and protocol is not None:
            yield way.url, protocol, ""
            return


def _dialect(version: str) -> Protocol | None:
    """Return which of the two ways of speaking a version means; 0.2 spoke like 0.3."""
    major, _, rest = version.partition(".")
    if major == "1":
        return "1.0"
    return "0.3" if major == "0" and rest.partition(".")[0] in {"2", "3"} else None


def _speaks(skill: ForeignSkill, basics: _Basics) -> bool:
    modes = skill.input_modes or basics.default_input_modes
    return not modes or any(mode.partition(";")[0].strip().lower() in _SPOKEN for mode in modes)


def _as(value: object, form: type[T]) -> T:
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise BadForeignCardError(
            f"the card does not have the form of one: {error}"[:300]
        ) from error
