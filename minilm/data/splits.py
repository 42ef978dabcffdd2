"""Which rows are held out, as pure functions of labels, numbers and a seed.

**Stratified**: of N rows with n_c of class c, the k kept hold k n_c / N of each class, rounded so that they
sum to k (by the largest remainder), and at least one of each class as far as k allows.

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
    order = np.random.default_rng(seed).permutation(len(strata))
    _, classes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    by_class = order[np.argsort(classes[order], kind="stable")]  # each class's rows together, shuffled
    rank = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place within the class
    return np.sort(by_class[rank < np.repeat(quotas(sizes, count), sizes)])


def quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many to take of each of C classes: (C,), summing to ``count``, in proportion to ``sizes`` (C,)."""
    if not 0 <= count <= sizes.sum():
        raise ValueError(f"{count} of {sizes.sum()} rows")
    ideal = sizes * (count / max(sizes.sum(), 1))
    least = int(count >= len(sizes))  # one of each class, if there is room
    quota = np.maximum(np.floor(ideal).astype(np.int64), least)
    while step := np.sign(count - quota.sum()):
        possible = quota < sizes if step > 0 else quota > least
        quota[np.where(possible, step * (ideal - quota), -np.inf).argmax()] += step
    return quota


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
