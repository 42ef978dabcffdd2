"""Metrics equal scikit-learn's, on random and on degenerate inputs, and go into JSON as they are."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from minilm.errors import UserError
from minilm.evaluation.confusions import Confused
from minilm.evaluation.metrics import (
    HIGHER_IS_BETTER,
    MULTI_LABEL_METRICS,
    RANKING_METRICS,
    SINGLE_LABEL_METRICS,
    LabelMetrics,
    Metrics,
    check_metric,
    choose_threshold,
    classification_metrics,
    is_better,
    labels_above,
    log_softmax,
    multilabel_metrics,
    sigmoid,
)
from minilm.schema import as_table

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
few = settings(max_examples=40, deadline=None)


def logits_that_predict(predicted: list[int], classes: int) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(-1, 1, (len(predicted), classes))
    return noise + 4 * np.eye(classes)[predicted]


@st.composite
def single_label(draw):
    """Any truth and prediction: some classes lack in either, rows may be one, all may be right or wrong."""
    classes = draw(st.integers(1, 5))
    pair = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=30))
    return [t for t, _ in pairs], [p for _, p in pairs], classes


@st.composite
def multi_label(draw):
    rows, classes = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    cells = st.lists(st.integers(0, 1), min_size=rows * classes, max_size=rows * classes)
    return np.array(draw(cells)).reshape(rows, classes), np.array(draw(cells)).reshape(rows, classes)


def assert_plain(value: object) -> None:
    """Only Python's own numbers, and JSON without NaN."""
    if isinstance(value, dict):
        for inner in value.values():
            assert_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            assert_plain(inner)
    else:
        assert type(value) in (int, float)
    json.dumps(value, allow_nan=False)


def assert_single_label_equals_reference(truth: list[int], predicted: list[int], classes: int) -> None:
    logits = logits_that_predict(predicted, classes)
    ours = classification_metrics(np.array(truth), logits)
    every = list(range(classes))
    expected = {
        "loss": reference.log_loss(truth, np.exp(log_softmax(logits)), labels=every) if classes > 1 else 0.0,
        "accuracy": reference.accuracy_score(truth, predicted),
        "macro_precision": reference.precision_score(truth, predicted, average="macro", zero_division=0),
        "macro_recall": reference.recall_score(truth, predicted, average="macro", zero_division=0),
        "macro_f1": reference.f1_score(truth, predicted, average="macro", zero_division=0),
        "mcc": reference.matthews_corrcoef(truth, predicted),
    }
    assert {name: ours[name] for name in SINGLE_LABEL_METRICS} == pytest.approx(expected, abs=1e-12)
    assert ours.confusion == reference.confusion_matrix(truth, predicted, labels=every).tolist()
    table = reference.precision_recall_fscore_support(truth, predicted, labels=every, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), table, strict=True):
        assert [getattr(row, name) for row in ours.by_label] == pytest.approx(column, abs=1e-12)
    assert_plain(as_table(ours))


def assert_multi_label_equals_reference(truth: np.ndarray, predicted: np.ndarray) -> None:
    logits = np.random.default_rng(0).uniform(0.1, 5, truth.shape) * (2 * predicted - 1)
    ours = multilabel_metrics(truth, logits)
    cells = truth.ravel(), sigmoid(logits).ravel()
    expected = {
        "loss": reference.log_loss(*cells, labels=[0, 1]),
        "subset_accuracy": (truth == predicted).all(axis=1).mean(),
        "label_accuracy": reference.accuracy_score(truth.ravel(), predicted.ravel()),
        "jaccard": np.mean([1 if not (t | p).any() else (t & p).sum() / (t | p).sum()
                            for t, p in zip(truth, predicted, strict=True)]),
    }  # fmt: skip
    if truth.shape[1] > 1:  # scikit-learn takes one column for one binary label a row
        expected["jaccard"] = reference.jaccard_score(truth, predicted, average="samples", zero_division=1)
        expected["micro_f1"] = reference.f1_score(truth, predicted, average="micro", zero_division=0)
        expected["macro_f1"] = reference.f1_score(truth, predicted, average="macro", zero_division=0)
        table = reference.precision_recall_fscore_support(truth, predicted, zero_division=0)
        for name, column in zip(("precision", "recall", "f1", "support"), table, strict=True):
            assert [getattr(row, name) for row in ours.by_label] == pytest.approx(column, abs=1e-12)
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert_plain(as_table(ours))


@few
@given(single_label())
def test_single_label_metrics_equal_scikit_learns(case):
    assert_single_label_equals_reference(*case)


@pytest.mark.parametrize(
    ("truth", "predicted", "classes"),
    [
        pytest.param([1, 1, 1], [1, 1, 1], 3, id="one class only"),
        pytest.param([0, 1, 2, 2], [0, 1, 1, 0], 3, id="a class never predicted"),
        pytest.param([0, 0, 1], [0, 2, 1], 3, id="a class absent from the truth"),
        pytest.param([2], [2], 3, id="one row, right"),
        pytest.param([2], [0], 3, id="one row, wrong"),
        pytest.param([0, 1, 2, 0], [0, 1, 2, 0], 3, id="perfect"),
        pytest.param([0, 1, 2, 0], [1, 2, 0, 2], 3, id="all wrong"),
        pytest.param([0, 1, 0, 1], [0, 0, 0, 0], 2, id="always the same answer"),
    ],
)
def test_degenerate_single_label_metrics_equal_scikit_learns(truth, predicted, classes):
    assert_single_label_equals_reference(truth, predicted, classes)


@few
@given(multi_label())
def test_multi_label_metrics_equal_scikit_learns(case):
    assert_multi_label_equals_reference(*case)


@pytest.mark.parametrize("truth", [0, 1])
@pytest.mark.parametrize("predicted", [0, 1])
def test_degenerate_multi_label_metrics_equal_scikit_learns(truth, predicted):
    for rows in (1, 3):
        assert_multi_label_equals_reference(np.full((rows, 2), truth), np.full((rows, 2), predicted))


def test_a_text_with_no_label_and_none_predicted_counts_as_wholly_right():
    result = multilabel_metrics(np.array([[0, 0], [1, 1]]), np.array([[-1.0, -1.0], [1.0, -1.0]]))
    assert result["jaccard"] == 0.75
    assert result["subset_accuracy"] == 0.5
    assert result["label_accuracy"] == 0.75


def test_a_class_neither_true_nor_predicted_is_left_out_of_the_macro_average_but_not_of_the_table():
    result = classification_metrics(np.array([0, 1]), np.eye(3)[:2])
    assert result["macro_f1"] == 1.0
    assert result.by_label[2] == LabelMetrics(precision=0.0, recall=0.0, f1=0.0, support=0)


def test_matthews_correlation_of_a_hundred_thousand_texts_does_not_overflow():
    labels = np.arange(100_000) % 2
    assert classification_metrics(labels, np.eye(2)[labels])["mcc"] == 1.0
    assert classification_metrics(labels, np.eye(2)[1 - labels])["mcc"] == -1.0


def test_large_logits_give_finite_losses_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classification_metrics(np.array([0]), np.array([[-1e4, 1e4]]))["loss"] == 2e4
        assert multilabel_metrics(np.array([[0, 1]]), np.array([[1e4, -1e4]]))["loss"] == 1e4
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_float32_logits_are_scored_in_float64():
    logits = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    assert classification_metrics(np.array([1]), logits)["loss"] == pytest.approx(
        np.log(np.exp([1, 2, 4]).sum()) - 2, abs=1e-14
    )


def test_a_label_is_chosen_where_its_probability_reaches_the_threshold():
    assert labels_above(np.array([[0.0, -1e-9, 1e-9]])).tolist() == [[1, 0, 1]]
    assert labels_above(np.array([[-1.0, 0.0, 2.0]]), threshold=0.2).tolist() == [[1, 1, 1]]
    assert labels_above(np.array([[-1.0, 0.0, 2.0]]), threshold=0.8).tolist() == [[0, 0, 1]]
    assert labels_above(np.array([[-1.0, 0.0, 2.0]]), threshold=np.array([0.2, 0.6, 0.9])).tolist() == [[1, 0, 0]]


@settings(max_examples=15, deadline=None)
@given(multi_label(), st.sampled_from(["jaccard", "micro_f1", "macro_f1", "label_accuracy"]), st.integers(0, 9))
def test_no_threshold_of_the_grid_beats_the_chosen_one(case, metric, seed):
    labels = case[0]
    logits = np.random.default_rng(seed).normal(size=labels.shape)
    best = multilabel_metrics(labels, logits, choose_threshold(labels, logits, metric))[metric]
    assert all(multilabel_metrics(labels, logits, t / 100)[metric] <= best for t in range(5, 100, 10))


def test_the_threshold_that_separates_is_found_and_of_equals_the_nearest_to_a_half():
    labels, probabilities = np.array([[1, 0], [0, 1]]), np.array([[0.32, 0.1], [0.1, 0.255]])
    logits = np.log(probabilities / (1 - probabilities))
    assert choose_threshold(labels, logits) == 0.25
    assert choose_threshold(labels, np.array([[9.0, -9.0], [-9.0, 9.0]])) == 0.5
    assert choose_threshold(labels, logits, "loss") == 0.5
    with pytest.raises(UserError, match=r'no metric "jacard".*did you mean "jaccard"'):
        choose_threshold(labels, logits, "jacard")


@pytest.mark.parametrize(
    ("metric", "new", "old", "threshold", "better"),
    [
        ("accuracy", 0.6, 0.5, 0.0, True),
        ("accuracy", 0.5, 0.5, 0.0, False),
        ("accuracy", 0.5625, 0.5, 0.0625, False),
        ("accuracy", 0.6, 0.5, 0.0625, True),
        ("loss", 0.5, 0.6, 0.0, True),
        ("loss", 0.6, 0.5, 0.0, False),
        ("loss", 0.5, 0.5625, 0.0625, False),
        ("perplexity", 10.0, 11.0, 0.5, True),
        ("mcc", -1.0, None, 0.5, True),
        ("loss", float("nan"), None, 0.0, False),
        ("loss", float("nan"), 1.0, 0.0, False),
    ],
)
def test_better_is_higher_but_for_losses_and_by_more_than_the_threshold(metric, new, old, threshold, better):
    assert is_better(metric, new, old, threshold) is better


def test_an_unknown_metric_is_named_with_the_ones_there_are():
    with pytest.raises(UserError, match=r'"acuracy" \(did you mean "accuracy"\?\); the metrics are: loss, '):
        is_better("acuracy", 1.0, 0.0)
    with pytest.raises(
        UserError, match=r'^train.best: no metric "accuracy" with several labels .* loss, subset_accuracy'
    ):
        check_metric("accuracy", multi_label=True)
    with pytest.raises(UserError, match="with one label per text"):
        check_metric("jaccard", multi_label=False)
    names = {*SINGLE_LABEL_METRICS, *MULTI_LABEL_METRICS, *RANKING_METRICS, "perplexity"}
    assert names == set(HIGHER_IS_BETTER)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_a_ranking_are_of_probabilities_with_one_label_and_of_logits_with_several(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(3, size=40), rng.normal(size=(40, 3)) * 3
    ours, one_hot = classification_metrics(labels, logits), np.eye(3, dtype=int)[labels]
    p = np.exp(log_softmax(logits))
    assert ours.roc_auc == pytest.approx(reference.roc_auc_score(one_hot, p, average="macro"), abs=1e-12)
    found = reference.average_precision_score(one_hot, p, average="macro")
    assert ours.average_precision == pytest.approx(found, abs=1e-12)
    several = (rng.random((40, 3)) < 0.4).astype(int)
    ours = multilabel_metrics(several, logits)
    assert ours.roc_auc == pytest.approx(reference.roc_auc_score(several, logits, average="macro"), abs=1e-12)
    found = reference.average_precision_score(several, logits, average="macro")
    assert ours.average_precision == pytest.approx(found, abs=1e-12)


def test_a_ranking_without_a_pair_to_compare_or_with_broken_scores_has_no_metric() -> None:
    one_class = classification_metrics(np.zeros(3, int), np.zeros((3, 2)))
    assert one_class.roc_auc is None and one_class.average_precision == 1.0
    broken = classification_metrics(np.array([0, 1]), np.full((2, 2), np.nan))
    assert broken.roc_auc is None and broken.average_precision is None
    unranked = classification_metrics(np.array([0, 1]), np.eye(2), ranking=False)
    assert unranked.roc_auc is None and unranked.accuracy == 1.0
    check_metric("roc_auc", multi_label=True)
    check_metric("average_precision", multi_label=False)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.zeros(0, int), np.zeros((0, 2))),
        (np.zeros(3, int), np.zeros((2, 2))),
        (np.zeros(2), np.zeros((2, 2))),
        (np.array([0, 2]), np.zeros((2, 2))),
        (np.array([0, -1]), np.zeros((2, 2))),
    ],
)
def test_labels_that_do_not_fit_the_logits_are_refused(labels, logits):
    with pytest.raises(ValueError):
        classification_metrics(labels, logits)
    if labels.size == 0:
        with pytest.raises(ValueError):
            multilabel_metrics(np.zeros((0, 2), int), logits)


def test_metrics_are_those_of_one_kind_of_task():
    single = classification_metrics(np.array([0, 1]), np.eye(2))
    several = multilabel_metrics(np.array([[0, 1]]), np.array([[-1.0, 1.0]]))
    assert (single.multi_label, several.multi_label) == (False, True) and len(several.by_label) == 2
    assert single.get("jaccard") is single.get("confusion") is single.get("__class__") is None
    with pytest.raises(KeyError):
        single["jaccard"]
    assert single.brief().by_label == [] and single.brief()["mcc"] == single["mcc"]
    assert Metrics(2.0, perplexity=7.4)["perplexity"] == 7.4
    for wrong in ({}, {"accuracy": 0.5}, {"perplexity": 2.0, "macro_f1": 0.5}):
        with pytest.raises(ValueError, match="must contain loss acc"):
            Metrics(0.5, **wrong)
    for confusion in ([[1, 0]], [[0, 0], [0, 0]], [[1, -1], [0, 1]], [[1], [0]], None):
        with pytest.raises(ValueError, match=r"confusion must be 2 rows of 2|must contain either conf"):
            replace(single, confusion=confusion)


def test_with_many_classes_the_most_confused_pairs_are_kept_in_place_of_the_matrix():
    labels = np.arange(303) % 101
    logits = np.eye(101)[np.where(labels == 7, 9, labels)]
    found = classification_metrics(labels, logits)
    assert found.confusion is None and found.most_confused() == [Confused(7, 9, 3)] == found.confused
    few = classification_metrics(labels[labels < 100], logits[labels < 100][:, :100])
    assert few.confused is None and few.most_confused() == [Confused(7, 9, 3)]
    assert found.brief().confused is None
