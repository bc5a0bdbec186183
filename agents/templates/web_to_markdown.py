"""Turns a web page into Markdown: the article stays, menus, banners and footers go.

The page comes as HTML, as base64 of a file, or as the URL of a public page. Fetching follows
:mod:`agents.templates.crafts.fetching`, parsing happens in the sandbox.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents import sandbox
from agents.agent import Agent
from agents.templates.crafts.fetching import fetch
from agents.templates.crafts.refusals import NothingToDoError, TooComplexError, UnreadableError
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove
from rahba.errors import BadInputError, TooLargeError

MAX_INPUT_CHARS: Final = 1_000_000
MAX_TEXT_CHARS: Final = 400_000
_READ: Final = "agents.templates.crafts.pages:read_html"
_SAMPLE: Final = (
    "<html><head><title>Tea</title></head><body><nav><a href='/'>Home</a></nav><article>"
    "<h1>Mint tea</h1><p>Mint tea is poured from high above the glass, so that it foams, and it is "
    "served with more sugar than a visitor would ever believe.</p><p>Three glasses are the custom: "
    "the first is gentle as life, the second strong as love, the third bitter as death.</p>"
    "</article><footer>Cookie settings</footer></body></html>"
)


class PageOutput(TypedDict):
    """An article as Markdown, and what the page says about it."""

    markdown: str
    title: str
    author: str
    date: str
    url: str | None


class PageConfig(Pricing):
    """What is fetched and parsed at most, and for how much."""

    price: str = "0.0018"
    floor: str = "0.001"
    max_bytes: Annotated[int, Field(ge=1_000, le=20_000_000)] = 2_000_000
    fetch_seconds: Annotated[int, Field(ge=1, le=60)] = 15
    max_seconds: Annotated[int, Field(ge=1, le=60)] = 15
    allow_loopback: Annotated[
        bool, Field(description="fetch from this machine: for its owner's tests, never for others")
    ] = False


class WebToMarkdown(PricedTemplate):
    """Sells ``web.markdown``."""

    name: ClassVar[str] = "web-to-markdown"
    title: ClassVar[str] = "Web page to Markdown"
    description: ClassVar[str] = "Turns a web page (HTML, file or URL) into clean Markdown."
    Config: ClassVar[type[BaseModel]] = PageConfig

    @override
    def build(self, config: PageConfig, name: str) -> Agent:
        agent = self.agent(config, name)

        @agent.offer(
            "web.markdown",
            **config.terms(),
            description="The article of a web page as Markdown, without what surrounds it",
            tags=["web", "html", "markdown", "extraction"],
            quality=650,
            latency_ms=1_200,
        )
        async def web_to_markdown(
            html: Annotated[str, Field(max_length=MAX_INPUT_CHARS)] | None = None,
            content: Annotated[str, Field(max_length=MAX_INPUT_CHARS)] | None = None,
            url: Annotated[str, Field(max_length=2_048)] | None = None,
            links: bool = False,
        ) -> PageOutput:
            """Read a page given as ``html``, as ``content`` (base64 of a file) or by ``url``."""
            if sum(given is not None for given in (html, content, url)) != 1:
                raise BadInputError("give exactly one of html, content, url")
            if content is not None:
                html = _decoded(content)
            if url is not None:
                page = await fetch(
                    url,
                    max_bytes=config.max_bytes,
                    timeout_s=config.fetch_seconds,
                    allow_loopback=config.allow_loopback,
                )
                url, html = page.url, page.html
            read = await _read(html or "", url, links, config)
            return {
                "markdown": read["markdown"],
                "title": read["title"],
                "author": read["author"],
                "date": read["date"],
                "url": url,
            }

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        await prove(
            agent,
            "web.markdown",
            {"html": _SAMPLE},
            lambda output: (
                "Three glasses" in output["markdown"] and "Cookie" not in output["markdown"]
            ),
        )


def _decoded(content: str) -> str:
    try:
        return base64.b64decode(content, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError) as error:
        raise UnreadableError("the content is not base64") from error


async def _read(html: str, url: str | None, links: bool, config: PageConfig) -> Any:
    if len(html) > config.max_bytes:
        raise TooLargeError("page too large", limit_bytes=config.max_bytes)
    return await sandbox.call(
        _READ,
        {"html": html, "url": url, "links": links, "max_chars": MAX_TEXT_CHARS},
        sandbox.Limits(
            wall_s=config.max_seconds + 10,
            cpu_s=config.max_seconds,
            input_bytes=4 * config.max_bytes + 10_000,
        ),
        errors=(NothingToDoError, TooComplexError, UnreadableError),
    )
