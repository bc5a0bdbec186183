"""Meaning without a service: the mean of the vectors of a text's words.

The vectors come with the package ``wordllama`` (MIT; 32,000 tokens by 256 numbers, taken from large
models' own embeddings); nothing is downloaded. Of the package only its two files are read. It has
the methods of LangChain's ``Embeddings``, so that it may stand wherever one of those may.

    pip install 'rahba[meaning]'
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from pathlib import Path
from typing import Any, Final

from rahba.errors import LocalError

MAX_CHARS: Final = 10_000
PACKAGE: Final = "wordllama"


class NoWordVectorsError(LocalError):
    """The vectors of words are asked for and not installed."""

    code = "no_word_vectors"
    hint = "pip install 'rahba[meaning]'"


class WordVectors:
    """Vectors of texts, alike for texts whose words are; may be asked from any thread."""

    def __init__(self) -> None:
        """Read the vectors.

        Raises:
            NoWordVectorsError: the package, or what it needs, is not installed.
        """
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise NoWordVectorsError("the package wordllama is not installed")
        folder = Path(spec.submodule_search_locations[0])
        try:
            self._numpy: Any = importlib.import_module("numpy")
            tokenizers: Any = importlib.import_module("tokenizers")
            tensors: Any = importlib.import_module("safetensors.numpy")
            (vectors,) = tensors.load_file(_one(folder, "*_256.safetensors")).values()
            self._tokenizer = tokenizers.Tokenizer.from_file(str(_one(folder, "*tokenizer*.json")))
        except (ImportError, OSError) as error:
            raise NoWordVectorsError("the vectors of words cannot be read") from error
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text; of a text without words, nothing but zeros."""
        cut = [text[:MAX_CHARS] for text in texts]
        found = self._tokenizer.encode_batch(cut, add_special_tokens=False)
        return [self._mean(one.ids) for one in found]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text, beside the loop."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a text; it is short work."""
        return self.embed_query(text)

    def _mean(self, ids: list[int]) -> list[float]:
        if not ids:
            return [0.0] * int(self._vectors.shape[1])
        mean = self._vectors[ids].astype(self._numpy.float32).mean(axis=0)
        return [float(number) for number in mean]


def _one(folder: Path, pattern: str) -> Path:
    found = next(folder.rglob(pattern), None)
    if found is None:
        raise FileNotFoundError(pattern)
    return found
