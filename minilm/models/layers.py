"""What the papers have and several architectures share: masks, attention, norms, feed-forward networks.

Attention is computed as its equation has it, or by PyTorch's ``scaled_dot_product_attention`` (SDPA): see
``attend``. Shapes: see ``batch.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.models.batch import Batch, LayerCache, select_position
from minilm.models.dropout import Dropout, dropout
from minilm.models.rotary import rotate


def padding_mask(batch: Batch) -> Tensor | None:
    """Which positions may be attended to, (B, 1, 1, S); None: there is no padding."""
    return None if batch.mask is None else batch.mask[:, None, None, :]


def causal_mask(batch: Batch, window: int = 0) -> Tensor | None:
    """Which keys each query of a causal model may see, (B or 1, 1, T, S); None: SDPA's own triangle is enough.

    With a cache, key ``s`` lies at position ``s``, and a query at position ``t`` sees the keys ``s <= t``. With a
    sliding window (Mistral) it sees only the last ``window`` of them.
    """
    length = batch.ids.shape[1]
    if batch.cache is None and not 0 < window < length:
        return None
    keys = torch.arange(length if batch.cache is None else batch.cache.length, device=batch.ids.device)
    distance = batch.position_numbers()[:, :, None] - keys  # (B, T, S)
    visible = distance >= 0
    if window > 0:
        visible &= distance < window
    return visible[:, None]


def window_mask(batch: Batch, reach: int) -> Tensor | None:
    """Which keys each query of an encoder may see if it looks no further than ``reach`` positions to either side:
    (B or 1, 1, T, T), or (B, 1, 1, T) if that is everywhere; None: all of them.

    A query that is padding sees itself: with no key at all, its softmax would divide by zero.
    """
    length = batch.ids.shape[1]
    if reach >= length - 1:
        return padding_mask(batch)
    positions = torch.arange(length, device=batch.ids.device)
    distance = (positions[:, None] - positions).abs()  # (T, T)
    near = (distance <= reach)[None]
    if batch.mask is not None:
        near = near & (batch.mask[:, None, :] | (distance == 0))
    return near[:, None]


def relative_bucket(distance: Tensor, buckets: int, max_distance: int, *, both_sides: bool) -> Tensor:
    """The bucket of each distance ``s - t`` from a query at ``t`` to a key at ``s`` (T5, Raffel et al. 2020,
    section 2.1; MPNet).

    ``both_sides`` gives half of them to keys on the right; else those are in bucket 0, for no decoder looks there. Of
    a side's ``n`` buckets, the distances below n/2 have one each, and those up to ``max_distance`` share the others,
    in equal steps of their logarithm."""
    side = buckets // 2 if both_sides else buckets
    offset = (distance > 0) * side if both_sides else 0
    distance = distance.abs() if both_sides else (-distance).clamp(min=0)
    near = side // 2
    ratio = torch.log(distance.clamp(min=near).float() / near) / math.log(max_distance / near)  # 0 to 1, then above
    far = near + (ratio * (side - near)).long()
    return offset + torch.where(distance < near, distance, far.clamp(max=side - 1))


def takes_groups(query: Tensor, mask: Tensor | None) -> bool:
    """Whether SDPA has a fast kernel for fewer key-value heads than heads. If not, they are repeated first.

    On CUDA FlashAttention is one, but it takes neither a mask nor float32, and the memory-efficient kernel takes no
    groups. SDPA would turn to its plain kernel, which stores all weights (torch, sdp_utils.cpp).
    """
    return not query.is_cuda or (mask is None and query.dtype != torch.float32)


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float | None, p: float
) -> Tensor:
    """dropout(softmax(Q K^T * scale + mask)) V, step by step: query (B, H, T, D/H), key and value (B, K, S, D/H), mask
    (B or 1, H or 1, T or 1, S) of bools or of numbers to add -> (B, H, T, D/H)."""
    batch, heads, length, width = query.shape
    kv_heads, keys = key.shape[1:3]
    if causal:
        mask = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    query = query * (width**-0.5 if scale is None else scale)
    scores = query.reshape(batch, kv_heads, -1, width) @ key.mT  # (B, K, H/K T, S): the queries of a group together
    scores = scores.view(batch, heads, length, keys)
    weights = dropout((scores if mask is None else scores + mask).softmax(-1), p)
    return (weights.view(batch, kv_heads, -1, keys) @ value).view(batch, heads, length, width)


SHORT = 1024  # keys; with more, storing the weights costs more than the fused kernel's slower arithmetic


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float | None, p: float
) -> Tensor:
    """``explicit_attention``, by SDPA if that is faster.

    SDPA does not store the (T, S) weights. But on a CPU it leaves its fast kernel if there is dropout, and its
    bfloat16 kernel's gradient takes up to five times as long as that of the equation.
    """
    on_cpu, short = query.device.type == "cpu", key.shape[2] <= SHORT
    if on_cpu and (p > 0 or (query.dtype == torch.bfloat16 and short)):
        return explicit_attention(query, key, value, mask, causal=causal, scale=scale, p=p)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not takes_groups(query, mask):
        key, value = (kv.repeat_interleave(groups, dim=1) for kv in (key, value))
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p=p, is_causal=causal, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
    )


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2), grouped as in Ainslie et al. 2023.

        Q, K, V = W_q x, W_k x, W_v x        what a position looks for, what it is found by, what it gives
        head    = softmax(Q K^T * scale + mask) V                   scale = 1 / sqrt(D/H)
        y       = W_o [head_1, ..., head_H]

    Each of the ``H`` heads computes this on its own slice of Q, K and V; ``K < H`` key-value heads are shared by
    groups of query heads. ``attend`` evaluates the formula.

    Why the scale: the product of two vectors of D/H independent numbers of variance 1 has the variance D/H. Divided by
    its root it has the variance 1 whatever the width; otherwise softmax would give one position nearly all the weight,
    and its gradient would vanish. ``scale=None`` leaves this to SDPA, whose default it is.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int = 0,
        head_width: int = 0,
        bias: bool = True,
        output_bias: bool | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        head_width = head_width or width // heads
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.dropout, self.causal, self.scale = dropout, causal, scale
        self.query = nn.Linear(width, self.heads * head_width, bias=bias)
        self.key = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.value = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.output = nn.Linear(self.heads * head_width, width, bias=bias if output_bias is None else output_bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        memory: Tensor | None = None,
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D). ``memory`` (B, S, D): attend to it instead of to x itself.

        With a cache, x's keys and values join those of earlier steps; a memory's are computed at the first step only.
        With ``query_position`` (B,) the result is that position's alone, (B, 1, D): see ``Backbone.run``.
        """
        query = self.query(select_position(x, query_position))  # (B, T or 1, D)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T or 1, D/H)
        if memory is None or cache is None:
            key, value = self.keys_values(x if memory is None else memory)
        else:
            cache.memory = cache.memory or self.keys_values(memory)
            key, value = cache.memory
        if rotary is not None:
            cos, sin = rotary
            query = rotate(query, select_position(cos, query_position), select_position(sin, query_position))
            key = rotate(key, cos, sin)
        if cache is not None and memory is None:
            key, value = cache.extend(key, value)
        if query_position is not None and self.causal and mask is None:  # the triangle's row
            mask = (torch.arange(x.shape[1], device=x.device) <= query_position[:, None])[:, None, None]
        mask = None if mask is None else select_position(mask, query_position)  # (B or 1, H or 1, T or 1, S)
        p, causal = self.dropout if self.training else 0.0, self.causal and mask is None
        y = attend(query, key, value, mask, causal=causal, scale=self.scale, p=p)
        return self.output(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T or 1, D)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S, D) -> keys and values, (B, K, S, D/H) each."""
        key = self.key(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        value = self.value(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        return key, value


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019): LayerNorm without mean and bias.

    norm(x) = weight * x / sqrt(mean(x^2) + eps)                computed in float32 whatever x is
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D), in the weight's dtype."""
        wide = torch.promote_types(x.dtype, self.weight.dtype)
        y = F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps)
        return y.to(self.weight.dtype)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # x * Phi(x), exact (Hendrycks and Gimpel 2016)
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # its approximation, as in GPT-2
    "relu": F.relu,
    "silu": F.silu,  # x * sigmoid(x)
    "tanh": torch.tanh,
}


class MLP(nn.Module):
    """The feed-forward network: ``down(act(up(x)))``, or gated ``down(act(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str,
        *,
        bias: bool = True,
        gated: bool = False,
        dropout: float = 0.0,  # on the hidden vectors
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation, self.dropout = ACTIVATIONS[activation], Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D), each position on its own."""
        up = self.up(x)
        hidden = self.dropout(self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up)
        # float16 can overflow in ``down``; an architecture may keep that matrix in float32 (``Architecture.float32``).
        if hidden.dtype == torch.float16:
            hidden = hidden.to(self.down.weight.dtype)
        return self.down(hidden)


def draw_weights(model: nn.Module, std: float = 0.02, *, truncated: bool = False) -> None:
    """New weights, in place: matrices and tables from N(0, std), biases 0, norms 1 and 0.

    ``truncated``: no number lies beyond two deviations, as BERT's code draws them.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d):
            if truncated:
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            else:
                nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
            nn.init.zeros_(module.bias)
