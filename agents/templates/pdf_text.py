"""Reads the text out of a PDF, page by page. The parsing happens in the sandbox."""

from __future__ import annotations

import base64
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents import sandbox
from agents.agent import Agent
from agents.templates.crafts.refusals import TooComplexError, UnreadableError
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove
from rahba.errors import TooLargeError

MAX_BASE64_CHARS: Final = 1_000_000
MAX_TEXT_CHARS: Final = 400_000
_READ: Final = "agents.templates.crafts.pages:read_pdf"
_SAMPLE: Final = (
    b"%PDF-1.4\n"
    b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/Contents 4 0 R/MediaBox[0 0 200 100]"
    b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
    b"4 0 obj<</Length 37>>stream\nBT /F 12 Tf 20 50 Td (Mint tea) Tj ET\nendstream endobj\n"
    b"xref\n0 5\n0000000000 65535 f \n"
    b"0000000009 00000 n \n0000000052 00000 n \n"
    b"0000000101 00000 n \n0000000251 00000 n \n"
    b"trailer<</Root 1 0 R/Size 5>>\nstartxref\n334\n%%EOF\n"
)


class PdfOutput(TypedDict):
    """The text of a PDF, whole and by page."""

    title: str
    page_count: int
    text: str
    pages: list[str]


class PdfConfig(Pricing):
    """How much of a PDF is read, and for how much."""

    price: str = "0.002"
    floor: str = "0.0012"
    max_pages: Annotated[int, Field(ge=1, le=500)] = 100
    max_seconds: Annotated[int, Field(ge=1, le=60)] = 15


class PdfText(PricedTemplate):
    """Sells ``pdf.text``."""

    name: ClassVar[str] = "pdf-text"
    title: ClassVar[str] = "PDF to text"
    description: ClassVar[str] = "Reads the text out of a PDF, page by page."
    Config: ClassVar[type[BaseModel]] = PdfConfig

    @override
    def build(self, config: PdfConfig, name: str) -> Agent:
        agent = self.agent(config, name)
        limits = sandbox.Limits(wall_s=config.max_seconds + 10, cpu_s=config.max_seconds)

        @agent.offer(
            "pdf.text",
            **config.terms(),
            description="The text of a PDF (base64), whole and by page",
            tags=["pdf", "text", "extraction"],
            quality=650,
            latency_ms=900,
        )
        async def pdf_text(
            content: Annotated[str, Field(max_length=MAX_BASE64_CHARS)],
        ) -> PdfOutput:
            """Read a PDF given as base64."""
            read = await sandbox.call(
                _READ,
                {"content": content, "max_pages": config.max_pages, "max_chars": MAX_TEXT_CHARS},
                limits,
                errors=(UnreadableError, TooComplexError, TooLargeError),
            )
            return {
                "title": read["title"],
                "page_count": read["page_count"],
                "text": "\n\n".join(page for page in read["pages"] if page),
                "pages": read["pages"],
            }

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        await prove(
            agent,
            "pdf.text",
            {"content": base64.b64encode(_SAMPLE).decode()},
            lambda output: output["page_count"] == 1 and "Mint tea" in output["text"],
        )
