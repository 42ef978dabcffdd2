"""Which texts to label next: the query rules of active learning.

A model that was trained on the labelled rows predicts probabilities p (C,) for each of the N rows of the pool. There
are three measures of its uncertainty (Settles 2009, "Active Learning Literature Survey", section 3.1):

    least confidence    1 - p_1                      p_1 >= p_2 >= ... of one row
    margin              p_2 - p_1
    entropy             - sum_c p_c log p_c

The rows with the highest uncertainty are chosen, even if they are similar to each other. With two classes all three
measures choose the same rows. **k-centres** (Sener and Savarese 2018, "Active Learning for Convolutional Neural
Networks: A Core-Set Approach", algorithm 1) uses only embeddings (N, D). It repeatedly chooses the row that is farthest
from all chosen rows, so that each row is near to a chosen row:

    next = argmax_i min_{j chosen} |x_i - x_j|

The largest remaining distance is at most twice the smallest possible for this number of rows (Gonzalez 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,); higher is more uncertain."""
    return 1 - probabilities.max(axis=1)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,): the second probability minus the first."""
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return second - first


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,), in nats."""
    return -(probabilities * np.log(np.maximum(probabilities, np.finfo(float).tiny))).sum(axis=1)


UNCERTAINTY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "least-confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
}
QUERY_RULES = ("random", *UNCERTAINTY, "k-centres")


def most_uncertain(scores: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """Indices of the ``count`` highest of (N,) scores, the highest first; equal scores in random order."""
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")][:count]


def k_centres(embeddings: np.ndarray, labelled: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` rows of (N, D) that, with the ``labelled`` rows, cover all rows, in order of choice.

    If no row is labelled, the first choice is the row nearest to the mean.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    distance = np.full(len(x), np.inf)  # squared, to the nearest centre; -1 for a centre
    chosen: list[int] = []
    for row in labelled:
        _add_centre(x, int(row), distance)
    while len(chosen) < min(count, len(x) - len(labelled)):
        first = not chosen and not len(labelled)
        chosen.append(int(np.square(x - x.mean(axis=0)).sum(axis=1).argmin() if first else distance.argmax()))
        _add_centre(x, chosen[-1], distance)
    return np.array(chosen, dtype=np.int64)


def _add_centre(x: np.ndarray, row: int, distance: np.ndarray) -> None:
    """Make a row a centre and update the distances (N,)."""
    np.minimum(distance, np.square(x - x[row]).sum(axis=1), out=distance)
    distance[row] = -1  # it is never chosen again, even if another row has the same embedding


def wrong_labels(labels: np.ndarray, classes: int, fraction: float, seed: int | Sequence[int]) -> dict[int, int]:
    """Simulate an annotator with errors: row -> wrong class, for this ``fraction`` of the labels (N,).

    All wrong classes are equally probable. The same seed gives errors in the same rows; a larger fraction adds rows.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))
    shift = rng.integers(1, classes, size=len(labels)) if classes > 1 else np.zeros(len(labels), np.int64)
    return {int(row): int((labels[row] + shift[row]) % classes) for row in rows[: round(fraction * len(labels))]}
