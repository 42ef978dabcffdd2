"""The results of a finished run: metrics of every split, baselines, times and samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minilm.data.rows import Rows
from minilm.data.sources import Dataset
from minilm.data.tokenization import Encoded, length_statistics
from minilm.evaluation.baselines import Linear, Majority, linear, majority
from minilm.evaluation.decisions import Decision, plain_decision
from minilm.evaluation.embeddings import fit_probe
from minilm.evaluation.measuring import measure
from minilm.evaluation.predictor import Classifier
from minilm.reporting.results import Baseline, CharacterLengths, Lengths, SampleText
from minilm.runs.shared_cache import hash_of_rows, memoize
from minilm.training.console import say

LONG = 10.0  # seconds
KEPT_SCORES = 100  # the most labels whose scores are stored for a sample text


@dataclass(frozen=True)
class Embedded:
    """The vectors of all texts, computed by the checkpoint before training."""

    vectors: dict[str, np.ndarray]  # split -> (N, D)
    seconds: float  # for the training texts


def fit_baselines(
    data: Dataset,
    choose: Callable[[np.ndarray], Decision],
    embedded: Embedded | None = None,
    *,
    with_linear: bool = True,
) -> dict[str, Baseline]:
    """The metrics of the majority class and of a linear model on TF-IDF features, on the same splits.

    With ``embedded``, also those of a linear model on the checkpoint's vectors. ``choose`` fits the decision to the
    scores of the validation texts, as for the model.
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
        """The scores of the validation and test texts, and the fitting time in seconds."""
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
    choose: Callable[[np.ndarray], Decision],
    seconds: float,
    *,
    constant: bool = False,
) -> Baseline:
    """constant: whether all texts have the same scores, so that the report can name their labels."""
    decision = choose(scores["validation"])
    validation = measure(data.validation.labels, scores["validation"], decision)
    test = measure(data.test.labels, scores["test"], decision) if "test" in scores else None
    threshold = stored_threshold(decision)
    if not data.multi_label:
        return Baseline(validation, test, seconds, threshold)
    chosen = decision.choose(decision.probabilities(scores["validation"][:1]))[0]
    given = [data.label_names[i] for i in np.flatnonzero(chosen)]
    return Baseline(validation, test, seconds, threshold, given if constant else None)


def stored_threshold(decision: Decision) -> float | list[float] | None:
    """The threshold as stored in files; None if no label depends on a threshold."""
    if decision.kind == "single" and not decision.has_threshold:
        return None
    return decision.threshold.tolist() if isinstance(decision.threshold, np.ndarray) else decision.threshold


def lengths_of(rows: Rows, encoded: Encoded, max_tokens: int) -> Lengths:
    """The lengths of N texts, in tokens and in characters."""
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
    """The seconds to classify 100 texts, from text to probabilities: the median of three measurements, or one if
    slow."""
    hundred = rows.take(np.arange(100) % len(rows))
    times: list[float] = []
    while len(times) < 3 and sum(times) < LONG:
        started = time.perf_counter()
        classifier.scores_of_rows(hundred)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def choose_samples(
    rows: Rows,
    scores: np.ndarray,
    labels: list[str],
    seed: int,
    decision: Decision | None = None,
    *,
    labelled: bool = True,
) -> list[SampleText]:
    """Five texts with their predictions: two wrong ones if there are any, and right ones.

    labelled: if False, the texts have no labels, and are drawn at random.
    """
    several = rows.labels.ndim == 2
    decision = decision or plain_decision(rows.labels)
    probabilities = decision.probabilities(scores)
    predicted = decision.choose(probabilities)
    right = (predicted == rows.labels).all(axis=1) if several else predicted == rows.labels
    order = np.random.default_rng(seed).permutation(len(rows))
    wrong_ones, right_ones = order[~right[order]], order[right[order]]
    some_wrong = wrong_ones[: max(2, 5 - len(right_ones))]
    chosen = [*right_ones[: 5 - len(some_wrong)], *some_wrong] if labelled else order[:5].tolist()

    def names(value: Any) -> Any:
        return [labels[i] for i in np.flatnonzero(value)] if several else labels[int(value)]

    def shown(row: np.ndarray) -> list[int]:
        """The labels whose scores are stored: all, or if there are many, the most probable."""
        order = range(len(row)) if len(row) <= KEPT_SCORES else np.argsort(-row, kind="stable")[:KEPT_SCORES].tolist()
        return list(order)

    return [
        SampleText(
            text=rows.texts[i] if rows.pairs is None else f"{rows.texts[i]} / {rows.pairs[i]}",
            label=names(rows.labels[i]) if labelled else "",
            predicted=names(predicted[i]),
            scores={labels[c]: float(probabilities[i, c]) for c in shown(probabilities[i])},
            pair=None if rows.pairs is None else rows.pairs[i],
        )
        for i in chosen
    ]
