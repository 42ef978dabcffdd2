from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from minilm.training.objectives import LanguageObjective, Objective, balanced_weights


def scores_and_labels(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(rows, classes, generator=generator)
    return scores, torch.randint(classes, (rows,), generator=generator)


@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 99), st.booleans(), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_mean_is_torchs_cross_entropy(rows: int, classes: int, seed: int, weighted: bool, smoothing: float) -> None:
    scores, labels = scores_and_labels(rows, classes, seed)
    weights = torch.rand(classes) + 0.1 if weighted else None
    objective = Objective(weights, smoothing)
    mean = objective.sum(scores, labels) / objective.denominator(labels)
    torch.testing.assert_close(mean, F.cross_entropy(scores, labels, weights, label_smoothing=smoothing))


@given(st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_with_several_labels_the_mean_is_torchs_binary_cross_entropy(rows: int, classes: int, weighted: bool) -> None:
    scores, labels = torch.randn(rows, classes), torch.randint(2, (rows, classes))
    weights = torch.rand(classes) + 0.1 if weighted else None
    objective = Objective(weights, multi_label=True)
    mean = objective.sum(scores, labels) / objective.denominator(labels)
    torch.testing.assert_close(mean, F.binary_cross_entropy_with_logits(scores, labels.float(), pos_weight=weights))


def test_smoothing_with_several_labels_gives_both_answers_an_equal_share() -> None:
    scores, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]])
    expected = F.binary_cross_entropy_with_logits(scores, torch.tensor([[0.9, 0.1]]), reduction="sum")
    torch.testing.assert_close(Objective(None, 0.2, multi_label=True).sum(scores, labels), expected)


def test_a_loss_is_float32_for_scores_of_any_precision() -> None:
    scores, labels = scores_and_labels(4, 3, 0)
    assert Objective().sum(scores.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [2, 0, 1, 1, 1, 2, 2, 2]])
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    array = np.array(labels)
    expected = compute_class_weight("balanced", classes=np.unique(array), y=array)
    torch.testing.assert_close(balanced_weights(array, len(expected)), torch.tensor(expected, dtype=torch.float32))


def test_balanced_weights_make_yes_and_no_weigh_the_same_with_several_labels() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == [3.0, 1.0, pytest.approx(1 / 3)]  # the second label never occurs


def test_a_label_that_every_text_has_still_trains() -> None:
    assert balanced_weights(np.array([[1, 0], [1, 1], [1, 0]]), 2).tolist() == [1.0, 2.0]


def test_a_class_without_texts_does_no_harm() -> None:
    assert balanced_weights(np.array([0, 0, 2]), 3).tolist() == [0.5, 1.0, 1.0]


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99), st.sampled_from([0.0, 0.1]))
def test_a_language_models_mean_is_torchs_cross_entropy_where_words_are_asked_for(
    texts: int, length: int, seed: int, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(texts, length, 7, generator=generator)
    labels = torch.randint(7, (texts, length), generator=generator)
    labels[torch.rand(texts, length, generator=generator) < 0.5] = -100
    labels[0, 0] = 3
    objective = LanguageObjective(smoothing)
    assert objective.denominator(labels) == (labels != -100).sum()
    mean = objective.sum(scores[labels >= 0], labels) / objective.denominator(labels)
    peer = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)  # it knows -100 itself
    torch.testing.assert_close(mean, peer)
