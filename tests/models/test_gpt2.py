"""GPT-2 before it is trained, and the settings of its relatives that change the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import read_config, write_config
from minilm.errors import UserError
from minilm.models.gpt2 import GPT2, GPT2Config, initialize
from tests.families import small_config, small_model


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


@pytest.mark.parametrize(
    ("by_width", "by_layer", "scales"),
    [(True, False, (None, None)), (True, True, (0.25, 0.125)), (False, False, (1, 1)), (False, True, (1, 0.5))],
)
def test_scores_are_divided_by_width_and_by_layer(by_width: bool, by_layer: bool, scales: tuple[float | None]) -> None:
    config = GPT2Config(width=64, heads=4, depth=2, scale_by_head_width=by_width, scale_by_layer=by_layer)
    assert tuple(config.scale(layer) for layer in range(2)) == scales
    assert read_config(write_config("gpt2", config)) == config


@pytest.mark.parametrize("change", [{"scale_by_head_width": False}, {"scale_by_layer": True}])
def test_each_scale_changes_the_numbers(change: dict[str, bool]) -> None:
    plain, ids = small_model("gpt2", "encode"), torch.tensor([[5, 6, 7]])
    other = GPT2(small_config("gpt2", **change)).eval()
    other.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(ids), other(ids), atol=1e-3)


def test_the_embeddings_dropout_is_the_layers_but_for_a_published_one() -> None:
    assert GPT2Config(dropout=0.3).embedding_dropout == 0.3
    published = {"model_type": "gpt2", "resid_pdrop": 0.0}
    assert read_config(published).embedding_dropout == 0.1  # the published class's default
    config = read_config({**published, "embd_pdrop": 0.2})
    assert (config.dropout, config.embedding_dropout) == (0.0, 0.2)
    assert GPT2(replace(config, width=4, heads=1, depth=1)).embeddings.dropout.p == 0.2
    assert write_config("gpt2", config)["embd_pdrop"] == 0.2


def test_a_gpt2_with_cross_attention_is_refused() -> None:
    with pytest.raises(UserError, match="add_cross_attention"):
        read_config({"model_type": "gpt2", "add_cross_attention": True})
