"""``/v1/agents/{agent}/reputation``: what the ledger's settled deals say of an agent."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.http.documents import DID, Did, answers
from api.http.gateway import gateway_of
from api.http.replies import Reply
from api.http.standings import StandingDocument
from api.standings import standing_document
from rahba.ids import key_of

router: Final = APIRouter(prefix="/v1", tags=["market"])


@router.get("/agents/{agent}/reputation", responses=answers(StandingDocument, 200, 422, 502, 503))
async def read_reputation(
    request: Request,
    agent: Did,
    caller: Annotated[
        str | None, Query(alias="for", max_length=64, json_schema_extra={"pattern": DID})
    ] = None,
) -> Response:
    """Return an agent's success rate with its bounds, from settled deals alone.

    With ``for`` it is also told as that caller would see it: by its own deals and by whom those
    lead it to trust. Anybody on the ledger can be asked for, listed or not; who never sold anything
    stands where anybody new does. ``log`` says of which entries the figures are: whoever reads the
    same entries finds the same figures.
    """
    key_of(agent)
    if caller is not None:
        key_of(caller)
    found, basis = await gateway_of(request).reputations.standing(agent, caller)
    return Reply(standing_document(found, basis))
