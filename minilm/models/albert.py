"""ALBERT: a BERT whose layers are all the same one (Lan et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning
of Language Representations").

Two changes make it small (section 3.1). One layer's weights serve all ``L`` layers: ``f`` below has no index.
And a token has a short vector, of width ``E``, that one matrix widens to ``D``: V E + E D numbers, not V D.

    x_0     = projection(norm(token[ids] + position[0..T-1] + segment[segments]))              (E) -> (D)
    x_{l+1} = f(x_l),    f(x) = norm(a + down(gelu(up(a)))),    a = norm(x + attention(x))
    y       = x_L

    attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V

``Q``, ``K`` and ``V`` are three linear maps of x, cut into ``H`` heads (``gpt2.py`` explains attention).
``padding`` is minus infinity where the key is padding and 0 elsewhere. The layer is BERT's, each sublayer
followed by a norm ("post-norm"). It is small in memory, not in time: ``L`` passes cost what ``L`` layers do.

It learned two tasks, to fill in masked words, and to tell whether two texts (segments 0 and 1) are in order:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b          dense: (D) -> (E)
    are they in order?          scores = W tanh(dense(y_0)) + b                    at [CLS], position 0

The second head's ``tanh(dense(.))`` is the pooler. To classify texts, keep it and learn new ``W`` and ``b``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig, Pooler
from minilm.models.layers import MLP, Attention, draw_weights
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class AlbertConfig(BackboneConfig):
    """ALBERT's settings; the defaults are those of the largest published checkpoint, xxlarge."""

    vocab_size: int = 30000
    context: int = 512  # longest text, in tokens
    embedding_width: int = 128  # of the token embeddings, before they are projected to ``width``
    width: int = 4096
    depth: int = 12  # how often the layer is passed
    heads: int = 64
    mlp_width: int = 16384
    activation: str = "gelu_tanh"
    segments: int = 2  # kinds of segments
    pooler: bool = True  # a language model has none
    dropout: float = 0.0  # after the embeddings and attention
    attention_dropout: float = 0.0  # on the attention weights
    head_dropout: float = 0.1  # in the family's classification head
    norm_eps: float = 1e-12
    tied: bool = True  # a language head shares the token embedding


class AlbertLayer(nn.Module):
    """The layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, query_position: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,).

        Unlike in BERT, no dropout follows the MLP.
        """
        y = self.attention(x, mask, query_position=query_position)
        x = self.attention_norm(select_position(x, query_position) + self.dropout(y))
        return self.mlp_norm(x + self.mlp(x))


class AlbertEmbeddings(nn.Module):
    """The sum of token, position and segment embeddings of width ``E``, projected to width ``D``."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.context, width)
        self.segment = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.projection = nn.Linear(width, config.width)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). Without ``segments``, all tokens are in segment 0."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        one_text = segments is None or self.segment.num_embeddings == 1
        which = self.segment.weight[0] if one_text else self.segment(segments)  # (E,) or (B, T, E)
        x = self.token(ids) + which + self.position(positions)  # (B, T, E)
        return self.projection(self.dropout(self.norm(x)))


class Albert(Backbone):
    """The encoder."""

    config: AlbertConfig

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__(config)
        self.embeddings = AlbertEmbeddings(config)
        self.layers = nn.ModuleList([AlbertLayer(config)])
        self.pooler = Pooler(config.width) if config.pooler else None

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [self.layers[0]] * self.config.depth

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions, batch.segments))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, padding_mask(batch)
        for i in range(first, last):
            x = self.layers[0](x, mask, self.query_position(batch, i))
        return replace(state, x=x)


def initialize(model: Albert) -> None:
    """As the paper's code draws them: N(0, 0.02^2) cut off at two deviations, zero biases, unit norms."""
    draw_weights(model, truncated=True)


# --- The published checkpoints ------------------------------------------------------------------------------
# They allow for groups of layers; every published one has one group of one layer.

LAYER = "encoder.albert_layer_groups.0.albert_layers.0"

NAMES = Names(
    prefix={"encode": "", "classify": "albert.", "lm": "albert."},
    rows=(
        Row("embeddings.token", "embeddings.word_embeddings"),
        Row("embeddings.position", "embeddings.position_embeddings"),
        Row("embeddings.segment", "embeddings.token_type_embeddings"),
        Row("embeddings.norm", "embeddings.LayerNorm"),
        Row("embeddings.projection", "encoder.embedding_hidden_mapping_in"),
        Row("layers.0.attention.query", f"{LAYER}.attention.query"),
        Row("layers.0.attention.key", f"{LAYER}.attention.key"),
        Row("layers.0.attention.value", f"{LAYER}.attention.value"),
        Row("layers.0.attention.output", f"{LAYER}.attention.dense"),
        Row("layers.0.attention_norm", f"{LAYER}.attention.LayerNorm"),
        Row("layers.0.mlp.up", f"{LAYER}.ffn"),
        Row("layers.0.mlp.down", f"{LAYER}.ffn_output"),
        Row("layers.0.mlp_norm", f"{LAYER}.full_layer_layer_norm"),
        Row("pooler.dense", "pooler"),
    ),
    heads={
        "classify": (Row("head.output", "classifier"),),
        "lm": (
            Row("head.dense", "predictions.dense"),
            Row("head.norm", "predictions.LayerNorm"),
            Row("head.output", "predictions.decoder"),
            # Files have the bias under one name or both; if they differ, the untied decoder's counts.
            Row("head.output.bias", "predictions.bias", bare=True),
        ),
    },
    old=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    # A buffer of 0..T-1, and heads of other tasks: are two texts in order, and where in a text is the answer.
    ignored=("embeddings.position_ids", "sop_classifier.*", "qa_outputs.*"),
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """Refuses what this file does not have: several layers that take turns."""
    for key in ("num_hidden_groups", "inner_group_num"):
        if published.get(key, 1) != 1:
            raise UserError(f"config.json: {key} must be 1 (one layer shared by all), got {published[key]}")
    return {}


ARCHITECTURE = Architecture(
    title="ALBERT",
    config=AlbertConfig,
    model=Albert,
    initialize=initialize,
    classes={"encode": "AlbertModel", "classify": "AlbertForSequenceClassification", "lm": "AlbertForMaskedLM"},
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="pooler", dropout=c.head_dropout),
    language_head=lambda c: LanguageConfig(c.embedding_width, c.activation, c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("embedding_width", "embedding_size"),
        ("width", "hidden_size"),
        ("depth", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("mlp_width", "intermediate_size"),
        ("activation", "hidden_act"),
        ("segments", "type_vocab_size"),
        ("dropout", "hidden_dropout_prob"),
        ("attention_dropout", "attention_probs_dropout_prob"),
        ("head_dropout", "classifier_dropout_prob"),
        ("norm_eps", "layer_norm_eps"),
        ("tied", "tie_word_embeddings"),
    ),
    read=read,
    switches=("pooler",),
)
