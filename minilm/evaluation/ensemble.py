"""Ensembles: combine classifiers of several seeds or folds into one.

The probability of a label is the mean of the probabilities of M classifiers (Lakshminarayanan et al. 2017, "Simple and
Scalable Predictive Uncertainty Estimation using Deep Ensembles"):

    p(c) = 1/M sum_m  p_m(c)                        each p_m with the temperature of its own classifier

Each threshold is the mean of the members' thresholds of the same label.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minilm.callers import option
from minilm.data.rows import Rows
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision
from minilm.evaluation.linear_classifier import holds_linear, load_linear
from minilm.evaluation.predictor import Classifier, Predictor
from minilm.evaluation.validation_scores import ValidationScores
from minilm.evaluation.zero_shot_model import holds_zero_shot, load_zero_shot

LEAST = 1e-300  # the least probability, as 0 has no logarithm


class Ensemble(Predictor):
    """The mean of several classifiers with the same labels."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        """Raises UserError if the members differ in their labels or in how they read texts."""
        first = members[0]
        for other in members[1:]:
            if set(other.labels) != set(first.labels) or other.decision.kind != first.decision.kind:
                raise UserError(f"{other.name}: has other labels than {first.name}; an ensemble needs the same")
            if other.reading.pairs != first.reading.pairs or other.reading.clean != first.reading.clean:
                raise UserError(f"{other.name}: differs from {first.name} in data.text_pair or data.clean")
        self.members = list(members)
        self.name, self.labels = " + ".join(member.name for member in members), first.labels
        self.reading, self.clean = first.reading, first.clean
        kind = first.decision.kind
        self.decision = Decision("score", raw=True) if kind == "score" else Decision(kind, self._mean_threshold())
        # (M, C): where each member has the labels of the first.
        self.order = [[member.labels.index(label) for label in self.labels] for member in members]

    def _mean_threshold(self) -> float | np.ndarray:
        thresholds = []
        for member in self.members:
            values = np.broadcast_to(member.decision.threshold, (len(self.labels),))
            if member.multi_label:
                values = values[[member.labels.index(name) for name in self.labels]]
            elif len(self.labels) == 2 and member.labels != self.labels:
                values = 1 - values  # it belongs to the member's second label, which is the first here
            thresholds.append(values)
        mean = np.mean(thresholds, axis=0)
        return float(mean[0]) if np.ptp(mean) == 0 else mean

    def scores_of_clean(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        """(N, C) the logits of the mean probabilities."""
        return self._joined([member.scores_of_clean(texts, pairs) for member in self.members])

    def scores_and_plain(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """See ``Predictor.scores_and_plain``: the second are the logits of the mean without the members' temperatures.
        Each member reads the texts once."""
        found = [member.scores_of_rows(rows) for member in self.members]
        return self._joined(found), self._joined(found, plain=True)

    def _joined(self, scores: Sequence[np.ndarray], *, plain: bool = False) -> np.ndarray:
        """The scores of each member (N, C) -> logits of the mean probabilities (N, C), float64.

        plain: without the members' temperatures.
        """
        decisions = [m.decision.without_temperature() if plain else m.decision for m in self.members]
        found = [
            decision.probabilities(z)[:, order]
            for decision, z, order in zip(decisions, scores, self.order, strict=True)
        ]
        p = np.mean(found, axis=0)
        if self.decision.kind == "score":
            return p
        z: np.ndarray = np.log(np.maximum(p, LEAST))
        return z - np.log(np.maximum(1 - p, LEAST)) if self.multi_label else z

    def watch(self, progress: Callable[[float], None]) -> None:
        """See ``Predictor.watch``. Each member reads the texts once."""
        for member in self.members:
            member.watch(lambda fraction: progress(fraction / len(self.members)))

    def without_temperature(self) -> None:
        """See ``Predictor.without_temperature``; applies to each member."""
        for member in self.members:
            member.without_temperature()
        self.decision = replace(self.decision, threshold=self._mean_threshold())

    def counted_anew(self) -> Ensemble:
        """See ``Predictor.counted_anew``."""
        found = copy.copy(self)
        found.members = [member.counted_anew() for member in self.members]
        return found

    def cut_message(self) -> str:
        """See ``Predictor.cut_message``; counts what the first member does not read."""
        return self.members[0].cut_message()

    def identity(self) -> str:
        """See ``Predictor.identity``."""
        return repr(([member.identity() for member in self.members], self.decision))

    def validation(self) -> ValidationScores:
        """See ``Predictor.validation``. Raises UserError if the members were validated on other texts."""
        found = [member.validation() for member in self.members]
        labels = [_reordered(each.labels, order) for each, order in zip(found, self.order, strict=True)]
        for member, own in zip(self.members[1:], labels[1:], strict=True):
            if own.shape != labels[0].shape or (own != labels[0]).any():
                raise UserError(
                    f"{member.name}: has other validation texts than {self.members[0].name}, so "
                    f"{option('--min-precision')} is not possible; use {option('--unsure-below')} or "
                    f"{option('--threshold')} instead"
                )
        return ValidationScores(self._joined([each.scores for each in found]), labels[0])


def _reordered(labels: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A member's labels, with the class numbers of the first member."""
    return labels[:, order] if labels.ndim == 2 else np.argsort(order)[labels]


def load_predictor(sources: Sequence[str | Path], device: str = "auto", precision: str = "") -> Predictor:
    """Load a classifier, a linear one, or the model of a zero-shot run; an ensemble if there are several sources.

    See ``Classifier.load``.
    """
    members: list[Predictor] = []
    for source in sources:
        if holds_linear(Path(source)):
            members.append(load_linear(Path(source)))
        elif holds_zero_shot(Path(source)):
            members.append(load_zero_shot(Path(source), device, precision))
        else:
            members.append(Classifier.load(source, device, precision))
    return members[0] if len(members) == 1 else Ensemble(members)
