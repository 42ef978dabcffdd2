"""Metrics of scores, against SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error

from minilm.evaluation.regression import score_metrics

NUMBERS = st.integers(-5, 5).map(lambda n: n / 4)  # few of them, so that many are equal


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_the_metrics_are_those_of_scipy_and_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    t, s = np.array(pairs).T
    found = score_metrics(t, s)
    assert found.texts == len(pairs)
    assert found.mean_squared_error == pytest.approx(mean_squared_error(t, s))
    assert found.mean_absolute_error == pytest.approx(mean_absolute_error(t, s))
    if len(set(t)) > 1 and len(set(s)) > 1:
        assert found.pearson == pytest.approx(stats.pearsonr(t, s)[0], abs=1e-9)
        assert found.spearman == pytest.approx(stats.spearmanr(t, s)[0], abs=1e-9)
    else:
        assert found.pearson == found.spearman == 0.0


def test_an_order_alone_is_right_by_spearman() -> None:
    found = score_metrics(np.array([0.0, 1.0, 2.0]), np.array([-300.0, 0.0, 0.001]))
    assert found.spearman == 1.0 and 0 < found.pearson < 1
    assert score_metrics(np.array([1e-200, 2e-200]), np.array([1e100, 3e100])).pearson == pytest.approx(1.0)


def test_nothing_and_unequal_numbers_are_refused() -> None:
    for t, s in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="values and scores must have one shape"):
            score_metrics(np.array(t), np.array(s))
