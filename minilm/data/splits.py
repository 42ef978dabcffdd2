"""Choose the rows that are held out, as pure functions of labels, numbers and a seed.

**Stratified**: the n rows of a class, in random order, get the positions (1/2) / n, (3/2) / n, ..., (n - 1/2) / n.
Sorting all rows by position mixes the classes evenly; only the first row of each class is moved to the front. The first
k rows are kept. So about the same fraction of each class is kept (Webster's rule), at least one row per class if k
allows it, and with one seed a selection of 100 rows is a subset of a selection of 500. **Shots** are the first k rows
of each class; 2 shots are a subset of 5 shots.

**Grouped**: rows of one group, such as rows with equal texts, are kept or held out together. Let w (C,) be the number
of rows of each class that must still be held out, and g (C,) those of a group. In random order, first hold out each
group that fits (g <= w + 1/2 in every class). As groups may be too large to fit, then hold out each group that brings
the total nearer:

    |w - g|^2 < |w|^2        <=>        2 w.g > g.g
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def strata_of(labels: np.ndarray) -> np.ndarray:
    """(N,) the strata: the labels, or for labels (N, C) each text's rarest label; -1 if it has none."""
    if labels.ndim == 1:
        return labels
    rarity = np.where(labels == 1, labels.sum(axis=0), np.iinfo(np.int64).max)  # (N, C)
    return np.where(labels.any(axis=1), rarity.argmin(axis=1), -1)


def keep_rows(strata: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """The numbers of ``count`` of the N rows, in ascending order, stratified by ``strata`` (N,)."""
    if not 0 <= count <= len(strata):
        raise ValueError(f"count must be from 0 to {len(strata)}, the number of rows, got {count}")
    rows, place, sizes = _in_random_order(strata, seed)
    order = np.lexsort(((place + 0.5) / sizes, place > 0))
    return np.sort(rows[order[:count]])


def keep_shots(strata: np.ndarray, shots: int, seed: int | Sequence[int]) -> np.ndarray:
    """The numbers of ``shots`` rows of each class, or all if it has fewer, in ascending order."""
    rows, place, _ = _in_random_order(strata, seed)
    return np.sort(rows[place < shots])


def _in_random_order(strata: np.ndarray, seed: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows in random order, class by class; each row's index within its class; its class's size. (N,) each."""
    order = np.random.default_rng(seed).permutation(len(strata))
    _, classes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    rows = order[np.argsort(classes[order], kind="stable")]
    place = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rows, place, np.repeat(sizes, sizes)


def hold_out(
    strata: np.ndarray, share: float, seed: int | Sequence[int], groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide N rows into those kept and those held out, about the fraction ``share``. Both are ascending row numbers.

    groups: (N,) numbers; all rows of one group are kept, or all are held out.
    """
    if groups is None:
        kept = keep_rows(strata, len(strata) - round(share * len(strata)), seed)
        return kept, np.setdiff1d(np.arange(len(strata)), kept)
    _, classes = np.unique(strata, return_inverse=True)
    _, members = np.unique(groups, return_inverse=True)
    held_out = _hold_out_groups(classes, members, share, seed)[members]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _hold_out_groups(classes: np.ndarray, members: np.ndarray, share: float, seed: int | Sequence[int]) -> np.ndarray:
    """(G,) bool: which groups are held out. classes, members: (N,) the class and the group of each row.

    The loops visit only the classes that a group has, which are few.
    """
    count = int(classes.max()) + 1
    cells, sizes = np.unique(members * count + classes, return_counts=True)  # (group, class) and its rows
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
    """(N,) the fold of each row, from 0. All folds have about the same number of rows of each class.

    strata: (N,) the classes. groups: (N,) numbers; rows of one group are in one fold. The largest groups are assigned
    first, each to the fold that has the fewest rows of the group's classes so far.
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
    """(N,) group numbers: rows with an equal value in ``first`` or in ``second``, (N,) each, get into one group, and so
    do rows that are connected through other rows."""
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
    """(N,) a number for each text or pair, equal for equal texts: the number of the first row with that text."""
    if pairs is None:
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
    else:
        hashes = np.fromiter(map(hash, zip(texts, pairs, strict=True)), np.int64, len(texts))
    numbers = np.arange(len(texts))
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1  # the previous row has the same hash
    firsts: dict[tuple[str, str], int] = {}
    for place in repeats.tolist():
        for row in (int(order[place - 1]), int(order[place])):  # among equal hashes, rows are in ascending order
            numbers[row] = firsts.setdefault((texts[row], "" if pairs is None else pairs[row]), row)
    return numbers
