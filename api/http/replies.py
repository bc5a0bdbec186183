"""How answers leave: JSON by orjson, and the stored answer of a write that came again."""

from __future__ import annotations

import orjson
from starlette.responses import Response


class Reply(Response):
    """A JSON answer. Takes builtins, or bytes that are JSON already."""

    media_type = "application/json"

    def __init__(
        self, document: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Encode ``document``; answers may change any moment, so nobody keeps them."""
        body = document if isinstance(document, bytes) else orjson.dumps(document)
        super().__init__(body, status, {"cache-control": "no-store"} | (headers or {}))
