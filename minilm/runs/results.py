"""The results of a finished run: metrics of every split, baselines, times and samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minilm.config import TrainSection
from minilm.data.rows import Rows
from minilm.data.sources import Dataset
from minilm.data.tokenization import Encoded, length_statistics
from minilm.evaluation.baselines import Linear, Majority, linear, majority
from minilm.evaluation.embeddings import fit_probe
from minilm.evaluation.metrics import (
    Metrics,
    choose_threshold,
    classification_metrics,
    labels_above,
    log_softmax,
    multilabel_metrics,
    sigmoid,
)
from minilm.evaluation.predictor import Classifier
from minilm.reporting.results import Baseline, CharacterLengths, Lengths, SampleText
from minilm.runs.shared_cache import hash_of_rows, memoize
from minilm.training.console import say

LONG = 10.0  # seconds
KEPT_SCORES = 100  # labels of which a sample's scores are kept, at most
MOST_LABELS = 1000  # for the linear baseline, whose fit takes time and memory for each


def measure(labels: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> Metrics:
    """The metrics of scores (N, C) against labels: (N,), or (N, C) with several labels a text."""
    if labels.ndim == 2:
        return multilabel_metrics(labels, scores, threshold)
    return classification_metrics(labels, scores)


def decide(settings: TrainSection, labels: np.ndarray, scores: np.ndarray) -> float:
    """The decision threshold: the one that [train] gives, or the best for the validation texts' labels and scores.

    The best by the metric that chooses the checkpoint; by micro F1 if that is the loss, which has no threshold.
    """
    if settings.decision_threshold != "validation":
        return settings.decision_threshold
    return choose_threshold(labels, scores, "micro_f1" if settings.best == "loss" else settings.best)


@dataclass(frozen=True)
class Embedded:
    """The vectors of all texts, by the checkpoint before it is trained."""

    vectors: dict[str, np.ndarray]  # of each split, (N, D)
    seconds: float  # for the training texts


def fit_baselines(
    data: Dataset,
    choose: Callable[[np.ndarray], float],
    embedded: Embedded | None = None,
    *,
    with_linear: bool = True,
) -> dict[str, Baseline]:
    """The metrics of the majority class and of a linear model on TF-IDF features, on the same splits.

    With ``embedded``, also what a linear model on the checkpoint's vectors reaches.
    ``choose`` chooses the threshold of several labels from the scores of the validation texts, as for the model.
    """
    classes = len(data.label_names)
    train, held_out = data.train, {"validation": data.validation}
    if len(data.test):
        held_out["test"] = data.test
    fits: dict[str, Callable[[], Majority | Linear]] = {
        "majority": lambda: majority(train.labels, classes),
        "linear": lambda: linear(train.texts, train.labels, classes, train.pairs),
    }

    def fitted(name: str) -> tuple[dict[str, np.ndarray], float]:
        """Scores of the validation and test texts, and the seconds to fit."""
        model = fits[name]()
        if isinstance(model, Linear) and not model.regression.finished:
            say("the linear baseline's fit took too long and ended early: a longer one might be a little better")
        return {split: model.predict(rows.texts, rows.pairs) for split, rows in held_out.items()}, model.seconds

    results: dict[str, Baseline] = {}
    for name in fits if with_linear else ("majority",):
        key = partial(_key_of_baseline, name, classes, train, *held_out.values())
        scores, seconds = memoize("baselines", key, partial(fitted, name))
        results[name] = _measured(data, scores, choose, seconds, constant=name == "majority")
    if embedded is not None:
        probe = fit_probe(embedded.vectors["train"], data.train.labels, classes)
        scores = {split: probe.predict(embedded.vectors[split]) for split in held_out}
        results["embeddings"] = _measured(data, scores, choose, embedded.seconds + probe.seconds)
    return results


def _key_of_baseline(name: str, classes: int, *splits: Rows) -> tuple[str | int, ...]:
    return name, classes, *map(hash_of_rows, splits)


def _measured(
    data: Dataset,
    scores: dict[str, np.ndarray],
    choose: Callable[[np.ndarray], float],
    seconds: float,
    *,
    constant: bool = False,
) -> Baseline:
    """constant: every text has the same scores, so that the report can name its labels."""
    threshold = choose(scores["validation"]) if data.multi_label else 0.5
    validation = measure(data.validation.labels, scores["validation"], threshold)
    test = measure(data.test.labels, scores["test"], threshold) if "test" in scores else None
    if not data.multi_label:
        return Baseline(validation, test, seconds)
    given = [data.label_names[i] for i in np.flatnonzero(labels_above(scores["validation"][0], threshold))]
    return Baseline(validation, test, seconds, threshold, given if constant else None)


def lengths_of(rows: Rows, encoded: Encoded, max_tokens: int) -> Lengths:
    """How long N texts are, in tokens and in characters."""
    second = rows.pairs or [""] * len(rows)
    found = np.array([len(text) + len(pair) for text, pair in zip(rows.texts, second, strict=True)])
    characters = CharacterLengths(
        mean=float(found.mean()),
        median=float(np.median(found)),
        p95=float(np.percentile(found, 95)),
        longest=int(found.max()),
    )
    return Lengths(**length_statistics(encoded, max_tokens), characters=characters)


def time_inference(classifier: Classifier, rows: Rows) -> float:
    """Seconds to classify 100 texts, from text to probabilities: the median of three times, or one if it is long."""
    hundred = rows.take(np.arange(100) % len(rows))
    times: list[float] = []
    while len(times) < 3 and sum(times) < LONG:
        started = time.perf_counter()
        classifier.scores_of_rows(hundred)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def choose_samples(
    rows: Rows, scores: np.ndarray, labels: list[str], seed: int, threshold: float = 0.5
) -> list[SampleText]:
    """Five texts with their predictions: two wrong ones if there are any, the others right."""
    several = rows.labels.ndim == 2
    probabilities = sigmoid(scores) if several else np.exp(log_softmax(scores))
    predicted = labels_above(scores, threshold) if several else probabilities.argmax(axis=1)
    right = (predicted == rows.labels).all(axis=1) if several else predicted == rows.labels
    order = np.random.default_rng(seed).permutation(len(rows))
    wrong_ones, right_ones = order[~right[order]], order[right[order]]
    some_wrong = wrong_ones[: max(2, 5 - len(right_ones))]
    chosen = [*right_ones[: 5 - len(some_wrong)], *some_wrong]

    def names(value: Any) -> Any:
        return [labels[i] for i in np.flatnonzero(value)] if several else labels[int(value)]

    def shown(row: np.ndarray) -> list[int]:
        """The labels whose scores are kept: all, or of many the likeliest."""
        order = range(len(row)) if len(row) <= KEPT_SCORES else np.argsort(-row, kind="stable")[:KEPT_SCORES].tolist()
        return list(order)

    return [
        SampleText(
            text=rows.texts[i] if rows.pairs is None else f"{rows.texts[i]} / {rows.pairs[i]}",
            label=names(rows.labels[i]),
            predicted=names(predicted[i]),
            scores={labels[c]: float(probabilities[i, c]) for c in shown(probabilities[i])},
        )
        for i in chosen
    ]
