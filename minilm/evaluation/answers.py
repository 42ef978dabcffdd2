"""Check whether a multi-label classifier gives nearly every text the same labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEARLY_ALL = 0.95  # warn if at least this fraction of the texts get the same labels ...
CLEARLY_FEWER = 0.9  # ... and at most this part of that fraction have the same true labels


def same_answer(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], split: str = "test") -> str:
    """A warning if nearly all texts get the same labels although their true labels differ; otherwise empty.

    labels, predicted: (N, C) of 0 and 1.
    """
    share, answer = _most_common(predicted)
    if share < NEARLY_ALL or _most_common(labels)[0] > CLEARLY_FEWER * share:
        return ""
    given = ", ".join(names[i] for i in np.flatnonzero(answer)[:5].tolist()) or "none"
    return (
        f"{share:.0%} of the {split} texts get the same labels ({given}), so the classifier hardly separates them; "
        'choose the threshold on the validation texts (train.decision_threshold="validation"), train longer, or raise '
        "train.lr"
    )


def _most_common(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The most frequent row of (N, C), and the fraction of rows that are equal to it."""
    found, counts = np.unique(rows, axis=0, return_counts=True)
    return float(counts.max() / len(rows)), found[counts.argmax()]
