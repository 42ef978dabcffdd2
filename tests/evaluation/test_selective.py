"""Coverage and precision are what answering from a threshold on gives, and no lower one keeps the precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import UserError
from minilm.evaluation.selective import coverage_curve, threshold_for_precision

answers = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.4, 0.6, 0.8]), st.floats(0, 1)), st.booleans()), min_size=1, max_size=30
)


@given(answers)
def test_every_point_of_the_curve_is_what_its_threshold_gives(pairs):
    confidence, right = map(np.array, zip(*pairs, strict=True))
    curve = coverage_curve(confidence, right)
    for t, coverage, accuracy in zip(curve.threshold, curve.coverage, curve.accuracy, strict=True):
        answered = confidence >= t
        assert coverage == pytest.approx(answered.mean()) and accuracy == pytest.approx(right[answered].mean())
    assert curve.threshold.tolist() == sorted(set(confidence.tolist()), reverse=True)
    assert curve.coverage[-1] == 1 and curve.accuracy[-1] == pytest.approx(right.mean())
    assert curve.accuracy_at(1.0) == curve.accuracy[-1] and curve.accuracy_at(1e-9) == curve.accuracy[0]


@given(answers, st.floats(0.01, 1))
def test_the_lowest_threshold_that_keeps_the_precision_is_found(pairs, precision):
    confidence, right = map(np.array, zip(*pairs, strict=True))
    found = threshold_for_precision(confidence, right, precision)
    precisions = {t: right[confidence >= t].mean() for t in confidence}
    keep = [t for t, p in precisions.items() if p >= precision - 1e-12]
    assert found.reached == bool(keep)
    if keep:
        assert found.threshold == min(keep)
    else:
        assert found.precision == max(precisions.values())
        assert found.threshold == min(t for t, p in precisions.items() if p == found.precision)
    answered = confidence >= found.threshold
    assert (found.answered, found.coverage) == (answered.sum(), pytest.approx(answered.mean()))
    assert found.precision == pytest.approx(right[answered].mean())


def test_nineteen_of_twenty_are_95_percent():
    found = threshold_for_precision(np.linspace(0.5, 1, 20), np.arange(20) != 3, 0.95)
    assert (found.coverage, found.reached) == (1.0, True)


def test_a_precision_that_nothing_keeps_gives_the_best_there_is_and_says_so():
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, False])
    found = threshold_for_precision(confidence, right, 0.9)
    assert (found.threshold, found.precision, found.coverage, found.reached) == (0.8, 0.5, 0.5, False)
    found = threshold_for_precision(confidence, np.zeros(4, bool), 0.9)
    assert (found.precision, found.coverage, found.reached) == (0.0, 1.0, False)


def test_the_accuracy_at_a_coverage_is_that_of_the_surest_texts():
    curve = coverage_curve(np.linspace(1, 0.1, 10), np.arange(10) < 8)
    assert curve.accuracy_at(0.8) == 1.0 and curve.accuracy_at(0.81) == pytest.approx(8 / 9)


@pytest.mark.parametrize("precision", [0, -1, 1.01, float("nan")])
def test_a_precision_out_of_range_is_refused(precision):
    with pytest.raises(UserError, match="must be a number above 0 and at most 1, got"):
        threshold_for_precision(np.array([0.5]), np.array([True]), precision)


def test_no_answer_is_refused():
    with pytest.raises(ValueError, match="N > 0"):
        coverage_curve(np.zeros(0), np.zeros(0, bool))
