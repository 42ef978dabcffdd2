"""What a classifier is trained to make small.

One class a text: cross-entropy of the scores z with the true class y,  -log softmax(z)_y . Label smoothing (Szegedy et al.
2016) gives the share s of the target to all classes alike; class weights count rare classes for more.

Several labels a text: binary cross-entropy, one yes-or-no question a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]  # scores (B, C), labels (B,) or (B, C) -> the mean loss


def balanced_weights(labels: np.ndarray, classes: int) -> list[float]:
    """Weights N / (C n_c) for labels (N,), so that every class counts the same in all (King and Zeng 2001)."""
    counts = np.bincount(labels, minlength=classes)
    return [float(len(labels) / (classes * count)) if count else 0.0 for count in counts]


def make_objective(
    weights: Sequence[float] | None = None, *, label_smoothing: float = 0.0, multi_label: bool = False
) -> Objective:
    """The loss as a function of scores and labels, in float32 whatever the scores' precision."""
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
        weight = None if tensor is None else tensor.to(scores.device)
        return F.cross_entropy(scores.float(), labels, weight, label_smoothing=label_smoothing)

    def binary_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
        positive = None if tensor is None else tensor.to(scores.device)
        return F.binary_cross_entropy_with_logits(scores.float(), labels.float(), pos_weight=positive)

    return binary_cross_entropy if multi_label else cross_entropy
