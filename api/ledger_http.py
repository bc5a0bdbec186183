"""The ledger over HTTP: the one door to the process that orders all payments. Bare ASGI.

* Writes: ``POST /v1/transactions`` takes one envelope (``application/json``), an array of them or
  NDJSON; each gets its own answer after it is durable, with a signed receipt (``?receipt=1``) if
  asked. With NDJSON in ``accept`` as well it is a stream without end (:mod:`api.ledger_stream`).
  A batch always answers 200 with a list; a
  single envelope answers 200, or a problem document that carries its outcome.
* Reads show committed state. Checkpoint and proofs are for anybody; tiles never change, so any
  cache may keep them for ever.
* Whatever comes in has a limit (body, items, time, address), and wrong input is a 4xx.
* It is given a ledger that has replayed its log, and listens only then: what ``/healthz`` says
  is that payments are taken.

    await serve(sequencer, "127.0.0.1", 8701, log=sequencer.log)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec
import orjson

from api.door import (
    JSON,
    TEXT,
    HungUpError,
    Receive,
    Reply,
    Scope,
    Send,
    header_of,
    read_body,
    send_reply,
    serve_app,
)
from api.ledger_stream import NDJSON, answer_stream
from rahba.balance import AccountProof
from rahba.errors import BadEncodingError, BadInputError, RahbaError, TooLargeError
from rahba.ids import BadIdError, check_digest
from rahba.proof import InclusionProof, write_proof
from wallet.merkle import MerkleLog
from wallet.ports import AccountView, Answer, HoldView, Ledger, TxView
from wallet.tiles import check_tile, entry_bundle, hash_tile, read_tile_path
from wallet.wire import (
    MAX_HOLDS,
    encode,
    encode_all,
    encode_answers,
    encode_holds,
    read_ids,
)

Query = dict[str, str]

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_ITEMS: Final = 1_000
MAX_PATH_CHARS: Final = 256
MAX_QUERY_BYTES: Final = 1_024
MAX_HOLDS_QUERY_BYTES: Final = MAX_HOLDS * 65 + 256
MAX_ENTRIES_BYTES: Final = 8 * 1024 * 1024
FOR_EVER: Final = "public, max-age=31536000, immutable"
BRIEFLY: Final = "public, max-age=1"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_OUTCOME_STATUS: Final = {"conflict": 409, "retry": 503, "invalid": 400, "refused": 422}
_ERROR_STATUS: Final = {
    "not_found": 404,
    "bad_tile": 404,
    "out_of_range": 404,
    "slow_body": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
}
_SPACE: Final = b" \t\r\n"

logger = logging.getLogger("rahba.ledger.http")


class NotFoundError(BadInputError):
    """Nothing is there (yet)."""

    code = "not_found"


class MediaTypeError(BadInputError):
    """The body is of a type that is not read here."""

    code = "unsupported_media_type"


class LedgerApp:
    """The ASGI application over one ledger that has replayed its log.

    ``log`` adds hash tiles, ``policy`` is the trust policy by which its checkpoints are witnessed.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        log: MerkleLog | None = None,
        policy: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Serve ``ledger``."""
        self._policy_text = policy
        self._ledger = ledger
        self._log = log
        self._max_body_bytes = max_body_bytes
        self._exact: dict[str, Callable[[Query], Awaitable[Reply]]] = {
            "/healthz": self._health,
            "/v1/chain": self._chain,
            "/v1/supply": self._supply,
            "/v1/entries": self._entries,
            "/v1/holds": self._holds,
            "/v1/log/key": self._key,
            "/v1/log/checkpoint": self._checkpoint,
            "/v1/log/witnessed": self._witnessed,
            "/v1/log/policy": self._policy,
            "/v1/log/proof/inclusion": self._inclusion,
            "/v1/log/proof/consistency": self._consistency,
        }
        self._below: dict[str, Callable[[str, Query], Awaitable[Reply]]] = {
            "/v1/transactions/": self._transaction,
            "/v1/accounts/": self._account,
            "/v1/holds/": self._hold,
            "/v1/log/tile/": self._tile,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("the ledger speaks HTTP only")
        try:
            _check_address(scope)
            if _is_stream(scope):
                receipt = _query(scope["query_string"]).get("receipt") == "1"
                await answer_stream(self._ledger, receive, send, receipt=receipt)
                return
            reply = await self._answer(scope, receive)
        except HungUpError:
            return
        except RahbaError as error:
            reply = _problem(error)
        except Exception:  # the one supervised boundary: a defect must not end the server
            logger.exception("request failed: %s %s", scope["method"], scope["path"][:256])
            reply = _document(500, "internal", "the ledger could not answer; its own log says why")
        await send_reply(send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        path, method = scope["path"], scope["method"]
        if path == "/v1/transactions":
            return await self._submit(scope, receive) if method == "POST" else _only("POST")
        exact = self._exact.get(path)
        if exact is not None:
            return await exact(_query(scope["query_string"])) if method == "GET" else _only("GET")
        for prefix, below in self._below.items():
            if path.startswith(prefix):
                if method != "GET":
                    return _only("GET")
                return await below(path.removeprefix(prefix), _query(scope["query_string"]))
        raise NotFoundError("there is no such address")

    # -- writes ----------------------------------------------------------------------------

    async def _submit(self, scope: Scope, receive: Receive) -> Reply:
        kind = header_of(scope, b"content-type").partition(";")[0].strip().lower()
        if kind not in {JSON, NDJSON}:
            raise MediaTypeError(f"send {JSON} or {NDJSON}")
        body = await read_body(scope, receive, self._max_body_bytes)
        receipt = _query(scope["query_string"]).get("receipt") == "1"
        if kind == JSON and body.lstrip(_SPACE)[:1] != b"[":
            return _single(await self._ledger.submit(body.strip(_SPACE), receipt=receipt))
        raws = _split_array(body) if kind == JSON else _split_lines(body)
        return Reply(encode_answers(await self._ledger.submit_many(raws, receipt=receipt)))

    # -- reads -----------------------------------------------------------------------------

    async def _health(self, _: Query) -> Reply:
        await self._ledger.supply()  # fails once the ledger had to stop
        return Reply(b'{"status":"ok"}', headers={"cache-control": "no-store"})

    async def _chain(self, _: Query) -> Reply:
        return Reply(orjson.dumps({"chain": await self._ledger.chain()}))

    async def _supply(self, _: Query) -> Reply:
        return Reply(encode(await self._ledger.supply()))

    async def _entries(self, query: Query) -> Reply:
        start, limit = _number(query, "start", 0), _number(query, "limit", MAX_ITEMS)
        found = await self._ledger.entries(start, min(limit, MAX_ITEMS)) if limit else []
        return Reply(encode_all(_fitting(found)))

    async def _transaction(self, tx_id: str, _: Query) -> Reply:
        if tx_id.endswith("/status"):
            return Reply(encode(await self._ledger.status(_digest(tx_id.removesuffix("/status")))))
        return _found(await self._ledger.transaction(_digest(tx_id)))

    async def _account(self, name: str, query: Query) -> Reply:
        account_id, _, part = name.partition("/")
        if part == "proof":
            return _found(await self._ledger.account_proof(account_id))
        if part == "history":
            before = _number(query, "before") if "before" in query else None
            limit = min(_number(query, "limit", 100), MAX_ITEMS)
            found = await self._ledger.history(account_id, before=before, limit=limit)
            return Reply(encode_all(_fitting(found)))
        if part:
            raise NotFoundError("there is no such address")
        return _found(await self._ledger.account(account_id))

    async def _hold(self, hold_id: str, _: Query) -> Reply:
        return _found(await self._ledger.hold(_digest(hold_id)))

    async def _holds(self, query: Query) -> Reply:
        """Show several holds in the order asked for; ``null`` for what is none."""
        return Reply(encode_holds(await self._ledger.holds(read_ids(query.get("ids", "")))))

    # -- the log ---------------------------------------------------------------------------

    async def _key(self, _: Query) -> Reply:
        return Reply((await self._ledger.verifier_key()).encode(), TEXT)

    async def _checkpoint(self, _: Query) -> Reply:
        note = await self._ledger.checkpoint()
        return Reply(note.encode(), TEXT, headers={"cache-control": BRIEFLY})

    async def _witnessed(self, _: Query) -> Reply:
        note = await self._ledger.witnessed()
        if note is None:
            raise NotFoundError("no quorum of witnesses has cosigned a checkpoint yet")
        return Reply(note.encode(), TEXT, headers={"cache-control": BRIEFLY})

    async def _policy(self, _: Query) -> Reply:
        if self._policy_text is None:
            raise NotFoundError("nobody is asked to cosign this log")
        return Reply(self._policy_text.encode(), TEXT, headers={"cache-control": BRIEFLY})

    async def _inclusion(self, query: Query) -> Reply:
        tx_id = _digest(query.get("tx", ""))
        witnessed = query.get("witnessed") == "1"
        proof = await self._ledger.inclusion(tx_id, witnessed=witnessed)
        if query.get("format") != "tlog-proof":
            return _found(proof)
        entry = await self._ledger.transaction(tx_id)
        if proof is None or entry is None:
            raise NotFoundError("no checkpoint covers this yet")
        return Reply(write_proof(proof, entry.raw).encode(), TEXT)

    async def _consistency(self, query: Query) -> Reply:
        path = await self._ledger.consistency(_number(query, "old"), _number(query, "new"))
        return Reply(orjson.dumps({"path": path}))

    async def _tile(self, name: str, _: Query) -> Reply:
        tile = read_tile_path("tile/" + name)
        size = int((await self._ledger.checkpoint()).split("\n", 2)[1])
        check_tile(tile, size)
        if tile.level is None:
            body = entry_bundle([e.raw for e in await self._ledger.entries(tile.start, tile.width)])
        elif self._log is not None:
            body = hash_tile(self._log, tile)
        else:
            raise NotFoundError("this ledger serves no hash tiles")
        return Reply(body, "application/octet-stream", headers={"cache-control": FOR_EVER})


async def serve(
    ledger: Ledger,
    host: str,
    port: int,
    *,
    log: MerkleLog | None = None,
    policy: str | None = None,
    ready: Callable[[str], None] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> None:
    """Serve a started ledger until cancelled; open requests are answered first (5 s at most).

    ``ready`` is called with the address once it listens (``port`` 0: any free one). Signals are
    the caller's; closing the ledger, too.
    """
    app = LedgerApp(ledger, log=log, policy=policy, max_body_bytes=max_body_bytes)
    await serve_app(app, host, port, ready=ready)


def _single(answer: Answer) -> Reply:
    if answer.ok:
        return Reply(encode(answer))
    detail = answer.detail or answer.code or answer.outcome
    return _document(
        _OUTCOME_STATUS[answer.outcome],
        answer.code or answer.outcome,
        detail,
        {"outcome": answer.outcome, "id": answer.id},
    )


def _check_address(scope: Scope) -> None:
    holds = scope["path"] == "/v1/holds"
    most = MAX_HOLDS_QUERY_BYTES if holds else MAX_QUERY_BYTES
    if len(scope["path"]) > MAX_PATH_CHARS or len(scope["query_string"]) > most:
        raise TooLargeError("address too long", limit=MAX_PATH_CHARS)


def _is_stream(scope: Scope) -> bool:
    """Say whether lines come in and lines are to go out."""
    if scope["path"] != "/v1/transactions" or scope["method"] != "POST":
        return False
    kind = header_of(scope, b"content-type").partition(";")[0].strip().lower()
    return kind == NDJSON and NDJSON in header_of(scope, b"accept").lower()


def _fitting(found: list[TxView]) -> list[TxView]:
    """Return as many as fit into one answer: at least one, or nobody could ever read on."""
    size = 0
    for at, entry in enumerate(found):
        size += len(entry.raw)
        if at and size > MAX_ENTRIES_BYTES:
            return found[:at]
    return found


def _found(view: AccountView | AccountProof | HoldView | TxView | InclusionProof | None) -> Reply:
    if view is None:
        raise NotFoundError("the ledger has no such thing, or no checkpoint covers it yet")
    return Reply(encode(view))


def _split_array(body: bytes) -> list[bytes]:
    """Take an array apart without touching the bytes of its items: they are what was signed."""
    try:
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEncodingError(f"not a JSON array: {error}") from error
    return _limited([bytes(item) for item in items])


def _split_lines(body: bytes) -> list[bytes]:
    return _limited([line for line in body.split(b"\n") if line])


def _limited(raws: list[bytes]) -> list[bytes]:
    if len(raws) > MAX_ITEMS:
        raise TooLargeError("too many transactions in one request", limit=MAX_ITEMS)
    return raws


def _query(raw: bytes) -> Query:
    try:
        return dict(parse_qsl(raw.decode("latin-1"), max_num_fields=8))
    except ValueError as error:
        raise BadInputError("too many fields in the address") from error


def _number(query: Query, name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or _NUMBER.fullmatch(text) is None:
        raise BadInputError(f"{name} must be a whole number")
    return int(text)


def _digest(text: str) -> str:
    try:
        return check_digest(text)
    except BadIdError as error:
        raise NotFoundError("ids here are 64 lower-case hex digits") from error


def _problem(error: RahbaError) -> Reply:
    status = _ERROR_STATUS.get(error.code)
    if status is None:
        status = 400 if isinstance(error, BadInputError) else 503 if error.retryable else 502
    return _document(status, error.code, error.message, {"facts": error.facts})


def _only(method: str) -> Reply:
    reply = _document(405, "method_not_allowed", f"only {method} has a meaning here")
    return reply._replace(headers={"allow": method})


def _document(
    status: int, code: str, detail: str, members: Mapping[str, object] | None = None
) -> Reply:
    problem = {
        "type": f"/problems/{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
    }
    headers = {"retry-after": "1"} if status == 503 else {}
    body = orjson.dumps(problem | dict(members or {}))
    return Reply(body, "application/problem+json", status, headers)
