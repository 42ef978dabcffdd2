"""Decisions: from a model's scores to probabilities, and to the labels that a text gets.

The scores z (logits) of a text's C classes become probabilities, with a temperature T that is fitted on the validation
texts (``calibration.py``). The probabilities become an answer:

    single    one label per text    p = softmax(z / T)      the most probable class; with two classes and a threshold,
                                                            the second class if p_2 >= threshold
    multi     several labels        p = sigmoid(z / T)      each label with p_c >= its threshold
    score     no label              z or sigmoid(z)         the number itself

The third kind is for regression models, cross-encoders, rerankers and reward models. As in the pipeline of
``transformers``, a model whose ``problem_type`` is "regression" returns its raw outputs, and a model with a single
output and no problem type returns the sigmoid of its output.

Every threshold refers to the probabilities that are shown, that is, after the temperature is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minilm.callers import option
from minilm.config import TrainSection
from minilm.errors import UserError
from minilm.evaluation.calibration import FEWEST, fit_temperature
from minilm.evaluation.metrics import choose_threshold, log_softmax, sigmoid
from minilm.evaluation.thresholds import (
    best_threshold,
    f1_thresholds,
    jaccard,
    jaccard_thresholds,
    macro_f1,
)
from minilm.measures import RANKING_METRICS

Kind = Literal["single", "multi", "score"]


@dataclass(frozen=True)
class Decision:
    """How scores (N, C) become probabilities and answers."""

    kind: Kind
    # With several labels, one number for all or (C,); with two classes and one label, that of the second class.
    threshold: float | np.ndarray = 0.5
    temperature: np.ndarray | None = None  # (1,), or (C,) with several labels; None: 1
    unsure_below: float = 0.0  # with one label per text: an answer of lower probability is "unsure"
    raw: bool = False  # for the kind "score": z itself instead of its sigmoid

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """z / T, (N, C): the logits after the temperature is applied."""
        return scores if self.temperature is None else np.asarray(scores, np.float64) / self.temperature

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) float64 probabilities; for the kind "score", the output values."""
        if self.kind == "score":
            return np.asarray(scores, np.float64) if self.raw else sigmoid(scores)
        z = self.calibrated(scores)
        return sigmoid(z) if self.kind == "multi" else np.exp(log_softmax(z))

    def choose(self, probabilities: np.ndarray) -> np.ndarray:
        """The labels that texts get: class numbers (N,), or with several labels (N, C) of 0 and 1.

        Among equally probable classes, the first is chosen. Raises TypeError for the kind "score", which has no labels.
        """
        if self.kind == "score":
            raise TypeError("a model of the kind score gives no labels")
        if self.kind == "multi":
            return (probabilities >= self.threshold).astype(np.int64)
        if self.has_threshold:
            return (probabilities[:, 1] >= self.threshold).astype(np.int64)
        return probabilities.argmax(axis=1)

    @property
    def has_threshold(self) -> bool:
        """With one label per text: whether there are two classes, and the second has a threshold."""
        return self.kind == "single" and self.threshold != 0.5

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """(N,) the probability of the label that each text gets, with one label per text."""
        return np.take_along_axis(probabilities, self.choose(probabilities)[:, None], axis=1)[:, 0]

    def is_unsure(self, probabilities: np.ndarray) -> np.ndarray:
        """(N,) bool: which texts get no label, as the probability of their label is below ``unsure_below``."""
        if not self.unsure_below:
            return np.zeros(len(probabilities), dtype=bool)
        return self.confidence(probabilities) < self.unsure_below

    def without_temperature(self) -> Decision:
        """A decision that gives the same labels from probabilities without the temperature.

        z / T >= logit(t) if z >= T logit(t), so a threshold t becomes sigmoid(T logit(t)); 0.5, 0 and 1 stay.
        """
        if self.temperature is None:
            return self
        t = np.asarray(self.threshold, np.float64)
        with np.errstate(divide="ignore"):
            moved = np.where(t == 0.5, 0.5, sigmoid(self.temperature * (np.log(t) - np.log1p(-t))))
        one = moved.size == 1 and not isinstance(self.threshold, np.ndarray)
        return replace(self, threshold=float(moved.reshape(-1)[0]) if one else moved, temperature=None)

    def with_threshold(self, threshold: float, classes: int) -> Decision:
        """The decision with another threshold for all labels. Raises UserError if no label depends on a threshold, or
        if it is not a probability."""
        check_probability(threshold, option("--threshold"))
        if self.kind == "score":
            raise UserError("this model gives a score and no labels, so it cannot have a threshold")
        if self.kind == "single" and classes != 2:
            raise UserError(
                f"a threshold needs several labels per text, or two classes; with {classes} classes and one label per "
                "text, the most probable class is chosen"
            )
        return replace(self, threshold=threshold)

    def with_unsure_below(self, least: float) -> Decision:
        """The decision that answers "unsure" below this probability. Raises UserError with several labels, or if it is
        not a probability."""
        check_probability(least, option("--unsure-below"))
        if self.kind != "single":
            raise UserError(
                f"{option('--unsure-below')} needs a model with one label per text; with several labels, use "
                f"{option('--threshold')} or {option('--min-precision')}"
            )
        return replace(self, unsure_below=least)


def check_probability(value: float, option: str) -> None:
    """Raise UserError unless the value of an option is from 0 to 1."""
    if not 0 <= value <= 1:
        raise UserError(f"{option} must be a number from 0 to 1, got {value:g}")


def plain_decision(labels: np.ndarray) -> Decision:
    """The default decision: a threshold of 0.5 and no temperature.

    labels (N,), or (N, C) with several labels per text.
    """
    return Decision("multi" if labels.ndim == 2 else "single")


def threshold_asked_for(settings: TrainSection, several: bool) -> Literal["validation", "validation-per-label"] | float:
    """``train.decision_threshold``; "auto" is "validation" if a text may have several labels, otherwise 0.5."""
    asked = settings.decision_threshold
    if asked == "auto":
        return "validation" if several else 0.5
    return asked


def fit_decision(
    settings: TrainSection, labels: np.ndarray, scores: np.ndarray, *, calibrate: bool = True
) -> Decision:
    """Fit a decision on validation texts: first the temperature, then the threshold if ``train.decision_threshold``
    asks for it.

    labels (N,), or (N, C) of 0 and 1; scores (N, C). calibrate: whether to fit a temperature.

    With fewer than ``calibration.FEWEST`` texts the decision has no temperature. The threshold is chosen with one all
    the same, as it makes the labels' scores comparable, and then moved: the labels that texts get do not change.
    """
    decision, enough = plain_decision(labels), len(labels) >= FEWEST
    if calibrate:
        decision = replace(decision, temperature=fit_temperature(labels, scores))
    z = decision.calibrated(scores)
    match threshold_asked_for(settings, labels.ndim == 2):
        case "validation":
            # The metric that chooses the checkpoint; micro F1 if that metric does not depend on a threshold.
            metric = "micro_f1" if settings.best in ("loss", *RANKING_METRICS) else settings.best
            threshold: float | np.ndarray = choose_threshold(labels, z, metric)
        case "validation-per-label":
            threshold = _best_thresholds(labels, decision.probabilities(scores), settings.threshold_metric)
        case number:  # refers to the probabilities that are shown
            decision, threshold = decision if enough else plain_decision(labels), number
    decision = replace(decision, threshold=threshold)
    return decision if enough else decision.without_temperature()


def _best_thresholds(labels: np.ndarray, probabilities: np.ndarray, metric: str) -> float | np.ndarray:
    """(C,) one threshold per label; with one label per text, one number: that of the second of two classes."""
    if labels.ndim == 1:
        criterion = macro_f1 if metric == "f1" else jaccard
        return best_threshold(labels, probabilities[:, 1], criterion).threshold
    return (f1_thresholds if metric == "f1" else jaccard_thresholds)(labels, probabilities)
