"""Work that several runs of one process have in common, done once: tokens, baselines, what frozen layers give.

    with sharing():
        tokens = once("tokens", key, make)      # made
        tokens = once("tokens", key, make)      # the very same, if key() gives the same

Outside of ``sharing()`` nothing is kept. A key tells all that the work depends on, texts by their hash, so that a run's
results are those that it would have alone. What is kept must be changed by nobody.

A loaded checkpoint is not kept. Its file is mapped, and the pages that were read lie in the system's cache, so the 23
million parameters of ``weights/minilm`` are open in 0.02 s, which is under 1% of a run of the fewest texts; a copy that
training cannot change would take longer.
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
MOST = {"activations": 1, "data": 2}  # of a kind that are kept: what frozen layers give may be gigabytes
MANY = 6  # of all other kinds: those of two runs, with three splits each

_kept: dict[str, OrderedDict[Hashable, object]] | None = None


@contextmanager
def sharing() -> Iterator[None]:
    """Within, what ``once`` makes is kept."""
    global _kept
    outer, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = outer


def once(
    kind: str, key: Callable[[], Hashable], make: Callable[[], T], *, keep: Callable[[T], bool] = lambda value: True
) -> T:
    """``make()``, or what it gave before for the same key. Of each kind the last few that were used are kept.

    keep: whether a value may be kept.
    """
    if _kept is None:
        return make()
    of_kind, wanted = _kept.setdefault(kind, OrderedDict()), key()
    if wanted in of_kind:
        of_kind.move_to_end(wanted)
        return of_kind[wanted]  # type: ignore[return-value]  # it was made by an equal ``make``
    while len(of_kind) >= MOST.get(kind, MANY):  # before: there is memory for so many only
        of_kind.popitem(last=False)
    value = make()
    if keep(value):
        of_kind[wanted] = value
    return value


def hash_of_rows(rows: Rows) -> str:
    """Of the texts, their pairs and their labels, in order."""
    digest = hashlib.sha256(rows.labels.tobytes())
    for texts in (rows.texts, rows.pairs or []):
        digest.update(repr(texts).encode(errors="surrogatepass"))
    return digest.hexdigest()


def hash_of_tokens(encoded: Encoded) -> str:
    """Of the tokens of all texts, in order, and of which text of a pair each belongs to."""
    digest = hashlib.sha256(np.ascontiguousarray(encoded.ids).tobytes() + encoded.offsets.tobytes())
    if encoded.windows is not None:
        digest.update(b"windows" + encoded.windows.starts.tobytes() + encoded.windows.scores.encode())
    if encoded.segments is not None:
        digest.update(b"pairs" + np.ascontiguousarray(encoded.segments).tobytes())
    return digest.hexdigest()
