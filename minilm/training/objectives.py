"""The loss functions that training minimises.

One class per text: cross-entropy of the scores z_i (C) with the true class y_i. Classes may have weights w, and label
smoothing (Szegedy et al. 2016) distributes the fraction s of each target equally over all C classes:

    l_ic = -log softmax(z_i)_c
    loss = sum_i ( (1 - s) w_{y_i} l_{i,y_i}  +  s/C sum_c w_c l_ic )  /  sum_i w_{y_i}

Each smoothed term has the weight of its own class, not of the true class, and the sum of weights in the denominator
includes only the true classes, as in ``torch.nn.functional.cross_entropy``.

Several labels per text: binary cross-entropy for each label, in which positives may have a weight. Smoothing gives s/2
to each of the two outcomes: a target of 1 becomes 1 - s/2, and 0 becomes s/2.

    t_ic = (1 - s) y_ic + s/2
    loss = mean_{i,c}  -w_c t_ic log sigmoid(z_ic) - (1 - t_ic) log(1 - sigmoid(z_ic))

Language model: cross-entropy of the scores of all tokens of the vocabulary with the true token, at the positions that
are predicted. The exponential of the mean loss is the perplexity. A perplexity of k means that the model is as
uncertain as if it chose among k equally likely tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """The loss in two parts, ``sum / denominator``, so that the mean over several batches can be computed exactly."""

    weights: Tensor | None = None  # (C,) float32
    label_smoothing: float = 0.0
    multi_label: bool = False

    def sum(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses, in float32: scores (B, C); labels (B,), or (B, C) of 0 and 1."""
        scores, share = scores.float(), self.label_smoothing
        weights = None if self.weights is None else self.weights.to(scores.device)
        if self.multi_label:
            targets = labels * (1 - share) + share / 2
            return F.binary_cross_entropy_with_logits(scores, targets, pos_weight=weights, reduction="sum")
        return F.cross_entropy(scores, labels, weights, label_smoothing=share, reduction="sum")

    def denominator(self, labels: Tensor) -> float:
        """The divisor of the sum: the number of texts, or the sum of their weights; with several labels, B C."""
        if self.multi_label or self.weights is None:
            return labels.numel()
        return float(self.weights[labels].sum())


@dataclass(frozen=True)
class LanguageObjective:
    """The same for language models, which predict tokens at some positions."""

    label_smoothing: float = 0.0

    def sum(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses, in float32. labels (B, T), in T5 (B, T'): negative at positions that are not
        predicted. scores (N, V): of the N other positions, row after row, from a ``LanguageHead``."""
        targets = labels[labels >= 0]
        return F.cross_entropy(scores.float(), targets, label_smoothing=self.label_smoothing, reduction="sum")

    def denominator(self, labels: Tensor) -> float:
        """The divisor of the sum: the number of predicted tokens."""
        return int((labels >= 0).sum())


def balanced_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights (C,) with which every class contributes equally to the loss (King and Zeng 2001).

    Labels (N,): ``N / (C n_c)`` for a class with n_c texts. Labels (N, C): ``(N - n_c) / n_c``, so that the positives
    of a label have the same total weight as its negatives. A class without texts, or a label that all texts have, gets
    the weight 1.
    """
    if labels.ndim == 2:
        counts = labels.sum(axis=0)
        weights = (len(labels) - counts) / np.maximum(counts, 1)
    else:
        counts = np.bincount(labels, minlength=classes)
        weights = len(labels) / (classes * np.maximum(counts, 1))
    return torch.tensor(np.where((counts > 0) & (weights > 0), weights, 1.0), dtype=torch.float32)
