"""Co-occurrence and lift are their definitions, counted text by text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.evaluation.cooccurrence import co_occurrence


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10_000))
def test_counts_and_lift_are_their_definitions(rows, classes, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 2, (2, rows, classes))
    for second in (truth, predicted):
        found = co_occurrence(truth, None if second is truth else second)
        for a in range(classes):
            for b in range(classes):
                both = sum(t[a] and p[b] for t, p in zip(truth, second, strict=True))
                assert found.counts[a, b] == both
                chance = truth[:, a].mean() * second[:, b].mean()
                expected = both / rows / chance if chance else np.nan
                assert found.lift[a, b] == pytest.approx(expected, nan_ok=True)


def test_the_diagonal_is_each_labels_support_and_the_matrix_is_symmetric():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    found = co_occurrence(labels)
    assert found.counts.tolist() == [[3, 2, 0], [2, 2, 0], [0, 0, 0]]
    assert found.lift[0, 1] == found.lift[1, 0] == pytest.approx(2 * 4 / (3 * 2))
    assert np.isnan(found.lift[2]).all()


def test_many_texts_do_not_overflow_a_small_integer():
    assert co_occurrence(np.ones((300, 1), np.uint8)).counts.tolist() == [[300]]


@pytest.mark.parametrize("shape", [(0, 2), (3,)])
def test_what_is_no_matrix_of_labels_is_refused(shape):
    with pytest.raises(ValueError, match="N > 0"):
        co_occurrence(np.zeros(shape, int))
