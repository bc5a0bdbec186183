"""Makes the embeddings that a process was told to search with, if any."""

from __future__ import annotations

import importlib
from typing import Final

from api.settings import BadSettingError
from broker.ports import Embedder
from broker.stores.word_vectors import WordVectors

WORDS: Final = "words"


def load_embeddings(name: str | None) -> Embedder | None:
    """Return what ``RAHBA_EMBEDDINGS`` names: ``words``, or ``module:function``.

    The function is called without arguments and returns a LangChain ``Embeddings``. It is code of
    the machine's owner, as trusted as the process itself.

    Raises:
        BadSettingError: there is no such function, it fails, or what it returns embeds nothing.
        NoWordVectorsError: ``words``, and the extra ``meaning`` is not installed.
    """
    if name is None:
        return None
    if name == WORDS:
        return WordVectors()
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise BadSettingError("RAHBA_EMBEDDINGS must be `words` or `module:function`")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise BadSettingError(f"RAHBA_EMBEDDINGS: {error}") from error
    except Exception as error:  # noqa: BLE001  # the owner's code: its words may quote a key
        raise BadSettingError(f"RAHBA_EMBEDDINGS: {name} raised {type(error).__name__}") from None
    if not all(hasattr(made, each) for each in ("aembed_documents", "aembed_query")):
        raise BadSettingError("RAHBA_EMBEDDINGS: the function returns no LangChain Embeddings")
    embedder: Embedder = made
    return embedder
