"""Calibration equals its plain definitions and SciPy's minimum, and degenerate inputs have an answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss, log_loss

from minilm.evaluation.calibration import (
    LEAST,
    MOST,
    answers,
    brier_score,
    calibration_error,
    fit_temperature,
    reliability,
    scale_probabilities,
)


def overconfident(rows: int, classes: int, seed: int, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and the logits factor * z, whose best temperature is therefore near the factor."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=1.5, size=(rows, classes))
    labels = (softmax(z, axis=1).cumsum(axis=1) < rng.uniform(size=(rows, 1))).sum(axis=1)
    return labels, factor * z


def log_loss_at(temperature: float, labels: np.ndarray, logits: np.ndarray) -> float:
    return log_loss(labels, softmax(logits / temperature, axis=1), labels=range(logits.shape[1]))


# --- Reliability ---


def plain_calibration_error(confidence: list[float], right: list[bool], bins: int) -> float:
    """The definition, for confidences that all differ."""
    rows = sorted(zip(confidence, right, strict=True))
    error = 0.0
    for m in range(bins):
        inside = [row for rank, row in enumerate(rows) if rank * bins // len(rows) == m]
        if inside:
            conf = sum(p for p, _ in inside) / len(inside)
            acc = sum(r for _, r in inside) / len(inside)
            error += len(inside) / len(rows) * abs(acc - conf)
    return error


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60, unique_by=lambda answer: answer[0]),
    st.integers(1, 20),
)
def test_the_calibration_error_is_its_definition(pairs, bins):
    confidence, right = map(list, zip(*pairs, strict=True))
    found = reliability(np.array(confidence), np.array(right), bins)
    assert found.error == pytest.approx(plain_calibration_error(confidence, right, bins), abs=1e-12)
    assert found.count.sum() == len(pairs) and found.count.max() - found.count.min() <= 1
    assert (np.diff(found.confidence) > 0).all()
    assert found.count @ found.accuracy == pytest.approx(sum(right))


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.9]), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_the_order_of_the_answers_does_not_matter_although_confidences_are_equal(pairs, rng):
    first = reliability(*map(np.array, zip(*pairs, strict=True)), bins=5)
    rng.shuffle(pairs)
    second = reliability(*map(np.array, zip(*pairs, strict=True)), bins=5)
    assert first.error == pytest.approx(second.error, abs=1e-12)
    assert first.count.tolist() == second.count.tolist()


def test_an_answer_with_one_label_is_the_likeliest_class_and_with_several_every_label():
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
    confidence, right = answers(np.array([0, 0]), probabilities)
    assert (confidence.tolist(), right.tolist()) == ([0.7, 0.6], [True, False])
    confidence, right = answers(np.array([[1, 0], [0, 0]]), probabilities)
    assert (confidence.tolist(), right.tolist()) == ([0.7, 0.3, 0.4, 0.6], [True, False, False, False])


def test_who_says_nine_tenths_and_is_right_nine_times_in_ten_is_calibrated():
    right = np.arange(100) % 10 != 0
    assert reliability(np.full(100, 0.9), right).error == pytest.approx(0)
    assert reliability(np.full(100, 0.9), ~right).error == pytest.approx(0.8)


def test_no_answer_is_refused():
    with pytest.raises(ValueError, match="N > 0"):
        reliability(np.zeros(0), np.zeros(0, bool))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_brier_score_is_scikit_learns(classes):
    labels, logits = overconfident(50, classes, seed=0)
    p = softmax(logits, axis=1)
    expected = brier_score_loss(labels, p, labels=range(classes), scale_by_half=False)
    assert brier_score(labels, p) == pytest.approx(expected)
    several = np.random.default_rng(0).integers(0, 2, size=p.shape)
    assert brier_score(several, p) == pytest.approx(brier_score_loss(several.ravel(), p.ravel()))


# --- Temperature ---


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 60), st.floats(0.2, 8))
def test_the_temperature_is_where_scipy_finds_the_least_log_loss(seed, classes, rows, factor):
    labels, logits = overconfident(rows, classes, seed, factor)
    if (logits.argmax(axis=1) == labels).all():
        return  # there is no least log loss
    [found] = fit_temperature(labels, logits)
    best = minimize_scalar(
        lambda u: log_loss_at(np.exp(u), labels, logits), bounds=np.log([LEAST, MOST]), method="bounded"
    )
    assert log_loss_at(found, labels, logits) <= best.fun + 1e-9
    if found > LEAST / 0.9 and found < MOST / 1.1:
        around = [log_loss_at(found * step, labels, logits) for step in (0.98, 1.02)]
        assert min(around) >= log_loss_at(found, labels, logits) - 1e-12


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_several_labels_have_a_temperature_each_that_of_two_classes(seed, rows):
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, 2, size=(rows, 3)), rng.normal(scale=3, size=(rows, 3))
    found = fit_temperature(labels, logits)
    columns = zip(labels.T, logits.T, strict=True)
    alone = [fit_temperature(y, np.stack([np.zeros(rows), z], axis=1))[0] for y, z in columns]
    assert found.shape == (3,) and found == pytest.approx(alone)


def test_what_was_made_overconfident_is_calibrated_again():
    labels, logits = overconfident(20_000, 4, seed=1, factor=3.0)
    temperature = fit_temperature(labels, logits)
    assert temperature == pytest.approx([3.0], rel=0.03)
    before = calibration_error(labels, softmax(logits, axis=1))
    after = calibration_error(labels, softmax(logits / temperature, axis=1))
    assert before > 0.15 and after < 0.015


@given(st.integers(0, 10_000), st.floats(0.5, 2))
def test_logits_twice_as_large_have_twice_the_temperature(seed, factor):
    labels, logits = overconfident(30, 3, seed)
    first, second = fit_temperature(labels, logits)[0], fit_temperature(labels, factor * logits)[0]
    if LEAST < first < MOST and LEAST < second < MOST:
        assert second == pytest.approx(factor * first, rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        pytest.param([0, 0], [[3.0], [1.0]], id="one class"),
        pytest.param([0, 1], [[2.0, 2.0], [5.0, 5.0]], id="equal logits"),
        pytest.param([[0], [1]], [[0.0], [0.0]], id="several labels, logits of 0"),
    ],
)
def test_a_temperature_that_changes_nothing_is_1(labels, logits):
    assert fit_temperature(np.array(labels), np.array(logits)).tolist() == [1.0]


@given(st.integers(1, 30), st.floats(0.1, 50))
def test_answers_that_are_all_right_leave_the_confidence_of_laplaces_rule(rows, margin):
    labels, logits = np.zeros(rows, int), np.tile([margin, 0.0], (rows, 1))
    [temperature] = fit_temperature(labels, logits)
    if LEAST * 1.001 < temperature < MOST / 1.001:
        assert softmax(logits / temperature, axis=1)[:, 0].mean() == pytest.approx((rows + 1) / (rows + 2))


def test_answers_that_are_all_wrong_or_worse_than_chance_become_as_unsure_as_can_be():
    assert fit_temperature(np.array([1]), np.array([[5.0, 0.0]])).tolist() == [MOST]
    assert fit_temperature(np.array([[1], [0]]), np.array([[-5.0], [5.0]])).tolist() == [MOST]


def test_a_label_that_no_text_has_is_answered_with_a_finite_temperature():
    [temperature] = fit_temperature(np.zeros((8, 1), int), np.full((8, 1), -2.0))
    assert expit(2.0 / temperature) == pytest.approx(0.9)  # 9 / 10: eight right answers


def test_huge_logits_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        [temperature] = fit_temperature(np.array([0, 1]), np.array([[1e4, -1e4], [1e4, -1e4]]))
    assert temperature == MOST


def test_a_fit_without_a_text_is_refused():
    with pytest.raises(ValueError, match="N > 0"):
        fit_temperature(np.zeros(0, int), np.zeros((0, 2)))


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_scaled_probabilities_are_those_of_the_scaled_logits(seed, temperature):
    logits = np.random.default_rng(seed).normal(scale=3, size=(6, 3))
    t = np.array([temperature])
    found = scale_probabilities(softmax(logits, axis=1), t, multi_label=False)
    np.testing.assert_allclose(found, softmax(logits / t, axis=1), atol=1e-12)
    found = scale_probabilities(expit(logits), t, multi_label=True)
    np.testing.assert_allclose(found, expit(logits / t), atol=1e-12)


def test_certainty_stays_certain():
    p, t = np.array([[1.0, 0.0]]), np.array([2.0])
    for multi_label in (True, False):
        assert scale_probabilities(p, t, multi_label).tolist() == [[1.0, 0.0]]
