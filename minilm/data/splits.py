"""Which rows are held out, as pure functions of labels, numbers and a seed.

**Stratified**: the n rows of a class, in random order, take the places 1/2, 3/2, ..., n - 1/2 of n, so that the rows of
all classes, in the order of place / n, are mixed evenly; the first of each class go before them all. The k rows kept
are the first k: of each class about as large a share as of the others (Webster's rule), at least one as far as k
allows, and 100 rows are among the 500 that the same seed keeps. **Shots** are the first k of each class: so many of
each, and the 2 among the 5.

**Grouped**: rows of one group are kept or held out together. Let w be the rows of each class (C,) still
wanted, and g those of a group. In random order, groups are held out that fit (g <= w + 1/2 in every class), and
then, as all groups may be too large for that, those that bring the total nearer:

    |w - g|^2 < |w|^2        <=>        2 w.g > g.g
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def strata_of(labels: np.ndarray) -> np.ndarray:
    """What to stratify by: (N,) the labels, or of labels (N, C) the rarest that a text has, -1 for none."""
    if labels.ndim == 1:
        return labels
    rarity = np.where(labels == 1, labels.sum(axis=0), np.iinfo(np.int64).max)  # (N, C)
    return np.where(labels.any(axis=1), rarity.argmin(axis=1), -1)


def keep_rows(strata: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """Numbers of ``count`` of the N rows, in ascending order, stratified by ``strata`` (N,)."""
    if not 0 <= count <= len(strata):
        raise ValueError(f"{count} of {len(strata)} rows")
    rows, place, sizes = _in_random_order(strata, seed)
    order = np.lexsort(((place + 0.5) / sizes, place > 0))
    return np.sort(rows[order[:count]])


def keep_shots(strata: np.ndarray, shots: int, seed: int | Sequence[int]) -> np.ndarray:
    """Numbers of so many rows of each class, or of all that it has, in ascending order."""
    rows, place, _ = _in_random_order(strata, seed)
    return np.sort(rows[place < shots])


def _in_random_order(strata: np.ndarray, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows, class by class; the place of each in its class, from 0; and the size of its class; (N,) each."""
    order = np.random.default_rng(seed).permutation(len(strata))
    _, classes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    rows = order[np.argsort(classes[order], kind="stable")]
    place = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rows, place, np.repeat(sizes, sizes)


def hold_out(
    strata: np.ndarray, share: float, seed: int | Sequence[int], groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Part N rows into those kept and those held out, about ``share`` of them: row numbers, each ascending.

    groups: (N,) numbers; rows of one group land on one side.
    """
    if groups is None:
        kept = keep_rows(strata, len(strata) - round(share * len(strata)), seed)
        return kept, np.setdiff1d(np.arange(len(strata)), kept)
    _, classes = np.unique(strata, return_inverse=True)
    _, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((members.max() + 1, classes.max() + 1))  # (groups, C)
    np.add.at(counts, (members, classes), 1)
    wanted = share * counts.sum(axis=0)  # (C,)
    order = np.random.default_rng(seed).permutation(len(counts))
    out = np.zeros(len(counts), dtype=bool)
    for must_fit in (True, False):
        for group in order[~out[order]]:
            rows = counts[group]
            if (rows <= wanted + 0.5).all() if must_fit else 2 * wanted @ rows > rows @ rows:
                out[group] = True
                wanted = wanted - rows
    return np.flatnonzero(~out[members]), np.flatnonzero(out[members])
