"""Documents of strangers: read where they can be, refused in time where they mean harm."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from agents.agent import Agent
from agents.perform import try_offer
from agents.templates.crafts import pages
from agents.templates.crafts.refusals import NothingToDoError, TooComplexError, UnreadableError
from agents.templates.pdf_text import PdfText
from agents.templates.web_to_markdown import WebToMarkdown
from rahba.errors import BadInputError, TooLargeError
from tests.fixtures.documents import (
    deep_html,
    locked_pdf,
    looping_pdf,
    pdf_bomb,
    pdf_document,
    pdf_with_pages,
    pdf_with_stream,
    read_document,
)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)  # the work itself silences its libraries


async def sold(agent: Agent, **args: Any) -> Any:
    (skill,) = agent.offers
    return orjson.loads(await try_offer(agent, skill, args))["output"]


@pytest.fixture
def reader() -> Agent:
    return PdfText().make({"max_seconds": 5}, "reader")


@pytest.fixture
def cleaner() -> Agent:
    return WebToMarkdown().make({"max_seconds": 5}, "cleaner")


async def test_the_text_of_a_pdf_comes_page_by_page(reader: Agent) -> None:
    read = await sold(reader, content=pdf_document())
    assert read["page_count"] == 3
    assert read["title"].startswith("Water for the Upper Valley")
    assert "41 percent less water between April and September" in read["pages"][0]
    assert "Lining the upper 3 km" in read["pages"][1]
    assert "1,098 readings" in read["pages"][2]
    assert "1. What happened\n\nThe river carried" in read["text"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not base64!", "base64"),
        (base64.b64encode(b"MZ no pdf at all").decode(), "not a PDF"),
        (base64.b64encode(b"%PDF-1.7\n" + bytes(range(256)) * 8).decode(), "cannot be read"),
        (pdf_document()[:2_000], "cannot be read"),
        (locked_pdf(), "password"),
        (looping_pdf(), "cannot be read"),
    ],
)
async def test_what_is_no_readable_pdf_is_refused(reader: Agent, content: str, says: str) -> None:
    with pytest.raises(UnreadableError, match=says):
        await sold(reader, content=content)


async def test_a_pdf_with_too_many_pages_is_refused() -> None:
    reader = PdfText().make({"max_pages": 3}, "reader")
    assert (await sold(reader, content=pdf_with_pages(3)))["page_count"] == 3
    with pytest.raises(TooComplexError, match="too many pages"):
        await sold(reader, content=pdf_with_pages(4))


async def test_a_pdf_bomb_is_refused_in_time_and_takes_nothing_with_it(reader: Agent) -> None:
    bomb = pdf_bomb(300)
    assert len(bomb) < 100_000
    started = time.monotonic()
    with pytest.raises(TooComplexError, match="unpacks beyond"):
        await sold(reader, content=bomb)
    assert time.monotonic() - started < 20


async def test_a_damaged_stream_is_refused_or_empty(reader: Agent) -> None:
    try:
        read = await sold(reader, content=pdf_with_stream(b"this was never packed"))
    except UnreadableError:
        return
    assert read["text"] == ""


async def test_too_large_a_pdf_is_refused_before_it_is_looked_at(reader: Agent) -> None:
    with pytest.raises(BadInputError):
        await sold(reader, content="A" * 1_000_001)


def test_too_much_text_is_refused() -> None:
    with pytest.raises(TooComplexError, match="too much text"):
        pages.read_pdf(pdf_document(), max_pages=9, max_chars=1_000)
    with pytest.raises(TooComplexError, match="too much text"):
        pages.read_html(read_document("market-day.html"), None, links=False, max_chars=100)


async def test_the_article_stays_and_all_around_it_goes(cleaner: Agent) -> None:
    read = await sold(cleaner, html=read_document("market-day.html"))
    text = read["markdown"]
    assert text.startswith("# The spice sellers who weigh by ear")
    assert "## The saffron test" in text
    assert "- Never buy saffron that has already been packed." in text
    assert "eleven kilos since dawn" in text
    for noise in ("cookies", "Subscribe", "newsletter", "Imprint", "roof terraces", "analytics"):
        assert noise not in text
    assert (read["author"], read["date"]) == ("Salma Idrissi", "2025-03-14")
    assert read["url"] is None


async def test_a_page_may_come_as_a_file(cleaner: Agent) -> None:
    raw = base64.b64encode(read_document("market-day.html").encode()).decode()
    assert "saffron test" in (await sold(cleaner, content=raw))["markdown"]
    with pytest.raises(UnreadableError):
        await sold(cleaner, content="%%%")


async def test_a_page_is_given_in_exactly_one_way(cleaner: Agent) -> None:
    with pytest.raises(BadInputError, match="exactly one"):
        await sold(cleaner)
    with pytest.raises(BadInputError, match="exactly one"):
        await sold(cleaner, html="<p>x</p>", url="https://example.org/")


@pytest.mark.parametrize("html", ["", "<html></html>", "just words", "<script>alert(1)</script>"])
async def test_a_page_without_an_article_is_refused(cleaner: Agent, html: str) -> None:
    with pytest.raises(NothingToDoError):
        await sold(cleaner, html=html)


async def test_ten_megabytes_of_nesting_end_as_a_typed_error() -> None:
    html = deep_html(10_000_000 // len("<div><b></b></div>"))
    cleaner = WebToMarkdown().make({"max_bytes": 20_000_000, "max_seconds": 5}, "cleaner")
    with pytest.raises(BadInputError):
        await sold(cleaner, html=html)  # over what one order may hold


async def test_nesting_that_is_within_the_size_ends_in_time(cleaner: Agent) -> None:
    started = time.monotonic()
    try:
        read = await sold(cleaner, html=deep_html(50_000))
    except BadInputError:
        read = {"markdown": "deep"}
    assert "deep" in read["markdown"]
    assert time.monotonic() - started < 20


async def test_a_page_over_the_configured_size_is_refused() -> None:
    cleaner = WebToMarkdown().make({"max_bytes": 2_000}, "cleaner")
    with pytest.raises(TooLargeError):
        await sold(cleaner, html=read_document("market-day.html"))


def test_the_functions_of_the_sandbox_say_the_same_outside_of_it() -> None:
    read = pages.read_pdf(pdf_document(), max_pages=5, max_chars=100_000)
    assert read["page_count"] == 3
    with pytest.raises(UnreadableError, match="password"):
        pages.read_pdf(locked_pdf(), max_pages=5, max_chars=100_000)
    with pytest.raises(NothingToDoError):
        pages.read_html("<html></html>", None, links=False, max_chars=100)
