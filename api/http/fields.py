"""What all models of answers share: their base, amounts and times."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Fals = Field(
    description="an amount: a string of whole fals, 1 RHB = 10^9 fals", examples=["2000000"]
)
Millis = Field(description="milliseconds since the Unix epoch")


class Document(BaseModel):
    """The base: nothing that is not named here is in an answer."""

    model_config = ConfigDict(extra="forbid")
