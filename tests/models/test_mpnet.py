"""MPNet: its published size, relative positions that all layers share, where its tokens begin, where it drops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minilm.checkpoints.configs import read_config, write_config
from minilm.checkpoints.models import load_model
from minilm.errors import UserError
from minilm.finetuning.freezing import freeze
from minilm.models import build_model, without_weights
from minilm.models.batch import Batch
from tests.families import small_model

transformers = pytest.importorskip("transformers")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("task", "parameters"), [("encode", 109_486_464), ("lm", 109_518_527)])
def test_base_has_the_number_of_parameters_that_it_has_there(task: str, parameters: int) -> None:
    settings = {"max_position_embeddings": 514}  # of mpnet-base, from memory, beside the published class's defaults
    with without_weights():
        model = build_model("mpnet", read_config({"model_type": "mpnet", **settings}), task)
    kind = {"encode": "MPNetModel", "lm": "MPNetForMaskedLM"}[task]
    with torch.device("meta"):
        theirs = getattr(transformers, kind)(transformers.MPNetConfig(**settings))
    theirs.tie_weights()
    assert count(model) == count(theirs) == parameters
    assert model.context == 512


@torch.no_grad()
def test_all_layers_add_one_number_a_head_by_distance_to_their_scores() -> None:
    model: Any = small_model("mpnet", "encode")
    mask = model.mask(Batch(torch.zeros(1, 300, dtype=torch.long)))[0]  # (H, T, T)
    for distance in (0, 1, -1, 7, -7, 200, -200):
        numbers = mask.diagonal(distance, 1, 2)  # (H, T - |distance|)
        assert torch.equal(numbers, numbers[:, :1].expand_as(numbers))
    assert torch.equal(mask[:, 0, 250], mask[:, 0, 129]) and torch.equal(mask[:, 250, 0], mask[:, 129, 0])
    assert len(torch.unique(mask[0])) == 31  # of 32 buckets: a key on the right is at least at distance 1
    assert sum("relative_bias" in name for name, _ in model.named_parameters()) == 1


def test_its_table_of_relative_positions_is_frozen_with_the_embeddings() -> None:
    model: Any = small_model("mpnet")
    freeze(model, "first", 0)
    assert not model.relative_bias.weight.requires_grad and all(p.requires_grad for p in model.layers.parameters())


def test_tokens_begin_at_row_2_of_the_position_table_whatever_token_pads() -> None:
    config = read_config({"model_type": "mpnet", "max_position_embeddings": 20, "pad_token_id": 5})
    assert config.context == 18 and write_config("mpnet", config)["max_position_embeddings"] == 20
    model: Any = small_model("mpnet", "encode")
    before = model(torch.tensor([[7, 8]]))
    model.embeddings.position.weight.data[:2] = 9.0
    assert torch.equal(model(torch.tensor([[7, 8]])), before)
    model.embeddings.position.weight.data[2] = 9.0
    assert not torch.equal(model(torch.tensor([[7, 8]])), before)


def test_fewer_rows_than_buckets_are_refused() -> None:
    with pytest.raises(UserError, match=r"relative_attention_num_buckets\) must be at least 32, got 16"):
        read_config({"model_type": "mpnet", "relative_attention_num_buckets": 16})


@pytest.mark.parametrize("kind", ["ForSequenceClassification", "ForMaskedLM"])
@pytest.mark.usefixtures("torch_dropout")
def test_training_draws_the_same_dropout_as_transformers(kind: str, tmp_path: Path) -> None:
    config = transformers.MPNetConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    theirs = getattr(transformers, f"MPNet{kind}")(config).train()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path).train()
    ours.head.query_position = lambda batch: None  # the last layer computes all positions, as theirs does
    ids, mask = torch.randint(5, 50, (2, 9)), torch.arange(9) < torch.tensor([[9], [6]])
    ids = ids.masked_fill(~mask, 1)
    torch.manual_seed(2)
    y = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.manual_seed(2)
    z = ours(ids, mask)
    real = mask if y.dim() == 3 else torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(z[real], y[real], atol=1e-5, rtol=1e-5)
