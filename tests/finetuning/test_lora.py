"""LoRA: what it computes, what it trains, what it adapts; and that merging can be taken back."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minilm.errors import UserError
from minilm.finetuning.lora import (
    DoRALinear,
    LoRAConfig,
    LoRALinear,
    adapted_layers,
    adapter_parameters,
    add_lora,
    merge,
    unmerge,
)
from minilm.models import ARCHITECTURES, build_model
from minilm.models.heads import HeadConfig
from minilm.training.optimizer import parameter_groups

SMALL = {"vocab_size": 16, "width": 12, "depth": 3, "heads": 3, "mlp_width": 20}


def make(model_type: str, task: str = "classify", **settings: Any) -> Any:
    """A tiny model in evaluation mode, all its numbers random."""
    torch.manual_seed(0)
    config = ARCHITECTURES[model_type].config(**{**SMALL, **settings})
    model = build_model(model_type, config, task, classes=4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def train_b(model: nn.Module) -> None:
    """B is zero at the start: give it numbers."""
    for name, parameter in adapter_parameters(model).items():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=0.3)


def scores(model: nn.Module) -> torch.Tensor:
    ids = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0]])
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    with torch.no_grad():
        result: torch.Tensor = model(ids, mask)
    return result


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.floats(0.1, 50), st.booleans(), st.booleans(),
    st.sampled_from([(), (2,), (2, 3)]),
)  # fmt: skip
@settings(max_examples=30)
def test_the_formula(
    into: int, out: int, rank: int, alpha: float, bias: bool, stabilized: bool, shape: tuple[int, ...]
) -> None:
    base = nn.Linear(into, out, bias=bias)
    layer = LoRALinear(base, rank, alpha, rank_stabilized=stabilized)
    x = torch.randn(*shape, into)
    torch.testing.assert_close(layer(x), base(x), rtol=0, atol=0)  # B is zero at first
    nn.init.normal_(layer.lora_b)
    s = alpha / math.sqrt(rank) if stabilized else alpha / rank
    expected = base(x) + s * (x @ layer.lora_a.T @ layer.lora_b.T)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged()(x), expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.sampled_from([(), (2,), (2, 3)]))
@settings(max_examples=30)
def test_doras_formula(into: int, out: int, rank: int, bias: bool, shape: tuple[int, ...]) -> None:
    base = nn.Linear(into, out, bias=bias)
    layer = DoRALinear(base, rank, 8.0)
    x = torch.randn(*shape, into)
    torch.testing.assert_close(layer(x), base(x))  # m is the length of W's rows at first
    nn.init.normal_(layer.lora_b)
    nn.init.uniform_(layer.lora_magnitude, 0.5, 2)
    v = base.weight + 8.0 / rank * layer.lora_b @ layer.lora_a
    weight = layer.lora_magnitude[:, None] * v / v.square().sum(dim=1, keepdim=True).sqrt()
    expected = nn.functional.linear(x, weight, base.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    merged = layer.merged()
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.weight.norm(dim=1), layer.lora_magnitude.detach())


def test_doras_lengths_are_trained_and_do_not_decay() -> None:
    model = make("bert")
    add_lora(model, LoRAConfig(rank=2, targets=("query",), dora=True))
    name = "layers.0.attention.query.lora_magnitude"
    assert model.get_parameter(name).requires_grad and name in adapter_parameters(model)
    decayed = parameter_groups(model, 0.1)[0]["params"]
    assert not any(parameter is model.get_parameter(name) for parameter in decayed)


def test_a_is_drawn_as_in_the_papers_code() -> None:
    layer = LoRALinear(nn.Linear(400, 300), 50, 16)
    assert layer.lora_a.abs().max() <= 1 / math.sqrt(400)
    assert layer.lora_a.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.03)


def test_dropout_is_on_the_adapters_input_alone() -> None:
    layer = LoRALinear(nn.Linear(40, 30), 8, 16, dropout=0.5)
    x = torch.randn(2, 40)
    torch.testing.assert_close(layer(x), layer.merged()(x), rtol=0, atol=0)  # B is zero: nothing shows
    nn.init.normal_(layer.lora_b)
    torch.manual_seed(3)
    dropped = layer(x)
    torch.manual_seed(3)
    update = layer.dropout(x) @ layer.lora_a.T @ layer.lora_b.T
    torch.testing.assert_close(dropped, nn.functional.linear(x, layer.weight, layer.bias) + 2 * update)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.merged()(x))


def test_an_adapter_in_a_model_that_predicts_drops_nothing() -> None:
    model = make("bert")
    add_lora(model, LoRAConfig(dropout=0.5))
    train_b(model)
    assert torch.equal(scores(model), scores(model))


def test_distilbert_trains_as_many_parameters_as_study_3() -> None:
    with torch.device("meta"):
        model = build_model("distilbert", ARCHITECTURES["distilbert"].config(), "classify", classes=4)
        names = add_lora(model, LoRAConfig(rank=8, targets=("query", "value")))
    assert names == [f"layers.{i}.attention.{kind}" for i in range(6) for kind in ("query", "value")]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 741_124


def test_names_and_tensors_of_the_model_stay() -> None:
    model = make("bert")
    before = dict(model.named_parameters())
    names = add_lora(model, LoRAConfig(targets=("query",)))
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    added = [f"{name}.{matrix}" for name in names for matrix in ("lora_a", "lora_b")]
    assert after.keys() - before.keys() == set(added) and list(adapter_parameters(model)) == added
    assert after["layers.0.attention.query.lora_a"].shape == (8, 12)


def test_adapters_and_the_classification_head_are_trained_and_nothing_else() -> None:
    model = make("bert")
    add_lora(model, LoRAConfig())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {*adapter_parameters(model), "head.output.weight", "head.output.bias"}  # not the pooler
    model.train()(torch.ones(2, 3, dtype=torch.long)).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained


@pytest.mark.parametrize(("model_type", "task"), [("bert", "lm"), ("gpt2", "encode")])
def test_without_a_classification_head_only_adapters_are_trained(model_type: str, task: str) -> None:
    model = make(model_type, task)
    add_lora(model, LoRAConfig())
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(adapter_parameters(model))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_merging_keeps_the_outputs_and_can_be_taken_back(model_type: str, dora: bool) -> None:
    model = make(model_type)
    plain, weights = scores(model), copy.deepcopy(model.state_dict())
    structure = [name for name, _ in model.named_parameters()]
    add_lora(model, LoRAConfig(rank=2, targets=("all-linear",), rank_stabilized=True, dora=dora))
    assert torch.equal(scores(model), plain)
    train_b(model)
    adapted, numbers = scores(model), copy.deepcopy(model.state_dict())
    assert not torch.allclose(adapted, plain, atol=1e-2)
    merge(model)
    merge(model)
    assert [name for name, _ in model.named_parameters()] == structure and not adapted_layers(model)
    torch.testing.assert_close(scores(model), adapted, rtol=1e-5, atol=1e-5)
    unmerge(model)
    unmerge(model)
    assert torch.equal(scores(model), adapted)
    assert all(torch.equal(tensor, numbers[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, numbers[name]) for name, tensor in weights.items())


def test_unmerging_after_a_cast_is_refused_and_nothing_is_lost() -> None:
    model = make("bert")
    add_lora(model, LoRAConfig())
    train_b(model)
    adapted = scores(model)
    merge(model)
    model.double()
    with pytest.raises(ValueError, match=r"was torch.float32 when it was merged and is torch.float64; cast it back"):
        unmerge(model)
    unmerge(model.float())
    assert torch.equal(scores(model), adapted)


def test_what_was_merged_can_be_adapted_again() -> None:
    model = make("llama")
    add_lora(model, LoRAConfig())
    train_b(model)
    merge(model)
    merged = scores(model)
    add_lora(model, LoRAConfig(targets=("value", "down")))
    assert torch.equal(scores(model), merged)
    unmerge(model)  # nothing is merged any more
    assert len(adapted_layers(model)) == 6
    with pytest.raises(ValueError, match="already has adapters"):
        add_lora(model, LoRAConfig())


@pytest.mark.parametrize("dora", [False, True])
def test_bfloat16_weights_get_float32_adapters(dora: bool) -> None:
    model = make("llama").to(torch.bfloat16)
    add_lora(model, LoRAConfig(targets=("all-linear",), dora=dora))
    train_b(model)
    assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
    exact = copy.deepcopy(model).float()
    assert scores(model).dtype == torch.bfloat16
    torch.testing.assert_close(scores(model).float(), scores(exact), rtol=0.1, atol=0.5)
    before = model.layers[0].mlp.up.weight.clone()
    merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(scores(model).float(), scores(exact), rtol=0.1, atol=0.5)
    unmerge(model)
    assert torch.equal(model.layers[0].mlp.up.weight, before)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_works_under_autocast(dtype: torch.dtype, dora: bool) -> None:
    layer = (DoRALinear if dora else LoRALinear)(nn.Linear(6, 5, dtype=dtype), 2, 16)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(3, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer.float()(x), rtol=0.05, atol=0.1)
    y.sum().backward()
    assert layer.lora_a.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("model_type", "targets", "layers", "expected"),
    [
        ("bert", ("query",), (), r"layers\.\d\.attention\.query"),
        ("bert", ("down", "layers.0.*"), (), r"layers\.\d\.mlp\.down|layers\.0\..*"),
        ("bert", ("all-linear",), (0, 2), r"layers\.[02]\.(attention|mlp)\..*"),
        ("bert", ("pooler.dense", "layers.?.attention.key"), (), r"pooler\.dense|layers\.\d\.attention\.key"),
        ("bert", ("*",), (), r"pooler\.dense|layers\..*"),
        ("albert", ("value", "embeddings.projection"), (), r"layers\.0\.attention\.value|embeddings\.projection"),
        ("llama", ("gate",), (1,), r"layers\.1\.mlp\.gate"),
        ("t5", ("query",), (), r"(en|de)coder\.layers\.\d\.(cross_)?attention\.query"),
        ("t5", ("*.cross_attention.*",), (), r"decoder\.layers\.\d\.cross_attention\..*"),
        ("t5", ("value",), (2, 3), r"(encoder\.layers\.2\.|decoder\.layers\.0\.(cross_)?)attention\.value"),
    ],
)
def test_targets(model_type: str, targets: tuple[str, ...], layers: tuple[int, ...], expected: str) -> None:
    model = make(model_type)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    wanted = [name for name in linear if re.fullmatch(expected, name)]
    assert wanted and add_lora(model, LoRAConfig(targets=targets, layers=layers)) == wanted


def test_our_own_head_is_no_target() -> None:
    config = ARCHITECTURES["distilbert"].config(**SMALL)
    model = build_model("distilbert", config, "classify", classes=2, head=HeadConfig(hidden=8))
    assert not any(name.startswith("head") for name in add_lora(model, LoRAConfig(targets=("*",))))


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("bert", {"targets": ("quary",)}, r'"quary" names no linear .* \(did you mean "query"\?\); targets are query,'),
        ("bert", {"targets": ("gate",)}, '"gate" names no linear layer'),
        ("bert", {"targets": ("head.*",)}, "names no linear layer"),
        ("bert", {"targets": ("layers.7.*",)}, "names no linear layer"),
        ("bert", {"layers": (1, 3)}, "no layer 3; its layers are 0 to 2"),
        ("bert", {"layers": (1,), "targets": ("pooler.*",)}, r'"pooler.\*" names nothing in layers 1; remove'),
        ("bert", {"layers": (0,), "targets": ("query", "pooler*")}, r'"pooler\*" names nothing in layers 0; remove'),
        ("bert", {"layers": (1, 2), "targets": ("layers.0.*", "down")}, r'"layers.0.\*" names nothing in .* 1, 2;'),
        ("t5", {"layers": (6,)}, "no layer 6; its layers are 0 to 5"),
        ("albert", {"layers": (0,)}, "all 3 layers of this model share one set of weights"),
    ],
)
def test_what_a_model_does_not_have_is_told(model_type: str, settings: dict[str, Any], message: str) -> None:
    model = make(model_type)
    with pytest.raises(UserError, match=message):
        add_lora(model, LoRAConfig(**settings))
    assert not adapted_layers(model) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"alpha": 0.0}, {"alpha": math.nan}, {"dropout": 1.0}, {"dropout": -0.1}, {"targets": ()}]
)
def test_settings_that_make_no_sense_are_told(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"LoRA: {next(iter(settings))} must "):
        LoRAConfig(**settings)
