"""Whether a classifier of several labels a text tells texts apart at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NEARLY_ALL = 0.95  # so many texts with one answer are worth a word ...
CLEARLY_FEWER = 0.9  # ... if no answer is right for so many of them as that


def same_answer(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], split: str = "test") -> str:
    """What to say if nearly every text gets the same labels, though they have others; empty if not.

    labels, predicted: (N, C) of 0 and 1.
    """
    share, answer = _most_common(predicted)
    if share < NEARLY_ALL or _most_common(labels)[0] > CLEARLY_FEWER * share:
        return ""
    given = ", ".join(names[i] for i in np.flatnonzero(answer)[:5].tolist()) or "none"
    return (
        f"{share:.0%} of the {split} texts get the same labels ({given}): the classifier hardly tells texts apart; let "
        "a threshold be chosen on the validation texts, train longer, or raise train.lr"
    )


def _most_common(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The row that comes most often among (N, C), and its share."""
    found, counts = np.unique(rows, axis=0, return_counts=True)
    return float(counts.max() / len(rows)), found[counts.argmax()]
