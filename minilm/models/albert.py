"""ALBERT: a BERT whose layers are all the same one (Lan et al. 2020).

Two changes make it small (section 3.1). One layer's weights serve all ``L`` layers: ``f`` below has no index.
And a token has a short vector, of width ``E``, that one matrix widens to ``D``: V E + E D numbers, not V D.

    x_0     = projection(norm(token[ids] + position[0..T-1] + segment[segments]))              (E) -> (D)
    x_{l+1} = f(x_l),    f(x) = norm(a + down(gelu(up(a)))),    a = norm(x + attention(x))
    y       = x_L

    attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V

``padding`` is minus infinity where the key is padding and 0 elsewhere. The layer is BERT's, each sublayer
followed by a norm ("post-norm"). It is small in memory, not in time: ``L`` passes cost what ``L`` layers do.

It learned two tasks, to fill in masked words, and to tell whether two texts (segments 0 and 1) are in order:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b          dense: (D) -> (E)
    are they in order?          scores = W tanh(dense(y_0)) + b                    at [CLS], position 0

The second head's ``tanh(dense(.))`` is the pooler. To classify texts, keep it and learn new ``W`` and ``b``. As only
the vector at position 0 is read then, the last pass computes a query, and the MLP, for it alone; the other positions
contribute only keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.errors import UserError
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Architecture, Attention, Batch, Names, State, padding_mask, pick, scores


@dataclass(frozen=True)
class AlbertConfig:
    """ALBERT's settings; the defaults are those of the largest published checkpoint, xxlarge."""

    vocab_size: int = 30000
    context: int = 512  # longest text, in tokens
    embedding_width: int = 128  # of a token's own vector, before it is widened
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
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D); at (B,): (B, 1, D), those positions alone.

        Unlike in BERT, no dropout follows the MLP."""
        x = self.attention_norm(pick(x, at) + self.dropout(self.attention(x, mask, at=at)))
        return self.mlp_norm(x + self.mlp(x))


class AlbertEmbeddings(nn.Module):
    """What a token is, where it stands and which text it belongs to, in ``E`` numbers widened to ``D``."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.context, width)
        self.segment = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(width, config.width)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). No ``segments``: all is one text."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        which = self.segment.weight[0] if segments is None else self.segment(segments)  # (E,) or (B, T, E)
        x = self.token(ids) + which + self.position(positions)  # (B, T, E)
        return self.projection(self.dropout(self.norm(x)))


class AlbertPooler(nn.Module):
    """A text's vector, made from its first token's."""

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D), the vectors at [CLS] -> (B, D)."""
        return torch.tanh(self.dense(x))


class Albert(nn.Module):
    """The encoder, and the head that reads it where there is one: a classifier's, or a language model's."""

    def __init__(self, config: AlbertConfig, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = AlbertEmbeddings(config)
        self.layers = nn.ModuleList([AlbertLayer(config)])
        self.pooler = AlbertPooler(config) if config.pooler else None
        self.head = head

    def embed(self, batch: Batch) -> State:
        """The state before the first pass."""
        return State(self.embeddings(batch.ids, batch.positions, batch.segments))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """The state after passes ``first`` to ``last`` (exclusive) through the one layer."""
        x, mask = state.x, padding_mask(batch)
        for index in range(first, last):
            at = batch.read if index == self.config.depth - 1 else None
            x = self.layers[0](x, mask, at)
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D): the last pass's norm was the final one."""
        return state.x

    def forward(self, ids: Tensor | Batch, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D) without a head, (B, C) with a classifier's, (B, T, V) with a language model's."""
        return scores(self, Batch.of(ids, mask, segments))


def initialize(model: Albert) -> None:
    """As the paper's code draws them: N(0, 0.02) cut off at two deviations, zero biases, unit norms."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints ------------------------------------------------------------------------------
# They allow for groups of layers; every published one has one group of one layer.

_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"

NAMES = Names(
    prefix={"encode": "", "classify": "albert.", "lm": "albert."},
    rows=(
        ("embeddings.token.weight", "embeddings.word_embeddings.weight"),
        ("embeddings.position.weight", "embeddings.position_embeddings.weight"),
        ("embeddings.segment.weight", "embeddings.token_type_embeddings.weight"),
        ("embeddings.norm.weight", "embeddings.LayerNorm.weight"),
        ("embeddings.norm.bias", "embeddings.LayerNorm.bias"),
        ("embeddings.projection.weight", "encoder.embedding_hidden_mapping_in.weight"),
        ("embeddings.projection.bias", "encoder.embedding_hidden_mapping_in.bias"),
        ("layers.0.attention.query.weight", f"{_LAYER}.attention.query.weight"),
        ("layers.0.attention.query.bias", f"{_LAYER}.attention.query.bias"),
        ("layers.0.attention.key.weight", f"{_LAYER}.attention.key.weight"),
        ("layers.0.attention.key.bias", f"{_LAYER}.attention.key.bias"),
        ("layers.0.attention.value.weight", f"{_LAYER}.attention.value.weight"),
        ("layers.0.attention.value.bias", f"{_LAYER}.attention.value.bias"),
        ("layers.0.attention.output.weight", f"{_LAYER}.attention.dense.weight"),
        ("layers.0.attention.output.bias", f"{_LAYER}.attention.dense.bias"),
        ("layers.0.attention_norm.weight", f"{_LAYER}.attention.LayerNorm.weight"),
        ("layers.0.attention_norm.bias", f"{_LAYER}.attention.LayerNorm.bias"),
        ("layers.0.mlp.up.weight", f"{_LAYER}.ffn.weight"),
        ("layers.0.mlp.up.bias", f"{_LAYER}.ffn.bias"),
        ("layers.0.mlp.down.weight", f"{_LAYER}.ffn_output.weight"),
        ("layers.0.mlp.down.bias", f"{_LAYER}.ffn_output.bias"),
        ("layers.0.mlp_norm.weight", f"{_LAYER}.full_layer_layer_norm.weight"),
        ("layers.0.mlp_norm.bias", f"{_LAYER}.full_layer_layer_norm.bias"),
        ("pooler.dense.weight", "pooler.weight"),
        ("pooler.dense.bias", "pooler.bias"),
    ),
    heads={
        "classify": (("head.output.weight", "classifier.weight"), ("head.output.bias", "classifier.bias")),
        "lm": (
            ("head.dense.weight", "predictions.dense.weight"),
            ("head.dense.bias", "predictions.dense.bias"),
            ("head.norm.weight", "predictions.LayerNorm.weight"),
            ("head.norm.bias", "predictions.LayerNorm.bias"),
            ("head.output.weight", "predictions.decoder.weight"),
            # Files have the bias under one name or both; where they differ, the untied decoder's counts.
            ("head.output.bias", "predictions.decoder.bias"),
            ("head.output.bias", "predictions.bias"),
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
    config=AlbertConfig,
    model=Albert,
    initialize=initialize,
    classes={
        "encode": "AlbertModel",
        "classify": "AlbertForSequenceClassification",
        "lm": "AlbertForMaskedLM",
    },
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
)
