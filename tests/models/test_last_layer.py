"""The last layer computes what the head reads and nothing else, and that is what the whole layer gives there."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch, select_position
from minilm.models.heads import HeadConfig
from tests.families import FAMILIES, POOLERS, SMALL, draw_batch, small_model

# Every family, and of T5 the encoder alone too.
WITHOUT_DECODER = tuple(f"{family} encoder" for family in FAMILIES if "decoder" in ARCHITECTURES[family].switches)
CASES = [(family, pooling) for family in (*FAMILIES, *WITHOUT_DECODER) for pooling in ("cls", "last")]
CASES += [(family, "pooler") for family in POOLERS]


@cache
def small(family: str, pooling: str) -> Backbone:
    """A small classifier in evaluation mode. Tests share it."""
    family, *without = family.split()
    return small_model(family, head=HeadConfig(pooling, hidden=8), **({"decoder": False} if without else {}))


def all_positions(model: Backbone, batch: Batch) -> Tensor:
    """The scores, by way of every position's vector."""
    x = model.vectors(batch)
    assert x.shape == (*batch.ids.shape, SMALL["width"])
    return model.apply_head(x, batch)


@pytest.mark.parametrize(("family", "pooling"), CASES)
@settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3), more=st.integers(0, 2), seed=st.integers(0, 99))
def test_one_position_gives_the_scores_and_gradients_that_all_give(
    family: str, pooling: str, lengths: list[int], more: int, seed: int
) -> None:
    model, batch = small(family, pooling), draw_batch(lengths, more, seed)
    one, every = model(batch), all_positions(model, batch)
    torch.testing.assert_close(one, every, rtol=1e-5, atol=1e-5)
    trained = list(model.parameters())
    ours, whole = (torch.autograd.grad(y.square().sum(), trained, materialize_grads=True) for y in (one, every))
    largest = max(gradient.norm() for gradient in whole)  # keys' biases change nothing: theirs are rounding errors
    for a, b in zip(ours, whole, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6 * largest


@pytest.mark.parametrize(("family", "pooling"), CASES)
def test_the_last_layer_alone_asks_at_one_position(family: str, pooling: str) -> None:
    model, batch, seen = small(family, pooling), draw_batch([5, 3], 1, 1), []
    layers = [module for name, module in model.named_modules() if name.endswith(".mlp")]
    hooks = [layer.register_forward_hook(lambda _, args, y: seen.append(y.shape[1])) for layer in layers]
    with torch.no_grad():
        model(batch)
    for hook in hooks:
        hook.remove()
    assert seen == [6] * (model.num_layers - 1) + [1]


@pytest.mark.parametrize("family", [*FAMILIES, *WITHOUT_DECODER])
def test_a_known_state_goes_on_to_the_same_scores(family: str) -> None:
    model, batch = small(family, "last"), draw_batch([5, 3], 1, 1)
    with torch.no_grad():
        expected, state = model(batch), model.embed(batch)
        for first in range(model.num_layers + 1):
            torch.testing.assert_close(model(batch, state=state, first=first), expected)
            state = model.run(state, batch, first, min(first + 1, model.num_layers))


@pytest.mark.parametrize("family", [*FAMILIES, *WITHOUT_DECODER])
def test_a_mean_reads_all_positions(family: str) -> None:
    model, batch = small(family, "mean"), draw_batch([5, 3], 1, 1)
    with torch.no_grad():
        assert torch.equal(model(batch), all_positions(model, batch))


def test_what_all_texts_share_is_selected_as_what_each_has() -> None:
    shared, at = torch.randn(1, 2, 5, 3), torch.tensor([4, 0, 2])
    assert torch.equal(select_position(shared, at), select_position(shared.expand(3, -1, -1, -1), at))
    assert torch.equal(select_position(shared, at)[1, 0, 0], shared[0, 0, 0])
    assert select_position(shared, None) is shared


def test_the_callers_batch_stays_as_it_is() -> None:
    model, batch = small("bert", "cls"), draw_batch([5, 3], 1, 1)
    model(batch)
    assert batch.query_position is None
