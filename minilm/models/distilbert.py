"""DistilBERT: a BERT of half the depth that learned to imitate the whole one (Sanh et al. 2019, "DistilBERT,
a distilled version of BERT: smaller, faster, cheaper and lighter").

The layers are BERT's, each followed by a norm ("post-norm"); segments and pooler are gone:

    x_0     = norm(token[ids] + position[0..T-1])
    a_l     = norm(x_l + attention(x_l))         attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

``Q``, ``K`` and ``V`` are three linear maps of x, cut into ``H`` heads (``gpt2.py`` explains attention).
``padding`` is minus infinity where the key is padding and 0 elsewhere. The 6 layers began as every second one
of a trained BERT (the teacher). At every token they learned to give the teacher's probabilities, softened by a
temperature, and a vector that points where the teacher's does; at masked words, also the right word:

    loss = a KL(teacher || student) + b cross-entropy(words) + c (1 - cosine(y, y_teacher))

The language head is BERT's; a classifier reads the first token's vector, at [CLS]:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b
    which class?                scores = output(relu(dense(y_0)))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minilm.models.architecture import Architecture, Backbone, BackboneConfig, Names, Row
from minilm.models.batch import Batch, State, select_position
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Attention, draw_weights
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class DistilBertConfig(BackboneConfig):
    """DistilBERT's settings; the defaults are those of the base model, uncased."""

    vocab_size: int = 30522
    context: int = 512  # longest text, in tokens
    width: int = 768
    depth: int = 6
    heads: int = 12
    mlp_width: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1  # after the embeddings and each MLP
    attention_dropout: float = 0.1  # on the attention weights
    head_dropout: float = 0.2  # in the family's classification head
    norm_eps: float = 1e-12  # fixed in the published class
    tied: bool = True  # a language head shares the token embedding


class DistilBertLayer(nn.Module):
    """One layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, query_position: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D), or (B, 1, D) with a ``query_position`` (B,).

        Unlike in BERT, no dropout follows the attention's output projection.
        """
        y = self.attention(x, mask, query_position=query_position)
        x = self.attention_norm(select_position(x, query_position) + y)
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class DistilBertEmbeddings(nn.Module):
    """The sum of learned token and position embeddings."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.token(ids) + self.position(positions)))


class DistilBert(Backbone):
    """The encoder."""

    config: DistilBertConfig

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.embeddings = DistilBertEmbeddings(config)
        self.layers = nn.ModuleList(DistilBertLayer(config) for _ in range(config.depth))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, padding_mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, self.query_position(batch, i))
        return replace(state, x=x)


def initialize(model: DistilBert) -> None:
    """N(0, 0.02^2), zero biases, unit norms. (The published model began as layers of BERT instead.)"""
    draw_weights(model)


# --- The published checkpoints ------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "distilbert.", "lm": "distilbert."},
    rows=(
        Row("embeddings.token", "embeddings.word_embeddings"),
        Row("embeddings.position", "embeddings.position_embeddings"),
        Row("embeddings.norm", "embeddings.LayerNorm"),
        Row("layers.{i}.attention.query", "transformer.layer.{i}.attention.q_lin"),
        Row("layers.{i}.attention.key", "transformer.layer.{i}.attention.k_lin"),
        Row("layers.{i}.attention.value", "transformer.layer.{i}.attention.v_lin"),
        Row("layers.{i}.attention.output", "transformer.layer.{i}.attention.out_lin"),
        Row("layers.{i}.attention_norm", "transformer.layer.{i}.sa_layer_norm"),
        Row("layers.{i}.mlp.up", "transformer.layer.{i}.ffn.lin1"),
        Row("layers.{i}.mlp.down", "transformer.layer.{i}.ffn.lin2"),
        Row("layers.{i}.mlp_norm", "transformer.layer.{i}.output_layer_norm"),
    ),
    heads={
        "classify": (Row("head.dense", "pre_classifier"), Row("head.output", "classifier")),
        "lm": (
            Row("head.dense", "vocab_transform"),
            Row("head.norm", "vocab_layer_norm"),
            Row("head.output", "vocab_projector"),
        ),
    },
    old=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    # A buffer of 0..T-1, and the head of another task: where in a text is the answer.
    ignored=("embeddings.position_ids", "qa_outputs.*"),
)

ARCHITECTURE = Architecture(
    title="DistilBERT",
    config=DistilBertConfig,
    model=DistilBert,
    initialize=initialize,
    classes={
        "encode": "DistilBertModel",
        "classify": "DistilBertForSequenceClassification",
        "lm": "DistilBertForMaskedLM",
    },
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="cls", hidden=c.width, activation="relu", dropout=c.head_dropout),
    language_head=lambda c: LanguageConfig(c.width, c.activation, c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
        ("width", "dim", "hidden_size"),
        ("depth", "n_layers", "num_hidden_layers"),
        ("heads", "n_heads", "num_attention_heads"),
        ("mlp_width", "hidden_dim"),
        ("activation", "activation"),
        ("dropout", "dropout"),
        ("attention_dropout", "attention_dropout"),
        ("head_dropout", "seq_classif_dropout"),
        ("tied", "tie_word_embeddings"),
    ),
)
