"""From scores to probabilities and labels, and what validation chooses for that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.config import TrainSection
from minilm.errors import UserError
from minilm.evaluation.calibration import fit_temperature
from minilm.evaluation.decisions import Decision, fit_decision, plain_decision
from minilm.evaluation.metrics import choose_threshold, log_softmax, multilabel_metrics, sigmoid

RNG = np.random.default_rng(0)
SEEDS = st.integers(0, 2**32 - 1)


def settings_of(**keys: object) -> TrainSection:
    return replace(TrainSection(epochs=1, lr=0.1), **keys)  # type: ignore[arg-type]


def drawn(seed: int, several: bool, texts: int = 40, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores that know something of them."""
    rng = np.random.default_rng(seed)
    if several:
        labels = (rng.random((texts, classes)) < 0.3).astype(np.int64)
        return labels, (rng.normal(size=(texts, classes)) * 2 + labels).astype(np.float32)
    labels = rng.integers(classes, size=texts)
    return labels, (rng.normal(size=(texts, classes)) * 2 + np.eye(classes)[labels]).astype(np.float32)


def test_probabilities_are_of_the_scores_divided_by_the_temperature() -> None:
    z = RNG.normal(size=(5, 3))
    single, several = np.array([2.0]), np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(Decision("single", temperature=single).probabilities(z), np.exp(log_softmax(z / 2)))
    np.testing.assert_allclose(Decision("multi", temperature=several).probabilities(z), sigmoid(z / several))


@given(seed=SEEDS, several=st.booleans())
@settings(max_examples=40, deadline=None)
def test_labels_are_the_same_without_the_temperature(seed: int, several: bool) -> None:
    labels, scores = drawn(seed, several, classes=2)
    decision = fit_decision(settings_of(decision_threshold="validation-per-label"), labels, scores)
    raw = decision.without_temperature()
    assert raw.temperature is None and decision.temperature is not None
    new = np.random.default_rng(seed + 1).normal(size=(200, 2)) * 3
    np.testing.assert_array_equal(
        decision.choose(decision.probabilities(new)), raw.choose(raw.probabilities(new))
    )


@pytest.mark.parametrize("asked", ["validation", "validation-per-label", 0.3])
def test_few_texts_choose_a_threshold_but_no_temperature(asked: str | float) -> None:
    labels, scores = drawn(0, several=True, texts=30)
    keys, few = settings_of(decision_threshold=asked), (labels[:29], scores[:29])
    assert fit_decision(keys, labels, scores).temperature is not None
    decision = fit_decision(keys, *few)
    assert decision.temperature is None and fit_decision(settings_of(), *drawn(0, False, 29)).temperature is None
    if asked == 0.3:
        assert decision.threshold == 0.3  # of the probabilities that are shown
        return
    fitted = replace(plain_decision(labels), temperature=fit_temperature(*few))
    if asked == "validation":
        threshold: object = choose_threshold(few[0], fitted.calibrated(few[1]), "macro_f1")
        fitted = replace(fitted, threshold=threshold)
        chosen = fitted.choose(fitted.probabilities(few[1]))
        np.testing.assert_array_equal(decision.choose(decision.probabilities(few[1])), chosen)


def test_a_model_that_has_learnt_nothing_is_not_sure_by_six_texts() -> None:
    rng = np.random.default_rng(0)
    labels, scores = np.array([0, 1, 0, 1, 0, 1]), 0.01 * rng.normal(size=(6, 2))
    scores[np.arange(6), labels] = scores.max(axis=1) + 0.001  # all right, by chance
    assert fit_temperature(labels, scores) < 0.1
    decision = fit_decision(settings_of(), labels, scores)
    assert decision.probabilities(scores).max() < 0.51


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_thresholds_of_each_label_are_no_worse_on_validation_than_one_half(seed: int) -> None:
    labels, scores = drawn(seed, several=True)
    for metric, key in (("f1", "macro_f1"), ("jaccard", "jaccard")):
        keys = settings_of(decision_threshold="validation-per-label", threshold_metric=metric)
        decision = fit_decision(keys, labels, scores)
        assert isinstance(decision.threshold, np.ndarray) and decision.threshold.shape == (3,)
        given_labels = decision.choose(decision.probabilities(scores))
        chosen = multilabel_metrics(labels, scores, given=given_labels)[key]
        assert chosen >= multilabel_metrics(labels, scores)[key] - 1e-12


def test_two_classes_have_one_threshold_that_of_the_second() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    scores = np.stack([np.zeros(100), np.where(labels == 1, -1.0, -3.0) + RNG.normal(size=100) * 0.1], axis=1)
    decision = fit_decision(settings_of(decision_threshold="validation-per-label"), labels, scores)
    assert isinstance(decision.threshold, float) and decision.threshold < 0.5 and decision.has_threshold
    p = decision.probabilities(scores)
    np.testing.assert_array_equal(decision.choose(p), labels)
    np.testing.assert_allclose(decision.confidence(p), np.where(labels == 1, p[:, 1], p[:, 0]))


@pytest.mark.parametrize("metric", ["loss", "roc_auc", "average_precision"])
def test_a_metric_without_a_threshold_leaves_it_to_micro_f1(metric: str) -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    scores = np.where(labels == 1, -2.0, -4.0)
    decision = fit_decision(settings_of(decision_threshold="validation", best=metric), labels, scores, calibrate=False)
    np.testing.assert_array_equal(decision.choose(decision.probabilities(scores)), labels)


def test_a_plain_decision_takes_the_likeliest_or_those_from_one_half_on() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.5, 0.5, 0.0]])
    assert plain_decision(np.zeros(2, np.int64)).choose(p).tolist() == [1, 0]
    assert plain_decision(np.zeros((2, 3), np.int64)).choose(p).tolist() == [[0, 1, 0], [1, 1, 0]]


def test_unsure_is_what_lies_below_the_probability() -> None:
    p = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert Decision("single").is_unsure(p).tolist() == [False, False]
    assert Decision("single").with_unsure_below(0.65).is_unsure(p).tolist() == [True, False]


def test_a_wish_that_has_no_meaning_is_refused() -> None:
    with pytest.raises(UserError, match="with 3 classes and one label"):
        Decision("single").with_threshold(0.3, 3)
    with pytest.raises(UserError, match=r"--threshold must be a number from 0 to 1, got 1\.5"):
        Decision("multi").with_threshold(1.5, 3)
    with pytest.raises(UserError, match="--unsure-below must be a number from 0 to 1, got nan"):
        Decision("single").with_unsure_below(float("nan"))
    with pytest.raises(UserError, match="needs a model with one label per text"):
        Decision("multi").with_unsure_below(0.5)
    with pytest.raises(UserError, match="gives a score"):
        Decision("score").with_threshold(0.5, 1)
