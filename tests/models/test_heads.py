"""Heads: what is pooled can be stored, and only words that are asked for are scored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.checkpoints.models import load_model
from minilm.models.batch import Batch
from minilm.models.heads import ClassificationHead, HeadConfig, pool

REFERENCES = Path(__file__).parent.parent / "reference"


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_a_stored_pooled_vector_is_classified_as_the_whole_text_is(pooling: str) -> None:
    head = ClassificationHead(8, 3, HeadConfig(pooling, hidden=5, norm=True)).eval()
    x, batch = torch.randn(2, 4, 8), Batch(torch.zeros(2, 4), torch.tensor([[True] * 4, [True, True, False, False]]))
    assert torch.equal(head.classify(pool(x, batch, pooling)), head(x, batch))


@pytest.mark.parametrize("case", ["bert-lm", "roberta-lm", "distilbert-lm", "albert-lm", "qwen2-lm", "t5-lm"])
@settings(max_examples=5, deadline=None)
@given(asked=st.lists(st.booleans(), min_size=10, max_size=10), seed=st.integers(0, 1 << 20))
def test_words_asked_for_get_the_scores_and_gradients_that_they_get_among_all(
    case: str, asked: list[bool], seed: int
) -> None:
    model = load_model(REFERENCES / case, "lm", dtype=torch.float32)
    ids = torch.randint(4, 60, (2, 5), generator=torch.Generator().manual_seed(seed))
    chosen = torch.tensor(asked).view(2, 5)
    mask, written = torch.arange(5) < torch.tensor([[5], [3]]), ids.flip(1)
    labels = torch.where(chosen, ids, -100)
    everywhere = model(Batch(ids, mask, decoder_ids=written))
    some = model(Batch(ids, mask, labels=labels, decoder_ids=written))
    assert some.shape == (sum(asked), everywhere.shape[-1])
    torch.testing.assert_close(some, everywhere[chosen], rtol=1e-5, atol=1e-5)

    def gradients(scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(scores.square().sum(), list(model.parameters()), materialize_grads=True)

    ours, whole = gradients(some), gradients(everywhere[chosen])
    largest = max(gradient.norm() for gradient in whole)  # keys' biases change nothing: theirs are rounding errors
    for one, other in zip(ours, whole, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6 * largest
