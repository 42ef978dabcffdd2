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

``causal`` is 0 if the key stands at or before the query, and minus infinity otherwise. ``norm`` brings the ``D``
numbers at each position to mean 0 and variance 1, then scales and shifts each (LayerNorm, Ba et al. 2016). It comes
before each sublayer ("pre-norm"), so the path from the first layer to the last is a plain sum. In training, randomly
chosen entries of x_0 and of each sublayer's output are set to 0 and the rest scaled up (dropout), so that the model
relies on no single one.

That is all, and as code for one text it is this. The module is the same for a batch, with the work that can be saved
saved (``layers.py`` has its attention):

    >>> def forward(model, ids):  # (T,) -> (T, D)
    ...     x = model.embeddings.token.weight[ids] + model.embeddings.position.weight[: len(ids)]
    ...     for layer in model.layers:
    ...         x = x + attention(layer.attention, layer.attention_norm(x))
    ...         x = x + layer.mlp.down(gelu(layer.mlp.up(layer.mlp_norm(x)), approximate="tanh"))
    ...     return model.norm(x)
    >>> def attention(w, x):  # (T, D) -> (T, D)
    ...     q, k, v = (f(x).unflatten(-1, (w.heads, -1)).transpose(0, 1) for f in (w.query, w.key, w.value))
    ...     scores = (q @ k.mT) * (1.0 / sqrt(q.shape[-1]))  # (H, T, D/H) twice -> (H, T, T)
    ...     future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    ...     heads = scores.masked_fill(future, -inf).softmax(-1) @ v  # (H, T, D/H)
    ...     return w.output(heads.transpose(0, 1).flatten(1))
    >>> from math import inf, sqrt
    >>> from torch.nn.functional import gelu
    >>> model = GPT2(GPT2Config(vocab_size=50, width=24, depth=2, heads=3)).eval()
    >>> ids = torch.tensor([3, 1, 4, 1, 5])
    >>> torch.allclose(forward(model, ids), model(ids[None])[0], atol=1e-5)
    True

A classifier reads the last token's vector, the only one that has seen the whole text.

One config covers the published checkpoints (biases everywhere, tanh GELU) and small models trained from scratch
(``attention_bias=False``, exact GELU). The GPT-2s of Stanford's CRFM, BioMedLM among them, also divide the scores of
layer ``l`` by ``l``, counted from 1 (``scale_by_layer``), so that they stay small enough for training in float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, LayerCache, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Attention, causal_mask


@dataclass(frozen=True)
class GPT2Config(BackboneConfig):
    """GPT-2's settings; the defaults are those of the smallest published checkpoint."""

    vocab_size: int = 50257
    context: int = 1024  # longest text, in tokens
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 0  # 0: four times the width
    activation: str = "gelu_tanh"
    attention_bias: bool = True
    dropout: float = 0.1  # after each sublayer
    attention_dropout: float = 0.1  # on the attention weights
    norm_eps: float = 1e-5
    tied: bool = True  # a language head shares the token embedding
    embedding_dropout: float = -1.0  # after the embeddings; -1: as after each sublayer
    scale_by_width: bool = True  # attention divides its scores by sqrt(D/H)
    scale_by_layer: bool = False  # and by the layer's number, from 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dropout < 0:
            object.__setattr__(self, "embedding_dropout", self.dropout)  # how a frozen dataclass completes itself

    def scale(self, layer: int) -> float | None:
        """The factor on the scores of this layer, from 0; None: 1/sqrt(D/H), attention's own."""
        if self.scale_by_width and not self.scale_by_layer:
            return None
        width = self.width // self.heads if self.scale_by_width else 1
        return width**-0.5 / (layer + 1 if self.scale_by_layer else 1)


class GPT2Layer(nn.Module):
    """One layer: attention to the left, then the MLP, each added to its input."""

    def __init__(self, config: GPT2Config, number: int) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(
            width,
            config.heads,
            bias=config.attention_bias,
            dropout=config.attention_dropout,
            causal=True,
            scale=config.scale(number),
        )
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, config.mlp_width or 4 * width, config.activation)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        query_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,)."""
        y = self.attention(self.attention_norm(x), mask, cache=cache, query_position=query_position)
        x = select_position(x, query_position) + self.dropout(y)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT2Embeddings(nn.Module):
    """What a token is and where it stands, both learned."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.token(ids) + self.position(positions))


class GPT2(Backbone):
    """The decoder."""

    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.embeddings = GPT2Embeddings(config)
        self.layers = nn.ModuleList(GPT2Layer(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, causal_mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, batch.layer_cache(i), self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        return self.norm(state.x)

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        return (self.norm,)


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
        Row("embeddings.token", "wte"),
        Row("embeddings.position", "wpe"),
        Row("layers.{i}.attention_norm", "h.{i}.ln_1"),
        Row("layers.{i}.attention.query", "h.{i}.attn.c_attn", transposed=True, part=0, parts=3, zero_bias=True),
        Row("layers.{i}.attention.key", "h.{i}.attn.c_attn", transposed=True, part=1, parts=3, zero_bias=True),
        Row("layers.{i}.attention.value", "h.{i}.attn.c_attn", transposed=True, part=2, parts=3, zero_bias=True),
        Row("layers.{i}.attention.output", "h.{i}.attn.c_proj", transposed=True, zero_bias=True),
        Row("layers.{i}.mlp_norm", "h.{i}.ln_2"),
        Row("layers.{i}.mlp.up", "h.{i}.mlp.c_fc", transposed=True),
        Row("layers.{i}.mlp.down", "h.{i}.mlp.c_proj", transposed=True),
        Row("norm", "ln_f"),
    ),
    heads={"classify": (Row("head.output", "score"),), "lm": (Row("head.output", "lm_head"),)},
    ignored=("h.*.attn.bias", "h.*.attn.masked_bias"),  # buffers of the causal triangle
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """What no row says. (``reorder_and_upcast_attn`` changes no number in float32.)"""
    if published.get("add_cross_attention"):
        raise UserError("config.json: add_cross_attention: a GPT-2 that attends to an encoder is not supported")
    return {} if "embd_pdrop" in published else {"embedding_dropout": GPT2Config.dropout}


ARCHITECTURE = Architecture(
    title="GPT-2",
    config=GPT2Config,
    model=GPT2,
    initialize=initialize,
    classes={"encode": "GPT2Model", "classify": "GPT2ForSequenceClassification", "lm": "GPT2LMHeadModel"},
    language_modeling="causal",
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
        ("embedding_dropout", "embd_pdrop"),
        ("scale_by_width", "scale_attn_weights"),
        ("scale_by_layer", "scale_attn_by_inverse_layer_idx"),
    ),
    read=read,
    write=lambda config: {"n_inner": config.mlp_width or None},
)
