"""ELECTRA: an encoder that learned to tell which words of a text were put there by another model (Clark et al. 2020,
"ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators").

The network is BERT's (``bert.py``), but for two things: it has no pooler, and a token's vector may be short, of width
``E``, and a matrix widens it to ``D``. If ``E = D``, there is no such matrix.

    x_0     = projection(norm(token[ids] + position[0..T-1] + segment[segments]))              (E) -> (D)
    a_l     = norm(x_l + attention(x_l))         attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

``Q``, ``K`` and ``V`` are three linear maps of x, cut into ``H`` heads (``gpt2.py`` explains attention).
``padding`` is minus infinity where the key is padding and 0 elsewhere. What is new is the task. BERT learns from the
15% of the words that are masked. Here a small BERT, the *generator*, fills masked words in, and the *discriminator*,
which is kept, learns from every word whether it is the original (section 2; the formulas are the published code's):

    generator       scores = norm(gelu(dense(y))) token^T + b                          dense: (D) -> (E)
    discriminator   p(replaced) = sigmoid(w . gelu(dense(y)) + b)                      at every position

    loss = cross-entropy(masked words, generator) + 50 cross-entropy(replaced or not, discriminator)

Both terms are means, over the masked words and over all words. A choice of two has a far smaller loss than one of
30,000, hence the 50. The generator's words are drawn at random by its scores, and no gradient passes through the draw:
it learns to fill in masked words, not to fool the discriminator, so this is no GAN.

Both share their tables of tokens and positions. A word that the generator guesses right counts as the original. Its
other words are plausible, so the discriminator gets hard questions, and one at every position: from the same amount of
computation it learns more than BERT. To classify texts, take the discriminator; to fill in words, the generator.

    which class?    scores = output(gelu(dense(y_0)))                                  at [CLS], position 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minilm.models.architecture import Architecture, Backbone, Names, Row
from minilm.models.batch import Batch, State
from minilm.models.bert import BertLayer, EncoderConfig, read
from minilm.models.dropout import Dropout
from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import draw_weights
from minilm.models.masks import padding_mask


@dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """ELECTRA's settings; the defaults are those of the small discriminator."""

    embedding_width: int = 128  # of the token embeddings, before they are projected to ``width``
    width: int = 256
    heads: int = 4
    mlp_width: int = 1024
    segments: int = 2  # kinds of segments
    head_dropout: float = 0.1  # in the family's classification head


class ElectraEmbeddings(nn.Module):
    """The sum of token, position and segment embeddings of width ``E``, projected to width ``D``."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.context, width)
        self.segment = nn.Embedding(config.segments, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.projection = nn.Identity() if width == config.width else nn.Linear(width, config.width)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). Without ``segments``, all tokens are in segment 0."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        one_text = segments is None or self.segment.num_embeddings == 1
        which = self.segment.weight[0] if one_text else self.segment(segments)  # (E,) or (B, T, E)
        x = self.token(ids) + which + self.position(positions)  # (B, T, E)
        return self.projection(self.dropout(self.norm(x)))


class Electra(Backbone):
    """The encoder, discriminator or generator."""

    config: ElectraConfig

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.embeddings = ElectraEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.depth))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    @property
    def context(self) -> int:
        return self.config.context

    def embed(self, batch: Batch) -> State:
        return State(self.embeddings(batch.ids, batch.positions, batch.segments))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        x, mask = state.x, padding_mask(batch)
        for i in range(first, last):
            x = self.layers[i](x, mask, self.query_position(batch, i))
        return replace(state, x=x)


def initialize(model: Electra) -> None:
    """As BERT's: N(0, 0.02^2) cut off at two deviations, zero biases, unit norms."""
    draw_weights(model, truncated=True)


# --- The published checkpoints ------------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "electra.", "lm": "electra."},
    rows=(
        Row("embeddings.token", "embeddings.word_embeddings"),
        Row("embeddings.position", "embeddings.position_embeddings"),
        Row("embeddings.segment", "embeddings.token_type_embeddings"),
        Row("embeddings.norm", "embeddings.LayerNorm"),
        Row("embeddings.projection", "embeddings_project", when=lambda c: c.embedding_width != c.width),
        Row("layers.{i}.attention.query", "encoder.layer.{i}.attention.self.query"),
        Row("layers.{i}.attention.key", "encoder.layer.{i}.attention.self.key"),
        Row("layers.{i}.attention.value", "encoder.layer.{i}.attention.self.value"),
        Row("layers.{i}.attention.output", "encoder.layer.{i}.attention.output.dense"),
        Row("layers.{i}.attention_norm", "encoder.layer.{i}.attention.output.LayerNorm"),
        Row("layers.{i}.mlp.up", "encoder.layer.{i}.intermediate.dense"),
        Row("layers.{i}.mlp.down", "encoder.layer.{i}.output.dense"),
        Row("layers.{i}.mlp_norm", "encoder.layer.{i}.output.LayerNorm"),
    ),
    heads={
        "classify": (Row("head.dense", "classifier.dense"), Row("head.output", "classifier.out_proj")),
        "lm": (
            Row("head.dense", "generator_predictions.dense"),
            Row("head.norm", "generator_predictions.LayerNorm"),
            Row("head.output", "generator_lm_head"),
        ),
    },
    ignored=("embeddings.position_ids", "discriminator_predictions.*"),  # a buffer of 0..T-1; was this word replaced?
)

ARCHITECTURE = Architecture(
    title="ELECTRA",
    config=ElectraConfig,
    model=Electra,
    initialize=initialize,
    classes={"encode": "ElectraModel", "classify": "ElectraForSequenceClassification", "lm": "ElectraForMaskedLM"},
    language_modeling="masked",
    names=NAMES,
    classification_head=lambda c: HeadConfig(
        pooling="cls", hidden=c.width, dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(c.embedding_width, "gelu", c.norm_eps, bias=True),
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
        ("head_dropout", "classifier_dropout"),
        ("norm_eps", "layer_norm_eps"),
        ("tied", "tie_word_embeddings"),
    ),
    read=read,
)
