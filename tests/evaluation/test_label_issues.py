"""Planted wrong labels are found, and those that are named are those that cleanlab names."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues as cleanlab_issues
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.evaluation.label_issues import (
    confident_joint,
    estimated_counts,
    find_label_issues,
    find_multilabel_issues,
)

pytestmark = pytest.mark.filterwarnings("ignore:May not flag all label issues")
METHODS = {"noise_rate": "prune_by_noise_rate", "class": "prune_by_class", "both": "both"}


def noisy(rows: int, classes: int, wrong: int, seed: int, sure: float = 3.0) -> tuple[np.ndarray, ...]:
    """Labels of which so many are wrong, probabilities that lean to the true class, and the rows that are wrong."""
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, rows - 2 * classes)])
    z = rng.normal(size=(rows, classes)) + sure * np.eye(classes)[true]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    labels, planted = true.copy(), rng.choice(rows, wrong, replace=False)
    labels[planted] = (true[planted] + rng.integers(1, classes, wrong)) % classes
    return labels, p, planted


def plain_confident_joint(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The paper's definition (equation 1), text by text."""
    classes = p.shape[1]
    t = [p[labels == j, j].mean() if (labels == j).any() else np.inf for j in range(classes)]
    joint = np.zeros((classes, classes), dtype=int)
    for label, row in zip(labels, p, strict=True):
        sure = [j for j in range(classes) if row[j] >= t[j] - 1e-6]
        if sure:
            joint[label, max(sure, key=lambda j: row[j])] += 1
    return joint


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(0, 40), st.floats(0, 4))
def test_the_confident_joint_is_the_papers(seed, classes, more, sure):
    rows = 2 * classes + more
    labels, p, _ = noisy(rows, classes, rows // 4, seed, sure)
    joint, counts = confident_joint(labels, p), estimated_counts(labels, p)
    np.testing.assert_array_equal(joint, plain_confident_joint(labels, p))
    np.testing.assert_allclose(counts.sum(axis=1), np.bincount(labels, minlength=classes))


@pytest.mark.parametrize("seed", range(5))
def test_the_confident_joint_is_cleanlabs_where_the_likeliest_class_is_a_sure_one(seed):
    labels, p, _ = noisy(400, 3, 40, seed)
    theirs = compute_confident_joint(labels, p, calibrate=False)
    ours = confident_joint(labels, p)
    assert np.abs(ours - theirs).sum() <= 4  # cleanlab takes the likeliest of all classes, the paper of the sure ones
    np.testing.assert_allclose(estimated_counts(labels, p), compute_confident_joint(labels, p), atol=3)


@pytest.mark.parametrize("prune", METHODS)
@pytest.mark.parametrize("rank", ["self_confidence", "normalized_margin"])
@pytest.mark.parametrize(("classes", "sure"), [(2, 3.0), (4, 3.0), (4, 1.5), (9, 4.0)])
def test_the_same_rows_are_named_as_by_cleanlab_in_the_same_order(prune, rank, classes, sure):
    labels, p, _ = noisy(400 * classes, classes, 30 * classes, seed=3, sure=sure)
    ours = [issue.row for issue in find_label_issues(labels, p, prune=prune, rank=rank)]
    theirs = cleanlab_issues(labels, p, filter_by=METHODS[prune], return_indices_ranked_by=rank, n_jobs=1).tolist()
    both = set(ours) & set(theirs)
    assert len(both) >= 0.97 * max(len(ours), len(theirs)) and len(theirs) > 20
    assert [row for row in ours if row in both] == [row for row in theirs if row in both]


@pytest.mark.parametrize("prune", METHODS)
def test_planted_labels_are_found_and_the_true_one_is_suggested(prune):
    labels, p, planted = noisy(2_000, 4, 100, seed=0, sure=5.0)
    issues = find_label_issues(labels, p, prune=prune)
    named = [issue.row for issue in issues[:100]]
    assert len(set(named) & set(planted)) >= 90
    assert all(labels[i.row] == i.given != i.suggested == p[i.row].argmax() for i in issues)
    assert [i.score for i in issues] == sorted(i.score for i in issues)
    assert issues[0].score == pytest.approx(p[issues[0].row, issues[0].given])


def test_a_class_that_the_classifier_is_never_sure_of_is_not_suspected_as_a_whole():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    p_of_1 = np.where(labels == 1, 0.4, 0.05) + rng.uniform(-0.04, 0.04, 200)  # never above one half
    p = np.stack([1 - p_of_1, p_of_1], axis=1)
    assert (p.argmax(axis=1) == 0).all()
    assert find_label_issues(labels, p) == []


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 4))
def test_any_few_texts_have_an_answer_and_right_labels_are_never_named(seed, rows, classes):
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(0, classes, rows), rng.dirichlet(np.ones(classes), rows)
    for prune in METHODS:
        assert all(p[i.row].argmax() != labels[i.row] for i in find_label_issues(labels, p, prune=prune))


def test_no_text_and_one_class_have_no_issues():
    assert find_label_issues(np.zeros(0, int), np.zeros((0, 3))) == []
    assert find_label_issues(np.zeros(3, int), np.ones((3, 1))) == []


def test_several_labels_are_searched_one_by_one_and_ranked_together():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, (500, 3))
    p = np.clip(np.where(true, 0.85, 0.15) + rng.normal(scale=0.1, size=true.shape), 0, 1)
    labels = true.copy()
    labels[:20, 0] ^= 1
    labels[20:30, 2] ^= 1
    issues = find_multilabel_issues(labels, p)
    assert {(i.row, i.label) for i in issues[:30]} == {(r, 0) for r in range(20)} | {(r, 2) for r in range(20, 30)}
    assert all(labels[i.row, i.label] == i.given for i in issues)
    assert [i.score for i in issues] == sorted(i.score for i in issues)
    for label in range(3):
        binary = np.stack([1 - p[:, label], p[:, label]], axis=1)
        theirs = cleanlab_issues(labels[:, label], binary, return_indices_ranked_by="self_confidence", n_jobs=1)
        assert [i.row for i in issues if i.label == label] == theirs.tolist()


@pytest.mark.parametrize("p", [np.full((3, 2), np.nan), np.zeros((2, 2)), np.zeros(3)])
def test_what_is_no_row_of_probabilities_a_label_is_refused(p):
    with pytest.raises(ValueError, match="must have one row per label"):
        find_label_issues(np.zeros(3, int), p)
    with pytest.raises(ValueError, match="must have one shape"):
        find_multilabel_issues(np.zeros((3, 2), int), np.zeros((2, 2)))
