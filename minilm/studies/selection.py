"""Which texts to label next: rules of active learning.

A model that was trained on the labelled rows gives each of the N rows of the pool probabilities p (C,). How unsure it
is, by three measures (Settles 2009, "Active Learning Literature Survey", section 3.1):

    least confidence    1 - p_1                      p_1 >= p_2 >= ... of one row
    margin              p_2 - p_1
    entropy             - sum_c p_c log p_c

The rows it is least sure of are chosen, however like each other they are; with two classes all three choose the same.
**k-centres** (Sener and Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
algorithm 1) looks at embeddings (N, D) alone, and chooses again and again the row that is farthest from all chosen
ones, so that no row stays far from each of them:

    next = argmax_i min_{j chosen} |x_i - x_j|

The farthest distance that is left is at most twice the least one possible for as many rows (Gonzalez 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,), the higher the less sure."""
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
RULES = ("random", *UNCERTAINTY, "k-centres")


def most_uncertain(scores: np.ndarray, count: int, seed: int | Sequence[int]) -> np.ndarray:
    """The numbers of the ``count`` highest of (N,) scores, the highest first; equal ones in random order."""
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")][:count]


def k_centres(embeddings: np.ndarray, labelled: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """The numbers of ``count`` rows of (N, D), in the order chosen, that cover them best beside the ``labelled`` ones.

    Where none is labelled, the first is the row nearest to the mean.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    distance = np.full(len(x), np.inf)  # squared, to the nearest centre; -1: is one
    chosen: list[int] = []
    for row in labelled:
        _to_centre(x, int(row), distance)
    while len(chosen) < min(count, len(x) - len(labelled)):
        first = not chosen and not len(labelled)
        chosen.append(int(np.square(x - x.mean(axis=0)).sum(axis=1).argmin() if first else distance.argmax()))
        _to_centre(x, chosen[-1], distance)
    return np.array(chosen, dtype=np.int64)


def _to_centre(x: np.ndarray, row: int, distance: np.ndarray) -> None:
    """Make a row a centre, and bring the distances (N,) up to date."""
    np.minimum(distance, np.square(x - x[row]).sum(axis=1), out=distance)
    distance[row] = -1  # never again, though another may lie in the same place


def wrong_labels(labels: np.ndarray, classes: int, share: float, seed: int | Sequence[int]) -> dict[int, int]:
    """Which of the labels (N,) an annotator gets wrong, and what they say instead: row -> class, of ``share`` of them.

    Every other class is as likely. The same seed errs in the same rows, and with a larger share in these and more.
    """
    chance = np.random.default_rng(seed)
    rows = chance.permutation(len(labels))
    off = chance.integers(1, classes, size=len(labels)) if classes > 1 else np.zeros(len(labels), np.int64)
    return {int(row): int((labels[row] + off[row]) % classes) for row in rows[: round(share * len(labels))]}
