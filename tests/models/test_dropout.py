"""Dropout from packed random bits, and attention with it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from minilm.models import attention
from minilm.models import dropout as module
from minilm.models.attention import attend, explicit_attention
from minilm.models.dropout import PATTERNS, Dropout, dropout

P = st.floats(0, 1, exclude_max=True)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(P)
def test_the_probability_and_the_mean_are_exact(p: float) -> None:
    every = torch.arange(-PATTERNS // 2, PATTERNS // 2, dtype=torch.int16)  # each pattern of 16 bits once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "random_", lambda self, *limits: self.copy_(every.view(torch.int64)))
        y = dropout(torch.ones(PATTERNS, dtype=torch.float64), p)
    kept = int((y != 0).sum())
    assert abs(kept / PATTERNS - (1 - p)) <= 2**-17
    assert kept == 0 or y.mean().item() == pytest.approx(1, abs=1e-12)
    assert y.unique().numel() <= 2


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_all_positions_are_kept_alike_and_independently(p: float) -> None:
    torch.manual_seed(1)
    kept = (dropout(torch.ones(40_000, 8), p) != 0).double()
    noise = math.sqrt(p * (1 - p) / len(kept))
    assert (kept.mean(0) - (1 - p)).abs().max() < 5 * noise  # the four parts of a random number, twice
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(len(kept))


@given(SHAPES, P, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_each_number_is_0_or_scaled_and_so_is_its_gradient(
    shape: tuple[int, ...], p: float, dtype: torch.dtype
) -> None:
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    y = dropout(x, p)
    assert y.shape == x.shape and y.dtype == dtype
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    scaled = y[y != 0].double()
    kept = max(1, round(PATTERNS * (1 - p)))
    torch.testing.assert_close(scaled, torch.full_like(scaled, PATTERNS / kept), rtol=2**-8, atol=0)


def test_the_same_seed_or_the_same_state_draws_the_same() -> None:
    x = torch.randn(7, 9)
    torch.manual_seed(3)
    first, state, second = dropout(x, 0.3), torch.get_rng_state(), dropout(x, 0.3)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.3), second)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3), first)


def test_the_module_drops_in_training_only_and_nothing_at_0() -> None:
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert not torch.equal(Dropout(0.5)(x), x)
    assert isinstance(Dropout(0.5), nn.Dropout)  # what looks for dropout finds it


def test_a_gpu_draws_by_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "noise", None)
    assert dropout(torch.ones(3, device="meta"), 0.5).shape == (3,)


# --- Attention with dropout, or in bfloat16 ---


def draw(dtype: torch.dtype, heads: int = 4, kv_heads: int = 4, length: int = 6, keys: int = 7) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = (2, heads, length, 8), (2, kv_heads, keys, 8), (2, kv_heads, keys, 8)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


MASKS = {
    "none": None,
    "causal": None,
    "bools": torch.arange(7).lt(torch.tensor([[7], [4]]))[:, None, None],
    "numbers": torch.linspace(-2, 2, 4 * 6 * 7, dtype=torch.float64).view(1, 4, 6, 7),
}


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("case", MASKS)
def test_explicit_attention_is_sdpas_with_its_gradients(case: str, scale: float | None, kv_heads: int) -> None:
    query, key, value = draw(torch.float64, kv_heads=kv_heads, keys=6 if case == "causal" else 7)
    mask, causal = MASKS[case], case == "causal"
    expected = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal, scale=scale, enable_gqa=kv_heads != 4
    )
    y = explicit_attention(query, key, value, mask, causal=causal, scale=scale, p=0.0)
    torch.testing.assert_close(y, expected)
    wanted = torch.autograd.grad(expected.square().sum(), (query, key, value))
    got = torch.autograd.grad(y.square().sum(), (query, key, value))
    torch.testing.assert_close(got, wanted)


@pytest.mark.usefixtures("torch_dropout")
def test_attention_drops_weights_as_sdpa_does() -> None:
    query, key, value = draw(torch.float32)
    torch.manual_seed(2)
    expected = F.scaled_dot_product_attention(query, key, value, dropout_p=0.4)
    torch.manual_seed(2)
    torch.testing.assert_close(attend(query, key, value, None, causal=False, scale=None, p=0.4), expected)


@pytest.mark.parametrize(
    ("dtype", "p", "fused", "fused_without_gradient"),
    [
        (torch.float32, 0, True, True),
        (torch.float32, 0.1, False, False),
        (torch.bfloat16, 0, False, True),
        (torch.bfloat16, 0.1, False, False),
    ],
)
def test_on_a_cpu_the_faster_way_is_taken(
    dtype: torch.dtype, p: float, fused: bool, fused_without_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(attention, "explicit_attention", lambda *a, **k: called.append(1))
    inputs = draw(dtype)
    attend(*inputs, None, causal=False, scale=None, p=p)
    assert bool(called) != fused
    called.clear()
    attend(*(x.detach() for x in inputs), None, causal=False, scale=None, p=p)
    assert bool(called) != fused_without_gradient


def test_long_texts_in_bfloat16_do_not_store_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "explicit_attention", None)
    query, key, value = draw(torch.bfloat16, length=2, keys=attention.SHORT + 1)
    assert attend(query, key, value, None, causal=False, scale=None, p=0.0).shape == query.shape
