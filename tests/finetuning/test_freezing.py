"""Freezing: what trains, what does not, and in which mode each part runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from minilm.errors import UserError
from minilm.finetuning.freezing import freeze, frozen_layers, training_mode
from minilm.models import build_model, without_weights
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.heads import HeadConfig, mlp_head
from minilm.models.llama import LlamaConfig
from tests.families import ENCODER_DECODERS, FAMILIES, small_model


def classifier(family: str, head: HeadConfig | None = None, **changes: Any) -> Backbone:
    """A small classifier of four layers (an encoder-decoder: four and four) with the family's own head."""
    deep = {"depth": 4} | ({"decoder_depth": 4} if family in ENCODER_DECODERS else {})
    return small_model(family, head=head, **(deep | changes))


def trained(model: nn.Module) -> set[str]:
    """The parts that train, told by the beginnings of their names."""
    names = [name.split(".") for name, p in model.named_parameters() if p.requires_grad]
    return {".".join(n[: {"layers": 2, "encoder": 3, "decoder": 3}.get(n[0], 1)]) for n in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_backbone_trains_its_head_alone_pooler_excluded(family: str) -> None:
    model = classifier(family)
    freeze(model, "backbone")
    assert trained(model) == {"head"}
    assert frozen_layers(model) == model.num_layers


@pytest.mark.parametrize(
    ("family", "part", "layers", "expected", "fixed"),
    [
        ("bert", "all-but-last", 1, {"layers.3", "pooler", "head"}, 3),
        ("bert", "first", 2, {"layers.2", "layers.3", "pooler", "head"}, 2),
        ("bert", "first", 0, {f"layers.{i}" for i in range(4)} | {"pooler", "head"}, 0),
        ("roberta", "all-but-last", 2, {"layers.2", "layers.3", "head"}, 2),
        ("distilbert", "all-but-last", 2, {"layers.2", "layers.3", "head"}, 2),
        ("gpt2", "all-but-last", 3, {"layers.1", "layers.2", "layers.3", "norm", "head"}, 1),
        ("llama", "first", 3, {"layers.3", "norm", "head"}, 3),
        ("llama", "first", 4, {"norm", "head"}, 4),
        ("albert", "first", 0, {"layers.0", "pooler", "head"}, 0),
        ("t5", "all-but-last", 1, {"decoder.layers.3", "decoder.norm.weight", "head"}, 7),
        ("t5", "first", 4, {f"decoder.layers.{i}" for i in range(4)} | {"decoder.norm.weight", "head"}, 4),
        (
            "t5", "all-but-last", 5,
            {"encoder.layers.3", "encoder.norm.weight", "decoder.norm.weight", "head"}
            | {f"decoder.layers.{i}" for i in range(4)},
            3,
        ),
    ],
)  # fmt: skip
def test_the_parts_named_train_and_the_layers_before_them_are_fixed(
    family: str, part: str, layers: int, expected: set[str], fixed: int
) -> None:
    model = classifier(family)
    freeze(model, part, layers)
    assert trained(model) == expected
    assert frozen_layers(model) == fixed


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_frozen_leaves_nothing_fixed(family: str) -> None:
    model = classifier(family)
    freeze(model, "nothing")
    assert all(p.requires_grad for p in model.parameters())
    assert frozen_layers(model) == -1


@pytest.mark.parametrize(
    ("family", "part", "layers", "message"),
    [
        ("albert", "all-but-last", 2, "all 4 layers of this model share one set of weights"),
        ("albert", "first", 2, "all 4 layers of this model share one set of weights"),
        ("bert", "first", 5, "freeze.layers is 5, but the model has 4 layers"),
        ("t5", "all-but-last", 9, "freeze.layers is 9, but the model has 8 layers"),
    ],
)
def test_layers_that_cannot_be_frozen_are_refused(family: str, part: str, layers: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        freeze(classifier(family), part, layers)


@pytest.mark.parametrize(("part", "layers"), [("all_but_last", 1), ("first", -1)])
def test_what_is_no_way_to_freeze_is_refused_rather_than_guessed(part: str, layers: int) -> None:
    with pytest.raises(ValueError, match="part must be one of nothing, backbone, all-but-last, first and layers at"):
        freeze(classifier("bert"), part, layers)


def test_bielik_with_its_last_three_layers_and_the_studys_head_trains_141_247_491_parameters() -> None:
    config = LlamaConfig(
        vocab_size=32000, width=1536, depth=32, heads=12, kv_heads=2, mlp_width=8960,
        attention_bias=True, output_bias=True, mlp_bias=True,
    )  # fmt: skip
    with without_weights():
        model = build_model("llama", config, "classify", classes=3, head=mlp_head(1536, hidden=512, norm=True))
    freeze(model, "all-but-last", 3)
    assert sum(p.numel() for p in model.parameters()) == 1_548_145_155
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 141_247_491
    assert frozen_layers(model) == 29


def test_frozen_parts_run_without_dropout_and_the_others_with_it() -> None:
    model = classifier("bert", dropout=0.5)
    freeze(model, "first", 2)
    training_mode(model)
    modes = {name: module.training for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert not modes["embeddings.dropout"] and not modes["layers.1.dropout"]
    assert modes["layers.2.dropout"] and modes["head.dropout"]
    ids = torch.arange(12).reshape(2, 6)
    before = [model.run(model.embed(b), b, 0, 2).x for b in [Batch.of(ids)] * 2]
    assert torch.equal(*before)
    assert not torch.equal(model(ids), model(ids))
