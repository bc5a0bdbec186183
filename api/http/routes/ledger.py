"""``/v1/accounts``, ``/v1/transactions``, ``/v1/holds``, ``/v1/supply``, ``/v1/log``: the ledger.

The gateway adds nothing to what the ledger says: the same JSON, the same proofs. A transaction is
passed on as the very bytes that were signed.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import aiohttp
import msgspec
import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import PlainTextResponse

from api.http.bodies import transactions_body
from api.http.documents import (
    Account,
    AccountDocument,
    AccountProofDocument,
    AnswerDocument,
    ChainDocument,
    ConsistencyDocument,
    Digest,
    HistoryDocument,
    HoldDocument,
    HoldsDocument,
    InclusionDocument,
    SubmittedDocument,
    SupplyDocument,
    Tile,
    TransactionDocument,
    also_as,
    answers,
    plain_answers,
)
from api.http.errors import (
    MediaTypeError,
    NotCoveredYetError,
    NotFoundError,
    UnavailableError,
    UnknownAccountError,
    UnknownHoldError,
    UnknownTransactionError,
)
from api.http.gateway import Gateway, gateway_of
from api.http.problems import problem_of
from api.http.reading import media_type
from api.http.replies import Reply
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import check_digest, key_of
from rahba.proof import write_proof
from wallet.errors import error_for
from wallet.ports import Answer
from wallet.wire import encode, encode_answers, encode_holds, encode_theirs, read_ids

router: Final = APIRouter(prefix="/v1", tags=["ledger"])

_SYSTEM: Final = frozenset({"issuance", "fees"})
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_SPACE: Final = b" \t\r\n"
_MAX_TILE_BYTES: Final = 16 * 1024 * 1024


@router.get("/accounts/{account}", responses=answers(AccountDocument, 200, 404, 422))
async def read_account(request: Request, account: Account) -> Response:
    """Return an account's balance, what is held of it, and its lanes."""
    if account not in _SYSTEM:
        key_of(account)
    view = await gateway_of(request).parts.ledger.account(account)
    if view is None:
        raise UnknownAccountError("the ledger never saw this account", account=account)
    return Reply(encode(view))


@router.get("/accounts/{account}/proof", responses=answers(AccountProofDocument, 200, 404, 422))
async def prove_account(request: Request, account: Account) -> Response:
    """Prove an account's balance and history under the newest checkpoint."""
    ledger = gateway_of(request).parts.ledger
    if account not in _SYSTEM:
        key_of(account)
    proof = await ledger.account_proof(account)
    if proof is not None:
        return Reply(encode(proof))
    if await ledger.account(account) is None:
        raise UnknownAccountError("the ledger never saw this account", account=account)
    raise NotCoveredYetError("no checkpoint covers this account yet", id=account)


@router.get("/accounts/{account}/history", responses=answers(HistoryDocument, 200, 422))
async def read_history(
    request: Request,
    account: Account,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return an account's transactions, newest first; ``before`` is the last one's ``seq``.

    All of them lead to the ``tip`` of the account's proof: none can be left out unnoticed.
    """
    key_of(account)
    ledger = gateway_of(request).parts.ledger
    return Reply(encode_theirs(await ledger.history(account, before=before, limit=limit)))


@router.post(
    "/transactions",
    responses=answers(SubmittedDocument, 200, 402, 409, 413, 415, 422, 503),
    openapi_extra=transactions_body(),
)
async def submit(request: Request, receipt: Annotated[int, Query(ge=0, le=1)] = 0) -> Response:
    """Submit signed transactions: one envelope, an array of them, or one a line (NDJSON).

    Each gets its own answer after it is durable. Sending the same bytes again is harmless. With
    ``receipt=1`` the operator signs that each is in the log, and where.
    """
    gateway, kind = gateway_of(request), media_type(request)
    if kind not in {_JSON, _NDJSON}:
        raise MediaTypeError(f"send {_JSON} or {_NDJSON}")
    body = (await request.body()).strip(_SPACE)
    ledger = gateway.parts.ledger
    if kind == _JSON and not body.startswith(b"["):
        return _answered(await ledger.submit(body, receipt=bool(receipt)))
    raws = _items(body) if kind == _JSON else [line for line in body.split(b"\n") if line]
    if len(raws) > gateway.settings.max_batch:
        raise TooLargeError("too many transactions at once", limit=gateway.settings.max_batch)
    found = encode_answers(await ledger.submit_many(raws, receipt=bool(receipt))) if raws else b"[]"
    if kind == _JSON:
        return Reply(found)
    lines = b"".join(orjson.dumps(item) + b"\n" for item in orjson.loads(found))
    return Response(lines, media_type=_NDJSON)


@router.get("/transactions/{transaction}", responses=answers(TransactionDocument, 200, 404, 422))
async def read_transaction(request: Request, transaction: Digest) -> Response:
    """Return a logged transaction: its place, its exact bytes, what it says."""
    view = await gateway_of(request).parts.ledger.transaction(check_digest(transaction))
    if view is None:
        raise UnknownTransactionError("the ledger has no such transaction", id=transaction)
    return Reply(encode(view))


@router.get("/transactions/{transaction}/status", responses=answers(AnswerDocument, 200, 422))
async def read_status(request: Request, transaction: Digest) -> Response:
    """Return what became of a transaction: logged and how final, refused, or unknown.

    What is unknown may be sent again: the same bytes are executed once at most.
    """
    return Reply(encode(await gateway_of(request).parts.ledger.status(check_digest(transaction))))


@router.get("/holds/{hold}", responses=answers(HoldDocument, 200, 404, 422))
async def read_hold(request: Request, hold: Digest) -> Response:
    """Return a hold by the id of its transaction."""
    view = await gateway_of(request).parts.ledger.hold(check_digest(hold))
    if view is None:
        raise UnknownHoldError("the ledger has no such hold", hold=hold)
    return Reply(encode(view))


@router.get("/holds", responses=answers(HoldsDocument, 200, 413, 422))
async def read_holds(
    request: Request,
    ids: Annotated[
        str, Query(json_schema_extra={"pattern": "^[0-9a-f]{64}(,[0-9a-f]{64}){0,49}$"})
    ],
) -> Response:
    """Return up to 50 holds by their ids, separated by commas; ``null`` for what is none."""
    ledger = gateway_of(request).parts.ledger
    found = await asyncio.gather(*[ledger.hold(one) for one in read_ids(ids)])
    return Reply(encode_holds(found))


@router.get("/supply", responses=answers(SupplyDocument))
async def read_supply(request: Request) -> Response:
    """Return the supply equation: what was issued is exactly what accounts own."""
    return Reply(encode(await gateway_of(request).parts.ledger.supply()))


@router.get("/chain", responses=answers(ChainDocument))
async def read_chain(request: Request) -> Response:
    """Return the chain id that every transaction names."""
    return Reply({"chain": await gateway_of(request).parts.ledger.chain()})


@router.get("/log/key", responses=plain_answers(200))
async def read_log_key(request: Request) -> Response:
    """Return the log's verifier key (C2SP); pin it to check checkpoints offline."""
    return PlainTextResponse(await gateway_of(request).parts.ledger.verifier_key())


@router.get("/log/checkpoint", responses=plain_answers(200))
async def read_checkpoint(request: Request) -> Response:
    """Return the newest signed checkpoint (a C2SP signed note)."""
    note = await gateway_of(request).parts.ledger.checkpoint()
    return PlainTextResponse(note, headers={"cache-control": "public, max-age=1"})


@router.get("/log/witnessed", responses=plain_answers(200, 404))
async def read_witnessed(request: Request) -> Response:
    """Return the newest checkpoint that a quorum of witnesses cosigned."""
    note = await gateway_of(request).parts.ledger.witnessed()
    if note is None:
        raise NotFoundError("no quorum of witnesses has cosigned a checkpoint yet")
    return PlainTextResponse(note, headers={"cache-control": "public, max-age=1"})


@router.get(
    "/log/proof/inclusion",
    responses=also_as("text/plain", answers(InclusionDocument, 200, 404, 422)),
)
async def prove_inclusion(
    request: Request,
    tx: Annotated[str, Query(min_length=64, max_length=64)],
    witnessed: Annotated[int, Query(ge=0, le=1)] = 0,
    form: Annotated[Literal["json", "tlog-proof"], Query(alias="format")] = "json",
) -> Response:
    """Prove that a transaction is in the log under the newest checkpoint.

    With ``witnessed=1`` it is the newest one that a quorum of witnesses cosigned. With
    ``format=tlog-proof`` the answer is a receipt: a C2SP file that carries the transaction and
    proves it offline.
    """
    ledger = gateway_of(request).parts.ledger
    proof = await ledger.inclusion(check_digest(tx), witnessed=bool(witnessed))
    if proof is not None and form == "json":
        return Reply(encode(proof))
    entry = await ledger.transaction(tx)
    if entry is None:
        raise UnknownTransactionError("the ledger has no such transaction", id=tx)
    if proof is None:
        raise NotCoveredYetError("no checkpoint covers this transaction yet", id=tx)
    return PlainTextResponse(write_proof(proof, entry.raw))


@router.get("/log/proof/consistency", responses=answers(ConsistencyDocument, 200, 404, 422))
async def prove_consistency(
    request: Request,
    old: Annotated[int, Query(ge=0, le=2**53)],
    new: Annotated[int, Query(ge=0, le=2**53)],
) -> Response:
    """Prove that the log of size ``new`` extends the one of size ``old``."""
    return Reply({"path": await gateway_of(request).parts.ledger.consistency(old, new)})


@router.get(
    "/log/tile/{tile:path}", responses=plain_answers(200, 404, kind="application/octet-stream")
)
async def read_tile(request: Request, tile: Tile) -> Response:
    """Return a tile of the log (C2SP tlog-tiles), as the ledger's own door serves it."""
    gateway = gateway_of(request)
    parts = tile.split("/")
    if gateway.parts.ledger_url is None or len(tile) > 128 or not all(map(_tile_part, parts)):
        raise NotFoundError("there is no such tile")
    body = await _from_ledger(gateway, gateway.parts.ledger_url, f"tile/{tile}")
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(body, headers=headers, media_type="application/octet-stream")


@router.get("/log/policy", responses=plain_answers(200, 404))
async def read_policy(request: Request) -> Response:
    """Return by whom the ledger has its checkpoints cosigned (a C2SP tlog-policy).

    Whoever believes it as it stands trusts the ledger's choice: better write your own.
    """
    gateway = gateway_of(request)
    if gateway.parts.ledger_url is None:
        raise NotFoundError("this gateway knows no policy")
    text = (await _from_ledger(gateway, gateway.parts.ledger_url, "policy")).decode()
    return PlainTextResponse(text, headers={"cache-control": "public, max-age=1"})


async def _from_ledger(gateway: Gateway, urls: str, place: str) -> bytes:
    """Return a file of the log from the ledger's own door, or from its standby's."""
    for url in urls.split(","):
        body = await _fetched(gateway.session(), f"{url.rstrip('/')}/v1/log/{place}")
        if body is not None:
            return body
    raise UnavailableError("the ledger cannot be asked at the moment")


async def _fetched(session: aiohttp.ClientSession, address: str) -> bytes | None:
    """Return a file of the log, or ``None`` if the ledger is not served at this address now."""
    try:
        async with session.get(address, timeout=_TILE_WITHIN) as answer:
            if answer.status >= 500:
                return None
            if answer.status != 200:
                raise NotFoundError("the ledger has no such file")
            return await answer.content.read(_MAX_TILE_BYTES)
    except (aiohttp.ClientError, TimeoutError):
        return None


_TILE_WITHIN: Final = aiohttp.ClientTimeout(total=5)


def _tile_part(part: str) -> bool:
    digits = part.removeprefix("x").removesuffix(".p")
    return part == "entries" or (digits.isascii() and digits.isdigit() and len(digits) <= 3)


def _answered(answer: Answer) -> Response:
    if answer.ok:
        return Reply(encode(answer))
    code = answer.code or answer.outcome
    error = error_for(code, answer.detail or code, id=answer.id)
    return problem_of(error).response(outcome=answer.outcome, id=answer.id)


def _items(body: bytes) -> list[bytes]:
    """Take an array apart without touching the bytes of its items: they are what was signed."""
    try:
        return [bytes(item) for item in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(f"not a JSON array: {error}") from error
