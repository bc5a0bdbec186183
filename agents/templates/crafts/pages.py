"""Reads documents that strangers wrote: PDF to text, HTML to Markdown. Runs in the sandbox only.

The libraries do the parsing; this holds them to the limits and turns their many failures into the
few refusals of :mod:`agents.templates.crafts.refusals`. Functions take and return JSON.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import warnings
from typing import Any, Final

from agents.templates.crafts.refusals import NothingToDoError, TooComplexError, UnreadableError

MAX_TITLE_CHARS: Final = 300
_MARGIN_SHARE: Final = 0.75


def read_pdf(content: str, max_pages: int, max_chars: int) -> dict[str, Any]:
    """Return the text of each page of a PDF (base64), with title and page count.

    Raises:
        UnreadableError: not a PDF, damaged beyond reading, or locked by a password.
        TooComplexError: more pages, or more text, than asked for.
    """
    from pypdf import PdfReader  # noqa: PLC0415 -- the parent names this module, never loads it
    from pypdf.errors import LimitReachedError, PyPdfError  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(_decoded(content)))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("the PDF is locked by a password")
        count = len(reader.pages)
        if count > max_pages:
            raise TooComplexError("too many pages", pages=count, limit=max_pages)
        texts: list[str] = []
        left = max_chars
        for page in reader.pages:
            text = _tidied(page.extract_text())
            left -= len(text)
            if left < 0:
                raise TooComplexError("too much text in the PDF", limit_chars=max_chars)
            texts.append(text)
        title = str((reader.metadata and reader.metadata.title) or "")[:MAX_TITLE_CHARS]
    except LimitReachedError as error:
        raise TooComplexError(f"the PDF unpacks beyond its limits: {error}"[:200]) from error
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UnreadableError(f"the PDF cannot be read: {error}"[:200]) from error
    return {"title": title, "page_count": count, "pages": texts}


def read_html(html: str, url: str | None, links: bool, max_chars: int) -> dict[str, Any]:
    """Return the article of a web page as Markdown, without what surrounds it.

    Raises:
        NothingToDoError: no article was found.
        TooComplexError: more text than asked for.
    """
    import trafilatura  # noqa: PLC0415 -- the parent names this module, never loads it

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    markdown = trafilatura.extract(
        html,
        url=url,
        output_format="markdown",
        include_comments=False,
        include_links=links,
        include_tables=True,
    )
    if not markdown:
        raise NothingToDoError("no article was found on the page")
    if len(markdown) > max_chars:
        raise TooComplexError("too much text on the page", limit_chars=max_chars)
    about = trafilatura.extract_metadata(html, default_url=url).as_dict()
    return {
        "markdown": markdown,
        "title": str(about.get("title") or "")[:MAX_TITLE_CHARS],
        "author": str(about.get("author") or "")[:MAX_TITLE_CHARS],
        "date": str(about.get("date") or "")[:32],
    }


def _decoded(content: str) -> bytes:
    try:
        raw = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableError("the content is not base64") from error
    if b"%PDF-" not in raw[:1024]:
        raise UnreadableError("the content is not a PDF")
    return raw


def _tidied(text: str) -> str:
    """Join the lines of a paragraph; one that ends well before the margin ends its paragraph."""
    lines = [" ".join(line.split()) for line in text.replace("\0", "").splitlines()]
    margin = max(map(len, lines), default=0) * _MARGIN_SHARE
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line:
            paragraphs[-1].append(line)
        if len(line) < margin:
            paragraphs.append([])
    return "\n\n".join(" ".join(part) for part in paragraphs if part)
