"""Search by meaning: vectors of cards beside the vector of what is wanted.

The vectors come from whatever implements LangChain's ``Embeddings`` and was handed in; none is
required, none is downloaded. Cards are read in the background, some at a time, once each: a vector
is kept as long as what its card says about itself stays the same. An embedder that fails or dawdles
costs a search its meaning, never its answer; the page then says so.

Similarity is the exact cosine over at most ``MAX_CARDS`` cards, computed beside the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib
import logging
import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from operator import mul
from typing import Any, Final

from broker.catalogue import Catalogue
from broker.ports import Embedder
from broker.words import text_of
from rahba.encoding import sha256_hex
from rahba.messages import Card

MAX_CARDS: Final = 20_000
MAX_NUMBERS: Final = 4_096
NEAREST: Final = 50
PATIENCE_S: Final = 2.0
AT_ONCE: Final = 32
_QUERIES_KEPT: Final = 256
_log: Final = logging.getLogger(__name__)


class BadVectorError(Exception):
    """An embedder returned what is no vector, or not of the length of its others."""


class Meaning:
    """What the cards of one process mean; for the tasks of one loop."""

    def __init__(
        self, embedder: Embedder, *, max_cards: int = MAX_CARDS, patience_s: float = PATIENCE_S
    ) -> None:
        """Ask ``embedder``; a search waits for it ``patience_s`` at most."""
        self._embedder = embedder
        self._max_cards = max_cards
        self._patience_s = patience_s
        self._waiting: dict[str, tuple[str, str]] = {}
        self._vectors: dict[str, tuple[str, array[float]]] = {}
        self._queries: OrderedDict[str, array[float]] = OrderedDict()
        self._length: int | None = None
        self._trouble = ""
        self._table: _Table | None = None
        self._left_out = False
        self._reading: asyncio.Task[None] | None = None

    def note(self, card: Card) -> None:
        """Remember to read a card that is listed."""
        text = text_of(card)
        digest = sha256_hex(text.encode("utf-8", "replace"))
        known = self._vectors.get(card.agent)
        if known is not None and known[0] == digest:
            self._waiting.pop(card.agent, None)
            return
        if self._vectors.pop(card.agent, None) is not None:
            self._table = None
        if card.agent in self._waiting or len(self._vectors) + len(self._waiting) < self._max_cards:
            self._waiting[card.agent] = (digest, text)
        else:
            self._left_out = True

    async def near(self, text: str) -> tuple[list[tuple[float, str]] | None, list[str]]:
        """Return the (cosine, agent) nearest to a text, best first, and what was amiss.

        ``None`` instead of agents: the search goes on by words alone.
        """
        self._read()
        notes = []
        if self._waiting:
            why = f" ({self._trouble})" if self._trouble else ""
            notes.append(f"meaning: {len(self._waiting)} cards are not read yet{why}")
        if self._left_out:
            notes.append(f"meaning: only {self._max_cards} cards are read")
        if not self._vectors:
            return None, notes
        try:
            wanted = await self._vector(text)
        except Exception as error:  # noqa: BLE001  # whatever an embedder raises, the search goes on
            return None, [*notes, f"meaning: the embedder failed ({type(error).__name__})"]
        if self._table is None:
            self._table = _Table([(agent, vector) for agent, (_, vector) in self._vectors.items()])
        return await asyncio.to_thread(self._table.nearest, wanted), notes

    def forget(self, catalogue: Catalogue) -> None:
        """Let go of who has left, once they are many."""
        if len(self._vectors) + len(self._waiting) <= len(catalogue) + AT_ONCE:
            return
        self._table, self._left_out = None, False
        for kept in (self._vectors, self._waiting):
            for agent in [agent for agent in kept if catalogue.place_of(agent) is None]:
                del kept[agent]

    async def learned(self) -> None:
        """Wait until every card noted so far was read, or reading has failed."""
        self._read()
        if self._reading is not None:
            await self._reading

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _read(self) -> None:
        if self._waiting and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        while self._waiting:
            some = list(self._waiting.items())[:AT_ONCE]
            try:
                async with asyncio.timeout(self._patience_s * AT_ONCE):
                    made = await self._embedder.aembed_documents([text for _, (_, text) in some])
                vectors = [self._checked(vector) for vector in made]
                for (agent, said), vector in zip(some, vectors, strict=True):
                    if self._waiting.get(agent) == said:
                        del self._waiting[agent]
                        self._vectors[agent] = (said[0], vector)
                self._table = None
            except Exception as error:  # noqa: BLE001  # the next search tries again
                self._trouble = type(error).__name__
                # by its kind alone: what a provider says may quote its key
                _log.warning("the embedder failed: %s", self._trouble)
                return
        self._trouble = ""

    async def _vector(self, text: str) -> array[float]:
        known = self._queries.get(text)
        if known is None:
            async with asyncio.timeout(self._patience_s):
                known = self._checked(await self._embedder.aembed_query(text))
            self._queries[text] = known
            if len(self._queries) > _QUERIES_KEPT:
                self._queries.popitem(last=False)
        return known

    def _checked(self, numbers: Sequence[float]) -> array[float]:
        """Return a vector of length one; refuse another number of numbers than before."""
        length = len(numbers)
        if not 1 <= length <= MAX_NUMBERS or (self._length or length) != length:
            raise BadVectorError(f"a vector of {length} numbers")
        norm = math.sqrt(sum(float(number) * float(number) for number in numbers))
        if not math.isfinite(norm) or norm == 0.0:
            raise BadVectorError("a vector of no length")
        self._length = length
        return array("f", [float(number) / norm for number in numbers])


class _Table:
    """Vectors side by side, by numpy where it is installed: the same numbers, only sooner."""

    def __init__(self, vectors: Sequence[tuple[str, array[float]]]) -> None:
        self._vectors = vectors
        self._matrix: Any = None
        numpy = _numpy()
        if numpy is not None:
            self._matrix = numpy.stack([numpy.frombuffer(one, "f") for _, one in vectors])

    def nearest(self, wanted: array[float]) -> list[tuple[float, str]]:
        if self._matrix is not None:
            cosines = (self._matrix @ _numpy().frombuffer(wanted, "f")).tolist()
        else:
            cosines = [sum(map(mul, wanted, vector)) for _, vector in self._vectors]
        found = zip(cosines, (agent for agent, _ in self._vectors), strict=True)
        return heapq.nsmallest(NEAREST, found, key=lambda one: (-one[0], one[1]))


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None
