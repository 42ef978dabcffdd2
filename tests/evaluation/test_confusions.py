"""Totals and confused pairs are those of the confusion matrix, without making one."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minilm.evaluation.confusions import class_totals, most_confused
from minilm.evaluation.metrics import confusion_matrix

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1)


@given(PAIRS)
def test_totals_and_pairs_are_those_of_the_matrix(pairs):
    labels, predicted = np.array(pairs).T
    matrix = confusion_matrix(labels, predicted, 6)
    support, given_to, right = class_totals(labels, predicted, 6)
    assert (support == matrix.sum(axis=1)).all() and (given_to == matrix.sum(axis=0)).all()
    assert (right == matrix.diagonal()).all()
    found = most_confused(labels, predicted, 100)
    assert all(matrix[pair.truth, pair.predicted] == pair.texts > 0 for pair in found)
    assert sum(pair.texts for pair in found) == matrix.sum() - matrix.trace()
    assert [-pair.texts for pair in found] == sorted(-pair.texts for pair in found)
    assert most_confused(labels, predicted, 2) == found[:2]


def test_memory_is_not_quadratic_in_the_labels():
    labels, predicted = np.random.default_rng(0).integers(50_000, size=(2, 1000))
    tracemalloc.start()
    class_totals(labels, predicted, 50_000), most_confused(labels, predicted, 50)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
