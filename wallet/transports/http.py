"""A ledger in another process, over HTTP.

* Submissions travel together in one POST (NDJSON, :mod:`wallet.transports.posts`), and holds that
  are looked at together are asked for together (:mod:`wallet.transports.looks`). Callers beyond
  ``MAX_WAITING`` wait their turn.
* When the connection breaks, the very same bytes are sent again, with growing pauses, until
  ``patience_s`` is over: the ledger knows them by their id.
* A ledger with a standby has several addresses, separated by commas: what one of them cannot
  answer (unreachable, silent, or itself waiting) is asked of the next.
* After that, :class:`LedgerUnreachableError`: whether they were logged is then unknown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from rahba.balance import AccountProof
from rahba.errors import BadInputError
from rahba.ids import is_digest
from rahba.merkle import OutOfRangeError, leaf_hash
from rahba.proof import InclusionProof
from wallet.errors import LedgerUnavailableError
from wallet.ports import AccountView, Answer, HoldView, SupplyView, TxView
from wallet.transports.exchange import AnswerTooLargeError, Exchange, place_of
from wallet.transports.looks import Looks
from wallet.transports.posts import MAX_ITEMS, MAX_POST_BYTES, Posts
from wallet.transports.window import MAX_LINE_BYTES, Window, lines_of
from wallet.wire import LedgerAnswerError, read

T = TypeVar("T")

NDJSON: Final = "application/x-ndjson"
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
MAX_WAITING: Final = 4_096
_PAUSES_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_SHORTEST_S: Final = 0.1
_TRY_AGAIN: Final = frozenset({502, 503, 504})


class LedgerUnreachableError(LedgerUnavailableError):
    """The ledger could not be asked: what was sent may or may not be in the log.

    Send the same bytes again, or ask for the transaction by its id; never sign a new one for it.
    """

    code = "ledger_unreachable"
    hint = "send the same bytes again: a transaction that is in the log already is paid once"


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""


class _LastProblem(_Problem):
    retryable: bool = False


class _LastLine(msgspec.Struct):
    error: _LastProblem


class _BrokenError(Exception):
    """A stream ended before its answers did: it may be begun anew."""


class _Chain(msgspec.Struct):
    chain: str


class _Path(msgspec.Struct):
    path: list[str]


class HttpLedger:
    """The ledger port over HTTP; for any number of tasks of one event loop."""

    def __init__(self, url: str, *, patience_s: float = 15.0, attempt_s: float = 5.0) -> None:
        """Talk to the ledger at ``url``, or at one of several, separated by commas.

        ``patience_s`` is how long a broken connection is retried, ``attempt_s`` how long one
        request may take.
        """
        self._urls = deque(_addresses(url))
        self._patience_s = patience_s
        self._attempt_s = attempt_s
        self._exchange = Exchange(max_answer_bytes=MAX_ANSWER_BYTES)
        self._looks = Looks(self._holds, _closed)
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._posts = {
            receipt: Posts(partial(self._post, receipt), _closed) for receipt in (False, True)
        }
        self._streams: dict[Window, aiohttp.ClientResponse | None] = {}
        self._over = False
        self._chain = ""
        self._key = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what is still under way (its callers are told) and close the connections."""
        self._over = True
        for posts in self._posts.values():
            await posts.close()
        await self._looks.close()
        for window, reply in tuple(self._streams.items()):
            await window.abandon(_closed())
            if reply is not None:
                reply.close()
        await self._exchange.aclose()

    async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
        """Submit one signed transaction; answers after it is durable."""
        return (await self.submit_many([raw], receipt=receipt))[0]

    async def submit_many(self, raws: list[bytes], *, receipt: bool = False) -> list[Answer]:
        """Submit several, in order; each gets its own answer."""
        answers: dict[int, Answer] = {}
        sendable: list[int] = []
        for at, raw in enumerate(raws):
            code = _unsendable(raw)
            if code is None:
                sendable.append(at)
            else:
                answers[at] = Answer("invalid", leaf_hash(raw).hex(), code=code)
        for chunk in _chunks(sendable, raws):
            async with self._room:
                found = await self._posts[receipt].submit([raws[at] for at in chunk])
            answers.update(zip(chunk, found, strict=True))
        return [answers[at] for at in range(len(raws))]

    async def stream(
        self, raws: AsyncIterable[bytes], *, receipt: bool = False
    ) -> AsyncIterator[Answer]:
        """Submit what comes, without end, and yield every answer in order.

        All travels on one connection, each line as it comes. ``raws`` is asked for more only while
        few wait for their answers, and the ledger's answers are read only when they are asked
        for. When the connection breaks, what is unanswered is sent again on a new one, so that
        each item is answered once and none overtakes another.

        Raises:
            LedgerUnreachableError: no answer came for ``patience_s``.
        """
        loop, window, web = asyncio.get_running_loop(), Window(raws), aiohttp.ClientSession()
        self._streams[window] = None
        attempt, give_up = 0, 0.0
        try:
            while await window.something():
                url = self._urls[0]
                try:
                    async with aclosing(self._converse(web, url, window, receipt)) as answers:
                        async for answer in answers:
                            attempt = 0
                            yield answer
                    continue
                except (aiohttp.ClientError, TimeoutError, OSError, _BrokenError) as error:
                    reason = error
                self._rotate(url)
                give_up = give_up if attempt else loop.time() + self._patience_s
                await self._pause(url, attempt, give_up, reason)
                attempt += 1
        finally:
            await window.close()
            await web.close()
            self._streams.pop(window, None)

    async def _converse(
        self, web: aiohttp.ClientSession, url: str, window: Window, receipt: bool
    ) -> AsyncGenerator[Answer, None]:
        """Send on one connection what waits, until all is answered or the connection breaks."""
        window.rewind()
        async with asyncio.timeout(self._attempt_s):
            reply = await web.post(
                f"{url}/v1/transactions" + ("?receipt=1" if receipt else ""),
                data=window.chunks(),
                headers={"content-type": NDJSON, "accept": NDJSON},
                timeout=aiohttp.ClientTimeout(total=None),
                allow_redirects=False,
            )
        self._streams[window] = reply
        try:
            if reply.status in _TRY_AGAIN:
                raise _BrokenError(f"status {reply.status}")
            if reply.status != 200 or reply.content_type != NDJSON:
                raise _problem(reply.status, await reply.content.read(MAX_LINE_BYTES))
            async for line in lines_of(reply.content, window, self._attempt_s):
                yield window.settle(_answer(line))
                if window.done:
                    return
        finally:
            reply.close()
        if window:
            raise _BrokenError("the stream ended before its answers")

    async def chain(self) -> str:
        """Return the chain id."""
        if not self._chain:
            self._chain = (await self._get("/v1/chain", _Chain)).chain
        return self._chain

    async def account(self, account_id: str) -> AccountView | None:
        """Return an account, or ``None`` if the ledger never saw it."""
        return await self._find(f"/v1/accounts/{quote(account_id, safe='')}", AccountView)

    async def account_proof(self, account_id: str) -> AccountProof | None:
        """Prove an account under the latest checkpoint."""
        return await self._find(f"/v1/accounts/{quote(account_id, safe='')}/proof", AccountProof)

    async def history(
        self, account_id: str, *, before: int | None = None, limit: int = 100
    ) -> list[TxView]:
        """Return an account's transactions, newest first."""
        path = f"/v1/accounts/{quote(account_id, safe='')}/history?limit={limit:d}"
        return await self._get(
            path + (f"&before={before:d}" if before is not None else ""), list[TxView]
        )

    async def hold(self, hold_id: str) -> HoldView | None:
        """Return a hold by the id of its transaction."""
        return await self._looks.look(hold_id) if is_digest(hold_id) else None

    async def holds(self, hold_ids: Sequence[str]) -> list[HoldView | None]:
        """Return several holds in the order of their ids, in as few requests as they fit into."""
        return await asyncio.gather(*(self.hold(hold_id) for hold_id in hold_ids))

    async def transaction(self, tx_id: str) -> TxView | None:
        """Return a logged transaction."""
        return await self._find(f"/v1/transactions/{quote(tx_id, safe='')}", TxView)

    async def status(self, tx_id: str) -> Answer:
        """Return what became of a transaction."""
        return await self._get(f"/v1/transactions/{quote(tx_id, safe='')}/status", Answer)

    async def entries(self, start: int, limit: int) -> list[TxView]:
        """Return log entries from ``start`` on; fewer than ``limit`` when they are large."""
        return await self._get(f"/v1/entries?start={start:d}&limit={limit:d}", list[TxView])

    async def supply(self) -> SupplyView:
        """Return the supply equation."""
        return await self._get("/v1/supply", SupplyView)

    async def checkpoint(self) -> str:
        """Return the latest signed checkpoint."""
        return _text((await self._ask("GET", "/v1/log/checkpoint"))[1])

    async def witnessed(self) -> str | None:
        """Return the latest cosigned checkpoint."""
        status, note = await self._ask("GET", "/v1/log/witnessed", absent=True)
        return None if status == 404 else _text(note)

    async def verifier_key(self) -> str:
        """Return the log's verifier key."""
        if not self._key:
            self._key = _text((await self._ask("GET", "/v1/log/key"))[1]).strip()
        return self._key

    async def inclusion(self, tx_id: str, *, witnessed: bool = False) -> InclusionProof | None:
        """Prove a transaction under the latest checkpoint, or the latest cosigned one."""
        path = f"/v1/log/proof/inclusion?tx={quote(tx_id, safe='')}&witnessed={witnessed:d}"
        return await self._find(path, InclusionProof)

    async def consistency(self, old_size: int, new_size: int) -> list[str]:
        """Return the consistency proof between two sizes."""
        path = f"/v1/log/proof/consistency?old={old_size:d}&new={new_size:d}"
        return (await self._get(path, _Path)).path

    # -- requests --------------------------------------------------------------------------

    async def _post(self, receipt: bool, raws: list[bytes]) -> list[Answer]:
        path = "/v1/transactions" + ("?receipt=1" if receipt else "")
        _, body = await self._ask("POST", path, b"\n".join(raws) + b"\n")
        answers = read(body, list[Answer])
        if len(answers) != len(raws):
            raise LedgerAnswerError("not one answer for each transaction")
        return answers

    async def _holds(self, ids: list[str]) -> list[HoldView | None]:
        """Ask for holds in one request, or one by one where that is not known yet."""
        if len(ids) > 1:
            status, body = await self._ask("GET", f"/v1/holds?ids={','.join(ids)}", absent=True)
            if status == 200:
                views = read(body, list[HoldView | None])
                if len(views) != len(ids) or not all(map(_shows, views, ids)):
                    raise LedgerAnswerError("not one view for each hold")
                return views
        return await asyncio.gather(*[self._find(f"/v1/holds/{one}", HoldView) for one in ids])

    async def _get(self, path: str, form: type[T]) -> T:
        return read((await self._ask("GET", path))[1], form)

    async def _find(self, path: str, form: type[T]) -> T | None:
        status, body = await self._ask("GET", path, absent=True)
        return None if status == 404 else read(body, form)

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, *, absent: bool = False
    ) -> tuple[int, bytes]:
        """Make one request, again and again while the ledger cannot be reached."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience_s
        attempt = 0
        while not self._over:
            url = self._urls[0]
            try:
                limit_s = min(self._attempt_s, max(give_up - loop.time(), _SHORTEST_S))
                status, answer = await self._attempt(method, url, path, body, limit_s)
            except (TimeoutError, OSError) as error:
                reason: Exception = error
            else:
                if status == 200 or (absent and status == 404):
                    return status, answer
                reason = _problem(status, answer)
                if status not in _TRY_AGAIN:
                    raise reason
            self._rotate(url)
            await self._pause(url, attempt, give_up, reason)
            attempt += 1
        raise _closed()

    async def _pause(self, url: str, attempt: int, give_up: float, reason: Exception) -> None:
        """Wait before the next attempt, or say that there will be none."""
        pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
        if asyncio.get_running_loop().time() + pause_s > give_up:
            raise LedgerUnreachableError(
                f"the ledger cannot be reached: {reason!r}", url=url, attempts=attempt + 1
            ) from reason
        await asyncio.sleep(pause_s)

    def _rotate(self, failed: str) -> None:
        """Ask another address from now on, unless another request saw to it already."""
        if self._urls[0] == failed:
            self._urls.rotate(-1)

    async def _attempt(
        self, method: str, url: str, path: str, body: bytes | None, limit_s: float
    ) -> tuple[int, bytes]:
        try:
            return await self._exchange.ask(
                method, url, path, limit_s=limit_s, body=body, kind=NDJSON
            )
        except AnswerTooLargeError as error:
            raise LedgerAnswerError("the answer is too large") from error


def _addresses(text: str) -> list[str]:
    urls = [url.strip().rstrip("/") for url in text.split(",")]
    for url in urls:
        try:
            place_of(url)
        except ValueError as error:
            raise BadInputError("a ledger's address looks like http://127.0.0.1:8701") from error
    return urls


def _closed() -> LedgerUnreachableError:
    return LedgerUnreachableError("the client was closed")


def _shows(view: HoldView | None, hold_id: str) -> bool:
    return view is None or view.id == hold_id


def _unsendable(raw: bytes) -> str | None:
    """Say why bytes cannot travel as one line of a POST (no envelope contains a newline)."""
    if not raw or b"\n" in raw:
        return "bad_encoding"
    return "too_large" if len(raw) >= MAX_POST_BYTES else None


def _answer(line: bytes) -> Answer:
    """Read a line of a stream; the last one may say why the stream ends."""
    if not line.startswith(b'{"error":'):
        return read(line, Answer)
    problem = read(line, _LastLine).error
    if problem.retryable:
        raise _BrokenError(problem.code)
    raise LedgerAnswerError(problem.detail or problem.code, problem=problem.code)


def _chunks(places: list[int], raws: list[bytes]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for at in places:
        size += len(raws[at]) + 1
        if chunk and (len(chunk) == MAX_ITEMS or size > MAX_POST_BYTES):
            yield chunk
            chunk, size = [], len(raws[at]) + 1
        chunk.append(at)
    if chunk:
        yield chunk


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise LedgerAnswerError("not text") from error


def _problem(status: int, body: bytes) -> BadInputError | LedgerAnswerError:
    try:
        problem = read(body, _Problem)
    except LedgerAnswerError:
        problem = _Problem(detail="no problem document")
    message = problem.detail or problem.code
    if problem.code == OutOfRangeError.code:
        return OutOfRangeError(message)
    if status in {400, 404, 413}:
        return BadInputError(message, problem=problem.code)
    return LedgerAnswerError(message, status=status, problem=problem.code)
