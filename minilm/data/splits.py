"""Which rows are held out, as pure functions of labels, numbers and a seed.

**Stratified**: the n rows of a class, in random order, take the places 1/2, 3/2, ..., n - 1/2 of n, so that the rows of
all classes, in the order of place / n, are mixed evenly; the first of each class go before them all. The k rows kept
are the first k: of each class about as large a share as of the others (Webster's rule), at least one as far as k
allows, and 100 rows are among the 500 that the same seed keeps. **Shots** are the first k of each class: so many of
each, and the 2 among the 5.

**Grouped**: rows of one group, such as rows with equal texts, are kept or held out together. Let w be the rows of each
class (C,) still wanted, and g those of a group. In random order, groups are held out that fit (g <= w + 1/2 in every
class), and then, as all groups may be too large for that, those that bring the total nearer:

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
    held_out = _hold_out_groups(classes, members, share, seed)[members]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _hold_out_groups(classes: np.ndarray, members: np.ndarray, share: float, seed: int | Sequence[int]) -> np.ndarray:
    """(G,) which groups are held out, for the class and the group of each row, (N,) each.

    A group has few of the classes, so only those are looked at.
    """
    count = int(classes.max()) + 1
    cells, sizes = np.unique(members * count + classes, return_counts=True)  # a group and a class, and their rows
    starts = np.searchsorted(cells // count, np.arange(members.max() + 2)).tolist()
    classes_of, sizes_of = (cells % count).tolist(), sizes.astype(np.float64).tolist()
    wanted: list[float] = (share * np.bincount(classes).astype(np.float64)).tolist()  # (C,)
    order = np.random.default_rng(seed).permutation(len(starts) - 1).tolist()
    held_out = np.zeros(len(order), dtype=bool)
    for must_fit in (True, False):
        for group in order:
            if held_out[group]:
                continue
            span = range(starts[group], starts[group + 1])
            if must_fit:
                taken = all(sizes_of[i] <= wanted[classes_of[i]] + 0.5 for i in span)
            else:
                taken = 2 * sum(wanted[classes_of[i]] * sizes_of[i] for i in span) > sum(sizes_of[i] ** 2 for i in span)
            if taken:
                held_out[group] = True
                for i in span:
                    wanted[classes_of[i]] -= sizes_of[i]
    return held_out


def deal_folds(
    strata: np.ndarray, folds: int, seed: int | Sequence[int], groups: np.ndarray | None = None
) -> np.ndarray:
    """(N,) the fold, from 0, of each row: each has about as many rows of each class as the others (N,).

    groups: (N,) numbers; rows of one group are in one fold. The largest are dealt first, each to the fold that has the
    fewest rows of its classes so far.
    """
    if groups is None:
        rows, _, _ = _in_random_order(strata, seed)
        dealt = np.empty(len(strata), dtype=np.int64)
        dealt[rows] = np.arange(len(rows)) % folds
        return dealt
    _, classes = np.unique(strata, return_inverse=True)
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    rows_of = np.split(np.argsort(members, kind="stable"), np.cumsum(sizes)[:-1])
    counts, fold_of = np.zeros((folds, int(classes.max()) + 1)), np.empty(len(sizes), dtype=np.int64)
    for group in order.tolist():
        found, times = np.unique(classes[rows_of[group]], return_counts=True)
        fold_of[group] = fold = int(np.lexsort((counts.sum(axis=1), counts[:, found] @ times))[0])
        counts[fold, found] += times
    return fold_of[members]


def join_groups(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) the groups of rows that share a value of either, directly or through others; numbers (N,) each."""
    leader = np.arange(len(first))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = row = leader[leader[row]]
        return row

    for values in (first, second):
        _, starts, members = np.unique(values, return_index=True, return_inverse=True)
        for row, start in enumerate(starts[members].tolist()):
            if row != start:
                leader[find(row)] = find(start)
    return np.array([find(row) for row in range(len(first))])


def number_texts(texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
    """(N,) a number for each text or pair, the same for equal ones: that of the first row that has it."""
    if pairs is None:
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
    else:
        hashes = np.fromiter(map(hash, zip(texts, pairs, strict=True)), np.int64, len(texts))
    numbers = np.arange(len(texts))
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1  # a hash that the row before it has too
    firsts: dict[tuple[str, str], int] = {}
    for place in repeats.tolist():
        for row in (int(order[place - 1]), int(order[place])):  # rows rise where hashes are equal
            numbers[row] = firsts.setdefault((texts[row], "" if pairs is None else pairs[row]), row)
    return numbers
