"""Gemma 1 to 3, Google's decoders (Gemma Team 2024a, 2024b, 2025), and EmbeddingGemma, an encoder made from one
(Schechter Vera et al. 2025).

The input vector of a token is its token embedding times sqrt(D). Each of ``L`` layers adds the output of attention to
the token and those on its left, then the output of the MLP:

    x_0     = sqrt(D) * token[ids]
    a_l     = x_l + post(attention(norm(x_l)))
    x_{l+1} = a_l + post(down(gelu(gate(n)) * up(n)))       n = norm(a_l)
    y       = norm(x_L)

    attention(Q, K, V) = softmax(cap(R(Q) R(K)^T / sqrt(s)) + mask) V
    norm(x)            = (1 + w) * x / sqrt(mean(x^2) + eps)
    cap(z)             = c * tanh(z / c)                    at most c, at least -c, and close to z if z is small

``Q``, ``K`` and ``V`` are three linear maps of x, cut into heads (``gpt2.py`` explains attention). ``R`` rotates
queries and keys by their position (``rotary.py``); ``mask`` is minus infinity at keys that a query does not see. The
differences from Llama:

- The token table is also the language head's matrix. As inputs, its vectors are multiplied by sqrt(D) (Vaswani et al.
  2017, section 3.4).
- A norm scales by 1 plus its weight, so with weights of 0 it is a plain norm.
- The MLP's gate is a GELU, approximated by tanh as in GPT-2 (GeGLU, Shazeer 2020).
- Gemma 2 and 3 also norm the output of each sublayer (``post``), which bounds what it adds. In Gemma 1 ``post`` is the
  identity.
- Gemma 2 caps attention's scores (c = 50) and the language head's (c = 30), so that scores stay bounded. Gemma 3
  norms each head's query and key instead, before ``R`` (Dehghani et al. 2023), and ``cap`` is the identity.
- In Gemma 2 and 3 attention alternates. *Global* layers see everything to their left, *local* ones the last ``window``
  positions, so long texts are cheaper. Every second layer of Gemma 2 is global, every sixth of Gemma 3. In Gemma 3,
  rotary positions have the base 10,000 in local layers and 1,000,000 in global ones. From 4 billion parameters on, the
  angles of global layers are also divided by 8, for long texts (Chen et al. 2023).
- The width of a head need not be D/H. ``s`` is the width of a head; in the largest models of Gemma 2 and 3 it is D/H.

EmbeddingGemma has Gemma 3's layers, but they attend to both sides; local layers see half a window on each side. The
matrices that its sentence vectors pass through at the end are a sentence model's own modules, outside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Backbone, BackboneConfig
from minilm.models.attention import explicit_attention
from minilm.models.batch import Batch, LayerCache, State, select_position
from minilm.models.heads import LanguageConfig
from minilm.models.layers import MLP, Attention, RMSNorm, draw_weights
from minilm.models.masks import causal_mask, padding_mask, window_mask
from minilm.models.rotary import Rotary, rotary_tables


@dataclass(frozen=True)
class GemmaConfig(BackboneConfig):
    """Gemma's settings; the defaults are those of the published class of Gemma 2, the model with 2 billion parameters.

    Raises UserError if the heads and the key-value heads do not divide, or a head's numbers do not pair.
    """

    vocab_size: int = 256000
    context: int = 8192  # longest text in training; longer ones run too
    width: int = 2304
    depth: int = 26
    heads: int = 8
    kv_heads: int = 0  # 0: as many as heads; the published model has 4
    head_width: int = 256
    mlp_width: int = 9216
    activation: str = "gelu_tanh"
    attention_bias: bool = False  # on all four matrices
    attention_dropout: float = 0.0  # on the attention weights
    attention_scalar: int = 256  # s: attention's scores are divided by its root; 0: the width of a head
    attention_cap: float = 50.0  # of attention's scores; 0: none
    language_cap: float = 30.0  # of the language head's; 0: none
    post_norms: bool = True
    head_norms: bool = False  # a norm of each head's query and key
    norm_eps: float = 1e-6
    window: int = 4096  # positions that a local layer sees, its own included; if bidirectional, half of it to each side
    global_every: int = 2  # the last of every n layers is global,
    global_layers: tuple[int, ...] | None = None  # unless they are listed here
    rotary: Rotary = field(default_factory=Rotary)  # of global layers
    local_rotary: Rotary = field(default_factory=Rotary)
    bidirectional: bool = False  # it reads to both sides, and has no language head
    tied: bool = True  # a language head shares the token embedding

    def __post_init__(self) -> None:
        resolve = object.__setattr__  # how a frozen dataclass completes itself
        every = max(self.global_every, 1)
        chosen = range(every - 1, self.depth, every) if self.global_layers is None else self.global_layers
        resolve(self, "global_layers", tuple(i for i in chosen if i < self.depth))
        resolve(self, "kv_heads", self.kv_heads or self.heads)
        resolve(self, "attention_scalar", self.attention_scalar or self.head_width)
        if not self.heads or self.heads % self.kv_heads:
            raise UserError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        for name in ("rotary", "local_rotary"):
            if isinstance(rotary := getattr(self, name), dict):  # a table in TOML or JSON
                resolve(self, name, Rotary(**rotary))
        for rotary in (self.rotary, self.local_rotary):
            rotary.rotated(self.head_width)

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees everything to its left."""
        return self.global_layers is not None and layer in self.global_layers


class GemmaNorm(RMSNorm):
    """An RMSNorm that scales by 1 plus its weight: (1 + w) * x / sqrt(mean(x^2) + eps), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D), in the weight's dtype."""
        wide = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)
        y = F.rms_norm(x.to(wide), self.weight.shape, 1.0 + self.weight.to(wide), self.eps)
        return y.to(self.weight.dtype)


class GemmaAttention(Attention):
    """Attention with capped scores. SDPA has no cap, so the formula is computed step by step and stores all
    (B, H, T, S) weights. Without a cap: as in ``Attention``."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            head_width=config.head_width,
            bias=config.attention_bias,
            dropout=config.attention_dropout,
            causal=not config.bidirectional,
            scale=config.attention_scalar**-0.5,
            head_norm=(lambda head_width: GemmaNorm(head_width, config.norm_eps)) if config.head_norms else None,
        )
        self.cap = config.attention_cap

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """query (B, H, T, D/H), key and value (B, G, S, D/H) -> (B, H, T, D/H)."""
        if not self.cap:
            return super().attend(query, key, value, mask)
        p, causal = self.dropout if self.training else 0.0, self.causal and mask is None
        return explicit_attention(query, key, value, mask, causal=causal, scale=self.scale, p=p, cap=self.cap)


class GemmaLayer(nn.Module):
    """One layer: attention, then the gated MLP, each normed before and perhaps after, and added to its input."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention_norm = GemmaNorm(width, eps)
        self.attention = GemmaAttention(config)
        self.attention_post_norm = GemmaNorm(width, eps) if config.post_norms else nn.Identity()
        self.mlp_norm = GemmaNorm(width, eps)
        self.mlp = MLP(width, config.mlp_width, config.activation, bias=False, gated=True)
        self.mlp_post_norm = GemmaNorm(width, eps) if config.post_norms else nn.Identity()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,). ``rotary`` turns queries and keys."""
        x_norm = self.attention_norm(x)
        y = self.attention(x_norm, mask, rotary=rotary, cache=cache, query_position=query_position)
        x = select_position(x, query_position) + self.attention_post_norm(y)
        return x + self.mlp_post_norm(self.mlp(self.mlp_norm(x)))


class GemmaEmbeddings(nn.Module):
    """The token embedding, multiplied by sqrt(D)."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D). The factor is rounded to the table's dtype, as it was in training."""
        x = self.token(ids)
        return x * torch.tensor(x.shape[-1] ** 0.5, dtype=x.dtype)


class Gemma(Backbone):
    """The decoder, or the encoder that was made from it."""

    config: GemmaConfig

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(config)
        self.embeddings = GemmaEmbeddings(config)
        self.layers = nn.ModuleList(GemmaLayer(config) for _ in range(config.depth))
        self.norm = GemmaNorm(config.width, config.norm_eps)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def is_causal(self) -> bool:
        return not self.config.bidirectional

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, c = state.x, self.config
        whole, near = causal_mask(batch), causal_mask(batch, c.window)
        if c.bidirectional:
            whole, near = padding_mask(batch), window_mask(batch, c.window // 2)
        where = c.head_width, c.context, batch.position_numbers(), x
        everywhere = whole, rotary_tables(c.rotary, *where)
        nearby = near, rotary_tables(c.local_rotary, *where)
        for i in range(first, last):
            mask, rotary = everywhere if c.is_global(i) else nearby
            x = self.layers[i](x, mask, rotary, batch.layer_cache(i), self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        return self.norm(state.x)

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return (self.norm,)


def initialize(model: Gemma) -> None:
    """The published class's initialisation: N(0, 0.02^2), zero biases, plain norms."""
    draw_weights(model)


def language_head(config: GemmaConfig) -> LanguageConfig:
    """The settings of the language head. Raises UserError for a bidirectional model, which has none."""
    if config.bidirectional:
        raise UserError("this Gemma is bidirectional (use_bidirectional_attention), so it has no language head")
    return LanguageConfig(cap=config.language_cap)
