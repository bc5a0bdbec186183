"""What ``/v1/listings`` says, as models; see :mod:`api.http.documents`."""

from __future__ import annotations

from typing import Literal

from api.http.fields import Document, Fals, Millis


class ListedSkillDocument(Document):
    """A skill as it is sold here, and the agent's own name for it."""

    skill: str
    id: str


class ListingDocument(Document):
    """An agent elsewhere, sold here through a bridge.

    ``listed`` while its lease runs, ``silent`` while its other end does not answer or is no longer
    what was listed; ``error`` then says why. ``seal`` says what the signatures of its card are
    worth, and ``lister`` is the account that stands for the listing.
    """

    id: str
    name: str
    url: str
    endpoint: str
    protocol: Literal["0.3", "1.0"]
    seal: Literal["verified", "unsigned", "unverifiable"]
    lister: str
    agent: str | None
    state: Literal["pending", "listed", "silent", "stopping", "stopped", "failed"]
    price: str = Fals
    skills: list[ListedSkillDocument]
    created: int = Millis
    checked: int | None
    latency_ms: int | None
    failures: int
    code: str | None
    error: str | None


class ListingPage(Document):
    """All listings, oldest first."""

    listings: list[ListingDocument]
