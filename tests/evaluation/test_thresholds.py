"""Chosen thresholds are the best of all there are, found by trying them all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from minilm.evaluation.metrics import multilabel_metrics
from minilm.evaluation.thresholds import (
    accuracy,
    best_threshold,
    f1,
    f1_thresholds,
    find_cuts,
    jaccard,
    jaccard_thresholds,
    macro_f1,
)

REFERENCES = {
    f1: lambda y, p: reference.f1_score(y, p, zero_division=0),
    jaccard: lambda y, p: reference.jaccard_score(y, p, zero_division=0),
    macro_f1: lambda y, p: reference.f1_score(y, p, labels=[0, 1], average="macro", zero_division=0),
    accuracy: reference.accuracy_score,
}
probability = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))


@st.composite
def one_label(draw):
    pairs = draw(st.lists(st.tuples(st.integers(0, 1), probability), min_size=1, max_size=15))
    return np.array([y for y, _ in pairs]), np.array([p for _, p in pairs])


@st.composite
def several_labels(draw):
    rows, classes = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    cells = st.lists(st.integers(0, 1), min_size=rows * classes, max_size=rows * classes)
    numbers = st.lists(probability, min_size=rows * classes, max_size=rows * classes)
    return np.array(draw(cells)).reshape(rows, classes), np.array(draw(numbers)).reshape(rows, classes)


def all_thresholds(p: np.ndarray) -> list[float]:
    """One for each way to cut: every probability, and one above them all if there is one."""
    return [*np.unique(p), *([1.0] if p.max() < 1 else [])]


def jaccard_at(labels: np.ndarray, p: np.ndarray, thresholds: np.ndarray) -> float:
    chosen_or_not = np.where(p >= thresholds, 1.0, -1.0)
    return multilabel_metrics(labels, chosen_or_not)["jaccard"]


@pytest.mark.parametrize("criterion", REFERENCES)
@settings(max_examples=25)
@given(one_label())
def test_no_threshold_beats_the_chosen_one_and_its_value_is_scikit_learns(criterion, case):
    truth, p = case
    found = best_threshold(truth, p, criterion)
    assert 0 <= found.threshold <= 1
    score = REFERENCES[criterion]
    assert found.value == pytest.approx(score(truth, (p >= found.threshold).astype(int)), abs=1e-12)
    assert found.value == pytest.approx(max(score(truth, (p >= t).astype(int)) for t in all_thresholds(p)), abs=1e-12)


@given(one_label())
def test_every_cut_is_made_by_its_threshold(case):
    _, p = case
    cuts = find_cuts(p)
    assert [(p >= t).sum() for t in cuts.threshold] == cuts.chosen.tolist()
    assert sorted({int((p >= t).sum()) for t in all_thresholds(p)}) == cuts.chosen.tolist()


def test_probabilities_next_to_each_other_are_cut_apart():
    p = np.array([0.3, np.nextafter(0.3, 1)])
    assert best_threshold(np.array([0, 1]), p).threshold == p[1]


def test_the_threshold_is_in_the_middle_of_the_gap_and_a_half_if_that_is_in_it():
    truth = np.array([0, 0, 1, 1])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.3, 0.9])).threshold == pytest.approx(0.25)
    assert best_threshold(truth, np.array([0.1, 0.2, 0.6, 0.9])).threshold == 0.5
    assert best_threshold(truth, np.array([0.7, 0.8, 0.9, 1.0])).threshold == pytest.approx(0.85)


@pytest.mark.parametrize("p", [[0.1, 0.2, 0.9], [0.1, 0.1, 0.1], [0.0, 1.0, 1.0]])
def test_a_label_that_no_text_has_keeps_a_half(p):
    assert best_threshold(np.zeros(3, int), np.array(p)) == (0.5, 0.0)


def test_a_rare_label_gets_a_low_threshold_for_f1_and_not_for_accuracy():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 6, 20_000)  # calibrated by construction
    truth = (rng.uniform(size=len(p)) < p).astype(int)
    best = best_threshold(truth, p)
    assert best.threshold == pytest.approx(best.value / 2, abs=0.03)  # Lipton et al., theorem 1
    assert best_threshold(truth, p, accuracy).threshold == pytest.approx(0.5, abs=0.1)


@settings(max_examples=40)
@given(several_labels())
def test_thresholds_of_macro_f1_are_the_best_of_all_combinations(case):
    labels, p = case
    chosen = (p >= f1_thresholds(labels, p)).astype(int)
    found = multilabel_metrics(labels, np.where(chosen, 1.0, -1.0))["macro_f1"]
    combinations = itertools.product(*(all_thresholds(column) for column in p.T))
    best = max(multilabel_metrics(labels, np.where(p >= t, 1.0, -1.0))["macro_f1"] for t in combinations)
    assert found == pytest.approx(best, abs=1e-12)


@settings(max_examples=60)
@given(several_labels())
def test_no_threshold_of_one_label_betters_the_jaccard_index_and_it_is_no_worse_than_a_half(case):
    labels, p = case
    found = jaccard_thresholds(labels, p)
    value = jaccard_at(labels, p, found)
    for c in range(labels.shape[1]):
        for t in all_thresholds(p[:, c]):
            other = found.copy()
            other[c] = t
            assert jaccard_at(labels, p, other) <= value + 1e-9
    for start in (np.full(labels.shape[1], 0.5), f1_thresholds(labels, p)):
        assert jaccard_at(labels, p, start) <= value + 1e-9


def test_thresholds_of_labels_that_need_different_ones_beat_any_common_one():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (200, 3))
    p = (0.2 + 0.3 * np.arange(3)) + np.where(labels, 0.04, -0.04) + rng.normal(scale=0.02, size=labels.shape)
    common = max(jaccard_at(labels, p, np.full(3, t)) for t in np.linspace(0, 1, 101))
    assert jaccard_at(labels, p, jaccard_thresholds(labels, p)) > common + 0.2


@pytest.mark.parametrize(
    ("truth", "p"), [([], []), ([1], [1.5]), ([1], [float("nan")]), ([1, 0], [0.5]), ([0], [-0.1])]
)
def test_what_is_no_probability_and_no_text_is_refused(truth, p):
    with pytest.raises(ValueError):
        best_threshold(np.array(truth, int), np.array(p))
