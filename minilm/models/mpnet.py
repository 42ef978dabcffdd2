"""MPNet: an encoder trained on masked words that depend on each other (Song et al. 2020, "MPNet: Masked and Permuted
Pre-training for Language Understanding").

The input vector of a token is the sum of a token and a position embedding. The layers are BERT's (``bert.py``), with a
norm after each sublayer ("post-norm"); in addition, attention uses the distance of two tokens, as in T5 (``t5.py``):

    x_0     = norm(token[ids] + position[0..T-1])
    a_l     = norm(x_l + attention(x_l))
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

    attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + bias + padding) V         bias[h, t, s] = table[bucket(s - t), h]

``Q``, ``K`` and ``V`` are three linear maps of x, cut into ``H`` heads (``gpt2.py`` explains attention).
``padding`` is minus infinity where the key is padding and 0 elsewhere. Each head adds a number to the score of a query
and a key, by their distance; all layers share these numbers. There are 16 buckets for each side: distances below 8 have
one each, those up to 128 share the other 8 in equal steps of their logarithm, and all beyond share the last.

BERT guesses each masked word without seeing the other masked ones, as if they did not depend on each other. XLNet (Yang
et al. 2019) guesses them one after another, each from those before it, but does not know how long the text is. MPNet
does both (section 2). Draw a random order z of the T positions. The first c = 0.85 T words in it are given, and the
rest are guessed one after another; a mask token stands at the place of each that is not guessed yet, so that every
guess sees T positions ("position compensation"):

    maximise   sum_{t > c} log p(word z_t | words z_1 .. z_{t-1}, masks at z_t .. z_T)

Afterwards this is an encoder like BERT, and here it is trained further on masked words as BERT is. Most of its
checkpoints are sentence models: the mean of ``y`` is a text's vector. The heads are RoBERTa's:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b          at every position
    which class?                scores = output(tanh(dense(y_0)))                  at <s>, position 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, Names, Row
from minilm.models.batch import Batch, State
from minilm.models.bert import BertLayer, EncoderConfig
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig, Pooler
from minilm.models.layers import draw_weights, relative_bucket
from minilm.models.masks import padding_mask

BUCKETS, MAX_DISTANCE = 32, 128  # fixed, however many rows the table has
FIRST_POSITION = 2  # row 1 of the position table is for padding, and row 0 is never used


@dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """MPNet's settings; the defaults are those of the published class, the base model with a shorter position table.

    Raises UserError if the table of relative positions has fewer rows than there are buckets.
    """

    vocab_size: int = 30527
    context: int = 510  # longest text, in tokens; of the published base model 512
    buckets: int = BUCKETS  # rows of the table of relative positions; those beyond 32 are never used
    pooler: bool = True  # neither a language model nor a published classifier has one

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buckets < BUCKETS:
            raise UserError(f"buckets (relative_attention_num_buckets) must be at least {BUCKETS}, got {self.buckets}")


class MPNetEmbeddings(nn.Module):
    """The sum of learned token and position embeddings."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(FIRST_POSITION + config.context, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.token(ids) + self.position(positions + FIRST_POSITION)))


class MPNet(Backbone):
    """The encoder."""

    config: MPNetConfig

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__(config)
        self.embeddings = MPNetEmbeddings(config)
        self.relative_bias = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.depth))
        self.pooler = Pooler(config.width) if config.pooler else None

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def mask(self, batch: Batch) -> Tensor:
        """What every layer adds to its scores, (B or 1, H, T, T): the bias, and minus infinity at padding."""
        positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        distance = positions - positions[:, None]  # (T, T): s - t
        rows = relative_bucket(distance, BUCKETS, MAX_DISTANCE, both_sides=True)
        bias = self.relative_bias(rows).permute(2, 0, 1)[None]  # (1, H, T, T)
        visible = padding_mask(batch)
        return (bias if visible is None else bias.masked_fill(~visible, -math.inf)).contiguous()

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, self.mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, self.query_position(batch, i))
        return replace(state, x=x)


def initialize(model: MPNet) -> None:
    """N(0, 0.02^2), zero biases, unit norms."""
    draw_weights(model)


# --- The published checkpoints ------------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "mpnet.", "lm": "mpnet."},
    rows=(
        Row("embeddings.token", "embeddings.word_embeddings"),
        Row("embeddings.position", "embeddings.position_embeddings"),
        Row("embeddings.norm", "embeddings.LayerNorm"),
        Row("relative_bias", "encoder.relative_attention_bias"),
        Row("layers.{i}.attention.query", "encoder.layer.{i}.attention.attn.q"),
        Row("layers.{i}.attention.key", "encoder.layer.{i}.attention.attn.k"),
        Row("layers.{i}.attention.value", "encoder.layer.{i}.attention.attn.v"),
        Row("layers.{i}.attention.output", "encoder.layer.{i}.attention.attn.o"),
        Row("layers.{i}.attention_norm", "encoder.layer.{i}.attention.LayerNorm"),
        Row("layers.{i}.mlp.up", "encoder.layer.{i}.intermediate.dense"),
        Row("layers.{i}.mlp.down", "encoder.layer.{i}.output.dense"),
        Row("layers.{i}.mlp_norm", "encoder.layer.{i}.output.LayerNorm"),
        Row("pooler.dense", "pooler.dense"),
    ),
    heads={
        "classify": (Row("head.dense", "classifier.dense"), Row("head.output", "classifier.out_proj")),
        "lm": (
            Row("head.dense", "lm_head.dense"),
            Row("head.norm", "lm_head.layer_norm"),
            Row("head.output", "lm_head.decoder"),
            Row("head.output.bias", "lm_head.bias", bare=True),
        ),
    },
    ignored=("embeddings.position_ids",),  # a buffer of 0..T-1
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """The longest text: the length of the position table without its first rows, which are not for tokens."""
    return {"context": published.get("max_position_embeddings", 512) - FIRST_POSITION}


ARCHITECTURE = Architecture(
    title="MPNet",
    config=MPNetConfig,
    model=MPNet,
    initialize=initialize,
    classes={"encode": "MPNetModel", "classify": "MPNetForSequenceClassification", "lm": "MPNetForMaskedLM"},
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(
        pooling="cls", hidden=c.width, activation="tanh", dropout=c.dropout, input_dropout=c.dropout
    ),
    language_head=lambda c: LanguageConfig(c.width, "gelu", c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("width", "hidden_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("mlp_width", "intermediate_size"),
        ("activation", "hidden_act"),
        ("buckets", "relative_attention_num_buckets"),
        ("dropout", "hidden_dropout_prob"),
        ("attention_dropout", "attention_probs_dropout_prob"),
        ("norm_eps", "layer_norm_eps"),
        ("tied", "tie_word_embeddings"),
    ),
    read=read,
    write=lambda config: {"max_position_embeddings": config.context + FIRST_POSITION},
    switches=("pooler",),
)
