"""GPT-2 before it is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from minilm.models.gpt2 import GPT2, GPT2Config, initialize


@pytest.mark.parametrize("depth", [2, 8])
def test_weights_are_drawn_with_0_02_and_on_the_residual_path_with_less_the_deeper_the_model_is(depth: int) -> None:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=200, context=64, width=128, depth=depth, heads=2))
    initialize(model)
    scaled = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            residual = name.endswith((".attention.output", ".mlp.down"))
            scaled += residual
            expected = 0.02 / (2 * depth) ** 0.5 if residual else 0.02
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), name
            assert module.weight.mean().item() == pytest.approx(0, abs=0.1 * expected), name
        if isinstance(module, nn.Linear):
            assert not module.bias.any(), name
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all()) and not module.bias.any(), name
    assert scaled == 2 * depth
