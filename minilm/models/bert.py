"""BERT: an encoder that reads to both sides (Devlin et al. 2019). RoBERTa is one too (Liu et al. 2019).

Every position holds a vector of width ``D``. A token starts as the sum of what it is, where it stands and
which of two texts it belongs to. It passes through ``L`` layers; each adds to it what it gathered from all
positions, left and right (attention), then what it made of that (the MLP), and normalises both sums:

    x_0     = norm(token[ids] + position[0..T-1] + segment[segments])
    a_l     = norm(x_l + attention(x_l))         attention(Q, K, V) = softmax(Q K^T / sqrt(D/H) + padding) V
    x_{l+1} = norm(a_l + down(gelu(up(a_l))))
    y       = x_L

``padding`` is minus infinity where the key is padding and 0 elsewhere. ``norm`` brings the ``D`` numbers at each
position to mean 0 and variance 1, then scales and shifts each (LayerNorm, Ba et al. 2016). It comes after each
sublayer ("post-norm"), as in Vaswani et al. 2017, so ``y`` is normalised already.

A text is read as ``[CLS] text [SEP]``, a pair as ``[CLS] first [SEP] second [SEP]``; segments are 0 up to the
first [SEP] and 1 after it. To predict the next word teaches nothing to a model that sees it. BERT learned two
other tasks, each with its head (15% of the tokens were to be predicted, most of them hidden by a mask token):

    which word was masked here?     scores = norm(gelu(dense(y))) token^T + b            at every position
    does the second text follow?    scores = W tanh(dense(y_0)) + b                      at [CLS], position 0

The second head's ``tanh(dense(.))`` is the pooler. To classify texts, keep it and learn new ``W`` and ``b``. As only
the vector at position 0 is read then, the last layer computes a query, and the MLP, for it alone; the other positions
contribute only keys and values.

RoBERTa and XLM-RoBERTa (Conneau et al. 2020) learned only the first task, from more text: they have one kind
of segment, their classifiers use no pooler, and the first rows of their position table are not for tokens.
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
class BertConfig:
    """BERT's settings; the defaults are those of the base model, uncased."""

    vocab_size: int = 30522
    context: int = 512  # longest text, in tokens
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: str = "gelu"
    segments: int = 2  # kinds of segments
    first_position: int = 0  # the first token's row in the position table (RoBERTa: 2)
    pooler: bool = True  # a language model has none
    dropout: float = 0.1  # after the embeddings and each sublayer
    attention_dropout: float = 0.1  # on the attention weights
    head_dropout: float = 0.1  # in the family's classification head
    norm_eps: float = 1e-12
    tied: bool = True  # a language head shares the token embedding


class BertLayer(nn.Module):
    """One layer: attention to every position, then the MLP, each added to its input and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) -> (B, T, D); at (B,): (B, 1, D), those positions alone."""
        x = self.attention_norm(pick(x, at) + self.dropout(self.attention(x, mask, at=at)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class BertEmbeddings(nn.Module):
    """What a token is, where it stands and which text it belongs to, all learned."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.first_position = config.first_position
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.first_position + config.context, config.width)
        self.segment = nn.Embedding(config.segments, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, D). No ``segments``: all is one text, as always where there is one kind."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        where = self.position(positions + self.first_position)  # (T, D) for all texts, or (B, T, D)
        one_text = segments is None or self.segment.num_embeddings == 1
        which = self.segment.weight[0] if one_text else self.segment(segments)  # (D,) or (B, T, D)
        return self.dropout(self.norm(self.token(ids) + which + where))


class BertPooler(nn.Module):
    """A text's vector, made from its first token's."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D), the vectors at [CLS] -> (B, D)."""
        return torch.tanh(self.dense(x))


class Bert(nn.Module):
    """The encoder, and the head that reads it where there is one: a classifier's, or a language model's."""

    def __init__(self, config: BertConfig, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.depth))
        self.pooler = BertPooler(config) if config.pooler else None
        self.head = head

    def embed(self, batch: Batch) -> State:
        """The state before the first layer."""
        return State(self.embeddings(batch.ids, batch.positions, batch.segments))

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


def initialize(model: Bert) -> None:
    """As the paper's code draws them: N(0, 0.02) cut off at two deviations, zero biases, unit norms."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# --- The published checkpoints ------------------------------------------------------------------------------

NAMES = Names(
    prefix={"encode": "", "classify": "bert.", "lm": "bert."},
    rows=(
        ("embeddings.token.weight", "embeddings.word_embeddings.weight"),
        ("embeddings.position.weight", "embeddings.position_embeddings.weight"),
        ("embeddings.segment.weight", "embeddings.token_type_embeddings.weight"),
        ("embeddings.norm.weight", "embeddings.LayerNorm.weight"),
        ("embeddings.norm.bias", "embeddings.LayerNorm.bias"),
        ("layers.{i}.attention.query.weight", "encoder.layer.{i}.attention.self.query.weight"),
        ("layers.{i}.attention.query.bias", "encoder.layer.{i}.attention.self.query.bias"),
        ("layers.{i}.attention.key.weight", "encoder.layer.{i}.attention.self.key.weight"),
        ("layers.{i}.attention.key.bias", "encoder.layer.{i}.attention.self.key.bias"),
        ("layers.{i}.attention.value.weight", "encoder.layer.{i}.attention.self.value.weight"),
        ("layers.{i}.attention.value.bias", "encoder.layer.{i}.attention.self.value.bias"),
        ("layers.{i}.attention.output.weight", "encoder.layer.{i}.attention.output.dense.weight"),
        ("layers.{i}.attention.output.bias", "encoder.layer.{i}.attention.output.dense.bias"),
        ("layers.{i}.attention_norm.weight", "encoder.layer.{i}.attention.output.LayerNorm.weight"),
        ("layers.{i}.attention_norm.bias", "encoder.layer.{i}.attention.output.LayerNorm.bias"),
        ("layers.{i}.mlp.up.weight", "encoder.layer.{i}.intermediate.dense.weight"),
        ("layers.{i}.mlp.up.bias", "encoder.layer.{i}.intermediate.dense.bias"),
        ("layers.{i}.mlp.down.weight", "encoder.layer.{i}.output.dense.weight"),
        ("layers.{i}.mlp.down.bias", "encoder.layer.{i}.output.dense.bias"),
        ("layers.{i}.mlp_norm.weight", "encoder.layer.{i}.output.LayerNorm.weight"),
        ("layers.{i}.mlp_norm.bias", "encoder.layer.{i}.output.LayerNorm.bias"),
        ("pooler.dense.weight", "pooler.dense.weight"),
        ("pooler.dense.bias", "pooler.dense.bias"),
    ),
    heads={
        "classify": (("head.output.weight", "classifier.weight"), ("head.output.bias", "classifier.bias")),
        "lm": (
            ("head.dense.weight", "cls.predictions.transform.dense.weight"),
            ("head.dense.bias", "cls.predictions.transform.dense.bias"),
            ("head.norm.weight", "cls.predictions.transform.LayerNorm.weight"),
            ("head.norm.bias", "cls.predictions.transform.LayerNorm.bias"),
            ("head.output.weight", "cls.predictions.decoder.weight"),
            # Files have the bias under one name or both; where they differ, the untied decoder's counts.
            ("head.output.bias", "cls.predictions.decoder.bias"),
            ("head.output.bias", "cls.predictions.bias"),
        ),
    },
    old=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    # A buffer of 0..T-1, and heads of other tasks: does the second text follow (BERT, HerBERT), and where in
    # a text is the answer.
    ignored=("embeddings.position_ids", "cls.seq_relationship.*", "cls.sso.*", "qa_outputs.*"),
)


def read(published: dict[str, Any]) -> dict[str, Any]:
    """What no row says: a classifier's dropout is that of the layers, unless it has its own."""
    if published.get("is_decoder") or published.get("add_cross_attention"):
        raise UserError("config.json: is_decoder: a BERT that hides what lies to the right is not supported")
    if published.get("classifier_dropout") is None and "hidden_dropout_prob" in published:
        return {"head_dropout": published["hidden_dropout_prob"]}
    return {}


ARCHITECTURE = Architecture(
    config=BertConfig,
    model=Bert,
    initialize=initialize,
    classes={"encode": "BertModel", "classify": "BertForSequenceClassification", "lm": "BertForMaskedLM"},
    names=NAMES,
    classification_head=lambda c: HeadConfig(pooling="pooler", dropout=c.head_dropout),
    language_head=lambda c: LanguageConfig(c.width, c.activation, c.norm_eps, bias=True),
    settings=(
        ("vocab_size", "vocab_size"),
        ("context", "max_position_embeddings"),
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


# --- RoBERTa and XLM-RoBERTa --------------------------------------------------------------------------------
# In their position table, row pad_id is for padding and the rows before it are never used. Tokens begin at
# row pad_id + 1, and the longest text is that much shorter than the table.


def read_roberta(published: dict[str, Any]) -> dict[str, Any]:
    """BERT's, and where in the position table the tokens are."""
    first = published.get("pad_token_id", 1) + 1
    context = published.get("max_position_embeddings", 512) - first
    return {**read(published), "first_position": first, "context": context}


def write_roberta(config: BertConfig) -> dict[str, Any]:
    """The reverse: the length of the table, and which token pads."""
    rows = config.first_position + config.context
    return {"max_position_embeddings": rows, "pad_token_id": config.first_position - 1}


ROBERTA = replace(
    ARCHITECTURE,
    classes={
        "encode": "RobertaModel",
        "classify": "RobertaForSequenceClassification",
        "lm": "RobertaForMaskedLM",
    },
    names=NAMES._replace(
        prefix={"encode": "", "classify": "roberta.", "lm": "roberta."},
        heads={
            "classify": (
                ("head.dense.weight", "classifier.dense.weight"),
                ("head.dense.bias", "classifier.dense.bias"),
                ("head.output.weight", "classifier.out_proj.weight"),
                ("head.output.bias", "classifier.out_proj.bias"),
            ),
            "lm": (
                ("head.dense.weight", "lm_head.dense.weight"),
                ("head.dense.bias", "lm_head.dense.bias"),
                ("head.norm.weight", "lm_head.layer_norm.weight"),
                ("head.norm.bias", "lm_head.layer_norm.bias"),
                ("head.output.weight", "lm_head.decoder.weight"),
                ("head.output.bias", "lm_head.decoder.bias"),
                ("head.output.bias", "lm_head.bias"),
            ),
        },
    ),
    classification_head=lambda c: HeadConfig(
        pooling="cls", hidden=c.width, activation="tanh", dropout=c.head_dropout, input_dropout=c.head_dropout
    ),
    language_head=lambda c: LanguageConfig(c.width, "gelu", c.norm_eps, bias=True),
    settings=tuple(row for row in ARCHITECTURE.settings if row[0] != "context"),
    read=read_roberta,
    write=write_roberta,
)

XLM_ROBERTA = replace(ROBERTA, classes={task: f"XLM{name}" for task, name in ROBERTA.classes.items()})
