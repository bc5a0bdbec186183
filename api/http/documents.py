"""What the routes say, as models: they make the OpenAPI document and nothing else.

No answer passes through them at run time; a test reads real answers with them instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, RootModel

from api.http.fields import Document, Fals, Millis
from api.http.price_documents import FlagDocument, RoutingDocument
from api.http.standings import GlanceDocument

# The form of ids is told here and checked by the kernel, whose errors say more.
Id = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-f]{32}$"})]
Digest = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
DID: Final = "^did:key:z[1-9A-HJ-NP-Za-km-z]{47}$"
Did = Annotated[str, Path(json_schema_extra={"pattern": DID})]
Account = Annotated[
    str, Path(json_schema_extra={"pattern": "^(issuance|fees|did:key:z[1-9A-HJ-NP-Za-km-z]{47})$"})
]
Code = Annotated[str, Path(json_schema_extra={"pattern": "^[a-z_]{1,64}$"})]
Tile = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-zA-Z./]{1,128}$"})]

Responses = dict[int | str, dict[str, Any]]

_TITLES: Final = {
    200: "It is done",
    202: "It is under way",
    401: "A valid API key is required",
    402: "The money does not suffice",
    403: "It belongs to another key",
    404: "There is no such thing",
    409: "Its state does not allow this now",
    413: "It exceeds a limit",
    415: "The body is of a type that is not read here",
    422: "A field is malformed",
    429: "Too many requests",
    502: "The other side failed",
    503: "A part of the market cannot be reached",
    504: "It took too long",
}


class ProblemDocument(BaseModel):
    """An error (RFC 9457). ``code`` is stable; ``facts`` are its typed facts."""

    model_config = ConfigDict(extra="allow")
    type: str = Field(examples=["/problems/insufficient_funds"])
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    hint: str | None = None
    facts: dict[str, str | int | bool | None] | None = None


class TemplateDocument(Document):
    """A kind of agent that can be deployed; ``config_schema`` is a JSON Schema."""

    name: str
    title: str
    description: str
    version: str
    config_schema: dict[str, Any]


class TemplatePage(Document):
    """All templates."""

    templates: list[TemplateDocument]


class DeploymentDocument(Document):
    """One deployed agent."""

    id: str
    template: str
    name: str
    config: dict[str, Any]
    state: Literal["pending", "running", "stopping", "stopped", "failed"]
    created: int = Millis
    agent: str | None
    host: str | None
    error: str | None


class DeploymentPage(Document):
    """All deployments."""

    deployments: list[DeploymentDocument]


class SkillDocument(Document):
    """One skill on a card. ``price_fals`` is the posted price."""

    skill: str
    description: str
    tags: list[str]
    negotiable: bool
    price_fals: str | None
    posted: dict[str, Any] | None
    tiers: list[dict[str, Any]] = Field(default=[], description="other terms, with what is asked")
    input_schema: Any
    output_schema: Any


class AgentDocument(Document):
    """An agent on the market; ``card`` is its signed card (base64), ``success`` its reputation."""

    id: str
    name: str
    description: str
    version: str
    template: str
    data_policy: Literal["sealed", "logged", "public"]
    skills: list[SkillDocument]
    lease_until: int = Millis
    digest: str
    success: GlanceDocument
    reasons: list[str]
    flags: list[FlagDocument]
    card: str | None = None


class AgentPage(Document):
    """Agents, best first."""

    agents: list[AgentDocument]
    next_cursor: str | None
    notes: list[str]


class PublishedDocument(Document):
    """One card of many: listed until ``lease_until``, or refused with ``code`` and ``detail``."""

    place: int
    agent: str | None
    digest: str | None
    lease_until: int | None
    code: str | None
    detail: str | None


class PublicationPage(Document):
    """What became of each card, in the order in which they came."""

    results: list[PublishedDocument]
    listed: int
    refused: int


class CallDocument(Document):
    """A call. With ``output`` the result is in; with ``problem`` it failed."""

    id: str
    state: Literal["accepted", "running", "delivered", "settled", "failed"]
    group: str
    skill: str | None
    agent: str | None
    budget_fals: str = Fals
    deadline: int = Millis
    created: int = Millis
    finished: int | None
    mode: Literal["posted", "tender", "bargain"] | None = None
    rounds: int | None = None
    seller: str | None = None
    thread: str | None = None
    agreement: str | None = None
    asked_fals: str | None = None
    agreed_fals: str | None = None
    paid_fals: str | None = None
    routing: RoutingDocument | None = None
    hold: str | None = None
    capture_tx: str | None = None
    receipt: str | None = Field(None, description="the seller's signed receipt, base64")
    receipt_verified: bool | None = None
    deal: str | None = Field(None, description="the agreement under both signatures, base64")
    best_rejected_fals: str | None = Field(None, description="the next best offer's price")
    advantage_fals: str | None = Field(None, description="what taking this offer was worth")
    explanation: str | None = None
    output: Any = None
    problem: ProblemDocument | None = None


class NegotiationSummary(Document):
    """One negotiation in a line."""

    group: str
    skill: str | None
    mode: str | None
    buyer: str
    sellers: list[str]
    state: str
    opened: int | None
    deadline: int | None
    seller: str | None
    agreement: str | None
    asked_fals: str | None
    agreed_fals: str | None
    paid_fals: str | None


class NegotiationPage(Document):
    """Negotiations, newest first."""

    negotiations: list[NegotiationSummary]
    next_cursor: str | None


class OfferDocument(Document):
    """One offer of a thread."""

    digest: str
    message: str
    sender: str = Field(alias="from")
    side: Literal["buyer", "seller"]
    round: int
    price: str = Fals
    issues: dict[str, Any]
    valid_until: int = Millis
    ts: int = Millis
    verdict: str
    verified: bool
    state: Literal["made", "accepted", "withdrawn"]


class MessageDocument(BaseModel):
    """One message of a thread; only ``digest`` if its signature does not stand."""

    model_config = ConfigDict(extra="allow")
    digest: str
    verified: bool


class ThreadDocument(Document):
    """The talk between one buyer and one seller."""

    thread: str
    buyer: str
    seller: str
    state: str
    facts: dict[str, str]
    offers: list[OfferDocument]
    messages: list[MessageDocument]
    transcript: list[str] | None = None


class NegotiationDocument(NegotiationSummary):
    """One negotiation with all its threads."""

    threads: list[ThreadDocument]


class SignatureDocument(Document):
    """One side's signature over the agreement's bytes."""

    by: str
    signature: str
    verified: bool


class SignaturesDocument(Document):
    """Both sides' signatures, as far as they were given."""

    buyer: SignatureDocument | None
    seller: SignatureDocument | None


class ReceiptDocument(Document):
    """The seller's signed receipt."""

    envelope: str
    verified: bool
    body: dict[str, Any] | None


class AccountDocument(Document):
    """An account of the ledger."""

    id: str
    posted: str
    held: str
    available: str
    lanes: dict[str, int]
    position: int
    staked: str
    keys: list[str]
    threshold: int


class HoldDocument(Document):
    """An escrow."""

    id: str
    payer: str
    payee: str
    amount: str = Fals
    captured: str = Fals
    expires_ms: int = Millis
    agreement: str
    status: Literal["open", "disputed", "captured", "challenged", "released"]
    arbiter: str | None
    deadline_ms: int | None
    bail: str = Fals
    recourse: dict[str, int] | None
    delivered: int


class HoldsDocument(RootModel[list[HoldDocument | None]]):
    """Holds in the order asked for; ``null`` for each that there is not."""


class InclusionDocument(Document):
    """An RFC 6962 inclusion proof with the checkpoint it leads to."""

    index: int
    leaf_hash: str
    path: list[str]
    checkpoint: str


class DealDocument(Document):
    """A deal and all that proves it."""

    digest: str
    group: str
    thread: str
    skill: str
    mode: str
    buyer: str
    seller: str
    state: str
    rounds: int
    asked_fals: str | None
    agreed_fals: str | None
    paid_fals: str | None
    agreement: dict[str, Any] | None
    agreement_bytes: str | None
    signatures: SignaturesDocument
    receipt: ReceiptDocument | None
    hold_id: str | None
    capture_tx: str | None
    code: str | None
    hold: HoldDocument | None
    inclusion: InclusionDocument | None


class AnswerDocument(Document):
    """The ledger's answer to one submission."""

    outcome: Literal["logged", "exists", "conflict", "retry", "invalid", "refused", "unknown"]
    id: str
    seq: int | None
    code: str | None
    detail: str
    receipt: str | None
    finality: Literal["durable", "witnessed"] | None


class SubmittedDocument(RootModel[AnswerDocument | list[AnswerDocument]]):
    """One answer, or as many as there were transactions, in their order."""


class TransactionDocument(Document):
    """A logged transaction; ``raw`` is the signed envelope, base64."""

    id: str
    seq: int
    raw: str
    log_time: int = Millis
    payload: dict[str, Any]


class HistoryDocument(RootModel[list[TransactionDocument]]):
    """Transactions of one account, newest first."""


class SupplyDocument(Document):
    """The supply equation."""

    issued: str
    total: str
    held: str
    open_holds: int
    equal: bool


class ChainDocument(Document):
    """The chain id."""

    chain: str


class AccountProofDocument(Document):
    """An account under the newest checkpoint; hashes and records in hex, ``state`` in base64."""

    id: str
    balance: str
    nonces: str
    tip: str
    position: int
    accounts: int
    path: list[str]
    state: str
    inclusion: InclusionDocument


class ConsistencyDocument(Document):
    """An RFC 6962 consistency proof."""

    path: list[str]


class HealthDocument(Document):
    """The process serves."""

    status: Literal["ok"]


class ReadyDocument(Document):
    """What can be reached: ``ok``, or the name of what is wrong."""

    status: Literal["ok", "not ready"]
    broker: str
    ledger: str


class ProblemKindDocument(Document):
    """What a problem's code means."""

    code: str
    title: str
    status: int


def answers(model: type[BaseModel], *statuses: int) -> Responses:
    """Declare a route's answers: ``model`` where it succeeds, problems elsewhere."""
    declared: Responses = {}
    for status in statuses or (200,):
        if status < 400 or model is ReadyDocument:
            declared[status] = {"description": _TITLES[status], "model": model}
        else:
            declared[status] = _problem(status)
    return declared | ({} if model is ReadyDocument else {"default": _problem(0)})


def plain_answers(*statuses: int, kind: str = "text/plain") -> Responses:
    """Declare answers that are no JSON."""
    content = {kind: {"schema": {"type": "string"}}}
    return {
        status: {"description": _TITLES[status], "content": content}
        if status < 400
        else _problem(status)
        for status in statuses
    } | {"default": _problem(0)}


def also_as(kind: str, declared: Responses) -> Responses:
    """Declare that a route succeeds with text of another ``kind``, too, if that is asked for."""
    return declared | {200: declared[200] | {"content": {kind: {"schema": {"type": "string"}}}}}


def stream_answers() -> Responses:
    """Declare a stream of server-sent events."""
    return plain_answers(200, 422, 503, kind="text/event-stream")


def body_of(form: type[msgspec.Struct], *, secured: bool) -> dict[str, Any]:
    """Declare a JSON body by the Struct that reads it, and the header fields of a write."""
    schema = msgspec.json.schema(form)
    inner = schema["$defs"][form.__name__]
    declared: dict[str, Any] = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": inner}}},
        "parameters": [IDEMPOTENCY_KEY],
    }
    return declared | ({"security": [{"key": []}]} if secured else {})


IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "the same request with the same key is carried out once and answered again",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        "description": _TITLES.get(status, "Anything that went wrong"),
        "content": {"application/problem+json": {"schema": schema}},
    }
