"""Full text beyond some ten thousand cards: tantivy in memory, with the newest cards beside it.

Tantivy skips what cannot reach the first places (block-max WAND), and returns what BM25 over all
postings would. It shows nothing before a commit, and a commit takes milliseconds; so whatever
changed since the last one lies in posting lists of our own, is weighed by the words of both, and
moves over ``MERGE_AT`` changes at a time. A search sees every change at once.

    pip install 'rahba[search]'
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from typing_extensions import override

from broker.postings import Postings
from broker.textindex import TextIndex

MERGE_AT: Final = 1_000
HEAP_BYTES: Final = 64_000_000
_DOC, _WORDS, _MARKS = "d", "w", "m"
_EVERY: Final = "*"


def available() -> bool:
    """Say whether tantivy is installed."""
    try:
        importlib.import_module("tantivy")
    except ImportError:
        return False
    return True


class TantivyIndex(TextIndex):
    """BM25 over any number of cards; one writer thread, everything in memory."""

    def __init__(self) -> None:
        """Begin empty; documents go straight to tantivy until :meth:`settle`."""
        self._lib: Any = importlib.import_module("tantivy")
        builder = self._lib.SchemaBuilder()
        builder.add_integer_field(_DOC, indexed=True, fast=True)
        builder.add_text_field(_WORDS, tokenizer_name="whitespace", index_option="freq")
        builder.add_text_field(_MARKS, tokenizer_name="raw", index_option="basic")
        self._schema = builder.build()
        self._index = self._lib.Index(self._schema)
        self._writer = self._index.writer(HEAP_BYTES, 1)
        self._searcher = self._index.searcher()
        self._loading = True
        self._fresh = Postings()
        self._waiting: dict[int, tuple[Sequence[str], Sequence[str]]] = {}
        self._settled = 0
        self._written, self._words = 0, 0
        self._dead: set[int] = set()
        self._struck = 0

    @override
    def __len__(self) -> int:
        return self._settled - len(self._dead) + len(self._waiting)

    @property
    @override
    def struck(self) -> int:
        return self._struck

    @override
    def add(self, doc: int, words: Sequence[str], marks: Sequence[str]) -> None:
        if self._loading:
            self._write(doc, words, marks)
            return
        self._fresh.add(doc, words, marks)
        self._waiting[doc] = (words, marks)
        self._merge_in_time()

    @override
    def remove(self, doc: int) -> None:
        if self._waiting.pop(doc, None) is not None:
            self._fresh.remove(doc)
            return
        self._dead.add(doc)
        self._struck += 1
        self._merge_in_time()

    @override
    def settle(self) -> None:
        self._loading = False
        self._merge()

    @override
    def search(
        self, words: Sequence[str], marks: Sequence[str], limit: int
    ) -> list[tuple[float, int]]:
        found = self._fresh.search(words, marks, limit, beside=self._beside())
        wanted = min(limit + len(self._dead), max(self._searcher.num_docs, 1))
        hits = self._searcher.search(self._query(words, marks), wanted, count=False).hits
        docs = self._searcher.fast_field_values(_DOC, [address for _, address in hits])
        dead = self._dead
        best = [(score, doc) for (score, _), doc in zip(hits, docs, strict=True) if doc not in dead]
        if found:
            best = sorted(found + best, key=itemgetter(0), reverse=True)
        return best[:limit]

    def _beside(self) -> tuple[int, float, Any]:
        # Those that are struck out count, too, as in the holders of a word, until they are purged.
        count = self._searcher.doc_freq(_MARKS, _EVERY)
        average = self._words / self._written if self._written else 0.0
        return count, average, lambda word: self._searcher.doc_freq(_WORDS, word)

    def _query(self, words: Sequence[str], marks: Sequence[str]) -> Any:
        query, occur = self._lib.Query, self._lib.Occur
        terms = [(occur.Should, self._term(_WORDS, word, "freq")) for word in dict.fromkeys(words)]
        either = query.boolean_query(terms)
        if not marks:
            return either
        must = [query.const_score_query(self._term(_MARKS, mark, "basic"), 0.0) for mark in marks]
        return query.boolean_query([(occur.Must, part) for part in (*must, either)])

    def _term(self, field: str, text: str, option: str) -> Any:
        return self._lib.Query.term_query(self._schema, field, text, option)

    def _write(self, doc: int, words: Sequence[str], marks: Sequence[str]) -> None:
        document = self._lib.Document()
        document.add_integer(_DOC, doc)
        document.add_text(_WORDS, " ".join(words))
        for mark in (_EVERY, *marks):
            document.add_text(_MARKS, mark)
        self._writer.add_document(document)
        self._settled += 1
        self._written += 1
        self._words += len(words)

    def _merge_in_time(self) -> None:
        if not self._loading and len(self._waiting) + len(self._dead) >= MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        """Move over what is new, drop what has gone, and show both."""
        for doc in self._dead:
            self._writer.delete_documents_by_term(_DOC, doc)
        for doc, (words, marks) in self._waiting.items():
            self._write(doc, words, marks)
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()
        self._settled = self._searcher.num_docs
        self._dead, self._waiting, self._fresh = set(), {}, Postings()
