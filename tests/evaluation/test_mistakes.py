"""Which mistakes are worth reading."""

from __future__ import annotations

import numpy as np

from minilm.evaluation.confusions import Confused
from minilm.evaluation.mistakes import surest_mistakes, texts_of_pair, wrongness


def test_with_one_label_it_is_the_probability_of_what_is_predicted() -> None:
    labels = np.array([0, 1, 1])
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]])
    predicted = np.array([0, 0, 0])
    assert wrongness(labels, predicted, p).tolist() == [0.0, 0.6, 0.8]
    assert surest_mistakes(labels, predicted, p, 5) == [2, 1]
    assert surest_mistakes(labels, predicted, p, 1) == [2]
    assert texts_of_pair(Confused(1, 0, 2), labels, predicted, p, 3) == [2, 1]
    assert texts_of_pair(Confused(0, 1, 0), labels, predicted, p, 3) == []


def test_with_several_labels_it_is_the_worst_label_that_is_wrong() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1]])
    p = np.array([[0.1, 0.4], [0.2, 0.7], [0.9, 0.3]])
    predicted = (p >= 0.5).astype(int)
    assert wrongness(labels, predicted, p).tolist() == [0.9, 0.0, 0.7]
    assert surest_mistakes(labels, predicted, p, 5) == [0, 2]
