"""GPT-2 predicts the next token of a text from the tokens before it (Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners").

It is a decoder-only transformer: at each of the ``T`` positions it holds a vector of width ``D``, computed from the
tokens at this position and before. The vector starts as the sum of two learned ones, for the token and for the
position. ``L`` layers then add to it, each what attention gathers from the positions so far and what an MLP computes
from that:

    x_0     = token[ids] + position[0..T-1]               (T, D)   two tables, (V, D) and (context, D)
    a_l     = x_l + attention(norm_1(x_l))                (T, D)   for l = 0 .. L-1
    x_{l+1} = a_l + down(gelu(up(norm_2(a_l))))           (T, D)   up: D -> 4D, gelu: a smooth ReLU, down: 4D -> D
    y       = norm_f(x_L)                                 (T, D)
    scores  = y token^T                                   (T, V)   row t: one score for each candidate for token t+1

Training minimises the cross-entropy of softmax(scores) with the tokens that follow. The last matrix is the token table
again ("tied"). A classifier scores only the last position's y, the only one that has seen the whole text, with a
small matrix (D, C) in the table's place (``heads.py`` has both).

``attention`` moves information between positions; the MLP works on each position alone. Attention makes three vectors
of each position's x: a query (what it looks for), a key (what it is found by) and a value (what it gives). Each is cut
into ``H`` slices, one per head. In each head a position takes a weighted mean of the values at and before it; the
weights are the softmax of its query's dot products with their keys. One head looks at the text in one way, H heads in
H ways at the same cost:

    Q, K, V = x W_q, x W_k, x W_v                         (T, D) each; biases left out
    head_h  = softmax(Q_h K_h^T / sqrt(D/H) + causal) V_h           (T, D/H), softmax over the keys
    attention(x) = [head_1, ..., head_H] W_o              (T, D)

``causal`` is 0 if the key stands at or before the query, and minus infinity otherwise; ``layers.Attention`` says why
the scores are divided by sqrt(D/H). A ``norm`` brings the ``D`` numbers at each position to mean 0 and variance 1, then
scales and shifts each (LayerNorm, Ba et al. 2016). It stands inside each branch, not on the path ("pre-norm"): x_L is
x_0 plus all branches, so gradients reach every layer undiminished; nothing has normed that sum, hence norm_f.

That is the model; as code for one text:

    >>> from math import inf, sqrt
    >>> from torch.nn.functional import gelu
    >>> def attend(module, x):  # (T, D) -> (T, D)
    ...     def split(x):  # (T, D) -> (H, T, D/H)
    ...         return x.unflatten(-1, (module.heads, -1)).transpose(0, 1)
    ...     q, k, v = split(module.query(x)), split(module.key(x)), split(module.value(x))
    ...     scores = q @ k.mT / sqrt(q.shape[-1])  # (H, T, D/H) @ (H, D/H, T) -> (H, T, T): query, key
    ...     future = torch.ones_like(scores, dtype=torch.bool).triu(1)  # above the diagonal: keys after the query
    ...     heads = scores.masked_fill(future, -inf).softmax(-1) @ v  # (H, T, D/H)
    ...     return module.output(heads.transpose(0, 1).flatten(1))  # side by side: (T, D)
    >>> def forward(model, ids):  # (T,) -> (T, V)
    ...     token, position = model.embeddings.token.weight, model.embeddings.position.weight
    ...     x = token[ids] + position[: len(ids)]
    ...     for layer in model.layers:
    ...         x = x + attend(layer.attention, layer.attention_norm(x))
    ...         x = x + layer.mlp.down(gelu(layer.mlp.up(layer.mlp_norm(x)), approximate="tanh"))
    ...     return model.norm(x) @ token.T
    >>> model = GPT2(GPT2Config(vocab_size=50, width=24, depth=2, heads=3)).eval()
    >>> ids = torch.tensor([3, 1, 4, 1, 5])
    >>> y = model(ids[None])[0]  # without a head
    >>> torch.allclose(forward(model, ids), y @ model.embeddings.token.weight.T, atol=1e-5)
    True

The classes below do the same for a batch, and leave out work whose result nobody reads. In training, dropout sets
randomly chosen entries of x_0, of the attention weights and of each sublayer's output (attention's and the MLP's) to 0
and scales up the rest, so that the model relies on no single one.
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
from minilm.models.layers import MLP, Attention
from minilm.models.masks import causal_mask


@dataclass(frozen=True)
class GPT2Config(BackboneConfig):
    """GPT-2's settings; the defaults are those of the smallest published checkpoint."""

    vocab_size: int = 50257  # V
    context: int = 1024  # longest text, in tokens
    width: int = 768  # D
    depth: int = 12  # L
    heads: int = 12  # H
    mlp_width: int = 0  # 0: four times the width
    activation: str = "gelu_tanh"  # the approximation of OpenAI's code; "gelu": exact
    attention_bias: bool = True
    dropout: float = 0.1  # on each sublayer's output
    attention_dropout: float = 0.1  # on the attention weights
    norm_eps: float = 1e-5
    tied: bool = True  # a language head shares the token embedding
    embedding_dropout: float = -1.0  # on x_0; -1: as on each sublayer's output
    # Variants of Hugging Face's class. Stanford's CRFM (BioMedLM) divides the scores of layer l by l + 1 as well, so
    # that they do not overflow in float16.
    scale_by_head_width: bool = True  # attention divides its scores by sqrt(D/H)
    scale_by_layer: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dropout < 0:
            object.__setattr__(self, "embedding_dropout", self.dropout)  # frozen: plain assignment is refused

    def scale(self, layer: int) -> float | None:
        """The factor on the scores of this layer, counted from 0; None: 1/sqrt(D/H), as SDPA computes it."""
        if self.scale_by_head_width and not self.scale_by_layer:
            return None
        head_width = self.width // self.heads
        factor = head_width**-0.5 if self.scale_by_head_width else 1.0
        return factor / (layer + 1 if self.scale_by_layer else 1)


class GPT2Layer(nn.Module):
    """One layer: causal attention, then the MLP, each added to its input."""

    def __init__(self, config: GPT2Config, index: int) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(
            width,
            config.heads,
            bias=config.attention_bias,
            dropout=config.attention_dropout,
            causal=True,
            scale=config.scale(index),
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
        """x (B, T, D) -> (B, T, D).

        Args:
            mask: (B, 1, T, S), true where a query may see a key; None: causal, ``is_causal`` in SDPA.
            cache: in generation, the keys and values of the tokens before x.
            query_position: (B,), in a classifier's last layer: compute only this position, (B, 1, D).
        """
        y = self.attention(self.attention_norm(x), mask, cache=cache, query_position=query_position)
        x = select_position(x, query_position) + self.dropout(y)  # a_l; the path, too, only at that position
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # x_{l+1}


class GPT2Embeddings(nn.Module):
    """The sum of learned token and position embeddings."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). ``positions`` (B, T) continue a text in generation; None: 0, 1, ..., T-1."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.token(ids) + self.position(positions))


class GPT2(Backbone):
    """The decoder. ``Backbone.forward`` is ``finish(run(embed(batch), 0, L))``, then the head if there is one; it is
    cut in three so that the first layers can be left out when their outputs are known."""

    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.embeddings = GPT2Embeddings(config)
        self.layers = nn.ModuleList(GPT2Layer(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def embed(self, batch: Batch) -> State:
        """x_0."""
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """x_first -> x_last. Padding stands on the right, after every real token, so it needs no mask."""
        x, mask = state.x, causal_mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, batch.layer_cache(i), self.query_position(batch, i))
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """x_L -> y."""
        return self.norm(state.x)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers, under the name that all architectures share."""
        return list(self.layers)

    @property
    def is_causal(self) -> bool:
        return True

    @property
    def context(self) -> int:
        """The length of the position table."""
        return self.config.context

    def norms_after(self, layer: int) -> Sequence[nn.Module]:
        """The final norm: every layer's output reaches it along the path."""
        return (self.norm,)


def initialize(model: GPT2) -> None:
    """Weights from a normal distribution of standard deviation 0.02, biases 0; norms stay at weight 1 and bias 0.

    Each layer adds two terms to the path, 2 L in all. The matrices that produce them (``attention.output`` and
    ``mlp.down``) start smaller by sqrt(2 L), so that the variance of the sum does not grow with the depth. (Radford et
    al. 2019, section 2.3, write 1/sqrt(N) for N residual layers; N = 2 L is Hugging Face's. OpenAI's code has 0.02
    too, but 0.01 for the positions.)
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            residual = name.startswith("layers.") and name.endswith((".attention.output", ".mlp.down"))
            std = 0.02 / (2 * model.config.depth) ** 0.5 if residual else 0.02
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints -----------------------------------------------------------------------------------
# Hugging Face's ``Conv1D`` is a linear layer that stores (in, out); ``nn.Linear`` stores (out, in). One tensor holds
# query, key and value side by side. ``zero_bias``: files have a bias here even if our model has none.

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
    """What the table ``settings`` cannot express. ``reorder_and_upcast_attn`` changes no number in float32."""
    if published.get("add_cross_attention"):
        raise UserError("config.json: add_cross_attention: a GPT-2 that attends to an encoder is not supported")
    return {} if "embd_pdrop" in published else {"embedding_dropout": 0.1}  # the published class's default


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
        ("scale_by_head_width", "scale_attn_weights"),
        ("scale_by_layer", "scale_attn_by_inverse_layer_idx"),
    ),
    read=read,
    write=lambda config: {"n_inner": config.mlp_width or None},
)
