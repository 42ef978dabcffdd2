"""Combine the scores of a text's windows into the scores of the text (``data.long_texts = "windows"``).

If the n windows of a text have the class probabilities p_w, the text has

    mean    p = 1/n sum_w p_w
    max     p ~ max_w p_w                 the maximum for each class; with one label per text, scaled to sum to 1

The result is in the form of scores (logits): log p with one label per text, log p/(1 - p) with several. If a model
gives a score and not labels, the scores themselves are combined. A text with one window keeps the scores of the model.
"""

from __future__ import annotations

import numpy as np

from minilm.data.long_texts import Windows
from minilm.evaluation.decisions import Kind
from minilm.evaluation.metrics import log_softmax


def scores_of_texts(scores: np.ndarray, windows: Windows, kind: Kind) -> np.ndarray:
    """The scores of N texts, (N, C) float32, from those of their M windows (M, C)."""
    starts = windows.starts[:-1]
    z = np.asarray(scores, dtype=np.float64)
    if windows.scores == "max":
        combined = np.maximum.reduceat(log_softmax(z) if kind == "single" else z, starts)
    elif kind == "score":
        combined = np.add.reduceat(z, starts) / windows.counts[:, None]
    elif kind == "multi":  # the 1/n of p and of 1 - p cancel each other
        yes, no = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        combined = np.logaddexp.reduceat(yes, starts) - np.logaddexp.reduceat(no, starts)
    else:
        combined = np.logaddexp.reduceat(log_softmax(z), starts) - np.log(windows.counts)[:, None]
    alone = windows.counts == 1
    combined[alone] = scores[starts[alone]]
    return combined.astype(np.float32)


def vectors_of_texts(vectors: np.ndarray, windows: Windows) -> np.ndarray:
    """The mean (N, D) of the vectors (M, D) of each text's windows."""
    return np.add.reduceat(vectors, windows.starts[:-1]) / windows.counts[:, None].astype(vectors.dtype)
