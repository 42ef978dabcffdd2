"""ROC AUC and average precision equal scikit-learn's, with ties too; where it has none, ours is as documented."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import label_binarize

from minilm.evaluation.metrics import is_better
from minilm.evaluation.ranking import average_precision, average_precision_per_label, roc_auc, roc_auc_per_label

few = settings(max_examples=40)
pytestmark = pytest.mark.filterwarnings("ignore:Only one class is present", "ignore:No positive class found")


@st.composite
def several_labels(draw):
    """Labels (N, C) of any kind with scores of which many are equal."""
    rows, classes = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    size = rows * classes
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    some = st.one_of(st.integers(-2, 2).map(float), st.floats(-1, 1))
    scores = draw(st.lists(some, min_size=size, max_size=size))
    return np.array(labels).reshape(rows, classes), np.array(scores).reshape(rows, classes)


@few
@given(several_labels())
def test_every_label_has_scikit_learns_values_on_any_input(case):
    labels, scores = case
    for c in range(labels.shape[1]):
        expected = roc_auc_score(labels[:, c], scores[:, c])  # NaN where all texts or none have the label
        assert roc_auc_per_label(labels, scores)[c] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        expected = average_precision_score(labels[:, c], scores[:, c])
        assert average_precision_per_label(labels, scores)[c] == pytest.approx(expected, abs=1e-12)


@few
@given(several_labels())
def test_averages_over_several_labels_are_scikit_learns(case):
    labels, scores = case
    expected = average_precision_score(labels, scores, average="macro")
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    if labels.shape[1] > 1:  # scikit-learn takes one column for one binary label a row
        expected = roc_auc_score(labels, scores, average="macro")
        if not math.isnan(expected):
            assert roc_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@few
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 40))
def test_averages_over_classes_are_scikit_learns(seed, classes, more):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, more)])
    p = rng.dirichlet(np.ones(classes), len(labels)).round(2)  # rounded: ties
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    truth = np.stack([labels == c for c in range(classes)], axis=1)
    expected = roc_auc_score(labels, p, multi_class="ovr") if classes > 2 else roc_auc_score(labels, p[:, 1])
    assert roc_auc(labels, p) == pytest.approx(expected, abs=1e-12)
    assert average_precision(labels, p) == pytest.approx(average_precision_score(truth, p), abs=1e-12)
    if classes > 2:
        assert np.array_equal(truth, label_binarize(labels, classes=range(classes)))
        assert average_precision(labels, p) == pytest.approx(average_precision_score(labels, p), abs=1e-12)


def test_labels_without_a_pair_to_compare_are_left_out_of_the_average_where_scikit_learn_has_none():
    labels, scores = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.2]])
    assert math.isnan(roc_auc_score(labels, scores))
    np.testing.assert_array_equal(roc_auc_per_label(labels, scores), [np.nan, 1.0, np.nan])
    assert roc_auc(labels, scores) == 1.0
    assert average_precision(labels, scores) == average_precision_score(labels, scores) == pytest.approx(2 / 3)


def test_texts_of_one_class_only_have_no_roc_auc_and_nan_is_no_better_than_nothing():
    labels, p = np.zeros(3, int), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert math.isnan(roc_auc(labels, p)) and not is_better("accuracy", roc_auc(labels, p), None)
    assert average_precision(labels, p) == 1.0  # the other class is left out


def test_equal_scores_are_a_guess_whatever_the_order_of_the_texts():
    for labels in ([0, 0, 0, 1], [1, 0, 0, 0]):
        p = np.full((4, 2), 0.5)
        assert roc_auc(np.array(labels), p) == 0.5
        assert average_precision_per_label(np.array(labels), p).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (np.zeros(0, int), np.zeros((0, 2))),
        (np.zeros(3, int), np.zeros((2, 2))),
        (np.zeros((2, 3), int), np.zeros((2, 2))),
        (np.zeros(2, int), np.array([[0.0, np.nan], [1.0, 0.0]])),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels, scores):
    for metric in (roc_auc, average_precision):
        with pytest.raises(ValueError):
            metric(labels, scores)


def test_two_hundred_thousand_texts_are_ranked_by_sorting_and_their_pairs_do_not_overflow():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200_000), rng.normal(size=(200_000, 2))
    found = roc_auc(labels, scores), average_precision(labels, scores)
    assert found == pytest.approx((0.5, 0.5), abs=0.01)
