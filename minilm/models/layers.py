"""Building blocks from the papers that several architectures use: attention, norms, feed-forward networks.

Shapes: ``B`` texts, ``T`` positions, ``S`` positions attended to, ``D`` width, ``H`` heads, ``G`` key-value heads,
``D/H`` the width of a head (or the width that a config sets). Masks are boolean, true where a query may see a key.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.models.attention import attend
from minilm.models.batch import LayerCache, select_position
from minilm.models.dropout import Dropout
from minilm.models.rotary import rotate


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2).

        Q, K, V = x W_q, x W_k, x W_v        queries, keys and values
        head_h  = softmax(Q_h K_h^T * scale + mask) V_h             scale = 1 / sqrt(D/H)
        y       = [head_1, ..., head_H] W_o

    Each of the ``H`` heads computes this on its own slice of Q, K and V. If there are only ``G < H`` key-value heads,
    each serves a group of H/G query heads (Ainslie et al. 2023). ``attend`` evaluates the formula, usually by PyTorch's
    ``scaled_dot_product_attention`` (SDPA), which does not store the (T, S) weights.

    Why the scale: the dot product of two vectors of D/H independent numbers of mean 0 and variance 1 has the variance
    D/H. Divided by its root it has the variance 1 whatever the width; otherwise softmax would give one position nearly
    all the weight, and its gradient would vanish. ``scale=None`` is SDPA's own default, the same number.

    GPT-2 and BERT need only ``query``, ``key``, ``value``, ``attend`` and ``output``. The rest is for rotary
    positions, for generation (``cache``), and for cross-attention (``memory``), in which keys and values come from an
    encoder's output. Some models norm each head's query and key before they are turned, so that no product grows with
    its vectors' lengths (Dehghani et al. 2023, section 2): ``head_norm`` makes such a norm for the width of a head.
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
        head_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        head_width = head_width or width // heads
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.dropout, self.causal, self.scale = dropout, causal, scale
        self.query = nn.Linear(width, self.heads * head_width, bias=bias)
        self.key = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.value = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.output = nn.Linear(self.heads * head_width, width, bias=bias if output_bias is None else output_bias)
        self.query_norm = None if head_norm is None else head_norm(head_width)
        self.key_norm = None if head_norm is None else head_norm(head_width)

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
        """x (B, T, D) -> (B, T, D).

        Args:
            mask: (B or 1, H or 1, T or 1, S), boolean, or numbers that are added to the scores.
            rotary: cos and sin of each position's angles, see ``rotary.py``.
            memory: (B, S, D), what to attend to instead of x itself.
            cache: x's keys and values join those of earlier steps; a memory's are computed at the first step only.
            query_position: (B,), the only position to compute, (B, 1, D): see ``Backbone``.
        """
        query = self.query(select_position(x, query_position))  # (B, T or 1, D)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T or 1, D/H)
        query = query if self.query_norm is None else self.query_norm(query)
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
        if query_position is not None and self.causal and mask is None:  # this row of the causal mask
            mask = (torch.arange(x.shape[1], device=x.device) <= query_position[:, None])[:, None, None]
        mask = None if mask is None else select_position(mask, query_position)  # (B or 1, H or 1, T or 1, S)
        y = self.attend(query, key, value, mask)  # (B, H, T or 1, D/H)
        return self.output(y.transpose(1, 2).flatten(2))  # heads side by side again: (B, T or 1, D)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(Q K^T * scale + mask) V: query (B, H, T, D/H), key and value (B, G, S, D/H) -> (B, H, T, D/H)."""
        p = self.dropout if self.training else 0.0
        causal = self.causal and mask is None  # a given mask is causal already
        return attend(query, key, value, mask, causal=causal, scale=self.scale, p=p)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S, D) -> keys and values, (B, G, S, D/H) each."""
        key = self.key(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        value = self.value(source).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        return key if self.key_norm is None else self.key_norm(key), value


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019): LayerNorm without mean and bias.

    norm(x) = weight * x / sqrt(mean(x^2) + eps)

    Computed in the wider of the dtypes of x and weight; PyTorch sums the squares of a bfloat16 in float32.
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
    "gelu": F.gelu,  # x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016)
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # its approximation, as in OpenAI's code of GPT-2
    "relu": F.relu,
    "silu": F.silu,  # x * sigmoid(x)
    "tanh": torch.tanh,
}


class MLP(nn.Module):
    """The feed-forward network: ``down(act(up(x)))``, or gated ``down(act(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(
        self,
        width: int,
        hidden_width: int,
        activation: str,
        *,
        bias: bool = True,
        gated: bool = False,
        dropout: float = 0.0,  # on the hidden vectors
    ) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden_width, bias=bias)
        self.gate = nn.Linear(width, hidden_width, bias=bias) if gated else None
        self.down = nn.Linear(hidden_width, width, bias=bias)
        self.activation, self.dropout = ACTIVATIONS[activation], Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D), each position separately."""
        hidden = self.up(x)  # (B, T, hidden_width)
        hidden = self.activation(hidden) if self.gate is None else self.activation(self.gate(x)) * hidden
        hidden = self.dropout(hidden)
        if hidden.dtype == torch.float16:  # ``down`` can overflow (T5): see ``Architecture.float32``
            hidden = hidden.to(self.down.weight.dtype)
        return self.down(hidden)


def draw_weights(model: nn.Module, std: float = 0.02, *, truncated: bool = False) -> None:
    """New weights, in place: matrices and tables from N(0, std^2), biases 0; LayerNorms have weight 1 and bias 0.

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
