"""The baselines: features and coefficients equal scikit-learn's, and no training rows break them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from minilm.evaluation import baselines
from minilm.evaluation.baselines import Sparse, find_terms, linear, majority
from minilm.evaluation.lbfgs import minimize
from minilm.evaluation.metrics import classification_metrics, multilabel_metrics, sigmoid

AG_NEWS = Path(__file__).parents[3] / "shared" / "data" / "ag_news"
REFERENCE_TERMS = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2}


def dense(sparse: Sparse) -> np.ndarray:
    matrix = np.zeros((len(sparse.offsets) - 1, sparse.width))
    for i, (first, last) in enumerate(zip(sparse.offsets[:-1], sparse.offsets[1:], strict=True)):
        matrix[i, sparse.columns[first:last]] = sparse.values[first:last]
    return matrix


def topic_texts(rows: int, classes: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of 12 words out of 30, where each class prefers some of them."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    odds = np.exp(random.normal(size=(classes, 30)))
    odds /= odds.sum(axis=1, keepdims=True)
    return [" ".join(f"word{w}" for w in random.choice(30, 12, p=odds[c])) for c in labels], labels


words = st.sampled_from(["Żółw", "a", "pies", "PIES", "it's", "x_1", "don", "42", "é!", "\n", "ale", "İSO"])
texts_of_words = st.lists(words, max_size=8).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts_of_words, min_size=2, max_size=8), st.lists(texts_of_words, min_size=1, max_size=3))
def test_features_equal_scikit_learns(training, others):
    training = [*training, "Pies pies ale", "ale pies"]  # so that scikit-learn, too, has a vocabulary
    reference = TfidfVectorizer(**REFERENCE_TERMS)
    expected = reference.fit_transform(training).toarray()
    terms = find_terms(training)
    assert list(terms.column) == reference.get_feature_names_out().tolist()
    assert dense(terms.features(training)) == pytest.approx(expected, abs=1e-14)
    assert dense(terms.features(others)) == pytest.approx(reference.transform(others).toarray(), abs=1e-14)


def test_a_sparse_product_and_a_transpose_equal_the_dense_ones():
    texts, _ = topic_texts(20, 3, seed=0)
    features = find_terms(texts).features([*texts, "unknown"])
    other = np.random.default_rng(0).normal(size=(features.width, 3))
    assert dense(features.transposed()) == pytest.approx(dense(features).T, abs=0)
    product = features.times(torch.from_numpy(other)).numpy()
    assert product == pytest.approx(dense(features) @ other, abs=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_coefficients_and_probabilities_equal_scikit_learns(classes):
    texts, labels = topic_texts(120, classes, seed=classes)
    others, _ = topic_texts(40, classes, seed=9)
    ours = linear(texts, labels, classes, tolerance=1e-8)
    terms = TfidfVectorizer(**REFERENCE_TERMS)
    features = terms.fit_transform(texts)
    reference = LogisticRegression(C=10, tol=1e-9, max_iter=10_000).fit(features, labels)
    weights = ours.regression.weights[:, 1:] if classes == 2 else ours.regression.weights
    assert np.allclose(weights.T, reference.coef_, rtol=0, atol=2e-5)
    expected = reference.predict_proba(terms.transform(others))
    assert np.exp(ours.predict(others)) == pytest.approx(expected, abs=2e-6)


def test_several_labels_equal_one_regression_each():
    texts, topics = topic_texts(150, 4, seed=1)
    labels = np.stack([topics == 0, topics >= 2, topics == 3], axis=1).astype(int)
    ours = sigmoid(linear(texts, labels, 3, tolerance=1e-8).predict(texts))
    features = TfidfVectorizer(**REFERENCE_TERMS).fit_transform(texts)
    for label in range(3):
        reference = LogisticRegression(C=10, tol=1e-9, max_iter=10_000).fit(features, labels[:, label])
        assert ours[:, label] == pytest.approx(reference.predict_proba(features)[:, 1], abs=2e-6)


def test_the_majority_scores_are_smoothed_log_frequencies():
    model = majority(np.array([0, 2, 2]), classes=4)
    assert model.predict(["a", "b"]) == pytest.approx(np.log([[2 / 7, 1 / 7, 3 / 7, 1 / 7]] * 2))
    several = majority(np.array([[1, 0, 0], [1, 1, 0]]), classes=3)
    assert several.predict(["a"]) == pytest.approx(np.log([[3 / 1, 2 / 2, 1 / 3]]))
    assert model.seconds >= 0


def test_a_class_the_training_rows_lack_is_never_predicted_and_costs_a_finite_loss():
    texts, labels = topic_texts(60, 3, seed=2)
    labels = np.array([0, 2, 3])[labels]  # of five classes, 1 and 4 lack
    model = linear(texts, labels, classes=5)
    scores = model.predict(texts)
    assert set(scores.argmax(axis=1)) == {0, 2, 3}
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(60))
    assert np.exp(scores[:, [1, 4]]) == pytest.approx(1 / 67 * np.ones((60, 2)))  # (1 / 65) / (1 + 2 / 65)
    assert np.isfinite(classification_metrics(np.full(60, 4), scores)["loss"])


def test_one_class_only_is_always_predicted():
    model = linear(["a good day", "a good night"], np.array([1, 1]), classes=2)
    scores = model.predict(["a good day", "never seen"])
    assert scores.argmax(axis=1).tolist() == [1, 1]
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("texts", [["ene due", "rike fake", "entliczek"], ["a", "?", ""]])
def test_without_any_term_only_the_intercepts_are_left(texts):
    model = linear(texts, np.array([0, 1, 1]), classes=2)
    assert model.regression.weights.shape == (0, 2)
    assert np.exp(model.predict(["ene due", ""])) == pytest.approx(np.array([[1, 2], [1, 2]]) / 3, abs=1e-3)


def test_a_label_that_all_rows_or_none_have_keeps_the_majority_score():
    texts, topics = topic_texts(30, 2, seed=3)
    labels = np.stack([topics, np.ones(30, int), np.zeros(30, int)], axis=1)
    model = linear(texts, labels, 3)
    assert model.predict(texts)[:, 1:] == pytest.approx(np.log([[31, 1 / 31]] * 30))
    assert multilabel_metrics(labels, model.predict(texts))["label_accuracy"] > 0.9
    nothing = linear(texts, labels[:, 1:], 2)
    assert nothing.predict(texts) == pytest.approx(np.log([[31, 1 / 31]] * 30))


def test_pairs_are_read_as_one_text():
    texts, labels = topic_texts(40, 2, seed=4)
    others, _ = topic_texts(40, 2, seed=5)
    joined = [f"{a}\n{b}" for a, b in zip(texts, others, strict=True)]
    of_pairs = linear(texts, labels, 2, pairs=others).predict(texts, others)
    assert np.array_equal(of_pairs, linear(joined, labels, 2).predict(joined))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_the_same_rows_give_the_same_model(seed):
    texts, labels = topic_texts(40, 3, seed)
    first, second = linear(texts, labels, 3), linear(texts, labels, 3)
    assert np.array_equal(first.regression.weights, second.regression.weights)
    assert np.array_equal(first.predict(texts), second.predict(texts))


def read(file: Path) -> tuple[list[str], np.ndarray]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [row["text"] for row in rows], np.array([int(row["label"]) for row in rows])


@pytest.mark.skipif(not AG_NEWS.is_dir(), reason="AG News is not in ../shared/data")
def test_ag_news_accuracy_is_scikit_learns():
    texts, labels = read(AG_NEWS / "train.csv")
    test_texts, test_labels = read(AG_NEWS / "test.csv")
    model = linear(texts, labels, classes=4)
    result = classification_metrics(test_labels, model.predict(test_texts))
    assert result["accuracy"] == pytest.approx(0.876, abs=0.002)
    assert 0 < model.seconds < 30
    terms = TfidfVectorizer(**REFERENCE_TERMS)
    reference = LogisticRegression(C=10, max_iter=1000).fit(terms.fit_transform(texts), labels)
    assert result["accuracy"] == pytest.approx(reference.score(terms.transform(test_texts), test_labels), abs=0.005)


def test_a_fit_in_pieces_is_the_fit_of_the_whole(monkeypatch):
    texts = [f"word{i % 7} word{i % 5} more{i % 3}" for i in range(60)]
    labels = np.arange(60) % 3
    whole = linear(texts, labels, 3)
    monkeypatch.setattr(baselines, "SCORES", 40)
    pieces = linear(texts, labels, 3)
    assert np.abs(whole.predict(texts) - pieces.predict(texts)).max() < 1e-3


def test_with_many_classes_the_most_frequent_terms_are_taken(monkeypatch):
    texts = ["often rare" if i < 4 else f"often word{i % 4}" for i in range(40)]
    monkeypatch.setattr(baselines, "WEIGHTS", 20)
    terms = linear(texts, np.arange(40) % 4, 4).terms
    assert len(terms.column) == 5 and "often" in terms.column and "rare" not in terms.column


def test_terms_found_once_are_forgotten_when_there_are_too_many(monkeypatch):
    texts = ["kept again"] * 3 + [f"word{i} other{i}" for i in range(50)]
    whole = find_terms(texts)
    monkeypatch.setattr(baselines, "COUNTED", 20)
    assert find_terms(texts).column == whole.column


def test_a_large_fit_in_float32_is_near_that_in_float64(monkeypatch):
    texts, labels = topic_texts(200, 5, seed=6)
    precise = linear(texts, labels, 5)
    monkeypatch.setattr(baselines, "PRECISE", 0)
    assert np.abs(linear(texts, labels, 5).predict(texts) - precise.predict(texts)).max() < 1e-2


def test_a_fit_of_too_much_work_ends_early_and_tells_so(monkeypatch):
    texts, labels = topic_texts(200, 5, seed=6)
    whole = linear(texts, labels, 5, tolerance=1e-6)
    assert whole.regression.finished
    monkeypatch.setattr(baselines, "WORK", 0)
    early = linear(texts, labels, 5, tolerance=1e-6)
    assert not early.regression.finished
    agreement = (early.predict(texts).argmax(axis=1) == whole.predict(texts).argmax(axis=1)).mean()
    assert agreement > 0.95  # and it is nearly there


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 999))
def test_lbfgs_finds_the_least_of_a_quadratic(size, seed):
    random = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=random, dtype=torch.float64)
    matrix, target = root @ root.T + 0.1 * torch.eye(size), torch.randn(size, generator=random, dtype=torch.float64)

    def value_and_gradient(x):
        return float((x - target) @ matrix @ (x - target)) / 2, matrix @ (x - target)

    start = torch.zeros(size, dtype=torch.float64)
    x, finished = minimize(value_and_gradient, start, tolerance=1e-9, max_steps=500)
    assert finished and x.numpy() == pytest.approx(target.numpy(), abs=1e-6)
    assert start.count_nonzero() == 0


def test_lbfgs_finds_the_least_of_rosenbrocks_valley():
    def value_and_gradient(x):
        a, b = x.tolist()
        gradient = [-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)]
        return (1 - a) ** 2 + 100 * (b - a * a) ** 2, torch.tensor(gradient, dtype=torch.float64)

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    x, finished = minimize(value_and_gradient, start, tolerance=1e-8, max_steps=200)
    assert finished and x.tolist() == pytest.approx([1, 1], abs=1e-6)
    assert not minimize(value_and_gradient, start, tolerance=1e-8, max_steps=3)[1]
