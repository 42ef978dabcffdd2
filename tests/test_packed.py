"""Packed linear layers compute what plain ones do, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minilm import packed
from minilm.devices import cpu_computes_bfloat16
from minilm.packed import PackedLinear, pack

pytestmark = pytest.mark.skipif(not cpu_computes_bfloat16(), reason="this CPU does not compute in bfloat16")


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16)


@given(
    st.integers(1, 200),
    st.sampled_from([1, 2, 8, 33, 384]),
    st.sampled_from([1, 3, 32, 384, 1536]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_a_packed_layer_computes_the_same_bits(
    rows: int, inputs: int, outputs: int, bias: bool, dtype: torch.dtype
) -> None:
    plain = linear(inputs, outputs, bias)
    x = torch.randn(2, rows, inputs, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PackedLinear(plain)(x), plain(x))


def test_gradients_are_those_of_the_plain_layer() -> None:
    plain, x = linear(8, 4), torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    for layer in (plain, PackedLinear(plain)):
        layer(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, 2 * plain.weight.sum(0).expand(3, 8))


def test_all_layers_of_a_model_are_packed_and_its_weights_stay_where_they_were() -> None:
    model = nn.Sequential(linear(8, 8), nn.Sequential(nn.ReLU(), linear(8, 2, bias=False)), nn.Linear(2, 2))
    weights = dict(model.named_parameters())
    pack(model)
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Linear)]
    assert kinds == [PackedLinear, PackedLinear, nn.Linear]  # the last computes in float32
    assert {name: id(weight) for name, weight in weights.items()} == {
        name: id(weight) for name, weight in model.named_parameters()
    }
    assert not any(module.training for module in model.eval().modules())


@pytest.mark.parametrize("missing", ["operators", "memory"])
def test_without_the_operators_or_the_memory_a_model_stays_as_it_is(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "memory":
        monkeypatch.setattr(packed, "MOST", 63)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    model = nn.Sequential(linear(8, 8))
    pack(model)
    assert type(model[0]) is nn.Linear
