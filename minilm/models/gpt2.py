"""GPT-2: a decoder that reads from left to right (Radford et al. 2019).

Every position holds a vector of width ``D``. A token starts as the sum of what it is and where it stands, passes
through ``L`` layers, and each layer adds to it what it gathered from its left (attention) and what it made of that
(the MLP):

    x_0     = token[ids] + position[0..T-1]
    a_l     = x_l + attention(norm(x_l))
    x_{l+1} = a_l + down(gelu(up(norm(a_l))))
    y       = norm(x_L)

``attention`` makes three vectors of each position's x: a query (what it looks for), a key (what it is found by) and a
value (what it gives). Each is cut into ``H`` heads, and in each head a position takes the mean of all values, weighted
by how well their keys answer its query; the heads side by side, times a last matrix, are the result:

    Q, K, V = W_q x, W_k x, W_v x               head = softmax(Q K^T / sqrt(D/H) + causal) V
    attention(x) = W_o [head_1, ..., head_H]

``causal`` is 0 where the key stands at or before the query and minus infinity elsewhere. ``norm`` brings the ``D``
numbers at each position to mean 0 and variance 1, then scales and shifts each (LayerNorm, Ba et al. 2016). It comes
before each sublayer ("pre-norm"), so the path from the first layer to the last is a plain sum. In training, randomly
chosen entries of x_0 and of each sublayer's output are set to 0 and the rest scaled up (dropout), so that the model
relies on no single one.

A classifier reads the last token's vector, which alone has seen the whole text. As only that position's vector is read,
the last layer computes a query, and the MLP, for it alone; the other positions contribute only keys and values.

One config covers the published checkpoints (biases everywhere, tanh GELU) and small models trained from scratch
(``attention_bias=False``, exact GELU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import (
    MLP,
    Architecture,
    Attention,
    Batch,
    LayerCache,
    Names,
    State,
    causal_mask,
    pick,
    scores,
)


@dataclass(frozen=True)
class GPT2Config:
    """GPT-2's settings; the defaults are those of the smallest published checkpoint."""

    vocab_size: int = 50257
    context: int = 1024  # longest text, in tokens
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 0  # 0: four times the width
    activation: str = "gelu_tanh"
    attention_bias: bool = True
    dropout: float = 0.1  # after the embeddings and each sublayer
    attention_dropout: float = 0.1  # on the attention weights
    norm_eps: float = 1e-5
    tied: bool = True  # a language head shares the token embedding


class GPT2Layer(nn.Module):
    """One layer: attention to the left, then the MLP, each added to its input."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(
            width, config.heads, bias=config.attention_bias, dropout=config.attention_dropout, causal=True
        )
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, config.mlp_width or 4 * width, config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None, at: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D); at (B,): (B, 1, D), those positions alone."""
        x = pick(x, at) + self.dropout(self.attention(self.attention_norm(x), mask, cache=cache, at=at))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT2Embeddings(nn.Module):
    """What a token is and where it stands, both learned."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.token(ids) + self.position(positions))


class GPT2(nn.Module):
    """The decoder, and the head that reads it where there is one: a classifier's, or a language model's."""

    def __init__(self, config: GPT2Config, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = GPT2Embeddings(config)
        self.layers = nn.ModuleList(GPT2Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = head

    def embed(self, batch: Batch) -> State:
        """The state before the first layer."""
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """The state after layers ``first`` to ``last`` (exclusive)."""
        x, mask = state.x, causal_mask(batch)
        for index in range(first, last):
            at = batch.read if index == self.config.depth - 1 else None
            x = self.layers[index](x, mask, batch.cache and batch.cache.layer(index), at)
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D)."""
        return self.norm(state.x)

    def forward(self, ids: Tensor | Batch, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D) without a head, (B, C) with a classifier's, (B, T, V) with a language model's."""
        return scores(self, Batch.of(ids, mask, segments))


def initialize(model: GPT2) -> None:
    """GPT-2's initialisation: N(0, 0.02), zero biases, unit norms; what adds to the residual path is scaled down.

    Each layer adds two terms to the path, so their standard deviation is divided by sqrt(2 L), which keeps the sum's
    variance from growing with the depth (Radford et al. 2019, section 2.3).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            residual = name.startswith("layers.") and name.endswith((".attention.output", ".mlp.down"))
            nn.init.normal_(module.weight, std=0.02 / (2 * model.config.depth) ** 0.5 if residual else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints -----------------------------------------------------------------------------------
# Their Conv1D stores weights transposed, and one tensor holds query, key and value side by side.

NAMES = Names(
    prefix={"encode": "", "classify": "transformer.", "lm": "transformer."},
    rows=(
        ("embeddings.token.weight", "wte.weight"),
        ("embeddings.position.weight", "wpe.weight"),
        ("layers.{i}.attention_norm.weight", "h.{i}.ln_1.weight"),
        ("layers.{i}.attention_norm.bias", "h.{i}.ln_1.bias"),
        ("layers.{i}.attention.query.weight", "h.{i}.attn.c_attn.weight", "transposed, part 0 of 3"),
        ("layers.{i}.attention.key.weight", "h.{i}.attn.c_attn.weight", "transposed, part 1 of 3"),
        ("layers.{i}.attention.value.weight", "h.{i}.attn.c_attn.weight", "transposed, part 2 of 3"),
        ("layers.{i}.attention.query.bias", "h.{i}.attn.c_attn.bias", "part 0 of 3, or zero"),
        ("layers.{i}.attention.key.bias", "h.{i}.attn.c_attn.bias", "part 1 of 3, or zero"),
        ("layers.{i}.attention.value.bias", "h.{i}.attn.c_attn.bias", "part 2 of 3, or zero"),
        ("layers.{i}.attention.output.weight", "h.{i}.attn.c_proj.weight", "transposed"),
        ("layers.{i}.attention.output.bias", "h.{i}.attn.c_proj.bias", "or zero"),
        ("layers.{i}.mlp_norm.weight", "h.{i}.ln_2.weight"),
        ("layers.{i}.mlp_norm.bias", "h.{i}.ln_2.bias"),
        ("layers.{i}.mlp.up.weight", "h.{i}.mlp.c_fc.weight", "transposed"),
        ("layers.{i}.mlp.up.bias", "h.{i}.mlp.c_fc.bias"),
        ("layers.{i}.mlp.down.weight", "h.{i}.mlp.c_proj.weight", "transposed"),
        ("layers.{i}.mlp.down.bias", "h.{i}.mlp.c_proj.bias"),
        ("norm.weight", "ln_f.weight"),
        ("norm.bias", "ln_f.bias"),
    ),
    heads={
        "classify": (("head.output.weight", "score.weight"),),
        "lm": (("head.output.weight", "lm_head.weight"),),
    },
    ignored=("h.*.attn.bias", "h.*.attn.masked_bias"),  # buffers of the causal triangle
)

ARCHITECTURE = Architecture(
    config=GPT2Config,
    model=GPT2,
    initialize=initialize,
    classes={"encode": "GPT2Model", "classify": "GPT2ForSequenceClassification", "lm": "GPT2LMHeadModel"},
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="last", bias=False),
    language_head=lambda c: LanguageConfig(),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "n_positions", "n_ctx"),
        ("width", "n_embd"),
        ("depth", "n_layer"),
        ("heads", "n_head"),
        ("mlp_width", "n_inner"),
        ("activation", "activation_function"),
        ("dropout", "resid_pdrop"),
        ("attention_dropout", "attn_pdrop"),
        ("norm_eps", "layer_norm_epsilon"),
        ("tied", "tie_word_embeddings"),
    ),
    write=lambda config: {"n_inner": config.mlp_width or None, "embd_pdrop": config.dropout},
)
