"""A text's scores from its windows': the probabilities are combined, and a text of one window keeps its scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from minilm.data.long_texts import Windows
from minilm.evaluation.metrics import log_softmax, sigmoid
from minilm.evaluation.windows import scores_of_texts, vectors_of_texts

STARTS = np.array([0, 1, 4, 6])
SCORES = (np.random.default_rng(0).normal(size=(6, 4)) * 5).astype(np.float32)


def probabilities(scores: np.ndarray, multi_label: bool) -> np.ndarray:
    return sigmoid(scores) if multi_label else np.exp(log_softmax(scores))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_probabilities_are_combined_text_by_text(how, multi_label):
    found = scores_of_texts(SCORES, Windows(STARTS, how), "multi" if multi_label else "single")
    p = probabilities(SCORES, multi_label)
    expected = np.stack([getattr(p[a:b], how)(axis=0) for a, b in pairwise(STARTS)])
    if not multi_label:
        expected /= expected.sum(axis=1, keepdims=True)
    assert found.dtype == np.float32 and np.abs(probabilities(found, multi_label) - expected).max() < 1e-6
    assert (found[0] == SCORES[0]).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_beyond_what_probabilities_can_hold_stay_apart(multi_label):
    scores = np.array([[200.0, -200.0], [210.0, -210.0]], dtype=np.float32)
    found = scores_of_texts(scores, Windows(np.array([0, 2]), "mean"), "multi" if multi_label else "single")
    assert np.isfinite(found).all() and found[0, 0] > found[0, 1] + 100


def test_vectors_are_averaged():
    assert np.allclose(vectors_of_texts(SCORES, Windows(STARTS, "mean"))[1], SCORES[1:4].mean(axis=0))
