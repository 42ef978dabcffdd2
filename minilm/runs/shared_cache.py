"""A cache for values that several runs of one process share: tokens, baselines, outputs of frozen layers.

    with shared_cache():
        tokens = memoize("tokens", key, make)      # calls make()
        tokens = memoize("tokens", key, make)      # returns the same object, if key() returns an equal key

Outside of ``shared_cache()`` nothing is cached. A key contains everything that the value depends on, with texts as
hashes, so that a run has the same results as without the cache. Cached values must not be modified.

A loaded checkpoint is not cached. Its file is mapped into memory and stays in the system's page cache, so a model of 23
million parameters loads in 0.02 s, less than 1% of the shortest run; copying it before training would take longer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from minilm.data.rows import Rows
from minilm.data.tokenization import Encoded

T = TypeVar("T")
LIMITS = {"activations": 1, "data": 2}  # kind -> the most cached values; outputs of frozen layers may be gigabytes
LIMIT = 6  # for every other kind: two runs with three splits each

_cache: dict[str, OrderedDict[Hashable, object]] | None = None


@contextmanager
def shared_cache() -> Iterator[None]:
    """A context in which the values of ``memoize`` are cached."""
    global _cache
    outer, _cache = _cache, {}
    try:
        yield
    finally:
        _cache = outer


def memoize(
    kind: str, key: Callable[[], Hashable], make: Callable[[], T], *, keep: Callable[[T], bool] = lambda value: True
) -> T:
    """``make()``, or the cached value of an equal key. The most recently used values of each kind are cached.

    keep: whether a value may be cached.
    """
    if _cache is None:
        return make()
    of_kind, wanted = _cache.setdefault(kind, OrderedDict()), key()
    if wanted in of_kind:
        of_kind.move_to_end(wanted)
        return of_kind[wanted]  # type: ignore[return-value]  # made by an equal ``make``
    while len(of_kind) >= LIMITS.get(kind, LIMIT):  # first free memory for the new value
        of_kind.popitem(last=False)
    value = make()
    if keep(value):
        of_kind[wanted] = value
    return value


def hash_of_rows(rows: Rows) -> str:
    """A hash of texts, pairs and labels, in order."""
    digest = hashlib.sha256(rows.labels.tobytes())
    for texts in (rows.texts, rows.pairs or []):
        digest.update(repr(texts).encode(errors="surrogatepass"))
    return digest.hexdigest()


def hash_of_tokens(encoded: Encoded) -> str:
    """A hash of the tokens of all texts, in order, and of their segments."""
    digest = hashlib.sha256(np.ascontiguousarray(encoded.ids).tobytes() + encoded.offsets.tobytes())
    if encoded.windows is not None:
        digest.update(b"windows" + encoded.windows.starts.tobytes() + encoded.windows.scores.encode())
    if encoded.segments is not None:
        digest.update(b"pairs" + np.ascontiguousarray(encoded.segments).tobytes())
    return digest.hexdigest()
