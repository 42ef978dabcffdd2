"""DistilBERT: a BERT of half the depth that learned to imitate the whole one (Sanh et al. 2019).

The layers are BERT's, each followed by a norm ("post-norm"); segments and pooler are gone:

    x_0     = norm(token[ids] + position[0..T-1])
    a_l     = norm(x_l + attention(x_l))         attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

``padding`` is minus infinity where the key is padding and 0 elsewhere. The 6 layers began as every second one
of a trained BERT (the teacher). At masked words they learned to give the teacher's probabilities, softened by
a temperature, as well as the right words, in vectors that point where the teacher's do:

    loss = a KL(teacher || student) + b cross-entropy(words) + c (1 - cosine(y, y_teacher))

The language head is BERT's; a classifier reads the first token's vector, at [CLS]:

    which words were masked?    scores = norm(gelu(dense(y))) token^T + b
    which class?                scores = output(relu(dense(y_0)))

As a classifier reads only that position's vector, the last layer computes a query, and the MLP, for it alone; the other
positions contribute only keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minilm.models.heads import HeadConfig, LanguageConfig
from minilm.models.layers import MLP, Architecture, Attention, Batch, Names, State, padding_mask, pick, scores


@dataclass(frozen=True)
class DistilBertConfig:
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
    norm_eps: float = 1e-12  # the published class knows no other
    tied: bool = True  # a language head shares the token embedding


class DistilBertLayer(nn.Module):
    """One layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D); at (B,): (B, 1, D), those positions alone.

        Unlike in BERT, no dropout follows the attention's output projection."""
        x = self.attention_norm(pick(x, at) + self.attention(x, mask, at=at))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class DistilBertEmbeddings(nn.Module):
    """What a token is and where it stands, both learned."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.token(ids) + self.position(positions)))


class DistilBert(nn.Module):
    """The encoder, and the head that reads it where there is one: a classifier's, or a language model's."""

    def __init__(self, config: DistilBertConfig, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = DistilBertEmbeddings(config)
        self.layers = nn.ModuleList(DistilBertLayer(config) for _ in range(config.depth))
        self.head = head

    def embed(self, batch: Batch) -> State:
        """The state before the first layer; segments are not looked at."""
        return State(self.embeddings(batch.ids, batch.positions))

    def run(self, state: State, batch: Batch, first: int, last: int) -> State:
        """The state after layers ``first`` to ``last`` (exclusive)."""
        x, mask = state.x, padding_mask(batch)
        for index in range(first, last):
            at = batch.read if index == self.config.depth - 1 else None
            x = self.layers[index](x, mask, at)
        return replace(state, x=x)

    def finish(self, state: State) -> Tensor:
        """The finished vectors, (B, T or 1, D): the last layer's norm was the final one."""
        return state.x

    def forward(self, ids: Tensor | Batch, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D) without a head, (B, C) with a classifier's, (B, T, V) with a language model's."""
        return scores(self, Batch.of(ids, mask, segments))


def initialize(model: DistilBert) -> None:
    """N(0, 0.02), zero biases, unit norms. (The published model began as layers of BERT instead.)"""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints ------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "distilbert.", "lm": "distilbert."},
    rows=(
        ("embeddings.token.weight", "embeddings.word_embeddings.weight"),
        ("embeddings.position.weight", "embeddings.position_embeddings.weight"),
        ("embeddings.norm.weight", "embeddings.LayerNorm.weight"),
        ("embeddings.norm.bias", "embeddings.LayerNorm.bias"),
        ("layers.{i}.attention.query.weight", "transformer.layer.{i}.attention.q_lin.weight"),
        ("layers.{i}.attention.query.bias", "transformer.layer.{i}.attention.q_lin.bias"),
        ("layers.{i}.attention.key.weight", "transformer.layer.{i}.attention.k_lin.weight"),
        ("layers.{i}.attention.key.bias", "transformer.layer.{i}.attention.k_lin.bias"),
        ("layers.{i}.attention.value.weight", "transformer.layer.{i}.attention.v_lin.weight"),
        ("layers.{i}.attention.value.bias", "transformer.layer.{i}.attention.v_lin.bias"),
        ("layers.{i}.attention.output.weight", "transformer.layer.{i}.attention.out_lin.weight"),
        ("layers.{i}.attention.output.bias", "transformer.layer.{i}.attention.out_lin.bias"),
        ("layers.{i}.attention_norm.weight", "transformer.layer.{i}.sa_layer_norm.weight"),
        ("layers.{i}.attention_norm.bias", "transformer.layer.{i}.sa_layer_norm.bias"),
        ("layers.{i}.mlp.up.weight", "transformer.layer.{i}.ffn.lin1.weight"),
        ("layers.{i}.mlp.up.bias", "transformer.layer.{i}.ffn.lin1.bias"),
        ("layers.{i}.mlp.down.weight", "transformer.layer.{i}.ffn.lin2.weight"),
        ("layers.{i}.mlp.down.bias", "transformer.layer.{i}.ffn.lin2.bias"),
        ("layers.{i}.mlp_norm.weight", "transformer.layer.{i}.output_layer_norm.weight"),
        ("layers.{i}.mlp_norm.bias", "transformer.layer.{i}.output_layer_norm.bias"),
    ),
    heads={
        "classify": (
            ("head.dense.weight", "pre_classifier.weight"),
            ("head.dense.bias", "pre_classifier.bias"),
            ("head.output.weight", "classifier.weight"),
            ("head.output.bias", "classifier.bias"),
        ),
        "lm": (
            ("head.dense.weight", "vocab_transform.weight"),
            ("head.dense.bias", "vocab_transform.bias"),
            ("head.norm.weight", "vocab_layer_norm.weight"),
            ("head.norm.bias", "vocab_layer_norm.bias"),
            ("head.output.weight", "vocab_projector.weight"),
            ("head.output.bias", "vocab_projector.bias"),
        ),
    },
    old=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    # A buffer of 0..T-1, and the head of another task: where in a text is the answer.
    ignored=("embeddings.position_ids", "qa_outputs.*"),
)

ARCHITECTURE = Architecture(
    config=DistilBertConfig,
    model=DistilBert,
    initialize=initialize,
    classes={
        "encode": "DistilBertModel",
        "classify": "DistilBertForSequenceClassification",
        "lm": "DistilBertForMaskedLM",
    },
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
